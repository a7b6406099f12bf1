#!/usr/bin/python3
"""Mail that does not come over SMTP: sendmail(1), bounces, the null sender; and mail that
waits while mailwald is away."""
# MW_TEST_COST 20

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import smtp
import tap


def wait_rows(rig, n, seconds=tap.PATIENCE):
	end = time.monotonic() + seconds
	while True:
		rows = rig.journaled()
		if len(rows) >= n or time.monotonic() > end:
			return rows
		time.sleep(0.2)


def witness_equal(t, rig, rows, what):
	"""The witness comes after mailwald: a record may be there before it has its message."""
	end = time.monotonic() + tap.PATIENCE
	while time.monotonic() < end and any(
			o["queue_id"] not in rig.witness.messages for o in rows):
		time.sleep(0.05)
	bad = [o["queue_id"] for o in rows
	       if o["queue_id"] not in rig.witness.messages
	       or rig.raw(o["id"]) != rig.witness.messages[o["queue_id"]].data]
	t.ok(not bad, f"{what}: stored bytes are what Postfix handed over", bad)


def one_engine(t, engine):
	with rigs.Rig(t.sub(engine), engine=engine, witness=True) as rig:
		rig.start()
		p = rig.sendmail(b"From: anna\nSubject: by hand\n\nhello\n.\nend\n",
				 "anna@example.test", ["bert@example.test", "info@example.test"])
		t.equal(p.returncode, 0, f"{engine}: sendmail(1) exit status")
		rows = wait_rows(rig, 1)
		t.equal([(o["sender"].strip("<>"), sorted(r.strip("<>") for r in o["recipients"]))
			 for o in rows],
			[("anna@example.test", ["bert@example.test", "info@example.test"])],
			f"{engine}: the envelope of sendmail(1)")
		witness_equal(t, rig, rows, f"{engine}: sendmail(1)")

		with smtp.Client(rig.smtp_port) as c:
			got = c.mail(b"From: x@y.test\r\nSubject: null\r\n\r\nb\r\n", "",
				     ["cleo@example.test"], mailargs="SIZE=40 BODY=7BIT",
				     rcptargs="NOTIFY=NEVER ORCPT=rfc822;cleo+2Bx@example.test")
			c.quit()
		t.equal(got[0], 250, f"{engine}: null sender with ESMTP arguments")
		row = next((o for o in rig.journaled() if o["queue_id"] == smtp.queue_id(got)), {})
		t.equal(row.get("sender", "?").strip("<>"), "", f"{engine}: the null sender")
		r = rig.mailwal("show", row.get("id", "?"), "--envelope")
		t.ok(r.rc == 0 and "NOTIFY=NEVER" in r.out and "SIZE=40" in r.out
		     and "cleo+2Bx" in r.out, f"{engine}: show --envelope has the arguments", r)

		before = len(rig.journaled())
		p = rig.sendmail(b"From: a\nSubject: to nobody\n\nx\n", "dora@example.test",
				 ["nosuchuser@example.test"])
		rows = wait_rows(rig, before + 2)
		bounce = [o for o in rows if o["sender"].strip("<>") == ""
			  and any("dora@" in r for r in o["recipients"])]
		t.ok(len(bounce) == 1, f"{engine}: the bounce is journaled too",
		     [(o["sender"], o["recipients"]) for o in rows])
		witness_equal(t, rig, bounce, f"{engine}: bounce")
		away(t, engine, rig)


def away(t, engine, rig):
	"""mailwald is down: SMTP senders are told to come back, local mail waits."""
	before = len(rig.journaled())
	rig.end("mailwald")
	try:
		with smtp.Client(rig.smtp_port) as c:
			got = c.mail(b"Subject: x\r\n\r\nb\r\n", "a@b.test", ["emil@example.test"])
		code = got[0]
	except smtp.SmtpError as e:
		code = e.code
	t.ok(400 <= code < 500, f"{engine}: without mailwald a sender sees 4xx", code)
	p = rig.sendmail(b"Subject: waits\n\nwaits\n", "emil@example.test", ["emil@example.test"])
	t.equal(p.returncode, 0, f"{engine}: without mailwald sendmail(1) exit status")
	time.sleep(1)
	rig.start_mailwald()
	end = time.monotonic() + tap.PATIENCE
	while len(rig.journaled()) <= before and time.monotonic() < end:
		rig.flush()
		time.sleep(0.5)
	t.ok(len(rig.journaled()) == before + 1, f"{engine}: the waiting mail is journaled "
	     "when mailwald is back", len(rig.journaled()) - before)


def main(t):
	for engine in ("native", "libmilter"):
		one_engine(t, engine)


tap.run(main)
