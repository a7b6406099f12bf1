#!/usr/bin/python3
"""mailwald -u where something is wrong: what the new one wants to listen on is taken, it goes away
in the middle, the old one hangs, several come at once. One of them has the sockets and takes mail
each time, and who has not says why. So does one of another user or configuration. And a mailwald of another journal with the same socket: it is
not taken from the one that has it, and stays when that ends."""

import os
import pwd
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import milterclient
import rig as rigs
import tap


class Old:
	"""The one that runs, and those that want to be the next."""

	def __init__(self, rig, user=()):
		self.rig, self.text, self.n = rig, open(rig.conf, encoding="utf-8").read(), 0
		self.user = list(user)
		self.p = rig.start_mailwald() if not user else rig.spawn(
			"mailwald", self.user + [rig.mailwald_bin, "-c", self.conf(self.text)])
		rigs.wait_for("mailwald", lambda: mail(rig.milter_sock, "FIRST") == b"c", alive=self.p)

	def conf(self, text):
		self.n += 1
		conf = f"{self.rig.run}/{self.n}.conf"
		with open(conf, "w", encoding="utf-8") as f:
			f.write(text)
		os.chmod(conf, 0o644)
		return conf

	def start(self, text=None, user=None):
		return subprocess.Popen([*(self.user if user is None else user), self.rig.mailwald_bin,
					 "-u", "-c", self.conf(text or self.text)],
					stderr=subprocess.PIPE, text=True, preexec_fn=rigs.die_with_parent)

	def refused(self, t, what, words, text=None, user=None):
		p = self.start(text, user)
		err = p.communicate(timeout=tap.PATIENCE)[1]
		t.ok(p.returncode > 0 and words in err, f"{what}: it says so", (p.returncode, err))
		self.works(t, f"{what}: the old one goes on")

	def works(self, t, what):
		self.n += 1
		t.ok(self.p.poll() is None and mail(self.rig.milter_sock, f"Q{self.n}") == b"c", what)

	def follows(self, p):
		"""p takes its place."""
		self.p.wait(tap.PATIENCE)
		self.p = p
		rigs.wait_for("the new one", lambda: mail(self.rig.milter_sock, f"F{p.pid}") == b"c",
			      alive=p)


def mail(where, queue_id):
	try:
		c = milterclient.Conn(where)
	except (OSError, EOFError):
		return None
	try:
		c.envelope(queue_id)
		return c.end()
	except (OSError, EOFError, AssertionError):
		return None
	finally:
		c.sock.close()


def ask(journal):
	"""What a new one asks; the connection."""
	s = socket.socket(socket.AF_UNIX)
	s.settimeout(tap.PATIENCE)
	here = os.open(journal, os.O_PATH)
	s.connect(f"/proc/self/fd/{here}/control.sock")
	os.close(here)
	s.sendall(b"handover\n")
	return s


def fails(t, old, port, other):
	"""The new one cannot have what it wants."""
	want = (f"milter_listen = unix:{old.rig.milter_sock}, inet:127.0.0.1:{port}\n"
		"milter_socket_mode = 0600\n")
	line = next(x for x in old.text.splitlines(True) if x.startswith("milter_listen"))
	before = os.stat(old.rig.milter_sock).st_mode
	old.refused(t, "a milter's port that somebody has", f"inet:127.0.0.1:{port}: Address already",
		    old.text.replace(line, want))
	t.equal(os.stat(old.rig.milter_sock).st_mode, before, "and its socket is as it was")
	more = f"unix:{old.rig.run}/twice.sock"
	old.refused(t, "one place twice", "twice.sock: Address already",
		    old.text.replace(line, line.rstrip("\n") + f", {more}, {more}\n"))
	old.refused(t, "a proxy's", f"proxy_listen: cannot listen on inet:127.0.0.1:{port}",
		    old.text + f"proxy_listen = smtp:inet:127.0.0.1:{port}->inet:127.0.0.1:{other}\n")
	old.refused(t, "metrics for all the world", "is not on this host",
		    old.text + f"metrics_listen = inet:0.0.0.0:{other}\n")


def goes_away(t, old):
	s = ask(old.rig.journal)
	data, fds, _flags, _where = socket.recv_fds(s, 8192, 8)
	t.ok(data.startswith(b"ok ") and fds, "the sockets are handed over", data)
	s.close()
	for fd in fds:
		os.close(fd)
	old.works(t, "who asked for the sockets dies: the old one goes on")
	s = ask(old.rig.journal)
	s.close()
	old.works(t, "the same at once")
	s, fds = sockets_of(old.rig)
	t.ok(s.recv(100).startswith(b"error"), "who asked for them is silent: the old one keeps them")
	take(s)
	s.close()
	os.close(fds[0])
	old.works(t, "and does so when the word comes too late")
	s, fds = sockets_of(old.rig)
	os.kill(old.p.pid, signal.SIGSTOP)
	take(s)
	s.close()
	os.kill(old.p.pid, signal.SIGCONT)
	os.close(fds[0])
	old.works(t, "who dies while the old one hangs is not waited for")


def sockets_of(rig):
	"""What the old one has, and the connection on which it waits for a word."""
	s = ask(rig.journal)
	return s, socket.recv_fds(s, 8192, 8)[1]


def take(s):
	"""The second word, to which the daemon may not have waited: it does so for 5 s."""
	try:
		s.sendall(b"take\n")
	except BrokenPipeError:
		pass


def told_to_end(t, rig):
	"""The old one, between its two words."""
	old = Old(rig)
	s, fds = sockets_of(rig)
	before = rig.mailwald_log().count("event=stopping")
	old.p.terminate()
	# (A connection would not tell: fds hold the queue open, in which it would wait.)
	t.comes(lambda: rig.mailwald_log().count("event=stopping") > before, "it ends")
	take(s)
	t.ok(s.recv(100).startswith(b"error"), "so it hands nothing over")
	t.equal(old.p.wait(tap.PATIENCE), 0, "exit status")
	for fd in fds:
		os.close(fd)
	rig.procs.pop("mailwald", None)


def hangs(t, old):
	os.kill(old.p.pid, signal.SIGSTOP)
	try:
		p = old.start()
		err = p.communicate(timeout=tap.PATIENCE)[1]
		t.ok(p.returncode == 69 and "does not answer" in err, "the old one hangs", (p.returncode, err))
	finally:
		os.kill(old.p.pid, signal.SIGCONT)
	old.works(t, "later it goes on, with its sockets")


def several(t, old):
	new = [old.start() for _ in range(4)]
	old.p.wait(tap.PATIENCE)
	t.comes(lambda: mail(old.rig.milter_sock, "SEVERAL") == b"c", "four at once: mail is taken")
	errs = []

	def one_left():
		for p in [x for x in new if x.poll() is not None]:
			errs.append((p.returncode, p.communicate(timeout=tap.PATIENCE)[1]))
			new.remove(p)
		return len(new) == 1
	t.comes(one_left, "one of them is left", lambda: errs)
	t.ok(all(rc == 0 and "event=stopped" in err or rc > 0 and err for rc, err in errs),
	     "the others say why, or had their turn", errs)
	old.p = new[0]
	t.comes(lambda: mail(old.rig.milter_sock, "LEFT") == b"c", "and that one takes mail")


def takes(t, old):
	"""With another mode, and one more socket."""
	more = f"{old.rig.run}/more.sock"
	line = next(x for x in old.text.splitlines(True) if x.startswith("milter_listen"))
	old.text = old.text.replace(line, f"milter_listen = unix:{old.rig.milter_sock}, unix:{more}\n"
				    "milter_socket_mode = 0606\n")
	old.follows(old.start())
	t.equal([oct(os.stat(x).st_mode & 0o777) for x in (old.rig.milter_sock, more)], ["0o606"] * 2,
		"another mode: of the old socket and the new one")
	t.equal(mail(more, "MORE"), b"c", "which takes mail, too")


def strangers(t, work):
	"""mailwald runs as a user who is not root; the new one is of another user, or of another
	configuration."""
	with rigs.Rig(work) as rig:
		pw, d = pwd.getpwnam("nobody"), f"{rig.run}/mw"
		os.mkdir(d)
		rig.journal, rig.milter_sock = f"{d}/journal", f"{d}/milter.sock"
		for name in ("journal", "another"):
			rig.mailwal("init", f"{d}/{name}", "--owner", "nobody")
		os.chown(d, pw.pw_uid, pw.pw_gid)
		rig.conf = f"{d}/mailwal.conf"
		rig.conf_extra = "milter_socket_group =\n"
		rig.write_conf()

		def user(uid, gid=pw.pw_gid):
			return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]

		old = Old(rig, user(pw.pw_uid))
		old.refused(t, "root", "is user", user=[])
		old.refused(t, "one who is neither", "root and the journal's owner",
			    user=user(pw.pw_uid - 1, pw.pw_gid - 1))
		for what, words, text in (
				("another journal", "Address already in use",
				 old.text.replace(rig.journal, f"{d}/another")),
				("no journal", "no journal at", old.text.replace(rig.journal, f"{d}/none")),
				("a key that cannot be read", "cannot read key",
				 old.text + f"recovery_key = {d}/none.pub\n"),
				("a socket in another's directory", "Permission denied",
				 old.text.replace(rig.milter_sock, f"{rig.run}/postfix/x.sock"))):
			old.refused(t, what, words, text)
		old.text = old.text.replace(rig.milter_sock, f"{d}/moved.sock")
		p = old.start()
		old.p.wait(tap.PATIENCE)
		rig.milter_sock, left = f"{d}/moved.sock", rig.milter_sock
		old.p = p
		t.comes(lambda: mail(rig.milter_sock, "MOVED") == b"c", "another socket: it serves that")
		t.ok(not os.path.exists(left), "and the one before is gone")
		t.equal({os.stat(os.path.join(at, f)).st_uid for at, _, files in os.walk(rig.journal)
			 for f in files}, {pw.pw_uid}, "the user's own: all files stay his")
		rig.procs.pop("mailwald")
		old.p.terminate()
		err = old.p.communicate(timeout=tap.PATIENCE)[1]
		t.equal(old.p.returncode, 0, "exit status")
		t.ok(f"event=not_listening on=unix:{left}\n" in err, "as it says", err)


def same_socket(t, rig):
	"""Another journal's mailwald wants it, and gets it only when it is free."""
	other = rigs.Rig(t.sub("other"))
	with other:
		other.milter_sock = rig.milter_sock
		other.write_conf()
		other.mailwal("init", other.journal)
		argv = [other.mailwald_bin, "-c", other.conf]
		r = subprocess.run(argv, capture_output=True, timeout=tap.PATIENCE, check=False, text=True)
		t.ok(r.returncode > 0 and "Address already in use" in r.stderr,
		     "a mailwald of another journal does not take the socket", r)
		t.equal(mail(rig.milter_sock, "MINE"), b"c", "whose owner goes on")
		os.unlink(rig.milter_sock)
		other.start_mailwald()
		rig.end("mailwald")
		t.equal(mail(rig.milter_sock, "OTHERS"), b"c",
			"one that took a removed one's place stays when its former owner ends")
		os.kill(other.procs["mailwald"].pid, signal.SIGKILL)
		other.end("mailwald")
		t.ok(os.path.exists(rig.milter_sock), "killed: its socket is left behind")
		other.start_mailwald()
		t.equal(mail(rig.milter_sock, "AGAIN"), b"c", "and replaced")
		t.equal(other.end("mailwald"), 0, "exit status")
		t.ok(not os.path.exists(rig.milter_sock), "it goes with its owner")


def main(t):
	rig = rigs.Rig(t.sub("one"))
	port, other = rigs.free_ports(2)
	with rig:
		rig.mailwal("init", rig.journal)
		old = Old(rig)
		try:
			with socket.create_server(("127.0.0.1", port)):
				fails(t, old, port, other)
			goes_away(t, old)
			hangs(t, old)
			several(t, old)
			takes(t, old)
			t.ok(rig.mailwal("verify").rc == 0, "verify")
		finally:
			if old.p.poll() is None:
				old.p.terminate()
			t.equal(old.p.wait(tap.PATIENCE), 0, "exit status")
		rig.procs.pop("mailwald", None)
		told_to_end(t, rig)
		rig.start_mailwald()
		same_socket(t, rig)
	strangers(t, t.sub("strangers"))


tap.run(main)
