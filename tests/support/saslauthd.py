"""saslauthd - password questions of libsasl2 at <directory>/mux, answered by the test.

    s = saslauthd.Saslauthd(directory, lambda name, password: …)
"""

import os
import socket
import struct

import listener


class Saslauthd(listener.Listener):
	"""check is asked of the name alone and of name@realm: one of them is enough."""

	def __init__(self, directory, check):
		os.makedirs(directory, exist_ok=True)
		self.check, path = check, os.path.join(directory, "mux")
		sock = socket.create_server(path, family=socket.AF_UNIX, backlog=64)
		os.chmod(path, 0o777)
		super().__init__(sock)

	@staticmethod
	def _field(sock):
		(n,) = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))
		return sock.recv(n, socket.MSG_WAITALL).decode("utf-8", "replace") if n else ""

	def serve(self, sock):
		with sock:
			try:
				name, password, _, realm = (self._field(sock) for _ in range(4))
			except struct.error:  # it went
				return
			names = (name, f"{name}@{realm}") if realm else (name,)
			out = b"OK" if any(self.check(n, password) for n in names) else b"NO"
			sock.sendall(struct.pack("!H", len(out)) + out)
