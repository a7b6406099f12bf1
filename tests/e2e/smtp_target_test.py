#!/usr/bin/python3
"""The targets smtp: and lmtp: into real Postfix and Dovecot: each copy to its final recipient
once, exact bytes, no vacation reply, bounce or second journaling; killed at random moments,
what is in doubt is listed and never sent again by itself."""
# MW_TEST_COST 10

import collections
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload
from replaytool import empty

SEED = int(os.environ.get("MW_SEED", "1"))
GONE = "gone@example.test"
USERS = tuple(u for u in rigs.USERS if u.startswith(("anna", "bert", "cleo", "dora", "ines")))
ALIASES = {"info@example.test": ["anna@example.test", "bert+info@example.test"],
	   "list@example.test": ["cleo@example.test", "dora@example.test", "ines@second.test"]}


def bag(blobs):
	return collections.Counter(mailbox.without_trace(mailbox.crlf(b)) for b in blobs)


def stored(rig):
	return {u: bag(s.data for (w, _), v in mailbox.dump(rig, [u]).items() for s in v)
		for u in rig.users if u != GONE}


def owed(jobs):
	out = {u: collections.Counter() for u in USERS}
	for j in jobs:
		for u in j.owners:
			if u in out:
				out[u] += bag([j.data])
	return out


def args(rig, *more, to=None):
	return ["--json", "replay", "--all", "--accept-side-effects", "--to",
		to or f"smtp:127.0.0.1:{rig.smtp_port}", *more]


def deliver_to_dovecot(rig):
	"""From now on Postfix delivers; what is sent is looked at."""
	rig.end("postfix")
	rig.configure(postfix=f"virtual_transport = lmtp:unix:{rig.run}/dovecot/lmtp\n"
		      "lmtp_line_length_limit = 0")
	rig.start_postfix()


def once(t, rig, jobs):
	before = len(rig.journaled())
	r = rig.mailwal("replay", "--all", "--to", f"smtp:127.0.0.1:{rig.smtp_port}")
	t.ok(r.rc == 64 and "redirect" in r.err and "accept-side-effects" in r.err,
	     "smtp: not without --accept-side-effects; the hazards are named", r)
	r = rig.mailwal(*args(rig, "--dry-run"))
	dry = r.summary or {}
	r = rig.mailwal(*args(rig))
	s = r.summary or {}
	rig.wait_queue()
	failed = {(f["mailbox"], f["kind"]) for f in s.get("failures", [])}
	t.ok(r.rc == 3 and {m for m, k in failed if k == "failed"} == {GONE},
	     "smtp: exit 3, the recipient that is not there named", r)
	t.equal(dry.get("restored"), s.get("restored", 0) + s.get("failed", 0),
		"the dry run's number")
	have, want = stored(rig), owed(jobs)
	bad = [f"{u}: {sum((want[u] - have[u]).values())} missing, "
	       f"{sum((have[u] - want[u]).values())} surplus or altered"
	       for u in want if want[u] != have[u]]
	t.ok(not bad, f"smtp: {sum(sum(w.values()) for w in want.values())} copies, each once "
	     "to its final recipient, bytes exact", "\n".join(bad))
	t.equal(len(rig.journaled()), before, "the MTA's mailwald journaled none of them again")
	log = rig.maillog()
	t.ok("status=bounced" not in log and not rig.sent_outside(),
	     "no bounce, no mail to anybody outside", rig.sent_outside()[:3])
	paths = {s.data.split(b"\r\n")[0] for v in mailbox.dump(rig, USERS[:1]).values() for s in v}
	t.equal(paths, {b"Return-Path: <>"}, "sent with the null sender")
	again = rig.mailwal(*args(rig))
	rig.wait_queue()
	t.ok(again.rc == 3 and (again.summary or {}).get("restored") == 0 and stored(rig) == have,
	     "smtp: a second run sends nothing again", again)
	again = rig.mailwal(*args(rig, to=f"SMTP://localhost:{rig.smtp_port}"))
	rig.wait_queue()
	t.ok(again.rc == 3 and (again.summary or {}).get("restored") == 0 and stored(rig) == have
	     and "of earlier runs" in again.err, "nor under another name of that server", again)
	r = rig.mailwal(*args(rig, "--fresh", "--dry-run"))
	known = sum(sum(w.values()) for w in want.values())
	t.ok(r.rc == 0 and f"of {known} copies" in r.err and stored(rig) == have,
	     "smtp: --fresh says how many go there once more", r)


def kills(t, rig, jobs, rnd, to, what):
	"""Killed at random; in the end each copy is there at most once, and what is missing is
	listed as doubtful."""
	want, hit = owed(jobs), 0
	empty(rig, USERS)
	state = os.path.join(rig.dir, "ledger of " + what)
	for k in range(8):
		p = subprocess.Popen(rig.mailwal_argv(*args(rig, "--state", state, "--rate", "100/s", to=to)),
				     stdout=subprocess.PIPE, stderr=subprocess.PIPE,
				     start_new_session=True)
		time.sleep(rnd.uniform(0.05, 0.5))
		if p.poll() is None:
			p.send_signal(signal.SIGKILL)
			hit += 1
		p.communicate()
		if p.returncode in (0, 3):
			break
	r = rig.mailwal(*args(rig, "--state", state, to=to))
	rig.wait_queue()
	have = stored(rig)
	extra = sum((have[u] - want[u]).total() for u in want)
	lost = sum((want[u] - have[u]).total() for u in want)
	doubt = [f for f in (r.summary or {}).get("failures", []) if f["kind"] == "doubtful"]
	t.ok(hit, f"{what}: killed before it was done")
	t.ok(not extra and lost <= len(doubt), f"{what}: {hit} kills: nothing twice; "
	     f"{len(doubt)} in doubt are listed ({lost} of them not there)",
	     f"{extra} surplus, {lost} lost\n{r}")
	t.ok(not doubt or r.rc == 3, f"{what}: doubt is no success", r)
	r = rig.mailwal(*args(rig, "--state", state, "--resend-doubtful", to=to))
	rig.wait_queue()
	have = stored(rig)
	lost = sum((want[u] - have[u]).total() for u in want)
	t.ok(not lost, f"{what}: --resend-doubtful sends them; nothing is missing", r)
	r = rig.mailwal(*args(rig, "--state", state, "--fresh", to=to))
	rig.wait_queue()
	twice = stored(rig)
	t.ok(all(twice[u] - have[u] == want[u] for u in want),
	     f"{what}: --fresh sends all of it once more", r)


def main(t):
	rnd = random.Random(SEED)
	with rigs.Rig(t.dir, users=USERS + (GONE,), aliases=ALIASES,
		      postfix="virtual_transport = discard:\nmessage_drop_headers =\n"
		      "soft_bounce = no") as rig:
		rig.start()
		mails, _ = workload.bulk(90, seed=SEED, largest=80_000)
		jobs = rig.send(workload.jobs(mails, USERS, ALIASES, SEED))
		jobs.append(workload.Mail("gone", b"Subject: x\r\n\r\nx\r\n", "w@remote.test", [GONE],
					  {}, (GONE,)))
		rig.send(jobs[-1:])
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} captured")
		rig.wait_queue()
		with open(f"{rig.run}/mailboxes", "w", encoding="utf-8") as f:
			f.write("".join(f"{u} x\n" for u in USERS))
		deliver_to_dovecot(rig)
		sent = len(rig.sent_outside())
		rig.sent_outside = lambda: rigs.Rig.sent_outside(rig)[sent:]
		once(t, rig, jobs)
		kills(t, rig, jobs, rnd, None, "smtp")
		kills(t, rig, jobs, rnd, f"lmtp:127.0.0.1:{rig.lmtp_port}", "lmtp")


tap.run(main)
