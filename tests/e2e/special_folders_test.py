#!/usr/bin/python3
"""Folders that show mail of others (\\All, \\Flagged: Dovecot's virtual plugin) and folders that
are not the user's own (a public namespace, another user's that is shared) are no places to put mail into, and what they show
is nobody's copy: not counted again, and not taken for a copy that is lost."""
# MW_TEST_COST 10

import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import tap
import workload

ANNA, BERT = "anna@example.test", "bert@example.test"
PLUGIN = "/usr/lib/dovecot/modules/lib20_virtual_plugin.so"
CONF = """
mail_plugins = $mail_plugins virtual
namespace inbox {{
  mailbox Sent {{
    special_use =
  }}
}}
namespace every {{
  prefix = virtual/
  separator = /
  location = virtual:{dir}/shows:INDEX=~/virtual-index
  mailbox All {{
    special_use = \\All
  }}
  mailbox Flagged {{
    special_use = \\Flagged
  }}
}}
namespace public {{
  type = public
  prefix = Public/
  separator = /
  location = maildir:{dir}/public:INDEXPVT=~/public-index
  subscriptions = no
  mailbox Gone {{
    special_use = \\Sent
  }}
}}
"""

SHARED = """
mail_plugins = $mail_plugins acl
protocol imap {{
  mail_plugins = $mail_plugins acl imap_acl
}}
namespace shared {{
  type = shared
  prefix = shared/%%u/
  separator = /
  location = maildir:{store}/%%d/%%n:INDEXPVT=~/shared/%%u
  subscriptions = no
  list = yes
}}
plugin {{
  acl = vfile
  acl_user = %u
  acl_shared_dict = file:{dir}/dict/shared.db
}}
"""


def configure(rig):
	for name, text in (("All", "INBOX\nArchive\nSent\n  all\n"), ("Flagged", "INBOX\n  flagged\n")):
		os.makedirs(f"{rig.run}/shows/{name}")
		servers.write(f"{rig.run}/shows/{name}/dovecot-virtual", text)
	for sub in ("", "/.Team", "/.Gone"):
		for d in ("cur", "new", "tmp"):
			os.makedirs(f"{rig.run}/public{sub}/{d}")
	subprocess.run(["chown", "-R", f"{rigs.MAIL_USER}:", f"{rig.run}/public",
			f"{rig.run}/shows"], check=True)
	with open(f"{rig.run}/dovecot.conf", "a", encoding="utf-8") as f:
		f.write(CONF.format(dir=rig.run))


def texts(rig, user, *folders):
	"""Sorted subjects, of the user's own folders or of these."""
	out = []
	for (_, name), v in mailbox.dump(rig, [user]).items():
		if name in folders if folders else not name.startswith(("virtual", "Public")):
			out += [s.data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for s in v]
	return sorted(out)


def mail(name, rcpts, auth=None):
	data = (f"From: w@remote.test\r\nTo: all@example.test\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	m = workload.Mail(name, data, auth or "w@remote.test", rcpts, {}, (ANNA, BERT))
	m.auth = auth
	return m


def delete(rig, user, subject, folder="INBOX"):
	c = mailbox.login(rig, user)
	c.select(folder)
	uids = c.uid("SEARCH", "SUBJECT", subject)[1][0].split()
	for u in uids[:1]:
		c.uid("STORE", u.decode(), "+FLAGS", "\\Deleted")
	c.expunge()
	c.logout()


def fill(t, rig):
	jobs = [mail("shared", [ANNA, BERT]), mail("twice", [ANNA]), mail("twice", [ANNA]),
		mail("flag", [ANNA]), mail("own", ["out@elsewhere.test"], ANNA)]
	for j in jobs:
		rig.send([j])
		rig.wait_queue()
	t.need(all(j.code == 250 for j in jobs), "mail arrives")
	c = mailbox.login(rig, ANNA)
	c.select("INBOX")
	c.store("1:*", "+FLAGS", "\\Flagged")
	t.need(c.uid("COPY", "1:*", "Public/Team")[0] == "OK", "anna shows it to all")
	c.logout()
	t.equal((len(texts(rig, ANNA, "virtual/All")), len(texts(rig, BERT, "Public/Team"))), (4, 4),
		"virtual and public folders show it")
	return c


def unmarked(t):
	"""Virtual folders that nothing tells from others: no special use, no namespace of their own."""
	rig = rigs.Rig(t.sub("unmarked"), users=(ANNA, BERT), aliases={})
	configure(rig)
	path = f"{rig.run}/dovecot.conf"
	with open(path, encoding="utf-8") as f:
		text = re.sub(r"special_use = \\(All|Flagged)", "auto = no", f.read())
	servers.write(path, text)
	with rig:
		rig.start()
		fill(t, rig)
		delete(rig, ANNA, "twice")
		delete(rig, BERT, "shared")
		for what, n in (("once", 3), ("again", 0)):
			r = rig.replay("--all")
			t.ok(r.rc == 0 and r.summary["restored"] == n,
			     f"unmarked virtual folders: what they show is no copy, {what}: {n}", r)
		t.equal(texts(rig, ANNA, "INBOX"), ["flag", "shared", "twice", "twice"],
			"unmarked virtual folders: each is there once")
		r = rig.replay("--user", BERT, "--folder", "virtual/All")
		t.ok(r.rc not in (0, 130) and "virtual/All" in r.out + r.err,
		     "unmarked virtual folders: nothing is put into one", r)
		r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{rig.imap_port}", "--auth-user",
				rigs.MASTER, "--password-file", rig.password_file, "--user", ANNA)
		t.ok(r.rc == 0 and r.summary["imported"] == 0, "nor is it imported", r)


def lent(t):
	"""What bert lets anna see is no copy of hers."""
	team = f"shared/{BERT}/Team"
	rig = rigs.Rig(t.sub("shared"), users=(ANNA, BERT), aliases={})
	os.makedirs(f"{rig.run}/dict")
	os.chmod(f"{rig.run}/dict", 0o777)
	with open(f"{rig.run}/dovecot.conf", "a", encoding="utf-8") as f:
		f.write(SHARED.format(store=rig.store, dir=rig.run))
	with rig:
		rig.start()
		for name in ("one", "two", "three"):
			rig.send([mail(name, [ANNA, BERT])])
		rig.wait_queue()
		c = mailbox.login(rig, BERT)
		c.create("Team")
		t.need(c.setacl("Team", ANNA, "lrwstipekxa")[0] == "OK", "bert shares a folder")
		c.select("INBOX")
		c.uid("COPY", "1:*", "Team")
		c.logout()
		t.equal((len(texts(rig, ANNA, team)), len(texts(rig, ANNA, "INBOX"))), (3, 3),
			"anna sees it")
		delete(rig, ANNA, "two")
		for n in (1, 0):
			r = rig.mailwal("--json", "recover", *rig.replay_args()[1:], "--user", ANNA, "--missing",
					"--folder", "Back")
			t.ok(r.rc == 0 and (r.summary["restored"], r.summary["already_there"]) == (n, 3 - n),
			     f"recover --missing: {n}", r)
		r = rig.replay("--user", ANNA, "--folder", team)
		t.ok(r.rc == 64 and "not the user's own" in r.err, "nothing is put there", r)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and r.summary["already_there"] == 6, "a replay finds all of it", r)
		t.equal((texts(rig, ANNA, "Back"), len(texts(rig, BERT, "Team"))), (["two"], 3),
			"each is where it belongs")


def main(t):
	lent(t)
	if not os.path.exists(PLUGIN):
		t.skip("no virtual plugin of Dovecot")
		return
	unmarked(t)
	rig = rigs.Rig(t.sub("marked"), users=(ANNA, BERT), aliases={})
	configure(rig)
	with rig:
		rig.start()
		fill(t, rig)
		delete(rig, ANNA, "twice")
		delete(rig, BERT, "shared")
		r = rig.replay("--all")
		t.ok(r.rc == 0 and r.summary["restored"] == 3, "three copies are lost and put back", r)
		t.equal((texts(rig, ANNA, "INBOX"), texts(rig, BERT, "INBOX")),
			(["flag", "shared", "twice", "twice"], ["shared"]), "each is there once")
		t.equal((texts(rig, ANNA, "Sent"), texts(rig, BERT, "Public/Gone")), (["own"], []),
			"Sent is the user's own, not what somebody else marked so")
		t.equal(len(texts(rig, BERT, "Public/Team")), 4, "nothing goes into the public folder")
		for folder in ("virtual/All", "virtual/Flagged", "Public/Team", "Public/New"):
			r = rig.replay("--user", BERT, "--folder", folder)
			t.ok(r.rc == 64 and folder in r.out + r.err and "not the user's own" in r.out + r.err,
			     f"--folder {folder}: refused", r)
		imported(t, rig)


def imported(t, rig):
	"""Mail of a store where such names were folders: INBOX has it."""
	box = f"{rig.run}/old"
	for sub in ("cur", "new", "tmp"):
		os.makedirs(f"{box}/{sub}")
	for k, name in enumerate(("virtual.All", "Public.Team", "Real")):
		for sub in ("cur", "new", "tmp"):
			os.makedirs(f"{box}/.{name}/{sub}")
		with open(f"{box}/.{name}/cur/15{k}.x:2,S", "w", encoding="ascii") as o:
			o.write(f"Subject: old {k}\nMessage-ID: <{k}@old.test>\n\nold\n")
	r = rig.mailwal("--json", "import", f"maildir:{box}", "--user", BERT)
	t.need(r.rc == 0 and r.summary["imported"] == 3, "imported", r)
	shutil.rmtree(box)
	for what, n in (("once", 3), ("again", 0)):
		r = rig.replay("--all", "--uid-gap", "10")
		t.ok(r.rc == 0 and r.summary["restored"] == n, f"imported mail is put back, {what}: {n}", r)
	t.equal((texts(rig, BERT, "INBOX"), texts(rig, BERT, "Real")),
		(["old 0", "old 1", "shared"], ["old 2"]), "into INBOX where its folder is no such place")
	r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{rig.imap_port}", "--auth-user",
			rigs.MASTER, "--password-file", rig.password_file, "--user", BERT)
	t.ok(r.rc == 0 and r.summary["imported"] == 0, "nor are they imported as bert's", r)


tap.run(main)
