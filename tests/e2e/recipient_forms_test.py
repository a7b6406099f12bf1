#!/usr/bin/python3
"""Recipients in forms that mean the same mailbox: with a source route, with blanks, with the root's
dot, in other letters. Real Postfix delivers all of it there; so it is found under that user, and a
replay puts it back."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

ANNA = "anna@example.test"
FORMS = ("<anna@example.test>", "<@a.test,@b.test:anna@example.test>",
	 "< anna@example.test >", "<anna@example.test.>",
	 '<"anna"@Example.Test>')


def main(t):
	with rigs.Rig(t.sub("forms")) as rig:
		rig.start()
		for i, form in enumerate(FORMS):
			with smtp.Client(rig.smtp_port) as c:
				c.cmd(b"MAIL FROM:<@c.test:w@remote.test>", 250)
				c.cmd(b"RCPT TO:" + form.encode(), 250)
				c.cmd(b"DATA", 354)
				c.cmd(b"Message-ID: <%d@remote.test>\r\nSubject: x\r\n\r\nx\r\n." % i, 250)
		rig.wait_queue()
		n = len(FORMS)
		t.equal(len(rig.journaled()), n, "journaled")
		t.equal(sum(f"to=<{ANNA}>" in x.lower().replace('"', "") for x in rig.lmtp_deliveries()), n,
			"delivered to one mailbox")
		t.equal(len(rig.journaled("--user", ANNA)), n, "all of it is found under its user")
		t.equal(len(rig.journaled("--sender", "w@remote.test")), n, "and under its sender")
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		r = rig.replay("--all", "--yes")
		t.ok(r.rc == 0 and r.summary["restored"] == n and r.summary["failed"] == 0,
		     "a replay after the store is lost", r)
		t.equal(sum(len(v) for k, v in mailbox.dump(rig).items() if k[0] == ANNA), n,
			"it is all there again")


tap.run(main)
