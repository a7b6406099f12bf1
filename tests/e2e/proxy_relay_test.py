#!/usr/bin/python3
"""The proxy as a plain relay to a next server that shows what reaches it.

SMTP smuggling gets no further; mailwald killed at each step never loses what it acknowledged;
one connection serves several clients; limits hold.
"""
# MW_TEST_COST 25

import collections
import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import listener
import mailbox
import rig as rigs
import smtp
import tap
import workload
from proxied import events, message

# What research of servers lists; the corpus has the same, which is checked.
SMUGGLING = [bytes.fromhex(h) for h in (
	"0a2e0a 0a2e0d 0d2e0a 0d2e0d 0a2e0d0a 0d2e0d0a 0d0a2e0a 0d0a2e0d 0d0a2e0d0d0a "
	"0d0d0a2e0d0d0a 0d0a002e0d0a 0d0a2e000d0a").split()]


class Sink(listener.Listener):
	"""A next server for tests: takes everything. raw: (message-id, wire bytes up to and
	with what ended it). Before answering the dot it waits `delay()` seconds."""

	def __init__(self, greeting=b"220 sink ESMTP\r\n"):
		self.raw, self.lost, self.taken, self.held = [], [], set(), 0
		self.delay, self.greeting = (lambda: 0), greeting
		self.lock, self.open, self.carriers = threading.Lock(), set(), set()
		super().__init__()

	def hang_up(self):
		"""Every connection that is there."""
		with self.lock:
			for c in self.open:
				c.shutdown(socket.SHUT_RDWR)

	def serve(self, sock):
		sock.settimeout(tap.PATIENCE)
		with self.lock:
			self.open.add(sock)
		try:
			sock.sendall(self.greeting)
			self._session(sock, sock.makefile("rb"))
		finally:
			with self.lock:
				self.open.discard(sock)
			sock.close()

	def _session(self, c, f):
		while True:
			line = f.readline()
			verb = line[:4].upper()
			if not line:
				return
			if verb == b"EHLO":
				c.sendall(b"250-sink\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n"
					  b"250-SIZE 99000000\r\n250-CHUNKING\r\n250-VRFY\r\n250-DSN\r\n"
					  b"250-8BITMIME\r\n250 SMTPUTF8\r\n")
			elif verb == b"DATA":
				c.sendall(b"354 go\r\n")
				if not self._content(c):
					return
				f = c.makefile("rb")
			elif verb == b"QUIT":
				c.sendall(b"221 bye\r\n")
				return
			else:
				c.sendall(b"250 2.0.0 Ok\r\n")

	def _content(self, c):
		data = b""
		while not (data.endswith(b"\r\n.\r\n") or data == b".\r\n"):
			got = c.recv(65536)
			if not got:
				with self.lock:
					self.lost.append(data)
				return False
			data += got
		with self.lock:
			self.held += 1
		time.sleep(self.delay())
		with self.lock:
			self.held -= 1
			self.raw.append(data[:-3])
			self.taken.add(mailbox.message_id(data))
			self.carriers.add(c)
		c.sendall(b"250 2.0.0 Ok: queued as SINK\r\n")
		return True


def unstuff(data):
	return re.sub(rb"(^|\r\n)\.", rb"\1", data)


def relay_rig(t, name, sink, more=""):
	rig = rigs.Rig(t.sub(name))
	port = rigs.free_ports(1)[0]
	rig.configure(conf=f"proxy_listen = smtp:inet:127.0.0.1:{port}->inet:127.0.0.1:{sink.port}\n"
			   + more)
	rig.mailwal("init", rig.journal)
	p = rig.start_mailwald()
	rigs.wait_for("the proxy", lambda: rigs.connects(port), alive=p)
	return rig, port


def lax_end(data):
	"""Would a server that reads as lax as any see an end of data here?"""
	return b"." in re.split(rb"[\r\n]", data.replace(b"\0", b""))


def smuggling(t):
	sink = Sink()
	rig, port = relay_rig(t, "smuggling", sink)
	with rig:
		base = workload.corpus_dir()
		if base:
			table = json.loads((base / "protocol" / "smuggling-sequences.json").read_text())
			t.equal({bytes.fromhex(o["bytes_hex"]) for o in table} - set(SMUGGLING), set(),
				"sequences of the corpus that are not tried")
		with smtp.Client(port) as c:
			words = {x.split()[0] for x in c.ehlo.split("\n")[1:]}
		t.equal(words, {"PIPELINING", "SIZE", "DSN", "8BITMIME", "SMTPUTF8", "AUTH",
			       "CHUNKING"},
			"offered")
		inner = b"MAIL FROM:<evil@remote.test>\r\nRCPT TO:<v@example.test>\r\nDATA\r\nspoof"
		bad = []
		for i, seq in enumerate(SMUGGLING):
			data = message(f"smuggle{i}", b"x" + seq + inner + b"\r\n")
			with smtp.Client(port) as c:
				got = c.mail(data, "s@remote.test", ["v@example.test"], stuffed=True)
			if got[0] != 554:
				bad.append(f"{seq!r}: {got}")
		t.ok(not bad, f"{len(SMUGGLING)} sequences are refused with 554", "\n".join(bad))
		rigs.wait_for("the sink", lambda: len(sink.lost) == len(SMUGGLING))
		t.ok(not sink.raw and not any(lax_end(d) for d in sink.lost),
		     "nothing that went on can be read as an end of data",
		     [d for d in sink.lost if lax_end(d)])
		t.equal(len(rig.journaled()), 0, "records of them")
		with open(rig.conf, "a", encoding="utf-8") as f:
			f.write("\nproxy_bare_newline = pass\n")
		rig.procs["mailwald"].send_signal(signal.SIGHUP)
		rigs.wait_for("the reload", lambda: "event=reloaded" in rig.mailwald_log())
		bad = []
		for i, seq in enumerate(SMUGGLING):
			data = message(f"pass{i}", b"x" + seq + inner + b"\r\n")
			with smtp.Client(port) as c:
				got = c.mail(data, "s@remote.test", ["v@example.test"], stuffed=True)
			rows = rig.journaled("--message-id", f"<pass{i}@remote.test>")
			if got[0] != 250 or len(rows) != 1 or rig.raw(rows[0]["id"]) != unstuff(data):
				bad.append(f"{seq!r}: {got}")
			if data not in sink.raw:
				bad.append(f"{seq!r}: other bytes at the next server")
		t.ok(not bad, "with pass they are one message each, byte for byte", "\n".join(bad))
		t.equal(len(rig.journaled()), len(SMUGGLING), "records, none for a smuggled message")
	sink.close()


def client_load(port, names, results):
	for name in names:
		# while nobody listens nothing is under way that could be lost
		rigs.wait_for("the proxy", lambda: rigs.connects(port))
		try:
			with smtp.Client(port, timeout=tap.PATIENCE) as c:
				got = c.mail(message(name, b"z" * 3000 + b"\r\n"), "s@remote.test",
					     ["b@example.test"])
		except (smtp.SmtpError, OSError) as e:
			got = (getattr(e, "code", 0), str(e))
			time.sleep(0.02)
		results[name] = got


def kills(t):
	"""Messages run all the time, slowed down at one step after the other by the next
	server; mailwald is killed and started again."""
	sink = Sink()
	rig, port = relay_rig(t, "kills", sink)
	rounds = [0, 0, 0.002, 0.01, 0.05, 0.2]
	with rig:
		results, done = {}, threading.Event()

		def good():
			return sum(r[0] == 250 for r in list(results.values()))

		def endless(k):
			for i in itertools.takewhile(lambda _: not done.is_set(), itertools.count()):
				yield f"k{k}-{i}"
		threads = [threading.Thread(target=client_load, args=(port, endless(k), results))
			   for k in range(6)]
		for th in threads:
			th.start()
		for k in range(12):
			sink.delay = lambda k=k: rounds[k % len(rounds)]
			before = good()
			rigs.wait_for("two acknowledgements", lambda n=before: good() > n + 1)
			time.sleep(0.02 * (k % 4))
			rig.end("mailwald", signal.SIGKILL)
			p = rig.spawn("mailwald", [rig.mailwald_bin, "-c", rig.conf])
			rigs.wait_for("the proxy", lambda: rigs.connects(port), alive=p)
		sink.delay = lambda: 0
		done.set()
		for th in threads:
			th.join(tap.PATIENCE)
		told = {f"<{n}@remote.test>" for n, r in results.items() if r[0] == 250}
		rows = collections.Counter(o["message_id"] for o in rig.journaled())
		t.ok(10 < len(told) < len(results),
		     f"{len(told)} of {len(results)} acknowledged, 12 kills")
		bad = [r for r in results.values() if not (r[0] in (0, 250) or 400 <= r[0] < 500)]
		t.ok(not bad, "the rest saw 4xx or a lost connection", bad[:3])
		lost = [m for m in told if rows[m] != 1 or m not in sink.taken]
		t.ok(not lost, "every acknowledged one is in the journal and at the next server", lost)
		early = [m for m in sink.taken if not rows[m]]
		t.ok(not early, "the next server took nothing that is not in the journal", early)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)
		bad = [o["message_id"] for o in rig.journaled()[::5]
		       if rig.raw(o["id"]) != message(o["message_id"][1:].split("@")[0],
						      b"z" * 3000 + b"\r\n")][:1]
		t.ok(not bad, "records are exact", bad)
		steps(t, rig, port, sink)
		stop(t, rig, port, sink)
	sink.close()


def steps(t, rig, port, sink):
	"""One message each, mailwald killed at a chosen step of it, then sent again."""
	def again():
		p = rig.spawn("mailwald", [rig.mailwald_bin, "-c", rig.conf])
		rigs.wait_for("the proxy", lambda: rigs.connects(port), alive=p)

	def copies(name):
		data = message(name, b"z\r\n")
		return (len(rig.journaled("--message-id", f"<{name}@remote.test>")),
			sum(d == data for d in sink.raw))

	for step in ("content", "dot", "reply"):
		data, told, gate = message(step, b"z\r\n"), 0, threading.Event()
		sink.delay = lambda gate=gate: gate.wait(tap.PATIENCE) and 0
		with smtp.Client(port) as c:
			c.cmd(b"MAIL FROM:<s@remote.test>", 250)
			c.cmd(b"RCPT TO:<b@example.test>", 250)
			c.cmd(b"DATA", 354)
			c.send(data + (b"" if step == "content" else b".\r\n"))
			if step == "content":
				time.sleep(0.1)
			elif step == "reply":
				rigs.wait_for("the record", lambda: copies("reply")[0])
				rigs.wait_for("the dot", lambda: sink.held)
			rig.end("mailwald", signal.SIGKILL)
			try:
				told = c.reply()[0]
			except smtp.SmtpError:
				pass
		gate.set()
		rigs.wait_for("the sink", lambda: not sink.open and not sink.held)
		again()
		sink.delay = lambda: 0
		records, taken = copies(step)
		if step == "content":
			t.equal((told, records, taken), (0, 0, 0), "killed in the content: told, "
				"records, copies at the next server")
		elif step == "dot":
			t.ok(told == 0 and taken <= records <= 1, "killed at the dot: nobody was told",
			     (told, records, taken))
		else:
			t.equal((told, records, taken), (0, 1, 1), "killed before the reply: told, "
				"records, copies at the next server")
		with smtp.Client(port) as c:
			code = c.mail(data, "s@remote.test", ["b@example.test"])[0]
		t.equal((code, *copies(step)), (250, records + 1, taken + 1), "sent again")


def one_after_another(t):
	"""One connection to the next server serves several clients."""
	sink = Sink()
	rig, port = relay_rig(t, "kept", sink, "proxy_keep_next = 30s\n")
	with rig:
		def client(name, helo="a.remote.test"):
			with smtp.Client(port, helo=helo) as c:
				got = c.mail(message(name), "s@remote.test", ["b@example.test"])[0]
				c.quit()
				return got
		got = [client(f"kept{i}") for i in range(8)] + [client("kept8", "b.remote.test")]
		t.equal((got, len(sink.carriers)), ([250] * 9, 1),
			"replies to nine clients, connections for them")
		rigs.wait_for("nine lines of the log", lambda: len(events(rig, "journaled")) == 9)
		helos = {e["id"]: rig.mailwal("show", e["id"], "--envelope").out
			 for e in events(rig, "journaled")}
		t.equal([sum(h in x for x in helos.values()) for h in ("a.remote.test",
			 "b.remote.test")], [8, 1], "each record has its own client's name")
		sink.hang_up()
		t.equal(client("kept9"), 250, "closed by the next server: the next client is served")
		with smtp.Client(port) as c:
			c.cmd(b"MAIL FROM:<s@remote.test>", 250)
		t.equal((client("kept10"), len(sink.carriers)), (250, 3),
			"after a message that was broken off there is a new one")
		threads = [threading.Thread(target=client, args=(f"many{i}",)) for i in range(8)]
		for th in threads:
			th.start()
		for th in threads:
			th.join(tap.PATIENCE)
		rigs.wait_for("the sink", lambda: len(sink.taken) == 19)
		t.equal(len(rig.journaled()), 19, "records")
		rc = rig.end("mailwald")
		rigs.wait_for("all connections to be ended", lambda: not sink.open)
		t.equal(rc, 0, "exit status")
	sink.close()


def limits(t):
	"""Clients that say nothing, or a byte at a time; more of them than session_limit."""
	sink = Sink()
	rig, port = relay_rig(t, "limits", sink, "proxy_timeout = 15s\nsession_limit = 3\n")
	with rig:
		pid = rig.procs["mailwald"].pid
		smtp.Client(port).quit()
		rigs.wait_for("its end", lambda: '"open_sessions":0,' in rig.mailwal("--json", "status").out)
		threads = len(os.listdir(f"/proc/{pid}/task"))
		fds = len(os.listdir(f"/proc/{pid}/fd"))
		silent, slow, data = (smtp.Client(port) for _ in range(3))
		data.cmd(b"MAIL FROM:<s@remote.test>", 250)
		data.cmd(b"RCPT TO:<b@example.test>", 250)
		data.cmd(b"DATA", 354)
		data.send(b"Subject: half")
		fourth = socket.create_connection(("127.0.0.1", port))
		fourth.settimeout(tap.PATIENCE)
		got = fourth.recv(100)
		t.ok(got.startswith(b"421 4.3.2 ") and not fourth.recv(100),
		     "one more than session_limit is told to come back", got)
		got, end = b"", time.monotonic() + tap.PATIENCE
		slow.sock.settimeout(0.2)
		while b"421" not in got and time.monotonic() < end:
			try:
				slow.send(b"N")
				got += slow.sock.recv(100)
			except (TimeoutError, smtp.SmtpError):
				pass
			except OSError:
				break
		t.ok(got.startswith(b"421 4.4.2"), "a byte now and then is no command", got)
		t.equal([silent.reply()[0], data.reply()[0]], [421, 421], "so are the silent ones")
		for c in (silent, slow, data, fourth):
			c.close()

		def served():
			try:
				smtp.Client(port).quit()
				return True
			except smtp.SmtpError:
				return False
		rigs.wait_for("room", served)
		t.ok(True, "then the next one is served")
		rigs.wait_for("threads and descriptors are given back", lambda: len(
			os.listdir(f"/proc/{pid}/task")) <= threads + 1 and len(
			os.listdir(f"/proc/{pid}/fd")) <= fds + 3)
		t.equal(len(rig.journaled()), 0, "records")
	sink.close()


def stop(t, rig, port, sink):
	"""SIGTERM while the next server takes its time over a dot: that one is answered."""
	sink.delay = lambda: 0.7
	results = {}
	th = threading.Thread(target=client_load, args=(port, ["term"], results))
	th.start()
	rigs.wait_for("the dot", lambda: rig.journaled("--message-id", "<term@remote.test>"))
	start = time.monotonic()
	with smtp.Client(port) as idle:
		rc = rig.end("mailwald", signal.SIGTERM)
		took = time.monotonic() - start
		th.join(tap.PATIENCE)
		t.ok(rc == 0 and took < 60 and results["term"][0] == 250,
		     "SIGTERM: the message at its end is answered", (rc, took, results))
		t.equal(idle.reply()[0], 421, "an idle client is told")


def main(t):
	smuggling(t)
	kills(t)
	one_after_another(t)
	limits(t)


tap.run(main)
