"""oddnext - next servers, SMTP and LMTP, that do now and then what they should not.

One OddNext listens on 127.0.0.1. Of seven sessions in ten each reply goes wrong with
probability `odds`, in one of the ways ACTS; so do the handshake of STARTTLS, which some
sessions offer, and the reading of content. What happens in the n-th session is a matter of
the seed. It keeps, by a message's first line:

    content   the contents it took, each as it was sent
    said      the codes that it said after them, 0 for what was no whole reply
"""

import random
import socket
import ssl
import struct
import subprocess
import threading
import time

import listener

ACTS = ("close", "reset", "partial", "hang", "slow", "split", "multi", "refuse", "tempfail", "bye",
	"code", "extra", "lf", "nul", "garbage", "long", "empty")
CODES = (0, 100, 200, 211, 251, 299, 333, 334, 354, 499, 599, 600, 999)
WORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 10000000", "ENHANCEDSTATUSCODES",
	 "CHUNKING", "XFORWARD NAME ADDR PROTO HELO")
HANG = 4  # seconds; longer than the proxies' patience


class Over(Exception):
	"""The session is."""


def certificate(directory):
	"""A context of TLS for servers, with a certificate of its own."""
	key, cert = f"{directory}/odd.key", f"{directory}/odd.crt"
	subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
			"ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
			"-keyout", key, "-out", cert], check=True, capture_output=True)
	ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
	ctx.load_cert_chain(cert, key)
	return ctx


class OddNext(listener.Listener):
	def __init__(self, lmtp, seed, odds, ctx):
		self.lmtp, self.seed, self.odds, self.ctx = lmtp, seed, odds, ctx
		self.sessions, self.lock = 0, threading.Lock()
		self.content, self.said, self.acts = {}, {}, dict.fromkeys(ACTS, 0)
		super().__init__()

	def serve(self, sock):
		with self.lock:
			self.sessions += 1
			rnd = random.Random(f"{self.seed} {self.lmtp} {self.sessions}")
		s = _Session(self, sock, rnd)
		try:
			s.run()
		except Over:
			pass
		finally:
			try:
				s.sock.shutdown(socket.SHUT_RDWR)
			except OSError:
				pass
			s.sock.close()


class _Session:
	def __init__(self, server, sock, rnd):
		self.server, self.sock, self.rnd = server, sock, rnd
		self.buf, self.rcpts, self.tls, self.chunks = b"", 0, False, b""
		self.wild = rnd.random() < 0.7
		sock.settimeout(120)

	def odd(self, odds=None):
		return self.wild and self.rnd.random() < (odds or self.server.odds)

	def more(self):
		got = self.sock.recv(65536)
		if not got:
			raise Over
		self.buf += got

	def line(self):
		while b"\n" not in self.buf:
			self.more()
		line, self.buf = self.buf.split(b"\n", 1)
		return line + b"\n"

	# -- replies ---------------------------------------------------------------

	def reply(self, code, text=b"2.0.0 Ok", one_of_many=False):
		"""Says that, or something odd; the code that was said as a whole, or 0."""
		whole = b"%d %s\r\n" % (code, text)
		if not self.odd():
			self.sock.sendall(whole)
			return code
		act = self.rnd.choice(ACTS)
		if one_of_many and act == "extra":
			act = "close"  # one too many among several: nobody could tell
		with self.server.lock:
			self.server.acts[act] += 1
		return getattr(self, "_" + act, self._other)(act, code, whole)

	def _close(self, *_):
		raise Over

	def _reset(self, *_):
		self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
		raise Over

	def _partial(self, _act, _code, whole):
		self.sock.sendall(whole[:self.rnd.randrange(1, len(whole) - 1)])
		raise Over

	def _hang(self, *_):
		time.sleep(HANG)
		raise Over

	def _slow(self, _act, code, whole):
		time.sleep(self.rnd.random())
		self.sock.sendall(whole)
		return code

	def _split(self, _act, code, whole):
		for i in range(len(whole)):
			self.sock.sendall(whole[i:i + 1])
			time.sleep(0.001)
		return code

	def _code(self, *_):
		code = self.rnd.choice(CODES)
		self.sock.sendall(b"%03d what\r\n" % code)
		return code

	def _other(self, act, code, whole):
		out, said = {
			"multi": (b"%d-more\r\n" % code * self.rnd.randrange(1, 60) + whole, code),
			"refuse": (b"550 5.0.0 no\r\n", 550),
			"tempfail": (b"450 4.0.0 later\r\n", 450),
			"bye": (b"421 4.0.0 bye\r\n", 421),
			"extra": (whole + self.rnd.choice((whole, b"354 go\r\n", b"550 no\r\n")), code),
			"lf": (whole.replace(b"\r", b""), code),
			"nul": (b"%d a\0b\r\n" % code, code),
			"garbage": (self.rnd.randbytes(self.rnd.randrange(1, 300)) + b"\r\n", 0),
			"long": (b"%d %s\r\n" % (code, b"x" * 9000), 0),
			"empty": (b"\r\n" + whole, 0),
		}[act]
		self.sock.sendall(out)
		return said

	# -- commands --------------------------------------------------------------

	def run(self):
		self.reply(220, b"next ESMTP")
		while True:
			line = self.line()
			verb = line[:4].upper()
			if verb in (b"EHLO", b"LHLO"):
				self.hello()
			elif verb == b"STAR":
				self.starttls()
			elif verb == b"MAIL":
				self.rcpts, self.chunks = 0, b""
				self.reply(250)
			elif verb == b"RCPT":
				self.rcpts += self.reply(250) // 100 == 2
			elif verb == b"DATA":
				if self.reply(354, b"go") == 354:
					self.data()
			elif verb == b"BDAT":
				self.bdat(line.split())
			elif verb == b"QUIT":
				self.reply(221)
				return
			else:
				self.reply(250)

	def hello(self):
		words = [w for w in WORDS if self.rnd.random() < 0.6]
		if self.server.ctx and not self.tls and self.rnd.random() < 0.4:
			words.append("STARTTLS")
		self.rnd.shuffle(words)
		*most, last = (w.encode() for w in ("next", *words))
		self.sock.sendall(b"".join(b"250-" + w + b"\r\n" for w in most))
		self.reply(250, last)

	def starttls(self):
		if self.odd(0.1):
			self.sock.sendall(b"454 4.0.0 no\r\n")
			return
		self.sock.sendall(b"220 go\r\n")
		if self.odd(0.1):
			self.sock.sendall(self.rnd.randbytes(100))
			raise Over
		if self.odd(0.1):
			self.sock.sendall(b"250 said before anything was safe\r\n")
		try:
			self.sock = self.server.ctx.wrap_socket(self.sock, server_side=True)
		except (OSError, ValueError) as e:
			raise Over from e
		self.buf, self.tls = b"", True

	def data(self):
		if self.odd():
			self.early()
		lines = []
		while (line := self.line()) != b".\r\n":
			lines.append(line[1:] if line.startswith(b".") else line)
		self.end(b"".join(lines))

	def early(self):
		"""Before the content is over."""
		what = self.rnd.choice((b"", b"552 5.0.0 no\r\n", b"250 yes\r\n", b"421 4.0.0 bye\r\n", None))
		if what is None:
			time.sleep(HANG)  # and reads nothing
		elif what:
			self.sock.sendall(what)
		else:
			raise Over

	def bdat(self, words):
		n = int(words[1])
		while len(self.buf) < n:
			self.more()
		self.chunks, self.buf = self.chunks + self.buf[:n], self.buf[n:]
		if len(words) > 2:
			self.end(self.chunks)
		else:
			self.reply(250)

	def end(self, content):
		name = content.split(b"\r\n", 1)[0].decode("latin-1")
		with self.server.lock:
			self.server.content.setdefault(name, []).append(content)
			said = self.server.said.setdefault(name, [])
		n = self.rcpts if self.server.lmtp else 1
		for _ in range(n):
			said.append(self.reply(250, b"2.0.0 Ok: queued as N%d" % self.rnd.randrange(1 << 30),
					       n > 1))
		self.rcpts = 0
