#!/usr/bin/python3
"""A message is journaled, then the answer to it is lost behind Sendmail, and its sender comes
again: two records. Where a filter behind ours breaks off, or Sendmail's process dies before it
has queued the message, that is one delivery, and the log tells the first; where the client
left too early, both are delivered. A replay beside the store puts back what the dead process
had alone, which the log does not tell, and names it; after the loss of the store each delivery
once."""
# MW_TEST_COST 20

import json
import os
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import smtp
import tap
from witness import Witness

ANNA = "anna@example.test"
NAMES = ("first", "torn", "broken", "gone")


class Behind(Witness):
	"""A filter behind ours that, once armed, does that at the next end of message, with
	the number of Sendmail's process that asks."""

	todo = None

	def _session(self, c):
		pid = struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
		while True:
			(n,) = struct.unpack(">I", self._read(c, 4))
			cmd = self._read(c, n)[:1]
			if cmd == b"Q":
				return
			if cmd == b"O":
				self._send(c, b"O", struct.pack(">III", 6, 0, 0))
			elif cmd not in (b"D", b"A", b"K"):
				if cmd == b"E" and self.todo:
					todo, self.todo = self.todo, None
					todo(pid)
				self._send(c, b"c")


def break_off(_pid):
	raise EOFError


def data(name):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()


def post(rig, name):
	"""Its code; 0 where the answer was lost."""
	with smtp.Client(rig.smtp_port) as c:
		try:
			return c.mail(data(name), "w@remote.test", [ANNA])[0]
		except (smtp.SmtpError, OSError):
			return 0


def gone(rig, behind):
	"""The client leaves before the end of the message, and between it and the answer."""
	for end in (b"", b".\r\n"):
		c = smtp.Client(rig.smtp_port)
		for verb in ("MAIL FROM:<w@remote.test>", f"RCPT TO:<{ANNA}>", "DATA"):
			c.cmd(verb.encode())
		behind.todo = (lambda _pid, c=c: c.close()) if end else None
		c.send(data("gone") + end)
		if end:
			rigs.wait_for("him to go", lambda: behind.todo is None)
		else:
			c.close()


def copies(rig):
	dump = [s.data.replace(b"\r\n", b"\n") for v in mailbox.dump(rig, [ANNA]).values() for s in v]
	return {n: sum(d.endswith(f"text of {n}\n".encode()) for d in dump) for n in NAMES}


def told(rig, name):
	rows = [o["id"] for o in rig.journaled() if o["message_id"] == f"<{name}@remote.test>"]
	return [sorted({x["outcome"] for x in rig.mailwal("--json", "show", i).lines[0].get("outcomes")
			or []}) for i in rows]


def main(t):
	if sendmail.find() is None:
		t.skip("no Sendmail: contrib/install-deps test unpacks it")
		return
	rig = sendmail.Sendmail(t.sub("rig"), users=(ANNA,), aliases={})
	behind = Behind(f"{rig.run}/behind.sock")
	rig.mc_extra = sendmail.FILTER.format(name="behind", socket=behind.path, flags=" F=T,",
					      **rig.timeouts)
	rig.write_cf()
	with rig:
		behind.start()
		rig.start()
		t.equal(post(rig, "first"), 250, "a message like any other")
		behind.todo = lambda pid: os.kill(pid, signal.SIGKILL)
		t.equal(post(rig, "torn"), 0, "Sendmail's process dies behind our answer: the sender "
			"hears nothing")
		behind.todo = break_off
		t.equal(post(rig, "broken"), 451, "a filter behind ours breaks off: come again")
		gone(rig, behind)
		for name in ("torn", "broken", "gone"):
			t.equal(post(rig, name), 250, f"the sender of {name} comes again")
		before = {"first": 1, "torn": 1, "broken": 1, "gone": 2}
		rigs.wait_for("the deliveries", lambda: not rig.queue() and sum(copies(rig).values()) >= 5)
		t.equal(copies(rig), before, "delivered")
		r = rig.replay("--all", "-n")
		t.ok((r.summary or {}).get("restored") == 2, "no log was read: the two that are "
		     "missing would be put back", r)
		r = rig.mailwal("outcomes", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "outcomes", r)
		for name, want in (("first", [["delivered"]]), ("torn", [[], ["delivered"]]),
				   ("broken", [["refused"], ["delivered"]]),
				   ("gone", [["delivered"], ["delivered"]])):
			t.equal(told(rig, name), want, f"{name}: what became of each record")
		r = rig.mailwal("audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "the audit finds no hole", r)
		report = f"{t.dir}/report.json"
		r = rig.replay("--all", "--report", report)
		with open(report, encoding="utf-8") as f:
			named = [c["kind"] for c in json.load(f)["copies"]]
		before["torn"] += 1
		t.ok(r.rc == 0 and [(r.summary or {}).get(k) for k in ("restored", "ambiguous", "refused")]
		     == [1, 1, 1] and "ambiguous" in named and copies(rig) == before,
		     "a replay beside the store: torn is put back, and named as ambiguous",
		     (r, named, copies(rig)))
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		r = rig.replay("--all", "--fresh")
		t.ok(r.rc == 0 and copies(rig) == before and (r.summary or {}).get("ambiguous") == 1,
		     "after the loss of the store: each once, and torn named", (copies(rig), r))
		behind.stop()


tap.run(main)
