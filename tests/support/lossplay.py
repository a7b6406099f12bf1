"""lossplay - a store loss played once, and what must hold then: as checks of a tap test.

Used by tests/e2e/store_loss_test.py (few mails, few kills) and tests/soak scenario (many).
"""

import json
import subprocess
import time

import mailbox
import storeloss
import stores
from storeloss import FAULTS

SELECT = ("--since-mark", "nightly")


class Play:
	"""t: tap.Checks; kills: so many of client and server together."""

	def __init__(self, t, kind, sieve, seed, n, kills):
		self.t, self.kind, self.seed, self.n, self.kills = t, kind, seed, n, kills
		self.sieve = sieve and kind != "cyrus"
		self.what = f"{kind}{', Sieve' if self.sieve else ''}, seed {seed}"
		self.first = self.loss = None
		self.verdicts, self.took = [], []
		self.ambiguous = self.undecidable = self.killed = 0

	def run(self, then=None):
		"""then(play, store): more to do with the restored store."""
		name = f"{self.kind} {'sieve ' if self.sieve else ''}{self.seed}"
		users = storeloss.USERS + (SOURCES if then else ())
		with stores.make(self.kind, self.t.sub(name), sieve=self.sieve,
				 users=users) as store:
			loss = storeloss.Loss(store, self.seed, self.n).run()
			self.loss, self.select = loss, (*SELECT, "--overlap", loss.overlap())
			self.t.need(loss.lost_copies > self.n // 4,
				    f"{self.what}: {loss.lost_copies} copies lost with the store")
			self._plain(store, loss)
			self._kills(store, loss)
			if then:
				then(self, store)
		return self

	def check(self, loss, what, state=None):
		v = loss.judge(state)
		self.verdicts.append(v)
		self.undecidable = max(self.undecidable, v.undecidable)
		return self.t.ok(not any(getattr(v, f) for f in FAULTS),
				 f"{self.what}: {what}: {', '.join(f.replace('_', ' ') + ' 0' for f in FAULTS)}",
				 "\n".join([str(v)] + loss.notes))

	def _plain(self, store, loss):
		t, what = self.t, self.what
		dry = store.replay(*self.select, "-n")
		t.ok(dry.rc == 0 and nothing_new(loss), f"{what}: a dry run changes nothing", dry)
		report = f"{self.t.dir}/report.json"
		self.first = store.replay(*self.select, "--report", report)
		t.ok(self.first.rc == 0, f"{what}: replay exits 0", self.first)
		loss.deliver_waiting()
		state = mailbox.dump(loss.rig, storeloss.USERS)
		self.check(loss, "replay", state)
		t.equal((self.first.summary or {}).get("skipped"), 0,
			f"{what}: no script threw any away, and none is told of as such")
		again = store.replay(*self.select)
		t.ok(again.rc == 0 and (again.summary or {}).get("restored") == 0
		     and mailbox.dump(loss.rig, storeloss.USERS) == state,
		     f"{what}: a second run changes nothing", again)
		self._report(report, loss)
		loss.learn()

	def _report(self, path, loss):
		"""Each copy that could not be decided is named, and why; so is each that its user
		had removed."""
		with open(path, encoding="utf-8") as f:
			rows = json.load(f)["copies"]
		job = {j.queue_id: j for j in loss.jobs}
		number = {o["id"]: job[o["queue_id"]].number for o in loss.rig.journaled()
			  if o["queue_id"] in job}
		named = {k: [(o["mailbox"], number[o["id"]], o["reason"]) for o in rows
			     if o["kind"] == k] for k in ("ambiguous", "removed")}
		early = {j.number for j in loss.during + loss.between}
		twin = {n for n in number.values() if loss.shares_id(n)}
		strange = [x for x in named["ambiguous"]
			   if not (x[1] in early and "removed it" in x[2]
				   or x[1] in twin and "same Message-ID" in x[2])]
		silent = set(loss.doubtful) - {x[:2] for x in named["ambiguous"]}
		self.ambiguous = len(named["ambiguous"])
		self.t.ok(not strange and not silent, f"{self.what}: {self.ambiguous} put back as "
			  "ambiguous, each of them explained", f"{strange}\n{silent}")
		wrong = {x[:2] for x in named["removed"]} - set(loss.removed)
		self.t.ok(named["removed"] and not wrong, f"{self.what}: {len(named['removed'])} "
			  "told to be removed by their users, and they were", wrong)

	def _start(self, store):
		return subprocess.Popen(store.argv(*self.select), stdin=subprocess.DEVNULL,
					stdout=subprocess.PIPE, stderr=subprocess.PIPE,
					start_new_session=True)

	def _kills(self, store, loss):
		"""Every other time the server's processes instead of the client."""
		whole, hit, tries = self.first.seconds, 0, 0
		loss.again()
		while hit < self.kills and tries < self.kills * 12:
			tries += 1
			p = self._start(store)
			time.sleep(loss.rnd.uniform(0, whole))
			if p.poll() is None and hit % 2 and store.kill_server():
				p.communicate(timeout=600)
				store.revive()
				hit += 1
				continue
			if p.poll() is None:
				p.kill()
				p.communicate()
				hit += 1
				continue
			out = p.communicate()
			if not self.t.ok(p.returncode == 0, f"{self.what}: after {hit} kills: exit 0",
					 out):
				return
			if not self.check(loss, f"after {hit} kills"):
				return
			loss.again()
			whole = max(whole * 0.7, 0.05)
		self.killed = hit
		two = [self._start(store), self._start(store)]
		outs = [p.communicate(timeout=600) for p in two]
		codes = sorted(p.returncode for p in two)
		self.t.ok(hit == self.kills and codes[0] == 0 and codes[1] in (0, 75),
			  f"{self.what}: {hit} kills, then two runs at once end with 0 and 0 or 75",
			  f"{codes} {outs}")
		self.check(loss, f"after {hit} kills of client and server, and two runs at once")
		self._no_staging(store, loss)

	def _no_staging(self, store, loss):
		def there():
			return [f for u in storeloss.USERS for f in folders(loss.rig, u)
				if "mailwal" in f]
		left = there()
		if left and all("-broken-" in f for f in left):
			time.sleep(31)  # then Dovecot lets go of what it half deleted
			store.replay(*self.select)
			left = there()
		self.t.ok(not left, f"{self.what}: no staging folder is left", left)


def folders(rig, user):
	c = mailbox.login(rig, user)
	out = mailbox.folders(c)
	c.logout()
	return out


def nothing_new(loss):
	"""Nothing, but for what came out of Postfix' queue meanwhile."""
	waiting = {j.number for j in loss.waiting}
	had = {(k, s.uid) for k, v in loss.restored.items() for s in v}
	return all((k, s.uid) in had or storeloss.number_of(s.data) in waiting
		   for k, v in mailbox.dump(loss.rig, storeloss.USERS).items() for s in v)


SOURCES = tuple(u.replace("@example.test", "@source.test") for u in storeloss.USERS)
