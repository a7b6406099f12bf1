#!/usr/bin/python3
"""Between a replay's look at a mailbox and its lock, the staging folder: mail that comes then is
seen, a run that is killed there leaves nothing that only a person can remove, and of two runs
with ledgers of their own one holds the mailbox, however slow the server is."""
# MW_TEST_COST 30

import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import captured
import mailbox
import rig as rigs
import tap
import workload
from imapserver import ALL, STAGING, Server, is_marker
from replaytool import StopProxy

ANNA = "anna@example.test"


def message(i):
	return captured.message(i) + (b"y" * 70 + b"\r\n") * 500


def between(t):
	"""Real Dovecot, whose STATUS of the selected folder is as old as its last look. Two of five
	messages are gone; one of them comes back at the moment of the lock."""
	with rigs.Rig(t.sub("dovecot"), users=(ANNA,), aliases={}, postfix="virtual_transport = discard:") as rig:
		rig.start()
		rig.send([workload.Mail(f"m {i}", message(i), "w@remote.test", [ANNA], {}, (ANNA,))
			  for i in range(5)], clock=time.time)
		rig.wait_queue()

		def replay(port):
			return rig.mailwal("--json", "replay", "--all", "--fresh", "--to", f"imap://127.0.0.1:{port}",
					   "--password-file", rig.password_file, "--auth-user", rigs.MASTER)
		r = replay(rig.imap_port)
		t.need(r.rc == 0 and r.summary["restored"] == 5, "five messages are put back", r)
		c = mailbox.login(rig, ANNA)
		c.select("INBOX")
		raw = c.fetch("3", "(INTERNALDATE RFC822)")[1][0]
		date = '"' + raw[0].decode().split('INTERNALDATE "')[1].split('"')[0] + '"'
		for n in ("1", "3"):
			c.store(n, "+FLAGS", "\\Deleted")
		c.expunge()
		c.logout()
		came = []

		def deliver():
			o = mailbox.login(rig, ANNA)
			came.append(o.append("INBOX", None, date, raw[1])[0])
			o.logout()
		relay = StopProxy(rig.imap_port, b"CREATE", 1, deliver, on=True)
		r = replay(relay.port)
		relay.close()
		there = [m.data for m in mailbox.dump(rig)[ANNA, "INBOX"]]
		t.ok(r.rc == 0 and came == ["OK"] and r.summary["restored"] == 1 and len(there) == 5
		     and len(set(there)) == 5, "what came between look and lock is not put back once more",
		     f"{came} {len(there)}\n{r}")


def killed(t, site, data):
	"""SIGKILL while the marker is on its way."""
	asked, go = threading.Event(), threading.Event()

	def slow(d):
		if is_marker(d) and not go.is_set():
			asked.set()
			go.wait(tap.PATIENCE)
		return False

	state = t.sub("killed")
	with Server(ALL, poison=slow) as s:
		p = site.start(s, "--state", state)
		t.need(asked.wait(tap.PATIENCE), "the marker is on its way")
		time.sleep(1)  # for what might overtake it
		t.equal(s.texts(ANNA).get(STAGING, []), [], "nothing stands in the staging folder before it")
		p.kill()
		p.communicate()
		go.set()
		q = site.replay(s, "--state", state)
		t.ok(q.rc == 0 and sorted(s.texts(ANNA)["INBOX"]) == data and STAGING not in s.texts(ANNA),
		     "the next run puts back all, each once", f"{q}\n{ {k: len(v) for k, v in s.texts(ANNA).items()} }")


def race(t, site, s, made, data, what):
	"""A run, and another with a ledger of its own once the first has made its folder."""
	s.put(ANNA, "Archive", b"Subject: x\r\nMessage-ID: <arch@x>\r\n\r\nx\r\n")
	runs = [site.start(s, "--state", t.sub(f"{what}, first"))]
	t.need(made.wait(tap.PATIENCE), f"{what}: the first has made its folder")
	runs.append(site.start(s, "--state", t.sub(f"{what}, second")))
	said = [p.communicate(timeout=tap.PATIENCE) for p in runs]
	t.ok(sorted(s.texts(ANNA)["INBOX"]) == data, f"{what}: each copy is there once",
	     f"{len(s.texts(ANNA)['INBOX'])} of {len(data)}\n{said}")
	t.ok(sorted(p.returncode for p in runs) in ([0, 0], [0, 75]), f"{what}: one at least says so",
	     f"{[p.returncode for p in runs]}\n{said}")


def two(t, site, data):
	"""Of one run's first look behind the lock the answer takes so long that the other one takes
	the folder for a dead run's."""
	slow, moved = threading.Event(), []

	def refuses(c):
		if c.startswith('STATUS "Archive"') and not slow.is_set() and s.said("CREATE"):
			slow.set()
			time.sleep(9)
		elif c.startswith("UID MOVE") and len(moved) < 2:
			moved.append(c)
			if len(moved) == 2:
				time.sleep(6)

	with Server(ALL, refuses=refuses) as s:
		race(t, site, s, slow, data, "two runs")


def lost_marker(t, site, data):
	"""A run so slow behind its CREATE that another one deletes its folder and makes its own: what
	the first then clears up is its own folder alone."""
	slow, gone, cleared = threading.Event(), threading.Event(), threading.Event()
	first, upload = [], 0.03

	def refuses(c):
		me = threading.get_ident()
		if c.startswith("CREATE"):
			if not first:
				first.append(me)
			elif me not in first:  # not before the first has begun to clear up
				cleared.wait(30)
		elif me in first and c.startswith('STATUS "Archive"') and not gone.is_set():
			slow.set()
			gone.wait(30)
		elif me in first and c.startswith("FETCH 1"):
			cleared.set()
		elif me in first and cleared.is_set() and c.startswith("SELECT"):
			time.sleep(10 * upload)

	def cuts(c):
		if c.startswith("DELETE") and threading.get_ident() not in first:
			gone.set()
		return False

	def poison(d):
		if not is_marker(d):
			time.sleep(upload)
		return False

	with Server(ALL, refuses=refuses, poison=poison, cuts=cuts) as s:
		race(t, site, s, slow, data, "a run whose folder was taken away")


def rival_marker(t, site, data):
	"""What a losing run put into the folder before it saw that it had lost goes nowhere, also
	where mail is moved by its position."""
	for caps in ((), ("MOVE",), ("MULTIAPPEND", "LITERAL+")):
		came = []

		def meanwhile(command, came=came):
			ours = s.texts(ANNA).get(STAGING)
			if command.startswith("APPEND") and ours and not came:
				came.append(command)
				s.put(ANNA, STAGING, ours[0].replace(b"X-Mailwal-Run: ", b"X-Mailwal-Run: other"))

		with Server(caps, meanwhile=meanwhile) as s:
			r = site.replay(s)
			have = s.texts(ANNA)
			t.ok(r.rc == 0 and came and sorted(have["INBOX"]) == data and list(have) == ["INBOX"],
			     f"{' '.join(caps) or 'plain'}: the marker of a run that lost stays out of INBOX",
			     f"{ {k: len(v) for k, v in have.items()} }\n{r}")


def taken_away(t, site, data):
	"""Somebody sees the folder in his mail program, and deletes it: no message is to blame."""
	for caps in ((), ("UIDPLUS",), ("MULTIAPPEND", "LITERAL+"), ALL):
		came = []

		def meanwhile(command, came=came):
			if command.startswith("APPEND") and len(s.texts(ANNA).get(STAGING, "")) > (0 if "MULTIAPPEND" in s.caps else 9) \
			   and not came:
				came.append(command)
				del s.folders(ANNA)[STAGING]

		with Server(caps, meanwhile=meanwhile) as s:
			r = site.replay(s)
			have = s.texts(ANNA)
			t.ok(r.rc == 0 and came and sorted(have["INBOX"]) == data and list(have) == ["INBOX"],
			     f"{' '.join(caps) or 'plain'}: the folder is deleted in the middle, all is put back once",
			     f"{ {k: len(v) for k, v in have.items()} }\n{r}")


def taken_late(t, site, data):
	"""The same when all of it is there, and about to be moved."""
	for caps in ((), ("MOVE",), ("UIDPLUS",), ("MULTIAPPEND", "LITERAL+"), ("UIDPLUS", "MOVE"), ALL):
		came = []

		def meanwhile(command, came=came):
			if not came and command.replace("UID ", "").startswith(("MOVE", "COPY")):
				came.append(command)
				s.folders(ANNA).pop(STAGING).v.clear()

		with Server(caps, meanwhile=meanwhile) as s:
			r = site.replay(s)
			have = s.texts(ANNA)
			t.ok(r.rc == 0 and came and sorted(have["INBOX"]) == data and list(have) == ["INBOX"],
			     f"{' '.join(caps) or 'plain'}: the folder is deleted before the move, all is put back once",
			     f"{ {k: len(v) for k, v in have.items()} }\n{r}")


def marker_hidden(t, site, data):
	"""Nobody could tell whose the folder is: said, and nothing stays."""
	for caps in ((), ALL):
		with Server(caps, hides=is_marker) as s:
			runs = [site.replay(s) for _ in range(2)]
			t.ok(all(r.rc not in (0, 75, 130) and "does not show the message" in r.out + r.err for r in runs)
			     and s.texts(ANNA) == {"INBOX": []}, f"{' '.join(caps) or 'plain'}: a server that does "
			     "not show the marker gets no mail, and keeps no folder",
			     f"{ {k: len(v) for k, v in s.texts(ANNA).items()} }\n{runs}")


def main(t):
	between(t)
	with captured.Site(t, users=(ANNA,)) as site:
		data = sorted(message(i) for i in range(400))
		site.capture(data)
		killed(t, site, data)
		two(t, site, data)
		lost_marker(t, site, data)
		rival_marker(t, site, data)
		taken_away(t, site, data)
		taken_late(t, site, data)
		marker_hidden(t, site, data)


tap.run(main)
