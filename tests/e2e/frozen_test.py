#!/usr/bin/python3
"""The journal's disk stops answering (its file system is frozen) while large messages are on
their way to the spill: other sessions are told to come back within their time, new ones are
greeted, mailwald takes mail again when the disk does, and every message it took is there. By
the native milter and through the proxy, where one thread serves many clients."""
# MW_TEST_COST 30

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import milterclient
import rig as rigs
import smtp
import tap

LARGE, SMALL = 6, 8
PIECES = 60  # of 64 KB: beyond what stays in memory


class Frozen:
	"""An ext4 of its own in a file, frozen while the block runs."""

	def __init__(self, directory):
		self.image, self.at = f"{directory}/image", f"{directory}/mount"
		os.makedirs(self.at)
		with open(self.image, "wb") as f:
			f.truncate(300 << 20)
		subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
		self.mounted = subprocess.run(["mount", "-o", "loop", self.image, self.at],
					      check=False, capture_output=True).returncode == 0

	def __enter__(self):
		subprocess.run(["fsfreeze", "-f", self.at], check=True)

	def __exit__(self, *_):
		subprocess.run(["fsfreeze", "-u", self.at], check=True)

	def done(self):
		subprocess.run(["umount", "-l", self.at], check=False)


class Next(threading.Thread):
	"""A mail server that takes all, with one thread a client."""

	def __init__(self):
		super().__init__(daemon=True)
		import socketserver  # pylint: disable=import-outside-toplevel

		class Handler(socketserver.StreamRequestHandler):
			def handle(self):
				self.wfile.write(b"220 next\r\n")
				content = False
				for line in self.rfile:
					if content:
						content = line != b".\r\n"
						if not content:
							self.wfile.write(b"250 kept\r\n")
					elif line[:4].upper() == b"EHLO":
						self.wfile.write(b"250-next\r\n250 PIPELINING\r\n")
					elif line[:4].upper() == b"DATA":
						content = True
						self.wfile.write(b"354 go\r\n")
					else:
						self.wfile.write(b"250 ok\r\n")

		class Server(socketserver.ThreadingTCPServer):
			allow_reuse_address, daemon_threads = True, True

		self.server = Server(("127.0.0.1", 0), Handler)
		self.port = self.server.server_address[1]

	def run(self):
		self.server.serve_forever()


def many(work, items):
	"""{item's number: what work said of it}, all at once."""
	said = {}

	def one(k, x):
		try:
			said[k] = work(k, x)
		except (OSError, EOFError, AssertionError, smtp.SmtpError) as e:
			said[k] = repr(e)

	pool = [threading.Thread(target=one, args=p, daemon=True) for p in enumerate(items)]
	for p in pool:
		p.start()
	until = time.monotonic() + tap.PATIENCE
	for p in pool:
		p.join(max(0, until - time.monotonic()))
	return dict(said)


def milter_piece(c):
	for _ in range(PIECES):
		c.step(b"B", os.urandom(30000).hex().encode() + b"\r\n", 0x80000)


def by_milter(t, a, disk):
	conns = [milterclient.Conn(a.sock) for _ in range(SMALL)]
	large = [milterclient.Conn(a.sock) for _ in range(LARGE)]
	for k, c in enumerate(large):
		c.envelope(f"LARGE{k}")
	with disk:
		feeding = threading.Thread(target=many, args=(lambda _, c: milter_piece(c), large),
					   daemon=True)
		feeding.start()
		time.sleep(1)  # so that some are in the disk's hands; nothing hangs on it

		def small(k, c):
			c.envelope(f"SMALL{k}")
			return c.end()

		began = time.monotonic()
		said = many(small, conns)
		took = time.monotonic() - began
		t.ok(all(x in (b"t", b"y") for x in said.values()) and len(said) == SMALL,
		     f"milter: small ones are told to come back, after {took:.1f} s", said)
		t.ok(took < 60, "milter: within their time", took)
	feeding.join(tap.PATIENCE)

	def finish(_, c):
		return c.end()

	said = many(finish, large)
	t.ok(len(said) == LARGE, "milter: and the large ones get an answer", said)
	return {f"LARGE{k}" for k, x in said.items() if x == b"c"}


def by_proxy(t, port, disk):
	clients = [smtp.Client(port) for _ in range(SMALL)]
	large = [smtp.Client(port) for _ in range(LARGE)]
	for c in large:
		c.cmd(b"MAIL FROM:<a@remote.test>", 250)
		c.cmd(b"RCPT TO:<anna@example.test>", 250)
		c.cmd(b"DATA", 354)
	with disk:
		def feed(_, c):
			for _ in range(PIECES):
				c.sock.sendall(os.urandom(30000).hex().encode() + b"\r\n")

		feeding = threading.Thread(target=many, args=(feed, large), daemon=True)
		feeding.start()
		time.sleep(1)

		def small(k, c):
			return c.mail(b"Subject: small\r\n\r\ntext\r\n", "a@remote.test",
				      ["anna@example.test"])

		began = time.monotonic()
		said = many(small, clients)
		took = time.monotonic() - began
		t.ok(all("45" in str(x) or "42" in str(x) for x in said.values())
		     and len(said) == SMALL,
		     f"proxy: small ones are told to come back, after {took:.1f} s", said)
		t.ok(took < 60, "proxy: within their time", took)
		greeted = many(lambda *_: smtp.Client(port) and "greeted", range(4))
		t.ok(list(greeted.values()) == ["greeted"] * 4, "proxy: new clients are greeted",
		     greeted)
	feeding.join(tap.PATIENCE)


def main(t):
	d = pathlib.Path(t.sub("frozen"))
	disk = Frozen(d)
	if not disk.mounted:
		t.skip("no loop device can be mounted here")
		return
	nxt, port = Next(), rigs.free_ports(1)[0]
	nxt.start()
	try:
		with alone.Alone(d, "commit_timeout = 2s", "proxy_listen = "
				 f'"smtp:inet:127.0.0.1:{port}->inet:127.0.0.1:{nxt.port}"',
				 journal=f"{disk.at}/journal") as a:
			taken = by_milter(t, a, disk)
			by_proxy(t, port, disk)
			rigs.wait_for("the disk to be well", lambda: not _refused(a))
			t.ok(True, "then mail is taken again")
			rc, out, err = a.mailwal("verify")
			t.ok(rc == 0, "verify", (out, err))
			out = a.mailwal("list", "--all", "--json")[1]
			missing = [q for q in taken if f'"{q}"' not in out]
			t.ok(not missing, f"the {len(taken)} large ones that were taken are there",
			     missing)
		t.ok(a.ended == 0, "and it ends as it should", a.ended)
	finally:
		disk.done()


def _refused(a):
	try:
		a.mail(f"AFTER{time.monotonic_ns()}")
	except (AssertionError, EOFError, OSError):
		return True
	return False


# In a mount namespace of its own: however this ends, no frozen file system stays behind.
if os.geteuid() == 0 and "MW_UNSHARED" not in os.environ and shutil.which("unshare"):
	os.environ["MW_UNSHARED"] = "1"
	os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])
tap.run(main)
