#!/usr/bin/python3
"""Maildirs as real Dovecot keeps them, with Maildir++ and with LAYOUT=fs: what is put into
the files lies where the server looks, new folders are seen and subscribed, numbering and
modes stay the server's, quota is counted, and a second run finds everything again."""
# MW_TEST_COST 15

import os
import re
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import replaytool
import rig as rigs
import smtp
import tap

ANNA, BERT = "anna@example.test", "bert@example.test"
NEW, NEW7 = "Zurück/2027", "Zur&APw-ck{0}2027"
QUOTA = """
mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=1G
}
"""


def post(rig, name, rcpt):
	data = (f"From: w@remote.test\r\nTo: {rcpt}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	with smtp.Client(rig.smtp_port) as c:
		return c.mail(data, "w@remote.test", [rcpt])[0]


def modes(path):
	"""({(mode, owner, group) of messages}, {… of directories})."""
	files, dirs = set(), set()
	for d, _, names_here in os.walk(path):
		for p in [d] + [os.path.join(d, f) for f in names_here if ",S=" in f]:
			st = os.stat(p)
			(dirs if p == d else files).add((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid))
	return files, dirs


def quota_sum(path):
	with open(f"{path}/maildirsize", encoding="ascii") as f:
		lines = f.read().splitlines()[1:]
	return (sum(int(x.split()[0]) for x in lines), sum(int(x.split()[1]) for x in lines))


def names(c, command):
	return {m.group(1) for row in getattr(c, command)()[1] if row
		for m in [re.search(rb'"?([^" ]+)"?$', row)] if m}


def one_layout(t, layout, given, dovecot):
	rig = rigs.Rig(t.sub(layout), users=(ANNA, BERT), dovecot=dovecot + QUOTA)
	to = f"maildir:{rig.run}/store/%d/%n"
	with rig:
		rig.start()
		codes = {post(rig, f"{layout}{i}", r) for i in range(3) for r in (ANNA, BERT)}
		t.equal(codes, {250}, f"{layout}: accepted")
		rig.wait_queue()
		c = mailbox.login(rig, ANNA)
		sep = re.search(rb'\) "(.)"', c.list()[1][0]).group(1).decode()
		c.create(f"Archive{sep}2026")
		c.subscribe(f"Archive{sep}2026")
		c.logout()
		replaytool.empty(rig)
		box = f"{rig.run}/store/example.test"
		before = modes(box)
		uidlist = open(f"{box}/bert/dovecot-uidlist", "rb").read()
		r = rig.mailwal("--json", "replay", "--user", ANNA, "--to", to, "--folder", NEW, *given)
		t.ok(r.rc == 0 and r.summary["restored"] == 3, f"{layout}: put into a new folder", r)
		r = rig.mailwal("--json", "replay", "--user", BERT, "--to", to, *given)
		t.ok(r.rc == 0 and r.summary["restored"] == 3, f"{layout}: put into INBOX", r)
		t.equal(open(f"{box}/bert/dovecot-uidlist", "rb").read(), uidlist,
			f"{layout}: the server's numbering is not touched")
		files, dirs = modes(box)
		t.ok(files and dirs <= before[1] and {m[1:] for m in files} == {m[1:] for m in dirs}
		     and {m[0] for m in files} == {0o600}, f"{layout}: modes and owners as the rest",
		     f"{before} {files} {dirs}")
		by_server(t, rig, layout, sep)
		quota(t, rig, layout, box)
		for user, more in ((ANNA, ["--folder", NEW]), (ANNA, []), (BERT, [])):
			r = rig.mailwal("--json", "replay", "--user", user, "--to", to, *given, *more)
			t.ok(r.rc == 0 and r.summary["restored"] == 0
			     and r.summary["already_there"] == 3,
			     f"{layout}: found again, by any way of asking", r)


def by_server(t, rig, layout, sep):
	folder = NEW7.format(sep)
	c = mailbox.login(rig, ANNA)
	t.ok(folder.encode() in names(c, "list"), f"{layout}: the server lists the folder",
	     names(c, "list"))
	t.ok({folder.encode(), f"Archive{sep}2026".encode()} <= names(c, "lsub"),
	     f"{layout}: it is subscribed, beside what was", names(c, "lsub"))
	got = mailbox.fetch(c, folder)
	t.equal(sorted(m.data.partition(b"Subject: ")[2][:len(layout) + 1] for m in got),
		[f"{layout}{i}".encode() for i in range(3)], f"{layout}: the server shows its mail")
	c.create("Other")
	t.equal(c.subscribe("Other")[0], "OK", f"{layout}: and can go on subscribing")
	t.ok({folder.encode(), b"Other"} <= names(c, "lsub"), f"{layout}: both stay",
	     names(c, "lsub"))
	c.logout()
	c = mailbox.login(rig, BERT)
	t.equal([m.uid for m in mailbox.fetch(c, "INBOX")], [4, 5, 6],
		f"{layout}: new mail got new numbers")
	c.logout()


def quota(t, rig, layout, box):
	"""What the files say is what a recount says."""
	before = {u: quota_sum(f"{box}/{u}") for u in ("anna", "bert")}
	t.ok(before["anna"][1] == 3 and before["bert"][1] == 3, f"{layout}: quota counts them", before)
	for u in before:
		os.unlink(f"{box}/{u}/maildirsize")
		c = mailbox.login(rig, f"{u}@example.test")
		c.append("INBOX", None, None, b"Subject: x\r\n\r\nx\r\n")
		c.select("INBOX")
		for uid in c.uid("SEARCH", None, "SUBJECT", "x")[1][0].split():
			c.uid("STORE", uid.decode(), "+FLAGS", "\\Deleted")
		c.expunge()
		c.logout()
	t.equal({u: quota_sum(f"{box}/{u}") for u in before}, before,
		f"{layout}: as a recount has it")


def main(t):
	one_layout(t, "plusplus", [], "")
	one_layout(t, "fs", ["--layout", "auto"], "mail_location = maildir:%h:LAYOUT=fs")
	rig_less(t)


def rig_less(t):
	"""A wrong name is told."""
	rig = rigs.Rig(t.sub("none"), users=(ANNA,))
	with rig:
		rig.mailwal("init", rig.journal)
		r = rig.mailwal("replay", "--all", "--to", f"maildir:{t.dir}/x", "--layout", "ext4")
		t.ok(r.rc == 64 and "maildir++" in r.err, "an unknown layout: exit 64", r)


tap.run(main)
