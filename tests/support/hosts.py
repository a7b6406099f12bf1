"""Two capture hosts, each a real Postfix with its own mailwald and journal: near takes mail
from outside and hands it to far, which expands aliases and delivers to its Dovecot."""

import mailbox
import rig as rigs
import servers
import smtp

ANNA, BERT, CLEO = (f"{n}@example.test" for n in ("anna", "bert", "cleo"))
USERS = (ANNA, BERT, CLEO)
ALIASES = {"info@example.test": [ANNA, BERT], "all@example.test": ["info@example.test", CLEO],
	   "out@example.test": ["x@outside.test"]}
DEAD = "smtp:[127.0.0.1]:1"


def subject(data):
	return data.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()


def texts(rig):
	"""{user: sorted subjects in all folders}"""
	got = {u: [] for u in USERS}
	for (user, _), v in mailbox.dump(rig, USERS).items():
		got[user] += [subject(s.data) for s in v]
	return {u: sorted(v) for u, v in got.items()}


def post(rig, name, rcpts):
	data = (f"From: w@remote.test\r\nTo: {rcpts[0]}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name}@remote.test>\r\n\r\ntext of {name}\r\n").encode()
	with smtp.Client(rig.smtp_port) as c:
		return c.mail(data, "w@remote.test", rcpts)[0]


class Hosts:
	"""near takes mail from outside and hands it to far, which delivers."""

	def __init__(self, t):
		self.far = rigs.Rig(t.sub("far"), users=USERS, aliases=ALIASES)
		self.far.configure(postfix=f"""\
smtpd_recipient_restrictions = check_recipient_access inline:{{no@example.test=REJECT}}
header_checks = regexp:{{{{/^Subject: afterwards/ REJECT no}}}}
transport_maps = inline:{{ {{hugo@example.test=error:5.2.1 gone}}, {{gina@example.test={DEAD}}} }}""")
		servers.write(f"{self.far.run}/mailboxes", "".join(
			f"{u} x\n" for u in (*USERS, "gina@example.test", "hugo@example.test")))
		self.near = rigs.Rig(t.sub("near"), users=USERS, aliases={})
		self.near.configure(postfix=f"""\
virtual_mailbox_domains =
virtual_alias_maps =
relay_domains = example.test
relay_transport = smtp:[127.0.0.1]:{self.far.smtp_port}
smtp_send_xforward_command = no
transport_maps = inline:{{late@example.test={DEAD}}}""")

	def start(self):
		for rig in (self.far, self.near):
			rig.mailwal("init", rig.journal)
			rig.start_mailwald()
		self.far.start_dovecot()
		for rig in (self.far, self.near):
			rig.start_postfix()
		return self

	def settle(self, near, far):
		for rig, n in ((self.near, near), (self.far, far)):
			rigs.wait_for(f"{n} messages left in the queue", lambda r=rig, k=n:
				      len(r.queue()) == k and all(
					      o["queue_name"] == "deferred" for o in r.queue()))

	def lose(self):
		self.far.end("dovecot")
		self.far.destroy_store()
		self.far.start_dovecot()

	def run(self, *args, first=None):
		first = first or self.near
		other = self.far if first is self.near else self.near
		return first.mailwal("--json", "-c", other.conf, *args)

	def replay(self, *more, first=None, verb=()):
		return self.run("replay", *verb, *self.far.replay_args(*more)[1:], first=first)
