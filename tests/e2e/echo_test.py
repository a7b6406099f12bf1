#!/usr/bin/python3
"""What mailwal puts back through real Postfix, whose LMTP client says no ENVID to a server without
DSN, and the LMTP proxy before Dovecot, or straight into that proxy: it is not journaled again,
whatever else with the same text comes meanwhile, while it waits in Postfix' queue and mailwald is
killed and started again. All else is journaled: a message that its sender sends again, what
somebody makes of the bytes that were put back, the same once more."""
# MW_TEST_COST 20

import collections
import os
import signal
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

ANNA, BERT, CLEO, DORA = (f"{n}@example.test" for n in ("anna", "bert", "cleo", "dora"))
SENDER = "x@else.test"
BODIES = [b"body\r\n", b"", b"\r\n\r\nx\r\n\r\n\r\n", b".\r\n..\r\n", b"\xff\xfe\r\n", b"no end",
	  b"y" * 990 + b"\r\n", b"trail  \r\n\t\r\n", b"line\r\n" * 20000]


def text(i, body=None):
	more = b"Received: from a by b;\r\n\tMon, 23 Nov 2026 10:00:00 +0000\r\n" if i % 2 else b""
	return (more + b"From: x@else.test\r\nSubject: %d\r\nMessage-ID: <m%d@x.test>\r\n\r\n" % (i, i)
		+ (BODIES[i % len(BODIES)] if body is None else body))


def send(rig, jobs, sessions=1):
	rig.send(jobs, sessions=sessions)
	bad = [(j.code, j.text) for j in jobs if j.code != 250]
	assert not bad, bad
	return jobs


def put_back(rig, target, *more):
	return rig.mailwal("--json", "replay", "--accept-side-effects", "--to", target, *more)


def numbers(r):
	return [(r.summary or {}).get(n) for n in ("restored", "failed")]


def copies(rig):
	"""Everybody's messages, without what delivery adds."""
	return collections.Counter(
		(user, mailbox.without_trace(mailbox.crlf(m.data)))
		for (user, _), mails in mailbox.dump(rig).items() for m in mails)


def replayed(rig):
	return rig.mailwal("--json", "status").lines[-1]["daemon"]["replayed"]


def under_load(t, rig, way, target):
	"""Other mail with the same text to others comes while it is put back."""
	rows = rig.journaled()
	want = collections.Counter({k: v for k, v in copies(rig).items() if k[0] != DORA})
	rig.destroy_store()
	stop, jobs, n = threading.Event(), [], sum(want.values())

	def load():
		while not stop.is_set() and len(jobs) < 200:
			jobs.append(smtp.Job(text(len(jobs) % 12), SENDER, [DORA]))
			rig.send(jobs[-1:], sessions=1)

	thread = threading.Thread(target=load)
	thread.start()
	before = replayed(rig)
	r = put_back(rig, target, "--user", ANNA, "--user", BERT, "--user", CLEO)
	stop.set()
	thread.join()
	t.ok(r.rc == 0 and numbers(r) == [n, 0], f"{way}: {n} copies put back", r)
	rig.wait_queue()
	new = [o for o in rig.journaled() if o["id"] not in {x["id"] for x in rows}]
	t.equal((len(new), {o["recipients"][0] for o in new if len(o["recipients"]) == 1}),
		(len(jobs), {DORA} if jobs else set()), f"{way}: journaled is what came beside that")
	t.ok(not [o for o in new if o["sender"] != SENDER], f"{way}: and nothing that was put back", new[:1])
	t.equal(replayed(rig) - before, n, f"{way}: status counts each")
	have = copies(rig)
	t.ok(not want - have and sum((have - want).values()) == len(jobs), f"{way}: each is there once",
	     f"missing {list((want - have).items())[:2]}")
	heads = b"".join(m.data.split(b"\r\n\r\n")[0] for v in mailbox.dump(rig).values() for m in v)
	t.ok(b"mwr2" not in heads and b"mailwal" not in heads.lower(), f"{way}: without a trace in it")


def forge(rig, content):
	"""What comes is no copy of what mailwal put back, though it has all of its header."""
	head, body = content.split(b"\r\n\r\n", 1)
	forged = [content + b"more\r\n", head + b"\r\nSubject: new\r\n\r\n" + body,
		  b"X-New: 1\r\n" + content, head.replace(b"by ", b"by new.", 1) + b"\r\n\r\n" + body]
	for data in forged:
		with smtp.Client(rig.smtp_port) as c:
			c.mail(data, "", [ANNA])
	return len(forged)


def ask(rig, line):
	with socket.socket(socket.AF_UNIX) as s:
		s.settimeout(tap.PATIENCE)
		here = os.open(rig.journal, os.O_PATH)
		s.connect(f"/proc/self/fd/{here}/control.sock")
		os.close(here)
		s.sendall(line + b"\n")
		out = b""
		while not out.endswith(b"\n"):
			got = s.recv(65536)
			if not got:
				break
			out += got
	return out.strip()


def hostile(t, rig):
	"""Whatever is told."""
	good = b"%032x %032x" % (1 << 127, 5)
	for bad in (b"", b" ", good[:-1], good + b"0", good.replace(b" ", b""),
		    good.replace(b" ", b"  "), b"g" + good[1:], good[:-1] + b"\xff", good * 1000,
		    b"-" + good[1:], good + b"\0"):
		said = ask(rig, b"expect " + bad)
		t.ok(said.startswith(b"error usage "), f"expect {bad[:70]!r}: refused", said)
	t.equal(ask(rig, b"expect " + good), b"ok yes", "what is whole is taken")
	t.equal(ask(rig, b"expect " + b"0" * 32 + b" " + b"0" * 32), b"ok yes", "and nothing but zeros")
	t.ok(b'"ready":true' in ask(rig, b"status"), "it goes on")


def drain(rig):
	"""Asked twice: a listing may miss what moves from one queue to the other."""
	rigs.wait_for("the queue", lambda: rig.flush() or not (rig.queue() or rig.queue()))


def begin_again(rig, how):
	"""Another mailwald in the place of this one."""
	if how == "taken over":
		old = rig.procs["mailwald"]
		starts = rig.mailwald_log().count("event=start ")
		new = rig.spawn("mailwald", [rig.mailwald_bin, "-u", "-c", rig.conf])
		old.wait(tap.PATIENCE)
		rigs.wait_for("the new one", lambda: rig.mailwald_log().count("event=start ") > starts,
			      alive=new)
	else:
		rig.end("mailwald", getattr(signal, how))
		rig.start_mailwald()


def held(t, rig, number, how):
	"""It waits in Postfix' queue, and so does what its sender sends again meanwhile."""
	way = f"held in the queue, {how} meanwhile"
	one = text(number)
	send(rig, [smtp.Job(one, SENDER, [ANNA])])
	rig.wait_queue()
	rows, want = rig.journaled(), copies(rig)
	row = next(o for o in rows if f"<m{number}@" in o["message_id"])
	content = rig.raw(row["id"])
	rig.destroy_store()
	rig.end("dovecot")
	n = sum(c for (user, _), c in want.items() if user == ANNA)
	r = put_back(rig, f"smtp:127.0.0.1:{rig.smtp_port}", "--user", ANNA, "--fresh")
	t.ok(r.rc == 0 and numbers(r) == [n, 0], f"{way}: {n} copies given to Postfix", r)
	send(rig, [smtp.Job(one, SENDER, [ANNA]), smtp.Job(one, SENDER, [BERT])])
	with smtp.Client(rig.smtp_port) as c:
		c.mail(one, "", [ANNA])
	more = 3 + forge(rig, content)
	# a listing may have what moves from one queue to the other twice, or not at all
	t.comes(lambda: len({x["queue_id"] for x in rig.queue()}) == n + more,
		f"{way}: all waits: {n + more}", rig.queue)
	t.equal(len(rig.journaled()), len(rows), f"{way}: nothing was journaled yet")
	begin_again(rig, how)
	rig.start_dovecot()
	drain(rig)
	t.equal(len(rig.journaled()) - len(rows), more,
		f"{way}: all is journaled but what was put back")
	t.equal(replayed(rig), n, f"{way}: which status counts")
	# the same bytes once more, by somebody who has them
	with smtp.Client(rig.smtp_port) as c:
		c.mail(content, "", [ANNA])
	rig.wait_queue()
	t.equal(len(rig.journaled()) - len(rows), more + 1, f"{way}: once more, and it is journaled")


def tried_again(t, rig):
	"""The next server has no room: what Postfix brings once more is the same still."""
	rows = rig.journaled()
	rig.destroy_store()
	os.chmod(rig.store, 0o500)
	r = put_back(rig, f"smtp:127.0.0.1:{rig.smtp_port}", "--user", CLEO, "--fresh")
	t.ok(r.rc == 0, "put back where nothing can be delivered", r)
	rigs.wait_for("a refusal", lambda: rig.queue() and all(
		x["recipients"][0].get("delay_reason") for x in rig.queue()))
	os.chmod(rig.store, 0o755)
	drain(rig)
	t.equal(len(rig.journaled()), len(rows), "refused for now and brought again: not journaled")


def later(t, rig, want):
	"""A later replay into an empty store knows each delivery once."""
	rig.destroy_store()
	r = rig.replay("--user", ANNA, "--user", BERT, "--user", CLEO)
	have = copies(rig)
	t.ok(r.rc == 0 and numbers(r) == [sum(want.values()), 0], "a later replay into the empty store", r)
	t.ok(have == want, "puts each copy back once", f"missing {list((want - have).items())[:2]} "
	     f"surplus {list((have - want).items())[:2]}")


def main(t):
	with rigs.Rig(t.sub("echo")) as rig:
		(proxy,) = rigs.free_ports(1)
		rig.configure(conf=f"proxy_listen = lmtp:inet:127.0.0.1:{proxy}->inet:127.0.0.1:"
			      f"{rig.lmtp_port}\n",
			      postfix="smtpd_milters =\nnon_smtpd_milters =\n"
			      "minimal_backoff_time = 1s\nqueue_run_delay = 1s\n"
			      "default_destination_concurrency_failed_cohort_limit = 0\n"
			      f"virtual_transport = lmtp:inet:127.0.0.1:{proxy}")
		rig.start()
		rigs.wait_for("the proxy", lambda: rigs.connects(proxy))
		users = [ANNA, BERT, CLEO]
		send(rig, [smtp.Job(text(i), SENDER if i % 4 else "", users[:1 + i % 3]) for i in range(12)])
		rig.wait_queue()
		first = copies(rig)
		under_load(t, rig, "through Postfix", f"smtp:127.0.0.1:{rig.smtp_port}")
		under_load(t, rig, "straight into the proxy", f"lmtp:127.0.0.1:{proxy}")
		later(t, rig, first)
		held(t, rig, 101, "SIGTERM")
		hostile(t, rig)
		held(t, rig, 102, "SIGKILL")
		held(t, rig, 103, "taken over")
		tried_again(t, rig)
		t.equal(rig.mailwal("verify").rc, 0, "the journal is whole")


tap.run(main)
