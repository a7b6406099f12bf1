"""cyrus - a private Cyrus IMAP server from Debian's packages, beside a Rig's Dovecot.

    with CyrusRig(directory) as rig:
        rig.start(); rig.send([...]); rig.replay("--all"); mailbox.dump(rig)

The binaries are those that contrib/install-deps unpacks (Cyrus and Dovecot cannot both be
installed). Configuration, partition, sockets and password check lie in the rig's run
directory; everything listens on 127.0.0.1 and ends by pid. Dovecot stays for SASL of the
submission port only. Passwords are checked by saslauthd.py.
"""

import imaplib
import os
import pathlib
import pwd
import re
import shutil
import tempfile

import mailbox
import rig as rigs
import servers
from saslauthd import Saslauthd

PLACES = ("/var/cache/mailwal-tests/cyrus", "/")  # unpacked by contrib/install-deps test

IMAPD_CONF = """\
configdirectory: {dir}/conf
defaultpartition: default
partition-default: {dir}/spool
cyrus_user: nobody
servername: mx.example.test
admins: cyrus replayer
proxyservers: replayer
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: {dir}/mux
sasl_mech_list: PLAIN LOGIN
allowplaintext: yes
virtdomains: userid
defaultdomain: example.test
unixhierarchysep: {slash}
altnamespace: {alt}
lmtp_downcase_rcpt: yes
autocreate_quota: 0
autocreate_post: yes
autocreate_inbox_folders: Sent|Trash
autocreate_subscribe_folders: Sent|Trash
xlist-Sent: Sent
xlist-Trash: Trash
duplicatesuppression: 0
maxlogins_per_user: 0
maxlogins_per_host: 0
conversations: no
lmtpsocket: {dir}/conf/socket/lmtp
idlesocket: {dir}/conf/socket/idle
notifysocket: {dir}/conf/socket/notify
{extra}
"""

CYRUS_CONF = """\
START {{
  recover cmd="{bin}/ctl_cyrusdb -C {dir}/imapd.conf -r"
}}
SERVICES {{
  imap cmd="{bin}/imapd -C {dir}/imapd.conf" listen="127.0.0.1:{imap}" prefork=1 maxforkrate=0
  lmtp cmd="{bin}/lmtpd -C {dir}/imapd.conf -a" listen="127.0.0.1:{lmtp}" prefork=0 maxforkrate=0
}}
EVENTS {{
}}
"""


def root():
	"""Where Cyrus lies, or None."""
	for place in PLACES:
		if os.access(os.path.join(place, "usr/lib/cyrus/bin/imapd"), os.X_OK):
			return place
	return None


class CyrusRig(rigs.Rig):
	"""A Rig whose mailboxes are in Cyrus. alt: altnamespace (folders beside INBOX, not
	below it); slash: "/" as separator; imapd: further lines of imapd.conf."""

	def __init__(self, directory, alt=True, slash=True, imapd="", deliver=True, **kw):
		super().__init__(directory, **kw)
		self.alt, self.slash, self.imapd_extra = alt, slash, imapd
		self.cyrus_root = root()
		if not self.cyrus_root:
			raise rigs.RigError("no Cyrus: contrib/install-deps test unpacks it")
		self.cyrus_bin = os.path.join(self.cyrus_root, "usr/lib/cyrus/bin")
		self.cyrus_dir = os.path.join(self.run, "cyrus")
		self.memory = tempfile.mkdtemp(prefix="mw.", dir="/dev/shm")
		os.chmod(self.memory, 0o755)
		os.symlink(self.memory, self.cyrus_dir)  # it syncs a lot
		self.cyrus_imap_port, self.cyrus_lmtp_port = rigs.free_ports(2)
		self.saslauthd = None
		self.in_dovecot = False  # the mailboxes meant are Dovecot's
		self._cyrus_files()
		if deliver:
			self.configure(postfix="virtual_transport = "
				       f"lmtp:inet:127.0.0.1:{self.cyrus_lmtp_port}")

	def _cyrus_files(self):
		pw = pwd.getpwnam(rigs.MAIL_USER)
		for d in ("", "conf", "spool", "conf/socket", "conf/proc", "conf/db", "conf/log",
			  "conf/lock"):
			path = os.path.join(self.cyrus_dir, d)
			os.makedirs(path, exist_ok=True)
			os.chown(path, pw.pw_uid, pw.pw_gid)
		self.write_cyrus()

	def write_cyrus(self):
		yes = {True: "yes", False: "no"}
		text = IMAPD_CONF
		for line in self.imapd_extra.splitlines():  # each setting once
			name = line.partition(":")[0]
			text = re.sub(rf"(?m)^{name}:.*\n", "", text)
		servers.write(f"{self.cyrus_dir}/imapd.conf", text.format(
			dir=self.cyrus_dir, slash=yes[self.slash], alt=yes[self.alt],
			extra=self.imapd_extra))
		servers.write(f"{self.cyrus_dir}/cyrus.conf", CYRUS_CONF.format(
			dir=self.cyrus_dir, bin=self.cyrus_bin, imap=self.cyrus_imap_port,
			lmtp=self.cyrus_lmtp_port))

	def cyrus_env(self):
		lib = os.path.join(self.cyrus_root, "usr/lib")
		libs = [lib] + [str(p.parent) for p in pathlib.Path(lib).glob("**/libcyrus.so.0")]
		return dict(os.environ, LD_LIBRARY_PATH=":".join(libs))

	def start(self):
		passwords = ({u: self.password for u in self.users}
			     | {rigs.MASTER: self.master_password, "cyrus": self.master_password,
				rigs.MASTER + "@example.test": self.master_password})
		self.saslauthd = Saslauthd(self.cyrus_dir, lambda name, p: passwords.get(name) == p)
		self.start_cyrus()
		super().start()
		self.make_mailboxes()
		return self

	def start_cyrus(self):
		p = self.spawn("cyrus", [f"{self.cyrus_bin}/master", "-C",
			f"{self.cyrus_dir}/imapd.conf", "-M", f"{self.cyrus_dir}/cyrus.conf",
			"-p", f"{self.cyrus_dir}/master.pid", "-D"], env=self.cyrus_env())
		rigs.wait_for("Cyrus' IMAP port", lambda: rigs.connects(self.cyrus_imap_port),
			      alive=p)
		rigs.wait_for("Cyrus' LMTP port", lambda: rigs.connects(self.cyrus_lmtp_port),
			      alive=p)
		return p

	def make_mailboxes(self):
		"""A first login makes the mailbox (autocreate)."""
		for u in self.users:
			self.login(u).logout()

	def login(self, user):
		"""As that user by the proxy user: SASL PLAIN with an authzid."""
		if self.in_dovecot:
			return mailbox.master_login(self, user)
		c = imaplib.IMAP4("127.0.0.1", self.cyrus_imap_port)
		text = f"{user}\0{rigs.MASTER}\0{self.master_password}".encode()
		c.authenticate("PLAIN", lambda _: text)
		return c

	def admin(self):
		c = imaplib.IMAP4("127.0.0.1", self.cyrus_imap_port)
		c.login("cyrus", self.master_password)
		return c

	def user_name(self, user, folder=None):
		"""What the admin calls the mailbox: user/anna@example.test or user.anna@…."""
		sep = "/" if self.slash else "."
		local, _, domain = user.rpartition("@")
		if not self.slash:
			local = local.replace(".", "^")
		tail = sep + folder if folder else ""
		name = f"user{sep}{local}{tail}"
		return name if domain == "example.test" else f"{name}@{domain}"

	def replay_args(self, *more):
		args = super().replay_args(*more)
		if self.in_dovecot:
			return args
		args[args.index("--to") + 1] = f"imap://127.0.0.1:{self.cyrus_imap_port}"
		return args

	# -- the store: Cyrus is down while it is copied, as its files belong together -------

	def backup(self):
		self.end("cyrus")
		shutil.rmtree(self.backup_dir, ignore_errors=True)
		os.makedirs(self.backup_dir)
		for d in ("spool", "conf"):
			self._copy_tree(f"{self.cyrus_dir}/{d}", self.backup_dir)
		self.start_cyrus()

	def destroy_store(self):
		self.end("cyrus")
		for d in ("spool", "conf"):
			shutil.rmtree(f"{self.cyrus_dir}/{d}")
		self._cyrus_files()

	def restore(self):
		for d in ("spool", "conf"):
			self._copy_tree(f"{self.backup_dir}/{d}/.", f"{self.cyrus_dir}/{d}")
		self.start_cyrus()

	def stop(self):
		if not self.stopped:
			super().end("postfix")
			super().end("cyrus")
			if self.saslauthd:
				self.saslauthd.close()
			shutil.rmtree(self.memory, ignore_errors=True)
		super().stop()


def capabilities(rig):
	c = rig.login(rig.users[0])
	caps = set(re.sub(r"[()',]", " ", str(c.capability()[1])).split())
	c.logout()
	return caps
