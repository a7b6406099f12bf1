#include "replay/undo.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	UNREACHABLE_MAX = 3, /* boxes in a row, then the target is given up */
	REFUSED_MAX = 10     /* logins in a row, while none ever worked */
};

struct put {
	const char *box;
	struct mw_removal what;
	bool sent, undone;
	size_t at; /* order in the ledger */
};

struct work {
	struct mw_undo *u;
	struct put *v;
	size_t n, cap;
	struct put *box;    /* of the box at work, as many as its removals */
	struct mw_err last; /* of the box before */
	struct mw_err *err;
};

static int
on_put(void *arg, const struct mw_ledger_put *p)
{
	struct work *w = arg;
	struct mw_arena *a = w->u->report->arena;
	const struct put *last;
	const char *folder = p->place.folder ? p->place.folder : "";
	void *v = mw_arena_grow(a, w->v, &w->cap, w->n + 1, sizeof *w->v);
	uint8_t *id = mw_arena_alloc(a, MW_ID_LEN);
	if (!v || !id)
		return MW_ENOMEM;
	memcpy(id, p->id, MW_ID_LEN);
	w->v = v;
	struct put *n = &w->v[w->n];
	*n = (struct put){.what = {id, p->place},
	                  .sent = p->sent,
	                  .undone = p->undone,
	                  .at = w->n};
	last = w->n ? &w->v[w->n - 1] : NULL;
	n->box = last && strcmp(last->box, p->box) == 0 ? last->box
	                                                : mw_arena_strdup(a, p->box);
	n->what.place.folder = last && strcmp(last->what.place.folder, folder) == 0
	                           ? last->what.place.folder
	                           : mw_arena_strdup(a, folder);
	if (!n->box || !n->what.place.folder)
		return MW_ENOMEM;
	w->n++;
	return 0;
}

static int
by_place(const void *x, const void *y)
{
	const struct put *a = x, *b = y;
	int c = strcmp(a->box, b->box);
	if (!c)
		c = strcmp(a->what.place.folder, b->what.place.folder);
	if (!c && a->what.place.uidvalidity != b->what.place.uidvalidity)
		c = a->what.place.uidvalidity < b->what.place.uidvalidity ? -1 : 1;
	return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

static int
issue(struct work *w, const struct put *p, const char *kind, const char *reason)
{
	const struct mw_issue what = {.mailbox = p->box,
	                              .kind = kind,
	                              .reason = reason,
	                              .sent = p->sent};
	return mw_report_issue(w->u->report, p->what.id, &what);
}

static int
on_removed(void *arg, size_t i, int code)
{
	struct work *w = arg;
	struct mw_undo *u = w->u;
	const struct put *p = &w->box[i];
	if (code) {
		u->report->skipped++;
		return issue(w, p, "left", "no longer where it was put");
	}
	u->report->undone++;
	if (u->dry)
		return 0;
	return mw_ledger_undone(u->ledger, p->what.id, p->box, p->sent, w->err);
}

/* n copies of one box. */
static int
undo_box(struct work *w, struct put *v, size_t n, struct mw_err *err)
{
	struct mw_undo *u = w->u;
	struct mw_err second;
	MW_AUTOFREE struct mw_removal *what = calloc(n ? n : 1, sizeof *what);
	if (!what)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		what[i] = v[i].what;
	const struct mw_removing all = {what, n, u->dry, on_removed, w};
	w->box = v;
	w->err = err;
	int r = mw_target_open(u->target, v[0].box, v[0].box, u->dry, err);
	if (r)
		return r;
	r = mw_target_remove(u->target, &all, err);
	int c = mw_target_close(u->target, r ? &second : err);
	r = r ? r : c;
	c = mw_ledger_sync(u->ledger, r ? &second : err);
	return r ? r : c;
}

/* How a box ended, for the next ones. */
static void
note_box(struct mw_undo *u, int code, const struct mw_err *why)
{
	u->any_box_ok = u->any_box_ok || !code;
	u->unreachable =
	    code == MW_EUNAVAIL || code == MW_ETIMEOUT ? u->unreachable + 1 : 0;
	u->refused = code == MW_EAUTH ? u->refused + 1 : 0;
	if (code && !u->first.code)
		u->first = *why;
}

/* Is there no use in asking the target for another box? */
static bool
give_up(const struct mw_undo *u)
{
	return u->unreachable >= (u->any_box_ok ? UNREACHABLE_MAX : 1) ||
	       (!u->any_box_ok && u->refused >= REFUSED_MAX);
}

static int
undo_or_tell(struct work *w, struct put *v, size_t n, struct mw_err *err)
{
	struct mw_err why = {0};
	uint64_t before = w->u->report->undone + w->u->report->skipped;
	bool no_use = give_up(w->u);
	int r = no_use ? w->last.code : undo_box(w, v, n, &why);
	if (no_use)
		why = w->last;
	if (r == MW_ECANCEL || r == MW_ENOMEM || r == MW_EUSAGE) {
		if (err)
			*err = why;
		return r;
	}
	if (!no_use)
		note_box(w->u, r, &why);
	w->last = why;
	uint64_t answered = w->u->report->undone + w->u->report->skipped - before;
	for (size_t i = (size_t)answered; r && i < n; i++) {
		w->u->report->failed++;
		if (issue(w, &v[i], "failed", why.msg))
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return 0;
}

int
mw_undo_run(struct mw_undo *u, struct mw_err *err)
{
	struct work w = {.u = u};
	if (!mw_target_removes(u->target))
		return mw_fail(err, MW_EUSAGE,
		               "%s: nothing can be taken away there; undo works on "
		               "imap:, imaps: and maildir: targets",
		               mw_target_name(u->target));
	int r = mw_ledger_of_run(u->ledger, u->run, on_put, &w, err);
	if (r < 0)
		return r;
	if (r == 0) {
		mw_fail(err, MW_ENOTFOUND,
		        "no run %.60s put anything into this target from this host",
		        u->run);
		return mw_err_hint(err, "the summary of a replay names its run (--json: "
		                        "\"run\")");
	}
	size_t n = 0; /* those that are not undone yet */
	for (size_t i = 0; i < w.n; i++)
		if (!w.v[i].undone)
			w.v[n++] = w.v[i];
	u->report->selected = n;
	if (n)
		qsort(w.v, n, sizeof *w.v, by_place);
	r = 0;
	for (size_t i = 0, k; i < n && !r; i = k) {
		for (k = i + 1; k < n && strcmp(w.v[k].box, w.v[i].box) == 0; k++)
			;
		u->report->mailboxes++;
		r = mw_cli_stopped() ? mw_fail(err, MW_ECANCEL, "interrupted")
		                     : undo_or_tell(&w, w.v + i, k - i, err);
	}
	u->report->interrupted = r == MW_ECANCEL;
	return r;
}

int
mw_undo_exit(const struct mw_undo *u)
{
	const struct mw_report *p = u->report;
	if (p->interrupted)
		return 130;
	if (!p->failed)
		return 0;
	return u->any_box_ok || p->undone || p->skipped ? 3 : mw_err_exit(u->first.code);
}
