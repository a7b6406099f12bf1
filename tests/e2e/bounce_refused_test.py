#!/usr/bin/python3
"""A bounce that Postfix itself could not queue, when it was journaled already: a later milter
refuses it, defers it or throws it away, or the queue's disk fails. Postfix makes another one later;
there is a record for each. What the log says of one is noted, and it is not put back; of one whose
queue file could not be written it says nothing."""
# MW_TEST_COST 20

import errno
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import laterfilter
import mailbox
import rig as rigs
import sendmail
import servers
import smtp
import tap

DORA, GHOST = "dora@example.test", "ghost@example.test"  # Dovecot does not know the ghost


class Filter(laterfilter.LaterFilter):
	"""Answers self.how at the end of each message."""

	how = b"c"

	def _end(self, c, msg):
		self._send(c, self.how)


def make(t):
	rig = rigs.Rig(t.sub("rig"), users=(DORA,))
	fails, lib, later = f"{rig.run}/fails", f"{rig.run}/preload.so", f"{rig.run}/later.sock"
	shutil.copyfile(sendmail.preload(), lib)
	os.chmod(lib, 0o755)
	rig.configure(postfix=f"""\
import_environment = MAIL_CONFIG TZ LANG=C MW_ONLY=cleanup LD_PRELOAD={lib} MW_SYNC_FAIL={fails}
non_smtpd_milters = {{ unix:{rig.milter_sock}, default_action=tempfail }}, {{ unix:{later} }}
internal_mail_filter_classes = bounce
transport_maps = inline:{{ {{ {GHOST} = smtp:[127.0.0.1]:1 }} }}
minimal_backoff_time = 1s
queue_run_delay = 2s
""")
	with open(f"{rig.run}/mailboxes", "a", encoding="utf-8") as f:
		f.write(f"{GHOST} x\n")
	return rig, fails, Filter(later)


def bounces(rig):
	"""{Subject of what was bounced: [outcomes of each bounce of it, in order]}"""
	out = {}
	for o in rig.journaled():
		if o["sender"].strip("<>"):
			continue
		name = rig.raw(o["id"]).partition(b"Subject: about ")[2].partition(b"\r")[0].decode()
		shown = rig.mailwal("--json", "show", o["id"]).lines[0]
		out.setdefault(name, []).append(sorted({x["outcome"] for x in shown.get("outcomes") or []}))
	return out


def restart(rig):
	rig.end("postfix")
	rig.start_postfix()


def main(t):
	rig, fails, later = make(t)
	with rig:
		later.start()
		rig.start()
		cases = {"reject": b"r", "tempfail": b"t", "discard": b"d", "disk": None}
		said = {"reject": "milter-reject: END-OF-MESSAGE", "tempfail": "milter-reject: END-OF-MESSAGE",
			"discard": "milter-discard: END-OF-MESSAGE", "disk": "(bounce failed)"}
		inline = rig.postfix_extra
		for name, how in cases.items():
			with smtp.Client(rig.smtp_port) as c:
				code = c.mail(f"From: {DORA}\r\nSubject: about {name}\r\n\r\nx\r\n".encode(),
					      DORA, [GHOST])[0]
			t.equal(code, 250, f"{name}: the message that will bounce")
			rigs.wait_for("it to wait", lambda: [o for o in rig.queue() if o["queue_name"] == "deferred"])
			later.how = how or b"c"
			if not how:
				servers.write(fails, str(errno.EIO))
			before = rig.maillog().count(said[name])
			rig.configure(postfix="transport_maps =")
			restart(rig)
			rigs.wait_for("its bounce to fail", lambda: rig.flush() or rig.maillog().count(
				said[name]) > before)
			later.how = b"c"
			if not how:
				os.unlink(fails)
			rigs.wait_for("another bounce", lambda: rig.flush() or not rig.queue())
			rig.postfix_extra = inline
			rig.configure()
			restart(rig)
		r = rig.mailwal("outcomes", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "outcomes", r)
		got = bounces(rig)
		for name, end in (("reject", ["delivered"]), ("tempfail", ["delivered"]),
				  ("discard", ["discarded"]), ("disk", ["delivered"])):
			first = {"disk": [], "discard": ["discarded"]}.get(name, ["refused"])
			mine = got.get(name, [])
			t.ok(mine and mine[-1] == end and all(o == first for o in mine[:-1])
			     and (name == "discard" or len(mine) > 1), f"{name}: what became of each bounce", got)
		r = rig.mailwal("--json", "audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "the audit finds no hole", r)
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		unknown = len(got["disk"]) - 1
		r = rig.replay("--all")
		there = sum(len(v) for v in mailbox.dump(rig, [DORA]).values())
		t.ok(r.rc == 0 and there == 3 + unknown, "after the loss of the store: each bounce that was "
		     "delivered once; of those that the log does not tell of, all", (there, got, r))


tap.run(main)
