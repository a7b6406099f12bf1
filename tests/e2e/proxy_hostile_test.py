#!/usr/bin/python3
"""The proxy between thousands of recipients and next servers that break off, dawdle and
babble, and short of descriptors: what a client is told is what became of its message."""
# MW_TEST_COST 25

import json
import os
import pathlib
import re
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import listener
import rig as rigs
import tap

MANY = 8000
STAGES = ("greeting", "hello", "MAIL", "RCPT", "DATA", "content", "dot")


class Next(listener.Listener):
	"""A next server. cut: the stage at which it hangs up. said: verb -> its odd reply.
	final(i, n): the reply for the i-th of n recipients; None: it hangs up."""

	def __init__(self, lmtp):
		self.lmtp, self.cut, self.said, self.gap, self.taken = lmtp, None, {}, 0, []
		self.final = lambda i, n: b"250 2.0.0 Ok: queued as N%d\r\n" % i
		super().__init__()

	def serve(self, sock):
		try:
			self._session(sock, sock.makefile("rwb"))
		finally:
			try:
				sock.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass
			sock.close()

	def _session(self, sock, f):
		rcpts = 0
		if self.cut == "greeting":
			return
		f.write(b"220 next\r\n")
		f.flush()
		for line in f:
			verb = line[:4].upper().decode("ascii")
			if self.cut == verb or (self.cut == "hello" and verb in ("EHLO", "LHLO")):
				return
			if verb in ("EHLO", "LHLO"):
				f.write(b"250-next\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n")
			elif verb in self.said:
				f.write(self.said[verb])
			elif verb == "RCPT":
				bad = b"<bad" in line
				rcpts += not bad
				f.write(b"550 5.1.1 not here\r\n" if bad else b"250 2.1.5 Ok\r\n")
			elif verb == "DATA":
				f.write(b"354 go\r\n")
				f.flush()
				if not self._message(f, rcpts):
					return
				rcpts = 0
			else:
				f.write(b"250 2.0.0 Ok\r\n")
			f.flush()

	def _message(self, f, rcpts):
		content = []
		if self.cut == "content":
			return False
		for line in f:
			if line == b".\r\n":
				break
			content.append(line)
		else:
			return False
		if self.cut == "dot":
			return False
		self.taken.append(b"".join(content))
		n = rcpts if self.lmtp else 1
		for i in range(n):
			reply = self.final(i, n)
			if reply is None:
				f.flush()
				return False
			f.write(reply)
			if self.gap:
				f.flush()
				time.sleep(self.gap)
		return True


class Wire:
	"""A client that says what it wants when it wants."""

	def __init__(self, port, hello=b"EHLO"):
		self.sock = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
		self.file, self.hello = self.sock.makefile("rb"), hello

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.sock.close()

	def reply(self):
		"""(code, all of it); code 0: the connection has ended."""
		whole = b""
		while True:
			try:
				line = self.file.readline()
			except ConnectionResetError:
				line = b""
			if not line.endswith(b"\n"):
				return 0, whole
			whole += line
			if line[3:4] != b"-":
				return int(line[:3]), whole

	def say(self, line):
		try:
			self.sock.sendall(line + b"\r\n")
		except OSError:
			pass
		return self.reply()

	def start(self):
		code = self.reply()[0]
		return code if code != 220 else self.say(self.hello + b" client.test")[0]

	def message(self, name, rcpts=(b"b@example.test",)):
		"""The first reply that is not what leads on, or all those to the dot."""
		code = self.start()
		for line, want in ((b"MAIL FROM:<a@remote.test>", 250),
				   *((b"RCPT TO:<" + r + b">", 250) for r in rcpts), (b"DATA", 354)):
			if code not in (250, 354):
				return [code]
			code = self.say(line)[0]
			if code != want:
				return [code]
		return self.content(name, len(rcpts) if self.hello == b"LHLO" else 1)

	def content(self, name, replies):
		codes = [self.say(b"Message-ID: <" + name.encode() + b"@remote.test>\r\n\r\nx\r\n.")[0]]
		while len(codes) < replies:
			codes.append(self.reply()[0])
		return codes


def peak_kib(pid):
	text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
	return int(re.search(r"VmHWM:\s+(\d+)", text)[1])


def many(t, rig, port, server):
	"""Thousands of recipients at once, one of ten refused by the next server."""
	kind = "LMTP" if server.lmtp else "SMTP"
	pid = rig.procs["mailwald"].pid
	before, t0 = peak_kib(pid), time.monotonic()
	want = [550 if i % 10 == 0 else 250 for i in range(MANY)]
	good = want.count(250)
	server.final = lambda i, n: (b"452 4.2.2 full %d\r\n" if server.lmtp and i % 7 == 0
				     else b"250 2.0.0 Ok %d\r\n") % i
	with Wire(port, b"LHLO" if server.lmtp else b"EHLO") as c:
		c.start()
		batch = b"MAIL FROM:<a@remote.test>\r\n" + b"".join(
			b"RCPT TO:<%s%d@example.test>\r\n" % (b"bad" if w == 550 else b"r", i)
			for i, w in enumerate(want))
		th = threading.Thread(target=c.sock.sendall, args=(batch,))
		th.start()
		got = [c.reply()[0] for _ in range(MANY + 1)]
		th.join(tap.PATIENCE)
		t.equal(got == [250, *want], True, f"{kind}: a reply for each of {MANY} recipients")
		t.equal(c.say(b"DATA")[0], 354, f"{kind}: DATA")
		name = f"many.{kind}".lower()
		got = c.content(name, good if server.lmtp else 1)
	final = [452 if i % 7 == 0 else 250 for i in range(good)] if server.lmtp else [250]
	t.equal(got == final, True, f"{kind}: the replies to the end, as the next server said them")
	records = rig.journaled("--message-id", f"<{name}@remote.test>")
	t.equal(len(records), 1, f"{kind}: records")
	t.note(f"{kind}: {MANY} recipients in {time.monotonic() - t0:.2f} s, "
	       f"{peak_kib(pid) - before} KiB more at most")


def dies_between_replies(t, port, server):
	server.final = lambda i, n: None if i == n // 2 else b"250 2.0.0 Ok\r\n"
	with Wire(port, b"LHLO") as c:
		got = c.message("half", [b"h%d@example.test" % i for i in range(1000)])
	t.equal((got.count(250), got.count(451), got[499:501]), (500, 500, [250, 451]),
		"LMTP: it hangs up in the middle of its replies")


def dawdles(t, port, server):
	"""No reply is late, all together are later than one may be."""
	server.final, server.gap = (lambda i, n: b"250 2.0.0 Ok\r\n"), 4
	with Wire(port, b"LHLO") as c:
		got = c.message("slow", [b"s%d@example.test" % i for i in range(6)])
	server.gap = 0
	t.equal(got, [250] * 6, "LMTP: it takes its time for each recipient")


def floods(t, rig, port, server):
	"""Megabytes of replies to a client that reads none of them."""
	server.final = lambda i, n: b"250-%s\r\n" % (b"x" * 8000) * 7 + b"250 2.0.0 Ok\r\n"
	before = peak_kib(rig.procs["mailwald"].pid)
	with Wire(port, b"LHLO") as c:
		c.start()
		c.sock.sendall(b"MAIL FROM:<a@remote.test>\r\n" + b"".join(
			b"RCPT TO:<f%d@example.test>\r\n" % i for i in range(1500)))
		got = [c.reply()[0] for _ in range(1501)]
		t.equal((set(got), c.say(b"DATA")[0]), ({250}, 354), "LMTP: 1500 recipients")
		c.sock.sendall(b"Message-ID: <flood@remote.test>\r\n\r\nx\r\n.\r\n")
		rigs.wait_for("all of its replies", lambda: re.search(
			r"event=relayed .* nrcpt=1500 failed=0 ", rig.mailwald_log()))
	more = peak_kib(rig.procs["mailwald"].pid) - before
	t.ok(more < 48 * 1024, "LMTP: 84 MB of replies that nobody reads", more)
	t.note(f"{more} KiB more at most")


def breaks_off(t, rig, port, server):
	server.final = lambda i, n: b"250 2.0.0 Ok\r\n"
	for stage in STAGES:
		server.cut = stage
		taken = len(server.taken)
		with Wire(port) as c:
			got = c.message(f"cut.{stage}")
		t.ok(len(got) == 1 and got[0] // 100 == 4 and len(server.taken) == taken,
		     f"it hangs up at {stage}: the client is told to come back", got)
		server.cut = None
		with Wire(port) as c:
			t.equal(c.message(f"after.{stage}"), [250], "and the next one is served")
	t.equal(len(rig.journaled("--message-id", "<after.dot@remote.test>")), 1, "records")


def babbles(t, port, server):
	def told(reply):
		server.said = {"MAIL": reply}
		with Wire(port) as c:
			c.start()
			got = c.say(b"MAIL FROM:<a@remote.test>")
		server.said = {}
		return got
	lines = b"".join(b"250-2.1.0 line %d\r\n" % i for i in range(499)) + b"250 2.1.0 Ok\r\n"
	t.equal(told(lines) == (250, lines), True, "a reply of 500 lines is relayed as it is")
	for what, reply in (("lines too many", lines.replace(b"250 ", b"250-x\r\n250 ")),
			    ("a line too long", b"250 " + b"x" * 9000 + b"\r\n"),
			    ("no line end", b"2" * 70000),
			    ("bytes too many", b"250-" + b"x" * 8000 + b"\r\n") ,
			    ("another code", b"250-one\r\n251 two\r\n")):
		if what == "bytes too many":
			reply *= 10
		got = told(reply)
		t.equal(got[0], 421, f"a reply with {what}")


def descriptors(t, rig, port, server):
	"""200 clients at once where 256 descriptors are all there is."""
	server.final = lambda i, n: b"250 2.0.0 Ok\r\n"
	pid = rig.procs["mailwald"].pid
	had = resource.prlimit(pid, resource.RLIMIT_NOFILE)
	resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, had[1]))
	results, lock, all_in = {}, threading.Lock(), threading.Barrier(200)

	def client(i):
		with Wire(port) as c:
			all_in.wait(tap.PATIENCE)
			got = c.message(f"fd{i}")
		with lock:
			results[i] = got[-1]
	threads = [threading.Thread(target=client, args=(i,)) for i in range(200)]
	for th in threads:
		th.start()
	for th in threads:
		th.join(tap.PATIENCE)
	codes = {k: list(results.values()).count(k) for k in set(results.values())}
	t.ok(len(results) == 200 and set(codes) <= {250, 421, 451},
	     "200 clients, 256 descriptors: each is taken or told to come back", codes)
	good = [i for i, code in results.items() if code == 250]
	there = b"".join(server.taken)
	t.equal([i for i in good if b"<fd%d@" % i not in there], [], "taken and not passed on")
	kept = rig.journaled()
	t.equal(len(kept) - len({str(k) for k in kept}), 0, "each record once")
	names = {i for i in good if rig.journaled("--message-id", f"<fd{i}@remote.test>")}
	t.equal(sorted(set(good) - names), [], "taken and without a record")
	t.ok(good, "some are taken")

	def well():
		with Wire(port) as c:
			return c.message("fd.after") == [250]
	t.comes(well, "it is well again by itself")
	resource.prlimit(pid, resource.RLIMIT_NOFILE, had)


class Gone(listener.Listener):
	"""A next server that answers MAIL when it may, and is gone at once."""

	def __init__(self):
		self.asked, self.may = threading.Semaphore(0), threading.Event()
		super().__init__()

	def serve(self, sock):
		with sock, sock.makefile("rb") as f:
			sock.sendall(b"220 next\r\n")
			f.readline()
			sock.sendall(b"250-next\r\n250 PIPELINING\r\n")
			f.readline()
			self.asked.release()
			self.may.wait(tap.PATIENCE)
			sock.sendall(b"250 2.1.0 Ok\r\n")
			sock.shutdown(socket.SHUT_RD)
			reset(sock)


def reset(sock):
	"""When it is closed, what is under way is thrown away."""
	sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def both_gone(t):
	"""The client, and then the next server, between two commands: nobody is left to be told
	anything, and no session waits until it is."""
	def sessions():
		return json.loads(rig.mailwal("--json", "status").out)["daemon"]["open_sessions"]
	rig = rigs.Rig(t.sub("gone"))
	port, = rigs.free_ports(1)
	with rig, Gone() as server:
		rig.configure(conf="proxy_timeout = 1h\n"
			      f"proxy_listen = smtp:inet:127.0.0.1:{port}->inet:127.0.0.1:{server.port}\n")
		rig.mailwal("init", rig.journal)
		p = rig.start_mailwald()
		rigs.wait_for("the proxy", lambda: rigs.connects(port), alive=p)
		for _ in range(10):
			with Wire(port) as c:
				c.start()
				c.sock.sendall(b"MAIL FROM:<a@remote.test>\r\nRCPT TO:<b@example.test>\r\n")
				t.ok(server.asked.acquire(timeout=tap.PATIENCE), "MAIL has come")
				reset(c.sock)
				c.file.close()
		server.may.set()
		rigs.wait_for("the sessions' end", lambda: sessions() == 0, alive=p)
		t.ok(True, "a client and its next server gone: no session is left")
		spread(t, p.pid, port)
		t.equal(rig.end("mailwald"), 0, "exit status")


def watched(pid):
	"""How many descriptors each of its threads waits for."""
	out = {}
	for fd in os.listdir(f"/proc/{pid}/fd"):
		try:
			if "eventpoll" in os.readlink(f"/proc/{pid}/fd/{fd}"):
				out[fd] = pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text(
					encoding="ascii").count("tfd:")
		except OSError:
			pass  # closed meanwhile
	return out


def at_rest(pid):
	"""The same, once it has not changed for half a second."""
	last, since = None, 0
	end = time.monotonic() + tap.PATIENCE
	while time.monotonic() < end and (last is None or time.monotonic() < since + 0.5):
		now = watched(pid)
		if now != last:
			last, since = now, time.monotonic()
		time.sleep(0.05)
	return last


def spread(t, pid, port):
	"""Clients that come one by one, as those of an idle host do, and stay."""
	threads, before, clients = min(os.sysconf("SC_NPROCESSORS_ONLN"), 4), at_rest(pid), []
	for _ in range(40):
		clients.append(Wire(port))
		clients[-1].start()

	def news():
		return sorted(n - before.get(fd, 0) for fd, n in at_rest(pid).items())[-threads:]
	end, more = time.monotonic() + tap.PATIENCE, news()
	while sum(more) < 80 and time.monotonic() < end:
		more = news()
	for c in clients:
		c.file.close()
		c.sock.close()
	t.equal(sum(more), 80, "40 clients and as many connections to the next server")
	t.ok(more[0] >= 40 // threads, f"they are spread over {threads} threads", more)


def main(t):
	rig = rigs.Rig(t.sub("hostile"))
	smtp_port, lmtp_port = rigs.free_ports(2)
	plain, lmtp = Next(False), Next(True)
	rig.configure(conf="proxy_timeout = 20s\nproxy_keep_next = 0\n"
			   f"proxy_listen = smtp:inet:127.0.0.1:{smtp_port}->inet:127.0.0.1:{plain.port}, "
			   f"lmtp:inet:127.0.0.1:{lmtp_port}->inet:127.0.0.1:{lmtp.port}\n")
	rig.mailwal("init", rig.journal)
	with rig, plain, lmtp:
		p = rig.start_mailwald()
		for port in (smtp_port, lmtp_port):
			rigs.wait_for("the proxy", lambda port=port: rigs.connects(port), alive=p)
		many(t, rig, smtp_port, plain)
		many(t, rig, lmtp_port, lmtp)
		dies_between_replies(t, lmtp_port, lmtp)
		dawdles(t, lmtp_port, lmtp)
		floods(t, rig, lmtp_port, lmtp)
		breaks_off(t, rig, smtp_port, plain)
		babbles(t, smtp_port, plain)
		descriptors(t, rig, smtp_port, plain)
		t.equal(rig.end("mailwald"), 0, "exit status")
	both_gone(t)


tap.run(main)
