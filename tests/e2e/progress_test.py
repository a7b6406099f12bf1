#!/usr/bin/python3
"""What a replay says of itself while it runs: on a terminal one line with how many of how
many, the rate, what is left and the mailbox; elsewhere plain lines; with --quiet and --json
nothing of it; Ctrl-C ends it with 130 and the next run does the rest."""
# MW_TEST_COST 15

import os
import pty
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import milterclient
import rig as rigs
import tap

MAILS, RATE = 1200, 200  # six seconds
LINE = re.compile(rb"\r(\d+)/(\d+) copies, (\d+)/s, ([0-9.]+ \w+) put back, (\d+ s|\d+ ms|-) left, "
		  rb"([^\r\n\x1b]*)\x1b")


def on_terminal(argv, while_running=None):
	"""(exit status, pieces of its output) of a command whose terminal we are."""
	pid, fd = pty.fork()
	if pid == 0:
		os.execv(argv[0], list(map(str, argv)))
	seen = []
	while True:
		try:
			got = os.read(fd, 65536)
		except OSError:
			break  # its end was closed
		if not got:
			break
		seen.append(got)
		if while_running:
			while_running(fd, b"".join(seen))
	os.close(fd)
	return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def argv(a, *more):
	return [rigs.find_program("mailwal"), "-c", str(a.conf), "replay", "--all", "--create",
		"--rate", str(RATE), *more]


def shown(t, a, to):
	rc, seen = on_terminal(argv(a, "--to", f"maildir:{to}/%u"))
	text = b"".join(seen)
	rows = list(LINE.finditer(text))
	t.need(rc == 0 and len(rows) > 2, f"on a terminal: a line again and again ({len(rows)})",
	       (rc, seen[-3:]))
	done = [int(m.group(1)) for m in rows]
	t.ok(done == sorted(done) and {int(m.group(2)) for m in rows} == {MAILS},
	     "it counts up to all of them", done)
	t.ok({m.group(6).strip() for m in rows} == {b"anna@example.test"},
	     "it names the mailbox", rows[-1].groups())
	far = []
	for m in rows:
		if m.group(5) == b"-":
			continue  # none is done yet
		done, rate, (left, unit) = int(m.group(1)), int(m.group(3)), m.group(5).split()
		says = int(left) / (1000 if unit == b"ms" else 1)
		least = (MAILS - done) / (rate + .5)
		if says > (MAILS - done) / max(rate - .5, .1) + .1:
			far.append((done, rate, says))
		elif done < MAILS // 2 and says < least / 2 - 1:
			far.append((done, rate, says))
	t.ok(len(far) <= len(rows) // 10, "and what is left, by the rate that it shows", far)
	rates = [int(m.group(3)) for m in rows]
	t.ok(0 < rates[-1] <= RATE * 1.2, "and the rate", rates)
	t.ok(b"\r\x1b[K" in text and f"{MAILS} put back".encode()
	     in text[text.rindex(b"\x1b[K"):], "it is wiped before the summary", text[-400:])


def plain(t, a, to):
	for flags in ([], ["--quiet"], ["--json"]):
		p = subprocess.run(argv(a, "--to", f"maildir:{to}{len(flags)}/%u", "--rate",
					"100000", *flags),
				   capture_output=True, check=False, timeout=rigs.PATIENCE)
		t.ok(p.returncode == 0 and b"\r" not in p.stderr and b"\x1b" not in p.stderr
		     and b"\x1b" not in p.stdout, f"no terminal {flags}: nothing that moves", p)


def stopped(t, a, to):
	def stop(fd, text, sent=[]):  # pylint: disable=dangerous-default-value
		m = LINE.findall(text)
		if m and int(m[-1][0]) > 20 and not sent:
			sent.append(os.write(fd, b"\x03"))

	# A rate at which it would take a minute: it is at work whenever that comes.
	rc, seen = on_terminal(argv(a, "--to", f"maildir:{to}/%u", "--rate", "20"), stop)
	there = sum(len(f) for d, _, f in os.walk(to) if d.endswith(("/new", "/cur")))
	t.ok(rc == 130 and 0 < there < MAILS, "Ctrl-C: exit 130, some are there",
	     (rc, there, seen[-2:]))
	p = subprocess.run(argv(a, "--to", f"maildir:{to}/%u", "--rate", "100000"),
			   capture_output=True, check=False, timeout=rigs.PATIENCE)
	there = sum(len(f) for d, _, f in os.walk(to) if d.endswith(("/new", "/cur")))
	t.ok(p.returncode == 0 and there == MAILS, "and the next run puts the rest", (p, there))


def main(t):
	with alone.Alone(t.sub("journal"), "local_domains = example.test") as a:
		qids = milterclient.journal(a.sock, [(
			f"Q{n}", "anna@example.test",
			f"From: w@remote.test\r\nMessage-ID: <{n}@remote.test>\r\n\r\nText {n}\r\n"
			.encode()) for n in range(MAILS)])
		t.equal(len(qids), MAILS, "journaled")
		shown(t, a, t.sub("terminal"))
		plain(t, a, t.sub("plain"))
		stopped(t, a, t.sub("stopped"))


tap.run(main)
