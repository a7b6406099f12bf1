#!/usr/bin/python3
"""The journal is given to somebody else, or closed to a mailwald that is not root, while mail
comes through real Postfix: what has no record gets a 4xx, what was acknowledged is there, and
afterwards all is well without a restart."""
# MW_TEST_COST 8

import os
import pwd
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from answers import ANNA, judge, one, until_taken

USER = "nobody"
POSTFIX = "virtual_transport = discard:"


def as_user(rig):
	"""mailwald runs as somebody who is not root; the journal is that user's."""
	pw = pwd.getpwnam(USER)
	d = f"{rig.run}/mw"
	os.mkdir(d)
	os.chmod(d, 0o755)
	rig.journal, rig.milter_sock = f"{d}/journal", f"{d}/milter.sock"
	r = rig.mailwal("init", rig.journal, "--owner", USER)
	if r.rc:
		raise rigs.RigError(f"init: {r}")
	os.chown(d, pw.pw_uid, pw.pw_gid)
	rig.conf = f"{d}/mailwal.conf"
	rig.conf_extra = "milter_socket_group =\nmilter_socket_mode = 0777\nsegment_size = 1M\n"
	rig.write_conf()
	os.chmod(rig.conf, 0o644)
	rig._write_postfix()
	p = rig.spawn("mailwald", ["setpriv", "--reuid", USER, "--regid", str(pw.pw_gid),
				   "--clear-groups", rig.mailwald_bin, "-c", rig.conf])
	rigs.wait_for("mailwald's socket", lambda: rigs.connects(rig.milter_sock), alive=p)
	rig.start_postfix()
	return pw


def tree(path):
	yield path
	for root, dirs, files in os.walk(path):
		for f in dirs + files:
			yield os.path.join(root, f)


def closed(t, rig, what, close, open_again):
	"""Mail comes before, while and after."""
	before = [one(rig, f"{what}-before")]
	close()
	try:
		during = [one(rig, f"{what}-during{k}") for k in range(3)]
		r = rig.mailwal("--json", "mark", f"{what}-mark")
		during += [one(rig, f"{what}-later{k}") for k in range(2)]
		t.ok(r.rc in (0, 73, 74, 77), f"{what}: a mark is set, or said to be impossible", r)
	finally:
		open_again()
	after = [until_taken(rig, f"{what}-after")]
	judge(t, rig, what, before + during + after, some_refused=False)
	rigs.wait_for("status to be well", lambda: rig.mailwal("status", "--ack").rc in (0, 1))
	r = rig.mailwal("verify")
	t.ok(r.rc == 0, f"{what}: verify", r)
	return during


def rolled(rig):
	"""The open segment is closed: what comes next needs a new one."""
	rig.end("mailwald")
	pw = pwd.getpwnam(USER)
	p = rig.spawn("mailwald", ["setpriv", "--reuid", USER, "--regid", str(pw.pw_gid),
				   "--clear-groups", rig.mailwald_bin, "-c", rig.conf])
	rigs.wait_for("mailwald's socket", lambda: rigs.connects(rig.milter_sock), alive=p)


def permissions(t, work):
	with rigs.Rig(work, users=(ANNA,), aliases={}, postfix=POSTFIX) as rig:
		pw = as_user(rig)
		segments = f"{rig.journal}/segments"

		def mode(path, bits):
			return lambda: os.chmod(path, bits)

		def own(uid, gid):
			def change():
				for f in tree(rig.journal):
					os.chown(f, uid, gid)
			return change

		got = closed(t, rig, "segments-closed", mode(segments, 0), mode(segments, 0o750))
		t.ok(all(a[0] == 250 or 400 <= a[0] < 500 for a in got), "chmod: answered", got)
		rolled(rig)
		got = closed(t, rig, "journal-closed", mode(rig.journal, 0), mode(rig.journal, 0o750))
		t.ok(all(400 <= a[0] < 500 for a in got), "a journal that is closed before a segment is "
		     "begun: every message is told to come again", got)
		rolled(rig)
		got = closed(t, rig, "given-away", own(0, 0), own(pw.pw_uid, pw.pw_gid))
		t.ok(all(400 <= a[0] < 500 for a in got), "a journal that is root's now: every message is "
		     "told to come again", got)
		log = rig.mailwald_log()
		t.ok("error=perm" in log or "ermission" in log, "the log says why", log[-1500:])


def main(t):
	permissions(t, t.sub("rig"))


tap.run(main)
