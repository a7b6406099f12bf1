#!/usr/bin/python3
"""SIGHUP with every option of conf/options.def changed in turn, while mail comes through real
Postfix: what the table says takes effect on reload is taken, all else is refused by name with
the advice to restart; no mail is lost or refused by that. What each does once it is taken is
looked at in reload_effects_test.py."""
# MW_TEST_COST 8

import os
import pathlib
import re
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import smtp
import tap

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANNA = "anna@example.test"
ROW = re.compile(r'MW_OPT\("(\w+)", (\w+), \w+, "([^"]*)",\s*"([^"]*)", "([^"]*)", (\w+)')
# Values by type that are neither the default nor what the rig has, and let mail pass.
OTHER = {"STRING": "other", "PATH": "/nonexistent/journal", "INT": "7", "SIZE": "16M",
	 "DURATION": "7s", "LIST": "other.test"}
BY_NAME = {"milter_listen": "inet:127.0.0.1:1", "metrics_listen": "inet:127.0.0.1:1",
	   "proxy_listen": "smtp:inet:127.0.0.1:1->inet:127.0.0.1:2", "min_free": "2M",
	   "recipient_delimiter": "-", "memory_limit": "300M", "commit_gather": "7ms",
	   "message_limit": "50M", "checkpoint_file": "/nonexistent/checkpoint",
	   "checkpoint_command": "/bin/true", "spf_rec_domain": "mx.other.test",
	   "milter_socket_mode": "0600", "log_level": "debug", "mailbox_name": "%u@%d"}


def options(rig):
	"""(name, another value, whether a reload takes it)"""
	own = {"identities": f"virtual:{rig.run}/virtual2", "recovery_key": f"{rig.run}/key.pub"}
	for name, kind, default, low, high, flags in ROW.findall(
			(ROOT / "conf/options.def").read_text(encoding="utf-8")):
		value = own.get(name) or BY_NAME.get(name, OTHER.get(kind))
		if kind == "BOOL":
			value = "no" if default == "yes" else "yes"
		elif kind == "ENUM" and name not in BY_NAME:
			value = [w for w in high.split("|") if w != default][-1]
		yield name, value, flags == "RELOAD"


class Sender(threading.Thread):
	"""Message after message, each on a session of its own, until it is ended."""

	def __init__(self, rig):
		super().__init__(daemon=True)
		self.rig, self.ended, self.answers = rig, threading.Event(), []

	def run(self):
		while not self.ended.is_set():
			self.answers.append(one(self.rig, f"s{len(self.answers)}"))


def one(rig, name, rcpts=(ANNA,)):
	"""(code, queue ID, text)"""
	data = f"From: w@remote.test\r\nMessage-ID: <{name}@remote.test>\r\n\r\nbody {name}\r\n"
	try:
		with smtp.Client(rig.smtp_port) as c:
			got = c.mail(data.encode(), "w@remote.test", rcpts)
			c.quit()
	except smtp.SmtpError as e:
		return e.code, "", str(e)
	return got[0], smtp.queue_id(got), got[1]


def reload(rig, base, line):
	"""What mailwald says to it: one line of its log."""
	def said():
		return [x for x in rig.mailwald_log().splitlines()
			if "event=reloaded" in x or "event=reload_refused" in x]

	before = len(said())
	text = "\n".join(x for x in base.splitlines()
			 if x.split(" = ")[0] not in {y.split(" = ")[0] for y in line.splitlines()})
	pathlib.Path(rig.conf).write_text(text + "\n" + line + "\n", encoding="utf-8")
	rig.procs["mailwald"].send_signal(signal.SIGHUP)
	rigs.wait_for(f"the reload with {line}", lambda: len(said()) > before,
		      alive=rig.procs["mailwald"])
	return said()[-1]


def every_option(t, rig, base):
	bad, n = [], 0
	pathlib.Path(rig.run, "virtual2").write_text("", encoding="utf-8")
	r = rig.mailwal("keys", "new", "--out", f"{rig.run}/key", "--on-this-host")
	t.need(r.rc == 0, "a recovery key")
	for name, value, may in options(rig):
		n += 1
		got = reload(rig, base, f"{name} = {value}")
		if may != ("event=reloaded" in got):
			bad.append(f"{name} = {value}: {got}")
		elif not may and not (f"{name} cannot change while mailwald runs" in got
				      and 'hint="restart mailwald' in got):
			bad.append(f"{name} = {value}: is not named: {got}")
		got = reload(rig, base, "")
		if "event=reloaded" not in got:
			bad.append(f"{name} taken back: {got}")
	t.ok(n > 50 and not bad, f"each of {n} options is taken, or refused by its name",
	     "\n".join(bad))


def main(t):
	with rigs.Rig(t.sub("rig"), postfix="virtual_transport = discard:",
		      users=(ANNA, "bert@example.test"), aliases={}) as rig:
		rig.mailwal("init", rig.journal)
		rig.start_mailwald()
		rig.start_postfix()
		base = pathlib.Path(rig.conf).read_text(encoding="utf-8")
		sender = Sender(rig)
		sender.start()
		every_option(t, rig, base)
		sender.ended.set()
		sender.join()
		rows = [o["queue_id"] for o in rig.journaled()]
		bad = [a for a in sender.answers if a[0] != 250 or rows.count(a[1]) != 1]
		t.ok(len(sender.answers) > 20 and not bad,
		     f"meanwhile {len(sender.answers)} messages: each is taken, and there once", bad[:5])
		r = rig.mailwal("verify")
		t.ok(r.rc == 0, "verify", r)


tap.run(main)
