#!/usr/bin/python3
"""Bytes of a follower that the standby has not taken yet, since the way there is blocked: when the
follower is killed they go with it. What is put anew by the next one does not come once more when
the way is free again."""
# MW_TEST_COST 10

import os
import select
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import captured
import listener
import rig as rigs
import tap
from imapserver import Server

ANNA = "anna@example.test"
ALL = ("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+", "NAMESPACE")
SIZE = 400_000


def message(i, size=0):
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"text {i}\r\n" + ("x" * 70 + "\r\n") * (size // 72)).encode()


class Blocked(listener.Relay):
	"""Reads nothing more of what comes behind block, until go: it stays in the sender's kernel."""

	def __init__(self, port):
		self.block, self.go, self.over = threading.Event(), threading.Event(), threading.Event()
		self.client = None
		super().__init__(port)
		self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

	def copy(self, a, b):
		"""From the client, whose port tells how much of it waits."""
		there = a.getsockname()[1] == self.port
		while True:
			select.select([a], [], [])
			if there and self.block.is_set():
				self.client = a.getpeername()[1]
				self.go.wait(tap.PATIENCE)
			d = a.recv(65536)
			if not d:
				return
			b.sendall(d)

	def there(self, near, far):
		try:
			super().there(near, far)
		finally:
			if self.block.is_set():
				self.over.set()


def waiting(port):
	"""Bytes in the kernel's queue of the socket with that local port."""
	with open("/proc/net/tcp", encoding="ascii") as f:
		for line in f:
			words = line.split()
			if words[1].endswith(f":{port:04X}"):
				return int(words[4].split(":")[0], 16)
	return 0


def follow(site, port):
	argv = site.rig.mailwal_argv(
		"--json", "follow", "--user", ANNA, "--state", f"{site.rig.dir}/state", "--to",
		f"imap://127.0.0.1:{port}", "--auth-user", rigs.MASTER, "--password-file",
		site.rig.password_file)
	return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
				stderr=subprocess.DEVNULL, preexec_fn=rigs.die_with_parent)


def main(t):
	data = [message(0), message(1), message(2, SIZE)]
	with captured.Site(t, users=(ANNA,)) as site, Server(ALL) as s, Blocked(s.port) as relay:
		def inbox():
			return s.texts(ANNA)["INBOX"]

		site.capture(data[:1])
		p = follow(site, relay.port)
		rigs.wait_for("the first message", lambda: inbox() == data[:1], alive=p)
		rigs.wait_for("an end of the look", lambda: list(s.texts(ANNA)) == ["INBOX"], alive=p)
		site.capture(data[1:2])
		rigs.wait_for("the second, over the connection that stays", lambda: inbox() == data[:2], alive=p)
		relay.block.set()
		site.capture(data[2:])
		rigs.wait_for("the third on its way", lambda: relay.client
			      and waiting(relay.client) > SIZE // 2, alive=p)
		p.kill()
		p.wait()
		p = follow(site, s.port)
		try:
			rigs.wait_for("the third by another follower", lambda: inbox() == data, alive=p)
			relay.go.set()
			rigs.wait_for("the end of the first one's connection", lambda: relay.over.is_set()
				      and s.running() < 2, alive=p)
			t.ok(inbox() == data, "what the killed one had sent does not arrive any more",
			     [len(d) for d in inbox()])
		finally:
			p.send_signal(signal.SIGINT)
			p.wait(tap.PATIENCE)
		t.ok(p.returncode in (0, 130) and inbox() == data, "each message is there once", p.returncode)


tap.run(main)
