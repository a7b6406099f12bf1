"""storeloss - users at work, a backup, a lost store, and a judge who knows what must be there.

    with stores.make("sdbox", directory, sieve=True) as store:
        loss = Loss(store, seed, n)
        loss.run()                      # until the backup is restored
        first = store.replay(...); verdict = loss.judge()

Each message bears a number in its body, so that the judge recognises it whatever a tool did to
it. Among the mail: no Message-ID, another message's Message-ID, list copies, exact copies,
several recipients, aliases, sent mail with the sender's own copy (Bcc kept). Users read, move
and delete before the backup, while it runs, and after it.

Times of a run, all mail counted in shares of n:
    old     48 %  delivered, read, moved, deleted long before the backup
    window  15 %  the same shortly before it: what an operator takes again to be safe
    mark
    during  1 %   delivered before the copy of the store, one of them deleted before it, too
    copy
    between 1/2 % delivered after the copy
    mark --complete
    new     34 %  delivered, read, moved, deleted after it
    loss
    waiting 1 %   accepted while the store is away: in Postfix' queue
"""

import collections
import imaplib
import random
import re
import time

import mailbox
import rig as rigs
import workload

ANNA, BERT, CLEO = (f"{n}@example.test" for n in ("anna", "bert", "cleo"))
USERS = (ANNA, BERT, CLEO)
ALIASES = {"info@example.test": [ANNA, BERT]}
NUMBER = re.compile(rb"(?m)^number: (\d+)\r?$")

# What the users' scripts do with a mail, by a word of its subject (stores.SCRIPT).
FOLDERS = {"order": "Work/Orders", "newsletter": "Lists", "forward": "INBOX"}


class Mail(workload.Mail):
	"""A mail with its number (exact copies share one) and its kind."""

	def __init__(self, number, kind, data, sender, rcpts, auth=None):
		super().__init__(f"mail {number}", data, sender, rcpts, ALIASES, USERS, auth,
				 mailargs="BODY=8BITMIME")
		self.number, self.kind = number, kind


def header(number, kind, mid, rcpt, sender, more=""):
	text = "Gr\u00fc\u00dfe" if number % 19 == 0 else "greetings"
	return (f"From: {sender}\r\nTo: {rcpt}\r\nSubject: {kind} {number}\r\n{mid}{more}"
		f"X-Text: {text}\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\n")


def mails(rnd, n):
	"""n mails in the order in which they are sent."""
	out = []
	for i in range(n):
		mid, more, what = f"Message-ID: <n{i}@remote.test>\r\n", "", rnd.random()
		old = out[rnd.randrange(i)] if i else None
		if what < 0.03:
			mid = ""
		elif what < 0.06 and old:
			mid = f"Message-ID: <n{old.number}@remote.test>\r\n"
		elif what < 0.08 and old:  # the list's copy of what came directly
			mid = f"Message-ID: <n{old.number}@remote.test>\r\n"
			more = "List-Id: <all.lists.test>\r\nPrecedence: list\r\n"
		elif what < 0.11 and old and not old.auth:
			out.append(Mail(old.number, old.kind, old.data, old.sender, old.rcpts))
			continue
		kind = rnd.choices(("plain", "order", "newsletter", "forward"), (72, 10, 10, 8))[0]
		rcpts, sender, auth = [rnd.choice((ANNA, ANNA, ANNA, BERT, CLEO))], None, None
		if what > 0.97:
			rcpts = ["info@example.test"]
		elif what > 0.92:
			rcpts = [ANNA, BERT, CLEO]
		elif what > 0.84:
			auth, rcpts = rnd.choice((ANNA, BERT)), rnd.choice(
				([CLEO], ["partner@elsewhere.test"]))
			kind = "plain"
			mid = mid or f"Message-ID: <n{i}@remote.test>\r\n"
		sender = auth or f"writer{i % 17}@remote.test"
		data = (header(i, kind, mid, rcpts[0], sender, more)
			+ f"number: {i}\r\n" + f"text of {i}\r\n" * rnd.randint(1, 60))
		out.append(Mail(i, kind, data.encode(), sender, rcpts, auth))
	return out


def number_of(data):
	m = NUMBER.search(data)
	return int(m[1]) if m else None


def message_id(j):
	mid = mailbox.message_id(j.data)
	return j.number if mid == "-" else mid


Verdict = collections.namedtuple("Verdict", "lost surplus brought_back wrong_folder wrong_date "
				 "altered disturbed undecidable sent")
FAULTS = ("lost", "surplus", "brought_back", "wrong_folder", "wrong_date", "altered",
	  "disturbed", "sent")


class Loss:
	"""store: stores.Store, started."""

	def __init__(self, store, seed, n):
		self.store, self.rig = store, store.rig
		self.rnd = random.Random(seed)
		self.n = n
		self.jobs = mails(self.rnd, n)
		cut = [int(n * x) for x in (0.48, 0.63, 0.64, 0.645, 0.99)]
		cut = [0, *cut, n]
		(self.old, self.window, self.during, self.between, self.new,
		 self.waiting) = (self.jobs[a:b] for a, b in zip(cut, cut[1:]))
		self.waiting[:] = [self._to_cleo(j) for j in self.waiting]
		self.window_at = self.mark_at = 0.0
		self.removed = collections.Counter()  # (user, number): gone before the mark
		self.unknowable = collections.Counter()  # deleted while the backup ran
		self.deleted_later = 0
		self.restored, self.lost_copies = {}, 0
		self.delivered = set()  # jobs that were given to the store, by identity
		self.notes, self.doubtful = [], {}
		by_id = collections.Counter(message_id(j) for j in {j.number: j for j in self.jobs
							   }.values())
		self.shared = {j.number for j in self.jobs if by_id[message_id(j)] > 1}

	def shares_id(self, number):
		"""Has another mail the same Message-ID?"""
		return number in self.shared

	def _to_cleo(self, j):
		"""A new mail in that place, to somebody whose script sends nothing."""
		i = self.jobs.index(j)
		number = self.n + i
		data = header(number, "plain", f"Message-ID: <w{i}@remote.test>\r\n", CLEO,
			      "w@remote.test") + f"number: {number}\r\n"
		self.jobs[i] = Mail(number, "plain", data.encode(), "w@remote.test", [CLEO])
		return self.jobs[i]

	# -- what users do ---------------------------------------------------------

	def send(self, jobs, wait=True):
		self.rig.send(jobs, clock=time.time)
		bad = [j for j in jobs if j.code != 250]
		if bad:
			raise rigs.RigError(f"{len(bad)} mails refused: {bad[0].code} {bad[0].text}")
		if not wait:
			return
		for user in sorted({j.auth for j in jobs if j.auth}):
			c = mailbox.login(self.rig, user)
			for j in jobs:
				if j.auth == user:
					when = imaplib.Time2Internaldate(j.acked_at)
					typ, text = c.append("Sent", "\\Seen", when,
							     b"Bcc: hidden@elsewhere.test\r\n" + j.data)
					if typ != "OK":
						raise rigs.RigError(f"Sent copy: {text}")
			c.logout()
		self.rig.wait_queue()
		self.delivered.update(map(id, jobs))

	def tidy(self, reads, moves, deletes, among=()):
		"""Each user reads, moves and deletes shares of what lies in INBOX and Lists, of
		these jobs where there are any; what was deleted: {(user, number): how many}."""
		gone = collections.Counter()
		numbers = {j.number for j in among}
		for user in USERS:
			c = mailbox.login(self.rig, user)
			for folder in ("INBOX", "Lists"):
				if folder not in mailbox.folders(c):
					continue
				msgs = [m for m in mailbox.fetch(c, folder)
					if not numbers or number_of(m.data) in numbers]
				self.rnd.shuffle(msgs)
				n = len(msgs)
				a, b, d = int(n * reads), int(n * moves), round(n * deletes)
				read, move, drop = msgs[:a], msgs[a:a + b], msgs[a + b:a + b + d]
				c.select(f'"{folder}"')
				if read:
					c.uid("STORE", uids(read), "+FLAGS", "\\Seen")
				if move:
					c.uid("MOVE", uids(move), "Archive")
				if drop:
					c.uid("STORE", uids(drop), "+FLAGS", "\\Deleted")
					c.expunge()
				gone.update((user, number_of(m.data)) for m in drop)
			c.logout()
		return gone

	def tidy_during(self, jobs):
		"""One user deletes one of these mails."""
		c = mailbox.login(self.rig, CLEO)
		numbers = {j.number for j in jobs if CLEO in j.owners}
		hit = [m for m in mailbox.fetch(c, "INBOX") if number_of(m.data) in numbers][:1]
		c.select("INBOX")
		if hit:
			c.uid("STORE", uids(hit), "+FLAGS", "\\Deleted")
			c.expunge()
		c.logout()
		return collections.Counter((CLEO, number_of(m.data)) for m in hit)

	# -- the story ---------------------------------------------------------------

	def run(self):
		self._folders()
		self.send(self.old)
		self.removed += self.tidy(0.5, 0.05, 0.05)
		self.window_at = time.time()
		self.send(self.window)
		self.removed += self.tidy(0.2, 0.1, 0.15, self.window)
		time.sleep(1.2)  # stamps of the log have whole seconds
		self._mark("nightly")
		self.mark_at = time.time()
		self.send(self.during)
		self.removed += self._of_old(self.tidy(0, 0, 0.01))
		self.unknowable += self.tidy_during(self.during)
		self.rig.backup()
		self.send(self.between)
		self._mark("nightly", "--complete")
		time.sleep(0.1)
		self.send(self.new)
		self.deleted_later = self.tidy(0.5, 0.05, 0.05).total()
		before = mailbox.count(mailbox.dump(self.rig, USERS))
		self.store.lose()
		self.send(self.waiting, wait=False)
		self.store.restore()
		self.restored = mailbox.dump(self.rig, USERS)
		self.lost_copies = before - mailbox.count(self.restored)
		self.learn()
		self.sent_before = self.sent()
		return self

	def _folders(self):
		"""Made before there is mail: Dovecot 2.3's sdbox aborts a session that makes one
		while LMTP delivers ("Resource deadlock avoided")."""
		for user in USERS:
			c = mailbox.login(self.rig, user)
			c.create("Archive")
			c.select("Sent")
			c.logout()

	def _of_old(self, gone):
		"""Deleted while the backup ran: known to be gone if it had come before the mark."""
		late = {j.number for j in self.during}
		for key in [k for k in gone if k[1] in late]:
			self.unknowable[key] += gone.pop(key)
		return gone

	def _mark(self, *args):
		r = self.rig.mailwal("mark", *args)
		if r.rc:
			raise rigs.RigError(f"mark {args}: {r}")

	def learn(self):
		r = self.rig.mailwal("--json", "outcomes", f"{self.rig.run}/maillog")
		if r.rc:
			raise rigs.RigError(f"outcomes: {r}")

	def deliver_waiting(self):
		"""Postfix hands over what it held."""
		self.rig.flush()
		self.rig.wait_queue()
		self.delivered.update(map(id, self.waiting))

	def again(self):
		"""The restored backup once more, as it was before anything was put back."""
		self.store.lose()
		self.store.restore()
		self.restored = mailbox.dump(self.rig, USERS)
		self.sent_before = self.sent()

	def overlap(self):
		"""For --overlap: from the mark back to the window."""
		return f"{self.mark_at - self.window_at:.3f}s"

	def sent(self):
		return len(self.rig.sent_outside())

	# -- the judge ---------------------------------------------------------------

	def due(self):
		"""{(user, number): copies}, and the facts about each number."""
		n, facts = collections.Counter(), {}
		for j in self.jobs:
			facts.setdefault(j.number, []).append(j)
			if j in self.waiting and id(j) not in self.delivered:
				continue
			for u in j.owners:
				n[u, j.number] += 1
			if j.auth:
				n[j.auth, j.number] += 1
		return n - self.removed - self.unknowable, facts

	def place(self, user, j):
		if j.auth == user:
			return "Sent"
		if self.store.sieve and user in self.store.scripted:
			return FOLDERS.get(j.kind, "INBOX")
		return "INBOX"

	def judge(self, state=None):
		"""What the mailboxes hold now, against what they must hold."""
		state = mailbox.dump(self.rig, USERS) if state is None else state
		want, facts = self.due()
		had = {(k, s.uid): s for k, v in self.restored.items() for s in v}
		have, bad = collections.Counter(), collections.defaultdict(list)
		for (user, folder), msgs in state.items():
			for s in msgs:
				number = number_of(s.data)
				have[user, number] += 1
				old = had.pop(((user, folder), s.uid), None)
				if old is None:
					self._new(bad, user, folder, s, facts.get(number))
				elif (old.date, sorted(old.flags), old.data) != (
						s.date, sorted(s.flags), s.data):
					bad["disturbed"].append(f"{user} {folder} {s.uid}")
		bad["disturbed"] += [f"{k} is gone" for k in had]
		lost, more = want - have, have - want
		doubt = self.doubtful = more & self.unknowable
		more -= doubt
		back = more & self.removed
		self.notes = [f"{k}: {v}" for k, v in list(bad.items())]
		self.notes += [f"lost {k} × {n}" for k, n in lost.items()]
		self.notes += [f"surplus {k} × {n}" for k, n in more.items()]
		return Verdict(lost.total(), more.total(), back.total(), len(bad["wrong_folder"]),
			       len(bad["wrong_date"]), len(bad["altered"]), len(bad["disturbed"]),
			       doubt.total(), self.sent() - self.sent_before)

	def _new(self, bad, user, folder, s, jobs):
		"""One message that the restored backup did not have."""
		where = f"{user} {folder} {s.uid}"
		if not jobs:
			bad["altered"].append(f"{where}: not one of ours")
			return
		j = jobs[0]
		if folder != self.place(user, j):
			bad["wrong_folder"].append(f"{where}: not {self.place(user, j)}")
		if j not in self.waiting and min(x.off(s.date) for x in jobs) > 1:
			bad["wrong_date"].append(f"{where}: {s.date - j.acked_at:+.1f} s")
		if not self.store.same(j.data, s.data, j in self.waiting):
			bad["altered"].append(f"{where}: {s.data[:300]!r}")


def uids(msgs):
	return ",".join(str(m.uid) for m in msgs)
