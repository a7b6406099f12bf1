#!/usr/bin/python3
"""What the command line promises, on a journal filled by import: JSON, exit statuses and what
is said about mistakes. No servers."""

import calendar
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from clisite import ALICE, MAILWAL, MAILWALD, Ran, Site, fill, maildir

CAROL = "carol@elsewhere.test"


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


def importing(t, site):
	for where in ("maildir:/nonexistent/%u", "mbox:/nonexistent/%u", "eml:/nonexistent/%d/%n",
		      f"maildir:{site.dir}/%u/Maildr"):
		site.refused(66, ["/nonexistent" if "/non" in where else "Maildr", "mailwal: "],
			     "import", where)
	site.refused(66, ["/nonexistent"], "import", "maildir:/nonexistent", "--user", ALICE)
	fill(t, site)


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


def holds(t, site):
	for verb, state in (("add", "held"), ("rm", "released")):
		r = site("--json", "hold", verb, "case-1")
		got = (r.json() or [{}])[0]
		t.ok(r.rc == 0 and got.get("by") == f"uid {os.getuid()}" and got.get("state") == state
		     and got.get("name") == "case-1", f"hold {verb}: who did it", r)


def state(t, site):
	site("hold", "add", "case-2", "--user", ALICE)
	r = site("--json", "status")
	got = (r.json() or [{}])[0]
	t.ok(got.get("holds") == ["case-2"] and got.get("retention")
	     == [{"name": "default", "keep": "30d"}], "status --json has retention and holds", r)
	r = site("status")
	t.ok("Holds     case-2" in r.out and "Retention default: keep 30d" in r.out,
	     "status tells them", r)


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
	selections(t, site)
	locked(t, site)
	index_in_use(t, site)
	record_refused(t, site)
	sets(t, site)
	marks(t, site)
	at_once(t, site)
	holds(t, site)
	state(t, site)


tap.run(main)
