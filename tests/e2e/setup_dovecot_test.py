#!/usr/bin/python3
"""setup dovecot --check and --apply on a real Dovecot: what is called a hole keeps a replay out,
what --apply makes lets it in, with ACLs too; and nothing is left behind where it cannot."""
# MW_TEST_COST 25

import grp
import imaplib
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload

ANNA, BERT = "anna@example.test", "bert@example.test"
PASSWORD = "correct horse battery"
MASTER = re.compile(r"passdb \{[^}]*master = yes[^}]*\}\n")


class Site:
	"""The rig's Dovecot, without its master user, and the files that --apply makes."""

	def __init__(self, rig):
		self.rig = rig
		self.main = pathlib.Path(rig.run, "dovecot.conf")
		self.conf = pathlib.Path(rig.run, "conf.d", "90-mailwal.conf")
		self.master = pathlib.Path(rig.run, "mailwal-master")
		self.password = os.path.join(rig.dir, "mailwal.password")
		self.plain = MASTER.sub("", self.main.read_text()) + "\n!include_try conf.d/*.conf\n"
		self.plain = self.plain.replace("auth_master_user_separator = *\n", "")
		self.conf.parent.mkdir()
		self.write(self.plain)
		with open(self.password, "w", encoding="utf-8") as f:
			f.write(PASSWORD + "\n")
		os.chmod(self.password, 0o600)

	def write(self, text):
		self.main.write_text(text, encoding="utf-8")

	def setup(self, *args, config=None, json=True):
		return self.rig.mailwal(*(["--json"] if json else []), "setup", "dovecot", *args,
					"--dovecot-config", config or self.main)

	def holes(self):
		"""(exit status, names of the holes)"""
		r = self.setup("--check")
		return r.rc, [o["name"] for o in r.lines if o.get("message_type") == "hole"]

	def user(self, line="mailwal:{hash}::::::allow_nets=127.0.0.0/8\n"):
		"""The line of the master user, with doveadm's hash."""
		p = subprocess.run(["doveadm", "-c", str(self.main), "pw", "-s", "SHA256-CRYPT",
				    "-p", PASSWORD], capture_output=True, text=True, check=True)
		with self.master.open("r+", encoding="utf-8") as f:  # owner and mode stay
			f.truncate()
			f.write(line.replace("{hash}", p.stdout.strip()))

	def reload(self):
		"""A new Dovecot with what is written now."""
		self.rig.end("dovecot")
		self.rig.start_dovecot()

	def replay(self, *more):
		return self.rig.mailwal("--json", "replay", "--all", "--fresh", "--to",
					f"imap://127.0.0.1:{self.rig.imap_port}", "--auth-user",
					"mailwal", "--password-file", self.password, *more)

	def files(self):
		return self.conf.exists(), self.master.exists()


def bag(rig):
	return sorted(mailbox.without_trace(mailbox.crlf(s.data))
		      for v in mailbox.dump(rig).values() for s in v)


def own_login(rig):
	"""Looking into the store is done as its users: there is no master user."""
	def login(user):
		c = imaplib.IMAP4("127.0.0.1", rig.imap_port)
		c.login(user, rig.password)
		return c
	rig.login = login


def lose(rig):
	rig.end("dovecot")
	rig.destroy_store()
	rig.start_dovecot()


def applies(t, s):
	"""From a Dovecot without a master user to a replay with one."""
	t.equal(s.holes(), (1, ["master_user"]), "without a master user that is the hole")
	r = s.setup()
	t.ok(r.rc == 0 and r.summary.get("changes") == 2 and s.files() == (False, False),
	     "without --apply it says what it would make, and makes nothing", r)
	r = s.setup("--apply", json=False)
	t.ok(r.rc == 64 and "--yes" in r.err and s.files() == (False, False),
	     "without a terminal it wants --yes", r)
	r = s.setup("--apply", "--yes")
	t.need(r.rc == 0 and s.files() == (True, True), "--apply --yes makes both files", r)
	t.equal((r.summary.get("changes"), r.summary.get("applied"), r.summary.get("reloaded")),
		(2, True, True), "and Dovecot has reloaded")
	st = s.master.stat()
	t.equal((st.st_mode & 0o7777, st.st_uid, grp.getgrgid(st.st_gid).gr_name, st.st_size),
		(0o640, 0, "dovecot", 0), "the password file is empty, 0640 root:dovecot")
	t.equal(s.holes(), (1, ["master_file"]), "then nobody is in it, says --check")
	before = s.conf.read_bytes()
	r = s.setup("--apply", "--yes")
	t.ok(r.rc == 0 and r.summary.get("changes") == 0 and s.conf.read_bytes() == before,
	     "a second --apply changes nothing", r)
	s.user()
	r = s.setup("--check", json=False)
	t.ok(r.rc == 0 and "Nothing in the way of a replay" in r.out and "HOLE" not in r.out,
	     "with the line that it tells, no hole is left", r)


def replays(t, s, want, style):
	lose(s.rig)
	r = s.replay("--auth-style", style)
	t.ok(r.rc == 0 and r.summary.get("restored") == len(want) and bag(s.rig) == want,
	     f"replay as the master user puts all back ({style})", r)


def holes_are_holes(t, s):
	"""What --check names keeps the replay out."""
	text = s.master.read_text()
	os.chmod(s.master, 0o600)
	t.equal(s.holes(), (1, ["master_file"]), "a file that Dovecot cannot read")
	s.reload()  # it keeps what it has read
	r = s.replay("-n")
	t.ok(r.rc not in (0, 1) and not (r.summary or {}).get("already_there"),
	     "is one: nothing gets in", r)
	os.chmod(s.master, 0o644)
	t.equal(s.holes(), (1, ["master_file"]), "a file that everybody can read")
	os.chmod(s.master, 0o640)
	s.user("mailwal:{hash}::::::allow_nets=192.0.2.0/24\n")
	s.reload()
	r = s.replay("-n")
	t.ok(r.rc not in (0, 1), "allow_nets of elsewhere keeps this host out", r)
	s.master.unlink()
	t.equal(s.holes(), (1, ["master_file"]), "no file")
	r = s.setup("--apply", "--yes")
	t.ok(r.rc == 0 and r.summary.get("changes") == 1 and s.files() == (True, True),
	     "--apply makes the file alone again", r)
	with s.master.open("r+", encoding="utf-8") as f:
		f.write(text)
	for name, add in (
			("protocols", "protocols = lmtp\n"),
			("listener", "service imap-login {\n  inet_listener imap {\n    port = 0\n"
				     "  }\n}\n"),
			("auth_mechanisms", "auth_mechanisms = cram-md5\n"),
			("acl_user", "protocol imap {\n  mail_plugins = acl\n}\n")):
		s.write(s.plain + add)
		t.equal(s.holes(), (1, [name]), f"{name}: named")
	s.write(s.plain)


def acls(t, s, want):
	"""Undone as it says, then made for a Dovecot with ACLs."""
	s.master.unlink()
	s.conf.unlink()
	s.write(s.plain + "mail_plugins = acl\nplugin {\n  acl = vfile\n}\n")
	t.equal(s.holes(), (1, ["master_user", "acl_user"]), "with ACLs there are two holes")
	r = s.setup("--apply", "--yes")
	t.need(r.rc == 0, "--apply", r)
	s.user()
	t.equal(s.holes(), (0, []), "both are closed")
	replays(t, s, want, "authzid")
	text = s.conf.read_text()
	s.conf.write_text(re.sub(r"plugin \{[^}]*\}\n", "", text))
	t.equal(s.holes(), (1, ["acl_user"]), "without acl_user: a hole")
	s.reload()
	r = s.replay("-n")
	t.ok(r.summary is None or r.summary.get("already_there") == 0,
	     "and so it is: the master user sees no folder", r)
	s.write(s.plain)


def leaves_nothing(t, s):
	"""Where it cannot, it says so, and all is as before."""
	for p in (s.master, s.conf):
		p.unlink(missing_ok=True)
	other = pathlib.Path(s.rig.run, "elsewhere")
	(other / "conf.d").mkdir(parents=True)
	bare = s.plain.replace("!include_try conf.d/*.conf\n", "")
	(other / "dovecot.conf").write_text(bare, encoding="utf-8")
	r = s.setup("--apply", "--yes", config=other / "dovecot.conf")
	t.ok(r.rc == 78 and "!include_try" in r.err and not list((other / "conf.d").iterdir())
	     and not (other / "mailwal-master").exists(),
	     "a configuration that does not read conf.d: told, and rolled back", r)
	(other / "conf.d" / "90-mailwal.conf").write_text("# mine\n")
	r = s.setup("--apply", "--yes", config=other / "dovecot.conf")
	t.ok(r.rc == 78 and (other / "conf.d" / "90-mailwal.conf").read_text() == "# mine\n",
	     "somebody's own 90-mailwal.conf is left alone", r)
	shutil.rmtree(other / "conf.d")
	r = s.setup("--apply", "--yes", config=other / "dovecot.conf")
	t.ok(r.rc == 78 and "conf.d" in r.err, "no conf.d: told", r)
	(other / "dovecot.conf").write_text(bare + "nonsense = 1\n", encoding="utf-8")
	for arg in ("--check", "--apply"):
		r = s.setup(arg, "--yes", config=other / "dovecot.conf")
		t.ok(r.rc == 69 and "nonsense" in r.err, f"{arg}: doveconf's own words", r)
	r = s.setup("--check", "--send-test", ANNA)
	t.equal(r.rc, 64, "--send-test is not for Dovecot")
	s.rig.end("dovecot")
	r = s.setup("--apply", "--yes")
	t.ok(r.rc == 0 and r.summary.get("reloaded") is False and s.files() == (True, True),
	     "a Dovecot that does not run has nothing to reload", r)
	s.write(MASTER.sub("", s.plain) + "passdb {\n  driver = passwd-file\n  args = "
		f"{s.rig.run}/masters\n  master = yes\n}}\n")
	s.conf.unlink()
	r = s.setup("--apply", "--yes", json=False)
	t.ok(r.rc == 0 and "has a master user already" in r.out and not s.conf.exists(),
	     "another master user will do", r)


def main(t):
	with rigs.Rig(t.dir, users=(ANNA, BERT)) as rig:
		s = Site(rig)
		own_login(rig)
		rig.start()
		rig.send([workload.Mail(f"m{i}", (f"Subject: mail {i}\r\nMessage-ID: <{i}@x>\r\n"
			f"\r\ntext {i}\r\n").encode(), "w@remote.test", [(ANNA, BERT)[i % 2]], {},
			rig.users) for i in range(20)])
		rig.wait_queue()
		want = bag(rig)
		t.need(len(want) == 20, "20 mails are delivered", len(want))
		applies(t, s)
		replays(t, s, want, "authzid")
		replays(t, s, want, "separator")
		holes_are_holes(t, s)
		acls(t, s, want)
		leaves_nothing(t, s)


tap.run(main)
