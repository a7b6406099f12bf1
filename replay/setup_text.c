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
		mw_buf_printf(out, "inet:%s@%.*s", colon + 1,
		              (int)(colon - strchr(listen, ':') - 1),
		              strchr(listen, ':') + 1);
	else
		mw_buf_puts(out, listen);
}

void
mw_setup_sendmail(const struct mw_conf *conf, struct mw_buf *out)
{
	const char *flag = conf->on_failure == MW_ON_FAILURE_ACCEPT ? "" : " F=T,";
	const char *listen = conf->milter_listen.n ? conf->milter_listen.v[0] : "";
	mw_buf_puts(out,
	            "dnl In sendmail.mc, after the other filters; then make, restart.\n"
	            "INPUT_MAIL_FILTER(`mailwal', `S=");
	put_sendmail_socket(listen, out);
	mw_buf_printf(out, ",%s T=C:10s;S:30s;R:60s;E:5m')dnl\n", flag);
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

void
mw_setup_dovecot(const struct mw_conf *conf, struct mw_buf *out)
{
	const char *delimiter =
	    conf->recipient_delimiter ? conf->recipient_delimiter : "";
	mw_buf_puts(
	    out,
	    "# A master user that may open every mailbox, so that replay needs no\n"
	    "# user's password. /etc/dovecot/conf.d/90-mailwal.conf:\n"
	    "auth_master_user_separator = *\n"
	    "passdb {\n"
	    "  driver = passwd-file\n"
	    "  args = /etc/dovecot/mailwal-master\n"
	    "  master = yes\n"
	    "  # Asks the other passdbs whether the user is known. Debian's default,\n"
	    "  # PAM, cannot tell: then take this line out, and the userdb decides.\n"
	    "  result_success = continue\n"
	    "}\n");
	if (delimiter[0])
		mw_buf_printf(
		    out,
		    "# As in mailwal.conf (and Postfix): alice%ctag is alice's.\n"
		    "recipient_delimiter = %s\n",
		    delimiter[0], delimiter);
	mw_buf_puts(
	    out,
	    "# Make the password file (mode 0640, root:dovecot), one line:\n"
	    "#   mailwal:{hash that 'doveadm pw' prints}::::::\n"
	    "# Then: systemctl reload dovecot\n"
	    "# Replay with: mailwal replay … --to imap://127.0.0.1 --auth-user mailwal "
	    "\\\n#   --password-file FILE [--auth-style separator]\n");
}
