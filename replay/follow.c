#include "replay/follow.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/known.h"
#include "replay/run.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

enum {
	WAIT_MS = 500, /* at most until the log is looked at again */
	SAVE_S = 1,
	TELL_S = 10,
	DELAY_MS = 500, /* after a failure; doubled up to the most */
	DELAY_MOST_MS = 15000
};

void
mw_follow_failed(struct mw_follow *f, const uint8_t *id, const char *mailbox,
                 const char *why)
{
	char text[MW_ID_TEXT + 1];
	mw_id_text(text, id);
	f->sum.failed++;
	if (f->cli->json) {
		mw_cli_json(json_pack("{s:s, s:s, s:o, s:o}", "message_type", "failed",
		                      "id", text, "mailbox",
		                      mw_json_str(mw_strz(mailbox)), "reason",
		                      mw_json_str(mw_strz(why))));
		return;
	}
	MW_BUF_AUTO box = {0}, reason = {0};
	mw_text_safe(mw_strz(mailbox), false, &box);
	mw_text_safe(mw_strz(why), false, &reason);
	fprintf(stderr, "mailwal: not put there: %.*s for %s: %s\n", MW_ID_SHORT, text,
	        mw_buf_cstr(&box), mw_buf_cstr(&reason));
}

/* ---- careful ---- */

/* A standby has nothing of what the mail server's queue will bring to the main store. */
static void
forget_queue(struct mw_plan *p)
{
	for (size_t i = 0; i < p->n_box; i++)
		for (size_t k = 0; k < p->box[i].n; k++)
			if (p->box[i].v[k].known == MW_KNOWN_QUEUED)
				p->box[i].v[k].known = MW_KNOWN_NOTHING;
}

/* After a run: 1 the target was away in some of it; negative: it let nobody in at all. */
static int
judge(struct mw_follow *f, const struct mw_run *run, bool first, struct mw_err *err)
{
	const struct mw_run_shared *sh = run->shared;
	const struct mw_report *rep = run->report;
	if (sh->first_code && err)
		*err = sh->first_err;
	if (mw_follow_passing(sh->first_code, sh->first_err.msg))
		return 1;
	if (sh->away.code) { /* whatever failed before it: its mail is still to come */
		if (err)
			*err = sh->away;
		return 1;
	}
	if (first && sh->first_code && !sh->any_box_ok && !rep->restored)
		return sh->first_code;
	mw_err_clear(err);
	f->sum.stored += rep->restored;
	f->sum.already_there += rep->already_there;
	f->sum.unreadable += rep->unreadable;
	for (size_t i = 0; i < rep->n_issue; i++) {
		const struct mw_issue *x = &rep->issue[i];
		uint8_t id[MW_ID_LEN] = {0};
		unsigned bits;
		if (strcmp(x->kind, "failed") != 0)
			continue;
		(void)mw_id_parse(x->id, id, &bits);
		mw_follow_failed(f, id, x->mailbox, x->reason);
	}
	return 0;
}

/* After a run that is done: what the mailboxes are now. 1: they are out of reach, so that
 * the run counts as not done. */
static int
note_boxes(struct mw_follow *f, const struct mw_plan *p,
           const struct mw_follow_sum *before, struct mw_err *err)
{
	int r = mw_follow_boxes_note(f, p, err);
	if (r != MW_EUNAVAIL && r != MW_ETIMEOUT)
		return r;
	f->sum = *before;
	return 1;
}

/* Where to begin counts for the first start alone. Later "now" is another time, and the
 * last mark another one: what came since the standby was left is not to be passed over.
 */
static void
begin_no_more(const struct mw_follow *f, const struct mw_span *span, struct mw_query *q)
{
	const struct mw_clock *clock = mw_clock_system();
	for (size_t k = 0; k < f->cli->n_journals; k++)
		if (span[k].from <= 1 && span[k].to > span[k].from)
			return;
	q->since_mark = NULL;
	q->overlap_us = 0;
	if (q->since_us <= clock->now_us(clock))
		q->since_us = INT64_MIN;
}

/* anew: only of mailboxes that are others by now. 1: the target is away. */
static int
run_span(struct mw_follow *f, const struct mw_span *span, bool first, bool anew,
         struct mw_err *err)
{
	struct mw_report rep;
	struct mw_run run = {.cli = f->cli,
	                     .target = f->target,
	                     .ledger = f->ledger,
	                     .report = &rep,
	                     .retries_stand = true};
	struct mw_query q = f->q;
	const struct mw_follow_sum before = f->sum;
	const struct mw_plan_opts po = {.cli = f->cli, .query = &q, .target = f->target};
	int r = mw_report_init(&rep, err);
	if (r < 0)
		return r;
	q.span = span;
	if (!anew)
		begin_no_more(f, span, &q);
	rep.command = "follow";
	rep.target = f->to;
	rep.run_id = mw_ledger_run(f->ledger);
	r = mw_plan_make(&po, &run.plan, err);
	if (r == 0) {
		forget_queue(run.plan);
		if (anew)
			mw_follow_boxes_only_anew(f, run.plan);
		r = mw_run_all(&run, err);
	}
	if (r == 0)
		r = judge(f, &run, first, err);
	if (r == 0)
		r = note_boxes(f, run.plan, &before, err);
	mw_plan_free(run.plan);
	mw_run_done(&run);
	mw_report_done(&rep);
	return r;
}

static void
note(struct mw_follow *f, const char *what, const char *why)
{
	if (f->cli->json)
		mw_cli_json(json_pack("{s:s, s:s, s:o}", "message_type", what, "target",
		                      mw_target_name(f->target), "reason",
		                      mw_json_str(mw_strz(why))));
	else if (!f->cli->quiet)
		fprintf(stderr, "mailwal: %s%s%s\n", what, *why ? ": " : "", why);
	(void)fflush(stdout); /* a line for whoever watches; the end tells of failure */
}

/* Mailboxes that are not those that were filled get all that the log has for them, up to
 * end. As careful. */
static int
fill_again(struct mw_follow *f, const struct mw_follow_pos *end, struct mw_err *err)
{
	size_t n = f->cli->n_journals;
	MW_AUTOFREE struct mw_span *span = calloc(n, sizeof *span);
	MW_BUF_AUTO text = {0};
	int r = span ? mw_follow_boxes_check(f, err)
	             : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == MW_EUNAVAIL || r == MW_ETIMEOUT)
		return 1;
	if (r < 0 || !mw_follow_boxes_anew(f, &text))
		return r;
	note(f, "replaced", mw_buf_cstr(&text));
	for (size_t k = 0; k < n; k++)
		span[k] = (struct mw_span){1, end[k].next};
	r = run_span(f, span, false, true, err);
	if (r == 0)
		mw_follow_boxes_filled(f);
	return r;
}

/* Everything up to the log's present end, with a look into the mailboxes. 1: the target
 * is away, and nothing counts as done. */
static int
careful(struct mw_follow *f, bool first, struct mw_err *err)
{
	size_t n = f->cli->n_journals;
	MW_AUTOFREE struct mw_span *span = calloc(n, sizeof *span);
	MW_AUTOFREE struct mw_follow_pos *end = calloc(n, sizeof *end);
	MW_BUF_AUTO text = {0};
	int64_t newest_us = INT64_MIN;
	bool any = false;
	if (!span || !end)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; k < n; k++) {
		struct mw_record last;
		int r = mw_store_last(f->cli->stores[k], UINT64_MAX, &last, err);
		if (r < 0)
			return r;
		end[k] = f->pos[k];
		if (r > 0 && last.seq >= f->pos[k].next) {
			end[k].next = last.seq + 1;
			memcpy(end[k].last, last.id, MW_ID_LEN);
			end[k].has_last = true;
			newest_us = MW_MAX(newest_us, last.time_us);
		}
		span[k] = (struct mw_span){f->pos[k].next, end[k].next};
		any = any || span[k].from < span[k].to;
	}
	if (any) /* expansions of the newest may be on their way */
		(void)mw_later_wait(f->cli->conf, newest_us, mw_cli_stopped);
	int r = fill_again(f, end, err);
	if (r == 0 && any)
		r = run_span(f, span, first, false, err);
	if (r == 0 && mw_follow_boxes_anew(f, &text)) /* since they were looked at */
		r = fill_again(f, end, err);
	if (r != 0)
		return r;
	memcpy(f->pos, end, n * sizeof *end);
	f->dirty = f->dirty || any;
	return 0;
}

static void
nap(int ms)
{
	for (; ms > 0 && !mw_cli_stopped(); ms -= 100)
		(void)poll(NULL, 0, ms < 100 ? ms : 100);
}

/* Careful until it works, however long the target is away. */
static int
catch_up(struct mw_follow *f, bool first, struct mw_err *err)
{
	int delay = DELAY_MS;
	bool away = false;
	for (;;) {
		int r = careful(f, first && !away, err);
		if (r == 0 && away)
			note(f, "back", "");
		if (r <= 0)
			return r;
		if (!away) {
			f->sum.outages++;
			note(f, "away", err->msg);
		}
		away = true;
		nap(delay);
		delay = MW_MIN(delay * 2, (int)DELAY_MOST_MS);
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
	}
}

/* ---- live ---- */

static void
close_cursors(struct mw_follow *f)
{
	for (size_t k = 0; k < f->cli->n_journals; k++) {
		mw_cursor_free(f->cursor[k]);
		f->cursor[k] = NULL;
		f->wait[k].since_us = 0;
	}
}

static int
open_cursors(struct mw_follow *f, struct mw_err *err)
{
	close_cursors(f);
	for (size_t k = 0; k < f->cli->n_journals; k++) {
		int r =
		    mw_cursor_new(f->cli->stores[k], f->pos[k].next, &f->cursor[k], err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Wakes at each write to the log. Where the kernel cannot tell, the clock does. */
static int
watch(const struct mw_follow *f)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	for (size_t k = 0; fd >= 0 && k < f->cli->n_journals; k++) {
		char path[PATH_MAX];
		if (snprintf(path, sizeof path, "%s/segments", f->cli->journals[k]) <
		    (int)sizeof path)
			(void)inotify_add_watch(fd, path, IN_MODIFY | IN_MOVED_TO);
	}
	return fd;
}

static void
wait_for_more(int fd)
{
	char events[4096];
	struct pollfd p = {fd, POLLIN, 0};
	(void)poll(fd >= 0 ? &p : NULL, fd >= 0, WAIT_MS);
	while (fd >= 0 && read(fd, events, sizeof events) > 0)
		;
}

static void
tell(struct mw_follow *f, int64_t *told_us, struct mw_follow_sum *told)
{
	const struct mw_clock *clock = mw_clock_system();
	const struct mw_follow_sum *s = &f->sum;
	int64_t now = clock->mono_us(clock);
	if (now - *told_us < INT64_C(1000000) * TELL_S ||
	    (s->stored == told->stored && s->failed == told->failed))
		return;
	*told_us = now;
	*told = *s;
	if (f->cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:I, s:f}", "message_type", "status",
		                      "stored", (json_int_t)s->stored, "failed",
		                      (json_int_t)s->failed, "delay_s",
		                      (double)s->delay_us / 1e6));
	else if (!f->cli->quiet)
		fprintf(stderr, "mailwal: %llu stored, %llu failed, %.3f s behind\n",
		        (unsigned long long)s->stored, (unsigned long long)s->failed,
		        (double)s->delay_us / 1e6);
	(void)fflush(stdout);
}

static int
live(struct mw_follow *f, int fd, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_follow_sum told = f->sum;
	int64_t told_us = clock->mono_us(clock);
	int r = open_cursors(f, err);
	if (r == 0)
		r = mw_follow_hops_start(f, err);
	while (r >= 0 && !mw_cli_stopped()) {
		r = mw_follow_step(f, err);
		bool due =
		    clock->mono_us(clock) - f->saved_us > INT64_C(1000000) * SAVE_S;
		if (r >= 0 && f->cli->json && f->cli->verbose)
			(void)fflush(stdout);
		if (r >= 0 && f->dirty && due) {
			int q = mw_follow_save(f, err);
			r = q < 0 ? q : r;
		}
		mw_follow_tell_held(f, false);
		tell(f, &told_us, &told);
		if (r == 0)
			wait_for_more(fd);
	}
	return r < 0 ? r : mw_fail(err, MW_ECANCEL, "interrupted");
}

int
mw_follow_run(struct mw_follow *f, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = watch(f); /* before the first look: nothing is missed */
	bool first = true, told = false;
	int r;
	for (;;) {
		r = catch_up(f, first, err);
		if (r == 0)
			r = mw_follow_save(f, err);
		if (r == 0 && !told)
			note(f, "current", "");
		told = told || r == 0;
		first = false;
		if (r == 0)
			r = live(f, fd, err);
		mw_follow_close_sessions(f);
		/* Damage of our own side ends as a failed copy in the careful way. */
		bool again = mw_follow_passing(r, err->msg) || r == MW_EDAMAGED ||
		             r == MW_EREFUSED || r == MW_ENOTFOUND || r == MW_EFORMAT;
		if (!again || mw_cli_stopped())
			break;
	}
	close_cursors(f);
	mw_follow_tell_held(f, true);
	f->boxes_new = f->boxes_new || f->boxes_dirty; /* now, not some time */
	if (f->dirty || f->boxes_new) {
		struct mw_err second = {0};
		int q = mw_follow_save(f, r < 0 ? &second : err);
		r = r < 0 ? r : q;
	}
	return mw_cli_stopped() ? MW_ECANCEL : r;
}
