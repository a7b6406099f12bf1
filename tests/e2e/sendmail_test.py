#!/usr/bin/python3
"""Real Sendmail 8.17 in front of both milter front ends: exact bytes, the whole envelope,
macros, several messages a connection, refused recipients, sizes, a sick journal."""
# MW_TEST_COST 60

import json
import os
import pathlib
import signal
import smtplib
import socket
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import smtp
import tap
import workload

TRICKY = workload.CORPUS / "tricky" / "smtp"
ANNA, BERT = "anna@example.test", "bert@example.test"
ACCESS = "To:refused@example.test|REJECT\nTo:later@example.test|ERROR:4.2.0:450 later\n"
REFUSED = 12  # of the 43: bare CR and LF, headers beyond 32 KB, BDAT, SMTPUTF8


def text(name, more=""):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n{more}"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()


def wire(case):
	"""The bytes a client sends."""
	if "generate" not in case:
		return (TRICKY / case["wire"]).read_bytes()
	line = b"0123456789" * 7 + b"\r\n"
	return (b"From: big@remote.test\r\nTo: u@example.test\r\nMessage-ID: <big@remote.test>\r\n"
		b"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nSubject: big\r\n\r\n"
		+ line * (30_000_000 // len(line)))


def tricky(t, rig, engine):
	"""The 43 tricky messages: what Sendmail handed over when they were recorded, and what
	it hands to an independent milter beside us now."""
	if not (TRICKY / "index.json").is_file():
		t.skip("no shared corpus beside this checkout")
		return
	cases = json.loads(pathlib.Path(TRICKY / "index.json").read_text(encoding="utf-8"))
	bad, exact, refused, unseen = [], 0, [], []
	for case in cases:
		data = wire(case)
		try:
			with smtp.Client(rig.smtp_port) as c:
				got = c.mail(data, "sender@remote.test", [ANNA],
					     chunks=case.get("bdat_chunks"), **case["options"])
				c.quit()
		except smtp.SmtpError as e:
			got = (e.code, e.text)
		if got[0] != 250:
			refused.append(case["name"])
			continue
		want = data if "generate" in case else (TRICKY / case["sendmail"]).read_bytes()
		qid = smtp.queue_id(got)
		raw = rig.raw(qid)
		others = [("recorded", want)]
		try:
			rigs.wait_for("the witness", lambda q=qid: q in rig.witness.messages,
				      seconds=3)
			others.append(("handed over", rig.witness.messages[qid].data))
		except rigs.RigError:
			unseen.append(case["name"])
		for what, other in others:
			if raw != other:
				bad.append(f"{case['name']}: other than {what}: "
					   + mailbox.first_difference(other, raw))
		exact += raw == want
	t.ok(not bad and exact == len(cases) - REFUSED,
	     f"{engine}: {exact} of {len(cases)} tricky messages as handed over", "\n".join(bad))
	# Sendmail now and then passes a message by its second filter; the recorded bytes above
	# hold for these too.
	t.ok(len(unseen) <= len(cases) // 4, f"{engine}: an independent milter saw the same bytes", unseen)
	t.ok(len(refused) == REFUSED and len(rig.journaled()) == exact,
	     f"{engine}: no record of the {len(refused)} that Sendmail refuses", refused)


def envelope(t, rig, engine):
	args = "SIZE=400 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1"
	notify = "NOTIFY=FAILURE,DELAY ORCPT=rfc822;anna+2Bx@example.test"
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(text("dsn") + b"gr\xc3\xbc\xdfe\r\n", "", [ANNA, BERT], mailargs=args,
			     rcptargs=notify)
		c.quit()
	t.equal(got[0], 250, f"{engine}: null sender, 8BITMIME and DSN arguments")
	row = next((o for o in rig.journaled() if o["queue_id"] == smtp.queue_id(got)), {})
	t.equal((row.get("sender"), row.get("recipients")), ("", [ANNA, BERT]),
		f"{engine}: sender and recipients")
	r = rig.mailwal("show", row.get("id", "?"), "--envelope")
	missing = [w for w in args.split() + notify.split() if w not in r.out]
	t.ok(r.rc == 0 and not missing, f"{engine}: every argument is kept", f"{missing}\n{r}")
	with smtp.Client(rig.smtp_port) as c:
		c.cmd(b"MAIL FROM:<w@remote.test>", 250)
		codes = [c.cmd(b"RCPT TO:<" + a.encode() + b">")[0] for a in
			 (ANNA, "refused@example.test", "later@example.test", BERT)]
		c.cmd(b"DATA", 354)
		c.send(text("some") + b".\r\n")
		got = c.reply()
		c.quit()
	t.equal(codes, [250, 550, 450, 250], f"{engine}: what Sendmail says to recipients")
	row = next((o for o in rig.journaled() if o["queue_id"] == smtp.queue_id(got)), {})
	t.equal(row.get("recipients"), [ANNA, BERT], f"{engine}: those refused are left out")
	many = [f"user{i}@example.test" for i in range(1000)]
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(text("many"), "w@remote.test", many)
		c.quit()
	row = next((o for o in rig.journaled() if o["queue_id"] == smtp.queue_id(got)), {})
	t.ok(row.get("recipients") == many, f"{engine}: 1,000 recipients, in order", got)


def facts(t, rig, engine):
	"""What the macros say: queue ID, client, TLS, login."""
	ctx = ssl.create_default_context()
	ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
	with smtplib.SMTP("127.0.0.1", rig.smtp_port, "laptop.example.test", tap.PATIENCE) as c:
		port = c.sock.getsockname()[1]
		c.starttls(context=ctx)
		cipher = c.sock.cipher()[0]
		c.login(ANNA, rig.password)
		c.sendmail(ANNA, [BERT, "x@elsewhere.test"], text("facts"))
	row = next((o for o in rig.journaled() if o["message_id"] == "<facts@remote.test>"), {})
	t.comes(lambda: row.get("queue_id", "?") in rig.maillog(),
		f"{engine}: the queue ID of Sendmail's log", lambda: row)
	t.equal((row.get("auth_user"), row.get("direction")), (ANNA, "out"),
		f"{engine}: login and direction")
	t.equal(row.get("client"), {"addr": "127.0.0.1", "name": "localhost", "port": port,
				    "helo": "laptop.example.test", "tls_version": "TLSv1.3",
				    "tls_cipher": cipher}, f"{engine}: the client and its TLS")


def sessions(t, rig, engine):
	"""Many messages a connection, given up at each stage in between."""
	told, before = {}, len(rig.journaled())
	with smtp.Client(rig.smtp_port) as c:
		for i in range(40):
			if i % 4 == 1:
				c.cmd(b"MAIL FROM:<gone@remote.test>", 250)
				if i % 8 == 1:
					c.cmd(b"RCPT TO:<anna@example.test>", 250)
				c.cmd(b"RSET", 250)
			data = text(f"row{i}")
			got = c.mail(data, f"w{i}@remote.test", [ANNA])
			told[smtp.queue_id(got)] = (f"w{i}@remote.test", data)
		c.quit()
	for stage in (b"", b"MAIL FROM:<gone@remote.test>", b"RCPT TO:<anna@example.test>", b"DATA",
		      b"Subject: cut\r\n\r\nnot all of"):
		c = smtp.Client(rig.smtp_port)
		for line in (b"MAIL FROM:<gone@remote.test>", b"RCPT TO:<anna@example.test>", b"DATA"):
			if stage:
				c.cmd(line)
			if line == stage or not stage:
				break
		if stage.startswith(b"Subject"):
			c.send(stage)
		c.sock.shutdown(socket.SHUT_RDWR)
		c.close()
	rows = {o["queue_id"]: o for o in rig.journaled()}
	t.equal(len(rows) - before, 40, f"{engine}: 40 messages in one session, 10 given up, "
		"5 connections cut: records")
	bad = [q for q, (sender, data) in told.items()
	       if rows[q]["sender"] != sender or rig.raw(q) != data]
	t.ok(len(told) == 40 and not bad, f"{engine}: each with its own sender and bytes", bad)


def sick(t, rig, engine):
	"""A journal that cannot take mail: refused for a while, nothing half done."""
	before = len(rig.journaled())
	rig.conf_extra = "min_free = 900T"
	rig.write_conf()
	rig.procs["mailwald"].send_signal(signal.SIGHUP)
	rigs.wait_for("reload", lambda: "event=reloaded" in rig.mailwald_log())
	codes = []
	with smtp.Client(rig.smtp_port) as c:
		for i in range(3):
			try:
				codes.append(c.mail(text(f"sick{i}"), "w@remote.test", [ANNA])[0])
			except smtp.SmtpError as e:
				codes.append(e.code)
				c.cmd(b"RSET", 250)
		c.quit()
	t.equal(codes, [451] * 3, f"{engine}: no room below min_free: answers")
	rig.conf_extra = ""
	rig.write_conf()
	rig.procs["mailwald"].send_signal(signal.SIGHUP)
	rigs.wait_for("reload", lambda: rig.mailwald_log().count("event=reloaded") == 2)
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(text("well"), "w@remote.test", [ANNA])
		c.quit()
	t.ok(got[0] == 250 and len(rig.journaled()) == before + 1,
	     f"{engine}: taken again, and only that has a record", got)
	rig.wait_queue()


def one_engine(t, engine):
	with sendmail.Sendmail(t.sub(engine), engine=engine, witness=True, access=ACCESS,
			       rules="R$+ < @ example.test . > $*	$#outside $@ x $: $1 < @ x > $2",
			       ) as rig:
		rig.start()
		tricky(t, rig, engine)
		envelope(t, rig, engine)
		facts(t, rig, engine)
		sessions(t, rig, engine)
		sick(t, rig, engine)
		r = rig.mailwal("audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0, f"{engine}: audit: all that Sendmail accepted is journaled, and what "
		     "it refused or clients gave up is no hole", r)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, f"{engine}: verify finds nothing wrong", r)


def main(t):
	if sendmail.find() is None:
		if os.environ.get("CI") == "true":
			t.ok(False, "CI has Sendmail (contrib/install-deps test)")
		t.skip("no Sendmail: contrib/install-deps test unpacks it")
		return
	for engine in ("native", "libmilter"):
		one_engine(t, engine)


tap.run(main)
