#!/usr/bin/python3
"""Cyrus IMAP as the target: a disaster with Cyrus' own deliveries; both ways to name folders;
the run killed at random moments, its server process killed, two runs at once; over quota, read
only, no such mailbox."""
# MW_TEST_COST 45

import collections
import os
import random
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import cyrus
import mailbox
import rig as rigs
import stores
import tap
import workload
from mailbox import Expected
from replaytool import empty

SEED = int(os.environ.get("MW_SEED", "1"))
KILLS = int(os.environ.get("MW_KILLS", "4"))
USER = "anna@example.test"
USERS = (USER, "bert@example.test", "o.cleo@example.test", "ines@second.test")
QUOTA, RO, GONE = "bert@example.test", "ines@second.test", "ghost@example.test"


def messages(rnd, n):
	"""Small mails; some without Message-ID, with another one's, exact copies, 8-bit headers."""
	out = []
	for i in range(n):
		mid, kind = f"Message-ID: <c{i}@remote.test>\r\n", rnd.random()
		if kind < 0.05:
			mid = ""
		elif kind < 0.10 and i:
			mid = f"Message-ID: <c{rnd.randrange(i)}@remote.test>\r\n"
		elif kind < 0.14 and i:
			out.append(out[rnd.randrange(i)])
			continue
		name = "Gr\u00fc\u00dfe" if kind > 0.95 else "greetings"
		out.append((f"From: w@remote.test\r\nTo: {USER}\r\nSubject: mail {i}\r\n{mid}"
			    f"X-Text: {name}\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n"
			    + f"text of number {i}\r\n" * rnd.randint(1, 60)).encode())
	return out


def text_of(data):
	"""A mail without what Cyrus' LMTP adds: the trace, a Message-ID, a Date."""
	data = mailbox.without_trace(data)
	head, _, body = data.partition(b"\r\n\r\n")
	return tuple(sorted(x for x in head.split(b"\r\n")
			    if not x.lower().startswith((b"message-id:", b"date:")))), body


def bag(state, key=text_of):
	return collections.Counter(key(s.data) for v in state.values() for s in v)


def disaster(t, rnd):
	"""Mail, tidying up, backup, more mail, loss, restore, replay, replay."""
	with cyrus.CyrusRig(t.sub("disaster"), users=USERS) as rig:
		rig.start()
		jobs = [workload.Mail(f"m{i}", m, "w@remote.test", [USER], {}, USERS,
				      mailargs="BODY=8BITMIME")
			for i, m in enumerate(messages(rnd, 240))]
		rig.send(jobs[:140], clock=time.time)
		rig.wait_queue()
		c = rig.login(USER)
		c.create("Archive")
		c.select("INBOX")
		c.uid("MOVE", "1:12", "Archive")
		c.uid("STORE", "20:32", "+FLAGS", "\\Deleted")
		c.expunge()
		c.logout()
		rig.mailwal("mark", "nightly")
		rig.backup()
		r = rig.mailwal("mark", "nightly", "--complete")
		t.need(r.rc == 0, "mark --complete", r)
		rig.send(jobs[140:], clock=time.time)
		rig.wait_queue()
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} mails delivered by Cyrus")
		before = mailbox.dump(rig, [USER])
		rig.destroy_store()
		rig.restore()
		restored = mailbox.dump(rig, [USER])
		t.equal(mailbox.count(before) - mailbox.count(restored), 100, "lost with the store")
		run = rig.replay("--since-mark", "nightly")
		t.ok(run.rc == 0, "replay exits 0", run)
		after = mailbox.dump(rig, [USER])
		a, b = bag(before), bag(after)
		t.ok(not a - b, "lost 0", list((a - b).items())[:5])
		t.ok(not b - a, "surplus 0", list((b - a).items())[:5])
		had = {(k, s.uid) for k, v in restored.items() for s in v}
		new = [(k, s) for k, v in after.items() for s in v if (k, s.uid) not in had]
		wrong = [s.uid for k, s in new if k[1] != "INBOX" or not any(
			stores.cyrus_keeps(j.data) == s.data and j.off(s.date) <= 1
			for j in jobs[140:])]
		t.ok(len(new) == 100 and not wrong, "put back with the captured bytes, in INBOX, "
		     "with the date of arrival: 100", wrong)
		again = rig.replay("--since-mark", "nightly")
		t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
		     and mailbox.dump(rig, [USER]) == after, "a second run puts back 0", again)
		t.ok(not rig.sent_outside(), "no mail was sent out", rig.sent_outside()[:3])


def wanted(jobs, sent, change=stores.cyrus_keeps):
	out = {}
	for j in jobs:
		for u in j.owners:
			out.setdefault((u, "INBOX"), []).append(
				Expected(j.queue_id, change(j.data), j.acked_at, j.began_at))
		if j.auth:
			out.setdefault((j.auth, sent), []).append(
				Expected(j.queue_id, change(j.data), j.acked_at, j.began_at))
	return out


def check(t, rig, want, what, folders, dates=None):
	state = mailbox.dump(rig)
	got = mailbox.compare(want, state, dates)
	extra = sorted({f for _, f in state} - folders)
	return t.ok(got.ok and not extra, what, f"{got}\nfolders left behind: {extra}")


def start(rig):
	return subprocess.Popen(rig.mailwal_argv("--json", *rig.replay_args("--all")),
				stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
				stderr=subprocess.PIPE, start_new_session=True)


def kills(t, rig, want, folders, whole, rnd):
	"""The client ended with SIGKILL; every other time Cyrus' process instead."""
	hit = tries = 0
	while hit < KILLS and tries < KILLS * 12:
		tries += 1
		empty(rig)
		p = start(rig)
		time.sleep(rnd.uniform(0.02, whole))
		if p.poll() is not None:
			p.communicate()
			whole *= 0.7
			continue
		who = "Cyrus' process" if hit % 2 else "the run"
		if hit % 2:
			stores.kill(stores.children(rig.procs["cyrus"].pid, "imapd"))
			p.communicate(timeout=tap.PATIENCE)
			rig.end("cyrus")  # after some dead children its master gives the port up
			rig.start_cyrus()
		else:
			p.kill()
			p.communicate()
		hit += 1
		r = rig.replay("--all")
		t.ok(r.rc == 0, f"kill {hit}, {who}: the next run exits 0", r)
		if not check(t, rig, want, f"kill {hit}, {who}: every copy once", folders):
			raise tap.Fatal("one kill is enough")
	t.ok(hit == KILLS, f"{hit} kills hit a replay at work, of {tries} tries")


def exactly_once(t, rnd, alt):
	"""An empty Cyrus filled by replays, in one style of naming."""
	style = "folders beside INBOX" if alt else "folders below INBOX."
	sent, trash = ("Sent", "Trash") if alt else ("INBOX.Sent", "INBOX.Trash")
	folders = {"INBOX", sent, trash}
	users = USERS if alt else (USER, RO, QUOTA, "dora@example.test")  # no dots in names
	with cyrus.CyrusRig(t.sub(f"alt {alt}"), alt=alt, slash=alt, users=users, deliver=False,
			    postfix="virtual_transport = discard:\nmessage_drop_headers =") as rig:
		rig.start()
		small, _ = workload.bulk(120 if alt else 40, seed=SEED, largest=60_000)
		jobs = rig.send(workload.jobs(small, users, {"all@example.test": list(users)}, SEED),
				clock=time.time)
		jobs = [j for j in jobs if j.code == 250]
		rig.wait_queue()
		want = wanted(jobs, sent)
		began = time.monotonic()
		r = rig.replay("--all")
		whole = time.monotonic() - began
		t.ok(r.rc == 0, f"{style}: replay exits 0, {whole:.2f} s", r)
		check(t, rig, want, f"{style}: each copy once, dates right", folders, dates=2)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and (r.summary or {}).get("restored") == 0,
		     f"{style}: a second run puts back 0", r)
		if not alt:
			return
		kills(t, rig, want, folders, whole, rnd)
		for k in range(1):
			empty(rig)
			two = [start(rig), start(rig)]
			outs = [p.communicate(timeout=300) for p in two]
			codes = sorted(p.returncode for p in two)
			t.ok(codes[0] == 0 and codes[1] in (0, 75),
			     f"race {k + 1}: two at once end with 0 and 0 or 75", f"{codes} {outs}")
			check(t, rig, want, f"race {k + 1}: every copy once", folders)
		refusals(t, rig, want)


def refusals(t, rig, want):
	"""Over quota, no right to write, no such mailbox; each named, each cured by a rerun."""
	empty(rig)
	a = rig.admin()
	quota, ro = rig.user_name(QUOTA), rig.user_name(RO)
	t.need(a.setquota(quota, "(STORAGE 20)")[0] == "OK", "quota of 20 kB set")
	t.need(a.setacl(ro, RO, "lrs")[0] == "OK" and a.setacl(rig.user_name(RO, "Sent"), RO, "lrs")[0]
	       == "OK", "rights to read only")
	r = rig.replay("--all")
	s = r.summary or {}
	why = {u: {f["reason"] for f in s.get("failures", []) if f["mailbox"] == u} for u in USERS}
	t.ok(r.rc == 3 and why[QUOTA] and all("uota" in x for x in why[QUOTA]),
	     "over quota: exit 3, named", f"{why}\n{r.rc} {r.err[-500:]}")
	t.ok(why[RO] and not why[USER], "read only: named, others are served", why)
	state = mailbox.dump(rig)
	got = mailbox.compare(want, state)
	t.ok(not (got.doubled or got.altered or got.strange), "nothing doubled or half-written", got)
	failed = sum(f["kind"] == "failed" for f in s.get("failures", []))
	t.equal(len(got.missing), failed, "named as failed")
	a.setquota(quota, "(STORAGE 2000000)")
	for box in (ro, rig.user_name(RO, "Sent")):
		a.setacl(box, RO, "lrswipkxtecdan")
	a.logout()
	r = rig.replay("--all")
	got = mailbox.compare(want, mailbox.dump(rig))
	t.ok(r.rc == 0 and got.ok, "with room and rights a rerun finishes it", f"{got}\n{r}")


def suppressed(t):
	"""deliver.db outlives the mail: Cyrus' LMTP takes it for delivered and stores nothing."""
	users = (USER,)
	with cyrus.CyrusRig(t.sub("suppressed"), users=users, imapd="duplicatesuppression: 1") as rig:
		rig.start()
		jobs = [workload.Mail(f"d{i}", (
			f"From: w@remote.test\r\nTo: {USER}\r\nSubject: d{i}\r\nMessage-ID: <d{i}@remote.test>"
			f"\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\ntext {i}\r\n").encode(),
			"w@remote.test", [USER], {}, users) for i in range(12)]
		rig.backup()
		rig.send(jobs, clock=time.time)
		rig.wait_queue()
		before = bag(mailbox.dump(rig))
		t.need(before.total() == len(jobs), f"{len(jobs)} delivered by Cyrus")
		rig.end("cyrus")
		shutil.copy2(f"{rig.cyrus_dir}/conf/deliver.db", f"{rig.backup_dir}/conf/deliver.db")
		shutil.chown(f"{rig.backup_dir}/conf/deliver.db", rigs.MAIL_USER)
		rig.destroy_store()
		rig.restore()
		lmtp = f"lmtp:127.0.0.1:{rig.cyrus_lmtp_port}"
		r = rig.mailwal("replay", "--all", "--to", lmtp)
		t.ok(r.rc == 64 and "drop what they saw before" in r.err, "replay over LMTP names it", r)
		r = rig.mailwal("replay", "--all", "--to", lmtp, "--accept-side-effects")
		t.ok(not bag(mailbox.dump(rig)), "and so it is: taken by LMTP, stored 0 (control)", r)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and bag(mailbox.dump(rig)) == before,
		     f"over IMAP all {len(jobs)} are put back", r)


def missing(t):
	"""A recipient without mailbox on the server."""
	users = (USER, GONE)
	with cyrus.CyrusRig(t.sub("missing"), users=users, deliver=False,
			    postfix="virtual_transport = discard:") as rig:
		rig.imapd_extra = "autocreate_users: anna"
		rig.write_cyrus()
		rig.start()
		jobs = [workload.Mail(f"m{i}", m, "w@remote.test", [u], {}, users,
				      mailargs="BODY=8BITMIME")
			for u in users for i, m in enumerate(messages(random.Random(3), 5))]
		rig.send(jobs)
		r = rig.replay("--all")
		s = r.summary or {}
		t.ok(r.rc == 3 and s.get("restored") == 5 and s.get("failed") == 5
		     and all(f["mailbox"] == GONE and "no mailbox" in f["reason"]
			     for f in s["failures"]), "no such mailbox: exit 3, named", r)


def undone(t):
	"""undo takes away what is where it was put, whatever its flags; not what its user moved,
	deleted, copied or put there himself."""
	jobs = [workload.Mail(f"m{i}", b"Message-ID: <u%d@r>\r\nSubject: %d\r\n\r\nx\r\n" % (i, i),
			      "w@remote.test", [USER], {}, USERS) for i in range(12)]
	with cyrus.CyrusRig(t.sub("undo"), users=USERS, deliver=False) as rig:
		rig.start()
		rig.send(jobs)

		def step(*words):
			target = rig.replay_args()
			return rig.mailwal("--json", *target[:1], *words, *target[1:])

		run = step("run", "--all").summary["run"]
		c = rig.login(USER)
		for name in ("Kept", "Copied"):
			c.create(name)
		c.select("INBOX")
		uids = [u.decode() for u in c.uid("SEARCH", "ALL")[1][0].split()]
		c.uid("MOVE", uids[0], "Kept")
		c.uid("COPY", uids[1], "Copied")
		c.uid("STORE", uids[2], "+FLAGS", "(\\Flagged \\Seen)")
		c.uid("STORE", uids[3], "+FLAGS", "\\Deleted")
		c.expunge()
		c.uid("STORE", uids[4], "+FLAGS", "\\Deleted")
		c.append("INBOX", None, None, b"Subject: mine\r\n\r\nmine\r\n")
		c.logout()
		for dry, left in ((["-n"], 11), ([], 1)):
			r = step("undo", run, *dry)
			t.ok(r.rc == 0 and (r.summary["undone"], r.summary["skipped"]) == (10, 2),
			     f"undo {dry}: ten of twelve", r)
			have = {k[1]: len(v) for k, v in mailbox.dump(rig).items() if v}
			t.equal(have, {"Kept": 1, "Copied": 1, "INBOX": left}, "and what is there then")
		r = step("run", "--all")
		t.ok(r.rc == 0 and r.summary["restored"] == 10, "a replay puts the ten back", r)


def main(t):
	if not cyrus.root():
		t.skip("no Cyrus: contrib/install-deps test unpacks it")
		return
	rnd = random.Random(SEED)
	disaster(t, rnd)
	exactly_once(t, rnd, True)
	exactly_once(t, rnd, False)
	missing(t)
	suppressed(t)
	undone(t)


tap.run(main)
