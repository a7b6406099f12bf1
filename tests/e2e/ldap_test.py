#!/usr/bin/python3
"""Aliases in LDAP: contrib/ldap/mailwal-tables asks a real slapd through postmap, and mailwald
records what it says; a directory that is gone, clients that speak nonsense."""
# MW_TEST_COST 15

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import rig as rigs
import tap
import unitfile

PLACES = ("/var/cache/mailwal-tests/ldap", "")
PROGRAM = rigs.ROOT / "contrib" / "ldap" / "mailwal-tables"
ACTIVATE = "/usr/bin/systemd-socket-activate"
TABLE = {
	"team@example.test": ("anna@example.test", "crew@example.test"),
	"crew@example.test": ("berta@example.test",),
	"boss@example.test": ("anna@example.test",),
}


def unpacked():
	"""Where slapd and Postfix's LDAP tables are, or None."""
	for p in PLACES:
		if os.path.exists(f"{p}/usr/sbin/slapd") and os.path.exists(
				f"{p}/usr/lib/postfix/postfix-ldap.so"):
			return p
	return None


class Directory:
	"""A private slapd, and the configuration that Postfix asks it with."""

	def __init__(self, where, place):
		self.dir, self.place = pathlib.Path(where), place
		(self.port,) = rigs.free_ports(1)
		self.env = dict(os.environ,
				LD_LIBRARY_PATH=f"{place}/usr/lib/x86_64-linux-gnu") if place else None
		schema = f"{place}/etc/ldap/schema"
		self.proc = None
		self.program = str(self.dir / "mailwal-tables")  # where nobody can reach it
		shutil.copy(PROGRAM, self.program)
		(self.dir / "slapd.conf").write_text(f"""\
include {schema}/core.schema
include {schema}/misc.schema
modulepath {place}/usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example,dc=test"
directory {self.dir}/db
maxsize 10485760
access to * by * read
""", encoding="utf-8")
		# Postfix's own way to a table type that is a package of its own.
		conf = self.dir / "postfix"
		conf.mkdir()
		(conf / "main.cf").write_text(f"compatibility_level = 3.6\nmeta_directory = {conf}\n",
					      encoding="utf-8")
		(conf / "dynamicmaps.cf").write_text(
			f"ldap {place}/usr/lib/postfix/postfix-ldap.so dict_ldap_open\n",
			encoding="utf-8")
		(self.dir / "aliases.cf").write_text(f"""\
server_host = ldap://127.0.0.1:{self.port}
version = 3
timeout = 60
search_base = dc=example,dc=test
query_filter = (&(objectClass=nisMailAlias)(cn=%s))
result_attribute = rfc822MailMember
domain = example.test
""", encoding="utf-8")
		self.table = f"aliases=ldap:{self.dir}/aliases.cf"
		self.config = str(conf)

	def start(self, table):
		"""With these aliases and no others."""
		self.stop()
		db = self.dir / "db"
		db.mkdir(exist_ok=True)
		for f in db.iterdir():
			f.unlink()
		ldif = ("dn: dc=example,dc=test\nobjectClass: dcObject\nobjectClass: organization\n"
			"dc: example\no: test\n")
		for name, members in table.items():
			ldif += (f"\ndn: cn={name},dc=example,dc=test\nobjectClass: nisMailAlias\n"
				 f"cn: {name}\n" + "".join(f"rfc822MailMember: {m}\n"
							  for m in members))
		subprocess.run([f"{self.place}/usr/sbin/slapadd", "-f", f"{self.dir}/slapd.conf"],
			       input=ldif.encode(), env=self.env, check=True, capture_output=True,
			       timeout=rigs.PATIENCE)
		with open(self.dir / "slapd.log", "ab") as log:
			self.proc = subprocess.Popen([
				f"{self.place}/usr/sbin/slapd", "-d", "0", "-f",
				f"{self.dir}/slapd.conf", "-h", f"ldap://127.0.0.1:{self.port}"],
				env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
				preexec_fn=rigs.die_with_parent)
		rigs.wait_for("slapd", lambda: rigs.connects(self.port), alive=self.proc)

	def stop(self):
		if self.proc:
			self.proc.terminate()
			self.proc.wait(rigs.PATIENCE)
			self.proc = None


class Tables:
	"""mailwal-tables, as a user without rights, at a socket of its own."""

	def __init__(self, directory, name, *args, table=None):
		self.path = f"{directory.dir}/{name}.sock"
		self.log = directory.dir / f"{name}.log"
		argv = [directory.program, "--listen", self.path, "--config", directory.config, *args,
			table or directory.table]
		with open(self.log, "ab") as log:
			self.proc = subprocess.Popen(argv, stdout=log, stderr=log, user=rigs.MAIL_USER,
						     extra_groups=[], stdin=subprocess.DEVNULL,
						     preexec_fn=rigs.die_with_parent)
		rigs.wait_for("mailwal-tables", lambda: rigs.connects(self.path), alive=self.proc)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.proc.terminate()
		self.status = self.proc.wait(rigs.PATIENCE)


def talk(path, data):
	"""What comes back until the server closes, having got data and the end."""
	with socket.socket(socket.AF_UNIX) as s:
		s.settimeout(rigs.PATIENCE)
		s.connect(path)
		out = b""
		try:
			s.sendall(data)
			s.shutdown(socket.SHUT_WR)
			while c := s.recv(65536):
				out += c
		except (BrokenPipeError, ConnectionResetError):
			pass
	return out


def net(text):
	return b"%d:%s," % (len(text), text)


def ask(t, d):
	def one(key):
		p = subprocess.run([PROGRAM, "--config", d.config, "--ask", key, d.table],
				   capture_output=True, text=True, timeout=rigs.PATIENCE, check=False)
		return p.returncode, p.stdout
	t.equal(one("team@example.test"), (0, "aliases: OK anna@example.test,crew@example.test\n"),
		"--ask: what the directory says")
	t.equal(one("Team@Example.TEST"), (0, "aliases: OK anna@example.test,crew@example.test\n"),
		"in any case")
	for key in ("nobody@example.test", "*@example.test", "x)(cn=*@example.test", "-q", "-"):
		t.equal(one(key), (1, "aliases: NOTFOUND \n"), f"{key} is nobody")


class Site(alone.Alone):
	def __init__(self, directory, path):
		super().__init__(directory, "local_domains = example.test",
				 "identities_timeout = 60s",
				 f"identities = socketmap:unix:{path}:aliases")

	def take(self, n, queue_id, *rcpts):
		"""One message, and its recipients looked up: the n-th."""
		self.mail(queue_id, rcpts=rcpts)

		def done():
			s = self.status()
			return s["expansions"] + s["expansions_failed"] >= n
		rigs.wait_for(f"{n} expansions", done, alive=self.proc)
		return self.show(queue_id)


def expands(t, d):
	with Tables(d, "tables") as tables, Site(t.sub("site"), tables.path) as s:
		t.equal(s.take(1, "Q1", "team@example.test", "zoe@example.test")["mailboxes"],
			["anna@example.test", "berta@example.test", "zoe@example.test"],
			"a nested group from LDAP is recorded")
		t.equal(s.take(2, "Q2", "boss+x@example.test")["mailboxes"], ["anna@example.test"],
			"an alias with an extension")
		d.start(dict(TABLE, **{"boss@example.test": ("zoe@example.test",)}))
		t.equal(s.take(3, "Q3", "boss@example.test")["mailboxes"], ["zoe@example.test"],
			"the directory has changed: so have new records")
		t.equal(s.show("Q2")["mailboxes"], ["anna@example.test"], "and no old one")
		d.stop()
		q4 = s.take(4, "Q4", "boss@example.test")
		t.ok(q4.get("mailboxes_undecided") and q4["mailboxes"] == ["boss@example.test"],
		     "the directory is gone: the mail is taken, its recipient undecided", q4)
		t.equal(s.status()["expansions_failed"], 1, "and that is counted")
		t.comes(lambda: "table aliases: TEMP postmap failed" in tables.log.read_text(),
			"the failure is in the log", tables.log.read_text)
		t.ok("boss" not in tables.log.read_text(), "the address is not")
		d.start(TABLE)
		t.equal(s.take(5, "Q5", "boss@example.test")["mailboxes"], ["anna@example.test"],
			"it is back: all is well")
		t.equal(s.mailwal("verify")[0], 0, "verify finds nothing wrong")
	t.equal(tables.status, -signal.SIGTERM, "mailwal-tables ends when it is told to")


def speaks(t, d):
	boss = net(b"aliases boss@example.test")
	ok = net(b"OK anna@example.test")
	with Tables(d, "hostile") as tables:
		for what, data, want in (
				("two requests", boss + boss, ok + ok),
				("no such table", net(b"other boss@example.test") + boss,
				 net(b"PERM there is no such table") + ok),
				("no key", net(b"aliases") + net(b"aliases "), 2 * net(b"NOTFOUND ")),
				("a newline", net(b"aliases x\nboss@example.test") + boss,
				 net(b"NOTFOUND ") + ok),
				("a NUL", net(b"aliases boss@example.test\0") + boss,
				 net(b"NOTFOUND ") + ok),
				("a long key", net(b"aliases " + b"x" * 1150), net(b"NOTFOUND ")),
				("8-bit", net(b"aliases \xff\xfe@example.test") + boss,
				 net(b"NOTFOUND ") + ok),
				("too long", b"99999:" + b"x" * 99999, b""),
				("a huge number", b"9" * 5000 + b":", b""),
				("no number", b":,", b""), ("a negative one", b"-1:x,", b""),
				("no netstring", b"get boss@example.test\n", b""),
				("cut off", boss + boss[:-1], ok), ("no comma", boss[:-1] + b";", b""),
				("nothing", b"", b"")):
			t.equal(talk(tables.path, data), want, what)
		many = []
		for _ in range(20):
			s = socket.socket(socket.AF_UNIX)
			s.settimeout(rigs.PATIENCE)
			s.connect(tables.path)
			s.sendall(boss)
			many.append(s)
		got = []
		for s in many:
			with s, s.makefile("rb") as f:
				got.append(f.read(len(ok)))
		t.ok(got == [ok] * 20, "twenty at a time are all answered", got)
		t.equal(talk(tables.path, boss), ok, "and it serves on")
		t.equal(os.stat(tables.path).st_mode & 0o777, 0o660, "its socket is not everybody's")


def asks_quietly(t, d):
	"""The address is in no argument; a postmap that hangs is given up."""
	stub, seen = d.dir / "postmap", d.dir / "argv"
	stub.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nexec /usr/sbin/postmap "$@"\n',
			encoding="utf-8")
	stub.chmod(0o755)
	seen.touch()
	seen.chmod(0o666)
	with Tables(d, "quiet", "--postmap", str(stub)) as tables:
		t.equal(talk(tables.path, net(b"aliases boss@example.test")),
			net(b"OK anna@example.test"), "through another postmap")
		t.ok("-q -" in seen.read_text() and "boss" not in seen.read_text(),
		     "which is not told the address where ps shows it", seen.read_text())
	stub.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="utf-8")
	with Tables(d, "slow", "--postmap", str(stub), "--timeout", "1") as tables:
		t.equal(talk(tables.path, net(b"aliases boss@example.test")),
			net(b"TIMEOUT postmap took too long"), "a postmap that hangs is ended")
	stub.unlink()
	with Tables(d, "none", "--postmap", str(stub)) as tables:
		t.equal(talk(tables.path, net(b"aliases boss@example.test")),
			net(b"TEMP postmap failed, exit status 127"), "no postmap: no answer")
	for args in ((), ("aliases",), ("a=ldap:x", "a=ldap:y"), ("--jobs", "0", "a=b:c"), ("--x",)):
		p = subprocess.run([PROGRAM, *args], capture_output=True, text=True, check=False,
				   timeout=rigs.PATIENCE)
		t.ok(p.returncode == 64 and "usage:" in p.stderr, f"wrong use: {args}", p)


def activated(t, d):
	"""The socket from systemd, as mailwal-tables.socket gives it."""
	if not os.path.exists(ACTIVATE):
		t.skip("systemd-socket-activate is not installed")
		return
	path = f"{d.dir}/activated.sock"
	with open(d.dir / "activated.log", "ab") as log:
		p = subprocess.Popen([ACTIVATE, "-l", path, PROGRAM, "--config", d.config, d.table],
				     stdout=log, stderr=log, stdin=subprocess.DEVNULL,
				     preexec_fn=rigs.die_with_parent)
	try:
		rigs.wait_for("the socket", lambda: rigs.connects(path), alive=p)
		t.equal(talk(path, net(b"aliases boss@example.test")),
			net(b"OK anna@example.test"), "started by its socket")
	finally:
		p.terminate()
		p.wait(rigs.PATIENCE)


def unit(t, d):
	"""What mailwal-tables.service starts, with the file that it is given, under the system
	calls that it leaves, started by what mailwal-tables.socket names."""
	if not os.path.exists(ACTIVATE) or not shutil.which("systemd-analyze"):
		t.skip("systemd-socket-activate or systemd-analyze is not installed")
		return
	if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True,
			  check=False).returncode:
		t.skip("strace is not installed, or may not trace here")
		return
	where = PROGRAM.parent
	u = unitfile.Unit(str(where / "mailwal-tables.service"))
	s = unitfile.Unit(str(where / "mailwal-tables.socket"))
	t.ok("setresuid" in u.denied and "write" not in u.denied and s.all("SocketMode") == ["0600"]
	     and s.all("SocketUser") == ["_mailwal"] and u.all("DynamicUser") == ["yes"],
	     "the unit denies what it should, its socket is mailwald's alone")
	t.equal(u.all("LoadCredential"), ["aliases.cf:/etc/postfix/ldap-aliases.cf"],
		"it is given its table as a credential")
	credentials = d.dir / "credentials"
	credentials.mkdir()
	shutil.copy(d.dir / "aliases.cf", credentials / "aliases.cf")
	words = u.all("ExecStart")[0].replace("%d", str(credentials)).split()
	t.equal(words[0], "/usr/local/sbin/mailwal-tables", "what it starts")
	argv = u.traced([str(PROGRAM), "--config", d.config, *words[1:]], "-D")
	path = f"{d.dir}/unit.sock"
	with open(d.dir / "unit.log", "ab") as log:
		p = subprocess.Popen([ACTIVATE, "-l", path, *argv], stdout=log, stderr=log,
				     stdin=subprocess.DEVNULL, preexec_fn=rigs.die_with_parent)
	try:
		rigs.wait_for("the socket", lambda: rigs.connects(path), alive=p)
		t.equal(talk(path, net(b"aliases boss@example.test")),
			net(b"OK anna@example.test"), "and does its work under its filter")
	finally:
		p.terminate()
		p.wait(rigs.PATIENCE)


def main(t):
	place = unpacked()
	if place is None:
		print("1..0 # SKIP slapd and postfix-ldap are missing: contrib/install-deps test")
		sys.exit(77)
	with tempfile.TemporaryDirectory(prefix="mw-ldap.", dir="/tmp") as short:
		os.chmod(short, 0o777)  # nobody's sockets too; no path with spaces for slapd
		d = Directory(os.path.realpath(short), place)
		try:
			d.start(TABLE)
			ask(t, d)
			expands(t, d)
			speaks(t, d)
			asks_quietly(t, d)
			activated(t, d)
			unit(t, d)
		finally:
			d.stop()


tap.run(main)
