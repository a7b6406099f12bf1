#!/usr/bin/python3
"""mailwald ended with SIGKILL 20 times under load, and started again (MW_KILLS: how often).

Every message that got a 250 is in the journal byte for byte; the rest saw 4xx or a lost
connection; what was never acknowledged does not disturb a replay. Both milter front ends.
"""
# MW_TEST_COST 35

import collections
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload

SEED = int(os.environ.get("MW_SEED", "1"))
KILLS = (int(os.environ.get("MW_KILLS", "20")) + 1) // 2  # with each front end


def under_load(rig, jobs, kills, rnd):
	"""Sends with 10 sessions; kills and restarts mailwald meanwhile. Gives back how long it
	took until mail was taken again. Who was refused waits for that: else a slow start would
	see all the mail refused."""
	down, up = [], threading.Event()
	t = threading.Thread(target=rig.send, args=(jobs,), kwargs={
		"sessions": 10, "pause": lambda: up.wait(tap.PATIENCE)})
	up.set()
	t.start()
	for k in range(kills):
		goal = (k + 1) * len(jobs) // (kills + 2)
		while t.is_alive() and sum(j.code is not None for j in jobs) < goal:
			time.sleep(0.001)
		time.sleep(rnd.uniform(0, 0.02))
		up.clear()
		rig.end("mailwald", signal.SIGKILL)
		t0 = time.monotonic()
		rig.start_mailwald()
		down.append(time.monotonic() - t0)
		up.set()
	t.join()
	return down


def one_engine(t, engine):
	rnd = random.Random(SEED)
	# ten are under way at each kill
	messages, _ = workload.bulk(max(200, 20 * KILLS), seed=SEED + 5)
	with rigs.Rig(t.sub(engine), engine=engine,
		      postfix="virtual_transport = discard:\nmessage_drop_headers =") as rig:
		rig.start()
		jobs = workload.jobs(messages, rig.users, rig.aliases, SEED)
		for j in jobs:
			j.auth = None
			j.rcpts = [r for r in j.rcpts if "elsewhere" not in r] or ["anna@example.test"]
			j.owners = j.owners or ["anna@example.test"]
		down = under_load(rig, jobs, KILLS, rnd)
		told = [j for j in jobs if j.code == 250]
		rest = [j for j in jobs if j.code != 250]
		t.ok(len(told) > 50 and rest,
		     f"{engine}: {len(told)} acknowledged, {len(rest)} not, {len(down)} kills")
		t.ok(max(down) < 60, f"{engine}: takes mail again without delay",
		     f"{max(down):.2f} s at most")
		bad = [f"{j.name}: {j.code} {j.text}" for j in rest
		       if not (j.code == 0 or 400 <= j.code < 500)]
		t.ok(not bad, f"{engine}: the rest saw 4xx or a lost connection", "\n".join(bad[:10]))
		rows = collections.Counter(o["queue_id"] for o in rig.journaled())
		bad = []
		for j in told:
			if rows[j.queue_id] != 1:
				bad.append(f"{j.queue_id}: {rows[j.queue_id]} records")
				continue
			raw = rig.raw(j.queue_id)
			if raw != j.data:
				bad.append(f"{j.queue_id}: " + mailbox.first_difference(j.data, raw))
		t.ok(not bad, f"{engine}: every acknowledged message is there, byte for byte",
		     "\n".join(bad[:20]))
		extra = sum(rows.values()) - len(told)
		t.note(f"{extra} records of messages whose sender was not told")
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, f"{engine}: verify: a torn tail is not damage", r)
		r = rig.replay("--all")
		t.ok(r.rc == 0, f"{engine}: replay exits 0", r)
		after_replay(t, engine, rig, told, rest)


def after_replay(t, engine, rig, told, rest):
	"""Each acknowledged copy once; beyond that only copies of unacknowledged ones."""
	want = mailbox.expected(told, sent=None)
	got = mailbox.compare(want, mailbox.dump(rig))
	unsure = {mailbox.message_id(j.data) for j in rest}
	odd = [s for s in got.strange + got.doubled
	       if not any(m in s for m in unsure)]
	t.ok(not (got.missing or got.altered or odd),
	     f"{engine}: every acknowledged copy put back once", f"{got}\n{odd}")


def main(t):
	for engine in ("native", "libmilter"):
		one_engine(t, engine)


tap.run(main)
