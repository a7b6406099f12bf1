#!/usr/bin/python3
"""IMAP servers that are unlike those of the rig: MULTIAPPEND that keeps a part of what it refused
(Stalwart), commands that deal with the newest messages only (RFC 9738, Yahoo), LITERAL- without
LITERAL+, no UIDPLUS, no MOVE, a FETCH that passes messages over. Each copy is there once, or
the run says why not; nothing is sent that the server did not announce."""
# MW_TEST_COST 20

import collections
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import captured
import rig as rigs
import tap
from imapserver import Server

ANNA, BERT, CLEO = (f"{n}@example.test" for n in ("anna", "bert", "cleo"))
BAD = b"I am poison"
NONE = ()
PLUS = ("UIDPLUS",)
MULTI = ("UIDPLUS", "MULTIAPPEND", "LITERAL+")
ALL = ("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+")


def message(i, text="", size=0):
	return captured.message(i, text) + (b"x" * 70 + b"\r\n") * (size // 72)


def mails(n, poison=()):
	return [message(i, BAD.decode() if i in poison else f"text {i}",
			(0, 0, 5000, 1000, 9000)[i % 5]) for i in range(n)]


def poison(data):
	return BAD in data


def differs(s, want, user=ANNA):
	"""What INBOX lacks, what is too much there, and other folders; "" if all is right."""
	texts = s.texts(user)
	have = collections.Counter(texts.pop("INBOX"))
	want = collections.Counter(want)
	left = {n: len(v) for n, v in texts.items() if n != "Sent"}
	out = [f"lost {(want - have).total()}, surplus {(have - want).total()}",
	       f"folders {left}", f"announced otherwise: {s.wrong[:3]}"]
	return "" if have == want and not left and not s.wrong else "\n".join(out)


def check(t, site, s, want, what, failed=0):
	"""A run puts all there that the server takes, a second one nothing."""
	r = site.replay(s)
	bad = differs(s, want)
	t.ok(r.rc == (3 if failed else 0) and not bad and (r.summary or {}).get("failed") == failed,
	     f"{what}: {len(want)} copies, each once"
	     + (f", {failed} refused and named" if failed else ""), f"{bad}\n{r}")
	r = site.replay(s)
	bad = differs(s, want)
	t.ok((r.summary or {}).get("restored") == 0 and not bad, f"{what}: a second run puts back 0",
	     f"{bad}\n{r}")


def refused(t, site, data):
	"""One message in the middle is refused; the batch may be kept in part."""
	good = [d for d in data if BAD not in d]
	for caps in (MULTI, ("MULTIAPPEND", "LITERAL+"), ALL, ("MOVE", "MULTIAPPEND", "LITERAL-"),
		     ("MOVE", "UIDPLUS")):
		for keeps in (False, True):
			with Server(caps, poison=poison, keeps=keeps) as s:
				what = " ".join(caps) + (", keeps a part of what it refuses" if keeps else "")
				check(t, site, s, good, what, len(data) - len(good))


def in_flight(t, site, data):
	"""Two messages are refused while batches behind theirs are on their way, over two
	connections where a batch is large enough."""
	more = [message(1000 + i, BAD.decode() if i in (130, 240) else f"text {i}")
		for i in range(300)]
	site.capture(more, tag="R")
	data = data + more
	good = [d for d in data if BAD not in d]
	for limit in (20, 110):
		for keeps in (False, True):
			with Server(ALL, poison=poison, keeps=keeps, limit=limit) as s:
				check(t, site, s, good, f"batches of {limit} under way"
				      + (", keeps a part of what it refuses" if keeps else ""),
				      len(data) - len(good))
				n = len([c for c in s.commands if c.upper().startswith("AUTHENTICATE")])
				t.ok(n >= (3 if limit > 100 else 2), f"{limit} at a time: {n} logins", n)


def limits(t, site, data):
	"""A limit that is announced, one that is not, and one lower than announced."""
	for caps in (NONE, PLUS, ALL, ("MOVE",), ("MOVE", "MULTIAPPEND", "LITERAL+")):
		for limit, announce in ((7, None), (7, 0), (7, 20)):
			with Server(caps, limit=limit, announce=announce) as s:
				for d in data[::3]:  # what the backup had
					s.put(ANNA, "INBOX", d)
				check(t, site, s, data, f"{' '.join(caps) or 'plain'}, {limit} messages a "
				      f"command, announced {limit if announce is None else announce}")


def by_content(t, site, data):
	"""The same, where only bodies tell."""
	with Server(ALL, limit=7) as s:
		for d in data:
			s.put(ANNA, "INBOX", b"X-Filter: seen\r\n" + d)
		r = site.replay(s)
		t.ok(r.rc == 0 and r.summary["restored"] == 0 and r.summary["already_there"] == len(data),
		     "known by their content, 7 at a time", r)
		r = site.replay(s, command=("replay", "verify", "--all"))
		t.ok(r.rc == 0 and r.summary["compared"] == len(data), "and compared by verify", r)


def undo(t, site, data):
	for what, quirks in (("", {}), (", not announced", {"announce": 0})):
		with Server(ALL, limit=7, **quirks) as s:
			r = site.replay(s)
			r = site.replay(s, command=("replay", "undo", r.summary["run"]))
			t.ok(r.rc == 0 and r.summary["undone"] == len(data) and not differs(s, []),
			     f"undo, 7 at a time{what}", f"{differs(s, [])}\n{r}")


def expunged(t, site, data):
	"""Mail that its user removes between two parts of a look is no mail passed over."""
	for what, gone in (("of the older", lambda v: v[2:4]), ("all the older", lambda v: v[:-7]),
			   ("of the newer", lambda v: v[-3:-1])):
		looks = []

		def meanwhile(command):
			v = s.folders(ANNA)["INBOX"].v
			if command == 'EXAMINE "INBOX"':
				looks.append(len(v))
				if len(looks) % 2 == 0:
					for m in gone(v):
						v.remove(m)

		with Server(ALL, limit=7, announce=0, meanwhile=meanwhile) as s:
			for i in range(30):
				s.put(ANNA, "INBOX", message(f"{i} of old"))
			r = site.replay(s)
			logins = len(s.said("AUTHENTICATE"))
			t.ok(len(looks) > 1 and r.rc == 0 and r.summary["restored"] == len(data)
			     and len(s.texts(ANNA)["INBOX"]) == len(data) + looks[-1]
			     - (len(looks) % 2 == 0) * len(gone([0] * looks[-1])),
			     f"{what} mail is expunged between two looks, each time",
			     f"{looks} {logins}\n{s.commands}{r}")


def nowhere(t, site, data):
	"""A server that stops somewhere and does not say where: nothing twice, nothing left."""
	with Server(ALL, limit=7, announce=0, where=False) as s:
		for d in data:
			s.put(ANNA, "INBOX", d)
		r = site.replay(s)
		t.ok(r.rc not in (0, 130) and "does not say where" in r.out + r.err
		     and not differs(s, data), "a limit that does not say where: said, and nothing "
		     "is put back", f"{differs(s, data)}\n{r}")
		r = site.replay(s, command=("replay", "verify", "--all"))
		t.ok(r.rc != 0 and "does not say where" in r.out + r.err, "verify says it too", r)
	with Server(ALL, limit=7, announce=0, where=False) as s:
		r = site.replay(s)  # an empty mailbox needs no such look
		t.ok(r.rc == 0 and not differs(s, data), "into an empty mailbox all goes",
		     f"{differs(s, data)}\n{r}")
		r = site.replay(s, command=("replay", "undo", r.summary["run"]))
		t.ok(r.rc not in (0, 130) and "does not say where" in r.out + r.err
		     and not differs(s, data), "undo says why it takes nothing away", r)


def left_behind(t, site, data):
	"""A killed run's staging folder, on servers that deal with a part of a command."""
	for where in (True, False):
		with Server(ALL, limit=7, announce=0, where=where) as s:
			stop, run = [], None

			def die(command):
				if "MOVE" in command:
					stop.append(command)
					s.meanwhile = None
					rigs.wait_for("its process", lambda: run)
					run.kill()
					run.wait()

			s.meanwhile = die
			run = subprocess.Popen(site.rig.mailwal_argv(*site.args(
				s, "--queue", "none")),
				stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
			run.wait(timeout=tap.PATIENCE)
			t.need(stop, "killed in its MOVE")
			rigs.wait_for("the killed run's last command", lambda: not s.running())
			staging = s.folders(ANNA)["mailwal-staging"]
			for i in range(30):  # more of it than one command deals with
				staging.add(message(f"{i} left"))
			r = site.replay(s)
			bad = differs(s, data)
			t.ok(r.rc == 0 and not bad, "what a killed run left in its staging "
			     f"folder, 7 at a time{'' if where else ' and not said where'}", f"{bad}\n{r}")


def below_inbox(t, site, data):
	"""A folder of a server whose folders lie below INBOX, however it is called."""
	for name in ("Back/2026", "INBOX/Back/2026", "inbox.Back.2026"):
		with Server(ALL, prefix="INBOX.") as s:
			runs = [site.replay(s, "--folder", name) for _ in range(2)]
			texts = {n: len(v) for n, v in s.texts(ANNA).items() if v}
			t.ok([r.rc for r in runs] == [0, 0] and texts == {"INBOX.Back.2026": len(data)}
			     and runs[1].summary["restored"] == 0, f"--folder {name}, all below INBOX.",
			     f"{texts}\n{runs}")


def raised(t, site, data):
	"""UIDs used up by placeholders, none of which stays."""
	with Server(ALL, limit=7) as s:
		s.made -= 10_000_000  # older than the mail
		for d in data[:10]:
			s.put(ANNA, "INBOX", d)
		at = s.folders(ANNA)["INBOX"].uidnext
		r = site.replay(s, "--uid-gap", "100")
		bad = differs(s, data)
		first = s.folders(ANNA)["INBOX"].v[10].uid
		t.ok(r.rc == 0 and not bad and first >= at + 100, "UIDNEXT is raised, 7 at a time",
		     f"{bad} {at} {first}\n{r}")


def raising_killed(t, site):
	"""The run after one that was killed while it used up UIDs: what that left is taken away
	before anything else looks, also at mail that was imported."""
	md = os.path.join(t.dir, "maildir")
	for d in ("cur", "new", "tmp"):
		os.makedirs(f"{md}/{d}")
	for i in range(20):
		pathlib.Path(md, "cur", f"{1700000000 + i}.{i}.host:2,S").write_bytes(message(f"{i} md"))
	r = site.rig.mailwal("import", f"maildir:{md}", "--user", CLEO)
	t.need(r.rc == 0, "an import", r)
	for at in (1, 4):
		with Server(ALL) as s:
			s.made -= 10_000_000
			for i in range(10):
				s.put(CLEO, "INBOX", message(f"{i} of old"))
			copies, run = [], None

			def die(command):
				if command.startswith("UID COPY"):
					copies.append(command)
					if len(copies) == at:
						rigs.wait_for("its process", lambda: run)
						run.kill()
						run.wait()

			s.meanwhile = die
			to_cleo = ("replay", "--user", CLEO)
			run = subprocess.Popen(site.rig.mailwal_argv(*site.args(
				s, "--queue", "none", "--state", f"{site.rig.dir}/state {at}", "--uid-gap", "1000",
				command=to_cleo)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
			run.wait(timeout=tap.PATIENCE)
			t.need(len(copies) >= at, "killed while it used up UIDs")
			rigs.wait_for("the killed run's last command", lambda: not s.running())
			s.meanwhile = None
			before = len(s.commands)
			r = site.replay(s, "--state", f"{site.rig.dir}/state {at}", command=to_cleo)
			new = s.commands[before:]
			cleared = new[:new.index('DELETE "mailwal-staging"')]
			texts = s.texts(CLEO)
			t.ok(r.rc == 0 and "warning" not in r.err and set(texts) <= {"INBOX", "Sent"}
			     and len(texts["INBOX"]) == 30
			     and not any(b"uid-placeholder" in d for d in texts["INBOX"])
			     and sum(c.startswith("AUTHENTICATE") for c in cleared) == 1,
			     f"killed at COPY {at} of placeholders: the next run takes them away",
			     f"{[(n, len(v)) for n, v in texts.items()]} {cleared}\n{r}")


def hidden(t, site, data):
	"""What the server does not tell of is not put there a second time."""
	with Server(ALL, hides=lambda d: b"mail 5\r" in d) as s:
		for d in data:
			s.put(ANNA, "INBOX", d)
		r = site.replay(s)
		t.ok(r.rc not in (0, 130) and "tells of" in r.out + r.err and not differs(s, data),
		     "a FETCH that passes one over: said, and nothing is put back", r)


def imported(t, rig, data):
	"""A mailbox of that kind as the source."""
	for what, quirks, n in (("7 at a time", {"limit": 7}, len(data)),
				("7 at a time, not announced", {"limit": 7, "announce": 0}, len(data))):
		with Server(ALL, **quirks) as s:
			user = f"{what.split()[-1]}@example.test"
			for i, d in enumerate(data):
				s.put(user, "INBOX", d + f"for {what} {i}\r\n".encode())
			r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{s.port}", "--auth-user",
					rigs.MASTER, "--password-file", rig.password_file, "--user", user)
			t.ok(r.rc == 0 and r.summary["imported"] == n, f"import, {what}: {n}", r)
	with Server(ALL) as s:
		def arrive(command):
			if command.startswith("UID FETCH"):
				s.put("new@example.test", "INBOX", message(f"{len(s.commands)} new"))

		s.meanwhile = arrive
		for d in data:
			s.put("new@example.test", "INBOX", d + b"new\r\n")
		r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{s.port}", "--auth-user",
				rigs.MASTER, "--password-file", rig.password_file, "--user",
				"new@example.test")
		have = len(s.texts("new@example.test")["INBOX"])
		t.ok(r.rc == 0 and len(data) <= r.summary["imported"] < have,
		     f"import: {have - len(data)} arrive while it looks", r)
	with Server(ALL, hides=lambda d: b"mail 5\r" in d) as s:
		for d in data:
			s.put("hid@example.test", "INBOX", d + b"hid\r\n")
		r = rig.mailwal("--json", "import", f"imap://127.0.0.1:{s.port}", "--auth-user",
				rigs.MASTER, "--password-file", rig.password_file, "--user",
				"hid@example.test")
		t.ok(r.rc == 3 and r.summary["imported"] == len(data) - 1 and "tells of" in r.out + r.err,
		     "import: what the server passes over is said", r)


def sizes(t, site, data):
	"""Limits of size: announced, and found out."""
	most = sorted(map(len, data))[-3] - 1
	good = [d for d in data if len(d) <= most]
	for caps in ((*ALL, f"APPENDLIMIT={most}"), ALL, ("LITERAL-",)):
		with Server(caps, largest=most) as s:
			check(t, site, s, good, f"{' '.join(caps)}, messages up to {most} bytes",
			      len(data) - len(good))


def wait_for(t, site, s, new):
	"""After these, until all of bert's that is taken is there: what that is."""
	site.capture(new, BERT)
	r = site.rig.mailwal("export", "--user", BERT, "--to", f"eml:{site.rig.dir}/bert")
	t.need(r.rc == 0, "export", r)
	want = [p.read_bytes() for p in pathlib.Path(site.rig.dir, "bert").rglob("*.eml")]
	want = [d for d in want if BAD not in d]
	rigs.wait_for("the mail", lambda: not collections.Counter(want)
		      - collections.Counter(s.texts(BERT)["INBOX"]))
	return want


def follow(t, site, rig):
	"""New mail straight into INBOX, many at once, one of them refused."""
	for keeps, busy in ((False, False), (True, False), (True, True)):
		others = []

		def arrive(command):
			if command == "EXAMINE INBOX":  # after what was refused
				for _ in range(60):  # more than there were in the command
					others.append(message(f"{len(others)} of others"))
					s.put(BERT, "INBOX", others[-1])

		with Server(ALL, poison=poison, keeps=keeps, meanwhile=arrive if busy else None) as s:
			what = (f"follow{', keeps a part of what it refuses' if keeps else ''}"
				f"{', and other mail comes' if busy else ''}")
			argv = rig.mailwal_argv(*site.args(
				s, "--user", BERT, "--state", f"{rig.dir}/follow {keeps} {busy}",
				command=("follow",)))
			p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
			try:
				want = wait_for(t, site, s, [message(f"{keeps} {busy} first")])
				for k in range(3):  # what came while it stood still goes together
					p.send_signal(signal.SIGSTOP)
					new = [message(f"{keeps} {busy} {k} {i}", BAD.decode() if i == 17 else "good")
					       for i in range(40)]
					site.capture(new, BERT)
					p.send_signal(signal.SIGCONT)
					want = wait_for(t, site, s, [])
			finally:
				p.send_signal(signal.SIGINT)
				out = p.communicate(timeout=tap.PATIENCE)[0].decode()
			rigs.wait_for("its last command", lambda: not s.running())
			bad = differs(s, want + others, BERT)
			t.ok(p.returncode in (0, 130) and not bad and bool(others) == busy, f"{what}: {len(want)} messages, each "
			     "once", f"{p.returncode} {bad} {len(others)}\n{out[-1500:]}")


def main(t):
	with captured.Site(t, users=(ANNA, BERT)) as site:
		rig = site.rig
		data = mails(60, (20, 41))
		good = [d for d in data if BAD not in d]
		site.capture(good)
		limits(t, site, good)
		by_content(t, site, good)
		undo(t, site, good)
		expunged(t, site, good)
		nowhere(t, site, good)
		left_behind(t, site, good)
		raised(t, site, good)
		below_inbox(t, site, good)
		raising_killed(t, site)
		hidden(t, site, good)
		sizes(t, site, good)
		site.capture([d for d in data if BAD in d])
		refused(t, site, data)
		in_flight(t, site, data)
		imported(t, rig, good)
		follow(t, site, rig)


tap.run(main)
