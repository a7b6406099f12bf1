#!/usr/bin/python3
"""Where a follower begins, --since and --since-mark say at its first start alone: what comes while
it does not run, or while the standby is away, goes there whatever the time is by then and
whichever mark is the last; also where the follower was killed before it ever reached the standby."""
# MW_TEST_COST 15

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import rig as rigs
import tap
from imapserver import Server


class Standby:
	"""A Maildir that a follower fills."""

	def __init__(self, t, a, name, *begin):
		self.t, self.name = t, name
		self.dir = pathlib.Path(t.sub(name), "boxes")
		self.argv = [rigs.find_program("mailwal"), "-c", a.conf, "--json", "follow", *begin,
			     *self.target()]
		self.p = None

	def target(self):
		return ["--create", "--to", f"maildir:{self.dir}/%u"]

	def start(self):
		self.p = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
					  preexec_fn=rigs.die_with_parent)

	def says(self, *what):
		"""Waits until it says one of these, which is returned."""
		for line in self.p.stdout:
			said = json.loads(line)["message_type"]
			if said in what:
				return said
		self.t.need(False, f"{self.name}: {what}")

	def kill(self):
		self.p.send_signal(signal.SIGKILL)
		self.p.wait(tap.PATIENCE)
		self.p.stdout.close()

	def texts(self):
		return [f.read_text("ascii") for f in self.dir.rglob("*,S=*")]

	def names(self):
		return sorted(line.split()[-1] for text in self.texts()
			      for line in text.splitlines() if line.startswith("X-Name:"))

	def has(self, *want):
		try:
			rigs.wait_for(f"{self.name}: {want}", lambda: self.names() == sorted(want))
		except rigs.RigError:
			pass
		self.t.equal(self.names(), sorted(want), f"{self.name}: these, each once")


class Far(Standby):
	"""An IMAP server that lets nobody in until it is told to."""

	def __init__(self, t, a, name, *begin):
		self.s = Server(refuses=lambda command: "NO [UNAVAILABLE] later"
				if command.startswith("AUTHENTICATE") else None)
		super().__init__(t, a, name, *begin)

	def target(self):
		word = self.dir.parent / "password"
		word.write_text("secret\n", encoding="ascii")
		word.chmod(0o600)
		return ["--to", f"imap://127.0.0.1:{self.s.port}", "--auth-user", "m", "--password-file", str(word)]

	def texts(self):
		return [data.decode() for box in self.s.texts("anna@example.test").values() for data in box]


def take(a, name):
	a.mail(name, sender="w@remote.test", rcpts=["anna@example.test"],
	       headers=[("X-Name", name), ("Message-ID", f"<{name}@remote.test>")])


def mark(t, a):
	t.need(a.mailwal("mark", "nightly")[0] == 0 and a.mailwal("mark", "nightly", "--complete")[0] == 0,
	       "a backup")


def not_reached(t, a):
	"""The mark that counts is the last one of the first start."""
	mark(t, a)
	for ends in (True, False):
		take(a, "before")
		mark(t, a)
		take(a, "one")
		s = Far(t, a, "killed" if ends else "waiting", "--since-mark", "nightly")
		with s.s:
			s.start()
			t.equal(s.says("away", "current"), "away", "the standby is not reached")
			if ends:
				s.kill()
			take(a, "two")
			mark(t, a)
			if ends:
				s.start()
				t.equal(s.says("away", "current"), "away", "nor when it is started again")
			s.s.refuses = None
			s.says("current")
			take(a, "three")
			s.has("one", "two", "three")
			s.kill()


def ages(t, a):
	"""What is not older than that at the first start."""
	for seconds in (5, 20, 80):
		took = time.monotonic()
		take(a, f"young-{seconds}")
		s = Far(t, a, f"not older than {seconds} s", f"--since=-{seconds}")
		with s.s:
			s.start()
			young = s.says("away", "current") == "away"
			s.kill()
			if not young:  # a busy machine
				continue
			rigs.wait_for("it to be older", lambda: time.monotonic() > took + seconds + 1)
			lag = json.loads(a.mailwal("status", "--json")[1])["standbys"]
			s.start()
			t.equal(s.says("away", "current"), "away", "still there is something to put")
			s.s.refuses = None
			s.says("current")
			s.has(*(f"young-{k}" for k in (5, 20, 80) if k <= seconds))
			s.kill()
			t.ok(any(str(s.s.port) in x["target"] for x in lag), "status knows the standby", lag)
			break
	t.ok(young, "the follower began in time")


def empty(t, a):
	"""Nothing was there to be put when it began."""
	s = Standby(t, a, "an empty journal, since now", "--since", "now")
	s.start()
	s.says("current")
	s.kill()
	take(a, "first")
	s.start()
	s.has("first")
	s.kill()


def empty_too(t, a, b):
	"""One of a set was empty then."""
	take(a, "old")
	s = Standby(t, a, "one of two empty, since now", "--since", "now")
	s.argv[3:3] = ["-j", a.journal, "-j", b.journal]
	s.start()
	s.says("current")
	s.kill()
	take(a, "one")
	take(b, "other")
	s.start()
	s.has("one", "other")
	s.kill()


def main(t):
	head = ("local_domains = example.test", "queue_command = none")
	with alone.Alone(t.sub("a"), *head) as a, alone.Alone(t.sub("b"), *head) as b:
		empty_too(t, a, b)
	with alone.Alone(t.sub("empty"), *head) as a:
		empty(t, a)
	with alone.Alone(t.sub("ages"), *head) as a:
		ages(t, a)
	with alone.Alone(t.sub("journal"), *head) as a:
		take(a, "old")
		mark(t, a)
		now = Standby(t, a, "since now", "--since", "now")
		backup = Standby(t, a, "since mark", "--since-mark", "nightly")
		for s in (now, backup):
			s.start()
			s.says("current")
		take(a, "one")
		for s in (now, backup):
			s.has("one")
			s.kill()
		take(a, "two")
		mark(t, a)
		take(a, "three")
		for s in (now, backup):
			s.start()
			s.has("one", "two", "three")
			s.kill()
		not_reached(t, a)


tap.run(main)
