"""spfhelper - mailwald's side of the packets that mailwald-spf speaks, and its zone files.

    with Helper(program, zone_path) as h:
        answer = h.ask("192.0.2.1", "helo.test", "a@b.test")
"""

import os
import socket
import subprocess
import urllib.parse

from tap import PATIENCE

FIELDS = ("result", "code", "record", "explanation", "reason", "library")


class Died(Exception):
	"""The helper ended, or said nothing in time, in place of an answer."""


def quote(text):
	"""A name or a value as the zone file has it."""
	if isinstance(text, bytes):
		return urllib.parse.quote_from_bytes(text, safe="-_./:@*=+~?!,|;()<>[]{}&$'\"")
	return quote(text.encode("latin-1", "replace"))


class Helper:
	def __init__(self, program, zone, *args):
		self.argv = [program, "--zone", str(zone), "--host", "receiver.test", *args]
		self.sock = self.proc = None

	def start(self):
		mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		# the helper's end must be 3: a shell moves it there
		self.proc = subprocess.Popen(
			["/bin/sh", "-c", f'exec 3<&{theirs.fileno()}; exec "$@"', "sh", *self.argv],
			pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
		theirs.close()
		self.sock = mine
		return self

	def send(self, *fields):
		self.sock.send(b"".join(
			(f if isinstance(f, bytes) else f.encode("latin-1", "replace")) + b"\0"
			for f in fields))

	def ask(self, ip, helo, sender, ms=10000, wait=PATIENCE):
		if self.proc is None:
			self.start()
		self.sock.settimeout(wait)
		try:
			self.send(str(ms), ip, helo, sender)
			got = self.sock.recv(65536)
		except OSError as e:
			got = b""
			why = str(e)
		else:
			why = "closed"
		if not got:
			self.stop()
			raise Died(f"{why}, exit status {self.status}")
		parts = got.split(b"\0")
		assert len(parts) == len(FIELDS) + 1 and parts[-1] == b"", got
		return dict(zip(FIELDS, parts))

	def stop(self):
		if self.proc is None:
			return
		self.sock.close()
		try:
			self.status = self.proc.wait(PATIENCE)
		except subprocess.TimeoutExpired:
			self.proc.kill()
			self.status = self.proc.wait()
		self.sock = self.proc = None

	def __enter__(self):
		return self.start()

	def __exit__(self, *_):
		self.stop()


def program():
	build = os.environ.get("MW_BUILD")
	return os.path.join(build, "milter", "mailwald-spf") if build else None
