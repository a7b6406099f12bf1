#!/usr/bin/python3
"""Where a command writes: standard output, files, pipes, devices and links that the command
line names, reports, and directories of somebody else. No servers."""

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
from clisite import ALICE, MAILWAL, MAILWALD, Site, begin


def pipes(t, site):
	"""A reader that has seen enough: as of any other program, without a word."""
	for words in (["list"], ["--json", "list"], ["show", "-h"]):
		# the writer begins when nobody reads any more
		r, w = os.pipe()
		os.close(r)
		p = subprocess.run([MAILWAL, "-c", site.conf, *words], stdout=w, stderr=subprocess.PIPE,
				   check=False, timeout=tap.PATIENCE,
				   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
		os.close(w)
		t.ok(p.returncode == -signal.SIGPIPE and not p.stderr,
		     f"{' '.join(words)} into a closed pipe", f"{p.returncode} {p.stderr}")


def closed(t, site):
	"""Standard input and output that are closed: no file gets their numbers."""
	for words in (["list"], ["replay", "--all", "--to", f"eml:{site.dir}/closed"]):
		p = subprocess.run(["sh", "-c", 'exec "$0" "$@" <&- >&-', MAILWAL, "-c", site.conf, *words],
				   stderr=subprocess.PIPE, check=False, timeout=tap.PATIENCE)
		t.ok(p.returncode == 74 and b"standard output" in p.stderr,
		     f"{words[0]} with standard output closed: exit 74", f"{p.returncode} {p.stderr}")
	for words in (["-t"], ["-V"], ["-h"]):
		with open("/dev/full", "wb") as full:
			p = subprocess.run([MAILWALD, "-c", site.conf, *words], stdout=full,
					   stderr=subprocess.PIPE, check=False, timeout=tap.PATIENCE)
		t.ok(p.returncode == 74 and b"standard output" in p.stderr,
		     f"mailwald {words[0]} into a full device: exit 74", f"{p.returncode} {p.stderr}")
	hit = [f for f in pathlib.Path(site.dir, "journal").rglob("*")
	       if f.is_file() and b" copies: " in f.read_bytes()]
	t.equal(hit, [], "nothing that was to be printed is in a file of the journal")


def written(t, site):
	"""A file that the command line names and that is a device, a pipe or a link stays one."""
	fifo, full, link = (os.path.join(site.dir, n) for n in ("out pipe", "full device", "out link"))
	os.mkfifo(fifo)
	os.symlink("/dev/full", full)
	os.symlink(fifo, link)
	for words in (["replay", "--all", "--to", f"eml:{site.dir}/written", "--report"],
		      ["checkpoint", "--out"]):
		for name in (fifo, link):
			fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
			r = site(*words, name)
			with open(fd, "rb") as f:
				got = f.read()
			t.ok(r.rc == 0 and got and stat.S_ISFIFO(os.stat(fifo).st_mode)
			     and os.path.islink(link), f"{words[0]}: what a pipe gets", r)
		os.symlink(site.conf, f"{link} of another")
		os.chown(f"{link} of another", 65534, 65534, follow_symlinks=False)
		before = pathlib.Path(site.conf).read_bytes()
		r = site(*words, f"{link} of another")
		t.ok(r.rc == 0 and pathlib.Path(site.conf).read_bytes() == before
		     and not os.path.islink(f"{link} of another"), f"{words[0]}: a link somebody laid there", r)
		os.remove(f"{link} of another")
		r = site(*words, full)
		t.ok(r.rc == 73 and full in r.err and os.path.islink(full),
		     f"{words[0]}: a full device", r)
	for name in (fifo, full, site.dir):
		for words in (["export"], ["export", "-n"], ["replay", "plan"]):
			r = site("--json", *words, "--all", "--to", f"mbox:{name}")
			t.ok(r.rc == 73 and f"{name} is there and no file" in r.err
			     and not os.path.exists(f"{name}.lock"),
			     f"{words[0]} into an mbox that is none", r)


def others(t, site):
	"""In a directory of somebody else root writes to nothing that he laid there."""
	there, precious = os.path.join(site.dir, "of another"), os.path.join(site.dir, "precious")
	r = site("export", "--all", "--to", f"eml:{there}")
	names = [n for n in os.listdir(there) if n.endswith(".eml")]
	t.need(r.rc == 0 and names, "files of an export, to know their names", r)
	shutil.rmtree(there)
	os.mkdir(there, 0o755)
	pathlib.Path(precious).write_bytes(b"precious")
	for n in names:
		os.symlink(precious, os.path.join(there, n.replace(".eml", ".tmp")))
	os.symlink(precious, f"{there}/box")
	for n in [".", *os.listdir(there)]:
		os.chown(os.path.join(there, n), 65534, 65534, follow_symlinks=False)
	r = site("export", "--all", "--to", f"eml:{there}")
	t.ok(r.rc == 0 and pathlib.Path(precious).read_bytes() == b"precious"
	     and all(os.path.getsize(os.path.join(there, n)) for n in names),
	     "eml: links in the place of its temporary files", r)
	for words in (["export"], ["export", "-n"]):
		r = site(*words, "--all", "--to", f"mbox:{there}/box")
		t.ok(r.rc == 77 and "a link that somebody else laid" in r.err
		     and pathlib.Path(precious).read_bytes() == b"precious",
		     f"{' '.join(words)}: mbox: a link in its place", r)


def pipe_among(t, site):
	"""A pipe among the messages that are there is not waited for."""
	for to, name in (("eml", "a.eml"), ("maildir", "cur/1.x.y:2,")):
		there = os.path.join(site.dir, f"a pipe in {to}")
		r = site("export", "--all", "--to", f"{to}:{there}")
		os.mkfifo(f"{there}/{name}")
		again = site("export", "--all", "--to", f"{to}:{there}")
		t.ok(r.rc == 0 and again.rc == 0 and " 0 written" in again.out,
		     f"{to}: a pipe among the messages", again)
		if to == "eml":
			os.symlink("/nonexistent", f"{there}/b.eml")
		held = os.open(f"{there}/{name}", os.O_RDWR)  # by a writer
		again = site("export", "--all", "--to", f"{to}:{there}")
		os.close(held)
		t.ok(again.rc == 0 and " 0 written" in again.out,
		     f"{to}: one that has a writer, and beside it a link that leads nowhere", again)


def nowhere(t, site):
	"""A report that cannot be written is told before anything else is done."""
	into, there = os.path.join(site.dir, "nowhere"), os.path.join(site.dir, "a directory")
	os.mkdir(there)
	for words in (["export", "--all"], ["replay", "--all"], ["replay", "plan", "--all"],
		      ["recover", "--user", ALICE, "--all"]):
		for name in (f"{into} at all/report", f"{site.conf}/report", there, f"{there}/"):
			r = site(*words, "--to", f"eml:{into}", "--report", name)
			t.ok(r.rc == 73 and name in r.err and not os.path.exists(into),
			     f"{' '.join(words[:2])}: {name}", r)
		r = site(*words, "--to", f"eml:{into}", "--report", f"{there}/report")
		t.ok(r.rc == 0 and os.path.exists(f"{there}/report"), f"{' '.join(words[:2])}: a report", r)
		os.symlink("linked", f"{there}/link")
		r = site(*words, "--to", f"eml:{into}", "--report", f"{there}/link")
		t.ok(r.rc == 0 and os.path.islink(f"{there}/link") and os.path.getsize(f"{there}/linked"),
		     f"{' '.join(words[:2])}: a link to what is not there yet", r)
		for name in ("report", "link", "linked"):
			os.remove(f"{there}/{name}")
		shutil.rmtree(into, ignore_errors=True)


def made_by_the_run(t, site):
	"""But it may lie where the run itself makes a directory."""
	for words, to, name in ((["export"], "eml:made", "made/report"),
				(["export"], "eml:made/a/b", f"{site.dir}/made/a/report"),
				(["export"], "mbox:made/box", "./made//report"),
				(["recover", "--user", ALICE], "eml:made", "made/report"),
				(["replay"], f"eml:{site.dir}/made", f"made/{ALICE}/report"),
				(["replay", "--create"], "maildir:made/%n", "made/report")):
		r = site(*words, "--all", "--to", to, "--report", name)
		t.ok(r.rc == 0 and os.path.getsize(os.path.join(site.dir, name)) > 0, f"{to}: {name}", r)
		shutil.rmtree(os.path.join(site.dir, "made"))
	for words, to, name in ((["export"], "eml:made", "made2/report"),
				(["export"], "eml:made", "made/../made2/report"),
				(["export"], "mbox:made/box", "made/box/report"),
				(["export", "-n"], "eml:made", "made/report"),
				(["replay", "--create"], "maildir:made/%n", "other/report")):
		r = site(*words, "--all", "--to", to, "--report", name)
		t.ok(r.rc == 73 and name in r.err and not os.path.exists(f"{site.dir}/made"),
		     f"{' '.join(words)}: {to}: {name}", r)


def main(t):
	site = Site(t)
	begin(t, site)
	pipes(t, site)
	closed(t, site)
	written(t, site)
	if os.geteuid() == 0:
		others(t, site)
	pipe_among(t, site)
	nowhere(t, site)
	made_by_the_run(t, site)


tap.run(main)
