#!/usr/bin/python3
"""Ways past the journal through real Postfix, each by itself: services without milters, maps
that disable them, a proxy filter, other milters before ours that discard, quarantine or
are away or break off, mail released from hold, what Postfix' own tables discard. The audit names each message that was accepted and has no
record, and no other. Mail by QMQP goes through non_smtpd_milters; what a milter behind ours refuses is in the
journal, as refused, and is no hole; what one before it or a header check refuses is not there."""
# MW_TEST_COST 30

import os
import re
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import laterfilter
import rig as rigs
import servers
import smtp
import tap

ANNA = "anna@example.test"


class Judge(laterfilter.LaterFilter):
	"""A milter that does with a message what its subject says."""

	ACTIONS = 0x20  # quarantine

	def _end(self, c, msg):
		head = b"".join(msg.head)
		if b"hang up" in head:
			raise EOFError
		for word, answer in ((b"reject", b"r"), (b"tempfail", b"t"), (b"discard", b"d")):
			if word in head:
				self._send(c, answer)
				return
		if b"quarantine" in head:
			self._send(c, b"q", b"looked odd\0")
		self._send(c, b"c")


def services(ports, ours, judge):
	"""master.cf: a port for each way."""
	mw = f"{{ unix:{ours}, default_action=tempfail }}"
	jd = f"{{ unix:{judge}, default_action=tempfail }}"
	away = f"{{ unix:{judge}.away, default_action=quarantine }}"
	ways = {
		"empty": ("smtpd", "-o smtpd_milters="),
		"no_milters": ("smtpd", "-o receive_override_options=no_milters"),
		"disabled": ("smtpd", "-o smtpd_milter_maps=static:DISABLE"),
		"filter": ("smtpd", f"-o smtpd_proxy_filter=127.0.0.1:{ports['empty']}"),
		"access": ("smtpd", "-o { smtpd_sender_restrictions = check_sender_access "
				    "static:DISCARD }"),
		"qmqp": ("qmqpd", "-o qmqpd_authorized_clients=127.0.0.0/8"),
		"before": ("smtpd", f"-o {{ smtpd_milters = {jd}, {mw} }}"),
		"away": ("smtpd", f"-o {{ smtpd_milters = {away}, {mw} }}"),
		"alone": ("smtpd", f"-o {{ smtpd_milters = {{ unix:{judge}, "
				   "default_action=accept } }"),
		"behind": ("smtpd", f"-o {{ smtpd_milters = {mw}, {jd} }}"),
	}
	return "".join(f"127.0.0.1:{ports[k]} inet n - n - - {d}\n  {o}\n"
		       for k, (d, o) in ways.items())


def post(port, subject):
	"""(code, queue ID or None)"""
	data = (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {subject}\r\n"
		f"Message-ID: <{subject}.{port}@remote.test>\r\n\r\ntext of {subject}\r\n").encode()
	with smtp.Client(port) as c:
		code, text = c.mail(data, "w@remote.test", [ANNA])
	m = re.search(r"queued as (\w+)", text)
	return code, m.group(1) if m else None


def net(b):
	return b"%d:%s," % (len(b), b)


def qmqp(port):
	with socket.create_connection(("127.0.0.1", port), tap.PATIENCE) as s:
		s.sendall(net(net(b"Subject: qmqp\n\ntext\n") + net(b"w@remote.test")
			      + net(ANNA.encode())))
		out = b""
		while True:
			got = s.recv(4096)
			if not got:
				break
			out += got
	m = re.search(rb"K.*queued as (\w+)", out)
	return (250, m.group(1).decode()) if m else (0, out)


def queued(rig):
	return {o["queue_id"]: o["queue_name"] for o in rig.queue()}


def outcomes(rig, queue_id):
	r = rig.mailwal("--json", "show", queue_id)
	return [o.get("outcome") for o in (r.lines[0].get("outcomes") or [])] if r.lines else None


def holes_of(rig):
	"""(the command's result, {queue ID: cause})"""
	r = rig.mailwal("--json", "audit", f"{rig.run}/maillog")
	return r, {o["queue_id"]: o["cause"] for o in r.lines if o.get("message_type") == "hole"}


def refused(t, rig, rows, ports):
	"""Who refuses before us leaves no record, who refuses behind us one that says so."""
	for word in ("reject", "tempfail"):
		names = [f"<{word}.{ports[k]}@remote.test>" for k in ("before", "behind")]
		got = [[o for o in rows if o["message_id"] == n] for n in names]
		t.equal([len(v) for v in got], [0, 1], f"{word}, before and behind ours: records")
		t.ok(got[1] and outcomes(rig, got[1][0]["id"]) == ["refused"],
		     f"{word} behind ours: known to be refused", got)
	t.ok(not any("header reject" in o["message_id"] for o in rows),
	     "a header check that rejects: no record")


def main(t):
	names = ("empty", "no_milters", "disabled", "filter", "access", "qmqp", "before", "away",
		 "alone", "behind")
	ports = dict(zip(names, rigs.free_ports(len(names))))
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,))
	judge = Judge(f"{rig.run}/judge.sock")
	rig.configure(master=services(ports, rig.milter_sock, judge.path),
		      postfix="smtpd_authorized_xforward_hosts = 127.0.0.0/8\n"
			      f"header_checks = regexp:{rig.run}/headers\n"
			      f"body_checks = regexp:{rig.run}/bodies")
	servers.write(f"{rig.run}/headers", "/^Subject: header reject/ REJECT\n"
					    "/^Subject: header hold/ HOLD\n")
	servers.write(f"{rig.run}/bodies", "/^text of body discard/ DISCARD\n")
	with rig:
		rig.start()
		judge.start()
		# the last of master.cf; who connects to "away" makes Postfix look for its milter
		rigs.wait_for("Postfix' services", lambda: rigs.connects(ports["behind"]))
		said = {"plain": post(rig.smtp_port, "plain")}
		for way in ("empty", "no_milters", "disabled", "filter", "access"):
			said[way] = post(ports[way], way)
		for way in ("header reject", "header hold", "body discard"):
			said[way] = post(rig.smtp_port, way)
		said["qmqp"] = qmqp(ports["qmqp"])
		for place in ("before", "behind"):
			for word in ("pass", "discard", "quarantine", "reject", "tempfail"):
				said[f"{place} {word}"] = post(ports[place], word)
		causes = set(holes_of(rig)[1].values())
		t.ok(causes and not causes & {"milter_down", "pickup", "notice"},
		     f"causes before any milter is away: {', '.join(sorted(causes))}")
		said["away"] = post(ports["away"], "away")
		said["hang up"] = post(ports["alone"], "hang up")
		said["alone"] = post(ports["alone"], "alone")  # Postfix looks for it anew
		said["empty later"] = post(ports["empty"], "later")
		for name, (code, _) in said.items():
			want = 550 if "reject" in name else 451 if "tempfail" in name else 250
			t.ok(code == want, f"{name}: {want}", said[name])
		held = [q for q, where in queued(rig).items() if where == "hold"]
		t.ok(sorted(held) == sorted(said[k][1] for k in
					    ("away", "before quarantine", "behind quarantine",
					     "header hold")),
		     "four are held", (held, said))
		# until then the log does not tell whether the client came to the end
		for k in ("before quarantine", "away", "behind quarantine", "header hold"):
			tool(rig, "postsuper", "-H", said[k][1])
		rigs.wait_for("the queue to be empty", lambda: not queued(rig))
		rows = rig.journaled()
		journaled = {o["queue_id"] for o in rows}
		past = ("empty", "no_milters", "disabled", "filter", "away", "before discard",
			"before quarantine", "hang up", "alone", "empty later", "access",
			"body discard")
		t.ok(not journaled & {said[k][1] for k in past}, "they went past the journal",
		     (journaled, said))
		for k in ("plain", "qmqp", "before pass", "behind pass", "behind discard",
			  "behind quarantine", "header hold"):
			t.ok(said[k][1] in journaled, f"{k}: journaled", said[k])
		r, holes = holes_of(rig)
		want = {said[k][1] for k in past}
		t.ok(r.rc == 1 and set(holes) == want,
		     "the audit names each of them, and no other",
		     (holes, {k: said[k][1] for k in past}, r.err))
		t.note(", ".join(f"{k}: {holes.get(said[k][1])}" for k in past))
		t.equal(sorted(k for k in past if holes.get(said[k][1]) == "discarded"),
			["access", "before discard", "body discard"], "by its cause: discarded")
		t.equal(sorted(k for k in past if holes.get(said[k][1]) == "milter_down"),
			["away", "hang up"], "by its cause: those whose milter was away, and none beside")
		rig.mailwal("outcomes", f"{rig.run}/maillog")
		refused(t, rig, rows, ports)
		t.ok("discarded" in str(outcomes(rig, said["behind discard"][1])),
		     "what a milter behind ours discards is known to be",
		     rig.mailwal("show", said["behind discard"][1]).out)
		judge.stop()


def tool(rig, name, *args):
	subprocess.run([f"{servers.POSTFIX_BIN}/{name}", "-c", f"{rig.run}/postfix", *args],
		       check=True, capture_output=True, timeout=tap.PATIENCE)


tap.run(main)
