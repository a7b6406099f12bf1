#!/usr/bin/python3
"""Many mailboxes of a few messages each, of which one in twenty fails: users that are gone, an ACL
without the right to insert, a quota that is reached in the middle. Each copy that was not put back is
named with its reason, the rest is there; memory stays small; and once all is mended the next run puts
back just what was missing. MW_MAILBOXES says how many (tests/soak mailboxes)."""
# MW_TEST_COST 20

import collections
import json
import os
import pathlib
import pwd
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

MAILBOXES = int(os.environ.get("MW_MAILBOXES", "120"))
MEMORY = 64 << 10  # kB
DOVECOT = """\
service imap {
  service_count = 1000
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
plugin {
  acl = vfile
  acl_user = %u
}
"""


def message(i, size=0):
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"text {i}\r\n" + ("x" * 70 + "\r\n") * (size // 72)).encode()


class Many:
	def __init__(self, t):
		self.t, self.rnd = t, random.Random(5)
		each = max(MAILBOXES // 60, 4)
		# The first ones in the order of a run: so many that are not known is no wrong password.
		self.gone = [f"aa{i:04d}@example.test" for i in range(max(each, 14))]
		self.fine = [f"user{i:04d}@example.test" for i in range(MAILBOXES)]
		pick = self.rnd.sample(self.fine, each * 2)
		self.barred, self.poor = pick[:each], pick[each:]
		self.want = collections.Counter()
		self.rig = rigs.Rig(t.sub("rig"), users=self.fine, aliases={}, plugins="acl quota",
				    dovecot=DOVECOT, user_extra=dict.fromkeys(
					    self.poor, "userdb_quota_rule=*:bytes=6000"))

	def capture(self):
		mails = []
		for u in self.gone + self.fine:
			n = 3 if u in self.poor else self.rnd.randint(1, 3)
			for _ in range(n):
				i = len(mails)
				mails.append((f"Q{i:06d}", u, message(i, 2500 if u in self.poor else 100)))
			self.want[u] = n
		taken = milterclient.journal(self.rig.milter_sock, mails)
		self.t.need(len(taken) == len(mails), f"{len(mails)} messages for {len(self.want)} "
			    "mailboxes captured")

	def bar(self):
		pw = pwd.getpwnam(rigs.MAIL_USER)
		for u in self.barred:
			n, d = u.split("@")
			box = pathlib.Path(self.rig.store, d, n)
			for sub in ("cur", "new", "tmp"):
				(box / sub).mkdir(parents=True)
			(box / "dovecot-acl").write_text("owner lrwst\n", encoding="ascii")
			for p in (box.parent, box, *box.iterdir()):
				os.chown(p, pw.pw_uid, pw.pw_gid)

	def mend(self):
		for u in self.barred:
			n, d = u.split("@")
			pathlib.Path(self.rig.store, d, n, "dovecot-acl").write_text(
				"owner lrwstipekxa\n", encoding="ascii")
		for u in self.poor:
			self.rig.user_extra[u] = ""
		self.rig.users += tuple(self.gone)
		self.rig._write_tables(pwd.getpwnam(rigs.MAIL_USER))

	def there(self):
		"""Messages by user, as the files say."""
		got = collections.Counter()
		for d in pathlib.Path(self.rig.store).glob("*/*"):
			n = sum(len(os.listdir(d / s)) for s in ("cur", "new") if (d / s).exists())
			got[f"{d.name}@{d.parent.name}"] = n
		return +got

	def replay(self, *more):
		"""(exit, summary, report, kB of memory, seconds)"""
		report = os.path.join(self.t.dir, "report.json")
		argv = self.rig.mailwal_argv("--json", *self.rig.replay_args(
			"--all", "--queue", "none", "--report", report, *more))
		began = time.monotonic()
		with open(os.path.join(self.t.dir, "out"), "w+b") as out:
			p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
			_, status, use = os.wait4(p.pid, 0)
			p.returncode = os.waitstatus_to_exitcode(status)
			out.seek(0)
			text = out.read().decode()
		rows = [json.loads(x) for x in text.splitlines() if x.startswith("{")]
		summary = next((o for o in rows if o.get("message_type") == "summary"), {})
		return (p.returncode, summary, json.loads(pathlib.Path(report).read_text(
			encoding="utf-8")), use.ru_maxrss, time.monotonic() - began, text[-1500:])


def broken(t, m):
	rc, s, report, memory, took, text = m.replay()
	t.note(f"{took:.1f} s, {memory} kB")
	have, bad = m.there(), {*m.gone, *m.barred, *m.poor}
	fine = {u: n for u, n in m.want.items() if u not in bad}
	t.ok(rc == 3 and {u: have[u] for u in fine} == fine,
	     f"exit 3; all copies of the {len(fine)} other mailboxes are there",
	     f"{rc} {sum(have.values())} {text}")
	t.ok(all(have[u] == 0 for u in m.gone + m.barred) and all(
		0 < have[u] < m.want[u] for u in m.poor), "of those over quota a part is there",
	     {u: have[u] for u in bad if have[u]})
	failed = sum((m.want - have).values())
	t.equal((s.get("failed"), s.get("restored")), (failed, sum(have.values())), "summary")
	rows = [f for f in report["copies"] if f["kind"] == "failed"]
	named = collections.Counter(f["mailbox"] for f in rows)
	t.ok(named == m.want - have, f"the report names each of {failed} copies", named)
	why = collections.defaultdict(set)
	for f in rows:
		kind = ("gone" if f["mailbox"] in m.gone else
			"barred" if f["mailbox"] in m.barred else "poor")
		why[kind].add(f["reason"].lower())
	t.ok(all("not known" in x for x in why["gone"]) and all("quota" in x for x in why["poor"])
	     and all("permission" in x or "acl" in x or "noperm" in x for x in why["barred"]),
	     "with its reason", dict(why))
	t.ok(memory <= MEMORY, f"memory: {memory} kB")


def main(t):
	m = Many(t)
	with m.rig as rig:
		rig.mailwal("init", rig.journal)
		rig.start_mailwald()
		m.capture()
		m.bar()
		rig.start_dovecot()
		broken(t, m)
		before = m.there()
		rig.end("dovecot")
		m.mend()
		rig.start_dovecot()
		rc, s, _, memory, took, text = m.replay()
		t.note(f"{took:.1f} s, {memory} kB")
		t.ok(rc == 0 and m.there() == m.want and s["restored"] == sum((m.want - before).values()),
		     f"mended: the next run puts back the other {s.get('restored')}", text)
		rc, s, _, memory, took, text = m.replay()
		t.ok(rc == 0 and s["restored"] == 0 and m.there() == m.want, "a third one nothing", text)


tap.run(main)
