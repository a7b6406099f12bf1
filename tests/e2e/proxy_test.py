#!/usr/bin/python3
"""The proxy: Postfix' before-queue content filter, LMTP into Dovecot, plain relay.

Content is exact in the record and at the next server; LMTP answers per recipient; SMTP
smuggling gets no further; mailwald killed at each step never loses what it acknowledged.
"""
# MW_TEST_COST 35

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

TRICKY = workload.CORPUS / "tricky" / "smtp"
# What research of servers lists; the corpus has the same, which is checked.
SMUGGLING = [bytes.fromhex(h) for h in (
	"0a2e0a 0a2e0d 0d2e0a 0d2e0d 0a2e0d0a 0d2e0d0a 0d0a2e0a 0d0a2e0d 0d0a2e0d0d0a "
	"0d0d0a2e0d0d0a 0d0a002e0d0a 0d0a2e000d0a").split()]


class Sink:
	"""A next server for tests: takes everything. raw: (message-id, wire bytes up to and
	with what ended it). Before answering the dot it waits `delay()` seconds."""

	def __init__(self, greeting=b"220 sink ESMTP\r\n"):
		self.raw, self.lost, self.taken, self.held = [], [], set(), 0
		self.delay, self.greeting = (lambda: 0), greeting
		self.lock, self.open, self.carriers = threading.Lock(), set(), set()
		self.sock = socket.create_server(("127.0.0.1", rigs.free_ports(1)[0]))
		self.port = self.sock.getsockname()[1]
		self.thread = threading.Thread(target=self._accept, daemon=True)
		self.thread.start()

	def close(self):
		listener.end(self.sock, self.thread)

	def _accept(self):
		while True:
			try:
				c, _ = self.sock.accept()
			except OSError:
				return
			threading.Thread(target=self._serve, args=(c,), daemon=True).start()

	def hang_up(self):
		"""Every connection that is there."""
		with self.lock:
			for c in self.open:
				c.shutdown(socket.SHUT_RDWR)

	def _serve(self, c):
		c.settimeout(tap.PATIENCE)
		with self.lock:
			self.open.add(c)
		try:
			c.sendall(self.greeting)
			self._session(c, c.makefile("rb"))
		except OSError:
			pass
		finally:
			with self.lock:
				self.open.discard(c)
			c.close()

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


def message(name, body=b"x\r\n"):
	return (f"From: a@remote.test\r\nTo: b@example.test\r\nMessage-ID: <{name}@remote.test>\r\n"
		f"Subject: {name}\r\n\r\n").encode() + body


def events(rig, event):
	"""Lines of mailwald's log with that event, as dictionaries."""
	out = []
	for line in rig.mailwald_log().splitlines():
		if f"event={event} " in line:
			out.append(dict(re.findall(r"(\w+)=(\S+)", line)))
	return out


# -- (a) before-queue content filter ---------------------------------------------

def content_filter(t):
	rig = rigs.Rig(t.sub("filter"))
	front, proxy, back = rigs.free_ports(3)
	rig.configure(
		conf=f"proxy_listen = smtp:inet:127.0.0.1:{proxy}->inet:127.0.0.1:{back}\n"
		     "proxy_bare_newline = pass",
		postfix="message_drop_headers =\nvirtual_transport = lmtp:unix:$queue_directory/../dovecot/lmtp",
		master=f"""\
127.0.0.1:{front} inet n - n - - smtpd
  -o smtpd_proxy_filter=127.0.0.1:{proxy}
  -o smtpd_milters=
  -o syslog_name=postfix/front
127.0.0.1:{back} inet n - n - - smtpd
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o mynetworks=127.0.0.0/8
  -o smtpd_milters=
  -o syslog_name=postfix/back
""")
	with rig:
		rig.start()
		rigs.wait_for("both other smtpd", lambda: rigs.connects(front) and rigs.connects(back))
		with smtp.Client(proxy) as a, smtp.Client(back) as b:
			mine, theirs = (set(c.ehlo.split("\n")[1:]) for c in (a, b))
			t.equal(theirs - mine, {"ETRN", "VRFY"} & theirs,
				"not offered of what the next server offers")
			t.ok(mine < theirs and any(x.startswith("XFORWARD") for x in mine),
			     "the rest is offered as it is", mine)
		fidelity(t, rig, front)
		facts(t, rig, front)
		forwarded(t, rig, proxy)
		down(t, rig, front, proxy)


def cases_or_fixtures():
	"""The tricky messages where the corpus is there: (name, wire, options, chunks)."""
	if not (TRICKY / "index.json").is_file():
		return [(p.name, workload.wire(p.read_bytes()), {}, None)
			for p in sorted(workload.FIXTURES.iterdir())]
	out = []
	for c in json.loads((TRICKY / "index.json").read_text(encoding="utf-8")):
		if "generate" in c:
			line = b"0123456789" * 7 + b"\r\n"
			data = message("big", line * (30_000_000 // len(line)))
		else:
			data = (TRICKY / c["wire"]).read_bytes()
		out.append((c["name"], data, c["options"], c.get("bdat_chunks")))
	return out


def received_off(data):
	"""Without the first field, which must be Received."""
	m = re.match(rb"Received:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", data)
	return data[m.end():] if m else data


def fidelity(t, rig, front):
	cases, other, bad = cases_or_fixtures(), [], []
	large = [c for c in cases if len(c[1]) > 1 << 20]  # last: reading skips over them
	for part in ([c for c in cases if c not in large], large):
		for name, data, options, chunks in part:
			with smtp.Client(front) as c:
				code, text = c.mail(data, "sender@remote.test", ["anna@example.test"],
						    chunks=chunks, **options)
			if code != 250:
				bad.append(f"{name}: {code} {text}")
		rows = rig.journaled("--sender", "sender@remote.test")
		for (name, data, _, _), row in zip(reversed(part), reversed(rows)):
			if received_off(rig.raw(row["id"])) != data:
				other.append(name)
	t.ok(not bad, f"{len(cases)} messages through the content filter", "\n".join(bad))
	t.equal(len(rows), len(cases), "records of them")
	t.ok(len(other) <= (9 if len(cases) == 43 else 0),
	     f"{len(cases) - len(other)} of {len(cases)} records are the wire but for Received "
	     f"(Postfix changes {', '.join(sorted(other))})")


def forwarded(t, rig, proxy):
	"""Clients that share a connection to the next server, each with its own XFORWARD."""
	names = [f"h{i}.remote.test" for i in range(4)]
	for i, name in enumerate(names):
		with smtp.Client(proxy) as c:
			c.cmd(f"XFORWARD NAME={name} ADDR=192.0.2.{i + 1}".encode(), 250)
			c.cmd(b"XFORWARD PROTO=ESMTP HELO=there SOURCE=REMOTE", 250)
			c.mail(message(name), f"s@{name}", ["bert@example.test"])
			c.quit()
	rig.wait_queue()
	log = [x for x in rig.maillog().splitlines() if "postfix/back" in x]
	told = [sum(f"orig_client={n}[192.0.2.{i + 1}]" in x for x in log)
		for i, n in enumerate(names)]
	t.equal(told, [1] * 4, "XFORWARD: the next server has each client's own name once")
	envelopes = [rig.mailwal("show", rig.journaled("--sender", f"s@{n}")[0]["id"],
				 "--envelope").out for n in names]
	t.equal([[n in e for n in names] for e in envelopes],
		[[a == b for b in names] for a in names], "and so has each record")


def facts(t, rig, front):
	with smtp.Client(front, helo="far.remote.test") as c:
		c.mail(message("facts"), "sender@remote.test",
		       ["bert@example.test", "cleo@example.test"])
	rig.wait_queue()
	o = rig.journaled("--sender", "sender@remote.test")[-1]
	text = rig.mailwal("show", o["id"], "--envelope").out
	t.ok("far.remote.test" in text and "127.0.0.1" in text,
	     "XFORWARD: the client's facts are in the record", text)
	t.ok("client.remote.test" not in text, "and nobody else's", text)
	got = mailbox.dump(rig)
	stored = [m.data for k, v in got.items() if k[0] in ("bert@example.test",
		  "cleo@example.test") for m in v]
	t.ok(len(stored) == 2 and all(b"<facts@remote.test>" in s for s in stored),
	     "delivered once to each", [s[:80] for s in stored])
	sent = events(rig, "relayed")
	t.ok(sent and all(e["reply"] == "250" and e["queued_as"] for e in sent),
	     "one line for each message, with the ID at the next server", sent[-1:])


def down(t, rig, front, proxy):
	n = len(rig.journaled())
	rig.end("mailwald", signal.SIGTERM)
	try:
		with smtp.Client(front) as c:
			got = c.mail(message("down"), "s@remote.test", ["anna@example.test"])
	except smtp.SmtpError as e:
		got = (e.code, str(e))
	t.ok(400 <= got[0] < 500, "mailwald away: the sender is told 4xx", got)
	# the next server away: a relay to a port where nobody listens
	with open(rig.conf, "a", encoding="utf-8") as f:
		f.write(f"\nproxy_listen =\nproxy_listen = smtp:inet:127.0.0.1:{proxy}"
			f"->inet:127.0.0.1:{rigs.free_ports(1)[0]}\n")
	rig.start_mailwald()
	rigs.wait_for("the proxy", lambda: rigs.connects(proxy))
	try:
		with smtp.Client(front) as c:
			got = c.mail(message("down2"), "s@remote.test", ["anna@example.test"])
	except smtp.SmtpError as e:
		got = (e.code, str(e))
	t.ok(400 <= got[0] < 500, "the next server away: the sender is told 4xx", got)
	t.equal(len(rig.journaled()), n, "records before and after")


# -- (b) LMTP ----------------------------------------------------------------------

def outcomes(rig, record):
	"""What the journal has of a message: {recipient: outcome}."""
	shown = rig.mailwal("--json", "show", record).lines[0]
	return {o["recipient"]: o["outcome"] for o in shown.get("outcomes", [])}


def lmtp(t):
	rig = rigs.Rig(t.sub("lmtp"), aliases={})
	rig.configure(
		conf=f"proxy_listen = lmtp:unix:{rig.run}/proxy.lmtp->unix:{rig.run}/dovecot/lmtp",
		postfix=f"smtpd_milters =\nvirtual_transport = lmtp:unix:{rig.run}/proxy.lmtp\n"
			"lmtp_destination_recipient_limit = 50")
	with rig:
		rig.start()
		to = ["anna@example.test", "bert@example.test", "cleo@example.test"]
		broken = os.path.join(rig.store, "example.test", "bert")
		os.makedirs(os.path.dirname(broken), mode=0o777, exist_ok=True)
		os.chmod(os.path.dirname(broken), 0o777)
		with open(broken, "w", encoding="utf-8"):
			pass  # no directory: Dovecot cannot open that mailbox
		os.chmod(broken, 0o600)
		data = message("three", b"..dots\r\n.\x2e\r\n8-bit: \xff\xfe\r\n" + b"y" * 5000 + b"\r\n")
		with smtp.Client(rig.smtp_port) as c:
			qid = smtp.queue_id(c.mail(data, "s@remote.test", to))
		rigs.wait_for("the first delivery", lambda: events(rig, "relayed"))
		e = events(rig, "relayed")[0]
		t.equal((e["nrcpt"], e["failed"]), ("3", "1"), "recipients, failed")

		def waiting():
			return [r["address"] for q in rig.queue() for r in q["recipients"]]
		# The reply comes before Postfix has taken the others off, and a message that is
		# tried again may be in no list for a moment.
		t.comes(lambda: waiting() == [to[1]], "only the one that failed waits in the queue",
			waiting)
		first = rig.journaled("--queue-id", qid)  # Postfix may have tried again by now
		t.equal(first[0]["recipients"], to, "recipients of the record")
		want = dict(zip(to, ("delivered", "deferred", "delivered")))
		t.comes(lambda: outcomes(rig, first[0]["id"]) == want, "outcomes on record",
			lambda: outcomes(rig, first[0]["id"]))
		os.unlink(broken)
		rig.flush()
		rig.wait_queue()
		rows = rig.journaled("--queue-id", qid)
		got = [o["recipients"] for o in rows]
		t.ok(got[0] == to and len(got) > 1 and all(g == [to[1]] for g in got[1:]),
		     "each retry has its own record, for that recipient", got)
		got = mailbox.dump(rig)
		bad = []
		for u in to:
			copies = [m.data for m in got.get((u, "INBOX"), [])]
			if len(copies) != 1 or mailbox.without_trace(mailbox.crlf(copies[0])) != data:
				bad.append(f"{u}: {len(copies)} copies")
		t.ok(not bad, "each has it once, byte for byte", bad)
		raw = rig.raw(rows[0]["id"])
		t.ok(mailbox.without_trace(raw) == data, "so has the record",
		     mailbox.first_difference(data, mailbox.without_trace(raw)))
		many = workload.bulk(60, seed=7)[0]
		jobs = [smtp.Job(data, "bulk@remote.test", to) for _, data in many]
		rig.send(jobs, sessions=6)
		rig.wait_queue()
		n = collections.Counter(o["queue_id"] for o in rig.journaled())
		t.ok(all(j.code == 250 and n[j.queue_id] == 1 for j in jobs),
		     "60 messages: one record each", [j.text for j in jobs if j.code != 250][:3])
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)
		r = rig.replay("--sender", "bulk@remote.test")
		t.ok(r.rc == 0 and r.summary["restored"] == 0,
		     "a replay finds every copy where LMTP put it", r)


# -- (c) plain relay: smuggling, kills -----------------------------------------------

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
	content_filter(t)
	lmtp(t)
	smuggling(t)
	kills(t)
	one_after_another(t)
	limits(t)


tap.run(main)
