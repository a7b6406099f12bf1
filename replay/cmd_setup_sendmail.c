/* cmd_setup_sendmail.c - mailwal setup sendmail --apply. */
#include "journal/base/util.h"
#include "replay/setup.h"

#include <stdio.h>

static void
print_plan(const struct mw_cli *cli, const struct mw_smplan *p)
{
	struct mw_str line = mw_str_trim(p->add);
	const char *where = p->before_section   ? ", before MAILER and LOCAL_ sections"
	                    : p->at == p->old.n ? ", at the end"
	                                        : ", after the other filters";
	if (cli->json) {
		mw_cli_json(json_pack("{s:s, s:o, s:I, s:o}", "message_type", "line",
		                      "file", mw_json_str(mw_strz(p->mc)), "line",
		                      (json_int_t)p->line, "text", mw_json_str(line)));
		return;
	}
	MW_BUF_AUTO name = {0}, safe = {0};
	mw_text_safe(mw_strz(p->mc), false, &name);
	mw_text_safe(line, false, &safe);
	printf("To be added to %s as line %zu%s:\n  %s\n", mw_buf_cstr(&name), p->line,
	       where, mw_buf_cstr(&safe));
	if (p->makefile)
		printf("and then: make -C %s\n", p->dir);
	if (p->conf->on_failure == MW_ON_FAILURE_ACCEPT && !cli->quiet)
		puts("on_failure = accept: while mailwald is down, mail passes "
		     "unjournaled.");
}

static int
nothing(const struct mw_cli *cli, const struct mw_smplan *p)
{
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:i, s:b}", "message_type", "summary",
		                      "changes", 0, "applied", 0));
	else if (!cli->quiet && p->msp)
		printf("%s is sendmail(1)'s, which hands its mail to the daemon: nothing "
		       "to add. The filter goes into sendmail.mc.\n",
		       p->mc);
	else if (!cli->quiet)
		printf("%s has these settings already.\n", p->mc);
	return 0;
}

static void
tell(const struct mw_cli *cli, const struct mw_smplan *p, bool built)
{
	if (cli->json) {
		mw_cli_json(json_pack("{s:s, s:i, s:b, s:o, s:b}", "message_type",
		                      "summary", "changes", 1, "applied", 1, "kept",
		                      mw_json_str(mw_strz(p->kept)), "built", built));
		return;
	}
	if (cli->quiet)
		return;
	printf("Done; the old file is %s.\n", p->kept);
	if (built)
		printf("%s is made. Now restart Sendmail (systemctl restart sendmail), ",
		       p->cf);
	else
		printf("%s is not made yet: run sendmailconfig, or m4 on %s, and restart "
		       "Sendmail (systemctl restart sendmail), ",
		       p->cf, p->mc);
	printf("then look:\n  mailwal setup sendmail --check --sendmail-config %s\n",
	       p->cf);
}

int
mw_setup_sendmail_apply(const struct mw_cli *cli, const char *path, bool yes,
                        struct mw_arena *a)
{
	struct mw_smplan p;
	struct mw_err err = {0};
	bool built = false;
	if (mw_sendmail_plan(cli->conf, path ? path : "/etc/mail/sendmail.mc", a, &p,
	                     &err) < 0)
		return mw_cli_error(cli, &err);
	if (p.add.n == 0)
		return nothing(cli, &p);
	print_plan(cli, &p);
	int status = mw_setup_confirm(cli, yes);
	if (status >= 0)
		return status;
	if (mw_sendmail_apply(&p, &err) < 0 || mw_sendmail_make(&p, &built, &err) < 0)
		return mw_cli_error(cli, &err);
	tell(cli, &p, built);
	return 0;
}
