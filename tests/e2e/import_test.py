#!/usr/bin/python3
"""mailwal import: mail of before the journal comes in once, beside mail that was captured.

Real Postfix, Dovecot and mailwald: history is put into the store behind the journal's back,
new mail comes through the milter; importing over Maildir and over IMAP takes the history in
and nothing twice, also when the import is killed at ten moments, with the daemon running
and without; a replay then finds everything there, and puts everything back into an empty
store. mbox in its dialects and eml trees are compared byte for byte.
"""
# MW_TEST_COST 25

import calendar
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import tap
import workload
from replaytool import empty

GESENDET = r"""
namespace inbox {
  mailbox Sent {
    special_use =
  }
  mailbox Gesendet {
    special_use = \Sent
  }
}
"""
OLD = calendar.timegm((2019, 3, 5, 12, 0, 0))


def put_history(rig, user, messages, folder=None):
	"""Files as an MDA of years ago left them: LF ends, the file's time is the arrival."""
	n, d = user.split("@")
	base = pathlib.Path(rig.run) / "store" / d / n
	if folder:
		base = base / ("." + folder)
	for sub in ("cur", "new", "tmp"):
		(base / sub).mkdir(parents=True, exist_ok=True)
	for i, data in enumerate(messages):
		p = base / "cur" / f"{OLD + i}.M{i}.old:2,S"
		p.write_bytes(data.replace(b"\r\n", b"\n"))
		os.utime(p, (OLD + 60 * i, OLD + 60 * i))
	top = pathlib.Path(rig.run) / "store"
	for p in [top, *top.rglob("*")]:
		try:
			shutil.chown(p, rigs.MAIL_USER)
		except FileNotFoundError:
			pass  # a temporary file of the server's


def history(n, tag):
	return [(f"Return-Path: <old{i}@past.test>\r\nReceived: from past.test by mx.past.test "
		 f"with ESMTP id Q{tag}{i:05d}; Tue, 5 Mar 2019 12:00:00 +0000\r\n"
		 f"From: old{i}@past.test\r\nSubject: {tag} {i}\r\nMessage-ID: <{tag}.{i}@past.test>"
		 f"\r\n\r\nhistory {tag} {i}\r\nFrom here on, text\r\n>From there\r\n"
		 + "filler\r\n" * (i % 50)).encode() for i in range(n)]


def imported(rig):
	return [o for o in rig.journaled() if not o["queue_id"]]


def imap_args(rig, user):
	return ["import", f"imap://127.0.0.1:{rig.imap_port}", "--auth-user", rigs.MASTER,
		"--password-file", rig.password_file, "--user", user]


def numbers(r):
	s = r.summary or {}
	return tuple(s.get(k) for k in ("selected", "imported", "already_there", "failed"))


def beside_capture(t, rig, jobs):
	anna, bert = rig.users[:2]
	old = history(60, "a")
	twice = old[3]
	put_history(rig, anna, old)
	put_history(rig, anna, [twice], "Archive")
	put_history(rig, anna, history(5, "trash"), "Trash")
	put_history(rig, bert, history(25, "b"))
	put_history(rig, bert, history(4, "bs"), "Sent")
	pattern = f"maildir:{rig.run}/store/%d/%n"
	dry = rig.mailwal("--json", "import", pattern, "-n")
	real = rig.mailwal("--json", "import", pattern)
	t.ok(real.rc == 0 and (real.summary or {}).get("imported") == 60 + 25 + 4,
	     "Maildirs of all users: the history comes in, captured mail does not", real)
	t.equal(numbers(dry), numbers(real), "a dry run has the same numbers")
	t.equal((real.summary or {}).get("left_out"), 5, "Trash is left out")
	again = rig.mailwal("--json", "import", pattern)
	t.ok(again.rc == 0 and again.summary["imported"] == 0, "again: nothing new", again)
	for user in (anna, bert):
		r = rig.mailwal("--json", *imap_args(rig, user))
		t.ok(r.rc == 0 and r.summary["imported"] == 0,
		     f"the same mailbox of {user} over IMAP: nothing new", r)
	rows = {o["message_id"]: o for o in imported(rig)}
	o = rows["<a.7@past.test>"]
	t.ok(o["time"].startswith("2019-03-05T12:07:00") and o["sender"] == "old7@past.test"
	     and o["recipients"] == [anna] and o["direction"] == "in",
	     "time of arrival, sender and recipient are on record", o)
	t.equal(rows["<bs.1@past.test>"]["direction"], "out", "mail in Sent is the user's own")
	t.ok(rig.raw(o["id"]) == old[7]
	     and o["sha256"] == hashlib.sha256(old[7]).hexdigest(), "exact bytes, CRLF ends")
	r = rig.replay("--all")
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "a replay has nothing to put back", r)
	empty(rig)
	r = rig.replay("--all")
	want = mailbox.expected(jobs, sent=None)
	for user, data in ((anna, old), (bert, history(25, "b"))):
		want.setdefault((user, "INBOX"), []).extend(
			mailbox.Expected(f"old {i}", d, OLD + 60 * i) for i, d in enumerate(data))
	want[bert, "Sent"] = [mailbox.Expected(f"sent {i}", d, OLD + 60 * i)
			      for i, d in enumerate(history(4, "bs"))]
	state = {k: v for k, v in mailbox.dump(rig).items() if v}
	got = mailbox.compare(want, state, dates=2)
	t.ok(r.rc == 0 and got.ok, "everything back from an empty store, with its date", got)


def over_imap(t, rig):
	cleo = rig.users[2]
	old = history(120, "c") + [b"From: x@y\r\n\r\n" + b"a line of text\r\n" * 200000]
	put_history(rig, cleo, old)
	r = rig.mailwal("--json", *imap_args(rig, cleo))
	t.ok(r.rc == 0 and r.summary["imported"] == 121, "a mailbox over IMAP", r)
	r = rig.mailwal("--json", "import", f"maildir:{rig.run}/store/%d/%n", "--user", cleo)
	t.ok(r.rc == 0 and r.summary["imported"] == 0, "its Maildir: nothing new", r)
	rows = [o for o in imported(rig) if o["recipients"] == [cleo]]
	t.ok(sorted(o["sha256"] for o in rows) == sorted(hashlib.sha256(d).hexdigest() for d in old),
	     "byte for byte, and each once")


def in_folders(t, rig):
	"""What was in a folder comes back into it, made anew where it is gone."""
	emil, fred = rig.users[4:6]
	there = {(emil, "INBOX"): ("ei", 3), (emil, "Archive/2020"): ("ea", 4),
		 (emil, "Entw&APw-rfe"): ("ee", 2), (emil, "Junk"): ("ej", 2),
		 (emil, "Sent"): ("es", 2), (fred, "Projekte/&ZeVnLIqe-/x &- y"): ("fp", 5)}
	empty(rig)
	for (user, folder), (tag, n) in there.items():
		put_history(rig, user, history(n, tag),
			    None if folder == "INBOX" else folder.replace("/", "."))
	r = rig.mailwal("--json", "import", f"maildir:{rig.run}/store/%d/%n", "--user", emil,
			"--all-folders")
	t.ok(r.rc == 0 and r.summary["imported"] == 13, "a Maildir with folders", r)
	r = rig.mailwal("--json", *imap_args(rig, fred))
	t.ok(r.rc == 0 and r.summary["imported"] == 5, "folders over IMAP", r)
	empty(rig, (emil, fred))
	for user, folder in there:
		c = mailbox.login(rig, user)
		if folder not in ("INBOX", "Sent"):
			t.need(c.delete(f'"{folder}"')[0] == "OK", f"{folder} is deleted")
		c.logout()
	ids = [o["id"] for o in imported(rig) if o["message_id"][1:3] in {v[0] for v in there.values()}]
	r = rig.replay("--since", "2019-03-05", "--until", "2019-03-06",
		       "--larger", "150", "--user", emil,
		       "--user", fred)
	want = {k: [mailbox.Expected(f"{tag} {i}", d, OLD + 60 * i)
		    for i, d in enumerate(history(n, tag))] for k, (tag, n) in there.items()}
	state = {k: v for k, v in mailbox.dump(rig, (emil, fred)).items() if v}
	got = mailbox.compare(want, state, dates=2)
	t.ok(r.rc == 0 and r.summary["restored"] == len(ids) == 18 and got.ok,
	     "each is back in its folder, with its date", f"{got}\n{r}")
	c = mailbox.login(rig, fred)
	t.ok(any(b"&ZeVnLIqe-" in x for x in c.lsub()[1] if x), "which is subscribed", c.lsub())
	c.logout()
	r = rig.replay("--since", "2019-03-05", "--until", "2019-03-06",
		       "--larger", "150", "--user", emil,
		       "--user", fred)
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "and a second run puts back 0", r)
	r = rig.mailwal("--json", "replay", "--user", emil, "--since", "2019-03-05", "--until",
			"2019-03-06", "--larger", "150", "--create", "--to", f"maildir:{t.dir}/out/%u")
	files = {k[1]: len(list(pathlib.Path(t.dir, "out", emil, "" if k[1] == "INBOX" else
					     "." + k[1].replace("/", ".")).glob("new/*")))
		 for k in there if k[0] == emil}
	t.ok(r.rc == 0 and files == {k[1]: v[1] for k, v in there.items() if k[0] == emil},
	     "files too", f"{files}\n{r}")


def in_sent(t):
	"""A folder that only the target knows to be Sent: its mail is put back, and once."""
	with rigs.Rig(t.sub("sent"), users=("anna@example.test",), dovecot=GESENDET) as rig:
		rig.start()
		anna = rig.users[0]
		c = mailbox.login(rig, anna)
		t.need(c.create("Gesendet")[0] == "OK", "there is such a folder")
		c.logout()
		put_history(rig, anna, history(3, "gs"), "Gesendet")
		r = rig.mailwal("--json", "import", f"maildir:{rig.run}/store/%d/%n", "--user", anna)
		t.ok(r.rc == 0 and r.summary["imported"] == 3, "files do not tell Sent", r)
		empty(rig)
		got = [(r.rc, r.summary["restored"], r.summary["already_there"])
		       for r in (rig.replay("--all"), rig.replay("--all"))]
		t.equal(got, [(0, 3, 0), (0, 0, 3)], "put back, and found again")


def killed(t, rig, user, tag, rnd, rounds):
	"""Killed at random moments: what came in stays, nothing is doubled or lost."""
	old = history(400, tag)
	put_history(rig, user, old)
	argv = rig.mailwal_argv("--json", "import", f"maildir:{rig.run}/store/%d/%n",
				"--user", user)
	kills = 0
	for _ in range(rounds):
		p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
				     stderr=subprocess.DEVNULL, start_new_session=True)
		time.sleep(rnd.uniform(0.01, 0.25))
		p.send_signal(signal.SIGKILL)
		kills += p.wait() == -signal.SIGKILL
	rigs.wait_for("the import's writer", lambda: lock_free(rig))
	r = rig.mailwal("--json", *argv[4:])
	t.ok(r.rc == 0 and r.summary["failed"] == 0, f"after {kills} SIGKILLs it goes on", r)
	rows = [o["sha256"] for o in imported(rig) if o["recipients"] == [user]]
	t.ok(sorted(rows) == sorted(hashlib.sha256(d).hexdigest() for d in old),
	     f"{len(old)} messages, each once", f"{len(rows)} records, {len(set(rows))} different")


def lock_free(rig):
	"""Without a daemon: has the writer of a killed import let go of the journal?"""
	r = rig.mailwal("--json", "import", "mbox:/dev/null", "--user", rig.users[0])
	return r.rc != 75


def mboxes(t, rig):
	"""The same three messages in five dialects, each for another user."""
	body = b"one\r\n\r\nFrom the start\r\n>From a quote\r\n>>From deeper\r\n\r\nend\r\n"
	msgs = [f"From: m{i}@x.test\r\nMessage-ID: <mb.{i}@x.test>\r\n\r\n".encode() + body
		for i in range(3)]
	path = os.path.join(rig.dir, "box")

	def rd(b):
		return b"".join((b">" if s.lstrip(b">").startswith(b"From ") else b"") + s
				for s in b.splitlines(True))

	def o(b):
		return b.replace(b"\nFrom ", b"\n>From ")

	def cl(m):
		h, b = m.split(b"\n\n", 1)
		return h + b"\nContent-Length: %d\n\n" % len(b) + b

	cases = {"rd": (rd, None), "o": (o, b">From a quote"), "cl2": (cl, None), "auto": (cl, None)}
	for k, (name, (fold, _)) in enumerate(cases.items()):
		user = rig.users[4 + k]
		with open(path, "wb") as f:
			for i, m in enumerate(msgs):
				f.write(b"From m%d@x.test Tue Mar  5 12:0%d:00 2019\n" % (i, i)
					+ fold(m.replace(b"\r\n", b"\n")) + b"\n")
		r = rig.mailwal("--json", "import", f"mbox:{path}", "--user", user,
				"--mbox-format", name)
		rows = [x for x in imported(rig) if x["recipients"] == [user]]
		raw = sorted(rig.raw(x["id"]) for x in rows)
		want = sorted(msgs)
		if name == "o":  # that dialect cannot tell ">From " that was there before
			want = sorted(m.replace(b"\n>From a", b"\nFrom a") for m in msgs)
		if name in ("cl2", "auto"):
			want = sorted(cl(m.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
				      for m in msgs)
		t.ok(r.rc == 0 and raw == want and {x["sender"] for x in rows} ==
		     {f"m{i}@x.test" for i in range(3)}, f"mbox dialect {name}",
		     f"{r}\n{raw}\n{want}")
	t.ok({x["time"][:16] for x in rows} ==
	     {f"2019-03-05T12:0{i}" for i in range(3)}, "the From_ line's time and sender")


def sly(t, rig):
	path = os.path.join(rig.dir, "sly")
	before = len(imported(rig))
	with open(path, "wb") as f:  # its length points behind the > of a line that was quoted
		f.write(b"From a@x.test Tue Mar  5 13:00:00 2019\nFrom: a@x.test\nMessage-ID: <sly@x.test>\n"
			b"Content-Length: 7\n\nhello\n>From boss@b.test Thu Nov 19 10:00:00 2020\n"
			b"From: boss@b.test\nSubject: pay him\n\nall of it\n\n")
	r = rig.mailwal("--json", "import", f"mbox:{path}", "--user", rig.users[4])
	t.ok(r.rc == 0 and len(imported(rig)) == before + 1,
	     "a quoted From_ line begins no message, whatever the length before it says", r)


def wrong(t, rig):
	anna = rig.users[0]
	path = os.path.join(rig.dir, "broken")
	os.makedirs(path + "/cur")
	os.symlink("/etc/passwd", path + "/cur/link")
	with open(path + "/cur/good", "wb") as f:
		f.write(b"Subject: good one\n\ntext\n")
	r = rig.mailwal("--json", "import", f"maildir:{path}", "--user", anna)
	t.ok(r.rc == 3 and numbers(r)[1] == 1 and numbers(r)[3] == 1
	     and any(o.get("message_type") == "failed" and o["name"].endswith("link")
		     for o in r.lines), "what cannot be read is named, the rest comes in: exit 3", r)
	with open(path + "/no-mbox", "wb") as f:
		f.write(b"hello\n")
	for args, rc in ((["maildir:/nowhere", "--user", anna], 66), ([f"maildir:{path}"], 64),
			 ([f"mbox:{path}/no-mbox", "--user", anna], 3),
			 ([f"maildir:{path}", "--user", "x@elsewhere.test"], 64),
			 (["lmtp:127.0.0.1:1", "--user", anna], 64),
			 (["imap://127.0.0.1:1", "--user", anna, "--password-file",
			   rig.password_file], 69)):
		r = rig.mailwal("import", *args)
		t.ok(r.rc == rc and r.err.startswith("mailwal: "), f"{args[0][:20]}: exit {rc}", r)


def retention(t, rig):
	"""Old dates of imported mail must not make captured mail look old."""
	rig.end("mailwald")
	rig.configure(conf="prune_floor = 0\nretain all {\n  keep = 30d\n}")
	r = rig.mailwal("--json", "prune", "-n")
	t.ok(r.rc == 0 and r.summary["messages"] > 1000 and r.summary["remove"] == 0,
	     "retention counts imported mail from its import on", r)


def main(t):
	rnd = random.Random(int(os.environ.get("MW_SEED", "1")))
	messages, _ = workload.bulk(40, seed=3, largest=60000)
	with rigs.Rig(t.dir, postfix="message_drop_headers =") as rig:
		rig.start()
		jobs = rig.send([j for j in workload.jobs(messages, rig.users, rig.aliases, 1)
				 if not j.auth])
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} messages captured")
		rig.wait_queue()
		beside_capture(t, rig, jobs)
		over_imap(t, rig)
		killed(t, rig, rig.users[3], "d", rnd, 5)
		mboxes(t, rig)
		wrong(t, rig)
		in_folders(t, rig)
		sly(t, rig)
		rig.end("mailwald")
		killed(t, rig, rig.users[8], "e", rnd, 5)
		retention(t, rig)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "the log verifies", r)
	in_sent(t)


tap.run(main)
