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
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import spfhelper
import tap
import workload

RESULTS = (b"none", b"neutral", b"pass", b"fail", b"softfail", b"temperror", b"permerror")
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


PIECES = (
	"v=spf1", "v=spf1 ", " ", "  ", "+", "-", "~", "?", "a", "mx", "ptr", "ip4:", "ip6:", "all",
	"include:", "exists:", "redirect=", "exp=", "x=", ":", "/", "//", "/24", "//64", "/33", "//129",
	"/-1", "/4294967297", "192.0.2.1", "192.0.2.", "2001:db8::1", "::", "h0.test", "x.h1.test",
	".", "..", "%{", "}", "%", "%%", "%_", "%-", "%{i}", "%{s}", "%{l}", "%{o}", "%{d}", "%{h}",
	"%{p}", "%{v}", "%{c}", "%{r}", "%{t}", "%{ir}", "%{d2}", "%{d99999999999}", "%{i128r.-+,/_=}",
	"%{L}", "%{sR.}", "\t", "\r\n", "\x01", "\x7f", "\x80", "\xff", "a" * 70, "b." * 130, "y" * 600,
)


def hostile(t, program):
	"""Records that strangers may publish, made at random from a fixed seed: each check ends
	with a verdict, or the helper dies and mailwald starts another; none hangs."""
	rnd = random.Random(7208)
	zone = os.path.join(t.dir, "hostile")
	with open(zone, "w", encoding="ascii") as f:
		for i in range(400):
			for _ in range(1 if rnd.random() < 0.9 else 2):
				body = "".join(rnd.choice(PIECES) for _ in range(rnd.choice((3, 10, 40, 200))))
				f.write(f"h{i}.test TXT {spfhelper.quote('v=spf1 ' * (rnd.random() < 0.9) + body)}\n")
			for kind, value in (("A", "192.0.2.7"), ("AAAA", "2001:db8::7"), ("MX", "x.h1.test"),
					    ("PTR", "h2.test"), ("A", "!timeout"), ("CNAME", "h3.test")):
				if rnd.random() < 0.2:
					f.write(f"h{i}.test {kind} {value}\n")
		f.write("*.arpa PTR h0.test\n*.h1.test A 192.0.2.1\n")
	senders = ["a@%s", "%%{i}@%s", "x" * 400 + "@%s", "\"a b\"@%s", "a@b@%s", "@%s", "%s", "\xff@%s"]
	died, bad, worst = 0, [], 0.0
	h = spfhelper.Helper(program, zone)
	for i in range(1200):
		sender = rnd.choice(senders) % f"h{i % 400}.test"
		began = time.monotonic()
		try:
			a = h.ask(rnd.choice(("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1")),
				  rnd.choice(("h0.test", "[192.0.2.1]", "", "." * 50)), sender)
			if a["result"] not in RESULTS or len(b"".join(a.values())) > 8000:
				bad.append((i, a))
		except spfhelper.Died as e:
			died += 1
			if "timed out" in str(e):
				bad.append((i, str(e)))
		worst = max(worst, time.monotonic() - began)
	t.ok(not bad, "1200 hostile records: a verdict, or another helper", bad[:5])
	t.note(f"{died} ended the helper; the slowest took {worst * 1000:.0f} ms")
	for packet in (b"", b"x", b"1000\0a\0b", b"\0" * 4, b"\0" * 5, b"1\0" * 3000, b"-9\0::\0\0\0"):
		try:
			if h.proc is None:
				h.start()
			h.sock.settimeout(tap.PATIENCE)
			if packet:
				h.sock.send(packet)
				h.sock.recv(65536)
		except TimeoutError:
			bad.append(packet[:20])
		except OSError:  # it left: just what it should do
			h.stop()
	h.stop()
	t.ok(not bad, "packets that mailwald would not send do not hang it", bad)


def deadline(t, program):
	"""One record that asks for 111 answers, a slow one each."""
	zone = os.path.join(t.dir, "many")
	with open(zone, "w", encoding="ascii") as f:
		f.write("@latency 1000\nmany.test TXT v=spf1" + "".join(f"%20mx:m{i}.test" for i in range(10))
			+ "%20-all\n")
		for i in range(10):
			f.write("".join(f"m{i}.test MX h{k}.m{i}.test\nh{k}.m{i}.test A 198.51.100.1\n"
					for k in range(10)))
	with spfhelper.Helper(program, zone) as h:
		began = time.monotonic()
		a = h.ask("192.0.2.1", "x.test", "a@many.test", ms=1500)
		took = time.monotonic() - began
		t.ok(a["result"] == b"temperror" and 1.4 < took < 60,
		     "a check ends when its time is over", (a, took))


def main(t):
	hostile(t, spfhelper.program())
	deadline(t, spfhelper.program())
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


tap.run(main)
