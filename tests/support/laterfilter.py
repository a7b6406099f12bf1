"""laterfilter - a milter behind ours that changes what it lets through: header fields are
added, the subject is tagged, a footer is appended. What the store holds is then not what was
captured."""

import struct

from witness import HDR_LEADSPC, Message, Witness

ADD_HEADERS, CHANGE_BODY, CHANGE_HEADERS = 0x01, 0x02, 0x10
TAG = b"[outside] "
FOOTER = b"\r\n-- \r\nThis mail was checked by a filter of this site.\r\n"


class LaterFilter(Witness):
	"""As a Witness, and messages of self.seen were changed."""

	ACTIONS = ADD_HEADERS | CHANGE_BODY | CHANGE_HEADERS

	def __init__(self, path):
		super().__init__(path)
		self.seen = 0

	def _end(self, c, msg):
		"""What is said at the end of a message."""
		body = b"".join(msg.body)
		subject = [h for h in msg.head if h.lower().startswith(b"subject:")]
		self._send(c, b"h", b"X-Spam-Status\0 No, score=0.1\r\n\trequired=5.0\0")
		self._send(c, b"h", b"X-Virus-Scanned\0 by a later filter\0")
		if subject:
			old = subject[0].partition(b":")[2].strip()
			self._send(c, b"m", struct.pack(">I", 1) + b"Subject\0 " + TAG + old + b"\0")
		body += FOOTER
		for at in range(0, len(body), 60000):
			self._send(c, b"b", body[at:at + 60000])
		with self.lock:
			self.seen += 1
		self._send(c, b"c")

	def _session(self, c):
		msg = Message()
		while True:
			(n,) = struct.unpack(">I", self._read(c, 4))
			pkt = self._read(c, n)
			cmd, data = pkt[:1], pkt[1:]
			if cmd == b"Q":
				return
			if cmd == b"O":
				ver = struct.unpack(">I", data[:4])[0]
				self._send(c, b"O", struct.pack(
					">III", min(ver, 6), self.ACTIONS, HDR_LEADSPC))
				continue
			if cmd in (b"D", b"A", b"K"):
				if cmd != b"D":
					msg = Message()
				continue
			if cmd == b"M":
				msg = Message()
			elif cmd == b"L":
				name, value = data[:-1].split(b"\0", 1)
				msg.head.append(name + b":" + value)
			elif cmd == b"B":
				msg.body.append(data)
			elif cmd == b"E":
				msg.body.append(data)
				self._end(c, msg)
				continue
			self._send(c, b"c")
