#!/usr/bin/python3
"""The disk fails under a running mailwald behind real Postfix: fdatasync says EIO, a small
filesystem fills up, the volume goes read-only. Nobody gets a 250 without a durable record, the
refusals are temporary and quick, and once the disk is well mail is taken again without a
restart."""
# MW_TEST_COST 15

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload

SEED = int(os.environ.get("MW_SEED", "1"))


class Disk(rigs.Rig):
	"""A rig whose journal may be on a filesystem of its own."""

	def __init__(self, directory, journal=None):
		super().__init__(directory,
				 postfix="virtual_transport = discard:\nmessage_drop_headers =")
		self.journal = journal or self.journal
		self.metrics = rigs.free_ports(1)[0]
		self.conf_extra = f"metrics_listen = inet:127.0.0.1:{self.metrics}\n"
		self.write_conf()
		p = pathlib.Path(self.conf)
		p.write_text(p.read_text(encoding="utf-8").replace("min_free = 1M", "min_free = 0"),
			     encoding="utf-8")

	def up(self):
		r = self.mailwal("init", self.journal)
		if r.rc:
			raise rigs.RigError(f"mailwal init: {r}")
		self.start_mailwald()
		self.start_postfix()

	def batch(self, messages):
		jobs = [workload.Mail(name, data, "writer@remote.test", ["anna@example.test"],
				      self.aliases, self.users) for name, data in messages]
		return self.send(jobs, sessions=4)

	def pid(self):
		return self.procs["mailwald"].pid


def taken(t, what, jobs, some=True):
	"""Splits by answer; the rest must be temporary refusals within seconds."""
	yes = [j for j in jobs if j.code == 250]
	bad = [f"{j.name}: {j.code} {j.text}" for j in jobs
	       if j.code != 250 and not 400 <= j.code < 500]
	t.ok(not bad, f"{what}: {len(yes)} taken, the other {len(jobs) - len(yes)} told to come again",
	     "\n".join(bad[:10]))
	if some:
		t.ok(len(yes) < len(jobs), f"{what}: something was refused")
	return yes


def all_there(t, what, rig, told):
	"""Every message with a 250 is in the journal, byte for byte; the log is sound."""
	rows = collections.Counter(o["queue_id"] for o in rig.journaled())
	bad = []
	for j in told:
		if rows[j.queue_id] != 1:
			bad.append(f"{j.queue_id}: {rows[j.queue_id]} records")
	for j in told[::5]:
		raw = rig.raw(j.queue_id)
		if raw != j.data:
			bad.append(f"{j.queue_id}: " + mailbox.first_difference(j.data, raw))
	t.ok(not bad, f"{what}: each of {len(told)} acknowledged messages is there",
	     "\n".join(bad[:10]))
	r = rig.mailwal("verify")
	t.ok(r.rc == 0, f"{what}: the log verifies", r)


def well_again(t, what, rig, messages):
	"""Everything is taken at once, without a restart."""
	jobs = rig.batch(messages)
	bad = [f"{j.name}: {j.code} {j.text}" for j in jobs if j.code != 250]
	t.ok(not bad, f"{what}: the disk is well, all mail is taken, no restart",
	     "\n".join(bad[:10]))
	return [j for j in jobs if j.code == 250]


def status(rig, *words):
	r = rig.mailwal("--json", "status", *words)
	return json.loads(r.out.splitlines()[0])


def used_again(log):
	"""Descriptors synced after a sync on them had failed, and before they were closed."""
	dead, sins, begun = set(), [], {}
	for line in log.splitlines():
		# A call that another thread's line cuts in two: "close(15 <unfinished ...>", and
		# later "<... fdatasync resumed>) = …" of the same thread.
		tid = line.split()[0]
		resumed = re.search(r"<\.\.\. fdatasync resumed>", line)
		if resumed and "EIO" in line and tid in begun:
			dead.add(begun.pop(tid))
		m = re.search(r"(fdatasync|close)\((\d+)(\)| <unfinished)", line)
		if not m:
			continue
		if m[1] == "fdatasync":
			begun[tid] = m[2]
		if m[1] == "close":
			dead.discard(m[2])
		elif m[2] in dead:
			sins.append(line)
		elif "EIO" in line:
			dead.add(m[2])
	return sins


def failing_sync(t, messages):
	if not shutil.which("strace"):
		t.skip("strace is not installed: EIO from fdatasync is not tried")
		return
	with Disk(t.sub("eio")) as rig:
		rig.up()
		told = rig.batch(messages[:5])
		log = os.path.join(rig.dir, "strace.log")
		p = subprocess.Popen(["strace", "-f", "-e", "trace=fdatasync,close", "-e",
				      "inject=fdatasync:error=EIO:when=3..6", "-o", log, "-p",
				      str(rig.pid())], stderr=subprocess.PIPE)
		try:
			if b"attached" not in p.stderr.readline():
				t.skip("strace may not attach: EIO from fdatasync is not tried")
				return
			t0 = time.monotonic()
			jobs = rig.batch(messages[5:45])
			took = time.monotonic() - t0
		finally:
			p.send_signal(signal.SIGINT)
			p.wait(tap.PATIENCE)
		told += taken(t, "EIO from fdatasync", jobs)
		t.ok(took < 60, "EIO from fdatasync: answered without delay", f"{took:.1f} s")
		text = pathlib.Path(log).read_text(encoding="utf-8")
		t.ok("EIO" in text and not used_again(text),
		     "EIO from fdatasync: a descriptor that failed is not synced again",
		     "\n".join(used_again(text)) or text[-2000:])
		told += well_again(t, "EIO from fdatasync", rig, messages[45:55])
		s = status(rig)
		t.ok(s["state"] == "degraded" and any("writes of the log failed" in p and
		     "input/output error" in p and "--ack" in p for p in s["problems"]),
		     "EIO from fdatasync: status tells of it, with its time, until that is noted", s)
		s = status(rig, "--ack")
		t.ok(s["state"] == "ok" and s["daemon"]["failures"] > 0,
		     "EIO from fdatasync: after status --ack all is well, the count stays", s)
		all_there(t, "EIO from fdatasync", rig, [j for j in told if j.code == 250])
		rig.end("mailwald", signal.SIGKILL)
		rig.start_mailwald()
		all_there(t, "EIO from fdatasync, after SIGKILL", rig,
			  [j for j in told if j.code == 250])


def mounted(t, what, argv, where):
	os.makedirs(where)
	p = subprocess.run(["mount", *argv, where], capture_output=True, check=False)
	if p.returncode:
		t.skip(f"{what}: may not be mounted here: {p.stderr.decode().strip()}")
	return p.returncode == 0


def metric(rig, name):
	with urllib.request.urlopen(f"http://127.0.0.1:{rig.metrics}/metrics",
				    timeout=tap.PATIENCE) as f:
		text = f.read().decode()
	return re.search(rf"^{name} (\S+)$", text, re.M)[1]


def to_the_brim(ballast):
	with open(ballast, "ab", buffering=0) as f:
		try:
			while True:
				f.write(b"\0" * 4096)
		except OSError:
			pass


def quiet(t, rig):
	"""Space is back and no mail comes: mailwald finds out by itself."""
	rigs.wait_for("status to be well", lambda: status(rig)["state"] == "ok")
	s = status(rig)
	t.ok(s["state"] == "ok" and s["daemon"]["failures"] > 0
	     and s["daemon"]["last_failure_us"] > 0,
	     "a full disk: when there is space again, all is well, without mail or restart", s)
	r = rig.mailwal("status", "--nagios")
	t.ok(r.rc == 0 and r.out.startswith("MAILWAL OK"), "a full disk: --nagios says so", r)
	t.equal(metric(rig, "mailwal_ready"), "1", "a full disk: so do the metrics")
	t.comes(lambda: "event=disk-well" in rig.mailwald_log(), "a full disk: so does the log")


def full_disk(t, messages):
	where = os.path.join(t.sub("full"), "disk")
	if not mounted(t, "a small filesystem", ["-t", "tmpfs", "-o", "size=24m", "tmpfs"], where):
		return
	try:
		with Disk(t.sub("full") + "/rig", where + "/journal") as rig:
			rig.up()
			told = rig.batch(messages[:5])
			ballast = pathlib.Path(where, "ballast")
			v = os.statvfs(where)
			size = v.f_bavail * v.f_frsize - 150_000
			with open(ballast, "wb") as f:
				f.write(b"\0" * size)
			jobs = rig.batch(messages[5:60])
			told += taken(t, "a full disk", jobs)
			rigs.wait_for("the log to say so", lambda: re.search(
				"enospc|space", rig.mailwald_log(), re.I))
			to_the_brim(ballast)
			last = rig.batch(messages[5:6])
			t.ok(not taken(t, "a disk full to the brim", last), "and none is taken")
			s = status(rig)
			t.ok(s["state"] == "degraded" and any("last write of the log failed" in p
			     and "no space left" in p for p in s["problems"]),
			     "a full disk: status says so", s)
			r = rig.mailwal("status", "--nagios")
			t.ok(r.rc == 2 and "no space left" in r.out, "a full disk: --nagios too", r)
			t.equal(metric(rig, "mailwal_ready"), "0", "a full disk: and the metrics")
			ballast.unlink()
			quiet(t, rig)
			told += well_again(t, "a full disk", rig, messages[60:70])
			r = rig.mailwal("status")
			t.ok(r.rc == 0 and re.search(r"Failures +\d+ writes? of the log failed since "
			     r"mailwald started, the last \S+ \S+.*no space left", r.out),
			     "a full disk: status has its time in a line of its own", r)
			all_there(t, "a full disk", rig, told)
			rig.end("mailwald", signal.SIGKILL)
			rig.start_mailwald()
			all_there(t, "a full disk, after SIGKILL", rig, told)
	finally:
		subprocess.run(["umount", "-l", where], check=False)


def read_only(t, messages):
	d = t.sub("ro")
	where, image = os.path.join(d, "disk"), os.path.join(d, "image")
	with open(image, "wb") as f:
		f.truncate(64 << 20)
	if not shutil.which("mkfs.ext4"):
		t.skip("mkfs.ext4 is not installed: a volume that goes read-only is not tried")
		return
	subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
	if not mounted(t, "a volume that goes read-only", ["-o", "loop", image], where):
		return
	try:
		with Disk(d + "/rig", where + "/journal") as rig:
			rig.up()
			told = [j for j in rig.batch(messages[:20]) if j.code == 250]
			p = subprocess.run(["mount", "-o", "remount,abort", where],
					   capture_output=True, check=False)
			if p.returncode:
				t.skip("a volume that goes read-only: " + p.stderr.decode())
				return
			t0 = time.monotonic()
			jobs = rig.batch(messages[20:40])
			t.ok(time.monotonic() - t0 < 60, "read-only: answered without delay")
			told += taken(t, "read-only", jobs)
			t.ok(len(told) == 20, "read-only: nothing more was acknowledged")
			rig.end("mailwald", signal.SIGKILL)
			subprocess.run(["umount", where], check=True)
			subprocess.run(["mount", "-o", "loop", image, where], check=True)
			rig.start_mailwald()
			told += well_again(t, "read-only, mounted anew", rig, messages[40:50])
			all_there(t, "read-only", rig, told)
	finally:
		subprocess.run(["umount", "-l", where], check=False)


def main(t):
	messages, _ = workload.bulk(70, seed=SEED + 3, largest=60_000)
	failing_sync(t, messages)
	full_disk(t, messages)
	read_only(t, messages)


tap.run(main)
