#!/usr/bin/python3
"""UIDs of folders that imported mail goes to are raised, also where the journal holds nothing
but old imported mail; and what a killed run left of its placeholders is gone after the next
step of any kind, whomever that one is for."""
# MW_TEST_COST 20

import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import caches
import mailbox
import rig as rigs
import tap
import workload
from replaytool import empty

ANNA, BERT = "anna@example.test", "bert@example.test"
ARCHIVE = "Archive/2019"
OLD = '" 5-Mar-2019 12:00:00 +0000"'


def old_mail(tag, i):
	return (f"From: w@past.test\r\nTo: {ANNA}\r\nSubject: {tag} {i}\r\n"
		f"Message-ID: <{tag}{i}@past.test>\r\n\r\ntext {tag} {i}\r\n").encode()


def put_old(rig, folder, tag, n):
	c = mailbox.login(rig, ANNA)
	c.create(f'"{folder}"')
	for i in range(n):
		t, text = c.append(f'"{folder}"', "", OLD, old_mail(tag, i))
		if t != "OK":
			raise rigs.RigError(text)
	c.logout()


def import_all(t, rig, n):
	r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{rig.imap_port}", "--auth-user",
			rigs.MASTER, "--password-file", rig.password_file, "--user", ANNA)
	t.need(r.rc == 0 and r.summary["imported"] == n, f"{n} imported", r)


def restore(rig):
	rig.end("dovecot")
	rig.destroy_store()
	rig.restore()
	rig.start_dovecot()


def folders_of_imports(t, rig):
	"""Nothing but imported mail of 2019 is in the journal; the folders are of today."""
	put_old(rig, "INBOX", "a", 3)
	put_old(rig, ARCHIVE, "b", 3)
	put_old(rig, "Other", "x", 2)
	rig.backup()
	put_old(rig, "INBOX", "c", 5)
	put_old(rig, ARCHIVE, "d", 7)
	import_all(t, rig, 20)
	warm = [k(rig, ANNA, f) for f in ("INBOX", ARCHIVE) for k in (caches.ByUid, caches.ByModseq)]
	for c in warm:
		c.folder = f'"{c.folder}"'
		c.sync()
	c = mailbox.login(rig, ANNA)  # and it came to more than the journal knows
	for f in ("INBOX", ARCHIVE):
		for i in range(20):
			c.append(f'"{f}"', "", None, old_mail("draft", i))
		c.select(f'"{f}"')
		c.store("9:*", "+FLAGS", "\\Deleted")
		c.expunge()
	c.logout()
	for c in warm:
		c.sync()
	t.need(not any(c.missed() for c in warm), "the clients know all mail before the loss")
	restore(rig)
	dry = rig.replay("--all", "--uid-gap", "300", "-n")
	r = rig.replay("--all", "--uid-gap", "300", "--report", f"{t.dir}/report.json")
	t.ok(r.rc == 0 and r.summary["restored"] == 12 and r.summary["raised"] == 2
	     and dry.summary["raised"] == 2, "INBOX and the imported folder are raised, no other",
	     f"{dry}\n{r}")
	missed = {}
	for c in warm:
		c.sync()
		missed.update({c.folder: c.missed()} if c.missed() else {})
	t.ok(not missed, "every client sees every message", missed)
	r = rig.mailwal("--json", *rig.replay_args()[:1], "prepare", *rig.replay_args("--all")[1:])
	box = next((b for b in r.lines if b.get("message_type") == "mailbox"), {})
	names = {u["folder"] for u in box.get("uids", [])}
	t.ok(r.rc == 0 and names >= {"INBOX", ARCHIVE, "Other"}, "prepare raises all three", r)


def kill_within(t, rig):
	"""SIGKILL while placeholders lie in anna's INBOX."""
	for _ in range(12):
		empty(rig, [ANNA])
		p = subprocess.Popen(rig.mailwal_argv(*rig.replay_args("--all", "--uid-gap", "4000")),
				     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
				     stderr=subprocess.DEVNULL)
		end = time.monotonic() + tap.PATIENCE
		c = mailbox.login(rig, ANNA)
		while p.poll() is None and time.monotonic() < end:
			if int(c.status("INBOX", "(MESSAGES)")[1][0].split()[-1].rstrip(b")")) > 200:
				break
		p.send_signal(signal.SIGKILL)
		p.wait(tap.PATIENCE)
		c.logout()
		if caches.placeholders(rig, ANNA):
			return
	t.need(False, "a killed run leaves placeholders behind")


def left(rig):
	"""Folders with placeholders, and the staging folder if it is there."""
	c = mailbox.login(rig, ANNA)
	out = [f for f in mailbox.folders(c) if "mailwal" in f]
	c.logout()
	return out or caches.placeholders(rig, ANNA)


def notes(rig):
	return list(pathlib.Path(rig.journal, "ledger").rglob("raising-*"))


def swept(t, rig):
	args = rig.replay_args()
	to = args[1:]
	bert = rig.mailwal("--json", *args, "--user", BERT)
	run = (bert.summary or {}).get("run", "")
	t.need(bert.rc == 0 and run, "bert's mail is there", bert)
	steps = (("a run for bert alone", ("replay", *to, "--user", BERT), 0),
		 ("prepare for bert, no UIDs raised", ("replay", "prepare", *to, "--user", BERT,
						       "--uid-gap", "0"), 0),
		 ("recover for bert", ("recover", *to, "--user", BERT, "--missing", "--folder",
				       "Back"), 0),
		 ("undo of a run of bert's", ("replay", "undo", run, *to), 0))
	kill_within(t, rig)
	rig.backup()
	saved = {n: n.read_bytes() for n in notes(rig)}
	t.need(len(saved) == 1, "one box is remembered", saved)
	for k, (what, words, rc) in enumerate(steps):
		if k:
			restore(rig)
			for n, data in saved.items():
				n.write_bytes(data)
		r = rig.mailwal("--json", *words, "-n")
		t.ok(r.rc == rc and left(rig), f"{what}, dry: touches nothing", r)
		r = rig.mailwal("--json", *words)
		t.ok(r.rc == rc and not left(rig), f"{what}: placeholders of a killed run are gone",
		     f"{left(rig)} {r}")
		t.ok(not notes(rig), f"{what}: the box is forgotten", notes(rig))


def main(t):
	with rigs.Rig(t.dir, users=(ANNA, BERT), postfix="virtual_transport = discard:") as rig:
		rig.start()
		folders_of_imports(t, rig)
		jobs = [workload.Mail(f"m{i}", f"Subject: m{i}\r\nMessage-ID: <m{i}@x>\r\n\r\nx\r\n".encode(),
				      "w@remote.test", [BERT], {}, rig.users) for i in range(3)]
		t.need(all(j.code == 250 for j in rig.send(jobs)), "mail for bert")
		rig.wait_queue()
		swept(t, rig)


tap.run(main)
