"""listener - a server of a test: a thread that accepts, one more for each connection.

    class Echo(listener.Listener):
        def serve(self, sock): …       # in a thread of its own; OSError, ValueError end it

It listens on 127.0.0.1 at `port`, or on the socket it is given. After close() nothing is accepted any more: a socket that
is closed alone leaves its thread waiting on a number that the next socket may get.
"""

import socket
import threading


def end(sock, thread):
	"""Closes a listening socket for which `thread` waits in accept()."""
	try:
		sock.shutdown(socket.SHUT_RDWR)  # wakes it
	except OSError:
		pass
	thread.join(120)
	sock.close()


class Listener:
	def __init__(self, sock=None):
		self.sock = sock or socket.create_server(("127.0.0.1", 0))
		self.port = self.sock.getsockname()[1] if self.sock.family == socket.AF_INET else None
		self.thread = threading.Thread(target=self._accept, daemon=True)
		self.thread.start()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()

	def close(self):
		end(self.sock, self.thread)

	def _accept(self):
		while True:
			try:
				c, _ = self.sock.accept()
			except OSError:
				return
			if self.port:
				c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			threading.Thread(target=self._serve, args=(c,), daemon=True).start()

	def _serve(self, c):
		try:
			self.serve(c)
		except (OSError, ValueError):
			pass

	def serve(self, sock):
		raise NotImplementedError


class Relay(Listener):
	"""To a port `to`; there() and back() are the two ways, each in a thread."""

	def __init__(self, port):
		self.to = port
		super().__init__()

	def serve(self, sock):
		far = socket.create_connection(("127.0.0.1", self.to))
		far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		threading.Thread(target=self._run, args=(self.there, sock, far), daemon=True).start()
		self._run(self.back, far, sock)

	@staticmethod
	def _run(way, a, b):
		try:
			way(a, b)
		except OSError:
			pass
		for s in (a, b):
			try:
				s.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass

	def there(self, near, far):
		"""From the client; its end cuts both."""
		self.copy(near, far)

	def back(self, far, near):
		self.copy(far, near)

	@staticmethod
	def copy(a, b):
		while d := a.recv(65536):
			b.sendall(d)
