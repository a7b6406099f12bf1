#!/usr/bin/python3
"""Links around and in a Maildir. What lies among its messages and is no file is passed over with a
line, and the rest of the mailbox is dealt with. As root, a mailbox that is itself a link is good
where nobody but root can turn the link, and refused where its user can."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap

MAILWAL = os.path.join(os.environ.get("MW_BUILD", "build"), "replay/mailwal")
ALICE = "alice@example.org"
N = 5


class Site:
	def __init__(self, t):
		self.dir = t.dir
		self.conf = f"{t.dir}/mailwal.conf"
		pathlib.Path(self.conf).write_text(
			f"journal_dir = {t.dir}/journal\nlocal_domains = example.org\n", encoding="utf-8")
		source = f"{t.dir}/source/{ALICE}"
		for sub in ("cur", "new", "tmp"):
			os.makedirs(f"{source}/{sub}")
		for i in range(N):
			pathlib.Path(f"{source}/cur/m{i}:2,S").write_bytes(
				b"From: bob@example.net\nSubject: number %d\nMessage-ID: <%d@x>\n\nbody\n"
				% (i, i))
		r = self("init")
		t.need(r.returncode == 0, "a journal", r)
		r = self("import", f"maildir:{t.dir}/source/%u")
		t.need(r.returncode == 0, "with mail", r)

	def __call__(self, *words):
		return subprocess.run([MAILWAL, "-c", self.conf, *words], cwd=self.dir, text=True,
				      capture_output=True, timeout=tap.PATIENCE, check=False)

	def replay(self, pattern, *more):
		return self("replay", "--all", "--to", f"maildir:{pattern}", *more)


def count(box):
	return sum(p.is_file() and not p.is_symlink()
		   for sub in ("new", "cur") for p in pathlib.Path(box, sub).iterdir())


def among_messages(t, site):
	"""A link in a mailbox does not keep the rest of it from being put back, and is not read."""
	box = f"{site.dir}/boxes/{ALICE}"
	r = site.replay(f"{site.dir}/boxes/%u", "--create")
	t.need(r.returncode == 0 and count(box) == N, "a mailbox", r)
	whole = sorted(os.listdir(f"{box}/new"))
	away = f"{site.dir}/away"
	os.rename(f"{box}/new/{whole[0]}", away)  # one is missing, and a link leads to it
	os.symlink(away, f"{box}/cur/1.link.x:2,S")
	os.symlink("/nonexistent", f"{box}/new/2.no\nwhere.x")
	os.mkfifo(f"{box}/cur/3.pipe.x:2,")
	with socket.socket(socket.AF_UNIX) as s:
		here = os.getcwd()
		os.chdir(f"{box}/cur")  # a socket's path is short
		s.bind("4.socket.x:2,")
		os.chdir(here)
	os.mkdir(f"{box}/cur/5.dir.x:2,")
	r = site.replay(f"{site.dir}/boxes/%u")
	t.ok(r.returncode == 0 and count(box) == N,
	     "the one that only a link leads to is put back", r)
	said = [x for x in r.stderr.splitlines() if "no file" in x]
	t.ok(len(said) == 2 and any("/cur: " in x and "and 3 more" in x for x in said)
	     and any(x.endswith("2.no\\x0awhere.x") for x in said),
	     "links, a pipe, a socket and a directory are told, a line for each directory", r)
	r = site.replay(f"{site.dir}/boxes/%u", "--fresh")
	t.ok(r.returncode == 0 and count(box) == N, "and a second run adds nothing", r)


def roots_link(t, site, name, owner, place_mode, place_owner, good):
	"""A mailbox's name is a link by owner, in a directory of that mode and owner."""
	root = f"{site.roots}/{name}"
	os.makedirs(f"{root}/data")
	os.mkdir(f"{root}/names", 0o755)
	box = f"{root}/data/alice"
	r = site.replay(f"{root}/data/%n", "--create")
	t.need(r.returncode == 0, f"{name}: a mailbox", r)
	for d, _, files in os.walk(box):
		for p in (d, *(os.path.join(d, f) for f in files)):
			os.chown(p, 65534, 65534)
		for f in files:
			os.remove(os.path.join(d, f))
	os.symlink("../data/alice", f"{root}/names/alice")
	os.chown(f"{root}/names/alice", owner, owner, follow_symlinks=False)
	os.chown(f"{root}/names", place_owner, place_owner)
	os.chmod(f"{root}/names", place_mode)
	r = site.replay(f"{root}/names/%n", "--create")
	if not good:
		t.ok(r.returncode != 0 and "is a symbolic link" in r.stdout + r.stderr and count(box) == 0,
		     f"{name}: refused", r)
		return
	t.ok(r.returncode == 0 and count(box) == N
	     and {p.stat().st_uid for p in pathlib.Path(box, "new").iterdir()} == {65534},
	     f"{name}: the mail is there, and its user's", r)
	r = site.replay(f"{root}/names/%n", "--fresh")
	t.ok(r.returncode == 0 and count(box) == N, f"{name}: once", r)


def main(t):
	site = Site(t)
	among_messages(t, site)
	if os.geteuid() != 0:
		return
	with tempfile.TemporaryDirectory() as site.roots:  # in root's tree, whoever's the source is
		os.chmod(site.roots, 0o755)
		links(t, site)


def links(t, site):
	roots_link(t, site, "root's", 0, 0o755, 0, True)
	roots_link(t, site, "the user's, in root's directory", 65534, 0o755, 0, True)
	roots_link(t, site, "root's, among the users'", 0, 0o1777, 0, True)
	roots_link(t, site, "somebody else's", 65533, 0o755, 0, False)
	roots_link(t, site, "the user's, where he can lay one", 65534, 0o1777, 0, False)
	roots_link(t, site, "root's, in the user's directory", 0, 0o755, 65534, False)
	roots_link(t, site, "root's, where all can take it away", 0, 0o777, 0, False)
	chain(t, site)


def chain(t, site):
	"""root's link leads to one that the user laid in his own directory."""
	root = f"{site.roots}/chain"
	for d in ("home", "names", "bob/new", "bob/cur", "bob/tmp"):
		os.makedirs(f"{root}/{d}")
	os.chown(f"{root}/home", 65534, 65534)
	os.symlink("../home/box", f"{root}/names/alice")
	os.symlink("../bob", f"{root}/home/box")
	os.chown(f"{root}/home/box", 65534, 65534, follow_symlinks=False)
	r = site.replay(f"{root}/names/%n", "--create")
	t.ok(r.returncode != 0 and count(f"{root}/bob") == 0, "a link behind root's: refused", r)
	os.remove(f"{root}/home/box")
	shutil.rmtree(f"{root}/home")
	os.symlink("bob", f"{root}/home")
	os.chown(f"{root}/home", 65534, 65534, follow_symlinks=False)
	os.remove(f"{root}/names/alice")
	os.makedirs(f"{root}/bob/box/new")
	os.makedirs(f"{root}/bob/box/cur")
	os.symlink("../home/box", f"{root}/names/alice")
	r = site.replay(f"{root}/names/%n", "--create")
	t.ok(r.returncode != 0 and count(f"{root}/bob/box") == 0, "a link on the way: refused", r)


tap.run(main)
