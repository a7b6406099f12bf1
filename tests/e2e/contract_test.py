#!/usr/bin/python3
"""What the command line promises, on a journal filled by import: JSON, exit statuses and what
is said about mistakes. No servers."""

import calendar
import fcntl
import json
import os
import pathlib
import pty
import shutil
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap

BUILD = os.environ.get("MW_BUILD", "build")
MAILWAL, MAILWALD = os.path.join(BUILD, "replay/mailwal"), os.path.join(BUILD, "milter/mailwald")
ALICE, CAROL = "alice@example.org", "carol@elsewhere.test"


class Ran:
	def __init__(self, argv, cwd, stdin=None):
		p = subprocess.run(argv, cwd=cwd, capture_output=True, timeout=tap.PATIENCE, check=False,
				   input=stdin or b"")
		self.argv, self.rc = argv, p.returncode
		self.out, self.err = p.stdout.decode(), p.stderr.decode()

	def json(self):
		"""Every line of standard output must be an object."""
		try:
			lines = [json.loads(x) for x in self.out.splitlines()]
		except ValueError:
			return None
		return lines if all(isinstance(x, dict) for x in lines) else None

	def __str__(self):
		return f"{' '.join(self.argv)}: exit {self.rc}\n{self.out[-800:]}\n{self.err[-800:]}"


class Site:
	def __init__(self, t):
		self.t, self.dir = t, t.dir
		self.conf = os.path.join(self.dir, "mail wal.conf")
		self.write("journal_dir = \"%s/journal\"" % self.dir, "local_domains = example.org",
			   "retain default { keep = 30d }", "capture spam { match = spam:yes; journal = no }")

	def write(self, *lines):
		pathlib.Path(self.conf).write_text("\n".join(lines) + "\n", encoding="utf-8")

	def __call__(self, *words):
		return Ran([MAILWAL, "-c", self.conf, *words], self.dir)

	def refused(self, rc, said, *words):
		r = self(*words)
		return self.t.ok(r.rc == rc and all(x in r.err for x in said) and not r.out,
				 f"{' '.join(words)}: exit {rc}", r)


def maildir(path, n, first=1):
	for sub in ("cur", "new", "tmp"):
		os.makedirs(os.path.join(path, sub))
	for i in range(first, first + n):
		pathlib.Path(path, "cur", f"m{i}:2,S").write_bytes(
			b"From: bob@example.net\nSubject: number %d\nMessage-ID: <%d@x>\n\nbody %d\n"
			% (i, i, i))


def configuration(t, site):
	lines = pathlib.Path(site.conf).read_text(encoding="utf-8").splitlines()
	r = site("config", "show", "--json")
	got = {o.get("name"): o for o in r.json() or []}
	t.ok(r.rc == 0 and got.get("retain.default.keep", {}).get("value") == "30d"
	     and got.get("capture.spam.match", {}).get("value") == "spam:yes"
	     and got.get("capture.spam.journal", {}).get("setting") == "journal"
	     and got.get("local_domains", {}).get("value") == "example.org",
	     "config show --json has the sections", r)
	r = site("config", "check", "--json")
	t.ok(r.rc == 0 and [o["ok"] for o in r.json() or []] == [True], "config check --json: ok", r)
	site.write(*lines, "log_levl = info", "recovery_key = /nonexistent/a.pub", "segment_size = many")
	n = len(lines)
	r = site("config", "check", "--json")
	got = r.json() or []
	t.ok(r.rc == 78 and [(o["message_type"], o["line"], o["column"]) for o in got[:-1]]
	     == [("error", n + 1, 1), ("error", n + 3, 16), ("error", n + 2, 16)]
	     and all(o["file"] == site.conf and o["message"] for o in got[:-1])
	     and (got[-1]["message_type"], got[-1]["ok"], got[-1]["errors"]) == ("summary", False, 3),
	     "config check --json: each mistake an object with its place, then a summary", r)
	key = os.path.join(site.dir, "private key")
	r = Ran([MAILWAL, "keys", "new", "--out", key], site.dir)
	t.ok(r.rc == 0, "a pair of keys", r)
	for what, value, said in (("missing", "/nonexistent/a.pub", "No such file"),
				  ("private", key, "is a private key"),
				  ("no key", site.conf, "is no public recovery key")):
		site.write(*lines, f"recovery_key = \"{value}\"")
		for argv in ([MAILWAL, "-c", site.conf, "config", "check"],
			     [MAILWALD, "-c", site.conf, "-t"]):
			r = Ran(argv, site.dir)
			t.ok(r.rc == 78 and f"{site.conf}:{n + 1}:16: error: recovery_key: " in r.err
			     and said in r.err, f"{os.path.basename(argv[0])} {argv[-1]}: {what} key "
			     "file: exit 78 and its place", r)
	site.write(*lines, "recovery_key = /nonexistent/a.pub", "recovery_key =",
		   f"recovery_key = \"{key}.pub\"")
	r = site("config", "check")
	t.ok(r.rc == 0, "what a later line took back is not looked at", r)
	r = Ran([MAILWAL, "-c", "/nonexistent.conf", "config", "check", "--json"], site.dir)
	got = r.json() or [{}]
	t.ok(r.rc == 66 and got[0].get("message_type") == "error" and got[-1].get("ok") is False,
	     "config check --json: no such file", r)
	site.write(*lines)
	site.refused(65, ["is a private key", ".pub"], "keys", "rotate", key)


def socket_unit(t, site):
	"""milter_listen = systemd: setup says where that socket is."""
	bin_dir = t.sub("bin")
	tool = pathlib.Path(bin_dir, "systemctl")
	lines = pathlib.Path(site.conf).read_text(encoding="utf-8").splitlines()
	site.write(*lines, "milter_listen = systemd")
	for shown, want in (("/run/m.sock (Stream)", "local:/run/m.sock"),
			    ("127.0.0.1:1717 (Stream)", "inet:1717@127.0.0.1"),
			    ("", "local:/var/spool/postfix/mailwal/milter.sock")):
		tool.write_text(f"#!/bin/sh\necho '{shown}'\n", encoding="utf-8")
		tool.chmod(0o755)
		r = Ran(["env", f"PATH={bin_dir}:{os.environ['PATH']}", MAILWAL, "-c", site.conf,
			 "setup", "sendmail"], site.dir)
		t.ok(r.rc == 0 and f"`S={want}," in r.out, f"setup: a socket of systemd at {shown}", r)
	site.write(*lines)
	r = Ran(["env", f"MAIL_CONFIG={site.dir}/nowhere", MAILWAL, "-c", site.conf, "setup", "postfix"],
		site.dir)
	t.ok(r.rc == 0 and "postconf -e 'smtpd_milters = { unix:/run/mailwal/milter.sock, "
	     "default_action=tempfail" in r.out and "nowhere" in r.err,
	     "setup postfix prints settings also where there is no Postfix yet", r)
	r = Ran(["env", f"MAIL_CONFIG={site.dir}/nowhere", MAILWAL, "-c", site.conf, "setup", "postfix",
		 "--check"], site.dir)
	t.ok(r.rc == 69 and not r.out, "but checks nothing there", r)


def making(t, site):
	r = site("init")
	t.need(r.rc == 0, "init", r)
	full = os.path.join(site.dir, "full")
	os.makedirs(full)
	pathlib.Path(full, "letter").write_text("x", encoding="utf-8")
	site.refused(73, ["full is not empty", "hint: give a directory that is empty"],
		     "init", "-j", full)
	site.refused(73, ["not empty", "is a journal already", "status"], "init")
	t.equal(os.listdir(full), ["letter"], "what was there is left alone")
	for command in ("list", "status", "verify"):  # init would refuse it: so no word of that
		r = Ran([MAILWAL, "-c", site.conf, "-j", full, command], site.dir)
		t.ok(r.rc == 66 and "full is not a journal" in r.err and "creates one" not in r.err,
		     f"{command} of a directory with other things: no advice that init refuses", r)
	for text in ("", "Dear diary,\n"):  # nor is it the advice for a file that is damaged
		pathlib.Path(full, "journal").write_text(text, encoding="utf-8")
		site.refused(65, ["full is not a journal", "put back a copy"], "-j", full, "list")
	empty = os.path.join(site.dir, "empty")
	os.makedirs(empty)
	site.refused(66, ["is not a journal", f"'mailwal init {empty}' creates one"], "-j", empty,
		     "list")
	t.equal(os.listdir(empty), [], "nor is that one changed")
	site.refused(73, [f"{full}/letter/x", "letter is no directory"], "init", f"{full}/letter/x")
	site.refused(73, ["letter", "is no directory"], "init", f"{full}/letter")


def printed(t, site):
	"""With --json all that goes to standard output is JSON, also what is else a file's text."""
	for words in (("config", "sample"), ("setup", "postfix"), ("setup", "sendmail"),
		      ("config", "explain", "min_free"), ("version",), ("help", "init")):
		r = Ran(["env", f"MAIL_CONFIG={site.dir}/nowhere", MAILWAL, "-c", site.conf, "--json",
			 *words], site.dir)
		t.ok(r.rc == 0 and r.json(), f"--json {' '.join(words)}: JSON", r)
	r = site("config", "sample")
	j = site("--json", "config", "sample").json() or [{}]
	t.ok(r.out and j[0].get("text") == r.out, "config sample --json has the same text", r)
	r = site("--json", "status", "--nagios")
	t.ok(r.rc == 3 and r.out.startswith("MAILWAL UNKNOWN") and "--nagios or --json" in r.err,
	     "status --nagios has no JSON, and says so to the monitoring", r)


def fresh(t, site):
	"""What an empty journal has to say, and what cannot be read or made."""
	r = site("verify")
	t.ok(r.rc == 0 and "not anchored" in r.out, "verify of an empty journal is not anchored", r)
	r = site("--json", "verify")
	t.ok(r.rc == 0 and r.json()[-1]["tail"] == "not anchored", "so it is in JSON", r)
	site.refused(73, ["none/key", "no such directory"], "keys", "new", "--on-this-host",
		     "--out", f"{site.dir}/none/key")
	r = Ran([MAILWAL, "-c", "", "status"], site.dir)
	t.ok(r.rc == 64 and "the name is empty" in r.err, "-c '': exit 64", r)
	os.rename(f"{site.dir}/journal/index", f"{site.dir}/index")
	r = site("reindex")
	t.ok(r.rc == 0 and os.path.isdir(f"{site.dir}/journal/index"),
	     "reindex makes the directory of an index that was removed", r)


def sent(t, site):
	"""Mail sent under a login is that user's, by address and by name alone."""
	gus = "gus@example.org"
	maildir(os.path.join(site.dir, "gus"), 3, first=300)
	for i in range(300, 303):  # long before what audited() looks at
		os.utime(os.path.join(site.dir, "gus", "cur", f"m{i}:2,S"), (1750000000 + i,) * 2)
	r = site("import", f"maildir:{site.dir}/gus", "--user", gus, "--sent")
	t.need(r.rc == 0, "mail that gus sent", r)
	for name in (gus, "gus", "GUS"):
		r = site("--json", "list", "--user", name)
		t.equal(len(r.json() or []), 3, f"list --user {name}")
	r = site("--json", "erase", "--user", "gus", "--yes")
	t.ok(r.rc == 0 and r.json()[-1]["erased"] == 3, "and goes by that name", r)
	r = site("--json", "list", "--user", gus)
	t.equal(r.json(), [], "nothing of it is left")


def audited(t, site):
	"""A message that was erased is no hole; one that never had a record is, beside it."""
	box = os.path.join(site.dir, "ida")
	maildir(box, 1, first=400)
	site("import", f"maildir:{box}", "--user", "ida@example.org")
	rows = site("--json", "list", "--user", "ida@example.org").json() or [{}]
	log = os.path.join(site.dir, "mail.log")

	def line(qid, when):
		at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(when))
		return (f"{at} mx postfix/smtpd[1]: {qid}: client=a[192.0.2.1]\n"
			f"{at} mx postfix/cleanup[2]: {qid}: message-id=<x@y>\n"
			f"{at} mx postfix/qmgr[3]: {qid}: from=<a@x>, size=1, nrcpt=1 (queue active)\n")

	when = calendar.timegm(time.strptime(rows[0]["time"][:19], "%Y-%m-%dT%H:%M:%S"))
	pathlib.Path(log).write_text(line("4jXTPC00001z1aaa", when), encoding="utf-8")
	r = site("--json", "audit", log)
	t.ok(r.json() and r.json()[-1]["accepted"] == 1, "a log with one message", r)
	r = site("erase", "--user", "ida@example.org", "--yes")
	t.need(r.rc == 0, "ida is erased", r)
	r = site("--json", "audit", log)
	out = (r.json() or [{}])[-1]
	t.equal((r.rc, out.get("erased"), out.get("holes"), out.get("journaled")), (0, 1, 0, 1),
		"audit: what was erased is no hole")
	pathlib.Path(log).write_text(line("4jXTPC00001z1aaa", when) + line("4jXTPC00002z1aaa", when),
				     encoding="utf-8")
	r = site("--json", "audit", log)
	out = (r.json() or [{}])[-1]
	t.equal((r.rc, out.get("erased"), out.get("holes")), (1, 1, 1),
		"audit: it accounts for one message only")


def pipes(t, site):
	"""A reader that has seen enough: as of any other program, without a word."""
	for words in (["list"], ["--json", "list"], ["show", "-h"]):
		# the writer begins when nobody reads any more
		r, w = os.pipe()
		os.close(r)
		p = subprocess.run([MAILWAL, "-c", site.conf, *words], stdout=w, stderr=subprocess.PIPE,
				   check=False, timeout=tap.PATIENCE,
				   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
		os.close(w)
		t.ok(p.returncode == -signal.SIGPIPE and not p.stderr,
		     f"{' '.join(words)} into a closed pipe", f"{p.returncode} {p.stderr}")


def closed(t, site):
	"""Standard input and output that are closed: no file gets their numbers."""
	for words in (["list"], ["replay", "--all", "--to", f"eml:{site.dir}/closed"]):
		p = subprocess.run(["sh", "-c", 'exec "$0" "$@" <&- >&-', MAILWAL, "-c", site.conf, *words],
				   stderr=subprocess.PIPE, check=False, timeout=tap.PATIENCE)
		t.ok(p.returncode == 74 and b"standard output" in p.stderr,
		     f"{words[0]} with standard output closed: exit 74", f"{p.returncode} {p.stderr}")
	for words in (["-t"], ["-V"], ["-h"]):
		with open("/dev/full", "wb") as full:
			p = subprocess.run([MAILWALD, "-c", site.conf, *words], stdout=full,
					   stderr=subprocess.PIPE, check=False, timeout=tap.PATIENCE)
		t.ok(p.returncode == 74 and b"standard output" in p.stderr,
		     f"mailwald {words[0]} into a full device: exit 74", f"{p.returncode} {p.stderr}")
	hit = [f for f in pathlib.Path(site.dir, "journal").rglob("*")
	       if f.is_file() and b" copies: " in f.read_bytes()]
	t.equal(hit, [], "nothing that was to be printed is in a file of the journal")


def written(t, site):
	"""A file that the command line names and that is a device, a pipe or a link stays one."""
	fifo, full, link = (os.path.join(site.dir, n) for n in ("out pipe", "full device", "out link"))
	os.mkfifo(fifo)
	os.symlink("/dev/full", full)
	os.symlink(fifo, link)
	for words in (["replay", "--all", "--to", f"eml:{site.dir}/written", "--report"],
		      ["checkpoint", "--out"]):
		for name in (fifo, link):
			fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
			r = site(*words, name)
			with open(fd, "rb") as f:
				got = f.read()
			t.ok(r.rc == 0 and got and stat.S_ISFIFO(os.stat(fifo).st_mode)
			     and os.path.islink(link), f"{words[0]}: what a pipe gets", r)
		os.symlink(site.conf, f"{link} of another")
		os.chown(f"{link} of another", 65534, 65534, follow_symlinks=False)
		before = pathlib.Path(site.conf).read_bytes()
		r = site(*words, f"{link} of another")
		t.ok(r.rc == 0 and pathlib.Path(site.conf).read_bytes() == before
		     and not os.path.islink(f"{link} of another"), f"{words[0]}: a link somebody laid there", r)
		os.remove(f"{link} of another")
		r = site(*words, full)
		t.ok(r.rc == 73 and full in r.err and os.path.islink(full),
		     f"{words[0]}: a full device", r)
	for name in (fifo, full, site.dir):
		for words in (["export"], ["export", "-n"], ["replay", "plan"]):
			r = site("--json", *words, "--all", "--to", f"mbox:{name}")
			t.ok(r.rc == 73 and f"{name} is there and no file" in r.err
			     and not os.path.exists(f"{name}.lock"),
			     f"{words[0]} into an mbox that is none", r)


def others(t, site):
	"""In a directory of somebody else root writes to nothing that he laid there."""
	there, precious = os.path.join(site.dir, "of another"), os.path.join(site.dir, "precious")
	r = site("export", "--all", "--to", f"eml:{there}")
	names = [n for n in os.listdir(there) if n.endswith(".eml")]
	t.need(r.rc == 0 and names, "files of an export, to know their names", r)
	shutil.rmtree(there)
	os.mkdir(there, 0o755)
	pathlib.Path(precious).write_bytes(b"precious")
	for n in names:
		os.symlink(precious, os.path.join(there, n.replace(".eml", ".tmp")))
	os.symlink(precious, f"{there}/box")
	for n in [".", *os.listdir(there)]:
		os.chown(os.path.join(there, n), 65534, 65534, follow_symlinks=False)
	r = site("export", "--all", "--to", f"eml:{there}")
	t.ok(r.rc == 0 and pathlib.Path(precious).read_bytes() == b"precious"
	     and all(os.path.getsize(os.path.join(there, n)) for n in names),
	     "eml: links in the place of its temporary files", r)
	for words in (["export"], ["export", "-n"]):
		r = site(*words, "--all", "--to", f"mbox:{there}/box")
		t.ok(r.rc == 77 and "a link that somebody else laid" in r.err
		     and pathlib.Path(precious).read_bytes() == b"precious",
		     f"{' '.join(words)}: mbox: a link in its place", r)


def pipe_among(t, site):
	"""A pipe among the messages that are there is not waited for."""
	for to, name in (("eml", "a.eml"), ("maildir", "cur/1.x.y:2,")):
		there = os.path.join(site.dir, f"a pipe in {to}")
		r = site("export", "--all", "--to", f"{to}:{there}")
		os.mkfifo(f"{there}/{name}")
		again = site("export", "--all", "--to", f"{to}:{there}")
		t.ok(r.rc == 0 and again.rc == 0 and " 0 written" in again.out,
		     f"{to}: a pipe among the messages", again)
		if to == "eml":
			os.symlink("/nonexistent", f"{there}/b.eml")
		held = os.open(f"{there}/{name}", os.O_RDWR)  # by a writer
		again = site("export", "--all", "--to", f"{to}:{there}")
		os.close(held)
		t.ok(again.rc == 0 and " 0 written" in again.out,
		     f"{to}: one that has a writer, and beside it a link that leads nowhere", again)


def nowhere(t, site):
	"""A report that cannot be written is told before anything else is done."""
	into, there = os.path.join(site.dir, "nowhere"), os.path.join(site.dir, "a directory")
	os.mkdir(there)
	for words in (["export", "--all"], ["replay", "--all"], ["replay", "plan", "--all"],
		      ["recover", "--user", ALICE, "--all"]):
		for name in (f"{into} at all/report", f"{site.conf}/report", there, f"{there}/"):
			r = site(*words, "--to", f"eml:{into}", "--report", name)
			t.ok(r.rc == 73 and name in r.err and not os.path.exists(into),
			     f"{' '.join(words[:2])}: {name}", r)
		r = site(*words, "--to", f"eml:{into}", "--report", f"{there}/report")
		t.ok(r.rc == 0 and os.path.exists(f"{there}/report"), f"{' '.join(words[:2])}: a report", r)
		os.symlink("linked", f"{there}/link")
		r = site(*words, "--to", f"eml:{into}", "--report", f"{there}/link")
		t.ok(r.rc == 0 and os.path.islink(f"{there}/link") and os.path.getsize(f"{there}/linked"),
		     f"{' '.join(words[:2])}: a link to what is not there yet", r)
		for name in ("report", "link", "linked"):
			os.remove(f"{there}/{name}")
		shutil.rmtree(into, ignore_errors=True)


def made_by_the_run(t, site):
	"""But it may lie where the run itself makes a directory."""
	for words, to, name in ((["export"], "eml:made", "made/report"),
				(["export"], "eml:made/a/b", f"{site.dir}/made/a/report"),
				(["export"], "mbox:made/box", "./made//report"),
				(["recover", "--user", ALICE], "eml:made", "made/report"),
				(["replay"], f"eml:{site.dir}/made", f"made/{ALICE}/report"),
				(["replay", "--create"], "maildir:made/%n", "made/report")):
		r = site(*words, "--all", "--to", to, "--report", name)
		t.ok(r.rc == 0 and os.path.getsize(os.path.join(site.dir, name)) > 0, f"{to}: {name}", r)
		shutil.rmtree(os.path.join(site.dir, "made"))
	for words, to, name in ((["export"], "eml:made", "made2/report"),
				(["export"], "eml:made", "made/../made2/report"),
				(["export"], "mbox:made/box", "made/box/report"),
				(["export", "-n"], "eml:made", "made/report"),
				(["replay", "--create"], "maildir:made/%n", "other/report")):
		r = site(*words, "--all", "--to", to, "--report", name)
		t.ok(r.rc == 73 and name in r.err and not os.path.exists(f"{site.dir}/made"),
		     f"{' '.join(words)}: {to}: {name}", r)


def locked(t, site):
	"""Without the key nothing of an encrypted journal is told, and that is said, once."""
	where = os.path.join(site.dir, "locked")
	conf, key, out = (f"{where}/{n}" for n in ("mailwal.conf", "key", "out"))
	maildir(f"{where}/mail", 5)
	r = Ran([MAILWAL, "keys", "new", "--out", key], where)
	pathlib.Path(conf).write_text(f"journal_dir = \"{where}/journal\"\nrecovery_key = \"{key}.pub\"\n"
				      "local_domains = example.org\n", encoding="utf-8")
	for words in (["init"], ["import", "maildir:mail", "--user", ALICE]):
		r = Ran([MAILWAL, "-c", conf, *words], where)
		t.need(r.rc == 0, words[0], r)
	for words in (["list"], ["export", "--all", "--to", f"eml:{out}"], ["recover", "--user", ALICE],
		      ["recover", "--user", ALICE, "--all", "--to", f"eml:{out}"],
		      ["replay", "plan", "--all", "--to", f"eml:{out}"],
		      ["replay", "--all", "--to", f"eml:{out}"]):
		r = Ran([MAILWAL, "-c", conf, *words], where)
		t.ok(r.rc == 77 and r.err.count("is encrypted") == r.err.count("--key FILE") == 1
		     and "no mail" not in r.err, f"{words[0]} without the key", r)
		r = Ran([MAILWAL, "-c", conf, "--key", key, *words], where)
		t.ok(r.rc == 0 and not r.err, f"{words[0]} with it", r)


def importing(t, site):
	for where in ("maildir:/nonexistent/%u", "mbox:/nonexistent/%u", "eml:/nonexistent/%d/%n",
		      f"maildir:{site.dir}/%u/Maildr"):
		site.refused(66, ["/nonexistent" if "/non" in where else "Maildr", "mailwal: "],
			     "import", where)
	site.refused(66, ["/nonexistent"], "import", "maildir:/nonexistent", "--user", ALICE)
	for user in (ALICE, "dora@example.org"):
		maildir(os.path.join(site.dir, "vmail", user), 3 if user == ALICE else 1)
	r = site("import", f"maildir:{site.dir}/vmail/%u")
	t.need(r.rc == 0, "import", r)


def users(t, site):
	out = ["--to", f"eml:{site.dir}/out"]
	last = {"replay": out, "export": out, "erase": ["--yes"], "recover": []}
	for verb, more in last.items():
		site.refused(67, [CAROL, "hint: "], verb, "--user", CAROL, *more)
		site.refused(67, ["alicia", "hint: "], verb, "--user", "alicia", *more)
	for verb in ("replay", "export", "erase"):
		r = site(verb, "--user", "new@example.org", *last[verb])
		t.ok(r.rc == 0, f"{verb}: one of our domain who has no mail is no mistake", r)
	site.refused(67, ["new@example.org"], "recover", "--user", "new@example.org")
	site.refused(67, [CAROL], "replay", "--user", ALICE, "--user", CAROL, *out)
	for name in (ALICE, "alice", "ALICE@example.ORG"):
		r = site("--json", "export", "--user", name, "--until", "2000-01-01", *out)
		t.ok(r.rc == 0 and (r.json() or [{}])[-1].get("selected") == 0,
		     f"{name}: a selection that names nothing is 0", r)
	r = site("list", "--user", CAROL)
	t.ok(r.rc == 0, "a list may be empty", r)


def selections(t, site):
	out = ["--to", f"eml:{site.dir}/out"]
	for verb, more in (("list", []), ("replay", out), ("export", out), ("hold add x", [])):
		site.refused(64, ["--until", "--since"], *verb.split(), "--since", "yesterday",
			     "--until", "-3d", *more)
		site.refused(64, ["'never'", "hint: "], *verb.split(), "--since", "never", *more)
	for verb, more in (("list", []), ("replay", out), ("export", out)):
		site.refused(66, ["nightli"], verb, "--since-mark", "nightli", *more)
	at = time.gmtime(time.time() - 20 * 86400)
	mail = time.strftime("%a, %d %b %Y %H:%M:%S +0100", at)
	wrong = time.strftime("%a", time.gmtime(time.mktime(at) + 86400)) + mail[3:]
	site.refused(64, [wrong], "list", "--since", wrong)
	past = time.strftime("%A", time.gmtime(time.time() - 3 * 86400))  # not today: it may be 10:00
	for text in (mail, time.strftime("%A %Y-%m-%d", at), f"{past[:3]} 10:00", past):
		r = site("--json", "list", "--since", text)
		t.ok(r.rc == 0 and len(r.json() or []) == 4, f"--since '{text}'", r)
	log = pathlib.Path(site.dir, "mail.log")
	log.write_text("", encoding="utf-8")
	r = site("audit", "--since", mail, str(log))
	t.ok(r.rc == 0, "audit takes the same times", r)
	fifo = os.path.join(site.dir, "pipe")
	os.mkfifo(fifo)
	line = "Nov 20 10:00:00 mx postfix/smtpd[1]: connect from x[192.0.2.1]\n"
	with subprocess.Popen(["sh", "-c", f"printf '%s' \"$0\" >\"$1\"", line * 3, fifo]) as p:
		r = site("--json", "outcomes", fifo)
		t.ok(r.rc == 0 and (r.json() or [{}])[-1].get("lines") == 3, "a log may be a pipe", r)
		p.wait()
	r = site("--json", "audit", "/dev/null")
	t.ok(r.rc == 0 and (r.json() or [{}])[-1].get("lines") == 0, "a log may be empty", r)
	site.refused(66, ["no directory"], "list", "-j", site.conf)
	for words in (["list", "--direction", "in", "--direction", "out", "--json"],
		      ["--", "list", "--json"], ["list", "--json", "--"]):
		r = site(*words)
		t.ok(r.rc == 0 and len(r.json() or []) == 4, " ".join(words), r)
	site.refused(64, ["'x'"], "list", "--", "x")
	site.refused(64, ["two holds"], "hold", "add", "x", "--direction", "in", "--direction", "out")
	site.refused(64, ["--fresh", "--resume"], "replay", "--all", "--fresh", "--resume", *out)
	site.refused(64, ["--fresh", "--resume"], "replay", "--all", "--resume", "--fresh", *out)


def index_in_use(t, site):
	"""Who is at the index is waited for; after a second it is said who, and Ctrl-C is heard."""
	with open(f"{site.dir}/journal/index/writer.lock", "r+", encoding="ascii") as f:
		fcntl.flock(f, fcntl.LOCK_EX)
		f.write(f"{os.getpid():<20}\n")
		f.flush()
		with subprocess.Popen([MAILWAL, "-c", site.conf, "reindex"], stderr=subprocess.PIPE) as p:
			said = p.stderr.readline().decode()
			p.send_signal(signal.SIGINT)
			rest, rc = p.stderr.read().decode(), p.wait(tap.PATIENCE)
	t.ok("waiting" in said and f"process {os.getpid()}" in said and rc == 130,
	     "reindex waits for who is at the index, says so and ends at once when told",
	     f"{rc} {said} {rest}")
	r = site("reindex")
	t.ok(r.rc == 0, "reindex once it is free", r)


def record_refused(t, site):
	"""What recover puts back must be on record first: it says for whom it is only where that is
	what it lacks."""
	r = Ran(["prlimit", "--fsize=4000", MAILWAL, "-c", site.conf, "recover", "--user", ALICE,
		 "--all", "--to", f"eml:{site.dir}/unrecorded"], site.dir)
	t.ok(r.rc == 73 and "no space" in r.err and "for root" not in r.err,
	     "recover where no record can be written", r)


def sets(t, site):
	two = os.path.join(site.dir, "two")
	r = site("-j", two, "init")
	t.need(r.rc == 0, "a second journal", r)
	maildir(os.path.join(site.dir, "more"), 2, first=10)
	site("-j", two, "import", f"maildir:{site.dir}/more", "--user", ALICE)
	one = os.path.join(site.dir, "journal")
	for verb, count in (("verify", "mails"), ("reindex", "records")):
		r = site("-j", one, "-j", two, verb, "--json")
		got = [o for o in r.json() or [] if o["message_type"] != "finding"]
		t.ok(r.rc == 0 and [o["message_type"] for o in got] == ["journal", "journal", "summary"]
		     and [o["journal"] for o in got[:2]] == [one, two]
		     and got[2]["journals"] == 2 and got[2]["selected"] == sum(o[count] for o in got[:2]),
		     f"{verb} of two journals: each, then one summary", r)
		r = site("-j", one, verb, "--json")
		got = [o for o in r.json() or [] if o["message_type"] != "finding"]
		t.ok([o["message_type"] for o in got] == ["summary"] and got[0]["journal"] == one,
		     f"{verb} of one: the summary alone", r)


	copy = os.path.join(site.dir, "a copy")
	shutil.copytree(one, copy)
	for verb in (["list"], ["show", "abcd"], ["export", "--to", f"eml:{site.dir}/none", "--all"],
		     ["replay", "--all", "--to", f"eml:{site.dir}/none"]):
		r = site("-j", one, "-j", two, "-j", copy, *verb)
		t.ok(r.rc == 64 and "copies of it" in r.err and not r.out,
		     f"{verb[0]}: a journal and its copy are no set", r)
	r = site("-j", one, "-j", copy, "verify")
	t.ok(r.rc == 0, "both can be verified", r)


def kept_out(t, site):
	"""Whatever its ledger is, a replay works in files alone."""
	for kind in ("maildir", "eml"):
		where = os.path.join(site.dir, f"kept {kind}")
		box = os.path.join(where, ALICE)
		for sub in ("cur", "new", "tmp"):
			os.makedirs(os.path.join(box, sub))
		fd = os.open(box, os.O_RDONLY)
		fcntl.flock(fd, fcntl.LOCK_EX)
		target = f"maildir:{where}/%u" if kind == "maildir" else f"eml:{where}"
		with subprocess.Popen([MAILWAL, "-c", site.conf, "--json", "replay", "--user", ALICE, "--to",
				       target], cwd=site.dir, stdout=subprocess.PIPE) as p:
			end = time.monotonic() + tap.PATIENCE
			while not (waits := has_open(p.pid, box)) and p.poll() is None:
				if time.monotonic() > end:
					break
				time.sleep(0.01)
			end = time.monotonic() + 1  # to look is no harm, so it may have it open
			while p.poll() is None and time.monotonic() < end:
				time.sleep(0.05)
			waits = waits and p.poll() is None
			files = [f for _, _, names in os.walk(box) for f in names]
			os.close(fd)
			out = p.communicate(timeout=tap.PATIENCE)[0]
		got = json.loads(out.splitlines()[-1])
		t.ok(waits and not files, f"{kind}: it waits for another one", files)
		t.ok(p.returncode == 0 and got["restored"] > 0 and got["restored"] == got["selected"],
		     f"{kind}: and goes on after it", got)


def has_open(pid, path):
	try:
		links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
	except OSError:
		return False
	return path in links


def holds(t, site):
	for verb, state in (("add", "held"), ("rm", "released")):
		r = site("--json", "hold", verb, "case-1")
		got = (r.json() or [{}])[0]
		t.ok(r.rc == 0 and got.get("by") == f"uid {os.getuid()}" and got.get("state") == state
		     and got.get("name") == "case-1", f"hold {verb}: who did it", r)


def at_once(t, site):
	"""One of two that start the same mark is told that it has been started."""
	log, other = (pathlib.Path(site.dir, n) for n in ("mark's calls", "the other's calls"))
	argv = [MAILWAL, "-c", site.conf, "mark", "at-once"]

	def start(path, *words):
		return subprocess.Popen(["strace", "-f", "-qq", "-o", path, *words, *argv],
					stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
	first = start(log, "-e", "trace=connect", "-e", "inject=connect:signal=SIGSTOP:when=1")
	rigs.wait_for("a mark that is about to be written",
		      lambda: log.exists() and "stopped by SIGSTOP" in log.read_text(encoding="utf-8"),
		      tap.PATIENCE)
	second = start(other, "-e", "trace=flock")
	rigs.wait_for("another that waits, or has done it", lambda: second.poll() is not None or (
		other.exists() and "EAGAIN" in other.read_text(encoding="utf-8")), tap.PATIENCE)
	os.kill(int(log.read_text(encoding="utf-8").split()[0]), signal.SIGCONT)
	said = sorted((p.communicate(timeout=tap.PATIENCE)[1].decode(), p.returncode)
		      for p in (first, second))
	t.ok([rc for _, rc in said] == [0, 64] and "has not ended" in said[1][0],
	     "a mark that is started twice at the same moment: the second is refused", said)
	r = site("mark", "at-once", "--failed")
	t.ok(r.rc == 0, "and it can be ended", r)
	lock = f"{site.dir}/journal/mark.lock"
	with open(lock, "rb") as held:
		fcntl.flock(held, fcntl.LOCK_EX)
		with subprocess.Popen([MAILWAL, "-c", site.conf, "mark", "late"], stderr=subprocess.PIPE) as p:
			def opened():
				there = f"/proc/{p.pid}/fd"
				return any(os.path.realpath(f"{there}/{n}") == os.path.realpath(lock)
					   for n in os.listdir(there))
			rigs.wait_for("a mark that waits", opened, tap.PATIENCE, p)
			p.send_signal(signal.SIGINT)
			said = p.communicate(timeout=tap.PATIENCE)[1].decode()
	t.equal(p.returncode, 130, f"a mark that waits for another is stopped by a signal: {said}")


def marks(t, site):
	"""Without a selection a replay goes by the last backup that ended well."""
	to = ["--to", f"eml:{site.dir}/since"]
	site.refused(64, ["completed", "--since-mark"], "replay", *to)
	site("mark", "first")
	site.refused(64, ["completed", "--since-mark"], "replay", *to)
	site("mark", "first", "--complete")
	maildir(os.path.join(site.dir, "vmail", "gina@example.org"), 2, first=50)
	site("import", f"maildir:{site.dir}/vmail/%u")
	site("mark", "second")
	r = site("--json", "replay", *to)
	t.ok(r.rc == 0 and (r.json() or [{}])[-1].get("selected") == 2 and "mark first" in r.err,
	     "replay without a selection: since the last completed mark", r)


def state(t, site):
	site("hold", "add", "case-2", "--user", ALICE)
	r = site("--json", "status")
	got = (r.json() or [{}])[0]
	t.ok(got.get("holds") == ["case-2"] and got.get("retention")
	     == [{"name": "default", "keep": "30d"}], "status --json has retention and holds", r)
	r = site("status")
	t.ok("Holds     case-2" in r.out and "Retention default: keep 30d" in r.out,
	     "status tells them", r)


def on_terminal(site, answer, *words):
	"""The same with a terminal as standard input and error; stdout is not one."""
	pid, fd = pty.fork()
	if pid == 0:
		os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
		os.execv(MAILWAL, [MAILWAL, "-c", site.conf, *words])
	said = b""
	asked = False
	while True:
		try:
			more = os.read(fd, 4096)
		except OSError:
			break
		if not more:
			break
		said += more
		if b"[y/N]" in said and not asked:
			asked = True
			os.write(fd, answer + b"\n")
	os.close(fd)
	return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(), asked


def odd_mboxes(t, site):
	"""An mbox that others wrote is read as they meant it, or its mail is put there once more."""
	user = "iris@example.org"
	source, there = os.path.join(site.dir, "old", user), os.path.join(site.dir, "mboxes")
	maildir(source, 4, first=300)
	os.utime(f"{source}/cur/m300:2,S", (-1, -1))
	messages = [pathlib.Path(f"{source}/cur/m{i}:2,S").read_bytes() for i in range(300, 304)]
	r = site("import", f"maildir:{site.dir}/old/%u")
	t.need(r.rc == 0, "mail, one of it from before 1970", r)
	os.mkdir(there)
	args = ["replay", "--user", user, "--fresh", "--to", f"mbox:{there}/%n"]
	lines = [b"Wed Dec 31 23:59:59 1969", b"Tue Mar  5 13:00:00 2019 +0100",
		 b"Tue Mar  5 13:00:00 CET 2019", b"Tue Mar 5 12:00 2019"]
	text = b"".join(b"From bob@example.net %s\n%s\n" % x for x in zip(lines, messages))
	for what, put in (("of our own", None), ("of other programs", text),
			  ("with CRLF", text.replace(b"\n", b"\r\n"))):
		if put:
			pathlib.Path(f"{there}/iris").write_bytes(put)
		r = site("--json", *args, "--create")
		t.ok(r.rc == 0 and r.json()[-1]["restored"] == (0 if put else 4), f"an mbox {what}", r)
		r = site("--json", *args)
		t.ok(r.rc == 0 and r.json()[-1]["already_there"] == 4, "has it all", r)


def live_store(t, site):
	"""A replay into a store that is in use, where a user has removed two messages."""
	frida = "frida@example.org"
	source = os.path.join(site.dir, "vmail", frida)
	maildir(source, 12, first=100)
	for i in range(100, 112):
		os.utime(os.path.join(source, "cur", f"m{i}:2,S"), (1750000000 + i * 60,) * 2)
	r = site("import", f"maildir:{site.dir}/vmail/%u")
	store = os.path.join(site.dir, "store")
	args = ["replay", "--user", frida, "--create", "--to", f"maildir:{store}/%u"]

	def names():
		return sorted(os.path.join(d, f) for d, _, files in os.walk(store) for f in files
			      if os.path.basename(d) in ("cur", "new"))

	r = site(*args)
	t.need(r.rc == 0 and len(names()) == 12 and "in use" not in r.err,
	       "an empty store is filled without a question", r)

	def remove():
		gone = [n for n in names() if b"number 101\r\n" in pathlib.Path(n).read_bytes()
			or b"number 101\n" in pathlib.Path(n).read_bytes()]
		os.remove(gone[0])

	remove()
	rc, said, asked = on_terminal(site, b"n", *args)
	t.ok(rc == 130 and asked and "in use" in said and len(names()) == 11,
	     "a store in use: no is no", f"{rc} {said}")
	rc, said, asked = on_terminal(site, b"y", *args)
	t.ok(rc == 0 and asked and len(names()) == 12, "a store in use: yes", f"{rc} {said}")
	remove()
	rc, said, asked = on_terminal(site, b"n", *args, "--yes")
	t.ok(rc == 0 and not asked and len(names()) == 12, "--yes does not ask", f"{rc} {said}")
	remove()
	r = site("--json", *args, "-n")
	t.ok(r.rc == 0 and "in use" in r.err and r.json()[-1]["look_in_use"] == 1
	     and len(names()) == 11, "a dry run warns", r)
	r = site("--json", *args)
	t.ok(r.rc == 0 and "in use" in r.err and "replay undo" in r.err
	     and r.json()[-1]["look_in_use"] == 1 and len(names()) == 12,
	     "without a terminal it is a warning, counted in the summary", r)
	for n in names()[6:]:
		os.remove(n)
	rc, said, asked = on_terminal(site, b"n", *args)
	t.ok(rc == 0 and not asked and len(names()) == 12,
	     "a restored store is filled without a question", f"{rc} {said}")


def main(t):
	site = Site(t)
	configuration(t, site)
	socket_unit(t, site)
	making(t, site)
	printed(t, site)
	fresh(t, site)
	importing(t, site)
	users(t, site)
	sent(t, site)
	audited(t, site)
	pipes(t, site)
	selections(t, site)
	closed(t, site)
	written(t, site)
	if os.geteuid() == 0:
		others(t, site)
	pipe_among(t, site)
	nowhere(t, site)
	made_by_the_run(t, site)
	locked(t, site)
	index_in_use(t, site)
	record_refused(t, site)
	sets(t, site)
	kept_out(t, site)
	marks(t, site)
	at_once(t, site)
	holds(t, site)
	state(t, site)
	live_store(t, site)
	odd_mboxes(t, site)


tap.run(main)
