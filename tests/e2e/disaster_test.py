#!/usr/bin/python3
"""A user's mailbox through a disaster: mail, deletions, backup, more mail, loss, restore,
replay. Nothing lost, nothing surplus, right dates, no mail sent out; a second run does nothing.

Among the mail: no Message-ID, the same Message-ID with other content, exact copies. Before
the backup the user deletes some mail and moves some to a folder.
"""
# MW_TEST_COST 15

import collections
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload

SEED = int(os.environ.get("MW_SEED", "1"))
N, DELIVERED, GONE, MOVED = 500, 300, 15, 15
USER = "anna@example.test"


def messages(rnd):
	"""N small mails: 3 % without Message-ID, 3 % with another one's, 3 % exact copies."""
	out = []
	for i in range(N):
		mid = f"Message-ID: <d{i}@remote.test>\r\n"
		kind = rnd.random()
		if kind < 0.03:
			mid = ""
		elif kind < 0.06 and i:
			mid = f"Message-ID: <d{rnd.randrange(i)}@remote.test>\r\n"
		elif kind < 0.09 and i:
			out.append(out[rnd.randrange(i)])
			continue
		out.append((f"From: w@remote.test\r\nTo: {USER}\r\nSubject: mail {i}\r\n{mid}"
			    f"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n"
			    + f"text of number {i}\r\n" * rnd.randint(1, 60)).encode())
	return out


def bag(state):
	"""The user's messages over all folders, as a multiset."""
	return collections.Counter(mailbox.without_trace(mailbox.crlf(s.data))
				   for box in state.values() for s in box)


def user_tidies_up(rig, rnd):
	"""Deletes GONE and moves MOVED messages of the INBOX."""
	c = mailbox.login(rig, USER)
	c.create("Archive")
	c.select("INBOX")
	uids = [u.decode() for u in c.uid("SEARCH", None, "ALL")[1][0].split()]
	rnd.shuffle(uids)
	c.uid("COPY", ",".join(uids[:MOVED]), "Archive")
	c.uid("STORE", ",".join(uids[:MOVED + GONE]), "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()


def main(t):
	rnd = random.Random(SEED)
	with rigs.Rig(t.dir, users=(USER, "bert@example.test")) as rig:
		rig.start()
		jobs = [workload.Mail(f"m{i}", m, "w@remote.test", [USER], {}, rig.users)
			for i, m in enumerate(messages(rnd))]
		rig.send(jobs[:DELIVERED], clock=time.time)
		rig.wait_queue()
		user_tidies_up(rig, rnd)
		r = rig.mailwal("mark", "nightly")
		t.need(r.rc == 0, "mark", r)
		rig.backup()
		r = rig.mailwal("mark", "nightly", "--complete")
		t.need(r.rc == 0, "mark --complete", r)
		rig.send(jobs[DELIVERED:], clock=time.time)
		rig.wait_queue()
		t.need(all(j.code == 250 for j in jobs), f"{N} mails accepted")
		before = mailbox.dump(rig, [USER])
		rig.destroy_store()
		rig.end("dovecot")
		rig.restore()
		rig.start_dovecot()
		restored = mailbox.dump(rig, [USER])
		t.equal(mailbox.count(before) - mailbox.count(restored), N - DELIVERED,
			"mails lost with the store")
		sent = len(rig.lmtp_deliveries()) + len(rig.sent_outside())
		dry = rig.replay("--since-mark", "nightly", "--dry-run")
		t.ok(dry.rc == 0 and mailbox.dump(rig, [USER]) == restored,
		     "a dry run changes nothing", dry)
		run = rig.replay("--since-mark", "nightly")
		t.ok(run.rc == 0, "replay exits 0", run)
		keys = ("selected", "already_there", "restored", "failed")
		if dry.summary and run.summary:
			t.equal([dry.summary.get(k) for k in keys],
				[run.summary.get(k) for k in keys], "the dry run's numbers came true")
		after = mailbox.dump(rig, [USER])
		a, b = bag(before), bag(after)
		t.ok(not a - b, "lost 0", first_of(a - b))
		t.ok(not b - a, "surplus 0 (what the user deleted stays deleted)", first_of(b - a))
		t.equal(len(after[USER, "Archive"]), MOVED, "moved mails stay where they were")
		dates(t, jobs, before, restored, after)
		t.equal(len(rig.lmtp_deliveries()) + len(rig.sent_outside()), sent,
			"deliveries before and after, so mails sent 0")
		again = rig.replay("--since-mark", "nightly")
		t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
		     and mailbox.dump(rig, [USER]) == after, "a second run puts back 0", again)


def first_of(counter):
	return "\n".join(f"{n} × {mailbox.message_id(d)} {d[:120]!r}"
			 for d, n in list(counter.items())[:10])


def dates(t, jobs, before, restored, after):
	"""INTERNALDATE: unchanged for what the backup had, arrival (± 1 s) for the rest."""
	had = {(k, s.uid): s.date for k, v in restored.items() for s in v}
	arrivals = collections.defaultdict(list)
	for j in jobs[DELIVERED:]:
		arrivals[j.data].append(j)
	bad, n = [], 0
	for k, v in after.items():
		for s in v:
			if (k, s.uid) in had:
				if had[k, s.uid] != s.date:
					bad.append(f"{k} uid {s.uid}: date changed by the replay")
				continue
			n += 1
			at = arrivals[mailbox.without_trace(mailbox.crlf(s.data))]
			if not at or min(j.off(s.date) for j in at) > 1:
				bad.append(f"{k} uid {s.uid}: {s.date} is not one of "
					   f"{[j.acked_at for j in at]}")
	t.ok(not bad, f"wrong date 0 of {n} put back", "\n".join(bad[:10]))
	t.ok(mailbox.count(before) == mailbox.count(after), "as many mails as before the loss")


tap.run(main)
