#!/usr/bin/python3
"""A next server whose name has an address on this host and one elsewhere: a password goes in
clear to the first only, also when a connection that served others is made anew. And one whose
name is looked up slowly: clients who wait for it share the answer, and the end of mailwald does
not wait for it."""

import fcntl
import json
import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import listener
import rig as rigs
import smtp
import tap

SPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
CLIENTS, LOOPS, FILES = 60, 4, 128
HERE, THERE, PORT = "127.0.0.1", "192.0.2.1", 2525


class Next(listener.Listener):
	"""A server at one address: it takes everything. heard: its commands."""

	def __init__(self, addr):
		self.heard, self.open = [], []
		super().__init__(socket.create_server((addr, PORT)))

	def serve(self, sock):
		self.open.append(sock)
		content = False
		sock.sendall(b"220 mx\r\n")
		for line in sock.makefile("rb"):
			verb = line[:4].upper()
			if content and line != b".\r\n":
				continue
			content = verb == b"DATA"
			self.heard.append(verb.decode("ascii", "replace"))
			sock.sendall(b"354 go\r\n" if content else b"250-mx\r\n250 AUTH PLAIN\r\n"
				     if verb == b"EHLO" else b"250 2.0.0 Ok\r\n")

	def close(self):
		super().close()
		for c in self.open:
			try:
				c.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass


def network(work):
	"""127.0.0.1 and another address; both are next.test."""
	up = struct.pack("16sH14x", b"lo", 1)
	addr = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(THERE))
	with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
		fcntl.ioctl(s, 0x8914, up)
		fcntl.ioctl(s, 0x8916, addr)
	hosts = pathlib.Path(work, "hosts")
	hosts.write_text(f"{HERE} localhost\n{HERE} next.test\n{THERE} next.test\n",
			 encoding="ascii")
	subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)


class Names:
	"""A name server that answers when it is told to. asked: (number, type) of its queries."""

	def __init__(self):
		self.asked, self.go = set(), threading.Event()
		self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		self.sock.bind((HERE, 53))
		threading.Thread(target=self._read, daemon=True).start()

	def _read(self):
		while True:
			q, peer = self.sock.recvfrom(512)
			kind = struct.unpack(">H", q[q.index(b"\0", 12) + 1:][:2])[0]
			self.asked.add((q[:2], kind))
			threading.Thread(target=self._answer, args=(q, peer, kind), daemon=True).start()

	def _answer(self, q, peer, kind):
		self.go.wait()
		end = q.index(b"\0", 12) + 5
		n = 1 if kind == 1 else 0
		head = q[:2] + struct.pack(">HHHHH", 0x8180, 1, n, 0, 0) + q[12:end]
		self.sock.sendto(head + n * (b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4)
					     + socket.inet_aton(HERE)), peer)


def slow(work, pid, port):
	"""Many clients who wait for the name. How many got a greeting, and how often it was asked for."""
	names = Names()
	for name, text in (("resolv.conf", f"nameserver {HERE}\noptions timeout:30 attempts:5\n"),
			   ("nsswitch.conf", "hosts: files dns\n")):
		pathlib.Path(work, name).write_text(text, encoding="ascii")
		subprocess.run(["mount", "--bind", f"{work}/{name}", f"/etc/{name}"], check=True)
	sockets = lambda: sum("socket:" in str(x) for x in links(pid))
	before, clients = sockets(), []
	resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))
	for _ in range(CLIENTS):
		clients.append(socket.create_connection((HERE, port)))
	rigs.wait_for("all of them to be there", lambda: sockets() >= before + CLIENTS, tap.PATIENCE)
	rigs.wait_for("the name to be asked for", lambda: names.asked, tap.PATIENCE)
	names.go.set()
	greeted, refused = 0, 0
	for c in clients:
		c.settimeout(tap.PATIENCE)
		said = c.recv(3)
		greeted += said == b"220"
		refused += said == b"421"
	last = max(map(int, os.listdir(f"/proc/{pid}/fd")))
	for c in clients:
		c.close()
	return {"greeted": greeted, "refused": refused, "last": last,
		"asked": sum(kind == 1 for _, kind in names.asked)}, names


def ends(names, p, port):
	"""Told to end while a name is asked for in vain, which takes 150 s: does it in 60?"""
	names.go.clear()
	before = len(names.asked)
	with socket.create_connection((HERE, port)):
		rigs.wait_for("the name to be asked for", lambda: len(names.asked) > before, tap.PATIENCE)
		p.terminate()
		try:
			return p.wait(60)
		except subprocess.TimeoutExpired:
			return None


def links(pid):
	for name in os.listdir(f"/proc/{pid}/fd"):
		try:
			yield os.readlink(f"/proc/{pid}/fd/{name}")
		except OSError:
			pass


def inside(work):
	network(work)
	here, there = Next(HERE), Next(THERE)
	rig = rigs.Rig(work)
	port, other, third = rigs.free_ports(3)
	rig.configure(conf=f"proxy_listen = smtp:inet:{HERE}:{port}->inet:next.test:{PORT}\n"
			   f"proxy_listen = smtp:inet:{HERE}:{other}->inet:slow.test:{PORT}\n"
			   f"proxy_listen = smtp:inet:{HERE}:{third}->inet:never.test:{PORT}\n"
			   "proxy_keep_next = 30s\n")
	rig.mailwal("init", rig.journal)
	with rig:
		p = rig.start_mailwald()
		rigs.wait_for("the proxy", lambda: rigs.connects(port), alive=p)
		with smtp.Client(port) as c:
			first = c.mail(b"Subject: x\r\n\r\nx\r\n", "a@b.test", ["c@d.test"])[0]
			c.quit()
		with smtp.Client(port) as c:
			offered = "AUTH PLAIN" in c.ehlo
			here.close()
			rigs.wait_for("the other address", lambda: "EHLO" in there.heard)
			c.send(b"AUTH PLAIN AGEAc2VjcmV0\r\n")
			told = c.reply()[0]
		heard, again = here.heard, Next(HERE)
		late, names = slow(work, p.pid, other)
		ended = ends(names, p, third)
		again.close()
	print(json.dumps({"first": first, "here": heard, "offered": offered, "told": told,
			  "there": there.heard, "late": late, "ended": ended}))


def main(t):
	if subprocess.run([*SPACES, "true"], check=False, capture_output=True).returncode:
		t.skip("namespaces are not allowed here")
		return
	p = subprocess.run([*SPACES, sys.executable, __file__, "--inside", t.sub("inside")],
			   capture_output=True, text=True, timeout=400, check=False)
	t.need(p.returncode == 0 and p.stdout, "it runs", (p.stdout, p.stderr))
	seen = json.loads(p.stdout.splitlines()[-1])
	t.equal((seen["first"], seen["here"].count("DATA")), (250, 1), "a message goes here")
	t.ok(seen["offered"], "and here AUTH is offered in clear", seen)
	t.equal((seen["told"], "AUTH" in seen["there"]), (538, False),
		"not elsewhere, by the connection that takes its place")
	late = seen["late"]
	t.ok(late["greeted"] + late["refused"] == CLIENTS and 0 < late["asked"] <= LOOPS,
	     f"{CLIENTS} clients wait for one name: each loop asks once", late)
	t.ok(late["greeted"] > 4 and late["refused"] and late["last"] < FILES - 16,
	     "those who would take the journal's descriptors are told to come again", late)
	t.equal(seen["ended"], 0, "its end does not wait for a name that is asked for in vain")


if sys.argv[1:2] == ["--inside"]:
	inside(sys.argv[2])
else:
	tap.run(main)
