#!/usr/bin/python3
"""The disaster with a milter behind ours that adds fields, tags subjects and appends footers:
what the store holds is recognised although neither its header nor its body is the captured
one. Nothing lost, nothing doubled, what the user had deleted stays deleted."""
# MW_TEST_COST 15

import collections
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import laterfilter
import mailbox
import rig as rigs
import tap
import workload

ANNA, BERT = "anna@example.test", "bert@example.test"
USERS = (ANNA, BERT)
N, OVERLAP, GONE, MOVED = 80, 48, 6, 6


def messages():
	"""Some without Message-ID, some with one that others have too, some exact copies, some
	without a body; each to anna, some to bert as well or to the alias of both."""
	out = []
	for i in range(N):
		mid = {3: "", 5: "Message-ID: <same@remote.test>\r\n"}.get(
			i % 17, f"Message-ID: <f{i}@remote.test>\r\n")
		body = "" if i % 29 == 7 else f"text of number {i}\r\n" * (1 + i % 9)
		n = i - 1 if i % 19 == 11 else i
		data = out[n].data if n < i else (
			f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: mail {i}\r\n{mid}"
			f"X-Number: {i}\r\n\r\n{body}").encode()
		rcpts = {0: [ANNA, BERT], 1: ["both@example.test"]}.get(i % 5, [ANNA])
		out.append(workload.Mail(f"m{i}", data, "w@remote.test", rcpts,
					 {"both@example.test": list(USERS)}, USERS))
	return out


def number(data):
	m = re.search(rb"(?m)^X-Number: (\d+)", data)
	return int(m.group(1)) if m else -1


def bag(state):
	"""(user, number) as a multiset over all folders."""
	return collections.Counter((k[0], number(s.data)) for k, v in state.items() for s in v)


def tidy_up(rig):
	c = mailbox.login(rig, ANNA)
	c.create("Archive")
	c.select("INBOX")
	uids = [u.decode() for u in c.uid("SEARCH", None, "ALL")[1][0].split()]
	c.uid("COPY", ",".join(uids[5:5 + MOVED]), "Archive")
	c.uid("STORE", ",".join(uids[5:5 + MOVED + GONE]), "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()


def lose_and_restore(rig):
	rig.destroy_store()
	rig.end("dovecot")
	rig.restore()
	rig.start_dovecot()


def disaster(t, rig, jobs):
	rig.send(jobs[:OVERLAP], clock=time.time)
	rig.wait_queue()
	tidy_up(rig)
	time.sleep(1.2)  # the log's stamps have whole seconds
	t.need(rig.mailwal("mark", "nightly").rc == 0, "mark")
	rig.backup()
	t.need(rig.mailwal("mark", "nightly", "--complete").rc == 0, "mark --complete")
	rig.send(jobs[OVERLAP:], clock=time.time)
	rig.wait_queue()
	t.need(all(j.code == 250 for j in jobs), f"{N} mails accepted")
	t.equal(rig.witness.seen, N, "all of them changed by the filter behind ours")
	before = mailbox.dump(rig)
	t.ok(all(s.data.endswith(laterfilter.FOOTER) and b"X-Spam-Status:" in s.data
		 and b"Subject: [outside] " in s.data for v in before.values() for s in v),
	     "the store holds what the filter made of them")
	lose_and_restore(rig)
	return before


def dry_runs(t, rig):
	"""In the restored mailboxes all that the backup has is recognised."""
	have = mailbox.count(mailbox.dump(rig))
	r = rig.replay("--all", "-n")
	s = r.summary or {}
	t.ok(r.rc == 0 and s.get("already_there") == have and s.get("ambiguous") == 0,
	     f"all {have} altered copies that the backup has are recognised", r)


def replays(t, rig, before):
	r = rig.mailwal("outcomes", f"{rig.run}/maillog")
	t.need(r.rc == 0, "outcomes", r)
	args = ["--since-mark", "nightly", "--overlap", "1h"]
	restored = mailbox.dump(rig)
	run = rig.replay(*args)
	s = run.summary or {}
	after = mailbox.dump(rig)
	t.ok(run.rc == 0 and s.get("removed") == GONE and s.get("ambiguous") == 0
	     and s.get("restored") == mailbox.count(before) - mailbox.count(restored),
	     "replay: what came after the backup, and nothing else", run)
	a, b = bag(before), bag(after)
	t.ok(not a - b, "lost 0", a - b)
	t.ok(not b - a, "surplus 0", b - a)
	t.equal(len(after[ANNA, "Archive"]), MOVED, "moved mails stay where they were")
	had = {(k, s.uid) for k, v in restored.items() for s in v}
	new = [s for k, v in after.items() for s in v if (k, s.uid) not in had]
	t.ok(new and not any(laterfilter.FOOTER in s.data for s in new),
	     "what was put back is what was captured")
	again = rig.replay(*args)
	t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
	     and mailbox.dump(rig) == after, "a second run puts back 0", again)
	fresh = rig.replay("--since-mark", "nightly", "--fresh")
	t.ok(fresh.rc == 0 and (fresh.summary or {}).get("restored") == 0
	     and mailbox.dump(rig) == after, "nor does one without a ledger", fresh)
	return after


def second_disaster(t, rig, jobs, after):
	"""Captured and altered copies side by side, as a replay leaves them, backed up and lost
	again; the users have read and moved some meanwhile."""
	c = mailbox.login(rig, BERT)
	c.create("Read")
	c.select("INBOX")
	uids = [u.decode() for u in c.uid("SEARCH", None, "ALL")[1][0].split()]
	c.uid("COPY", ",".join(uids[::2]), "Read")
	c.uid("STORE", ",".join(uids[::2]), "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()
	rig.backup()
	lose_and_restore(rig)
	r = rig.replay("--since-mark", "nightly", "--overlap", "1h", "--fresh")
	t.ok(r.rc == 0 and (r.summary or {}).get("restored") == 0
	     and bag(mailbox.dump(rig)) == bag(after),
	     "both kinds are recognised wherever they were moved", r)
	rig.end("dovecot")
	rig.destroy_store()
	rig.start_dovecot()
	r = rig.replay("--all", "--fresh")
	all_sent = collections.Counter((u, number(j.data)) for j in jobs for u in j.owners)
	t.ok(r.rc == 0 and bag(mailbox.dump(rig)) == all_sent,
	     "into an empty store: everything once", r)


def main(t):
	jobs = messages()
	rig = rigs.Rig(t.dir, users=USERS, witness=True, aliases={"both@example.test": list(USERS)})
	rig.witness = laterfilter.LaterFilter(rig.witness.path)
	with rig:
		rig.start()
		before = disaster(t, rig, jobs)
		dry_runs(t, rig)
		after = replays(t, rig, before)
		second_disaster(t, rig, jobs, after)


tap.run(main)
