#!/usr/bin/python3
"""Addresses beyond ASCII (SMTPUTF8) from end to end: through real Postfix into the journal,
listed, known by the log, put back into Dovecot, held, erased and pruned by name, in whatever
form the name was written and is asked for."""
# MW_TEST_COST 20

import os
import re
import sys
import unicodedata

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import smtp
import tap

ANNA, JUERGEN, EVA = "anna@example.test", "jürgen@bücher.test", "eva@bücher.test"
DIMITRI = "δοκιμή@παράδειγμα.test"
ACE = {"bücher.test": "xn--bcher-kva.test", "παράδειγμα.test": "xn--hxajbheg2az3al.test"}


def ace(address):
	local, domain = address.split("@")
	return f"{local}@{ACE[domain]}"


# name: (sender, recipients, login)
MAILS = {
	"greek": (DIMITRI, [JUERGEN], None),
	"ace": (ace(DIMITRI), [ace(JUERGEN), ANNA], None),
	"upper": (DIMITRI, ["Jürgen@BÜCHER.test"], None),
	"two": ("w@remote.test", [JUERGEN, EVA], None),
	"alone": ("w@remote.test", [ace(EVA)], None),
	"plain": ("w@remote.test", [ANNA], None),
	"out": (EVA, [DIMITRI], EVA),
}


def data(name):
	sender, rcpts, _ = MAILS[name]
	return (f"From: Δοκιμή <{sender}>\r\nTo: {', '.join(rcpts)}\r\nSubject: für {name} ☃\r\n"
		f"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nMessage-ID: <{name}@παράδειγμα.test>\r\n"
		f"\r\ntext of {name}\r\n").encode()


def make(t):
	"""Dovecot 2.3 speaks no SMTPUTF8 over LMTP, so Postfix delivers into its Maildirs itself."""
	rig = rigs.Rig(t.sub("rig"), users=(ANNA, JUERGEN, EVA), aliases={},
		       domains=["example.test", "bücher.test"], dovecot="auth_username_chars =\n")
	boxes = {}
	for u in rig.users:
		local, domain = u.split("@")
		boxes[u] = f"{domain}/{local}/"
		if domain in ACE:
			boxes[ace(u)] = boxes[u]
	servers.write(f"{rig.run}/boxes", "".join(f"{u} {b}\n" for u, b in boxes.items()))
	uid = os.stat(rig.store).st_uid
	rig.configure(postfix="virtual_transport = virtual\nsmtputf8_autodetect_classes = all\n"
		      f"virtual_mailbox_base = {rig.run}/store\n"
		      f"virtual_mailbox_maps = texthash:{rig.run}/boxes\n"
		      f"virtual_mailbox_domains = {' '.join(rig.domains)} {ACE['bücher.test']}\n"
		      f"virtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:"
		      f"{os.stat(rig.store).st_gid}\nvirtual_minimum_uid = 1",
		      conf="prune_floor = 0")
	return rig


def send(t, rig):
	ids = {}
	for name, (sender, rcpts, login) in MAILS.items():
		with smtp.Client(rig.submission_port if login else rig.smtp_port) as c:
			if login:
				c.auth(login, rig.password)
			reply = c.mail(data(name), sender, rcpts, "SMTPUTF8")
			ids[name] = smtp.queue_id(reply)
			t.ok(ids[name], f"{name}: taken", reply)
	rig.wait_queue()
	return ids


def copies(rig):
	return {k: sorted(re.search(rb"text of (\w+)", s.data).group(1).decode() for s in v)
		for k, v in mailbox.dump(rig).items() if v}


def forms(address):
	"""The same name, as people write it."""
	upper = address.upper() if address.isascii() else address.replace("j", "J").replace("test", "TEST")
	return address, ace(address), unicodedata.normalize("NFD", address), upper


def names(rows):
	return sorted(o["message_id"].split("@")[0][1:] for o in rows)


def captured(t, rig):
	for o in rig.journaled():
		name = o["message_id"].split("@")[0][1:]
		sender, rcpts, login = MAILS[name]
		t.ok(o["sender"] == sender and o["recipients"] == rcpts and o["auth_user"] == (login or "")
		     and rig.raw(o["id"]) == data(name), f"{name}: envelope and bytes as they were sent", o)
		t.ok("SMTPUTF8" in rig.mailwal("show", o["id"], "--envelope").out, f"{name}: and SMTPUTF8")
	for form in forms(JUERGEN):
		t.equal(names(rig.journaled("--user", form)), ["ace", "greek", "two", "upper"],
			f"list --user {form}")
	for form in forms(DIMITRI)[:3]:
		t.equal(names(rig.journaled("--sender", form)), ["ace", "greek", "upper"],
			f"list --sender {form}")
	for form in ("bücher.test", ACE["bücher.test"], "BÜCHER.test"):
		t.equal(names(rig.journaled("--domain", form, "--direction", "in")),
			["ace", "alone", "greek", "two", "upper"], f"list --domain {form}")


def known(t, rig):
	"""From Postfix' log."""
	r = rig.mailwal("outcomes", f"{rig.run}/maillog")
	t.ok(r.rc == 0, "outcomes", r)
	for o in rig.journaled():
		facts = {x["recipient"]: x["outcome"]
			 for x in rig.mailwal("--json", "show", o["id"]).lines[0].get("outcomes") or []}
		name = o["message_id"].split("@")[0][1:]
		t.equal(facts, dict.fromkeys(MAILS[name][1], "discarded" if name == "out" else "delivered"),
			f"{name}: what became of it")
	r = rig.mailwal("audit", f"{rig.run}/maillog")
	t.ok(r.rc == 0, "the audit finds no hole", r)


def lose_store(rig):
	rig.end("dovecot")
	rig.destroy_store()
	rig.start_dovecot()


def back(t, rig):
	"""Beside the store, and after its loss."""
	r = rig.replay("--all")
	t.ok(r.rc == 0 and [(r.summary or {}).get(k) for k in ("already_there", "restored")] == [8, 1],
	     "what Postfix delivered is recognised; the sent mail's own copy is put", r)
	all_ = {(JUERGEN, "INBOX"): ["ace", "greek", "two", "upper"], (ANNA, "INBOX"): ["ace", "plain"],
		(EVA, "INBOX"): ["alone", "two"], (EVA, "Sent"): ["out"]}
	t.equal(copies(rig), all_, "one of each")
	lose_store(rig)
	r = rig.mailwal("--json", "recover", "--user", ace(JUERGEN), "--all", "--folder", "INBOX",
			*rig.replay_args()[1:])
	t.ok(r.rc == 0 and copies(rig) == {(JUERGEN, "INBOX"): all_[JUERGEN, "INBOX"]},
	     "one user's mail is recovered", (r, copies(rig)))
	r = rig.replay("--all", "--fresh")
	t.ok(r.rc == 0 and copies(rig) == all_, "and all other", (r, copies(rig)))
	got = [s.data for v in mailbox.dump(rig).values() for s in v]
	t.ok(all(any(d.endswith(data(n)) for d in got) for n in MAILS), "byte for byte")


def gone(t, rig):
	"""Held, erased, pruned, by other forms of the names than the mail has."""
	t.equal(rig.mailwal("hold", "add", "keep", "--user", forms(JUERGEN)[2]).rc, 0, "a hold")
	r = rig.mailwal("erase", "--user", ace(JUERGEN), "--yes")
	t.ok(r.rc != 0 and len(rig.journaled("--user", JUERGEN)) == 4, "under hold nothing is erased", r)
	t.equal(rig.mailwal("hold", "rm", "keep").rc, 0, "the hold is taken away")
	r = rig.mailwal("erase", "--user", forms(JUERGEN)[3], "--yes")
	t.ok(r.rc == 0 and not rig.journaled("--user", JUERGEN), "then it is erased", r)
	lose_store(rig)
	r = rig.replay("--all", "--fresh")
	left = {(ANNA, "INBOX"): ["ace", "plain"], (EVA, "INBOX"): ["alone", "two"], (EVA, "Sent"): ["out"]}
	t.ok(r.rc == 0 and copies(rig) == left, "and never comes back", (r, copies(rig)))
	rules = (f"retain greek {{\n  match = sender:{DIMITRI}\n  keep = 1s\n}}\n"
		 f"retain eva {{\n  match = rcpt:{ace(EVA)}\n  keep = 1s\n}}\n")
	rig.configure(conf=rules)
	t.comes(lambda: rig.mailwal("prune", "--yes").rc == 0  # within the rules' second
		and names(rig.journaled()) == ["out", "plain", "two"],
		"rules of retention know the names; for one of the recipients of two there is none",
		lambda: (rig.mailwal("prune", "-n"), names(rig.journaled())))
	r = rig.mailwal("verify")
	t.ok(r.rc == 0, "verify", r)


def main(t):
	rig = make(t)
	with rig:
		rig.start()
		send(t, rig)
		captured(t, rig)
		known(t, rig)
		back(t, rig)
		gone(t, rig)


tap.run(main)
