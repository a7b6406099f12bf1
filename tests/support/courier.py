"""courier - a private Courier IMAP server, from Debian's packages unpacked and not installed.

    with courier.Courier(rig, directory) as c:
        c.port, c.home(user), c.login(user)

Its paths are compiled in: it runs in a mount namespace of its own, see courier-up.
"""

import imaplib
import os
import pathlib
import signal
import subprocess

import rig as rigs

PLACES = ("/var/cache/mailwal-tests/courier",)
UP = pathlib.Path(__file__).with_name("courier-up")


def root():
	"""Where it lies, or None; None too where no namespace with overlays can be had."""
	for place in PLACES:
		if os.access(f"{place}/usr/bin/imapd", os.X_OK):
			p = subprocess.run(["unshare", "-m", "mount", "-t", "overlay", "overlay", "-o",
					    f"lowerdir={place}/usr:/usr", "/usr"],
					   capture_output=True, check=False)
			return place if p.returncode == 0 else None
	return None


class Courier:
	def __init__(self, rig, directory):
		self.rig, self.users, self.dir = rig, rig.users, directory
		(self.port,) = rigs.free_ports(1)

	def __enter__(self):
		self.start()
		return self

	def __exit__(self, kind, exc, tb):
		# unshare --fork takes no SIGTERM; with it all of its namespace ends.
		self.rig.end("courier", signal.SIGKILL)

	def start(self):
		p = self.rig.spawn("courier", ["unshare", "-m", "-p", "--fork", "--kill-child", UP, root(),
					       self.dir, str(self.port), rigs.MAIL_USER,
					       self.rig.password, *self.users])
		rigs.wait_for("Courier", self._answers, alive=p)

	def _answers(self):
		if not rigs.connects(self.port):
			return False
		try:  # its authentication daemon comes up beside it
			self.login(self.users[0]).logout()
		except (imaplib.IMAP4.error, OSError):
			return False
		return True

	def home(self, user):
		return f"{self.dir}/home/{user}/Maildir"

	def login(self, user):
		c = imaplib.IMAP4("127.0.0.1", self.port)
		c.login(user, self.rig.password)
		return c
