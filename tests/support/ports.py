"""ports - loopback ports that nobody else takes.

A port that is merely free now can be taken before the server meant for it listens: by a test
that runs beside this one, or as the local end of somebody's connection. So each process
keeps blocks of ports for itself, and they lie below those that the kernel gives to outgoing
connections. A block is held by an abstract unix socket, which goes with the process however
it ends and belongs to the same network namespace as the ports do.
"""

import os
import pathlib
import socket
import threading

FIRST, LAST, BLOCK = 16000, 32000, 100
RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoPorts(OSError):
	"""None is left; the text says where it looked."""


def span():
	"""(first, beyond the last) of all blocks: where the kernel takes none."""
	try:
		low, high = (int(x) for x in RANGE.read_text(encoding="ascii").split())
	except (OSError, ValueError):
		return FIRST, LAST
	if low - FIRST >= 20 * BLOCK:
		return FIRST, min(LAST, low)
	if 65536 - high > 20 * BLOCK:
		return high + 1, 65536
	return FIRST, LAST


class Blocks:
	"""The blocks of this process. Threads may share it."""

	def __init__(self):
		self.held = []
		self.forget()

	def forget(self):
		"""In a fork: the blocks are the parent's, who may hand out the rest."""
		self.lock, self.next, self.end = threading.Lock(), 0, 0

	def take(self):
		"""Holds one more block."""
		first, beyond = span()
		for base in range(first, beyond - BLOCK + 1, BLOCK):
			s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
			try:
				s.bind(f"\0mailwal-test-ports-{base}")
			except OSError:
				s.close()
				continue
			self.held.append(s)
			self.next, self.end = base, base + BLOCK
			return
		raise NoPorts(f"no free loopback ports between {first} and {beyond}")

	def one(self):
		while True:
			if self.next == self.end:
				self.take()
			port, self.next = self.next, self.next + 1
			if unused(port):
				return port


def unused(port):
	"""Nobody listens there who knows nothing of the blocks."""
	with socket.socket() as s:
		s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		try:
			s.bind(("127.0.0.1", port))
		except OSError:
			return False
	return True


BLOCKS = Blocks()
os.register_at_fork(after_in_child=BLOCKS.forget)


def free_ports(n):
	"""n ports, all different, none of which this process gets again."""
	with BLOCKS.lock:
		return [BLOCKS.one() for _ in range(n)]
