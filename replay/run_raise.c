/* run_raise.c - UIDNEXT and HIGHESTMODSEQ of the boxes of a run; the step prepare. */
#include "journal/base/util.h"
#include "replay/look.h"
#include "replay/raising.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct told {
	struct mw_run *r;
	const struct mw_plan_box *b;
	bool trouble; /* placeholders may have stayed */
};

static const char *
name_of(const struct mw_plan_box *b)
{
	return b->shared ? b->box : b->mailbox;
}

static int
told(void *arg, const struct mw_raised *a)
{
	struct told *t = arg;
	struct mw_run_shared *sh = t->r->shared;
	const struct mw_report_raise line = {name_of(t->b), a->folder,     a->why,
	                                     a->uidnext,    a->uidnext_to, a->modseq,
	                                     a->modseq_to};
	t->trouble = t->trouble || a->why;
	(void)pthread_mutex_lock(&sh->mu);
	int q = mw_report_raised(t->r->report, &line);
	(void)pthread_mutex_unlock(&sh->mu);
	return q;
}

/* The copies that a box lacks, counted by where they go. */
struct missing {
	struct mw_raise_opts o;
	struct mw_raise_folder *v; /* by name, as many as o.n_folder */
	size_t cap, last;          /* the one counted last: they come in rows */
	bool failed;
};

static int
raise_box(struct mw_run *r, const struct mw_plan_box *b, struct missing *m,
          struct mw_err *err)
{
	struct told t = {r, b, false};
	struct mw_raise_opts *o = &m->o;
	if (m->failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	o->folder = m->v;
	o->gap = r->uid_gap;
	o->dry = r->dry;
	o->told = told;
	o->arg = &t;
	int q = r->dry
	            ? 0
	            : mw_raising_note(mw_ledger_dir(r->ledger), b->mailbox, b->box, err);
	if (q)
		return q;
	q = mw_target_raise(r->target, o, err);
	if (!q && !t.trouble && !r->dry)
		mw_raising_done(mw_ledger_dir(r->ledger), b->box);
	return q == MW_ENOMEM ? mw_fail(err, q, "out of memory") : q;
}

static void
add_folder(struct missing *m, const char *name)
{
	size_t i = m->last, n = m->o.n_folder;
	if (i >= n || strcmp(m->v[i].folder, name) != 0)
		for (i = 0; i < n && strcmp(m->v[i].folder, name) != 0; i++)
			;
	if (i == n && n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 16;
		void *v = reallocarray(m->v, cap, sizeof *m->v);
		if (!v) {
			m->failed = true;
			return;
		}
		m->v = v;
		m->cap = cap;
	}
	if (i == n)
		m->v[m->o.n_folder++] = (struct mw_raise_folder){name, 0};
	m->v[i].n++;
	m->last = i;
}

/* Imported mail bears the time of its arrival: when its folder's clients saw it there,
 * nobody knows. */
static void
note_time(struct mw_raise_opts *o, const struct mw_plan_rec *rec)
{
	o->newest_us = rec->imported ? INT64_MAX : MW_MAX(o->newest_us, rec->time_us);
}

static void
add_missing(struct missing *m, const struct mw_run *r, const struct mw_plan_copy *p)
{
	const struct mw_plan_rec *rec = &r->plan->rec[p->rec];
	if (p->sent)
		m->o.sent++;
	else if (rec->folder)
		add_folder(m, rec->folder);
	else
		m->o.inbox++;
	note_time(&m->o, rec);
}

int
mw_run_raise(struct mw_run *r, const struct mw_plan_box *b, struct mw_err *err)
{
	struct missing m = {0};
	if (!r->uid_gap || !mw_target_raises(r->target))
		return 0;
	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].wanted && b->v[i].waits != MW_WAITS_YES &&
		    (b->v[i].fate == MW_FATE_OPEN || b->v[i].fate == MW_FATE_TRIED))
			add_missing(&m, r, &b->v[i]);
	int q = raise_box(r, b, &m, err);
	free(m.v);
	return q;
}

/* ---- prepare ---- */

static void
tell_json(const struct mw_run *r, const struct mw_plan_box *b, size_t first,
          const char *can, const struct mw_err *why)
{
	const struct mw_report *rep = r->report;
	json_t *o = json_object(), *uids = json_array();
	(void)json_object_set_new(o, "message_type", json_string("mailbox"));
	(void)json_object_set_new(o, "mailbox", mw_json_str(mw_strz(b->mailbox)));
	(void)json_object_set_new(o, "copies", json_integer((json_int_t)b->n_wanted));
	(void)json_object_set_new(o, "ready", json_boolean(!why));
	(void)json_object_set_new(o, "capabilities", json_string(can));
	if (why)
		(void)json_object_set_new(o, "reason", mw_json_str(mw_strz(why->msg)));
	for (size_t i = first; i < rep->n_raise; i++)
		if (strcmp(rep->raise[i].mailbox, name_of(b)) == 0)
			(void)json_array_append_new(uids,
			                            mw_report_raise_json(&rep->raise[i]));
	(void)json_object_set_new(o, "uids", uids);
	mw_cli_json(o);
}

/* One line a box, and one a folder whose UIDs are raised: those of the report's list from
 * `first` on. */
static void
tell(const struct mw_run *r, const struct mw_plan_box *b, size_t first, const char *can,
     const struct mw_err *why)
{
	const struct mw_report *rep = r->report;
	MW_BUF_AUTO text = {0};
	if (r->cli->json) {
		tell_json(r, b, first, can, why);
		return;
	}
	mw_text_safe(mw_strz(name_of(b)), false, &text);
	mw_buf_printf(&text, ": %zu to look for; ", b->n_wanted);
	mw_text_safe(mw_strz(why ? why->msg : "ready"), false, &text);
	if (!why && *can)
		mw_buf_printf(&text, " (%s)", can);
	mw_buf_putc(&text, '\n');
	for (size_t i = first; i < rep->n_raise; i++) {
		const struct mw_report_raise *a = &rep->raise[i];
		if (strcmp(a->mailbox, name_of(b)) != 0)
			continue;
		mw_buf_puts(&text, "  ");
		mw_text_safe(mw_strz(a->folder), false, &text);
		mw_buf_printf(&text, ": UIDNEXT %llu", (unsigned long long)a->uidnext);
		if (a->uidnext_to > a->uidnext)
			mw_buf_printf(&text, " %s %llu", r->dry ? "to become" : "is now",
			              (unsigned long long)a->uidnext_to);
		if (a->modseq_to > a->modseq)
			mw_buf_printf(&text, ", HIGHESTMODSEQ %llu %s %llu",
			              (unsigned long long)a->modseq,
			              r->dry ? "to become" : "is now",
			              (unsigned long long)a->modseq_to);
		if (a->why) {
			mw_buf_puts(&text, ", not raised: ");
			mw_text_safe(mw_strz(a->why), false, &text);
		}
		mw_buf_putc(&text, '\n');
	}
	fputs(mw_buf_cstr(&text), stdout);
}

/* What the box lacks; all that is selected where nothing does. */
static void
find_missing(const struct mw_look *l, struct missing *m)
{
	const struct mw_plan_box *b = l->b;
	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].wanted && l->c[i].how == MW_RC_MISSING &&
		    mw_run_known_fate(&b->v[i]) == MW_FATE_OPEN)
			add_missing(m, l->r, &b->v[i]);
	bool all = !m->o.inbox && !m->o.sent && !m->o.n_folder;
	for (size_t i = 0; all && i < b->n; i++)
		if (b->v[i].wanted)
			note_time(&m->o, &l->r->plan->rec[b->v[i].rec]);
}

static int
raise_all(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	struct mw_look l;
	struct missing m = {.o.all = true};
	int q = mw_look_init(&l, r, b, err);
	if (!q)
		q = mw_look(&l, err);
	if (!q && !r->dry) {
		q = mw_target_begin(r->target, err);
		if (q > 0) /* it moved on between the look and the lock */
			q = mw_look(&l, err);
	}
	if (!q) {
		find_missing(&l, &m);
		mw_look_forget(&l);
		q = raise_box(r, b, &m, err);
	}
	free(m.v);
	mw_look_done(&l);
	return q;
}

int
mw_run_prepare(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	struct mw_run_shared *sh = r->shared;
	bool raise = r->uid_gap && mw_target_raises(r->target);
	MW_BUF_AUTO can = {0};
	(void)pthread_mutex_lock(&sh->mu);
	size_t first = r->report->n_raise;
	(void)pthread_mutex_unlock(&sh->mu);
	int q = b->bad_name ? mw_fail(err, MW_ENOUSER, "its name cannot be a path there")
	                    : mw_target_open(r->target, b->mailbox, b->box,
	                                     r->dry || !raise, err);
	if (!q) {
		struct mw_err second;
		mw_target_describe(r->target, &can);
		q = raise ? raise_all(r, b, err) : 0;
		int c = mw_target_close(r->target, q ? &second : err);
		q = q ? q : c;
	}
	(void)pthread_mutex_lock(&sh->mu);
	r->report->skipped += q ? 0 : b->n_wanted; /* nothing was put */
	mw_progress_clear(&sh->progress);
	mw_progress_add(&sh->progress, b->n_wanted, 0);
	tell(r, b, first, mw_buf_cstr(&can), q ? err : NULL);
	(void)pthread_mutex_unlock(&sh->mu);
	return q;
}
