#!/usr/bin/python3
"""A milter socket over TCP whose MTA writes in small pieces without TCP_NODELAY, as Postfix
does: each piece but the first waits for the acknowledgement of the one before, and what needs
no answer would be acknowledged 40 ms late. The kernel counts late acknowledgements; in a
network of this test's own nobody else's are among them."""
# MW_TEST_COST 3

import ctypes
import fcntl
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

MESSAGES = 100


def own_network():
	"""This process and its children alone on a loopback; False where that is not allowed."""
	if ctypes.CDLL("libc.so.6", use_errno=True).unshare(0x40000000):
		return False
	with socket.socket() as s:
		up = struct.pack("16sH14x", b"lo", 1)  # IFF_UP
		fcntl.ioctl(s, 0x8914, up)  # SIOCSIFFLAGS
	return True


def late():
	with open("/proc/net/netstat", encoding="ascii") as f:
		names, values = (x.split() for x in f.read().splitlines() if x.startswith("TcpExt:"))
	return int(dict(zip(names, values))["DelayedACKs"])


def send(where):
	c = milterclient.Conn(where)
	for i in range(MESSAGES):
		c.envelope(f"Q{i}", connect=i == 0, headers=[(f"X-{k}", "y" * 50) for k in range(10)])
		assert c.end() == b"c"
	c.sock.close()


def main(t):
	if not own_network():
		t.skip("no network of its own is allowed here")
		return
	port = rigs.free_ports(1)[0]
	rig = rigs.Rig(t.sub("rig"), conf=f"milter_listen = inet:127.0.0.1:{port}")
	with rig:
		t.need(rig.mailwal("init", rig.journal).rc == 0, "a journal")
		rig.start_mailwald()
		before = late()
		send(("127.0.0.1", port))
		n = late() - before
		t.ok(n < MESSAGES / 4, f"{MESSAGES} messages over one connection: {n} late acknowledgements")
		t.equal(len(rig.journaled()), MESSAGES, "all are journaled")


tap.run(main)
