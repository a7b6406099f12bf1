#!/usr/bin/python3
"""Odd mail in three stores: every torture, tricky and corpus message is put into Dovecot
Maildir, Dovecot sdbox and Cyrus and read back. Bytes are exact where the server keeps them, or
changed as documented, or the message is named as refused; and reconcile knows each again, by
date and size as well as by content alone."""
# MW_TEST_COST 20

import collections
import json
import os
import pathlib
import re
import sys


sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import cyrus
import mailbox
import milterclient
import tap
import workload

USER = "anna@example.test"
BULK = int(os.environ.get("MW_BULK", "200"))
STORE = workload.CORPUS / "tricky" / "store"


def messages():
	"""(name, bytes): each once, whatever its line ends."""
	out = list(workload.fixtures())
	if (STORE / "index.json").is_file():
		cases = json.loads((STORE / "index.json").read_text(encoding="utf-8"))
		out += [("store/" + c["name"], (STORE / c["file"]).read_bytes())
			for c in cases if c["file"]]
	out += workload.torture()
	out += [(n, d) for n, d in workload.bulk(BULK, seed=5)[0]]
	big = b"From: a@b\r\nMessage-ID: <30@mb>\r\n\r\n" + (b"0123456789" * 7 + b"\r\n") * 120000
	return [(n, d) for n, d in out if d] + [("8 MB", big)]


def by_dovecot(data):
	"""What Dovecot's APPEND makes of it: it keeps LF, and gives CRLF back where no CR
	stands before it already."""
	kept = data.replace(b"\0", b"\x80").replace(b"\r\n", b"\n")
	kept = kept[:-1] if kept.endswith(b"\r") else kept
	return re.sub(rb"(?<!\r)\n", b"\r\n", kept)


def by_cyrus(data):
	"""What Cyrus makes of it; None: it refuses it."""
	if b"\0" in data or re.search(rb"(?<!\r)\n", data):
		return None
	head, sep, body = data.partition(b"\r\n\r\n")
	if data.startswith(b"\r\n"):
		head, sep, body = b"", b"", data
	for i, line in enumerate(head.split(b"\r\n")):
		if not line or (i and line[:1] in b" \t"):
			continue
		name, colon, _ = line.partition(b":")
		if (not colon or not name or re.search(rb"[^!-~]", name)) and not (
				i == 0 and line.startswith((b"From ", b">From "))):
			return None
	return bytes(c if c < 128 else ord("X") for c in head) + sep + body


def contents(rig):
	return {k: v for k, v in mailbox.dump(rig, [USER]).items() if v}


def elsewhere(rig):
	"""The user files all mail anew with a program that loses the dates."""
	state = contents(rig)
	c = mailbox.login(rig, USER)
	c.create("Archive")
	for box, mails in state.items():
		for i, m in enumerate(mails):  # one by one takes 40 ms each in imaplib
			c.send(b'f%d APPEND Archive " 1-Jan-2020 00:00:00 +0000" {%d+}\r\n%s\r\n'
			       % (i, len(m.data), m.data))
		for i in range(len(mails)):
			line = c.readline()
			while line.startswith(b"*"):
				line = c.readline()
			if not line.startswith(b"f%d OK" % i):
				raise tap.Fatal(f"cannot file a message anew: {line}")
		c.select(box[1])
		c.store("1:*", "+FLAGS", "\\Deleted")
		c.expunge()
	c.logout()


def one_store(t, what, rig, raws, change):
	r = rig.replay("--all")
	want = {i: change(raw) for i, (_, raw) in raws.items()}
	refused = {i for i, w in want.items() if w is None}
	s = r.summary or {}
	t.ok(r.rc == (3 if refused else 0), f"{what}: exit {3 if refused else 0}", r)
	named = {f["id"] for f in s.get("failures", []) if f.get("reason")}
	differ = [raws[i][0] for i in named ^ refused]
	t.ok(named == refused, f"{what}: refused and named {len(refused)}",
	     "\n".join(differ) + f"\n{[f for f in s.get('failures', [])][:20]}")
	t.note(f"{what}: put in {r.seconds:.1f} s")
	have = collections.Counter(m.data for v in contents(rig).values() for m in v)
	need = collections.Counter(w for w in want.values() if w is not None)
	changed = sum(w is not None and w != raws[i][1] for i, w in want.items())
	gone, new = list((need - have).elements()), list((have - need).elements())
	t.ok(have == need, f"{what}: {sum(need.values()) - changed} messages exact, {changed} "
	     "changed as documented", f"{len(gone)} missing, {len(new)} surplus\n" + "\n".join(
		mailbox.first_difference(a, b) for a, b in zip(sorted(gone), sorted(new))))
	before = contents(rig)
	r = rig.replay("--all")
	t.ok((r.summary or {}).get("restored") == 0 and contents(rig) == before,
	     f"{what}: a second run knows each again", r)
	elsewhere(rig)
	r = rig.replay("--all")
	t.ok((r.summary or {}).get("restored") == 0,
	     f"{what}: by their content alone, too", r)


def main(t):
	if not cyrus.root():
		t.skip("no Cyrus")
		return
	mails = messages()
	with cyrus.CyrusRig(t.dir, users=(USER,), deliver=False) as rig:
		rig.start()
		taken = milterclient.journal(rig.milter_sock, [
			(f"Q{i:05d}", USER, data) for i, (_, data) in enumerate(mails)])
		t.equal(len(taken), len(mails), "messages journaled")
		raws = {o["id"]: (mails[int(o["queue_id"][1:])][0], raw)
			for o, raw in rawfiles(rig)}
		t.equal(len(raws), len(mails), "messages read back from the journal")
		one_store(t, "Cyrus", rig, raws, by_cyrus)
		dovecots(t, rig, raws)


def rawfiles(rig):
	"""(list object, captured bytes) of every record, by one export."""
	out = os.path.join(rig.dir, "eml")
	r = rig.mailwal("export", "--all", "--to", "eml:" + out)
	if r.rc:
		raise tap.Fatal(f"export: {r}")
	files = {p.stem.rpartition("-")[2]: p
		 for p in pathlib.Path(out).rglob("*.eml")}
	for o in rig.journaled():
		yield o, files[o["id"][:11]].read_bytes()


def dovecots(t, rig, raws):
	rig.in_dovecot = True
	one_store(t, "Dovecot Maildir", rig, raws, by_dovecot)
	rig.end("dovecot")
	conf = pathlib.Path(rig.run, "dovecot.conf")
	text = conf.read_text(encoding="utf-8")
	conf.write_text(re.sub(r"(?m)^mail_location = .*$", "mail_location = sdbox:~/sdbox", text),
			encoding="utf-8")
	rig.start_dovecot()
	one_store(t, "Dovecot sdbox", rig, raws, by_dovecot)


tap.run(main)
