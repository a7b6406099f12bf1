/* cmd_follow.c - mailwal follow: keeps a standby store current. */
#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "replay/follow.h"
#include "replay/target_args.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct args {
	struct mw_query q;
	struct mw_target_opts t;
	const char *to, *state;
	struct mw_buf selection; /* its words: another selection is another standby */
};

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("follow");
}

/* 1 taken, 0 not ours, negative wrong. */
static int
option(struct args *a, int argc, char **argv, int *i, struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"--to", &a->to, NULL},
	    {"--state", &a->state, NULL},
	    {"--create", NULL, &a->t.create},
	};
	const char *v;
	int r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (!r)
		r = mw_target_login_option(&a->t, argc, argv, i, err);
	if (r)
		return r;
	r = mw_cli_option(argc, argv, i, "--rate", &v, err);
	return r > 0 && mw_rate_parse(v, &a->t.rate, err) ? MW_EUSAGE : r;
}

static int
parse(struct mw_cli *cli, struct args *a, int argc, char **argv)
{
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int at = i, r = mw_query_option(&a->q, argc, argv, &i, &err);
		for (; r > 0 && at <= i; at++) {
			mw_buf_puts(&a->selection, argv[at]);
			mw_buf_putc(&a->selection, '\n');
		}
		if (!r)
			r = option(a, argc, argv, &i, &err);
		if (!r)
			return mw_cli_unknown(cli, self(), argv[i]);
		if (r < 0)
			return mw_cli_error(cli, &err);
	}
	if (!a->q.any_term)
		a->q.all = true;
	if (mw_query_check(&a->q, &err))
		return mw_cli_error(cli, &err);
	if (!a->to)
		return mw_cli_usage(cli, self(), "--to TARGET is missing");
	if (mw_target_check(a->to, &err) < 0)
		return mw_cli_error(cli, &err);
	if (mw_target_write_only(a->to)) {
		(void)mw_fail(&err, MW_EUSAGE, "%s cannot be followed to", a->to);
		(void)mw_err_hint(&err,
		                  "after an outage the standby must be asked what it "
		                  "has: imap://, imaps://, maildir:, mbox: or eml:");
		return mw_cli_error(cli, &err);
	}
	if (a->q.n_body || a->q.n_attachment || a->q.n_id)
		return mw_cli_usage(cli, self(),
		                    "follow selects by envelope, header and time, not by "
		                    "text or attachment");
	return mw_buf_ok(&a->selection) < 0 ? mw_err_exit(MW_ENOMEM) : 0;
}

/* The state's file, and the ledger whose lock keeps a second follower, or a replay to
 * the same target, away. */
static int
open_state(struct mw_follow *f, struct args *a, struct mw_err *err)
{
	char dir[PATH_MAX], hex[33];
	uint8_t d[32];
	MW_BUF_AUTO key = {0};
	int n = a->state ? snprintf(dir, sizeof dir, "%s", a->state)
	                 : snprintf(dir, sizeof dir, "%s/ledger", f->cli->journals[0]);
	mw_buf_puts(&key, a->to);
	mw_buf_putc(&key, '\n');
	mw_buf_putstr(&key, mw_buf_str(&a->selection));
	if (mw_buf_ok(&key) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	mw_sha256_of(key.p, key.n, d);
	mw_hex(hex, d, 8);
	if (n < 0 || n >= (int)sizeof dir ||
	    snprintf(f->file, sizeof f->file, "%s/follow-%s.state", dir, hex) >=
	        (int)sizeof f->file)
		return mw_fail(err, MW_EUSAGE, "path too long");
	f->own_state = !a->state;
	return mw_ledger_open(dir, a->to, false, &f->ledger, err);
}

static int
work(struct mw_follow *f, struct args *a, struct mw_err *err)
{
	char journal[MW_ID_TEXT + 1];
	size_t n = f->cli->n_journals;
	f->pos = calloc(n, sizeof *f->pos);
	f->cursor = calloc(n, sizeof(void *));
	f->wait = calloc(n, sizeof *f->wait);
	if (!f->pos || !f->cursor || !f->wait)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = open_state(f, a, err);
	if (r < 0)
		return r;
	mw_id_text(journal, mw_store_id(f->cli->stores[0]));
	a->t.journal_id = journal;
	a->t.ledger_id = mw_ledger_id(f->ledger);
	a->t.run_id = mw_ledger_run(f->ledger);
	r = mw_target_new(a->to, &a->t, &f->target, err);
	mw_assert(r || (mw_target_readable(f->target) && f->target->ops->deliver));
	if (r == 0)
		r = mw_follow_load(f, err);
	return r < 0 ? r : mw_follow_run(f, err);
}

static void
tell(const struct mw_follow *f, int64_t took_us)
{
	const struct mw_follow_sum *s = &f->sum;
	uint64_t selected = s->stored + s->already_there + s->failed;
	if (f->cli->json)
		mw_cli_json(json_pack(
		    "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "message_type",
		    "summary", "command", "follow", "selected", (json_int_t)selected,
		    "already_there", (json_int_t)s->already_there, "restored",
		    (json_int_t)s->stored, "failed", (json_int_t)s->failed, "unreadable",
		    (json_int_t)s->unreadable, "outages", (json_int_t)s->outages,
		    "duration_s", (double)took_us / 1e6));
	else if (!f->cli->quiet)
		printf("%llu copies: %llu stored, %llu already there, %llu failed; %llu "
		       "outages\n",
		       (unsigned long long)selected, (unsigned long long)s->stored,
		       (unsigned long long)s->already_there,
		       (unsigned long long)s->failed, (unsigned long long)s->outages);
}

int
mw_cmd_follow(struct mw_cli *cli, int argc, char **argv)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_follow f = {.cli = cli};
	struct args a = {0};
	struct mw_err err = {0};
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!arena)
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&a.q, arena);
	int status = parse(cli, &a, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status == 0) {
		(void)signal(SIGPIPE, SIG_IGN);
		mw_cli_catch_signals();
		a.t.sent_folder = cli->conf->sent_folder;
		a.t.stopped = mw_cli_stopped;
		a.t.note = mw_cli_note;
		a.t.note_arg = cli;
		f.q = a.q;
		mw_query_site(&f.q, cli->conf);
		f.to = a.to;
		int64_t start = clock->mono_us(clock);
		mw_rate_init(&f.rate, &a.t.rate);
		int r = work(&f, &a, &err);
		mw_rate_done(&f.rate);
		status = mw_err_exit(r);
		if (r < 0 && r != MW_ECANCEL)
			(void)mw_cli_error(cli, &err);
		if (r >= 0 || r == MW_ECANCEL || f.target)
			tell(&f, clock->mono_us(clock) - start);
	}
	mw_target_free(f.target);
	mw_ledger_close(f.ledger);
	mw_follow_boxes_free(&f);
	mw_follow_hops_free(&f);
	mw_follow_held_free(&f);
	free(f.pos);
	free(f.cursor);
	free(f.wait);
	mw_buf_free(&a.selection);
	if (status == mw_err_exit(MW_ECANCEL) && mw_cli_flush(&err) < 0)
		return mw_cli_error(cli, &err);
	return status;
}
