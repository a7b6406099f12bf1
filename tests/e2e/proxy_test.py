#!/usr/bin/python3
"""The proxy between real servers: Postfix' before-queue content filter, LMTP into Dovecot.

Content is exact in the record and at the next server; LMTP answers per recipient.
"""
# MW_TEST_COST 20

import collections
import json
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap
import workload
from proxied import events, message

TRICKY = workload.CORPUS / "tricky" / "smtp"


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


def main(t):
	content_filter(t)
	lmtp(t)


tap.run(main)
