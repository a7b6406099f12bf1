"""faults - the fault matrix: what goes wrong × at which stage × MTA × on_failure.

One Place is a private MTA with mailwald on a small file system of its own. A case sends
three messages while something is wrong: one during which it happens (at a stage), the next
one in the same session, and one in a new session; then it is put right and a fourth must be
taken. Every answer is remembered; judge() holds them against the journal and the audit:

    tempfail   each message that was answered with 250 has one record with its bytes
    accept     each that was answered and has no record is a hole that `mailwal audit`
               names, and mailwald or the MTA's log says so; no other hole is named

Needs root. The file system is a tmpfs in a mount name space of the calling process; where
that is not allowed, out-of-disk cases are left out (no_mounts says so).
"""

import base64
import ctypes
import itertools
import os
import random
import resource
import signal
import subprocess
import time

import milterclient
import rig as rigs
import sendmail
import servers
import smtp

FAULTS = ("killed", "hung", "slow", "slower", "restarted", "full", "floor", "memory")
STAGES = ("connect", "mail", "rcpt", "data", "dot", "commit")
MTAS = ("postfix", "sendmail")
POLICIES = ("tempfail", "accept")
ANNA = "anna@example.test"
WAIT = 2  # seconds that the MTAs give a milter
no_mounts = ""


def private_mounts():
	"""This process and its children in a mount name space of their own; once."""
	global no_mounts
	libc = ctypes.CDLL("libc.so.6", use_errno=True)
	if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):
		no_mounts = os.strerror(ctypes.get_errno())


def small_disk(path, size):
	if no_mounts:
		return
	libc = ctypes.CDLL("libc.so.6", use_errno=True)
	if libc.mount(b"mw", os.fsencode(path), b"tmpfs", 0, f"size={size}".encode()):
		raise rigs.RigError(f"mount {path}: {os.strerror(ctypes.get_errno())}")


class _Slow:
	"""Starts mailwald with a disk that can be made slow."""

	def start_mailwald(self):
		env = dict(os.environ, LD_PRELOAD=sendmail.preload(),
			   MW_SYNC_DELAY=f"{self.run}/delay")
		return super().start_mailwald(env=env)

	def delay(self, ms):
		servers.write(f"{self.run}/delay.new", str(ms))
		os.replace(f"{self.run}/delay.new", f"{self.run}/delay")

	def start_dovecot(self):
		return None  # nothing is delivered


class PostfixRig(_Slow, rigs.Rig):
	pass


class SendmailRig(_Slow, sendmail.Sendmail):
	pass


def conf(policy, min_free):
	return (f"on_failure = {policy}\nsegment_size = 1M\nmin_free = {min_free}\n"
		"memory_per_message = 64K")


def make(directory, mta, policy):
	"""The rig of a Place; its journal lies on a small tmpfs."""
	opts = {"aliases": {}, "conf": conf(policy, "0")}
	if mta == "postfix":
		action = "accept" if policy == "accept" else "tempfail"
		rig = PostfixRig(directory, postfix=f"virtual_transport = discard:\n"
				 f"milter_connect_timeout = {WAIT}s\nmilter_command_timeout = {WAIT}s\n"
				 f"milter_content_timeout = {WAIT}s\nmilter_default_action = {action}",
				 **opts)
		path = f"{rig.run}/postfix/main.cf"
		with open(path, encoding="utf-8") as f:
			text = f.read()
		servers.write(path, text.replace("default_action=tempfail",
						 f"default_action={action}"))
	else:
		secs = f"{WAIT}s"
		rig = SendmailRig(directory, flags="" if policy == "accept" else " F=T,",
				  timeouts={"c": secs, "s": secs, "r": secs, "e": secs},
				  rules="R$+ < @ $+ > $*	$#outside $@ x $: $1 < @ $2 > $3",
				  mc="define(`confDELIVERY_MODE', `queueonly')dnl", **opts)
		rig.options = []  # nothing leaves the queue: no load but ours
	os.makedirs(rig.journal)
	small_disk(rig.journal, "40m")
	r = rig.mailwal("init", rig.journal)
	if r.rc:
		raise rigs.RigError(f"mailwal init: {r}")
	return rig


class Sent:
	"""One message and what came of it."""

	def __init__(self, case, n, data):
		self.case, self.n, self.data = case, n, data
		self.code, self.text, self.queue_id = None, "", ""

	def __str__(self):
		return f"{self.case} message {self.n}: {self.code} {self.text}"


class Place:
	"""One MTA with one policy, and everything sent to it."""

	def __init__(self, directory, mta, policy):
		self.mta, self.policy = mta, policy
		self.rig = make(directory, mta, policy)
		self.sent, self.count, self.slowest = [], 0, 0.0
		self.rig.start()

	# -- the faults: each returns what puts it right ---------------------------

	def pid(self):
		return self.rig.procs["mailwald"].pid

	def killed(self):
		self.rig.end("mailwald", signal.SIGKILL)
		return self.rig.start_mailwald

	def restarted(self):
		self.rig.end("mailwald")
		self.rig.start_mailwald()
		return lambda: None

	def hung(self):
		pid = self.pid()
		os.kill(pid, signal.SIGSTOP)
		return lambda: os.kill(pid, signal.SIGCONT)

	def _delayed(self, ms):
		def heal():
			self.rig.delay(0)
			time.sleep(ms / 1000)  # the sync that is under way
		self.rig.delay(ms)
		return heal

	def slow(self):
		return self._delayed(WAIT * 300)

	def slower(self):
		return self._delayed(WAIT * 1500)

	def full(self):
		path, chunk = f"{self.rig.journal}/filler", bytes(1 << 16)
		with open(path, "wb", buffering=0) as f:
			try:
				while f.write(chunk) == len(chunk):
					pass
			except OSError:
				pass
		return lambda: os.unlink(path)

	def _reload(self, min_free):
		def said():
			return self.rig.mailwald_log().count("event=reloaded")
		n = said()
		self.rig.conf_extra = conf(self.policy, min_free)
		self.rig.write_conf()
		os.kill(self.pid(), signal.SIGHUP)
		rigs.wait_for("reload", lambda: said() > n)

	def floor(self):
		self._reload("900T")
		return lambda: self._reload("0")

	def memory(self):
		"""No more address space than it has, and others take what is free of that."""
		with open(f"/proc/{self.pid()}/statm", encoding="ascii") as f:
			now = int(f.read().split()[0]) * resource.getpagesize()
		pid, crowd = self.pid(), []
		_, hard = resource.prlimit(pid, resource.RLIMIT_AS)
		resource.prlimit(pid, resource.RLIMIT_AS, (now, hard))
		try:
			for i in range(400):
				c = milterclient.Conn(self.rig.milter_sock)
				c.sock.settimeout(2)
				crowd.append(c)
				c.envelope(f"CROWD{i}", b"x" * 60000)
		except (OSError, EOFError, AssertionError):
			pass

		def heal():
			resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
			for c in crowd:
				c.sock.close()
		return heal

	# -- one case ----------------------------------------------------------------

	def message(self, case, n, fault):
		rnd = random.Random(f"{case} {n}")
		text = base64.encodebytes(rnd.randbytes(900_000 if fault in ("full", "memory")
							else 3000))
		self.count += 1
		head = (f"From: w@remote.test\nTo: {ANNA}\nSubject: {case} {n}\n"
			f"Date: Mon, 01 Jan 2024 00:00:00 +0000\n"
			f"Message-ID: <{self.count}.{case.replace(' ', '.')}@remote.test>\n\n")
		s = Sent(case, n, (head.encode() + text).replace(b"\n", b"\r\n"))
		self.sent.append(s)
		return s

	def dialog(self, client, sent, strike=lambda stage: None):
		"""One message; strike(stage) is called before that stage's command."""
		for stage, line, want in (("mail", b"MAIL FROM:<w@remote.test>", 250),
					  ("rcpt", b"RCPT TO:<anna@example.test>", 250),
					  ("data", b"DATA", 354)):
			strike(stage)
			sent.code, sent.text = client.cmd(line)
			if sent.code != want:
				return
		client.send(smtp.stuff(sent.data))
		strike("dot")
		client.send(b".\r\n")
		strike("commit")
		sent.code, sent.text = client.reply()
		sent.queue_id = smtp.queue_id((sent.code, sent.text))

	def attempt(self, sent, client=None, strike=lambda stage: None):
		"""The same over a new session, if there is none; the session or None."""
		began = time.monotonic()
		try:
			if client is None:
				strike("connect")
				client = smtp.Client(self.rig.smtp_port, timeout=rigs.PATIENCE)
			self.dialog(client, sent, strike)
			if sent.code and sent.code != 250:
				client.cmd(b"RSET")
		except (smtp.SmtpError, OSError) as e:
			sent.code, sent.text = getattr(e, "code", 0), str(e)
			if client:
				client.close()
			client = None
		self.slowest = max(self.slowest, time.monotonic() - began)
		return client

	def run(self, fault, stage):
		"""One case; the case's name."""
		case = f"{self.mta} {self.policy} {fault} {stage}"
		heal = []

		def strike(at):
			if at == "dot" and stage == "commit" and fault not in ("slow", "slower"):
				self.rig.delay(400)  # so that there is a commit to hit
			if at != stage:
				return
			if at == "commit":
				time.sleep(0.2)
			heal.append(getattr(self, fault)())

		client = self.attempt(self.message(case, 1, fault), None, strike)
		if not heal:  # the MTA refused before
			heal.append(getattr(self, fault)())
		if fault not in ("slow", "slower"):
			self.rig.delay(0)
		client = self.attempt(self.message(case, 2, fault), client)
		if client:
			client.quit()
		client = self.attempt(self.message(case, 3, fault))
		if client:
			client.quit()
		heal[0]()
		end = time.monotonic() + rigs.PATIENCE
		while True:  # an MTA that had no answer in time may go on to refuse for a while
			last = self.message(case, 4, "")
			client = self.attempt(last)
			if client:
				client.quit()
			if last.code == 250 or time.monotonic() > end:
				return case, last

	# -- the judgement -------------------------------------------------------------

	def judge(self):
		"""What is wrong, as lines; and some numbers."""
		bad, passed = [], set()
		rows = {}
		for o in self.rig.journaled():
			rows.setdefault(o["queue_id"], []).append(o["id"])
		told = [s for s in self.sent if s.code == 250]
		for s in self.sent:
			if s.code != 250 and not (s.code == 0 or 400 <= s.code < 500):
				bad.append(f"{s}: neither taken nor refused for a while")
		for s in told:
			ids = rows.get(s.queue_id, [])
			if not s.queue_id or len(ids) > 1:
				bad.append(f"{s}: {len(ids)} records")
			elif not ids:
				passed.add(s.queue_id)
				if self.policy == "tempfail":
					bad.append(f"{s}: acknowledged and missing")
			elif self.rig.raw(ids[0]) != s.data:
				bad.append(f"{s}: other bytes")
		r = self.rig.mailwal("--json", "audit", f"{self.rig.run}/maillog")
		named = {o["queue_id"] for o in r.lines if o.get("message_type") == "hole"}
		if named != passed:
			bad.append(f"audit names {sorted(named)}, without a record are {sorted(passed)}")
		if r.rc != (1 if passed else 0):
			bad.append(f"audit: {r}")
		said = {line.split()[1].rstrip(":") for line in self.rig.mailwald_log().splitlines()
			if "event=unjournaled" in line}
		if not said <= passed | {""}:
			bad.append(f"mailwald says that it let pass {sorted(said - passed)}, which the "
				   "MTA did not take")
		log = self.rig.mailwald_log().rsplit("event=start ", 1)[-1]
		if self.counted() != log.count("event=unjournaled"):
			bad.append(f"status counts {self.counted()} passed without a record, mailwald's "
				   f"log has {log.count('event=unjournaled')}")
		v = self.rig.mailwal("verify")
		if v.rc:
			bad.append(f"verify: {v}")
		return bad, {"sent": len(self.sent), "acknowledged": len(told),
			     "passed": len(passed), "by_mailwald": len(said & passed)}

	def counted(self):
		"""passed_unjournaled as status has it now; None: mailwald does not answer."""
		r = self.rig.mailwal("--json", "status")
		return next((o["daemon"]["passed_unjournaled"] for o in r.lines
			     if "passed_unjournaled" in o.get("daemon", {})), None)


def matrix():
	"""Every (mta, policy, fault, stage) there is."""
	for mta, policy, fault, stage in itertools.product(MTAS, POLICIES, FAULTS, STAGES):
		if fault == "full" and no_mounts:
			continue
		if mta == "sendmail" and sendmail.find() is None:
			continue
		yield mta, policy, fault, stage


def run_cases(t, cases):
	"""Runs them, place by place; checks by t."""
	for mta, policy in itertools.product(MTAS, POLICIES):
		mine = [(f, s) for m, p, f, s in cases if (m, p) == (mta, policy)]
		if not mine:
			continue
		place = Place(t.sub(f"{mta} {policy}"), mta, policy)
		try:
			stuck = []
			for fault, stage in mine:
				case, last = place.run(fault, stage)
				if last.code != 250:
					stuck.append(f"{case}: afterwards {last.code} {last.text}")
				if place.rig.procs["mailwald"].poll() is not None:
					stuck.append(f"{case}: mailwald ended")
					place.rig.end("mailwald")
					place.rig.start_mailwald()
			t.ok(not stuck, f"{mta}, {policy}: {len(mine)} faults, and mail is taken again "
			     "after each", "\n".join(stuck))
			bad, n = place.judge()
			t.ok(not bad, f"{mta}, {policy}: of {n['sent']} messages {n['acknowledged']} "
			     f"acknowledged, {n['passed']} of them without a record, each named",
			     "\n".join(bad))
			t.ok(policy == "accept" or n["passed"] == 0,
			     f"{mta}, {policy}: nothing acknowledged and missing")
			t.note(f"{n['by_mailwald']} passed by mailwald itself; slowest answer "
			       f"{place.slowest:.1f} s")
		finally:
			place.rig.stop()
			subprocess.run(["umount", place.rig.journal], stderr=subprocess.DEVNULL,
				       check=False)
