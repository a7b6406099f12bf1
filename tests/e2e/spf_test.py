#!/usr/bin/python3
"""SPF beside the mail: verdicts are journaled, and nothing that DNS, a helper or a sender
does delays or fails a message."""
# MW_TEST_COST 20

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import alone
import milterclient
import rig as rigs
import spfhelper
import tap

ZONE = """\
pass.test TXT v=spf1%20ip4:192.0.2.0/24%20ip6:2001:db8::/32%20-all
fail.test TXT v=spf1%20-all%20exp=why.fail.test
why.fail.test TXT go%_away
soft.test TXT v=spf1%20~all
helo.test TXT v=spf1%20a%20-all
helo.test A 192.0.2.1
time.test TXT !timeout
hang.test TXT !hang
crash.test TXT !crash
loop.test TXT v=spf1%20include:loop.test%20-all
"""


class Daemon(alone.Alone):
	"""mailwald with a helper that reads a zone file."""

	def __init__(self, directory, zone, *settings):
		here = pathlib.Path(directory)
		(here / "zone").write_text(zone, encoding="ascii")
		program = here / "mailwald"
		shutil.copy(rigs.find_program("mailwald"), program)
		helper = here / "mailwald-spf"
		# runs as nobody after it has read the zone; this script is gone by then
		helper.write_text(f"#!/bin/sh\nexec '{spfhelper.program()}' --zone '{here}/zone' \"$@\"\n",
				  encoding="ascii")
		helper.chmod(0o755)
		super().__init__(directory, "log_level = debug", *settings, program=program)

	def out(self, *args):
		rc, out, err = self.mailwal(*args)
		assert rc == 0, err
		return out

	def helpers(self):
		out = []
		for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
			try:
				stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
			except OSError:
				continue
			if int(stat.rsplit(")", 1)[1].split()[1]) == self.proc.pid:
				out.append(pid)
		return out

	def send(self, queue_id, sender, addr="192.0.2.1", helo="helo.test"):
		return self.mail(queue_id, sender=sender, addr=addr, helo=helo)

	def verdict(self, queue_id, seconds=tap.PATIENCE):
		end = time.monotonic() + seconds
		while True:
			o = self.show(queue_id)
			if "spf" in o or time.monotonic() > end:
				return o.get("spf", {})
			time.sleep(0.1)


def results(t):
	cases = [  # sender, client, HELO, what it must be
		("a@pass.test", "192.0.2.1", "x.test", "pass"),
		("a@pass.test", "198.51.100.1", "x.test", "fail"),
		("a@pass.test", "2001:db8::7", "x.test", "pass"),
		("a@pass.test", "2001:db9::7", "x.test", "fail"),
		("a@fail.test", "192.0.2.1", "x.test", "fail"),
		("a@soft.test", "192.0.2.1", "x.test", "softfail"),
		("a@nothing.test", "192.0.2.1", "x.test", "none"),
		("a@time.test", "192.0.2.1", "x.test", "temperror"),
		("a@loop.test", "192.0.2.1", "x.test", "permerror"),
		("", "192.0.2.1", "helo.test", "pass"),
		("", "192.0.2.2", "helo.test", "fail"),
		("a@" + "x" * 2000 + ".test", "192.0.2.1", "x.test", "none"),
		("a@%{i}%n\x01\xff.test", "192.0.2.1", "[192.0.2.1]", "none"),
	]
	with Daemon(t.sub("results"), ZONE, "spf = yes") as d:
		for i, (sender, addr, helo, want) in enumerate(cases):
			d.send(f"R{i}", sender, addr, helo)
		for i, (sender, addr, _, want) in enumerate(cases):
			v = d.verdict(f"R{i}")
			t.equal(v.get("result"), want, f"<{sender[:30]!a}> from {addr}")
		v = d.verdict("R4")
		t.equal((v.get("ip"), v.get("from"), v.get("record"), v.get("explanation"),
			 v.get("library")),
			("192.0.2.1", "a@fail.test", "v=spf1 -all exp=why.fail.test", "go away",
			 "libspf2 1.2.10"), "the verdict holds what it was made from")
		text = d.out("show", "R0")
		t.ok("\nspf           pass (" in text, "show tells the verdict", text)
		uids = {line for pid in d.helpers()
			for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
			if line.startswith(("Uid:", "NoNewPrivs:", "Seccomp:", "CapEff:"))}
		t.equal(uids, {"Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "Seccomp:\t2",
			       "CapEff:\t0000000000000000"}, "helpers are locked in")
		rows = {o["queue_id"]: o for o in map(json.loads, d.out(
			"list", "--all", "--json").splitlines())}
		t.equal([rows[f"R{i}"].get("spf", {}).get("result") for i in range(len(cases))],
			[c[3] for c in cases], "list --json has the verdicts")
		d.send("L1", "a@pass.test", "127.0.0.1")
		d.send("L2", "a@pass.test", "::1")
		d.send("L3", "a@pass.test")
		d.verdict("L3")
		t.ok(not d.verdict("L1", 0) and not d.verdict("L2", 0), "mail from here is not checked")
		rigs.wait_for("the count", lambda: d.status()["spf_checked"] > len(cases))
		checked = d.status()["spf_checked"]
	t.equal(d.ended, 0, "a clean end")
	t.equal(checked, len(cases) + 1, "verdicts counted")
	out = subprocess.run([rigs.find_program("mailwal"), "-c", d.conf, "verify"],
			     stdout=subprocess.PIPE, timeout=tap.PATIENCE)
	t.equal(out.returncode, 0, "the journal verifies")


def many(t):
	"""list --json changes its way of looking up verdicts with the number of messages."""
	n = 150
	with Daemon(t.sub("many"), ZONE, "spf = yes") as d:
		senders = ("a@pass.test", "a@fail.test", "a@soft.test")
		for i in range(n):
			d.send(f"M{i}", senders[i % 3])
		d.verdict(f"M{n - 1}")
		rigs.wait_for("verdicts", lambda: d.status()["spf_checked"] == n)
		for what in ("with", "without"):
			got = [(int(o["queue_id"][1:]), o.get("spf", {}).get("result")) for o in
			       map(json.loads, d.out("list", "--all", "--json").splitlines())]
			t.equal(sorted(got) == [(i, ("pass", "fail", "softfail")[i % 3]) for i in range(n)],
				True, f"list --json of {n} messages, {what} the index")
			if what == "with":
				index = d.journal / "index"
				os.rename(index, d.dir / "index.away")
		t.ok(d.status()["batches"] < 2 * n, "verdicts share syncs", d.status()["batches"])


def encrypted(t):
	"""A verdict names sender and client: it is encrypted like the mail."""
	key = os.path.join(t.dir, "key")
	subprocess.run([rigs.find_program("mailwal"), "keys", "new", "--out", key,
			"--on-this-host"], check=True,
		       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=tap.PATIENCE,
		       env={**os.environ, "MAILWAL_CONFIG": "/dev/null"})
	with Daemon(t.sub("encrypted"), ZONE, "spf = yes", f'recovery_key = "{key}.pub"') as d:
		d.send("E", "a@pass.test")
		rigs.wait_for("a verdict", lambda: d.status()["spf_checked"] == 1)
		text = d.out("status")
		t.ok("SPF: 1 checked, 0 not" in text, "status counts", text)
	t.ok(not any(b"pass.test" in p.read_bytes() for p in d.journal.rglob("*") if p.is_file()),
	     "nothing of it can be read in the journal")
	o = json.loads(d.out("--key", key, "show", "E", "--json"))
	t.equal(o.get("spf", {}).get("result"), "pass", "and with the key it can")


def slow(t):
	"""4.9 s per answer, a helper that hangs, one that crashes, one that is killed."""
	with Daemon(t.sub("slow"), "@latency 4900\n" + ZONE, "spf = yes", "spf_timeout = 60s") as d:
		d.send("W", "a@pass.test")  # warm
		took = sorted(d.send(f"S{i}", "a@pass.test") for i in range(30))
		v = d.verdict("W")
		t.ok(v.get("result") == "pass" and v.get("duration_ms", 0) >= 4800,
		     "a slow answer is an answer", v)
		t.ok(took[15] < 4.5, "slow DNS does not delay the answer", took)

	with Daemon(t.sub("bad"), ZONE, "spf = yes", "spf_timeout = 6s") as d:
		took = [d.send(f"H{i}", "a@hang.test") for i in ("", 2)]
		d.send("C", "a@crash.test")
		t.equal(d.verdict("H").get("result"), "temperror", "a helper that hangs")
		t.equal(d.verdict("C").get("result"), "temperror", "a helper that crashes")
		d.send("P", "a@pass.test")
		t.equal(d.verdict("P").get("result"), "pass", "after it another helper answers")
		d.send("K0", "a@pass.test")
		d.verdict("K0")
		for i in range(4):  # every helper has a question when it dies
			d.send(f"K{i + 1}", "a@hang.test")
		rigs.wait_for("four helpers", lambda: len(d.helpers()) == 4)
		time.sleep(0.3)
		for pid in d.helpers():
			with contextlib.suppress(ProcessLookupError):
				os.kill(pid, signal.SIGKILL)
		got = {d.verdict(f"K{i + 1}").get("result") for i in range(4)}
		t.equal(got, {"temperror"}, "helpers that were killed")
		d.send("Q", "a@pass.test")
		t.equal(d.verdict("Q").get("result"), "pass", "and then others answer")
		t.ok(min(took) < 5, "no answer waited for a helper", took)
		t.ok(d.status()["spf_helper_deaths"] >= 6, "deaths are counted", d.status())
	t.equal(d.ended, 0, "a clean end with helpers")


def burst(t):
	"""Far more mail than checks that hang: the queue is bounded, mail is not disturbed."""
	n = 2300
	with Daemon(t.sub("burst"), "hang.test TXT !hang\n", "spf = yes", "spf_timeout = 10min") as d:
		c = milterclient.Conn(d.sock)
		began = time.monotonic()
		for i in range(n):
			c.envelope(f"B{i}", sender="a@hang.test", connect=i == 0)
			assert c.end() == b"c"
		rate = n / (time.monotonic() - began)
		c.sock.close()
		s = d.status()
		t.equal((s["journaled"], s["spf_checked"]), (n, 0), "all of a burst is journaled")
		t.ok(s["spf_queued"] == 2000 and s["spf_dropped"] == n - 2000,
		     "the queue is bounded, the rest is counted", s)
		t.ok(rate > 5, "without waiting for one of them", rate)
		t.note(f"{rate:.0f} messages a second")
		began = time.monotonic()
	t.ok(d.ended == 0 and time.monotonic() - began < 60, "stops at once with all that waiting",
	     (d.ended, time.monotonic() - began))
	log = d.log.read_text(encoding="utf-8", errors="replace")
	t.ok(log.count("event=spf_dropped") <= 2, "one warning, not one per message")


def ends(t):
	"""No helper outlives mailwald; with libmilter as front end too."""
	for how, engine in ((signal.SIGKILL, "native"), (signal.SIGTERM, "libmilter")):
		with Daemon(t.sub(f"ends-{engine}"), ZONE, "spf = yes", f"milter_engine = {engine}") as d:
			d.send("E1", "a@pass.test")
			t.equal(d.verdict("E1").get("result"), "pass", f"{engine}: a verdict")
			d.send("E2", "a@hang.test")
			time.sleep(0.3)
			pids = d.helpers()
			d.proc.send_signal(how)
			d.proc.wait(tap.PATIENCE)
			rigs.wait_for("the helpers' end", lambda: not any(
				os.path.exists(f"/proc/{p}") for p in pids))
			t.ok(len(pids) >= 1, f"{engine}: helpers end with mailwald", pids)
		if engine == "libmilter":
			t.equal(d.ended, 0, "libmilter: a clean end")


def refused(t):
	"""A configuration that cannot work is told at the start."""
	d = Daemon(t.sub("refused"), ZONE, "spf = yes", "spf_user = no-such-user")
	d.out("init")
	p = subprocess.run([d.program, "-t", "-c", d.conf], stderr=subprocess.PIPE,
			   stdout=subprocess.PIPE, timeout=tap.PATIENCE)
	t.ok(p.returncode == 78 and b"no-such-user" in p.stderr, "a user that there is not", p)


def main(t):
	results(t)
	many(t)
	encrypted(t)
	slow(t)
	burst(t)
	ends(t)
	refused(t)


tap.run(main)
