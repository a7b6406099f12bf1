/* setup_text.c - settings for servers that setup does not change itself. */
#include "replay/setup.h"

#include <string.h>

/* A listen address in the words of Sendmail: local:PATH or inet:PORT@HOST. */
static void
put_sendmail_socket(const char *listen, struct mw_buf *out)
{
	const char *colon = strrchr(listen, ':');
	if (strncmp(listen, "unix:", 5) == 0)
		mw_buf_printf(out, "local:%s", listen + 5);
	else if (strncmp(listen, "inet", 4) == 0 && !strchr(listen, '@') && colon &&
	         colon > strchr(listen, ':'))
		mw_buf_printf(out, "%s:%s@%.*s",
		              strncmp(listen, "inet6:", 6) == 0 ? "inet6" : "inet",
		              colon + 1, (int)(colon - strchr(listen, ':') - 1),
		              strchr(listen, ':') + 1);
	else
		mw_buf_puts(out, listen);
}

void
mw_sendmail_line(const struct mw_conf *conf, struct mw_buf *out)
{
	const char *flag = conf->on_failure == MW_ON_FAILURE_ACCEPT ? "" : " F=T,";
	const char *listen = conf->milter_listen.n ? conf->milter_listen.v[0] : "";
	mw_buf_puts(out, "INPUT_MAIL_FILTER(`mailwal', `S=");
	put_sendmail_socket(listen, out);
	mw_buf_printf(out, ",%s T=C:10s;S:30s;R:60s;E:5m')dnl\n", flag);
}

void
mw_setup_sendmail(const struct mw_conf *conf, struct mw_buf *out)
{
	mw_buf_puts(out,
	            "dnl In sendmail.mc, after the other filters; then make, restart.\n"
	            "dnl (mailwal setup sendmail --apply does it.)\n");
	mw_sendmail_line(conf, out);
	mw_buf_puts(
	    out,
	    "dnl F=T: while mailwald is down, senders are told to try again. Without F=\n"
	    "dnl mail passes unjournaled.\n"
	    "dnl E: is the most that a whole end of message may take.\n"
	    "dnl Macros need no setting: mailwald asks for what it records.\n"
	    "dnl Sendmail opens a socket only below directories that others cannot "
	    "write\n"
	    "dnl to. Then: mailwal setup sendmail --check\n");
}

int
mw_setup_raise(const char *config, struct mw_buf *out, struct mw_err *err)
{
	if (config && strpbrk(config, "'\n"))
		return mw_fail(err, MW_EUSAGE,
		               "--dovecot-config: a quote or a newline in a path");
	mw_buf_puts(
	    out,
	    "#!/bin/sh\n"
	    "# After a backup was restored into Dovecot, as root, before users come "
	    "back:\n"
	    "# the next UID and MODSEQ of every folder go up by so many, so that "
	    "clients\n"
	    "# that had seen newer ones than the backup has see the mail that comes "
	    "now.\n"
	    "# UIDVALIDITY stays. Prints each folder with its new numbers. Other users'\n"
	    "# and public folders are left out.\n"
	    "gap=${1:-100000}\n"
	    "tab=$(printf '\\t')\n");
	mw_buf_printf(out, "doveadm() { command doveadm%s%s%s \"$@\"; }\n",
	              config ? " -c '" : "", config ? config : "", config ? "'" : "");
	mw_buf_puts(
	    out,
	    "list=$(doveadm -f tab mailbox status -A 'uidnext highestmodseq' INBOX '*') "
	    "||\n"
	    "\techo 'not every mailbox could be read' >&2\n"
	    "printf '%s\\n' \"$list\" | tail -n +2 | sort -u | {\n"
	    "\tbad=0\n"
	    "\twhile IFS=$tab read -r user folder next modseq; do\n"
	    "\t\tif doveadm mailbox update -u \"$user\" \\\n"
	    "\t\t\t--min-next-uid $((next + gap)) \\\n"
	    "\t\t\t--min-highest-modseq $((modseq + gap)) \"$folder\" </dev/null\n"
	    "\t\tthen\n"
	    "\t\t\tprintf '%s\\t%s\\t%s\\t%s\\n' \"$user\" \"$folder\" \\\n"
	    "\t\t\t\t$((next + gap)) $((modseq + gap))\n"
	    "\t\telse\n"
	    "\t\t\techo \"$user: $folder: not raised\" >&2\n"
	    "\t\t\tbad=1\n"
	    "\t\tfi\n"
	    "\tdone\n"
	    "\texit $bad\n"
	    "}\n");
	return mw_buf_ok(out) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}
