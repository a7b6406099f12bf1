#include "replay/cmd.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/select.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t stopped;

static void
on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

bool
mw_cli_stopped(void)
{
	return stopped != 0;
}

void
mw_cli_catch_signals(void)
{
	/* The second Ctrl-C has its default effect, so that nobody is ever held up. */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	sigemptyset(&sa.sa_mask);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
}

static void
print_safe(const char *before, const char *text)
{
	MW_BUF_AUTO b = {0};
	mw_text_safe(mw_strz(text), true, &b);
	fprintf(stderr, "%s%s\n", before, mw_buf_cstr(&b));
}

void
mw_cli_note(void *arg, const char *text)
{
	const struct mw_cli *cli = arg;
	if (!cli->quiet)
		fprintf(stderr, "mailwal: %s\n", text);
}

int
mw_cli_error(const struct mw_cli *cli, const struct mw_err *err)
{
	const char *msg = err->msg[0] ? err->msg : mw_err_text(err->code);
	fflush(stdout);
	print_safe("mailwal: ", msg);
	if (err->hint[0])
		print_safe("  hint: ", err->hint);
	if (cli && cli->json) {
		json_t *o = json_pack("{s:s, s:s, s:i, s:o, s:o}", "message_type",
		                      "error", "name", mw_err_name(err->code), "code",
		                      mw_err_exit(err->code), "message",
		                      mw_json_str(mw_strz(msg)), "hint",
		                      mw_json_str(mw_strz(err->hint)));
		if (o)
			(void)json_dumpf(o, stderr, JSON_COMPACT);
		json_decref(o);
		fputc('\n', stderr);
	}
	return mw_err_exit(err->code < 0 ? err->code : MW_EBUG);
}

int
mw_cli_usage(const struct mw_cli *cli, const struct mw_cmd *cmd, const char *fmt, ...)
{
	struct mw_err err = {0};
	char text[sizeof err.msg];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	(void)mw_fail(&err, MW_EUSAGE, "%s%s%s", cmd ? cmd->name : "", cmd ? ": " : "",
	              text);
	size_t n = cmd ? strcspn(cmd->usage, "\n") : 0;
	while (n && strchr(" |", cmd->usage[n - 1]))
		n--; /* where the line goes on */
	if (cmd)
		(void)mw_err_hint(&err, "usage: mailwal %.*s; more: mailwal help %s",
		                  (int)n, cmd->usage, cmd->name);
	else
		(void)mw_err_hint(&err, "mailwal help lists the commands");
	return mw_cli_error(cli, &err);
}

struct words {
	char *v[128];
	size_t n;
};

/* Collects the "--names" in a usage text. */
static void
add_options(struct words *w, const char *text)
{
	for (const char *p = text; (p = strstr(p, "--")) != NULL;) {
		size_t n = 2;
		while (isalnum((unsigned char)p[n]) || p[n] == '-')
			n++;
		if (n > 3 && w->n < MW_COUNT(w->v)) {
			char *word = strndup(p, n);
			if (word)
				w->v[w->n++] = word;
		}
		p += n;
	}
}

int
mw_cli_unknown(const struct mw_cli *cli, const struct mw_cmd *cmd, const char *arg)
{
	if (arg[0] != '-' || arg[1] == '\0' || strcmp(arg, "--") == 0)
		return mw_cli_usage(cli, cmd, "unexpected argument '%s'", arg);
	struct words w = {.n = 0};
	add_options(&w, cmd->usage);
	if (strstr(cmd->usage, "SELECTION"))
		add_options(&w, mw_query_usage);
	add_options(
	    &w,
	    "--json --quiet --verbose --config --journal --key --passphrase-file --help");
	char name[64];
	(void)snprintf(name, sizeof name, "%.*s", (int)strcspn(arg, "="), arg);
	const char *near = mw_nearest(name, (const char *const *)w.v, w.n);
	int status;
	if (near && strcmp(near, name) != 0)
		status = mw_cli_usage(cli, cmd, "unknown option '%s'; did you mean '%s'?",
		                      name, near);
	else
		status = mw_cli_usage(cli, cmd, "unknown option '%s'", name);
	for (size_t i = 0; i < w.n; i++)
		free(w.v[i]);
	return status;
}

int
mw_cli_begin(struct mw_cli *cli)
{
	if (cli->begun || !cli->begin)
		return 0;
	cli->begun = true;
	return cli->begin(cli);
}

int
mw_cli_open(const struct mw_cli *cli, size_t k, struct mw_store **ret, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = cli->journals[k],
	                          .mode = MW_STORE_READ,
	                          .secret = cli->secret,
	                          .n_secret = cli->n_secret};
	return mw_store_open(&o, ret, err);
}

const struct mw_conf *
mw_cli_conf_of(const struct mw_cli *cli, size_t journal)
{
	for (size_t i = 0; i < cli->n_confs; i++)
		if (strcmp(cli->confs[i]->journal_dir, cli->journals[journal]) == 0)
			return cli->confs[i];
	return cli->conf;
}

int
mw_cli_as_owner(const char *dir, struct mw_err *err)
{
	struct stat sb;
	if (geteuid() != 0)
		return 0;
	if (stat(dir, &sb) < 0)
		return mw_fail_errno(err, "cannot look at %s", dir);
	if (sb.st_uid == 0)
		return 0;
	if (setegid(sb.st_gid) < 0 || seteuid(sb.st_uid) < 0) {
		(void)mw_fail_errno(err, "cannot act as the owner of %s", dir);
		mw_cli_as_self();
		return err ? err->code : MW_EPERM;
	}
	return 0;
}

void
mw_cli_as_self(void)
{
	/* Back to what we were started as. Where nothing was taken on nothing is called:
	 * filters of system calls, such as those of our units, deny even that. */
	if ((geteuid() != getuid() && seteuid(getuid()) < 0) ||
	    (getegid() != getgid() && setegid(getgid()) < 0))
		mw_panic(__FILE__, __LINE__, "cannot return to the own identity");
}

int
mw_cli_owner_hint(struct mw_err *err, const char *hint)
{
	if (err->code != MW_EPERM || err->hint[0])
		return err->code;
	/* the words: where it was the daemon that failed */
	bool fixed = err->sys_errno == EROFS || strstr(err->msg, strerror(EROFS));
	return mw_err_hint(err, "%s",
	                   fixed ? "mount it for writing, or give another journal"
	                         : hint);
}

int
mw_cli_flush(struct mw_err *err)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return mw_fail(err, MW_EIO, "cannot write to standard output%s%s",
	               errno ? ": " : "", errno ? strerror(errno) : "");
}
