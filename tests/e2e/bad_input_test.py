#!/usr/bin/python3
"""Bad input: each a clear line and the right exit status; the rest goes on where it can, the
report names every copy that was not put back, nothing is lost and nothing half-written."""
# MW_TEST_COST 50

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import smtp
import tap
import workload
from mailbox import Expected
from replaytool import CutProxy, empty

QUOTA, LARGE, GONE, RO = ("fred@example.test", "gina@example.test", "ghost@example.test",
			  "hugo@example.test")


def one_line(r):
	"""The error is short text for people, not a dump."""
	return 0 < len(r.err.strip()) < 2000 and "mailwal" in r.err


def configuration(t, rig):
	bad = os.path.join(rig.dir, "bad.conf")
	pathlib.Path(bad).write_text("journal_dirr = /x\nsegment_size = many\non_failure = maybe\n",
				     encoding="utf-8")
	for what, argv in (("mailwal config check", [rig.mailwal_bin, "-c", bad, "config", "check"]),
			   ("mailwald -t", [rig.mailwald_bin, "-c", bad, "-t"]),
			   ("mailwald", [rig.mailwald_bin, "-c", bad])):
		p = subprocess.run(argv, capture_output=True, timeout=tap.PATIENCE, check=False)
		text = (p.stdout + p.stderr).decode()
		t.ok(p.returncode == 78 and "bad.conf:1" in text and "bad.conf:2" in text
		     and "bad.conf:3" in text and "journal_dir" in text,
		     f"{what}: wrong configuration, exit 78, every line named",
		     f"exit {p.returncode}\n{text}")
	p = subprocess.run([rig.mailwal_bin, "-c", rig.dir + "/none.conf", "list", "--all"],
			   capture_output=True, timeout=tap.PATIENCE, check=False)
	t.ok(p.returncode in (66, 78) and b"none.conf" in p.stderr,
	     "missing configuration file: named", p)


def journals(t, rig):
	r = rig.mailwal("-j", rig.dir + "/nowhere", "list", "--all")
	t.ok(r.rc in (65, 66, 69, 74) and "nowhere" in r.err, "journal missing: named", r)
	foreign = os.path.join(rig.dir, "foreign")
	os.makedirs(foreign)
	pathlib.Path(foreign, "letter.txt").write_text("not a journal", encoding="utf-8")
	r = rig.mailwal("-j", foreign, "list", "--all")
	t.ok(r.rc in (65, 66) and "foreign" in r.err, "a directory that is no journal: named", r)
	r = rig.mailwal("init", foreign)
	t.ok(r.rc not in (0, 1) and os.listdir(foreign) == ["letter.txt"],
	     "init refuses a directory that is not empty", r)
	p = subprocess.run([rig.mailwald_bin, "-c", rig.conf], capture_output=True, timeout=tap.PATIENCE,
			   check=False)
	t.ok(p.returncode == 75 and rigs.connects(rig.milter_sock),
	     "a second mailwald: exit 75, the first goes on", p)


def far(t, rig):
	"""As if the journal were on NFS: programs are told so when they ask."""
	env = dict(os.environ, LD_PRELOAD=sendmail.preload(), MW_STATFS="0x6969",
		   ASAN_OPTIONS="verify_asan_link_order=0")
	new = os.path.join(rig.dir, "on-nfs")
	r = rig.mailwal("init", new, env=env)
	t.ok(r.rc == 78 and new in r.err and "NFS" in r.err and "hint: " in r.err
	     and not os.path.exists(new), "init on NFS: a line, exit 78, nothing made", r)
	rig.mailwal("init", new)
	conf = pathlib.Path(rig.dir, "nfs.conf")
	conf.write_text(f"journal_dir = {new}\nmilter_listen = unix:{rig.run}/nfs.sock\n",
			encoding="utf-8")
	p = subprocess.run([rig.mailwald_bin, "-c", conf], capture_output=True, text=True,
			   timeout=tap.PATIENCE, check=False, env=env)
	t.ok(p.returncode == 78 and new in p.stderr and "NFS" in p.stderr
	     and not os.path.exists(f"{rig.run}/nfs.sock"), "mailwald on NFS: exit 78", p)
	r = rig.mailwal("-j", new, "mark", "begin", env=env)
	t.ok(r.rc == 78 and "NFS" in r.err, "nor is a mark written there", r)
	r = rig.mailwal("-j", new, "list", "--all", env=env)
	t.ok(r.rc == 0, "a copy there is read", r)


def permission(t, rig):
	"""As nobody."""
	def drop():
		os.setgroups([])
		os.setgid(65534)
		os.setuid(65534)
	binary = shutil.copy(rig.mailwal_bin, rig.run + "/mailwal")
	p = subprocess.run([binary, "-j", rig.journal, "list", "--all"], capture_output=True,
			   timeout=tap.PATIENCE, check=False, preexec_fn=drop, cwd="/")
	t.ok(p.returncode == 77, "journal not readable for this user: exit 77", p)


def targets(t, rig):
	args = ["--password-file", rig.password_file, "--auth-user", rigs.MASTER]
	(port,) = rigs.free_ports(1)
	r = rig.mailwal("replay", "--all", "--to", f"imap://127.0.0.1:{port}", *args)
	t.ok(r.rc == 69 and one_line(r), "unreachable target: exit 69", r)
	wrong = os.path.join(rig.dir, "wrong.password")
	pathlib.Path(wrong).write_text("not it\n", encoding="utf-8")
	r = rig.mailwal("replay", "--all", "--to", f"imap://127.0.0.1:{rig.imap_port}",
			"--password-file", wrong, "--auth-user", rigs.MASTER)
	t.ok(r.rc == 77 and one_line(r) and "not it" not in r.err + r.out,
	     "wrong password: exit 77, not printed", r)
	for to in ("imap:/x", "gopher://x", "lmtp:", "maildir:"):
		r = rig.mailwal("replay", "--all", "--to", to, *args)
		t.ok(r.rc == 64, f"target '{to}': exit 64", r)
	r = rig.mailwal("replay", "--all")
	t.ok(r.rc == 64, "replay without target: exit 64", r)
	r = rig.mailwal("replay", "--since-mark", "nightli", "--to",
			f"imap://127.0.0.1:{rig.imap_port}", *args)
	t.ok(r.rc in (64, 65, 66, 69) and "nightly" in r.err,
	     "unknown mark: the nearest name is offered", r)


def partly(t, rig, jobs):
	"""One mailbox missing, one over quota, one with too large a message, one read-only."""
	empty(rig, [u for u in rig.users if u != GONE])
	n, d = RO.split("@")
	box = os.path.join(rig.store, d, n)
	for sub in ("", "/cur", "/new", "/tmp"):
		os.chown(box + sub, 0, 0)
		os.chmod(box + sub, 0o555)
	report = os.path.join(rig.dir, "report.json")
	r = rig.replay("--all", "--report", report)
	t.ok(r.rc == 3, "mailbox missing, over quota, too large, read-only: exit 3", r)
	state = mailbox.dump(rig, [u for u in rig.users if u not in (GONE, RO)])
	fine = {}
	for j in jobs:
		for u in j.owners:
			if u not in (GONE, RO, QUOTA, LARGE):
				fine.setdefault((u, "INBOX"), []).append(Expected(j.queue_id, j.data))
	part = {k: v for k, v in state.items() if k[0] not in (QUOTA, LARGE) and k[1] == "INBOX"}
	got = mailbox.compare(fine, part)
	t.ok(got.ok, f"the other {got.matched} copies are all there", got)
	text = r.out + (pathlib.Path(report).read_text(encoding="utf-8")
			if os.path.exists(report) else "")
	ids = {o["queue_id"]: o["id"] for o in rig.journaled()}
	unnamed, failed = [], 0
	for j in jobs:
		for u in j.owners:
			there = [mailbox.without_trace(mailbox.crlf(s.data))
				 for s in state.get((u, "INBOX"), [])]
			if u in (GONE, RO) or mailbox.without_trace(j.data) not in there:
				failed += 1
				if u not in text or ids.get(j.queue_id, "?") not in text:
					unnamed.append(f"{u} {j.queue_id} {ids.get(j.queue_id)}")
	t.ok(not unnamed, f"the report names each of {failed} copies not put back",
	     "\n".join(unnamed[:10]) + f"\n{text[-1500:]}")
	t.equal((r.summary or {}).get("failed"), failed, "summary: failed")
	for sub in ("", "/cur", "/new", "/tmp"):
		os.chmod(box + sub, 0o700)
		os.chown(box + sub, 65534, 65534)
	r = rig.replay("--user", RO)
	boxed = {k: v for k, v in mailbox.dump(rig, [RO]).items() if k[1] == "INBOX"}
	want = {(RO, "INBOX"): [Expected(j.queue_id, j.data) for j in jobs if RO in j.owners]}
	got = mailbox.compare(want, boxed)
	t.ok(r.rc in (0, 3) and got.ok, "once the mailbox is writable a run finishes it",
	     f"{got}\n{r}")


def line_cut(t, rig, jobs):
	"""The target drops the line in the middle of an APPEND."""
	user = "anna@example.test"
	mine = [j for j in jobs if user in j.owners]
	want = {(user, "INBOX"): [Expected(j.queue_id, j.data) for j in mine]}
	size = sum(len(j.data) for j in mine)
	for cut in (size // 4, size // 2, size - 200):
		empty(rig, [user])
		proxy = CutProxy(rig.imap_port, cut)
		t0 = time.monotonic()
		args = ["--json", "replay", "--user", user, "--to",
			f"imap://127.0.0.1:{proxy.port}", "--password-file",
			rig.password_file, "--auth-user", rigs.MASTER]
		r = rig.mailwal(*args)
		t.ok(r.rc in (3, 69, 74, 75) and proxy.cuts and time.monotonic() - t0 < tap.PATIENCE,
		     f"line cut after {cut} bytes: exit 3 or 69 ({proxy.cuts} cuts)", r)
		inbox = {k: v for k, v in mailbox.dump(rig, [user]).items() if k[1] == "INBOX"}
		got = mailbox.compare(want, inbox)
		t.ok(not (got.doubled or got.altered or got.strange),
		     f"line cut after {cut} bytes: nothing half-written", got)
		proxy.cut = None
		r = rig.mailwal(*args)
		proxy.close()
		state = mailbox.dump(rig, [user])
		got = mailbox.compare(want, {k: v for k, v in state.items() if k[1] == "INBOX"})
		odd = {f for _, f in state} - {"INBOX", "Sent", "Trash"}
		t.ok(r.rc == 0 and got.ok and not odd, "and the next run finishes it",
		     f"{got}\n{odd}\n{r}")


def fixed(t, rig):
	"""A journal on a file system that is mounted for reading only."""
	mount = t.sub("fixed")
	p = subprocess.run(["mount", "-t", "tmpfs", "none", mount], capture_output=True, check=False)
	if p.returncode:
		t.skip("cannot mount a tmpfs: " + p.stderr.decode().strip())
		return
	try:
		journal = os.path.join(mount, "journal")
		rig.mailwal("init", journal)
		subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
		for words in (["mark", "begin"], ["hold", "add", "case"], ["prune", "--yes"],
			      ["erase", "--user", "anna@example.test", "--yes"]):
			r = rig.mailwal("-j", journal, *words)
			t.ok(r.rc == 77 and "Read-only" in r.err and "for writing" in r.err
			     and " root" not in r.err, f"{words[0]}: told why, exit 77", r)
		r = rig.mailwal("-j", journal, "list", "--all")
		t.ok(r.rc == 0, "and it can be read", r)
	finally:
		subprocess.run(["umount", "-l", mount], check=False)


def full_disk(t):
	"""The journal on a file system of 16 MB."""
	mount = t.sub("small disk")
	p = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", mount],
			   capture_output=True, check=False)
	if p.returncode:
		t.skip("cannot mount a tmpfs: " + p.stderr.decode().strip())
		return
	try:
		with rigs.Rig(t.sub("full disk"), conf="segment_size = 2M\n",
			      postfix="virtual_transport = discard:") as rig:
			rig.journal = os.path.join(mount, "journal")
			rig.write_conf()
			rig.start()
			jobs = [smtp.Job(b"Subject: %d\r\n\r\n" % i + os.urandom(150_000).hex().encode()
					 + b"\r\n", "w@remote.test", ["anna@example.test"])
				for i in range(150)]
			t0 = time.monotonic()
			rig.send(jobs[:120], sessions=4)
			told = [j for j in jobs if j.code == 250]
			rest = [j for j in jobs[:120] if j.code != 250]
			t.ok(told and rest and all(400 <= j.code < 500 for j in rest)
			     and time.monotonic() - t0 < tap.PATIENCE,
			     f"full disk: {len(told)} taken, {len(rest)} told to come back",
			     [(j.code, j.text) for j in rest[:5]])
			t.ok(rig.procs["mailwald"].poll() is None, "full disk: mailwald lives")
			bad = [j.queue_id for j in told if rig.raw(j.queue_id) != j.data]
			t.ok(not bad, "full disk: every acknowledged message is there", bad)
			subprocess.run(["mount", "-o", "remount,size=200m", mount], check=True)
			rigs.wait_for("mail to be taken again", lambda: rig.send([smtp.Job(
				b"Subject: room?\r\n\r\n", "w@remote.test",
				["anna@example.test"])])[0].code == 250)
			rig.send(jobs[120:], sessions=4)
			t.ok(all(j.code == 250 for j in jobs[120:]),
			     "with room again mail is taken again",
			     [(j.code, j.text) for j in jobs[120:] if j.code != 250][:5])
			r = rig.mailwal("verify")
			t.ok(r.rc == 0, "full disk: verify finds nothing wrong", r)
			rig.stop()
	finally:
		subprocess.run(["umount", "-l", mount], check=False)


def main(t):
	users = rigs.USERS + (GONE,)
	with rigs.Rig(t.dir + "/main", users=users, plugins="quota",
		      user_extra={QUOTA: "userdb_quota_rule=*:bytes=6000"},
		      dovecot="plugin {\n  quota_max_mail_size = 100k\n}\n",
		      postfix="virtual_transport = discard:") as rig:
		text = pathlib.Path(rig.run, "users").read_text(encoding="utf-8")
		pathlib.Path(rig.run, "users").write_text("".join(
			x for x in text.splitlines(True) if not x.startswith(GONE)), encoding="utf-8")
		rig.start()
		rig.mailwal("mark", "nightly")
		small = [(n, d) for n, d in workload.fixtures() if len(d) < 60_000][:40]
		large = [(n, d) for n, d in workload.fixtures() if len(d) > 150_000][:1]
		jobs = [workload.Mail(n, d, "w@remote.test", [users[i % len(users)]], {}, users)
			for i, (n, d) in enumerate(small + small[:20])]
		# Enough for a batch over two connections, with the refused one in the middle.
		fill = (small * 8)[:260]
		jobs += [workload.Mail(n, d, "w@remote.test", [LARGE], {}, users)
			 for n, d in fill[:130] + large + fill[130:]]
		rig.send(jobs, clock=time.time)
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} messages captured",
		       [(j.name, j.code, j.text) for j in jobs if j.code != 250])
		configuration(t, rig)
		journals(t, rig)
		far(t, rig)
		fixed(t, rig)
		permission(t, rig)
		targets(t, rig)
		partly(t, rig, jobs)
		line_cut(t, rig, jobs)
		t.ok(json.dumps(rig.journaled()[0]) != "", "the journal still answers")
	full_disk(t)


tap.run(main)
