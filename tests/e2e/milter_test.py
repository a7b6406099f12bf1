#!/usr/bin/python3
"""mailwald at its sockets without an MTA, both front ends by one list of checks: whole
messages, hostile packets, bursts, slow disks, signals, a second instance."""
# MW_TEST_COST 20

import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap

HERE = os.path.dirname(os.path.abspath(__file__))
MAILWALD = str(rigs.find_program("mailwald"))
MAILWAL = str(rigs.find_program("mailwal"))
ALL = (6, 0x1ff, 0x1fbfff)  # all but "no reply to MAIL"
EVERY = (6, 0x1ff, 0x1fffff)
SESSIONS = 150


def packets(*items):
	return b"".join(struct.pack(">I", len(i)) + i for i in items)


def hello(*options):
	return b"O" + struct.pack(">III", *options)


class Daemon:
	"""One mailwald with a journal of its own."""

	def __init__(self, directory, engine):
		self.dir, self.engine = directory, engine
		self.journal = os.path.join(directory, "journal")
		self.sock = os.path.join("/tmp", f"mw-milter-{os.getpid()}-{engine}.sock")
		self.conf = os.path.join(directory, "mailwal.conf")
		self.log = os.path.join(directory, "mailwald.log")
		self.write_conf("")
		subprocess.run([MAILWAL, "init", self.journal], check=True, timeout=tap.PATIENCE,
			       stdout=subprocess.DEVNULL)
		self.process = None

	def write_conf(self, more):
		with open(self.conf, "w", encoding="utf-8") as f:
			f.write(f"journal_dir = {self.journal}\nmilter_listen = unix:{self.sock}\n"
				f"milter_engine = {self.engine}\nmin_free = 1M\n"
				f"log_target = stderr\n{more}\n")

	def start(self):
		with open(self.log, "ab") as log:
			self.process = subprocess.Popen([MAILWALD, "-c", self.conf], stderr=log,
							preexec_fn=rigs.die_with_parent)
		rigs.wait_for("mailwald", lambda: rigs.connects(self.sock), alive=self.process)

	def stop(self, sig=signal.SIGTERM):
		began = time.monotonic()
		self.process.send_signal(sig)
		return self.process.wait(tap.PATIENCE), time.monotonic() - began

	def said(self):
		with open(self.log, encoding="utf-8", errors="replace") as f:
			return f.read()

	def records(self):
		out = subprocess.run([MAILWAL, "-j", self.journal, "list", "--all", "--json"],
				     check=True, timeout=tap.PATIENCE, capture_output=True, text=True).stdout
		got = [json.loads(line) for line in out.splitlines()]
		return {r["queue_id"]: r for r in got if "queue_id" in r}

	def status(self):
		with socket.socket(socket.AF_UNIX) as s:
			s.settimeout(tap.PATIENCE)
			s.connect(os.path.join(self.journal, "control.sock"))
			s.sendall(b"status\n")
			out = b""
			while not out.endswith(b"\n"):
				out += s.recv(65536)
		return json.loads(out.split(b" ", 1)[1])

	def raw(self, record):
		return subprocess.run([MAILWAL, "-j", self.journal, "show", record["id"], "--raw"],
				      check=True, timeout=tap.PATIENCE, capture_output=True).stdout

	def talk(self, data, closes=False, end=None):
		"""Sends bytes; what comes back until the other side closes or is silent: for a
		second, once what came ends with `end`; where it closes, as long as it takes."""
		s = socket.socket(socket.AF_UNIX)
		s.settimeout(tap.PATIENCE if closes or end else 1)
		s.connect(self.sock)
		out, closed = b"", False
		try:
			s.sendall(data)
			while True:
				if end and out.endswith(end):
					s.settimeout(1)
				got = s.recv(65536)
				if not got:
					closed = True
					break
				out += got
		except TimeoutError:
			pass
		except OSError:
			closed = True
		s.close()
		return out, closed


def whole_messages(t, d):
	if shutil.which("miltertest"):
		for script in ("message", "drop", "disorder"):
			r = subprocess.run(["miltertest", "-D", f"socket=unix:{d.sock}", "-s",
					    os.path.join(HERE, "..", "milter", script + ".lua")],
					   capture_output=True, text=True, timeout=tap.PATIENCE, check=False)
			t.ok(r.returncode == 0, f"{d.engine}: miltertest: {script}.lua",
			     r.stdout + r.stderr)
		got = d.records()
		# miltertest itself puts what is missing before an end of message: one without ID
		t.equal(sorted(got), ["", "LUA2", "LUA3"], f"{d.engine}: records of the scripts")
		t.equal(d.raw(got["LUA2"]),
			b"Subject: by miltertest\r\nX-Tab: \tkept\r\n and folded\r\n\r\n"
			b"one line\r\nand another\r\n", f"{d.engine}: its bytes")
		t.equal(got["LUA2"]["recipients"], ["anna@example.test", "bert@example.test"],
			f"{d.engine}: its recipients")
	else:
		t.skip("miltertest is not installed")
	c = milterclient.Conn(d.sock)
	for i in range(200):
		c.envelope(f"MANY{i}", b"body %d\r\n" % i)
		if c.end() != b"c":
			break
		c.send(b"A")  # as Postfix, twice
		c.send(b"A")
	c.sock.close()
	got = d.records()
	t.ok(all(f"MANY{i}" in got for i in range(200)), f"{d.engine}: 200 messages of one session")
	t.equal(d.raw(got["MANY7"]), b"Subject: x\r\n\r\nbody 7\r\n", f"{d.engine}: the eighth")


def hostile(t, d):
	before = len(d.records())
	fatal = (("an unknown command", packets(hello(*ALL), b"z")),
		 ("an oversized packet", packets(hello(*ALL)) + b"\x7f\xff\xff\xffB"),
		 ("end before MAIL", packets(hello(*ALL), b"E")),
		 ("another protocol", b"GET / HTTP/1.0\r\n\r\n"))
	for name, data in fatal:
		_, closed = d.talk(data, closes=d.engine == "native")
		# libmilter answers some of it and goes on; what counts is the journal
		t.ok(closed or d.engine == "libmilter", f"{d.engine}: {name} ends the connection")
	harmless = (("macros without names", packets(hello(*ALL), b"DM", b"DC", b"M<a@b.test>\0")),
		    ("an empty macro value", packets(hello(*ALL), b"DMi\0\0", b"M<>\0")))
	for name, data in harmless:
		out, closed = d.talk(data, end=b"\0\0\0\1c")
		t.ok(not closed and out.endswith(b"\0\0\0\1c"), f"{d.engine}: {name} do no harm", out)
	out, _ = d.talk(packets(hello(2, 0x3f, 0x7f), b"M<a@b.test>\0"))
	t.ok(b"451" in out or out.endswith(b"\0\0\0\1t") or not out,
	     f"{d.engine}: without exact header bytes mail is not taken", out)
	t.equal(len(d.records()), before, f"{d.engine}: none of it is in the journal")


def answers(sock, want):
	"""So many packets that come back, or fewer where the other side closes first."""
	out, got = b"", []
	while len(got) < want:
		try:
			more = sock.recv(65536)
		except OSError:
			break
		if not more:
			break
		out += more
		while len(out) >= 4 and len(out) >= 4 + struct.unpack(">I", out[:4])[0]:
			n = struct.unpack(">I", out[:4])[0]
			got.append(out[4:5])
			out = out[4 + n:]
	return got


def message(queue_id):
	return (b"C" + b"client.test\x004" + struct.pack(">H", 25) + b"192.0.2.1\0",
		b"Hclient.test\0", b"DMi\0" + queue_id + b"\0", b"M<a@remote.test>\0",
		b"R<anna@example.test>\0", b"T", b"LSubject\0 x\0", b"N", b"Bbody\r\n", b"E")


def pieces(t, d):
	"""A message in every size of piece; several without a wait for the answer."""
	data = packets(hello(*EVERY), *message(b"PIECES"))
	s = socket.socket(socket.AF_UNIX)
	s.settimeout(tap.PATIENCE)
	s.connect(d.sock)
	for i in range(len(data)):
		s.sendall(data[i:i + 1])
	t.equal(answers(s, 2), [b"O", b"c"], f"{d.engine}: a message byte by byte")
	s.close()
	s = socket.socket(socket.AF_UNIX)
	s.settimeout(tap.PATIENCE)
	s.connect(d.sock)
	s.sendall(packets(hello(*EVERY), *[x for i in range(20)
					   for x in message(b"AHEAD%d" % i)]))
	t.equal(answers(s, 21), [b"O"] + [b"c"] * 20,
		f"{d.engine}: twenty messages without a wait")
	s.close()
	got = d.records()
	t.ok("PIECES" in got and all(f"AHEAD{i}" in got for i in range(20)),
	     f"{d.engine}: all of them are journaled")
	t.equal(d.raw(got["AHEAD19"]), b"Subject: x\r\n\r\nbody\r\n", f"{d.engine}: the last one")
	if d.engine == "libmilter":
		return  # half commands may hold up all the threads of its pool
	# Half a packet, held open by many: nobody else is in the way of the next message.
	held = []
	for i in range(100):
		s = socket.socket(socket.AF_UNIX)
		s.connect(d.sock)
		s.sendall(data[:i + 1])
		held.append(s)
	c = milterclient.Conn(d.sock)
	c.envelope("BESIDE")
	t.equal(c.end(), b"c", f"{d.engine}: a message beside a hundred half ones")
	c.sock.close()
	for s in held:
		s.close()


def disorder(t, d):
	"""Commands in any order, from a fixed seed: what was answered with "go on" at its end
	is journaled, and nothing else is."""
	rng, before, taken = random.Random(11), len(d.records()), []
	for n in range(SESSIONS):
		s = socket.socket(socket.AF_UNIX)
		s.settimeout(tap.PATIENCE)
		s.connect(d.sock)
		queue_id = f"DIS{n}".encode()
		events = list(message(queue_id))
		for _ in range(rng.randrange(4)):
			k = rng.randrange(len(events))
			how = rng.randrange(4)
			if how == 0:
				del events[k]
			elif how == 1:
				events.insert(k, events[rng.randrange(len(events))])
			elif how == 2:
				events.insert(k, rng.choice((b"A", b"K", b"z", b"U?\0", b"DEi\0x\0", b"B",
							     b"R\0", b"M", b"L", b"")))
			else:
				events[k] = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
		try:
			s.sendall(packets(hello(*EVERY), *events))
			s.shutdown(socket.SHUT_WR)
		except OSError:
			pass  # it has closed on us
		got = answers(s, 1000)
		s.close()
		taken.append(got[1:].count(b"c"))
	t.ok(d.process.poll() is None, f"{d.engine}: it lives after {SESSIONS} disordered sessions")
	rigs.wait_for("sessions to end", lambda: d.status()["open_sessions"] == 0)
	new = len(d.records()) - before
	whole = taken.count(1)
	t.ok(whole > SESSIONS / 5, f"{d.engine}: {whole} of them end with a message that is taken")
	t.equal(d.status()["journaled"] - d.counted, sum(taken),
		f"{d.engine}: each is journaled, and nothing else")
	t.ok(new <= sum(taken), f"{d.engine}: {new} queue IDs")


def sizes(t, d):
	c = milterclient.Conn(d.sock)
	c.envelope("LARGE", b"first\r\n")
	body = os.urandom(65535)
	for _ in range(480):
		c.step(b"B", body, 0x80000)
	t.equal(c.end(), b"c", f"{d.engine}: 30 MB")
	c.send(b"A")
	c.step(b"M", b"<>\0", 0x4000)
	for i in range(10000):
		c.step(b"R", b"<user-%d@example.test>\0" % i, 0x8000)
	c.send(b"D", b"Ei\0RCPTS\0")
	t.equal(c.end(), b"c", f"{d.engine}: 10,000 recipients")
	c.sock.close()
	got = d.records()
	t.ok(d.raw(got["LARGE"]) == b"Subject: x\r\n\r\nfirst\r\n" + body * 480,
	     f"{d.engine}: every byte")
	t.equal(len(got["RCPTS"]["recipients"]), 10000, f"{d.engine}: every recipient")


def signals(t, d):
	d.write_conf("on_failure_close = yes")
	d.process.send_signal(signal.SIGHUP)
	rigs.wait_for("reload", lambda: "event=reloaded" in d.said())
	d.write_conf("no_such_setting = yes")
	d.process.send_signal(signal.SIGHUP)
	rigs.wait_for("refusal", lambda: "event=reload_refused" in d.said())
	t.ok("no_such_setting" in d.said(), f"{d.engine}: the log says what is wrong with it")
	d.write_conf("segment_size = 8M")
	d.process.send_signal(signal.SIGHUP)
	rigs.wait_for("refusal", lambda: d.said().count("event=reload_refused") == 2)
	d.write_conf("")
	inode = os.stat(d.sock).st_ino
	r = subprocess.run([MAILWALD, "-c", d.conf], capture_output=True, text=True, timeout=tap.PATIENCE,
			   check=False)
	t.equal(r.returncode, 75, f"{d.engine}: exit status of a second instance")
	t.ok(os.stat(d.sock).st_ino == inode, f"{d.engine}: it leaves the socket alone")
	c = milterclient.Conn(d.sock)
	c.envelope("AFTER")
	t.equal(c.end(), b"c", f"{d.engine}: mail is taken after all that")
	c.sock.close()
	seconds = milterclient.burst(d.sock, 50)
	t.note(f"{d.engine}: 50 simultaneous ends of message: {seconds:.3f} s")
	waiting = [milterclient.Conn(d.sock) for _ in range(10)]
	for i, c in enumerate(waiting):
		c.envelope(f"STOP{i}")
		c.send(b"E")
	status, took = d.stop()
	t.equal(status, 0, f"{d.engine}: exit status after SIGTERM")
	t.ok(took < 60, f"{d.engine}: and it left soon", took)
	told = set()
	for i, c in enumerate(waiting):
		try:
			if c.reply()[0] == b"c":
				told.add(f"STOP{i}")
		except OSError:
			pass
		except EOFError:
			pass
	got = d.records()
	t.ok(told <= set(got), f"{d.engine}: what was answered at SIGTERM is there")
	t.ok({q for q in got if q.startswith("STOP")} <= told,
	     f"{d.engine}: what is there was answered", told)
	d.start()
	d.stop(signal.SIGKILL)
	t.ok(os.path.exists(d.sock), f"{d.engine}: SIGKILL leaves a stale socket")
	d.start()
	c = milterclient.Conn(d.sock)
	c.envelope("STALE")
	t.equal(c.end(), b"c", f"{d.engine}: the next start replaces it")
	c.sock.close()
	d.stop()


def test(t):
	for engine in ("native", "libmilter"):
		d = Daemon(t.sub(engine), engine)
		d.start()
		try:
			whole_messages(t, d)
			hostile(t, d)
			pieces(t, d)
			d.counted = d.status()["journaled"]
			disorder(t, d)
			sizes(t, d)
			signals(t, d)
		finally:
			if d.process.poll() is None:
				d.process.kill()
			if os.path.exists(d.sock):
				os.unlink(d.sock)


tap.run(test)
