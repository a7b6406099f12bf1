/* cmd_drill.c - mailwal drill run | list | report | verify. */
#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/drill_report.h"
#include "replay/table.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("drill");
}

/* ---- run ---- */

struct args {
	struct mw_query q;
	struct mw_buf selection;
	const char *sample, *seed, *operator_name;
	bool whole;
};

static int
target_option(struct mw_drill *d, int argc, char **argv, int *i, struct mw_err *err)
{
	struct mw_target_opts *t = &d->t;
	const char *style = NULL;
	int r = mw_cli_option(argc, argv, i, "--to", &d->to, err);
	if (!r)
		r = mw_cli_option(argc, argv, i, "--scratch", &d->scratch_base, err);
	if (!r)
		r = mw_cli_option(argc, argv, i, "--auth-user", &t->auth_user, err);
	if (!r)
		r = mw_cli_option(argc, argv, i, "--password-file", &t->password_file,
		                  err);
	if (!r)
		r = mw_cli_option(argc, argv, i, "--user-passwords", &t->user_passwords,
		                  err);
	if (!r)
		r = mw_cli_option(argc, argv, i, "--tls-ca", &t->tls_ca, err);
	if (!r && (r = mw_cli_option(argc, argv, i, "--insecure", NULL, err)) > 0)
		t->insecure = true;
	if (!r && (r = mw_cli_option(argc, argv, i, "--create", NULL, err)) > 0)
		t->create = true;
	if (!r && (r = mw_cli_option(argc, argv, i, "--auth-style", &style, err)) > 0) {
		t->separator = strcmp(style, "separator") == 0;
		if (!t->separator && strcmp(style, "authzid") != 0)
			return mw_fail(err, MW_EUSAGE,
			               "--auth-style is authzid or separator");
	}
	return r;
}

/* A SELECTION option, which the report repeats. */
static int
selection_option(struct args *a, int argc, char **argv, int *i, struct mw_err *err)
{
	int from = *i, r = mw_query_option(&a->q, argc, argv, i, err);
	if (r <= 0 || strcmp(argv[from], "--all") == 0)
		return r;
	for (int k = from; k <= *i; k++)
		mw_buf_printf(&a->selection, "%s%s", a->selection.n ? " " : "", argv[k]);
	return r;
}

static int
numbers(struct mw_drill *d, const struct args *a, struct mw_err *err)
{
	char *end;
	if (a->sample && a->q.all)
		return mw_fail(err, MW_EUSAGE, "--sample and --all exclude each other");
	if (a->q.all)
		d->sample = 0;
	if (a->sample) {
		errno = 0;
		d->sample = strtoull(a->sample, &end, 10);
		if (*end || end == a->sample || *a->sample == '-' || errno ||
		    d->sample == 0)
			return mw_fail(err, MW_EUSAGE,
			               "--sample: '%s' is no number of copies",
			               a->sample);
	}
	mw_random(&d->seed, sizeof d->seed);
	if (!a->seed)
		return 0;
	errno = 0;
	d->seed = strtoull(a->seed, &end, 16);
	if (*end || end == a->seed || *a->seed == '-' || errno)
		return mw_fail(err, MW_EUSAGE, "--seed: '%s' is no hexadecimal number",
		               a->seed);
	return 0;
}

static int
parse_run(struct mw_drill *d, struct args *a, int argc, char **argv)
{
	const struct mw_cli *cli = d->cli;
	struct mw_err err = {0};
	for (int i = 2; i < argc; i++) {
		int r = selection_option(a, argc, argv, &i, &err);
		if (!r)
			r = target_option(d, argc, argv, &i, &err);
		if (!r)
			r = mw_cli_option(argc, argv, &i, "--sample", &a->sample, &err);
		if (!r)
			r = mw_cli_option(argc, argv, &i, "--seed", &a->seed, &err);
		if (!r)
			r = mw_cli_option(argc, argv, &i, "--operator", &a->operator_name,
			                  &err);
		if (!r)
			return mw_cli_unknown(cli, self(), argv[i]);
		if (r < 0)
			return mw_cli_error(cli, &err);
	}
	if (mw_query_check(&a->q, &err) || numbers(d, a, &err))
		return mw_cli_error(cli, &err);
	if (!d->to)
		d->to = "scratch";
	if (strcmp(d->to, "scratch") != 0 && strcmp(d->to, "dovecot") != 0 &&
	    mw_target_check(d->to, &err) < 0)
		return mw_cli_error(cli, &err);
	if (strncasecmp(d->to, "lmtp:", 5) == 0 || strncasecmp(d->to, "smtp:", 5) == 0)
		return mw_cli_usage(
		    cli, self(),
		    "what is sent to %.5s cannot be read back, so it cannot "
		    "be drilled with",
		    d->to);
	/* Without a term of its own: everything. */
	if (!a->q.any_term)
		a->q.all = true;
	d->query = &a->q;
	d->selection = mw_buf_cstr(&a->selection);
	return 0;
}

/* Who stands for it: --operator, else whoever called sudo, else the user. */
static const char *
operator_of(const struct args *a, char room[128])
{
	const char *sudo = getenv("SUDO_USER");
	const struct passwd *pw = getpwuid(getuid());
	if (a->operator_name)
		return a->operator_name;
	(void)snprintf(room, 128, "%s", sudo && *sudo ? sudo : pw ? pw->pw_name : "");
	if (!room[0])
		(void)snprintf(room, 128, "uid %lu", (unsigned long)getuid());
	return room;
}

static void
print_report(const struct mw_cli *cli, const json_t *o)
{
	MW_BUF_AUTO b = {0};
	if (!cli->json) {
		mw_drill_text(o, true, &b);
		(void)fwrite(b.p ? b.p : (const uint8_t *)"", 1, b.n, stdout);
		return;
	}
	json_t *copy = json_copy((json_t *)(uintptr_t)o);
	const json_t *copies = json_object_get(o, "copies");
	json_int_t want = json_integer_value(json_object_get(copies, "expected"));
	json_int_t same =
	    json_integer_value(json_object_get(copies, "identical")) +
	    json_integer_value(json_object_get(copies, "identical_in_canonical_form"));
	(void)json_object_set_new(copy, "message_type", json_string("summary"));
	(void)json_object_set_new(copy, "selected", json_integer(want));
	(void)json_object_set(copy, "restored", json_object_get(copies, "restored"));
	(void)json_object_set_new(copy, "failed",
	                          json_integer(want > same ? want - same : 0));
	mw_cli_json(copy);
}

static int
run(struct mw_drill *d)
{
	char name[MW_DRILL_NAME];
	struct mw_err err = {0}, second = {0};
	int r = mw_drill_check(d, &err);
	if (r == 0)
		r = mw_drill_can_save(d->st, &err);
	if (r == 0)
		r = mw_drill_run(d, &err);
	json_t *o = NULL;
	if (r == 0) {
		mw_drill_name(d->time.start_us, name);
		o = mw_drill_json(d, name);
		r = o ? 0 : mw_fail(&err, MW_ENOMEM, "out of memory for a report");
	}
	/* Mail that stays behind is worse than a report that is missing. */
	int left = mw_scratch_end(&d->scratch, &second);
	if (r == 0)
		r = mw_drill_save(d->st, o, &err);
	if (r == 0 && (!d->cli->quiet || d->cli->json || !mw_drill_passed(d)))
		print_report(d->cli, o);
	int status = r ? mw_cli_error(d->cli, &err) : !mw_drill_passed(d);
	if (left)
		status = mw_cli_error(d->cli, &second);
	json_decref(o);
	return status;
}

static int
drill_run(struct mw_cli *cli, int argc, char **argv)
{
	struct mw_err err = {0};
	struct args a = {.sample = NULL};
	struct mw_drill d;
	char room[128];
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!arena || mw_drill_init(&d, cli, &err))
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&a.q, arena);
	int status = parse_run(&d, &a, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status == 0) {
		d.st = cli->stores[0];
		mw_query_site(&a.q, cli->conf);
		(void)signal(SIGPIPE, SIG_IGN);
		d.operator_name = operator_of(&a, room);
		d.t.sent_folder = cli->conf->sent_folder;
		d.t.stopped = mw_cli_stopped;
		status = run(&d);
	}
	mw_buf_free(&a.selection);
	int left = mw_drill_done(&d, &err);
	return left ? mw_cli_error(cli, &err) : status;
}

/* ---- list ---- */

static int
list_row(struct mw_table *t, const struct mw_drill_kept *k)
{
	char when[32] = "", copies[64], rto[40], rpo[40], result[40];
	int64_t us = 0;
	if (mw_time_parse(mw_drill_str(k->o, "started"), 0, &us) == 0)
		mw_time_local(when, sizeof when, us);
	(void)snprintf(result, sizeof result, "%s%s",
	               strcmp(mw_drill_str(k->o, "result"), "passed") == 0 ? "passed"
	                                                                   : "FAILED",
	               k->signed_here ? "" : ", BAD SIGNATURE");
	int64_t identical = mw_drill_num(k->o, "copies.identical") +
	                    mw_drill_num(k->o, "copies.identical_in_canonical_form");
	(void)snprintf(copies, sizeof copies, "%lld of %lld", (long long)identical,
	               (long long)mw_drill_num(k->o, "copies.expected"));
	(void)snprintf(rto, sizeof rto, "%.1f s", mw_drill_real(k->o, "measured.rto_s"));
	(void)snprintf(rpo, sizeof rpo, "not measured");
	if (json_is_number(mw_drill_at(k->o, "measured.rpo_s")))
		(void)snprintf(rpo, sizeof rpo, "%s%.1f s",
		               mw_drill_is(k->o, "measured.rpo_is_bound") ? "<= " : "",
		               mw_drill_real(k->o, "measured.rpo_s"));
	const char *cells[] = {k->name, when, result, copies, rto, rpo};
	return mw_table_row(t, cells);
}

static int
list_one(struct mw_cli *cli, struct mw_table *t, const char *name, struct mw_err *err)
{
	struct mw_drill_kept k;
	int r = mw_drill_find(cli->stores[0], name, &k, err);
	if (r < 0)
		return r;
	if (cli->json) {
		json_t *o = json_deep_copy(k.o);
		(void)json_object_set_new(o, "signature_holds",
		                          json_boolean(k.signed_here));
		mw_cli_json(o);
	} else {
		r = list_row(t, &k);
	}
	mw_drill_kept_done(&k);
	return r;
}

static int
drill_list(struct mw_cli *cli, int argc, char **argv)
{
	static const struct mw_table_col cols[] = {{"DRILL", 21, 0},
	                                           {"STARTED", 19, 0},
	                                           {"RESULT", 8, 0},
	                                           {"IDENTICAL", 12, MW_TABLE_RIGHT},
	                                           {"RTO", 8, MW_TABLE_RIGHT},
	                                           {"RPO", 8, MW_TABLE_RIGHT}};
	struct mw_err err = {0};
	MW_ARENA_AUTO *a = mw_arena_new(16U << 20);
	const char **v = NULL;
	size_t n = 0;
	if (argc > 2)
		return mw_cli_unknown(cli, self(), argv[2]);
	int status = mw_cli_begin(cli);
	if (status)
		return status;
	struct mw_table *t = mw_table_new(cols, MW_COUNT(cols), true);
	if (!a || !t || mw_drill_names(cli->stores[0], a, &v, &n, &err) < 0)
		status = err.code ? mw_cli_error(cli, &err) : mw_err_exit(MW_ENOMEM);
	for (size_t i = 0; i < n && t; i++)
		if (list_one(cli, t, v[i], &err) < 0)
			status = mw_cli_error(cli, &err); /* the others are shown */
	if (status == 0 && n == 0 && !cli->json && !cli->quiet)
		puts("no drill was done yet");
	if (t && !cli->json && mw_table_rows(t) && mw_table_print(t) < 0)
		status = mw_err_exit(MW_EIO);
	mw_table_free(t);
	return status;
}

/* ---- report, verify ---- */

static int
drill_report(struct mw_cli *cli, int argc, char **argv)
{
	const char *name = NULL, *form = cli->json ? "json" : "text";
	struct mw_err err = {0};
	struct mw_drill_kept k;
	MW_BUF_AUTO b = {0};
	for (int i = 2; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "-o", &form, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0 && (argv[i][0] == '-' || name))
			return mw_cli_unknown(cli, self(), argv[i]);
		if (r == 0)
			name = argv[i];
	}
	bool text = strcmp(form, "text") == 0, html = strcmp(form, "html") == 0;
	bool note = strcmp(form, "note") == 0;
	if (!text && !html && !note && strcmp(form, "json") != 0)
		return mw_cli_usage(cli, self(),
		                    "-o: '%s' is not text, html, json or note", form);
	int status = mw_cli_begin(cli);
	if (status)
		return status;
	if (mw_drill_find(cli->stores[0], name, &k, &err) < 0)
		return mw_cli_error(cli, &err);
	if (text)
		mw_drill_text(k.o, k.signed_here, &b);
	else if (html)
		mw_drill_html(k.o, k.signed_here, &b);
	else if (note)
		mw_buf_put(&b, k.note, k.n);
	else
		mw_cli_json(json_incref(k.o));
	(void)fwrite(b.p ? b.p : (const uint8_t *)"", 1, b.n, stdout);
	if (!k.signed_here) {
		(void)mw_fail(&err, MW_EDAMAGED,
		              "the report %s is not signed by this journal's key, or was "
		              "altered",
		              k.name);
		(void)mw_cli_error(cli, &err);
		status = 1;
	}
	mw_drill_kept_done(&k);
	return status;
}

static void
verify_says(const struct mw_cli *cli, const struct mw_drill_kept *k,
            const struct mw_err *err)
{
	bool ok = err->code == 0;
	MW_BUF_AUTO name = {0}, who = {0};
	if (cli->json) {
		mw_cli_json(
		    json_pack("{s:s, s:o, s:b, s:b, s:o, s:o}", "message_type", "summary",
		              "name", mw_json_str(mw_strz(k->name)), "ok", ok,
		              "signature_holds", k->signed_here, "result",
		              mw_json_str(mw_strz(mw_drill_str(k->o, "result"))),
		              "reason", mw_json_str(mw_strz(ok ? "" : err->msg))));
		return;
	}
	mw_text_safe(mw_strz(k->name), false, &name);
	mw_text_safe(mw_strz(mw_drill_str(k->o, "result")), false, &who);
	if (ok && !cli->quiet)
		printf(
		    "%s: ok: signed by this journal, and its record %lld and chain head "
		    "are in the log; the drill %s\n",
		    mw_buf_cstr(&name), (long long)mw_drill_num(k->o, "journal.last_seq"),
		    mw_buf_cstr(&who));
	if (!ok)
		printf("%s: NO: %s\n", mw_buf_cstr(&name), err->msg);
}

/* A name with a slash or a suffix is a file; else a kept report, or a file here. */
static int
open_report(struct mw_store *st, const char *what, struct mw_drill_kept *k,
            struct mw_err *err)
{
	bool file = what && (strchr(what, '/') || strchr(what, '.'));
	return file ? mw_drill_read(st, what, k, err) : mw_drill_find(st, what, k, err);
}

static int
drill_verify(struct mw_cli *cli, int argc, char **argv)
{
	struct mw_err err = {0};
	struct mw_drill_kept k;
	if (argc > 3 || (argc == 3 && argv[2][0] == '-'))
		return mw_cli_unknown(cli, self(), argv[argc - 1]);
	int status = mw_cli_begin(cli);
	if (status)
		return status;
	int r = open_report(cli->stores[0], argc == 3 ? argv[2] : NULL, &k, &err);
	if (r == MW_EFORMAT) {
		(void)mw_cli_error(cli, &err);
		return 1; /* whatever it was, it is no report any more */
	}
	if (r < 0)
		return mw_cli_error(cli, &err);
	if (!k.signed_here)
		r = mw_fail(&err, MW_EDAMAGED,
		            "it is not signed by this journal's key, or was altered");
	else
		r = mw_drill_fits(cli->stores[0], k.o, &err);
	if (r == 0 || r == MW_EDAMAGED || r == MW_EFORMAT) {
		verify_says(cli, &k, &err);
		status = r != 0;
	} else {
		status = mw_cli_error(cli, &err);
	}
	mw_drill_kept_done(&k);
	return status;
}

int
mw_cmd_drill(struct mw_cli *cli, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	if (strcmp(verb, "run") == 0)
		return drill_run(cli, argc, argv);
	if (strcmp(verb, "list") == 0)
		return drill_list(cli, argc, argv);
	if (strcmp(verb, "report") == 0)
		return drill_report(cli, argc, argv);
	if (strcmp(verb, "verify") == 0)
		return drill_verify(cli, argc, argv);
	return mw_cli_usage(cli, self(),
	                    *verb ? "'%s' is none of run, list, report, verify"
	                          : "say what: run, list, report or verify%s",
	                    verb);
}
