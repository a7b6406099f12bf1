"""replaytool - what several tests of replay do to mailboxes and connections."""

import listener
import mailbox


def empty(rig, users=None):
	"""Removes every message of every folder, as the users would."""
	for user in users or rig.users:
		c = mailbox.login(rig, user)
		for f in mailbox.folders(c):
			if int(c.select(f'"{f}"')[1][0] or 0):
				c.store("1:*", "+FLAGS", "\\Deleted")
				c.expunge()
				c.close()  # else the server may still write when it has said BYE
		c.logout()


class CutProxy(listener.Relay):
	"""A TCP relay to a port that cuts each connection after so many bytes from the
	client (None: never). Ends with close()."""

	def __init__(self, port, cut):
		self.cut, self.cuts = cut, 0
		super().__init__(port)

	def there(self, near, far):
		seen = 0
		while d := near.recv(4096):
			seen += len(d)
			if self.cut is not None and seen > self.cut:
				self.cuts += 1
				return
			far.sendall(d)


class StopProxy(listener.Relay):
	"""A TCP relay to a port that, when the client sends the n-th line with these words, calls
	stop() and lets neither that line nor anything later through; with on, both. Ends with
	close()."""

	def __init__(self, port, words, n, stop, on=False):
		self.words, self.left, self.stop, self.on = words, n, stop, on
		self.hit = False
		super().__init__(port)

	def _met(self, data):
		for line in data.split(b"\n")[:-1]:
			self.left -= self.words in line
		return self.left <= 0

	def there(self, near, far):
		rest = b""  # a line whose end is still to come
		while d := near.recv(65536):
			met = not self.hit and self._met(rest + d)
			rest = (rest + d).rpartition(b"\n")[2]
			if met:
				self.hit = True
				self.stop()
				if not self.on:
					return
			far.sendall(d)
