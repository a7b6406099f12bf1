#include "replay/target_args.h"

#include "journal/base/util.h"
#include "replay/cmd.h"

#include <string.h>

static int
layout(struct mw_target_opts *t, const char *v, struct mw_err *err)
{
	static const char *const names[] = {"auto", "maildir++", "fs", "courier"};
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (strcmp(v, names[i]) == 0) {
			t->layout = (enum mw_layout)i;
			return 1;
		}
	return mw_fail(err, MW_EUSAGE, "--layout is auto, maildir++, fs or courier");
}

int
mw_target_login_option(struct mw_target_opts *t, int argc, char **argv, int *i,
                       struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"--password-file", &t->password_file, NULL},
	    {"--auth-user", &t->auth_user, NULL},
	    {"--user-passwords", &t->user_passwords, NULL},
	    {"--tls-ca", &t->tls_ca, NULL},
	    {"--insecure", NULL, &t->insecure},
	};
	const char *v;
	int r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (r)
		return r;
	r = mw_cli_option(argc, argv, i, "--auth-style", &v, err);
	if (r <= 0)
		return r;
	t->separator = strcmp(v, "separator") == 0;
	if (!t->separator && strcmp(v, "authzid") != 0)
		return mw_fail(err, MW_EUSAGE, "--auth-style is authzid or separator");
	return 1;
}

int
mw_target_option(struct mw_target_opts *t, int argc, char **argv, int *i,
                 struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"--folder", &t->folder, NULL},
	    {"--create", NULL, &t->create},
	    {"--accept-side-effects", NULL, &t->side_effects},
	    {"--keep-sender", NULL, &t->keep_sender},
	};
	const char *v;
	int r = mw_target_login_option(t, argc, argv, i, err);
	if (!r)
		r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (r)
		return r;
	r = mw_cli_option(argc, argv, i, "--layout", &v, err);
	if (r)
		return r > 0 ? layout(t, v, err) : r;
	r = mw_cli_option(argc, argv, i, "--rate", &v, err);
	if (r > 0)
		r = mw_rate_parse(v, &t->rate, err) ? MW_EUSAGE : 1;
	return r;
}

static void
add(struct mw_buf *b, const char *option, const char *value)
{
	if (!value)
		return;
	mw_buf_printf(b, " %s '", option);
	for (const char *p = value; *p; p++)
		mw_buf_printf(b, *p == '\'' ? "'\\%c'" : "%c", *p);
	mw_buf_puts(b, "'");
}

const char *
mw_target_again(const struct mw_cli *cli, const struct mw_report *r,
                const struct mw_target_opts *t)
{
	MW_BUF_AUTO b = {0};
	const char *file = mw_conf_default_file();
	bool named = cli->conf_file && (!file || strcmp(cli->conf_file, file) != 0);
	add(&b, "--to", r->target);
	add(&b, "--state", r->state);
	if (named)
		add(&b, "-c", cli->conf_file);
	if (cli->conf && strcmp(cli->journals[0], cli->conf->journal_dir) != 0)
		add(&b, "-j", cli->journals[0]);
	add(&b, "--auth-user", t->auth_user);
	add(&b, "--password-file", t->password_file);
	add(&b, "--user-passwords", t->user_passwords);
	add(&b, "--tls-ca", t->tls_ca);
	if (t->separator)
		mw_buf_puts(&b, " --auth-style separator");
	if (t->insecure)
		mw_buf_puts(&b, " --insecure");
	return mw_arena_strdup(r->arena, mw_buf_cstr(&b));
}
