#!/usr/bin/python3
"""What became of captured mail, learned from the log of a real Postfix: outcomes, audit, and
a replay that goes by them. Delivered, bounced, deferred, handed on, held, discarded mail; a
user who deletes before the backup; mail that the queue delivers after it."""
# MW_TEST_COST 25

import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import smtp
import tap

ANNA, BERT, DORA, EMIL = (f"{n}@example.test" for n in ("anna", "bert", "dora", "emil"))
GHOST = "ghost@example.test"  # Postfix takes it, Dovecot does not know it
DEAD = "smtp:[127.0.0.1]:1"
# Postfix's log format, as one of its own lines would be if the server wrote into its answer
# what it likes.
EVIL = '"x>, relay=none, delay=0, dsn=2.0.0, status=sent (ok)"@remote.test'


def post(rig, name, rcpts, sender="w@remote.test", header="", port=None):
	"""One message by SMTP; the server's code."""
	data = (f"From: {sender}\r\nTo: {rcpts[0]}\r\nSubject: {name}\r\n{header}"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	with smtp.Client(port or rig.smtp_port) as c:
		return c.mail(data, sender, rcpts)[0]


def transports(rig, dead):
	servers.write(f"{rig.dir}/transport", "".join(f"{a} {DEAD}\n" for a in dead))


def make(t):
	d = t.sub("rig")
	servers.write(f"{d}/headers", "/^X-Test: drop/ DISCARD test\n/^X-Test: hold/ HOLD test\n")
	# A texthash path may hold no blank: names are relative to no place, so by a link.
	link = f"/tmp/mw-out.{os.getpid()}"
	if os.path.islink(link):
		os.unlink(link)
	os.symlink(d, link)
	rig = rigs.Rig(d, users=(ANNA, BERT, DORA, EMIL), postfix=f"""\
transport_maps = texthash:{link}/transport
header_checks = regexp:{link}/headers
""")
	transports(rig, [DORA, EMIL])
	with open(f"{rig.run}/mailboxes", "a", encoding="utf-8") as f:
		f.write(f"{GHOST} x\n")
	return rig, link


def restart_postfix(rig):
	rig.end("postfix")
	rig.start_postfix()


def outcomes(rig, *args):
	return rig.mailwal("--json", "outcomes", *args)


def audit(rig, *args):
	r = rig.mailwal("--json", "audit", *args, f"{rig.run}/maillog")
	return r, sorted(o["cause"] for o in r.lines if o.get("message_type") == "hole")


def settle(rig, left):
	rigs.wait_for(f"{left} messages left in the queue",
		      lambda: len([o for o in rig.queue() if o["queue_name"] != "active"]) == left
		      and len(rig.queue()) == left)


def fill(t, rig):
	codes = [post(rig, f"a{i}", [ANNA]) for i in range(6)]
	codes += [post(rig, "half", [ANNA, GHOST]), post(rig, "late", [DORA]),
		  post(rig, "stuck", [EMIL]), post(rig, "evil", [BERT], EVIL),
		  post(rig, "held", [BERT], header="X-Test: hold\r\n")]
	t.equal(set(codes), {250}, "all mail accepted")
	rig.sendmail(b"Subject: by hand\n\nhello\n", ANNA, [BERT])
	settle(rig, 3)


def facts(t, rig):
	"""outcomes and audit on a whole site."""
	log = f"{rig.run}/maillog"
	r = outcomes(rig, log)
	s = r.summary or {}
	t.ok(r.rc == 0 and s.get("outcomes_written", 0) >= 20 and s.get("unknown_queue_ids") == 0,
	     "outcomes are noted, and every queue ID has its record", r)
	again = outcomes(rig, "--fresh", log)
	t.ok(again.rc == 0 and (again.summary or {}).get("outcomes_written") == 0
	     and (again.summary or {}).get("lines", 0) >= s.get("lines", 1),
	     "reading the whole log again adds nothing", again)
	more = outcomes(rig, log)
	t.ok(more.rc == 0 and (more.summary or {}).get("lines", 99) < 99,
	     "the next run goes on where the last one ended", more)
	packed = f"{t.dir}/old.gz"
	with open(packed, "wb") as f:
		subprocess.run(["gzip", "-c", log], stdout=f, check=True)
	gz = outcomes(rig, packed)
	t.ok(gz.rc == 0 and (gz.summary or {}).get("lines", 99) < 99,
	     "a packed log is known to have been read", gz)
	row = next((o for o in rig.journaled() if o["message_id"] == "<half@remote.test>"), {})
	r = rig.mailwal("--json", "show", row.get("id", "?"))
	t.equal(sorted((o["recipient"], o["outcome"]) for o in r.lines[0].get("outcomes", [])),
		[(ANNA, "delivered"), (GHOST, "bounced")], "show --json has the outcomes")
	r = rig.mailwal("show", row.get("id", "?"))
	t.ok(f"<{GHOST}> bounced " in r.out and f"<{ANNA}> delivered " in r.out, "show too", r)
	r, holes = audit(rig)
	s = r.summary or {}
	t.ok(r.rc == 0 and not holes and s.get("accepted", 0) == s.get("journaled", -1)
	     and s.get("not_accepted") == 0, "audit: all that was accepted is journaled", r)


def holes(t, rig):
	"""Ways past the journal, each named."""
	t.equal(post(rig, "drop", [ANNA], header="X-Test: drop\r\n"), 250, "a discarded mail")
	# its line is in the log before Postfix' logger ends
	rigs.wait_for("its line", lambda: "discard: header X-Test" in rig.maillog())
	path = f"{rig.run}/postfix/main.cf"
	with open(path, encoding="utf-8") as f:
		conf = f.read()

	def restart_with(text):
		servers.write(f"{path}.new", text)  # its programs may read it any time
		os.replace(f"{path}.new", path)
		restart_postfix(rig)

	restart_with(conf.replace("non_smtpd_milters =", "x_non ="))
	told = "sender non-delivery notification"
	before = rig.maillog().count(told)
	rig.sendmail(b"Subject: past\n\nhello\n", ANNA, [GHOST])
	rigs.wait_for("its bounce", lambda: rig.maillog().count(told) > before)
	settle(rig, 3)
	restart_with(conf.replace("default_action=tempfail", "default_action=accept"))
	rig.end("mailwald")
	t.equal(post(rig, "unseen", [BERT]), 250, "a mail while mailwald is down")
	rigs.wait_for("its line", lambda: "message-id=<unseen@remote.test>" in rig.maillog())
	rig.start_mailwald()
	restart_with(conf)
	settle(rig, 3)
	r, causes = audit(rig)
	t.ok(r.rc == 1 and causes == ["discarded", "milter_down", "notice", "pickup"],
	     "audit names each hole by its cause, exit 1", f"{causes}\n{r}")
	r, causes = audit(rig, "--since", "now")
	t.ok(r.rc == 0 and not causes, "audit --since now: nothing", r)
	r, causes = audit(rig)
	st = rig.mailwal("--json", "status")
	t.ok(st.lines and st.lines[0].get("audit_holes") == 4 and st.rc == 1,
	     "status shows the audit's result", st)


def delete(rig, user, subjects):
	c = mailbox.login(rig, user)
	c.select("INBOX")
	for s in subjects:
		for uid in c.uid("SEARCH", None, "SUBJECT", s)[1][0].split():
			c.uid("STORE", uid.decode(), "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()


def bags(state):
	return {k: sorted(mailbox.without_trace(s.data) for s in v)
		for k, v in state.items() if v}


def disaster(t, rig):
	users = [ANNA, BERT, DORA, EMIL]
	delete(rig, ANNA, ["a0", "a1"])
	time.sleep(1.2)  # the log's stamps have whole seconds
	t.ok(rig.mailwal("mark", "nightly").rc == 0, "mark")
	rig.backup()
	t.ok(rig.mailwal("mark", "nightly", "--complete").rc == 0, "mark --complete")
	transports(rig, [EMIL])
	restart_postfix(rig)
	rig.flush()
	settle(rig, 2)
	for i in range(2):
		post(rig, f"new{i}", [ANNA])
	post(rig, "newhalf", [BERT, GHOST])
	settle(rig, 2)
	before = bags(mailbox.dump(rig, users))
	t.ok(any(b"text of late" in d for d in before.get((DORA, "INBOX"), [])),
	     "what was deferred is delivered after the mark")
	rig.destroy_store()
	rig.end("dovecot")
	rig.start_dovecot()
	r = outcomes(rig, f"{rig.run}/maillog")
	t.ok(r.rc == 0, "outcomes after the loss", r)
	r = rig.replay("--since-mark", "nightly", "--overlap", "1h", "-n")
	t.ok("was the backup restored?" in r.err, "an empty store is remarked upon", r)
	rig.end("dovecot")
	rig.destroy_store()
	rig.restore()
	rig.start_dovecot()
	dry = rig.replay("--since-mark", "nightly", "-n")
	s = dry.summary or {}
	t.ok(s.get("restored") == 4 and s.get("bounced") == 1 and s.get("queued") == 1,
	     "--since-mark takes what was delivered later too, and not what bounced", dry)
	run = rig.replay("--since-mark", "nightly", "--overlap", "1h", "--report",
			 f"{t.dir}/report.json")
	s = run.summary or {}
	t.ok(run.rc == 0 and [s.get(k) for k in ("restored", "removed", "bounced", "queued")]
	     == [4, 2, 2, 2], "replay --overlap 1h: 4 put back, 2 removed by their user, 2 "
	     "bounced, 2 in the queue", run)
	t.ok(s.get("selected") == sum(s.get(k, 0) for k in (
		"already_there", "restored", "failed", "doubtful", "skipped", "removed", "refused",
		"bounced", "queued", "left")), "the numbers add up", run)
	after = bags(mailbox.dump(rig, users))
	t.ok(after == before, "every mailbox is as it was: nothing lost, nothing brought back",
	     differences(before, after))
	with open(f"{t.dir}/report.json", encoding="utf-8") as f:
		kinds = sorted(c["kind"] for c in json.load(f)["copies"])
	t.equal(kinds, ["bounced"] * 2 + ["queued"] * 2 + ["removed"] * 2,
		"the report names each")
	again = rig.replay("--since-mark", "nightly", "--overlap", "1h")
	t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
	     and bags(mailbox.dump(rig, users)) == before, "a second run puts back 0", again)
	everything = rig.replay("--all", "-n")
	t.ok((everything.summary or {}).get("restored") == 2
	     and (everything.summary or {}).get("removed") == 0,
	     "without a mark nothing counts as removed", everything)
	transports(rig, [])
	restart_postfix(rig)
	subprocess.run(["/usr/sbin/postsuper", "-c", f"{rig.run}/postfix", "-H", "ALL"],
		       capture_output=True, check=False)
	rig.flush()
	rig.wait_queue()
	got = bags(mailbox.dump(rig, [EMIL, BERT]))
	t.ok(sum(b"text of stuck" in d for d in got.get((EMIL, "INBOX"), [])) == 1
	     and sum(b"text of held" in d for d in got.get((BERT, "INBOX"), [])) == 1,
	     "what was in the queue comes from the queue, once", {k: len(v) for k, v in got.items()})


def differences(a, b):
	return "\n".join(f"{k}: {len(a.get(k, []))} before, {len(b.get(k, []))} after"
			 for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k))


def follow(t, rig):
	"""A log that grows and is rotated, followed; and what is left of it later."""
	lines = rig.whole_maillog().splitlines(keepends=True)
	log, cut = f"{t.dir}/fol low.log", [len(lines) // 4, len(lines) // 2, len(lines) * 3 // 4]

	def write(part, mode="a"):
		with open(log, mode, encoding="utf-8") as f:
			f.write("".join(part))

	write(lines[:cut[0]], "w")
	p = subprocess.Popen(rig.mailwal_argv("--json", "outcomes", "--follow", log),
			     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
	state = os.path.join(rig.journal, "ledger", "outcomes.state")

	def reached(n):
		size = len("".join(n).encode())
		with open(state, encoding="utf-8") as f:
			return any(o["path"] == log and o["offset"] == size
				   for o in json.load(f)["logs"])

	try:
		rigs.wait_for("the first part", lambda: reached(lines[:cut[0]]), alive=p)
		write(lines[cut[0]:cut[1]])
		os.rename(log, log + ".1")
		write(lines[cut[1]:cut[2]], "w")
		rigs.wait_for("the rotated part", lambda: reached(lines[cut[1]:cut[2]]), alive=p)
		p.send_signal(signal.SIGTERM)
		out, err = p.communicate(timeout=tap.PATIENCE)
	finally:
		if p.poll() is None:
			p.kill()
	s = json.loads(out.splitlines()[-1]) if out else {}
	t.ok(p.returncode == 130 and s.get("lines") == cut[2], "a rotated log is followed; stopped: 130",
	     f"{p.returncode} {s} {cut} {err}")
	write(lines[cut[2]:-1])
	os.rename(log, log + ".2")
	write(lines[-1:], "w")
	r = outcomes(rig, log)
	t.equal((r.summary or {}).get("lines"), len(lines) - cut[2],
		"what is left of a rotated log is read later")
	t.equal(outcomes(rig, log).summary.get("lines"), 0, "and only once")


def journald(t, rig):
	"""What journalctl prints, from a stand-in for it."""
	d = t.sub("bin")
	with open(f"{d}/journalctl", "w", encoding="utf-8") as f:
		f.write("#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"${0%/*}/args\"\ncat \"${0%/*}/out\"\n")
	os.chmod(f"{d}/journalctl", 0o755)
	with open(f"{d}/out", "w", encoding="utf-8") as f:
		for line in rig.maillog().splitlines():
			at = time.strptime(f"{time.gmtime().tm_year} {line[:15]}", "%Y %b %d %H:%M:%S")
			f.write(time.strftime("%Y-%m-%dT%H:%M:%S.000001", at)
				+ time.strftime("%z", time.localtime()) + line[15:] + "\n")
	env = dict(os.environ, PATH=f"{d}:{os.environ['PATH']}")
	r = rig.mailwal("--json", "outcomes", "journald", env=env)
	t.ok(r.rc == 0 and r.summary and r.summary["events"] > 20
	     and r.summary["outcomes_written"] == 0, "the same log by journald says the same", r)
	r = rig.mailwal("--json", "outcomes", "journald", env=env)
	with open(f"{d}/args", encoding="utf-8") as f:
		args = f.read().splitlines()
	t.ok("--since=@0 " in args[0] and re.search("--since=@[1-9][0-9]{9} ", args[1]) and "SYSLOG_FACILITY=2" in args[1],
	     "journalctl is asked for the mail facility, later only for what is new", args)
	r = rig.mailwal("outcomes", "--follow", "journald", env=env)
	with open(f"{d}/args", encoding="utf-8") as f:
		args = f.read().splitlines()[-1]
	t.ok(r.rc == 0 and " -f -nall -m" in args, "to follow, entries of earlier boots are asked for "
	     "too", f"{r} {args}")
	r = rig.mailwal("--json", "audit", "--since", "-1h", "journald", env=env)
	t.ok(r.rc == 1 and (r.summary or {}).get("holes") == 4, "audit by journald", r)


def entries(rig):
	"""The log, as systemd's journal would hold it."""
	for line in rig.maillog().splitlines():
		m = re.match(r"(.{15}) (\S+) ([^\[ ]+)\[(\d+)\]: (.*)", line)
		at = time.strptime(f"{time.gmtime().tm_year} {m[1]}", "%Y %b %d %H:%M:%S")
		yield {"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": str(int(time.mktime(at)) * 10**6 + 1),
		       "_HOSTNAME": m[2], "SYSLOG_IDENTIFIER": m[3], "_PID": m[4], "MESSAGE": m[5]}


def forms(t, rig):
	"""The same log in further forms says the same."""
	want = (outcomes(rig, "--fresh", f"{rig.run}/maillog").summary or {}).get("events")
	at = "short-full"
	text = {"json": "".join(json.dumps(e) + "\n" for e in entries(rig)),
		"export": "".join("".join(f"{k}={v}\n" for k, v in e.items()) + "\n"
				  for e in entries(rig)),
		at: "".join(time.strftime("%a %Y-%m-%d %H:%M:%S %Z ", time.localtime(
			int(e["__REALTIME_TIMESTAMP"]) // 10**6)) + f"{e['_HOSTNAME']} "
			f"{e['SYSLOG_IDENTIFIER']}[{e['_PID']}]: {e['MESSAGE']}\n" for e in entries(rig))}
	for form, lines in text.items():
		log = f"{t.dir}/{form}"
		servers.write(log, lines)
		subprocess.run(["gzip", "-f", log], check=True)
		os.rename(f"{log}.gz", log)  # what it is shows in its content
		r = outcomes(rig, "--fresh", log)
		t.equal((r.rc, (r.summary or {}).get("events"), (r.summary or {}).get("outcomes_written")),
			(0, want, 0), f"journalctl -o {form}, packed")
		r = rig.mailwal("--json", "audit", log)
		t.ok(r.rc == 1 and (r.summary or {}).get("holes") == 4, f"{form}: audit", r)


def bad_input(t, rig):
	r = rig.mailwal("outcomes", f"{t.dir}/no such file")
	t.ok(r.rc == 66 and "no such file" in r.err, "a missing log: exit 66", r)
	r = rig.mailwal("audit", t.dir)
	t.ok(r.rc == 64, "a directory: exit 64", r)
	r = rig.mailwal("audit")
	t.ok(r.rc == 64, "no log: exit 64", r)
	junk = f"{t.dir}/junk"
	with open(junk, "wb") as f:
		f.write(os.urandom(300000) + b"\n" + b"A" * 200000 + b"\n\n\0\n")
	r = outcomes(rig, junk)
	t.ok(r.rc == 65 and "lines can be read" in r.err, "a log of junk: exit 65", r)
	with open(junk + ".gz", "wb") as f:
		f.write(b"\x1f\x8bnot really")
	r = outcomes(rig, junk + ".gz")
	t.ok(r.rc == 74, "a damaged packed log: exit 74", r)


def main(t):
	rig, link = make(t)
	try:
		with rig:
			rig.start()
			fill(t, rig)
			facts(t, rig)
			holes(t, rig)
			disaster(t, rig)
			follow(t, rig)
			journald(t, rig)
			forms(t, rig)
			bad_input(t, rig)
	finally:
		os.unlink(link)


tap.run(main)
