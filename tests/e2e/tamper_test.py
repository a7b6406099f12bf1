#!/usr/bin/python3
"""A journal that somebody tampered with, seen from outside: verify with a checkpoint kept
elsewhere, with the key and without, with the index and without. And of several prunes at
once one works; what a prune removes is gone from the disk, also for the daemon."""
# MW_TEST_COST 15

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import tap
from keyed import Keyed, files

TABLE = []
for n in range(256):
	for _ in range(8):
		n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
	TABLE.append(n)


def crc32c(data):
	c = 0xffffffff
	for x in data:
		c = TABLE[(c ^ x) & 255] ^ (c >> 8)
	return c ^ 0xffffffff


def slots(data):
	"""Where the key slots of messages stand, and how long they are."""
	at = 2 * struct.unpack_from("<I", data, 12)[0]
	while data[at:at + 4] == b"MWF1":
		slot, meta = struct.unpack_from("<II", data, at + 52)
		if data[at + 48] == 1:
			yield at + 120, slot
		at = (at + 120 + slot + meta + struct.unpack_from("<Q", data, at + 64)[0] + 7) & ~7


def slot_changed(change):
	def attack(j):
		path = files(j)[2]
		data = bytearray(path.read_bytes())
		at, n = list(slots(data))[1]
		slot = bytearray(data[at:at + n])
		change(slot)
		struct.pack_into("<I", slot, 0, crc32c(slot[4:]))
		data[at:at + n] = slot
		path.write_bytes(data)
	return attack


def wiped(slot):
	slot[4:] = bytes([2]) + bytes(len(slot) - 5)


def one_token_less(slot):
	slot[72:80] = bytes(8)


def another_token(slot):
	slot[72:80] = b"\1\2\3\4\5\6\7\10"


def without(*which):
	def attack(j):
		for path in [files(j)[i] for i in which]:
			path.unlink()
	return attack


def swapped(j):
	a, b = files(j)[1], files(j)[3]
	one, other = a.read_bytes(), b.read_bytes()
	a.write_bytes(other)
	b.write_bytes(one)


def shortened(j):
	last = files(j)[-1]
	os.truncate(last, last.stat().st_size - 1000)


def header_gone(j):
	with open(files(j)[2], "r+b") as f:
		f.write(bytes(8192))


def renamed(j):
	files(j)[2].rename(files(j)[2].with_suffix(".tmp"))


def on_its_way_out(j):
	"""What a removal that was cut short leaves is no damage."""
	(j / "segments" / "00000000000000ff.tmp").write_bytes(b"MAILWAL1" + bytes(20000))


ATTACKS = [  # name, attack, verify finds it: with the checkpoint, without, only with the key
	("nothing", lambda j: None, False, False, False),
	("a file on its way out", on_its_way_out, False, False, False),
	("the first segment is missing", without(0), True, True, False),
	("one in the middle is missing", without(2), True, True, False),
	("several are missing", without(1, 2, 3), True, True, False),
	("the last is missing", without(-1), True, False, False),
	("the last two are missing", without(-1, -2), True, False, False),
	("none is left", without(0, 1, 2, 3, 4, 5), True, False, False),
	("the last is shortened", shortened, True, False, False),
	("two are swapped", swapped, True, True, False),
	("a header is gone", header_gone, True, True, False),
	("one was renamed", renamed, True, True, False),
	("a slot was wiped", slot_changed(wiped), True, True, False),
	("a token was taken", slot_changed(one_token_less), True, True, False),
	("a token is another one", slot_changed(another_token), True, True, True),
]


def verify(site, journal, key, checkpoint=None):
	args = ["-j", journal, "verify"] + (["--checkpoint", checkpoint] if checkpoint else [])
	return site.mailwal(*(["--key", site.key] if key else []), *args)


def check(t, site, journal, attack, point):
	name, change, with_point, alone, needs_key = attack
	bad = site.dir / "bad"
	for key in (False, True):
		rigs.copy_journal(journal, bad)
		change(bad)
		got = [verify(site, bad, key, point)]
		shutil.rmtree(bad / "index", ignore_errors=True)
		got += [verify(site, bad, key, point), verify(site, bad, key)]
		found = key or not needs_key
		want = [int(with_point and found)] * 2 + [int(alone and found)]
		if needs_key and not key:
			want[0] = got[0][0]  # the index may tell
			if all("the token of its ID" in g[1] for g in got[1:]):
				want = [1, 1, 1]  # by chance it was that one: no key is needed
		t.equal([g[0] for g in got], want, f"{name}: key {key}")


def anchored(t):
	with Keyed(t.sub("anchored")) as s:
		for segment in range(6):
			for k in range(3):
				s.send(f"Q{segment}{k}", "anna@example.test", "bob@example.test")
			s.roll()
			if segment == 2:
				rigs.copy_journal(s.journal, s.dir / "early")
		point = s.dir / "point"
		assert s.mailwal("checkpoint", "--out", point)[0] == 0
		rigs.copy_journal(s.journal, s.dir / "whole")
	for attack in ATTACKS:
		check(t, s, s.dir / "whole", attack, point)
	check(t, s, s.dir / "early", ("rolled back", lambda j: None, True, False, False), point)
	fork = pathlib.Path(t.sub("fork"))
	rigs.copy_journal(s.dir / "early", fork / "journal")
	with Keyed(fork, key=s.key) as other:
		for k in range(20):
			other.send(f"Z{k}", "anna@example.test")
		other.roll()
	again = ("signed anew", lambda j: None, True, False, False)
	check(t, s, fork / "journal", again, point)


def still_open(proc):
	links = []
	for fd in os.listdir(f"/proc/{proc.pid}/fd"):
		try:
			links.append(os.readlink(f"/proc/{proc.pid}/fd/{fd}"))
		except FileNotFoundError:
			pass
	return [x for x in links if "/segments/" in x and "(deleted)" in x]


def one_works(t):
	with Keyed(t.sub("several")) as s:
		for k in range(36):
			s.send(f"P{k}", "anna@example.test", size=80000)
			if k % 3 == 2:
				s.roll()
		assert s.mailwal("hold", "add", "case", "--queue-id", "P1")[0] == 0
		s.configure("retain all { max_size = 1M }")
		before = len(files(s.journal))
		runs = [subprocess.Popen([rigs.find_program("mailwal"), "-c", s.conf, "prune", "--yes"],
					 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
					 stderr=subprocess.DEVNULL) for _ in range(5)]
		codes = {p.wait() for p in runs}
		t.ok(0 in codes and codes <= {0, 75}, "one prune works, the others are told", codes)
		left = s.names()
		t.ok("P1" in left and "P0" not in left and "P35" in left,
		     "hold beats the size limit, the neighbour goes", left)
		t.ok(len(files(s.journal)) < before, "files went")
		rigs.wait_for("nothing removed to stay open", lambda: not still_open(s.proc), alive=s.proc)
		t.equal([p.name for p in (s.journal / "segments").glob("0*.tmp")], [],
			"nothing is on its way out")
		summary = json.loads(s.mailwal("--json", "verify")[1].splitlines()[-1])
		t.ok(summary["ok"], "verify", summary)


def main(t):
	anchored(t)
	one_works(t)


tap.run(main)
