#!/usr/bin/python3
"""Filing: by user+folder addresses, and by the users' own Sieve scripts on a quiet Dovecot
instance that `mailwal setup dovecot --quiet-instance` made: right folders, flags and dates, no
mail sent to anybody, what is held back is counted; killed and run again."""
# MW_TEST_COST 55

import collections
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import stores
import tap
import workload
from replaytool import StopProxy, empty

SEED = int(os.environ.get("MW_SEED", "1"))
ANNA, BERT, CLEO, DORA = (f"{n}@example.test" for n in ("anna", "bert", "cleo", "dora"))
USERS = (ANNA, BERT, CLEO, DORA)

SCRIPT = """require ["fileinto", "imap4flags", "copy", "mailbox", "vacation", "reject", "enotify",
	"envelope", "subaddress", "variables"];
if header :contains "Subject" "project" {
	fileinto :create :flags "\\\\Flagged" "Work/Projects";
} elsif header :contains "Subject" "forward" {
	redirect "elsewhere@outside.test";
} elsif header :contains "Subject" "copy" {
	redirect :copy "elsewhere@outside.test";
	notify :message "you have mail" "mailto:pager@outside.test";
} elsif header :contains "Subject" "spam" {
	discard;
} elsif header :contains "Subject" "refuse" {
	reject "no, thanks";
} elsif header :contains "Subject" "both" {
	fileinto :create :copy "Work";
} elsif envelope :detail "to" "tagged" {
	fileinto :create "Tagged";
} elsif envelope :is "from" "boss@remote.test" {
	fileinto :create "Boss";
} elsif header :contains "Subject" "nowhere" {
	fileinto "No such folder";
} else {
	vacation "I am away";
}
"""
KINDS = ("project", "forward", "copy", "spam", "refuse", "both", "tagged", "boss", "nowhere",
	 "plain")
# where a mail of each kind is in the end; and whether the script would send something out
PLACE = {"project": "Work/Projects", "forward": None, "copy": "INBOX", "spam": None,
	 "refuse": "INBOX", "both": "Work", "tagged": "Tagged", "boss": "Boss",
	 "nowhere": "INBOX", "plain": "INBOX"}
SENT = {"forward": 1, "copy": 2}


def mails(n):
	out = []
	for i in range(n):
		kind = KINDS[i % len(KINDS)]
		user = (ANNA, BERT)[i // len(KINDS) % 2]
		rcpt = user.replace("@", "+tagged@") if kind == "tagged" else user
		sender = "boss@remote.test" if kind == "boss" else "w@remote.test"
		m = workload.Mail(f"{kind} {i}", (
			f"From: w@remote.test\r\nTo: {user}\r\nSubject: {kind} {i}\r\n"
			f"Message-ID: <{i}@remote.test>\r\n\r\ntext {i}\r\n").encode(),
			sender, [rcpt], {}, USERS)
		m.kind, m.user = kind, user
		out.append(m)
	for i in range(6):  # cleo has no script, dora a broken one
		m = workload.Mail(f"plain c{i}", (f"Subject: project c{i}\r\nMessage-ID: <c{i}@x>"
			"\r\n\r\nx\r\n").encode(), "w@remote.test", [(CLEO, DORA)[i % 2]], {}, USERS)
		m.kind, m.user = "plain", (CLEO, DORA)[i % 2]
		out.append(m)
	return out


def scripts(rig):
	for user, text in ((ANNA, SCRIPT), (BERT, SCRIPT), (DORA, "if garbage {")):
		n, d = user.split("@")
		home = pathlib.Path(rig.store, d, n)
		home.mkdir(parents=True, exist_ok=True)
		(home / ".dovecot.sieve").write_text(text, encoding="utf-8")
	subprocess.run(["chown", "-R", "nobody:nogroup", rig.store + "/"], check=True)


def expected(jobs):
	out = collections.defaultdict(collections.Counter)
	for j in jobs:
		place = PLACE[j.kind]
		if place:
			out[j.user, place][j.name] += 1
		if j.kind == "both":
			out[j.user, "INBOX"][j.name] += 1
	return out


def found(rig):
	out = collections.defaultdict(collections.Counter)
	for k, v in mailbox.dump(rig).items():
		for s in v:
			name = re.search(rb"Subject: (.*?)\r\n", s.data)[1].decode()
			name = name.replace("project c", "plain c")
			out[k][name] += 1
	return out


def same(a, b):
	keys = set(a) | set(b)
	return "\n".join(f"{k}: {a[k] - b[k]} / {b[k] - a[k]}" for k in sorted(keys)
			 if a[k] != b[k])


def args(port, rig, sink, *more):
	return ["--json", "replay", "--all", "--sieve", "--to", f"imap://127.0.0.1:{port}",
		"--sink", sink, "--password-file", rig.password_file, "--auth-user",
		rigs.MASTER, *more]


def whole(t, rig, jobs, port, sink):
	r = rig.mailwal(*args(port, rig, sink))
	s = r.summary or {}
	gone = sum(PLACE[j.kind] is None for j in jobs)
	t.ok(r.rc == 0 and s.get("skipped") == gone and s.get("restored") == len(jobs) - gone,
	     f"exit 0; {len(jobs) - gone} filed, {gone} that the scripts discard or send on", r)
	want, have = expected(jobs), found(rig)
	diff = same(want, have)
	t.ok(not diff, "every copy in the folder that its script says", diff)
	t.equal(s.get("held_back"), sum(SENT.get(j.kind, 0) for j in jobs),
		"replies, redirects and notifications held back and counted")
	t.ok(not rig.sent_outside() and "vacation" not in rig.maillog(),
	     "no mail was sent to anybody", rig.sent_outside()[:3])
	t.ok("mailbox dora@example.test" in r.err and "mailbox anna" not in r.err,
	     "a script that does not compile is named", r.err)
	state = mailbox.dump(rig, [ANNA])
	flags = {f for s in state[ANNA, "Work/Projects"] for f in s.flags}
	t.ok("\\Flagged" in flags, "flags of the script are set", flags)
	job = {j.name: j for j in jobs}
	late = [s for v in state.values() for s in v if job[
		re.search(rb"Subject: (.*?)\r\n", s.data)[1].decode()].off(s.date) > 1]
	t.ok(not late, "INTERNALDATE is the time of arrival", late[:3])
	c = mailbox.login(rig, ANNA)
	subscribed = str(c.lsub()[1])
	c.logout()
	t.ok("Work/Projects" in subscribed and "Boss" in subscribed,
	     "folders that scripts made are subscribed", subscribed)
	t.ok("dupes" not in subscribed, "and Pigeonhole's own directories are not", subscribed)
	again = rig.mailwal(*args(port, rig, sink))
	t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
	     and (again.summary or {}).get("held_back") == 0 and not same(want, found(rig)),
	     "a second run puts back 0 and sends 0", again)


def server_ends(rig):
	"""What the server was told last it goes on with when nobody is there any more."""
	rigs.wait_for("the server's end of it", lambda: not stores.children(
		rig.procs["quiet"].pid, "imap"))


def kills(t, rig, jobs, port, sink, rnd):
	"""A copy that a script both files and keeps may miss its second place after a kill
	between the two; no copy is lost or there twice."""
	want, hit = expected(jobs), 0
	for _ in range(5):
		empty(rig)
		time.sleep(1.2)  # Pigeonhole keeps what it redirected within the same second
		p = subprocess.Popen(rig.mailwal_argv(*args(port, rig, sink, "--fresh")),
				     stdout=subprocess.PIPE, stderr=subprocess.PIPE,
				     start_new_session=True)
		time.sleep(rnd.uniform(0.05, 0.5))
		if p.poll() is None:
			p.send_signal(signal.SIGKILL)
			hit += 1
		p.communicate()
		server_ends(rig)
		time.sleep(1.2)
		r = rig.mailwal(*args(port, rig, sink, "--fresh"))
		have = found(rig)
		for u in (ANNA, BERT):
			both = {j.name for j in jobs if j.kind == "both" and j.user == u
				and have[u, "Work"][j.name] and not have[u, "INBOX"][j.name]}
			have[u, "INBOX"].update(dict.fromkeys(both, 1))
		have = {k: v for k, v in have.items() if v}
		left = [k for k in have if "mailwal" in k[1]]
		if not t.ok(r.rc == 0 and not same(want, collections.defaultdict(
				collections.Counter, have)) and not left,
			    f"kill {hit}: the next run files every copy once",
			    f"{same(want, collections.defaultdict(collections.Counter, have))}"
			    f"\n{left}\n{r}"):
			return


def between(t, rig, jobs, port, sink):
	"""Killed when the script has run and the rest is not moved yet: at the command that takes
	what was filed out of the staging folder, and at the MOVE. The next run meets that folder,
	whose mail the script has seen, and runs the script again on what is missing only."""
	want = expected(jobs)
	for what, words in (("FILTER and EXPUNGE", b"UID EXPUNGE"), ("EXPUNGE and MOVE", b"UID MOVE")):
		for n in (1, 2):
			empty(rig)
			time.sleep(1.2)  # as in kills()
			box = {}
			relay = StopProxy(port, words, n, lambda b=box: b["p"].kill())
			box["p"] = subprocess.Popen(rig.mailwal_argv(*args(
				relay.port, rig, sink, "--fresh", "--jobs", "1")),
				stdout=subprocess.PIPE, stderr=subprocess.PIPE)
			box["p"].communicate(timeout=tap.PATIENCE)
			staged = sum(sum(v.values()) for k, v in found(rig).items() if "mailwal" in k[1])
			t.need(relay.hit and box["p"].returncode == -signal.SIGKILL and staged,
			       f"killed between {what} of mailbox {n}; {staged} messages are staged")
			server_ends(rig)
			time.sleep(1.2)
			# Through the relay again: the target's name is what a ledger goes by.
			r = rig.mailwal(*args(relay.port, rig, sink, "--fresh"))
			relay.close()
			have = found(rig)
			for u in (ANNA, BERT):  # filed by the first run: the second place stays empty
				both = {j.name for j in jobs if j.kind == "both" and j.user == u
					and have[u, "Work"][j.name] and not have[u, "INBOX"][j.name]}
				have[u, "INBOX"].update(dict.fromkeys(both, 1))
			left = [k for k in have if "mailwal" in k[1]]
			diff = same(want, have)
			t.ok(r.rc == 0 and not diff and not left,
			     f"killed between {what} of mailbox {n}: every copy is filed once",
			     f"{diff}\n{left}\n{r}")
			time.sleep(1.2)  # Pigeonhole keeps what it redirected within the same second
			again = rig.mailwal(*args(port, rig, sink, "--fresh"))
			t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
			     and not rig.sent_outside(), "a third run puts back 0, nothing was sent", again)


def lost(t, rig, jobs, port, sink):
	"""Mail that a script left in the staging folder is gone before it is moved: another process
	of the server took it out, as happens to a Maildir for a moment. No script discarded it."""
	empty(rig)
	time.sleep(1.2)  # as in kills()
	gone = []

	def take():
		for user in (ANNA, BERT):
			c = mailbox.login(rig, user)
			if "mailwal-staging" in mailbox.folders(c):
				c.select("mailwal-staging")
				uids = c.uid("SEARCH", "SUBJECT", "plain")[1][0].decode().split()
				if uids:
					c.uid("STORE", ",".join(uids), "+FLAGS.SILENT", "\\Deleted")
					c.uid("EXPUNGE", ",".join(uids))
				gone.extend(uids)
			c.logout()

	relay = StopProxy(port, b"UID EXPUNGE", 2, take, on=True)
	r = rig.mailwal(*args(relay.port, rig, sink, "--fresh", "--jobs", "1"))
	relay.close()
	have = found(rig)
	for box in have.values():  # of a second try in the same second, as in kills()
		for name in [x for x in box if x.startswith("forward")]:
			del box[name]
	diff = same(expected(jobs), collections.defaultdict(
		collections.Counter, {k: v for k, v in have.items() if v}))
	t.ok(r.rc == 0 and not diff,
	     f"{len(gone)} messages gone from the staging folder: put again, not taken for discarded",
	     f"{diff}\n{r}")
	t.need(gone, "some were gone")


def not_quiet(t, rig, sink):
	"""The rig's own Dovecot, which offers FILTER but sends to somebody else."""
	empty(rig)
	r = rig.mailwal(*args(rig.imap_port, rig, sink))
	t.ok(r.rc in (3, 78) and "silent" in r.out + r.err
	     and not mailbox.count(mailbox.dump(rig)),
	     "an instance that is not silent: refused, nothing is put back", r)


def detail(t, rig, jobs):
	empty(rig)
	c = mailbox.login(rig, ANNA)
	c.create("tagged")
	c.logout()
	args_ = rig.replay_args("--all", "--filing", "detail")
	r = rig.mailwal("--json", *args_)
	have = found(rig)
	tagged = {j.name for j in jobs if j.kind == "tagged"}
	a = {j.name for j in jobs if j.user == ANNA and j.name in tagged}
	b = {j.name for j in jobs if j.user == BERT and j.name in tagged}
	t.ok(r.rc == 0 and set(have[ANNA, "tagged"]) == a and b <= set(have[BERT, "INBOX"])
	     and sum(v.total() for v in have.values()) == len(jobs),
	     "--filing detail: user+folder into that folder where there is one, else INBOX",
	     f"{have}\n{r}")


def main(t):
	if not os.path.exists("/usr/lib/dovecot/modules/lib95_imap_filter_sieve_plugin.so"):
		t.skip("no dovecot-sieve")
		return
	rnd = random.Random(SEED)
	(sink_port,) = rigs.free_ports(1)
	sink = f"127.0.0.1:{sink_port}"
	with rigs.Rig(t.dir, users=USERS, aliases={}, dovecot="""
protocol imap {
  mail_plugins = $mail_plugins imap_filter_sieve
}
submission_host = 127.0.0.1:9
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
""", postfix="virtual_transport = discard:\nmessage_drop_headers =") as rig:
		rig.start()
		scripts(rig)
		jobs = rig.send(mails(240), clock=time.time)
		t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} captured")
		rig.wait_queue()
		sent = len(rig.sent_outside())
		rig.sent_outside = lambda: rigs.Rig.sent_outside(rig)[sent:]
		port, r = stores.quiet_instance(rig, sink)
		t.need(r.rc == 0 and "submission_host" in r.out, "setup makes the quiet instance", r)
		whole(t, rig, jobs, port, sink)
		kills(t, rig, jobs, port, sink, rnd)
		between(t, rig, jobs, port, sink)
		lost(t, rig, jobs, port, sink)
		not_quiet(t, rig, sink)
		detail(t, rig, jobs)


tap.run(main)
