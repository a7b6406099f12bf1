#!/usr/bin/python3
"""Load through real Sendmail: 20 sessions with several messages each, mailwald killed under
way and started again. What was acknowledged is there, once, byte for byte; what Sendmail
took is what the audit counts. MW_MESSAGES says how many (400)."""
# MW_TEST_COST 10

import hashlib
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import sendmail
import smtp
import tap
import workload

ANNA, BERT = "anna@example.test", "bert@example.test"
MESSAGES, SESSIONS = int(os.environ.get("MW_MESSAGES", "400")), 20
TO_NOWHERE = "R$+ < @ $+ > $*	$#outside $@ x $: $1 < @ x > $2"


def jobs_of(messages):
	"""Each with a sender of its own, by which its record is found."""
	return [smtp.Job(data, f"s{i}@remote.test", [ANNA, BERT][:1 + i % 2])
		for i, (_, data) in enumerate(messages)]


def load(t, rig, jobs):
	"""Sends all, mailwald killed when a third is through. Those lost with the connection or
	refused for a while are sent again as others, as any client would."""
	def third():
		return sum(j.code == 250 for j in jobs) >= len(jobs) // 3

	sender = threading.Thread(target=lambda: rig.send(jobs, SESSIONS, pause=0.05), daemon=True)
	sender.start()
	rigs.wait_for("a third of the messages", third, 3 * tap.PATIENCE)
	rig.end("mailwald", signal.SIGKILL)
	rig.start_mailwald()
	sender.join(6 * tap.PATIENCE * max(1, MESSAGES // 1000))
	t.need(not sender.is_alive(), "all was tried")
	told = [j for j in jobs if j.code == 250]
	for _ in range(20):
		left = [smtp.Job(j.data, j.sender, j.rcpts) for j in jobs
			if j.sender not in {x.sender for x in told}]
		if not left:
			break
		rig.send(left, SESSIONS)
		told += [j for j in left if j.code == 250]
	t.equal(len(told), len(jobs), "messages acknowledged in the end")
	return told


def main(t):
	if sendmail.find() is None:
		if os.environ.get("CI") == "true":
			t.ok(False, "CI has Sendmail (contrib/install-deps test)")
		t.skip("no Sendmail: contrib/install-deps test unpacks it")
		return
	messages, _ = workload.bulk(MESSAGES, 31, largest=200_000)
	with sendmail.Sendmail(t.sub("rig"), users=(ANNA, BERT), aliases={},
			       rules=TO_NOWHERE) as rig:
		rig.options = ["-q10m", "-ODeliveryMode=q"]
		rig.start()
		told = load(t, rig, jobs_of(messages))
		rows = {}
		for o in rig.journaled():
			rows.setdefault(o["queue_id"], []).append(o)
		t.equal([j.queue_id for j in told if len(rows.get(j.queue_id, [])) != 1], [],
			"acknowledged, but not there once")
		bad = [j.sender for j in told
		       if [(o["sender"], o["recipients"]) for o in rows.get(j.queue_id, [])]
		       != [(j.sender, j.rcpts)]]
		t.equal(bad, [], "with another envelope")
		bad = [j.sender for j in told if hashlib.sha256(j.data).hexdigest()
		       not in [o["sha256"] for o in rows.get(j.queue_id, [])]]
		t.equal(bad, [], "with other bytes")

		def logged():  # it answers first
			log = rig.maillog()
			return all(j.queue_id in log for j in told)
		rigs.wait_for("Sendmail's log", logged)
		r = rig.mailwal("--json", "audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0 and r.summary["accepted"] >= len(told) and r.summary["holes"] == 0,
		     "the audit counts what was acknowledged, and finds no hole", r)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)


tap.run(main)
