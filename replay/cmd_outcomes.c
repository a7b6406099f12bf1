/* cmd_outcomes.c - mailwal outcomes: what became of captured mail, from the MTA's log. */
#include "journal/base/util.h"
#include "replay/logsrc.h"
#include "replay/outcomes.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
	NAP_MS = 500,
	STATE_LINES = 20000, /* read at most this many lines before noting so */
	UNREAD_LINES = 100,  /* following: so many that cannot be read are an error */
	SAVE_TICKS = 10,
	IDLE_TICKS = 120 /* a quiet log is noted to be read too: replay asks when */
};

struct job {
	struct mw_cli *cli;
	struct mw_gather g;
	struct mw_logsrc_state state;
	char ledger[PATH_MAX], file[PATH_MAX];
	bool follow, fresh;
	const char **log;
	size_t n_log;
	struct mw_logsrc *src; /* following: of each log */
	uint64_t lines;
	unsigned since_save;
	bool dirty;
	size_t open; /* of src */
};

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("outcomes");
}

static int
parse(struct job *j, int argc, char **argv)
{
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "-f|--follow", NULL, &err);
		if (r > 0) {
			j->follow = true;
			continue;
		}
		if (r == 0)
			r = mw_cli_option(argc, argv, &i, "--fresh", NULL, &err);
		if (r < 0)
			return mw_cli_error(j->cli, &err);
		if (r > 0)
			j->fresh = true;
		else if (argv[i][0] == '-' && argv[i][1])
			return mw_cli_unknown(j->cli, self(), argv[i]);
		else
			j->log[j->n_log++] = argv[i];
	}
	if (!j->n_log)
		return mw_cli_usage(j->cli, self(), "which log? a file, - or journald");
	return 0;
}

static int
keep_untaken(struct job *j)
{
	json_decref(j->state.beside);
	j->state.beside = mw_untaken_save(&j->g.untaken);
	return j->state.beside ? 0 : MW_ENOMEM;
}

/* Writes what was gathered, then how far the logs were read: in this order, so that a
 * crash in between makes a fact be met again and not be missed. */
static int
save(struct job *j, struct mw_err *err)
{
	int r = mw_gather_flush(&j->g, err);
	for (size_t i = 0; i < j->n_log && j->src && r == 0; i++)
		if (j->src[i].fd >= 0 && mw_logsrc_note(&j->src[i], &j->state))
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0 && keep_untaken(j))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0)
		r = mw_cli_as_owner(j->cli->journals[0], err);
	if (r == 0)
		r = mw_logsrc_save(&j->state, j->ledger, "outcomes.state", err);
	mw_cli_as_self();
	j->since_save = 0;
	j->dirty = false;
	return r;
}

/* All lines that there are now. */
static int
drain(struct job *j, struct mw_logsrc *l, int wait_ms, struct mw_err *err)
{
	struct mw_str line;
	struct mw_mta_event e;
	int r = 0;
	while (r == 0 && !mw_cli_stopped()) {
		int got = mw_logsrc_line(l, &line, wait_ms, err);
		if (got <= 0)
			return got;
		j->lines++;
		j->since_save++;
		j->dirty = true;
		bool some = mw_mtalog_line(line, l->ref_us, &e);
		l->stamped = l->stamped || e.time_us;
		if (e.time_us > l->time_us)
			l->time_us = e.time_us;
		if (some)
			r = mw_gather_event(&j->g, &e, err);
		if (r == 0 && (mw_gather_full(&j->g) || j->since_save >= STATE_LINES)) {
			if (!j->src && mw_logsrc_note(l, &j->state))
				r = mw_fail(err, MW_ENOMEM, "out of memory");
			if (r == 0)
				r = save(j, err);
		}
	}
	return r;
}

static int
read_once(struct job *j, const char *path, struct mw_err *err)
{
	struct mw_logsrc l;
	int r = mw_logsrc_open(&l, path, j->fresh ? NULL : &j->state, false, err);
	if (r == 0)
		r = drain(j, &l, -1, err);
	if (r == 0 && mw_logsrc_note(&l, &j->state))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	struct mw_err second;
	int c = mw_logsrc_close(&l, r ? &second : err);
	if (r == 0 && c == 0)
		c = mw_logsrc_check(&l, err);
	return r ? r : c;
}

/* What is left unread of a log that was rotated since. */
static int
read_rest(struct job *j, const char *path, struct mw_err *err)
{
	MW_AUTOFREE char *rest = mw_logsrc_rest(path, &j->state);
	if (rest)
		for (size_t i = 0; i < j->n_log; i++)
			if (strcmp(j->log[i], rest) == 0)
				return 0; /* its turn comes or was */
	return rest ? read_once(j, rest, err) : 0;
}

/* ---- following ---- */

static int
open_followed(struct job *j, size_t i, struct mw_err *err)
{
	int r = read_rest(j, j->log[i], err);
	if (r == 0)
		r = mw_logsrc_open(&j->src[i], j->log[i], &j->state, true, err);
	return r;
}

static int
tick(struct job *j, size_t i, struct mw_err *err)
{
	struct mw_logsrc *l = &j->src[i];
	if (l->fd < 0)
		return 0;
	int rotated = mw_logsrc_rotated(l); /* asked first: then read to the end */
	int r = drain(j, l, 0, err);
	bool ended = l->ended;
	if (r == 0 && ended)
		r = mw_logsrc_close(l, err);
	if (r == 0 && (ended || l->lines > UNREAD_LINES))
		r = mw_logsrc_check(l, err);
	if (r || rotated <= 0 || l->fd < 0)
		return r;
	if (mw_logsrc_note(l, &j->state))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = mw_logsrc_close(l, err);
	return r ? r : mw_logsrc_open(l, j->log[i], &j->state, true, err);
}

/* A daemon that restarts is away for a moment: what was gathered stays, and is tried
 * again. */
static bool
passing(int code)
{
	return code == MW_ELOCKED || code == MW_EUNAVAIL || code == MW_ETIMEOUT;
}

/* One look at each log; what was learned is written every few seconds, since each write
 * costs the disk a sync. */
static int
round_of(struct job *j, unsigned tick_no, struct mw_err *err)
{
	int r = 0;
	j->open = 0;
	for (size_t i = 0; i < j->n_log && r == 0; i++) {
		r = tick(j, i, err);
		j->open += j->src[i].fd >= 0;
	}
	if (r == 0 && tick_no % (j->dirty ? SAVE_TICKS : IDLE_TICKS) == 0)
		r = save(j, err);
	return r;
}

static int
watch(struct job *j, struct mw_err *err)
{
	unsigned tick_no = 0, failed = 0;
	int r = 0;
	for (;;) {
		r = round_of(j, tick_no++, err);
		failed = r ? failed + 1 : 0;
		if (r && (!passing(r) || failed > IDLE_TICKS))
			return r;
		if ((r == 0 && !j->open) || mw_cli_stopped())
			break;
		(void)poll(NULL, 0, NAP_MS);
	}
	return j->dirty ? save(j, err) : r;
}

static int
follow(struct job *j, struct mw_err *err)
{
	int r = 0;
	struct mw_logsrc *src = calloc(j->n_log, sizeof *src);
	if (!src)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < j->n_log; i++)
		src[i].fd = -1;
	j->src = src;
	for (size_t i = 0; i < j->n_log && r == 0; i++)
		r = open_followed(j, i, err);
	if (r == 0)
		r = watch(j, err);
	for (size_t i = 0; i < j->n_log; i++)
		(void)mw_logsrc_close(&src[i], NULL);
	j->src = NULL;
	free(src);
	return r;
}

static int
work(struct job *j, struct mw_err *err)
{
	const char *dir = j->cli->journals[0];
	if (snprintf(j->ledger, sizeof j->ledger, "%s/ledger", dir) >=
	        (int)sizeof j->ledger ||
	    snprintf(j->file, sizeof j->file, "%s/ledger/outcomes.state", dir) >=
	        (int)sizeof j->file)
		return mw_fail(err, MW_EUSAGE, "path too long");
	int r = mw_logsrc_load(j->file, &j->state, err);
	/* The gatherer opens its own: a flush may have to open the journal to write. */
	mw_store_close(MW_TAKE(j->cli->stores[0]));
	if (r == 0)
		r = mw_gather_init(&j->g, j->cli, err);
	if (r == 0 && !j->fresh && mw_untaken_load(&j->g.untaken, j->state.beside))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0 && j->follow)
		return follow(j, err);
	for (size_t i = 0; i < j->n_log && r == 0 && !mw_cli_stopped(); i++) {
		if (!j->fresh)
			r = read_rest(j, j->log[i], err);
		if (r == 0)
			r = read_once(j, j->log[i], err);
	}
	if (r == 0)
		return save(j, err);
	/* What was learned before a log proved to be damaged is so all the same. */
	struct mw_err second;
	if (r != MW_ENOMEM)
		(void)!mw_gather_flush(&j->g, &second);
	return r;
}

static void
tell(const struct job *j)
{
	const struct mw_gather *g = &j->g;
	if (g->early)
		fprintf(
		    stderr,
		    "mailwal: warning: the log tells of %llu messages before they were "
		    "captured; set TZ to the zone of its time stamps\n",
		    (unsigned long long)g->early);
	if (j->cli->json) {
		json_t *o =
		    json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		              "message_type", "summary", "command", "outcomes", "lines",
		              (json_int_t)j->lines, "events", (json_int_t)g->events,
		              "outcomes_written", (json_int_t)g->written, "records",
		              (json_int_t)g->records, "unknown_queue_ids",
		              (json_int_t)g->unknown, "too_early", (json_int_t)g->early,
		              "selected", (json_int_t)g->events);
		mw_cli_json(o);
	} else if (!j->cli->quiet) {
		printf("%llu lines, %llu events; %llu outcomes noted, %llu queue IDs are "
		       "not in the journal\n",
		       (unsigned long long)j->lines, (unsigned long long)g->events,
		       (unsigned long long)g->written, (unsigned long long)g->unknown);
	}
}

int
mw_cmd_outcomes(struct mw_cli *cli, int argc, char **argv)
{
	struct job j = {.cli = cli};
	struct mw_err err = {0};
	MW_AUTOFREE const char **log = calloc((size_t)argc + 1, sizeof *log);
	j.log = log;
	if (!log)
		return mw_err_exit(MW_ENOMEM);
	int status = parse(&j, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status)
		return status;
	int r = work(&j, &err);
	mw_gather_done(&j.g);
	mw_logsrc_state_done(&j.state);
	if (r < 0)
		return mw_cli_error(cli, &err);
	tell(&j);
	if (!mw_cli_stopped())
		return 0;
	return mw_cli_flush(&err) < 0 ? mw_cli_error(cli, &err) : mw_err_exit(MW_ECANCEL);
}
