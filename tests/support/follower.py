"""A `mailwal follow` whose JSON lines are gathered as they come."""

import imaplib
import json
import signal
import subprocess
import threading
import time

import mailbox
import rig as rigs
import tap


class Follower:
	"""main, a rig, is followed to the Dovecot of standby; argv may be changed before start."""

	def __init__(self, main, standby, *conf):
		self.argv = main.mailwal_argv(
			"--json", "-v", *conf, "follow", "--to",
			f"imap://127.0.0.1:{standby.imap_port}",
			"--password-file", standby.password_file, "--auth-user", rigs.MASTER)
		self.lines, self.p, self.err = [], None, ""

	def start(self):
		self.lines = []
		self.p = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL,
					  stdout=subprocess.PIPE, stderr=subprocess.PIPE,
					  start_new_session=True, preexec_fn=rigs.die_with_parent)
		self.thread = threading.Thread(target=self._read, daemon=True)
		self.thread.start()
		return self

	def _read(self):
		for line in self.p.stdout:
			self.lines.append(json.loads(line))

	def kinds(self, kind):
		return [o for o in list(self.lines) if o["message_type"] == kind]

	def wait(self, kind, n=1, seconds=tap.PATIENCE):
		rigs.wait_for(f"{n} × {kind} of the follower", lambda: len(self.kinds(kind)) >= n,
			      seconds, self.p)

	def end(self, sig=signal.SIGTERM):
		self.p.send_signal(sig)
		rc = self.p.wait(tap.PATIENCE)
		self.thread.join(tap.PATIENCE)
		self.err = self.p.stderr.read().decode()
		return rc


def settled(rig, want, seconds=tap.PATIENCE):
	"""The comparison once it is right, or what it was when nothing had changed for so long."""
	last, end = None, time.monotonic() + seconds
	while True:
		try:
			got = mailbox.compare(want, {k: v for k, v in mailbox.dump(rig).items() if v})
		except (RuntimeError, imaplib.IMAP4.error):
			got = None  # a folder went while we looked (a staging folder)
		if got and got.ok or time.monotonic() > end:
			return got
		if str(got) != last:
			last, end = str(got), time.monotonic() + seconds
		time.sleep(0.2)


def check(t, standby, jobs, what):
	"""Polls until the standby has every copy, each once; what is still on its way through a
	staging folder is there as well for a moment."""
	want = mailbox.expected(jobs)
	got = settled(standby, want)
	return t.ok(got and got.ok, f"{what}: {sum(map(len, want.values()))} copies, each once", got)
