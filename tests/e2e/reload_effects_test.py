#!/usr/bin/python3
"""Every setting that conf/options.def and conf/section.c mark as reloadable is changed by SIGHUP
in one running mailwald, what it is for is seen from outside to be otherwise, and after it was
taken back as before. What needs a restart is refused by name, and the old value goes on. A
setting that is new in the tables and not in CASES fails tests/lint/options and this test.

Settings that only mailwal reads (mailbox_name, sent_folder, queue_command, prune_*, drill_*,
retain) are looked at through its commands: mailwald must take the file, they must follow it."""
# MW_TEST_COST 30

import http.client
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import listener
import milterclient
import rig as rigs
import smtp
import tap

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANNA, SKIP = "anna@example.test", "skip@remote.test"
FULL = "min_free = 900000G\n"  # mail is not taken
SLOW_S = 2.0  # each sync, while a disk is slow


class Refused(Exception):
	"""The milter's reply, in place of going on."""


class Conn(milterclient.Conn):
	def step(self, cmd, data, noreply):
		self.send(cmd, data)
		if not self.steps & noreply:
			got = self.reply()
			if got[0] != b"c":
				raise Refused(got)

	def open(self):
		"""It is idle: what comes must be an end."""
		return not select.select([self.sock], [], [], 0)[0]


class Table(listener.Listener):
	"""A socketmap in which team@ is anna; while `holds`, it answers nobody."""

	def __init__(self):
		self.asked, self.holds = 0, False
		super().__init__()

	def serve(self, sock):
		with sock, sock.makefile("rb") as f:
			while n := f.read(1):
				while not n.endswith(b":"):
					n += f.read(1)
				key = f.read(int(n[:-1]) + 1).decode()[:-1].partition(" ")[2]
				self.asked += 1
				while self.holds:
					time.sleep(0.01)
				out = f"OK {ANNA}" if key == "team@example.test" else "NOTFOUND "
				sock.sendall(f"{len(out)}:{out},".encode())


class Next(listener.Listener):
	"""The server behind the proxy."""

	def serve(self, sock):
		with sock, sock.makefile("rb") as f:
			sock.sendall(b"220 next\r\n")
			while line := f.readline():
				verb = line[:4].upper()
				if verb == b"DATA":
					sock.sendall(b"354 go\r\n")
					data = b""
					while not data.endswith(b"\r\n.\r\n"):
						data += f.read(1)
				sock.sendall(b"250 ok\r\n")


class Site(alone.Alone):
	def __init__(self, t):
		directory = t.sub("site")
		self.http, self.proxy = rigs.free_ports(2)
		self.table, self.next, self.n = Table(), Next(), 0
		self.queue = pathlib.Path(f"/tmp/mw-queue-{os.getpid()}")  # no blank in it
		self.virtual = [pathlib.Path(directory, f"virtual{i}") for i in range(2)]
		self.virtual[0].write_text("team@example.test anna@example.test\n")
		self.virtual[1].write_text("team@example.test berta@example.test\n")
		self.base = (
			"local_domains = example.test\nqueue_command = none\n"
			"commit_gather = 0\n"  # so that it is seen against its most
			f'identities = "virtual:{self.virtual[0]}"\n'
			"queue_age_limit = 10min\ncommit_timeout = 10min\n")
		super().__init__(directory, "memory_per_message = 4M",
				 f"metrics_listen = inet:127.0.0.1:{self.http}",
				 f"proxy_listen = smtp:inet:127.0.0.1:{self.proxy}->"
				 f"inet:127.0.0.1:{self.next.port}")
		self.fixed = self.conf.read_text(encoding="utf-8")
		self.conf.write_text(self.fixed + self.base, encoding="utf-8")

	def __exit__(self, *what):
		super().__exit__(*what)
		self.queue.unlink(missing_ok=True)
		self.table.close()
		self.next.close()

	def metric(self, name):
		c = http.client.HTTPConnection("127.0.0.1", self.http, timeout=tap.PATIENCE)
		c.request("GET", "/metrics")
		text = c.getresponse().read().decode()
		c.close()
		return float(re.search(rf"(?m)^{name} (\S+)$", text)[1])

	def reload(self, text):
		"""Was it taken? The log may be silent, so the metrics say."""
		def state():
			return (self.metric("mailwal_config_last_reload_timestamp_seconds"),
				self.said().count("event=reload_refused"))

		names = {x.split(" = ")[0] for x in text.splitlines()}
		before = state()
		self.conf.write_text("\n".join(
			[x for x in (self.fixed + self.base).splitlines()
			 if x.split(" = ")[0] not in names] + [text, ""]), encoding="utf-8")
		self.proc.send_signal(signal.SIGHUP)
		rigs.wait_for("the reload", lambda: state() != before, alive=self.proc)
		return state()[0] != before[0]

	def qid(self):
		self.n += 1
		return f"Q{self.n}"

	def envelope(self, conn, qid, auth="", **envelope):
		if auth:
			conn.send(b"D", b"M{auth_authen}\0" + auth.encode() + b"\0")
		conn.envelope(qid, **envelope)

	def verdict(self, **envelope):
		"""What a message is told: 'c', 'y451' …; its queue ID."""
		c, qid = Conn(self.sock), self.qid()
		try:
			self.envelope(c, qid, **envelope)
			c.send(b"E")
			cmd, text = c.reply()
		except Refused as e:
			cmd, text = e.args[0]
		finally:
			c.sock.close()
		return (cmd + text[:3]).decode() if cmd == b"y" else cmd.decode(), qid

	def json(self, *args, rc=(0,)):
		got, out, err = self.mailwal("--json", *args)
		assert got in rc, (args, got, err)
		return [json.loads(x) for x in out.splitlines()]

	def record(self, qid):
		rows = [o for o in self.json("list", "--queue-id", qid) if "queue_id" in o]
		return rows[0] if rows else None


# ---- what is looked at: each takes the site, and gives what is then ------------------------

def told(**envelope):
	return lambda s: s.verdict(**envelope)[0]


def recorded(s):
	return s.record(s.verdict(sender=SKIP)[1]) is not None


def direction(s):
	return s.record(s.verdict(addr="127.0.0.1")[1])["direction"]


def mailboxes(rcpt):
	return lambda s: s.show(s.verdict(rcpts=[rcpt])[1])["mailboxes"]


def many_in_flight(s):
	"""What the worst of four large ones is told."""
	large = [Conn(s.sock) for _ in range(4)]
	try:
		for c in large:
			s.envelope(c, s.qid())
			for _ in range(5):
				c.step(b"B", os.urandom(30000).hex().encode() + b"\r\n", 0x80000)
		for c in large:
			c.send(b"E")
		return max((cmd + text[:3 * (cmd == b"y")]).decode()
			   for cmd, text in [c.reply() for c in large])
	finally:
		for c in large:
			c.sock.close()
		rigs.wait_for("the memory to be free",
			      lambda: s.status()["in_flight_bytes"] == 0, alive=s.proc)


def waits_for_others(s):
	"""Of nine commits beside others on their way, does one wait 100ms?"""
	others = [Conn(s.sock) for _ in range(10)]
	try:
		for c in others:
			s.envelope(c, s.qid())
		return max(s.mail(s.qid()) for _ in range(9)) >= 0.1
	finally:
		for c in others:
			c.sock.close()


def expansion(s):
	"""What becomes of an expansion for which the table has no answer for half a second."""
	def counts():
		st = s.status()
		return st["expansions"], st["expansions_failed"]

	before, asked = counts(), s.table.asked
	s.table.holds = True
	try:
		s.verdict(rcpts=["team@example.test"])
		rigs.wait_for("the table to be asked", lambda: s.table.asked > asked, alive=s.proc)
		time.sleep(0.5)
	finally:
		s.table.holds = False
	rigs.wait_for("the expansion", lambda: counts() != before, alive=s.proc)
	return "failed" if counts()[1] > before[1] else "expanded"


def logged(s):
	qid = s.verdict()[1]
	return f"{qid}: event=journaled" in s.said()


def smuggled(s):
	with smtp.Client(s.proxy) as c:
		return c.mail(b"Subject: x\r\n\r\nx\n.\r\ny\r\n", "a@remote.test", [ANNA],
			      stuffed=True)[0]


def put_back(s, **envelope):
	"""The Maildirs and folders that a replay of one such message fills, and its summary."""
	qid, place = s.verdict(**envelope)[1], pathlib.Path(s.dir, f"out{s.n}")
	got = s.json("replay", "--queue-id", qid, "--to", f"maildir:{place}/%u", "--create",
		     "--state", f"{place}.state")[-1]
	return sorted(str(p.parent.parent.relative_to(place)) for p in place.rglob("cur/*")) + sorted(
		str(p.parent.parent.relative_to(place)) for p in place.rglob("new/*")), got


def mailbox(s):
	return put_back(s)[0]


def sent(s):
	return put_back(s, sender=ANNA, rcpts=["x@far.test"], auth=ANNA)[0]


def in_queue(s):
	"""The command that is set lists the message that comes next."""
	listing = {"queue_name": "deferred", "queue_id": f"Q{s.n + 1}", "sender": "a@remote.test",
		   "arrival_time": int(time.time()), "message_size": 10,
		   "recipients": [{"address": ANNA, "delay_reason": "x"}]}
	s.queue.write_text(json.dumps(listing) + "\n", encoding="utf-8")
	return put_back(s)[1]["queued"]


def pruned(s):
	"""Does a prune want to take something? Or is the setting refused?"""
	got = s.json("prune", "-n", rc=(0, 78))
	return got[-1]["selected"] > 0 if got else "refused"


def drilled(s):
	s.json("drill", "run", "--sample", "1", rc=(0, 1))
	return json.loads(s.mailwal("drill", "report", "-o", "json")[1])


def drill_result(s):
	return drilled(s)["result"]


def drill_limit(s):
	return drilled(s)["measured"]["rpo_limit_s"]


def drill_too_old(s):
	return any("drill_max_age" in p for p in s.json("status", rc=(0, 1))[-1]["problems"])


def section(kind, name, **settings):
	return "\n".join([f"{kind} {name} {{", *(f"  {k} = {v}" for k, v in settings.items()),
			  "}"]) + "\n"


# name: (settings before and after the change, what is seen then, how). The names of the settings
# of sections are kind.name. None: it has a function of its own below, which knows it.
NOW = "prune_floor = 0\n"
CASES = {
	"on_failure": (FULL, FULL + "on_failure = accept\n", "y451", "c", told()),
	"on_failure_close": (FULL, FULL + "on_failure_close = yes\n", "y451", "y421", told()),
	"min_free": ("", FULL, "c", "y451", told()),
	"message_limit": ("", "message_limit = 64\n", "c", "y552", told(body=b"x" * 100 + b"\r\n")),
	"recipient_limit": ("", "recipient_limit = 1\n", "c", "y452",
			    told(rcpts=[ANNA, "berta@example.test"])),
	"memory_limit": ("", "memory_limit = 16M\n", "c", "y451", many_in_flight),
	"commit_gather": ("", "commit_gather = 100ms\n", False, True, waits_for_others),
	"local_domains": ("", "local_domains = remote.test\n", "in", "out", direction),
	"identities": ("", 'identities = "virtual:{0.virtual[1]}"\n', [ANNA], ["berta@example.test"],
		       mailboxes("team@example.test")),
	"recipient_delimiter": ("", "recipient_delimiter = -\n", ["team-x@example.test"], [ANNA],
				mailboxes("team-x@example.test")),
	"identities_timeout": ("identities = socketmap:inet:127.0.0.1:{0.table.port}:m\n"
			       "identities_timeout = 1min\n",
			       "identities = socketmap:inet:127.0.0.1:{0.table.port}:m\n"
			       "identities_timeout = 10ms\n", "expanded", "failed", expansion),
	"proxy_bare_newline": ("", "proxy_bare_newline = pass\n", 554, 250, smuggled),
	"log_level": ("", "log_level = error\n", True, False, logged),
	"capture.match": (section("capture", "x", match="sender:no@remote.test", journal="no"),
			  section("capture", "x", match=f"sender:{SKIP}", journal="no"),
			  True, False, recorded),
	"capture.journal": (section("capture", "x", match=f"sender:{SKIP}", journal="yes"),
			    section("capture", "x", match=f"sender:{SKIP}", journal="no"),
			    True, False, recorded),
	"capture.on_failure": (FULL + section("capture", "x", on_failure="global"),
			       FULL + section("capture", "x", on_failure="accept"),
			       "y451", "c", told()),
	"mailbox_name": ("", "mailbox_name = %n\n", [ANNA], ["anna"], mailbox),
	"sent_folder": ("", "sent_folder = Gone\n", [f"{ANNA}/.Sent"], [f"{ANNA}/.Gone"], sent),
	"queue_command": ("", "queue_command = /bin/cat {0.queue}\n", 0, 1, in_queue),
	"prune_floor": (section("retain", "x", keep="1s"),
			section("retain", "x", keep="1s") + NOW, False, True, pruned),
	"prune_requires": (section("retain", "x", keep="1s") + NOW,
			   section("retain", "x", keep="1s") + NOW + "prune_requires = marked\n",
			   True, False, pruned),
	"retain.match": (section("retain", "x", match="domain:nowhere.test", keep="1s") + NOW,
			 section("retain", "x", match="domain:example.test", keep="1s") + NOW,
			 False, True, pruned),
	"retain.keep": (section("retain", "x", keep="10d") + NOW,
			section("retain", "x", keep="1s") + NOW, False, True, pruned),
	"retain.max_size": (section("retain", "x", max_size="1T") + NOW,
			    section("retain", "x", max_size="1M") + NOW, False, True, pruned),
	"drill_max_rto": ("", "drill_max_rto = 1ms\n", "passed", "failed", drill_result),
	# Beyond it is only a journal that lacks what its mailwald has acknowledged, which takes
	# damage to make: that the drill knows the limit is all that is looked at.
	"drill_max_rpo": ("", "drill_max_rpo = 5s\n", None, 5.0, drill_limit),
	"drill_max_age": ("", "drill_max_age = 1ms\n", False, True, drill_too_old),
	"commit_timeout": None,
	"queue_age_limit": None,
	"milter_idle_timeout": None,
	"proxy_timeout": None,
}


def reloadable():
	"""As the tables have it."""
	text = (ROOT / "conf/options.def").read_text(encoding="utf-8")
	names = {m[1] for m in re.finditer(
		r'MW_OPT\("(\w+)", \w+, \w+, "[^"]*",\s*"[^"]*",\s*"[^"]*",\s*RELOAD', text)}
	for kind, rows in re.findall(r"(\w+)_opts\[\] = \{(.*?)\n\};",
				     (ROOT / "conf/section.c").read_text(encoding="utf-8"), re.S):
		names |= {f"{kind}.{n}" for n in re.findall(r'\{"(\w+)", MW_CONF_', rows)}
	return names


def one(t, s, name):
	before, after, was, becomes, look = CASES[name]
	seen = []
	for text, want in ((before, was), (after, becomes), (before, was)):
		if not t.ok(s.reload(text.format(s) if "{0" in text else text), f"{name}: reload"):
			return
		end = time.monotonic() + tap.PATIENCE
		seen.append(look(s))
		# Where time is what is seen, a loaded host may need another look.
		while look is waits_for_others and seen[-1] != want and time.monotonic() < end:
			seen[-1] = look(s)
	t.equal(seen, [was, becomes, was], f"{name}: before, changed, taken back")


def idle(t, s):
	"""Connections of a client that says nothing."""
	t.ok(s.reload(""), "idle: reload")
	kept, client = Conn(s.sock), smtp.Client(s.proxy)
	began = time.monotonic()
	yield  # other cases take their time
	time.sleep(max(0, 2.5 - (time.monotonic() - began)))
	t.ok(kept.open() and client.cmd(b"NOOP")[0] == 250,
	     "milter_idle_timeout, proxy_timeout: idle connections stay")
	t.ok(s.reload("milter_idle_timeout = 1s\nproxy_timeout = 1s\n"), "idle: reload")

	def late():
		try:
			with smtp.Client(s.proxy) as c:
				return c.reply()[0]
		except smtp.SmtpError as e:  # on a busy machine before it has said EHLO
			return e.code
	t.comes(lambda: not kept.open(), "milter_idle_timeout: an idle connection is closed")
	t.comes(lambda: late() == 421, "proxy_timeout: an idle client is told")
	t.equal(client.cmd(b"NOOP")[0], 250, "and one that was there keeps its own")
	client.close()
	t.ok(s.reload(""), "idle: reload")
	kept, client = Conn(s.sock), smtp.Client(s.proxy)
	began = time.monotonic()
	yield
	time.sleep(max(0, 2.5 - (time.monotonic() - began)))
	t.ok(kept.open() and client.cmd(b"NOOP")[0] == 250,
	     "milter_idle_timeout, proxy_timeout: taken back, they stay again")
	client.close()
	kept.sock.close()


class Slow:
	"""Each sync of mailwald takes its time."""

	def __init__(self, s):
		self.p = subprocess.Popen(
			["strace", "-f", "-e", "trace=fdatasync", "-e",
			 f"inject=fdatasync:delay_enter={int(SLOW_S * 1e6)}", "-o", "/dev/null",
			 "-p", str(s.proc.pid)], stderr=subprocess.PIPE)
		self.attached = b"attached" in self.p.stderr.readline()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.p.send_signal(signal.SIGINT)
		self.p.communicate(timeout=tap.PATIENCE)


def refused_meanwhile(s):
	"""While one waits for the disk: is another refused? And what was the one told?"""
	c, refused = Conn(s.sock), False
	s.envelope(c, s.qid())
	c.send(b"E")
	while not select.select([c.sock], [], [], 0.05)[0]:
		other = Conn(s.sock)
		try:
			s.envelope(other, s.qid())
		except Refused:
			refused = True
		other.sock.close()
	told_it = c.reply()[0]
	c.sock.close()
	return refused, told_it


def slow_disk(t, s):
	if not shutil.which("strace"):
		t.skip("strace is not installed: commit_timeout, queue_age_limit are not tried")
		return
	with Slow(s) as disk:
		if not disk.attached:
			t.skip("strace may not attach: commit_timeout, queue_age_limit are not tried")
			return
		t.ok(s.reload(""), "slow disk: reload")
		t.equal(refused_meanwhile(s), (False, b"c"), "a slow disk: mail waits, and is taken")
		t.ok(s.reload("queue_age_limit = 1s\n"), "slow disk: reload")
		end = time.monotonic() + tap.PATIENCE
		while not (got := refused_meanwhile(s))[0] and time.monotonic() < end:
			pass
		t.equal(got, (True, b"c"), "queue_age_limit: another is refused meanwhile")
		t.ok(s.reload("commit_timeout = 1s\n"), "slow disk: reload")
		t.equal(s.verdict()[0], "y451", "commit_timeout: it is told to come again")
		t.ok(s.reload(""), "slow disk: reload")
		rigs.wait_for("what is late", lambda: "event=late" in s.said(), alive=s.proc)
		t.equal(refused_meanwhile(s), (False, b"c"), "both taken back: as before")


def needs_restart(t, s):
	"""One line says what and that a restart is needed; all goes on as it was."""
	before = s.said()
	ok = s.reload(f"segment_size = 8M\njournal_dir = {s.dir}/other\nmessage_limit = 64\n")
	lines = [x for x in s.said()[len(before):].splitlines() if "reload" in x]
	t.ok(not ok and len(lines) == 1 and "journal_dir, segment_size cannot change" in lines[0]
	     and 'hint="restart mailwald, or take the change back"' in lines[0],
	     "what needs a restart is refused in one line, by name", lines)
	t.equal(s.metric("mailwal_config_reload_success"), 0.0, "and in the metrics")
	code, qid = s.verdict(body=b"x" * 100 + b"\r\n")
	s.conf.write_text(s.fixed + s.base, encoding="utf-8")
	t.ok(code == "c" and s.record(qid), "the journal and the limits are those from before", code)
	t.ok(s.reload(""), "the change taken back: a reload is taken")
	t.equal(s.metric("mailwal_config_reload_success"), 1.0, "and in the metrics")


def main(t):
	t.equal(set(CASES) ^ reloadable(), set(), "reloadable settings without a case, or the reverse")
	with Site(t) as s:
		large = Conn(s.sock)  # for retain.max_size
		s.envelope(large, s.qid())
		for _ in range(60):
			large.step(b"B", os.urandom(30000).hex().encode() + b"\r\n", 0x80000)
		t.need(large.end() == b"c", "a large message")
		large.sock.close()
		silent = idle(t, s)
		next(silent)
		names = [n for n, c in CASES.items() if c]
		for i, name in enumerate(names):
			if i == len(names) // 2:
				next(silent)
			one(t, s, name)
		next(silent, None)
		needs_restart(t, s)
		slow_disk(t, s)
		rc, out, err = s.mailwal("verify")
		t.ok(rc == 0, "verify", (out, err))
	t.equal(s.ended, 0, "it ends as it should")


tap.run(main)
