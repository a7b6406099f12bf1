#!/usr/bin/python3
"""Retention by class with the real mailwald: capture sections give mail its class, header
and spam words of retain sections are found out as it comes, and prune, which has no key,
goes by them, beside the daemon that takes mail meanwhile."""
# MW_TEST_COST 15

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
from keyed import JUNK, Keyed

SECTIONS = """
capture boss { match = rcpt:boss@example.test }
capture junk { match = header:X-Spam spam:yes }
retain junk { match = class:junk; keep = 1s }
retain lists { match = header:List-Id; keep = 1s }
retain large { match = larger:300K spam:no; keep = 1s }
retain rest { keep = 10d }
"""


def by_class(t):
	with Keyed(t.sub("class"), sections=SECTIONS) as s:
		s.send("PLAIN", "anna@example.test")
		s.send("JUNK", "anna@example.test", headers=JUNK)
		s.send("BOTH", "anna@example.test", "boss@example.test", headers=JUNK)
		s.send("BOSS", "boss@example.test", headers=JUNK)
		s.send("LIST", "anna@example.test", headers=[("List-Id", "news")])
		s.send("LARGE", "anna@example.test", size=400000)
		o = json.loads(s.mailwal("--key", s.key, "show", "BOTH", "--json")[1])
		t.equal(o["classes"], ["boss", "junk"], "the record says of which classes it is")
		rc, text, _ = s.mailwal("--key", s.key, "show", "JUNK")
		t.ok(rc == 0 and "class" in text and "junk" in text, "show tells the class", text)
		s.due("large", 1)
		rows = s.due("junk", 1)
		got = {k: (v["messages"], v["remove"]) for k, v in rows.items()}
		t.equal(got, {"junk": (2, 1), "lists": (1, 1), "large": (1, 1), "rest": (2, 0),
			      "(no rule)": (0, 0), "all": (6, 3)},
			"a table per class; who is of two classes stays as the longest rule wants")
		rc, text, err = s.mailwal("prune", "--dry-run")
		t.ok(rc == 0 and "RULE" in text and "3 messages would go" in text, "a dry run", text)
		rc, text, err = s.mailwal("prune", "--yes")
		t.ok(rc == 0 and "3 messages removed" in text, "prune beside the daemon", (rc, text, err))
		t.equal(s.names(), ["BOSS", "BOTH", "PLAIN"], "what is gone and what is there")
		s.send("AFTER", "anna@example.test", headers=JUNK)
		t.ok("AFTER" in s.names(), "and mail comes in")
		t.equal(s.mailwal("verify")[0], 0, "verify finds nothing wrong")
		# A rule that was not there when the mail came does not guess.
		s.configure(SECTIONS + "\nretain late { match = header:X-Spam; keep = 1s }\n")
		s.due("junk", 1)
		t.equal({o["rule"]: o["remove"] for o in s.lines("prune", "-n") if "rule" in o}["late"],
			0, "a word that nobody asked for at capture fits nothing")


def main(t):
	by_class(t)


tap.run(main)
