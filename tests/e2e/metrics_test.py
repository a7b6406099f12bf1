#!/usr/bin/python3
"""Prometheus metrics of a mailwald behind real Postfix: over TCP and a unix socket, counting what
was journaled, a refused reload, a drill; bad requests disturb nothing."""

import http.client
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
import workload


class Unix(http.client.HTTPConnection):
	def __init__(self, path):
		super().__init__("localhost", timeout=tap.PATIENCE)
		self.path = path

	def connect(self):
		self.sock = socket.socket(socket.AF_UNIX)
		self.sock.settimeout(tap.PATIENCE)
		self.sock.connect(self.path)


def ask(where, method="GET", url="/metrics", body=None):
	c = Unix(where) if isinstance(where, str) else http.client.HTTPConnection(
		"127.0.0.1", where, timeout=tap.PATIENCE)
	c.request(method, url, body=body)
	r = c.getresponse()
	data = r.read().decode()
	c.close()
	return r.status, r.getheader("Content-Type"), data


def values(where):
	"""{"name{labels}": number} of a scrape."""
	return {m[1]: float(m[2]) for m in re.finditer(
		r"(?m)^(\w+(?:\{[^}]*\})?) (\S+)$", ask(where)[2])}


def hostile(t, where):
	"""Garbage, silence and a crowd at the port; a scrape still comes back at once."""
	socks = []
	for data in (b"", b"GET", b"\0" * 5000, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
		     b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nxxx"):
		s = socket.create_connection(("127.0.0.1", where), timeout=tap.PATIENCE)
		try:
			s.sendall(data)
		except OSError:
			pass
		socks.append(s)
	t.equal([ask(where, *a)[0] for a in (("POST", "/metrics", "x"), ("GET", "/"),
		("GET", "/../etc/passwd"), ("HEAD", "/metrics"))], [405, 404, 404, 200],
		"other requests get their answers")
	start = time.monotonic()
	t.ok(ask(where)[0] == 200 and time.monotonic() - start < 60,
	     "a scrape is answered beside five that hang")
	for s in socks:
		s.close()


def by_commands(t, rig, port, jobs):
	"""What commands find and do, and what stands on the disk."""
	v = values(port)
	t.ok(not [k for k in v if re.match("mailwal_(verify|audit|prune)", k)],
	     "commands that never ran: nothing", v)
	t.equal(v.get("mailwal_holds"), 0, "a new journal has no holds")
	t.equal((v["mailwal_recipients_total"], v["mailwal_erased_records_total"]),
		(sum(len(j.rcpts) for j in jobs), 0), "recipients are counted")
	seg = os.path.join(rig.journal, "segments")
	t.equal(v["mailwal_segments"], sum(n.endswith(".seg") for n in os.listdir(seg)), "segments")
	t.ok(v['mailwal_journal_bytes{kind="segments"}'] >= v["mailwal_stored_bytes_total"] / 2
	     and v['mailwal_journal_bytes{kind="index"}'] > 0, "their size, and the index's", v)
	for words in ("add one --sender", "add two --sender", "rm one"):
		r = rig.mailwal("hold", *words.split(), *(["x@nobody.test"] if "add" in words else []))
		t.need(r.rc == 0, f"hold {words}", r)
	r = rig.mailwal("--json", "erase", "--user", rig.users[1], "--yes")
	t.need(r.rc == 0 and r.summary["erased"] > 0, "an erasure", r)
	t.equal(rig.mailwal("verify").rc, 0, "verify")
	t.equal(rig.mailwal("audit", f"{rig.run}/maillog").rc, 0, "audit")
	t.equal(rig.mailwal("prune", "--yes").rc, 0, "prune")
	v = values(port)
	t.equal([v.get("mailwal_" + k) for k in ("holds", "verify_last_success",
						 "verify_findings", "audit_last_success",
						 "audit_holes", "prune_last_messages")],
		[1, 1, 0, 1, 0, 0], "holds, verify, audit, prune")
	t.ok(v["mailwal_erased_records_total"] >= r.summary["erased"], "what was erased is counted",
	     (v["mailwal_erased_records_total"], r))
	t.ok(all(abs(v[f"mailwal_{k}_last_run_timestamp_seconds"] - time.time()) < 300
		 for k in ("verify", "audit", "prune")), "and when", v)
	t.equal(rig.mailwal("audit", rig.conf).rc, 65, "an audit that cannot be done")
	v = values(port)
	t.ok(v["mailwal_audit_last_success"] == 0 and "mailwal_audit_holes" not in v,
	     "is told as that", v)


def crowd(t, where):
	"""Forty that say a little now and then, so that none of them is ever silent for long."""
	socks, stop = [], threading.Event()
	for _ in range(40):
		socks.append(socket.create_connection(("127.0.0.1", where), timeout=tap.PATIENCE))
		socks[-1].sendall(b"GET /metrics HTTP/1.1\r\nX: ")

	def drip():
		while not stop.wait(1):
			for s in socks:
				try:
					s.sendall(b"y")
				except OSError:
					pass
	th = threading.Thread(target=drip)
	th.start()
	try:
		t.equal([ask(where)[0] for _ in range(3)], [200] * 3, "scrapes are answered beside forty that drip")
	except OSError as e:
		t.ok(False, "scrapes are answered beside forty that drip", e)
	stop.set()
	th.join()
	for s in socks:
		s.close()


def silent(t, rig):
	"""More silent connections to the control socket than it has places: status comes at once."""
	socks = []
	for _ in range(18):
		s = socket.socket(socket.AF_UNIX)
		s.connect(os.path.join(rig.journal, "control.sock"))
		s.settimeout(tap.PATIENCE)
		socks.append(s)
	r = rig.mailwal("status", "--json")
	t.ok('"daemon_running":true' in r.out, "status beside eighteen silent connections", r)
	t.equal(socks[0].recv(1), b"", "the oldest gave way")
	for s in socks:
		s.close()


def upgrade(t, rig, port):
	"""A new mailwald takes over (mailwald -u), its metrics too."""
	before = values(port)["mailwal_start_time_seconds"]
	old = rig.procs.pop("mailwald")
	rig.spawn("mailwald", [rig.mailwald_bin, "-u", "-c", rig.conf])

	def taken():
		try:
			return values(port)["mailwal_start_time_seconds"] > before
		except (OSError, KeyError, http.client.HTTPException):
			return False
	rigs.wait_for("the new mailwald's metrics", taken)
	t.equal(old.wait(tap.PATIENCE), 0, "an upgrade: the new one answers, the old one ended with")


def main(t):
	port = rigs.free_ports(1)[0]
	with rigs.Rig(t.dir, conf=f"metrics_listen = inet:127.0.0.1:{port}") as rig:
		rig.start()
		rigs.wait_for("the metrics' port", lambda: rigs.connects(port))
		status, kind, text = ask(port)
		t.ok(status == 200 and kind.startswith("text/plain; version=0.0.4")
		     and "mailwal_drill" not in text, "metrics are there", f"{status} {kind}")
		jobs = workload.jobs(workload.fixtures(), rig.users, rig.aliases, seed=4)
		rig.send(jobs, clock=time.time)
		n = len(jobs)
		rigs.wait_for("the counters", lambda: values(port)[
			"mailwal_commit_wait_seconds_count"] >= n or any(j.code != 250 for j in jobs))
		v = values(port)
		t.need(all(j.code == 250 for j in jobs), f"{n} messages accepted")
		t.equal((v['mailwal_messages_total{result="journaled"}'],
			 v["mailwal_commit_wait_seconds_count"],
			 v["mailwal_sequence_number"] >= n), (n, n, True), "all of them are counted")
		t.ok(abs(v["mailwal_last_message_timestamp_seconds"] - time.time()) < 300
		     and v["mailwal_ready"] == 1 and v["mailwal_config_reload_success"] == 1,
		     "newest message, readiness, settings", v)
		by_commands(t, rig, port, jobs)
		hostile(t, port)
		crowd(t, port)
		silent(t, rig)
		r = rig.mailwal("--json", "drill", "run", "--sample", "10")
		v = values(port)
		t.ok(r.rc == 0 and v["mailwal_drill_last_success"] == 1
		     and v["mailwal_drill_restored_messages"] == r.summary["copies"]["restored"] >= 10
		     and v["mailwal_drill_mismatches"] == 0 and v["mailwal_drill_rto_seconds"] > 0
		     and abs(v["mailwal_drill_last_run_timestamp_seconds"] - time.time()) < 300,
		     "the drill is told", f"{r}\n{v}")
		good = pathlib.Path(rig.conf).read_text(encoding="utf-8")
		pathlib.Path(rig.conf).write_text(good + "nonsense = 1\n", encoding="utf-8")
		rig.procs["mailwald"].send_signal(signal.SIGHUP)
		rigs.wait_for("the refused reload in the metrics",
			      lambda: values(port)["mailwal_config_reload_success"] == 0)
		t.ok(True, "a refused reload is told")
		pathlib.Path(rig.conf).write_text(good, encoding="utf-8")
		upgrade(t, rig, port)
		rig.end("mailwald")
		with socket.create_server(("127.0.0.1", port)):
			rig.start_mailwald()
			late = workload.Mail("late", jobs[0].data, "w@remote.test", [rig.users[0]],
					     {}, rig.users)
			rig.send([late], clock=time.time)
			t.equal(late.code, 250, "a port in use keeps no mail away")
			rig.end("mailwald")
		unix = f"{rig.run}/metrics.sock"
		pathlib.Path(rig.conf).write_text(good.replace(f"inet:127.0.0.1:{port}", f"unix:{unix}"),
						  encoding="utf-8")
		rig.start_mailwald()
		rigs.wait_for("the metrics' socket", lambda: rigs.connects(unix))
		t.equal(ask(unix)[0], 200, "over a unix socket")
		t.equal(oct(os.stat(unix).st_mode & 0o777), "0o660", "its mode")
		rig.end("mailwald")
		t.ok(not os.path.exists(unix), "the socket is gone afterwards")
		for place, code, word in (("inet:0.0.0.0:0", 78, "not on this host"),
					  ("nowhere", 78, "metrics_listen")):
			pathlib.Path(rig.conf).write_text(
				good.replace(f"inet:127.0.0.1:{port}", place), encoding="utf-8")
			p = rig.spawn("refused", [rig.mailwald_bin, "-c", rig.conf])
			rc = p.wait(tap.PATIENCE)
			log = pathlib.Path(rig.dir, "refused.log").read_text(encoding="utf-8")
			t.ok(rc == code and word in log, f"metrics_listen = {place}: exit {code}", log)


tap.run(main)
