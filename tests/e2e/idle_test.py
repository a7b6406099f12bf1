#!/usr/bin/python3
"""4,000 connections that wait for their next message: what they take of memory, and of the
time of others."""
# MW_TEST_ALONE

import os
import resource
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

CONNECTIONS = 4000
EACH = 16 * 1024
MESSAGES = 300


def rss(pid):
	with open(f"/proc/{pid}/status", encoding="ascii") as f:
		return next(int(x.split()[1]) * 1024 for x in f if x.startswith("VmRSS:"))


def one_mail(c, k, connect=True):
	c.envelope(f"Q{k}", connect=connect)
	assert c.end() == b"c"


def cpu_ms(pid):
	"""Of all threads, finer than clock ticks; the disk and others on the machine do not
	count."""
	total = 0
	for task in os.listdir(f"/proc/{pid}/task"):
		with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
			total += int(f.read().split()[0])
	return total / 1e6


def message_ms(pid, sock, base):
	"""Processor time of mailwald for a message on a connection that stays."""
	c = milterclient.Conn(sock)
	one_mail(c, base)
	began = cpu_ms(pid)
	for k in range(1, MESSAGES + 1):
		one_mail(c, base + k, connect=False)
	c.sock.close()
	return (cpu_ms(pid) - began) / MESSAGES


def main(t):
	soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
	if hard < CONNECTIONS + 200:
		t.skip(f"only {hard} descriptors are allowed")
		return
	resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
	with rigs.Rig(t.sub("idle")) as rig:
		rig.mailwal("init", rig.journal)
		pid = rig.start_mailwald().pid
		before_ms = message_ms(pid, rig.milter_sock, 0)
		before, conns = rss(pid), []
		for k in range(CONNECTIONS):
			c = milterclient.Conn(rig.milter_sock)
			if k % 4 == 0:
				one_mail(c, 100000 + k)
			else:
				c.step(b"C", b"client.test\x004" + struct.pack(">H", 1234)
				       + b"192.0.2.1\0", 0x1000)
				c.step(b"H", b"a.helo.of.ordinary.length.test\0", 0x2000)
			conns.append(c)
		each = (rss(pid) - before) / CONNECTIONS
		t.note(f"{each / 1024:.1f} KiB for each of {CONNECTIONS} idle connections")
		t.ok(each <= EACH, f"an idle connection takes at most {EACH // 1024} KiB", each)
		after_ms = message_ms(pid, rig.milter_sock, 200000)
		t.note(f"a message takes {before_ms:.2f} ms of processor time alone, "
		       f"{after_ms:.2f} ms beside them")
		t.ok(after_ms < 3 * before_ms + 0.5, "and hardly any time of others",
		     (before_ms, after_ms))
		one_mail(conns[1], 300000, connect=False)
		t.ok(True, "one of them goes on")
		threads = len(os.listdir(f"/proc/{pid}/task"))
		t.ok(threads < 20, "there is no thread for each", threads)
		for c in conns:
			c.sock.close()
		rigs.wait_for("the connections to go", lambda: subprocess.run(
			["ls", f"/proc/{pid}/fd"], capture_output=True, check=True).stdout.count(
				b"\n") < 100)
		t.ok(True, "their descriptors are given back")
		t.equal(rig.end("mailwald"), 0, "exit status")


tap.run(main)
