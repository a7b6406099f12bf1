#!/usr/bin/python3
"""The 43 tricky messages through real Postfix into both milter front ends.

Stored bytes must be the recorded ones (what Postfix 3.7 hands to a milter), and what an
independent capture in the same Postfix was handed; DKIM signatures over the messages that
Postfix leaves alone verify from the journal.
"""
# MW_TEST_COST 25

import json
import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import dkimtool
import mailbox
import rig as rigs
import smtp
import tap
import workload

TRICKY = workload.CORPUS / "tricky" / "smtp"


def wire(case):
	"""The bytes a client sends."""
	if "generate" in case:
		head = (b"From: big@remote.test\r\nTo: u@example.test\r\n"
			b"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nMessage-ID: <big@remote.test>\r\n"
			b"Subject: big\r\n\r\n")
		line = b"0123456789" * 7 + b"\r\n"
		return head + line * (30_000_000 // len(line))
	return (TRICKY / case["wire"]).read_bytes()


def send(rig, case, data, rcpt):
	"""One session for one message, as the recording was made."""
	opts = dict(case["options"])
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(data, "sender@remote.test", [rcpt], chunks=case.get("bdat_chunks"),
			     **opts)
		c.quit()
	return got


def one_engine(t, engine, cases):
	with rigs.Rig(t.sub(engine), engine=engine, witness=True,
		      postfix="virtual_transport = discard:") as rig:
		rig.start()
		bad, exact = [], 0
		for case in cases:
			data = wire(case)
			code, text = send(rig, case, data, "anna@example.test")
			qid = smtp.queue_id((code, text))
			if code != 250:
				bad.append(f"{case['name']}: {code} {text}")
				continue
			raw = rig.raw(qid)
			handed = rig.witness.messages[qid].data
			if raw != handed:
				bad.append(f"{case['name']}: other than handed over: "
					   + mailbox.first_difference(handed, raw))
				continue
			if case["postfix"]:
				want = (TRICKY / case["postfix"]).read_bytes()
			else:
				want = data
			if raw != want:
				bad.append(f"{case['name']}: other than recorded: "
					   + mailbox.first_difference(want, raw))
				continue
			exact += 1
		t.ok(not bad, f"{engine}: {exact} of {len(cases)} tricky messages as recorded",
		     "\n".join(bad))
		signatures(t, engine, rig, cases)
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, f"{engine}: verify finds nothing wrong", r)


def signatures(t, engine, rig, cases):
	"""Signed versions of what Postfix leaves alone, relaxed and simple."""
	ran, bad = 0, []
	for case in cases:
		if not case.get("postfix_equals_wire") or case["options"].get("mode") == "BDAT":
			continue
		data = wire(case)
		if not data.lower().startswith((b"from:", b"to:", b"received:", b"date:")):
			continue  # nothing to sign: no header
		for mode in ("relaxed", "simple"):
			try:
				signed = dkimtool.sign(data, mode)
			except Exception:
				continue
			if not dkimtool.verify(signed):
				continue
			code, text = send(rig, case, signed, "bert@example.test")
			if code != 250:
				bad.append(f"{case['name']} {mode}: {code} {text}")
				continue
			ran += 1
			if not dkimtool.verify(rig.raw(smtp.queue_id((code, text)))):
				bad.append(f"{case['name']} {mode}")
	t.ok(not bad and ran >= 24, f"{engine}: {ran} DKIM signatures verify from the journal",
	     "\n".join(bad))


def main(t):
	if not (TRICKY / "index.json").is_file():
		t.skip("no shared corpus beside this checkout")
		return
	cases = json.loads(pathlib.Path(TRICKY / "index.json").read_text(encoding="utf-8"))
	t.equal(len(cases), 43, "tricky messages")
	for engine in ("native", "libmilter"):
		one_engine(t, engine, cases)


tap.run(main)
