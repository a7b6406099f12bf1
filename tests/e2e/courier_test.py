#!/usr/bin/python3
"""A real Courier as the store: over IMAP (namespace INBOX., no MULTIAPPEND, LITERAL+ or MOVE) and
as the Maildirs that it keeps; exactly once, with dates and bytes, also after kills."""
# MW_TEST_COST 55

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import courier
import mailbox
import rig as rigs
import servers
import tap
import workload
from replaytool import empty

KILLS = int(os.environ.get("MW_KILLS", "2"))
USERS = tuple(f"{n}@example.test" for n in ("anna", "bert", "cleo", "dora"))


def wanted(jobs, sent="INBOX.Sent", prefix=""):
	want = {}
	for j in jobs:
		for u in j.owners:
			want.setdefault((u, prefix or "INBOX"), []).append(
				mailbox.sent(j))
		if j.auth:
			want.setdefault((j.auth, prefix or sent), []).append(
				mailbox.sent(j))
	return want


def check(t, store, want, what):
	state = {k: v for k, v in mailbox.dump(store).items() if v}
	got = mailbox.compare(want, state, dates=2)
	return t.ok(got.ok, f"{what}: {sum(map(len, want.values()))} copies, each once", got)


def args(rig, store, *more, step=()):
	return ["--json", "replay", *step, "--to", f"imap://127.0.0.1:{store.port}",
		"--user-passwords", f"{rig.run}/passwords", *more]


def over_imap(t, rig, store, jobs):
	want = wanted(jobs)
	n = sum(map(len, want.values()))
	r = rig.mailwal(*args(rig, store, "--all"))
	t.ok(r.rc == 0 and r.summary["restored"] == n, "IMAP: put back", r)
	check(t, store, want, "IMAP")
	c = store.login(rig.users[0])
	t.ok(any(b"INBOX.Sent" in x for x in c.lsub()[1]), "Sent is subscribed", c.lsub())
	c.logout()
	r = rig.mailwal(*args(rig, store, "--all"))
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "IMAP: a second run has nothing to do", r)
	r = rig.mailwal(*args(rig, store, "--all", step=["verify"]))
	t.ok(r.rc == 0 and r.summary["compared"] == n, "IMAP: verify compares each", r)
	run = rig.mailwal(*args(rig, store, "--all", "--folder", "Back/2026"))
	t.ok(run.rc == 0 and run.summary["already_there"] == n, "what is there is not put elsewhere", run)
	return want


def kills(t, rig, store, want, rnd):
	hit, whole = 0, 0.6
	for _ in range(KILLS * 10):
		if hit == KILLS:
			break
		empty(store)
		p = subprocess.Popen(rig.mailwal_argv(*args(rig, store, "--all", "--uid-gap", "20")),
				     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
		time.sleep(rnd.uniform(0.05, whole))
		if p.poll() is not None:
			whole *= 0.7
			continue
		p.send_signal(signal.SIGKILL)
		p.wait(tap.PATIENCE)
		hit += 1
		r = rig.mailwal(*args(rig, store, "--all", "--uid-gap", "20"))
		t.ok(r.rc == 0, f"kill {hit}: the next run exits 0", r)
		check(t, store, want, f"kill {hit}")
	t.equal(hit, KILLS, "kills that hit a run")
	c = store.login(rig.users[0])
	left = [f for f in mailbox.folders(c) if "mailwal" in f]
	c.logout()
	t.ok(not left, "no staging folder is left", left)


def uids(t, rig, store):
	r = rig.mailwal(*args(rig, store, "--all", "--uid-gap", "30", step=["prepare"]))
	rows = [u for b in r.lines for u in b.get("uids", [])]
	t.ok(r.rc == 0 and rows and all(u["uidnext_to"] >= u["uidnext"] + 30 and "reason" not in u
					for u in rows if "Trash" not in u["folder"]),
	     "prepare raises UIDNEXT", r)


def as_maildirs(t, rig, store, jobs):
	"""The same mailboxes as files: what Courier keeps is found, what is put Courier shows."""
	want = wanted(jobs)
	to = ["--json", "replay", "--all", "--to", f"maildir:{store.dir}/home/%u/Maildir"]
	r = rig.mailwal(*to)
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "as Maildirs: all of it is found", r)
	empty(store)
	r = rig.mailwal(*to)
	t.ok(r.rc == 0 and r.summary["restored"] == sum(map(len, want.values())),
	     "as Maildirs: put back", r)
	check(t, store, want, "as Maildirs, seen over IMAP")
	r = rig.mailwal(*args(rig, store, "--all"))
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "and a run over IMAP finds it", r)


def fresh(t, rig, store, jobs):
	"""A Maildir that no server has opened yet: nothing in it says whose it will be."""
	user = rig.users[0]
	want = wanted([j for j in jobs if user in j.owners], prefix="INBOX.Back.2026")
	want = {k: v for k, v in want.items() if k[0] == user}
	to = ["--json", "replay", "--user", user, "--folder", "Back/2026", "--to",
	      f"maildir:{store.dir}/home/%u/Maildir", "--layout", "courier"]
	home = store.home(user)
	pw = os.stat(home)
	shutil.rmtree(home)
	for sub in ("cur", "new", "tmp"):
		os.makedirs(f"{home}/{sub}", 0o700)
	for d, subs, _ in os.walk(home):
		for x in (d, *(f"{d}/{s}" for s in subs)):
			os.chown(x, pw.st_uid, pw.st_gid)
	r = rig.mailwal(*to)
	t.ok(r.rc == 0 and r.summary["restored"] >= len(want[user, "INBOX.Back.2026"]),
	     "a fresh Maildir: put into a folder of its own", r)
	c = store.login(user)
	t.ok(any(b"INBOX.Back.2026" in x for x in c.lsub()[1]), "a fresh Maildir: Courier shows the "
	     "folder to clients", f"{c.lsub()} {os.listdir(home)}")
	c.logout()
	state = {k: v for k, v in mailbox.dump(store, [user]).items() if k[1] == "INBOX.Back.2026"}
	got = mailbox.compare(want, state, dates=2)
	t.ok(not (got.missing or got.altered or got.doubled or got.wrong_date),
	     "a fresh Maildir: Courier shows each message as it was captured", got)
	r = rig.mailwal(*to[:-2])
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "a fresh Maildir: found again, no layout given", r)


def main(t):
	if not courier.root():
		t.skip("no Courier (contrib/install-deps test unpacks it), or no mount namespaces")
		return
	rnd = random.Random(int(os.environ.get("MW_SEED", "1")))
	messages, _ = workload.bulk(40, seed=31, largest=60000)
	with rigs.Rig(t.dir, users=USERS, aliases={"info@example.test": list(USERS[:2])},
		      postfix="virtual_transport = discard:\nmessage_drop_headers =") as rig:
		rig.start()
		jobs = rig.send(workload.jobs(messages, rig.users, rig.aliases, 7), clock=time.time)
		t.need(all(j.code == 250 for j in jobs), "40 messages captured")
		servers.write(f"{rig.run}/passwords", "".join(f"{u}:{rig.password}\n" for u in rig.users),
			      0o600)
		with tempfile.TemporaryDirectory(prefix="mw.", dir="/tmp") as d:
			os.chmod(d, 0o755)
			with courier.Courier(rig, d) as store:
				want = over_imap(t, rig, store, jobs)
				uids(t, rig, store)
				kills(t, rig, store, want, rnd)
				as_maildirs(t, rig, store, jobs)
				fresh(t, rig, store, jobs)


tap.run(main)
