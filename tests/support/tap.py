"""tap - the runner of the end-to-end tests: TAP lines, a time limit, a work directory.

    def test(t):
        t.ok(a == b, "a is b", f"{a} != {b}")

    run(test)

Exit status 0 only if every check held. The work directory (its name has spaces on purpose)
is removed then; otherwise it stays, with the servers' logs, and its path is printed.
SIGTERM and the time limit end the test in the ordinary way, so that servers end too.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds for one condition: a deadline finds what hangs, not what is slow
LIMIT = 1140  # seconds for a test, a little less than ctest's


class Fatal(Exception):
	"""No sense in going on."""


class Checks:
	def __init__(self, name):
		self.name, self.n, self.failed, self.start = name, 0, [], time.monotonic()
		base = os.environ.get("MW_BUILD")
		base = os.path.join(base, "e2e work") if base else os.path.join(
			tempfile.gettempdir(), "mailwal e2e")
		os.makedirs(base, exist_ok=True)
		self.dir = os.path.join(base, name)
		shutil.rmtree(self.dir, ignore_errors=True)
		os.makedirs(self.dir)

	def sub(self, name):
		path = os.path.join(self.dir, name)
		os.makedirs(path, exist_ok=True)
		return path

	def ok(self, good, what, detail=""):
		"""One check; detail is printed only when it fails."""
		self.n += 1
		print(f"{'ok' if good else 'not ok'} {self.n} - {what}", flush=True)
		if not good:
			self.failed.append(what)
			for line in str(detail).splitlines()[:40]:
				print("# " + line, flush=True)
		return bool(good)

	def comes(self, test, what, detail=lambda: ""):
		"""Polls until test() is true: for what is seen a moment after what caused it."""
		end = time.monotonic() + PATIENCE
		while not (good := test()) and time.monotonic() < end:
			time.sleep(0.02)
		return self.ok(good, what, "" if good else detail())

	def equal(self, got, want, what):
		return self.ok(got == want, f"{what}: {short(want)}", f"got {short(got)}")

	def need(self, good, what, detail=""):
		"""A check without which the rest means nothing."""
		if not self.ok(good, what, detail):
			raise Fatal(what)

	def note(self, text):
		print("# " + text, flush=True)

	def skip(self, why):
		print(f"ok {self.n + 1} # SKIP {why}", flush=True)
		self.n += 1


def short(x):
	s = repr(x)
	return s if len(s) < 300 else s[:300] + "…"


def _signal(signum, _frame):
	if signum == signal.SIGALRM:
		raise Fatal("time limit reached")
	sys.exit(128 + signum)


def need_root():
	if os.geteuid() != 0:
		print("1..0 # SKIP needs root: real Postfix and Dovecot start as root")
		sys.exit(77)


def run(test, seconds=LIMIT):
	"""Runs test(Checks) and exits."""
	need_root()
	name = pathlib.Path(sys.argv[0]).stem
	signal.signal(signal.SIGTERM, _signal)
	signal.signal(signal.SIGALRM, _signal)
	signal.alarm(int(os.environ.get("MW_LIMIT", seconds)))
	t = Checks(name)
	try:
		test(t)
	except Fatal as e:
		t.ok(False, f"went on to the end ({e})")
	except Exception:
		t.ok(False, "no exception", traceback.format_exc())
	signal.alarm(0)
	print(f"1..{t.n}")
	print(f"# {t.n - len(t.failed)} of {t.n} checks held, {time.monotonic() - t.start:.1f} s")
	if t.failed:
		print(f"# work directory with the servers' logs: {t.dir}")
		sys.exit(1)
	shutil.rmtree(t.dir, ignore_errors=True)
	sys.exit(0)
