#!/usr/bin/python3
"""Where a follower begins, --since and --since-mark say at its first start alone: what comes while
it does not run, or while the standby is away, goes there whatever the time is by then and
whichever mark is the last."""
# MW_TEST_COST 5

import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import rig as rigs
import tap


class Standby:
	"""A Maildir that a follower fills."""

	def __init__(self, t, a, name, *begin):
		self.t, self.name = t, name
		self.dir = pathlib.Path(t.sub(name), "boxes")
		self.argv = [rigs.find_program("mailwal"), "-c", a.conf, "--json", "follow", *begin,
			     "--create", "--to", f"maildir:{self.dir}/%u"]
		self.p = None

	def start(self):
		self.p = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
					  preexec_fn=rigs.die_with_parent)

	def current(self):
		"""Until it says so."""
		for line in self.p.stdout:
			if b'"current"' in line:
				return
		self.t.need(False, f"{self.name}: current")

	def kill(self):
		self.p.send_signal(signal.SIGKILL)
		self.p.wait(tap.PATIENCE)
		self.p.stdout.close()

	def names(self):
		return sorted(line.split()[-1] for f in self.dir.rglob("*,S=*")
			      for line in f.read_text("ascii").splitlines() if line.startswith("X-Name:"))

	def has(self, *want):
		try:
			rigs.wait_for(f"{self.name}: {want}", lambda: self.names() == sorted(want))
		except rigs.RigError:
			pass
		self.t.equal(self.names(), sorted(want), f"{self.name}: these, each once")


def take(a, name):
	a.mail(name, sender="w@remote.test", rcpts=["anna@example.test"],
	       headers=[("X-Name", name), ("Message-ID", f"<{name}@remote.test>")])


def mark(t, a):
	t.need(a.mailwal("mark", "nightly")[0] == 0 and a.mailwal("mark", "nightly", "--complete")[0] == 0,
	       "a backup")


def main(t):
	with alone.Alone(t.sub("journal"), "local_domains = example.test", "queue_command = none") as a:
		take(a, "old")
		mark(t, a)
		now = Standby(t, a, "since now", "--since", "now")
		backup = Standby(t, a, "since mark", "--since-mark", "nightly")
		for s in (now, backup):
			s.start()
			s.current()
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


tap.run(main)
