#!/usr/bin/python3
"""Two capture hosts, the first relaying to the second, are followed together: a message that
both captured is put into the standby once, as it comes, while the second host is away for a
time, and after a restart of the follower in between; one that was really sent twice, twice.
A copy for an alias, which the second host alone resolves, is not told as failed. The retry of a
message that was refused behind its capture adds nothing to what was put of that one."""
# MW_TEST_COST 20

import imaplib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from follower import Follower
from hosts import ANNA, BERT, CLEO, Hosts, post, texts


def reach(t, standby, want, what):
	"""Polls until it is so: what is on its way through a staging folder is there as well for a
	moment, what is more than it should be stays and is found."""
	got = {}

	def there():
		try:
			got.update(texts(standby))
		except (RuntimeError, imaplib.IMAP4.error):
			return False  # a staging folder went while we looked
		return got == want
	t.comes(there, what, lambda: f"{got}\n{want}")


def add(want, *more):
	for name, *users in more:
		for u in users:
			want[u] = sorted([*want[u], name])


def sent(h, *what):
	codes = {post(h.near, n, r) for n, r in what}
	h.settle(0, 0)
	return codes


def live(t, h, standby, want):
	codes = sent(h, ("one", [ANNA]), ("two", [ANNA, BERT]), ("plus", ["cleo+list@example.test"]),
		     ("alias", ["info@example.test"]), ("twice", [BERT]), ("twice", [BERT]),
		     ("mixed", ["info@example.test", CLEO]))
	codes.add(post(h.far, "direct", [ANNA]))
	t.equal(codes, {250}, "8 messages accepted")
	add(want, ("one", ANNA), ("two", ANNA, BERT), ("plus", CLEO), ("alias", ANNA, BERT),
	    ("twice", BERT), ("twice", BERT), ("mixed", ANNA, BERT, CLEO), ("direct", ANNA))
	reach(t, standby, want, "each once")


def refuse(rig, name):
	"""Its log says that a later filter refused the newest message of that name."""
	o = [o for o in rig.journaled() if o["message_id"].startswith(f"<{name}@")][-1]
	log = f"{rig.run}/refused.log"
	with open(log, "w", encoding="ascii") as f:
		f.write(f"{o['time']} host postfix/cleanup[1]: {o['queue_id']}: milter-reject: "
			"END-OF-MESSAGE from unknown[192.0.2.1]: 4.7.1 later; from=<w@remote.test> "
			"to=<x@example.test> proto=ESMTP helo=<x>\n")
	return rig.mailwal("--json", "outcomes", log)


def retried(t, h, standby, want):
	"""Refused by a later filter, by what the log says; then the sender comes again, to the same
	host or to another, and at last sends it once more."""
	t.equal(sent(h, ("fickle0", [ANNA]), ("fickle1", [ANNA]), ("fickle2", [ANNA])), {250},
		"three that are refused behind their capture")
	add(want, ("fickle0", ANNA), ("fickle1", ANNA), ("fickle2", ANNA))
	reach(t, standby, want, "are put as they come")
	r = [refuse(rig, f"fickle{i}") for rig in (h.near, h.far) for i in range(3)]
	t.need(all(x.rc == 0 and x.summary["outcomes_written"] == 1 for x in r), "the logs tell", r)
	for i, to in enumerate((h.far, h.near)):
		post(to, f"fickle{i}", [ANNA])
		h.settle(0, 0)
		t.equal(post(h.far, f"behind{i}", [CLEO]), 250, "one behind it")
		add(want, (f"behind{i}", CLEO))
		reach(t, standby, want, "its retry adds nothing")
	post(h.far, "fickle0", [ANNA])
	add(want, ("fickle0", ANNA))
	reach(t, standby, want, "sent once more it is another message")


def files(t, h):
	"""Two mailboxes of a standby of files are one directory: a message to both is there once."""
	root = f"{h.near.run}/boxes"
	os.makedirs(f"{root}/example.test")
	os.symlink("anna", f"{root}/example.test/bert")
	for sub in ("anna/new", "anna/cur", "anna/tmp"):
		os.makedirs(f"{root}/example.test/{sub}")
	f = Follower(h.near, h.near, "-c", h.far.conf)
	f.argv = h.near.mailwal_argv("--json", "-v", "-c", h.far.conf, "follow", "--create", "--to",
				     f"maildir:{root}/%d/%n")
	f.start()
	f.wait("current")

	def there():
		return len(os.listdir(f"{root}/example.test/anna/new"))
	before = there()
	t.equal(sent(h, ("place", [ANNA, BERT]), ("place2", [BERT, ANNA])), {250}, "two to both names")
	t.equal(post(h.far, "last", [ANNA]), 250, "one behind them")
	rigs.wait_for("the last one", lambda: there() >= before + 3, alive=f.p)
	t.equal((f.end(), there()), (130, before + 3), "each is put once into the one directory")


def late(t, h, standby, want, restart):
	"""The next host has it only after some time."""
	f = Follower(h.near, standby, "-c", h.far.conf).start()
	f.wait("current")
	h.far.end("postfix")
	t.equal({post(h.near, f"late{restart}", [ANNA]), post(h.near, f"later{restart}", [CLEO])},
		{250}, "the next host is away")
	add(want, (f"late{restart}", ANNA), (f"later{restart}", CLEO))
	reach(t, standby, want, "the first one's record is put")
	if restart:
		t.equal(f.end(), 130, "the follower is stopped in between")
		f.start()
		f.wait("current")
	h.far.start_postfix()
	h.near.flush()
	h.settle(0, 0)
	rigs.wait_for("the second host's record",
		      lambda: any(o["message_id"].startswith(f"<later{restart}@")
				  for o in h.far.journaled()))
	t.equal(post(h.far, f"mark{restart}", [BERT]), 250, "a message behind it")
	add(want, (f"mark{restart}", BERT))
	reach(t, standby, want, "and the second one's adds nothing")
	f.end()


def main(t):
	h = Hosts(t)
	with h.far, h.near, rigs.Rig(t.sub("standby"), mailwald=False) as standby:
		h.start()
		standby.start_dovecot()
		want = {u: [] for u in (ANNA, BERT, CLEO)}
		t.equal(sent(h, ("early", [ANNA]), ("earlier", ["info@example.test"])), {250},
			"two before it starts")
		add(want, ("early", ANNA), ("earlier", ANNA, BERT))
		f = Follower(h.near, standby, "-c", h.far.conf).start()
		f.wait("current")
		reach(t, standby, want, "the backlog")
		t.equal(f.kinds("failed"), [], "nothing failed")
		live(t, h, standby, want)
		retried(t, h, standby, want)
		f.end()
		post(h.far, "fickle2", [ANNA])
		t.equal(f.kinds("failed"), [], "none failed: an alias is the people behind it")
		late(t, h, standby, want, 0)
		late(t, h, standby, want, 1)
		f = Follower(h.far, standby, "-c", h.near.conf).start()
		f.wait("current")
		reach(t, standby, want, "and a careful look finds all there")
		f.end()
		files(t, h)


tap.run(main)
