"""rivals - other tools put the same mail back into the same restored store.

Each gets what an operator would have: a Maildir for each user (INBOX and Sent), written by
`mailwal replay --to maildir:`, with the bytes and dates of capture and no mail that bounced,
holding all that was captured since the beginning of the window (storeloss): a little too much,
to be safe.
"""

import os
import pathlib
import re
import shutil
import subprocess
import time

import lossplay
import rig as rigs
import smtp
import storeloss


class Lmtp(smtp.Client):
	def __init__(self, port):
		self.lhlo = True
		super().__init__(port)

	def cmd(self, line, code=0):
		return super().cmd(re.sub(b"^EHLO", b"LHLO", line), code)


class Rivals:
	"""play, store: a lossplay.Play that is done with its checks, and its store."""

	def __init__(self, play, store):
		self.play, self.store, self.rig, self.loss = play, store, store.rig, play.loss
		self.work = f"{self.rig.run}/rivals"
		os.makedirs(self.work)
		os.chmod(self.work, 0o755)
		self.failed = []
		if store.kind == "cyrus":  # it asks for names of its default domain without domain
			self.rig.saslauthd.passwords.update(
				(u.partition("@")[0], self.rig.password) for u in storeloss.USERS)
		self._export()

	def _export(self):
		r = self.rig.mailwal("--json", "replay", "--since", f"@{self.loss.window_at:.3f}",
				     "--to", f"maildir:{self.work}/%n", "--create", "--state",
				     f"{self.work}/state")
		if r.rc:
			raise rigs.RigError(f"replay to a Maildir: {r}")
		subprocess.run(["chown", "-R", "nobody:nogroup", self.work], check=True)

	def box(self, user):
		return f"{self.work}/{user.partition('@')[0]}"

	def run(self):
		"""[(name, Verdict, seconds)]"""
		rows = []
		for name, tool in self.tools().items():
			self.loss.again()
			at, failed = time.monotonic(), len(self.failed)
			for user in storeloss.USERS:
				tool(user)
			took = time.monotonic() - at
			self.rig.wait_queue()
			name += " (with errors)" if len(self.failed) > failed else ""
			rows.append((name, self.loss.judge(), took))
		return rows

	def tools(self):
		out = {}
		tool = os.environ.get("IMAPSYNC") or shutil.which("imapsync")
		if tool:
			out["imapsync"] = lambda u: self.imapsync(tool, u)
			out["imapsync --useheader Message-Id"] = lambda u: self.imapsync(
				tool, u, "--useheader", "Message-Id")
		if shutil.which("mbsync"):
			out["mbsync"] = self.mbsync
		if self.store.kind != "cyrus":
			out["doveadm import"] = lambda u: self.doveadm("import", "-u", u,
				f"maildir:{self.box(u)}", "", "all")
			out["doveadm import, deduplicate -m"] = self.deduplicated
		out["LMTP again"] = self.lmtp
		return out

	def call(self, argv):
		p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
				   timeout=600, check=False)
		if p.returncode:
			self.failed.append(f"{argv[0]}: exit {p.returncode}: "
					   + (p.stderr or p.stdout).decode("utf-8", "replace")[-300:])

	def doveadm(self, *args):
		self.call(["doveadm", "-c", f"{self.rig.run}/dovecot.conf", *args])

	def deduplicated(self, user):
		self.doveadm("import", "-u", user, f"maildir:{self.box(user)}", "", "all")
		self.doveadm("deduplicate", "-u", user, "-m", "mailbox", "*", "all")

	def imap_port(self):
		return self.rig.cyrus_imap_port if self.store.kind == "cyrus" else self.rig.imap_port

	def mbsync(self, user):
		state = f"{self.work}/mbsync-{user}"
		shutil.rmtree(state, ignore_errors=True)
		shutil.copytree(self.box(user), state + "/near")
		conf = state + "/mbsyncrc"
		boxes = "INBOX Sent" if os.path.exists(state + "/near/.Sent") else "INBOX"
		with open(conf, "w", encoding="utf-8") as f:
			f.write(f"""\
IMAPStore far
Host 127.0.0.1
Port {self.imap_port()}
User {user}
Pass {self.rig.password}
SSLType None
AuthMechs PLAIN

MaildirStore near
Inbox {state}/near
SubFolders Maildir++

Channel all
Far :far:
Near :near:
Patterns {boxes}
Create Far
Sync Push
CopyArrivalDate yes
SyncState {state}/
""")
		self.call(["mbsync", "-q", "-c", conf, "all"])

	def imapsync(self, tool, user, *more):
		"""From an account of Dovecot's that holds the same Maildir."""
		source = lossplay.SOURCES[storeloss.USERS.index(user)]
		self.doveadm("expunge", "-u", source, "mailbox", "*", "all")
		self.doveadm("import", "-u", source, f"maildir:{self.box(user)}", "", "all")
		self.call([tool, "--nolog", "--noreleasecheck", "--tmpdir", self.work,
			   "--host1", "127.0.0.1", "--port1", str(self.rig.imap_port), "--user1",
			   source, "--password1", self.rig.password, "--host2", "127.0.0.1",
			   "--port2", str(self.imap_port()), "--user2", user, "--password2",
			   self.rig.password, "--nossl1", "--nossl2", "--notls1", "--notls2", *more])

	def lmtp(self, user):
		"""Each message of the INBOX once more, as if it came now."""
		port = self.rig.cyrus_lmtp_port if self.store.kind == "cyrus" else self.rig.lmtp_port
		sender = {j.number: j.sender for j in self.loss.jobs}
		names = [p for d in ("new", "cur") for p in pathlib.Path(self.box(user), d).iterdir()]
		with Lmtp(port) as c:
			for p in sorted(names):
				data = p.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
				code, text = c.mail(data, sender[storeloss.number_of(data)], [user],
						    mailargs="BODY=8BITMIME")
				if code != 250:
					self.failed.append(f"LMTP: {code} {text}")
