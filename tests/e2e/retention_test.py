#!/usr/bin/python3
"""Retention by class with the real mailwald: capture sections give mail its class, header
and spam words of retain sections are found out as it comes, and prune, which has no key,
goes by them, beside the daemon that takes mail meanwhile."""
# MW_TEST_COST 15

import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

SECTIONS = """
capture boss { match = rcpt:boss@example.test }
capture junk { match = header:X-Spam spam:yes }
retain junk { match = class:junk; keep = 1s }
retain lists { match = header:List-Id; keep = 1s }
retain large { match = larger:300K spam:no; keep = 1s }
retain rest { keep = 10d }
"""
JUNK = [("X-Spam", "yes")]


class Site:
	"""mailwald alone, with a journal that nobody here can read."""

	def __init__(self, directory, *settings):
		self.dir = pathlib.Path(directory)
		self.journal = self.dir / "journal"
		self.sock = f"/tmp/mw-retention-{os.getpid()}.sock"
		self.conf, self.log, self.key = (self.dir / n for n in ("conf", "log", "key"))
		self.settings, self.proc = settings, None

	def configure(self, text):
		lines = [f'journal_dir = "{self.journal}"', f"milter_listen = unix:{self.sock}",
			 "min_free = 0", "log_target = stderr", "local_domains = example.test",
			 "prune_floor = 0", f'recovery_key = "{self.key}.pub"', *self.settings, text]
		self.conf.write_text("\n".join(lines) + "\n", encoding="utf-8")

	def __enter__(self):
		self.configure("")
		p = subprocess.run([rigs.find_program("mailwal"), "keys", "new", "--out", self.key,
				    "--on-this-host"],
				   capture_output=True, check=False)
		assert p.returncode == 0, p.stderr
		self.configure(SECTIONS)
		assert self.mailwal("init")[0] == 0
		with open(self.log, "ab") as log:
			self.proc = subprocess.Popen([rigs.find_program("mailwald"), "-c", self.conf],
						     stderr=log, stdin=subprocess.DEVNULL,
						     preexec_fn=rigs.die_with_parent)
		rigs.wait_for("mailwald", lambda: rigs.connects(self.sock), alive=self.proc)
		return self

	def __exit__(self, *_):
		if self.proc and self.proc.poll() is None:
			self.proc.send_signal(signal.SIGTERM)
			self.proc.wait(tap.PATIENCE)
		if os.path.exists(self.sock):
			os.unlink(self.sock)

	def mailwal(self, *args):
		p = subprocess.run([rigs.find_program("mailwal"), "-c", self.conf, *map(str, args)],
				   capture_output=True, timeout=tap.PATIENCE, check=False, stdin=subprocess.DEVNULL)
		return p.returncode, p.stdout.decode(), p.stderr.decode()

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


def by_class(t):
	with Site(t.sub("class")) as s:
		s.send("PLAIN", "anna@example.test")
		s.send("JUNK", "anna@example.test", headers=JUNK)
		s.send("BOTH", "anna@example.test", "boss@example.test", headers=JUNK)
		s.send("BOSS", "boss@example.test", headers=JUNK)
		s.send("LIST", "anna@example.test", headers=[("List-Id", "news")])
		s.send("LARGE", "anna@example.test", size=400000)
		o = json.loads(s.mailwal("--key", s.key, "show", "BOTH", "--json")[1])
		t.equal(o["classes"], ["boss", "junk"], "the record says of which classes it is")
		rc, text, _ = s.mailwal("--key", s.key, "show", "JUNK")
		t.ok(rc == 0 and "class" in text and "junk" in text, "show tells the class", text)
		s.due("large", 1)
		rows = s.due("junk", 1)
		got = {k: (v["messages"], v["remove"]) for k, v in rows.items()}
		t.equal(got, {"junk": (2, 1), "lists": (1, 1), "large": (1, 1), "rest": (2, 0),
			      "(no rule)": (0, 0), "all": (6, 3)},
			"a table per class; who is of two classes stays as the longest rule wants")
		rc, text, err = s.mailwal("prune", "--dry-run")
		t.ok(rc == 0 and "RULE" in text and "3 messages would go" in text, "a dry run", text)
		rc, text, err = s.mailwal("prune", "--yes")
		t.ok(rc == 0 and "3 messages removed" in text, "prune beside the daemon", (rc, text, err))
		t.equal(s.names(), ["BOSS", "BOTH", "PLAIN"], "what is gone and what is there")
		s.send("AFTER", "anna@example.test", headers=JUNK)
		t.ok("AFTER" in s.names(), "and mail comes in")
		t.equal(s.mailwal("verify")[0], 0, "verify finds nothing wrong")
		# A rule that was not there when the mail came does not guess.
		s.configure(SECTIONS + "\nretain late { match = header:X-Spam; keep = 1s }\n")
		s.due("junk", 1)
		t.equal({o["rule"]: o["remove"] for o in s.lines("prune", "-n") if "rule" in o}["late"],
			0, "a word that nobody asked for at capture fits nothing")


def main(t):
	by_class(t)


if __name__ == "__main__":
	sys.exit(tap.run(main))
