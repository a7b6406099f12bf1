#!/usr/bin/python3
"""setup postfix --check, and real Postfix beside it: rows with DISCARD in the tables of
headers, bodies and access(5), of each kind of table, for all services or one. Such mail is
answered with 250 and has no record; the check names the rows, and only these."""
# MW_TEST_COST 8

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import rig as rigs
import servers
import smtp
import tap

ANNA = "anna@example.test"
BAIT, PLAIN = "bait@remote.test", "w@remote.test"  # senders

# a service of its own for each: (setting, what of mail from BAIT the check must name or None)
WAYS = {
	"regexp headers": ("header_checks = regexp:{run}/headers", "/^X-Bait:/"),
	"inline regexp": ("header_checks = regexp:{{{{/^X-Bait:/ discard we know}}}}", "/^X-Bait:/"),
	"harmless headers": ("header_checks = regexp:{run}/harmless", None),
	"body": ("body_checks = regexp:{run}/body", "/^bait/"),
	"texthash": ("smtpd_sender_restrictions = check_sender_access texthash:{run}/access",
		     "bait@remote.test"),
	"hash": ("smtpd_recipient_restrictions = permit_sasl_authenticated, "
		 "check_sender_access hash:{run}/access, reject_unauth_destination", "bait@remote.test"),
	"inline": ("smtpd_data_restrictions = check_sender_access inline:{{{{bait@remote.test=DISCARD it}}}}",
		   "bait@remote.test"),
	"end of data": ("smtpd_end_of_data_restrictions = check_sender_access texthash:{run}/access",
			"bait@remote.test"),
	"second table": ("smtpd_client_restrictions = check_client_access cidr:{{{{10.0.0.0/8 DISCARD}}}} "
			 "check_sender_access texthash:{run}/harmless_access", None),
}


def write_tables(rig):
	servers.write(f"{rig.run}/headers", "# what\nif /^X-/\n/^X-Bait:/\n  DISCARD\n/^X-Other:/ HOLD\nendif\n")
	servers.write(f"{rig.run}/harmless", "/^X-Bait:/ WARN DISCARD would be too much\n# /x/ DISCARD\n")
	servers.write(f"{rig.run}/body", "/^bait/ DISCARD\n")
	servers.write(f"{rig.run}/access", "bait@remote.test DISCARD\nother@remote.test REJECT\n")
	servers.write(f"{rig.run}/harmless_access", "bait@remote.test OK\n")
	subprocess.run([f"{servers.POSTFIX_BIN}/postmap", "-c", f"{rig.run}/postfix",
			f"hash:{rig.run}/access"], check=True, timeout=tap.PATIENCE)


def post(port, sender, mark):
	data = (f"From: {sender}\r\nTo: {ANNA}\r\nSubject: {mark}\r\n"
		f"{'X-Bait: yes' if sender == BAIT else 'X-Plain: yes'}\r\n\r\n"
		f"{'bait' if sender == BAIT else 'text'}\r\n")
	with smtp.Client(port) as c:
		return c.mail(data.encode(), sender, [ANNA])


def holes(rig):
	r = rig.mailwal("--json", "setup", "postfix", "--check", "--postfix-config",
			f"{rig.run}/postfix")
	return r, [o for o in r.lines if o.get("name") == "discard"]


def main(t):
	rig = rigs.Rig(t.sub("rig"), users=(ANNA,), postfix="virtual_transport = discard:")
	ports = dict(zip(WAYS, rigs.free_ports(len(WAYS))))
	# cleanup(8) reads header_checks: a service that sets them has a cleanup of its own
	lines = ""
	for i, (name, (setting, _)) in enumerate(WAYS.items()):
		setting = setting.format(run=rig.run)
		own = setting.startswith(("header", "body"))
		lines += f"127.0.0.1:{ports[name]} inet n - n - - smtpd\n"
		if own:
			lines += (f"  -o cleanup_service_name=clean{i}\n"
				  f"clean{i} unix n - n - 0 cleanup\n")
		lines += f"  -o {{ {setting} }}\n"
	rig.configure(master=lines)
	write_tables(rig)
	with rig:
		rig.start()
		last = list(WAYS)[-1]
		rigs.wait_for("the last service", lambda: rigs.connects(ports[last]))
		for n in WAYS:
			for sender in (BAIT, PLAIN):
				reply = post(ports[n], sender, f"{n} {sender}")
				t.equal(reply[0], 250, f"{n}: Postfix says 250 to {sender}")
		kept = {(o["subject"]) for o in rig.journaled()}
		r, said = holes(rig)
		for i, (n, (setting, key)) in enumerate(WAYS.items()):
			t.ok(f"{n} {PLAIN}" in kept, f"{n}: other mail has a record", sorted(kept))
			t.equal(f"{n} {BAIT}" in kept, key is None, f"{n}: bait has one or not")
			where = f"clean{i}/" if setting.startswith(("header", "body")) else f":{ports[n]}/"
			got = [o for o in said if where in o["text"]]
			want = 1 if key or n == "second table" else 0
			t.ok(len(got) == want and all(o["message_type"] == "hole" and
			     (key or "10.0.0.0/8") in o["text"] for o in got),
			     f"{n}: the check names the row, and nothing else", got)
		t.equal(r.rc, 1, "exit 1")
		t.equal(len(said), sum(bool(w[1]) for w in WAYS.values()) + 1, "nothing else is named")
		rig.configure(postfix="header_checks = regexp:/no/such/table\n")
		r, said = holes(rig)
		t.ok(any(o["message_type"] == "note" and "/no/such/table" in o["text"] for o in said),
		     "a table that cannot be read is noted", said)

tap.run(main)
