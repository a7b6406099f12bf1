#!/usr/bin/python3
"""The segment that a running mailwald writes: a look-up leaves the space behind its end
unread while mailwald says how far its log goes, and reads it where nobody says so; whatever
is damaged in it is found and told as without one."""
# MW_TEST_COST 5

import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import rig as rigs
import tap

MAILS = 12
SPACE = 8 << 20  # less than what mailwald writes ahead


def read_by_show(t, a, name):
	"""Bytes that `show` reads of segments."""
	log = f"{t.dir}/strace"
	p = subprocess.run(["strace", "-f", "-e", "trace=pread64", "-o", log,
			    rigs.find_program("mailwal"), "-c", str(a.conf), "show", name, "--json"],
			   capture_output=True, timeout=tap.PATIENCE, check=False)
	assert p.returncode == 0, p.stderr
	with open(log, encoding="utf-8", errors="replace") as f:
		return sum(map(int, re.findall(r"pread64\(.* = (\d+)$", f.read(), re.M)))


def head(a):
	reply = a.ask("head").split()
	return int(reply[1]), reply[2]


def newest(a):
	return [json.loads(line) for line in a.mailwal("list", "--json")[1].splitlines()
		if '"seq"' in line][-1]


def segment(a):
	return sorted((a.journal / "segments").glob("*.seg"))[-1]


def zero(path, at, n):
	with open(path, "r+b") as f:
		f.seek(at)
		f.write(bytes(n))


def place(a, name):
	text = a.mailwal("show", name)[1]
	return int(re.search(r"offset (\d+), record", text).group(1))


def main(t):
	with alone.Alone(t.sub("site"), "segment_age = 1d") as a:
		a.mail("FIRST")
		t.comes(lambda: (a.journal / "segments" / "next.tmp").exists(), "space is made ready")
		a.ask("roll")
		for i in range(MAILS):
			a.mail(f"Q{i}")
		rigs.wait_for("the index", lambda: a.status()["index_lag_records"] == 0, alive=a.proc)
		seq, chain = head(a)
		t.equal((seq, len(chain)), (newest(a)["seq"], 64), "mailwald names its newest record")
		size = segment(a).stat().st_size
		t.ok(size > SPACE, "there is space behind the end", size)
		strace = shutil.which("strace")
		if strace:
			t.comes(lambda: 0 < read_by_show(t, a, "Q3") < SPACE // 8,
				"a look-up does not read it")
		# One in the middle is gone, with all that would tell that something was there.
		at, after = place(a, "Q7"), place(a, "Q8")
		zero(segment(a), at, after - at)
		for name in ("Q6", "Q8", f"Q{MAILS - 1}"):
			t.equal(a.mailwal("show", name)[0], 0, f"{name} is found")
		t.ok(a.mailwal("show", "Q7")[0] != 0, "the damaged one is not")
		rc, out, _ = a.mailwal("verify")
		t.ok(rc == 1 and "damaged" in out, "verify tells of it", (rc, out))
		listed = a.mailwal("list", "--json")
		t.ok(listed[0] != 0 and listed[1].count('"id"') == MAILS and "lost" in listed[2],
		     "so does list", listed)
		a.proc.send_signal(signal.SIGSTOP)
		try:
			t.equal(a.mailwal("show", "Q8")[0], 0, "found beside one that hangs")
			if strace:
				t.ok(read_by_show(t, a, "Q3") > SPACE, "for that it reads all")
		finally:
			a.proc.send_signal(signal.SIGCONT)
		a.end(signal.SIGKILL)
		if strace:
			t.ok(read_by_show(t, a, "Q3") > SPACE, "as it does where none runs")
		t.equal(a.mailwal("verify")[0], 1, "verify tells of the damage then")


tap.run(main)
