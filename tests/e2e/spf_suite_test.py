#!/usr/bin/python3
"""The RFC 7208 test suite against mailwald-spf: every case does what spf_expected.txt says.

The suite is that of the SPF project (203 cases, BSD licence), part of the shared corpus.
libspf2 does not pass all of it; what it answers is recorded as its own verdict, so here
the deviations are a list: a case that begins to fail is a regression, and one that begins
to pass has to leave the list. After a look at the differences,

    MW_BUILD=build/dev tests/e2e/spf_suite_test.py --write

writes the list anew; the reasons of the cases that are in it are kept.
"""

import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import spfhelper
import tap
import workload

EXPECTED = pathlib.Path(__file__).with_name("spf_expected.txt")
HEAD = """\
# RFC 7208 test suite, libspf2 1.2.10: one line per case, "pass NAME" or
# "differs NAME GOT WANTED REASON". See spf_suite_test.py. Reasons:
#   syntax       a record that the RFC refuses (permerror) is evaluated
#   charset      a record that the RFC takes is refused
#   prefix       /0 is refused
#   limits       look-ups, names or void answers are counted otherwise than in the RFC
#   redirect     what follows redirect= makes the record wrong; redirect= to nothing does not
#   blank        a blank in an explanation becomes '%', and the macro behind it stays
#   macro        a macro is expanded otherwise
#   dns          a CNAME loop at the PTR ends the check
#   other        see the case
"""


def load(path):
	import yaml
	with open(path, encoding="utf-8") as f:
		return list(yaml.load_all(f, Loader=yaml.BaseLoader))


def records(entries):
	"""(type, value) of one name; types TXT from SPF where there is no TXT (type SPF is
	history, the suite keeps it for old drivers)."""
	has_txt = any(isinstance(e, dict) and "TXT" in e for e in entries)
	for e in entries:
		if e == "TIMEOUT":
			yield "ANY", "!timeout"
			continue
		for kind, value in e.items():
			if kind == "SPF":
				if has_txt:
					continue
				kind = "TXT"
			if value == "NONE":
				continue
			if kind == "MX":
				value = value[1]
			elif kind == "TXT" and isinstance(value, list):
				value = "".join(value)
			yield kind, "!timeout" if value == "TIMEOUT" else value


def write_zone(path, data):
	with open(path, "w", encoding="ascii") as f:
		for name, entries in data.items():
			n = 0
			for kind, value in records(entries):
				f.write(f"{spfhelper.quote(name)} {kind} {spfhelper.quote(value)}\n")
				n += 1
			if not n:  # the name exists
				f.write(f"{spfhelper.quote(name)} NONE -\n")


def judge(case, answer):
	"""What it differs in: (got, wanted), or None."""
	want = case["result"]
	want = [want] if isinstance(want, str) else want
	got = answer["result"].decode()
	if got not in want:
		return got, "|".join(want)
	text = case.get("explanation")
	if got == "fail" and text and text != "DEFAULT":
		if answer["explanation"].decode("latin-1") != text:
			return "explanation", "explanation"
	return None


def run_suite(t, documents, program):
	"""name: (got, wanted) or None."""
	out, died = {}, []
	for i, d in enumerate(documents):
		zone = os.path.join(t.dir, f"zone{i}")
		write_zone(zone, d["zonedata"])
		with spfhelper.Helper(program, zone) as h:
			for name, case in d["tests"].items():
				try:
					a = h.ask(case["host"], case["helo"], case["mailfrom"])
				except spfhelper.Died as e:
					died.append(f"{name}: {e}")
					out[name] = ("died", case["result"])
					continue
				out[name] = judge(case, a)
	return out, died


def read_expected():
	out = {}
	if EXPECTED.exists():
		for line in EXPECTED.read_text(encoding="ascii").splitlines():
			w = line.split()
			if w and w[0] in ("pass", "differs"):
				out[w[1]] = w[2:]
	return out


def write_expected(got, old):
	with open(EXPECTED, "w", encoding="ascii") as f:
		f.write(HEAD)
		for name, g in got.items():
			if g is None:
				f.write(f"pass {name}\n")
			else:
				reason = old[name][2] if len(old.get(name, ())) > 2 else "other"
				f.write(f"differs {name} {g[0]} {g[1]} {reason}\n")


def main(t):
	base = workload.corpus_dir()
	if base is None:
		t.skip("no shared corpus beside this checkout")
		return
	documents = load(base / "protocol" / "spf-rfc7208" / "rfc7208-tests.yml")
	program = spfhelper.program()
	got, died = run_suite(t, documents, program)
	expected = read_expected()
	if "--write" in sys.argv:
		write_expected(got, expected)
		return
	t.ok(len(got) >= 200, "the whole suite was run", len(got))
	t.ok(not died, "no case ends the helper", "\n".join(died))
	bad = [f"{n}: now {'passes' if got.get(n, 0) is None else got.get(n)}, expected {w}"
	       for n, w in expected.items()
	       if (got.get(n, 0) is not None) if not w or list(got.get(n) or ("passes",))[:2] != w[:2]]
	bad += [f"{n}: new, {g}" for n, g in got.items() if n not in expected]
	bad += [f"{n}: passes now; take it off the list" for n, w in expected.items()
		if w and got.get(n, 0) is None]
	t.ok(not bad, "every case does what spf_expected.txt says", "\n".join(bad))
	n = sum(g is None for g in got.values())
	t.note(f"{n} of {len(got)} cases agree with RFC 7208")


tap.run(main, seconds=60)
