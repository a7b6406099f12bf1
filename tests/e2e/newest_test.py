#!/usr/bin/python3
"""mailwal list --limit gives the end of what mailwal list gives, though it walks the log from
its end: whatever the terms, over several segments, of one journal and of two, and with a
damaged place that it does not come by."""
# MW_TEST_COST 5

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import servers
import tap

ANNA = "anna@example.test"
N = 3000


class Journal:
	def __init__(self, t, name, first):
		self.dir, self.conf = f"{t.dir}/{name}", f"{t.dir}/{name}.conf"
		servers.write(self.conf, f"journal_dir = {self.dir}\nlocal_domains = example.test\n"
			      "segment_size = 1M\n")
		run(["-c", self.conf], "init", self.dir)
		with open(f"{t.dir}/mbox", "w", encoding="ascii") as f:
			for i in range(N):
				when = time.asctime(time.gmtime(1_600_000_000 + (first + 2 * i) * 60))
				rare = " zanzibar" if i in (3, 700, 2900) else ""
				f.write(f"From w@remote.test {when}\nFrom: w@remote.test\n"
					f"Subject: {name} {i}{rare}\nMessage-ID: <{name}{i}@remote.test>\n"
					f"Date: {when}\n\n{i * 7919:x} {'x' * 400}\n\n")
		r = run(["-c", self.conf], "import", f"mbox:{t.dir}/mbox", "--user", ANNA)
		if r.returncode:
			raise tap.Fatal(r.stderr)


def run(files, *args):
	return subprocess.run([rigs.find_program("mailwal"), *files, *args], capture_output=True,
			      text=True, check=False)


def listed(files, *args):
	r = run(files, "list", "-o", "tsv", "--no-header", *args)
	return r.returncode, r.stdout.splitlines()


def same(t, files, what):
	for terms in ([], ["--subject", "zanzibar"], ["--until", "2020-09-14"], ["--larger", "1"],
		      ["--subject", "nothing has it"], ["--user", ANNA]):
		rc, all_of_them = listed(files, *terms)
		for n in (1, 2, 3, 300, 2999, 9000):
			got = listed(files, "--limit", str(n), *terms)
			t.ok(got == (0, all_of_them[-n:]) and rc == 0,
			     f"{what}: the newest {n} {' '.join(terms)}", (got[0], got[1][:3]))


def main(t):
	one, two = Journal(t, "one", 0), Journal(t, "two", 1)
	segments = sorted(os.listdir(f"{one.dir}/segments"))
	t.ok(len(segments) > 1, "several segments", segments)
	same(t, ["-c", one.conf], "one journal")
	same(t, ["-c", one.conf, "-c", two.conf], "two journals")
	with open(f"{one.dir}/segments/{segments[0]}", "r+b") as f:
		f.seek(100_000)
		f.write(b"damaged " * 100)
	rc, found = listed(["-c", one.conf])
	t.ok(rc == 3 and 0 < len(found) < N, "a damaged place is told of", (rc, len(found)))
	t.equal(listed(["-c", one.conf], "--limit", "2"), (0, found[-2:]), "not far from it")
	got = listed(["-c", one.conf], "--limit", str(N))
	t.equal(got, (3, found), "and with all that there is")


tap.run(main)
