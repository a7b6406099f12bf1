"""mailbox - what is in the mailboxes, and whether it is what was sent.

dump() reads every folder of every user over IMAP as master user. compare() matches stored
copies with expected ones as multisets, mailbox by mailbox, byte for byte: only a leading
block of trace fields (Return-Path, Delivered-To, Received, Cyrus' own …) in front of the
expected bytes is taken off, and line ends are read as CRLF. Nothing else is forgiven.
"""

import calendar
import collections
import imaplib
import re

imaplib._MAXLINE = 1 << 24
TRACE = (b"return-path", b"delivered-to", b"x-original-to", b"received",
	 b"x-cyrus-session-id", b"x-sieve")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
Stored = collections.namedtuple("Stored", "uid date flags data")


def crlf(data):
	return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def prologue_end(data):
	"""Length of the leading block of trace fields."""
	at = 0
	while True:
		m = _FIELD.match(data, at)
		if not m or m.group(1).lower() not in TRACE:
			return at
		at = m.end()


def without_trace(data):
	return data[prologue_end(data):]


def message_id(data):
	m = re.search(rb"(?im)^message-id[ \t]*:\s*(\S+)", data.split(b"\r\n\r\n", 1)[0])
	return m.group(1).decode("latin-1") if m else "-"


def login(rig, user):
	"""An IMAP session as that user, through the master user."""
	return rig.login(user) if hasattr(rig, "login") else master_login(rig, user)


def master_login(rig, user):
	c = imaplib.IMAP4("127.0.0.1", rig.imap_port)
	word = f"\0{user}*replayer\0{rig.master_password}".encode()
	c.authenticate("PLAIN", lambda _: word)  # LOGIN of imaplib speaks ASCII alone
	return c


def folders(c):
	out = []
	for row in c.list()[1]:
		m = re.match(rb'\(([^)]*)\) (?:"[^"]*"|NIL) (?:"(.*)"|(\S+))$', row)
		if m and b"\\Noselect" not in m.group(1):
			out.append((m.group(2) or m.group(3)).decode())
	return out


def fetch(c, folder):
	"""All messages of a folder, without setting \\Seen."""
	typ, n = c.select(f'"{folder}"', readonly=True)
	if typ != "OK" and "mailwal-staging-broken-" in folder:
		return []  # Dovecot was killed in the middle of its deletion
	if typ != "OK" and "mailwal-staging" in folder and b"deleted under us" in n[0]:
		return []  # a client that was killed had asked for that, after the list of folders
	if typ != "OK":
		raise RuntimeError(f"SELECT {folder}: {n}")
	if int(n[0]) == 0:
		return []
	rows = c.uid("FETCH", "1:*", "(UID INTERNALDATE FLAGS BODY.PEEK[])")[1]
	out = []
	for i, row in enumerate(rows):
		if not isinstance(row, tuple):
			continue
		head = row[0]
		nxt = rows[i + 1] if i + 1 < len(rows) else b""
		rest = head + (nxt if isinstance(nxt, bytes) else b"")
		date = calendar.timegm(imap_date(re.search(rb'INTERNALDATE "([^"]+)"', rest)[1]))
		flags = re.search(rb"FLAGS \(([^)]*)\)", rest)[1].decode().split()
		uid = int(re.search(rb"UID (\d+)", rest)[1])
		out.append(Stored(uid, date, [f for f in flags if f != "\\Recent"], row[1]))
	return out


def imap_date(text):
	m = re.match(rb"([ \d]\d)-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", text)
	mon = b"JanFebMarAprMayJunJulAugSepOctNovDec".index(m[2]) // 3 + 1
	off = (int(m[8]) * 60 + int(m[9])) * (1 if m[7] == b"+" else -1)
	return (int(m[3]), mon, int(m[1]), int(m[4]), int(m[5]) - off, int(m[6]), 0, 0, 0)


def dump(rig, users=None):
	"""{(user, folder): [Stored]} for every folder, empty ones included."""
	out = {}
	for user in users or rig.users:
		c = login(rig, user)
		for f in folders(c):
			try:
				out[user, f] = fetch(c, f)
			except RuntimeError:
				# A server still deletes the folder of a run that was killed.
				if f in folders(c):
					raise
		c.logout()
	return out


def count(state):
	return sum(len(v) for v in state.values())


class Expected:
	"""One copy that must be there: label (queue ID or so), bytes, arrival (epoch or
	None), which was not before `since` where only a span is known."""

	__slots__ = ("label", "data", "at", "since")

	def __init__(self, label, data, at=None, since=None):
		self.label, self.data, self.at = label, crlf(data), at
		self.since = at if since is None else since

	def off(self, date):
		"""By how many seconds the date is too late, or (negative) too early."""
		return max(date - self.at, 0) + min(date - self.since, 0)


def expected(jobs, want=None, sent="Sent"):
	"""The copies of these jobs, beside what `want` has: one in the INBOX of each owner, and
	one in the folder `sent` (None: none) of whoever sent it under his login."""
	want = {} if want is None else want
	for j in jobs:
		places = [(u, "INBOX") for u in j.owners] + ([(j.auth, sent)] if j.auth and sent else [])
		for place in places:
			want.setdefault(place, []).append(Expected(j.queue_id, j.data))
	return want


def sent(job):
	"""What is expected of a smtp.Job that was sent with a clock."""
	return Expected(job.queue_id, job.data, job.acked_at, job.began_at)


def first_difference(a, b):
	n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
	return (f"first differing byte {n} of {len(a)}/{len(b)}: "
		f"{a[max(0, n - 20):n + 20]!r} / {b[max(0, n - 20):n + 20]!r}")


class Comparison:
	def __init__(self):
		self.missing, self.doubled, self.altered, self.strange = [], [], [], []
		self.wrong_date, self.matched, self.pairs = [], 0, []

	@property
	def ok(self):
		return not (self.missing or self.doubled or self.altered or self.strange
			    or self.wrong_date)

	def __str__(self):
		out = [f"{self.matched} as sent, {len(self.missing)} missing, "
		       f"{len(self.doubled)} doubled, {len(self.altered)} altered, "
		       f"{len(self.strange)} unknown, {len(self.wrong_date)} with a wrong date"]
		for kind in ("missing", "doubled", "altered", "strange", "wrong_date"):
			rows = getattr(self, kind)
			out += [f"  {kind}: {r}" for r in rows[:12]]
			if len(rows) > 12:
				out.append(f"  {kind}: … and {len(rows) - 12} more")
		return "\n".join(out)


def compare(expected, actual, dates=None):
	"""expected {(user, folder): [Expected]}, actual as from dump(). dates: tolerance in
	seconds between Expected.at and INTERNALDATE, or None."""
	res = Comparison()
	for key in sorted(set(expected) | set(actual)):
		_compare_box(res, key, expected.get(key, []), actual.get(key, []), dates)
	return res


def _compare_box(res, key, want, have, dates):
	where = f"{key[0]}/{key[1]}"
	open_ = collections.defaultdict(list)
	known = set()
	for e in want:
		k = without_trace(e.data)
		open_[k].append(e)
		known.add(k)
	surplus = []
	for s in have:
		data = crlf(s.data)
		rest = without_trace(data)
		cands = [e for e in open_[rest] if data.endswith(e.data)] if rest in known else []
		if not cands:
			surplus.append((s, data, rest in known))
			continue
		e = min(cands, key=lambda e: abs((e.at or 0) - s.date))
		open_[rest].remove(e)
		res.matched += 1
		res.pairs.append((key, e, s))
		if dates is not None and e.at is not None and abs(e.off(s.date)) > dates:
			res.wrong_date.append(f"{where} uid {s.uid} ({e.label}): "
					      f"{e.off(s.date):+.1f} s")
	lost = [e for es in open_.values() for e in es]
	for s, data, twin in surplus:
		mid = message_id(data)
		like = next((e for e in lost if mid != "-" and message_id(e.data) == mid), None)
		if like is not None:
			lost.remove(like)
			a, b = without_trace(like.data), without_trace(data)
			if a == b:  # the message's own trace fields are gone or changed
				a, b = like.data, data
			res.altered.append(f"{where} uid {s.uid} ({like.label}, {mid}): "
					   + first_difference(a, b))
		elif twin:
			res.doubled.append(f"{where} uid {s.uid} {mid}")
		else:
			res.strange.append(f"{where} uid {s.uid} {mid}, {len(data)} bytes")
	res.missing += [f"{where} {e.label} {message_id(e.data)}" for e in lost]
