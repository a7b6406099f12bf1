#!/usr/bin/python3
"""The disk of Postfix' queue fails at the end of a message, when it is in the journal already:
the sender is told to come again, and the log that it was not taken. There is a record for each
attempt, and a replay puts back what was delivered, once: mail over SMTP, in the midst of a
session, at its end, and before the end of a session that is kept; and mail of sendmail(1), which
Postfix itself tries again."""
# MW_TEST_COST 20

import errno
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import servers
import smtp
import tap

ANNA = "anna@example.test"
NAMES = ("first", "middle", "end", "kept", "local")


class Disk:
	"""What cleanup's fsync says."""

	def __init__(self, rig):
		self.path = f"{rig.run}/fails"
		lib = f"{rig.run}/preload.so"  # where Postfix' user gets to
		shutil.copyfile(sendmail.preload(), lib)
		os.chmod(lib, 0o755)
		rig.configure(postfix="import_environment = MAIL_CONFIG TZ LANG=C MW_ONLY=cleanup "
			      f"LD_PRELOAD={lib} MW_SYNC_FAIL={self.path}")

	def fails(self):
		servers.write(self.path, str(errno.EIO))

	def works(self):
		os.unlink(self.path)


def data(name):
	return (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()


def copies(rig, name):
	want = f"text of {name}\n".encode()
	return sum(s.data.replace(b"\r\n", b"\n").endswith(want)
		   for v in mailbox.dump(rig, [ANNA]).values() for s in v)


def over_smtp(t, rig, disk):
	"""After its failure Postfix wants nothing more in that session."""
	for name in ("middle", "end", "kept"):
		with smtp.Client(rig.smtp_port) as c:
			if name == "middle":
				t.equal(c.mail(data("first"), "w@remote.test", [ANNA])[0], 250,
					"a message like any other")
			disk.fails()
			code, text = c.mail(data(name), "w@remote.test", [ANNA])
			disk.works()
			t.ok(400 <= code < 500, f"{name}: the sender is told to come again", (code, text))
			if name == "middle":
				t.equal(c.cmd(b"MAIL FROM:<w@remote.test>")[0], 421, "but in another session")
			elif name == "kept":  # he comes again before its end is in the log
				again(t, rig, name)
				continue
		again(t, rig, name)


def again(t, rig, name):
	with smtp.Client(rig.smtp_port) as c:
		t.equal(c.mail(data(name), "w@remote.test", [ANNA])[0], 250, f"{name}: he does")


def from_here(rig, disk):
	def failures():
		return rig.maillog().count(": error writing ")
	disk.fails()
	subprocess.run([f"{servers.POSTFIX_BIN}/sendmail", "-C", f"{rig.run}/postfix", "-f",
			"w@remote.test", "--", ANNA], input=data("local").replace(b"\r", b""),
		       check=True, capture_output=True, timeout=tap.PATIENCE)
	rigs.wait_for("pickup to fail twice", lambda: failures() >= 2)
	disk.works()


def main(t):
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,))
	disk = Disk(rig)
	with rig:
		rig.start()
		over_smtp(t, rig, disk)
		from_here(rig, disk)
		rigs.wait_for("the deliveries", lambda: not rig.queue() and copies(rig, "local"))
		before = {n: copies(rig, n) for n in NAMES}
		t.equal(before, dict.fromkeys(NAMES, 1), "delivered")
		rows = rig.journaled()
		n = len(rows) - len(NAMES)
		t.ok(n >= 4, "a record for each attempt", rows)
		r = rig.replay("--all", "-n")
		t.ok((r.summary or {}).get("restored") == n, "no log was read: what is missing would be "
		     "put back", r)
		r = rig.mailwal("outcomes", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "outcomes", r)
		for name in NAMES:
			mine = [o["id"] for o in rows if f"<{name}@remote.test>" == o["message_id"]]
			got = [{x["outcome"] for x in rig.mailwal("--json", "show", i).lines[0].get("outcomes")
				or []} for i in mine]
			t.equal(got, [{"refused"}] * (len(mine) - 1) + [{"delivered"}],
				f"{name}: what became of each")
		r = rig.mailwal("--json", "audit", f"{rig.run}/maillog")
		t.ok(r.rc == 0, "the audit finds no hole", r)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and [(r.summary or {}).get(k) for k in ("restored", "already_there", "refused")]
		     == [0, len(NAMES), n], "a replay beside the store puts nothing back", r)
		rig.end("dovecot")
		rig.destroy_store()
		rig.start_dovecot()
		r = rig.replay("--all", "--fresh")
		after = {n: copies(rig, n) for n in NAMES}
		t.ok(r.rc == 0 and after == before, "after the loss of the store: each delivery once",
		     (after, r))


tap.run(main)
