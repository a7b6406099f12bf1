#!/usr/bin/python3
"""What mailwald has allocated is the same after many messages as before them, block by block,
as a milter and as a proxy; a leak of one byte a connection, made on purpose, is seen."""
# MW_TEST_COST 20

import os
import pathlib
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import listener
import milterclient
import rig as rigs
import sendmail
import smtp
import tap

MESSAGES, LARGE = 300, 300_000
NOISE = MESSAGES // 3  # blocks that come and go with the index, lists that grow


def counted(d, leak):
	"""A program that runs mailwald, and counts."""
	wrapper = pathlib.Path(d) / "mailwald"
	wrapper.write_text(
		f"#!/bin/sh\nMW_COUNT='{d}/count' {'MW_COUNT_LEAK=1 ' if leak else ''}"
		f"LD_PRELOAD='{sendmail.preload('count')}' "
		f"exec '{rigs.find_program('mailwald')}' \"$@\"\n", encoding="utf-8")
	wrapper.chmod(0o755)
	return str(wrapper)


def blocks(d, pid):
	with open(f"{d}/count.{pid}", "rb") as f:
		return struct.unpack("<qq", f.read())[0]


def rest(d, pid, most=None):
	"""The fewest of two seconds; with `most`, waits until there are no more than that."""
	least, began = blocks(d, pid), time.monotonic()
	while True:
		took = time.monotonic() - began
		if took > 2 and (most is None or least <= most or took > tap.PATIENCE / 4):
			return least
		time.sleep(0.02)
		least = min(least, blocks(d, pid))


class Next(listener.Listener):
	"""A server that takes all mail."""

	def serve(self, sock):
		with sock, sock.makefile("rwb") as f:
			f.write(b"220 next\r\n")
			f.flush()
			for line in f:
				verb = line[:4].upper()
				if verb == b"DATA":
					f.write(b"354 go\r\n")
					f.flush()
					while f.readline() not in (b".\r\n", b""):
						pass
				f.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")
				f.flush()


def by_milter(sock, n):
	"""A connection for each; one of ten is larger than what is compressed at once."""
	for k in range(n):
		c = milterclient.Conn(sock)
		c.envelope(f"{n}M{k}", rcpts=[f"u{k}@example.test"])
		for _ in range(LARGE // 60000 if k % 10 == 0 else 0):
			c.step(b"B", (b"%08d\r\n" % k) * 6000, 0x80000)
		assert c.end() == b"c"
		c.sock.close()


def by_proxy(port, n):
	for k in range(n):
		with smtp.Client(port, timeout=tap.PATIENCE) as c:
			got = c.mail(b"Subject: x\r\n\r\n" + (b"%08d\r\n" % k) *
				     (LARGE // 10 if k % 10 == 0 else 1), "a@remote.test",
				     [f"u{k}@example.test"])
			assert got[0] == 250, got
			c.quit()


def grown(t, name, leak=False):
	"""Blocks that MESSAGES messages each way have left."""
	d = t.sub(name)
	with Next() as server:
		port = rigs.free_ports(1)[0]
		with alone.Alone(d, f"proxy_listen = smtp:inet:127.0.0.1:{port}->"
				 f"inet:127.0.0.1:{server.port}",
				 program=counted(d, leak)) as a:
			by_milter(a.sock, 30)
			by_proxy(port, 30)
			before = rest(d, a.proc.pid)
			by_milter(a.sock, MESSAGES)
			between = rest(d, a.proc.pid, None if leak else before + NOISE)
			by_proxy(port, MESSAGES)
			after = rest(d, a.proc.pid, None if leak else between + NOISE)
	t.note(f"{name}: {before} blocks, {between} after {MESSAGES} messages as a milter, "
	       f"{after} after {MESSAGES} as a proxy")
	return between - before, after - between


def main(t):
	if alone.sanitized():
		t.skip("a sanitizer's malloc")
		return
	for way, n in zip(("milter", "proxy"), grown(t, "plain")):
		t.ok(n <= NOISE, f"{way}: nothing stays of {MESSAGES} messages", n)
	for way, n in zip(("milter", "proxy"), grown(t, "leaking", leak=True)):
		t.ok(n > 2 * NOISE, f"{way}: one byte a connection is seen", n)


tap.run(main)
