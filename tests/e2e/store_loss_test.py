#!/usr/bin/python3
"""Users receive, read, move and delete around a backup; the store is lost and restored; replay.
Five seeds over Dovecot (Maildir, sdbox, with and without the users' Sieve scripts) and Cyrus:
nothing lost, doubled, brought back, misfiled, misdated, altered or sent; a second run changes
nothing; client and server killed at random moments; two runs at once. Long: tests/soak scenario.
"""
# MW_TEST_COST 65

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import cyrus
import lossplay
import stores
import tap

N = int(os.environ.get("MW_MAILS", "160"))
KILLS = int(os.environ.get("MW_KILLS", "4"))
FIRST = int(os.environ.get("MW_SEED", "1"))
PLAYS = (("maildir", True), ("sdbox", False), ("cyrus", False), ("sdbox", True),
	 ("maildir", False))


def main(t):
	for k, (kind, sieve) in enumerate(PLAYS):
		if kind == "cyrus" and not cyrus.root():
			t.skip("no Cyrus: contrib/install-deps test unpacks it")
			continue
		p = lossplay.Play(t, kind, sieve and stores.have_sieve(), FIRST + k, N, KILLS).run()
		t.note(f"{p.what}: {p.first.summary}")


tap.run(main)
