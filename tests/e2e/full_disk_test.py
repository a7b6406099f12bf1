#!/usr/bin/python3
"""The disk that a replay, an export or a drill writes to is full in the middle (room, or inodes):
said clearly, nothing half-written is left, and the same command completes once there is room. And
selections that no mailbox can be for, directories that are not there, a queue's command that
hangs."""
# MW_TEST_COST 20

import ctypes
import hashlib
import os
import pathlib
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import faults
import milterclient
import rig as rigs
import tap

ANNA, BERT = "anna@example.test", "bert@example.test"
N = 60
SIZE = 20_000


def message(i):
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"text {i}\r\n" + ("x" * 70 + "\r\n") * (SIZE // 72)).encode()


def disk(path, options):
	os.makedirs(path)
	faults.small_disk(path, options.partition("=")[2])


def remount(path, options):
	"""More room."""
	libc = ctypes.CDLL("libc.so.6", use_errno=True)
	if libc.mount(b"mw", os.fsencode(path), b"tmpfs", 0x20, options.encode()):
		raise rigs.RigError(f"remount {path}: {os.strerror(ctypes.get_errno())}")


def unmount(path):
	ctypes.CDLL("libc.so.6", use_errno=True).umount2(os.fsencode(path), 2)


def digest(data):
	return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def files(path, tmp=False):
	"""Digests of the messages there: Maildir, eml; tmp: what lies in tmp or hidden."""
	out = []
	for d, _, names in os.walk(path):
		for n in names:
			if n.startswith(("dovecot", "maildir", "subscriptions", ".mailwal")):
				continue
			half = os.path.basename(d) == "tmp" or n.startswith(".") or n.endswith(".tmp")
			if n.endswith(".json"):  # of an eml: never without it
				half = not os.path.exists(os.path.join(d, n[:-5] + ".eml"))
				if not half:
					continue
			if half == tmp:
				out.append(digest(pathlib.Path(d, n).read_bytes()))
	return sorted(out)


def mboxes(path, tmp=False):
	out = []
	for d, _, names in os.walk(path):
		for n in names:
			if n.endswith(".lock") or tmp:
				out += [n] * tmp * n.endswith(".lock")
				continue
			data = pathlib.Path(d, n).read_bytes()
			parts = re.split(rb"(?m)^From [^\n]*\n", data)
			t = parts[1:] if not parts[0] else [b"begins with no From_ line"]
			out += [digest(p[:-1]) for p in t]
	return sorted(out)


def full(t, rig, name, command, target, look, options, more):
	"""command into a disk of these options, then with more of it."""
	where = os.path.join(t.dir, name)
	disk(where, options)
	sent = sorted(digest(message(i)) for i in range(N))
	r = rig.mailwal("--json", *command, "--to", target.format(where))
	have = look(where)
	s = r.summary or {}
	t.ok(r.rc == 3 and 0 < s["restored"] < N and s["failed"] == N - s["restored"]
	     and "No space left" in r.out + r.err and len(s["failures"]) == s["failed"],
	     f"{name}: exit 3, {s.get('restored')} of {N} written, each of the others is named", r)
	t.ok(len(have) == s["restored"] and set(have) <= set(sent) and not look(where, True),
	     f"{name}: what is there is whole, and nothing else is", f"{have}\n{look(where, True)}")
	remount(where, more)
	r = rig.mailwal("--json", *command, "--to", target.format(where))
	t.ok(r.rc == 0 and r.summary["failed"] == 0 and look(where) == sent and not look(where, True),
	     f"{name}: with room the next run completes it", r)
	unmount(where)


def targets(t, rig):
	q = ("--queue", "none")
	room, more = "size=1000k", "size=8m"
	nodes = "size=8m,nr_inodes=40", "size=8m,nr_inodes=4000"
	full(t, rig, "replay to Maildirs", ["replay", "--all", "--create", *q], "maildir:{}/%u", files,
	     room, more)
	full(t, rig, "replay without inodes", ["replay", "--all", "--create", *q], "maildir:{}/%u",
	     files, nodes[0], nodes[1])
	full(t, rig, "replay to mboxes", ["replay", "--all", "--create", *q], "mbox:{}/%u", mboxes,
	     room, more)
	full(t, rig, "replay to files", ["replay", "--all", "--create", *q], "eml:{}", files, room,
	     more)
	full(t, rig, "export to a Maildir", ["export", "--all"], "maildir:{}/m", files, room,
	     more)
	full(t, rig, "export to an mbox", ["export", "--all"], "mbox:{}/m", mboxes, room,
	     more)
	full(t, rig, "export to files", ["export", "--all"], "eml:{}", files, room, more)


def drills(t, rig):
	where = os.path.join(t.dir, "scratch")
	for name, options, rc, words in (("no room", "size=1000k", 73, "are free"),
					 ("no inodes", "size=64m,nr_inodes=30", 1, "No space left")):
		disk(where, options)
		r = rig.mailwal("--json", "drill", "run", "--all", "--scratch", where)
		t.ok(r.rc == rc and words in r.out + r.err, f"drill, {name}: exit {rc}, and says why", r)
		t.equal(os.listdir(where), [], f"drill, {name}: nothing is left behind")
		unmount(where)
		os.rmdir(where)
		status = rig.mailwal("status")
		if rc == 1:
			t.ok(status.rc == 1 and "the last drill failed" in status.out,
			     f"drill, {name}: status names it", status)
			r = rig.mailwal("drill", "report")
			t.ok("failed" in r.out and "No space left" in r.out, "and so does its report", r)
	r = rig.mailwal("drill", "run", "--all", "--scratch", t.dir)
	status = rig.mailwal("status")
	t.ok(r.rc == 0 and "drill failed" not in status.out, "a drill with room: all is well", r)


def wrong(t, rig):
	"""What can never be put anywhere is no success; what is missing is named."""
	q = ("--queue", "none")
	to = ("--to", f"maildir:{t.dir}/none/%u", "--create")
	for words in (["--domain", "foreign.test"], ["--domain", "@foreign.test", "-n"],
		      ["--user", "out@foreign.test"], ["--domain", "nowhere.test"]):
		r = rig.mailwal("replay", *words, *to, *q)
		t.ok(r.rc == 67 and "local_domains" in r.err, f"{' '.join(words)}: exit 67", r)
	r = rig.mailwal("replay", "--user", "cleo@example.test", *to, *q)
	t.ok(r.rc == 0 and "no mail" in r.err, "a user of ours without mail: exit 0, and said", r)
	r = rig.mailwal("replay", "--domain", "foreign.test", "--domain", "EXAMPLE.test", "-n", *to, *q)
	t.ok(r.rc == 0 and f"{N} copies" in r.out, "one of two domains is ours", r)
	r = rig.mailwal("replay", "--all", "--to", f"mbox:{t.dir}/no/such/%u", *q)
	t.ok(r.rc == 73 and "no such directory" in r.err and "--create" in r.err,
	     "mboxes in a directory that is not there: says what to do", r)
	r = rig.mailwal("replay", "--all", "--create", "--to", f"mbox:{t.dir}/no/such/%u", *q)
	t.ok(r.rc == 0 and len(mboxes(f"{t.dir}/no")) == N, "--create makes it", r)
	began = time.monotonic()
	r = rig.mailwal("replay", "--since-mark", "nothing", *to, "--queue", "sleep 1000")
	t.ok(r.rc == 66 and time.monotonic() - began < tap.PATIENCE,
	     "a run that fails does not wait for a queue that hangs", f"{r} {r.seconds}")


def main(t):
	faults.private_mounts()
	with rigs.Rig(t.sub("rig"), users=(ANNA, BERT), aliases={}) as rig:
		t.need(rig.mailwal("init", rig.journal).rc == 0, "a journal")
		rig.start_mailwald()
		mails = [(f"Q{i:05d}", (ANNA, BERT)[i % 2], message(i)) for i in range(N)]
		t.need(len(milterclient.journal(rig.milter_sock, mails, threads=1)) == N, "captured")
		wrong(t, rig)
		if faults.no_mounts:
			t.skip(f"no mount name space: {faults.no_mounts}")
			return
		targets(t, rig)
		drills(t, rig)


tap.run(main)
