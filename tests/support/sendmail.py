"""sendmail - a private instance of real Sendmail in place of the Rig's Postfix.

    with Sendmail(directory) as rig:
        rig.start()
        rig.send([...]); rig.wait_queue(); rig.dump()

The program is Debian's. Its packages cannot stand beside another MTA, so
contrib/install-deps unpacks them into a cache instead of installing them; where Sendmail
is the system's own, that is taken. sendmail.cf comes out of m4 like a site's own, queue, pid
and sockets lie in the rig's run directory, the only port is one on 127.0.0.1, and it runs
as user mail. No name is looked up in DNS, and mail for other places goes nowhere. Its
syslog lines go to <run>/maillog (preload.c).

Its limits of load (REFUSE_LA and the like) are off, and the listen queue is long: with Sendmail's
own 10, Linux answers the eleventh waiting client with a SYN cookie and forgets it, and that client,
connected as far as it knows, waits for a greeting that never comes.
"""

import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import threading

import rig as rigs
import servers
from saslauthd import Saslauthd

CACHE = pathlib.Path("/var/cache/mailwal-tests/sendmail")
RUN_AS = "mail"

MC = """\
divert(-1)
include(`{cf}/m4/cf.m4')
divert(0)dnl
VERSIONID(`mailwal test rig')dnl
OSTYPE(`linux')dnl
undefine(`confBIND_OPTS')dnl
define(`confCF_VERSION', `rig')dnl
define(`confDOMAIN_NAME', `mx.{domain}')dnl
define(`confRUN_AS_USER', `{user}')dnl
define(`confSERVICE_SWITCH_FILE', `{dir}/service.switch')dnl
define(`confHOSTS_FILE', `{dir}/hosts')dnl
define(`QUEUE_DIR', `{dir}/queue')dnl
define(`STATUS_FILE', `{dir}/status')dnl
define(`HELP_FILE', `{dir}/help')dnl
define(`confPID_FILE', `{dir}/pid')dnl
undefine(`ALIAS_FILE')dnl
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit,GroupWritableDirPathSafe')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confTO_IDENT', `0')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confDELAY_LA', `0')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
define(`confMAX_MESSAGE_SIZE', `104857600')dnl
define(`confMAX_DAEMON_CHILDREN', `0')dnl
define(`confBAD_RCPT_THROTTLE', `0')dnl
define(`confLOG_LEVEL', `9')dnl
define(`confALIAS_WAIT', `0')dnl
define(`confAUTH_MECHANISMS', `PLAIN LOGIN')dnl
define(`confSERVER_CERT', `{dir}/tls.crt')dnl
define(`confSERVER_KEY', `{dir}/tls.key')dnl
define(`confCACERT', `{dir}/tls.crt')dnl
define(`confCACERT_PATH', `{dir}')dnl
TRUST_AUTH_MECH(`PLAIN LOGIN')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`nouucp', `reject')dnl
FEATURE(`delay_checks')dnl
FEATURE(`access_db', `text -o -k0 -v1 -z| -T<TMPF> {dir}/access')dnl
FEATURE(`blocklist_recipients')dnl
FEATURE(`no_default_msa')dnl
RELAY_DOMAIN(`{domains}')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Family=inet, Name=MTA, Listen=1024')dnl
{filters}
{extra}
MAILER(`local')dnl
MAILER(`smtp')dnl
MAILER_DEFINITIONS
Mdovecot, P=[IPC], F=lsDFMmnqSXz@/:|, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n,
	T=DNS/RFC822/SMTP, A=FILE {run}/dovecot/lmtp
Moutside, P=/bin/sh, F=lsDFMmn, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP,
	T=DNS/RFC822/X-Unix, A=sh -c cat>/dev/null $u
LOCAL_CONFIG
ESASL_CONF_PATH={dir}
C{{Here}}{domains}
{config}
LOCAL_RULE_0
{rules}
R$+ < @ $={{Here}} . > $*	$#dovecot $@ localhost $: $1 < @ $2 . > $3
R$+ < @ $={{Here}} > $*	$#dovecot $@ localhost $: $1 < @ $2 > $3
R$+ < @ $+ > $*	$#outside $@ $2 $: $1 < @ $2 > $3
"""

# T: as short as tests need; F=T: refuse for a while what mailwald does not answer.
FILTER = "INPUT_MAIL_FILTER(`{name}', `S=local:{socket},{flags} T=C:{c};S:{s};R:{r};E:{e}')dnl"


def find():
	"""(program, cf directory) of Sendmail, or None."""
	for root in (os.environ.get("MW_SENDMAIL"), str(CACHE), "/"):
		if not root:
			continue
		prog = os.path.join(root, "usr/libexec/sendmail/sendmail")
		cf = os.path.join(root, "usr/share/sendmail/cf")
		if os.access(prog, os.X_OK) and os.path.isdir(cf):
			return prog, cf
	return None


def preload(name="preload"):
	"""The library of a file in preload/, compiled anew when that changed."""
	src = pathlib.Path(__file__).parent / "preload" / f"{name}.c"
	base = pathlib.Path(os.environ.get("MW_BUILD") or "/tmp") / "tests"
	base.mkdir(parents=True, exist_ok=True)
	lib = base / f"{name}.so"
	if not lib.exists() or lib.stat().st_mtime < src.stat().st_mtime:
		new = base / f"{name}.{os.getpid()}.{threading.get_ident()}.so"
		subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", new, src,
				"-ldl"], check=True)
		os.replace(new, lib)
	return str(lib)


class Sendmail(rigs.Rig):
	"""A Rig whose MTA is Sendmail. mc, config, rules: more lines of the .mc file, of
	sendmail.cf and of its rule set 0; flags: what follows the socket (" F=T,")."""

	def __init__(self, directory, mc="", config="", rules="", flags=" F=T,", access="",
		     timeouts=None, **kw):
		if find() is None:
			raise rigs.RigError("no Sendmail: contrib/install-deps test unpacks it")
		self.program, self.cf_dir = find()
		self.mc_extra, self.cf_extra, self.rules = mc, config, rules
		self.flags, self.access = flags, access
		self.timeouts = {"c": "10s", "s": "30s", "r": "60s", "e": "5m", **(timeouts or {})}
		self.options = ["-q1s"]  # the queue is run each second
		self.sasl = None
		super().__init__(directory, **kw)

	# -- files -------------------------------------------------------------

	def _write_postfix(self):
		d = self.sm = f"{self.run}/sendmail"
		if not os.path.isdir(d):
			pw = pwd.getpwnam(RUN_AS)
			os.mkdir(d, 0o755)
			os.mkdir(f"{d}/queue", 0o700)
			# a copy without its set-group-ID bit, which would turn LD_PRELOAD off
			shutil.copyfile(self.program, f"{d}/sendmail")
			os.chmod(f"{d}/sendmail", 0o755)
			os.chown(f"{d}/queue", pw.pw_uid, pw.pw_gid)
			for f in ("status", "access"):
				servers.write(f"{d}/{f}", "", 0o644)
				os.chown(f"{d}/{f}", pw.pw_uid, pw.pw_gid)
			servers.write(f"{self.run}/maillog", "", 0o666)
			self._certificate()
		servers.write(f"{d}/hosts", "127.0.0.1 localhost\n")
		servers.write(f"{d}/service.switch", "hosts files\naliases nis\n")
		servers.write(f"{d}/access", "Connect:127.0.0.1|OK\n" + self.access)
		servers.write(f"{d}/Sendmail.conf", "pwcheck_method: saslauthd\n"
			      f"saslauthd_path: {d}/mux\nmech_list: plain login\n")
		self.write_cf()

	def _certificate(self):
		pw = pwd.getpwnam(RUN_AS)
		subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
				"ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
				f"/CN=mx.{self.domains[0]}", "-keyout", f"{self.sm}/tls.key", "-out",
				f"{self.sm}/tls.crt"], check=True, capture_output=True)
		os.chown(f"{self.sm}/tls.key", pw.pw_uid, pw.pw_gid)
		os.chmod(f"{self.sm}/tls.key", 0o600)

	def filters(self):
		mw = FILTER.format(name="mailwal", socket=self.milter_sock, flags=self.flags,
				   **self.timeouts) if self.with_mailwald else ""
		wit = FILTER.format(name="witness", socket=self.witness.path, flags=" F=T,",
				    **self.timeouts) if self.witness else ""
		both = [wit, mw] if self.witness_first else [mw, wit]
		return "\n".join(f for f in both if f)

	def write_cf(self):
		"""sendmail.mc and, by m4, sendmail.cf from this object's fields."""
		servers.write(f"{self.sm}/sendmail.mc", MC.format(
			cf=self.cf_dir, dir=self.sm, run=self.run, domain=self.domains[0],
			domains=" ".join(self.domains), port=self.smtp_port, user=RUN_AS,
			filters=self.filters(), extra=self.mc_extra, config=self.cf_extra,
			rules=self.rules))
		r = subprocess.run(["m4", f"-D_CF_DIR_={self.cf_dir}/", "-D_NO_MAKEINFO_",
				    f"{self.sm}/sendmail.mc"], capture_output=True, check=False)
		if r.returncode or r.stderr:
			raise rigs.RigError(f"m4: {r.stderr.decode()}")
		servers.write(f"{self.sm}/sendmail.cf", r.stdout.decode())

	def queue_command(self):
		script = f"{self.run}/mailq"
		servers.write(script, "#!/bin/sh\n"
			      f"LD_PRELOAD={preload()} MW_SYSLOG={self.run}/maillog "
			      f"MW_HOSTNAME=mx.{self.domains[0]} exec "
			      f"{' '.join(self.argv('-bp'))}\n", 0o755)
		return script

	def write_conf(self):
		super().write_conf()
		with open(self.conf, encoding="utf-8") as f:
			text = f.read()
		servers.write(self.conf, text.replace("milter_socket_group = postfix",
						      f"milter_socket_group = {RUN_AS}"))

	# -- processes -----------------------------------------------------------

	def env(self):
		return dict(os.environ, LD_PRELOAD=preload(), MW_SYSLOG=f"{self.run}/maillog",
			    MW_HOSTNAME=f"mx.{self.domains[0]}")

	def argv(self, *more):
		return [f"{self.sm}/sendmail", "-C", f"{self.sm}/sendmail.cf", *more]

	def start_postfix(self):
		return self.start_sendmail()

	def start_sendmail(self):
		if self.sasl is None:
			self.sasl = Saslauthd(self.sm, lambda u, p: u in self.users
					      and p == self.password)
		p = self.spawn("sendmail", self.argv("-L", "sm-mta", "-bD", *self.options),
			       env=self.env())
		rigs.wait_for("Sendmail's SMTP port", lambda: rigs.connects(self.smtp_port),
			      alive=p)
		return p

	def end_sendmail(self):
		"""The daemon, and the sessions and deliveries that are sessions of their own;
		they run our own copy of the program."""
		self.end("sendmail")
		for pid in filter(str.isdigit, os.listdir("/proc")):
			try:
				if os.readlink(f"/proc/{pid}/exe") == f"{self.sm}/sendmail":
					os.kill(int(pid), signal.SIGKILL)
			except OSError:
				pass

	def stop(self):
		if self.stopped:
			return
		self.end_sendmail()
		if self.sasl:
			self.sasl.close()
		for f in ("sendmail.mc", "sendmail.cf"):
			if os.path.exists(f"{self.run}/sendmail/{f}"):
				shutil.copy(f"{self.run}/sendmail/{f}", self.dir)
		super().stop()

	# -- using it ------------------------------------------------------------

	def send(self, jobs, sessions=8, **kw):
		self.submission_port = self.smtp_port  # one port for all
		return super().send(jobs, sessions, **kw)

	def sendmail(self, data, sender, rcpts):
		"""sendmail(1) that delivers by itself, as where no submit.cf is."""
		return subprocess.run(self.argv("-i", "-f", sender, "--", *rcpts), input=data,
				      capture_output=True, env=self.env(), timeout=rigs.PATIENCE,
				      check=False)

	def queue(self):
		"""The control files in the queue."""
		out = []
		for f in sorted(os.listdir(f"{self.sm}/queue")):
			if f[:2] in ("qf", "hf"):
				out.append({"queue_id": f[2:], "held": f[0] == "h"})
		return out

	def flush(self):
		pass  # the queue is run each second

	def whole_maillog(self):
		return self.maillog()  # its programs write it themselves

	def delivered(self):
		"""[(queue ID, relay's answer)] of what the mailer dovecot took."""
		return re.findall(r": (\w+): to=[^\n]*mailer=dovecot[^\n]*stat=Sent([^\n]*)",
				  self.maillog())


def version(program):
	"""What the program says it is."""
	r = subprocess.run([program, "-C", "/dev/null", "-d0.1", "-bt"], input=b"", timeout=rigs.PATIENCE,
			   capture_output=True, check=False)
	m = re.search(rb"Version (\S+)", r.stdout)
	return m.group(1).decode() if m else "?"
