#include "replay/run.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/store/later.h"
#include "replay/known.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	UNREACHABLE_MAX = 3, /* boxes in a row, then the target is given up */
	REFUSED_MAX = 10     /* logins in a row, while none ever worked */
};

struct mw_store *
mw_run_store(struct mw_run *r, uint32_t journal, struct mw_err *err)
{
	if (!r->stores)
		r->stores = calloc(r->cli->n_journals, sizeof *r->stores);
	if (!r->stores) {
		(void)mw_fail(err, MW_ENOMEM, "out of memory");
		return NULL;
	}
	if (!r->stores[journal] && mw_cli_open(r->cli, journal, &r->stores[journal], err))
		r->stores[journal] = NULL;
	return r->stores[journal];
}

void
mw_run_close_stores(struct mw_run *r)
{
	for (size_t i = 0; r->stores && i < r->cli->n_journals; i++)
		mw_store_close(MW_TAKE(r->stores[i]));
}

int
mw_run_load(struct mw_run *r, const struct mw_plan_rec *rec, struct mw_err *err)
{
	struct mw_store *st = mw_run_store(r, rec->journal, err);
	if (!st)
		return err && err->code ? err->code : MW_EIO;
	mw_arena_reset(r->arena);
	int q = mw_store_get_seq(st, rec->loc, rec->seq, &r->rec, err);
	return q ? q : mw_later_mail(st, &r->rec, r->arena, &r->mail, err);
}

int
mw_run_content(struct mw_run *r, const struct mw_plan_rec *rec,
               int (*sink)(void *, const void *, size_t), void *arg, struct mw_err *err)
{
	int q = mw_run_load(r, rec, err);
	if (q)
		return q;
	return mw_record_body(mw_run_store(r, rec->journal, err), &r->rec, &r->mail, sink,
	                      arg, err);
}

/* Why a copy that was put back may be one too many; NULL: nothing says so. */
static const char *
doubt_of(const struct mw_run *r, const struct mw_plan_copy *c)
{
	if (c->ambiguous)
		return "a message with the same Message-ID is there, but cannot be told "
		       "to be this one; put back";
	if (c->known == MW_KNOWN_UNSURE)
		return "it came before the backup had ended and is not in it: its user "
		       "may have removed it; put back";
	if (c->twin)
		return "the same message came again, and the mail server's log tells of "
		       "that one only: it may be one too many; put back";
	if (r->queue_unread && c->may_wait)
		return "the mail server's queue could not be read, and its log does not "
		       "say that it was delivered: it may come once more; put back";
	return NULL;
}

static int
count_fate(struct mw_run *r, struct mw_plan_copy *c, enum mw_fate fate,
           const char *reason)
{
	struct mw_report *rep = r->report;
	const struct mw_plan_rec *rec = &r->plan->rec[c->rec];
	const char *kind = NULL;
	c->fate = (uint8_t)fate;
	switch (fate) {
	case MW_FATE_PRESENT:
		rep->already_there++;
		break;
	case MW_FATE_RESTORED:
		rep->restored++;
		rep->bytes += rec->size;
		reason = doubt_of(r, c);
		if (!reason)
			break;
		rep->ambiguous++;
		kind = "ambiguous";
		break;
	case MW_FATE_FAILED:
		rep->failed++;
		kind = "failed";
		break;
	case MW_FATE_DOUBTFUL:
		rep->doubtful++;
		kind = "doubtful";
		break;
	case MW_FATE_SKIPPED:
		rep->skipped++;
		kind = "skipped";
		break;
	case MW_FATE_REMOVED:
		rep->removed++;
		kind = "removed";
		reason = "delivered before the backup began and not in it: removed by "
		         "its user";
		break;
	case MW_FATE_REFUSED:
		rep->refused++;
		kind = "refused";
		reason = "the mail server refused or discarded it after the capture";
		break;
	case MW_FATE_BOUNCED:
		rep->bounced++;
		kind = "bounced";
		reason = "the mail server bounced it or gave it up";
		break;
	case MW_FATE_QUEUED:
		rep->queued++;
		kind = "queued";
		reason = "in the mail server's queue: it will deliver it";
		break;
	case MW_FATE_OPEN:
	case MW_FATE_TRIED:
		return 0;
	}
	mw_progress_add(&r->shared->progress, 1,
	                fate == MW_FATE_RESTORED ? rec->size : 0);
	if (!kind)
		return 0;
	const struct mw_plan_box *b = r->box;
	const struct mw_issue what = {.mailbox = b->shared ? b->box : b->mailbox,
	                              .kind = kind,
	                              .reason = reason ? reason : "",
	                              .sent = c->sent,
	                              .time_us = rec->time_us};
	return mw_report_issue(rep, rec->id, &what);
}

int
mw_run_fate(struct mw_run *r, struct mw_plan_copy *c, enum mw_fate fate,
            const char *reason)
{
	(void)pthread_mutex_lock(&r->shared->mu);
	int q = count_fate(r, c, fate, reason);
	(void)pthread_mutex_unlock(&r->shared->mu);
	return q;
}

enum mw_fate
mw_run_known_fate(const struct mw_plan_copy *c)
{
	switch ((enum mw_known_class)c->known) {
	case MW_KNOWN_REFUSED:
		return MW_FATE_REFUSED;
	case MW_KNOWN_BOUNCED:
		return MW_FATE_BOUNCED;
	case MW_KNOWN_QUEUED:
		return MW_FATE_QUEUED;
	case MW_KNOWN_OLD:
		return MW_FATE_REMOVED;
	case MW_KNOWN_NOTHING:
	case MW_KNOWN_UNSURE:
		break;
	}
	return MW_FATE_OPEN;
}

bool
mw_run_never_arrived(const struct mw_plan_copy *c)
{
	return c->known == MW_KNOWN_REFUSED || c->known == MW_KNOWN_BOUNCED;
}

/* Every copy still open shares the box's fate; what the MTA did not deliver, or will, is
 * not missing there. */
static int
fail_box(struct mw_run *r, struct mw_plan_box *b, const char *reason)
{
	int q = 0;
	for (size_t i = 0; i < b->n && !q; i++)
		if (b->v[i].wanted && b->v[i].waits != MW_WAITS_YES &&
		    (b->v[i].fate == MW_FATE_OPEN || b->v[i].fate == MW_FATE_TRIED))
			q = mw_run_never_arrived(&b->v[i]) ||
			            b->v[i].known == MW_KNOWN_QUEUED
			        ? mw_run_fate(r, &b->v[i], mw_run_known_fate(&b->v[i]),
			                      NULL)
			        : mw_run_fate(r, &b->v[i], MW_FATE_FAILED, reason);
	return q;
}

static bool
is_unreachable(int code)
{
	return code == MW_EUNAVAIL || code == MW_ETIMEOUT;
}

/* Does it say nothing against the box itself? */
static bool
may_pass(int code)
{
	return is_unreachable(code) || code == MW_EPROTO || code == MW_ELOCKED ||
	       code == MW_EIO || code == MW_ENOSPC;
}

/* Is it no matter of one box? */
static bool
ends_all(int code)
{
	return code == MW_ECANCEL || code == MW_EDECLINED || code == MW_ENOMEM;
}

/* How one box ended, for what follows. */
static void
note_box(struct mw_run_shared *sh, int code, const struct mw_err *why)
{
	(void)pthread_mutex_lock(&sh->mu);
	if (!code) {
		sh->any_box_ok = true;
		sh->unreachable = 0;
	} else if (ends_all(code)) {
		if (!sh->result)
			sh->result_err = *why;
		sh->result = sh->result ? sh->result : code;
	} else {
		if (!sh->first_code) {
			sh->first_code = code;
			sh->first_err = *why;
		}
		if (!sh->away.code && may_pass(code)) {
			sh->away = *why;
			sh->away.code = code;
		}
		if (is_unreachable(code))
			sh->gone = *why;
		sh->unreachable = is_unreachable(code) ? sh->unreachable + 1 : 0;
		sh->refused = code == MW_EAUTH ? sh->refused + 1 : 0;
	}
	(void)pthread_mutex_unlock(&sh->mu);
}

static void
after_box(struct mw_run *r, struct mw_plan_box *b, int code, const struct mw_err *why)
{
	char reason[sizeof why->msg + sizeof why->hint + 8];
	struct mw_err oom = {0};
	if (!code || ends_all(code))
		return;
	(void)snprintf(reason, sizeof reason, why->hint[0] ? "%s (%s)" : "%s", why->msg,
	               why->hint);
	if (fail_box(r, b, reason))
		note_box(r->shared, mw_fail(&oom, MW_ENOMEM, "out of memory"), &oom);
}

/* Nothing was ever reached and nobody is still at it, or the target has been away for as
 * many boxes as all threads together can have had under way. */
static bool
target_gone(const struct mw_run_shared *sh)
{
	return sh->any_box_ok ? sh->unreachable >= UNREACHABLE_MAX * sh->threads
	                      : sh->unreachable >= 1 && sh->working == 0;
}

/* The next box to work on, or NULL. give_up: no more tries; why says so. */
static struct mw_plan_box *
take_box(struct mw_run *r, bool *give_up, struct mw_err *why)
{
	struct mw_run_shared *sh = r->shared;
	struct mw_plan_box *b = NULL;
	(void)pthread_mutex_lock(&sh->mu);
	if (mw_cli_stopped() && !sh->result)
		sh->result = mw_fail(&sh->result_err, MW_ECANCEL, "interrupted");
	while (sh->second && sh->next_box < r->plan->n_box &&
	       !r->plan->box[sh->next_box].again)
		sh->next_box++;
	if (!sh->result && sh->next_box < r->plan->n_box) {
		b = &r->plan->box[sh->next_box++];
		mw_progress_what(&sh->progress, b->shared ? b->box : b->mailbox);
		bool gone = target_gone(sh);
		*give_up = gone || (!sh->any_box_ok && sh->refused >= REFUSED_MAX);
		*why = gone ? sh->gone : sh->first_err;
		sh->working += !*give_up;
	}
	(void)pthread_mutex_unlock(&sh->mu);
	return b;
}

static void *
work(void *arg)
{
	struct mw_run *r = arg;
	struct mw_err why = {0};
	bool give_up;
	while ((r->box = take_box(r, &give_up, &why)) != NULL) {
		int code = give_up ? why.code : 0;
		if (!give_up) {
			why = (struct mw_err){0};
			code = mw_run_box(r, r->box, &why);
			(void)pthread_mutex_lock(&r->shared->mu);
			r->shared->working--;
			(void)pthread_mutex_unlock(&r->shared->mu);
			note_box(r->shared, code, &why);
		}
		after_box(r, r->box, code, &why);
	}
	return NULL;
}

/* What is a thread's own. */
static void
thread_done(struct mw_run *r)
{
	mw_run_close_stores(r);
	free(r->stores);
	mw_arena_free(r->arena);
}

struct worker {
	struct mw_run run;
	pthread_t thread;
	bool started;
};

static void
worker_done(struct worker *w)
{
	mw_target_free(w->run.target);
	thread_done(&w->run);
}

/* A thread beside the first; that it cannot be had is no failure. */
static bool
worker_start(struct worker *w, const struct mw_run *r)
{
	w->run = *r;
	w->run.target = NULL;
	w->run.stores = NULL;
	w->run.arena = mw_arena_new(0);
	if (w->run.arena && mw_target_clone(r->target, &w->run.target) == 0)
		w->started = pthread_create(&w->thread, NULL, work, &w->run) == 0;
	if (!w->started)
		worker_done(w);
	return w->started;
}

static void
work_all(struct mw_run *r)
{
	size_t n = r->jobs ? r->jobs : MW_JOBS_DEFAULT, k = 0;
	if (n > r->plan->n_box)
		n = r->plan->n_box;
	r->shared->threads = n ? (unsigned)n : 1;
	struct worker *w = n > 1 ? calloc(n - 1, sizeof *w) : NULL;
	while (w && k < n - 1 && worker_start(&w[k], r))
		k++;
	work(r);
	for (size_t i = 0; i < k; i++) {
		(void)pthread_join(w[i].thread, NULL);
		worker_done(&w[i]);
	}
	free(w);
}

/* The boxes of what has left the MTA's queue meanwhile, once more. */
static void
after_queue(struct mw_run *r)
{
	struct mw_run_shared *sh = r->shared;
	bool any = false;
	sh->result = mw_run_queue_again(r, &any, &sh->result_err);
	if (sh->result || !any)
		return;
	sh->second = true;
	sh->next_box = 0;
	work_all(r);
}

int
mw_run_all(struct mw_run *r, struct mw_err *err)
{
	struct mw_plan *p = r->plan;
	const struct mw_clock *clk = mw_clock_system();
	int64_t start = clk->mono_us(clk);
	r->report->selected = p->n_wanted;
	r->report->unreadable = p->unreadable;
	r->report->mailboxes = p->n_box;
	r->report->dry = r->dry;
	int left =
	    r->ledger && !r->dry ? mw_run_clear_left(r->ledger, r->target, err) : 0;
	r->report->interrupted = left == MW_ECANCEL;
	if (left)
		return left;
	r->arena = mw_arena_new(0);
	r->shared = calloc(1, sizeof *r->shared);
	if (!r->arena || !r->shared)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	struct mw_run_shared *sh = r->shared;
	(void)pthread_mutex_init(&sh->mu, NULL);
	mw_rate_init(&sh->rate, &r->target->o.rate);
	mw_progress_start(&sh->progress, p->n_wanted, r->cli->quiet || r->cli->json);
	work_all(r);
	if (!sh->result && r->queue)
		after_queue(r);
	mw_progress_clear(&sh->progress);
	r->report->duration_us = clk->mono_us(clk) - start;
	r->report->interrupted = sh->result == MW_ECANCEL;
	if (sh->result && err)
		*err = sh->result_err;
	return sh->result;
}

void
mw_run_done(struct mw_run *r)
{
	thread_done(r);
	if (r->shared) {
		(void)pthread_mutex_destroy(&r->shared->mu);
		mw_rate_done(&r->shared->rate);
	}
	free(r->shared);
	r->shared = NULL;
}

int
mw_run_exit(const struct mw_run *r)
{
	const struct mw_report *p = r->report;
	const struct mw_run_shared *sh = r->shared;
	if (p->interrupted)
		return 130;
	if (!p->failed && !p->doubtful && !p->unreadable)
		return 0;
	if (p->no_key && !p->selected)
		return mw_err_exit(MW_EKEY);
	if (sh && sh->first_code && !sh->any_box_ok && !p->restored && !p->already_there)
		return mw_err_exit(sh->first_code); /* nothing could be done at all */
	return r->check ? 1 : 3;
}

int
mw_run_finish(struct mw_run *run, int r, struct mw_err *err, const char *report)
{
	const struct mw_cli *cli = run->cli;
	const struct mw_run_shared *sh = run->shared;
	struct mw_err second = {0};
	int status = r ? mw_err_exit(r) : mw_run_exit(run), s = 0;
	if (!run->plan && r != MW_ECANCEL)
		return mw_cli_error(cli, err);
	run->report->interrupted = run->report->interrupted || r == MW_ECANCEL;
	if (r && r != MW_ECANCEL)
		(void)mw_cli_error(cli, err);
	else if (!r && sh && sh->first_code && status != 0 && status != 3)
		(void)mw_cli_error(cli, &sh->first_err);
	if (!r && !run->report->selected && !run->report->no_key && !cli->quiet)
		fprintf(stderr,
		        "mailwal: the selection names no mail that belongs into a "
		        "mailbox here\n");
	if (sh && sh->empty_boxes && !cli->quiet)
		fprintf(stderr,
		        "mailwal: warning: %llu mailboxes are empty, and %llu messages "
		        "delivered there before the mark count as removed: was the "
		        "backup restored?\n",
		        (unsigned long long)sh->empty_boxes,
		        (unsigned long long)sh->empty_removed);
	if (!cli->json)
		mw_report_print(run->report, false);
	if (report && mw_report_write(run->report, report, &second))
		s = mw_cli_error(cli, &second);
	if (cli->json) /* it ends with the summary, also where the report is "-" */
		mw_report_print(run->report, true);
	if (mw_cli_flush(&second))
		s = mw_cli_error(cli, &second);
	return status ? status : s;
}
