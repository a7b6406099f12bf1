#!/usr/bin/python3
"""Drills over a journal captured through real Postfix: into Maildirs and into a private Dovecot;
reports listed, printed, verified; a damaged record, a killed and an interrupted drill."""
# MW_TEST_COST 25

import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
import workload


def processes(word):
	"""Command lines of running processes that have this word."""
	out = []
	for p in glob.glob("/proc/[0-9]*/cmdline"):
		try:
			line = pathlib.Path(p).read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
		except OSError:
			continue
		if word in line:
			out.append(line)
	return out


class Drills:
	def __init__(self, t, rig):
		self.t, self.rig = t, rig
		self.scratch = f"{rig.run}/scratch"
		os.mkdir(self.scratch, 0o711)
		self.env = dict(os.environ, TMPDIR=self.scratch)

	def mailwal(self, *args):
		return self.rig.mailwal(*args, env=self.env)

	def nothing_left(self, what):
		end = time.monotonic() + tap.PATIENCE  # a process that was killed may still be going
		while (run := processes(self.scratch)) and time.monotonic() < end:
			time.sleep(0.05)
		left = os.listdir(self.scratch)
		self.t.ok(not left and not run, f"{what}: nothing is left", f"{left} {run}")

	def report(self, r):
		try:
			return json.loads(r.out.splitlines()[-1])
		except (ValueError, IndexError):
			return {}

	def good(self, copies, *args):
		what = " ".join(("drill run",) + args)
		r = self.mailwal("--json", "drill", "run", *args)
		o = self.report(r)
		self.t.ok(r.rc == 0 and o.get("result") == "passed", f"{what}: passed", r)
		c, m = o.get("copies", {}), o.get("measured", {})
		if copies:
			self.t.equal((c.get("expected"), c.get("restored"),
				      c.get("identical", 0) + c.get("identical_in_canonical_form", 0)),
				     (copies,) * 3, f"{what}: all copies came back")
		self.t.ok(m.get("rpo_s") == 0 and m.get("rpo_is_bound") is False,
			  f"{what}: RPO 0, by what mailwald acknowledged", m)
		self.t.ok(m.get("rto_s", 0) > 0, f"{what}: RTO measured", m)
		self.nothing_left(what)
		return o


def interrupted(d):
	"""SIGINT in the middle: 130, nothing left. SIGKILL: the next drill cleans up."""
	for sig, rc in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
		for _ in range(10):
			p = subprocess.Popen(d.rig.mailwal_argv("drill", "run", "--all", "--to", "dovecot"),
					     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
					     stderr=subprocess.DEVNULL, env=d.env)
			rigs.wait_for("the drill's Dovecot", lambda p=p: p.poll() is not None
				      or processes(d.scratch + "/mailwal-drill-"))
			time.sleep(0.15)
			p.send_signal(sig)
			if p.wait(tap.PATIENCE) != 0:  # else it had come to its end before
				break
		d.t.equal(p.returncode, rc, f"a drill that gets {sig.name} ends with")
		if sig == signal.SIGINT:
			d.nothing_left("interrupted")
	rigs.wait_for("Dovecot to end with the drill", lambda: not processes(d.scratch))
	d.good(None, "--sample", "3")


def reports(d, n):
	t = d.t
	r = d.mailwal("--json", "drill", "list")
	t.ok(r.rc == 0 and len(r.lines) == n and all(o["signature_holds"] for o in r.lines),
	     f"drill list: {n} reports, all signed", r)
	name = r.lines[-1]["name"]
	text, html = d.mailwal("drill", "report"), d.mailwal("drill", "report", name[:-2], "-o", "html")
	t.ok(text.rc == 0 and "RESULT: PASSED" in text.out and name in text.out,
	     "drill report: the newest, as text", text)
	t.ok(html.rc == 0 and html.out.startswith("<!DOCTYPE html>") and "PASSED" in html.out
	     and "http://" not in html.out and "<script" not in html.out,
	     "drill report -o html: one page that needs nothing else", html)
	t.ok(d.mailwal("drill", "verify").rc == 0, "drill verify: holds")
	path = os.path.join(d.rig.journal, "drills", name + ".note")
	st = os.stat(os.path.join(d.rig.journal, "segments"))
	t.ok(os.stat(path).st_uid == st.st_uid, "the report belongs to the journal's owner")
	data = pathlib.Path(path).read_text(encoding="utf-8")
	forged = os.path.join(d.rig.dir, "forged.note")
	pathlib.Path(forged).write_text(data.replace('"missing": 0', '"missing": 1'), encoding="utf-8")
	r = d.mailwal("drill", "verify", forged)
	t.ok(r.rc == 1 and "altered" in r.out, "drill verify: an altered report is found out", r)
	fresh = d.mailwal("--json", "drill", "verify", path)
	t.ok(fresh.rc == 0 and fresh.summary and fresh.summary["ok"], "drill verify FILE", fresh)
	later = os.path.join(os.path.dirname(path), "20990101T000000Z-aaaa.note")
	shutil.copy2(path, later)
	r = d.mailwal("drill", "verify")
	t.ok(r.rc == 1 and "of another drill" in r.err, "an old report in a new one's place is found out", r)
	os.remove(later)


def status(d, nagios, result):
	"""The last drill in `status`, for people, programs and monitoring."""
	plain, js = d.mailwal("status"), d.mailwal("--json", "status")
	line = next((x for x in plain.out.splitlines() if x.startswith("  Drill ")), "")
	last = js.lines[0].get("last_drill") or {}
	d.t.ok(result in line.lower() and "RTO" in line and last.get("result") == result
	       and plain.rc == (0 if result == "passed" else 1), f"status: the last drill {result}",
	       f"{plain}\n{js}")
	r = d.mailwal("status", "--nagios")
	d.t.ok(r.rc == nagios and " drill_age=" in r.out, f"status --nagios: {nagios}", r)


def damaged(d):
	"""One byte in the middle of a record's content."""
	t, rig = d.t, d.rig
	victim = max(rig.journaled(), key=lambda o: o["size"])
	seg = os.path.join(rig.journal, "segments", f"{victim['segment']:016d}.seg")
	with open(seg, "r+b") as f:
		f.seek(victim["offset"] + 2000)
		byte = f.read(1)[0]
		f.seek(-1, os.SEEK_CUR)
		f.write(bytes([byte ^ 1]))
	for to in ("scratch", "dovecot"):
		r = d.mailwal("--json", "drill", "run", "--all", "--to", to)
		o = d.report(r)
		ids = {f.get("id") for f in o.get("findings", [])}
		t.ok(r.rc == 1 and o.get("result") == "failed" and ids == {victim["id"]},
		     f"a damaged record fails a drill to {to}, and is named", f"{victim['id']}\n{r}")
	r = d.mailwal("drill", "verify")
	t.ok(r.rc == 0 and "the drill failed" in r.out, "the report of a failed drill holds, too", r)
	d.nothing_left("after damage")


def main(t):
	with rigs.Rig(t.dir) as rig:
		rig.start()
		jobs = workload.jobs(workload.fixtures(), rig.users, rig.aliases, seed=4)
		rig.send(jobs, clock=time.time)
		rig.wait_queue()
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} fixtures accepted")
		copies = sum(len(j.owners) for j in jobs) + sum(1 for j in jobs if j.auth)
		d = Drills(t, rig)
		d.good(copies, "--all")
		a = d.good(None, "--sample", "20", "--seed", "5eed")
		b = d.good(None, "--sample", "20", "--seed", "5eed")
		t.ok(a.get("scope") == b.get("scope") and a["scope"]["drawn"] < copies,
		     "the same seed draws the same sample", f"{a.get('scope')}\n{b.get('scope')}")
		d.good(copies, "--all", "--to", "dovecot")
		reports(d, 4)
		r = d.mailwal("drill", "run", "--all", "--to", f"imap://127.0.0.1:{rig.imap_port}",
			      "--user-passwords", rig.user_passwords)
		t.ok(r.rc == 64 and "no scratch target" in r.err, "the live store is refused", r)
		status(d, 0, "passed")
		interrupted(d)
		damaged(d)
		status(d, 2, "failed")


tap.run(main)
