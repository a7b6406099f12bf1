#!/usr/bin/python3
"""Commands that read the log while a prune removes what they read: files whole, slots in
files that stay. Each is stopped at one read after another, the prune runs to its end, and
it goes on. What expired may be told or left out; nothing else is missing, nothing is
called damaged, and nothing fails."""
# MW_TEST_COST 60

import email
import email.policy
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from keyed import JUNK, Keyed, files

SECTIONS = """
capture junk { match = header:X-Spam }
retain junk { match = class:junk; keep = 1s }
retain rest { keep = 10d }
"""
STOPS = int(os.environ.get("MW_STOPS", "9"))
FIRST = "0000000000000001.seg"
SPREAD = 12  # messages of a segment, of which two thirds are behind its first 128 KiB


def fill(site):
	"""Two segments of which all expires, one of which every other message does, one that
	stays; the names of what stays."""
	keep = set()
	for seg in range(4):
		for k in range(SPREAD):
			junk = seg < 2 or (seg == 2 and k % 2)
			name = f"S{seg}M{k}"
			site.send(name, "anna@example.test", size=64000,
				  headers=[("X-Name", name), ("Message-ID", f"<{name}@example.test>"),
					   *(JUNK if junk else [])])
			if not junk:
				keep.add(name)
		site.roll()
	site.due("junk", 2 * SPREAD + SPREAD // 2)
	return keep


class Stopped:
	"""mailwal, stopped after its n-th read; go() lets it go on."""

	def __init__(self, site, n, *args):
		self.log = site.dir / "strace"
		self.log.unlink(missing_ok=True)
		self.p = subprocess.Popen(
			["strace", "-f", "-qq", "-o", self.log, "-e", "trace=pread64",
			 "-e", f"inject=pread64:signal=SIGSTOP:when={n}",
			 rigs.find_program("mailwal"), "-c", site.conf, "--key", site.key, *map(str, args)],
			stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		self.tracee = None

		def there():
			text = self.log.read_text() if self.log.exists() else ""
			m = re.search(r"^(\d+) +--- stopped by SIGSTOP ---$", text, re.M)
			if m:
				self.tracee = int(m.group(1))
			return m or self.p.poll() is not None
		rigs.wait_for("the reader to stop", there, tap.PATIENCE)

	def go(self):
		if self.tracee:
			os.kill(self.tracee, signal.SIGCONT)
		out, err = self.p.communicate(timeout=tap.PATIENCE)
		return self.p.returncode, out.decode(), err.decode()


def reads(site, *args, what=".seg>"):
	"""Which of its reads are of the log, when nobody disturbs it."""
	log = site.dir / "strace"
	p = subprocess.run(["strace", "-f", "-qq", "-y", "-o", log, "-e", "trace=pread64",
			    rigs.find_program("mailwal"), "-c", site.conf, "--key", site.key,
			    *map(str, args)], capture_output=True, check=False)
	assert p.returncode == 0, p
	lines = [x for x in log.read_text().splitlines() if "pread64(" in x]
	return [i + 1 for i, x in enumerate(lines) if what in x]


def of_list(_site, out):
	return {json.loads(x)["queue_id"] for x in out.splitlines() if '"queue_id"' in x}


def nothing(_site, _out):
	return None


def of_maildir(site, _out):
	"""The names of all that was put there, once each message has been found whole."""
	got = set()
	for p in (site.dir / "box").rglob("*"):
		if p.parent.name not in ("cur", "new") or not p.is_file():
			continue
		m = email.message_from_bytes(p.read_bytes(), policy=email.policy.SMTP)
		assert len(m.get_payload().strip()) == 64000, p
		assert m["X-Name"] not in got, p
		got.add(m["X-Name"])
	return got


COMMANDS = [
	(("verify", "--sample", "100%"), nothing),
	(("--json", "list", "--all"), of_list),
	(("--json", "list", "--user", "anna@example.test"), of_list),
	(("export", "--all", "--to", "maildir:{box}"), of_maildir),
	(("replay", "--all", "--to", "maildir:{box}"), of_maildir),
	(("drill", "run", "--all"), nothing),
	(("keys", "list"), nothing),
]


def beside(t, site, keep):
	every = {f"S{s}M{k}" for s in range(4) for k in range(SPREAD)}
	whole = site.dir / "whole"
	rigs.copy_journal(site.journal, whole)
	for command, names in COMMANDS:
		args = [x.format(box=site.dir / "box") for x in command]
		shutil.rmtree(site.dir / "box", ignore_errors=True)
		rigs.copy_journal(whole, site.journal)
		n = reads(site, *args)
		bad = []
		for i in range(STOPS):
			at = n[(len(n) - 1) * i // (STOPS - 1)]
			rigs.copy_journal(whole, site.journal)
			shutil.rmtree(site.dir / "box", ignore_errors=True)
			r = Stopped(site, at, *args)
			pruned = site.mailwal("prune", "--yes")
			rc, out, err = r.go()
			if pruned[0] or len(files(site.journal)) > 5:
				bad.append((at, "prune", pruned))
			if not r.tracee:
				bad.append((at, "it ended before"))
			if rc or re.search("damage|lost|cannot|wrong", err):
				bad.append((at, rc, err, out[-500:]))
				continue
			got = names(site, out)
			if got is not None and not keep <= got <= every:
				bad.append((at, sorted(keep - got), sorted(got - every)))
		t.ok(not bad, f"{' '.join(command[:3])} beside a prune, stopped at {STOPS} of {len(n)} reads",
		     "\n".join(map(str, bad)))
	t.equal(site.mailwal("verify")[0], 0, "nothing is wrong with what is left")


def in_the_index(t, site, whole):
	"""Readers and writers that stopped while they had the files of the index locked."""
	user = ("--json", "list", "--user", "anna@example.test")
	rigs.copy_journal(whole, site.journal)
	n = reads(site, *user, what=".mdb>")
	t.need(n, "the index is read")
	r = Stopped(site, n[0], *user)
	pruned = site.mailwal("prune", "--yes")
	t.ok(pruned[0] == 0 and len(files(site.journal)) <= 5,
	     "a prune beside a reader that stopped while it opened the index", pruned)
	rc, out, err = r.go()
	t.ok(rc == 0 and not err and len(of_list(site, out)) >= SPREAD,
	     "which goes on", (rc, out[-500:], err))
	rigs.copy_journal(whole, site.journal)
	index = os.open(site.journal / "index", os.O_RDONLY)
	try:
		fcntl.flock(index, fcntl.LOCK_EX) # as a writer that makes a file
		rc, out, err = site.mailwal("--key", site.key, *user)
		t.ok(rc == 0 and len(of_list(site, out)) == 4 * SPREAD,
		     "a list beside a writer that stopped there", (rc, out[-500:], err))
		rc, out, err = site.mailwal("prune", "--yes")
		t.ok(rc == 75 and "index" in err and (site.journal / "segments" / FIRST).exists(),
		     "a prune beside it removes nothing, and says so: 75", (rc, out, err))
	finally:
		os.close(index)
	rc, out, err = site.mailwal("prune", "--yes")
	t.ok(rc == 0 and not (site.journal / "segments" / FIRST).exists(), "and the next one does",
	     (rc, out, err))
	t.equal(site.mailwal("verify")[0], 0, "nothing is wrong with what is left")


def main(t):
	with Keyed(t.dir, sections=SECTIONS) as site:
		keep = fill(site)
		site.proc.send_signal(signal.SIGTERM)
		site.proc.wait(tap.PATIENCE)
		beside(t, site, keep)
		in_the_index(t, site, site.dir / "whole")


tap.run(main)
