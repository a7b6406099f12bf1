"""clisite - the mailwal command on a journal of the test's own: no servers, no daemon.

    site = Site(t)
    begin(t, site)      # init, and four messages imported
    r = site("--json", "list")
"""

import json
import os
import pathlib
import subprocess

import tap

BUILD = os.environ.get("MW_BUILD", "build")
MAILWAL, MAILWALD = os.path.join(BUILD, "replay/mailwal"), os.path.join(BUILD, "milter/mailwald")
ALICE = "alice@example.org"


class Ran:
	def __init__(self, argv, cwd, stdin=None):
		p = subprocess.run(argv, cwd=cwd, capture_output=True, timeout=tap.PATIENCE, check=False,
				   input=stdin or b"")
		self.argv, self.rc = argv, p.returncode
		self.out, self.err = p.stdout.decode(), p.stderr.decode()

	def json(self):
		"""Every line of standard output must be an object."""
		try:
			lines = [json.loads(x) for x in self.out.splitlines()]
		except ValueError:
			return None
		return lines if all(isinstance(x, dict) for x in lines) else None

	def __str__(self):
		return f"{' '.join(self.argv)}: exit {self.rc}\n{self.out[-800:]}\n{self.err[-800:]}"


class Site:
	def __init__(self, t):
		self.t, self.dir = t, t.dir
		self.conf = os.path.join(self.dir, "mail wal.conf")
		self.write("journal_dir = \"%s/journal\"" % self.dir, "local_domains = example.org",
			   "retain default { keep = 30d }", "capture spam { match = spam:yes; journal = no }")

	def write(self, *lines):
		pathlib.Path(self.conf).write_text("\n".join(lines) + "\n", encoding="utf-8")

	def __call__(self, *words):
		return Ran([MAILWAL, "-c", self.conf, *words], self.dir)

	def refused(self, rc, said, *words):
		r = self(*words)
		return self.t.ok(r.rc == rc and all(x in r.err for x in said) and not r.out,
				 f"{' '.join(words)}: exit {rc}", r)


def maildir(path, n, first=1):
	for sub in ("cur", "new", "tmp"):
		os.makedirs(os.path.join(path, sub))
	for i in range(first, first + n):
		pathlib.Path(path, "cur", f"m{i}:2,S").write_bytes(
			b"From: bob@example.net\nSubject: number %d\nMessage-ID: <%d@x>\n\nbody %d\n"
			% (i, i, i))


def fill(t, site):
	"""Three messages to ALICE and one to dora."""
	for user in (ALICE, "dora@example.org"):
		maildir(os.path.join(site.dir, "vmail", user), 3 if user == ALICE else 1)
	r = site("import", f"maildir:{site.dir}/vmail/%u")
	t.need(r.rc == 0, "import", r)


def begin(t, site):
	r = site("init")
	t.need(r.rc == 0, "init", r)
	fill(t, site)
