#!/usr/bin/python3
"""The other targets: maildir, mbox, eml, LMTP into real Dovecot (unix and inet), and IMAP with
users' own passwords and with the master user in both styles; export as well."""
# MW_TEST_COST 15

import collections
import os
import pathlib
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload
from mailbox import Expected
from replaytool import empty


def bag(blobs):
	return collections.Counter(mailbox.without_trace(mailbox.crlf(b)) for b in blobs)


def differs(want, got):
	return "\n".join([f"missing {n} × {mailbox.message_id(d)} {d[:80]!r}"
			  for d, n in list((want - got).items())[:6]]
			 + [f"surplus {n} × {mailbox.message_id(d)} {d[:80]!r}"
			    for d, n in list((got - want).items())[:6]])


def unmbox(data):
	"""The messages of an mboxrd."""
	out = []
	for m in re.split(rb"(?m)^From [^\n]*\n", data)[1:]:
		m = m[:-1] if m.endswith(b"\n\n") else m
		out.append(re.sub(rb"(?m)^>(>*From )", rb"\1", m))
	return out


def per_user(jobs):
	out = collections.defaultdict(list)
	for j in jobs:
		for u in j.owners:
			out[u].append(j)
	return out


def maildirs(t, rig, owners):
	pattern = os.path.join(rig.dir, "out maildir", "%d", "%n")
	r = rig.mailwal("--json", "replay", "--all", "--to", "maildir:" + pattern)
	t.ok(r.rc in (3, 67) and not os.path.exists(os.path.join(rig.dir, "out maildir")),
	     "maildir: mailboxes that are not there are not made unasked", r)
	for run in ("first", "second"):
		r = rig.mailwal("--json", "replay", "--all", "--create", "--to",
				"maildir:" + pattern)
		t.ok(r.rc == 0, f"maildir: {run} run exits 0", r)
	bad, dates = [], []
	for u, jobs in owners.items():
		n, d = u.split("@")
		box = pathlib.Path(rig.dir, "out maildir", d, n)
		files = [f for s in ("new", "cur") for f in sorted((box / s).glob("*"))]
		want, got = bag(j.data for j in jobs), bag(f.read_bytes() for f in files)
		if want != got:
			bad.append(f"{u}:\n{differs(want, got)}")
		at = {mailbox.without_trace(j.data): j for j in jobs}
		for f in files:
			x = at.get(mailbox.without_trace(mailbox.crlf(f.read_bytes())))
			if x and x.off(f.stat().st_mtime) > 1:
				dates.append(f"{f}: {f.stat().st_mtime - x.acked_at:+.1f} s")
		if any((box / "tmp").iterdir()):
			bad.append(f"{u}: tmp/ is not empty")
	t.ok(not bad, "maildir: every copy once after two runs", "\n".join(bad))
	t.ok(not dates, "maildir: mtime is the time of arrival", "\n".join(dates[:8]))


def files(t, rig, jobs, owners):
	one = "anna@example.test"
	box = os.path.join(rig.dir, "anna.mbox")
	r = rig.mailwal("--json", "export", "--user", one, "--to", "mbox:" + box)
	t.ok(r.rc == 0, "export to mbox exits 0", r)
	sent = [j for j in jobs if one in j.owners or j.auth == one or j.sender == one]
	got = bag(unmbox(pathlib.Path(box).read_bytes())) if os.path.exists(box) else bag([])
	want_least = bag(j.data for j in owners[one])
	most = bag(j.data for j in sent)
	t.ok(not want_least - got and not got - most - want_least,
	     f"mbox: the {len(owners[one])} messages of {one}", differs(want_least, got))
	out = os.path.join(rig.dir, "out eml")
	r = rig.mailwal("--json", "export", "--all", "--to", "eml:" + out)
	t.ok(r.rc == 0, "export to eml exits 0", r)
	emls = [p.read_bytes() for p in pathlib.Path(out).rglob("*.eml")]
	want = collections.Counter(j.data for j in jobs)
	got = collections.Counter(emls)
	t.ok(want == got, f"eml: {len(jobs)} files, exactly the captured bytes",
	     differs(want, got))


def imap_styles(t, rig, want):
	url = f"imap://127.0.0.1:{rig.imap_port}"
	own = ["--user-passwords", rig.user_passwords]
	master = ["--password-file", rig.password_file, "--auth-user", rigs.MASTER]
	for what, args in (("users' own passwords", own),
			   ("master user, separator", master + ["--auth-style", "separator"]),
			   ("master user, authzid", master + ["--auth-style", "authzid"])):
		empty(rig)
		r = rig.mailwal("--json", "replay", "--all", "--to", url, *args)
		t.ok(r.rc == 0, f"imap, {what}: exits 0", r)
		got = mailbox.compare(want, mailbox.dump(rig))
		t.ok(got.ok, f"imap, {what}: every copy once", got)


def lmtp(t, rig, owners):
	for where in (f"lmtp:unix:{rig.run}/dovecot/lmtp", f"lmtp:127.0.0.1:{rig.lmtp_port}"):
		empty(rig)
		kind = "unix" if "unix" in where else "inet"
		r = rig.mailwal("replay", "--all", "--to", where)
		t.ok(r.rc == 64 and not mailbox.count(mailbox.dump(rig)),
		     f"lmtp over {kind}: not without --accept-side-effects", r)
		args = ["--json", "replay", "--all", "--accept-side-effects", "--to", where]
		r = rig.mailwal(*args, "--fresh")
		t.ok(r.rc == 0, f"lmtp over {kind}: exits 0", r)
		bad = []
		state = mailbox.dump(rig)
		for u, jobs in owners.items():
			want = bag(j.data for j in jobs)
			got = bag(s.data for s in state[u, "INBOX"])
			if want - got:
				bad.append(f"{u}:\n{differs(want, got)}")
		t.ok(not bad, f"lmtp over {kind}: every copy delivered", "\n".join(bad))
		n = mailbox.count(state)
		r = rig.mailwal(*args)
		t.ok(mailbox.count(mailbox.dump(rig)) == n, f"lmtp over {kind}: a second run "
		     "sends nothing again", f"{mailbox.count(mailbox.dump(rig)) - n} more; {r}")


def main(t):
	with rigs.Rig(t.dir, postfix="virtual_transport = discard:") as rig:
		rig.start()
		jobs = workload.jobs(workload.fixtures(), rig.users, rig.aliases, seed=4)
		rig.send(jobs, clock=time.time)
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} fixtures accepted",
		       "\n".join(f"{j.name}: {j.code} {j.text}" for j in jobs if j.code != 250))
		owners = per_user(jobs)
		want = {(u, "INBOX"): [Expected(j.queue_id, j.data) for j in js]
			for u, js in owners.items()}
		for j in jobs:
			if j.auth:
				want.setdefault((j.auth, "Sent"), []).append(
					Expected(j.queue_id, j.data))
		maildirs(t, rig, owners)
		files(t, rig, jobs, owners)
		imap_styles(t, rig, want)
		lmtp(t, rig, owners)


tap.run(main)
