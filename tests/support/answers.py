"""answers - single messages through a rig's Postfix, and whether every answer was kept: only 250
and 4xx, and what was told 250 is in the journal, once."""

import rig as rigs
import smtp

ANNA = "anna@example.test"


def data(name):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nMessage-ID: <{name}@remote.test>\r\n\r\n"
		f"body of {name}\r\n").encode()


def one(rig, name):
	"""(code, queue ID, text) of one message in a session of its own."""
	try:
		with smtp.Client(rig.smtp_port) as c:
			got = c.mail(data(name), "w@remote.test", [ANNA])
			c.quit()
	except smtp.SmtpError as e:
		return e.code, "", str(e)
	return got[0], smtp.queue_id(got), got[1]


def until_taken(rig, name):
	"""Tries until a message is taken; how it was answered then."""
	tried, got = [0], [None]

	def taken():
		tried[0] += 1
		got[0] = one(rig, f"{name}{tried[0]}")
		return got[0][0] == 250

	rigs.wait_for("mail to be taken again", taken)
	return got[0]


def judge(t, rig, what, answers, some_refused=True):
	"""Only 250 and 4xx; each 250 is in the journal once."""
	told = [a for a in answers if a[0] == 250]
	bad = [a for a in answers if a[0] != 250 and not 400 <= a[0] < 500]
	t.ok(not bad, f"{what}: {len(told)} taken, the other {len(answers) - len(told)} told to "
	     "come again", bad[:5])
	if some_refused:
		t.ok(len(told) < len(answers), f"{what}: some were refused")
	rows = [o["queue_id"] for o in rig.journaled()]
	lost = [a for a in told if rows.count(a[1]) != 1]
	t.ok(not lost, f"{what}: what was acknowledged is in the journal, once", lost[:5])
	return told
