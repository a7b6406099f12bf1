"""unitfile - a systemd unit's file, and what its SystemCallFilter takes away, by strace."""

import os
import pathlib
import re
import subprocess

import tap


def group(name, seen=None):
	"""System calls of a group, with those of the groups in it."""
	seen = seen if seen is not None else set()
	if name in seen:
		return set()
	seen.add(name)
	out = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True,
			     text=True, check=True, timeout=tap.PATIENCE).stdout
	calls = set()
	for word in (line.strip() for line in out.splitlines()[1:]):
		if word.startswith("@"):
			calls |= group(word, seen)
		elif re.fullmatch("[a-z0-9_]+", word):
			calls.add(word)
	return calls


def calls_of(word):
	return group(word) if word.startswith("@") else {word}


class Unit:
	"""A .service or .service.in file; denied: names of system calls."""

	def __init__(self, path):
		self.name = os.path.basename(path).split(".")[0]
		self.text = pathlib.Path(path).read_text(encoding="utf-8")
		self.denied = set()
		for words in self.all("SystemCallFilter"):
			for g in words.lstrip("~").split():
				if words.startswith("~"):
					self.denied |= calls_of(g)
				else:
					self.denied -= calls_of(g)
		self.denied -= group("@chown")  # only root, who runs this, gives files away

	def all(self, key):
		return re.findall(f"^{key}=(.*)$", self.text, re.M)

	def traced(self, argv, *options):
		"""argv, where the denied system calls fail with EPERM. With -D it is the process
		itself, not a child of strace."""
		calls = ",".join("?" + c for c in sorted(self.denied))
		return ["strace", *options, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e",
			f"inject={calls}:error=EPERM", "--", *argv]
