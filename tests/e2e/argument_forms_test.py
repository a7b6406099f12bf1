#!/usr/bin/python3
"""The forms in which people give an address, a time, a file or a journal. No servers."""

import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap

BUILD = os.environ.get("MW_BUILD", "build")
MAILWAL, MAILWALD = os.path.join(BUILD, "replay/mailwal"), os.path.join(BUILD, "milter/mailwald")
ALICE = "alice@example.org"


class Site:
	"""A journal with two messages to alice, from bob and from the null sender."""

	def __init__(self, t):
		self.t, self.dir = t, t.dir
		self.conf = os.path.join(self.dir, "mail wal.conf")
		pathlib.Path(self.conf).write_text(f"journal_dir = \"{self.dir}/journal\"\n"
						   "local_domains = example.org\n", encoding="utf-8")
		box = t.sub("mail/cur")
		for i, sender in enumerate(("<bob@example.net>", "<>")):
			pathlib.Path(box, f"m{i}:2,S").write_bytes(
				b"Return-Path: %s\nFrom: x@example.net\nMessage-ID: <%d@x>\n\nbody %d\n"
				% (sender.encode(), i, i))
		for sub in ("new", "tmp"):
			t.sub(f"mail/{sub}")

	def __call__(self, *words, stdin=b"", program=MAILWAL):
		p = subprocess.run([program, "-c", self.conf, *words], cwd=self.dir, input=stdin,
				   capture_output=True, timeout=tap.PATIENCE, check=False)
		p.out, p.err = p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")
		p.told = f"exit {p.returncode}\n{p.out[-600:]}\n{p.err[-600:]}"
		return p

	def count(self, *words):
		"""How many messages a list has, or what it said."""
		p = self("--json", "list", *words)
		return len(p.out.splitlines()) if p.returncode == 0 else p.told

	def refused(self, rc, said, *words):
		p = self(*words)
		return self.t.ok(p.returncode == rc and not p.out and all(x in p.err for x in said),
				 f"{' '.join(words)}: exit {rc}", p.told)


def addresses(t, site):
	"""As they stand in logs and mail programs."""
	for user in (ALICE, f"<{ALICE}>", f" {ALICE} ", f"Alice B <{ALICE}>", f"\"A, B\" <{ALICE}>",
		     "<alice>"):
		t.equal(site.count("--user", user), 2, f"list --user '{user}'")
		p = site("recover", "--user", user)
		t.ok(p.returncode == 0, f"recover --user '{user}'", p.told)
	for sender in ("<bob@example.net>", "Bob <bob@example.net>", " bob@example.net"):
		t.equal(site.count("--sender", sender), 1, f"list --sender '{sender}'")
	t.equal(site.count("--sender", "<>"), 1, "the null sender")
	t.equal(site.count("--sender", " <> "), 1, "the null sender, with blanks")
	for words in (("--domain", " example.org "), ("--message-id", " <0@x> "), ("--message-id", "0@x")):
		t.ok(site.count(*words) in (1, 2), f"list {words}", site.count(*words))
	for words, said in ((("--user", "@example.org"), "--domain"), (("--user", "alice@"), "after its '@'"),
			    (("--sender", "@example.net"), "--domain"), (("--user", "< >"), "empty"),
			    (("--user", "  "), "empty"), (("--queue-id", " "), "empty"),
			    (("--domain", "two words"), "no domain"), (("--domain", "@"), "no domain"),
			    (("--domain", "bob@example.net"), "no domain")):
		for verb in (["list"], ["hold", "add", "h"], ["export", "--to", f"eml:{site.dir}/none"]):
			site.refused(64, [words[0], said], *verb, *words)
	for value in (f"Alice <{ALICE}>, Bob <bob@example.net>", f"{ALICE}, Bob <bob@example.net>",
		      f"{ALICE}; <bob@example.net>", f"{ALICE}, bob@example.net", f"<{ALICE}> (Alice)",
		      f'"Alice <{ALICE}>"', f"<{ALICE}>, <bob@example.net>", f"{ALICE} Alice", "alice, bob",
		      f'"Alice {ALICE}', f"{ALICE}; bob@example.net", f"Alice <{ALICE}", f"{ALICE}>"):
		for opt in ("--user", "--sender"):
			for verb in (["list"], ["hold", "add", "h"]):
				site.refused(64, [opt, "not one address", f"give {opt} once"], *verb, opt, value)
		site.refused(64, ["--user"], "recover", "--user", value)
		site.refused(64, ["--user"], "import", f"maildir:{site.dir}/mail", "--user", value, "-n")
	for value in ("a.example,b.example", "<example.org>", '"example.org"', "example.org;"):
		site.refused(64, ["--domain", "no domain"], "list", "--domain", value)
	for value in ('"a<bob"@example.net', '<"a<bob"@example.net>', '"a, b (c)"@example.net', '"B, \\"x" <bob@example.net>',
		      '"a\\"b@c"@example.net'):
		t.equal(site.count("--sender", value), int("<bob@" in value), f"list --sender '{value}'")
	for user in ("@example.org", "alice@"):
		site.refused(64, ["--user"], "recover", "--user", user)
		site.refused(64, ["--user"], "import", f"maildir:{site.dir}/mail", "--user", user, "-n")
	p = site("hold", "add", "case", "--user", f"Alice <{ALICE}>")
	t.ok(p.returncode == 0 and p.out.endswith(f"--user {ALICE}\n"), "a hold says whom it holds", p.told)
	site.refused(77, ["under hold (case)"], "erase", "--user", ALICE, "--yes")
	site("hold", "rm", "case")
	p = site("--json", "import", f"maildir:{site.dir}/mail", "--user", f"<{ALICE}>", "-n")
	t.ok(p.returncode == 0 and json.loads(p.out)["already_there"] == 2, "import --user <…>", p.told)


def times(t, site):
	soon = time.strftime("%y-%m-%d", time.gmtime(time.time() + 3 * 86400))
	for text in ("26-01-05", "2026-1-5", "2026-01-05 8:00", "today UTC", "yesterday 00:00", "-90000"):
		p = site("list", "--since", text)
		t.ok(p.returncode == 0, f"--since '{text}'", p.told)
	t.equal(site.count("--since", soon), 0, f"--since {soon}")
	p = site("audit", "--since", "never", "/dev/null")
	t.ok(p.returncode == 64 and "'never' is not a time" in p.err and "hint: such as" in p.err,
	     "audit tells what a time is", p.told)


def objects(p):
	"""What was printed, an object in each line; none where something else is there."""
	try:
		return [json.loads(x) for x in p.out.splitlines()] or [{}]
	except ValueError:
		return [{}]


def files(t, site):
	"""'-' is standard input or output where a file is read or written; a name may begin with it."""
	p = site("--quiet", "export", "--all", "--to", f"eml:{site.dir}/out", "--report", "-")
	try:
		report = json.loads(p.out[p.out.index("{"):])
	except ValueError:
		report = {}
	t.ok(p.returncode == 0 and report.get("message_type") == "report", "--report -", p.told)
	p = site("checkpoint", "--out", "-")
	t.ok(p.returncode == 0 and p.out.startswith("mailwal.journal/") and "written" not in p.out,
	     "checkpoint --out -", p.told)
	note = p.stdout
	p = site("--json", "checkpoint", "--out", "-")
	t.ok(p.returncode == 0 and [str(x.get("note"))[:50] for x in objects(p)] == [note.decode()[:50]],
	     "--json checkpoint --out -: one object, with the note", p.told)
	for words in (["export", "--to", f"eml:{site.dir}/out"],
		      ["replay", "--create", "--to", f"maildir:{site.dir}/json/%u"]):
		p = site("--json", *words, "--all", "--report", "-")
		types = [x.get("message_type") for x in objects(p)]
		t.ok(p.returncode == 0 and types[-2:] == ["report", "summary"],
		     f"--json {words[0]} --report -: an object in each line, the summary last", (types, p.told))
	p = site("verify", "--checkpoint", "-", stdin=note)
	t.ok(p.returncode == 0 and "anchored by" in p.out, "verify --checkpoint -", p.told)
	p = site("config", "check", "-", stdin=b"min_fre = 1G\n")
	t.ok(p.returncode == 78 and "1:1: error: unknown setting" in p.err, "config check -", p.told)
	site.refused(64, ["mbox:-"], "export", "--all", "--to", "mbox:-")
	site.refused(64, ["--out", "'-'"], "keys", "new", "--on-this-host", "--out", "-")
	t.ok(not os.path.lexists(f"{site.dir}/-"), "no file is called '-'")
	with open(f"{site.dir}/both", "wb") as both:
		for words in (("--report", "/dev/stdout"), ("--report", "-")):
			both.truncate(0)
			both.seek(0)
			p = subprocess.run([MAILWAL, "-c", site.conf, "export", "--all", "--to",
					    f"eml:{site.dir}/out", *words], stdout=both, check=False)
			got = pathlib.Path(both.name).read_text(encoding="utf-8")
			t.ok(p.returncode == 0 and got.count("already there") == 1 and got.count('"uids"') == 1,
			     f"{words[1]} that is the file of what is printed: both are whole", got)
	p = site("init", "--", "-dash")
	t.ok(p.returncode == 0 and os.path.isfile(f"{site.dir}/-dash/journal"), "init -- -dash", p.told)


def passwords(t, site):
	"""Read before any server is asked: none listens there."""
	words = ("replay", "--all", "--to", "imap://127.0.0.1:1", "--auth-user", "master")
	p = site(*words, "--password-file", "-", stdin=b"secret\n")
	t.ok(p.returncode == 69 and "cannot reach" in p.err, "--password-file -", p.told)
	for text in (b"", b"\n", b"\r\nsecret\n"):
		p = site(*words, "--password-file", "-", stdin=text)
		t.ok(p.returncode == 65 and "first line" in p.err and not p.out,
		     f"a password file with {text}", p.told)
	for text in (b"sec\0ret\n", "secret\n".encode("utf-16-le")):
		p = site(*words, "--password-file", "-", stdin=text)
		t.ok(p.returncode == 65 and "byte 0" in p.err and not p.out, f"a password with {text}", p.told)
		p = site("keys", "new", "--on-this-host", "--out", f"{site.dir}/key", "--new-passphrase-file", "-", stdin=text)
		t.ok(p.returncode == 64 and "byte 0" in p.err and not os.path.lexists(f"{site.dir}/key"),
		     f"a passphrase with {text}", p.told)
	many = "".join(f"user{i}@example.org:x\n" for i in range(1000)) + f"{ALICE}:secret\n"
	p = site(*words[:4], "--user-passwords", "-", stdin=many.encode())
	t.ok(p.returncode == 69 and "cannot reach" in p.err, "many passwords from a pipe", p.told)
	for name in ("/nonexistent", site.dir):
		p = site(*words, "--password-file", name)
		t.ok(p.returncode in (64, 66) and name in p.err and not p.out, f"--password-file {name}", p.told)
	secret, rubbish = (pathlib.Path(site.dir, x) for x in ("secret", "rubbish.pem"))
	secret.write_text("secret\n", encoding="ascii")
	secret.chmod(0o600)
	rubbish.write_text("no certificate\n", encoding="ascii")
	words += "--password-file", secret
	for name, rc in (("/nonexistent", 66), (site.dir, 64), (rubbish, 65)):
		p = site(*words, "--tls-ca", name)
		t.ok(p.returncode == rc and str(name) in p.err and "--insecure" not in p.err and not p.out,
		     f"--tls-ca {name}: exit {rc}", p.told)


def others(t, site):
	p = site("-j", site.dir, "list")
	t.ok(p.returncode == 66 and "is not a journal" in p.err and f"-j '{site.dir}/journal'" in p.err,
	     "the directory above a journal", p.told)
	for words in (["follow"], ["follow", "--accept-side-effects"]):
		p = site(*words, "--to", "lmtp:127.0.0.1:1")
		t.ok(p.returncode == 64 and not p.out and (len(words) > 1 or "imap://" in p.err),
		     f"{' '.join(words)} --to lmtp", p.told)
	site.refused(64, ["--to", "twice"], "export", "--all", "--to", f"eml:{site.dir}/a", "--to",
		     f"eml:{site.dir}/b")
	site.refused(64, ["--rate", "'0'", "no rate"], "replay", "--all", "--to", "eml:x", "--rate", "0")
	p = site("import", "lmtp:127.0.0.1:24", "--user", ALICE)
	t.ok(p.returncode == 64 and "imap://" in p.err and "lmtp:unix" not in p.err, "import from lmtp", p.told)
	p = site("replay", "--all", "--to", f"lmtp:unix:{site.dir}/none", "--accept-side-effects")
	t.ok(p.returncode == 69 and "No such file" in p.err and "port 80" not in p.err,
	     "a unix socket that is not there", p.told)
	os.mkfifo(f"{site.dir}/pipe.cf")
	p = site("setup", "sendmail", "--check", "--sendmail-config", f"{site.dir}/pipe.cf")
	t.ok(p.returncode not in (0, 1) and "pipe.cf" in p.err, "a configuration that is a pipe is not waited for",
	     p.told)
	for words in (["--config", site.conf], [f"--config={site.conf}"]):
		p = subprocess.run([MAILWALD, "-t", *words], capture_output=True, check=False)
		t.ok(p.returncode == 0, f"mailwald {words[0]}", p)
	p = subprocess.run([MAILWALD, "-t", "-c", ""], capture_output=True, check=False)
	t.ok(p.returncode == 64 and b"the name is empty" in p.stderr and not p.stdout, "mailwald -c ''", p)


def undone(t, site):
	"""A run says by which name it can be taken back."""
	words = ["replay", "--all", "--create", "--to", f"maildir:{site.dir}/store/%u"]
	p = site(*words)
	run = p.out.partition("mailwal replay undo ")[2].split()
	t.ok(p.returncode == 0 and run, "the end of a run names it", p.told)
	p = site("replay", "undo", *(run[:1] or ["none"]), "--to", words[-1])
	t.ok(p.returncode == 0 and "2 taken away" in p.out, "and that name takes it back", p.told)
	p = site(*words, "-n")
	t.ok(p.returncode == 0 and "undo" not in p.out, "a dry run has nothing to take back", p.told)


def main(t):
	site = Site(t)
	p = site("init")
	t.need(p.returncode == 0, "init", p.told)
	p = site("import", f"maildir:{site.dir}/mail", "--user", ALICE)
	t.need(p.returncode == 0, "import", p.told)
	addresses(t, site)
	times(t, site)
	files(t, site)
	passwords(t, site)
	others(t, site)
	undone(t, site)


tap.run(main)
