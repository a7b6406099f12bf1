#!/usr/bin/python3
"""Through real Postfix: what capture sections leave out is delivered, counted and nowhere in
the journal; a replay makes no copy for whom was left out; and the loop guard's token, made
here by its description, lets a message that is put back pass once, without a trace in it."""
# MW_TEST_COST 20

import hashlib
import hmac
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SECTIONS = """
capture legal { match = rcpt:anna@example.test }
capture spam { match = direction:in spam:yes; journal = no }
capture lists { match = "header:List-Id:*announce*"; journal = no }
capture bert { match = rcpt:bert@example.test; journal = no }
"""


def id_bytes(text):
	n = 0
	for c in text:
		n = n << 5 | ALPHABET.index(c)
	return (n >> 2).to_bytes(16, "big")


def token(journal, record, rcpt, content, when=None):
	"""As journal/store/guard.h describes it."""
	with open(os.path.join(journal, "journal"), encoding="ascii") as f:
		secret = dict(line.strip().split(" = ", 1) for line in f if " = " in line)
	key = hmac.digest(bytes.fromhex(secret["token_key"]), b"replay guard 1", "sha256")
	body = content.split(b"\r\n\r\n", 1)[1].replace(b"\r", b"").strip(b"\n")
	ms = int(1000 * (time.time() if when is None else when))
	text = (b"mailwal replay 2" + id_bytes(record) + ms.to_bytes(8, "little")
		+ hashlib.sha256(rcpt.lower().encode()).digest() + hashlib.sha256(body).digest())
	mac = hmac.digest(key, text, "sha256")[:16]
	return f"mwr2.{record}.{ms:012x}.{mac.hex()}"


def put_back(rig, content, rcpt, envid):
	"""One copy into the mail server, as a replay over SMTP does."""
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(content, "list@else.test", [rcpt],
			     mailargs=f"BODY=8BITMIME RET=HDRS ENVID={envid}",
			     rcptargs="NOTIFY=NEVER")
		c.quit()
	return got


def text(subject, more="", body="body"):
	return (f"From: x@else.test\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x.test>\r\n"
		f"{more}\r\n{body}\r\n").encode()


def sections(t, rig, engine):
	jobs = [
		smtp.Job(text("plain"), "x@else.test", ["cleo@example.test"]),
		smtp.Job(text("spam", "X-Spam-Flag: YES\r\n"), "x@else.test", ["cleo@example.test"]),
		smtp.Job(text("spam2", "X-Spam: Yes\r\n"), "x@else.test",
			 ["cleo@example.test", "anna@example.test"]),
		smtp.Job(text("list", "List-Id: The\r\n <announce.else.test>\r\n"), "x@else.test",
			 ["dora@example.test"]),
		smtp.Job(text("bert"), "x@else.test", ["bert@example.test"]),
		smtp.Job(text("info"), "x@else.test", ["info@example.test"]),  # anna and bert
		smtp.Job(text("both"), "x@else.test", ["bert@example.test", "emil@example.test"]),
		smtp.Job(text("ours", "X-Spam: Yes\r\n"), "cleo@example.test",
			 ["dora@example.test"], auth="cleo@example.test"),
	]
	rig.send(jobs, sessions=1)
	rig.wait_queue()
	t.equal([j.code for j in jobs], [250] * len(jobs), f"{engine}: all is accepted")
	rows = {o["message_id"][1:].split("@")[0]: o for o in rig.journaled()}
	t.equal(sorted(rows), ["both", "info", "ours", "plain", "spam2"],
		f"{engine}: what is journaled")
	t.equal(rows["spam2"].get("excluded_recipients"), ["cleo@example.test"],
		f"{engine}: who is left out of a mail that is kept")
	t.equal(rows["both"].get("excluded_recipients"), ["bert@example.test"],
		f"{engine}: and of another")
	t.equal(rows["info"].get("excluded_recipients"), None,
		f"{engine}: an alias that leads to one who is kept")
	def by():
		r = rig.mailwal("--json", "status")
		return {e["section"]: e["messages"] for e in r.lines[-1]["daemon"]["excluded_by"]}
	t.comes(lambda: by() == {"spam": 1, "lists": 1, "bert": 1},
		f"{engine}: status --json counts them", by)
	r = rig.mailwal("status")
	t.ok("Excluded  1 messages" in r.out and "by capture lists" in r.out,
	     f"{engine}: status tells", r)
	r = rig.mailwal("show", rows["both"]["id"], "--envelope")
	t.ok("excluded by a capture section" in r.out, f"{engine}: show tells", r)


def guard(t, rig, engine):
	before = mailbox.count(mailbox.dump(rig))
	rows = rig.journaled()
	row = next(o for o in rows if "plain@" in o["message_id"])
	content, rcpt = rig.raw(row["id"]), "cleo@example.test"
	good = token(rig.journal, row["id"], rcpt, content)
	got = put_back(rig, content, rcpt, good)
	t.equal(got[0], 250, f"{engine}: what is put back is accepted")
	t.equal(len(rig.journaled()), len(rows), f"{engine}: and not journaled again")
	t.comes(lambda: f"event=replayed id={row['id']}" in rig.mailwald_log(),
		f"{engine}: the log names its record", rig.mailwald_log)
	# by another recipient, with another body, made too early, by another journal's key
	put_back(rig, content, "dora@example.test", good)
	put_back(rig, content + b"more\r\n", rcpt, good)
	put_back(rig, content, rcpt, token(rig.journal, row["id"], rcpt, content, 1600000000))
	put_back(rig, content, rcpt, good[:-1] + ("0" if good[-1] != "0" else "1"))
	# the same once more, by somebody who has learned the token
	put_back(rig, content.replace(b"Subject:", b"Subject: new,", 1), rcpt, good)
	t.equal(len(rig.journaled()), len(rows) + 5, f"{engine}: all else is journaled")
	t.comes(lambda: rig.mailwald_log().count("event=not_a_replay") == 5,
		f"{engine}: with a warning", rig.mailwald_log)
	rig.wait_queue()
	state = mailbox.dump(rig)
	t.equal(mailbox.count(state), before + 6, f"{engine}: every one was delivered")
	copies = [m.data for m in state.get((rcpt, "INBOX"), []) if b"<plain@x.test>" in m.data]
	t.ok(copies and not [c for c in copies if b"mwr2" in c],
	     f"{engine}: no trace of the token in a mailbox", copies[:1])
	t.comes(lambda: rig.mailwal("--json", "status").lines[-1]["daemon"]["replayed"] == 1,
		f"{engine}: status counts it")


def replay(t, rig, engine):
	"""The store is lost: what was left out does not come back."""
	rig.destroy_store()
	r = rig.replay("--all")
	t.ok(r.summary and r.summary["failed"] == 0, f"{engine}: the replay", r)
	state = mailbox.dump(rig)
	where = {box[0].split("@")[0] for box, mails in state.items()
		 for m in mails if b"<both@x.test>" in m.data or b"<spam2@x.test>" in m.data}
	t.equal(sorted(where), ["anna", "emil"], f"{engine}: copies for those who are kept only")


def reload_wrong(t, rig):
	"""A reload with a mistake changes nothing; one without takes the new sections."""
	n = len(rig.journaled())
	right, rig.conf_extra = rig.conf_extra, SECTIONS + "capture x { match = spam:perhaps }\n"
	rig.write_conf()
	rig.procs["mailwald"].send_signal(signal.SIGHUP)
	rigs.wait_for("the reload", lambda: "event=reload_refused" in rig.mailwald_log())
	t.ok("spam:yes or spam:no" in rig.mailwald_log() and ":2" in rig.mailwald_log(),
	     "a wrong file is told with its line")
	rig.conf_extra = right
	rig.write_conf()
	rig.send([smtp.Job(text("again"), "x@else.test", ["bert@example.test"])], sessions=1)
	t.equal(len(rig.journaled()), n, "and the sections from before stay in force")
	rig.conf_extra = ""
	rig.write_conf()
	rig.procs["mailwald"].send_signal(signal.SIGHUP)
	rigs.wait_for("the reload", lambda: "event=reloaded" in rig.mailwald_log())
	rig.send([smtp.Job(text("third"), "x@else.test", ["bert@example.test"])], sessions=1)
	t.equal(len(rig.journaled()), n + 1, "a right file takes effect at once")


def alarm(t, rig):
	"""Without room, and on_failure = accept: mail passes, and that is not forgotten."""
	def restart(conf):
		rig.end("mailwald")
		rig.conf_extra = conf
		rig.write_conf()
		rig.start_mailwald()
		rigs.wait_for("the daemon", lambda: status()["daemon_running"])

	def status():
		return rig.mailwal("--json", "status").lines[-1]

	restart("min_free = 1000T\non_failure = accept")
	n = len(rig.journaled())
	jobs = [smtp.Job(text(f"past{i}"), "x@else.test", ["cleo@example.test"])
		for i in range(3)]
	rig.send(jobs, sessions=1)
	t.equal([j.code for j in jobs], [250] * 3, "on_failure = accept: it passes")
	t.equal(len(rig.journaled()), n, "without a record")
	rigs.wait_for("the count", lambda: status()["unjournaled"] >= 3)
	s = status()
	t.ok(s["unjournaled"] == 3 and any("3 messages passed without a record" in p
	     for p in s["problems"]), "status tells", s)
	restart("")
	t.equal(status()["unjournaled"], 3, "also after a restart")
	rig.end("mailwald")
	t.equal(status()["unjournaled"], 3, "and without a daemon")
	rig.start_mailwald()
	rigs.wait_for("the daemon", lambda: status()["daemon_running"])
	r = rig.mailwal("status", "--ack")
	problems = [x for x in r.out.splitlines() if "PROBLEM" in x]
	t.ok(r.rc == 0 and not problems, "until it is acknowledged", problems)
	restart("")
	t.equal(status()["unjournaled"], 0, "for good")


def main(t):
	for engine in ("native", "libmilter"):
		with rigs.Rig(t.sub(engine), engine=engine, conf=SECTIONS) as rig:
			rig.start()
			sections(t, rig, engine)
			guard(t, rig, engine)
			if engine == "native":
				replay(t, rig, engine)
				reload_wrong(t, rig)
				alarm(t, rig)


tap.run(main)
