#!/usr/bin/python3
"""Mail that is still in the queue of a real Postfix, or Sendmail, is left to it: read live,
without any log, for the very recipient that it waits for; and what leaves the queue while a
replay looks is there once all the same."""
# MW_TEST_COST 20

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import sendmail
import servers
import smtp
import tap

ANNA, BERT, DORA = (f"{n}@example.test" for n in ("anna", "bert", "dora"))
USERS = (ANNA, BERT, DORA)
ALIASES = {"all@example.test": [ANNA, DORA]}
YOUNG = 3  # seconds; for mail younger than two, replay waits for the MTA to say its queue
DEAD = "smtp:[127.0.0.1]:1"
RULES = """\
Rdora < @ example.test . > $*	$#esmtp $@ [127.0.0.1] $: dora < @ example.test > $1
Rdora < @ example.test > $*	$#esmtp $@ [127.0.0.1] $: dora < @ example.test > $1"""


def post(rig, name, rcpts, sender="w@remote.test"):
	data = (f"From: w@remote.test\r\nTo: {rcpts[0]}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	with smtp.Client(rig.smtp_port) as c:
		return c.mail(data, sender, rcpts)[0]


def settle(rig, left):
	def still():
		q = rig.queue()
		return len(q) == left and all(o.get("queue_name") != "active" for o in q)
	rigs.wait_for(f"{left} messages left in the queue", still)


def texts(rig, user):
	"""{subject: how often} over all folders."""
	got = {}
	for (who, _), v in mailbox.dump(rig, [user]).items():
		for s in v if who == user else []:
			name = s.data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
			got[name] = got.get(name, 0) + 1
	return got


def lose(rig):
	rig.end("dovecot")
	rig.destroy_store()
	rig.start_dovecot()


def numbers(r, *names):
	return [(r.summary or {}).get(n) for n in names]


def fill(t, rig):
	codes = [post(rig, "both", [ANNA, DORA]), post(rig, "alias", ["all@example.test"]),
		 post(rig, "anna", [ANNA]), post(rig, "dora", [DORA]),
		 post(rig, "plus", ["dora+x@example.test"], "")]
	t.equal(set(codes), {250}, "all mail accepted")
	settle(rig, 4)
	return rig.queue()


def of_two_hosts(t, rig):
	"""Of several configurations each one's queue is asked, whichever comes first."""
	other, conf = f"{t.dir}/other", f"{t.dir}/other.conf"
	with open(rig.conf, encoding="utf-8") as f:
		lines = [x for x in f.read().splitlines()
			 if not x.startswith(("journal_dir", "queue_command"))]
	rig.mailwal("init", other)

	def asked(command, *more):
		servers.write(conf, "\n".join([*lines, f"journal_dir = {other}",
					       f"queue_command = {command}", ""]))
		return [rig.mailwal("--json", *files, *rig.replay_args("--all", "-n", *more)[1:],
				    conf=False)
			for files in (("-c", conf, "-c", rig.conf, "replay"),
				      ("-c", rig.conf, "-c", conf, "replay"))]
	for what, r in zip(("second", "first"), asked("none")):
		t.ok(r.rc == 0 and numbers(r, "restored", "queued") == [3, 4],
		     f"two configurations: the queue of the {what} is asked", r)
	for what, r in zip(("first", "second"), asked("/bin/false")):
		t.ok(r.rc == 69 and f"queue_command of {conf}: " in r.err
		     and "nothing was put back" in r.err,
		     f"two configurations: the {what}'s cannot be read, and is named", r)
	r = asked("/bin/false", "--queue", "none")[0]
	t.ok(numbers(r, "restored", "queued") == [7, 0], "--queue stands for all of them", r)


def left_to_postfix(t, rig):
	queue = fill(t, rig)
	t.ok(len(queue) == 4, "four messages wait for dora", queue)
	lose(rig)
	dry = rig.replay("--all", "-n")
	t.ok(dry.rc == 0 and numbers(dry, "restored", "queued") == [3, 4],
	     "dry run: anna's three are missing, dora's four are in the queue", dry)
	none = rig.replay("--all", "-n", "--queue", "none")
	t.ok(numbers(none, "restored", "queued") == [7, 0],
	     "without the queue all would be put back", none)
	of_two_hosts(t, rig)
	run = rig.replay("--all", "--report", f"{t.dir}/report.json")
	t.ok(run.rc == 0 and numbers(run, "restored", "queued", "failed") == [3, 4, 0],
	     "replay: dora's are left to Postfix", run)
	t.equal(texts(rig, ANNA), {"both": 1, "alias": 1, "anna": 1}, "anna has hers")
	t.equal(texts(rig, DORA), {}, "dora has nothing yet")
	check = rig.mailwal("--json", "replay", "verify", *rig.replay_args("--all")[1:])
	t.ok(check.rc == 0 and numbers(check, "already_there", "queued") == [3, 4],
	     "verify knows that too", check)


def recover(rig, *words):
	return rig.mailwal("--json", "recover", *rig.replay_args()[1:], "--user", DORA, *words)


def not_recovered(t, rig):
	"""recover goes by the queue as well, and tells of it."""
	r = recover(rig, "--missing")
	t.ok(r.rc == 0 and numbers(r, "selected", "restored", "queued") == [4, 0, 4]
	     and "message_id" not in r.out, "recover --missing: what is in the queue is not", r)
	ids = [o["id"] for o in rig.journaled() if DORA in o["recipients"]]
	for what, words in (("all", ["--all"]), ("missing", ["--missing"]), ("by ID", ids[:1])):
		r = recover(rig, *words, "--folder", "Back", "--report", f"{t.dir}/recover.json")
		n = 1 if what == "by ID" else 4
		t.ok(r.rc == 0 and numbers(r, "restored", "queued") == [0, n],
		     f"recover, {what}: left to Postfix", r)
	with open(f"{t.dir}/recover.json", encoding="utf-8") as f:
		t.ok("in the mail server's queue" in f.read(), "and the report says why")
	t.equal(texts(rig, DORA), {}, "dora has nothing yet")
	r = recover(rig, "--all", "--folder", "Back", "-n", "--queue", "none")
	t.ok(r.rc == 0 and numbers(r, "restored", "queued") == [4, 0], "--queue none: does not ask", r)
	r = recover(rig, "--all", "--folder", "Back", "--queue", "/bin/false")
	t.ok(r.rc == 69 and "nothing was put back" in r.err, "a queue that cannot be read", r)
	r = rig.mailwal("recover", "--user", DORA, "--queue", "none")
	t.ok(r.rc == 64, "--queue without --to: exit 64", r)


def bad_commands(t, rig):
	for args, words in ((["/bin/false"], "failed"),
			    (["/nonexistent/postqueue -j"], "cannot run"),
			    (["echo permission denied"], "not how a mail queue is listed")):
		r = rig.replay("--all", "--queue", *args)
		t.ok(r.rc in (65, 69) and words in r.err and "nothing was put back" in r.err
		     and "--queue none" in r.err, f"--queue {args[0]}: an error that says what to do", r)
	r = rig.replay("--all", "--queue", "")
	t.ok(r.rc == 64, "an empty command: exit 64", r)
	env = dict(os.environ, MAIL_CONFIG=f"{t.dir}/broken")
	os.mkdir(f"{t.dir}/broken")
	servers.write(f"{t.dir}/broken/main.cf", "queue_directory = /nonexistent\n")
	r = rig.mailwal(*rig.replay_args("--all", "-n", "--queue", "auto"), env=env)
	t.ok(r.rc == 0 and "could not be read" in r.err and "mailwal outcomes" in r.err,
	     "auto: a queue that cannot be read is warned of", r)
	report = f"{t.dir}/unread.json"
	r = rig.mailwal("--json", *rig.replay_args("--all", "-n", "--queue", "auto", "--report", report),
			env=env)
	with open(report, encoding="utf-8") as f:
		t.ok(numbers(r, "restored", "ambiguous") == [4, 4]
		     and f.read().count("queue could not be read") == 4,
		     "and what may be in it is named as ambiguous", r)
	r = rig.mailwal("-q", *rig.replay_args("--all", "-n", "--queue", "auto"), env=env)
	t.ok(r.rc == 0 and "could not be read" in r.err, "also with --quiet", r)
	env["MAIL_CONFIG"] = f"{rig.run}/postfix"
	r = rig.mailwal("--json", *rig.replay_args("--all", "-n", "--queue", "auto"), env=env)
	t.ok(r.rc == 0 and numbers(r, "queued") == [4], "auto finds the Postfix of this host", r)


def leaves_meanwhile(t, rig):
	"""Postfix delivers after the queue was read and before it is read again."""
	script, count = f"{rig.run}/list", f"{rig.run}/count"
	servers.write(f"{rig.run}/transport", "")
	servers.write(script, f"""#!/bin/sh
n=$(cat {count} 2>/dev/null || echo 0)
echo $((n + 1)) >{count}
list() {{ {servers.POSTFIX_BIN}/postqueue -c {rig.run}/postfix -j; }}
if test "$n" = 2; then
	{servers.POSTFIX_BIN}/postqueue -c {rig.run}/postfix -f
	for i in $(seq 1000); do
		test -z "$(list)" && break
		sleep 0.1
	done
fi
list
""", 0o755)
	rig.end("postfix")
	rig.start_postfix()
	r = rig.replay("--user", DORA, "--queue", script)
	with open(count, encoding="utf-8") as f:
		t.equal(f.read().strip(), "4", "the queue was read before and after")
	t.ok(r.rc == 0 and numbers(r, "restored", "already_there", "queued") == [0, 4, 0],
	     "what left the queue during the run is found in the mailbox", r)
	t.equal(texts(rig, DORA), {"both": 1, "alias": 1, "dora": 1, "plus": 1},
		"and is there once")
	# Gone from the queue without having been delivered: deleted by the postmaster.
	servers.write(f"{rig.run}/transport", f"{DORA} {DEAD}\n")
	rig.end("postfix")
	rig.start_postfix()
	post(rig, "gone", [DORA])
	settle(rig, 1)
	servers.write(count, "0")
	servers.write(script, f"""#!/bin/sh
n=$(cat {count})
echo $((n + 1)) >{count}
test "$n" = 2 && {servers.POSTFIX_BIN}/postsuper \
	-c {rig.run}/postfix -d ALL 2>/dev/null
{servers.POSTFIX_BIN}/postqueue -c {rig.run}/postfix -j
""", 0o755)
	time.sleep(YOUNG)  # then what is listed beside the plan counts, and no more is asked
	r = rig.replay("--user", DORA, "--queue", script)
	t.ok(r.rc == 0 and numbers(r, "restored", "already_there", "queued") == [1, 4, 0]
	     and texts(rig, DORA).get("gone") == 1,
	     "what left it and was not delivered is put back", r)
	# A queue that can be read once only: told, and exit 3.
	post(rig, "third", [DORA])
	settle(rig, 1)
	servers.write(count, "0")
	servers.write(script, f"""#!/bin/sh
n=$(cat {count})
echo $((n + 1)) >{count}
test "$n" = 2 && exit 1
{servers.POSTFIX_BIN}/postqueue -c {rig.run}/postfix -j
""", 0o755)
	time.sleep(YOUNG)
	r = rig.replay("--user", DORA, "--queue", script)
	t.ok(r.rc == 3 and numbers(r, "failed", "already_there") == [1, 5],
	     "a queue that cannot be read again: exit 3, the copy is named", r)
	r = rig.replay("--user", DORA)
	t.ok(r.rc == 0 and numbers(r, "queued", "already_there") == [1, 5],
	     "and the next run does without it", r)
	changes_meanwhile(t, rig, script, count)


def changes_meanwhile(t, rig, script, count):
	"""What was seen while the plan was made and the queue read does not say what is missing,
	where the mailbox has changed since: "third" waits still, and "gone" goes."""
	log, box = f"{rig.run}/dovecot.log", f"{rig.store}/example.test/dora"
	with open(log, encoding="utf-8", errors="replace") as f:
		logins = f.read().count(f"Login: user=<{DORA}>")
	servers.write(count, "0")
	servers.write(script, f"""#!/bin/sh
n=$(cat {count})
echo $((n + 1)) >{count}
if test "$n" = 0; then
	for i in $(seq 300); do
		test "$(grep -c 'Login: user=<{DORA}>' {log})" -gt {logins} && break
		sleep 0.1
	done
	sleep 1
	grep -lZ '^Subject: gone' '{box}'/cur/* '{box}'/new/* | xargs -0 rm
fi
{servers.POSTFIX_BIN}/postqueue -c {rig.run}/postfix -j
""", 0o755)
	r = rig.replay("--user", DORA, "-n", "--queue", script)
	t.ok(r.rc == 0 and numbers(r, "restored", "already_there", "queued") == [1, 4, 1]
	     and "gone" not in texts(rig, DORA), "a dry run sees what went meanwhile", r)
	r = rig.replay("--user", DORA)
	t.ok(r.rc == 0 and numbers(r, "restored", "already_there", "queued") == [1, 4, 1]
	     and texts(rig, DORA).get("gone") == 1, "and a run puts it back", r)


def postsuper(rig, *words):
	subprocess.run([f"{servers.POSTFIX_BIN}/postsuper", "-c", f"{rig.run}/postfix", *words],
		       capture_output=True, timeout=tap.PATIENCE, check=True)


def on_hold(t, rig):
	"""What the postmaster holds by hand is left to Postfix too, however old what its log told is,
	and delivered by it once, when it is released."""
	names = ("held 1", "held 2", "held 3")
	before = texts(rig, DORA)
	for name in names:
		post(rig, name, [DORA])
	settle(rig, 1 + len(names))  # "third" waits still
	ids = {q["queue_id"] for q in rig.queue()}
	postsuper(rig, "-h", "ALL")
	t.equal({q["queue_name"] for q in rig.queue()}, {"hold"}, "all of it is held")
	lose(rig)
	for what in ("the queue alone", "its log too"):
		r = rig.replay("--user", DORA)
		t.ok(r.rc == 0 and numbers(r, "queued", "failed") == [len(ids), 0]
		     and not set(texts(rig, DORA)) & {*names, "third"},
		     f"held, known by {what}: left to Postfix", r)
		r = rig.mailwal("outcomes", f"{rig.run}/maillog")
		t.equal(r.rc, 0, "its log is read")
	r = recover(rig, "--missing")
	t.ok(r.rc == 0 and numbers(r, "queued") == [len(ids)], "recover leaves it, too", r)
	servers.write(f"{rig.run}/transport", "")
	rig.end("postfix")
	rig.start_postfix()
	postsuper(rig, "-H", "ALL")
	rig.flush()
	rig.wait_queue()
	t.equal({k: texts(rig, DORA).get(k) for k in names}, dict.fromkeys(names, 1),
		"released: delivered once")
	for what in ("before its log is read", "behind it"):
		r = rig.replay("--user", DORA)
		t.ok(r.rc == 0 and numbers(r, "restored", "queued") == [0, 0]
		     and texts(rig, DORA) == {**before, "third": 1, **dict.fromkeys(names, 1)},
		     f"a replay {what} puts nothing twice", f"{texts(rig, DORA)}\n{r}")
		rig.mailwal("outcomes", f"{rig.run}/maillog")


def of_postfix(t):
	link = f"/tmp/mw-queue.{os.getpid()}"
	rig = rigs.Rig(t.sub("postfix"), users=USERS, aliases=ALIASES)
	os.symlink(rig.run, link)
	try:
		with rig:
			rig.configure(postfix=f"transport_maps = texthash:{link}/transport\n")
			servers.write(f"{rig.run}/transport", f"{DORA} {DEAD}\n")
			rig.start()
			left_to_postfix(t, rig)
			not_recovered(t, rig)
			bad_commands(t, rig)
			leaves_meanwhile(t, rig)
			on_hold(t, rig)
	finally:
		os.unlink(link)


def of_sendmail(t):
	if sendmail.find() is None:
		t.note("no Sendmail: its mailq is not tried")
		return
	rig = sendmail.Sendmail(t.sub("sendmail"), users=USERS, aliases={}, rules=RULES,
				mc="define(`ESMTP_MAILER_ARGS', `TCP $h 1')dnl\n")
	with rig:
		rig.start()
		codes = [post(rig, "both", [ANNA, DORA]), post(rig, "anna", [ANNA])]
		t.equal(set(codes), {250}, "Sendmail accepts")
		settle(rig, 1)
		rigs.wait_for("anna's mail", lambda: len(texts(rig, ANNA)) == 2)
		lose(rig)
		r = rig.replay("--all")
		t.ok(r.rc == 0 and numbers(r, "restored", "queued") == [2, 1],
		     "mailq of Sendmail: dora's is left to it", r)
		t.equal(texts(rig, DORA), {}, "and not put back")


def main(t):
	of_postfix(t)
	of_sendmail(t)


tap.run(main)
