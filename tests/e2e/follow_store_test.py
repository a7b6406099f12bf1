#!/usr/bin/python3
"""The standby that mailwal follows to is not the one it was: made anew and empty while the
follower was stopped, or beside it; one mailbox of it was replaced; it came back from an older
backup. Each is noticed, and everything is there again, once. What a user deleted in a mailbox
that stayed is not brought back."""
# MW_TEST_COST 30

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import listener
import mailbox
import rig as rigs
import tap
import workload
from follower import Follower, check

DROP = "virtual_transport = discard:\nmessage_drop_headers ="


class Dies(listener.Relay):
	"""To the standby, which goes away when it is asked for the first time what a mailbox is."""

	asked = away = False

	def serve(self, sock):
		if self.away:
			sock.close()
		else:
			super().serve(sock)

	def there(self, near, far):
		while d := near.recv(65536):
			if not self.asked and b"STATUS INBOX (UIDNEXT" in d:
				self.asked = self.away = True
			if self.away:
				return
			far.sendall(d)


def lose(standby, back=None):
	standby.end("dovecot")
	standby.destroy_store()
	if back:
		standby.restore()
	standby.start_dovecot()


def followed(f):
	f.start()
	f.wait("current")
	return f


def stopped(t, main, standby, jobs, done):
	f = followed(Follower(main, standby))
	check(t, standby, done, "the backlog")
	done += main.send(jobs[20:24])
	check(t, standby, done, "and live")
	t.equal(f.end(), 130, "stopped")
	followed(f)
	t.equal([o["reason"] for o in f.kinds("replaced")], [],
		"the same standby is taken for the same")
	f.end()
	lose(standby)
	followed(f)
	check(t, standby, done, "a new, empty standby while the follower was stopped")
	t.ok(len(f.kinds("replaced")) == 1, "which says so", f.lines)
	f.end()
	followed(f)
	t.equal(f.kinds("replaced"), [], "and knows the new one then")
	return f


def dies(t, main, standby, done):
	"""All is put, and the standby goes before it is noted what its mailboxes are."""
	relay = Dies(standby.imap_port)
	f = Follower(main, standby)
	f.argv = [a.replace(f":{standby.imap_port}", f":{relay.port}") for a in f.argv]
	with relay:
		f.start()
		f.wait("away")
		t.ok(relay.asked and not f.kinds("current"), "the standby goes as it was filled", f.lines)
		relay.away = False
		f.wait("current")
		t.ok(len(f.kinds("back")) == 1, "and is told to be current when it is back", f.lines)
		t.equal(f.end(), 130, "stopped")
	check(t, standby, done, "nothing is there twice")


def beside(t, main, standby, jobs, done, f):
	lose(standby)
	done += main.send(jobs[24:26])
	f.wait("replaced")  # two logins at once that make a mailbox may see half of it
	check(t, standby, done, "a new, empty standby while the follower runs")


def one_mailbox(t, main, standby, jobs, done):
	"""Its session is open, and nothing is said by the server but the new UIDVALIDITY."""
	job = next(j for j in jobs[26:] if j.owners)
	user = job.owners[0]
	name, _, domain = user.partition("@")
	shutil.rmtree(f"{standby.store}/{domain}/{name}")
	done += main.send([job])
	jobs.remove(job)
	check(t, standby, done, "one mailbox is made anew")


def older(t, main, standby, jobs, done, f):
	standby.backup()
	done += main.send(jobs[26:34])
	check(t, standby, done, "eight more")
	f.end()
	lose(standby, back=True)
	followed(f)
	t.ok(len(f.kinds("replaced")) == 1, "an older state of the standby is noticed", f.lines)
	check(t, standby, done, "and what it lacks is put there")
	f.end()


def deleted(t, main, standby, jobs, done, f):
	user = next(j.owners[0] for j in done if j.owners)
	c = mailbox.login(standby, user)
	c.select("INBOX")
	c.store("1", "+FLAGS", "(\\Deleted)")
	c.expunge()
	c.logout()
	before = {k: len(v) for k, v in mailbox.dump(standby).items()}
	followed(f)
	f.end()
	after = {k: len(v) for k, v in mailbox.dump(standby).items()}
	t.equal(after, before, "what a user deletes there is not brought back")


def files(t, main, done):
	"""A Maildir for each, in place of a server."""
	root = f"{main.run}/boxes"
	f = Follower(main, main)
	f.argv = main.mailwal_argv("--json", "-v", "follow", "--create", "--to",
				   f"maildir:{root}/%n")
	want = sum(len(j.owners) + bool(j.auth) for j in done)

	def count():
		return sum(len(n) for d, _, n in os.walk(root) if os.path.basename(d) == "new")
	followed(f)
	t.equal((f.end(), count()), (130, want), "Maildirs are filled")
	followed(f)
	t.equal((f.kinds("replaced"), f.end()), ([], 130), "and known again")
	shutil.rmtree(root)
	followed(f)
	t.equal((len(f.kinds("replaced")), f.end(), count()), (1, 130, want),
		"Maildirs that were made anew are filled again")


def refused(t, main, standby, done):
	"""The first look at the target fails for all of its mail: told as failed, not for ever."""
	user = next(j.owners[0] for j in done if j.owners)
	name, _, domain = user.partition("@")
	box = f"{standby.store}/{domain}/{name}"
	mode = os.stat(box).st_mode & 0o777
	f = Follower(main, standby)
	f.argv += ["--user", user]
	os.chmod(box, 0)
	f.start()
	f.wait("failed")
	f.wait("current")
	os.chmod(box, mode)
	t.equal(f.end(), 130, "a mailbox that is refused is told, and others' mail is waited for")
	t.ok(len(f.kinds("current")) == 1, "once", f.lines)


def one_place(t):
	"""Two mailboxes are one directory, since one domain's is a link to the other's."""
	users = ("anna@example.test", "anna@second.test")
	with rigs.Rig(t.sub("one"), users=users, postfix=DROP) as rig:
		root = f"{rig.run}/boxes"
		os.makedirs(f"{root}/example.test")
		os.symlink("example.test", f"{root}/second.test")
		box = f"{root}/example.test/anna"
		rig.start()

		def send(name, *rcpts):
			j = workload.Mail(name, f"Subject: {name}\r\n\r\ntext\r\n".encode(), "w@remote.test",
					  list(rcpts), {}, users)
			t.need(rig.send([j])[0].code == 250, name)

		def there():
			return len(os.listdir(f"{box}/new"))
		send("first", users[0])
		send("second", users[1])
		f = Follower(rig, rig)
		f.argv = rig.mailwal_argv("--json", "-v", "follow", "--create", "--to",
					  f"maildir:{root}/%d/%n")
		followed(f)
		t.equal((f.end(), there()), (130, 2), "one directory has the mail to both names")
		r = rig.mailwal("erase", "--user", users[0], "--subject", "first", "--yes")
		t.ok(r.rc == 0, "the first is erased", r)
		shutil.rmtree(box)
		followed(f)
		t.equal(os.path.exists(box) and there(), 1,
			"made anew it is filled again, though another name comes first now")
		send("both", *users)
		send("last", users[1])
		rigs.wait_for("the last one", lambda: there() >= 3, alive=f.p)
		t.equal((f.end(), there()), (130, 3), "live mail to both is put there once")


def main_test(t):
	one_place(t)
	messages, _ = workload.bulk(60, seed=12, largest=30000)
	with rigs.Rig(t.sub("main"), postfix=DROP) as main, \
	     rigs.Rig(t.sub("standby"), mailwald=False) as standby:
		main.start()
		standby.start_dovecot()
		jobs = workload.jobs(messages, main.users, main.aliases, 5)
		done = main.send(jobs[:20])
		t.need(all(j.code == 250 for j in done), "20 messages captured before it starts")
		dies(t, main, standby, done)
		f = stopped(t, main, standby, jobs, done)
		beside(t, main, standby, jobs, done, f)
		one_mailbox(t, main, standby, jobs, done)
		older(t, main, standby, jobs, done, f)
		deleted(t, main, standby, jobs, done, f)
		refused(t, main, standby, done)
		files(t, main, done)


tap.run(main_test)
