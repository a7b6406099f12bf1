/* cmd_setup_dovecot.c - mailwal setup dovecot, with --apply or without. */
#include "journal/base/util.h"
#include "replay/setup_dovecot.h"

#include <stdio.h>
#include <string.h>

static void
print_text(const char *text)
{
	MW_BUF_AUTO safe = {0};
	struct mw_str line, rest = mw_strz(text);
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		mw_buf_clear(&safe);
		mw_text_safe(line, false, &safe);
		printf("  %s\n", mw_buf_cstr(&safe));
	}
}

static void
print_plan(const struct mw_cli *cli, const struct mw_dvplan *p, bool apply)
{
	if (cli->json) {
		if (p->text)
			mw_cli_json(json_pack("{s:s, s:o, s:o}", "message_type", "file",
			                      "file", mw_json_str(mw_strz(p->conf)),
			                      "text", mw_json_str(mw_strz(p->text))));
		if (p->make_master)
			mw_cli_json(json_pack("{s:s, s:o, s:s}", "message_type", "file",
			                      "file", mw_json_str(mw_strz(p->master)),
			                      "text", ""));
		return;
	}
	printf("Dovecot %s. %s\n", p->d->version,
	       apply ? "To be made:" : "Would be made (repeat with --apply):");
	if (p->text) {
		printf("%s:\n", p->conf);
		print_text(p->text);
	}
	if (p->make_master)
		printf("%s, empty, mode 0640, root:%s\n", p->master, p->group);
	puts("and then: doveadm reload");
}

static int
nothing(const struct mw_cli *cli, const struct mw_dvplan *p)
{
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:i, s:b}", "message_type", "summary",
		                      "changes", 0, "applied", 0));
	else if (!cli->quiet && p->other)
		printf(
		    "Dovecot has a master user already (passdb %s): replay can use that "
		    "one.\n",
		    p->other);
	else if (!cli->quiet)
		puts("Dovecot has these settings already.");
	return 0;
}

static void
tell(const struct mw_cli *cli, const struct mw_dvplan *p, bool running)
{
	if (cli->json) {
		mw_cli_json(json_pack("{s:s, s:i, s:b, s:b}", "message_type", "summary",
		                      "changes", !!p->text + p->make_master, "applied", 1,
		                      "reloaded", running));
		return;
	}
	if (cli->quiet)
		return;
	printf("Done; Dovecot %s.", running ? "has reloaded" : "is not running");
	if (p->make_master)
		printf(" Nobody is in %s yet; as root:\n"
		       "  printf 'mailwal:%%s::::::allow_nets=127.0.0.0/8\\n' "
		       "\"$(doveadm pw)\" >> %s\n"
		       "From other hosts than this one that user cannot log in then.",
		       p->master, p->master);
	printf(" Now look: mailwal setup dovecot --check%s%s\n"
	       "To undo it: remove %s and %s, and: doveadm reload\n",
	       p->d->config ? " --dovecot-config " : "", p->d->config ? p->d->config : "",
	       p->conf, p->master);
}

int
mw_setup_dovecot_apply(const struct mw_cli *cli, const char *config, bool apply, bool yes,
                       struct mw_arena *a)
{
	struct mw_dovecot d;
	struct mw_dvplan p;
	struct mw_err err = {0};
	MW_BUF_AUTO text = {0};
	bool running = false;
	int r = mw_dovecot_load(cli->conf, config, a, &d, &err);
	if (r == MW_EUNAVAIL && !apply && !config) {
		int status = mw_cli_error(cli, &err);
		mw_setup_dovecot(cli->conf, &text);
		if (cli->json)
			mw_cli_json(json_pack("{s:s, s:o}", "server", "dovecot", "text",
			                      mw_json_str(mw_buf_str(&text))));
		else
			fputs(mw_buf_cstr(&text), stdout);
		return mw_buf_ok(&text) < 0 ? status : 0;
	}
	if (r < 0 || mw_dovecot_plan(&d, &p, &err) < 0)
		return mw_cli_error(cli, &err);
	if (!p.text && !p.make_master)
		return nothing(cli, &p);
	print_plan(cli, &p, apply);
	int status = apply ? mw_setup_confirm(cli, yes) : -1;
	if (status >= 0)
		return status;
	if (apply &&
	    (mw_dovecot_apply(&p, &err) < 0 || mw_dovecot_reload(&d, &running, &err) < 0))
		return mw_cli_error(cli, &err);
	if (apply)
		tell(cli, &p, running);
	else if (cli->json)
		mw_cli_json(json_pack("{s:s, s:i, s:b, s:b}", "message_type", "summary",
		                      "changes", !!p.text + p.make_master, "applied", 0,
		                      "reloaded", 0));
	return 0;
}
