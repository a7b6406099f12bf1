#!/usr/bin/python3
"""contrib/quickstart as a new user runs it: twice in a row, in a path with spaces, beside
other Postfix and Dovecot instances, without root, interrupted. It leaves nothing running."""
# MW_TEST_COST 40

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap

SCRIPT = str(rigs.ROOT / "contrib" / "lib" / "quickstart.py")
ROWS = ("messages sent", "acknowledged by Postfix", "copies in the backup",
	"put back by the replay", "found already there", "missing", "doubled", "altered",
	"RPO measured", "RTO measured")


def start(*args):
	return subprocess.Popen(["/usr/bin/python3", SCRIPT, *args], stdin=subprocess.DEVNULL,
				stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes(word):
	"""Command lines that have this word in them, ours apart."""
	out = []
	for p in pathlib.Path("/proc").iterdir():
		if p.name.isdigit() and int(p.name) != os.getpid():
			try:
				line = (p / "cmdline").read_bytes().replace(b"\0", b" ").decode()
			except OSError:
				continue
			if word in line:
				out.append(f"{p.name} {line}")
	return out


def main(t):
	with rigs.Rig(t.sub("the system's own"), mailwald=False) as other:
		other.start()
		for run in (1, 2):
			d = os.path.join(t.dir, f"quick start {run}")
			p = start("--messages", "90", "--dir", d, *(["--keep"] if run == 2 else []))
			text = p.communicate(timeout=600)[0]
			t.ok(p.returncode == 0, f"run {run} in a path with spaces: exit 0", text)
			bad = [r for r in ROWS if r not in text] + [
				r for r in ("missing", "doubled", "altered")
				if not re.search(rf"(?m)^ +{r} +0$", text)]
			t.ok(not bad, f"run {run}: the proof has its rows", f"{bad}\n{text}")
			t.ok((run == 2) == os.path.exists(d + "/journal"),
			     "the journal is left behind with --keep and only then")
			t.comes(lambda: not processes("quick start"), "nothing of it is still running",
				lambda: processes("quick start"))
		t.ok(re.search(r"show [0-9a-z]+ --raw", text), "--keep says how to look around")
		shown = re.search(r"(?m)^  ('.*' -c '.*' list --since .*)$", text)
		r = subprocess.run(shown[1] if shown else "false", shell=True, capture_output=True,
				   timeout=tap.PATIENCE, check=False)
		t.ok(r.returncode == 0 and r.stdout.count(b"\n") > 10, "and what it says works", r)
		t.ok(rigs.connects(other.imap_port) and rigs.connects(other.smtp_port),
		     "the other Postfix and Dovecot did not notice")

	d = os.path.join(t.dir, "stopped early")
	p = start("--messages", "2000", "--dir", d)
	time.sleep(4)
	p.send_signal(signal.SIGTERM)
	p.communicate(timeout=tap.PATIENCE)
	t.equal(p.returncode, 143, "SIGTERM: exit status")
	t.comes(lambda: not processes("stopped early"), "nothing left running",
		lambda: processes("stopped early"))

	def drop():
		os.setgroups([])
		os.setgid(65534)
		os.setuid(65534)
	text = (rigs.ROOT / "contrib" / "quickstart").read_bytes()
	r = subprocess.run(["/bin/sh", "-s", "--", "--offline"], input=text, capture_output=True,
			   timeout=tap.PATIENCE, preexec_fn=drop, cwd="/", check=False)
	err = r.stderr.decode()
	t.ok(r.returncode == 77 and "needs root" in err and err.count("\n") == 1,
	     "without root: one line that says why, exit 77", r)


tap.run(main)
