#!/usr/bin/python3
"""The main job with real mail, torture mail and DKIM signatures, on real servers.

Decides with an independent capture (support/witness.py): what Postfix handed to that one is
what mailwald must have stored for every message, and what replay must bring back.
"""
# MW_TEST_COST 35

import hashlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import dkimtool
import mailbox
import rig as rigs
import scenario
import tap
import workload


def signed(messages, rig, seed):
	"""Each of 24 messages signed relaxed and simple, with recipients."""
	out = []
	for i, (name, data) in enumerate(messages[:12]):
		for mode in ("relaxed", "simple"):
			out.append((f"dkim-{mode}-{name}", dkimtool.sign(data, mode)))
	return workload.jobs(out, rig.users, rig.aliases, seed)


def check_journal(t, rig, jobs):
	"""show --raw and list --json against the witness, for every message."""
	rows = {}
	for o in rig.journaled():
		rows.setdefault(o["queue_id"], []).append(o)
	wrong, shown = [], 0
	for j in jobs:
		want = rig.witness.messages.get(j.queue_id)
		have = rows.get(j.queue_id, [])
		if want is None or len(have) != 1:
			wrong.append(f"{j.name} {j.queue_id}: witness {want is not None}, "
				     f"{len(have)} records")
			continue
		raw = rig.raw(j.queue_id)
		shown += 1
		if raw != want.data:
			wrong.append(f"{j.name} {j.queue_id}: "
				     + mailbox.first_difference(want.data, raw))
		if have[0].get("sha256") != hashlib.sha256(want.data).hexdigest():
			wrong.append(f"{j.name} {j.queue_id}: sha256 {have[0].get('sha256')}")
		if have[0].get("size") != len(want.data):
			wrong.append(f"{j.name} {j.queue_id}: size {have[0].get('size')}")
		if have[0].get("sender", "").strip("<>") != j.sender:
			wrong.append(f"{j.name} {j.queue_id}: sender {have[0].get('sender')}")
		got = sorted(r.strip("<>") for r in have[0].get("recipients", []))
		if got != sorted(j.rcpts):
			wrong.append(f"{j.name} {j.queue_id}: recipients {got}")
	t.ok(not wrong, f"show --raw of {shown} messages is what Postfix handed over",
	     "\n".join(wrong[:30]))
	t.equal(len(rows), len(jobs), "records, one for each message")


def main(t):
	messages, source = workload.bulk(300, seed=77)
	t.note(f"mail from {source}")
	# Programs file their own copy in Sent, Bcc included: Postfix is to keep it as well.
	with rigs.Rig(t.dir, witness=True, postfix="message_drop_headers =") as rig:
		rig.start()
		jobs = workload.jobs(messages, rig.users, rig.aliases, seed=7)
		sig = signed(messages, rig, 3)
		jobs = jobs[:250] + sig[:12] + jobs[250:] + sig[12:]
		d = scenario.Disaster(rig, jobs, t.note)
		odd = workload.jobs([(n, workload.wire(m)) for n, m in workload.torture()],
				    rig.users, rig.aliases, seed=9)
		d.before_backup()
		d.backup()
		d.after_backup()
		for j in odd:  # what clients declare is not the point here
			j.auth, j.sender = None, j.sender if not j.auth else "odd@remote.test"
			if not j.owners:
				j.rcpts, j.owners = ["anna@example.test"], ["anna@example.test"]
		rig.send(odd, clock=time.time)
		refused = [j for j in odd if j.code != 250]
		t.ok(len(refused) == 0, f"{len(odd)} torture messages accepted",
		     "\n".join(f"{j.name}: {j.code} {j.text}" for j in refused[:20]))
		d.jobs = jobs + [j for j in odd if j.code == 250]
		rig.wait_queue()
		check_journal(t, rig, d.jobs)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)

		data_of = stored_form(rig)
		before = mailbox.compare(d.expected(data_of), mailbox.dump(rig))
		t.note("before the loss: " + str(before).splitlines()[0])
		d.lose()
		d.restore()
		outside = len(rig.sent_outside()) + len(rig.lmtp_deliveries())
		d.replay()
		t.ok(d.first.rc == 0, "replay --since-mark exits 0", d.first)
		got = mailbox.compare(d.expected(data_of), d.after)
		t.ok(got.ok, "every copy is there once, byte for byte", got)
		bad = d.wrong_dates(got)
		t.ok(not bad, "INTERNALDATE of what was put back is the time of arrival",
		     "\n".join(bad[:20]))
		t.ok(len(d.put_back(got)) > 500 or workload.corpus_dir() is None,
		     f"{len(d.put_back(got))} copies had been lost and were put back")
		d.again()
		t.ok(d.second.rc == 0 and (d.second.summary or {}).get("restored") == 0
		     and not d.same_state(d.after, d.final), "a second replay changes nothing",
		     f"{d.second}\n" + "\n".join(d.same_state(d.after, d.final)))
		t.equal(len(rig.sent_outside()) + len(rig.lmtp_deliveries()), outside,
			"deliveries by Postfix before and after the replays")
		check_dkim(t, got)
		check_bite(t, d, data_of)


def stored_form(rig):
	"""What a store must hold: the bytes Postfix handed over; Dovecot keeps no NUL and
	makes it 0x80."""
	def data_of(job):
		return rig.witness.messages[job.queue_id].data.replace(b"\0", b"\x80")
	return data_of


def check_dkim(t, got):
	"""Signatures that verified before verify after."""
	ours = [(e, s) for _, e, s in got.pairs if b"\r\nDKIM-Signature: v=1; a=rsa-sha256" in
		b"\r\n" + e.data[:4000] and dkimtool.DOMAIN.encode() in e.data[:4000]]
	bad = [e.label for e, s in ours if dkimtool.verify(e.data) and not dkimtool.verify(
		mailbox.crlf(s.data))]
	good = [e.label for e, s in ours if dkimtool.verify(e.data)]
	t.ok(not bad and len(good) >= 24,
	     f"{len(good)} copies with a DKIM signature verify after the replay", bad[:10])


def check_bite(t, d, data_of):
	"""The comparison fails if one byte, one copy more or one less differs."""
	key = next(k for k in sorted(d.final) if len(d.final[k]) > 3)
	box = d.final[key]
	last = box[-1]._replace(data=box[-1].data[:-3] + b"!\r\n")
	for what, other in (("one copy less", box[1:]), ("one copy more", box + box[:1]),
			    ("one byte changed", box[:-1] + [last])):
		state = dict(d.final)
		state[key] = other
		t.ok(not mailbox.compare(d.expected(data_of), state).ok,
		     f"the comparison bites: {what}")


tap.run(main)
