#!/usr/bin/python3
"""Hostile messages in mbox files of every dialect, as mailwal, Python, Dovecot and others write
them: import finds each message, none more, and a replay into the file puts none there again.

MW_SEED for another set. MW_TEST_COST 20
"""

import collections
import json
import mailbox
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import tap

MAILWAL = os.path.join(os.environ.get("MW_BUILD", "build"), "replay/mailwal")
USER = "anna@example.org"
DATE = b"Thu Nov 19 10:%02d:00 2026"
LINES = [b"text", b"From me to you", b">From a quote", b">>From deeper", b"> From", b"From", b">",
	 b">>>From", b"", b"", b"x\ry", b"end\r", b"\r", b"a\0b", b"\xe4\xf6", b".", b"Fromage", b"F",
	 b"Content-Length: 3", b"long " * 30000]


def content(rnd, i):
	"""A message with LF line ends, in which a CR stands for one on the wire."""
	head = [b"Subject: message %d" % i, b"Message-ID: <box.%d@x.test>" % i, b"From: bob@x.test"]
	body = [rnd.choice(LINES) for _ in range(rnd.randrange(12))]
	kind = rnd.randrange(8)
	if kind == 0:  # a message within
		body += [b"", b"From boss@x.test  " + DATE % 59, b"From: boss@x.test", b"Subject: forged",
			 b"", b"pay"]
	elif kind == 1:
		head.insert(1, b"From : bob")
	elif kind == 2:
		head.insert(rnd.randrange(3), b"X-CR: y\r")
	elif kind == 3:
		body = []
	text = b"".join(s + b"\n" for s in body)
	if rnd.random() < 0.5:
		n = len(text) + rnd.choice([0, 0, 1, 2, -1, text.count(b"\n"), 100])
		if rnd.random() < 0.5:
			n = len(re.sub(rb"(?m)^From ", b">From ", text))
		head.append(b"Content-Length: %d" % max(n, 0))
	return b"".join(s + b"\n" for s in head) + b"\n" + text


def split(m):
	head, _, body = m.partition(b"\n\n")
	return re.sub(rb"(?m)^Content-Length: .*\n?", b"", head + b"\n"), body


def quoted(m):
	return re.sub(rb"(?m)^From ", b">From ", m)


def plain(m, i):
	return b"From bob@x.test  " + DATE % (i % 60) + b"\n" + quoted(m) + b"\n"


def with_length(quote):
	def one(m, i):
		head, body = split(m)
		body = quote(body)
		return (b"From bob@x.test " + DATE % (i % 60) + b"\n" + head
			+ b"Content-Length: %d\n\n" % len(body) + body + b"\n")
	return one


def by_hand(one):
	def write(path, messages):
		path.write_bytes(b"".join(one(m, i) for i, m in enumerate(messages)))
	return write


def by_python(end):
	def write(path, messages):
		box = mailbox.mbox(path)
		for m in messages:
			box.add(m.replace(b"\n", end))
		box.close()
	return write


def by_dovecot(path, messages):
	"""doveadm has no mail of root's; it wants a place without blanks in its name."""
	place = tempfile.mkdtemp(prefix="mw-mbox-")
	conf = pathlib.Path(place, "conf")
	me = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
	conf.write_text(f"base_dir = {place}\nmail_location = mbox:{place}/mail:INBOX={place}/inbox\n"
			f"ssl = no\nlog_path = {place}/log\ndefault_login_user = nobody\n"
			"default_internal_user = nobody\nmbox_write_locks = fcntl\n", encoding="ascii")
	try:
		pathlib.Path(place, "inbox").touch()
		if me:
			for p in (place, f"{place}/inbox"):
				shutil.chown(p, "nobody", "nogroup")
		for m in messages:
			subprocess.run(["doveadm", "-c", str(conf), "save", "-m", "INBOX"], cwd=place,
				       input=m.replace(b"\n", b"\r\n"), check=True, capture_output=True,
				       timeout=tap.PATIENCE, env={**os.environ, "HOME": place,
								  "USER": "nobody"}, **me)
		shutil.copy(f"{place}/inbox", path)
	finally:
		shutil.rmtree(place)


class Site:
	def __init__(self, t, name):
		self.dir = t.sub(name)
		self.conf = os.path.join(self.dir, "conf")
		pathlib.Path(self.conf).write_text(f"journal_dir = \"{self.dir}/journal\"\n"
						   "local_domains = example.org\n", encoding="ascii")
		self.run("init", f"{self.dir}/journal")

	def run(self, *words):
		p = subprocess.run([MAILWAL, "-c", self.conf, *words], cwd=self.dir, capture_output=True,
				   timeout=tap.PATIENCE, check=False)
		p.told = f"exit {p.returncode}\n{p.stdout[-600:]}\n{p.stderr[-600:]}"
		return p

	def summary(self, *words):
		p = self.run("--json", *words)
		last = p.stdout.splitlines()[-1:] or [b"{}"]
		return {"rc": p.returncode, "err": p.stderr[-300:], **json.loads(last[0])}

	def messages(self):
		rows = [json.loads(x) for x in self.run("--json", "list", "--all").stdout.splitlines()]
		return [self.run("show", x["id"], "--raw").stdout for x in rows]


def bag(messages):
	return collections.Counter(m if m.endswith(b"\r\n") else m + b"\r\n" for m in messages)


def loose(messages):
	"""Without what a store adds or a dialect cannot tell."""
	out = []
	for m in messages:
		head, _, body = m.replace(b"\r", b"").replace(b"\0", b"\x80").partition(b"\n\n")
		head = re.sub(rb"(?m)^(Content-Length|Status|X-UID|X-Keywords|X-IMAPbase): ?.*\n?", b"",
			      head + b"\n").replace(b">From :", b"From :")
		out.append((head, re.sub(rb"(?m)^>+From ", b"From ", body).rstrip(b"\n")))
	return collections.Counter(out)


def apart(want, got):
	return "\n".join([f"missing {n} × {m!r:.600}" for m, n in (want - got).items()]
			 + [f"surplus {n} × {m!r:.600}" for m, n in (got - want).items()])


def main(t):
	rnd = random.Random(int(os.environ.get("MW_SEED", "1")))
	messages = [content(rnd, i) for i in range(60)]
	wire = [m.replace(b"\n", b"\r\n") for m in messages]
	site = Site(t, "captured")
	trees = t.sub("trees")
	for i, m in enumerate(wire):
		pathlib.Path(trees, f"{i:03}.eml").write_bytes(m)
	r = site.summary("import", f"eml:{trees}", "--user", USER)
	t.need(r["rc"] == 0 and r.get("imported") == 60, "the messages are captured", r)
	t.need(bag(site.messages()) == bag(wire), "exactly",
	       apart(bag(wire), bag(site.messages())))
	own = pathlib.Path(t.dir, "own")
	writers = {
		"mailwal": (None, None), "mboxo by Python": (by_python(b"\n"), "o"),
		"mboxo by Python, with CRLF": (by_python(b"\r\n"), "o"), "mboxo": (by_hand(plain), "o"),
		"mboxcl": (by_hand(with_length(quoted)), "cl"),
		"mboxcl2": (by_hand(with_length(bytes)), "cl2"), "Dovecot": (by_dovecot, "cl2")}
	for k, (name, (write, dialect)) in enumerate(writers.items()):
		path = pathlib.Path(t.dir, f"box{k}") if write else own
		if write:
			write(path, messages)
		else:
			r = site.summary("export", "--all", "--to", f"mbox:{path}")
			t.ok(r["rc"] == 0 and len(mailbox.mbox(path)) == 60, "others find the same", r)
		before = path.read_bytes()
		r = site.summary("replay", "--all", "--fresh", "--to", f"mbox:{path}")
		t.ok(r["rc"] == 0 and r["restored"] == 0 and r["already_there"] == 60
		     and path.read_bytes() == before, f"{name}: a replay puts nothing there again", r)
		for form in ("auto", dialect or "rd"):
			new = Site(t, f"new {k} {form}")
			r = new.summary("import", f"mbox:{path}", "--user", USER, "--mbox-format", form)
			got = new.messages()
			exact = bag if not write else loose
			t.ok(r["rc"] == 0 and exact(got) == exact(wire),
			     f"{name}: import as {form}", f"{r}\n{apart(exact(wire), exact(got))}")
		# Ours among those of others, and theirs behind ours.
		late = Site(t, f"late {k}")
		pathlib.Path(late.dir, "m").mkdir()
		pathlib.Path(late.dir, "m/1.eml").write_bytes(
			b"Subject: late\r\nContent-Length: 5\r\n\r\n>From x\r\nFrom y\r\n\r\n")
		late.run("import", f"eml:{late.dir}/m", "--user", USER)
		put = [late.summary("replay", "--all", "--fresh", "--to", f"mbox:{path}")["restored"]
		       for _ in range(2)]
		t.ok(put == [1, 0], f"{name}: one more, once", put)
		if write:
			with open(path, "ab") as f:
				f.write(before)
		r = site.summary("replay", "--all", "--fresh", "--to", f"mbox:{path}")
		t.ok(r["rc"] == 0 and r["restored"] == 0, f"{name}: all of it is found beside that", r)
		new = Site(t, f"mixed {k}")
		r = new.summary("import", f"mbox:{path}", "--user", USER)
		t.ok(r["rc"] == 0 and r["imported"] == 61, f"{name}: and imported", r)


tap.run(main)
