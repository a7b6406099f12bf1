"""stores - the mail stores that the long stories are played on, behind one face.

    with make("sdbox", directory, sieve=True) as store: ...

kind: "maildir" or "sdbox" (Dovecot), "cyrus". sieve (Dovecot): ANNA and BERT of storeloss have
a script with fileinto, redirect and vacation, which Dovecot runs on delivery, and replay files
by it on the quiet instance that `mailwal setup dovecot` makes. What Dovecot sends out comes to
Postfix and is counted by Rig.sent_outside().
"""

import os
import pathlib
import signal
import subprocess
import time

import cyrus
import mailbox
import rig as rigs
import servers
import storeloss

SCRIPT = """require ["fileinto", "mailbox", "copy", "imap4flags", "vacation"];
if header :contains "Subject" "order" {
	fileinto :create :flags "\\\\Flagged" "Work/Orders";
} elsif header :contains "Subject" "newsletter" {
	fileinto :create "Lists";
} elsif header :contains "Subject" "forward" {
	redirect :copy "elsewhere@outside.test";
} else {
	vacation :days 1 "I am away";
}
"""
OUTGOING = """\
127.0.0.1:{port} inet n - n - - smtpd
  -o mynetworks=127.0.0.0/8
  -o smtpd_relay_restrictions=permit_mynetworks,reject
  -o syslog_name=postfix/outgoing
"""
DOVECOT = """
submission_host = 127.0.0.1:{port}
protocol lmtp {{
  mail_plugins = $mail_plugins sieve
}}
protocol imap {{
  mail_plugins = $mail_plugins imap_filter_sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
"""


def have_sieve():
	return os.path.exists("/usr/lib/dovecot/modules/lib95_imap_filter_sieve_plugin.so")


def quiet_instance(rig, sink):
	"""The quiet instance as mailwal makes it, out of the rig's Dovecot, started: its port
	and mailwal's Result."""
	(port,) = rigs.free_ports(1)
	where = f"{rig.run}/quiet"
	os.makedirs(where, exist_ok=True)
	r = rig.mailwal("setup", "dovecot", "--quiet-instance", "--dovecot-config",
			f"{rig.run}/dovecot.conf", "--dir", where, "--port", port, "--sink", sink)
	conf = pathlib.Path(where + ".conf")
	conf.write_text(r.out, encoding="utf-8")
	if r.rc == 0:
		start_quiet(rig, port)
	return port, r


def start_quiet(rig, port):
	p = rig.spawn("quiet", ["/usr/sbin/dovecot", "-F", "-c", f"{rig.run}/quiet.conf"])
	rigs.wait_for("the quiet instance", lambda: rigs.connects(port), alive=p)


def children(parent, name):
	"""The processes of that name whose parent is that one."""
	out = []
	for p in pathlib.Path("/proc").iterdir():
		try:
			stat = (p / "stat").read_text().rpartition(")")[2].split()
			if p.name.isdigit() and int(stat[1]) == parent and (
					p / "comm").read_text().strip() == name:
				out.append(int(p.name))
		except (OSError, IndexError):
			pass
	return out


def alive(pid):
	try:
		with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
			return f.read().rpartition(")")[2].split()[0] not in "ZX"
	except OSError:
		return False


def kill(pids):
	hit = 0
	for pid in pids:
		try:
			os.kill(pid, signal.SIGKILL)
			hit += 1
		except ProcessLookupError:
			pass
	return hit


class Store:
	"""One store with the Rig around it."""

	def __init__(self, kind, directory, sieve=False, users=storeloss.USERS):
		self.kind, self.sieve = kind, sieve and kind != "cyrus"
		self.scripted = storeloss.USERS[:2] if self.sieve else ()
		args = {"users": users, "aliases": storeloss.ALIASES, "dovecot": ""}
		if kind == "sdbox":
			args["dovecot"] = "mail_location = sdbox:~/sdbox\n"
		self.rig = cyrus.CyrusRig(directory, **args) if kind == "cyrus" else rigs.Rig(
			directory, **args)
		self.quiet_port = None
		if self.sieve:
			self._sieve()

	def _sieve(self):
		out, sink = rigs.free_ports(2)
		self.sink = f"127.0.0.1:{sink}"
		self.rig.configure(master=OUTGOING.format(port=out))
		with open(f"{self.rig.run}/dovecot.conf", "a", encoding="utf-8") as f:
			f.write(DOVECOT.format(port=out))
		for user in self.scripted:
			n, d = user.split("@")
			home = pathlib.Path(self.rig.store, d, n)
			home.mkdir(parents=True, exist_ok=True)
			servers.write(str(home / ".dovecot.sieve"), SCRIPT)
		subprocess.run(["chown", "-R", "nobody:nogroup", self.rig.store + "/"], check=True)

	def __enter__(self):
		self.rig.start()
		if self.sieve:
			self.quiet_port, r = quiet_instance(self.rig, self.sink)
			if r.rc:
				raise rigs.RigError(f"setup dovecot --quiet-instance: {r}")
		return self

	def __exit__(self, kind, exc, tb):
		self.rig.stop()

	def lose(self):
		"""The store's machine dies."""
		gone = [self.rig.imap_port, self.rig.lmtp_port] + (
			[self.quiet_port] if self.sieve else [])
		if self.kind != "cyrus":
			for name in ("quiet", "dovecot"):
				self.rig.end(name, sig=signal.SIGKILL)
			rigs.wait_for("the end of Dovecot", lambda: not any(map(rigs.connects, gone)))
		self.rig.destroy_store()

	def restore(self):
		self.rig.restore()
		if self.kind != "cyrus":
			self.rig.start_dovecot()
		if self.sieve:
			start_quiet(self.rig, self.quiet_port)

	def argv(self, *more):
		"""mailwal replay into this store."""
		args = self.rig.replay_args(*more)
		if self.sieve:
			args[args.index("--to") + 1] = f"imap://127.0.0.1:{self.quiet_port}"
			args += ["--sieve", "--sink", self.sink]
		return self.rig.mailwal_argv("--json", *args)

	def replay(self, *more):
		argv = self.argv(*more)
		return self.rig.mailwal(*argv[argv.index("--json"):], timeout=600)

	def kill_server(self):
		"""SIGKILL for the server's processes that hold IMAP sessions; how many."""
		if self.kind == "cyrus":
			return kill(children(self.rig.procs["cyrus"].pid, "imapd"))
		name = "quiet" if self.sieve else "dovecot"
		pids = children(self.rig.procs[name].pid, "imap")
		hit, now = kill(pids), time.time()
		rigs.wait_for("the end of imap", lambda: not any(map(alive, pids)))
		# Dovecot waits two minutes before it takes over a dead process's lock file.
		# A session of another client may take a folder away meanwhile.
		for lock in (pathlib.Path(at, f) for at, _, names in os.walk(self.rig.store)
			     for f in names if f.endswith(".lock")):
			try:
				if lock.stat().st_mtime < now:
					lock.unlink()
			except OSError:
				pass
		return hit

	def revive(self):
		"""After kill_server: some dead children make Cyrus' master give the port up."""
		if self.kind == "cyrus":
			self.rig.end("cyrus")
			self.rig.start_cyrus()

	def same(self, sent, stored, delivered):
		"""Is that what the store keeps of the bytes? delivered: by LMTP, not by replay."""
		if self.kind == "cyrus":
			sent = cyrus_keeps(sent)
			if delivered:  # LMTP adds a missing Message-ID and Date
				return sent.partition(b"\r\n\r\n")[2] == stored.partition(
					b"\r\n\r\n")[2]
		return mailbox.without_trace(mailbox.crlf(stored)) == mailbox.crlf(sent)


def cyrus_keeps(data):
	"""8-bit header bytes become X."""
	head, sep, body = data.partition(b"\r\n\r\n")
	return bytes(c if c < 128 else ord("X") for c in head) + sep + body


def make(kind, directory, **kw):
	return Store(kind, directory, **kw)
