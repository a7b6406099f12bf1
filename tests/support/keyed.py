"""keyed - mailwald alone, with a journal that nobody here can read without the key beside it.

    with Keyed(directory, sections="retain all { keep = 1s }") as s:
        s.send("Q1", "anna@example.test"); s.roll(); s.names()

Lines given besides are settings.
"""

import json
import os
import socket
import subprocess

import alone
import milterclient
import rig as rigs

JUNK = [("X-Spam", "yes")]


def files(journal):
	return sorted((journal / "segments").glob("*.seg"))


class Keyed(alone.Alone):
	"""sections: of the configuration, at first; key: that of a journal that is there."""

	def __init__(self, directory, *settings, sections="", key=None):
		super().__init__(directory)
		self.settings, self.sections = settings, sections
		self.there, self.key = key is not None, key or self.dir / "key"

	def configure(self, text):
		"""Settings and sections in place of those of before, to be read again."""
		lines = [f'journal_dir = "{self.journal}"', f"milter_listen = unix:{self.sock}",
			 "min_free = 0", "log_target = stderr", "local_domains = example.test",
			 "prune_floor = 0", f'recovery_key = "{self.key}.pub"', *self.settings, text]
		self.conf.write_text("\n".join(lines) + "\n", encoding="utf-8")

	def __enter__(self):
		if self.there:
			self.configure(self.sections)
			self.start()
			return self
		subprocess.run([rigs.find_program("mailwal"), "keys", "new", "--out", self.key,
				"--on-this-host"], stdout=subprocess.DEVNULL, check=True)
		self.configure(self.sections)
		return super().__enter__()

	def lines(self, *args, ok=(0,)):
		rc, out, err = self.mailwal("--json", *args)
		assert rc in ok, (args, rc, out, err)
		return [json.loads(x) for x in out.splitlines()]

	def send(self, queue_id, *rcpts, headers=(), size=1000):
		c = milterclient.Conn(self.sock)
		c.envelope(queue_id, rcpts=rcpts, headers=headers,
			   body=os.urandom(size // 2).hex().encode() + b"\r\n")
		got = c.end()
		c.sock.close()
		assert got == b"c", got

	def roll(self):
		"""The next message begins a segment."""
		with socket.socket(socket.AF_UNIX) as c:
			c.settimeout(rigs.PATIENCE)
			c.connect(str(self.journal / "control.sock"))
			c.sendall(b"roll\n")
			got = c.makefile("rb").readline()
		assert got.startswith(b"ok"), got

	def names(self):
		return sorted(o["queue_id"] for o in self.lines("--key", self.key, "list", "--all")
			      if "queue_id" in o)

	def due(self, rule, n):
		"""Waits until prune would remove that many by that rule; the plan's rows."""
		rows = {}

		def look():
			rows.update({o.get("rule", "all"): o for o in self.lines("prune", "-n")})
			return rows[rule]["remove"] == n
		rigs.wait_for(f"{n} of rule {rule}", look, alive=self.proc)
		return rows
