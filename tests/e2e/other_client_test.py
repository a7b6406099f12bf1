#!/usr/bin/python3
"""A milter client that is none of ours drives the socket (emersion/go-milter from Debian, see
tests/support/goclient): many sessions, messages given up, an offer without the options of
protocol 6, and a client that does what no MTA does. All that was answered with 'continue' is
journaled with its bytes, nothing else is, and the rest goes on."""
# MW_TEST_COST 20

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import rig as rigs
import tap

SOURCE = rigs.ROOT / "tests" / "support" / "goclient" / "client.go"
GOPATH = "/usr/share/gocode"
SESSIONS, MESSAGES = 8, 24
MAIL = (b"Received: from x by y; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
	b"Subject: by another's client\r\nX-Tight:value\r\nX-Wide:   three\r\n"
	b"X-Folded: one\r\n\ttwo\r\n  three\r\nX-Eight: caf\xc3\xa9 \xe9\r\n\r\n"
	+ b"line of text\r\n" * 12000 + b"no end of line, 8 bit: \xe9")


def built(t, directory):
	"""The client's program; None without Go."""
	if not shutil.which("go") or not os.path.isdir(f"{GOPATH}/src/github.com/emersion/go-milter"):
		return None
	out = os.path.join(directory, "client")
	p = subprocess.run(["go", "build", "-o", out, SOURCE], capture_output=True, text=True,
			   check=False, timeout=400,
			   env=dict(os.environ, GO111MODULE="off", GOPATH=GOPATH,
				    GOCACHE=os.path.join(directory, "cache"), GOFLAGS=""))
	t.need(p.returncode == 0, "the client is built", p.stderr)
	return out


def played(t, client, engine, mode):
	d = pathlib.Path(t.sub(f"{engine}-{mode}"))
	(d / "mail").write_bytes(MAIL)
	with alone.Alone(d, f"milter_engine = {engine}") as a:
		p = subprocess.run([client, a.sock, mode, str(SESSIONS), str(MESSAGES), d / "mail"],
				   capture_output=True, text=True, check=False,
				   timeout=400)
		t.need(p.returncode == 0, f"{engine}, {mode}: the client came to its end",
		       p.stderr[-1500:])
		taken = sorted(x.split()[0] for x in p.stdout.splitlines() if x.endswith(" c"))
		rc, out, err = a.mailwal("list", "--all", "--json")
		got = [json.loads(x) for x in out.splitlines()]
		# "rude" may bring an envelope without content to its end as well
		got = [x for x in got if x.get("queue_id") not in (None, "RUDE")]
		whole = sorted(f"GO{n}X{i}" for n in range(SESSIONS) for i in range(MESSAGES)
			       if i % 3 != 2)
		if mode == "old":  # bytes cannot be exact then; none is taken rather than altered
			t.ok(rc == 0 and p.stdout.count(" y\n") == SESSIONS * MESSAGES and got == [],
			     f"{engine}, old: told to come back, since bytes would not be exact",
			     (p.stdout[:200], len(got)))
		else:
			t.ok(taken == whole, f"{engine}, {mode}: each whole message is taken",
			     (len(taken), p.stdout[:300]))
			t.ok(rc == 0 and sorted(x["queue_id"] for x in got) == whole,
			     f"{engine}, {mode}: those are journaled, and nothing else",
			     (err, len(got), {x["queue_id"] for x in got} - set(whole)))
			want = hashlib.sha256(MAIL).hexdigest()
			t.ok({x["sha256"] for x in got} == {want},
			     f"{engine}, {mode}: their bytes", {x["sha256"] for x in got})
			t.ok(all(x["recipients"] == ["anna@example.test", "bert@example.test"]
				 for x in got), f"{engine}, {mode}: their recipients", got[:1])
		a.mail("AFTER")
	t.ok(a.ended == 0, f"{engine}, {mode}: mailwald goes on, and ends as it should", a.ended)


def main(t):
	client = built(t, t.sub("go"))
	if not client:
		t.skip("Go, or its go-milter, is not installed")
		return
	for engine in ("native", "libmilter"):
		for mode in ("ordered", "old", "rude"):
			played(t, client, engine, mode)


tap.run(main)
