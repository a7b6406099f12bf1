"""smtp - a small SMTP client that sends exactly the bytes it is given.

smtplib rewrites line ends and cannot say BDAT; tests need the wire. One Client is one
connection; it is not thread-safe. Replies are (code, text).
"""

import base64
import socket
import threading
import time

from tap import PATIENCE


class SmtpError(Exception):
	"""The server said something else than was wanted; code 0: the line was lost."""

	def __init__(self, code, text, where):
		super().__init__(f"{where}: {code} {text}")
		self.code, self.text, self.where = code, text, where


def stuff(data):
	"""Dot-stuffing of CRLF lines, nothing else."""
	if data.startswith(b"."):
		data = b"." + data
	return data.replace(b"\r\n.", b"\r\n..")


class Client:
	def __init__(self, port, host="127.0.0.1", helo="client.remote.test", timeout=PATIENCE,
		     source=None):
		self.sock = socket.create_connection((host, port), timeout,
						     (source, 0) if source else None)
		self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		self.buf = b""
		self.want(220, self.reply(), "banner")
		self.ehlo = self.cmd(b"EHLO " + helo.encode(), 250)[1]

	def __enter__(self):
		return self

	def __exit__(self, *exc):
		self.close()

	def close(self):
		try:
			self.sock.close()
		except OSError:
			pass

	def quit(self):
		try:
			self.cmd(b"QUIT")
		except (SmtpError, OSError):
			pass
		self.close()

	def line(self):
		while b"\n" not in self.buf:
			try:
				got = self.sock.recv(65536)
			except OSError as e:
				raise SmtpError(0, str(e), "receive") from e
			if not got:
				raise SmtpError(0, "connection closed", "receive")
			self.buf += got
		line, self.buf = self.buf.split(b"\n", 1)
		return line.rstrip(b"\r")

	def reply(self):
		text = []
		while True:
			line = self.line()
			text.append(line[4:].decode("latin-1"))
			if line[3:4] != b"-":
				return int(line[:3]), "\n".join(text)

	@staticmethod
	def want(code, reply, where):
		if code and reply[0] != code:
			raise SmtpError(reply[0], reply[1], where)
		return reply

	def send(self, data):
		try:
			self.sock.sendall(data)
		except OSError as e:
			raise SmtpError(0, str(e), "send") from e

	def cmd(self, line, code=0):
		self.send(line + b"\r\n")
		return self.want(code, self.reply(), line[:60].decode("latin-1"))

	def auth(self, user, password):
		tok = base64.b64encode(b"\0" + user.encode() + b"\0" + password.encode())
		self.cmd(b"AUTH PLAIN " + tok, 235)

	def mail(self, data, sender, rcpts, mailargs="", mode="DATA", chunks=None,
		 stuffed=False, rcptargs=""):
		"""One transaction. Returns (code, text) of the end of data; a refusal on
		the way raises SmtpError. Bytes go out as they are: DATA adds dot-stuffing
		(unless stuffed) and, if they do not end in CRLF, the CRLF that SMTP needs."""
		line = b"MAIL FROM:<" + sender.encode() + b">"
		self.cmd(line + (b" " + mailargs.encode() if mailargs else b""), 250)
		for r in rcpts:
			line = b"RCPT TO:<" + r.encode() + b">"
			self.cmd(line + (b" " + rcptargs.encode() if rcptargs else b""), 250)
		if mode == "BDAT":
			return self.bdat(data, chunks or [len(data)])
		self.cmd(b"DATA", 354)
		out = data if stuffed else stuff(data)
		if out and not out.endswith(b"\r\n"):
			out += b"\r\n"
		self.send(out + b".\r\n")
		return self.reply()

	def bdat(self, data, chunks):
		at, code = 0, (0, "")
		for i, n in enumerate(chunks):
			last = b" LAST" if i == len(chunks) - 1 else b""
			self.send(b"BDAT %d" % n + last + b"\r\n" + data[at:at + n])
			at += n
			code = self.reply()
			if not last:
				self.want(250, code, "BDAT")
		return code


def queue_id(reply):
	"""The queue ID in Postfix' "2.0.0 Ok: queued as ID" or in Sendmail's
	"2.0.0 ID Message accepted for delivery"."""
	words = reply[1].split(" ")
	if words[2:4] == ["Message", "accepted"]:
		return words[1]
	return words[-1] if "queued as" in reply[1] else ""


class Job:
	"""One message to send; after sending: code, text, queue_id; with a clock also when it was
	begun and acknowledged (began_at, acked_at), between which it arrived."""

	def __init__(self, data, sender, rcpts, auth=None, **opts):
		self.data, self.sender, self.rcpts = data, sender, list(rcpts)
		self.auth, self.opts = auth, opts
		self.code, self.text, self.queue_id = None, "", ""
		self.began_at = self.acked_at = None

	def off(self, date):
		"""By how many seconds a whole second cannot be that of its arrival; 0: it can."""
		return max(self.began_at - 1 - date, date - self.acked_at, 0)


def send_all(jobs, port_for, password_for, sessions=8, per_connection=5, stop=None,
	     clock=None, pause=0.0):
	"""Sends all jobs over parallel sessions; errors are kept in the jobs, not raised.
	port_for(job) gives the port, password_for(user) the password of job.auth. A lost
	connection fails the job in flight only. pause: seconds after a failure, or what is
	called then. stop: threading.Event. clock(): stamps jobs."""
	lock, it = threading.Lock(), iter(jobs)

	def work():
		client, login, used = None, None, 0
		while not (stop and stop.is_set()):
			with lock:
				job = next(it, None)
			if job is None:
				break
			try:
				if client and (login != job.auth or used >= per_connection):
					client.quit()
					client = None
				if client is None:
					client, used = Client(port_for(job)), 0
					if job.auth:
						client.auth(job.auth, password_for(job.auth))
					login = job.auth
				used += 1
				job.began_at = clock() if clock else None
				got = client.mail(job.data, job.sender, job.rcpts, **job.opts)
				job.code, job.text = got
				job.queue_id = queue_id(got)
				if clock and got[0] == 250:
					job.acked_at = clock()
			except (SmtpError, OSError) as e:
				job.code = getattr(e, "code", 0)
				job.text = str(e)
			if job.code != 250 and client:
				client.close()
				client = None
			if job.code != 250:
				pause() if callable(pause) else time.sleep(pause)
		if client:
			client.quit()

	threads = [threading.Thread(target=work, daemon=True) for _ in range(sessions)]
	for t in threads:
		t.start()
	for t in threads:
		t.join()
