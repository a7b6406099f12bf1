#!/usr/bin/python3
"""What nobody does by chance: a clock that jumps ten years, messages without header or body, a
line of 100 MB, 50,000 recipients, a storm of reloads, a daemon that is stopped and asked for its
status. Mail is taken or refused clearly, nothing is lost, and the next message is as any other."""
# MW_TEST_COST 25

import hashlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import sendmail
import tap

YEARS = 10 * 365 * 86400


class Shifted(rigs.Rig):
	"""A rig whose mailwald and mailwal have a clock of their own."""

	def __init__(self, directory, **kw):
		super().__init__(directory, **kw)
		self.shift = f"{self.run}/shift"
		self.clock = dict(os.environ, LD_PRELOAD=sendmail.preload(), MW_CLOCK_SHIFT=self.shift)

	def start_mailwald(self):
		return super().start_mailwald(env=self.clock)

	def at(self, seconds):
		new = self.shift + ".new"
		pathlib.Path(new).write_text(str(seconds), encoding="ascii")
		os.replace(new, self.shift)

	def tool(self, *words):
		return subprocess.run([self.mailwal_bin, "-c", self.conf, *words], env=self.clock,
				      capture_output=True, timeout=tap.PATIENCE, check=False)


def send(rig, queue_id, **kw):
	c = milterclient.Conn(rig.milter_sock)
	c.envelope(queue_id, **kw)
	got = c.end()
	c.sock.close()
	return got


def nothing_pruned(t, rig, when):
	r = rig.tool("prune", "--yes")
	t.ok(b"\n0 messages removed" in r.stdout or r.returncode == 1,
	     f"the clock, {when}: prune removes nothing", r)


def clock(t):
	"""Ten years on, ten back: everything is taken, in its order; nothing is removed."""
	with Shifted(t.sub("clock"), conf="retain default { keep = 30d }") as rig:
		rig.mailwal("init", rig.journal)
		rig.start_mailwald()
		want = []

		def some(name, n=3):
			for i in range(n):
				want.append(f"{name}{i}")
				t.equal(send(rig, want[-1]), b"c", f"the clock: {want[-1]} is taken")

		some("now")
		rig.at(YEARS)
		nothing_pruned(t, rig, "ten years on")
		some("later")
		nothing_pruned(t, rig, "with mail of then")
		rig.at(-YEARS)
		some("before")
		nothing_pruned(t, rig, "ten years back")
		rig.at(0)
		some("after")
		rows = [json.loads(x) for x in rig.mailwal("--json", "list", "--all").out.splitlines()]
		rows = sorted((o for o in rows if "queue_id" in o), key=lambda o: o["seq"])
		t.equal([o["queue_id"] for o in rows], want, "the clock: all are there, in their order")
		year = int(time.strftime("%Y", time.gmtime()))
		t.equal([int(o["time"][:4]) - year for o in rows[3:9]],
			[int(time.strftime("%Y", time.gmtime(time.time() + s))) - year
			 for s in [YEARS] * 3 + [-YEARS] * 3], "the clock: each has the time it had")
		rig.end("mailwald", signal.SIGKILL)
		rig.start_mailwald()
		some("killed", 1)
		t.equal({o["queue_id"] for o in rig.journaled()}, set(want),
			"the clock: and after SIGKILL")
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "the clock: verify", r)


def raw(rig, queue_id, header, body, rcpts=(b"anna@example.test",)):
	"""A message of these header fields and body pieces: the answer to its end."""
	c = milterclient.Conn(rig.milter_sock)
	c.step(b"C", b"client.test\x004" + struct.pack(">H", 1234) + b"192.0.2.1\0", 0x1000)
	c.step(b"H", b"client.test\0", 0x2000)
	c.step(b"M", b"<a@remote.test>\0", 0x4000)
	for rcpt in rcpts:
		c.step(b"R", b"<" + rcpt + b">\0", 0x8000)
	c.send(b"D", b"Ti\0" + queue_id.encode() + b"\0")
	c.step(b"T", b"", 0x10000)
	for name, value in header:
		c.step(b"L", name + b"\0" + value + b"\0", 0x80)
	c.step(b"N", b"", 0x40000)
	for piece in body:
		c.step(b"B", piece, 0x80000)
	got = c.end()
	c.sock.close()
	return got


def shapes(t, rig):
	line = [b"x" * 65535] * (100_000_000 // 65535) + [b"\r\n"]
	whole = b"".join(line)
	cases = {
		"EMPTY": ([], [], b"\r\n"),
		"HEADER": ([(b"Subject", b" x")], [], b"Subject: x\r\n\r\n"),
		"BODY": ([], [b"only\r\n"], b"\r\nonly\r\n"),
		"LINE": ([(b"Subject", b" x")], line, b"Subject: x\r\n\r\n" + whole),
	}
	for name, (header, body, _) in cases.items():
		t.equal(raw(rig, name, header, body), b"c", f"{name}: taken")
	rows = {o["queue_id"]: o for o in rig.journaled()}
	for name, (_, _, data) in cases.items():
		t.equal(rows[name]["sha256"], hashlib.sha256(data).hexdigest(),
			f"{name}: its bytes, {len(data)} of them")


def recipients(t, rig):
	"""To 50,000, with recipient_limit at 40,000; then to 40,000."""
	many = [b"r%d@example.test" % i for i in range(50_000)]
	got = raw(rig, "MANY", [(b"Subject", b" x")], [b"x\r\n"], rcpts=many)
	t.ok(got in (b"t", b"y"), f"50,000 recipients of 40,000 allowed: refused ({got})")
	t.equal(raw(rig, "MOST", [(b"Subject", b" x")], [b"x\r\n"], rcpts=many[:40_000]), b"c",
		"40,000: taken")
	rows = {o["queue_id"]: o for o in rig.journaled()}
	t.ok("MANY" not in rows, "nothing of the refused one is there")
	t.equal([r.encode() for r in rows["MOST"]["recipients"]], many[:40_000],
		"each of 40,000 is in the record")


def opened(p):
	links = []
	for fd in os.listdir(f"/proc/{p.pid}/fd"):
		try:
			links.append(os.readlink(f"/proc/{p.pid}/fd/{fd}"))
		except FileNotFoundError:
			pass
	return sorted(links)


def storm(t, rig):
	"""300 reloads while mail comes. A descriptor that one of them, or a message, did not
	give back would be 300 or 30 more; the indexer may open its own few meanwhile."""
	p = rig.procs["mailwald"]
	t.equal(send(rig, "CALM"), b"c", "before a storm of SIGHUP")
	before = opened(p)
	answers = []
	for i in range(300):
		p.send_signal(signal.SIGHUP)
		if i % 10 == 0:
			answers.append(send(rig, f"STORM{i}"))
	t.equal(answers, [b"c"] * 30, "300 SIGHUP while 30 messages come: all are taken")
	t.comes(lambda: len(opened(p)) <= len(before) + 10, "and their descriptors are given back",
		lambda: f"{before}\n{opened(p)}")
	names = {o["queue_id"] for o in rig.journaled()}
	t.ok({f"STORM{i}" for i in range(0, 300, 10)} <= names, "and are in the journal")


def stopped(t, rig):
	"""Monitoring is told in time, and all is well when it goes on."""
	p = rig.procs["mailwald"]
	p.send_signal(signal.SIGSTOP)
	try:
		t0 = time.monotonic()
		r = rig.mailwal("status", "--nagios")
		took = time.monotonic() - t0
		t.ok(r.rc == 2 and "does not answer" in r.out,
		     "status of a daemon that is stopped: critical, and says why", r)
		t.ok(took >= 7, f"having waited for it ({took:.1f} s)")
	finally:
		p.send_signal(signal.SIGCONT)
	t.equal(send(rig, "GOES_ON"), b"c", "it goes on: mail is taken")
	r = rig.mailwal("status")
	t.ok(r.rc == 0, "and status is well", r)


def main(t):
	clock(t)
	with rigs.Rig(t.sub("rig"), conf="recipient_limit = 40000") as rig:
		rig.mailwal("init", rig.journal)
		rig.start_mailwald()
		shapes(t, rig)
		recipients(t, rig)
		storm(t, rig)
		stopped(t, rig)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify", r)


tap.run(main)
