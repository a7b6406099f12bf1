#!/usr/bin/python3
"""An alias table on a host whose name does not resolve when mailwald starts, as before the network
is up; it does later, and then leads elsewhere; and a name server that does not answer. In a
namespace of its own."""
# MW_TEST_COST 10

import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import listener
import rig as rigs
import tap

SPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
FIRST, THEN = "127.0.0.1", "127.0.0.2"
PORT = 4040


class Table(listener.Listener):
	"""A tcp_table server: everybody leads to `to`."""

	def __init__(self, host, to):
		self.to = to
		super().__init__(socket.create_server((host, PORT)))

	def serve(self, sock):
		with sock, sock.makefile("rb") as f:
			for line in f:
				key = line.decode().split()[1]
				sock.sendall(f"200 {self.to}\n".encode() if key != self.to else b"500 no\n")


class Site(alone.Alone):
	def __init__(self, directory, name):
		os.mkdir(directory)
		super().__init__(directory, "local_domains = example.test",
				 f"identities = tcp:{name}:{PORT}", "identities_timeout = 2s")
		self.sent = 0

	def leads_to(self):
		"""Where a message's recipient leads to, None: undecided."""
		self.sent += 1
		q = f"Q{self.sent}"
		self.mail(q, rcpts=["anyone@example.test"])
		rigs.wait_for("the expansion", lambda: self._settled(), alive=self.proc)
		o = self.show(q)
		return None if o.get("mailboxes_undecided") or o.get("expansion_missing") else o["mailboxes"]

	def _settled(self):
		s = self.status()
		return (s["expansions"] + s["expansions_failed"] + s["expansions_dropped"]
			>= self.sent and s["expansions_queued"] == 0)


def mounted(work, name, text):
	f = pathlib.Path(work, name)
	f.write_text(text, encoding="ascii")
	subprocess.run(["mount", "--bind", str(f), f"/etc/{name}"], check=True)
	return f


def inside(work):
	with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
		fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 1))
	hosts = mounted(work, "hosts", f"{FIRST} localhost\n")
	switch = mounted(work, "nsswitch.conf", "hosts: files\n")
	seen = {}
	first, then = Table(FIRST, "ann@example.test"), Table(THEN, "bob@example.test")
	with Site(f"{work}/later", "tables.test") as s:
		seen["before"] = s.leads_to()
		hosts.write_text(f"{FIRST} localhost\n{FIRST} tables.test\n", encoding="ascii")
		rigs.wait_for("the name", lambda: s.leads_to() == ["ann@example.test"])
		first.close()
		hosts.write_text(f"{FIRST} localhost\n{THEN} tables.test\n", encoding="ascii")
		rigs.wait_for("its other address", lambda: s.leads_to() == ["bob@example.test"])
		seen["ended"] = s.end()[0]
	then.close()
	# one that takes every question and answers none
	names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	names.bind((FIRST, 53))
	mounted(work, "resolv.conf", f"nameserver {FIRST}\noptions timeout:30 attempts:5\n")
	switch.write_text("hosts: files dns\n", encoding="ascii")
	with Site(f"{work}/never", "never.test") as s:
		seen["silent"] = s.leads_to()
		seen["silent again"] = s.leads_to()
		seen["silent ended"] = s.end()[0]
	print(json.dumps(seen))


def main(t):
	if subprocess.run([*SPACES, "true"], check=False, capture_output=True).returncode:
		t.skip("namespaces are not allowed here")
		return
	p = subprocess.run([*SPACES, sys.executable, __file__, "--inside", t.sub("inside")],
			   capture_output=True, text=True, timeout=400, check=False)
	t.need(p.returncode == 0 and p.stdout, "a name that comes to resolve, and then leads elsewhere, is "
	       "followed without a reload", (p.stdout, p.stderr))
	seen = json.loads(p.stdout.splitlines()[-1])
	t.equal((seen["before"], seen["silent"], seen["silent again"]), (None, None, None),
		"as long as it does not the recipients are undecided, and the mail is taken")
	t.equal((seen["ended"], seen["silent ended"]), (0, 0), "and it ends when it is told to")


if sys.argv[1:2] == ["--inside"]:
	inside(sys.argv[2])
else:
	tap.run(main)
