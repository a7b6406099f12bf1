#!/usr/bin/python3
"""Sixteen messages of 64 MB each, all in flight at once, to a journal with keys: what mailwald
takes of memory, and that each comes back as it was."""
# MW_TEST_ALONE

import base64
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import milterclient
import rig as rigs
import tap

SESSIONS = 16
LIMIT = 64 + SESSIONS  # MB; all its own, what the kernel keeps of files is not counted
LENGTH = 64 << 20
PIECE = 65535


def own(pid):
	"""Anonymous memory in MB; VmHWM would count pages of the index, which are a file's."""
	with open(f"/proc/{pid}/status", encoding="ascii") as f:
		return next(int(x.split()[1]) / 1024 for x in f if x.startswith("RssAnon:"))


def answer(c):
	"""The last one: before it, a busy machine may be told that it takes a while."""
	while (a := c.reply()[0]) == b"p":
		pass
	return a


def bodies(k, pool):
	"""64 MB in pieces: text, and three times as much that nothing makes smaller."""
	text = f"Line of session {k}, as people write them, over and over again.\r\n" * 900
	for n in range(LENGTH // PIECE):
		yield text.encode() if n % 4 == 3 else pool[(n + 5 * k) % len(pool)]


def taken(t, engine):
	d = pathlib.Path(t.sub(engine))
	key = d / "key"
	subprocess.run([rigs.find_program("mailwal"), "keys", "new", "--out", key,
			"--on-this-host"], check=True, capture_output=True)
	# more than a compressor looks back
	pool = [base64.encodebytes(os.urandom(PIECE * 3 // 4 - 1000)).replace(b"\n", b"\r\n")
		for _ in range(256)]
	with alone.Alone(d, f"milter_engine = {engine}", f"recovery_key = \"{key}.pub\"",
			 "on_failure = tempfail") as a:
		conns = [milterclient.Conn(a.sock) for _ in range(SESSIONS)]
		for k, c in enumerate(conns):
			c.envelope(f"BIG{k}", body=b"first line\r\n")
		hashes = [hashlib.sha256(b"Subject: x\r\n\r\nfirst line\r\n")
			  for _ in range(SESSIONS)]
		most = before = own(a.proc.pid)
		for pieces in zip(*(bodies(k, pool) for k in range(SESSIONS))):
			for c, h, piece in zip(conns, hashes, pieces):
				h.update(piece)
				c.step(b"B", piece, 0x80000)
			most = max(most, own(a.proc.pid))
		for c in conns:
			c.send(b"E")
		began = time.monotonic()
		answers = [answer(c) for c in conns]
		most = max(most, own(a.proc.pid))
		t.note(f"{engine}: {before:.0f} MB of its own before, {most:.0f} MB at most; the "
		       f"last answer {time.monotonic() - began:.1f} s after all had ended")
		t.equal(answers, [b"c"] * SESSIONS, f"{engine}: all are taken")
		t.ok(most <= LIMIT, f"{engine}: at most {LIMIT} MB", most)
	rc, out, err = a.mailwal("list", "--json", "--key", str(key))
	t.ok(rc == 0, f"{engine}: list", err)
	got = sorted(json.loads(x)["sha256"] for x in out.splitlines())
	t.ok(got == sorted(h.hexdigest() for h in hashes), f"{engine}: each as it was", got)
	shutil.rmtree(a.journal)


def main(t):
	taken(t, "native")
	taken(t, "libmilter")


tap.run(main)
