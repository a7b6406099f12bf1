#!/usr/bin/python3
"""The proxy with TLS on both sides, in front of a real Postfix: STARTTLS, AUTH, certificates
that are right, wrong and renewed."""
# MW_TEST_COST 15

import os
import smtplib
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import smtp
import tap

ANNA = "anna@example.test"


class Papers:
	"""An authority, and certificates of it for 127.0.0.1."""

	def __init__(self, directory):
		self.dir = directory
		os.makedirs(directory, mode=0o755, exist_ok=True)
		self.ca = self.authority("ca")

	def _run(self, *args):
		subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=self.dir,
			       timeout=tap.PATIENCE)

	def authority(self, name):
		self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
			  "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", "9",
			  "-subj", "/CN=" + name)
		return f"{self.dir}/{name}.pem"

	def certificate(self, name, san, ca="ca"):
		"""(certificate, key)"""
		self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
			  "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
		with open(f"{self.dir}/{name}.ext", "w", encoding="ascii") as f:
			f.write("subjectAltName=" + san)
		self._run("x509", "-req", "-in", name + ".csr", "-CA", ca + ".pem", "-CAkey",
			  ca + ".key", "-CAcreateserial", "-out", name + ".pem", "-days", "9",
			  "-extfile", name + ".ext")
		os.chmod(f"{self.dir}/{name}.key", 0o644)
		return f"{self.dir}/{name}.pem", f"{self.dir}/{name}.key"


def restart(rig, ports, more):
	"""mailwald anew, with these settings of the proxy."""
	rig.end("mailwald")
	rig.conf_extra = (f"proxy_listen = smtp:inet:127.0.0.1:{ports[0]}->"
			  f"inet:127.0.0.1:{ports[1]}\n" + more)
	rig.write_conf()
	p = rig.start_mailwald()
	rigs.wait_for("the proxy", lambda: rigs.connects(ports[0]), alive=p)


def message(name, body):
	return (f"Message-ID: <{name}@tls.test>\r\nSubject: {name}\r\n\r\n").encode() + body


def context(papers):
	c = ssl.create_default_context(cafile=papers.ca)
	c.minimum_version = ssl.TLSVersion.TLSv1_2
	return c


def whole(t, rig, port, papers):
	"""STARTTLS, AUTH, content both small and large."""
	bodies = {"small": b"..dot\r\n.\r\nend\r\n".replace(b"\r\n.\r\n", b"\r\n. \r\n"),
		  "large": b"".join(b"%06d %s\r\n" % (i, b"x" * 60) for i in range(60000))}
	for name, body in bodies.items():
		s = smtplib.SMTP("127.0.0.1", port, timeout=tap.PATIENCE)
		s.ehlo("client.test")
		t.ok(s.has_extn("starttls"), f"{name}: STARTTLS is offered")
		s.starttls(context=context(papers))
		s.ehlo("client.test")
		t.ok(not s.has_extn("starttls") and s.has_extn("auth"),
		     f"{name}: within TLS there is AUTH and no STARTTLS", s.esmtp_features)
		s.login(ANNA, rig.password)
		data = message(name, body)
		s.sendmail(ANNA, ["bert@example.test"], data)
		s.quit()
		got = rig.journaled("--message-id", f"<{name}@tls.test>")
		t.equal(len(got), 1, f"{name}: records")
		t.ok(rig.raw(got[0]["id"]) == data, f"{name}: the record has every byte")
		shown = rig.mailwal("--json", "show", got[0]["id"]).out
		t.ok(f'"{ANNA}"' in shown and "TLSv1." in shown,
		     f"{name}: the login name and the client's TLS are on record", shown)


def wrong_login(t, rig, port, papers):
	s = smtplib.SMTP("127.0.0.1", port, timeout=tap.PATIENCE)
	s.starttls(context=context(papers))
	try:
		s.login(ANNA, "wrong" + rig.password)
		t.ok(False, "a wrong password is refused by the next server")
	except smtplib.SMTPAuthenticationError as e:
		t.equal(e.smtp_code, 535, "a wrong password: the next server's own reply")
	s.close()


def injection(t, port):
	s = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
	s.recv(4096)
	s.sendall(b"EHLO x\r\n")
	s.recv(4096)
	s.sendall(b"STARTTLS\r\nMAIL FROM:<x@y.test>\r\n")
	got = s.recv(4096)
	t.ok(got.startswith(b"421 ") and s.recv(4096) == b"",
	     "commands behind STARTTLS end the session", got)
	s.close()
	s = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
	s.recv(4096)
	s.sendall(b"STARTTLS\r\n")
	s.recv(4096)
	s.sendall(b"GET / HTTP/1.0\r\n\r\n" * 40)
	try:
		while s.recv(4096):
			pass
		ended = True
	except ConnectionError:
		ended = True
	except TimeoutError:
		ended = False
	t.ok(ended and rigs.connects(port), "no TLS where TLS was agreed on: the session ends")
	s.close()


def silent(t, port):
	s = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
	s.recv(4096)
	s.sendall(b"STARTTLS\r\n")
	s.recv(4096)
	try:
		ended = s.recv(4096) == b""
	except OSError:
		ended = False
	t.ok(ended, "a handshake that never comes ends the session in time")
	s.close()


def serial(port, papers):
	s = smtplib.SMTP("127.0.0.1", port, timeout=tap.PATIENCE)
	s.starttls(context=context(papers))
	n = s.sock.getpeercert()["serialNumber"]
	s.close()
	return n


def greeting(port):
	s = socket.create_connection(("127.0.0.1", port), tap.PATIENCE)
	got = s.recv(4096)
	s.close()
	return got


def main(t):
	rig = rigs.Rig(t.sub("rig"))
	papers = Papers(rig.run + "/papers")  # master.cf takes no blanks
	back_cert, back_key = papers.certificate("back", "IP:127.0.0.1,DNS:localhost")
	other_cert, other_key = papers.certificate("elsewhere", "DNS:elsewhere.test")
	cert, key = papers.certificate("front", "IP:127.0.0.1")
	proxy, back, bad, plain = rigs.free_ports(4)
	common = ("  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_milters=\n  -o mynetworks=127.0.0.0/8\n"
		  "  -o smtpd_relay_restrictions=permit_mynetworks,permit_sasl_authenticated,reject\n")
	tls = "  -o smtpd_tls_security_level=encrypt\n  -o smtpd_tls_loglevel=1\n"
	rig.configure(
		conf=f"proxy_listen = smtp:inet:127.0.0.1:{proxy}->inet:127.0.0.1:{back}\n",
		postfix="message_drop_headers =\nvirtual_transport = discard:",
		master=f"127.0.0.1:{back} inet n - n - - smtpd\n{common}{tls}"
		       f"  -o smtpd_tls_cert_file={back_cert}\n  -o smtpd_tls_key_file={back_key}\n"
		       f"127.0.0.1:{bad} inet n - n - - smtpd\n{common}{tls}"
		       f"  -o smtpd_tls_cert_file={other_cert}\n  -o smtpd_tls_key_file={other_key}\n"
		       f"127.0.0.1:{plain} inet n - n - - smtpd\n{common}"
		       "tlsmgr unix - - n 1000? 1 tlsmgr\n")
	offer = f"proxy_tls_cert_file = {cert}\nproxy_tls_key_file = {key}\n"
	verify = f"proxy_next_tls = verify\nproxy_next_tls_ca = {papers.ca}\n"
	with rig:
		rig.start()
		rigs.wait_for("the other smtpd", lambda: all(map(rigs.connects, (back, bad, plain))))
		restart(rig, (proxy, back), offer + verify)
		whole(t, rig, proxy, papers)
		wrong_login(t, rig, proxy, papers)
		injection(t, proxy)
		log = rig.whole_maillog()
		t.ok("TLS connection established from localhost[127.0.0.1]" in log
		     or "TLS connection established from unknown[127.0.0.1]" in log,
		     "Postfix saw TLS from the proxy", log[-1500:])
		before = serial(proxy, papers)
		again = papers.certificate("renewed", "IP:127.0.0.1")
		os.replace(again[1], key)
		os.replace(again[0], cert)
		t.ok(serial(proxy, papers) != before, "a renewed certificate is taken without a restart")
		stranger = papers.authority("stranger")
		for what, to, more, code in (
				("another name in its certificate", bad, verify, b"421"),
				("no such name asked for", bad, "proxy_next_tls = encrypt\n", b"220"),
				("an authority that is not ours", back,
				 verify.replace(papers.ca, stranger), b"421"),
				("no TLS where it must be", plain, "proxy_next_tls = encrypt\n", b"421"),
				("no TLS where it may be", plain, "proxy_next_tls = may\n", b"220")):
			restart(rig, (proxy, to), offer + more)
			got = greeting(proxy)
			t.ok(got.startswith(code), f"{what}: {code.decode()}", got)
		with smtp.Client(proxy) as c:
			got = c.mail(message("clear", b"x\r\n"), "s@remote.test", [ANNA])
		t.equal(got[0], 250, "mail passes in clear where TLS is not needed")
		restart(rig, (proxy, plain), offer + "proxy_next_tls = may\nproxy_timeout = 2s\n")
		silent(t, proxy)
		with open(rig.conf, "a", encoding="utf-8") as f:
			f.write(f"proxy_tls_key_file = {back_key}\n")
		for what, more in (("-t", ("-t",)), ("-u, with the old one at work", ("-u",))):
			r = subprocess.run([str(rigs.find_program("mailwald")), "-c", rig.conf, *more],
					   capture_output=True, timeout=tap.PATIENCE, check=False)
			t.equal(r.returncode, 78, f"a key that is not the certificate's, {what}")
		t.ok(rigs.connects(proxy), "the old one goes on")
		rig.end("mailwald")
		p = rig.spawn("mailwald-wrong", [str(rigs.find_program("mailwald")), "-c", rig.conf])
		t.equal(p.wait(tap.PATIENCE), 78, "a key that is not the certificate's: exit status")


tap.run(main)
