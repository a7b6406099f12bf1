#!/usr/bin/python3
"""A commit that takes long: mailwald says again and again that it is still at it, so that
Postfix and Sendmail whose patience for an answer is ten seconds (Sendmail's own default) wait
for theirs, and the sender hears 250. Through both front ends."""
# MW_TEST_COST 25

import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import faults
import milterclient
import rig as rigs
import sendmail
import smtp
import tap

ANNA = "anna@example.test"
PATIENCE, HELD = 10, 13  # seconds


def make(directory, mta, engine):
	if mta == "postfix":
		return faults.PostfixRig(directory, engine=engine, users=(ANNA,), postfix=
					 f"virtual_transport = discard:\nmilter_content_timeout = {PATIENCE}s")
	rig = faults.SendmailRig(directory, engine=engine, users=(ANNA,),
				 timeouts={"r": f"{PATIENCE}s"},
				 rules="R$+ < @ $+ > $*	$#outside $@ x $: $1 < @ $2 > $3",
				 mc="define(`confDELIVERY_MODE', `queueonly')dnl")
	rig.options = []
	return rig


class Commit:
	"""One message through the MTA and one straight into the socket, which hears what
	mailwald says, while no sync ends."""

	def __init__(self, rig):
		self.rig, self.heard, self.answer = rig, [], None
		self.data = (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: patience\r\n"
			     "Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n"
			     "Message-ID: <patience@remote.test>\r\n\r\ntext\r\n").encode()
		rig.delay(-1)
		self.threads = [threading.Thread(target=f, daemon=True)
				for f in (self._listen, self._send)]
		for t in self.threads:
			t.start()

	def _listen(self):
		c = milterclient.Conn(self.rig.milter_sock)
		c.envelope("LISTENER")
		c.send(b"E")
		buf = b""
		while not self.heard or self.heard[-1] == b"p":
			got = c.sock.recv(4096)
			buf += got
			while len(buf) >= 5:  # neither answer has more than its letter
				self.heard.append(buf[4:5])
				buf = buf[5:]
			if not got:
				break
		c.sock.close()

	def _send(self):
		try:
			with smtp.Client(self.rig.smtp_port) as c:
				self.answer = c.mail(self.data, "w@remote.test", [ANNA])
		except (smtp.SmtpError, OSError) as e:
			self.answer = 0, str(e)

	def over(self):
		"""The disk answers again; both are told."""
		self.rig.delay(0)
		for t in self.threads:
			t.join(tap.PATIENCE)


def main(t):
	todo = [(m, e) for m in ("postfix", "sendmail") for e in ("native", "libmilter")]
	if sendmail.find() is None:
		t.skip("no Sendmail")
		todo = todo[:2]
	place = {k: make(t.sub(" ".join(k)), *k) for k in todo}
	try:
		for rig in place.values():
			rig.start()
		began = time.monotonic()
		slow = {k: Commit(rig) for k, rig in place.items()}
		rigs.wait_for("mailwald to be heard", lambda: time.monotonic() - began > HELD
			      and all(len(c.heard) >= 3 for c in slow.values()))
		early = {k: c.answer for k, c in slow.items()}
		for k, c in slow.items():
			c.over()
			what = ", ".join(k)
			t.ok(early[k] is None and c.answer and c.answer[0] == 250,
			     f"{what}: waits {HELD} s for the disk, and takes the message",
			     (early[k], c.answer, c.heard))
			t.ok(len(c.heard) >= 4 and c.heard[-1] == b"c" and set(c.heard[:-1]) == {b"p"},
			     f"{what}: progress all the time, then the answer", c.heard)
			rows = [o for o in c.rig.journaled() if o["queue_id"] != "LISTENER"]
			t.ok(len(rows) == 1 and c.rig.raw(rows[0]["id"]) == c.data,
			     f"{what}: one record, with its bytes", rows)
	finally:
		for rig in place.values():
			rig.stop()


tap.run(main)
