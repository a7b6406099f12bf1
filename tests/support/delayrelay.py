"""delayrelay - a TCP relay with a longer way: what comes in goes out half a round trip later.

    with delayrelay.Relay(port, round_trip_ms=20) as relay: … connect to relay.port

On 127.0.0.1, in threads of its own process; order and bytes are kept, the rate is not bounded.
"""

import collections
import multiprocessing
import socket
import threading
import time


def one_way(src, dst, delay):
	"""Until src ends. Reading never waits for writing: the way holds what is on it."""
	queue, more = collections.deque(), threading.Condition()

	def write():
		while True:
			with more:
				while not queue:
					more.wait()
				due, data = queue.popleft()
			wait = due - time.monotonic()
			if wait > 0:
				time.sleep(wait)
			try:
				if not data:
					dst.shutdown(socket.SHUT_WR)
					return
				dst.sendall(data)
			except OSError:
				return

	t = threading.Thread(target=write, daemon=True)
	t.start()
	data = b"-"
	while data:
		try:
			data = src.recv(1 << 18)
		except OSError:
			data = b""
		with more:
			queue.append((time.monotonic() + delay, data))
			more.notify()
	t.join()


def serve(listener, port, delay):
	def connection(near):
		try:
			far = socket.create_connection(("127.0.0.1", port))
		except OSError:
			near.close()
			return
		for s in (near, far):
			s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		back = threading.Thread(target=one_way, args=(far, near, delay), daemon=True)
		back.start()
		one_way(near, far, delay)
		back.join()
		near.close()
		far.close()

	while True:
		near, _ = listener.accept()
		# The round trip of the connection itself.
		threading.Timer(delay * 2, connection, (near,)).start()


class Relay:
	def __init__(self, port, round_trip_ms):
		listener = socket.create_server(("127.0.0.1", 0), backlog=64)
		self.port = listener.getsockname()[1]
		self.process = multiprocessing.Process(
			target=serve, args=(listener, port, round_trip_ms / 2000), daemon=True)
		self.process.start()
		listener.close()

	def __enter__(self):
		return self

	def __exit__(self, kind, exc, tb):
		self.process.terminate()
		self.process.join()
