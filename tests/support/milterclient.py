"""milterclient - the MTA's side of the milter protocol, for tests without an MTA."""

import re
import socket
import struct
import threading
import time

from tap import PATIENCE


def connect(where):
	"""To a path, or a host and port."""
	sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
	sock.settimeout(PATIENCE)
	sock.connect(where)
	return sock


class Conn:
	"""One connection that has negotiated and asks for as few replies as it may."""

	def __init__(self, where):
		self.sock = connect(where)
		self.send(b"O", struct.pack(">III", 6, 0x1ff, 0x1fffff))
		cmd, data = self.reply()
		assert cmd == b"O", cmd
		self.steps = struct.unpack(">III", data[:12])[2]

	def send(self, cmd, data=b""):
		self.sock.sendall(struct.pack(">I", len(data) + 1) + cmd + data)

	def reply(self):
		out = b""
		while len(out) < 4 or len(out) < 4 + struct.unpack(">I", out[:4])[0]:
			got = self.sock.recv(65536)
			if not got:
				raise EOFError("the milter closed the connection")
			out += got
		return out[4:5], out[5:]

	def step(self, cmd, data, noreply):
		"""Sends and, unless the milter said that it will not answer, waits."""
		self.send(cmd, data)
		if not self.steps & noreply:
			got = self.reply()[0]
			assert got == b"c", got

	def envelope(self, queue_id, body=b"body\r\n", sender="a@remote.test", addr="192.0.2.1",
		     helo="client.test", connect=True, rcpts=("anna@example.test",),
		     headers=()):
		"""Everything up to, not including, end of message."""
		if connect:
			family = b"6" if ":" in addr else b"4"
			self.step(b"C", b"client.test\0" + family + struct.pack(">H", 1234)
				  + addr.encode() + b"\0", 0x1000)
			self.step(b"H", helo.encode("latin-1") + b"\0", 0x2000)
		self.step(b"M", b"<" + sender.encode("latin-1") + b">\0", 0x4000)
		for rcpt in rcpts:
			self.step(b"R", b"<" + rcpt.encode("latin-1") + b">\0", 0x8000)
		self.send(b"D", b"Ti\0" + queue_id.encode() + b"\0")
		self.step(b"T", b"", 0x10000)
		for name, value in (("Subject", "x"), *headers):
			self.step(b"L", f"{name}\0 {value}\0".encode(), 0x80)
		self.step(b"N", b"", 0x40000)
		self.step(b"B", body, 0x80000)

	def end(self):
		self.send(b"E")
		return self.reply()[0]


def burst(path, n):
	"""Seconds until the last of n simultaneous ends of message is answered."""
	conns = [Conn(path) for _ in range(n)]
	stamp = time.time_ns()
	for i, c in enumerate(conns):
		c.envelope(f"Q{stamp}{i}")
	done, gate = [], threading.Barrier(n + 1)

	def one(c):
		gate.wait()
		c.send(b"E")
		assert c.reply()[0] == b"c"
		done.append(time.monotonic())

	threads = [threading.Thread(target=one, args=(c,)) for c in conns]
	for t in threads:
		t.start()
	gate.wait()
	began = time.monotonic()
	for t in threads:
		t.join()
	for c in conns:
		c.sock.close()
	assert len(done) == n, f"{n - len(done)} without an answer"
	return max(done) - began


FIELD = re.compile(rb"([!-9;-~][ -9;-~]*):([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|$)")


def packets(data):
	"""(header packets, body) of a message as an MTA would hand it over: the leading
	lines that look like fields, with their white space; from the first that does not, or
	the empty line, it is body."""
	head, at = [], 0
	while True:
		m = FIELD.match(data, at)
		if not m or m.group(1).startswith(b"From "):
			break
		value = m.group(2).replace(b"\r\n", b"\n")
		head.append((m.group(1), value[:-1] if value.endswith(b"\r") else value))
		at = m.end()
	for eol in (b"\r\n", b"\n"):
		if data.startswith(eol, at):
			at += len(eol)
			break
	return head, data[at:]


def journal(path, mails, sender="w@remote.test", threads=8):
	"""Hands (queue ID, recipient, bytes) over, several connections at once; the queue IDs
	that were taken."""
	todo, taken, lock = list(reversed(mails)), [], threading.Lock()

	def work():
		c, first = Conn(path), True
		while True:
			with lock:
				if not todo:
					return
				qid, rcpt, data = todo.pop()
			_one(c, first, qid, rcpt, data, sender)
			first = False
			if c.end() in b"ac":
				with lock:
					taken.append(qid)

	pool = [threading.Thread(target=work) for _ in range(threads)]
	for t in pool:
		t.start()
	for t in pool:
		t.join()
	return taken


def _one(c, first, qid, rcpt, data, sender):
	head, body = packets(data)
	if first:
		c.step(b"C", b"client.test\x004" + struct.pack(">H", 1234) + b"192.0.2.1\0", 0x1000)
		c.step(b"H", b"client.test\0", 0x2000)
	c.step(b"M", b"<" + sender.encode() + b">\0", 0x4000)
	c.step(b"R", b"<" + rcpt.encode() + b">\0", 0x8000)
	c.send(b"D", b"Ti\0" + qid.encode() + b"\0")
	c.step(b"T", b"", 0x10000)
	for name, value in head:
		# a milter's strings end at NUL
		c.step(b"L", name + b"\0" + value.replace(b"\0", b"") + b"\0", 0x80)
	c.step(b"N", b"", 0x40000)
	for i in range(0, len(body), 65535):
		c.step(b"B", body[i:i + 65535], 0x80000)
