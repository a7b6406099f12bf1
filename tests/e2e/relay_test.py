#!/usr/bin/python3
"""Two capture hosts, each a real Postfix with its own mailwald and journal, the first relaying to
the second, which expands aliases and delivers to Dovecot. The set of both journals is put back into
an empty Dovecot: each message is one delivery, whichever host knew the mailbox it went to; what
waits in a queue, was refused by the second host or bounced there is not put back; a second run
changes nothing."""
# MW_TEST_COST 20

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap
from hosts import ANNA, BERT, CLEO, Hosts, post, texts


def numbers(r, *names):
	return [(r.summary or {}).get(n) for n in names]


def fill(t, h):
	codes = [post(h.near, n, r) for n, r in (
		("one", [ANNA]), ("two", [ANNA, BERT]), ("alias", ["info@example.test"]),
		("nested", ["all@example.test"]), ("mixed", ["info@example.test", CLEO]),
		("plus", ["cleo+list@example.test"]), ("out", ["out@example.test"]), ("refused", ["no@example.test"]),
		("part", ["no@example.test", BERT]), ("afterwards", [ANNA]),
		("bounced", ["hugo@example.test"]), ("waits", ["late@example.test"]),
		("held", [CLEO, "gina@example.test"]))]
	codes += [post(h.far, "direct", [ANNA]), post(h.near, "twice", [BERT]),
		  post(h.near, "twice", [BERT])]
	t.equal(set(codes), {250}, f"{len(codes)} messages accepted")
	h.settle(1, 1)


WANT = {ANNA: ["alias", "direct", "mixed", "nested", "one", "two"],
	BERT: ["alias", "mixed", "nested", "part", "twice", "twice", "two"],
	CLEO: ["held", "mixed", "nested", "plus"]}


def main(t):
	h = Hosts(t)
	with h.far, h.near:
		h.start()
		fill(t, h)
		t.equal(texts(h.far), WANT, "delivered")
		near, far = ({o["message_id"].partition("@")[0].strip("<") for o in r.journaled()
			      if o["sender"]} for r in (h.near, h.far))
		t.ok({"one", "alias", "refused", "afterwards", "waits", "held"} <= near
		     and {"one", "alias", "direct", "held"} <= far
		     and not {"refused", "waits"} & far,
		     "each host has a journal of what it took", f"{near}\n{far}")
		for rig in (h.near, h.far):
			r = rig.mailwal("outcomes", f"{rig.run}/maillog")
			t.ok(r.rc == 0, "outcomes", r)
		put_back(t, h)


def put_back(t, h):
	n = sum(map(len, WANT.values()))
	for first in (h.near, h.far):
		h.lose()
		r = h.replay("--all", first=first)
		t.ok(r.rc == 0 and numbers(r, "restored", "failed", "queued") == [n, 0, 2],
		     f"replay of the set, {os.path.basename(first.dir)} first: {n} copies, two "
		     "are left to the queues", r)
		t.equal(texts(h.far), WANT, "each delivery once")
		r = h.replay("--all", first=first)
		t.ok(r.rc == 0 and numbers(r, "restored", "already_there", "queued") == [0, n, 2],
		     "a second run changes nothing", r)
		r = h.replay("--all", first=first, verb=("verify",))
		t.ok(r.rc == 0, "verify: all is there", r)
	t.equal(texts(h.far), WANT, "and nothing was doubled")
	t.equal(len(h.far.sent_outside()), 1, "what an alias sends outside went there once")
	r = h.replay("--user", "info@example.test", "--queue", "none", "-n")
	t.ok(r.rc == 0 and numbers(r, "selected", "already_there") == [4, 4],
	     "an alias that the second host alone knows names the people behind it", r)


tap.run(main)
