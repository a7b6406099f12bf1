#!/usr/bin/python3
"""The steps of a replay, one by one: plan, prepare, run, verify, undo."""
# MW_TEST_COST 15

import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload
from mailbox import Expected

ANNA, BERT = "anna@example.test", "bert@example.test"
NOBODY = "nobody@example.test"


def step(rig, *words):
	"""A step with the target's arguments."""
	target = rig.replay_args()
	return rig.mailwal("--json", *target[:1], *words, *target[1:])


def summary(t, r, what, rc, **numbers):
	s = r.summary or {}
	return t.ok(r.rc == rc and all(s.get(k) == v for k, v in numbers.items()), what,
		    f"wanted exit {rc} and {numbers}\n{r}")


def before(t, rig, n):
	r = step(rig, "plan", "--all")
	summary(t, r, "plan: what a run would do", 0, restored=n, already_there=0, dry_run=True)
	t.ok(not mailbox.count(mailbox.dump(rig)), "plan puts nothing")
	r = step(rig, "prepare", "--all")
	lines = [json.loads(x) for x in r.out.splitlines()]
	boxes = [x for x in lines if x.get("message_type") == "mailbox"]
	t.ok(r.rc == 0 and {b["mailbox"] for b in boxes} == {ANNA, BERT}
	     and all(b["ready"] and "MULTIAPPEND" in b["capabilities"] for b in boxes),
	     "prepare: both mailboxes are ready, with what the server can do", r)
	r = step(rig, "verify", "--all")
	summary(t, r, "verify before the run: all of it is missing", 1, failed=n, compared=0)


def damage(t, rig, n):
	"""One message altered behind the server's back, one deleted."""
	box = f"{rig.store}/example.test/anna/*/"
	name = next((n for n in sorted(glob.glob(box + "*,S=*"))
		     if b"\nmessage-id:" in pathlib.Path(n).read_bytes().lower()), None)
	t.need(name, "anna's messages are files")
	with open(name, "r+b") as f:
		data = f.read()
		at = max(i for i, c in enumerate(data) if chr(c).isascii() and chr(c).isalpha())
		f.seek(at)
		f.write(bytes([data[at] ^ 0x20]))
	c = mailbox.login(rig, BERT)
	c.select("INBOX")
	c.store("1", "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()
	r = step(rig, "verify", "--all")
	summary(t, r, "verify finds the altered and the missing one", 1, failed=2,
		already_there=n - 2, compared=n - 1)
	reasons = sorted(f["reason"].split(":")[0] for f in (r.summary or {}).get("failures", []))
	t.equal(reasons, ["altered", "missing"], "and says which is which")
	base = os.path.basename(name).split(":")[0]
	with open(glob.glob(box + base + "*")[0], "r+b") as f:  # in cur by now
		f.write(data)


def undo(t, rig, run, want, n):
	"""bert has moved one message away and deleted none (one is gone already)."""
	c = mailbox.login(rig, BERT)
	c.create("Kept")
	c.select("INBOX")
	c.uid("MOVE", c.uid("SEARCH", "ALL")[1][0].split()[0].decode(), "Kept")
	c.logout()
	r = step(rig, "undo", run, "-n")
	summary(t, r, "undo, dry: the numbers of the run", 0, selected=n, undone=n - 2, skipped=2,
		failed=0, left=0, dry_run=True)
	t.equal(mailbox.count(mailbox.dump(rig)), n - 1, "and takes nothing away")
	r = step(rig, "undo", run)
	summary(t, r, "undo takes away what is where it was put", 0, selected=n, undone=n - 2,
		skipped=2, failed=0, left=0)
	t.ok((r.summary or {}).get("duration_s"), "and says how long it took", r)
	state = {k: v for k, v in mailbox.dump(rig).items() if v}
	t.ok(list(state) == [(BERT, "Kept")] and len(state[BERT, "Kept"]) == 1,
	     "what bert moved is still there, and nothing else", {k: len(v) for k, v in state.items()})
	r = step(rig, "undo", run)
	summary(t, r, "undo again finds but the two", 0, selected=2, undone=0, skipped=2)
	r = step(rig, "undo", "zzzzzzzzzz")
	t.ok(r.rc == 66 and "zzzzzzzzzz" in r.err, "a run that never was: exit 66", r)
	r = rig.replay("--all")
	summary(t, r, "a replay puts all of it back, but for bert's", 0, restored=n - 1,
		already_there=1)
	whole = {(u, "INBOX"): v for u, v in want.items()}
	got = mailbox.dump(rig)
	got[BERT, "INBOX"] = got[BERT, "INBOX"] + got.pop((BERT, "Kept"))
	c = mailbox.compare(whole, got)
	t.ok(c.ok, "every copy once", c)


def files(t, rig, n):
	pattern = f"maildir:{rig.dir}/boxes/%n"
	r = rig.mailwal("--json", "replay", "run", "--all", "--create", "--to", pattern)
	summary(t, r, "maildir: run", 0, restored=n)
	run = (r.summary or {}).get("run", "")
	r = rig.mailwal("--json", "replay", "verify", "--all", "--to", pattern)
	summary(t, r, "maildir: verify", 0, already_there=n, compared=n, identical=n)
	os.remove(sorted(glob.glob(f"{rig.dir}/boxes/*/*/*,S=*"))[0])
	for dry in (["-n"], []):
		r = rig.mailwal("--json", "replay", "undo", run[:12], "--to", pattern, *dry)
		summary(t, r, f"maildir: undo {dry}", 0, undone=n - 1, skipped=1, left=0)
	t.ok(not glob.glob(f"{rig.dir}/boxes/*/*/*,S=*"), "maildir: nothing is left")


def store_back(t, rig):
	"""The store is restored once more after a run: UIDVALIDITY and UIDs come again, and what
	has the run's UID now is somebody else's message."""
	c = mailbox.login(rig, ANNA)
	c.select("INBOX")
	c.store("1", "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()
	saved = f"{rig.dir}/store-before"
	rig._copy_tree(rig.store + "/.", saved)
	r = step(rig, "run", "--all")
	summary(t, r, "one message is put back", 0, restored=1)
	run = (r.summary or {}).get("run", "")
	uid = uids(rig)[-1]
	rigs.remove_live(rig.store + "/example.test/anna")
	subprocess.run(["cp", "-a", f"{saved}/example.test/anna", f"{rig.store}/example.test/"],
		       check=True)
	c = mailbox.login(rig, ANNA)
	c.append("INBOX", None, None, b"Subject: new\r\n\r\nnot the run's\r\n")
	c.logout()
	t.equal(uids(rig)[-1], uid, "a new message has the UID of the one that was put back")
	r = step(rig, "undo", run)
	summary(t, r, "undo leaves it alone", 0, selected=1, undone=0, skipped=1)
	t.equal(uids(rig)[-1:], [uid], "it is still there")


def uids(rig):
	c = mailbox.login(rig, ANNA)
	c.select("INBOX", readonly=True)
	v = c.uid("SEARCH", "ALL")[1][0].split()
	c.logout()
	return v


def out_of_reach(t, rig):
	"""Each step says so in the same way."""
	wrong = os.path.join(rig.dir, "wrong.password")
	pathlib.Path(wrong).write_text("wrong\n", encoding="ascii")
	os.chmod(wrong, 0o600)
	to = rig.replay_args()[1:]
	at, word = to.index("--to") + 1, to.index("--password-file") + 1
	away = [*to[:at], "imap://127.0.0.1:1", *to[at + 1:]]
	refused = [*to[:word], wrong, *to[word + 1:]]
	for what, rc, args in (("nobody listens", 69, away), ("a wrong password", 77, refused)):
		for words in (["plan"], ["prepare"], ["prepare", "-n"], ["run"], ["verify"]):
			r = rig.mailwal("--json", "replay", *words, "--user", ANNA, *args)
			t.ok(r.rc == rc and r.summary["failed"] == r.summary["selected"] > 0,
			     f"{what}, {' '.join(words)}: exit {rc}", r)
	for user in (ANNA, BERT):
		c = mailbox.login(rig, user)
		c.select("INBOX")
		c.store("1:*", "+FLAGS", "\\Deleted")
		c.expunge()
		c.logout()
	r = step(rig, "run", "--all")
	summary(t, r, "two mailboxes are filled again", 0, failed=0, mailboxes=2)
	run, n = r.summary["run"], r.summary["restored"]

	def undo(what, rc, args, text):
		for dry in (["-n"], []):
			r = rig.mailwal("--json", "replay", "undo", run, *dry, *args)
			summary(t, r, f"{what}, undo {dry}: exit {rc}", rc, selected=n, undone=0,
				skipped=0, failed=n, left=0)
			t.ok(text in r.err, "and it says why", r)

	undo("a wrong password", 77, refused, "refused the login")
	rig.end("dovecot")
	undo("nobody listens", 69, to, "cannot reach")
	rig.start_dovecot()
	for dry in (["-n"], []):
		r = step(rig, "undo", run, *dry)
		summary(t, r, f"undo {dry} with the server back", 0, undone=n, skipped=0)


def main(t):
	small = [(n, d) for n, d in workload.fixtures() if len(d) < 60_000][:24]
	with rigs.Rig(t.dir, users=(ANNA, BERT), postfix="virtual_transport = discard:\n"
		      "message_drop_headers =") as rig:
		rig.start()
		jobs = [workload.Mail(n, d, "w@remote.test", [(ANNA, BERT)[i % 2]], {}, rig.users)
			for i, (n, d) in enumerate(small)]
		rig.send(jobs)
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} messages captured")
		n, want = len(jobs), {}
		for j in jobs:
			want.setdefault(j.owners[0], []).append(Expected(j.queue_id, j.data))
		before(t, rig, n)
		r = step(rig, "run", "--all")
		summary(t, r, "run", 0, restored=n)
		run = (r.summary or {}).get("run", "")
		r = step(rig, "verify", "--all")
		summary(t, r, "verify: each one compared", 0, already_there=n, compared=n, failed=0)
		damage(t, rig, n)
		undo(t, rig, run, want, n)
		files(t, rig, n)
		store_back(t, rig)
		out_of_reach(t, rig)
		for bad in (("undo",), ("undo", run, "--all"), ("plan",), ("undo", run, "and", "more")):
			r = step(rig, *bad)
			t.ok(r.rc == 64, f"replay {' '.join(bad)[:20]}: exit 64", r)


tap.run(main)
