#!/usr/bin/python3
"""The journal is taken away under a running mailwald: what nobody would find again is not
acknowledged. Back in its place, or as a copy of itself, it goes on; another journal in its
place gets nothing. Its index is only a cache, also while mailwald runs."""
# MW_TEST_COST 8

import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import smtp
import tap

ANNA = "anna@example.test"


class Sender:
	def __init__(self, rig):
		self.rig, self.n, self.told = rig, 0, []

	def __call__(self):
		"""Sends one message; its code."""
		self.n += 1
		name = f"<gone{self.n}@remote.test>"
		data = f"From: w@remote.test\r\nMessage-ID: {name}\r\n\r\nbody {self.n}\r\n"
		try:
			with smtp.Client(self.rig.smtp_port) as c:
				got = c.mail(data.encode(), "w@remote.test", [ANNA])
				c.quit()
		except smtp.SmtpError as e:
			return e.code
		if got[0] == 250:
			self.told.append(name)
		return got[0]

	def until_taken(self):
		rigs.wait_for("mail to be taken again", lambda: self() == 250)


def held(rig, send):
	"""(acknowledged and missing, journaled twice)"""
	have = [o["message_id"] for o in rig.journaled()]
	return [m for m in send.told if m not in have], [m for m in have if have.count(m) > 1]


def moved(t, rig, send, what):
	"""Away and back, `what` being the journal or a part of it."""
	path = os.path.join(rig.journal, what) if what else rig.journal
	name = what or "the journal"
	os.rename(path, rig.dir + "/away")
	t.equal([send(), send()], [451, 451], f"{name} is moved away")
	os.rename(rig.dir + "/away", path)
	send.until_taken()
	t.equal(held(rig, send), ([], []), f"{name} is back: all that was acknowledged, once")


def copied(t, rig, send):
	"""Removed, and put back from a copy, as from a backup."""
	rigs.copy_journal(rig.journal, rig.dir + "/copy")
	rigs.remove_live(rig.journal)  # mailwald prepares segments there meanwhile
	t.equal(send(), 451, "the journal is removed")
	shutil.copytree(rig.dir + "/copy", rig.journal)
	send.until_taken()
	t.equal(held(rig, send), ([], []), "a copy of it is there: mailwald goes on in it")


def another(t, rig, send):
	os.rename(rig.journal, rig.dir + "/own")
	t.need(rig.mailwal("init", rig.journal).rc == 0, "another journal in its place")
	t.equal([send(), send()], [451, 451], "it gets nothing")
	t.ok("is another journal now: restart mailwald" in rig.mailwald_log(), "the log says so")
	t.equal(rig.journaled(), [], "and is empty")
	shutil.rmtree(rig.journal)
	os.rename(rig.dir + "/own", rig.journal)
	send.until_taken()
	t.equal(held(rig, send), ([], []), "the own one is back")


def continued(t, rig, send):
	"""Somebody else wrote to the copy that is in its place before mailwald saw it."""
	p = rig.procs["mailwald"]
	p.send_signal(signal.SIGSTOP)
	os.rename(rig.journal, rig.dir + "/moved")
	shutil.copytree(rig.dir + "/moved", rig.journal, ignore=shutil.ignore_patterns("*.sock", "*.tmp"))
	r = rig.mailwal("mark", "meanwhile")
	p.send_signal(signal.SIGCONT)
	t.ok(r.rc == 0, "a mark in a copy in its place, which nobody owns", r)
	t.equal([send(), send()], [451, 451], "mailwald does not write over it")
	t.ok("has gone on without this mailwald" in rig.mailwald_log(), "the log says so")
	t.equal(rig.end("mailwald"), 0, "mailwald ends")
	rig.start_mailwald()
	t.equal(send(), 250, "started anew it goes on in it")
	t.equal(held(rig, send), ([], []), "with all that was acknowledged")
	r = rig.mailwal("mark", "--list")
	t.ok("meanwhile" in r.out, "and the mark", r)


def index(t, rig, send):
	rigs.remove_live(rig.journal + "/index")
	t.equal(send(), 250, "the index is removed: mail is taken")
	t.equal(held(rig, send), ([], []), "and listed")
	r = rig.mailwal("reindex")
	t.ok(r.rc == 0, "reindex while mailwald runs", r)
	t.equal(send(), 250, "after that as well")
	t.equal(held(rig, send), ([], []), "all is listed")


def main(t):
	with rigs.Rig(t.sub("rig"), users=(ANNA,), aliases={}) as rig:
		rig.start()
		send = Sender(rig)
		t.equal(send(), 250, "mail is taken")
		moved(t, rig, send, "")
		moved(t, rig, send, "segments")
		copied(t, rig, send)
		another(t, rig, send)
		continued(t, rig, send)
		index(t, rig, send)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)
		t.equal(rig.end("mailwald"), 0, "mailwald ends well")
		rig.start_mailwald()
		another(t, rig, send)  # before a segment is begun
		t.equal(send(), 250, "and starts again")
		t.equal(held(rig, send), ([], []), "with all that was acknowledged")


tap.run(main)
