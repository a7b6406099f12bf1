#!/usr/bin/python3
"""mailwal follow: a standby Dovecot is kept current.

Two rigs: the main one captures (Postfix, mailwald); the standby has a Dovecot of its own.
Follow starts with a backlog, then new mail is there within tens of milliseconds; the
follower is killed at random moments, the standby goes away and comes back, mailwald is
restarted: each copy is there once, byte for byte. Stopping it gives 130.
"""
# MW_TEST_COST 40

import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload
from follower import Follower, check

OUTAGE = float(os.environ.get("MW_OUTAGE", "3"))
KILLS = int(os.environ.get("MW_KILLS", "5"))


def send(main, jobs, part, n):
	out = main.send(jobs[part:part + n])
	return out


def passed_over(t):
	"""A mailbox that cannot be looked at for now is waited for, also when another one, which
	never will be there, had failed before it."""
	users = tuple(f"{n}@example.test" for n in ("anna", "bert"))
	with rigs.Rig(t.sub("over"), users=users, postfix="virtual_transport = discard:") as rig:
		rig.start()
		jobs = [workload.Mail(f"o{i}", b"Subject: %d\r\n\r\ntext\r\n" % i, "w@remote.test",
				      [users[i % 2]], {}, users) for i in range(4)]
		t.need(all(j.code == 250 for j in rig.send(jobs)), "4 messages captured")
		boxes = f"{rig.run}/boxes/bert"
		os.makedirs(boxes)
		os.symlink("Maildir", f"{boxes}/Maildir")  # leads nowhere, for now
		f = Follower(rig, rig)
		f.argv = rig.mailwal_argv("--json", "-v", "follow", "--to",
					  f"maildir:{rig.run}/boxes/%n/Maildir")
		f.start()
		try:
			time.sleep(2)  # it has looked at both by then, or looks later
			os.unlink(f"{boxes}/Maildir")
			for sub in ("cur", "new", "tmp"):
				os.makedirs(f"{boxes}/Maildir/{sub}", exist_ok=True)
			rigs.wait_for("bert's two", lambda: len(os.listdir(f"{boxes}/Maildir/new")) == 2,
				      alive=f.p)
			t.ok(True, "what a mailbox missed while it was away is put there")
		finally:
			f.end()


def main_test(t):
	passed_over(t)
	rnd = random.Random(int(os.environ.get("MW_SEED", "1")))
	messages, _ = workload.bulk(300, seed=11, largest=100000)
	drop = "virtual_transport = discard:\nmessage_drop_headers ="
	with rigs.Rig(t.sub("main"), postfix=drop) as main, \
	     rigs.Rig(t.sub("standby"), mailwald=False) as standby:
		main.start()
		standby.start_dovecot()
		jobs = workload.jobs(messages, main.users, main.aliases, 5)
		done = main.send(jobs[:60])
		t.need(all(j.code == 250 for j in done), "60 messages captured before it starts")
		f = Follower(main, standby).start()
		f.wait("current")
		check(t, standby, done, "the backlog")
		latency(t, main, f, jobs, done)
		check(t, standby, done, "one after the other")
		locked(t, main, f)
		rigs.wait_for("status to tell of the standby", lambda: [
			s for s in main.mailwal("--json", "status").lines[0]["standbys"]
			if s["lag_s"] < 60])
		done += main.send(jobs[100:160])
		check(t, standby, done, "a burst of 60")
		killed(t, main, standby, f, jobs, done, rnd)
		outage(t, main, standby, jobs, done)
		again(t, main, standby, jobs, done)
		slowly(t, main, standby, jobs, done)
		imported(t, main, standby)


def slowly(t, main, standby, jobs, done):
	"""--rate holds for the backlog and for what comes."""
	at, rate = main.next_job + 6, 20
	f = Follower(main, standby)
	f.argv += ["--rate", str(rate)]
	for what in ("the backlog", "live"):
		before, start = len(f.kinds("stored")), time.monotonic()
		if what == "live":
			f.wait("current")
			start = time.monotonic()
		new = main.send(jobs[at:at + 20])
		t.need(len(new) == 20, "20 more are captured")
		if what == "the backlog":
			start = time.monotonic()
			f.start()
			f.wait("current")
		n = sum(len(j.owners) + bool(j.auth) for j in new)
		if what == "live":
			f.wait("stored", before + n)
		took = time.monotonic() - start
		t.ok(took >= (n - 1) / rate, f"{what}: {n} copies at {rate} a second take as long",
		     f"{took:.2f} s")
		done += new
		at += 20
	check(t, standby, done, "slowly")
	t.equal(f.end(), 130, "stopped")
	r = main.mailwal("follow", "--to", "maildir:/nonexistent/%n", "--rate", "many")
	t.ok(r.rc == 64 and "--rate" in r.err, "a rate that is none: exit 64", r)


def imported(t, main, standby):
	"""What is imported while it follows goes where it was."""
	user, box = main.users[0], f"{main.run}/old box"
	for folder in ("", ".Archive.2020", ".Gr&APwA3w-e"):
		for sub in ("cur", "new", "tmp"):
			os.makedirs(f"{box}/{folder}/{sub}")
		for i in range(3):
			with open(f"{box}/{folder}/cur/15{i}.x:2,S", "w", encoding="ascii") as o:
				o.write(f"Subject: old {i}\nMessage-ID: <{i}{folder}@old.test>\n\nold\n")
	before = {k: len(v) for k, v in mailbox.dump(standby, [user]).items()}
	f = Follower(main, standby).start()
	f.wait("current")
	r = main.mailwal("--json", "import", f"maildir:{box}", "--user", user)
	t.need(r.rc == 0 and r.summary["imported"] == 9, "9 messages of old are imported", r)
	f.wait("stored", 9)
	after = {k: len(v) for k, v in mailbox.dump(standby, [user]).items()}
	grown = {k[1]: n - before.get(k, 0) for k, n in after.items() if n != before.get(k, 0)}
	t.equal(grown, {"INBOX": 3, "Archive/2020": 3, "Gr&APwA3w-e": 3},
		"each is in the folder that it was in")
	t.equal(f.end(), 130, "stopped then")
	f = Follower(main, standby).start()
	f.wait("current")
	f.end()
	again = {k: len(v) for k, v in mailbox.dump(standby, [user]).items()}
	t.equal(again, after, "and a careful look finds it there")


def latency(t, main, f, jobs, done):
	before = len(f.kinds("stored"))
	for j in jobs[60:100]:
		done += main.send([j])
		time.sleep(0.02)
	copies = sum(len(j.owners) + bool(j.auth) for j in jobs[60:100])
	f.wait("stored", before + copies)
	delays = sorted(o["delay_s"] for o in f.kinds("stored")[before:])
	p95 = delays[int(len(delays) * 0.95)]
	t.note(f"stored after capture: median {delays[len(delays) // 2] * 1000:.1f} ms, "
	       f"p95 {p95 * 1000:.1f} ms, most {delays[-1] * 1000:.1f} ms")
	# A busy machine must not fail this; the figure proper is the bench's.
	t.ok(delays[len(delays) // 2] < 60 and p95 < tap.PATIENCE,
	     "from capture to stored: without waiting for anything", delays)


def locked(t, main, f):
	second = subprocess.run(f.argv, capture_output=True, timeout=tap.PATIENCE, check=False)
	t.equal(second.returncode, 75, "a second follower is told that there is one")


def killed(t, main, standby, f, jobs, done, rnd):
	at = 160
	for _ in range(KILLS):
		sender = threading.Thread(target=lambda a=at: done.extend(main.send(jobs[a:a + 12])))
		sender.start()
		time.sleep(rnd.uniform(0.02, 0.3))
		f.end(signal.SIGKILL)
		sender.join()
		f = Follower(main, standby).start()
		if rnd.random() < 0.5:
			time.sleep(rnd.uniform(0.0, 0.4))
		else:
			f.wait("current")
		at += 12
	f.wait("current")
	check(t, standby, done, f"the follower killed {KILLS} times")
	main.end("mailwald", signal.SIGKILL)
	main.start_mailwald()
	done += main.send(jobs[at:at + 5])
	check(t, standby, done, "mailwald killed and started again")
	t.equal(f.end(), 130, "SIGTERM: exit status")
	s = f.kinds("summary")
	t.ok(len(s) == 1 and s[0]["failed"] == 0 and s[0]["restored"] >= len(f.kinds("stored")) > 0,
	     "its summary counts what it stored", f"{s} {len(f.kinds('stored'))} {f.err}")
	main.next_job = at + 5


def outage(t, main, standby, jobs, done):
	at = main.next_job
	f = Follower(main, standby).start()
	f.wait("current")
	sender = threading.Thread(target=lambda: done.extend(main.send(jobs[at:at + 10])))
	sender.start()
	time.sleep(0.05)
	standby.end("dovecot", signal.SIGKILL)
	sender.join()
	done += main.send(jobs[at + 10:at + 20])
	f.wait("away")
	time.sleep(OUTAGE)
	done += main.send(jobs[at + 20:at + 25])
	standby.start_dovecot()
	# A process of the server that was killed may have left the lock of a mailbox behind,
	# which Dovecot breaks after a minute.
	f.wait("back", seconds=300)
	check(t, standby, done, f"the standby away for {OUTAGE:.0f} s")
	main.next_job = at + 25
	t.equal(f.end(signal.SIGINT), 130, "SIGINT: exit status")


def again(t, main, standby, jobs, done):
	"""What was put while the follower was not there, a replay say, is not doubled."""
	at = main.next_job
	done += main.send(jobs[at:at + 6])
	r = main.mailwal("--json", "replay", "--all", "--to",
			 f"imap://127.0.0.1:{standby.imap_port}", "--password-file",
			 standby.password_file, "--auth-user", rigs.MASTER)
	t.ok(r.rc == 0 and r.summary["restored"] > 0, "a replay to the same target", r)
	f = Follower(main, standby).start()
	f.wait("current")
	check(t, standby, done, "a replay in between")
	f.end()
	r = main.mailwal("follow", "--to", "lmtp:127.0.0.1:1", "--accept-side-effects")
	t.ok(r.rc == 64, "LMTP, which cannot be read back, is refused", r)
	# nobody there at all at the start: it waits, and stops when told to
	f = Follower(main, standby)
	f.argv = [a.replace(str(standby.imap_port), "1") for a in f.argv]
	f.start()
	f.wait("away")
	t.equal(f.end(), 130, "no standby yet: waits until stopped")


tap.run(main_test)
