#!/usr/bin/python3
"""Targets that are files: where something else lies in the place of a mailbox, or the directory
above it is missing, a dry run has the numbers of the run."""
# MW_TEST_COST 3

import json
import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import tap


def main(t):
	with alone.Alone(t.sub("journal"), "local_domains = example.test", "queue_command = none") as a:
		for i, who in enumerate(("anna", "bert")):
			a.mail(f"Q{i}", rcpts=[f"{who}@example.test"])
		for kind in ("maildir", "eml", "mbox"):
			for what, pattern, more in (("a file in the place of it", "%n", ["--create"]),
						    ("a file above it", "anna/%n", ["--create"]),
						    ("nothing above it", "none/%n", [])):
				where = pathlib.Path(t.sub(f"{kind} {what}"))
				name = pattern.replace("%n", "%u" if kind == "eml" else "%n")
				other = where / ("anna@example.test" if name == "%u" else "anna")
				if kind == "mbox" and pattern == "%n":
					other.mkdir()
				else:
					other.write_text("x\n", encoding="ascii")
				to = f"{kind}:{where}" + ("" if name == "%u" else
					f"/{name}" if kind != "eml" else f"/{name.partition('/')[0]}")
				got = []
				for dry in (["-n"], []):
					rc, out, _ = a.mailwal("--json", "replay", "--all", "--to", to, *more, *dry)
					s = json.loads(out.splitlines()[-1])
					got.append((rc, s["restored"], s["failed"], s["already_there"]))
				t.ok(got[0] == got[1], f"{kind}, {what}: {got[1]}", got)


tap.run(main)
