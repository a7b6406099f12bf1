#!/usr/bin/python3
"""contrib/backup-hooks: a backup between its marks, that ends well, badly, or by a signal;
with real Dovecot a whole night: backup, more mail, loss, restore, replay since the mark."""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import smtp
import stores
import tap

HOOKS = tap.ROOT / "contrib" / "backup-hooks"
ANNA, BERT = "anna@example.test", "bert@example.test"


class Hooks:
	def __init__(self, t, rig):
		self.rig, self.bin = rig, t.sub("bin")
		servers.write(f"{self.bin}/mailwal", "#!/bin/sh\nexec "
			      f"'{rig.mailwal_bin}' -c '{rig.conf}' \"$@\"\n", 0o755)
		self.env = dict(os.environ, PATH=f"{self.bin}:{HOOKS}:{os.environ['PATH']}",
				MAILWAL_LOCK_DIR=t.dir, DOVEADM=f"doveadm -c {rig.run}/dovecot.conf")

	def start(self, *args, **env):
		return subprocess.Popen(["mailwal-backup", *args], env=dict(self.env, **env),
					stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

	def run(self, *args, **env):
		p = self.start(*args, **env)
		out, err = p.communicate(timeout=tap.PATIENCE)
		return p.returncode, out + err

	def marks(self, name):
		"""(state, ...) of all marks with that name, oldest first."""
		r = self.rig.mailwal("--json", "mark", "--list")
		return [o["state"] for o in r.lines if o.get("name") == name]


def ends(t, h):
	"""Every way in which a command can end."""
	status, said = h.run("good", "true")
	t.ok(status == 0 and h.marks("good")[-1:] == ["complete"], "a backup that ends well", said)
	status, said = h.run("bad", "--", "sh", "-c", "exit 7")
	t.ok(status == 7 and h.marks("bad")[-1:] == ["failed"], "one that fails: its status", said)
	status, said = h.run("rsync", "--ok", "24", "sh", "-c", "exit 24")
	t.ok(status == 0 and h.marks("rsync")[-1:] == ["complete"], "--ok 24: status 24 is well",
	     said)
	status, said = h.run("none", "/no/such/program")
	t.ok(status == 127 and h.marks("none")[-1:] == ["failed"], "no such program: failed", said)
	p = h.start("cut", "sleep", "600")
	rigs.wait_for("its start", lambda: h.marks("cut") and stores.children(p.pid, "sleep"))
	status, said = h.run("cut", "true")
	t.ok(status == 75 and len(h.marks("cut")) == 1, "a second run at once is refused", said)
	p.send_signal(signal.SIGTERM)
	p.communicate(timeout=tap.PATIENCE)
	t.ok(p.returncode == 143 and h.marks("cut")[-1:] == ["failed"],
	     "ended by SIGTERM: marked as failed", h.marks("cut"))
	p = h.start("power", "sleep", "600")
	rigs.wait_for("its start", lambda: h.marks("power"))
	rigs.wait_for("the sleep", lambda: stores.children(p.pid, "sleep"))
	(child,) = stores.children(p.pid, "sleep")
	p.kill()
	p.wait(tap.PATIENCE)
	os.kill(child, signal.SIGKILL)
	t.equal(h.marks("power"), ["running"], "ended by SIGKILL: a start without an end")
	status, said = h.run("power", "true")
	t.ok(status == 0 and h.marks("power") == ["failed", "complete"],
	     "the next night: that one failed, this one is complete", f"{h.marks('power')} {said}")
	status, said = h.run("nowhere", "sh", "-c", "echo copied", MAILWAL="/no/such/mailwal")
	t.ok(status == 127 and "copied" in said and "will not count" in said,
	     "without mailwal the backup is made all the same, and the status tells", said)
	for bad in (["x"], ["-n", "true"], ["a/b", "true"], ["x", "--ok"], []):
		status, said = h.run(*bad)
		t.ok(status == 64, f"usage: {' '.join(bad) or 'nothing'}", said)


def post(rig, name, rcpt):
	with smtp.Client(rig.smtp_port) as c:
		got = c.mail(f"Subject: {name}\r\nMessage-ID: <{name}@remote.test>\r\n\r\nx\r\n".encode(),
			     "w@remote.test", [rcpt])
		c.quit()
	return got[0]


def subjects(rig):
	return {u: sorted(s.data.split(b"Subject: ")[1].split(b"\r\n")[0].decode()
			  for s in mailbox.dump(rig, [u])[u, "INBOX"]) for u in rig.users}


def night(t, rig, h):
	"""doveadm-backup of a real Dovecot, more mail, and everything lost."""
	to = t.sub("copies")
	os.chmod(t.dir, 0o755)
	os.chown(to, 65534, -1)
	for i in range(3):
		post(rig, f"old{i}", ANNA)
	rig.wait_queue()
	status, said = h.run("nightly", "--", "doveadm-backup", to)
	t.ok(status == 0 and h.marks("nightly") == ["complete"], "doveadm-backup of every user",
	     said)
	post(rig, "new", ANNA)
	post(rig, "new2", BERT)
	rig.wait_queue()
	want = subjects(rig)
	t.equal(want, {ANNA: ["new", "old0", "old1", "old2"], BERT: ["new2"]}, "before the loss")
	rig.end("dovecot")
	rig.destroy_store()
	for user in rig.users:
		local, domain = user.split("@")
		os.makedirs(f"{rig.store}/{domain}", exist_ok=True)
		subprocess.run(["cp", "-a", f"{to}/{user}", f"{rig.store}/{domain}/{local}"],
			       check=True)
		os.chown(f"{rig.store}/{domain}", 65534, -1)
	rig.start_dovecot()
	t.equal(subjects(rig), {ANNA: ["old0", "old1", "old2"], BERT: []}, "the backup restored")
	r = rig.replay("--since-mark", "nightly")
	t.ok(r.rc == 0 and subjects(rig) == want, "and the rest replayed since its mark", r)
	status, said = h.run("nightly", "--", "doveadm-backup", "/dev/null/x")
	t.ok(status == 1 and h.marks("nightly") == ["complete", "failed"] and ANNA in said,
	     "a backup that has no place: failed, and each user named", said)


def snapshots(t, h):
	"""mail-snapshot against stand-ins that write down what they are asked."""
	log = f"{t.dir}/calls"
	for name in ("zfs", "btrfs", "ssh"):
		servers.write(f"{h.bin}/{name}", f"#!/bin/sh\necho {name} \"$@\" >>'{log}'\n"
			      f"[ {name} = ssh ] && cat >/dev/null\n"
			      "case \"$* \" in *\"$FAIL \"*) exit 1 ;; 'list '*)\n"
			      "printf 'tank/mail@other\\ntank/mail@mailwal-1\\ntank/mail@mailwal-2\\n'\n"
			      "printf 'tank/mail@mailwal-3\\n' ;; esac\nexit 0\n", 0o755)
	status, said = h.run("zfs", "--", "mail-snapshot", "zfs", "tank/mail", "vault", "b/mail",
			     FAIL="nothing")
	with open(log, encoding="utf-8") as f:
		calls = f.read().splitlines()
	order = [next((i for i, c in enumerate(calls) if c.startswith(w)), -1) for w in (
		"zfs snapshot tank/mail@mailwal-", "zfs send -i @mailwal-3 tank/mail@mailwal-",
		"zfs destroy tank/mail@mailwal-1")]
	t.ok(status == 0 and -1 not in order and order == sorted(order)
	     and "ssh vault zfs receive -F 'b/mail'" in calls and h.marks("zfs") == ["complete"],
	     "zfs: snapshot, increment from the last one, old ones go", f"{said}\n{calls}")
	t.ok(not any("other" in c for c in calls if "destroy" in c), "but only our own", calls)
	for what, fail in (("sender", "send -i"), ("receiver", "zfs receive -F 'b/mail'")):
		servers.write(log, "")
		# the sender's last word is the snapshot's name, which nobody knows before
		if what == "sender":
			servers.write(f"{h.bin}/zfs", "#!/bin/sh\ncase $1 in send) exit 1 ;; list) "
				      "echo tank/mail@mailwal-1 ;; esac\n", 0o755)
		else:
			servers.write(f"{h.bin}/zfs", "#!/bin/sh\ncase $1 in list) "
				      "echo tank/mail@mailwal-1 ;; esac\n", 0o755)
		status, said = h.run(f"zfs-{what}", "--", "mail-snapshot", "zfs", "tank/mail",
				     "vault", "b/mail", FAIL=fail)
		t.ok(status == 1 and h.marks(f"zfs-{what}") == ["failed"] and f"the {what}" in said,
		     f"zfs: the {what} fails: marked as failed", said)


def main(t):
	with rigs.Rig(t.sub("rig"), users=(ANNA, BERT), aliases={}) as rig:
		rig.start()
		h = Hooks(t, rig)
		ends(t, h)
		night(t, rig, h)
		snapshots(t, h)


tap.run(main)
