#!/usr/bin/python3
"""mailwald is replaced again and again while mail comes in through real Postfix: with its
socket held by the service manager, and by a new process that takes over from the old one.
No new session is refused, and nothing that was acknowledged is missing.

MW_RESTARTS: how often, for each way (5)."""
# MW_TEST_COST 50

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import smtp
import tap

RESTARTS = int(os.environ.get("MW_RESTARTS", "5"))


class Held(rigs.Rig):
	"""The milter's socket belongs to us, as it would to systemd."""

	held = None

	def start_mailwald(self):
		if self.held is None:
			self.held = socket.socket(socket.AF_UNIX)
			self.held.bind(self.milter_sock)
			os.chmod(self.milter_sock, 0o666)
			self.held.listen(1024)
		fd = self.held.fileno()
		p = self.spawn("mailwald", ["/bin/sh", "-c", f'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 '
					    'exec "$0" "$@"', self.mailwald_bin, "-c", self.conf],
			       pass_fds=[fd])
		return p

	def replace(self):
		self.end("mailwald")
		self.start_mailwald()


class Taken(rigs.Rig):
	"""A new process takes over from the one that runs."""

	def replace(self):
		old = self.procs.pop("mailwald")
		new = self.spawn("mailwald", [self.mailwald_bin, "-u", "-c", self.conf])
		began = time.monotonic()
		old.wait(tap.PATIENCE)
		if old.returncode or new.poll() is not None:
			raise rigs.RigError(f"old: {old.returncode}, new: {new.poll()}, after "
					    f"{time.monotonic() - began:.1f} s")


class ProxyLoad:
	"""Clients of a proxy, each message with a name of its own."""

	def __init__(self, port):
		self.port, self.stop, self.lock = port, threading.Event(), threading.Lock()
		self.jobs = {"new": [], "kept": []}
		self.threads = [threading.Thread(target=self.work, args=a, daemon=True)
				for a in (("new", 3, 1), ("kept", 1, 100000))]
		for t in self.threads:
			t.start()

	def source(self, kind):
		while not self.stop.is_set():
			n = len(self.jobs[kind])
			data = (f"Message-ID: <{kind}{n}@proxy.test>\r\nSubject: {kind}\r\n\r\n"
				f"{'x' * 3000}\r\n").encode()
			job = smtp.Job(data, "proxy@else.test", ["anna@example.test"],
				       mode="BDAT" if n % 2 else "DATA")
			job.name = f"<{kind}{n}@proxy.test>"
			self.jobs[kind].append(job)
			yield job

	def work(self, kind, sessions, each):
		smtp.send_all(self.source(kind), lambda j: self.port, None, sessions=sessions,
			      per_connection=each)

	def done(self, n):
		"""Enough of each kind for the n-th change?"""
		new, kept = (sum(j.code is not None for j in self.jobs[k]) for k in ("new", "kept"))
		return new > 6 * n and kept > 2 * n

	def check(self, t, name, rig):
		self.stop.set()
		for th in self.threads:
			th.join(tap.PATIENCE)
		new, kept = ([j for j in self.jobs[k] if j.code is not None]
			     for k in ("new", "kept"))
		refused = [(j.code, j.text) for j in new if j.code != 250]
		t.ok(len(new) > 5 * RESTARTS and not refused,
		     f"{name}: {len(new)} new sessions of a proxy, none refused", refused[:5])
		odd = [(j.code, j.text) for j in kept if j.code not in (250, 421)]
		again = sum(j.code != 250 for j in kept)
		t.ok(len(kept) > RESTARTS and not odd and again <= 2 * RESTARTS,
		     f"{name}: a kept one is told to come back at worst ({again} of {len(kept)})",
		     odd[:5])
		acked = {j.name for j in new + kept if j.code == 250}
		rows = [o["message_id"] for o in rig.journaled("--sender", "proxy@else.test")]
		t.ok(acked <= set(rows), f"{name}: what a proxy acknowledged is journaled",
		     sorted(acked - set(rows))[:5])
		t.ok(len(rows) == len(set(rows)), f"{name}: once", len(rows) - len(set(rows)))
		rig.wait_queue()
		box = {n.decode() for m in mailbox.dump(rig).get(("anna@example.test", "INBOX"), [])
		       for n in re.findall(rb"^Message-ID: *(<\S+>)", m.data, re.M)}
		t.ok(acked <= box, f"{name}: and delivered", sorted(acked - box)[:5])


class Load:
	"""Mail without end, from sessions for one message each and from sessions that stay."""

	def __init__(self, rig):
		self.rig, self.stop = rig, threading.Event()
		self.jobs, self.lock = {"new": [], "kept": []}, threading.Lock()
		self.threads = [threading.Thread(target=self.work, args=a, daemon=True)
				for a in (("new", 4, 1), ("kept", 1, 100000))]
		for t in self.threads:
			t.start()

	def source(self, kind):
		while not self.stop.is_set():
			data = f"Subject: {kind} {len(self.jobs[kind])}\r\n\r\n{'x' * 3000}\r\n"
			user = self.rig.users[len(self.jobs[kind]) % len(self.rig.users)]
			job = smtp.Job(data.encode(), "load@else.test", [user])
			self.jobs[kind].append(job)
			yield job

	def work(self, kind, sessions, each):
		self.rig.send(self.source(kind), sessions=sessions, per_connection=each)

	def end(self):
		self.stop.set()
		for t in self.threads:
			t.join(tap.PATIENCE)

	def done(self, kind):
		return [j for j in self.jobs[kind] if j.code is not None]


def slow_sessions(t, rig, name):
	"""A session that has said EHLO, and one that has told its envelope, when the change
	comes, and go on a second later. They have three seconds: where this took longer, on a busy
	machine, it says nothing."""
	for _ in range(10):
		got, took = slow_ones(rig)
		if took < 2.5:
			break
		t.note(f"{name}: slow sessions took {took:.1f} s: {got}")
	t.ok(got == {"ehlo": 250, "envelope": 250} or took >= 2.5,
	     f"{name}: slow sessions that had begun are served to their end", got)


def slow_ones(rig):
	"""What they are told, and how long the slower one took from the change on."""
	got, ended = {}, []
	ehlo, told = smtp.Client(rig.smtp_port), smtp.Client(rig.smtp_port)
	told.cmd(b"MAIL FROM:<slow@else.test>", 250)
	told.cmd(b"RCPT TO:<anna@example.test>", 250)

	def go_on():
		time.sleep(1)
		try:
			got["ehlo"] = ehlo.mail(b"Subject: a\r\n\r\na\r\n", "slow@else.test",
						["anna@example.test"])[0]
			told.cmd(b"DATA", 354)
			told.send(b"Subject: b\r\n\r\nb\r\n.\r\n")
			got["envelope"] = told.reply()[0]
		except smtp.SmtpError as e:
			got["error"] = (e.code, e.text, e.where)
		ended.append(time.monotonic())

	began = time.monotonic()
	thread = threading.Thread(target=go_on, daemon=True)
	thread.start()
	rig.replace()
	thread.join(tap.PATIENCE)
	ehlo.quit()
	told.quit()
	return got, (ended or [time.monotonic()])[0] - began


def one(t, kind, name):
	with kind(t.sub(name), postfix="smtpd_client_connection_count_limit = 0") as rig:
		proxy, back = rigs.free_ports(2)
		if kind is Taken:
			rig.configure(conf=f"proxy_listen = smtp:inet:127.0.0.1:{proxy}"
					   f"->inet:127.0.0.1:{back}",
				      master=f"127.0.0.1:{back} inet n - n - - smtpd\n"
					     "  -o smtpd_milters=\n")
		rig.start()
		if kind is Taken:
			rigs.wait_for("the proxy and its next server",
				      lambda: rigs.connects(proxy) and rigs.connects(back))
		load = Load(rig)
		relayed = ProxyLoad(proxy) if kind is Taken else None
		slowest = 0.0
		for k in range(1, RESTARTS + 1):
			rigs.wait_for("load", lambda n=k: len(load.done("new")) > 12 * n and len(
				load.done("kept")) > 4 * n and (not relayed or relayed.done(n)))
			began = time.monotonic()
			starts = rig.mailwald_log().count("event=start ")
			rig.replace()
			rigs.wait_for("the daemon", lambda: rig.mailwald_log().count(
				"event=start ") > starts)
			slowest = max(slowest, time.monotonic() - began)
		slow_sessions(t, rig, name)
		load.end()
		if relayed:
			relayed.check(t, name, rig)
		new, kept = load.done("new"), load.done("kept")
		refused = [(j.code, j.text) for j in new if j.code != 250]
		t.note(f"{name}: {RESTARTS} restarts, {len(new)} new sessions, {len(kept)} messages "
		       f"in kept ones, slowest change {slowest:.1f} s")
		t.ok(len(new) > 10 * RESTARTS and len(kept) > 3 * RESTARTS, f"{name}: there was load")
		t.ok(not refused, f"{name}: no new session was refused",
		     f"{len(refused)} of {len(new)}: {refused[:5]}")
		odd = [(j.code, j.text) for j in kept if j.code not in (250, 421, 451)]
		t.ok(not odd, f"{name}: a kept session is told to come back at worst", odd[:5])
		again = sum(1 for j in kept if j.code != 250)
		t.ok(again <= 4 * RESTARTS, f"{name}: and only around a restart", again)
		acked = {j.queue_id for j in new + kept if j.code == 250}
		have = {o["queue_id"] for o in rig.journaled()}
		t.ok(acked and not acked - have, f"{name}: everything acknowledged is journaled",
		     sorted(acked - have)[:5])
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, f"{name}: the journal is whole", r)


def second_instance(t):
	"""Without -u a second instance is refused, and -u needs one that runs to take over."""
	with rigs.Rig(t.sub("second"), mailwald=True) as rig:
		rig.mailwal("init", rig.journal)
		p = subprocess.Popen([rig.mailwald_bin, "-u", "-c", rig.conf],
				     stderr=subprocess.DEVNULL)
		try:
			rigs.wait_for("mailwald", lambda: rigs.connects(rig.milter_sock), alive=p)
			t.ok(True, "-u starts where none runs")
			q = subprocess.run([rig.mailwald_bin, "-c", rig.conf], capture_output=True,
					   timeout=tap.PATIENCE, check=False, text=True)
			t.ok(q.returncode == 75 and "in use by process" in q.stderr,
			     "without it a second instance is refused", q)
			t.ok(rigs.connects(rig.milter_sock), "and the first one goes on")
		finally:
			p.send_signal(signal.SIGTERM)
			t.equal(p.wait(tap.PATIENCE), 0, "exit status of the first")
		t.ok(not os.path.exists(rig.milter_sock), "its socket went with it")


def main(t):
	one(t, Held, "held")
	one(t, Taken, "taken over")
	second_instance(t)


tap.run(main, seconds=max(tap.LIMIT, 60 + 30 * RESTARTS))
