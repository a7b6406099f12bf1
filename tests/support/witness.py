"""witness - an independent capture: a second, tiny milter written only for tests.

It knows nothing of mailwald. Postfix hands every message to both; what this one was handed
is what mailwald must have stored. Messages are kept in memory by queue ID:
header name ":" value CRLF for each header (LF in a value as CRLF), CRLF, body.
"""

import os
import socket
import struct
import threading

import listener

HDR_LEADSPC = 0x00100000
RCPT_REJ = 0x00000800


class Message:
	def __init__(self):
		self.head, self.body = [], []
		self.sender, self.rcpts, self.queue_id = b"", [], ""

	@property
	def data(self):
		return b"".join(self.head) + b"\r\n" + b"".join(self.body)


class Witness:
	"""Listens on a unix socket from start() to stop(); messages: {queue id: Message}."""

	def __init__(self, path):
		self.path = path
		self.messages, self.order = {}, []
		self.lock = threading.Lock()
		self.sock = self.thread = None

	def start(self):
		self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
		self.sock.bind(self.path)
		os.chmod(self.path, 0o666)
		self.sock.listen(256)
		self.thread = threading.Thread(target=self._accept, daemon=True)
		self.thread.start()

	def stop(self):
		if self.sock:
			listener.end(self.sock, self.thread)
			self.sock = None

	@property
	def postfix(self):
		return f"unix:{self.path}"

	def _accept(self):
		sock = self.sock
		while True:
			try:
				c, _ = sock.accept()
			except OSError:
				return
			threading.Thread(target=self._serve, args=(c,), daemon=True).start()

	@staticmethod
	def _read(c, n):
		out = b""
		while len(out) < n:
			got = c.recv(min(n - len(out), 1 << 20))
			if not got:
				raise EOFError
			out += got
		return out

	def _serve(self, c):
		try:
			self._session(c)
		except (EOFError, OSError):
			pass
		finally:
			c.close()

	@staticmethod
	def _send(c, cmd, data=b""):
		c.sendall(struct.pack(">I", len(data) + 1) + cmd + data)

	def _session(self, c):
		msg = Message()
		while True:
			(n,) = struct.unpack(">I", self._read(c, 4))
			pkt = self._read(c, n)
			cmd, data = pkt[:1], pkt[1:]
			if cmd == b"O":
				ver, _, steps = struct.unpack(">III", data[:12])
				if not steps & HDR_LEADSPC:
					raise EOFError
				out = struct.pack(">III", min(ver, 6), 0, HDR_LEADSPC)
				self._send(c, b"O", out)
				continue
			if cmd == b"D":
				words = data[1:].split(b"\0")
				macros = dict(zip(words[0::2], words[1::2]))
				if macros.get(b"i"):
					msg.queue_id = macros[b"i"].decode()
				continue
			if cmd == b"A":
				msg = Message()
				continue
			if cmd == b"K":
				msg = Message()
				continue
			if cmd == b"Q":
				return
			if cmd == b"M":
				qid = msg.queue_id
				msg = Message()
				msg.queue_id = qid
				msg.sender = data.split(b"\0")[0]
			elif cmd == b"R":
				msg.rcpts.append(data.split(b"\0")[0])
			elif cmd == b"L":
				name, value = data[:-1].split(b"\0", 1)
				value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
				msg.head.append(name + b":" + value + b"\r\n")
			elif cmd == b"B":
				msg.body.append(data)
			elif cmd == b"E":
				if data:
					msg.body.append(data)
				with self.lock:
					self.messages[msg.queue_id] = msg
					self.order.append(msg.queue_id)
				msg = Message()
			self._send(c, b"c")
