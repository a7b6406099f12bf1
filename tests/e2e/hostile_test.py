#!/usr/bin/python3
"""Broken and hostile servers. IMAP: a relay in front of real Dovecot that lies, garbles or cuts
at each step; LMTP and SMTP: a scripted server. Bounded time and memory, an error in words, and
afterwards each copy is there once. TLS with a CA of our own: verified, or refused."""
# MW_TEST_COST 80

import os
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import listener
import mailbox
import rig as rigs
import tap
import workload
from mailbox import Expected
from replaytool import empty

ANNA = "anna@example.test"
MEMORY_KB = 220_000  # of which the sanitizer's and the libraries' are most


class Liar(listener.Relay):
	"""Relays to a port, line by line. The step-th tagged answer of the first connection
	(of all, with every) meets `how`."""

	def __init__(self, port, step, how, every=False):
		self.step, self.how, self.every = step, how, every
		self.hits, self.connections = 0, 0
		super().__init__(port)

	def back(self, far, near):
		self.connections += 1
		self._lines(far, near, self.every or self.connections == 1)

	def _lines(self, s, c, lie):
		n, literal = 0, 0
		for line in s.makefile("rb"):
			tagged = not literal and line[:1] not in b"*+" and b" " in line
			literal = max(0, literal - len(line))
			n += tagged
			if lie and tagged and n == self.step:
				self.hits += 1
				if not self.how(c, line):
					return
			elif lie and self.step == "literal" and line.endswith(b"}\r\n"):
				self.hits += 1
				c.sendall(line + b"half of it")
				return
			else:
				c.sendall(line)
			if not literal and line.rstrip().endswith(b"}"):
				literal = int(line.rpartition(b"{")[2].rstrip(b"}\r\n+") or 0)


def cut(_c, _line):
	return False


def instead(text):
	def how(c, line):
		tag = line.split(b" ")[0]
		c.sendall(text.replace(b"TAG", tag))
		return True
	return how


def flood(c, _line):
	for _ in range(1500):
		c.sendall(b"* " + b"x" * 65536)
	return False


def endless(c, line):
	for _ in range(200_000):
		c.sendall(b"* OK so many words\r\n" * 10)
	c.sendall(line)
	return True


def run(rig, args, timeout=300):
	"""(exit status, output, errors, seconds, kB of memory) of mailwal."""
	t = time.monotonic()
	who = threading.get_ident()
	out, err = (open(os.path.join(rig.dir, f"run {who}.{x}"), "w+b") for x in ("out", "err"))
	with out, err:
		p = subprocess.Popen(rig.mailwal_argv("--json", *args), stdout=out, stderr=err,
				     stdin=subprocess.DEVNULL)
		timer = threading.Timer(timeout, p.kill)
		timer.start()
		_, status, usage = os.wait4(p.pid, 0)
		timer.cancel()
		p.returncode = os.waitstatus_to_exitcode(status)
		texts = []
		for f in (out, err):
			f.seek(0)
			texts.append(f.read().decode("utf-8", "replace"))
	return p.returncode, *texts, time.monotonic() - t, usage.ru_maxrss


def imap_args(rig, port, *more):
	return ["replay", "--all", "--to", f"imap://127.0.0.1:{port}", "--password-file",
		rig.password_file, "--auth-user", rigs.MASTER, *more]


def trial(t, rig, want, what, step, how, every=False, seconds=240):
	"""One run through a liar, then one without: each copy once, nothing left behind."""
	if step != "literal":  # there must be mail for its answers to have literals
		empty(rig)
	liar = Liar(rig.imap_port, step, how, every)
	args = imap_args(rig, liar.port)  # one target, so one ledger, for both runs
	rc, out, err, took, kb = run(rig, args)
	liar.step = None
	bad = []
	if rc not in (0, 3, 65, 69, 74, 75, 76, 77, 78) or took > seconds or kb > MEMORY_KB:
		bad.append(f"exit {rc}, {took:.1f} s, {kb} kB\n{out[-800:]}\n{err[-800:]}")
	if rc and "mailwal:" not in err and '"reason"' not in out:
		bad.append(f"no error in words: {err} {out}")
	got = mailbox.compare(want, inboxes(rig))
	if got.doubled or got.altered or got.strange:
		bad.append(f"after the liar: {got}")
	rc, out, err, _, _ = run(rig, args)
	liar.close()
	state = mailbox.dump(rig)
	got = mailbox.compare(want, inboxes(rig, state))
	left = [k for k in state if "mailwal" in k[1]]
	if rc or not got.ok or left:
		bad.append(f"after a clean run: {got}\n{left}\n{rc} {out[-800:]} {err[-500:]}")
	return liar.hits, [f"{what}: {x}" for x in bad]


def inboxes(rig, state=None):
	return {k: v for k, v in (state or mailbox.dump(rig)).items() if k[1] == "INBOX"}


def imap(t, rig, want):
	steps = int(os.environ.get("MW_STEPS", "22"))
	long_form = "MW_STEPS" in os.environ
	kinds = (("cut off", cut, 3), ("NO", instead(b"TAG NO not now\r\n"), 3),
		 ("BAD", instead(b"TAG BAD what\r\n"), 6),
		 ("wrong tag", instead(b"zz99 OK done\r\n"), 6),
		 ("garbage", instead(b"\0\xff{99999999999999999999}\r\n"), 7))
	for name, how, every in kinds:
		bad, hits, tried = [], 0, 0
		for step in range(1, steps + 1, 1 if long_form else every):
			n, b = trial(t, rig, want, f"{name} at answer {step}", step, how)
			hits, tried, bad = hits + n, tried + 1, bad + b
			if not n:
				break
		t.ok(not bad and hits > tried // 2, f"imap, {name} at {hits} different answers: "
		     "bounded, said, each copy once", "\n".join(bad[:3]))
	for name, step, how in (("a literal cut short", "literal", None),
				("a line of 100 MB", 6, flood),
				("two million lines", 6, endless)):
		hits, bad = trial(t, rig, want, name, step, how)
		t.ok(not bad and hits, f"imap, {name}: bounded, said, each copy once",
		     "\n".join(bad[:3]) or "no hit")
	n, bad = trial(t, rig, want, "always cut", 7, cut, every=True)
	t.ok(n and not bad, "imap, every connection cut: gives up, said", "\n".join(bad))


class Mta(listener.Listener):
	"""A scripted SMTP and LMTP server. at: the verb, or "greeting" or "end", that gets
	`answer` (None: the line is cut); caps: what EHLO tells. taken: whole messages."""

	def __init__(self, at=None, answer=None, caps=("8BITMIME",)):
		self.at, self.answer, self.caps, self.taken, self.lines = at, answer, caps, [], []
		super().__init__()

	def serve(self, sock):
		with sock, sock.makefile("rwb") as f:
			self._talk(f)

	def _say(self, f, step, normal):
		"""False: the line was cut."""
		if step == self.at and self.answer is None:
			return False
		f.write(self.answer if step == self.at else normal)
		f.flush()
		return True

	def _talk(self, f):
		if not self._say(f, "greeting", b"220 hello\r\n"):
			return
		for line in f:
			verb = line[:4].decode("latin-1").upper()
			self.lines.append(line.strip())
			normal = b"250 ok\r\n"
			if verb in ("EHLO", "LHLO"):
				names = ["hello", *self.caps]
				normal = "".join(f"250{'-' if i + 1 < len(names) else ' '}{n}\r\n"
					for i, n in enumerate(names)).encode()
				verb = "EHLO"
			elif verb == "DATA":
				normal = b"354 go on\r\n"
			elif verb == "BDAT":
				data = f.read(int(line.split()[1]))
				self.taken.append(data)
				verb = "end"
			if not self._say(f, verb, normal):
				return
			if verb == "QUIT":
				return
			if verb == "DATA" and self.at != "DATA":
				data = b""
				for x in f:
					if x == b".\r\n":
						break
					data += x
				else:
					return
				self.taken.append(data)
				if not self._say(f, "end", b"250 taken\r\n"):
					return


def mta(t, rig, jobs):
	many = b"".join(b"250-more\r\n" for _ in range(100_000))
	cases = [("greeting", b"554 go away\r\n"), ("greeting", None), ("EHLO", b"500 no\r\n"),
		 ("EHLO", None), ("MAIL", b"451 later\r\n"), ("MAIL", None),
		 ("RCPT", b"550 nobody\r\n"), ("RCPT", b"421 closing\r\n"), ("DATA", b"554 no\r\n"),
		 ("DATA", None), ("end", b"554 no\r\n"), ("end", b"451 later\r\n"), ("end", None),
		 ("MAIL", b"999 what\r\n"), ("MAIL", b"x" * 100_000 + b"\r\n"), ("RCPT", many),
		 ("end", b"\0\r\n")]
	for kind in ("smtp", "lmtp"):
		for caps in ((), ("8BITMIME", "CHUNKING", "DSN", "SIZE 100000", "SMTPUTF8")):
			bad = []
			for i, (at, answer) in enumerate(cases):
				if at == "DATA" and "CHUNKING" in caps:
					continue  # it is never said
				bad += mta_case(rig, jobs, kind, caps, i, at, answer)
			t.ok(not bad, f"{kind} {'with' if caps else 'without'} extensions: "
			     f"{len(cases)} ways to fail: bounded, said, never twice",
			     "\n".join(bad[:4]))


def mta_case(rig, jobs, kind, caps, i, at, answer):
	state = os.path.join(rig.dir, f"ledger {kind} {len(caps)} {i}")
	server = Mta(at, answer, caps)
	args = ["replay", "--all", "--accept-side-effects", "--state", state, "--to",
		f"{kind}:127.0.0.1:{server.port}"]
	bad = []
	rc, out, err, took, kb = run(rig, args)
	where = f"{at} answered {answer and answer[:20]}: "
	if rc == 0 or rc > 78 or took > 240 or kb > MEMORY_KB or (
			"mailwal:" not in err and '"reason"' not in out):
		bad.append(where + f"exit {rc}, {took:.1f} s, {kb} kB\n{out[-600:]}\n{err[-600:]}")
	doubtful = out.count('"kind":"doubtful"')
	broken = answer is None or not answer[:1].isdigit() or answer[:1] == b"9"
	if at == "end" and broken and not doubtful:
		bad.append(where + f"nothing is in doubt\n{out}")
	seen = len(server.taken) if at == "end" else 0  # refused, or in doubt
	server.at = None
	rc, out, err, took, kb = run(rig, args)
	if len(server.taken) - seen > len(jobs) - doubtful or (not doubtful and rc != 0):
		bad.append(where + f"then: exit {rc}, {len(server.taken)} taken, {seen} before, "
			   f"{doubtful} in doubt\n{out[-600:]}\n{err[-300:]}")
	server.close()
	return bad


class Drip(listener.Listener):
	"""A greeting of a byte now and then."""

	def __init__(self):
		self.stop = threading.Event()
		super().__init__()

	def serve(self, sock):
		while not self.stop.wait(0.5):
			sock.sendall(b"*")


def trickle(t, rig):
	"""The time to connect is limited as a whole."""
	with Drip() as drip:
		rc, out, err, took, _ = run(rig, imap_args(rig, drip.port))
		drip.stop.set()
	t.ok(rc == 69 and took < 240, f"imap, a byte now and then: exit 69 after {took:.0f} s",
	     f"{rc} {out} {err}")


def certificates(directory):
	"""ca.pem, other.pem, and server.pem/.key for localhost signed by the first."""
	def ssl(*args):
		subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=directory)
	for ca in ("ca", "other"):
		ssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		    "-days", "2", "-subj", f"/CN=mailwal test {ca}", "-keyout", f"{ca}.key", "-out",
		    f"{ca}.pem")
	ssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
	    "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
	pathlib.Path(directory, "ext").write_text("subjectAltName=DNS:localhost\n", encoding="utf-8")
	ssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
	    "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "server.pem")


def tls(t, rig, want, where, imaps, jobs):
	login = ["--password-file", rig.password_file, "--auth-user", rigs.MASTER]
	ca, other = (["--tls-ca", f"{where}/{x}.pem"] for x in ("ca", "other"))
	all_ = ["replay", "--all", "--to"]
	for what, to in (("imaps", f"imaps://localhost:{imaps}"),
			 ("STARTTLS", f"imap://localhost:{rig.imap_port}")):
		empty(rig)
		rc, out, err, _, _ = run(rig, [*all_, to, *login, *other])
		t.ok(rc == 69 and "certificate" in err and not mailbox.count(mailbox.dump(rig)),
		     f"{what}: a certificate of another CA: exit 69, said", f"{rc} {err}")
		rc, out, err, _, _ = run(rig, [*all_, to.replace("localhost", "127.0.0.1"), *login,
					       *ca])
		t.ok(rc == 69 and not mailbox.count(mailbox.dump(rig)),
		     f"{what}: a certificate for another name: exit 69", f"{rc} {err}")
		rc, out, err, _, _ = run(rig, [*all_, to, *login, *ca])
		got = mailbox.compare(want, inboxes(rig))
		t.ok(rc == 0 and got.ok, f"{what}: verified by --tls-ca: each copy once",
		     f"{got}\n{rc} {out} {err}")
	plain = Mta(caps=("8BITMIME",))
	smtp = ["--accept-side-effects", "--state", os.path.join(rig.dir, "ledger tls")]
	rc, out, err, _, _ = run(rig, [*all_, f"smtp:localhost:{plain.port}", *smtp, *ca])
	plain.close()
	t.ok(rc == 69 and not plain.taken, "smtp: no STARTTLS where TLS is asked for: exit 69",
	     f"{rc} {err}")
	to = f"smtp:localhost:{rig.smtp_port}"
	rc, out, err, _, _ = run(rig, [*all_, to, *smtp, *other])
	t.ok(rc == 69 and "certificate" in err, "smtp: a certificate of another CA: exit 69",
	     f"{rc} {err}")
	rc, out, err, _, _ = run(rig, [*all_, to, *smtp, *ca])
	t.ok(rc == 0 and f'"restored":{len(jobs)}' in out, "smtp: STARTTLS verified by --tls-ca",
	     f"{rc} {out} {err}")


def main(t):
	where = t.sub("certificates")
	certificates(where)
	(imaps,) = rigs.free_ports(1)
	crt = os.path.join("/tmp", f"mw.{os.getpid()}.tls")  # no blanks for Postfix
	os.symlink(where, crt)
	try:
		with rigs.Rig(t.sub("rig"), users=(ANNA,), aliases={}, dovecot=f"""
ssl = yes
ssl_cert = <{crt}/server.pem
ssl_key = <{crt}/server.key
service imap-login {{
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
""", postfix=f"""virtual_transport = discard:
smtpd_tls_security_level = may
smtpd_tls_cert_file = {crt}/server.pem
smtpd_tls_key_file = {crt}/server.key
""") as rig:
			rig.configure(master="tlsmgr unix - - n 1000? 1 tlsmgr\n")
			rig.start()
			small = [(n, d) for n, d in workload.fixtures() if len(d) < 20_000][:5]
			jobs = rig.send([workload.Mail(n, d, "w@remote.test", [ANNA], {}, (ANNA,),
						       mailargs="BODY=8BITMIME") for n, d in small])
			t.need(all(j.code == 250 for j in jobs), f"{len(jobs)} captured")
			rig.wait_queue()
			want = {(ANNA, "INBOX"): [Expected(j.queue_id, j.data) for j in jobs]}
			tls(t, rig, want, where, imaps, jobs)
			slow = threading.Thread(target=trickle, args=(t, rig))
			slow.start()  # three times the 20 s that a connection may take
			mta(t, rig, jobs)
			imap(t, rig, want)
			slow.join()
	finally:
		os.unlink(crt)


tap.run(main)
