#!/usr/bin/python3
"""One message of 100 MB and one to 20,000 recipients through each way of the proxy, and as a
milter: bounded memory, the right record, the same bytes at the next server."""
# MW_TEST_COST 40

import base64
import hashlib
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import listener
import milterclient
import rig as rigs
import tap

LARGE, PIECE, MANY = 100 << 20, 1 << 20, 20000
MORE = 32 << 10  # KiB that one such message may take for itself
CHUNK = re.compile(rb"BDAT (\d+)( LAST)?\r\n", re.I)


class Next(listener.Listener):
	"""A next server; `taken` is the SHA-256 of the last content, `rcpts` how many had it."""

	def __init__(self, lmtp):
		self.lmtp, self.taken, self.rcpts = lmtp, None, 0
		super().__init__()

	def serve(self, sock):
		with sock, sock.makefile("rwb", buffering=1 << 18) as f:
			f.write(b"220 next\r\n")
			f.flush()
			rcpts, sha = 0, hashlib.sha256()
			for line in f:
				chunk = CHUNK.fullmatch(line)
				if chunk:
					left = int(chunk[1])
					while left:
						got = f.read(min(left, 1 << 18))
						if not got:
							raise ValueError("it broke off")
						sha.update(got)
						left -= len(got)
				elif line.upper() == b"DATA\r\n":
					f.write(b"354 go\r\n")
					f.flush()
					self._content(f, sha)
				rcpts += line.startswith(b"RCPT")
				if line[:4] in (b"EHLO", b"LHLO"):
					f.write(b"250-next\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
				elif line.upper() == b"DATA\r\n" or chunk and chunk[2]:
					self.taken, self.rcpts = sha.hexdigest(), rcpts
					f.write(b"250 2.0.0 Ok\r\n" * (rcpts if self.lmtp else 1))
					rcpts, sha = 0, hashlib.sha256()
				else:
					f.write(b"250 Ok\r\n")
				f.flush()

	@staticmethod
	def _content(f, sha):
		"""No line of it begins with a dot, and nothing comes behind the last."""
		last = b""
		while not last.endswith(b"\r\n.\r\n"):
			got = f.read1(1 << 18)
			if not got:
				raise ValueError("it broke off")
			last += got
			sha.update(last[:-5])
			last = last[-5:]
		sha.update(b"\r\n")


class Memory(threading.Thread):
	"""The most that a process has of its own, in KiB, beyond what it had at first."""

	def __init__(self, pid):
		super().__init__(daemon=True)
		self.pid, self.ended = pid, threading.Event()
		self.before = self.most = self.own()

	def own(self):
		with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
			return next(int(x.split()[1]) for x in f if x.startswith("RssAnon:"))

	def run(self):
		while not self.ended.wait(0.02):
			self.most = max(self.most, self.own())

	def __enter__(self):
		self.start()
		return self

	def __exit__(self, *_):
		self.ended.set()
		self.join()


class Wire:
	def __init__(self, port, lmtp):
		self.sock = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
		self.file = self.sock.makefile("rb")
		self.lmtp = lmtp
		self.reply()
		self.say(b"LHLO c.test" if lmtp else b"EHLO c.test")

	def reply(self):
		while True:
			line = self.file.readline()
			if line[3:4] != b"-":
				return int(line[:3] or 0)

	def say(self, line):
		self.sock.sendall(line + b"\r\n")
		return self.reply()

	def envelope(self, n):
		"""True: each recipient is taken."""
		sent = threading.Thread(target=self.sock.sendall, args=(
			b"MAIL FROM:<a@remote.test>\r\n" + b"".join(
				b"RCPT TO:<r%d@example.test>\r\n" % i for i in range(n)),))
		sent.start()
		codes = {self.reply() for _ in range(n + 1)}
		sent.join()
		return codes == {250}

	def data(self, pieces):
		assert self.say(b"DATA") == 354
		for p in pieces:
			self.sock.sendall(p)
		return self.say(b".")

	def bdat(self, pieces):
		for p in pieces:
			self.sock.sendall(b"BDAT %d\r\n" % len(p) + p)
			if self.reply() != 250:
				return 0
		return self.say(b"BDAT 0 LAST")

	def rest(self, n):
		"""The replies for the other recipients of LMTP."""
		return all(self.reply() == 250 for _ in range(n - 1 if self.lmtp else 0))

	def close(self):
		self.file.close()
		self.sock.close()


def pieces(pool, name):
	"""About 100 MB, of which nothing gets smaller; no line begins with a dot."""
	yield b"Message-ID: <%s@remote.test>\r\nSubject: x\r\n\r\n" % name.encode()
	for i in range(LARGE // PIECE):
		yield pool[(i * 7 + len(name)) % len(pool)]


def judge(t, a, way, mem, took):
	grew = mem.most - mem.before
	t.ok(grew < MORE or alone.sanitized(), f"{way}: its memory",
	     f"{mem.before} KiB before, {grew} more")
	t.note(f"{way}: {grew} KiB more at most, {took:.1f} s")
	rc, out, err = a.mailwal("list", "--json", "--message-id", f"<{way}@remote.test>")
	rows = [json.loads(x) for x in out.splitlines()]
	t.equal((rc, len(rows)), (0, 1), f"{way}: records {err}")
	return rows[0] if rows else {"sha256": "", "recipients": []}


def large(t, a, pool, way, port, server):
	sha, n = hashlib.sha256(), 3
	for p in pieces(pool, way):
		sha.update(p)
	began = time.monotonic()
	with Memory(a.proc.pid) as mem:
		c = Wire(port, server.lmtp)
		t.ok(c.envelope(n), f"{way}: envelope")
		send = c.bdat if way.endswith("bdat") else c.data
		t.equal(send(pieces(pool, way)), 250, f"{way}: 100 MB")
		t.ok(c.rest(n), f"{way}: and for each recipient")
		c.close()
	row = judge(t, a, way, mem, time.monotonic() - began)
	t.equal((row["sha256"], server.taken), (sha.hexdigest(),) * 2, f"{way}: the same bytes")


def many(t, a, way, port, server):
	began = time.monotonic()
	with Memory(a.proc.pid) as mem:
		c = Wire(port, server.lmtp)
		t.ok(c.envelope(MANY), f"{way}: each of {MANY} recipients")
		got = c.data([b"Message-ID: <%s@remote.test>\r\n\r\nx\r\n" % way.encode()])
		t.equal(got, 250, f"{way}: taken")
		t.ok(c.rest(MANY), f"{way}: a reply for each")
		c.close()
	row = judge(t, a, way, mem, time.monotonic() - began)
	everybody = [f"r{i}@example.test" for i in range(MANY)]
	t.ok(row["recipients"] == everybody, f"{way}: the recipients", len(row["recipients"]))
	t.equal(server.rcpts, MANY, f"{way}: recipients at the next server")


def as_milter(t, a, pool):
	began, sha = time.monotonic(), hashlib.sha256(b"Subject: x\r\nMessage-ID: "
						      b"<milter@remote.test>\r\n\r\n")
	rcpts = [f"r{i}@example.test" for i in range(MANY)]
	with Memory(a.proc.pid) as mem:
		c = milterclient.Conn(a.sock)
		c.envelope("LARGE", body=b"x\r\n", rcpts=rcpts,
			   headers=[("Message-ID", "<milter@remote.test>")])
		sha.update(b"x\r\n")
		for i in range(LARGE // PIECE):
			p = pool[i % len(pool)]
			sha.update(p)
			for at in range(0, len(p), 65535):
				c.step(b"B", p[at:at + 65535], 0x80000)
		t.equal(c.end(), b"c", f"milter: 100 MB to {MANY} recipients")
		c.sock.close()
	row = judge(t, a, "milter", mem, time.monotonic() - began)
	t.ok(row["recipients"] == rcpts, "milter: the recipients", len(row["recipients"]))
	t.equal(row["sha256"], sha.hexdigest(), "milter: the same bytes")


def main(t):
	d = pathlib.Path(t.sub("large"))
	smtp_port, lmtp_port = rigs.free_ports(2)
	pool = [base64.encodebytes(os.urandom(PIECE * 3 // 4)).replace(b"\n", b"\r\n")
		for _ in range(16)]
	with Next(False) as plain, Next(True) as lmtp, alone.Alone(
			d, f"proxy_listen = smtp:inet:127.0.0.1:{smtp_port}->"
			f"inet:127.0.0.1:{plain.port}, lmtp:inet:127.0.0.1:{lmtp_port}->"
			f"inet:127.0.0.1:{lmtp.port}") as a:
		for port in (smtp_port, lmtp_port):
			rigs.wait_for("the proxy", lambda port=port: rigs.connects(port), alive=a.proc)
		large(t, a, pool, "smtp", smtp_port, plain)
		large(t, a, pool, "smtp.bdat", smtp_port, plain)
		large(t, a, pool, "lmtp", lmtp_port, lmtp)
		large(t, a, pool, "lmtp.bdat", lmtp_port, lmtp)
		many(t, a, "smtp.many", smtp_port, plain)
		many(t, a, "lmtp.many", lmtp_port, lmtp)
		as_milter(t, a, pool)
	t.equal(a.ended, 0, "exit status")


tap.run(main)
