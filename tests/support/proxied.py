"""proxied - messages for tests of the proxy, and what mailwald's log tells of them."""

import re


def message(name, body=b"x\r\n"):
	return (f"From: a@remote.test\r\nTo: b@example.test\r\nMessage-ID: <{name}@remote.test>\r\n"
		f"Subject: {name}\r\n\r\n").encode() + body


def events(rig, event):
	"""Lines of mailwald's log with that event, as dictionaries."""
	out = []
	for line in rig.mailwald_log().splitlines():
		if f"event={event} " in line:
			out.append(dict(re.findall(r"(\w+)=(\S+)", line)))
	return out
