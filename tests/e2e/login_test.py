#!/usr/bin/python3
"""Users log in without domain (SASL name `anna`): what they send belongs into the Sent folder of
the mailbox anna@…, for replay --user, for recover --user and for a replay of all; the domain is
the sender's where it is one of ours, else the only one there is."""
# MW_TEST_COST 20

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

ANNA, OTHER, BERT = "anna@example.test", "anna@example.org", "bert@example.test"


def submit(rig, name, sender, login="anna"):
	data = (f"From: {sender}\r\nTo: x@outside.test\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	job = smtp.Job(data, sender, ["x@outside.test"], login)
	rig.send([job], sessions=1)
	return job.code


def sent(rig, users):
	return {u: sorted(re.search(rb"Subject: (.*?)\r", s.data)[1].decode()
			  for (who, _), v in mailbox.dump(rig, [u]).items() for s in v)
		for u in users}


def lose(rig):
	rig.end("dovecot")
	rig.destroy_store()
	rig.start_dovecot()


def recovered(rig, user):
	r = rig.mailwal("--json", "recover", "--user", user)
	return sorted(o["subject"] for o in r.lines if "subject" in o)


def story(t, name, users, mails, want):
	"""mails: (subject, sender, login); want: what is whose."""
	with rigs.Rig(t.sub(name), users=users, aliases={}) as rig:
		with open(f"{rig.run}/users", encoding="utf-8") as f:
			line = f.readline()
		with open(f"{rig.run}/users", "a", encoding="utf-8") as f:
			f.write("anna" + line[line.index(":"):])
			f.write("bert" + line[line.index(":"):])
		rig.start()
		t.equal({submit(rig, *m) for m in mails}, {250}, f"{name}: {len(mails)} submitted")
		rig.wait_queue()
		t.equal({o["auth_user"] for o in (rig.mailwal("--json", "show", j["id"]).lines[0]
						  for j in rig.journaled()) if o.get("auth_user")},
			{m[2] if len(m) > 2 else "anna" for m in mails}, "the logins have no domain")
		for user, subjects in want.items():
			t.equal(recovered(rig, user), subjects, f"{name}: recover --user {user}")
			lose(rig)
			r = rig.replay("--user", user)
			t.equal((r.rc if subjects else 0, sent(rig, users)),
				(0, {u: subjects if u == user else [] for u in users}),
				f"{name}: replay --user {user}")
			r = rig.mailwal("--json", "recover", "--user", user, "--missing",
					*rig.replay_args()[1:])
			t.ok(r.rc in (0, 1) and not [o for o in r.lines if "subject" in o],
			     f"{name}: none of it is missing then", r)
		lose(rig)
		r = rig.replay("--all")
		t.equal(sent(rig, users), want, f"{name}: replay --all")
		r = rig.replay("--all")
		t.ok((r.summary or {}).get("restored") == 0, f"{name}: a second run adds nothing", r)


def main(t):
	story(t, "one", (ANNA, BERT), (
		("own", ANNA), ("cased", "Anna@Example.TEST"), ("foreign", "anna@private.test"),
		("info", "info@example.test"), ("bert", BERT, "bert")), {
		ANNA: ["cased", "foreign", "info", "own"], BERT: ["bert"]})
	story(t, "two", (ANNA, OTHER), (("test", ANNA), ("org", OTHER)), {
		ANNA: ["test"], OTHER: ["org"]})


tap.run(main)
