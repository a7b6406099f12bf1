/* setup_quiet.c - the configuration of a Dovecot instance that sends nothing out, made of
 * the running one's: same users, same store, same scripts, one loopback port. */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Blocks at top level that say how mail is stored and who may read it; all others serve
 * clients or deliver, or open sockets of the running instance. */
static bool
keep_block(struct mw_str name)
{
	static const char *const keep[] = {"passdb", "userdb", "namespace", "plugin",
	                                   "dict"};
	for (size_t i = 0; i < MW_COUNT(keep); i++)
		if (mw_str_eq(name, mw_strz(keep[i])))
			return true;
	return false;
}

static bool
starts_with_one_of(struct mw_str name, const char *const *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (mw_str_starts(name, mw_strz(v[i])))
			return true;
	return false;
}

/* Settings at top level that must not be shared, or that the end of the file makes. */
static bool
keep_setting(struct mw_str name)
{
	static const char *const drop[] = {"base_dir",
	                                   "state_dir",
	                                   "instance_name",
	                                   "protocols",
	                                   "listen",
	                                   "ssl",
	                                   "submission_",
	                                   "sendmail_path",
	                                   "mail_plugins",
	                                   "imap_",
	                                   "lmtp_",
	                                   "lda_",
	                                   "login_",
	                                   "stats_",
	                                   "shutdown_",
	                                   "replication",
	                                   "doveadm_",
	                                   "haproxy_",
	                                   "disable_plaintext_auth"};
	return !starts_with_one_of(name, drop, MW_COUNT(drop));
}

/* Settings of plugins that act when mail arrives, or let a script start programs. */
static bool
keep_plugin_setting(struct mw_str name)
{
	static const char *const drop[] = {
	    "imapsieve",    "sieve_before",  "sieve_after",       "sieve_plugins",
	    "sieve_pipe",   "sieve_execute", "sieve_filter",      "sieve_extensions",
	    "sieve_global", "fts",           "push_notification", "mail_log",
	    "lazy_expunge", "last_login",    "mail_replica",      "replication"};
	return !starts_with_one_of(name, drop, MW_COUNT(drop));
}

static struct mw_str
first_word(struct mw_str line)
{
	size_t n = 0;
	while (n < line.n && !isspace((unsigned char)line.p[n]) && line.p[n] != '=')
		n++;
	return mw_str(line.p, n);
}

/* Of the running instance's plugins those that concern the store itself. */
static void
put_plugins(struct mw_str value, struct mw_buf *out)
{
	static const char *const keep[] = {"quota",        "acl",
	                                   "zlib",         "mail_crypt",
	                                   "listescape",   "mailbox_alias",
	                                   "virtual",      "charset_alias",
	                                   "mail_compress"};
	struct mw_str word, rest = mw_str_trim(value);
	mw_buf_puts(out, "mail_plugins =");
	while (rest.n) {
		if (!mw_str_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest.n = 0;
		}
		for (size_t i = 0; i < MW_COUNT(keep); i++)
			if (mw_str_eq(word, mw_strz(keep[i]))) {
				mw_buf_putc(out, ' ');
				mw_buf_putstr(out, word);
			}
	}
	mw_buf_putc(out, '\n');
}

struct filter {
	unsigned depth;
	bool keep, plugin; /* of the block at top level */
	struct mw_str plugins;
};

static void
take_line(struct filter *f, struct mw_str whole, struct mw_buf *out)
{
	struct mw_str line = mw_str_trim(whole), name = first_word(line), left;
	if (!line.n || line.p[0] == '#')
		return;
	bool open = line.p[line.n - 1] == '{', close = mw_str_eq(line, MW_STR("}"));
	if (f->depth == 0 && open) {
		f->keep = keep_block(name);
		f->plugin = mw_str_eq(name, MW_STR("plugin"));
	}
	bool keep = f->depth || open ? f->keep : keep_setting(name);
	if (f->depth == 1 && f->plugin && !open && !close)
		keep = keep_plugin_setting(name);
	if (!f->depth && !open && mw_str_eq(name, MW_STR("mail_plugins")) &&
	    mw_str_cut(line, '=', &left, &f->plugins))
		keep = false;
	if (memmem(line.p, line.n, "# hidden", 8))
		keep = false;
	if (keep) {
		mw_buf_putstr(out, whole);
		mw_buf_putc(out, '\n');
	}
	if (open)
		f->depth++;
	else if (close && f->depth)
		f->depth--;
}

int
mw_setup_quiet(const struct mw_quiet *q, struct mw_buf *out, struct mw_err *err)
{
	MW_BUF_AUTO now = {0};
	char program[] = "doveconf", all[] = "-n", c[] = "-c";
	char *argv[] = {program, all, q->config ? c : NULL, q->config, NULL};
	struct mw_str line, rest;
	struct filter f = {0};
	int r = mw_setup_run(argv, &now, err);
	if (r)
		return r;
	mw_buf_printf(
	    out,
	    "# A Dovecot instance beside the running one, for 'mailwal replay --sieve':\n"
	    "# same users, store and scripts; it delivers nothing and sends nothing "
	    "out.\n"
	    "# Made by mailwal setup dovecot --quiet-instance. As root:\n"
	    "#   save it as %s.conf, then\n"
	    "#   dovecot -c %s.conf              start it\n"
	    "#   mailwal replay … --sieve --to imap://127.0.0.1:%u --sink %s …\n"
	    "#   doveadm -c %s.conf stop         and stop it\n"
	    "# Scripts that start programs (pipe, execute) do not compile here: their\n"
	    "# mail goes to INBOX. So does all that sieve_before and sieve_after would\n"
	    "# have filed.\n\n",
	    q->dir, q->dir, q->port, q->sink, q->dir);
	rest = mw_buf_str(&now);
	while (mw_str_cut(rest, '\n', &line, &rest))
		take_line(&f, line, out);
	mw_buf_printf(out,
	              "\nbase_dir = %s\nstate_dir = %s/state\n"
	              "instance_name = mailwal-quiet\nprotocols = imap\n"
	              "listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\n",
	              q->dir, q->dir);
	put_plugins(f.plugins, out);
	const char *colon = strrchr(q->sink, ':');
	mw_buf_printf(
	    out,
	    "protocol imap {\n  mail_plugins = $mail_plugins imap_filter_sieve\n"
	    "}\n# mailwal itself listens there, and swallows what comes.\n"
	    "submission_host = %.*s:%s\nsubmission_ssl = no\n"
	    "# A redirect done before would otherwise turn into a keep.\n"
	    "plugin {\n  sieve_redirect_duplicate_period = 0\n}\n"
	    "service imap-login {\n  inet_listener imap {\n    port = %u\n  }\n"
	    "  inet_listener imaps {\n    port = 0\n  }\n}\n",
	    (int)(colon - q->sink), q->sink, colon + 1, q->port);
	return mw_buf_ok(out) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}
