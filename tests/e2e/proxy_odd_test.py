#!/usr/bin/python3
"""Proxies by SMTP and LMTP between many clients and next servers that do at random what they
should not (support/oddnext.py), with TLS and with connections that are kept: who is told 250
has a record, and the next server took just his bytes and said so; no client hears anything
odd; mailwald goes on, and nothing of it is left over. tests/soak proxy is the long form."""
# MW_TEST_COST 25

import hashlib
import json
import os
import random
import socket
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import oddnext
import rig as rigs
import tap

SEED = int(os.environ.get("MW_SEED", "1"))
SESSIONS = int(os.environ.get("MW_SESSIONS", "250"))  # of each of the two
ODDS = float(os.environ.get("MW_ODDS", "0.08"))
BODY = (b"x\r\n", b".\r\n", b"..\r\n", b"\r\n", b"." * 20 + b"\r\n", b"y" * 900 + b"\r\n")


class Over(Exception):
	"""The session is."""


class Told:
	"""What a client heard at the end of a message."""

	def __init__(self, lmtp, data, finals):
		self.lmtp, self.data, self.finals = lmtp, data, finals

	def good(self):
		return [i for i, c in enumerate(self.finals) if c // 100 == 2]


class Client:
	"""One session of up to four messages, as the seed has it."""

	def __init__(self, place, k):
		self.place, self.k, self.rnd = place, k, random.Random(f"{place.seed} client {k}")
		self.lmtp = self.rnd.random() < 0.4
		self.sock = socket.create_connection(("127.0.0.1", place.ports[self.lmtp]), tap.PATIENCE)
		self.file, self.offered = self.sock.makefile("rb"), b""

	def run(self):
		try:
			if self.reply() != 220 or self.say(b"LHLO c.test" if self.lmtp else
							   b"EHLO c.test") != 250:
				return
			for i in range(self.rnd.randrange(1, 5)):
				self.message(f"Message-ID: <{self.k}.{i}@remote.test>")
			self.say(b"QUIT")
		except TimeoutError:
			self.place.odd(f"client {self.k}: no reply")
		except Over:
			pass
		finally:
			self.file.close()
			self.sock.close()

	def reply(self):
		whole = b""
		while True:
			try:
				line = self.file.readline()
			except ConnectionError:
				line = b""
			if not line and not whole:
				raise Over
			whole += line
			if not (line[:3].isdigit() and b"200" <= line[:3] <= b"599" and line.endswith(b"\r\n")):
				self.place.odd(f"client {self.k} hears {whole[-300:]!r}")
				raise Over
			if line[3:4] != b"-":
				self.offered = whole if b"PIPELINING" in whole or not self.offered else self.offered
				return int(line[:3])

	def send(self, data):
		try:
			self.sock.sendall(data)
		except ConnectionError as e:
			raise Over from e

	def say(self, line):
		self.send(line + b"\r\n")
		return self.reply()

	def leave(self):
		"""Now and then, in one way or the other."""
		if self.rnd.random() < 0.01:
			if self.rnd.random() < 0.5:
				self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
						     struct.pack("ii", 1, 0))
			raise Over

	def envelope(self):
		"""How many recipients are taken."""
		rnd = self.rnd
		if b"XFORWARD" in self.offered and rnd.random() < 0.5:
			self.say(b"XFORWARD NAME=x.test ADDR=192.0.2.7 PROTO=ESMTP HELO=h")
		if rnd.random() < 0.2:
			self.say(rnd.choice((b"NOOP", b"RSET", b"VRFY x", b"HELP")))
		lines = [b"MAIL FROM:<a@remote.test>", *(b"RCPT TO:<r%d@example.test>" % i
							 for i in range(rnd.randrange(1, 5)))]
		if b"PIPELINING" in self.offered and rnd.random() < 0.5:
			self.send(b"\r\n".join(lines) + b"\r\n")
			codes = [self.reply() for _ in lines]
		else:
			codes = []
			for line in lines:
				codes.append(self.say(line))
				self.leave()
		return sum(c // 100 == 2 for c in codes[1:])

	def message(self, name):
		rnd = self.rnd
		n = rnd.choice((0, 1, 10, 300, 300, 10_000))
		data = name.encode() + b"\r\nSubject: x\r\n\r\n" + b"".join(rnd.choices(BODY, k=n))
		rcpts = self.envelope()
		if b"CHUNKING" in self.offered and rnd.random() < 0.6:
			if not self.chunks(data):
				return
		elif not self.dotted(data):
			return
		told = Told(self.lmtp, data, [])
		for _ in range(max(rcpts, 1) if self.lmtp else 1):
			told.finals.append(self.reply())
			self.place.told[name] = told

	def chunks(self, data):
		n = self.rnd.choice((0, 1, len(data) // 2))
		if n and self.say_raw(b"BDAT %d\r\n" % n + data[:n]) // 100 != 2:
			self.say(b"RSET")
			return False
		self.leave()
		self.send(b"BDAT %d LAST\r\n" % (len(data) - n) + data[n:])
		return True

	def say_raw(self, data):
		self.send(data)
		return self.reply()

	def dotted(self, data):
		if self.say(b"DATA") != 354:
			self.say(b"RSET")
			return False
		out = data.replace(b"\r\n.", b"\r\n..") + b".\r\n"
		cut = self.rnd.randrange(len(out))
		self.send(out[:cut])
		self.leave()
		self.send(out[cut:])
		return True


class Place:
	"""mailwald with a proxy of each kind."""

	def __init__(self, directory, seed, tls):
		self.seed, self.told, self.oddities = seed, {}, []
		self.rig = rigs.Rig(directory)
		self.ports = rigs.free_ports(2)
		ctx = oddnext.certificate(directory) if tls else None
		self.next = [oddnext.OddNext(lmtp, seed, ODDS, ctx) for lmtp in (False, True)]
		ways = ", ".join(f"{kind}:inet:127.0.0.1:{port}->inet:127.0.0.1:{n.port}"
				 for kind, port, n in zip(("smtp", "lmtp"), self.ports, self.next))
		self.rig.configure(conf=f"proxy_timeout = 2s\nproxy_listen = {ways}\n"
				   + ("proxy_next_tls = may\n" if tls else ""))

	def odd(self, what):
		self.oddities.append(what)

	def run(self):
		"""All clients, 24 at a time; mailwald's process."""
		if self.rig.mailwal("init", self.rig.journal).rc:
			raise rigs.RigError("init")
		p = self.rig.start_mailwald()
		for port in self.ports:
			rigs.wait_for("the proxy", lambda port=port: rigs.connects(port), alive=p)
		lock, todo = threading.Lock(), iter(range(SESSIONS))

		def work():
			while p.poll() is None:
				with lock:
					k = next(todo, None)
				if k is None:
					return
				Client(self, k).run()
		threads = [threading.Thread(target=work, daemon=True) for _ in range(24)]
		for th in threads:
			th.start()
		for th in threads:
			th.join()
		return p

	def sessions(self):
		return json.loads(self.rig.mailwal("--json", "status").out)["daemon"]["open_sessions"]

	def unlike(self):
		"""What was told and is not so."""
		rows, bad = {}, []
		for o in self.rig.journaled():
			rows.setdefault(o["message_id"], []).append(o["sha256"])
		for name, told in self.told.items():
			if not told.good():
				continue
			server, mid = self.next[told.lmtp], name.split(": ")[1]
			said = server.said.get(name, [])
			if any(i >= len(said) or said[i] // 100 != 2 for i in told.good()):
				bad.append(f"{name}: told {told.finals}, the next server said {said}")
			if server.content.get(name) != [told.data]:
				bad.append(f"{name}: other bytes, or more than once")
			if rows.get(mid) != [hashlib.sha256(told.data).hexdigest()]:
				bad.append(f"{name}: records {rows.get(mid)}")
		return bad


def one(t, what, tls):
	place = Place(t.sub(what), f"{SEED} {what}", tls)
	with place.rig, place.next[0], place.next[1]:
		p = place.run()
		t.need(p.poll() is None, f"{what}: mailwald goes on", p.returncode)
		good = sum(len(x.good()) for x in place.told.values())
		bad = place.unlike()
		t.ok(good and not bad, f"{what}: who was told that it was taken: recorded, and taken by the "
		     "next server", "\n".join(bad))
		t.ok(not place.oddities, f"{what}: clients hear whole replies alone", "\n".join(place.oddities))
		t.comes(lambda: place.sessions() == 0, f"{what}: no session is left", place.sessions)
		r = place.rig.mailwal("verify")
		t.ok(r.rc == 0, f"{what}: verify", r)
		t.equal(place.rig.end("mailwald"), 0, f"{what}: exit status")
		acts = sum(sum(n.acts.values()) for n in place.next)
		t.note(f"{what}: {SESSIONS} sessions, {len(place.told)} messages to their end, {good} taken; "
		       f"{sum(n.sessions for n in place.next)} sessions with next servers, {acts} odd replies")


def main(t):
	t.note(f"seed {SEED}")
	one(t, "kept", False)
	one(t, "tls", True)


tap.run(main)
