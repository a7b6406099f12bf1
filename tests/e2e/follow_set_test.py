#!/usr/bin/python3
"""Two capture hosts, the first relaying to the second, are followed together: a message that
both captured is put into the standby once, as it comes, while the second host is away for a
time, and after a restart of the follower in between; one that was really sent twice, twice."""
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
		t.ok({o["mailbox"] for o in f.kinds("failed")} <= {"info@example.test"},
		     "only the first host's copies for an alias, which is no mailbox, failed")
		f.end()
		late(t, h, standby, want, 0)
		late(t, h, standby, want, 1)
		f = Follower(h.far, standby, "-c", h.near.conf).start()
		f.wait("current")
		reach(t, standby, want, "and a careful look finds all there")
		f.end()


tap.run(main)
