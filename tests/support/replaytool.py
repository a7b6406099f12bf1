"""replaytool - what several tests of replay do to mailboxes and connections."""

import socket
import threading

import mailbox


def empty(rig, users=None):
	"""Removes every message of every folder, as the users would."""
	for user in users or rig.users:
		c = mailbox.login(rig, user)
		for f in mailbox.folders(c):
			if int(c.select(f'"{f}"')[1][0] or 0):
				c.store("1:*", "+FLAGS", "\\Deleted")
				c.expunge()
		c.logout()


class CutProxy:
	"""A TCP relay to a port that cuts each connection after so many bytes from the
	client (None: never). Ends with close()."""

	def __init__(self, port, cut):
		self.port, self.cut, self.cuts = port, cut, 0
		self.sock = socket.create_server(("127.0.0.1", 0))
		self.listen_port = self.sock.getsockname()[1]
		threading.Thread(target=self._accept, daemon=True).start()

	def close(self):
		self.sock.close()

	def _accept(self):
		while True:
			try:
				c, _ = self.sock.accept()
			except OSError:
				return
			s = socket.create_connection(("127.0.0.1", self.port))
			threading.Thread(target=self._pump, args=(c, s, True), daemon=True).start()
			threading.Thread(target=self._pump, args=(s, c, False), daemon=True).start()

	def _pump(self, a, b, count):
		seen = 0
		try:
			while True:
				d = a.recv(4096)
				if not d:
					break
				seen += len(d)
				if count and self.cut is not None and seen > self.cut:
					self.cuts += 1
					break
				b.sendall(d)
		except OSError:
			pass
		for s in (a, b):
			try:
				s.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass


class StopProxy:
	"""A TCP relay to a port that, when the client sends the n-th line with these words, calls
	stop() and lets neither that line nor anything later through. Ends with close()."""

	def __init__(self, port, words, n, stop):
		self.port, self.words, self.left, self.stop = port, words, n, stop
		self.hit = False
		self.sock = socket.create_server(("127.0.0.1", 0))
		self.listen_port = self.sock.getsockname()[1]
		threading.Thread(target=self._accept, daemon=True).start()

	def close(self):
		self.sock.close()

	def _accept(self):
		while True:
			try:
				c, _ = self.sock.accept()
			except OSError:
				return
			s = socket.create_connection(("127.0.0.1", self.port))
			threading.Thread(target=self._pump, args=(c, s, True), daemon=True).start()
			threading.Thread(target=self._pump, args=(s, c, False), daemon=True).start()

	def _met(self, data):
		for line in data.split(b"\n")[:-1]:
			self.left -= self.words in line
		return self.left <= 0

	def _pump(self, a, b, watch):
		rest = b""  # a line whose end is still to come
		try:
			while d := a.recv(65536):
				met = watch and not self.hit and self._met(rest + d)
				rest = (rest + d).rpartition(b"\n")[2]
				if met:
					self.hit = True
					self.stop()
					break
				b.sendall(d)
		except OSError:
			pass
		for s in (a, b):
			try:
				s.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass
