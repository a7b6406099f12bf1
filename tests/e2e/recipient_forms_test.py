#!/usr/bin/python3
"""Recipients in forms that mean the same mailbox: with a source route, with blanks, with comments,
with the root's dot, in other letters. Real Postfix and Sendmail deliver all of it there; so it is
found under that user, and a replay puts it back."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import smtp
import tap

ANNA = "anna@example.test"
FORMS = ("<anna@example.test>", "<@a.test,@b.test:anna@example.test>",
	 "< anna@example.test >", "<anna@example.test.>",
	 '<"anna"@Example.Test>', "<anna(x)@example.test>", "<anna @example.test>",
	 "<(a (b) c) anna @ example . test. (d)>", '<"anna" @example.test>',
	 "<anna\t@example.test>", "<anna@example.test;>", "<@a.test: @b.test:anna@example.test>",
	 '<"an\\na"@example.test>', "<an\\na@example.test>")
# Sendmail takes no comma there and no open comment; its log ends the third at the first '>'.
POSTFIX = ("<anna@example.test,>", "<, anna@example.test>", "<bob <anna@example.test> >",
	   "<anna@example.test(x>")


def send(rig, forms):
	for i, form in enumerate(forms):
		with smtp.Client(rig.smtp_port) as c:
			c.cmd(b"MAIL FROM:<@c.test:w@remote.test>" if i % 2
			      else b"MAIL FROM:<w(at home)@remote.test>", 250)
			c.cmd(b"RCPT TO:" + form.encode(), 250)
			c.cmd(b"DATA", 354)
			c.cmd(b"Message-ID: <%d@remote.test>\r\nSubject: x\r\n\r\nx\r\n." % i, 250)


def take(t, rig, forms):
	"""All of them are delivered to her, and are found under her, and under their sender."""
	rig.start()
	send(rig, forms)
	rig.wait_queue()
	n = len(forms)
	t.equal(len(rig.journaled()), n, "journaled")
	t.equal(sum(len(v) for k, v in mailbox.dump(rig).items() if k[0] == ANNA), n,
		"delivered to one mailbox")
	t.equal(len(rig.journaled("--user", ANNA)), n, "all of it is found under its user")
	t.equal(len(rig.journaled("--sender", "w@remote.test")), n, "and under its sender")
	return n


def by_sendmail(t):
	"""Its log and its queue name recipients as they came: they are known all the same."""
	with sendmail.Sendmail(t.sub("sendmail")) as rig:
		n = take(t, rig, FORMS)
		r = rig.mailwal("--json", "outcomes", f"{rig.run}/maillog")
		t.equal(r.rc, 0, "outcomes")
		got = [(o["recipient"].lower().replace('"', ""), o["outcome"]) for x in rig.journaled()
		       for o in rig.mailwal("show", x["id"], "--json").lines[0].get("outcomes", [])]
		t.equal(got, [(ANNA, "delivered")] * n, "and their outcomes are known under her name")
		rig.end("dovecot")
		send(rig, FORMS)
		rigs.wait_for("all of it to be in the queue", lambda: len(rig.queue()) == n)
		r = rig.mailwal("--json", "replay", "--all", "--create", "-n", "--queue",
				rig.queue_command(), "--to", f"maildir:{t.sub('boxes')}/%u")
		t.ok(r.summary["queued"] == n, "what waits in its queue is left to it", r)


def main(t):
	by_sendmail(t)
	with rigs.Rig(t.sub("forms")) as rig:
		n = take(t, rig, FORMS + POSTFIX)
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		r = rig.replay("--all", "--yes")
		t.ok(r.rc == 0 and r.summary["restored"] == n and r.summary["failed"] == 0,
		     "a replay after the store is lost", r)
		t.equal(sum(len(v) for k, v in mailbox.dump(rig).items() if k[0] == ANNA), n,
			"it is all there again")


tap.run(main)
