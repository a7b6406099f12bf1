#!/usr/bin/python3
"""Replays into files that others use too: locked ones, a Maildir whose user removes messages,
mboxes that other programs wrote. No servers."""

import fcntl
import json
import os
import pathlib
import pty
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
from clisite import ALICE, MAILWAL, Site, begin, maildir


def has_open(pid, path):
	try:
		links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
	except OSError:
		return False
	return path in links


def kept_out(t, site):
	"""Whatever its ledger is, a replay works in files alone."""
	for kind in ("maildir", "eml"):
		where = os.path.join(site.dir, f"kept {kind}")
		box = os.path.join(where, ALICE)
		for sub in ("cur", "new", "tmp"):
			os.makedirs(os.path.join(box, sub))
		fd = os.open(box, os.O_RDONLY)
		fcntl.flock(fd, fcntl.LOCK_EX)
		target = f"maildir:{where}/%u" if kind == "maildir" else f"eml:{where}"
		with subprocess.Popen([MAILWAL, "-c", site.conf, "--json", "replay", "--user", ALICE, "--to",
				       target], cwd=site.dir, stdout=subprocess.PIPE) as p:
			end = time.monotonic() + tap.PATIENCE
			while not (waits := has_open(p.pid, box)) and p.poll() is None:
				if time.monotonic() > end:
					break
				time.sleep(0.01)
			end = time.monotonic() + 1  # to look is no harm, so it may have it open
			while p.poll() is None and time.monotonic() < end:
				time.sleep(0.05)
			waits = waits and p.poll() is None
			files = [f for _, _, names in os.walk(box) for f in names]
			os.close(fd)
			out = p.communicate(timeout=tap.PATIENCE)[0]
		got = json.loads(out.splitlines()[-1])
		t.ok(waits and not files, f"{kind}: it waits for another one", files)
		t.ok(p.returncode == 0 and got["restored"] > 0 and got["restored"] == got["selected"],
		     f"{kind}: and goes on after it", got)


def on_terminal(site, answer, *words):
	"""The same with a terminal as standard input and error; stdout is not one."""
	pid, fd = pty.fork()
	if pid == 0:
		os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
		os.execv(MAILWAL, [MAILWAL, "-c", site.conf, *words])
	said = b""
	asked = False
	while True:
		try:
			more = os.read(fd, 4096)
		except OSError:
			break
		if not more:
			break
		said += more
		if (b"[y/N]" in said or b"to go on:" in said) and not asked:
			asked = True
			os.write(fd, answer)
	os.close(fd)
	return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(), asked


def live_store(t, site):
	"""A replay into a store that is in use, where a user has removed two messages."""
	frida = "frida@example.org"
	source = os.path.join(site.dir, "vmail", frida)
	maildir(source, 12, first=100)
	for i in range(100, 112):
		os.utime(os.path.join(source, "cur", f"m{i}:2,S"), (1750000000 + i * 60,) * 2)
	r = site("import", f"maildir:{site.dir}/vmail/%u")
	store = os.path.join(site.dir, "store")
	args = ["replay", "--user", frida, "--create", "--to", f"maildir:{store}/%u"]

	def names():
		return sorted(os.path.join(d, f) for d, _, files in os.walk(store) for f in files
			      if os.path.basename(d) in ("cur", "new"))

	r = site(*args)
	t.need(r.rc == 0 and len(names()) == 12 and "in use" not in r.err,
	       "an empty store is filled without a question", r)

	def remove():
		gone = [n for n in names() if b"number 101\r\n" in pathlib.Path(n).read_bytes()
			or b"number 101\n" in pathlib.Path(n).read_bytes()]
		os.remove(gone[0])

	remove()
	for what, answer, wanted in (("no is no", b"n\n", 1), ("nothing is no", b"\n", 1),
				     ("the end of input is no", b"\x04", 1), ("Ctrl-C", b"\x03", 130)):
		rc, said, asked = on_terminal(site, answer, *args)
		t.ok(rc == wanted and asked and "in use" in said and len(names()) == 11,
		     f"a store in use: {what}, exit {wanted}", f"{rc} {said}")
		t.ok(wanted == 130 or "not confirmed" in said, "and it is said", said)
	rc, said, asked = on_terminal(site, b"y\n", *args)
	t.ok(rc == 0 and asked and len(names()) == 12, "a store in use: yes", f"{rc} {said}")
	remove()
	rc, said, asked = on_terminal(site, b"n\n", *args, "--yes")
	t.ok(rc == 0 and not asked and len(names()) == 12, "--yes does not ask", f"{rc} {said}")
	remove()
	r = site("--json", *args, "-n")
	t.ok(r.rc == 0 and "in use" in r.err and r.json()[-1]["look_in_use"] == 1
	     and len(names()) == 11, "a dry run warns", r)
	r = site("--json", *args)
	t.ok(r.rc == 0 and "in use" in r.err and "replay undo" in r.err
	     and r.json()[-1]["look_in_use"] == 1 and len(names()) == 12,
	     "without a terminal it is a warning, counted in the summary", r)
	for n in names()[6:]:
		os.remove(n)
	rc, said, asked = on_terminal(site, b"n\n", *args)
	t.ok(rc == 0 and not asked and len(names()) == 12,
	     "a restored store is filled without a question", f"{rc} {said}")


def several(t, site):
	"""The question comes from one of several workers: Ctrl-C and no end all of them."""
	users = [f"g{i}@example.org" for i in range(6)]
	for k, user in enumerate(users):
		source = os.path.join(site.dir, "vmany", user)
		maildir(source, 12, first=1000 + 20 * k)
		for i in range(12):
			os.utime(f"{source}/cur/m{1000 + 20 * k + i}:2,S", (1750000000 + i * 60,) * 2)
	r = site("import", f"maildir:{site.dir}/vmany/%u")
	args = ["replay", *(w for u in users for w in ("--user", u)), "--create", "--to",
		f"maildir:{site.dir}/smany/%u"]
	r = site(*args)
	t.need(r.rc == 0, "six mailboxes are filled", r)

	def names():
		return sorted(os.path.join(d, f) for d, _, files in os.walk(f"{site.dir}/smany")
			      for f in files if os.path.basename(d) in ("cur", "new"))

	for n in names():
		if any(b"number %d\n" % (1001 + 20 * k) in pathlib.Path(n).read_bytes().replace(b"\r", b"")
		       for k in range(6)):
			os.remove(n)
	t.need(len(names()) == 66, "one of each is removed")
	for answer, wanted in ((b"n\n", 1), (b"\x03", 130)):
		rc, said, asked = on_terminal(site, answer, *args)
		t.ok(rc == wanted and asked and said.count("[y/N]") == 1 and len(names()) == 66,
		     f"six stores in use, one question: exit {wanted}", f"{rc} {said}")


def erasing(t, site):
	user = "g0@example.org"
	for answer, wanted, why in ((b"no\n", 1, "not confirmed"), (b"\x04", 1, "not confirmed"),
				    (b"\x03", 130, "interrupted")):
		rc, said, asked = on_terminal(site, answer, "erase", "--user", user)
		r = site("list", "--user", user, "--no-header")
		t.ok(rc == wanted and asked and why in said and len(r.out.splitlines()) == 12,
		     f"an erasure, {why}: exit {wanted}", f"{rc} {said}\n{r}")


def odd_mboxes(t, site):
	"""An mbox that others wrote is read as they meant it, or its mail is put there once more."""
	user = "iris@example.org"
	source, there = os.path.join(site.dir, "old", user), os.path.join(site.dir, "mboxes")
	maildir(source, 4, first=300)
	os.utime(f"{source}/cur/m300:2,S", (-1, -1))
	messages = [pathlib.Path(f"{source}/cur/m{i}:2,S").read_bytes() for i in range(300, 304)]
	r = site("import", f"maildir:{site.dir}/old/%u")
	t.need(r.rc == 0, "mail, one of it from before 1970", r)
	os.mkdir(there)
	args = ["replay", "--user", user, "--fresh", "--to", f"mbox:{there}/%n"]
	lines = [b"Wed Dec 31 23:59:59 1969", b"Tue Mar  5 13:00:00 2019 +0100",
		 b"Tue Mar  5 13:00:00 CET 2019", b"Tue Mar 5 12:00 2019"]
	text = b"".join(b"From bob@example.net %s\n%s\n" % x for x in zip(lines, messages))
	for what, put in (("of our own", None), ("of other programs", text),
			  ("with CRLF", text.replace(b"\n", b"\r\n"))):
		if put:
			pathlib.Path(f"{there}/iris").write_bytes(put)
		r = site("--json", *args, "--create")
		t.ok(r.rc == 0 and r.json()[-1]["restored"] == (0 if put else 4), f"an mbox {what}", r)
		r = site("--json", *args)
		t.ok(r.rc == 0 and r.json()[-1]["already_there"] == 4, "has it all", r)


def main(t):
	site = Site(t)
	begin(t, site)
	kept_out(t, site)
	live_store(t, site)
	several(t, site)
	erasing(t, site)
	odd_mboxes(t, site)


tap.run(main)
