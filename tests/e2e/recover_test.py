#!/usr/bin/python3
"""A user purges mail and gets it back: search, --missing, put back into a folder once, on
record, into a real Dovecot; aliases, Sent mail, a Maildir, an encrypted journal, erasure."""

import calendar
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

ANNA, BERT, CLEO = (f"{n}@example.test" for n in ("anna", "bert", "cleo"))
INFO = "info@example.test"
GHOST = "ghost@example.test"  # Postfix takes it, Dovecot does not know it
FOLDER, UTF7 = "Zurück/2026", "Zur&APw-ck/2026"

ATTACHED = b"""\
Subject: =?koi8-r?B?8NLJ18XU?= report\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="b 1"\r
\r
--b 1\r
Content-Type: text/html; charset=iso-8859-1\r
Content-Transfer-Encoding: quoted-printable\r
\r
<p>Die Gr=F6=\r
=DFe der <b>Fa</b>&ccedil;ade</p>\r
--b 1\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename*=utf-8''Rechnung%20M%C3%A4rz.pdf\r
Content-Transfer-Encoding: base64\r
\r
AAAA\r
--b 1--\r
"""


def plain(name, subject, text="text"):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {subject}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\n{text} of {name}\r\n").encode()


def post(rig, data, rcpts, sender="w@remote.test"):
	with smtp.Client(rig.smtp_port) as c:
		return c.mail(data, sender, rcpts)[0]


def submit(rig, name, user, rcpt):
	"""As that user; what his mail program would save as sent is returned."""
	data = (f"From: {user}\r\nTo: {rcpt}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@example.test>\r\n\r\nwritten by {user}\r\n").encode()
	job = smtp.Job(data, user, [rcpt], user)
	rig.send([job], sessions=1)
	return data


def fill(t, rig):
	codes = [post(rig, plain(f"n{i}", f"number {i}"), [ANNA]) for i in range(6)]
	codes.append(post(rig, plain("accents", "=?iso-8859-1?Q?Fa=E7ade_=C9t=E9?="), [ANNA]))
	codes.append(post(rig, b"From: =?utf-8?Q?J=C3=BCrgen?= <w@remote.test>\r\n"
			  b"Message-ID: <attached@remote.test>\r\n" + ATTACHED, [ANNA]))
	codes.append(post(rig, plain("alias", "by alias"), [INFO]))
	codes.append(post(rig, plain("tagged", "by tag"), ["anna+x@example.test"]))
	codes.append(post(rig, plain("other", "for bert"), [BERT]))
	codes.append(post(rig, b"Subject: nameless\r\n\r\nno Message-ID\r\n", [ANNA]))
	t.equal(set(codes), {250}, "all mail accepted")
	sent = submit(rig, "sent-kept", ANNA, "x@elsewhere.test")
	submit(rig, "sent-lost", ANNA, "x@elsewhere.test")
	submit(rig, "to-myself", ANNA, ANNA)
	rig.wait_queue()
	c = mailbox.login(rig, ANNA)
	c.create("Archive")
	# As a mail program saves it, and as a user files it.
	c.append("Archive", None, None, sent)
	c.logout()


def ids(r):
	return [o["id"] for o in r.lines if "queue_id" in o]


def subjects(r):
	return sorted(o["subject"] for o in r.lines if "queue_id" in o)


def recover(rig, *args, user=ANNA):
	return rig.mailwal("--json", "recover", "--user", user, *args)


def to(rig):
	return ["--to", f"imap://127.0.0.1:{rig.imap_port}", "--password-file",
		rig.password_file, "--auth-user", rigs.MASTER]


def purge(rig, user, names):
	"""Deletes the messages with these Message-IDs out of every folder; how many."""
	c, n = mailbox.login(rig, user), 0
	for f in mailbox.folders(c):
		for m in mailbox.fetch(c, f):
			if mailbox.message_id(m.data).strip("<>").split("@")[0] in names:
				c.select(f'"{f}"')
				c.uid("STORE", str(m.uid), "+FLAGS", "(\\Deleted)")
				c.expunge()
				n += 1
	c.logout()
	return n


def searching(t, rig):
	for what, args, want in (
		("subject with accents", ["--subject", "FACADE ete"], ["Façade Été"]),
		("subject in Cyrillic", ["--subject", "привет"], ["Привет report"]),
		("From", ["--from", "jurgen"], ["Привет report"]),
		("attachment", ["--attachment", "rechnung marz"], ["Привет report"]),
		("body", ["--body", "die grösse der facade"], ["Привет report"]),
		("body and subject", ["--body", "text of n3", "--subject", "number"],
		 ["number 3"]),
		("nothing", ["--body", "text of n3", "--subject", "facade"], []),
		("sender and size", ["--sender", "w@remote.test", "--larger", "500"],
		 ["Привет report"]),
		("what came by the alias", ["--subject", "by alias"], ["by alias"]),
		("what came with an extension", ["--subject", "by tag"], ["by tag"])):
		r = recover(rig, *args)
		t.ok(r.rc == 0 and subjects(r) == want, f"search by {what}: {want}", r)
	r = recover(rig)
	t.ok(r.rc == 0 and len(ids(r)) == 14 and "for bert" not in subjects(r),
	     "without terms: all of her mail and no other", r)
	r = recover(rig, user="anna")
	t.equal(len(ids(r)), 14, "the same by her name without domain")
	r = recover(rig, user=INFO)
	t.ok(r.rc == 64 and ANNA in r.err and BERT in r.err,
	     "an alias of several people is refused by name", r)
	r = recover(rig, user=GHOST)
	t.ok(r.rc == 67, "an unknown user is not found", r)
	r = rig.mailwal("list", "-o", "tsv", "--body", "text of other")
	t.ok(r.rc == 0 and "for bert" in r.out, "list looks into messages too", r)


def usage(t, rig, bert):
	for args, code in (
		(["--missing"], 64), (["--folder", "X"], 64), (["--dry-run"], 64),
		([*to(rig)], 64), ([*to(rig), "--all", "--folder", "a//b"], 64),
		(["--to", f"mbox:{rig.dir}/x", "--folder", "F", "--all"], 64),
		([*to(rig), "--all", "1"], 64), (["--body", "\t"], 64),
		(["--subject", "x", "11111111111"], 64),
		(["zzzzzzzzzzz"], 66), ([bert, *to(rig)], 66)):
		r = recover(rig, *args)
		t.ok(r.rc == code and r.err, f"recover {' '.join(args[-2:])}: exit {code}", r)
	r = rig.mailwal("recover", "--subject", "x")
	t.ok(r.rc == 64 and "--user" in r.err, "whose mail must be said", r)


def put_back(t, rig):
	"""Purged mail comes back once, whatever outcomes say."""
	log = f"{rig.run}/maillog"
	rig.mailwal("outcomes", log)
	rig.mailwal("mark", "nightly")
	rig.mailwal("mark", "nightly", "--complete")
	t.equal(purge(rig, ANNA, ("n1", "n4", "attached", "sent-lost", "to-myself")), 4,
		"the user purges")
	before = mailbox.dump(rig, [ANNA])
	r = recover(rig, "--missing", *to(rig))
	missing = ["number 1", "number 4", "sent-lost", "to-myself", "Привет report"]
	t.ok(r.rc == 0 and subjects(r) == missing and r.summary["already_there"] == 10
	     and r.summary["selected"] == 15, "--missing names exactly what is gone", r)
	by_subject = {o["subject"]: o["id"] for o in r.lines if "queue_id" in o}
	r = recover(rig, "--missing", "--subject", "number", *to(rig))
	t.equal(subjects(r), missing[:2], "--missing with a selection")
	r = recover(rig, "--missing", "--folder", FOLDER, "-n", *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 5 and r.summary["dry_run"],
	     "dry run with the same number", r)
	t.ok(mailbox.dump(rig, [ANNA]) == before, "nothing was changed by looking")
	t.ok("audit_seq" not in r.summary, "and nothing noted")

	r = recover(rig, by_subject["number 1"], "--folder", FOLDER, *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 1 and r.summary.get("audit_seq")
	     and r.summary["user"] == ANNA and r.summary["folder"] == FOLDER,
	     "one by its ID, into a folder that was not there", r)
	after = mailbox.dump(rig, [ANNA])
	new = after.get((ANNA, UTF7), [])
	raw = rig.raw(by_subject["number 1"])
	row = next(o for o in rig.journaled() if o["id"] == by_subject["number 1"])
	at = calendar.timegm(time.strptime(row["time"][:19], "%Y-%m-%dT%H:%M:%S"))
	t.ok(len(new) == 1 and new[0].data == raw and abs(new[0].date - at) <= 1,
	     "exact bytes, its own date", f"{after.keys()} {new}")
	c = mailbox.login(rig, ANNA)
	t.ok(any(UTF7.encode() in x for x in c.lsub()[1]), "the folder is subscribed")
	c.logout()
	r = recover(rig, by_subject["number 1"], "--folder", "Other", *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 0 and r.summary["already_there"] == 1
	     and "audit_seq" not in r.summary, "again: it is there, in whichever folder", r)
	t.ok((ANNA, "Other") not in mailbox.dump(rig, [ANNA]), "and no folder was made")

	r = recover(rig, "--since-mark", "nightly", "--overlap", "1d", *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 4 and r.summary["removed"] == 0,
	     "the rest by selection, although it was delivered before a completed mark", r)
	after = mailbox.dump(rig, [ANNA])
	where = {k: sorted(mailbox.message_id(m.data) for m in v) for k, v in after.items()}
	t.ok("<sent-lost@example.test>" in where.get((ANNA, "Sent"), []) and
	     "<n4@remote.test>" in where[ANNA, "INBOX"]
	     and "<to-myself@example.test>" in where[ANNA, "INBOX"],
	     "into INBOX and Sent by direction", where)
	t.equal(sum(len(v) for v in after.values()),
		sum(len(v) for v in before.values()) + 5, "five messages more, and no other")
	r = recover(rig, "--missing", *to(rig))
	t.ok(r.rc == 0 and not ids(r) and r.summary["restored"] == 0, "nothing is missing", r)
	r = recover(rig, "--missing", "--folder", FOLDER, *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "and nothing is put back", r)
	return by_subject


def audit(t, rig, by_subject):
	"""Each run that put something is on record twice, found by the mail's ID."""
	seg = subprocess.run(["grep", "-c", "event=note type=restore",
			      os.path.join(rig.dir, "mailwald.log")],
			     capture_output=True, check=False)
	t.equal(seg.stdout.strip(), b"6", "three runs, each with begin and end, by the daemon")
	r = rig.mailwal("--json", "recover", "--history", "--user", "Anna@example.test")
	told = [(o["phase"], o["folder"], len(o["ids"])) for o in r.lines]
	t.ok(r.rc == 0 and told == [
		("begin", "", 1), ("end", "", 1), ("begin", FOLDER, 1), ("end", FOLDER, 1),
		("begin", "", 4), ("end", "", 4)], "--history tells each", r)
	t.ok(r.lines[2]["ids"] == [by_subject["number 1"]] and r.lines[2]["user"] == ANNA
	     and r.lines[2]["by"].startswith("uid 0 (root)") and r.lines[3]["restored"] == 1,
	     "who, for whom, what", r)
	r = rig.mailwal("--json", "recover", "--history", "--user", BERT)
	t.ok(r.rc == 0 and not r.lines, "and nothing of another", r)
	r = rig.mailwal("recover", "--history")
	t.ok(r.rc == 0 and r.out.count("begun") == 3, "of all, as a table", r)
	rig.end("mailwald")
	purge(rig, ANNA, ("n4",))
	r = recover(rig, by_subject["number 4"], "--folder", "Sent", *to(rig))
	t.ok(r.rc == 0 and r.summary["restored"] == 1 and r.summary.get("audit_seq"),
	     "without the daemon too, into Sent by wish", r)
	r = recover(rig, by_subject["number 4"], "--folder", "Sent", *to(rig))
	t.ok(r.rc == 0 and r.summary["already_there"] == 1, "it is seen there", r)
	r = rig.mailwal("verify", "--json")
	t.ok(r.rc == 0, "the journal verifies", r)
	rig.start_mailwald()


def maildir(t, rig):
	place = f"{rig.dir}/restored"
	args = ("--to", f"maildir:{place}/%u", "--create", "--folder", FOLDER)
	r = recover(rig, "--subject", "number", *args)
	d = f"{place}/{ANNA}/.Zur&APw-ck.2026/new"
	t.ok(r.rc == 0 and r.summary["restored"] == 6 and len(os.listdir(d)) == 6,
	     "into a Maildir's folder", r)
	r = recover(rig, "--subject", "number", *args)
	t.ok(r.rc == 0 and r.summary["already_there"] == 6 and len(os.listdir(d)) == 6,
	     "once", r)


def killed(t, rig):
	"""Cut off at any moment and run again: once each."""
	names = tuple(f"n{i}" for i in range(6))
	purge(rig, ANNA, names)
	for ms in (5, 25, 60):
		p = subprocess.Popen(rig.mailwal_argv(
			"recover", "--user", ANNA, "--subject", "number", "--folder", "Killed",
			*to(rig)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
		time.sleep(ms / 1000)
		p.send_signal(signal.SIGKILL)
		p.wait()
	r = recover(rig, "--subject", "number", "--folder", "Killed", *to(rig))
	state = mailbox.dump(rig, [ANNA])
	found = sorted(mailbox.message_id(m.data) for v in state.values() for m in v
		       if b"number" in m.data)
	t.ok(r.rc == 0 and found == [f"<n{i}@remote.test>" for i in range(6)],
	     "killed three times: each message once", f"{r}\n{found}")
	t.ok(not any("mailwal" in f for _, f in state), "and no staging folder stays")


def erased(t, rig, by_subject):
	gone = by_subject["number 1"]
	purge(rig, ANNA, ("n1",))
	r = rig.mailwal("erase", gone, "--yes")
	t.equal(r.rc, 0, "a message is erased")
	r = recover(rig, gone, *to(rig))
	t.ok(r.rc == 65 and "erased" in r.err, "and cannot be recovered", r)
	r = recover(rig, "--missing", *to(rig))
	t.ok(r.rc == 0 and not ids(r), "nor is it missing", r)
	before = rig.mailwal("--json", "status").lines[0]
	r = rig.mailwal("--json", "erase", "--user", ANNA, "--yes")
	t.ok(r.rc == 0, "the person is erased", r)
	raw = b"".join(open(os.path.join(rig.journal, "segments", f), "rb").read()
		       for f in os.listdir(os.path.join(rig.journal, "segments")))
	t.ok(ANNA.encode() not in raw, "with what says that mail was put back for her")
	r = rig.mailwal("--json", "recover", "--history")
	t.ok(r.rc == 0 and not r.lines, "of which nothing is told any more", r)
	r = recover(rig)
	t.ok(r.rc == 67, "she is not known any more", f"{r} {before}")
	r = rig.mailwal("verify", "--json")
	t.ok(r.rc == 0, "the journal verifies", r)


def bounced(t, rig):
	"""What never arrived is not missing."""
	post(rig, plain("ghost", "for a ghost"), [GHOST])
	rigs.wait_for("the bounce", lambda: "status=bounced" in rig.maillog())
	rig.mailwal("outcomes", f"{rig.run}/maillog")
	r = recover(rig, "--missing", "--to", f"maildir:{rig.dir}/ghost", "--create",
		    user=GHOST)
	t.ok(r.rc == 0 and not ids(r) and r.summary["bounced"] == 1,
	     "what bounced is not missing", r)


def test(t):
	with rigs.Rig(t.sub("rig"), users=(ANNA, BERT, CLEO),
		      aliases={INFO: [ANNA, BERT], "anna.b@example.test": [ANNA]}) as rig:
		with open(f"{rig.run}/mailboxes", "a", encoding="utf-8") as f:
			f.write(f"{GHOST} x\n")
		rig.start()
		fill(t, rig)
		searching(t, rig)
		bert = next(o["id"] for o in rig.journaled() if o["subject"] == "for bert")
		usage(t, rig, bert)
		post(rig, plain("one-alias", "an alias of hers"), ["anna.b@example.test"])
		rig.wait_queue()
		r = recover(rig, "--subject", "alias of hers", user="anna.b@example.test")
		t.ok(r.rc == 0 and len(ids(r)) == 1 and "is an alias of" in r.err,
		     "by an alias that is hers alone", r)
		purge(rig, ANNA, ("one-alias",))
		r = recover(rig, "--subject", "alias of hers", *to(rig),
			    user="anna.b@example.test")
		t.ok(r.rc == 0 and r.summary["restored"] == 1 and r.summary["user"] == ANNA,
		     "and put back for her", r)
		by_subject = put_back(t, rig)
		audit(t, rig, by_subject)
		maildir(t, rig)
		killed(t, rig)
		bounced(t, rig)
		erased(t, rig, by_subject)


tap.run(test)
