#!/usr/bin/python3
"""SIGKILL of the real command at each write, sync, rename and unlink while it removes: a
prune that takes whole files and wipes slots in others, the erasure of one person from mail
that others keep, and new keys for old segments. Afterwards verify finds nothing wrong,
what stays is there; a second run ends it, and nothing is half removed."""
# MW_TEST_COST 40

import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from keyed import JUNK, Keyed

SECTIONS = """
capture junk { match = header:X-Spam }
retain junk { match = class:junk; keep = 1s }
retain rest { keep = 10d }
"""
CALLS = ("pwritev", "fdatasync", "fsync", "rename", "unlink")
KILLS = int(os.environ.get("MW_KILLS", "9"))  # most of a kind of call
MAILS = 6  # of a segment
ANNA, BOB = "anna@example.test", "bob@example.test"


def fill(site):
	"""Two segments of which all expires, one of which half does, one that stays. Every
	message is Anna's, every third one is Bob's too."""
	for seg in range(4):
		for k in range(MAILS):
			junk = seg < 2 or (seg == 2 and k % 2)
			site.send(f"S{seg}M{k}", ANNA, *([BOB] if k % 3 == 0 else []),
				  size=3000, headers=JUNK if junk else [])
		site.roll()
	site.due("junk", 2 * MAILS + MAILS // 2)


EVERY = {f"S{s}M{k}" for s in range(4) for k in range(MAILS)}
STAYS = {n for n in EVERY if n[1] == "3" or (n[1] == "2" and int(n[3]) % 2 == 0)}


def names(site, *args, key=None):
	return {o["queue_id"] for o in site.lines("--key", key or site.key, "list", *args)
		if "queue_id" in o}


def pruned(site):
	got = names(site, "--all")
	return [] if got == STAYS else [("prune", sorted(EVERY & STAYS ^ got))]


def erased(site):
	wrong = []
	for args in (("--user", BOB), ("--user", BOB, "--domain", "example.test"),
		     ("--user", "bob", "--since", "@1")):
		if names(site, *args):
			wrong.append(args)
	if names(site, "--user", ANNA) != EVERY:
		wrong.append("not all of Anna's")
	got = [o for o in site.lines("--key", site.key, "list", "--all") if BOB in str(o)]
	return wrong + got


def rewrapped(site):
	got = names(site, "--all", key=site.dir / "other")
	return [] if got == EVERY else [("with the new key", sorted(EVERY - got))]


class Job:
	def __init__(self, name, args, between, after):
		self.name, self.args, self.between, self.after = name, args, between, after


def traced(site, args, *options):
	log = site.dir / "strace"
	log.unlink(missing_ok=True)
	p = subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=" + ",".join(CALLS), *options,
			    rigs.find_program("mailwal"), "-c", site.conf, *map(str, args)],
			   capture_output=True, check=False, timeout=tap.PATIENCE)
	return p, log.read_text()


def counts(site, args):
	"""How often a thread makes each call, at most, when nothing happens to it."""
	p, text = traced(site, args)
	assert p.returncode == 0, p
	n = {}
	for line in text.splitlines():
		m = re.match(r"(\d+) +(\w+)\(", line)
		if m:
			n[m.groups()] = n.get(m.groups(), 0) + 1
	return {call: max((v for (_, c), v in n.items() if c == call), default=0) for call in CALLS}


def moments(n):
	"""The first, the last, and some in between."""
	k = min(n, KILLS)
	return sorted({1 + (n - 1) * i // max(k - 1, 1) for i in range(k)})


def try_once(site, job, call, n):
	wrong = []
	p, text = traced(site, job.args, "-e", f"inject={call}:signal=KILL:when={n}")
	if "killed by SIGKILL" not in text:
		return ["it was not killed"] if p.returncode else None
	rc, out, err = site.mailwal("verify")
	if rc:
		wrong.append(("verify", rc, out[-600:], err))
	got = names(site, "--all")
	if not job.between <= got <= EVERY:
		wrong.append(("missing", sorted(job.between - got), sorted(got - EVERY)))
	rc, out, err = site.mailwal(*job.args)
	if rc:
		wrong.append(("second run", rc, out, err))
	rc, out, err = site.mailwal("prune", "--yes") if job.name == "erase" else (0, "", "")
	if rc:
		wrong.append(("prune", rc, out, err))
	rc, out, err = site.mailwal("verify")
	if rc or "pending" in out or "not wiped" in out:
		wrong.append(("verify in the end", rc, out[-600:], err))
	left = [p.name for p in (site.journal / "segments").iterdir()
		if p.suffix == ".tmp" and re.fullmatch("[0-9a-f]{16}", p.stem)]
	if left:
		wrong.append(("half removed", left))
	return wrong + job.after(site)


def main(t):
	with Keyed(t.dir, sections=SECTIONS) as site:
		p = subprocess.run([rigs.find_program("mailwal"), "keys", "new", "--out", site.dir / "other",
				    "--on-this-host"], capture_output=True, check=False)
		assert p.returncode == 0, p
		fill(site)
		site.proc.send_signal(signal.SIGTERM)
		site.proc.wait(tap.PATIENCE)
		whole = site.dir / "whole"
		rigs.copy_journal(site.journal, whole)
		nothing = "retain rest { keep = 10d }\n"
		for sections, job in (
				(SECTIONS, Job("prune", ["prune", "--yes"], STAYS, pruned)),
				(nothing, Job("erase", ["--key", site.key, "erase", "--user", BOB, "--yes"],
					      EVERY, erased)),
				(nothing, Job("rewrap", ["--key", site.key, "keys", "rewrap",
							 f"{site.dir}/other.pub"], EVERY, rewrapped))):
			site.configure(sections)
			rigs.copy_journal(whole, site.journal)
			n = counts(site, job.args)
			kills, bad = dict.fromkeys((c for c in CALLS if n[c]), 0), []
			for call in CALLS:
				for at in moments(n[call]):
					rigs.copy_journal(whole, site.journal)
					got = try_once(site, job, call, at)
					kills[call] += got is not None
					if got:
						bad.append((call, at, got))
			t.ok(kills and not bad, f"{job.name}: {sum(kills.values())} kills ({n})",
			     "\n".join(map(str, bad)))
			t.ok(all(kills.values()), f"{job.name}: some at each kind of call that it makes",
			     kills)


tap.run(main)
