"""servers - configuration text of the private Postfix and Dovecot of a Rig.

Everything they read and write lies in the rig's short run directory (unix socket names are
limited to about 100 bytes, and Postfix takes no path with spaces); only the mail store is
a link into the user's directory. Nothing of the system's configuration or spool is read.
"""

import grp
import os
import pwd

POSTFIX_BIN = "/usr/sbin"
POSTFIX_LIB = "/usr/lib/postfix/sbin"
QUEUE_DIRS = ("active bounce corrupt defer deferred flush hold incoming maildrop pid "
	      "private public saved trace").split()

MASTER_CF = """\
127.0.0.1:{smtp} inet n - n - {procs} smtpd
127.0.0.1:{submission} inet n - n - {procs} smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o syslog_name=postfix/submission
pickup    unix  n       -       n       1       1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {run}/spool
data_directory = {run}/data
maillog_file = {run}/maillog
maillog_file_prefixes = {run}, /dev/stdout
myhostname = mx.{domain}
mydomain = {domain}
myorigin = {domain}
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domains}
virtual_mailbox_maps = texthash:{run}/mailboxes
virtual_alias_maps = texthash:{run}/virtual
virtual_transport = lmtp:unix:{run}/dovecot/lmtp
default_transport = discard:outside
relay_transport = discard:outside
recipient_delimiter = +
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_sasl_type = dovecot
smtpd_sasl_path = {run}/dovecot/sasl
smtpd_sasl_security_options = noanonymous
broken_sasl_auth_clients = no
smtpd_tls_security_level = none
smtpd_forbid_bare_newline = no
smtpd_forbid_unauth_pipelining = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_error_sleep_time = 0
smtputf8_enable = yes
local_header_rewrite_clients =
message_size_limit = 104857600
mailbox_size_limit = 0
virtual_mailbox_limit = 0
lmtp_line_length_limit = 0
enable_long_queue_ids = yes
in_flow_delay = 0
queue_run_delay = 3s
minimal_backoff_time = 3s
maximal_backoff_time = 10s
internal_mail_filter_classes = bounce, notify
notify_classes =
milter_protocol = 6
smtpd_milters = {milters}
non_smtpd_milters = {milters}
{extra}
"""

DOVECOT_CONF = """\
base_dir = {run}/dovecot
state_dir = {run}/dovecot-state
instance_name = mailwal-rig
log_path = {run}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_master_user_separator = *
auth_cache_size = 0
auth_failure_delay = 0
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{run}/store/%d/%n
mail_plugins = {plugins}
mail_fsync = {fsync}
mail_max_userip_connections = 0
mail_privileged_group =
recipient_delimiter = +
default_process_limit = 400
default_client_limit = 4000
passdb {{
  driver = passwd-file
  args = username_format=%u {run}/masters
  master = yes
  result_success = continue
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {run}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {run}/users
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    auto = subscribe
    special_use = \\Sent
  }}
  mailbox Trash {{
    auto = subscribe
    special_use = \\Trash
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
  process_min_avail = 1
  service_count = 0
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service auth {{
  unix_listener sasl {{
    mode = 0666
  }}
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=10G
}}
{extra}
"""


def write(path, text, mode=0o644):
	with open(path, "w", encoding="utf-8") as f:
		f.write(text)
	os.chmod(path, mode)


def last_wins(main_cf):
	"""main.cf (one line a parameter) with each parameter once, the last. Postfix warns of
	an overridden one from every process, and postlogd's own warning to itself can hang
	it for ever when the others' have filled its queue."""
	rows = {}
	for line in main_cf.splitlines():
		if line.strip():
			rows[line.split("=", 1)[0].strip()] = line
	return "\n".join(rows.values()) + "\n"


def postfix_dirs(run):
	"""The queue as `post-install create-missing` would make it."""
	pf, drop = pwd.getpwnam("postfix"), grp.getgrnam("postdrop").gr_gid
	for d in ("postfix", "spool", "data"):
		os.mkdir(f"{run}/{d}", 0o755)
	os.chown(f"{run}/data", pf.pw_uid, pf.pw_gid)
	os.chmod(f"{run}/data", 0o700)
	for d in QUEUE_DIRS:
		path = f"{run}/spool/{d}"
		os.mkdir(path, 0o700)
		os.chown(path, pf.pw_uid, -1)
	os.chown(f"{run}/spool/pid", 0, 0)
	os.chmod(f"{run}/spool/pid", 0o755)
	for d, mode in (("public", 0o2710), ("maildrop", 0o1730)):
		os.chown(f"{run}/spool/{d}", pf.pw_uid, drop)
		os.chmod(f"{run}/spool/{d}", mode)
