"""caches - mail clients that keep what they saw and synchronise by what they knew before."""

import os
import re
import subprocess

import mailbox
import rig as rigs
import tap


class Client:
	"""A cache of one folder, kept by UIDVALIDITY and what the two kinds below add."""

	def __init__(self, rig, user, folder):
		self.rig, self.user, self.folder = rig, user, folder
		self.validity, self.cache = None, {}

	def open(self):
		self.c = mailbox.login(self.rig, self.user)

	def status(self):
		r = self.c.status(self.folder, "(UIDVALIDITY UIDNEXT HIGHESTMODSEQ)")[1][0]
		validity, uidnext, modseq = (int(re.search(rb" ?%s (\d+)" % w, r).group(1)) for w in
			(b"UIDVALIDITY", b"UIDNEXT", b"HIGHESTMODSEQ"))
		if self.validity not in (None, validity):
			raise rigs.RigError("UIDVALIDITY changed")
		self.validity = validity
		return uidnext, modseq

	def ids(self, uids):
		"""{uid: Message-ID} of what the server has of a UID set."""
		rows = self.c.uid("FETCH", uids, "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]
		out = {}
		for i, r in enumerate(rows or []):
			if isinstance(r, tuple):
				tail = rows[i + 1] if isinstance(rows[i + 1], bytes) else b""
				uid = re.search(rb"UID (\d+)", r[0] + tail)
				out[int(uid.group(1))] = mailbox.message_id(r[1])
		return out

	def sync(self):
		self.open()
		uidnext, modseq = self.status()
		self.c.select(self.folder, readonly=True)
		self.take(uidnext, modseq)
		self.c.logout()

	def missed(self):
		"""Message-IDs that the folder holds at a UID where this client sees something else, or
		nothing."""
		self.open()
		self.c.select(self.folder, readonly=True)
		there = self.ids("1:*")
		self.c.logout()
		return sorted(m for u, m in there.items() if self.cache.get(u) != m)


class ByUid(Client):
	"""New is what has a UID from the last UIDNEXT on; gone is what SEARCH does not name."""
	last = 1

	def take(self, uidnext, _modseq):
		if uidnext > self.last:
			new = self.ids(f"{self.last}:*")
			self.cache.update({u: m for u, m in new.items() if u >= self.last})
			self.last = uidnext
		there = {int(x) for x in self.c.uid("SEARCH", "ALL")[1][0].split()}
		self.cache = {u: m for u, m in self.cache.items() if u in there}


class ByModseq(Client):
	"""Changed and new is what has a MODSEQ beyond the last one; the server says what is gone
	(RFC 7162)."""
	last = 0

	def open(self):
		super().open()
		self.c.enable("QRESYNC")

	def take(self, _uidnext, modseq):
		if not self.last:
			self.cache = self.ids("1:*")
		elif modseq > self.last:
			rows = self.c.uid("FETCH", "1:*", f"(FLAGS) (CHANGEDSINCE {self.last} VANISHED)")
			gone = self.c.response("VANISHED")[1]
			for text in gone:
				for a, b in re.findall(rb"(\d+)(?::(\d+))?", text or b""):
					for u in [u for u in self.cache if int(a) <= u <= int(b or a)]:
						del self.cache[u]
			new = {int(u) for r in rows[1] if r
			       for u in re.findall(rb"UID (\d+)", r)} - set(self.cache)
			if new:
				self.cache.update(self.ids(",".join(map(str, sorted(new)))))
		self.last = max(self.last, modseq)


class Mbsync(Client):
	"""A real one: mbsync pulls the folder into a Maildir."""

	def __init__(self, rig, user, folder, directory):
		super().__init__(rig, user, folder)
		self.dir = directory
		os.makedirs(directory)
		with open(directory + "/rc", "w", encoding="utf-8") as f:
			f.write(f"IMAPStore far\nHost 127.0.0.1\nPort {rig.imap_port}\nUser {user}\n"
				f"Pass {rig.password}\nSSLType None\nAuthMechs PLAIN\n\n"
				f"MaildirStore near\nInbox \"{directory}/box\"\n\n"
				f"Channel all\nFar :far:{folder}\nNear :near:INBOX\nSync Pull\n"
				f"Create Near\nSyncState \"{directory}/\"\n")

	def sync(self):
		r = subprocess.run(["mbsync", "-q", "-c", self.dir + "/rc", "all"], timeout=tap.PATIENCE,
				   capture_output=True, check=False)
		if r.returncode:
			raise rigs.RigError(f"mbsync: {r.stderr.decode()[-500:]}")

	def missed(self):
		have = set()
		for d in ("cur", "new"):
			for e in os.scandir(f"{self.dir}/box/{d}"):
				with open(e.path, "rb") as f:
					have.add(mailbox.message_id(f.read().replace(b"\n", b"\r\n")))
		c = mailbox.login(self.rig, self.user)
		there = {mailbox.message_id(s.data) for s in mailbox.fetch(c, self.folder)}
		c.logout()
		return sorted(there - have)


def placeholders(rig, user):
	"""The folders that hold one."""
	out, c = [], mailbox.login(rig, user)
	for f in mailbox.folders(c):
		c.select(f'"{f}"', readonly=True)
		out += [f] if c.search(None, "SUBJECT", '"mailwal holds"')[1][0] else []
	c.logout()
	return out
