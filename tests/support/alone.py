"""alone - mailwald without an MTA: a journal of its own, and we say what a milter hears.

    with Alone(directory, "spf = yes") as a:
        a.mail("Q1", rcpts=["anna@example.test"]); a.status(); a.mailwal("verify")

Lines given are settings. It ends with the block: `ended` is its exit status then.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import milterclient
import rig as rigs


def sanitized():
	"""Sanitizers bring their own malloc, which keeps what was freed and cannot be counted."""
	names = subprocess.run(
		["nm", "-D", rigs.find_program("mailwald")], capture_output=True, check=True).stdout
	return b"__asan_init" in names or b"__tsan_init" in names


class Alone:
	def __init__(self, directory, *settings, program=None, journal=None):
		self.dir = pathlib.Path(directory)
		self.program = program or rigs.find_program("mailwald")
		self.journal = pathlib.Path(journal or self.dir / "journal")
		self.conf = self.dir / "conf"
		self.log = self.dir / "log"
		self.sock = f"/tmp/mw-alone-{os.getpid()}-{self.dir.name}.sock"
		lines = [f'journal_dir = "{self.journal}"', f"milter_listen = unix:{self.sock}",
			 "min_free = 0", "log_target = stderr", *settings]
		self.conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
		self.proc = self.ended = None

	def __enter__(self):
		rc, _, err = self.mailwal("init")
		assert rc == 0, err
		self.start()
		return self

	def start(self):
		"""It listens before its journal is open; here both are seen."""
		before = self.said().count("event=start ")
		with open(self.log, "ab") as log:
			self.proc = subprocess.Popen([self.program, "-c", self.conf], stderr=log,
						     stdin=subprocess.DEVNULL,
						     preexec_fn=rigs.die_with_parent)
		rigs.wait_for("mailwald", lambda: rigs.connects(self.sock), alive=self.proc)
		rigs.wait_for("its journal to be open",
			      lambda: self.said().count("event=start ") > before, alive=self.proc)

	def said(self):
		"""Its log."""
		return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

	def end(self, sig=signal.SIGTERM):
		"""Its exit status, and how long it took to end."""
		began = time.monotonic()
		self.proc.send_signal(sig)
		return self.proc.wait(rigs.PATIENCE), time.monotonic() - began

	def __exit__(self, *_):
		if self.proc.poll() is None:
			self.proc.terminate()
		try:
			self.ended = self.proc.wait(rigs.PATIENCE)
		except subprocess.TimeoutExpired:
			self.proc.kill()
			self.ended = self.proc.wait()
		if os.path.exists(self.sock):
			os.unlink(self.sock)

	def mailwal(self, *args):
		"""(exit status, output, errors) of mailwal with this configuration."""
		p = subprocess.run([rigs.find_program("mailwal"), "-c", self.conf, *map(str, args)],
				   capture_output=True, timeout=rigs.PATIENCE, check=False,
				   stdin=subprocess.DEVNULL)
		return p.returncode, p.stdout.decode(), p.stderr.decode()

	def show(self, queue_id):
		return json.loads(self.mailwal("show", queue_id, "--json")[1])

	def ask(self, request):
		"""mailwald's answer at its control socket."""
		with socket.socket(socket.AF_UNIX) as s:
			s.settimeout(rigs.PATIENCE)
			s.connect(str(self.journal / "control.sock"))
			s.sendall(request.encode() + b"\n")
			out = b""
			while not out.endswith(b"\n") and (more := s.recv(65536)):
				out += more
		return out.decode()

	def status(self):
		return json.loads(self.ask("status").split(" ", 1)[1])

	def mail(self, queue_id, **envelope):
		"""Takes a message in; seconds until its end was answered."""
		c = milterclient.Conn(self.sock)
		c.envelope(queue_id, **envelope)
		began = time.monotonic()
		got = c.end()
		c.sock.close()
		assert got == b"c", got
		return time.monotonic() - began
