"""scenario - the main job, step by step: capture, backup, loss, restore, replay, proof.

Used by contrib/quickstart and by the end-to-end tests. Each step is a method, so that a test
can do something in between; run() does them all.
"""

import imaplib
import threading
import time

import mailbox
from mailbox import Expected, login


class Failed(Exception):
	"""A step did not do what it must; the text says what differed."""


class Disaster:
	"""rig: started. jobs: workload.Mail, sent in three parts: before, during and after the
	backup. say(text): progress."""

	def __init__(self, rig, jobs, say=lambda text: None, mark="nightly"):
		self.rig, self.jobs, self.say, self.mark = rig, jobs, say, mark
		n = len(jobs)
		self.parts = jobs[:n // 3], jobs[n // 3:n // 3 + n // 10], jobs[n // 3 + n // 10:]
		self.backup_began = self.lost_at = self.back_at = 0.0
		self.in_backup, self.before, self.after, self.final = {}, {}, {}, {}
		self.first = self.second = None
		self.sent_box = []

	# -- steps ---------------------------------------------------------------

	def send(self, jobs):
		"""Sends; authenticated users' programs file their own copy in Sent."""
		self.rig.send(jobs, clock=time.time)
		bad = [j for j in jobs if j.code != 250]
		if bad:
			raise Failed(f"{len(bad)} of {len(jobs)} not accepted, first: {bad[0].name}: "
				     f"{bad[0].code} {bad[0].text}")
		for user in sorted({j.auth for j in jobs if j.auth}):
			c = login(self.rig, user)
			for j in (j for j in jobs if j.auth == user):
				when = imaplib.Time2Internaldate(j.acked_at)
				typ, text = c.append("Sent", "\\Seen", when, j.data)
				if typ != "OK":
					raise Failed(f"Sent copy of {j.name}: {text}")
				self.sent_box.append(j)
			c.logout()

	def before_backup(self):
		self.send(self.parts[0])
		self.rig.wait_queue()

	def backup(self):
		"""Mark, file copy with mail still coming in, mark --complete."""
		r = self.rig.mailwal("mark", self.mark)
		if r.rc:
			raise Failed(f"mailwal mark: {r}")
		self.backup_began = time.time()
		error, part = [], self.parts[1]
		self.send(part[:len(part) // 2])  # arrives before the copy: will be there already
		self.rig.wait_queue()

		def more():
			try:
				self.send(part[len(part) // 2:])
			except Exception as e:
				error.append(e)

		t = threading.Thread(target=more)
		t.start()
		self.rig.backup()
		t.join()
		if error:
			raise error[0]
		r = self.rig.mailwal("mark", self.mark, "--complete")
		if r.rc:
			raise Failed(f"mailwal mark --complete: {r}")

	def after_backup(self):
		self.send(self.parts[2])
		self.rig.wait_queue()

	def lose(self):
		"""The store's disk goes away under the running server."""
		self.before = mailbox.dump(self.rig)
		self.lost_at = time.time()
		self.rig.destroy_store()
		self.rig.end("dovecot")

	def restore(self):
		self.rig.restore()
		self.rig.start_dovecot()
		self.in_backup = mailbox.dump(self.rig)

	def replay(self):
		self.first = self.rig.replay("--since-mark", self.mark)
		self.back_at = time.time()
		self.after = mailbox.dump(self.rig)

	def again(self):
		self.second = self.rig.replay("--since-mark", self.mark)
		self.final = mailbox.dump(self.rig)

	def run(self):
		for what, step in (("sending mail", self.before_backup),
				   ("backup, with mail coming in", self.backup),
				   ("sending more mail", self.after_backup),
				   ("losing the mail store", self.lose),
				   ("restoring the backup", self.restore),
				   ("replaying", self.replay), ("replaying again", self.again)):
			self.say(what)
			step()
		return self

	# -- what must be --------------------------------------------------------

	def expected(self, data_of=lambda job: job.data):
		"""{(user, folder): [Expected]} of everything sent so far."""
		out = {}
		for j in self.jobs:
			if j.code == 250:
				for u in j.owners:
					out.setdefault((u, "INBOX"), []).append(
						self._sent(j, data_of))
		for j in self.sent_box:
			out.setdefault((j.auth, "Sent"), []).append(
				self._sent(j, data_of))
		return out

	@staticmethod
	def _sent(j, data_of):
		return Expected(j.queue_id, data_of(j), j.acked_at, j.began_at)

	def put_back(self, comparison):
		"""The matched copies that were not in the restored backup."""
		had = {k: {s.uid for s in v} for k, v in self.in_backup.items()}
		return [(k, e, s) for k, e, s in comparison.pairs if s.uid not in had.get(k, ())]

	def wrong_dates(self, comparison, tolerance=2.0):
		"""Put back with an INTERNALDATE that is not the time of arrival."""
		return [f"{k[0]}/{k[1]} uid {s.uid} ({e.label}): {e.off(s.date):+.1f} s"
			for k, e, s in self.put_back(comparison)
			if abs(e.off(s.date)) > tolerance]

	def same_state(self, a, b):
		"""Differences between two dumps, as text; empty if none."""
		out = []
		for k in sorted(set(a) | set(b)):
			x = {s.uid: s.data for s in a.get(k, [])}
			y = {s.uid: s.data for s in b.get(k, [])}
			if x != y:
				out.append(f"{k[0]}/{k[1]}: {len(x)} and {len(y)} messages; only first: "
					   f"{sorted(set(x) - set(y))[:5]}, only second: "
					   f"{sorted(set(y) - set(x))[:5]}")
		return out
