#!/usr/bin/python3
"""What a postmaster is told, and whether it is so: by commands given as he would, on a journal
filled by import. No servers of the system."""

import json
import os
import pathlib
import pwd
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
from imapserver import Server

MAILWAL = os.path.abspath(os.path.join(os.environ.get("MW_BUILD", "build"), "replay/mailwal"))
MAILWALD = os.path.abspath(os.path.join(os.environ.get("MW_BUILD", "build"), "milter/mailwald"))
ALICE = "alice@example.org"


class Site:
	def __init__(self, t, name, *conf):
		self.dir = t.sub(name)
		self.conf = os.path.join(self.dir, "it's mine.conf")
		pathlib.Path(self.conf).write_text("\n".join([
			f"journal_dir = \"{self.dir}/journal\"", "local_domains = example.org",
			"queue_command = none", *conf, ""]), encoding="utf-8")

	def argv(self, *words):
		return [MAILWAL, "-c", self.conf, *map(str, words)]

	def __call__(self, *words, **kw):
		return ran(self.argv(*words), **kw)


def ran(argv, **kw):
	return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
			      timeout=tap.PATIENCE, check=False, **kw)


def fill(t, site, n=2):
	box = pathlib.Path(site.dir, "mail")
	for sub in ("cur", "new", "tmp"):
		(box / sub).mkdir(parents=True)
	for i in range(n):
		(box / "cur" / f"m{i}:2,").write_text(
			f"From: bob@example.net\nMessage-ID: <{i}@x>\nSubject: {i}\n\n{i}\n", encoding="utf-8")
	for words in (("init",), ("import", f"maildir:{box}", "--user", ALICE)):
		r = site(*words)
		t.need(r.returncode == 0, words[0], r)


def settings(t, site):
	"""Each journal of a set has its own."""
	other = Site(t, "other", "retain short { keep = 31d }")
	fill(t, other)
	r = ran([MAILWAL, "-c", site.conf, "-c", other.conf, "--json", "status"])
	got = [json.loads(x).get("retention") for x in r.stdout.splitlines()]
	t.equal(got[:2], [[{"name": "long", "keep": "90d"}], [{"name": "short", "keep": "31d"}]],
		"status of two journals: the rules of each")
	r = ran([MAILWAL, "-c", site.conf, "-c", other.conf, "status"])
	t.ok("long: keep 90d" in r.stdout and "short: keep 31d" in r.stdout, "in words, too", r)


def audited(t, site):
	"""Imported mail never passed the mail server, whatever its date."""
	when = [int(time.time()) + k for k in (-86400, 60)]
	log = pathlib.Path(site.dir, "mail.log")
	log.write_text("".join(
		f"{time.strftime('%Y-%m-%dT%H:%M:%S+00:00', time.gmtime(w))} mx postfix/qmgr[3]: "
		f"4jXTPC0000{i}z1aaa: removed\n" for i, w in enumerate(when)), encoding="utf-8")
	r = site("--json", "audit", log)
	t.ok(r.returncode == 0 and '"not_accepted":0,' in r.stdout,
	     "audit does not miss imported mail in the log", r)


def before(t):
	"""Nor does it make the journal older than it is: mail of before its beginning is no hole."""
	site = Site(t, "begun")
	box = pathlib.Path(site.dir, "old")
	for sub in ("cur", "new", "tmp"):
		(box / sub).mkdir(parents=True)
	letter = box / "cur" / "m1:2,"
	letter.write_text("Subject: old\n\nx\n", encoding="utf-8")
	os.utime(letter, (1700000000, 1700000000))
	for words in (("init",), ("import", f"maildir:{box}", "--user", ALICE)):
		t.need(site(*words).returncode == 0, words[0])
	at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 86400))
	log = pathlib.Path(site.dir, "mail.log")
	qid = "4jXTPC00007z1aaa"
	log.write_text(f"{at} mx postfix/smtpd[1]: {qid}: client=a[192.0.2.1]\n"
		       f"{at} mx postfix/cleanup[2]: {qid}: message-id=<x@y>\n"
		       f"{at} mx postfix/qmgr[3]: {qid}: from=<a@x>, size=1, nrcpt=1 (queue active)\n",
		       encoding="utf-8")
	r = site("--json", "audit", log)
	t.ok(r.returncode == 0 and '"before_journal":1,' in r.stdout,
	     "audit: mail of before the journal, which has older imported mail", r)


def unwritable(t, site):
	"""Where a result cannot be left in the journal."""
	os.rename(f"{site.dir}/journal/ledger", f"{site.dir}/ledger")
	pathlib.Path(site.dir, "journal/ledger").write_text("", encoding="utf-8")
	at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 86400))
	log, qid = pathlib.Path(site.dir, "hole.log"), "4jXTPC00008z1aaa"
	log.write_text(f"{at} mx postfix/smtpd[1]: {qid}: client=a[192.0.2.1]\n"
		       f"{at} mx postfix/cleanup[2]: {qid}: message-id=<x@y>\n"
		       f"{at} mx postfix/qmgr[3]: {qid}: from=<a@x>, size=1, nrcpt=1 (queue active)\n",
		       encoding="utf-8")
	r = site("audit", log)
	t.ok(r.returncode == 1 and f"hole: {qid}" in r.stdout and "1 accepted" in r.stdout
	     and "cannot write" in r.stderr, "audit: its answer is told all the same", r)
	pathlib.Path(site.dir, "journal/drills").write_text("", encoding="utf-8")
	r = site("drill", "run")
	t.ok(r.returncode > 1 and "drills" in r.stderr and "reading" not in r.stderr,
	     "a drill whose report cannot be kept: told before it begins", r)


def checkpoints(t, site):
	"""What is none is told before the whole journal is read."""
	r = site("verify", "--checkpoint", site.conf)
	t.ok(r.returncode == 65 and not r.stdout and "no checkpoint of this journal" in r.stderr,
	     "verify --checkpoint of another file: 65 at once", r)


def holds(t, site):
	for i, words in enumerate((("--user", "alice@example.com"), ("--user", "alise@example.org"),
				   ("--sender", "nobody@example.net"), ("--message-id", "nix@x"))):
		r = site("hold", "add", f"h{i}", *words)
		t.ok(r.returncode == 0 and "warning" in r.stderr and f"hold rm h{i}" in r.stderr,
		     f"a hold of nothing that is there, {' '.join(words)}: a warning", r)
	for words in (("--user", ALICE), (), ("--message-id", "<0@x>")):
		r = site("hold", "add", "h-" + "-".join(words), *words)
		t.ok(r.returncode == 0 and not r.stderr, f"a hold of {words}: none", r)


def permission(t, site):
	nobody = pwd.getpwnam("nobody").pw_uid
	os.chmod(f"{site.dir}/journal", 0o755)
	os.chmod(f"{site.dir}/journal/journal", 0o600)
	if os.geteuid() != 0 or ran(site.argv("config", "check"), user=nobody, cwd="/").returncode:
		t.skip("needs root, and a place that others may look into")
		return
	r = ran(site.argv("list"), user=nobody, cwd="/")
	t.ok(r.returncode == 77 and "root and the journal's owner" in r.stderr,
	     "a journal of somebody else: for whom it is", r)


def root_was_here(t, site):
	"""A journal of the daemon's user, with a file that root made in it."""
	nobody, lock = pwd.getpwnam("nobody").pw_uid, f"{site.dir}/journal/lock"
	if os.geteuid() != 0 or ran(site.argv("config", "check"), user=nobody, cwd="/").returncode:
		t.skip("needs root, and a place that others may look into")
		return
	os.chown(f"{site.dir}/journal", nobody, -1)
	os.chown(f"{site.dir}/journal/journal", nobody, -1)
	pathlib.Path(lock).touch()
	os.chmod(lock, 0o640)
	r = ran([MAILWALD, "-c", site.conf], user=nobody, group=pwd.getpwnam("nobody").pw_gid,
		extra_groups=[], cwd="/")
	t.ok(r.returncode == 77 and "chown -R --reference=" in r.stderr,
	     "mailwald: what to do where it was run as root before", r)


def imports(t, site):
	"""What comes in stays: not under a name that is none."""
	for who in ("not an address", "b\tob"):
		r = site("import", f"maildir:{site.dir}/mail", "--user", who)
		t.ok(r.returncode == 64 and f"'{who}' is no address" in r.stderr, f"import --user '{who}'", r)


def deleted(t, site):
	"""Only the mark tells what was deleted before the backup."""
	for words in (("mark", "nightly"), ("mark", "nightly", "--complete")):
		t.need(site(*words).returncode == 0, " ".join(words))
	to = ("--to", f"maildir:{site.dir}/store/%u", "--create", "-n")
	for words, told in ((("--all",), True), (("--user", ALICE), True), (("--since", "-2d"), True),
			    (("--since-mark", "nightly"), False), (("--message-id", "0@x"), False),
			    (("--since", "+1min"), False)):
		r = site("replay", *words, *to)
		t.ok(r.returncode == 0 and ("--since-mark nightly leaves it out" in r.stderr) == told,
		     f"replay {' '.join(words)}: {'what comes back, too' if told else 'no word of that'}", r)


def logins(t, site):
	secret = pathlib.Path(site.dir, "pass'word")
	secret.write_text("x\n", encoding="utf-8")
	secret.chmod(0o600)
	with Server(caps=("UIDPLUS", "MULTIAPPEND", "LITERAL-")) as server:
		server.put(ALICE, "INBOX", b"Subject: old\n\nx\n")
		words = ("--to", f"imap://127.0.0.1:{server.port}", "--password-file", secret)
		r = site("replay", "--all", "--auth-user", "chief", *words)
		line = r.stdout.partition("To take it back: ")[2].strip()
		t.need(r.returncode == 0 and line, "a replay", r)
		r = ran(["sh", "-c", MAILWAL + line.removeprefix("mailwal")], cwd="/")
		t.ok(r.returncode == 0 and "2 taken away" in r.stdout,
		     "the line that takes it back works as it is printed", (line, r))
		server.refuses = lambda command: (
			"NO [AUTHENTICATIONFAILED] no" if "AUTHENTICATE" in command.upper() else None)
		r = site("replay", "--all", "--auth-user", "chief", *words)
		t.ok(r.returncode == 77 and f"the login of chief for {ALICE}" in r.stderr,
		     "a login that is refused: whose", r)


def given(t, _site):
	"""A configuration from the shell's <(…), whose writer takes its time."""
	r = ran(["bash", "-c", f"'{MAILWAL}' -c <(sleep 0.2; echo journal_dir = /j) config show"])
	t.ok(r.returncode == 0 and r.stdout == "journal_dir = /j\n", "-c <(…)", r)


def main(t):
	site = Site(t, "site", "retain long { keep = 90d }")
	fill(t, site)
	given(t, site)
	settings(t, site)
	audited(t, site)
	before(t)
	checkpoints(t, site)
	holds(t, site)
	imports(t, site)
	deleted(t, site)
	logins(t, site)
	unwritable(t, site)
	permission(t, site)
	root_was_here(t, site)


tap.run(main)
