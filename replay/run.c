#include "replay/run.h"

#include "journal/base/clock.h"
#include "replay/known.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	UNREACHABLE_MAX = 3, /* boxes in a row, then the target is given up */
	REFUSED_MAX = 10     /* logins in a row, while none ever worked */
};

static struct mw_store *
store_of(struct mw_run *r, uint32_t journal, struct mw_err *err)
{
	if (r->cli->stores && r->cli->stores[journal])
		return r->cli->stores[journal];
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

int
mw_run_load(struct mw_run *r, const struct mw_plan_rec *rec, struct mw_err *err)
{
	struct mw_store *st = store_of(r, rec->journal, err);
	if (!st)
		return err && err->code ? err->code : MW_EIO;
	mw_arena_reset(r->arena);
	int q = mw_store_get(st, rec->loc, &r->rec, err);
	return q ? q : mw_record_mail(st, &r->rec, r->arena, &r->mail, err);
}

int
mw_run_content(struct mw_run *r, const struct mw_plan_rec *rec,
               int (*sink)(void *, const void *, size_t), void *arg, struct mw_err *err)
{
	int q = mw_run_load(r, rec, err);
	if (q)
		return q;
	return mw_record_body(store_of(r, rec->journal, err), &r->rec, &r->mail, sink,
	                      arg, err);
}

int
mw_run_fate(struct mw_run *r, struct mw_plan_copy *c, enum mw_fate fate,
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
		if (c->ambiguous) {
			rep->ambiguous++;
			kind = "ambiguous";
			reason =
			    "a message with the same Message-ID is there, but cannot be "
			    "told to be this one; put back";
		}
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
	mw_progress_add(&r->progress, 1, fate == MW_FATE_RESTORED ? rec->size : 0);
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
		if (b->v[i].wanted &&
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

static int
after_box(struct mw_run *r, struct mw_plan_box *b, int code, const struct mw_err *why,
          struct mw_err *err)
{
	char reason[sizeof why->msg + sizeof why->hint + 8];
	if (!code) {
		r->any_box_ok = true;
		r->unreachable = 0;
		return 0;
	}
	if (code == MW_ECANCEL || code == MW_ENOMEM) {
		if (err)
			*err = *why;
		return code;
	}
	if (!r->first_code) {
		r->first_code = code;
		r->first_err = *why;
	}
	r->unreachable = is_unreachable(code) ? r->unreachable + 1 : 0;
	r->refused = code == MW_EAUTH ? r->refused + 1 : 0;
	(void)snprintf(reason, sizeof reason, why->hint[0] ? "%s (%s)" : "%s", why->msg,
	               why->hint);
	return fail_box(r, b, reason) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}

int
mw_run_all(struct mw_run *r, struct mw_err *err)
{
	struct mw_plan *p = r->plan;
	const struct mw_clock *clk = mw_clock_system();
	int64_t start = clk->mono_us(clk);
	int q = 0;
	r->report->selected = p->n_wanted;
	r->report->unreadable = p->unreadable;
	r->report->mailboxes = p->n_box;
	r->report->dry = r->dry;
	r->arena = mw_arena_new(0);
	if (!r->arena)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	mw_progress_start(&r->progress, p->n_wanted, r->cli->quiet || r->cli->json);
	for (size_t i = 0; i < p->n_box && !q; i++) {
		struct mw_plan_box *b = &p->box[i];
		struct mw_err why = {0};
		r->box = b;
		if (mw_cli_stopped()) {
			q = mw_fail(err, MW_ECANCEL, "interrupted");
			break;
		}
		mw_progress_what(&r->progress, b->shared ? b->box : b->mailbox);
		/* Nothing was ever reached, or the target is gone: no more tries. */
		bool give_up = r->unreachable >= (r->any_box_ok ? UNREACHABLE_MAX : 1) ||
		               (!r->any_box_ok && r->refused >= REFUSED_MAX);
		int code = give_up ? mw_fail(&why, r->first_code, "%s", r->first_err.msg)
		                   : mw_run_box(r, b, &why);
		q = after_box(r, b, code, &why, err);
	}
	mw_progress_clear(&r->progress);
	r->report->duration_us = clk->mono_us(clk) - start;
	r->report->interrupted = q == MW_ECANCEL;
	return q;
}

void
mw_run_done(struct mw_run *r)
{
	for (size_t i = 0; r->stores && i < r->cli->n_journals; i++)
		mw_store_close(r->stores[i]);
	free(r->stores);
	mw_arena_free(r->arena);
}

int
mw_run_exit(const struct mw_run *r)
{
	const struct mw_report *p = r->report;
	if (p->interrupted)
		return 130;
	if (!p->failed && !p->doubtful && !p->unreadable)
		return 0;
	if (r->first_code && !r->any_box_ok && !p->restored && !p->already_there)
		return mw_err_exit(r->first_code); /* nothing could be done at all */
	return 3;
}

int
mw_run_finish(struct mw_run *run, int r, struct mw_err *err, const char *report)
{
	const struct mw_cli *cli = run->cli;
	struct mw_err second = {0};
	int status = r ? mw_err_exit(r) : mw_run_exit(run), s = 0;
	if (!run->plan)
		return mw_cli_error(cli, err);
	if (r && r != MW_ECANCEL)
		(void)mw_cli_error(cli, err);
	else if (!r && status != 0 && status != 3)
		(void)mw_cli_error(cli, &run->first_err);
	if (!r && !run->report->selected && !cli->quiet)
		fprintf(stderr,
		        "mailwal: the selection names no mail that belongs into a "
		        "mailbox here\n");
	if (run->empty_boxes && !cli->quiet)
		fprintf(stderr,
		        "mailwal: warning: %llu mailboxes are empty, and %llu messages "
		        "delivered there before the mark count as removed: was the "
		        "backup restored?\n",
		        (unsigned long long)run->empty_boxes,
		        (unsigned long long)run->empty_removed);
	mw_report_print(run->report, cli->json);
	if (report && mw_report_write(run->report, report, &second))
		s = mw_cli_error(cli, &second);
	if (mw_cli_flush(&second))
		s = mw_cli_error(cli, &second);
	return status ? status : s;
}
