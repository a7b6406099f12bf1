/* cmd_replay.c - mailwal replay, and its steps one by one. */
#include "replay/undo.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/early.h"
#include "replay/queue_ahead.h"
#include "replay/run.h"
#include "replay/sink.h"
#include "replay/target_args.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	UID_GAP = 500, /* of prepare: what a user may use up in a day beside new mail */
	UID_GAP_MAX = 1000000
};

enum step {
	STEP_RUN, /* all of it */
	STEP_PLAN,
	STEP_PREPARE,
	STEP_VERIFY,
	STEP_UNDO
};

static const struct {
	const char *name, *command;
} steps[] = {
    [STEP_RUN] = {"run", "replay"},
    [STEP_PLAN] = {"plan", "replay plan"},
    [STEP_PREPARE] = {"prepare", "replay prepare"},
    [STEP_VERIFY] = {"verify", "replay verify"},
    [STEP_UNDO] = {"undo", "replay undo"},
};

struct args {
	enum step step;
	const char *run; /* undo: which one */
	struct mw_undo undo;
	struct mw_query q;
	struct mw_target_opts t;
	const char *to, *report, *state, *sink, *queue;
	struct mw_queue *mta_queue;
	bool dry, fresh, resume, resend, yes;
	unsigned jobs;
	uint64_t uid_gap;
	bool uid_gap_given;
};

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("replay");
}

static int
jobs(struct args *a, const char *v, struct mw_err *err)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(v, &end, 10);
	if (*v < '0' || *v > '9' || *end || errno || n < 1 || n > MW_JOBS_MAX)
		return mw_fail(err, MW_EUSAGE, "--jobs takes a number from 1 to %d",
		               MW_JOBS_MAX);
	a->jobs = (unsigned)n;
	return 1;
}

static int
uid_gap(struct args *a, const char *v, struct mw_err *err)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(v, &end, 10);
	if (*v < '0' || *v > '9' || *end || errno || n > UID_GAP_MAX)
		return mw_fail(err, MW_EUSAGE, "--uid-gap takes a number from 0 to %d",
		               UID_GAP_MAX);
	a->uid_gap = n;
	a->uid_gap_given = true;
	return 1;
}

static int
filing(struct args *a, const char *v, struct mw_err *err)
{
	static const char *const names[] = {"inbox", "detail", "sieve"};
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (strcmp(v, names[i]) == 0) {
			a->t.filing = (enum mw_filing)i;
			return 1;
		}
	return mw_fail(err, MW_EUSAGE, "--filing is inbox, detail or sieve");
}

/* 1 taken, 0 not ours, negative wrong. */
static int
option(struct args *a, int argc, char **argv, int *i, struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"--to", &a->to, NULL},          {"--report", &a->report, NULL},
	    {"--state", &a->state, NULL},    {"--resend-doubtful", NULL, &a->resend},
	    {"-n|--dry-run", NULL, &a->dry}, {"--fresh", NULL, &a->fresh},
	    {"--sink", &a->sink, NULL},      {"--yes", NULL, &a->yes},
	    {"--resume", NULL, &a->resume},  {"--queue", &a->queue, NULL},
	};
	const char *v;
	int r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (r)
		return r;
	r = mw_cli_option(argc, argv, i, "--jobs", &v, err);
	if (r)
		return r > 0 ? jobs(a, v, err) : r;
	r = mw_cli_option(argc, argv, i, "--uid-gap", &v, err);
	if (r)
		return r > 0 ? uid_gap(a, v, err) : r;
	r = mw_cli_option(argc, argv, i, "--filing", &v, err);
	if (r)
		return r > 0 ? filing(a, v, err) : r;
	r = mw_cli_option(argc, argv, i, "--sieve", NULL, err);
	if (r) {
		a->t.filing = MW_FILE_SIEVE;
		return r;
	}
	return mw_target_option(&a->t, argc, argv, i, err);
}

/* The step's name, first; undo's run, wherever. */
static int
word(struct args *a, const char *arg, int i)
{
	for (size_t k = 0; i == 1 && k < MW_COUNT(steps); k++)
		if (strcmp(arg, steps[k].name) == 0) {
			a->step = (enum step)k;
			return 1;
		}
	if (a->step != STEP_UNDO || a->run || *arg == '-')
		return 0;
	a->run = arg;
	return 1;
}

/* The newest mark of all journals that was completed; NULL name: none. */
static int
newest_mark(struct mw_cli *cli, struct args *a, struct mw_mark_info *ret,
            struct mw_err *err)
{
	*ret = (struct mw_mark_info){.start_us = INT64_MIN};
	for (size_t k = 0; k < cli->n_journals; k++) {
		struct mw_mark_info *v;
		size_t n;
		int r = mw_marks(cli->stores[k], a->q.arena, &v, &n, err);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			if (v[i].state == MW_MARK_COMPLETE &&
			    v[i].start_us > ret->start_us)
				*ret = v[i];
	}
	return 0;
}

/* A selection that begins before the last backup did brings back, too, what its users had
 * deleted before it: that is known with --since-mark only. */
static void
tell_deleted(struct mw_cli *cli, struct args *a)
{
	struct mw_mark_info m;
	const struct mw_query *q = &a->q;
	if (a->step == STEP_UNDO || a->step == STEP_VERIFY || q->since_mark ||
	    q->n_message_id || q->n_queue_id || cli->quiet ||
	    newest_mark(cli, a, &m, NULL) < 0 || !m.name || q->since_us >= m.start_us)
		return;
	fprintf(stderr,
	        "mailwal: what users had deleted before the backup of mark %s comes "
	        "back, too; --since-mark %s leaves it out\n",
	        m.name, m.name);
}

/* Without a selection: what a backup that ended well cannot have, by the newest mark that
 * says so. 0, or the exit status. */
static int
by_default(struct mw_cli *cli, struct args *a)
{
	struct mw_mark_info m;
	struct mw_err err = {0};
	if (a->step == STEP_UNDO)
		return 0;
	if (a->q.any_term || a->q.all) {
		tell_deleted(cli, a);
		return 0;
	}
	if (newest_mark(cli, a, &m, &err) < 0)
		return mw_cli_error(cli, &err);
	a->q.since_mark = m.name;
	if (!a->q.since_mark)
		return mw_cli_usage(cli, self(),
		                    "no backup is marked as completed; say what to put "
		                    "back: --since-mark NAME, --user ADDR, … or --all");
	a->q.any_term = true;
	if (!cli->quiet)
		fprintf(stderr, "mailwal: since mark %s, the last that was completed\n",
		        a->q.since_mark);
	return 0;
}

static int
parse(struct mw_cli *cli, struct args *a, int argc, char **argv)
{
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = word(a, argv[i], i);
		if (!r)
			r = mw_query_option(&a->q, argc, argv, &i, &err);
		if (!r)
			r = option(a, argc, argv, &i, &err);
		if (!r)
			return mw_cli_unknown(cli, self(), argv[i]);
		if (r < 0)
			return mw_cli_error(cli, &err);
	}
	if (mw_query_check(&a->q, &err))
		return mw_cli_error(cli, &err);
	if (a->fresh && a->resume)
		return mw_cli_usage(cli, self(),
		                    "--fresh forgets what earlier runs noted, --resume "
		                    "goes on from it: give one of them");
	if (!a->to)
		return mw_cli_usage(cli, self(), "--to TARGET is missing");
	if (a->t.filing && strncasecmp(a->to, "imap", 4) != 0)
		return mw_cli_usage(cli, self(), "--filing is for IMAP targets");
	if (a->step == STEP_UNDO && !a->run)
		return mw_cli_usage(cli, self(), "undo which run? Its summary names it");
	if (a->step == STEP_UNDO && (a->q.any_term || a->q.all))
		return mw_cli_usage(cli, self(),
		                    "undo takes away what one run put back; a "
		                    "selection has no meaning there");
	a->dry = a->dry || a->step == STEP_PLAN || a->step == STEP_VERIFY;
	if (mw_target_check(a->to, &err) < 0 ||
	    mw_report_check(a->report, a->dry || a->step == STEP_UNDO ? NULL : a->to,
	                    &err) < 0)
		return mw_cli_error(cli, &err);
	return 0;
}

/* What put imported mail where it is kept its date. */
static void
on_first_box(void *arg, const char *mailbox, const char *box, bool imported)
{
	struct mw_run *run = arg;
	enum mw_early_look look = run->sieve ? MW_EARLY_NONE
	                          : imported ? MW_EARLY_BRIEF
	                                     : MW_EARLY_FULL;
	if (!run->check && !run->prepare && (look != MW_EARLY_NONE || !run->dry) &&
	    mw_target_brief(run->target))
		run->early = mw_early_start(run->target, mailbox, box, run->dry, look);
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	mw_report_unreadable(((struct mw_run *)arg)->report, err);
}

static void
warn_mark(struct mw_cli *cli, const struct args *a)
{
	struct mw_mark_info m;
	struct mw_err err = {0};
	struct mw_store *st;
	if (!a->q.since_mark || cli->quiet)
		return;
	for (size_t i = 0; i < cli->n_journals; i++) {
		st = NULL;
		if (cli->stores && cli->stores[i])
			st = cli->stores[i];
		if (st && mw_mark_find(st, a->q.since_mark, &m, &err) == 0 &&
		    m.state != MW_MARK_COMPLETE)
			fprintf(stderr,
			        "mailwal: warning: mark %s was never completed; a backup "
			        "that "
			        "was restored may be older than it\n",
			        a->q.since_mark);
	}
}

/* The ledger's directory: --state, else "ledger" in the first journal. */
static int
open_ledger(struct mw_cli *cli, const struct args *a, struct mw_ledger **ret,
            struct mw_err *err)
{
	char dir[PATH_MAX];
	int n = a->state ? snprintf(dir, sizeof dir, "%s", a->state)
	                 : snprintf(dir, sizeof dir, "%s/ledger", cli->journals[0]);
	if (n < 0 || n >= (int)sizeof dir)
		return mw_fail(err, MW_EUSAGE, "path too long");
	/* On what can be read back the scan decides: only LMTP and SMTP need to be
	 * remembered. */
	bool blind = mw_target_write_only(a->to);
	bool load = blind || (!a->fresh && a->t.filing == MW_FILE_SIEVE);
	int r = mw_ledger_open(dir, a->to, load, ret, err);
	const char *other = r ? NULL : mw_ledger_other(*ret);
	if (other && !cli->quiet)
		fprintf(stderr,
		        "mailwal: %s is the server %s of earlier runs: what they put "
		        "there counts\n",
		        a->to, other);
	size_t again = !r && blind && a->fresh ? mw_ledger_forget(*ret) : 0;
	if (again)
		fprintf(stderr,
		        "mailwal: warning: %s cannot be asked what it has: of %zu copies "
		        "that earlier runs delivered, or may have, the selected ones go "
		        "there once more (--fresh)\n",
		        a->to, again);
	return r;
}

static int
undo(struct args *a, struct mw_run *run, struct mw_err *err)
{
	a->undo = (struct mw_undo){.ledger = run->ledger,
	                           .target = run->target,
	                           .report = run->report,
	                           .run = a->run,
	                           .dry = a->dry};
	const struct mw_clock *clock = mw_clock_system();
	int64_t start = clock->mono_us(clock);
	int r = a->dry ? 0 : mw_run_clear_left(run->ledger, run->target, err);
	if (!r)
		r = mw_undo_run(&a->undo, err);
	run->report->duration_us = clock->mono_us(clock) - start;
	return r;
}

static int
work(struct mw_cli *cli, struct args *a, struct mw_run *run, struct mw_err *err)
{
	char journal[MW_ID_TEXT + 1] = "-";
	int r = mw_query_users(cli, &a->q, err);
	if (r)
		return r;
	bool touches = a->step == STEP_UNDO ||
	               (!a->dry && (a->step == STEP_RUN || a->step == STEP_PREPARE));
	if (touches || mw_target_write_only(a->to))
		r = open_ledger(cli, a, &run->ledger, err);
	if (r)
		return r;
	if (cli->stores && cli->stores[0])
		mw_id_text(journal, mw_store_id(cli->stores[0]));
	a->t.journal_id = journal;
	if (run->ledger) {
		a->t.ledger_id = mw_ledger_id(run->ledger);
		a->t.run_id = run->report->run_id = mw_ledger_run(run->ledger);
	}
	if (a->t.filing == MW_FILE_SIEVE && !a->dry)
		r = mw_sink_start(a->sink ? a->sink : MW_SINK_DEFAULT, &a->t.sink, err);
	if (!r)
		r = mw_target_new(a->to, &a->t, &run->target, err);
	if (r)
		return r;
	run->report->state = a->state;
	run->report->undoable = mw_target_removes(run->target);
	run->report->again = mw_target_again(cli, run->report, &a->t);
	if (a->step == STEP_VERIFY && !mw_target_readable(run->target))
		return mw_fail(err, MW_EUSAGE,
		               "%s cannot be read back: nothing to verify", a->to);
	if (a->step == STEP_UNDO)
		return undo(a, run, err);
	r = mw_run_queue_find(cli, a->queue, &a->mta_queue, err);
	if (r)
		return r;
	run->queue = a->mta_queue;
	/* Before an early look, which would find the same staging folder. */
	if (run->ledger && !run->dry)
		r = mw_run_clear_left(run->ledger, run->target, err);
	if (r)
		return r;
	if (run->queue)
		run->queue_ahead = mw_queue_ahead_start(run->queue);
	const struct mw_plan_opts po = {.cli = cli,
	                                .query = &a->q,
	                                .target = run->target,
	                                .first_box = on_first_box,
	                                .bad = on_bad,
	                                .arg = run};
	r = mw_plan_make(&po, &run->plan, err);
	if (r)
		return r;
	r = run->plan->n_wanted ? mw_run_queue_first(run, err)
	                        : mw_query_elsewhere(cli, &a->q, err);
	return r ? r : mw_run_all(run, err);
}

/* The end of steps that are no run. */
static int
finish(const struct args *a, const struct mw_run *run, int r, struct mw_err *err)
{
	const char *report = a->report;
	const struct mw_report *rep = run->report;
	struct mw_err second = {0};
	const struct mw_run_shared *sh = run->shared;
	bool undo = a->step == STEP_UNDO;
	const struct mw_err *first = undo ? &a->undo.first : sh ? &sh->first_err : NULL;
	int status = r      ? mw_err_exit(r)
	             : undo ? mw_undo_exit(&a->undo)
	                    : mw_run_exit(run);
	if (r && r != MW_ECANCEL)
		return mw_cli_error(run->cli, err);
	if (!r && first && first->code && status != 0 && status != 3)
		(void)mw_cli_error(run->cli, first);
	if (!run->cli->json)
		mw_report_print(rep, false);
	if (report && mw_report_write(rep, report, &second))
		status = mw_cli_error(run->cli, &second);
	if (run->cli->json) /* it ends with the summary, also where the report is "-" */
		mw_report_print(rep, true);
	if (mw_cli_flush(&second))
		status = mw_cli_error(run->cli, &second);
	return status;
}

int
mw_cmd_replay(struct mw_cli *cli, int argc, char **argv)
{
	struct mw_err err = {0};
	struct mw_report report;
	struct args a = {0};
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!arena || mw_report_init(&report, &err))
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&a.q, arena);
	int status = parse(cli, &a, argc, argv);
	if (!status)
		status = mw_cli_begin(cli);
	if (!status)
		status = by_default(cli, &a);
	if (status) {
		mw_report_done(&report);
		return status;
	}
	report.command = steps[a.step].command;
	report.check = a.step == STEP_VERIFY;
	report.dry = a.dry;
	report.target = a.to;
	/* A run does not do it unasked: one that dies leaves placeholders for the next.
	 */
	uint64_t gap = a.uid_gap_given ? a.uid_gap : a.step == STEP_PREPARE ? UID_GAP : 0;
	struct mw_run run = {.cli = cli,
	                     .report = &report,
	                     .dry = a.dry,
	                     .check = report.check,
	                     .resend_doubtful = a.resend,
	                     .ask_live = !a.yes,
	                     .prepare = a.step == STEP_PREPARE,
	                     .uid_gap = report.check ? 0 : gap,
	                     .jobs = a.jobs};
	(void)signal(SIGPIPE, SIG_IGN); /* a broken connection is an error, not the end */
	mw_cli_catch_signals();
	a.t.sent_folder = cli->conf ? cli->conf->sent_folder : NULL;
	a.t.stopped = mw_cli_stopped;
	a.t.note = mw_cli_note;
	a.t.note_arg = cli;
	warn_mark(cli, &a);
	a.t.delimiter = cli->conf ? cli->conf->recipient_delimiter : NULL;
	run.sieve = a.t.filing == MW_FILE_SIEVE;
	int r = work(cli, &a, &run, &err);
	report.interrupted = report.interrupted || r == MW_ECANCEL;
	report.held_back = a.t.sink ? mw_sink_count(a.t.sink) : 0;
	status = a.step == STEP_UNDO || a.step == STEP_PREPARE
	             ? finish(&a, &run, r, &err)
	             : mw_run_finish(&run, r, &err, a.report);
	mw_early_free(run.early);
	mw_target_free(run.target);
	mw_sink_stop(a.t.sink);
	mw_queue_ahead_free(run.queue_ahead);
	mw_queue_free(a.mta_queue);
	mw_plan_free(run.plan);
	mw_run_done(&run);
	mw_ledger_close(run.ledger);
	mw_report_done(&report);
	return status;
}
