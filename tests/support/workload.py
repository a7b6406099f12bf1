"""workload - which messages are sent by whom to whom, and who must have them afterwards.

Messages come from the shared corpus of real mail where a checkout has one beside it, else
from tests/fixtures/mail, repeated with variations. Everything follows from a seed.
"""

import fcntl
import os
import pathlib
import random
import re
import subprocess

import rig as rigs
import smtp

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "mail"
CORPUS = ROOT.parent / "shared" / "corpus"
HEAD_LINE = re.compile(rb"[!-9;-~]+:[^\r\n\0]*\r\n(?:[ \t][^\r\n\0]*\r\n)*")
SPACE_COLON = re.compile(rb"(?m)^[!-9;-~]+[ \t]+:")


def corpus_dir(cache=None):
	"""The unpacked corpus, or None where there is no corpus. CI must have it."""
	packed = CORPUS / "corpus.tar.zst"
	if not packed.is_file():
		if os.environ.get("CI") == "true":
			raise rigs.RigError(f"CI=true, but {packed} is missing")
		return None
	base = pathlib.Path(cache or os.environ.get("MW_BUILD") or ROOT / "build") / "corpus"
	if not (base / "unpacked").is_file():
		base.mkdir(parents=True, exist_ok=True)
		with open(base / "lock", "w", encoding="ascii") as lock:
			fcntl.flock(lock, fcntl.LOCK_EX)  # two tests begin at once
			if not (base / "unpacked").is_file():
				subprocess.run(["tar", "--zstd", "-xf", packed, "-C", base], check=True)
				(base / "unpacked").touch()
	return base / "shared-set"


def wire(data):
	"""A file's message as a client sends it: CRLF line ends, no mbox From_ line."""
	if data.startswith((b"From ", b">From ")):
		data = data.split(b"\n", 1)[-1]
	data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
	return data if data.endswith(b"\r\n") else data + b"\r\n"


def unchanged_by_postfix(data):
	"""Our own reading of what Postfix leaves as it is (CRLF message): a well-formed
	header, an empty line, no NUL or lone CR, no header beyond 60,000 bytes."""
	if b"\0" in data or b"\r" in data.replace(b"\r\n", b""):
		return False
	at = 0
	while not data.startswith(b"\r\n", at):
		m = HEAD_LINE.match(data, at)
		if not m or m.end() - at > 50000:
			return False
		at = m.end()
	if at == 0 or len(data) <= at:
		return False
	return not (SPACE_COLON.search(data) and re.search(rb"(?i)message/|multipart/", data))


def fixtures():
	return [(p.name, p.read_bytes()) for p in sorted(FIXTURES.glob("*.eml"))]


def bulk(n, seed, largest=400_000, cache=None):
	"""n messages (name, bytes) that Postfix leaves as they are, and where from."""
	base = corpus_dir(cache)
	rnd = random.Random(seed)
	if base is None:
		names, out = fixtures(), []
		for i in range(n):
			name, data = names[i % len(names)]
			if i >= len(names):  # a variation: still the same kind of message
				data += b"-- \r\nvariation %d\r\n" % (i // len(names))
			out.append((f"{name}#{i // len(names)}", data))
		return out, "the project's own fixtures"
	files = sorted(p for p in (base / "bulk").rglob("*") if p.is_file())
	rnd.shuffle(files)
	out = []
	for p in files:
		if len(out) == n:
			break
		if p.stat().st_size > largest:
			continue
		data = wire(p.read_bytes())
		if unchanged_by_postfix(data):
			out.append((str(p.relative_to(base)), data))
	for i in range(n - len(out)):  # more than there are: again, with a difference
		name, data = out[i]
		out.append((name + "#2", data + b"-- \r\nvariation %d\r\n" % i))
	return out, "the corpus of real mail"


def torture(cache=None):
	"""The torture messages (name, bytes as a client would send them)."""
	base = corpus_dir(cache)
	if base is None:
		return []
	out = []
	for p in sorted(p for p in (base / "torture").rglob("*") if p.is_file()):
		data = p.read_bytes()
		if len(data) < 4_000_000:
			out.append((str(p.relative_to(base)), data))
	return out


class Mail(smtp.Job):
	"""A job with its name and the local users who must have it."""

	def __init__(self, name, data, sender, rcpts, aliases, users, auth=None, **opts):
		super().__init__(data, sender, rcpts, auth, **opts)
		self.name, self.owners = name, []
		for r in rcpts:
			for a in rigs.expand(r, aliases):
				if a in users and a not in self.owners:
					self.owners.append(a)


def jobs(messages, users, aliases, seed):
	"""An envelope for each message: plain recipients, several, aliases, extensions, odd
	case, the null sender, and one in six from an authenticated user (inside and out)."""
	rnd, out = random.Random(seed), []
	names = sorted(aliases)
	for i, (name, data) in enumerate(messages):
		sender, auth = f"writer{i % 17}@remote.test", None
		kind = rnd.random()
		if kind < 0.45:
			rcpts = [rnd.choice(users)]
		elif kind < 0.65:
			rcpts = [rnd.choice(names)]
		elif kind < 0.80:
			rcpts = rnd.sample(users, rnd.randint(2, 4))
		elif kind < 0.88:
			local, domain = rnd.choice(users).split("@")
			rcpts = [f"{local}+tag{i % 3}@{domain}"]
		elif kind < 0.94:
			rcpts = [rnd.choice(users).replace("@example", "@Example").replace("a", "A", 1)]
		else:
			rcpts, sender = [rnd.choice(users)], ""
		if i % 6 == 5:
			auth = users[i // 6 % len(users)]
			sender = auth
			if i % 12 == 5:
				rcpts = ["partner@elsewhere.test"]
		opts = {}
		if any(c > 127 for c in data):
			opts["mailargs"] = "BODY=8BITMIME"
		out.append(Mail(name, data, sender, rcpts, aliases, users, auth, **opts))
	return out
