"""imapserver - an IMAP server in memory that keeps to the letter of what it announces, and
misbehaves as it is told: what the real servers of the rig do not do.

    with Server(caps=("UIDPLUS", "MULTIAPPEND", "LITERAL-")) as s:
        s.port; s.put(user, folder, data); s.texts(user) -> {folder: [bytes]}

Any user logs in with any password (SASL PLAIN; the authzid is the mailbox). Quirks, all off:

    poison        f(data): such a message is refused
    keeps         a refused MULTIAPPEND keeps what came before the message to blame
    limit         RFC 9738: messages of one command; newest first
    announce      the limit that CAPABILITY tells (default: limit; 0: none)
    where         False: a limit does not tell the UID at which it stopped
    hides         f(data): FETCH passes over such a message
    prefix        of the personal namespace, which ends in its separator
    meanwhile     f(command): called before each command is dealt with, what others do
    refuses       f(command): the text of a refusal, else nothing
    behind        f(command): its answer goes out with that to a later command only
    cuts          f(command): behind it the connection is cut, its answer not sent
    tells         True: the answer to the login tells the capabilities
    largest       of a message, in bytes ([TOOBIG]; as APPENDLIMIT it is in caps)

What a client does that it must not, after what was announced, is listed in `wrong`.
"""

import base64
import re
import socket
import threading
import time

import listener

BASE = ("IMAP4rev1", "SASL-IR", "AUTH=PLAIN")
ALL = ("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+", "NAMESPACE", "ID")  # what a replay makes use of
STAGING = "mailwal-staging"  # its folder
_NAME = rb'(?:"((?:[^"\\]|\\.)*)"|([^\s()"]+))'
_OPEN = ("CLOSE", "COPY", "EXPUNGE", "FETCH", "MOVE", "STORE")  # need an open folder
_HEADER = re.compile(rb"(?m)^([!-9;-~]+):[^\n]*\n(?:[ \t][^\n]*\n)*")


def is_marker(data):
	"""The message that says whose the staging folder is."""
	return b"X-Mailwal-Run:" in data


class Message:
	def __init__(self, uid, data, flags, date):
		self.uid, self.data, self.flags, self.date = uid, data, set(flags), date


class Folder:
	def __init__(self, uidvalidity):
		self.uidvalidity, self.uidnext, self.v = uidvalidity, 1, []

	def add(self, data, flags=(), date=" 1-Jan-2020 00:00:00 +0000"):
		self.v.append(Message(self.uidnext, data, flags, date))
		self.uidnext += 1
		return self.v[-1].uid


class Bye(Exception):
	pass


class No(Exception):
	"""A tagged answer that is no OK: its text."""


class Server(listener.Listener):
	def __init__(self, caps=("UIDPLUS", "MOVE", "MULTIAPPEND", "LITERAL+"), **quirks):
		self.caps, self.poison, self.hides = tuple(caps), None, None
		self.keeps, self.limit, self.announce, self.largest = False, 0, None, 0
		self.where, self.meanwhile, self.prefix, self.sessions = True, None, "", 0
		self.refuses, self.behind, self.tells, self.cuts = None, None, False, None
		self.__dict__.update(quirks)
		self.boxes, self.lock = {}, threading.RLock()
		self.wrong, self.commands, self.made = [], [], int(time.time()) - 100_000
		super().__init__()

	def folders(self, user):
		with self.lock:
			return self.boxes.setdefault(user, {"INBOX": Folder(self.made)})

	def make(self, user, name):
		self.made += 1
		return self.folders(user).setdefault(name, Folder(self.made))

	def put(self, user, folder, data):
		with self.lock:
			return self.make(user, folder).add(data)

	def texts(self, user):
		with self.lock:
			return {n: [m.data for m in f.v] for n, f in self.folders(user).items()}

	def capability(self):
		limit = self.limit if self.announce is None else self.announce
		return " ".join((*BASE, *self.caps, *([f"MESSAGELIMIT={limit}"] if limit else ())))

	def said(self, word):
		"""Commands of that beginning that came."""
		return [c for c in self.commands if c.startswith(word)]

	def running(self):
		"""Sessions that have not come to their end, whose commands may still act."""
		with self.lock:
			return self.sessions

	def serve(self, sock):
		with self.lock:
			self.sessions += 1
		try:
			with sock, sock.makefile("rwb", buffering=1 << 16) as f:
				Session(self, f, sock).run()
		except Bye:
			pass
		finally:
			with self.lock:
				self.sessions -= 1


class Session:
	def __init__(self, server, f, sock):
		self.s, self.f, self.sock = server, f, sock
		self.user, self.box, self.code, self.told = None, None, "", 0

	def run(self):
		self.say(f"* OK [CAPABILITY {self.s.capability()}] ready")
		self.f.flush()
		while line := self.f.readline():
			tag, _, rest = line.rstrip(b"\r\n").partition(b" ")
			word = rest.split(b" ")[0].upper().decode()
			if word == "UID":
				word = "UID " + rest.split(b" ")[1].upper().decode()
			self.s.commands.append(rest.decode("latin-1"))
			self.code = ""
			if self.s.meanwhile:
				with self.s.lock:
					self.s.meanwhile(rest.decode("latin-1"))
			try:
				if self.s.refuses and (why := self.s.refuses(rest.decode("latin-1"))):
					raise No(why)
				how = getattr(self, "do_" + word.lower().replace(" ", "_"), None)
				if how is None:
					raise No("BAD what is that?")
				if self.box is None and word.split()[-1] in _OPEN:
					raise No("BAD no folder is open")
				if word == "APPEND":  # a message of its own takes time on the line
					how(rest)
				else:
					with self.s.lock:
						how(rest[len(word) + 1:])
				text = f"OK {self.code}done"
			except No as e:
				text = str(e)
			if self.s.cuts and self.s.cuts(rest.decode("latin-1")):
				self.sock.shutdown(socket.SHUT_RDWR)
				raise Bye
			if self.box and self.told != len(self.box.v):
				self.told = len(self.box.v)
				self.say(f"* {self.told} EXISTS")
			self.say(f"{tag.decode()} {text}")
			if not (self.s.behind and self.s.behind(rest.decode("latin-1"))):
				self.f.flush()

	def say(self, line):
		self.f.write(line.encode("latin-1") + b"\r\n")

	# -- names and numbers -----------------------------------------------------

	@staticmethod
	def name(text):
		m = re.match(_NAME, text.strip())
		return re.sub(rb"\\(.)", rb"\1", m[1] if m[1] is not None else m[2]).decode()

	def folder(self, name):
		name = "INBOX" if name.upper() == "INBOX" else name
		f = self.s.folders(self.user).get(name)
		if f is None:
			raise No("NO [NONEXISTENT] no such folder")
		return f

	def chosen(self, words, uid):
		"""Messages of a set, oldest first."""
		self.has_box()
		last = (self.box.v[-1].uid if uid else len(self.box.v)) if self.box.v else 0
		out = set()
		for part in words.decode().split(","):
			a, _, b = part.partition(":")
			lo, hi = (last if x == "*" else int(x) for x in (a, b or a))
			out.update(m for i, m in enumerate(self.box.v, 1)
				   if min(lo, hi) <= (m.uid if uid else i) <= max(lo, hi))
		return sorted(out, key=lambda m: m.uid)

	def limited(self, v, copy=False):
		"""The newest of them, and the code that says so."""
		n = self.s.limit
		if not n or len(v) <= n:
			return v
		if copy:
			raise No(f"NO [MESSAGELIMIT {n}] too many at once")
		v = v[-n:]
		self.code = f"[MESSAGELIMIT {n}{f' {v[0].uid}' if self.s.where else ''}] "
		return v

	# -- commands ----------------------------------------------------------------

	def do_capability(self, _):
		self.say(f"* CAPABILITY {self.s.capability()}")

	def do_noop(self, _):
		if self.box:
			self.say(f"* {len(self.box.v)} EXISTS")

	def do_logout(self, _):
		self.say("* BYE")
		self.f.flush()
		raise Bye

	def do_authenticate(self, rest):
		words = rest.split()
		if len(words) == 1:
			self.say("+ ")
			self.f.flush()
			words.append(self.f.readline().strip())
		authzid, login, _ = base64.b64decode(words[1]).split(b"\0")
		self.user = (authzid or login).decode()
		self.s.folders(self.user)
		if self.s.tells:
			self.code = f"[CAPABILITY {self.s.capability()}] "

	def do_namespace(self, _):
		if not self.s.prefix and "NAMESPACE" not in self.s.caps:
			raise No("BAD what is that?")
		sep = (self.s.prefix or "/")[-1]
		self.say(f'* NAMESPACE (("{self.s.prefix}" "{sep}")) NIL NIL')

	def do_list(self, rest):
		sep = (self.s.prefix or "/")[-1]
		pattern = self.name(rest[len('""'):])
		if not pattern:
			self.say(f'* LIST (\\Noselect) "{sep}" ""')
			return
		want = re.compile(".*".join(map(re.escape, pattern.replace("%", "*").split("*"))))
		for n in self.s.folders(self.user):
			if want.fullmatch(n):
				self.say(f'* LIST () "{sep}" "{n}"')

	def do_create(self, rest):
		name = self.name(rest)
		if name in self.s.folders(self.user):
			raise No("NO [ALREADYEXISTS] it is there")
		self.s.make(self.user, name)

	def do_delete(self, rest):
		name = self.name(rest)
		self.folder(name)
		del self.s.folders(self.user)[name]

	def do_subscribe(self, rest):
		self.folder(self.name(rest))

	def do_status(self, rest):
		f = self.folder(self.name(rest))
		n = {"MESSAGES": len(f.v), "UIDNEXT": f.uidnext, "UIDVALIDITY": f.uidvalidity}
		words = rest.decode().rpartition("(")[2].rstrip(")").split()
		self.say(f'* STATUS "{self.name(rest)}" (' + " ".join(f"{w} {n[w]}" for w in words) + ")")

	def do_select(self, rest):
		self.box = None
		self.box = self.folder(self.name(rest))
		self.say("* FLAGS (\\Seen \\Deleted)")
		self.told = len(self.box.v)
		self.say(f"* {self.told} EXISTS")
		self.say(f"* OK [UIDVALIDITY {self.box.uidvalidity}] it is")
		self.say(f"* OK [UIDNEXT {self.box.uidnext}] it is")

	do_examine = do_select

	def has_box(self):
		if self.box is None:
			raise No("BAD no mailbox selected")

	def do_close(self, _):
		self.has_box()
		self.box.v = [m for m in self.box.v if "\\Deleted" not in m.flags]
		self.box = None

	def remove(self, gone):
		"""Tells each, highest number first."""
		for i in range(len(self.box.v), 0, -1):
			if self.box.v[i - 1] in gone:
				del self.box.v[i - 1]
				self.say(f"* {i} EXPUNGE")
				self.told -= 1

	def do_expunge(self, _):
		self.remove([m for m in self.box.v if "\\Deleted" in m.flags])

	def do_uid_expunge(self, rest):
		self.need("UIDPLUS")
		self.remove(self.limited([m for m in self.chosen(rest, True) if "\\Deleted" in m.flags]))

	def do_store(self, rest, uid=False):
		words, sign, flags = re.match(rb"(\S+) ([+-])FLAGS\.SILENT \((.*)\)$", rest).groups()
		for m in self.limited(self.chosen(words, uid)):
			for x in flags.decode().split():
				(m.flags.add if sign == b"+" else m.flags.discard)(x)

	def do_uid_store(self, rest):
		self.do_store(rest, True)

	def do_fetch(self, rest, uid=False):
		words, _, items = rest.partition(b" ")
		for m in self.limited(self.chosen(words, uid)):
			if self.s.hides and self.s.hides(m.data):
				continue
			out = [b"UID %d" % m.uid] if uid or b"UID" in items else []
			for item, value in ((b"RFC822.SIZE", b"%d" % len(m.data)),
					    (b"INTERNALDATE", b'"' + m.date.encode() + b'"')):
				if item in items:
					out.append(item + b" " + value)
			if b"BODY.PEEK[]" in items:
				out.append(b"BODY[] {%d}\r\n" % len(m.data) + m.data)
			if fields := re.search(rb"HEADER\.FIELDS \(([^)]*)\)", items):
				head = b"".join(h[0] for h in _HEADER.finditer(
					m.data.partition(b"\r\n\r\n")[0] + b"\r\n")
					if h[1].upper() in fields[1].upper().split()) + b"\r\n"
				out.append(b"BODY[%s] {%d}\r\n" % (fields[0], len(head)) + head)
			self.f.write(b"* %d FETCH (" % (self.box.v.index(m) + 1) + b" ".join(out) + b")\r\n")

	def do_uid_fetch(self, rest):
		self.do_fetch(rest, True)

	def copy(self, rest, uid):
		words, _, name = rest.partition(b" ")
		to = self.folder(self.name(name))
		v = self.limited(self.chosen(words, uid), copy=True)
		uids = [to.add(m.data, m.flags, m.date) for m in v]
		self.copied(to, v, uids)

	def copied(self, to, v, uids):
		if "UIDPLUS" in self.s.caps and v:
			text = (f"COPYUID {to.uidvalidity} {','.join(str(m.uid) for m in v)} "
				f"{','.join(map(str, uids))}")
			if self.code:
				self.say(f"* OK [{text}] copied")
			else:
				self.code = f"[{text}] "

	def do_copy(self, rest):
		self.copy(rest, False)

	def do_uid_copy(self, rest):
		self.copy(rest, True)

	def do_move(self, rest, uid=False):
		self.need("MOVE")
		words, _, name = rest.partition(b" ")
		to = self.folder(self.name(name))
		v = self.limited(self.chosen(words, uid))
		self.copied(to, v, [to.add(m.data, m.flags, m.date) for m in v])
		self.remove(v)

	def do_uid_move(self, rest):
		self.do_move(rest, True)

	def need(self, cap):
		if cap not in self.s.caps:
			self.s.wrong.append(f"used {cap}, which is not announced")
			raise No("BAD what?")

	# -- APPEND --------------------------------------------------------------------

	def literal(self, line):
		"""The message that a line announces."""
		n, plus = re.search(rb"\{(\d+)(\+?)\}$", line).groups()
		n = int(n)
		if not plus:
			self.say("+ go on")
			self.f.flush()
		elif "LITERAL+" not in self.s.caps and not ("LITERAL-" in self.s.caps and n <= 4096):
			self.s.wrong.append(f"a literal of {n} bytes that nobody waited for")
		data = self.f.read(n)
		if len(data) < n:
			raise Bye
		return data

	def do_append(self, rest):
		name = self.name(rest[len("APPEND "):])
		line, v, bad = rest, [], None
		while line.endswith(b"}"):
			date = re.search(rb'"([^"]*)" \{', line)[1].decode()
			flags = re.search(rb"\(([^)]*)\)", line[len(name):])
			data = self.literal(line)
			if bad is None and (self.s.poison and self.s.poison(data)):
				bad = "NO [CANNOT] this one I do not like"
			if bad is None and self.s.largest and len(data) > self.s.largest:
				bad = "NO [TOOBIG] too large"
			if bad is None or not self.s.keeps:
				v.append((data, flags[1].decode().split() if flags else (), date))
			line = self.f.readline().rstrip(b"\r\n")
		if len(v) > 1 and "MULTIAPPEND" not in self.s.caps:
			self.s.wrong.append("MULTIAPPEND, which is not announced")
		with self.s.lock:
			f = self.folder(name)
			if bad is None:
				self.limited(v, copy=True)
			if bad is None or self.s.keeps:
				uids = [f.add(*x) for x in v]
			if bad:
				raise No(bad)
			if "UIDPLUS" in self.s.caps:
				self.code = f"[APPENDUID {f.uidvalidity} {','.join(map(str, uids))}] "
