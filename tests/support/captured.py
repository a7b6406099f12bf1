"""captured - a journal that takes mail in without an MTA, and runs of mailwal that put it into a
server of imapserver.

    with captured.Site(t, users=(ANNA,)) as site:
        site.capture(data)              # for the first of the users
        r = site.replay(s)              # all of it, into s; what is passed more comes last
        p = site.start(s)               # the same, under way
"""

import os
import subprocess

import milterclient
import rig as rigs


def message(i, text=None):
	"""Message i; its Message-ID tells."""
	return (f"From: w@remote.test\r\nSubject: mail {i}\r\nMessage-ID: <m{i}@remote.test>\r\n\r\n"
		f"{f'text {i}' if text is None else text}\r\n").encode()


class Site:
	def __init__(self, t, users, name="rig"):
		self.t, self.users = t, users
		self.rig = rigs.Rig(t.sub(name), users=users, aliases={})

	def __enter__(self):
		self.rig.__enter__()
		try:
			self.t.need(self.rig.mailwal("init", self.rig.journal).rc == 0, "a journal")
			with open(self.rig.password_file, "w", encoding="ascii") as f:
				f.write("any\n")
			os.chmod(self.rig.password_file, 0o600)
			self.rig.start_mailwald()
		except BaseException:
			self.rig.__exit__(None, None, None)
			raise
		return self

	def __exit__(self, *exc):
		return self.rig.__exit__(*exc)

	def capture(self, data, user=None, tag="Q"):
		"""One connection: Message-IDs arrive in order."""
		n = len(self.rig.journaled())
		taken = milterclient.journal(self.rig.milter_sock, [
			(f"{tag}{n + i:06d}", user or self.users[0], d) for i, d in enumerate(data)], threads=1)
		self.t.need(len(taken) == len(data), f"{len(data)} captured")

	def args(self, s, *more, command=("replay", "--all")):
		return ["--json", *command, "--to", f"imap://127.0.0.1:{s.port}", "--auth-user",
			rigs.MASTER, "--password-file", self.rig.password_file, *more]

	def replay(self, s, *more, command=("replay", "--all")):
		return self.rig.mailwal(*self.args(s, "--queue", "none", *more, command=command))

	def start(self, s, *more, command=("replay", "--all")):
		argv = self.rig.mailwal_argv(*self.args(s, "--queue", "none", *more, command=command))
		return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
					stderr=subprocess.PIPE, text=True)
