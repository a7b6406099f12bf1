#!/usr/bin/python3
"""quickstart.py - the main job and its proof; started by contrib/quickstart.

Exit status: 0 every line of the proof holds, 1 not, 64 usage, 130/143 interrupted.
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import mailbox  # noqa: E402
import rig as rigs  # noqa: E402
import scenario  # noqa: E402
import workload  # noqa: E402

BEGAN = time.monotonic()


def say(text):
	print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def loopback():
	"""True if 127.0.0.1 works. Where it is down (a bare `unshare --net`, a container
	without network) this process gets a network of its own in which it is up; nothing
	outside changes."""
	def works():
		try:
			with socket.create_server(("127.0.0.1", 0)) as s:
				socket.create_connection(s.getsockname(), 2).close()
			return True
		except OSError:
			return False
	if works():
		return True
	clone_newnet, siocgifflags, siocsifflags, iff_up = 0x40000000, 0x8913, 0x8914, 1
	if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) != 0:
		return False
	with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
		request = struct.pack("16sH14x", b"lo", 0)
		flags = struct.unpack("16sH14x", fcntl.ioctl(s, siocgifflags, request))[1]
		fcntl.ioctl(s, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))
	return works()


def arguments():
	p = argparse.ArgumentParser(prog="quickstart", allow_abbrev=False)
	p.add_argument("--keep", action="store_true")
	p.add_argument("--dir")
	p.add_argument("--messages", type=int, default=320)
	p.add_argument("--offline", action="store_true")
	try:
		a = p.parse_args()
	except SystemExit as e:
		sys.exit(64 if e.code else 0)
	if a.messages < 30:
		print("quickstart: --messages: at least 30", file=sys.stderr)
		sys.exit(64)
	if a.dir and os.path.isdir(a.dir) and os.listdir(a.dir):
		print(f"quickstart: {a.dir} is not empty", file=sys.stderr)
		sys.exit(64)
	return a


class Proof:
	"""The table; holds only if every row does."""

	def __init__(self):
		self.rows, self.bad = [], []

	def row(self, name, value, good=True, why=""):
		self.rows.append((name, value, good))
		if not good:
			self.bad.append((name, why))

	def show(self):
		wide = max(len(n) for n, _, _ in self.rows)
		print()
		for name, value, good in self.rows:
			print(f"  {name:<{wide}}  {value:>12}{'' if good else '   <-- WRONG'}")
		print()
		for name, why in self.bad:
			print(f"{name}: {why}")


def prove(job):
	"""Everything that must be true, from what was sent and what IMAP shows."""
	rig, p = job.rig, Proof()
	sent = [j for j in job.jobs if j.code == 250]
	records = {o["queue_id"] for o in rig.journaled()}
	lost = [j.queue_id for j in sent if j.queue_id not in records]
	want = job.expected()
	total = sum(len(v) for v in want.values())
	before = mailbox.compare(want, job.before)
	cmp_ = mailbox.compare(want, job.after)
	back = job.put_back(cmp_)
	dates = job.wrong_dates(cmp_)
	first, second = job.first.summary or {}, job.second.summary or {}
	had = mailbox.count(job.in_backup)

	p.row("messages sent", len(job.jobs))
	p.row("acknowledged by Postfix", len(sent), len(sent) == len(job.jobs))
	p.row("of them in the journal", len(sent) - len(lost), not lost, f"without: {lost[:8]}")
	p.row("copies in mailboxes before the loss", mailbox.count(job.before), before.ok,
	      str(before))
	p.row("copies in the backup", had)
	p.row("lost with the disk", total - had, total > had,
	      "nothing was lost, so nothing is proved")
	p.row("put back by the replay", len(back),
	      len(back) == total - had == first.get("restored") and job.first.rc == 0,
	      f"counted {len(back)}, lost {total - had}, mailwal: {job.first}")
	p.row("found already there", first.get("already_there", "?"),
	      first.get("selected") == first.get("restored", 0) + first.get("already_there", 0),
	      f"mailwal: {job.first}")
	p.row("missing", len(cmp_.missing), not cmp_.missing, str(cmp_))
	p.row("doubled", len(cmp_.doubled), not cmp_.doubled, str(cmp_))
	p.row("altered", len(cmp_.altered), not cmp_.altered, str(cmp_))
	p.row("unknown", len(cmp_.strange), not cmp_.strange, str(cmp_))
	p.row("put back with a wrong date", len(dates), not dates, "\n".join(dates[:8]))
	again = job.same_state(job.after, job.final)
	p.row("changed by a second replay", second.get("restored", "?"),
	      not again and second.get("restored") == 0 and job.second.rc == 0,
	      "\n".join(again) + f"\n{job.second}")
	newest = max((j.acked_at for j in sent), default=0)
	rpo = newest - min((j.acked_at for j in sent if j.queue_id in lost), default=newest)
	alone = newest - job.backup_began
	p.row("RPO measured", f"{rpo:.1f} s", rpo == 0)
	p.row("RPO with the backup alone", f"{alone:.1f} s")
	p.row("RTO measured (loss to last copy back)", f"{job.back_at - job.lost_at:.1f} s")
	p.row("of it the replay", f"{job.first.seconds:.2f} s")
	return p


def look_around(rig, directory):
	mw = f"'{rig.mailwal_bin}' -c '{rig.conf}'"
	some = next((o["id"] for o in rig.journaled()), "ID")
	return f"""\
Left behind in {directory}
  journal/  the journal     store/  the mail store     *.log  what the servers said

Look around:
  {mw} status
  {mw} list --since -1h --limit 20
  {mw} list --user anna@example.test --json
  {mw} show {some}
  {mw} show {some} --raw
  {mw} mark --list
  {mw} verify
  {mw} export --user anna@example.test --to 'mbox:{directory}/anna.mbox'
"""


def main():
	a = arguments()
	if not loopback():
		print("quickstart: 127.0.0.1 is not reachable, and no network of our own can be "
		      "made: ip link set lo up", file=sys.stderr)
		sys.exit(69)
	signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
	work = os.path.abspath(a.dir) if a.dir else tempfile.mkdtemp(prefix="mailwal-quickstart.")
	if not a.dir:
		os.chmod(work, 0o755)
	good = False
	try:
		messages, source = workload.bulk(a.messages, seed=2026, cache=ROOT / "build")
		say(f"{len(messages)} messages from {source}")
		with rigs.Rig(work, postfix="message_drop_headers =") as rig:
			say("starting private Postfix, Dovecot and mailwald on free loopback ports")
			rig.start()
			jobs = workload.jobs(messages, rig.users, rig.aliases, seed=2026)
			job = scenario.Disaster(rig, jobs, say).run()
			say("comparing every message in every mailbox with what was sent")
			proof = prove(job)
			good = not proof.bad
			proof.show()
			around = look_around(rig, work) if a.keep and good else ""
		print("every line holds" if good else
		      f"NOT PROVED; journal, store and logs are in {work}")
		if around:
			print(f"\n{around}", end="")
	except KeyboardInterrupt:
		print("quickstart: interrupted", file=sys.stderr)
		good = None
	except (rigs.RigError, scenario.Failed) as e:
		print(f"quickstart: {e}\nquickstart: the servers' logs are in {work}",
		      file=sys.stderr)
	if not a.keep and good is not False:
		shutil.rmtree(work, ignore_errors=True)
	sys.exit(130 if good is None else 0 if good else 1)


if __name__ == "__main__":
	main()
