#!/usr/bin/python3
"""A named pipe in the place of any file that mailwal reads: nothing waits for it. No servers."""

import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap

BUILD = os.environ.get("MW_BUILD", "build")
MAILWAL, MAILWALD = os.path.join(BUILD, "replay/mailwal"), os.path.join(BUILD, "milter/mailwald")


class Site:
	def __init__(self, t):
		self.dir = t.dir
		self.conf = os.path.join(t.dir, "conf")
		self.write("")
		mail = t.sub("mail")
		pathlib.Path(mail, "1.eml").write_bytes(b"Subject: one\r\nMessage-ID: <1@x>\r\n\r\nx\r\n")

	def write(self, more):
		pathlib.Path(self.conf).write_text(f"journal_dir = \"{self.dir}/journal\"\n"
						   f"local_domains = example.org\n{more}", encoding="utf-8")

	def __call__(self, *words, program=MAILWAL):
		"""None: it waits."""
		try:
			p = subprocess.run([program, "-c", self.conf, *words], cwd=self.dir,
					   stdin=subprocess.DEVNULL, capture_output=True,
					   timeout=tap.PATIENCE / 2, check=False)
		except subprocess.TimeoutExpired:
			return None
		p.told = f"exit {p.returncode}\n{p.stdout[-600:]}\n{p.stderr[-600:]}"
		return p


def drills(t, site):
	p = site("drill", "run", "--all", "--create", "--to", f"maildir:{site.dir}/drill/%u")
	t.need(p and p.returncode == 0, "a drill", p and p.told)
	kept = next(pathlib.Path(site.dir, "journal").rglob("*.note")).parent
	for name in ("20200101T000000Z.note", "zz.note"):
		os.mkfifo(kept / name)
	for words in (("drill", "list"), ("drill", "report"), ("drill", "verify"), ("status",)):
		p = site(*words)
		t.ok(p, f"{' '.join(words)} with pipes among the reports ends", p and p.told)
	p = site("drill", "list")
	t.ok(p and b"zz.note" in p.stderr, "and tells them", p and p.told)
	for name in ("20200101T000000Z.note", "zz.note"):
		os.unlink(kept / name)


def each_file(t, site, top, *commands):
	"""Swaps each file below top, one by one, for a pipe."""
	files = sorted(p for p in pathlib.Path(top).rglob("*") if p.is_file())
	t.ok(files, f"there are files in {os.path.basename(top)}")
	for path in files:
		aside = path.with_name(path.name + ".aside")
		for words in commands:
			if not path.exists():
				break
			os.rename(path, aside)
			os.mkfifo(path)
			p = site(*words)
			t.ok(p and p.returncode >= 0,
			     f"{' '.join(words)[:30]} with a pipe for {path.relative_to(site.dir)}",
			     p and p.told)
			path.unlink(missing_ok=True)
			os.rename(aside, path)


def configuration(t, site):
	os.mkfifo(f"{site.dir}/pipe.conf")
	site.write(f"!include {site.dir}/pipe.conf\n")
	for words, program in ((("config", "check"), MAILWAL), (("-t",), MAILWALD)):
		p = site(*words, program=program)
		t.ok(p and p.returncode == 78 and b"is a pipe" in p.stdout + p.stderr,
		     f"!include of a pipe is an error: {' '.join(words)}", p and p.told)
	site.write("")
	with open(site.conf, "ab") as f:
		f.write(b"\xff\xfe\x1b[31m\x80\xc2\x9b = 3\n")
	for words, program in ((("config", "check"), MAILWAL), (("-t",), MAILWALD)):
		p = site(*words, program=program)
		out = p.stdout + p.stderr if p else b""
		try:
			plain = all(c.isprintable() or c == "\n" for c in out.decode())
		except UnicodeDecodeError:
			plain = False
		t.ok(p and p.returncode == 78 and plain, f"garbage in it is not shown raw: {words}",
		     p and p.told)
	site.write("")


def main(t):
	site = Site(t)
	for words in (("init", f"{t.dir}/journal"),
		      ("import", f"eml:{t.dir}/mail", "--user", "anna@example.org"), ("mark", "night"),
		      ("mark", "night", "--complete"), ("hold", "add", "h", "--all"), ("reindex",)):
		p = site(*words)
		t.need(p and p.returncode == 0, " ".join(words), p and p.told)
	drills(t, site)
	each_file(t, site, f"{t.dir}/journal", ("status",), ("list",))
	state = f"{t.dir}/state"
	replay = ("replay", "--all", "--create", "--state", state, "--to", f"maildir:{t.dir}/box/%u")
	p = site(*replay)
	t.need(p and p.returncode == 0, "a replay", p and p.told)
	shutil.rmtree(f"{t.dir}/box")
	each_file(t, site, state, replay)
	os.mkfifo(f"{t.dir}/mbox.lock")
	p = subprocess.run(["timeout", "-s", "INT", "2", MAILWAL, "-c", site.conf, "export", "--all", "--to",
			    f"mbox:{t.dir}/mbox"], stdin=subprocess.DEVNULL, capture_output=True,
			   timeout=tap.PATIENCE, check=False)
	t.ok(p.returncode == 124, "an mbox whose lock is a pipe: Ctrl-C is heard", p.stderr)
	configuration(t, site)


tap.run(main)
