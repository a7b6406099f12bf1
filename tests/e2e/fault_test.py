#!/usr/bin/python3
"""A seeded slice of the fault matrix: mailwald killed, hung, slow, restarted, without disk
or memory, at each stage of a message, behind Postfix and Sendmail, under both policies.
tests/soak faults runs all of it."""
# MW_TEST_COST 40

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import faults
import tap

SEED = int(os.environ.get("MW_SEED", "1"))
EACH = int(os.environ.get("MW_CASES", "4"))  # of each MTA and policy


def main(t):
	faults.private_mounts()
	if faults.no_mounts:
		t.note(f"no mount name space ({faults.no_mounts}): no out-of-disk cases")
	rnd, slice_ = random.Random(SEED), []
	todo = [f for f in faults.FAULTS if not (f == "full" and faults.no_mounts)]
	rnd.shuffle(todo)
	places = {(m, p): [] for m, p, _, _ in faults.matrix()}
	for i, (mta, policy) in enumerate(places):
		for k in range(EACH):  # every fault is had by both policies
			fault = todo[(i * EACH + k) % len(todo)]
			slice_.append((mta, policy, fault, rnd.choice(faults.STAGES)))
	for case in slice_:
		t.note(" ".join(case))
	faults.run_cases(t, slice_)


tap.run(main)
