#!/usr/bin/python3
"""contrib/standby: a standby store is followed, takes over, and its mail goes home.

The main rig captures into journal A and is followed over TLS into a Dovecot that runs on
the configuration contrib/standby/setup wrote. Then the main store is lost; the standby's
own Postfix and mailwald (journal B) receive, users read and send there. The main store
comes back from its backup, and one replay of both journals brings everything home, once.
"""
# MW_TEST_COST 20

import imaplib
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import tap
import workload
from follower import settled

SETUP = rigs.ROOT / "contrib" / "standby" / "setup"


class Standby(rigs.Rig):
	"""A rig whose Dovecot is the recipe's."""

	def recipe(self, t):
		self.etc = f"{self.run}/etc"
		self.imaps_port, = rigs.free_ports(1)
		self.cert = f"{self.run}/cert.pem"
		key = f"{self.run}/key.pem"
		subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
				"ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
				"/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
				"-keyout", key, "-out", self.cert], check=True, capture_output=True)
		argv = [SETUP, "--out", self.etc, "--host", "localhost", "--domains",
			" ".join(self.domains), "--cert", self.cert, "--key", key,
			"--mail", f"{self.run}/store", "--user", rigs.MAIL_USER, "--master",
			rigs.MASTER, "--imap", str(self.imap_port), "--imaps",
			str(self.imaps_port), "--run", f"{self.run}/dovecot", "--lmtp",
			f"{self.run}/s-lmtp", "--sasl", f"{self.run}/s-sasl",
			"--milter", self.milter_sock, "--journal", self.journal, "--log",
			f"{self.run}/dovecot.log"]
		for _ in range(2):  # the second time with users, which it leaves alone
			p = subprocess.run(argv, capture_output=True, text=True, check=False)
			t.need(p.returncode == 0, "setup writes the configuration", p)
			servers.write(f"{self.etc}/users", "".join(
				f"{u}:{{PLAIN}}{self.password}\n" for u in self.users), 0o640)
			shutil.chown(f"{self.etc}/users", "root", "dovecot")
		self.configure(postfix=f"virtual_transport = lmtp:unix:{self.run}/s-lmtp\n"
			       f"smtpd_sasl_path = {self.run}/s-sasl")
		with open(f"{self.etc}/follow.password", encoding="ascii") as f:
			self.master_password = f.read().strip()
		t.equal(len(pathlib.Path(self.etc, "mailboxes").read_text().split()) // 2,
			len(self.users), "users that Postfix accepts mail for")

	def start_dovecot(self):
		p = self.spawn("dovecot", ["/usr/sbin/dovecot", "-F", "-c",
					   f"{self.etc}/dovecot.conf"])
		rigs.wait_for("the standby's IMAP port", lambda: rigs.connects(self.imap_port),
			      alive=p)
		rigs.wait_for("its TLS port", lambda: rigs.connects(self.imaps_port), alive=p)
		return p


def check(t, rig, want, what):
	got = settled(rig, want)
	t.ok(got and got.ok, f"{what}: {sum(map(len, want.values()))} copies, each once", got)


def configuration(t, standby):
	r = standby.mailwal("-c", f"{standby.etc}/mailwal.conf", "config", "check", conf=False)
	t.ok(r.rc == 0, "its mailwal.conf is correct", r)
	d = f"{standby.run}/pf"
	os.mkdir(d)
	shutil.copy(f"{standby.etc}/main.cf", f"{d}/main.cf")
	servers.write(f"{d}/master.cf", servers.MASTER_CF.format(smtp=1, submission=2, procs="-"))
	p = subprocess.run(["postconf", "-c", d, "-n"], capture_output=True, text=True, check=False)
	t.ok(p.returncode == 0 and not p.stderr and "virtual_transport" in p.stdout,
	     "its main.cf is understood, with no unused setting", p)
	if shutil.which("php"):
		p = subprocess.run(["php", "-l", f"{standby.etc}/roundcube.inc.php"],
				   capture_output=True, text=True, check=False)
		t.ok(p.returncode == 0, "its Roundcube configuration parses", p)


def follow(main, standby):
	argv = main.mailwal_argv("--json", "follow", "--to", f"imaps://localhost:{standby.imaps_port}",
				 "--tls-ca", standby.cert, "--auth-user", rigs.MASTER,
				 "--password-file", f"{standby.etc}/follow.password")
	return main.spawn("follow", argv)


def user_view(t, standby, user, n):
	"""As the user, with his own password, over TLS."""
	c = imaplib.IMAP4_SSL("localhost", standby.imaps_port,
			      ssl_context=ssl.create_default_context(cafile=standby.cert))
	c.login(user, standby.password)
	got = int(c.select("INBOX")[1][0])
	c.logout()
	t.equal(got, n, f"{user} logs in at the standby and sees his mail")


def main_test(t):
	messages, _ = workload.bulk(80, seed=21, largest=60000)
	with rigs.Rig(t.sub("main"), postfix="message_drop_headers =") as main, \
	     Standby(t.sub("standby"), postfix="message_drop_headers =") as standby:
		jobs = workload.jobs(messages, main.users, main.aliases, 9)
		standby.recipe(t)
		configuration(t, standby)
		main.start()
		standby.start_dovecot()
		before = main.send(jobs[:20])
		main.wait_queue()
		main.mailwal("mark", "nightly")
		main.backup()
		main.mailwal("mark", "nightly", "--complete")
		p = follow(main, standby)
		after = main.send(jobs[20:50])
		main.wait_queue()
		check(t, standby, mailbox.expected(before + after), "the standby is current")
		t.ok(p.poll() is None, "the follower runs")
		t.equal(main.end("follow"), 130, "it ends")
		user_view(t, standby, main.users[0], sum(main.users[0] in j.owners
							 for j in before + after))
		main.destroy_store()
		standby.start()
		there = standby.send(jobs[50:80])
		end = time.monotonic() + tap.PATIENCE
		while time.monotonic() < end and (refused := [j for j in there if j.code != 250]):
			# Dovecot answers for logins a moment later than it listens
			t.note(f"sent again: {[(j.auth, j.code, j.text) for j in refused]}")
			standby.send(refused)
		t.need(all(j.code == 250 for j in there), "its Postfix takes mail")
		standby.wait_queue()
		# its own journal has the Sent copies; the store there does not, as on any server
		want = mailbox.expected(before + after)
		mailbox.expected(there, want, sent=None)
		check(t, standby, want, "the standby receives, and users send from it")
		home(t, main, standby, before, after + there)


def home(t, main, standby, before, since):
	main.restore()
	args = ["--json", "-c", main.conf, "-j", main.journal, "-j", standby.journal,
		*main.replay_args("--since-mark", "nightly")]
	dry = main.mailwal(*args, "-n", conf=False)
	r = main.mailwal(*args, conf=False)
	t.ok(r.rc == 0 and r.summary["failed"] == 0
	     and dry.summary["restored"] == r.summary["restored"] > 0,
	     "one replay of both journals into the restored main store", f"{dry}\n{r}")
	# Sent copies of before the mark were never in the store, and are the backup's affair.
	want = mailbox.expected(since)
	mailbox.expected(before, want, sent=None)
	check(t, main, want, "everything is home")
	r = main.mailwal(*args, conf=False)
	t.ok(r.rc == 0 and r.summary["restored"] == 0, "again: nothing to do", r)


tap.run(main_test)
