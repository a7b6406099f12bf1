#!/usr/bin/python3
"""quickstart where it is not at home: without root, without network, beside the system's own
Postfix and Dovecot, twice in a row, in a directory whose name has spaces."""
# MW_TEST_COST 30

import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap

QUICKSTART = tap.ROOT / "contrib" / "quickstart"
PROOF = [sys.executable, str(tap.ROOT / "contrib" / "lib" / "quickstart.py"), "--messages", "30"]


def run(argv, **kw):
	return subprocess.run(argv, capture_output=True, timeout=1000, check=False, text=True, **kw)


def told(p):
	return f"exit {p.returncode}\n{p.stdout[-1500:]}\n{p.stderr[-1500:]}"


def holds(p):
	return p.returncode == 0 and "every line holds" in p.stdout and "WRONG" not in p.stdout


def without_root(t):
	def drop():
		os.setgroups([])
		os.setgid(65534)
		os.setuid(65534)
	script = pathlib.Path(t.dir, "quickstart")  # the tree may be closed to nobody
	shutil.copy(QUICKSTART, script)
	p = run(["sh"], stdin=open(script, "rb"), preexec_fn=drop, cwd="/")
	lines = p.stderr.splitlines()
	t.ok(p.returncode == 77 and len(lines) == 1 and "needs root" in lines[0]
	     and "Postfix" in lines[0] and not p.stdout,
	     "without root: exit 77, and one line says what needs it and why", told(p))


def offline(t):
	"""In a network where not even the loopback is up."""
	p = run(["unshare", "--net", *PROOF, "--dir", os.path.join(t.dir, "off line")])
	t.ok(holds(p), "without network the proof holds", told(p))


def answers(port):
	try:
		with socket.create_connection(("127.0.0.1", port), 5) as s:
			return s.recv(200).decode("ascii", "replace")
	except OSError:
		return ""


def wait_for(port, text):
	end = time.monotonic() + tap.PATIENCE
	while text not in answers(port):
		if time.monotonic() > end:
			return False
		time.sleep(0.1)
	return True


def contents(*trees):
	out = {}
	for top in trees:
		for d, _, files in os.walk(top):
			for f in files:
				p = pathlib.Path(d, f)
				if p.is_file() and not p.is_symlink():
					out[str(p)] = hashlib.sha256(p.read_bytes()).hexdigest()
	return out


def inside(work):
	"""In namespaces of our own: the system's Postfix and Dovecot at their usual places, over
	which copies are mounted; they end with the namespace. Prints what was seen."""
	sys.path.insert(0, str(tap.ROOT / "contrib" / "lib"))
	import quickstart
	seen = {"loopback": quickstart.loopback()}
	pathlib.Path(work).chmod(0o755)
	shutil.copytree("/etc/postfix", work + "/etc", symlinks=True)
	pathlib.Path(work, "etc/main.cf").write_text(
		"compatibility_level = 3.6\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n"
		"myhostname = mx.example.test\nmydestination = localhost\nalias_maps =\n",
		encoding="utf-8")
	for sub in ("spool", "lib", "dovecot", "aliases"):
		os.makedirs(f"{work}/{sub}")
	shutil.chown(work + "/lib", "postfix")
	pathlib.Path(work, "dovecot/dovecot.conf").write_text(
		"protocols = imap\nssl = no\nlisten = 127.0.0.1\nlog_path = /dev/stderr\n"
		"mail_location = maildir:/run/mail/%u\npassdb {\n  driver = static\n"
		"  args = nopassword=y\n}\nuserdb {\n  driver = static\n"
		"  args = uid=nobody gid=nogroup home=/run/mail/%u\n}\n", encoding="utf-8")
	for over, at in (("etc", "/etc/postfix"), ("spool", "/var/spool/postfix"),
			 ("lib", "/var/lib/postfix"), ("dovecot", "/etc/dovecot")):
		subprocess.run(["mount", "--bind", f"{work}/{over}", at], check=True)
	subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
	for argv in (["postfix", "start"], ["dovecot"]):
		with open(f"{work}/{argv[0]}.log", "wb") as log:
			seen[argv[0]] = subprocess.run(argv, stdout=log, stderr=log, timeout=tap.PATIENCE,
						       check=False).returncode
	seen["up"] = [wait_for(25, "220"), wait_for(143, "* OK")]
	before = contents("/etc/postfix", "/etc/dovecot", "/var/spool/postfix/maildrop",
			  "/var/spool/postfix/deferred", "/var/spool/postfix/active")
	pid = pathlib.Path("/var/spool/postfix/pid/master.pid").read_text(encoding="ascii")
	seen["runs"] = []
	for _ in range(2):
		p = run([*PROOF, "--dir", f"{work}/work dir"])
		seen["runs"].append([holds(p), told(p)])
		shutil.rmtree(f"{work}/work dir", ignore_errors=True)
	seen["after"] = [wait_for(25, "220"), wait_for(143, "* OK")]
	seen["same"] = before == contents(
		"/etc/postfix", "/etc/dovecot", "/var/spool/postfix/maildrop",
		"/var/spool/postfix/deferred", "/var/spool/postfix/active")
	seen["pid"] = pid == pathlib.Path("/var/spool/postfix/pid/master.pid").read_text(
		encoding="ascii")
	print(json.dumps(seen))


def beside(t):
	p = run(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		 sys.executable, __file__, "--inside", t.sub("system")])
	if not t.ok(p.returncode == 0 and p.stdout.startswith("{"), "a system of our own", told(p)):
		return
	seen = json.loads(p.stdout.splitlines()[-1])
	t.need(seen["up"] == [True, True], "the system's Postfix and Dovecot run", seen)
	for i, (good, text) in enumerate(seen["runs"]):
		t.ok(good, f"beside them the proof holds, run {i + 1}", text)
	t.ok(seen["after"] == [True, True] and seen["pid"], "and they still run", seen)
	t.ok(seen["same"], "with their configuration and queues as they were", seen)


def main(t):
	without_root(t)
	if run(["unshare", "--net", "--mount", "--pid", "--fork", "true"]).returncode:
		t.skip("namespaces are not allowed here")
		return
	offline(t)
	beside(t)


if sys.argv[1:2] == ["--inside"]:
	inside(sys.argv[2])
else:
	tap.run(main)
