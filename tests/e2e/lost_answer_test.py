#!/usr/bin/python3
"""A message is journaled, then the answer to it is lost, and its sender comes again: two
records. Where Postfix' cleanup dies before it has queued the message, that is one delivery;
where only the answer to the client is lost (its smtpd dies), the first is delivered too. The
log tells them apart, read at once or in pieces; a replay beside the store puts nothing back,
and after the loss of the store each delivery once. Where the log was not read, or lacks the line
that tells, the first record is put back too, and named: a surplus is better than a loss."""
# MW_TEST_COST 20

import json
import os
import re
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap
from witness import Witness

ANNA = "anna@example.test"
FAILED = re.compile(r"^.* postfix/smtpd\[\d+\]: disconnect from .* data=0/1 .*\n", re.M)


class Killer(Witness):
	"""A milter behind ours that ends a service of Postfix before it answers, when armed."""

	master = victims = hook = None
	killed = 0

	def _session(self, c):
		while True:
			(n,) = struct.unpack(">I", self._read(c, 4))
			pkt = self._read(c, n)
			cmd = pkt[:1]
			if cmd == b"Q":
				return
			if cmd == b"O":
				self._send(c, b"O", struct.pack(">III", 6, 0, 0))
			elif cmd not in (b"D", b"A", b"K"):
				if cmd == b"E" and self.victims:
					self._kill()
				if cmd == b"E" and self.hook:
					hook, self.hook = self.hook, None
					hook()
				self._send(c, b"c")

	def _kill(self):
		names, self.victims = self.victims, None
		for pid in filter(str.isdigit, os.listdir("/proc")):
			try:
				with open(f"/proc/{pid}/stat", encoding="ascii") as f:
					name, rest = f.read().rsplit(")", 1)
			except OSError:
				continue
			if name.split("(", 1)[1] in names and int(rest.split()[1]) == self.master:
				self.killed += 1  # before anybody sees that it is gone
				os.kill(int(pid), signal.SIGKILL)


def post(port, name):
	"""(code, text); 0 where the answer was lost."""
	data = (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	with smtp.Client(port) as c:
		try:
			return c.mail(data, "w@remote.test", [ANNA])
		except (smtp.SmtpError, OSError) as e:
			return 0, str(e)


def copies(rig, name):
	want = f"text of {name}\r\n".encode()
	return sum(s.data.replace(b"\r\n", b"\n").endswith(want.replace(b"\r\n", b"\n"))
		   for v in mailbox.dump(rig, [ANNA]).values() for s in v)


def failures(rig):
	return len(FAILED.findall(rig.maillog()))


def records(rig, name):
	return [o for o in rig.journaled() if f"{name}@remote.test" in o["message_id"]]


def told(rig, rows):
	"""What `show` says of each record as a whole, or of its recipient."""
	out = []
	for o in rows:
		r = rig.mailwal("--json", "show", o["id"])
		out.append(sorted({x.get("outcome") for x in r.lines[0].get("outcomes") or []}))
	return out


def losses(t, rig, port, killer):
	"""Each message twice, its first answer lost in one way."""
	code, text = post(port, "first")  # master lets a service rest for a minute that dies
	t.need(code == 250, "a message like any other", text)  # before it has done some work
	rigs.wait_for("its delivery", lambda: not rig.queue() and copies(rig, "first") == 1)
	killer.victims = ("cleanup",)
	code, text = post(port, "torn")
	t.need(killer.killed and 400 <= code < 500,
	       "cleanup dies behind our answer: the sender is told to come again", (code, text))
	rigs.wait_for("the end of the session", lambda: failures(rig) == 1)
	killer.victims = ("smtpd",)
	code, text = post(port, "cut")
	t.need(killer.killed > 1 and code == 0, "smtpd dies behind our answer: the sender hears "
	       "nothing", (code, text))


def again(t, rig, port):
	"""Their senders come again."""
	time.sleep(1.2)  # the log's stamps have whole seconds, and more must be in the queue
	for name in ("torn", "cut"):
		code, text = post(port, name)
		t.ok(code == 250, f"the sender of {name} comes again", (code, text))
	rigs.wait_for("the deliveries", lambda: not rig.queue() and copies(rig, "cut") == 2)
	for name, n in (("torn", 1), ("cut", 2)):
		rows = records(rig, name)
		t.ok(len(rows) == 2 and rows[0]["queue_id"] != rows[1]["queue_id"]
		     and copies(rig, name) == n, f"{name}: two records, {n} delivered",
		     (rows, copies(rig, name)))


def gone(t, rig, port, killer):
	"""The client goes away: in the midst of the message, and between its end and the answer."""
	data = b"Message-ID: <gone@remote.test>\r\n\r\ntext of gone\r\n"
	for end in (b"", b".\r\n"):
		c = smtp.Client(port)
		for verb in ("MAIL FROM:<w@remote.test>", f"RCPT TO:<{ANNA}>", "DATA"):
			c.cmd(verb.encode())
		if end:
			# it is behind our answer that he goes
			killer.hook = c.sock.close
			c.sock.sendall(data + end)
			rigs.wait_for("him to go", lambda: killer.hook is None)
		else:
			c.sock.sendall(data)
			c.sock.close()
			rigs.wait_for("the end of the session", lambda: failures(rig) == 2)
	rigs.wait_for("the delivery", lambda: not rig.queue() and copies(rig, "gone") == 1)
	code, text = post(port, "gone")
	t.ok(code == 250, "a client who goes before he is answered comes again", (code, text))
	rigs.wait_for("it too", lambda: not rig.queue() and copies(rig, "gone") == 2)
	t.equal(len(records(rig, "gone")), 2, "gone before the end: no record; behind it: two of two "
		"deliveries")


def undecided(t, rig, port, killer):
	"""As torn; but the line that tells is not in the log that will be read."""
	killer.victims = ("cleanup",)
	code, text = post(port, "dark")
	t.ok(400 <= code < 500, "cleanup dies once more", (code, text))
	rigs.wait_for("the end of the session", lambda: failures(rig) == 3)
	time.sleep(1.2)
	code, text = post(port, "dark")
	t.ok(code == 250, "the sender of dark comes again", (code, text))
	rigs.wait_for("the delivery", lambda: not rig.queue() and copies(rig, "dark") == 1)


def in_pieces(t, rig):
	"""The log as it grew, but for one line that was lost: outcomes goes on where the last
	run ended, in the midst of sessions."""
	whole, part = rig.whole_maillog(), f"{t.dir}/maillog"
	lost = list(FAILED.finditer(whole))[2]
	log = (whole[:lost.start()] + whole[lost.end():]).splitlines(keepends=True)
	for i in range(0, len(log), 3):
		with open(part, "a", encoding="utf-8") as f:
			f.write("".join(log[i:i + 3]))
		r = rig.mailwal("outcomes", part)
		if r.rc:
			break
	t.ok(r.rc == 0, "outcomes, piece by piece", r)


def main(t):
	port = rigs.free_ports(1)[0]
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,))
	killer = Killer(f"{rig.run}/killer.sock")
	rig.configure(master=f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {{ smtpd_milters = "
		      f"{{ unix:{rig.milter_sock}, default_action=tempfail }}, "
		      f"unix:{killer.path} }}\n")
	with rig:
		rig.start()
		killer.start()
		rigs.wait_for("the killer", lambda: rigs.connects(port))
		killer.master = rig.procs["postfix"].pid
		losses(t, rig, port, killer)
		again(t, rig, port)
		gone(t, rig, port, killer)
		undecided(t, rig, port, killer)
		before = {n: copies(rig, n) for n in ("first", "torn", "cut", "gone", "dark")}
		r = rig.replay("--all", "-n")
		t.ok((r.summary or {}).get("restored") == 2, "no log was read: the two that are "
		     "missing would be put back", r)
		in_pieces(t, rig)
		t.equal(told(rig, records(rig, "torn")), [["refused"], ["delivered"]],
			"torn: the first was never taken")
		t.equal(told(rig, records(rig, "cut")), [["delivered"], ["delivered"]],
			"cut: both were delivered")
		t.equal(told(rig, records(rig, "gone")), [["delivered"], ["delivered"]],
			"gone: so were they")
		t.equal(told(rig, records(rig, "dark")), [[], ["delivered"]],
			"dark: of the first the log says nothing")
		r = rig.mailwal("--json", "audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "the audit finds no hole", r)
		report = f"{t.dir}/report.json"
		r = rig.replay("--all", "--report", report)
		with open(report, encoding="utf-8") as f:
			named = [c["kind"] for c in json.load(f)["copies"]]
		t.ok(r.rc == 0 and [(r.summary or {}).get(k) for k in ("restored", "ambiguous")]
		     == [1, 1] and "ambiguous" in named and copies(rig, "torn") == 1,
		     "a replay beside the store: dark is put back, and named as ambiguous", r)
		r = rig.mailwal("--json", "outcomes", "--fresh", f"{rig.run}/maillog")
		t.ok(r.rc == 0 and (r.summary or {}).get("outcomes_written") == 1,
		     "the whole log at once says the same, and of dark what was missing", r)
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		r = rig.replay("--all", "--fresh")
		after = {n: copies(rig, n) for n in before}
		t.ok(r.rc == 0 and after == before and (r.summary or {}).get("refused") == 2,
		     "after the loss of the store: each delivery once", (before, after, r))
		killer.stop()


tap.run(main)
