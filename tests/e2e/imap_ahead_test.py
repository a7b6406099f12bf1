#!/usr/bin/python3
"""What a replay sends to an IMAP server before it has the answer to what stands in front: that it
does so, and that nothing is lost, doubled or left where that answer is a refusal."""
# MW_TEST_COST 10

import json
import os
import shutil
import signal
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import captured
import rig as rigs
import tap
from imapserver import ALL, STAGING, Server, is_marker

ANNA = "anna@example.test"
# The last command of each flight gets its answer at once.
BEHIND = ("NAMESPACE", "ID", "CREATE", "STATUS", "UID MOVE", "UID STORE", "CLOSE")


def held(s, folder="INBOX"):
	return sorted(s.texts(ANNA).get(folder, []))


def holding():
	"""Which answers are held back; of STATUS those behind CREATE."""
	made = []

	def behind(command):
		if command.startswith("AUTHENTICATE"):
			made.clear()
		if command.startswith("CREATE"):
			made.append(command)
		if command.startswith("STATUS") and not made:
			return False
		marker = command.startswith("APPEND") and "\\Seen" in command
		return marker or command.startswith(BEHIND)

	return behind


def flights(t, site, data):
	"""A server that keeps answers back until more has come would wait for ever."""
	for prefix in ("", "INBOX."):
		with Server(ALL, behind=holding(), tells=True, prefix=prefix) as s:
			r = site.replay(s, "--fresh")
			t.ok(r.rc == 0 and held(s) == data and list(s.texts(ANNA)) == ["INBOX"],
			     f"nothing is waited for that is not needed, prefix '{prefix}'",
			     f"{s.commands}\n{r}")
			said = [c.split()[0] for c in s.commands]
			t.ok(said.index("AUTHENTICATE") == 0 and "CAPABILITY" not in said,
			     "what the server tells unasked is not asked for", said)
			asked = said[:said.index("APPEND")]
			t.ok("NOOP" not in asked and asked.count("STATUS") == asked.count("CREATE") == 1,
			     "whether an empty mailbox is still so is asked with CREATE, not before", said)


def marker_refused(t, site, data):
	with Server(ALL, poison=is_marker) as s:
		r = site.replay(s, "--fresh")
		t.ok(r.rc != 0 and not held(s) and list(s.texts(ANNA)) == ["INBOX"]
		     and r.summary["failed"] == len(data) and "cannot write to the mailbox" in r.out + r.err,
		     "without a marker nothing is put back, and no staging folder stays",
		     f"{s.texts(ANNA)}\n{s.commands}\n{r}")
	said = []
	with Server(ALL, poison=lambda d: is_marker(d) and not said.append(1) and len(said) == 1) as s:
		r = site.replay(s, "--fresh")
		t.ok(r.rc == 0 and held(s) == data and list(s.texts(ANNA)) == ["INBOX"] and len(said) > 1,
		     "where it is taken the next time each copy is there once", f"{said}\n{r}")


def folder_there(t, site, data):
	"""Another run makes the folder at the same moment."""
	def meanwhile(command):
		if command.startswith("CREATE") and STAGING not in s.folders(ANNA):
			s.make(ANNA, STAGING)

	with Server(ALL, meanwhile=meanwhile) as s:
		r = site.replay(s, "--fresh")
		t.ok(r.rc != 0 and not held(s) and held(s, STAGING) == []
		     and not any(c.startswith("APPEND") for c in s.commands),
		     "the staging folder of another run gets no mail of this one", f"{s.commands}\n{r}")


def changed(t, site, data):
	"""Mail comes, and a folder, between the look and the lock."""
	for folder in ("INBOX", "Archive"):
		def meanwhile(command, folder=folder):
			if command.startswith("CREATE") and not held(s, folder):
				s.put(ANNA, folder, data[3])

		with Server(ALL, meanwhile=meanwhile, behind=holding()) as s:
			r = site.replay(s, "--fresh")
			t.ok(r.rc == 0 and sorted(held(s) + held(s, "Archive")) == data
			     and held(s, folder) and STAGING not in s.texts(ANNA)
			     and r.summary["already_there"] == 1,
			     f"what came into {folder} since the look is not put back once more",
			     f"{s.commands}\n{r}")


def changed_before(t, site, data):
	"""One is there, another comes behind the early look: what is missing is asked for anew."""
	def meanwhile(command):
		if command.startswith("NOOP") and len(held(s)) == 1:
			s.put(ANNA, "INBOX", data[3])

	with Server(ALL, meanwhile=meanwhile) as s:
		s.put(ANNA, "INBOX", data[5])
		r = site.replay(s, "--fresh")
		t.ok(r.rc == 0 and held(s) == data and r.summary["already_there"] == 2
		     and r.summary["restored"] == len(data) - 2,
		     "what came behind the early look is not put back once more", f"{s.commands}\n{r}")


def move_refused(t, site, data):
	"""The folder is taken away behind a MOVE, which is refused at first, or always."""
	for times in (1, 2, 1000):
		said = []

		def refuses(command, said=said, times=times):
			if not command.startswith("UID MOVE"):
				return None
			said.append(command)
			return "NO [OVERQUOTA] no room" if len(said) <= times else None

		with Server(ALL, refuses=refuses, behind=holding()) as s:
			r = site.replay(s, "--fresh")
			there = data if times < 3 else []
			t.ok((r.rc == 0) == bool(there) and held(s) == there
			     and list(s.texts(ANNA)) == ["INBOX"]
			     and r.summary["restored"] == len(there)
			     and r.summary["failed"] == len(data) - len(there),
			     f"{times} refusals of MOVE: all or nothing is there, once, and it is said",
			     f"{s.commands[-30:]}\n{r}")


def caught(p):
	"""Its handlers stand, so what comes now does not end it at once."""
	with open(f"/proc/{p.pid}/status", encoding="ascii") as f:
		mask = next(line.split()[1] for line in f if line.startswith("SigCgt"))
	return int(mask, 16) >> (signal.SIGINT - 1) & 1


def interrupted(t, site, data):
	"""Before the first mailbox: while the plan is made, or the MTA's queue is read."""
	slow = os.path.join(t.dir, "slow-queue")
	with open(slow, "w", encoding="ascii") as f:
		f.write(f"#!/bin/sh\n: >{slow.replace(' ', chr(92) + ' ')}.asked\nexec sleep 600\n")
	os.chmod(slow, 0o755)
	link = os.path.join(tempfile.mkdtemp(dir="/tmp"), "slow")  # a name without blanks
	os.symlink(slow, link)
	for what, sig, ready, more in (
			("its plan", signal.SIGINT, caught, ()),
			("its plan", signal.SIGTERM, caught, ()),
			("the queue", signal.SIGINT, lambda _: os.path.exists(slow + ".asked"), ("--queue", link))):
		report = os.path.join(t.dir, "report.json")
		go = threading.Event()  # until then nobody can log in, or the run might end before it
		with Server(ALL, meanwhile=lambda _, go=go: go.wait(tap.PATIENCE)) as s:
			p = site.start(s, "--fresh", "--report", report, *more)
			t.comes(lambda p=p, ready=ready: ready(p) or p.poll() is not None, "it is at work")
			p.send_signal(sig)
			go.set()
			out, err = p.communicate(timeout=tap.PATIENCE)
			rigs.wait_for("the run's last command", lambda s=s: not s.running())
			last = json.loads((out.splitlines() or ["{}"])[-1])
			told = {}
			if os.path.exists(report):
				with open(report, encoding="utf-8") as f:
					told = json.load(f)
				os.unlink(report)
			t.ok(p.returncode == 130 and last.get("interrupted") and last.get("restored") == 0
			     and told.get("interrupted") is True and held(s) == [] and list(s.texts(ANNA)) == ["INBOX"],
			     f"signal {sig} while {what} is read: summary and report say so, nothing is put back",
			     f"{p.returncode} {out}{err}{told}")
	shutil.rmtree(os.path.dirname(link))


def main(t):
	with captured.Site(t, users=(ANNA,)) as site:
		data = sorted(captured.message(i) for i in range(20))
		site.capture(data)
		flights(t, site, data)
		marker_refused(t, site, data)
		folder_there(t, site, data)
		changed(t, site, data)
		changed_before(t, site, data)
		move_refused(t, site, data)
		interrupted(t, site, data)


tap.run(main)
