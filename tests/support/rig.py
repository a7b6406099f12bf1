"""rig - private instances of real Postfix, real Dovecot and mailwald, in one directory.

    with Rig(directory) as rig:
        rig.start()
        rig.send([...]); rig.wait_queue(); rig.dump()

The directory (its path may hold spaces) keeps journal, store, backup, configuration and,
after stop(), the servers' logs; sockets and what Postfix and Dovecot need lie in a short
directory under /tmp. Needs root: Postfix' master and Dovecot start as root and change to
their own users. Everything started here ends with the process, by pid, whatever happens;
nothing under /etc or /var is touched. Not thread-safe except where said.
"""

import atexit
import ctypes
import json
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import servers
import smtp
from ports import free_ports
from tap import PATIENCE
from witness import Witness

MASTER = "replayer"
MAIL_USER = "nobody"
ROOT = pathlib.Path(__file__).resolve().parents[2]
USERS = tuple(f"{n}@example.test" for n in "anna bert cleo dora emil fred gina hugo".split()) + (
	"ines@second.test", "jens@second.test")
ALIASES = {
	"info@example.test": ["anna@example.test", "bert@example.test"],
	"team@example.test": ["cleo@example.test", "crew@example.test"],
	"crew@example.test": ["dora@example.test", "ines@second.test"],
	"postmaster@example.test": ["hugo@example.test"],
	"abroad@example.test": ["someone@elsewhere.test", "emil@example.test"],
}


class RigError(Exception):
	"""Something of the rig itself failed; the text says what and where to look."""


LIBC = ctypes.CDLL("libc.so.6")


def die_with_parent():
	LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def reap():
	"""Takes the exit status of orphans that came to us as their subreaper."""
	try:
		while os.waitpid(-1, os.WNOHANG)[0]:
			pass
	except ChildProcessError:
		pass


def gone(group):
	"""No process of that group is left: none holds a port or a lock any more."""
	try:
		while os.waitpid(-group, os.WNOHANG)[0]:
			pass
	except ChildProcessError:
		pass
	try:
		os.killpg(group, 0)
		return False
	except OSError:
		return True


def wait_for(what, test, seconds=PATIENCE, alive=None):
	"""Polls until test() is true; RigError after that many seconds, or at once if the
	process alive has ended."""
	end = time.monotonic() + seconds
	while True:
		if test():
			return
		if alive is not None and alive.poll() is not None:
			raise RigError(f"{what}: the process ended with {alive.returncode}")
		if time.monotonic() > end:
			raise RigError(f"{what}: not within {seconds:.0f} s")
		time.sleep(0.01)


def remove_live(path):
	"""Removes a directory into which a server may still write."""
	wait_for(f"{path} to go",
		 lambda: shutil.rmtree(path, ignore_errors=True) or not os.path.exists(path))


def copy_journal(src, dst):
	"""A copy of a journal, also of one at work: where files of its index went while they
	were copied, it is made anew."""
	end = time.monotonic() + PATIENCE
	while True:
		shutil.rmtree(dst, ignore_errors=True)
		try:
			shutil.copytree(src, dst, ignore=shutil.ignore_patterns("*.sock", "*.tmp"))
			return
		except (shutil.Error, FileNotFoundError):
			if time.monotonic() > end:
				raise


def connects(addr):
	"""A listener answers at that unix path or port."""
	s = socket.socket(socket.AF_UNIX if isinstance(addr, str) else socket.AF_INET)
	s.settimeout(2)
	try:
		s.connect(addr if isinstance(addr, str) else ("127.0.0.1", addr))
		return True
	except OSError:
		return False
	finally:
		s.close()


def find_program(name, build=None):
	"""mailwald or mailwal: $MW_BUILD, the build directory given, else build/*."""
	base = build or os.environ.get("MW_BUILD")
	room = {"mailwald": "milter", "mailwal": "replay"}[name]
	places = [pathlib.Path(base)] if base else [
		ROOT / "build" / p for p in ("ci", "release", "dev")]
	for b in places:
		for cand in (b / room / name, b / name, b / "bin" / name, b / "sbin" / name):
			if cand.is_file() and os.access(cand, os.X_OK):
				return str(cand)
	raise RigError(f"no {name} in {', '.join(map(str, places))}: build first, "
		       "or set MW_BUILD")


def expand(address, aliases, depth=0):
	"""Final addresses of an envelope recipient, by our own reading of the table."""
	local, _, domain = address.rpartition("@")
	plain = local.split("+")[0] + "@" + domain
	for key in (address.lower(), plain.lower()):
		if key in aliases and depth < 20:
			out = []
			for a in aliases[key]:
				out += [x for x in expand(a, aliases, depth + 1) if x not in out]
			return out
	return [plain.lower()]


class Result:
	"""A finished mailwal: rc, out, err, summary (the last JSON object or None)."""

	def __init__(self, rc, out, err, seconds):
		self.rc, self.out, self.err, self.seconds = rc, out, err, seconds
		self.lines = []
		for line in out.splitlines():
			try:
				self.lines.append(json.loads(line))
			except ValueError:
				pass
		self.summary = next((o for o in reversed(self.lines) if isinstance(o, dict)
				     and o.get("message_type") == "summary"), None)

	def __str__(self):
		return f"exit {self.rc}\n{self.out[-2000:]}\n{self.err[-2000:]}"


class Rig:
	def __init__(self, directory, build=None, engine="native", witness=False,
		     users=USERS, aliases=None, mailwald=True, conf="", dovecot="",
		     postfix="", plugins="", user_extra=None, domains=None, sync=False,
		     witness_first=False):
		if os.geteuid() != 0:
			raise RigError("needs root: Postfix and Dovecot start as root and change "
				       "to their own users")
		self.dir = os.path.abspath(directory)
		self.users = tuple(users)
		self.domains = domains or sorted({u.rpartition("@")[2] for u in self.users})
		self.aliases = ALIASES if aliases is None else aliases
		self.engine, self.with_mailwald, self.conf_extra = engine, mailwald, conf
		self.dovecot_extra, self.postfix_extra = dovecot, postfix
		self.plugins, self.user_extra = plugins, user_extra or {}
		self.sync, self.witness_first = sync, witness_first
		self.master_extra = ""  # more services in master.cf; then configure()
		self.mailwald_bin = find_program("mailwald", build) if mailwald else None
		self.mailwal_bin = find_program("mailwal", build) if mailwald else None
		LIBC.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: servers' orphans come to us
		self.procs = {}
		self.stopped = False
		os.makedirs(self.dir, exist_ok=True)
		self.run = tempfile.mkdtemp(prefix="mw.", dir="/tmp")
		atexit.register(self.stop)
		os.chmod(self.run, 0o755)
		self.password, self.master_password = secrets.token_hex(8), secrets.token_hex(8)
		(self.smtp_port, self.submission_port, self.imap_port,
		 self.lmtp_port) = free_ports(4)
		self.milter_sock = f"{self.run}/milter.sock"
		self.journal = os.path.join(self.dir, "journal")
		self.backup_dir = os.path.join(self.dir, "backup")
		self.conf = os.path.join(self.dir, "mailwal.conf")
		self.password_file = os.path.join(self.dir, "master.password")
		self.user_passwords = os.path.join(self.dir, "user.passwords")
		self.witness = Witness(f"{self.run}/witness.sock") if witness else None
		self._layout()

	def __enter__(self):
		return self

	def __exit__(self, kind, exc, tb):
		self.stop()

	# -- files -------------------------------------------------------------

	def _reachable(self, path):
		"""May the mail user walk to path? Asked in a child, as that user."""
		uid = pwd.getpwnam(MAIL_USER).pw_uid
		pid = os.fork()
		if pid == 0:
			try:
				os.setgroups([])
				os.setuid(uid)
				os._exit(0 if os.access(path, os.R_OK | os.X_OK) else 1)
			finally:
				os._exit(2)
		return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

	def _layout(self):
		pw = pwd.getpwnam(MAIL_USER)
		link = f"{self.run}/store"
		self.store = os.path.join(self.dir, "store")
		os.makedirs(self.store, exist_ok=True)
		if self._reachable(self.store):
			os.symlink(self.store, link)
		else:
			os.rmdir(self.store)
			os.mkdir(link)
			self.store = link
		os.chown(self.store, pw.pw_uid, pw.pw_gid)
		os.mkdir(f"{self.run}/dovecot", 0o755)
		os.mkdir(f"{self.run}/dovecot-state", 0o755)
		servers.postfix_dirs(self.run)
		self._write_tables(pw)
		self._write_postfix()
		servers.write(f"{self.run}/dovecot.conf", servers.DOVECOT_CONF.format(
			run=self.run, imap=self.imap_port, lmtp=self.lmtp_port,
			plugins=self.plugins, extra=self.dovecot_extra,
			fsync="optimized" if self.sync else "never"))
		self.write_conf()

	def _write_tables(self, pw):
		users = ""
		for u in self.users:
			n, d = u.split("@")
			users += (f"{u}:{{PLAIN}}{self.password}:{pw.pw_uid}:{pw.pw_gid}::"
				  f"{self.run}/store/{d}/{n}::{self.user_extra.get(u, '')}\n")
		servers.write(f"{self.run}/users", users, 0o600)
		servers.write(f"{self.run}/masters",
			      f"{MASTER}:{{PLAIN}}{self.master_password}\n", 0o600)
		for f in ("users", "masters"):
			shutil.chown(f"{self.run}/{f}", "root", "dovecot")
			os.chmod(f"{self.run}/{f}", 0o640)
		servers.write(self.password_file, self.master_password + "\n", 0o600)
		servers.write(self.user_passwords, "".join(
			f"{u}:{self.password}\n" for u in self.users), 0o600)
		servers.write(f"{self.run}/mailboxes", "".join(f"{u} x\n" for u in self.users))
		self.alias_file = f"{self.run}/virtual"
		servers.write(self.alias_file, "".join(
			f"{a}\t{', '.join(t)}\n" for a, t in self.aliases.items()))

	def _write_postfix(self):
		mw = (f"{{ unix:{self.milter_sock}, default_action=tempfail }}"
		      if self.with_mailwald else "")
		wit = self.witness.postfix if self.witness else ""
		milters = [wit, mw] if self.witness_first else [mw, wit]
		servers.write(f"{self.run}/postfix/master.cf", servers.MASTER_CF.format(
			smtp=self.smtp_port, submission=self.submission_port, procs="-")
			+ self.master_extra)
		text = servers.MAIN_CF.format(
			run=self.run, domain=self.domains[0], domains=", ".join(self.domains),
			milters=", ".join(m for m in milters if m), extra=self.postfix_extra)
		servers.write(f"{self.run}/postfix/main.cf", servers.last_wins(text))

	def configure(self, conf="", postfix="", master=""):
		"""Before start(): settings that need this rig's ports or paths."""
		self.conf_extra += "\n" + conf
		self.postfix_extra += "\n" + postfix
		self.master_extra += master
		self._write_postfix()
		self.write_conf()

	def queue_command(self):
		"""What lists the queue of this rig's MTA, for mailwal.conf."""
		return f"{servers.POSTFIX_BIN}/postqueue -c {self.run}/postfix -j"

	def write_conf(self):
		"""mailwal.conf from this object's fields."""
		servers.write(self.conf, f"""\
# Written by tests/support/rig.py
journal_dir = {self.journal}
milter_listen = unix:{self.milter_sock}
milter_socket_group = postfix
milter_engine = {self.engine}
local_domains = {' '.join(self.domains)}
identities = virtual:{self.alias_file}
min_free = 1M
log_target = stderr
queue_command = {self.queue_command()}
{self.conf_extra}
""")

	# -- processes -----------------------------------------------------------

	def spawn(self, name, argv, **kw):
		"""A child that ends with us; its output goes to <dir>/<name>.log."""
		with open(os.path.join(self.dir, name + ".log"), "ab") as log:
			p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
					     stderr=log, start_new_session=True,
					     preexec_fn=die_with_parent, **kw)
		self.procs[name] = p
		return p

	def end(self, name, sig=signal.SIGTERM, seconds=PATIENCE):
		"""Ends one child; its exit status, or None if it did not run."""
		p = self.procs.pop(name, None)
		if p is None:
			return None
		if p.poll() is None:
			p.send_signal(sig)
			try:
				p.wait(seconds)
			except subprocess.TimeoutExpired:
				p.kill()
				p.wait(PATIENCE)
		try:
			os.killpg(p.pid, signal.SIGKILL)  # what it left behind in its session
		except OSError:
			return p.returncode
		wait_for(f"the processes of {name} to end", lambda: gone(p.pid), 60)
		return p.returncode

	def start(self):
		"""Everything; the journal is created if it is not there."""
		if self.witness:
			self.witness.start()
		if self.with_mailwald:
			if not os.path.exists(self.journal):
				r = self.mailwal("init", self.journal)
				if r.rc:
					raise RigError(f"mailwal init: {r}")
			self.start_mailwald()
		self.start_dovecot()
		self.start_postfix()
		return self

	def start_mailwald(self, **kw):
		"""It listens before its journal is open; here both are seen."""
		log = os.path.join(self.dir, "mailwald.log")
		before = self.mailwald_log().count("event=start ") if os.path.exists(log) else 0
		p = self.spawn("mailwald", [self.mailwald_bin, "-c", self.conf], **kw)
		wait_for("mailwald's socket", lambda: connects(self.milter_sock), alive=p)
		wait_for("mailwald to open its journal",
				lambda: self.mailwald_log().count("event=start ") > before, alive=p)
		return p

	def start_dovecot(self):
		p = self.spawn("dovecot", ["/usr/sbin/dovecot", "-F", "-c",
					   f"{self.run}/dovecot.conf"])
		wait_for("Dovecot's IMAP port", lambda: connects(self.imap_port), alive=p)
		wait_for("Dovecot's LMTP port", lambda: connects(self.lmtp_port), alive=p)
		return p

	def start_postfix(self):
		env = dict(os.environ, MAIL_CONFIG=f"{self.run}/postfix")
		p = self.spawn("postfix", [f"{servers.POSTFIX_LIB}/master", "-d", "-c",
					   f"{self.run}/postfix"], env=env)
		wait_for("Postfix' SMTP port", lambda: connects(self.smtp_port), alive=p)
		return p

	def stop(self):
		"""Ends every child and removes the run directory; safe to call again."""
		if self.stopped:
			return
		self.stopped = True
		for name in ("postfix", "dovecot", "mailwald"):
			self.end(name)
		for name in list(self.procs):
			self.end(name)
		if self.witness:
			self.witness.stop()
		for f in ("maillog", "dovecot.log", "dovecot.conf", "postfix/main.cf",
			  "postfix/master.cf"):
			if os.path.exists(f"{self.run}/{f}"):
				shutil.copy(f"{self.run}/{f}",
					    os.path.join(self.dir, f.replace("/", "-")))
		if self.store.startswith(self.run):
			shutil.move(self.store, os.path.join(self.dir, "store"))
		shutil.rmtree(self.run, ignore_errors=True)
		reap()
		atexit.unregister(self.stop)

	# -- using it ------------------------------------------------------------

	def mailwal(self, *args, timeout=300, conf=True, env=None):
		"""Runs mailwal with this rig's configuration."""
		argv = self.mailwal_argv(*args, conf=conf)
		if f"{self.run}/maillog" in args:
			self.whole_maillog()
		t = time.monotonic()
		p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
				   timeout=timeout, check=False, env=env)
		return Result(p.returncode, p.stdout.decode("utf-8", "replace"),
			      p.stderr.decode("utf-8", "replace"), time.monotonic() - t)

	def mailwal_argv(self, *args, conf=True):
		return [self.mailwal_bin] + (["-c", self.conf] if conf else []) + [
			str(a) for a in args]

	def raw(self, record):
		"""The bytes that `show --raw` prints; RigError if it fails."""
		p = subprocess.run(self.mailwal_argv("show", record, "--raw"),
				   capture_output=True, timeout=PATIENCE, check=False)
		if p.returncode:
			raise RigError(f"show {record} --raw: exit {p.returncode}: "
				       + p.stderr.decode("utf-8", "replace"))
		return p.stdout

	def journaled(self, *selection):
		"""The objects of `list --json`; selection defaults to --all."""
		r = self.mailwal("--json", "list", *(selection or ("--all",)))
		if r.rc:
			raise RigError(f"list: {r}")
		return [o for o in r.lines if "queue_id" in o]

	def replay_args(self, *more):
		"""The options of a replay as master user into this Dovecot."""
		return ["replay", "--to", f"imap://127.0.0.1:{self.imap_port}",
			"--password-file", self.password_file, "--auth-user", MASTER, *more]

	def replay(self, *more, timeout=300):
		return self.mailwal("--json", *self.replay_args(*more), timeout=timeout)

	def send(self, jobs, sessions=8, **kw):
		"""Sends smtp.Job objects; those with auth go to the submission port."""
		smtp.send_all(jobs, lambda j: self.submission_port if j.auth else self.smtp_port,
			      lambda u: self.password, sessions=sessions, **kw)
		return jobs

	def sendmail(self, data, sender, rcpts):
		"""sendmail(1) of the private Postfix; local lines end in LF."""
		env = dict(os.environ, MAIL_CONFIG=f"{self.run}/postfix")
		return subprocess.run([f"{servers.POSTFIX_BIN}/sendmail", "-C",
				       f"{self.run}/postfix", "-i", "-f", sender, "--", *rcpts],
				      input=data, capture_output=True, env=env, timeout=PATIENCE,
				      check=False)

	def queue(self):
		"""What is in the queue: objects of `postqueue -j`."""
		p = subprocess.run([f"{servers.POSTFIX_BIN}/postqueue", "-c",
				    f"{self.run}/postfix", "-j"], capture_output=True,
				   timeout=PATIENCE, check=False)
		return [json.loads(x) for x in p.stdout.splitlines() if x.strip()]

	def flush(self):
		subprocess.run([f"{servers.POSTFIX_BIN}/postqueue", "-c",
				f"{self.run}/postfix", "-f"], capture_output=True, timeout=PATIENCE,
			       check=False)

	def wait_queue(self, seconds=PATIENCE):
		"""Until the queue is empty; says what is stuck once it has not shrunk for so long."""
		fewest, end = None, 0
		while left := self.queue():
			if fewest is None or len(left) < fewest:
				fewest, end = len(left), time.monotonic() + seconds
			if time.monotonic() > end:
				raise RigError(f"{len(left)} messages still queued, first: {left[0]}")
			time.sleep(0.1)

	def maillog(self):
		try:
			with open(f"{self.run}/maillog", encoding="utf-8", errors="replace") as f:
				return f.read()
		except FileNotFoundError:
			return ""

	def mailwald_log(self):
		with open(os.path.join(self.dir, "mailwald.log"), encoding="utf-8",
			  errors="replace") as f:
			return f.read()

	def whole_maillog(self):
		"""The same with all that Postfix has said until now: its programs hand their lines to
		postlogd, which writes them later, in their order."""
		if "postfix" not in self.procs:
			return self.maillog()
		word = f"word {secrets.token_hex(8)}"
		subprocess.run([f"{servers.POSTFIX_BIN}/postlog", "-c", f"{self.run}/postfix", "-t",
				"rig", word], capture_output=True, timeout=PATIENCE, check=True)
		wait_for("Postfix' log", lambda: word in self.maillog())
		return self.maillog()

	def sent_outside(self):
		"""Recipients outside that Postfix got mail for (the discard transport)."""
		return [line for line in self.whole_maillog().splitlines()
			if "postfix/discard[" in line and "status=sent" in line]

	def lmtp_deliveries(self):
		return [line for line in self.whole_maillog().splitlines()
			if "postfix/lmtp[" in line and "status=sent" in line]

	# -- the store -------------------------------------------------------------

	def backup(self):
		"""A file copy of the store as it is now, as rsync --exclude='*.lock' would make
		it: Dovecot would wait two minutes for a lock file that came back with it."""
		shutil.rmtree(self.backup_dir, ignore_errors=True)
		self._copy_tree(self.store, self.backup_dir)
		for lock in pathlib.Path(self.backup_dir).rglob("*.lock"):
			lock.unlink()

	@staticmethod
	def _copy_tree(src, dst):
		"""cp -a that lives with files moving under it (Maildir new/ → cur/, an index written
		anew)."""
		p = subprocess.run(["cp", "-a", "--", src, dst], capture_output=True, check=False,
				   env=dict(os.environ, LC_ALL="C"))
		bad = [x for x in p.stderr.splitlines() if b"No such file" not in x
		       and b"replaced while being copied" not in x]
		if p.returncode and (bad or not p.stderr):
			raise RigError(f"cp -a: {p.stderr.decode()}")

	def destroy_store(self):
		"""The disk is gone."""
		for e in os.scandir(self.store):
			remove_live(e.path) if e.is_dir() else os.unlink(e.path)

	def restore(self):
		"""The backup comes back."""
		self._copy_tree(self.backup_dir + "/.", self.store)
