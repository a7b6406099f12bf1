#!/usr/bin/python3
"""Between a replay's look at a mailbox and its lock, the staging folder: mail that comes then is
seen, a run that is killed there leaves nothing that only a person can remove, and of two runs
with ledgers of their own one holds the mailbox, however slow the server is."""
# MW_TEST_COST 30

import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import milterclient
import rig as rigs
import tap
import workload
from imapserver import Server
from replaytool import StopProxy

ANNA = "anna@example.test"
ALL = ("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+", "NAMESPACE", "ID")
STAGING = "mailwal-staging"


def message(i):
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"text {i}\r\n" + ("y" * 70 + "\r\n") * 500).encode()


def is_marker(data):
	return b"X-Mailwal-Run:" in data


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


def argv(rig, s, state):
	return rig.mailwal_argv("--json", "replay", "--all", "--fresh", "--queue", "none", "--state", state,
				"--to", f"imap://127.0.0.1:{s.port}", "--auth-user", rigs.MASTER,
				"--password-file", rig.password_file)


def start(rig, s, state):
	return subprocess.Popen(argv(rig, s, state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(t, rig, data):
	"""SIGKILL while the marker is on its way."""
	asked, go = threading.Event(), threading.Event()

	def slow(d):
		if is_marker(d) and not go.is_set():
			asked.set()
			go.wait(tap.PATIENCE)
		return False

	state = t.sub("killed")
	with Server(ALL, poison=slow) as s:
		p = start(rig, s, state)
		t.need(asked.wait(tap.PATIENCE), "the marker is on its way")
		time.sleep(1)  # for what might overtake it
		t.equal(s.texts(ANNA).get(STAGING, []), [], "nothing stands in the staging folder before it")
		p.kill()
		p.communicate()
		go.set()
		q = subprocess.run(argv(rig, s, state), capture_output=True, text=True, timeout=tap.PATIENCE)
		t.ok(q.returncode == 0 and sorted(s.texts(ANNA)["INBOX"]) == data and STAGING not in s.texts(ANNA),
		     "the next run puts back all, each once", f"{q}\n{ {k: len(v) for k, v in s.texts(ANNA).items()} }")


def two(t, rig, data):
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
		s.put(ANNA, "Archive", b"Subject: x\r\nMessage-ID: <arch@x>\r\n\r\nx\r\n")
		runs = [start(rig, s, t.sub("first"))]
		t.need(slow.wait(tap.PATIENCE), "the first has made its folder")
		runs.append(start(rig, s, t.sub("second")))
		said = [p.communicate(timeout=tap.PATIENCE) for p in runs]
		t.ok(sorted(s.texts(ANNA)["INBOX"]) == data, "two runs: each copy is there once",
		     f"{len(s.texts(ANNA)['INBOX'])} of {len(data)}\n{said}")
		t.ok(sorted(p.returncode for p in runs) in ([0, 0], [0, 75]), "one of them at least says so",
		     f"{[p.returncode for p in runs]}\n{said}")


def main(t):
	between(t)
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,), aliases={})
	with rig:
		t.need(rig.mailwal("init", rig.journal).rc == 0, "a journal")
		with open(rig.password_file, "w", encoding="ascii") as f:
			f.write("any\n")
		os.chmod(rig.password_file, 0o600)
		rig.start_mailwald()
		data = sorted(message(i) for i in range(400))
		taken = milterclient.journal(rig.milter_sock, [
			(f"Q{i:06d}", ANNA, d) for i, d in enumerate(data)], threads=1)
		t.need(len(taken) == len(data), "captured")
		killed(t, rig, data)
		two(t, rig, data)


tap.run(main)
