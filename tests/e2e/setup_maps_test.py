#!/usr/bin/python3
"""setup postfix --check, and real Postfix beside it: smtpd_milter_maps of each kind of table,
read as Postfix reads it, with the clients named that it sends past the journal; the forms in
which a milter may be written; and where ours stands among others."""
# MW_TEST_COST 15

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import servers
import smtp
import tap
from witness import Witness

ANNA = "anna@example.test"
HERE, THERE = "127.0.0.1", "127.0.0.2"  # two clients

# name: (table, clients that get past us, what the check says of it: (name, words) of holes)
MAPS = {
	"inline": ("inline:{{{there}=DISABLE}}", {THERE}, [("smtpd_milter_maps", "{there} DISABLE")]),
	"static": ("static:DISABLE", {HERE, THERE}, [("service", "static:DISABLE")]),
	"static list": ("static:{{ {{ {ours}, default_action=accept }} }}", set(),
			[("default_action", "accept")]),
	"cidr": ("cidr:{run}/cidr", {THERE}, [("smtpd_milter_maps", "{there} disable")]),
	"cidr here": ("cidr:{{{{{here}/32 {{ {ours}, protocol=6 }}}}, {{127.0.0.0/8 {other}}}}}",
		      {THERE}, [("smtpd_milter_maps", "127.0.0.0/8 milters without mailwald")]),
	"texthash": ("texthash:{run}/texthash", {THERE}, [("smtpd_milter_maps", "{there} DISABLE")]),
	"hash": ("hash:{run}/hash", {THERE}, [("smtpd_milter_maps", "{there} DISABLE")]),
	"regexp": ("regexp:{run}/regexp", {THERE}, [("smtpd_milter_maps", "/2$/ DISABLE")]),
	"two": ("inline:{{{there}=DISABLE}}, static:{ours}", {THERE},
		[("smtpd_milter_maps", "{there} DISABLE")]),
	"first": ("static:{ours}, static:DISABLE", set(), []),
	"good": ("inline:{{ {{ {there} = {other}, {ours} }} }}", set(), []),
	"union": ("unionmap:{{static:{other},static:{ours}}}", set(),
		  [("smtpd_milter_maps", "cannot be looked through")]),
}
# the forms of an entry; which of them are holes
FORMS = {
	"blanks": ("{{ {ours} connect_timeout=10s default_action=accept }}", "default_action"),
	"braces": ("{{ {ours}, {{ default_action = accept }} }}", "default_action"),
	"plain": ("{ours}", None),
	"tempfail": ("{{ {ours},default_action=tempfail,protocol=6 }},", None),
	"before": ("{other}, {ours}", None),
	"behind": ("{ours}, {other}", None),
}


def write_tables(rig, ours):
	servers.write(f"{rig.run}/cidr", "# who\n\nif 127.0.0.0/8\n127.0.0.2\n  disable\n"
		      f"127.0.0.1 {{ {ours},\n# a comment between\n  protocol=6 }}\nendif\n")
	servers.write(f"{rig.run}/texthash", f"# who\n{THERE}   DISABLE\n")
	servers.write(f"{rig.run}/hash", f"{THERE} DISABLE\n{HERE} {ours}\n")
	servers.write(f"{rig.run}/regexp", f"if /^127/\n/2$/ DISABLE\n!/2$/ {ours}\nendif\n")
	subprocess.run([f"{servers.POSTFIX_BIN}/postmap", "-c", f"{rig.run}/postfix",
			f"hash:{rig.run}/hash"], check=True, timeout=tap.PATIENCE)


def post(port, name, source):
	data = (f"From: w@remote.test\r\nTo: {ANNA}\r\nSubject: {name}\r\n"
		f"Message-ID: <{name.replace(' ', '.')}.{source}@remote.test>\r\n\r\ntext\r\n")
	with smtp.Client(port, source=source) as c:
		return smtp.queue_id(c.mail(data.encode(), "w@remote.test", [ANNA]))


def main(t):
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,), postfix="virtual_transport = discard:")
	other = Witness(f"{rig.run}/other.sock")
	words = {"run": rig.run, "here": HERE, "there": THERE, "ours": f"unix:{rig.milter_sock}",
		 "other": other.postfix}
	ways = {n: f"smtpd_milter_maps = {v[0].format(**words)}" for n, v in MAPS.items()}
	ways |= {n: f"smtpd_milters = {v[0].format(**words)}" for n, v in FORMS.items()}
	ways["by way"] = "by_way ="
	ports = dict(zip(ways, rigs.free_ports(len(ways))))
	rig.configure(postfix=f"ours = {{ unix:{rig.milter_sock}, default_action=tempfail }}\n"
			      "by_way = $ours\nsmtpd_milters = ${by_way}", master="".join(f"127.0.0.1:{ports[n]} inet n - n - - smtpd\n  -o {{ {o} }}\n"
				     for n, o in ways.items()))
	write_tables(rig, words["ours"])
	with rig:
		other.start()
		rig.start()
		rigs.wait_for("the last service", lambda: rigs.connects(ports["by way"]))
		sent = {(n, c): post(ports[n], n, c) for n in ways for c in (HERE, THERE)}
		t.ok(all(sent.values()), "Postfix takes all of it", sent)
		journaled = {o["queue_id"] for o in rig.journaled()}
		r = rig.mailwal("--json", "setup", "postfix", "--check", "--postfix-config",
				f"{rig.run}/postfix")
		said = {n: [o for o in r.lines if f":{ports[n]}/inet" in o.get("text", "")] for n in ways}
		for n, (_, past, want) in MAPS.items():
			t.equal({c for c in (HERE, THERE) if sent[n, c] not in journaled}, past,
				f"{n}: the clients that get past us")
			got = [o for o in said[n] if o["message_type"] == "hole"]
			t.ok(len(got) == len(want) and all(
				g["name"] == name and all(w.lower() in g["text"].lower() for w in
							  text.format(**words).split(" "))
				for g, (name, text) in zip(got, want)),
			     f"{n}: and the check says so", (got, want))
		t.ok(any(o["message_type"] == "note" and o["name"] == "smtpd_milter_maps"
			 for o in said["good"]), "a table that names us each time is noted", said["good"])
		for n, (_, hole) in FORMS.items():
			t.ok(all(sent[n, c] in journaled for c in (HERE, THERE)), f"{n}: journaled")
			t.equal([o["name"] for o in said[n] if o["message_type"] == "hole"],
				[hole] if hole else [], f"{n}: holes")
		for n in ("before", "behind"):
			got = [o["text"] for o in said[n] if o["name"] == "position"]
			word = "before mailwald" if n == "before" else "after mailwald"
			t.ok(len(got) == 1 and word in got[0] and other.path in got[0],
			     f"another milter {n} ours is named", said[n])
		t.ok(not any(sent["by way", c] in journaled for c in (HERE, THERE))
		     and [o["name"] for o in said["by way"]] == ["service"],
		     "a setting that main.cf's list refers to, emptied for a service: a hole", said["by way"])
		t.ok(r.rc == 1, "exit 1", r)
		other.stop()


tap.run(main)
