#!/usr/bin/python3
"""--rate: a replay into real Dovecot by IMAP and LMTP, and into files, is no faster than it
was told to be, over several mailboxes at a time, and is otherwise the same."""
# MW_TEST_COST 15

import glob
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import replaytool
import rig as rigs
import smtp
import tap

USERS = tuple(f"{n}@example.test" for n in ("anna", "bert", "cleo", "dora"))
EACH, SIZE = 6, 4000
N = EACH * len(USERS)


def main(t):
	with rigs.Rig(t.dir, users=USERS) as rig:
		rig.start()
		with smtp.Client(rig.smtp_port) as c:
			for i in range(N):
				u = USERS[i % len(USERS)]
				c.mail((f"From: w@remote.test\r\nTo: {u}\r\nSubject: {i}\r\n"
					f"Message-ID: <r{i}@remote.test>\r\n\r\n").encode()
				       + b"text of some length\r\n" * (SIZE // 21),
				       "w@remote.test", [u])
		rig.wait_queue()
		imap = rig.replay_args("--all", "--fresh")
		lmtp = ["replay", "--all", "--fresh", "--accept-side-effects", "--to",
			f"lmtp:unix:{rig.run}/dovecot/lmtp"]
		files = ["replay", "--all", "--create", "--to", f"maildir:{t.dir}/files/%u"]
		bytes_all = N * SIZE
		for name, args, rate, least in (
				("IMAP, messages", imap, ["--rate", "12"], (N - 1) / 12),
				("IMAP, bytes", imap, ["--rate", "48K"], (bytes_all - 2 * SIZE) / 49152),
				("LMTP, messages", lmtp, ["--rate", "720/min"], (N - 1) / 12),
				("files, both", files, ["--rate", "12", "--rate", "1G"], (N - 1) / 12)):
			replaytool.empty(rig)
			r = rig.mailwal("--json", *args, *rate)
			t.ok(r.rc == 0 and (r.summary or {}).get("restored") == N,
			     f"{name}: all put back", r)
			t.ok((r.summary or {}).get("duration_s", 0) >= least,
			     f"{name}: not faster than that ({least:.1f} s)", r.summary)
		replaytool.empty(rig)
		stop(t, rig, imap)
		r = rig.mailwal(*imap, "--rate", "fast")
		t.ok(r.rc == 64 and "300/min" in r.err, "a wrong rate: exit 64", r)


def stop(t, rig, imap):
	"""Ctrl-C does not wait for the next place in the row."""
	p = subprocess.Popen(rig.mailwal_argv("--json", *imap, "--rate", "1/min"),
			     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
	try:
		rigs.wait_for("the run to be at work", lambda: glob.glob(
			f"{rig.run}/store/*/*/.mailwal-staging/cur"), alive=p)
		p.send_signal(signal.SIGINT)
		p.communicate(timeout=tap.PATIENCE)
	finally:
		if p.poll() is None:
			p.kill()
	t.equal(p.returncode, 130, "Ctrl-C ends a slow run at once")
	r = rig.mailwal("--json", *imap)
	s = r.summary or {}
	t.ok(r.rc == 0 and s.get("restored", 0) + s.get("already_there", 0) == N,
	     "and the next run does the rest", r)


tap.run(main)
