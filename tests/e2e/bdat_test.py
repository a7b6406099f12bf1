#!/usr/bin/python3
"""Mail in chunks (RFC 3030) through the proxy, into real Postfix and real Dovecot LMTP.

Chunks of any size, pipelined or not, give the record and the delivered mail byte for byte;
dots in them end nothing; what breaks off in a chunk leaves neither record nor mail.
"""
# MW_TEST_COST 20

import os
import random
import re
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

# Sequences that one server or another takes for the end of DATA.
SMUGGLING = [bytes.fromhex(h) for h in (
	"0a2e0a 0a2e0d 0d2e0a 0d2e0d 0a2e0d0a 0d2e0d0a 0d0a2e0a 0d0a2e0d 0d0a2e0d0d0a "
	"0d0d0a2e0d0d0a 0d0a002e0d0a 0d0a2e000d0a 0d0a2e0d0a").split()]
INNER = b"MAIL FROM:<evil@remote.test>\r\nRCPT TO:<anna@example.test>\r\nDATA\r\nspoof\r\n.\r\n"
ANNA, BERT = "anna@example.test", "bert@example.test"


class Lmtp(smtp.Client):
	"""The same for LMTP: as many replies at the end as there are recipients."""

	def __init__(self, port):
		self.sock = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
		self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		self.buf = b""
		self.want(220, self.reply(), "banner")
		self.ehlo = self.cmd(b"LHLO client.remote.test", 250)[1]


def message(name, body):
	return (f"From: a@remote.test\r\nTo: {ANNA}\r\nMessage-ID: <{name}@remote.test>\r\n"
		f"Subject: {name}\r\n\r\n").encode() + body


def envelope(c, rcpts):
	c.cmd(b"MAIL FROM:<s@remote.test>", 250)
	for r in rcpts:
		c.cmd(b"RCPT TO:<" + r.encode() + b">", 250)


def cut(data, rng, most):
	"""Sizes of chunks: some of one byte; the last one is sometimes empty."""
	sizes, left = [], len(data)
	while left:
		sizes.append(min(left, rng.choice((1, 2, rng.randint(1, most)))))
		left -= sizes[-1]
		if len(sizes) > 40:
			most = left + 1
	return sizes + ([0] if rng.random() < 0.5 else [])


def in_chunks(c, data, sizes, pipelined, replies=1):
	"""The codes of all replies."""
	out, at, codes = b"", 0, []
	for i, n in enumerate(sizes):
		last = i == len(sizes) - 1
		out += b"BDAT %d%s\r\n" % (n, b" LAST" if last else b"") + data[at:at + n]
		at += n
		if pipelined and not last:
			continue
		c.send(out)
		out = b""
		many = (len(sizes) - 1 if pipelined else 0) + (replies if last else 1)
		codes += [c.reply()[0] for _ in range(many if last else 1)]
	return codes


def row(rig, name):
	return rig.journaled("--message-id", f"<{name}@remote.test>")


def copies(rig, user, name):
	"""That user's mails of that Message-ID, CRLF, without what a delivery puts in front."""
	got = mailbox.dump(rig).get((user, "INBOX"), [])
	return [mailbox.without_trace(mailbox.crlf(m.data)) for m in got
		if f"<{name}@remote.test>".encode() in m.data]


def exact(t, rig, port, kind, replies, rcpts):
	rng, bad, names = random.Random(3030), [], []
	bodies = [b"..\r\n.\r\nx\r\n", b"x", b"", b"8-bit \xff\xfe\r\n" + b"y" * 997 + b"\r\n",
		  b"".join(b"%05d .\r\n" % i for i in range(15000)), b".\r\n" + INNER]
	for i, body in enumerate(bodies):
		for pipelined in (False, True):
			name = f"{kind}{i}{'p' if pipelined else ''}"
			data = message(name, body)
			with (Lmtp if replies > 1 else smtp.Client)(port) as c:
				envelope(c, rcpts)
				codes = in_chunks(c, data, cut(data, rng, 20000), pipelined, replies)
				if set(codes) == {250}:
					envelope(c, rcpts[:1])  # the session goes on
			if set(codes) != {250}:
				bad.append(f"{name}: {codes}")
			names.append((name, data))
	rig.wait_queue()
	for name, data in names:
		rows = row(rig, name)
		if len(rows) != 1 or rig.raw(rows[0]["id"]) != data:
			bad.append(f"{name}: {len(rows)} records")
	got = mailbox.dump(rig)
	for user in rcpts:
		for name, data in names:
			whole = data if data.endswith(b"\r\n") else data + b"\r\n"
			mine = [mailbox.without_trace(mailbox.crlf(m.data))
				for m in got.get((user, "INBOX"), [])
				if f"<{name}@remote.test>".encode() in m.data]
			if len(mine) != 1 or mine[0] not in (data, whole):
				bad.append(f"{name}: {len(mine)} copies at {user}")
	t.ok(not bad, f"{kind}: {len(names)} messages in chunks: records and mailboxes are exact",
	     "\n".join(bad[:5]))


def no_dots(t, rig, port):
	"""Nothing within a chunk ends a message."""
	bad = []
	for i, seq in enumerate(SMUGGLING):
		data = message(f"dots{i}", b"x" + seq + INNER + b"end\r\n")
		with smtp.Client(port) as c:
			envelope(c, [ANNA])
			codes = in_chunks(c, data, [60, len(data) - 60], i % 2)
			codes.append(c.cmd(b"NOOP")[0])
		rows = row(rig, f"dots{i}")
		if set(codes) != {250} or len(rows) != 1 or rig.raw(rows[0]["id"]) != data:
			bad.append(f"{seq!r}: {codes}, {len(rows)} records")
	t.ok(not bad, f"{len(SMUGGLING)} smuggling sequences are content", "\n".join(bad))
	rig.wait_queue()
	got = [len(copies(rig, ANNA, f"dots{i}")) for i in range(len(SMUGGLING))]
	t.equal(got, [1] * len(SMUGGLING), "copies of each")
	t.equal(len(rig.journaled("--sender", "evil@remote.test")), 0, "smuggled messages")


def mixed(t, rig, port):
	one, two, three = (message(n, b"x\r\n") for n in ("mix1", "mix2", "mix3"))
	with smtp.Client(port) as c:
		got = []
		envelope(c, [ANNA])
		c.send(b"BDAT 20\r\n" + one[:20])
		got.append(c.reply()[0])
		got += [c.cmd(x)[0] for x in (b"DATA", b"RCPT TO:<" + BERT.encode() + b">",
					      b"MAIL FROM:<x@y.test>", b"NOOP", b"RSET")]
		t.equal(got, [250, 503, 503, 503, 250, 250], "after a chunk: itself, DATA, RCPT, MAIL, "
			"NOOP, RSET")
		got = [c.mail(two, "s@remote.test", [ANNA])[0]]
		envelope(c, [ANNA])
		got += in_chunks(c, three, [len(three)], False)
		t.equal(got, [250, 250], "DATA and BDAT in one session")
		c.send(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n")
		t.equal([c.reply()[0], c.reply()[0], c.cmd(b"NOOP")[0]], [503, 503, 250],
			"BDAT without MAIL: its bytes are no commands")
		t.equal(c.cmd(b"MAIL FROM:<s@remote.test> BODY=BINARYMIME")[0], 555, "BINARYMIME")
		c.send(b"BDAT 12x LAST\r\nQUIT\r\n")
		t.equal(c.reply()[0], 501, "a size that is none")
		try:
			t.ok(c.sock.recv(10) == b"", "ends the session")
		except OSError:
			t.ok(True, "ends the session")
	rig.wait_queue()
	t.equal([(len(row(rig, n)), len(copies(rig, ANNA, n))) for n in ("mix1", "mix2", "mix3")],
		[(0, 0), (1, 1), (1, 1)], "records and copies")


def refused_in_the_middle(t, rig, port):
	"""Postfix says no to a chunk that makes the message too large."""
	data = message("large", b"x" * 70 + b"\r\n" + b"y" * 70000)
	with smtp.Client(port) as c:
		envelope(c, [ANNA])
		codes = in_chunks(c, data, [1000, 50000, 1000, 0], True)
		t.equal((codes[0], codes[1] // 100, codes[2:]), (250, 5, [503, 503]),
			"a chunk too large; the others are read and go nowhere")
		c.cmd(b"RSET", 250)
		small = message("small", b"x\r\n")
		envelope(c, [ANNA])
		t.equal(in_chunks(c, small, [10, len(small) - 10], True), [250, 250],
			"after RSET the session goes on")
	rig.wait_queue()
	t.equal((len(row(rig, "large")), len(copies(rig, ANNA, "large")), len(row(rig, "small")),
		 len(copies(rig, ANNA, "small"))), (0, 0, 1, 1), "records and copies")


def broken_off(t, rig, ports):
	"""The line drops in a chunk; mailwald is killed when all but the last byte is out."""
	for kind, client, port in ports:
		name, killed = f"off-{kind}", f"killed-{kind}"
		data = message(name, b"x" * 5000)
		with client(port) as c:
			envelope(c, [ANNA])
			c.send(b"BDAT %d LAST\r\n" % len(data) + data[:-1])
			time.sleep(0.2)
		data = message(killed, b"x" * 5000)
		with client(port) as c:
			envelope(c, [ANNA])
			c.send(b"BDAT %d LAST\r\n" % len(data) + data[:-1])
			time.sleep(0.2)
			rig.end("mailwald", signal.SIGKILL)
			try:
				told = c.reply()[0]
			except smtp.SmtpError:
				told = 0
		p = rig.start_mailwald()
		rigs.wait_for("the proxy", lambda port=port: rigs.connects(port), alive=p)
		with client(port) as c:
			envelope(c, [ANNA])
			good = message(f"then-{kind}", b"x")
			codes = in_chunks(c, good, [len(good)], False)
		rig.wait_queue()
		t.equal((told, codes), (0, [250]), f"{kind}: told, and then")
		t.equal([(len(row(rig, n)), len(copies(rig, ANNA, n)))
			 for n in (name, killed, f"then-{kind}")], [(0, 0), (0, 0), (1, 1)],
			f"{kind}: broken off in the last chunk: no record, no mail")


def lmtp_outcomes(t, rig, port):
	data = message("outcome", b"x\r\n")
	with Lmtp(port) as c:
		envelope(c, [ANNA, BERT])
		t.equal(c.cmd(b"RCPT TO:<nobody@example.test>")[0] // 100, 5, "refused recipient")
		t.equal(in_chunks(c, data, [30, len(data) - 30], True, 2), [250] * 3, "replies")
	record = row(rig, "outcome")[0]["id"]

	def outcomes():
		shown = rig.mailwal("--json", "show", record).lines[0]
		return {o["recipient"]: o["outcome"] for o in shown.get("outcomes", [])}
	t.comes(lambda: outcomes() == {ANNA: "delivered", BERT: "delivered"}, "outcomes on record",
		outcomes)


def main(t):
	rig = rigs.Rig(t.sub("bdat"), aliases={})
	proxy, small, lmtp, back, small_back = rigs.free_ports(5)
	rig.configure(
		conf=f"proxy_listen = smtp:inet:127.0.0.1:{proxy}->inet:127.0.0.1:{back}\n"
		     f"proxy_listen = smtp:inet:127.0.0.1:{small}->inet:127.0.0.1:{small_back}\n"
		     f"proxy_listen = lmtp:inet:127.0.0.1:{lmtp}->unix:{rig.run}/dovecot/lmtp",
		postfix="message_drop_headers =\nsmtpd_milters =\n"
			"virtual_transport = lmtp:unix:$queue_directory/../dovecot/lmtp",
		master="".join(f"127.0.0.1:{p} inet n - n - - smtpd\n"
			       f"  -o message_size_limit={n}\n" for p, n in (
				       (back, 50000000), (small_back, 20000))))
	with rig:
		rig.start()
		rigs.wait_for("the other smtpd", lambda: rigs.connects(back)
			      and rigs.connects(small_back))
		with smtp.Client(proxy) as a, Lmtp(lmtp) as b:
			t.ok(all(re.search("^CHUNKING$", c.ehlo, re.M) and "BINARYMIME" not in c.ehlo
				 for c in (a, b)), "CHUNKING is offered where the next server has it")
		exact(t, rig, proxy, "smtp", 1, [ANNA])
		exact(t, rig, lmtp, "lmtp", 2, [ANNA, BERT])
		no_dots(t, rig, proxy)
		mixed(t, rig, proxy)
		refused_in_the_middle(t, rig, small)
		lmtp_outcomes(t, rig, lmtp)
		broken_off(t, rig, (("smtp", smtp.Client, proxy), ("lmtp", Lmtp, lmtp)))
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify finds nothing wrong", r)


tap.run(main)
