/* cmd_setup.c - mailwal setup postfix | sendmail | dovecot. */
#include "journal/base/util.h"
#include "replay/setup.h"
#include "replay/setup_dovecot.h"
#include "replay/sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ask {
	const char *server, *dir, *file;
	bool check, apply, yes, quiet, raise;
	const char *dovecot, *quiet_dir, *sink, *port;
	struct mw_probe_opts test;
};

/* Options of --quiet-instance, --raise-uids and --send-test: 1 taken, 0 none of them,
 * negative wrong.
 */
static int
quiet_option(int argc, char **argv, int *i, struct ask *a, struct mw_err *err)
{
	const struct {
		const char *name, **value;
	} v[] = {{"--dovecot-config", &a->dovecot},
	         {"--dir", &a->quiet_dir},
	         {"--sink", &a->sink},
	         {"--port", &a->port},
	         {"--send-test", &a->test.address},
	         {"--via", &a->test.via},
	         {"--wait", &a->test.wait}};
	if (strcmp(argv[*i], "--quiet-instance") == 0) {
		a->quiet = true;
		return 1;
	}
	if (strcmp(argv[*i], "--raise-uids") == 0) {
		a->raise = true;
		return 1;
	}
	for (size_t k = 0; k < MW_COUNT(v); k++) {
		int r = mw_cli_option(argc, argv, i, v[k].name, v[k].value, err);
		if (r)
			return r;
	}
	return 0;
}

static bool
is_port(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && n >= 1 && n <= 65535;
}

/* What an operator is to put somewhere, as it is. */
static void
print_text(const struct mw_cli *cli, const char *server, struct mw_buf *text)
{
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:o}", "server", server, "text",
		                      mw_json_str(mw_buf_str(text))));
	else
		fputs(mw_buf_cstr(text), stdout);
}

static int
print_quiet(const struct mw_cli *cli, const struct ask *a)
{
	MW_BUF_AUTO text = {0};
	struct mw_err err = {0};
	MW_AUTOFREE char *config = a->dovecot ? strdup(a->dovecot) : NULL;
	struct mw_quiet q = {config, a->quiet_dir ? a->quiet_dir : "/run/mailwal-quiet",
	                     a->sink ? a->sink : MW_SINK_DEFAULT,
	                     a->port ? (unsigned)strtoul(a->port, NULL, 10) : 12143};
	if (mw_setup_quiet(&q, &text, &err))
		return mw_cli_error(cli, &err);
	print_text(cli, a->server, &text);
	return 0;
}

/* 0, or the exit status of a mistake. */
static int
parse(struct mw_cli *cli, int argc, char **argv, struct ask *a)
{
	const struct mw_cmd *cmd = mw_cmd_find("setup");
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "--postfix-config", &a->dir, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0)
			r = mw_cli_option(argc, argv, &i, "--sendmail-config", &a->file,
			                  &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0)
			r = quiet_option(argc, argv, &i, a, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r > 0)
			continue;
		if (strcmp(argv[i], "--check") == 0)
			a->check = true;
		else if (strcmp(argv[i], "--apply") == 0)
			a->apply = true;
		else if (strcmp(argv[i], "--yes") == 0)
			a->yes = true;
		else if (argv[i][0] == '-' || a->server)
			return mw_cli_unknown(cli, cmd, argv[i]);
		else
			a->server = argv[i];
	}
	static const char *const servers[] = {"postfix", "sendmail", "dovecot"};
	bool known = false;
	for (size_t i = 0; a->server && i < MW_COUNT(servers); i++)
		known = known || strcmp(a->server, servers[i]) == 0;
	if (!known)
		return mw_cli_usage(cli, cmd,
		                    "which server: postfix, sendmail or dovecot?");
	if (strcmp(a->server, "dovecot") != 0 &&
	    (a->quiet || a->raise || a->dovecot || a->quiet_dir || a->sink || a->port))
		return mw_cli_usage(cli, cmd,
		                    "--quiet-instance, --raise-uids and "
		                    "--dovecot-config are for dovecot");
	if (a->quiet && a->raise)
		return mw_cli_usage(cli, cmd,
		                    "--quiet-instance or --raise-uids, not both");
	if (a->check && a->apply)
		return mw_cli_usage(cli, cmd, "--check or --apply, not both");
	bool postfix = strcmp(a->server, "postfix") == 0;
	bool sendmail = strcmp(a->server, "sendmail") == 0;
	if ((a->check || a->apply) && (a->quiet || a->raise))
		return mw_cli_usage(cli, cmd,
		                    "--quiet-instance and --raise-uids only print: no "
		                    "--check or --apply");
	if ((a->quiet_dir || a->sink || a->port) && !a->quiet)
		return mw_cli_usage(cli, cmd,
		                    "--dir, --port and --sink go with --quiet-instance");
	if ((a->quiet_dir && a->quiet_dir[0] != '/') ||
	    (a->sink && !strchr(a->sink, ':')) || (a->port && !is_port(a->port)))
		return mw_cli_usage(cli, cmd,
		                    "--dir is a path from /, --sink HOST:PORT, --port a "
		                    "number");
	if (!postfix && a->dir)
		return mw_cli_usage(cli, cmd, "--postfix-config goes with postfix");
	if ((a->test.address || a->test.via || a->test.wait) &&
	    (!a->check || !a->test.address))
		return mw_cli_usage(cli, cmd,
		                    "--send-test goes with --check, --via and --wait "
		                    "with --send-test");
	if (!postfix && !sendmail && a->test.address)
		return mw_cli_usage(cli, cmd,
		                    "--send-test goes with postfix and sendmail");
	if (a->test.address && mw_probe_check(&a->test, &err) < 0)
		return mw_cli_error(cli, &err);
	if (a->file && (!sendmail || !(a->check || a->apply)))
		return mw_cli_usage(cli, cmd,
		                    "--sendmail-config goes with sendmail --check or "
		                    "--apply");
	return 0;
}

/* ---- check ---- */

static void
print_finding(const struct mw_cli *cli, const struct mw_advice *f)
{
	const char *kind = f->kind == MW_ADVICE_HOLE ? "hole" : "note";
	MW_BUF_AUTO safe = {0};
	if (cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "message_type", json_string(kind));
		(void)json_object_set_new(o, "name", json_string(f->name));
		(void)json_object_set_new(o, "text", mw_json_str(mw_strz(f->text)));
		(void)json_object_set_new(o, "fix", mw_json_str(mw_strz(f->fix)));
		mw_cli_json(o);
		return;
	}
	mw_text_safe(mw_strz(f->text), false, &safe);
	printf("%s: %s\n", f->kind == MW_ADVICE_HOLE ? "HOLE" : "note",
	       mw_buf_cstr(&safe));
	if (f->fix[0])
		printf("      %s\n", f->fix);
}

static void
print_holes(const struct mw_cli *cli, const struct mw_advices *f, bool dovecot)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].kind == MW_ADVICE_HOLE || !cli->quiet)
			print_finding(cli, &f->v[i]);
	if (cli->json)
		return;
	if (f->holes && dovecot)
		printf("%zu thing%s in the way of a replay.\n", f->holes,
		       f->holes == 1 ? "" : "s");
	else if (f->holes)
		printf("%zu way%s past the journal.\n", f->holes,
		       f->holes == 1 ? "" : "s");
	else if (!cli->quiet)
		puts(dovecot ? "Nothing in the way of a replay found in these settings."
		             : "No way past the journal found in these settings.");
}

/* The findings, then the test message where one is asked for. */
static int
print_advices(const struct mw_cli *cli, const struct mw_advices *f, bool dovecot,
              struct mw_probe *test)
{
	bool hole = false;
	print_holes(cli, f, dovecot);
	int status = test ? mw_probe_run(test, &hole) : 0;
	size_t holes = f->holes + hole;
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:I}", "message_type", "summary",
		                      "holes", (json_int_t)holes, "notes",
		                      (json_int_t)(f->n - f->holes)));
	return status ? status : holes ? 1 : 0;
}

static int
check_postfix(struct mw_cli *cli, const struct ask *a, struct mw_arena *arena,
              struct mw_probe *test)
{
	struct mw_postfix p;
	struct mw_advices f;
	struct mw_err err = {0};
	if (mw_postfix_load(cli->conf, a->dir, arena, &p, &err) < 0)
		return mw_cli_error(cli, &err);
	mw_postfix_check(&p, &f);
	return print_advices(cli, &f, false, test);
}

static int
check_sendmail(struct mw_cli *cli, const struct ask *a, struct mw_arena *arena,
               struct mw_probe *test)
{
	struct mw_sendmail s;
	struct mw_advices f;
	struct mw_err err = {0};
	if (mw_sendmail_load(cli->conf, a->file ? a->file : "/etc/mail/sendmail.cf",
	                     arena, &s, &err) < 0)
		return mw_cli_error(cli, &err);
	mw_sendmail_check(&s, &f);
	return print_advices(cli, &f, false, test);
}

static int
check_dovecot(struct mw_cli *cli, const struct ask *a, struct mw_arena *arena)
{
	struct mw_dovecot d;
	struct mw_advices f;
	struct mw_err err = {0};
	if (mw_dovecot_load(cli->conf, a->dovecot, arena, &d, &err) < 0)
		return mw_cli_error(cli, &err);
	mw_dovecot_check(&d, &f);
	return print_advices(cli, &f, true, NULL);
}

static int
check(struct mw_cli *cli, const struct ask *a, struct mw_arena *arena)
{
	struct mw_probe *test = NULL;
	struct mw_err err = {0};
	if (strcmp(a->server, "dovecot") == 0)
		return check_dovecot(cli, a, arena);
	if (a->test.address && mw_probe_new(cli, &a->test, &test, &err) < 0)
		return mw_cli_error(cli, &err);
	int status = strcmp(a->server, "sendmail") == 0
	                 ? check_sendmail(cli, a, arena, test)
	                 : check_postfix(cli, a, arena, test);
	mw_probe_free(test);
	return status;
}

/* ---- plan and apply ---- */

static void
print_plan(const struct mw_cli *cli, const struct mw_postfix *p, const struct mw_pair *v,
           size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (cli->json)
			mw_cli_json(json_pack("{s:s, s:s, s:o}", "message_type",
			                      "setting", "name", v[i].name, "value",
			                      mw_json_str(mw_strz(v[i].value))));
		else
			printf("  postconf%s%s -e '%s = %s'\n", p->dir ? " -c " : "",
			       p->dir ? p->dir : "", v[i].name, v[i].value);
	}
	if (!cli->json)
		printf("  postfix%s%s reload\n", p->dir ? " -c " : "",
		       p->dir ? p->dir : "");
}

static bool
agreed(void)
{
	char answer[16] = "";
	fputs("Make these changes? [y/N] ", stderr);
	fflush(stderr);
	return fgets(answer, sizeof answer, stdin) &&
	       (answer[0] == 'y' || answer[0] == 'Y');
}

int
mw_setup_confirm(const struct mw_cli *cli, bool yes)
{
	if (yes)
		return -1;
	if (!isatty(STDIN_FILENO))
		return mw_cli_usage(cli, mw_cmd_find("setup"),
		                    "nothing was changed; without a terminal --apply "
		                    "needs --yes");
	fflush(stdout);
	if (agreed())
		return -1;
	fputs("Nothing was changed.\n", stderr);
	return 1;
}

static void
explain_failure(const struct mw_cli *cli)
{
	if (cli->json || cli->quiet)
		return;
	if (cli->conf->on_failure == MW_ON_FAILURE_ACCEPT)
		puts("on_failure = accept: while mailwald is down, mail passes "
		     "unjournaled.");
	else
		puts("default_action=tempfail: while mailwald is down, senders try again "
		     "later.");
	puts("A new entry goes last, so that it sees what other milters add.");
}

static int
apply(const struct mw_cli *cli, const struct ask *a, const struct mw_postfix *p)
{
	struct mw_pair *plan = NULL;
	size_t n = 0;
	struct mw_err err = {0};
	if (mw_postfix_plan(p, &plan, &n, &err) < 0)
		return mw_cli_error(cli, &err);
	const char *version = mw_postfix_get(p, "mail_version");
	if (n == 0) {
		if (cli->json)
			mw_cli_json(json_pack("{s:s, s:i, s:b}", "message_type",
			                      "summary", "changes", 0, "applied", 0));
		else if (!cli->quiet)
			printf("Postfix %s has these settings already.\n", version);
		return 0;
	}
	if (!cli->json)
		printf("Postfix %s. These settings %s:\n", version,
		       a->apply ? "are to be made"
		                : "would be made (repeat with --apply)");
	print_plan(cli, p, plan, n);
	explain_failure(cli);
	int status = a->apply ? mw_setup_confirm(cli, a->yes) : -1;
	if (status >= 0)
		return status;
	bool running = false;
	if (a->apply && (mw_postfix_apply(p, plan, n, &err) < 0 ||
	                 mw_postfix_reload(p, &running, &err) < 0))
		return mw_cli_error(cli, &err);
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:b, s:b}", "message_type", "summary",
		                      "changes", (json_int_t)n, "applied", a->apply,
		                      "reloaded", running));
	else if (a->apply && !cli->quiet)
		printf("Done; Postfix %s. Now look: mailwal setup postfix --check\n",
		       running ? "has reloaded" : "is not running");
	return 0;
}

int
mw_cmd_setup(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *arena = mw_arena_new(64U << 20);
	MW_BUF_AUTO text = {0};
	struct ask a = {0};
	struct mw_err err = {0};
	struct mw_postfix p;
	int status = parse(cli, argc, argv, &a);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (!arena)
		return mw_cli_error(cli,
		                    (mw_fail(&err, MW_ENOMEM, "out of memory"), &err));
	if (mw_setup_places(cli->conf, &err) < 0)
		return mw_cli_error(cli, &err);
	if (a.check)
		return check(cli, &a, arena);
	if (a.apply && strcmp(a.server, "sendmail") == 0)
		return mw_setup_sendmail_apply(cli, a.file, a.yes, arena);
	if (a.quiet)
		return print_quiet(cli, &a);
	if (a.raise) {
		if (mw_setup_raise(a.dovecot, &text, &err))
			return mw_cli_error(cli, &err);
		print_text(cli, a.server, &text);
		return 0;
	}
	if (strcmp(a.server, "dovecot") == 0)
		return mw_setup_dovecot_apply(cli, a.dovecot, a.apply, a.yes, arena);
	if (strcmp(a.server, "sendmail") == 0) {
		mw_setup_sendmail(cli->conf, &text);
		print_text(cli, a.server, &text);
		return 0;
	}
	if (mw_postfix_load(cli->conf, a.dir, arena, &p, &err) < 0) {
		status = mw_cli_error(cli, &err);
		if (a.apply || a.dir || err.code != MW_EUNAVAIL)
			return status;
		fputs("mailwal: so these settings are for a Postfix without other "
		      "milters\n",
		      stderr);
		mw_postfix_unseen(cli->conf, arena, &p);
	}
	return apply(cli, &a, &p);
}
