#!/usr/bin/python3
"""mailwald with 32 descriptors and 120 clients: no spin, no loss, and all is well again when
the clients leave. Both front ends."""
# MW_TEST_COST 15

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

LIMIT, CLIENTS = 32, 120


def cpu_ms(pid):
	total = 0
	for task in os.listdir(f"/proc/{pid}/task"):
		with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
			total += int(f.read().split()[0])
	return total / 1e6


def full(pid):
	return len(os.listdir(f"/proc/{pid}/fd"))


def said(log, since):
	with open(log, encoding="utf-8", errors="replace") as f:
		f.seek(since)
		return f.read()


def journaled(rig):
	return {o["queue_id"] for o in rig.journaled()}


def mail(conn, queue_id):
	conn.envelope(queue_id)
	return conn.end()


def scarce(t, rig, engine):
	where, rig.engine = rig.milter_sock, engine
	if engine == "native":  # libmilter listens in one place only
		where = ("127.0.0.1", *rigs.free_ports(1))
		rig.conf_extra = f"milter_listen = inet:127.0.0.1:{where[1]}\n"
	rig.write_conf()
	log = os.path.join(rig.dir, "mailwald.log")
	size = os.path.getsize(log) if os.path.exists(log) else 0
	p = rig.spawn("mailwald", ["prlimit", f"--nofile={LIMIT}", rig.mailwald_bin, "-c", rig.conf])
	rigs.wait_for("mailwald to be there", lambda: "event=start " in said(log, size), alive=p)
	first = milterclient.Conn(where)
	t.ok(mail(first, f"{engine}A") == b"c", f"{engine}: a message before")
	idle = [milterclient.connect(where) for _ in range(CLIENTS)]
	rigs.wait_for("the limit", lambda: full(p.pid) >= LIMIT * 3 // 4 and
		      "event=accept_paused" in said(log, size), alive=p)
	spent, took, tries = 1e9, 0, 0
	while spent >= 0.05 * 1000 * took and tries < 8:  # what still settles is no spin
		tries += 1
		began, at = cpu_ms(p.pid), time.monotonic()
		time.sleep(3)
		spent, took = cpu_ms(p.pid) - began, time.monotonic() - at
	t.ok(spent < 0.05 * 1000 * took, f"{engine}: at the limit, {full(p.pid)} descriptors open, "
	     f"it used {spent:.1f} ms of processor in {took:.1f} s")
	first.envelope(f"{engine}B", connect=False)
	t.ok(first.end() == b"c", f"{engine}: the session that was there is served: descriptors are "
	     "kept for the journal")
	t.ok(p.poll() is None, f"{engine}: it lives")
	for s in idle:
		s.close()
	deadline = time.monotonic() + tap.PATIENCE
	answer = None
	while answer != b"c" and time.monotonic() < deadline:
		try:
			last = milterclient.Conn(where)
			answer = mail(last, f"{engine}C")
		except (OSError, EOFError):
			time.sleep(0.1)
	t.ok(answer == b"c", f"{engine}: when they have left, mail is taken again")
	rig.end("mailwald")
	rig.conf_extra = ""
	t.ok({f"{engine}A", f"{engine}C"} <= journaled(rig), f"{engine}: both are in the journal",
	     journaled(rig))
	n = said(log, size).count("event=accept_paused")
	t.ok(1 <= n <= 3, f"{engine}: and says so, not with every try: {n}")
	r = rig.mailwal("verify")
	t.ok(r.rc == 0, f"{engine}: verify", r)


def main(t):
	with rigs.Rig(t.sub("descriptors")) as rig:
		rig.mailwal("init", rig.journal)
		for engine in ("native", "libmilter"):
			scarce(t, rig, engine)


tap.run(main)
