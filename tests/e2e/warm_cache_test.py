#!/usr/bin/python3
"""Clients that kept their caches over a loss see the mail that came back.

Mail, backup, more mail that clients see, flag and move; the store is lost and the backup
restored: same UIDVALIDITY, old UIDNEXT and HIGHESTMODSEQ. Three clients that synchronise by
what they knew before (by UIDNEXT; by HIGHESTMODSEQ with QRESYNC; mbsync) must then have every
message that a replay put back, in Dovecot (Maildir, sdbox) and Cyrus; and without the raise
they must not, or the test proves nothing. Also what is said before, and what a kill leaves."""
# MW_TEST_COST 35

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import caches
import cyrus
import mailbox
import rig as rigs
import tap
import workload

USER = "anna@example.test"
FOLDERS = ("INBOX", "Sent")


def mail(i):
	return (f"From: w@remote.test\r\nTo: {USER}\r\nSubject: mail {i}\r\nMessage-ID: <w{i}@x.test>"
		f"\r\n\r\ntext of number {i}\r\n").encode()


def act(rig):
	"""What the user does with mail that came after the backup."""
	c = mailbox.login(rig, USER)
	c.select("INBOX")
	uids = c.uid("SEARCH", "ALL")[1][0].decode().split()
	for u in uids[-12:]:
		c.uid("STORE", u, "+FLAGS", "(\\Seen)")
	c.uid("STORE", uids[-1], "+FLAGS", "(\\Flagged)")
	c.uid("STORE", uids[-2], "+FLAGS", "(\\Deleted)")
	c.expunge()
	for i in range(5):  # a draft, saved again and again
		c.append("INBOX", "(\\Draft)", None, mail(1000 + i))
		c.select("INBOX")
		if i == 4:
			break
		last = c.uid("SEARCH", "ALL")[1][0].decode().split()[-1]
		c.uid("STORE", last, "+FLAGS", "(\\Deleted)")
		c.expunge()
	c.logout()


def restore(rig):
	"""The store as the backup has it."""
	if isinstance(rig, cyrus.CyrusRig):
		rig.destroy_store()
		rig.restore()
		return
	rig.end("dovecot")
	rig.destroy_store()
	rig.restore()
	rig.start_dovecot()


def fill(t, rig, base, n, more, late):
	"""The loss's eve; the clients, as they were then."""
	jobs = [workload.Mail(f"m{i}", mail(i), "w@remote.test", [USER], {}, rig.users)
		for i in range(n + more + late)]
	rig.send(jobs[:n])
	rig.wait_queue()
	own = workload.Mail("s", mail(500), USER, ["out@remote.test"], {}, rig.users)
	own.auth = USER
	c = mailbox.login(rig, USER)
	c.append("Sent", "(\\Seen)", None, mail(499))
	c.logout()
	warm = clients(rig, f"{base}/mbsync")
	for c in warm:  # a first look gives every message its UID
		c.sync()
	rig.backup()
	rig.send(jobs[n:n + more] + [own])
	rig.wait_queue()
	t.need(all(j.code == 250 for j in jobs[:n + more] + [own]), "mail is captured")
	c = mailbox.login(rig, USER)
	c.append("Sent", "(\\Seen)", None, mail(500))
	c.logout()
	for c in warm:
		c.sync()
	act(rig)
	for c in warm:
		c.sync()
	t.need(not any(c.missed() for c in warm), "the clients know all mail before the loss")
	rig.send(jobs[n + more:])  # but not these
	rig.wait_queue()
	t.need(all(j.code == 250 for j in jobs), "more mail is captured")
	return warm


def clients(rig, base):
	out = [k(rig, USER, f) for f in FOLDERS for k in (caches.ByUid, caches.ByModseq)]
	if shutil.which("mbsync") and not isinstance(rig, cyrus.CyrusRig):
		out.append(caches.Mbsync(rig, USER, "INBOX", base))
	return out


def keep(all_clients, path):
	"""The clients' memory as it was before the loss, for another try."""
	shutil.rmtree(path, ignore_errors=True)
	for c in all_clients:
		if isinstance(c, caches.Mbsync):
			shutil.copytree(c.dir, path)
	return [(dict(c.cache), getattr(c, "last", None)) for c in all_clients]


def recall(all_clients, memory, path):
	for c, (cache, last) in zip(all_clients, memory):
		c.cache = dict(cache)
		if last is not None:
			c.last = last
		if isinstance(c, caches.Mbsync):
			shutil.rmtree(c.dir)
			shutil.copytree(path, c.dir)


def name(c):
	return f"{type(c).__name__} {c.folder}"


def all_see(t, what, all_clients):
	missed = {}
	for c in all_clients:
		c.sync()
		if c.missed():
			missed[name(c)] = c.missed()
	return t.ok(not missed, f"{what}: every client sees every message", missed)


def steps(rig, *words):
	args = rig.replay_args()
	return rig.mailwal("--json", args[0], *words, *args[1:])


def said_before(t, what, rig, more):
	"""Dry: says it and changes nothing."""
	before = status(rig)
	report = rig.dir + "/plan.json"
	r = steps(rig, "plan", "--all", "--uid-gap", "500", "--report", report)
	s = r.summary or {}
	with open(report, encoding="utf-8") as f:
		uids = {u["folder"]: u for u in json.load(f)["uids"]}
	t.ok(r.rc == 0 and s.get("raised") == 2 and s.get("not_raised") == 0
	     and set(uids) == set(FOLDERS), f"{what}: plan names both folders", f"{r}\n{uids}")
	u = uids.get("INBOX", {})
	t.ok(u.get("uidnext_to", 0) - u.get("uidnext", 0) == 500 + more, f"{what}: and how far", u)
	r = steps(rig, "prepare", "-n", "--all")
	boxes = [b for b in r.lines if b.get("message_type") == "mailbox"]
	t.ok(r.rc == 0 and {u["folder"] for u in boxes[0]["uids"]} >= set(FOLDERS),
	     f"{what}: prepare -n names them too", r)
	text = rig.mailwal(*rig.replay_args("-n", "--all", "--uid-gap", "500"))
	t.ok("UIDs to be raised in 2 folders" in text.out, f"{what}: -n says it to people", text)
	t.equal(status(rig), before, f"{what}: nothing has changed")


def status(rig):
	c = mailbox.login(rig, USER)
	out = [c.status(f, "(UIDNEXT HIGHESTMODSEQ MESSAGES)")[1] for f in FOLDERS]
	c.logout()
	return out


def story(t, what, rig, killed=False, whole=True):
	n, more, late = 30, 25, 4
	warm = fill(t, rig, t.sub(what), n, more, late)
	aside = f"{t.sub(what)}/aside"
	memory = keep(warm, aside)

	restore(rig)
	r = rig.replay("--all")
	t.ok(r.rc == 0 and (r.summary or {}).get("raised") == 0, f"{what}: a run without the raise", r)
	blind = []
	for c in warm:
		c.sync()
		blind += [name(c)] if c.missed() else []
	t.ok({c for c in blind if "INBOX" in c} == {name(c) for c in warm if c.folder == "INBOX"},
	     f"{what}: then each client misses mail of INBOX (or this test proves nothing)", blind)

	recall(warm, memory, aside)
	restore(rig)
	if whole:
		said_before(t, what, rig, more + late)
	if killed:
		kill_within(t, what, rig)
	r = rig.replay("--all", "--uid-gap", "500")
	t.ok(r.rc == 0 and (r.summary or {}).get("raised") == 2
	     and r.summary.get("not_raised") == 0, f"{what}: a run raises both folders", r)
	all_see(t, f"{what}, run", warm)
	t.equal(caches.placeholders(rig, USER), [], f"{what}: no placeholder is left")
	r = rig.replay("--all", "--uid-gap", "500")
	t.ok(r.rc == 0 and r.summary.get("restored") == 0 and r.summary.get("raised") == 0,
	     f"{what}: a second run raises nothing", r)

	if not whole:
		return None
	recall(warm, memory, aside)
	restore(rig)
	r = steps(rig, "prepare", "--all")
	box = next((b for b in r.lines if b.get("message_type") == "mailbox"), {})
	t.ok(r.rc == 0 and {u["folder"] for u in box.get("uids", [])} >= set(FOLDERS) | {"Trash"}
	     and all(u["uidnext_to"] > u["uidnext"] and "reason" not in u for u in box["uids"]),
	     f"{what}: prepare raises every folder", r)
	r = rig.replay("--all", "--uid-gap", "0")
	t.ok(r.rc == 0 and r.summary.get("failed") == 0, f"{what}: then a run that does not", r)
	all_see(t, f"{what}, prepare", warm)
	return warm, memory, aside


def kill_within(t, what, rig):
	"""SIGKILL while placeholders lie in the folder: the next run takes them away."""
	seen = False
	for _ in range(12):
		p = subprocess.Popen(rig.mailwal_argv(*rig.replay_args("--all", "--uid-gap", "5000")),
				     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
				     stderr=subprocess.DEVNULL)
		end = time.monotonic() + tap.PATIENCE
		c = mailbox.login(rig, USER)
		while p.poll() is None and time.monotonic() < end:
			r = c.status("INBOX", "(MESSAGES)")[1][0]
			if int(re.search(rb"MESSAGES (\d+)", r).group(1)) > 200:
				break
		p.send_signal(signal.SIGKILL)
		p.wait(tap.PATIENCE)
		c.logout()
		seen = bool(caches.placeholders(rig, USER))
		if seen:
			break
	t.ok(seen, f"{what}: a killed run leaves placeholders behind")


def by_doveadm(t, rig, warm, memory, aside):
	"""What setup dovecot --raise-uids prints, done by the server's own tool."""
	recall(warm, memory, aside)
	restore(rig)
	r = rig.mailwal("setup", "dovecot", "--raise-uids", "--dovecot-config",
			f"{rig.run}/dovecot.conf")
	t.ok(r.rc == 0 and "min-next-uid" in r.out, "setup dovecot prints the script", r)
	for what in ("--raise-uids", "--quiet-instance"):
		as_is, j = (rig.mailwal(*first, "setup", "dovecot", what, "--dovecot-config",
					f"{rig.run}/dovecot.conf") for first in ((), ("--json",)))
		t.ok(as_is.rc == j.rc == 0 and as_is.out
		     and json.loads(j.out) == {"server": "dovecot", "text": as_is.out},
		     f"setup dovecot {what} --json has the same text", j)
	script = rig.dir + "/raise.sh"
	with open(script, "w", encoding="utf-8") as f:
		f.write(r.out)
	before = status(rig)
	p = subprocess.run(["sh", script], capture_output=True, timeout=tap.PATIENCE, check=False)
	t.ok(p.returncode == 0 and b"INBOX" in p.stdout, "the script runs", p)
	t.ok(all(a != b for a, b in zip(before, status(rig))), "and raises", status(rig))
	r = rig.replay("--all", "--uid-gap", "0")
	t.ok(r.rc == 0 and r.summary.get("failed") == 0, "doveadm: a run that does not raise", r)
	all_see(t, "doveadm", warm)


def main(t):
	conf = dict(users=(USER,), postfix="message_drop_headers =")
	with rigs.Rig(t.sub("maildir"), **conf) as rig:
		rig.start()
		kept = story(t, "Maildir", rig, killed=True)
		by_doveadm(t, rig, *kept)
		for bad in ("x", "-1", "1000001", ""):
			r = rig.replay("--all", "--uid-gap", bad)
			t.ok(r.rc == 64 and "--uid-gap" in r.err, f"--uid-gap {bad!r}: exit 64", r)
	with rigs.Rig(t.sub("sdbox"), dovecot="mail_location = sdbox:~/sdbox", **conf) as rig:
		rig.start()
		story(t, "sdbox", rig, whole=False)
	if cyrus.root():
		with cyrus.CyrusRig(t.sub("cyrus"), **conf) as rig:
			rig.start()
			story(t, "Cyrus", rig)
	else:
		t.skip("no Cyrus: contrib/install-deps test unpacks it")


tap.run(main)
