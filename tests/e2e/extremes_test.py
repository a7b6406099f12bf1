#!/usr/bin/python3
"""Far ends of what one session and one message may be, through real Postfix and Sendmail and
both front ends: 3,000 header fields, a header field of 60,000 bytes (Postfix cuts it for its
milters: what it hands over is what is stored), 1,000 messages in one session."""
# MW_TEST_COST 40

import hashlib
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import faults
import rig as rigs
import sendmail
import smtp
import tap

ANNA = "anna@example.test"
FIELDS, LONG, SESSION = 3000, 60_000, 1000


def message(name, more="", body="text\r\n"):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n"
		"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\n"
		f"Message-ID: <{name}@remote.test>\r\n{more}\r\n{body}").encode()


def large():
	fold = "\r\n\t".join("y" * 70 for _ in range(LONG // 73))
	return {
		"fields": message("fields", "".join(f"X-{i}:{' ' * (i % 3)}v{i}\r\n"
						    for i in range(FIELDS))),
		"folded": message("folded", f"X-Long: {fold}\r\nX-Last: 1\r\n"),
		"line": message("line", f"X-Long: {'x' * LONG}\r\nX-Last: 1\r\n"),
	}


def session():
	"""From nothing to some thousand bytes, so that no two have the same length near them."""
	return {f"m{i}": message(f"m{i}", body=f"{i}\r\n" * (i * 7 % 600)) for i in range(SESSION)}


class Place:
	"""One MTA, and what it said to what it was sent."""

	def __init__(self, rig):
		self.rig, self.replies, self.mails, self.error = rig, {}, {}, None
		self.thread = threading.Thread(target=self._run, daemon=True)
		self.thread.start()

	def _run(self):
		try:
			self.rig.start()
			for name, data in large().items():
				with smtp.Client(self.rig.smtp_port) as c:
					self._one(c, name, data)
			with smtp.Client(self.rig.smtp_port) as c:
				for name, data in session().items():
					if name.endswith("5"):
						c.cmd(b"MAIL FROM:<gone@remote.test>", 250)
						c.cmd(b"RSET", 250)
					self._one(c, name, data)
		except (OSError, rigs.RigError, smtp.SmtpError) as e:
			self.error = e

	def _one(self, c, name, data):
		self.mails[name] = data
		self.replies[name] = c.mail(data, "w@remote.test", [ANNA])

	def came(self, name):
		"""As an independent milter saw it; what it did not see (Sendmail now and then passes
		a message by its second filter) as it was sent."""
		seen = self.rig.witness.messages.get(smtp.queue_id(self.replies[name]))
		return seen.data if seen else self.mails[name]


def judge(t, what, place, cut):
	"""cut: messages that the MTA changes before its milters see them."""
	place.thread.join(tap.LIMIT)
	t.need(place.error is None and all(r[0] == 250 for r in place.replies.values()),
	       f"{what}: took {len(place.replies)} messages, {SESSION} of them in one session",
	       place.error or [r for r in place.replies.values() if r[0] != 250][:5])
	rig, want = place.rig, {}
	for name, data in place.mails.items():
		queue_id, seen = smtp.queue_id(place.replies[name]), place.came(name)
		if (seen != data) != (name in cut):
			t.ok(False, f"{what}: {name} reaches milters as it was sent", (data, seen))
		want[queue_id] = hashlib.sha256(seen).hexdigest()
	got = {o["queue_id"]: o["sha256"] for o in rig.journaled()}
	t.ok(got == want, f"{what}: each is journaled, exactly as it came to the milters",
	     [q for q in want if got.get(q) != want[q]])
	for name in large():
		queue_id, seen = smtp.queue_id(place.replies[name]), place.came(name)
		t.ok(rig.raw(queue_id) == seen, f"{what}: {name}: the same bytes come back")
		if name in cut:
			ends = place.mails[name][:59_000], b"x\r\nX-Last: 1\r\n\r\ntext\r\n"
			t.ok(seen.startswith(ends[0]) and seen.endswith(ends[1]) and len(seen) < 60_200,
			     f"{what}: {name}: cut near 60,000 bytes, and what follows is whole",
			     (len(seen), seen[-60:]))


def main(t):
	place = {"Postfix": Place(faults.PostfixRig(t.sub("postfix"), users=(ANNA,), witness=True,
						    postfix="virtual_transport = discard:"))}
	if sendmail.find() is None:
		t.skip("no Sendmail")
	else:
		rig = faults.SendmailRig(t.sub("sendmail"), users=(ANNA,), witness=True,
					 engine="libmilter",
					 mc="define(`confMAX_HEADERS_LENGTH', `0')dnl\n"
					    "define(`confSAFE_QUEUE', `False')dnl\n"
					    "define(`confDELIVERY_MODE', `queueonly')dnl")
		rig.options = []
		place["Sendmail"] = Place(rig)
	try:
		for what, p in place.items():
			judge(t, what, p, {"line"} if what == "Postfix" else ())
	finally:
		for p in place.values():
			p.rig.stop()


tap.run(main)
