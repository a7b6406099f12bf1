#!/usr/bin/python3
"""What the systemd units start works under the system calls that they leave it: those that a
unit's SystemCallFilter takes away fail here too, by strace. What the whole sandbox does can only
be seen where systemd is; a unit that died of its own filter was."""

import glob
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
import unitfile

BUILD, SOURCE = os.environ["MW_BUILD"], os.environ["MW_SOURCE"]
PROGRAM = {"mailwal": os.path.join(BUILD, "replay/mailwal"),
	   "mailwald": os.path.join(BUILD, "milter/mailwald")}
LOG = """Nov 20 10:00:00 mx postfix/smtpd[1]: connect from x[192.0.2.1]
Nov 20 10:00:00 mx postfix/smtpd[1]: disconnect from x[192.0.2.1] ehlo=1 quit=1 commands=2
"""


def argv_of(u, log):
	words = shlex.split(u.all("ExecStart")[0].replace("${MAILWAL_LOG}", shlex.quote(log)))
	return [PROGRAM[os.path.basename(words[0])], *words[1:]]


def until(what, seconds=tap.PATIENCE):
	end = time.monotonic() + seconds
	while time.monotonic() < end:
		if what():
			return True
		time.sleep(0.05)
	return False


def child(pid):
	"""What strace runs."""
	text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
	return int(text[0]) if text else 0


def stay(t, u, argv, env, ready):
	"""One that stays until it is told to go."""
	p = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
	until(lambda: ready() or p.poll() is not None)
	up, pid = p.poll() is None and ready(), child(p.pid) if p.poll() is None else 0
	if pid:
		os.kill(pid, signal.SIGTERM)
	try:
		said = p.communicate(timeout=tap.PATIENCE)[0].decode()
	except subprocess.TimeoutExpired:
		for q in (pid, p.pid):
			if q:
				os.kill(q, signal.SIGKILL)
		said = p.communicate()[0].decode()
	well = [0, *(int(n) for line in u.all("SuccessExitStatus") for n in line.split())]
	t.ok(up and p.returncode in well, f"{u.name}: starts, and ends when it is told to",
	     f"{p.returncode}\n{said}")


def main(t):
	if not shutil.which("strace") or not shutil.which("systemd-analyze"):
		t.skip("strace or systemd-analyze is not installed")
		return
	probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True,
			       check=False)
	if probe.returncode:
		t.skip("strace may not trace here")
		return
	conf, journal = f"{t.dir}/mailwal.conf", f"{t.dir}/journal"
	log = f"{t.dir}/mail.log"
	pathlib.Path(conf).write_text(
		f"journal_dir = \"{journal}\"\nmilter_listen = \"unix:{t.dir}/m\"\n"
		"local_domains = example.org\nlog_target = stderr\nretain default { keep = 30d }\n",
		encoding="utf-8")
	pathlib.Path(log).write_text(LOG, encoding="utf-8")
	for d in ("cur", "new", "tmp"):
		os.makedirs(f"{t.dir}/Maildir/{d}")
	pathlib.Path(t.dir, "Maildir/cur/1:2,S").write_bytes(b"Subject: x\nMessage-ID: <1@x>\n\nx\n")
	env = dict(os.environ, MAILWAL_CONFIG=conf)
	for words in (["init"], ["import", f"maildir:{t.dir}/Maildir", "--user", "a@example.org"]):
		r = subprocess.run([PROGRAM["mailwal"], *words], env=env, capture_output=True, check=False)
		t.need(r.returncode == 0, words[0], r)
	units = [unitfile.Unit(p) for p in sorted(glob.glob(f"{SOURCE}/conf/*.service.in"))]
	t.need(len(units) >= 6 and all("setresuid" in u.denied and "write" not in u.denied
				       for u in units), "units, and what they deny")
	state = pathlib.Path(journal, "ledger/outcomes.state")
	ready = {"mailwald": lambda: b'"ready":true' in subprocess.run(
			[PROGRAM["mailwal"], "status", "--json"], env=env, capture_output=True,
			check=False).stdout,
		 "mailwal-outcomes": lambda: state.exists() and "mail.log" in state.read_text(
			encoding="utf-8")}
	for u in units:
		argv = u.traced(argv_of(u, log))
		if u.name in ready:
			stay(t, u, argv, env, ready[u.name])
			continue
		r = subprocess.run(argv, env=env, capture_output=True, check=False, timeout=tap.PATIENCE)
		t.ok(r.returncode == 0, f"{u.name}: does its work under its filter of system calls",
		     f"{r.returncode}\n{r.stdout.decode()}\n{r.stderr.decode()}")
	d = next(u for u in units if u.name == "mailwald")
	t.ok(d.all("WatchdogSec") and d.all("Type") == ["notify"],
	     "mailwald is watched by systemd")
	t.ok(d.all("RestartPreventExitStatus") == ["78"] and not d.all("ExecStartPre"),
	     "a wrong configuration is not tried again and again: that looks at ExecStart alone")


tap.run(main)
