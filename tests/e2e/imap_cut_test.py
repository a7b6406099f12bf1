#!/usr/bin/python3
"""The connection to an IMAP server is cut behind each of its commands in turn, done but not
answered: the same run puts back each copy once, and no staging folder stays."""
# MW_TEST_COST 165

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import captured
import tap
from imapserver import Server

ANNA = "anna@example.test"
ALL = ("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+", "NAMESPACE")


def message(i):
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"text {i}\r\n").encode()


def cut_behind(site, caps, at, data):
	"""Behind the at-th command: what is wrong then, "" if nothing is, None if none was."""
	said = []

	def cuts(command):
		said.append(command)
		return len(said) == at

	with Server(caps, cuts=cuts) as s:
		s.put(ANNA, "INBOX", data[1])
		r = site.replay(s)
		have = s.texts(ANNA)
		if len(said) < at:
			return None
		good = r.rc == 0 and sorted(have["INBOX"]) == data and list(have) == ["INBOX"]
		return "" if good else f"{said[at - 1]}: { {k: len(v) for k, v in have.items()} } {r}"


def main(t):
	data = sorted(message(i) for i in range(3))
	with captured.Site(t, users=(ANNA,)) as site:
		site.capture(data)
		for caps in ((), ALL):
			bad, at = [], 1
			while (what := cut_behind(site, caps, at, data)) is not None:
				bad += [what] if what else []
				at += 1
			t.ok(not bad and at > 15, f"{' '.join(caps) or 'plain'}: cut behind each of {at - 1} commands",
			     "\n".join(bad))


tap.run(main)
