#!/usr/bin/python3
"""What `status` reads of the log: of an open segment with many records it walks a few times in
large pieces, and its answers (the records, the newest mail) are right all the same."""
# MW_TEST_COST 5

import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import milterclient
import rig as rigs
import tap

MAILS = 3000


def reads(t, a):
	"""How many reads `status` makes."""
	log = f"{t.dir}/strace"
	subprocess.run(["strace", "-f", "-e", "trace=pread64", "-o", log,
			rigs.find_program("mailwal"), "-c", str(a.conf), "status"],
		       capture_output=True, timeout=tap.PATIENCE, check=False)
	with open(log, encoding="utf-8", errors="replace") as f:
		return len(re.findall(r"pread64\(", f.read()))


def main(t):
	with alone.Alone(t.sub("site"), "segment_age = 1d") as a:
		mails = [(f"Q{i}", "anna@example.test",
			  b"Subject: %d\r\n\r\n" % i + os.urandom(200).hex().encode() + b"\r\n")
			 for i in range(MAILS)]
		t.equal(len(milterclient.journal(a.sock, mails)), MAILS, "journaled")
		a.mail("LAST")
		rigs.wait_for("the index", lambda: a.status()["index_lag_records"] == 0,
			      alive=a.proc)
		s = json.loads(a.mailwal("status", "--json")[1].splitlines()[-1])
		newest = json.loads(a.mailwal("show", "LAST", "--json")[1])["time"]
		t.equal((s["records"], s["mails"]), (MAILS + 1, MAILS + 1), "status counts them")
		t.ok(s["newest"][:19] == newest[:19], "and has the newest", (newest, s))
		if not shutil.which("strace"):
			t.skip("strace is not installed: reads are not counted")
			return
		n = reads(t, a)
		t.ok(0 < n < MAILS, f"status reads {n} times, less than once a record", n)


tap.run(main)
