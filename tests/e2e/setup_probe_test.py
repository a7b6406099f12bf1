#!/usr/bin/python3
"""setup --check --send-test: one message through a real Postfix or Sendmail is found in the
journal, with or without its key; where Postfix passes mailwald by, that is a hole, and where
it refuses the message, an error with its words."""
# MW_TEST_COST 15

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import sendmail
import tap

ANNA = "anna@example.test"


def check(rig, *args, json=True):
	"""(result, the line on the test message or {}, names of the holes in the settings)"""
	r = rig.mailwal(*(["--json"] if json else []), "setup", "postfix", "--check",
			"--postfix-config", f"{rig.run}/postfix", *args)
	test = [o for o in r.lines if isinstance(o, dict)
		and o.get("message_type") == "test_message"]
	holes = [o["name"] for o in r.lines if isinstance(o, dict)
		 and o.get("message_type") == "hole"]
	return r, test[0] if test else {}, holes


def send(rig, *args, json=True):
	return check(rig, "--send-test", ANNA, "--via", f"127.0.0.1:{rig.smtp_port}", *args,
		     json=json)


def found(t, rig):
	"""The path is whole."""
	r, test, holes = send(rig)
	rows = rig.journaled()
	t.need(len(rows) == 1, "one message was sent, and has a record", f"{rows}\n{r}")
	row = rows[0]
	t.ok(test.get("accepted") is True and test.get("journaled") is True
	     and test.get("before_answer") is True, "accepted, journaled before the answer", r)
	t.equal((test.get("id"), test.get("queue_id"), test.get("record_queue_id")),
		(row["id"], row["queue_id"], row["queue_id"]), "it names that record")
	t.equal((row["message_id"], row["sender"], row["recipients"]),
		(test["message_id"], ANNA, [ANNA]), "from and to the address given")
	t.ok("can be deleted" in row["subject"], "its subject says that it can be deleted", row)
	t.equal((r.rc, r.summary["holes"]), (1 if holes else 0, len(holes)),
		"the exit status is that of the settings")
	r = send(rig, json=False)[0]
	row = next((o for o in rig.journaled() if o["id"] != row["id"]), {"id": "?"})
	t.ok(row["id"] in r.out and "journaled before the answer" in r.out
	     and row["queue_id"] in r.out and "HOLE: the test" not in r.out,
	     "as text: record and queue ID", r)
	rig.wait_queue()
	t.equal(len(rig.lmtp_deliveries()), 2, "both were delivered")


def refused(t, rig):
	"""No message is taken: the server's own words."""
	r, test, _ = check(rig, "--send-test", "ghost@example.test", "--via",
			   f"127.0.0.1:{rig.smtp_port}")
	t.ok(r.rc == 69 and "refused" in r.err and "550" in r.err and test["accepted"] is False
	     and test["journaled"] is False, "an unknown recipient: exit 69", r)
	rig.end("mailwald")
	r, test, _ = send(rig)
	t.ok(r.rc == 69 and "refused" in r.err and "451" in r.err and test["accepted"] is False,
	     "mailwald is down: exit 69", r)
	rig.start_mailwald()
	port = rigs.free_ports(1)[0]
	r, _, _ = check(rig, "--send-test", ANNA, "--via", f"127.0.0.1:{port}")
	t.ok(r.rc == 69 and str(port) in r.err, "nobody listens there: exit 69", r)


def wrong(t, rig):
	before = len(rig.journaled())
	for args in (["--send-test", "anna"], ["--send-test", f"<{ANNA}>"], ["--send-test", ""],
		     ["--send-test", "a b@example.test"], ["--via", "127.0.0.1:25"],
		     ["--send-test", ANNA, "--via", "127.0.0.1"],
		     ["--send-test", ANNA, "--via", "::1:25"],
		     ["--send-test", ANNA, "--via", "127.0.0.1:25x"],
		     ["--send-test", ANNA, "--via", ":25"],
		     ["--send-test", ANNA, "--wait", "0"], ["--send-test", ANNA, "--wait", "x"]):
		r, test, _ = check(rig, *args)
		t.ok(r.rc == 64 and not test, f"{args}: exit 64", r)
	r = rig.mailwal("setup", "postfix", "--send-test", ANNA)
	t.ok(r.rc == 64, "--send-test without --check: exit 64", r)
	r = rig.mailwal("-j", f"{rig.dir}/none", "setup", "postfix", "--check", "--send-test", ANNA,
			"--via", f"127.0.0.1:{rig.smtp_port}")
	t.ok(r.rc == 66 and "none" in r.err and "--send-test" in r.err, "no journal: exit 66", r)
	t.equal(len(rig.journaled()), before, "and nothing was sent")


def sealed(t, rig):
	"""A journal that this caller has no key for."""
	key = f"{rig.run}/key"
	r = rig.mailwal("keys", "new", "--out", key, "--on-this-host")
	t.need(r.rc == 0, "a recovery key", r)
	rig.end("mailwald")
	rig.configure(conf=f"recovery_key = {key}.pub")
	rig.start_mailwald()
	r, test, _ = send(rig)
	t.ok(test.get("journaled") is True and test.get("before_answer") is True
	     and test.get("queue_id") and test.get("record_queue_id") == "",
	     "found without the key of the journal", r)
	listed = rig.mailwal("--json", "--key", key, "list", "--message-id",
			     test.get("message_id", "?"))
	t.equal([(o["id"], o["queue_id"]) for o in listed.lines if "queue_id" in o],
		[(test["id"], test["queue_id"])], "which the key confirms")


def hole(t, rig):
	"""Postfix without its milter takes the message, and nobody journals it."""
	rig.wait_queue()
	rig.end("postfix")
	rig.configure(postfix="smtpd_milters =")
	rig.start_postfix()
	before = len(rig.whole_maillog())
	r, test, _ = send(rig, "--wait", "1")
	t.ok(r.rc == 1 and test.get("accepted") is True and test.get("journaled") is False
	     and test.get("id") is None, "past mailwald: a hole, exit 1", r)
	t.ok(test.get("queue_id") and f"{test['queue_id']}: " in rig.whole_maillog()[before:],
	     "with the queue ID that Postfix has", test)
	t.ok(r.summary["holes"] >= 2, "counted beside the one in the settings", r)
	r = send(rig, "--wait", "1", json=False)[0]
	t.ok(r.rc == 1 and "HOLE: the test message was accepted by the server with queue ID "
	     in r.out and "within 1 s" in r.out, "as text", r)


def by_sendmail(t):
	"""The same beside Sendmail: found, a hole without the filter, a hole without F=."""
	if sendmail.find() is None:
		if os.environ.get("CI") == "true":
			t.ok(False, "CI has Sendmail (contrib/install-deps test)")
		t.skip("no Sendmail: contrib/install-deps test unpacks it")
		return
	with sendmail.Sendmail(t.sub("sendmail"), users=(ANNA,), aliases={}) as rig:

		def ask():
			r = rig.mailwal("--json", "setup", "sendmail", "--check", "--sendmail-config",
					f"{rig.sm}/sendmail.cf", "--send-test", ANNA, "--via",
					f"127.0.0.1:{rig.smtp_port}", "--wait", "1")
			return r, *([o for o in r.lines if isinstance(o, dict)
				     and o.get("message_type") == "test_message"] or [{}])

		def again(filters):
			rig.end_sendmail()
			rig.with_mailwald, rig.flags = filters is not None, filters or ""
			rig.write_cf()
			rig.start_sendmail()

		rig.start()
		r, test = ask()
		rows = rig.journaled()
		t.ok(test.get("journaled") is True and test.get("before_answer") is True
		     and [o["queue_id"] for o in rows] == [test["queue_id"]],
		     "Sendmail: journaled before the answer", r)
		again(None)
		r, test = ask()
		t.ok(r.rc == 1 and test.get("accepted") is True and test.get("journaled") is False,
		     "Sendmail without the filter: a hole", r)
		t.comes(lambda: test["queue_id"] in rig.maillog(), "with Sendmail's queue ID", rig.maillog)
		again("")
		rig.end("mailwald")
		r, test = ask()
		t.ok(r.rc == 1 and test.get("accepted") is True and test.get("journaled") is False,
		     "Sendmail without F=, mailwald down: a hole", r)
		again(" F=T,")
		r, test = ask()
		t.ok(r.rc == 69 and test.get("accepted") is False and "451" in r.err,
		     "Sendmail with F=T: refused for a while, no hole", r)
		t.equal(len(rig.journaled()), 1, "one of the four has a record")


def main(t):
	with rigs.Rig(t.sub("rig"), users=(ANNA,), aliases={}) as rig:
		rig.start()
		found(t, rig)
		refused(t, rig)
		wrong(t, rig)
		sealed(t, rig)
		hole(t, rig)
	by_sendmail(t)


tap.run(main)
