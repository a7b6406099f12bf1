#!/usr/bin/python3
"""Replay ended with SIGKILL at 20 random moments and run again; run twice; two at once.

The mailboxes are emptied before each round, so that each kill hits a replay at work.
"""
# MW_TEST_COST 100

import imaplib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import stores
import tap
import workload
from replaytool import empty

KILLS = int(os.environ.get("MW_KILLS", "20"))
SEED = int(os.environ.get("MW_SEED", "1"))
FOLDERS = {"INBOX", "Sent", "Trash"}


def start(rig, conf=None):
	"""A replay of everything, not waited for; conf: another host's configuration."""
	argv = rig.mailwal_argv("--json", *rig.replay_args("--all"))
	if conf:
		argv[argv.index("-c") + 1] = conf
	return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
				stderr=subprocess.PIPE, start_new_session=True)


def check(t, rig, want, what):
	state = mailbox.dump(rig)
	got = mailbox.compare(want, state)
	extra = sorted({f for _, f in state} - FOLDERS)
	return t.ok(got.ok and not extra, what, f"{got}\nfolders left behind: {extra}")


def main(t):
	rnd = random.Random(SEED)
	messages, _ = workload.bulk(240, seed=SEED)
	with rigs.Rig(t.dir, postfix="virtual_transport = discard:\n"
		       "message_drop_headers =") as rig:
		rig.start()
		jobs = workload.jobs(messages, rig.users, rig.aliases, SEED)
		# One mailbox large enough for batches over two connections.
		small = [m for m in messages if len(m[1]) < 20_000]
		jobs += [workload.Mail(n, d, "w@remote.test", rig.users[:1], {}, rig.users)
			 for n, d in (small * 3)[:300]]
		jobs = rig.send(jobs)
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} messages captured")
		want = mailbox.expected(jobs)
		began = time.monotonic()
		r = rig.replay("--all")
		whole = time.monotonic() - began
		t.need(r.rc == 0, f"a whole replay takes {whole:.2f} s", r)
		if not check(t, rig, want, f"{sum(map(len, want.values()))} copies, each once"):
			raise tap.Fatal("plain replay is wrong already")
		before = mailbox.dump(rig)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and (r.summary or {}).get("restored") == 0
		     and mailbox.dump(rig) == before, "replayed twice: nothing doubled", r)
		kills(t, rig, want, whole, rnd)
		for k in range(3):
			empty(rig)
			two = [start(rig), start(rig)]
			outs = [p.communicate(timeout=300) for p in two]
			codes = sorted(p.returncode for p in two)
			t.ok(codes[0] == 0 and codes[1] in (0, 75),
			     f"race {k + 1}: two at once end with 0 and 0 or 75", f"{codes} {outs}")
			check(t, rig, want, f"race {k + 1}: every copy once")
		two_hosts(t, rig, want)
		half_deleted(t, rig, want)


def kills(t, rig, want, whole, rnd):
	"""KILLS rounds; a replay that ended before its moment came does not count, and the
	moments are drawn from a shorter time from then on."""
	hit = tries = 0
	while hit < KILLS and tries < KILLS * 12:
		tries += 1
		empty(rig)
		p = start(rig)
		time.sleep(rnd.uniform(0.0, whole))
		if p.poll() is not None:
			p.communicate()
			whole *= 0.7
			continue
		p.kill()
		p.communicate()
		hit += 1
		there = mailbox.count(mailbox.dump(rig))
		r = rig.replay("--all")
		t.ok(r.rc == 0, f"kill {hit}: the next run exits 0 ({there} copies were there)", r)
		if not check(t, rig, want, f"kill {hit}: every copy once"):
			raise tap.Fatal("one kill is enough")
	t.ok(hit == KILLS, f"{hit} kills hit a replay at work, of {tries} tries")


def two_hosts(t, rig, want):
	"""A copy of the journal on "another host" shares no lock with ours: only the target
	itself can keep the two apart. Whoever gives way must finish when run again."""
	other = rig.journal + " of another host"
	rigs.copy_journal(rig.journal, other)
	shutil.rmtree(os.path.join(other, "ledger"), ignore_errors=True)
	conf = os.path.join(rig.dir, "other.conf")
	text = pathlib.Path(rig.conf).read_text(encoding="utf-8")
	pathlib.Path(conf).write_text(text.replace(f"journal_dir = {rig.journal}\n",
		f"journal_dir = {other}\n"), encoding="utf-8")
	for k in range(3):
		empty(rig)
		two = [start(rig), start(rig, conf)]
		outs = [p.communicate(timeout=300) for p in two]
		codes = [p.returncode for p in two]
		t.ok(set(codes) <= {0, 3, 75}, f"two hosts {k + 1}: both end in order, {codes}",
		     outs)
		again = start(rig, conf)
		out = again.communicate(timeout=300)
		t.ok(again.returncode == 0, f"two hosts {k + 1}: the next run exits 0", out)
		check(t, rig, want, f"two hosts {k + 1}: every copy once")


def half_delete(t, rig, user, name):
	"""Dovecot is killed in the middle of deleting that folder: it lists it from then on,
	and for half a minute neither opens nor deletes it."""
	c = mailbox.login(rig, user)
	c.create(name)
	c.append(name, None, None, b"Subject: x\r\n\r\nx\r\n")
	pids = stores.children(rig.procs["dovecot"].pid, "imap")
	argv = ["strace", "-o", f"{rig.dir}/strace", "-e", "trace=rename",
		"-e", "inject=rename:signal=KILL"]
	p = subprocess.Popen(argv + [x for k in pids for x in ("-p", str(k))],
			     stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
	for _ in pids:
		p.stderr.readline()  # attached
	try:
		c.delete(name)
	except imaplib.IMAP4.abort:
		pass
	p.send_signal(signal.SIGINT)
	p.communicate(timeout=tap.PATIENCE)
	for lock in pathlib.Path(rig.store).rglob("*.lock"):
		lock.unlink(missing_ok=True)
	c = mailbox.login(rig, user)
	t.need(c.status(name, "(MESSAGES)")[0] == "NO" and c.create(name)[0] == "NO",
	       "a half-deleted staging folder is there")
	c.logout()


def half_deleted(t, rig, want):
	user, name = rig.users[0], "mailwal-staging"
	for what in ("mail to put back", "nothing to do"):
		if what != "nothing to do":
			empty(rig)
		half_delete(t, rig, user, name)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and f"{name}-broken-" in r.err,
		     f"{what}: a replay puts it aside and names it", r)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and (r.summary or {}).get("restored") == 0
		     and "broken" not in r.err, f"{what}: the next one passes it by", r)
		for f in pathlib.Path(rig.store).rglob(f".{name}-broken-*/*"):
			os.utime(f, (time.time() - 60,) * 2)  # so long ago it was
		r = rig.replay("--all")
		c = mailbox.login(rig, user)
		left = [f for f in mailbox.folders(c) if name in f]
		c.logout()
		t.ok(r.rc == 0 and not left, f"{what}: and a later one removes it", f"{left} {r}")
		check(t, rig, want, f"{what}: every copy once")


tap.run(main)
