#!/usr/bin/python3
"""Learning scripts (Dovecot's imap_sieve): what is moved into Junk or anywhere else starts them on
the users' own instance, and not on the quiet one that `mailwal setup dovecot` makes, filed by
folder or by the users' scripts."""
# MW_TEST_COST 12

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import mailbox
import rig as rigs
import servers
import stores
import tap
import workload
from replaytool import empty

ANNA = "anna@example.test"
PLUGINS = "/usr/lib/dovecot/modules"
CONF = """
protocol imap {{
  mail_plugins = $mail_plugins imap_sieve
}}
namespace inbox {{
  mailbox Junk {{
    special_use = \\Junk
    auto = subscribe
  }}
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
  sieve_plugins = sieve_imapsieve sieve_extprograms
  sieve_global_extensions = +vnd.dovecot.pipe
  sieve_pipe_bin_dir = {dir}
  imapsieve_mailbox1_name = Junk
  imapsieve_mailbox1_causes = COPY APPEND
  imapsieve_mailbox1_before = file:{dir}/junk.sieve
  imapsieve_mailbox2_name = *
  imapsieve_mailbox2_causes = COPY APPEND
  imapsieve_mailbox2_before = file:{dir}/any.sieve
}}
"""


def configure(rig):
	where = f"{rig.run}/learn"
	os.makedirs(where)
	for name in ("junk", "any"):
		servers.write(f"{where}/{name}.sieve", 'require ["vnd.dovecot.pipe", "copy"];\n'
			      f'pipe :copy "learn" ["{name}"];\n')
	servers.write(f"{where}/learn", f'#!/bin/sh\ncat >/dev/null\necho "$1" >>{where}/log\n', 0o755)
	subprocess.run(["chown", "-R", f"{rigs.MAIL_USER}:", where], check=True)
	with open(f"{rig.run}/dovecot.conf", "a", encoding="utf-8") as f:
		f.write(CONF.format(dir=where))
	return pathlib.Path(where, "log")


def learnt(log):
	"""{word: how often}; forgotten then."""
	words = log.read_text(encoding="ascii").split() if log.exists() else []
	log.unlink(missing_ok=True)
	return {w: words.count(w) for w in words}


def junk(t, rig):
	"""Imported mail that was in Junk."""
	box = f"{rig.run}/old"
	for sub in ("", "/.Junk"):
		for d in ("cur", "new", "tmp"):
			os.makedirs(f"{box}{sub}/{d}")
	for i in range(3):
		servers.write(f"{box}/.Junk/cur/15{i}.x:2,S",
			      f"Subject: junk {i}\nMessage-ID: <j{i}@old.test>\n\nold\n")
	r = rig.mailwal("--json", "import", f"maildir:{box}", "--user", ANNA, "--all-folders")
	t.need(r.rc == 0 and r.summary["imported"] == 3, "three of Junk imported", r)


def main(t):
	for name in ("imap_sieve", "imap_filter_sieve"):
		if not os.path.exists(f"{PLUGINS}/lib95_{name}_plugin.so"):
			t.skip("no dovecot-sieve")
			return
	(sink_port,) = rigs.free_ports(1)
	sink = f"127.0.0.1:{sink_port}"
	rig = rigs.Rig(t.dir, users=(ANNA,), aliases={}, postfix="virtual_transport = discard:")
	log = configure(rig)
	with rig:
		rig.start()
		junk(t, rig)
		jobs = rig.send([workload.Mail(f"m{i}", f"Subject: m{i}\r\nMessage-ID: <m{i}@x>\r\n\r\nx\r\n"
					       .encode(), "w@remote.test", [ANNA], {}, rig.users)
				 for i in range(4)])
		t.need(all(j.code == 250 for j in jobs), "four captured")
		rig.wait_queue()
		r = rig.replay("--all")
		t.ok(r.rc == 0 and learnt(log).get("junk") == 3,
		     "the users' own instance learns three (control)", r)
		port, r = stores.quiet_instance(rig, sink)
		t.need(r.rc == 0 and "imapsieve" not in r.out and "imap_sieve" not in r.out,
		       "the quiet instance", r)
		to = ["--to", f"imap://127.0.0.1:{port}", "--auth-user", rigs.MASTER, "--password-file",
		      rig.password_file]
		for what, more in (("by folder", []), ("by script", ["--sieve", "--sink", sink]),
				   ("into Junk by wish", ["--folder", "Junk"])):
			empty(rig)
			learnt(log)  # of what was emptied
			r = rig.mailwal("--json", "replay", "--all", *to, *more)
			t.ok(r.rc == 0 and r.summary["restored"] == 7, f"quiet instance, {what}: put back", r)
			t.equal(learnt(log), {}, f"quiet instance, {what}: nothing is learnt")
			state = {k[1]: len(v) for k, v in mailbox.dump(rig).items() if v}
			want = {"Junk": 7} if more[:1] == ["--folder"] else {"INBOX": 4, "Junk": 3}
			t.equal(state, want, f"quiet instance, {what}: each in its place")


tap.run(main)
