#!/usr/bin/python3
"""What became of mail that real Sendmail took: outcomes and audit from its log, every way
past the journal by name, and a replay that knows what Sendmail delivered."""
# MW_TEST_COST 15

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import replaytool
import rig as rigs
import sendmail
import servers
import smtp
import tap

ANNA, BERT, DORA, EMIL = (f"{n}@example.test" for n in ("anna", "bert", "dora", "emil"))
GHOST = "ghost@example.test"  # Sendmail takes it, Dovecot does not know it
LATER = "later@deferred.test"  # a place that nobody answers at
USERS = (ANNA, BERT, DORA, EMIL)
CONFIG = """
D{Dead}[127.0.0.1]
"""
RULES = """\
R$+ < @ deferred.test . > $*	$#esmtp $@ ${Dead} $: $1 < @ deferred.test > $2
R$+ < @ deferred.test > $*	$#esmtp $@ ${Dead} $: $1 < @ deferred.test > $2"""
EVIL = '"x>, delay=0, mailer=dovecot, relay=no, dsn=2.0.0, stat=Sent"@remote.test'


def text(name, more=""):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n{more}"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()


def post(rig, name, rcpts, sender="w@remote.test", data=None, auth=None, **opts):
	with smtp.Client(rig.smtp_port) as c:
		if auth:
			c.auth(auth, rig.password)
		got = c.mail(data or text(name), sender, rcpts, **opts)
		c.quit()
	return got


def make(t):
	return sendmail.Sendmail(t.sub("rig"), users=USERS, aliases={}, config=CONFIG, rules=RULES,
				 access="From:thrown@remote.test|DISCARD\n",
				 mc="define(`ESMTP_MAILER_ARGS', `TCP $h 1')dnl\n")


def settle(rig, left, seconds=tap.PATIENCE):
	rigs.wait_for(f"{left} messages left in the queue", lambda: len(rig.queue()) == left,
		      seconds)


def audit(rig, *args):
	r = rig.mailwal("--json", "audit", *args, f"{rig.run}/maillog")
	return r, sorted(o["cause"] for o in r.lines if o.get("message_type") == "hole")


def fill(t, rig):
	"""Every kind of end."""
	odd = b"From:a@remote.test\r\nSubject:no blank\r\n\r\nneither date nor ID\r\n"
	bare = b"\r\nno header at all\r\n"
	got = [post(rig, f"a{i}", [ANNA]) for i in range(4)]
	got += [post(rig, "half", [ANNA, GHOST]), post(rig, "both", [ANNA, BERT]),
		post(rig, "out", ["someone@elsewhere.test"], sender=ANNA, auth=ANNA),
		post(rig, "late", [LATER]), post(rig, "evil", [BERT], EVIL),
		post(rig, "", [DORA], data=odd), post(rig, "", [DORA], data=odd),
		post(rig, "", [DORA], data=bare),
		post(rig, "long", [EMIL], data=text("long") + b"x" * 5000 + b"\r\n"),
		post(rig, "null", [EMIL], sender="")]
	t.equal({g[0] for g in got}, {250}, "all mail accepted")
	settle(rig, 1)
	rigs.wait_for("the bounce", lambda: "DSN: " in rig.maillog())


def facts(t, rig):
	log = f"{rig.run}/maillog"
	r = rig.mailwal("--json", "outcomes", log)
	s = r.summary or {}
	t.ok(r.rc == 0 and s.get("outcomes_written", 0) >= 14 and s.get("unknown_queue_ids") == 1,
	     "outcomes are noted, and every queue ID but that of the bounce has its record", r)
	again = rig.mailwal("--json", "outcomes", "--fresh", log)
	t.ok(again.rc == 0 and (again.summary or {}).get("outcomes_written") == 0,
	     "reading the whole log again adds nothing", again)
	want = {"half": [(ANNA, "delivered"), (GHOST, "bounced")],
		"both": [(ANNA, "delivered"), (BERT, "delivered")],
		"out": [("someone@elsewhere.test", "sent")], "late": [(LATER, "deferred")],
		"evil": [(BERT, "delivered")], "null": [(EMIL, "delivered")]}
	rows = {o["message_id"]: o for o in rig.journaled()}
	for name, facts_ in want.items():
		r = rig.mailwal("--json", "show", rows.get(f"<{name}@remote.test>", {}).get("id", "?"))
		got = r.lines[0].get("outcomes", []) if r.lines else []
		t.equal(sorted((o["recipient"], o["outcome"]) for o in got), facts_,
			f"outcomes of {name}")
	r, holes = audit(rig)
	s = r.summary or {}
	t.ok(r.rc == 0 and not holes and s.get("accepted") == s.get("journaled") == 14,
	     "audit: all 14 that were accepted are journaled", r)


def contents(rig):
	return {k: sorted(re.sub(rb"(?s)^.*?\r\n(?=(From|Subject|Date|Message-I[dD]|\r\n))", b"",
				 mailbox.crlf(s.data)) for s in v)
		for k, v in mailbox.dump(rig).items() if v}


def nothing_twice(t, rig):
	"""Sendmail's own copies are recognised: by the queue ID in its Received field."""
	before = contents(rig)
	n = sum(len(v) for v in before.values())
	r = rig.replay("--all")
	s = r.summary or {}
	t.ok(r.rc == 0 and s.get("restored") == 1 and s.get("already_there", 0) >= 13,
	     "a replay into the mailboxes that Sendmail filled puts back the Sent copy alone", r)
	t.ok(sum(len(v) for v in contents(rig).values()) == n + 1, "nothing is there twice")
	replaytool.empty(rig)
	rig.end("dovecot")
	rig.start_dovecot()
	r = rig.replay("--all", "--fresh")
	t.ok(r.rc == 0 and (r.summary or {}).get("restored") == n + 1,
	     f"after the loss of all mailboxes {n + 1} copies are put back", r)
	again = rig.replay("--all", "--fresh")
	t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0, "and only once", again)


def restart(rig, **fields):
	"""Sendmail anew, with other fields of the rig."""
	rig.end_sendmail()
	for name, value in fields.items():
		setattr(rig, name, value)
	rig.write_cf()
	rig.start_sendmail()


def holes(t, rig):
	"""Ways past the journal, each named."""
	t.equal(post(rig, "thrown", [ANNA], sender="thrown@remote.test")[0], 250, "a discarded mail")
	before = len(rig.journaled())
	t.comes(lambda: audit(rig)[1] == ["discarded"], "the audit names what DISCARD threw away",
		lambda: audit(rig))
	rig.sendmail(b"Subject: by hand\n\nhello\n", ANNA, [BERT])
	settle(rig, 1)
	restart(rig, flags="")
	rig.end("mailwald")
	t.equal(post(rig, "unseen", [BERT])[0], 250,
		"without F= mail passes while mailwald is down")
	rig.start_mailwald()
	restart(rig, flags=" F=T,")
	settle(rig, 1)
	restart(rig, with_mailwald=False)
	t.equal(post(rig, "unheard", [BERT])[0], 250, "without INPUT_MAIL_FILTER mail passes")
	restart(rig, with_mailwald=True)
	settle(rig, 1)
	t.equal(len(rig.journaled()), before, "none of these has a record")
	r, causes = audit(rig)
	t.ok(r.rc == 1 and causes == ["discarded", "milter_down", "no_milters", "pickup"],
	     "audit names each hole by its cause, exit 1", f"{causes}\n{r}")


def check(rig, file):
	r = rig.mailwal("--json", "setup", "sendmail", "--check", "--sendmail-config", file)
	return r, sorted(o["name"] for o in r.lines if o.get("message_type") == "hole")


def settings(t, rig):
	"""setup sendmail: what it prints makes a configuration in which it finds no hole."""
	mc, cf = f"{rig.sm}/sendmail.mc", f"{rig.sm}/sendmail.cf"
	r, holes_ = check(rig, cf)
	t.ok(r.rc == 1 and holes_ == ["discard", "submit"],
	     "setup --check: the access table's DISCARD, no submit.cf", r)
	servers.write(f"{rig.sm}/submit.cf", "D{MTAHost}[127.0.0.1]\n")
	servers.write(f"{rig.sm}/access", "Connect:127.0.0.1|OK\n")
	for file in (mc, cf):
		r, holes_ = check(rig, file)
		t.ok(r.rc == 0 and not holes_, f"no hole in {os.path.basename(file)}", r)
	rig.flags = ""
	rig.write_cf()
	t.equal([check(rig, f)[1] for f in (mc, cf)], [["F"], ["F"]], "without F=, in both files")
	rig.with_mailwald = False
	rig.write_cf()
	t.equal([check(rig, f)[1] for f in (mc, cf)], [["InputMailFilters"]] * 2,
		"without mailwald, in both files")
	printed = rig.mailwal("setup", "sendmail")
	rig.mc_extra += printed.out
	rig.write_cf()
	t.equal([check(rig, f)[1] for f in (mc, cf)], [[], []],
		"what setup sendmail prints, taken into sendmail.mc")
	before = len(rig.journaled())
	restart(rig, with_mailwald=False)
	t.ok(post(rig, "printed", [BERT])[0] == 250 and len(rig.journaled()) == before + 1,
	     "and with it mail has its record", printed)
	r = rig.mailwal("--json", "setup", "sendmail", "--check", "--sendmail-config", cf,
			"--send-test", BERT, "--via", f"127.0.0.1:{rig.smtp_port}")
	test = [o for o in r.lines if o.get("message_type") == "test_message"]
	row = rig.journaled()[-1]
	t.ok(r.rc == 0 and [(o["journaled"], o["before_answer"], o["id"], o["queue_id"])
			    for o in test] == [(True, True, row["id"], row["queue_id"])],
	     "and --send-test finds the record of its message", f"{row}\n{r}")
	r, holes_ = check(rig, f"{t.dir}/none.cf")
	t.ok(r.rc == 66, "no such file: exit 66", r)


MAKEFILE = """sendmail.cf: sendmail.mc
	m4 -D_CF_DIR_={cf}/ -D_NO_MAKEINFO_ sendmail.mc >new.cf
	{then}
	mv new.cf sendmail.cf
"""


def read(path):
	with open(path, encoding="utf-8") as f:
		return f.read()


def apply(rig, *more):
	return rig.mailwal("--json", "setup", "sendmail", "--apply", "--sendmail-config",
			   f"{rig.sm}/sendmail.mc", *more)


def summary(r):
	return next((o for o in r.lines if o.get("message_type") == "summary"), {})


def applies(t, rig):
	"""setup sendmail --apply: sendmail.mc and, by make, a sendmail.cf without a hole."""
	mc, cf = f"{rig.sm}/sendmail.mc", f"{rig.sm}/sendmail.cf"
	rig.with_mailwald, rig.mc_extra = False, ""
	rig.write_cf()
	old, oldcf = read(mc), read(cf)
	os.utime(cf, (1, 1))
	r = apply(rig)
	t.ok(r.rc == 64 and read(mc) == old, "no terminal, no --yes: nothing done", r)
	servers.write(f"{rig.sm}/Makefile", MAKEFILE.format(cf=rig.cf_dir, then="false"))
	r = apply(rig, "--yes")
	t.ok(r.rc == 69 and read(mc) == old and not os.path.exists(f"{mc}.before-mailwal"),
	     "make fails: the old file stands again, exit 69", r)
	servers.write(f"{rig.sm}/Makefile", MAKEFILE.format(cf=rig.cf_dir, then="true"))
	r = apply(rig, "--yes")
	t.ok(r.rc == 0 and summary(r).get("built") and read(f"{mc}.before-mailwal") == old,
	     "applied, made, the old file kept", r)
	t.equal([check(rig, f)[1] for f in (mc, cf)], [[], []], "and --check finds no hole")
	t.ok(read(cf) != oldcf, "sendmail.cf is another")
	again = apply(rig, "--yes")
	t.ok(again.rc == 0 and summary(again).get("changes") == 0, "has these settings already",
	     again)
	before = len(rig.journaled())
	rig.end_sendmail()
	rig.start_sendmail()
	t.ok(post(rig, "applied", [BERT])[0] == 250 and len(rig.journaled()) == before + 1,
	     "with it mail has its record", r)
	# m4 itself says what a list made behind the mailers comes to
	rig.mc_extra = ("MAIL_FILTER(`spam', `S=inet:9@127.0.0.1')dnl\n"
			"MAIL_FILTER(`virus', `S=inet:9@127.0.0.1')dnl\n")
	rig.write_cf()
	servers.write(mc, read(mc) + "define(`confINPUT_MAIL_FILTERS', `virus,spam')dnl\n")
	os.utime(cf, (1, 1))
	r = apply(rig, "--yes")
	t.ok(r.rc == 0 and summary(r).get("built") and
	     "O InputMailFilters=virus,spam, mailwal\n" in read(cf),
	     "behind a list that stands in the file, last", r)
	os.unlink(f"{rig.sm}/Makefile")


def refuses(t, rig):
	"""F=T and F=4: nothing is taken while mailwald is away."""
	rig.end("mailwald")
	for flags in (" F=T,", " F=4,"):
		restart(rig, flags=flags)
		try:
			code = post(rig, "away", [BERT])[0]
		except smtp.SmtpError as e:
			code = e.code
		t.ok(code in (421, 451), f"mailwald is down,{flags} answer {code}")
	rig.start_mailwald()
	restart(rig, flags=" F=T,")
	t.equal(post(rig, "back", [BERT])[0], 250, "and taken again when it is back")
	settle(rig, 1)
	r, causes = audit(rig)
	t.equal(len(causes), 4, "what was refused is no hole")


def backslashes(t, rig):
	"""Sendmail logs a backslash as two, and a byte that is no ASCII as \\ooo."""
	rcpts = [r"an\na@example.test", r'"b\ert"@example.test', r'a\"n@example.test',
		 r'"x\\y"@example.test', "m\u00fcll@example.test", DORA]
	for i, rcpt in enumerate(rcpts):
		t.equal(post(rig, f"slash{i}", [rcpt])[0], 250, f"taken for {rcpt}")
	rows = [o for o in rig.journaled() if o["message_id"].startswith("<slash")]
	t.equal(len(rows), len(rcpts), "and journaled")

	def known():
		rig.mailwal("outcomes", f"{rig.run}/maillog")
		return [sorted(o["recipient"] for o in rig.mailwal("--json", "show", r["id"]).lines[0]
			       .get("outcomes", ())) for r in rows]
	t.comes(lambda: known() == [r["recipients"] for r in rows],
		"the outcomes are of the recipients of the record",
		lambda: (known(), [r["recipients"] for r in rows]))


def main(t):
	if sendmail.find() is None:
		t.skip("no Sendmail: contrib/install-deps test unpacks it")
		return
	with make(t) as rig:
		rig.start()
		fill(t, rig)
		facts(t, rig)
		nothing_twice(t, rig)
		holes(t, rig)
		refuses(t, rig)
		settings(t, rig)
		applies(t, rig)
		backslashes(t, rig)


tap.run(main)
