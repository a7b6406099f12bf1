#!/usr/bin/python3
"""What mailwald needs is taken from it behind real Postfix: with 256 descriptors it meets 270
sessions at once; it is stopped while commands ask it to work; its files may not grow. Who has no record gets a 4xx, what was acknowledged is
there, commands end with a clear line, and afterwards all is well without a restart."""
# MW_TEST_COST 40

import os
import resource
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import smtp
import tap
from answers import ANNA, data, judge, one, until_taken

LIMIT, SESSIONS = 256, 270
ALONE = ("hold add", "hold rm", "prune", "erase")
POSTFIX = "virtual_transport = discard:"


# ---- descriptors ----

def session(rig, k, opened, release, answers):
	"""Up to the end of RCPT; then waits for all the others."""
	c, got = None, None
	try:
		c = smtp.Client(rig.smtp_port)
		c.cmd(b"MAIL FROM:<w@remote.test>", 250)
		c.cmd(f"RCPT TO:<{ANNA}>".encode(), 250)
	except (smtp.SmtpError, OSError) as e:
		got = (getattr(e, "code", 0), "", str(e))
	opened.release()
	release.wait()
	try:
		if got is None:
			c.cmd(b"DATA", 354)
			c.send(data(f"many{k}") + b".\r\n")
			r = c.reply()
			got = (r[0], smtp.queue_id(r), r[1])
	except smtp.SmtpError as e:
		got = (e.code, "", str(e))
	if c:
		c.quit()
	answers.append(got)


def descriptors(t, work):
	with rigs.Rig(work, users=(ANNA,), aliases={}, postfix=POSTFIX + "\nmilter_connect_timeout = "
		      "15s\nmilter_command_timeout = 15s\ndefault_process_limit = 400\n"
		      "smtpd_client_connection_count_limit = 0") as rig:
		rig.mailwal("init", rig.journal)
		p = rig.spawn("mailwald", ["prlimit", f"--nofile={LIMIT}", rig.mailwald_bin, "-c",
					   rig.conf])
		rigs.wait_for("mailwald's socket", lambda: rigs.connects(rig.milter_sock), alive=p)
		rig.start_postfix()
		opened, release, answers = threading.Semaphore(0), threading.Event(), []
		pool = [threading.Thread(target=session, args=(rig, k, opened, release, answers))
			for k in range(SESSIONS)]
		for th in pool:
			th.start()
		for _ in pool:
			opened.acquire()
		release.set()
		for th in pool:
			th.join()
		told = judge(t, rig, f"{SESSIONS} sessions, {LIMIT} descriptors", answers)
		t.ok(len(told) > LIMIT // 2, "descriptors: the sessions that got in are served, since some "
		     f"are kept for the journal ({len(told)})")
		t.ok("event=commit-failed" not in rig.mailwald_log(), "descriptors: no write failed")
		t.ok("event=accept_paused" in rig.mailwald_log(), "descriptors: the log says so")
		got = until_taken(rig, "after")
		judge(t, rig, "when they have left", [got], some_refused=False)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0 and p.poll() is None, "descriptors: verify; and it lives", r)


# ---- a daemon that is stopped ----

def stopped(t, work):
	with rigs.Rig(work, users=(ANNA,), aliases={}, postfix=POSTFIX,
		      conf="retain all {\n  keep = 1s\n}\nprune_floor = 0\n") as rig:
		rig.mailwal("init", rig.journal)
		p = rig.start_mailwald()
		rig.start_postfix()
		first = one(rig, "first")
		t.equal(first[0], 250, "mail is taken")
		t.equal(rig.mailwal("hold", "add", "kept", "--user", "x@y.test").rc, 0, "a hold")
		asks = {"status": ("status",), "nagios": ("status", "--nagios"), "mark": ("mark", "m"),
			"hold add": ("hold", "add", "other"), "hold rm": ("hold", "rm", "kept"),
			"prune": ("prune", "--yes"), "erase": ("erase", first[1], "--yes"),
			"outcomes": ("outcomes", f"{rig.run}/maillog"),
			"checkpoint": ("checkpoint",), "ack": ("status", "--ack")}
		p.send_signal(signal.SIGSTOP)
		try:
			run = {k: subprocess.Popen(rig.mailwal_argv(*v), stdin=subprocess.DEVNULL,
						   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
						   text=True) for k, v in asks.items()}
			said = {k: (*c.communicate(timeout=tap.PATIENCE), c.returncode)
				for k, c in run.items()}
		finally:
			p.send_signal(signal.SIGCONT)
		for k, (out, err, rc) in said.items():
			want = {"status": (1,), "nagios": (2,), "checkpoint": (0, 69)}.get(k, (69,))
			if k in ALONE and rc == 75:  # one of these runs at a time
				t.ok("is at work" in err, f"mailwald is stopped: {k} says that another "
				     "command waits already", err)
				continue
			t.ok(rc in want and (rc == 0 or "answer" in out + err),
			     f"mailwald is stopped: {k} ends, and says why", f"{rc}: {out}{err}")
		t.ok(any(said[k][2] == 69 for k in ALONE), "mailwald is stopped: one of these has waited "
		     "for it", said)
		t.equal(one(rig, "second")[0], 250, "it goes on: mail is taken")
		rigs.wait_for("status to be well", lambda: rig.mailwal("status").rc == 0)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify", r)


# ---- a limit of file sizes (ulimit -f) ----

def file_size(t, work):
	with rigs.Rig(work, users=(ANNA,), aliases={}, postfix=POSTFIX,
		      conf="segment_size = 1M\nmin_free = 0") as rig:
		rig.mailwal("init", rig.journal)
		rig.write_conf()
		p = rig.start_mailwald()
		rig.start_postfix()
		answers = [one(rig, f"before{k}") for k in range(5)]
		t.equal([a[0] for a in answers], [250] * 5, "file size: mail is taken")
		for what, limit in (("in a segment", 100_000), ("at once", 4096), ("at all", 0)):
			resource.prlimit(p.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
			name = what.replace(" ", "")
			while answers[-1][0] == 250 or not answers[-1][2]:
				answers.append(one(rig, f"{name}{len(answers)}"))
				if len(answers) > 900:
					break
			answers += [one(rig, f"{name}{len(answers)}") for _ in range(3)]
			judge(t, rig, f"files may not grow {what} ({limit})", answers)
			t.ok(p.poll() is None, f"file size {limit}: mailwald lives", rig.mailwald_log()[-600:])
			resource.prlimit(p.pid, resource.RLIMIT_FSIZE,
					 (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
			answers.append(until_taken(rig, f"again{limit}"))
			judge(t, rig, f"file size {limit}, and none again", answers)
		rig.end("mailwald")
		t.equal(one(rig, "away")[0] // 100, 4, "file size: without mailwald none is taken")
		p = rig.spawn("mailwald", ["prlimit", "--fsize=4096:", rig.mailwald_bin, "-c", rig.conf])
		rigs.wait_for("mailwald to serve or to end",
			      lambda: p.poll() is not None or rigs.connects(rig.milter_sock))
		answers += [one(rig, f"small{k}") for k in range(3)]
		judge(t, rig, "file size: one that starts with a small limit", answers)
		t.ok(p.poll() is None or p.poll() > 0, "file size: no signal ends it", p.poll())
		if p.poll() is None:
			rig.end("mailwald")
		else:
			rig.procs.pop("mailwald", None)
		rig.start_mailwald()
		answers.append(until_taken(rig, "last"))
		judge(t, rig, "file size: with a larger limit after a restart", answers)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "file size: verify", r)


def main(t):
	file_size(t, t.sub("file size"))
	descriptors(t, t.sub("descriptors"))
	stopped(t, t.sub("stopped"))


tap.run(main)
