#include "replay/run.h"

#include "journal/base/clock.h"
#include "journal/base/domain.h"
#include "journal/base/path.h"
#include "journal/base/util.h"
#include "replay/mtalog.h"
#include "replay/queue.h"
#include "replay/queue_ahead.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Mail that the MTA still has in its queue is left to the MTA. The queue is read before
 * the first mailbox is scanned: what had left it by then, a scan sees. What it lists and
 * a scan does not see waits until all mailboxes are done and the queue is read again:
 * what is in it still, the MTA will deliver; the mailboxes of the rest are scanned once
 * more.
 */

enum {
	/* The MTA files a message a moment after it was captured. */
	SETTLE_MS = 2000,
	TICK_MS = 100
};

/* ---- reading ---- */

static int
by_u64(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
	return a < b ? -1 : a > b;
}

struct ids {
	uint64_t *v;
	size_t n;
};

static bool
is_ours(void *arg, uint64_t id)
{
	const struct ids *k = arg;
	return k->n && bsearch(&id, k->v, k->n, sizeof id, by_u64);
}

static int
all_ids(const struct mw_plan *p, struct ids *ret, int64_t *ret_newest_us)
{
	ret->v = calloc(p->n_rec ? p->n_rec : 1, sizeof *ret->v);
	ret->n = 0;
	if (!ret->v)
		return MW_ENOMEM;
	for (size_t i = 0; i < p->n_rec; i++) {
		if (p->rec[i].queue)
			ret->v[ret->n++] = p->rec[i].queue;
		*ret_newest_us = MW_MAX(*ret_newest_us, p->rec[i].time_us);
	}
	qsort(ret->v, ret->n, sizeof *ret->v, by_u64);
	return 0;
}

/* Is what was listed while the plan was made good for it? */
static int
listed(struct mw_run *r, struct ids *k, int64_t newest_us, struct mw_err *err)
{
	int64_t settled_us = newest_us + SETTLE_MS * INT64_C(1000);
	int q = r->queue_ahead
	            ? mw_queue_ahead_take(r->queue_ahead, settled_us, is_ours, k, err)
	            : 0;
	mw_queue_ahead_free(MW_TAKE(r->queue_ahead));
	return q;
}

static void
let_it_settle(int64_t newest_us)
{
	const struct mw_clock *clk = mw_clock_system();
	int64_t age_ms = (clk->now_us(clk) - newest_us) / 1000;
	if (age_ms < 0)
		return; /* no clock of this host's */
	for (; age_ms < SETTLE_MS && !mw_cli_stopped(); age_ms += TICK_MS)
		(void)poll(NULL, 0, TICK_MS);
}

/* Several listings, since a message that moves from one of the MTA's directories to
 * another may be missed by one. */
static int
read_queue(struct mw_run *r, struct mw_err *err)
{
	struct ids k;
	int64_t newest_us = INT64_MIN / 2;
	if (all_ids(r->plan, &k, &newest_us))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int q = listed(r, &k, newest_us, err);
	if (!q)
		let_it_settle(newest_us);
	for (int i = 0; i < MW_QUEUE_READS && !q; i++)
		q = mw_queue_read(r->queue, i > 0, is_ours, &k, err);
	free(k.v);
	return q < 0 ? q : 0;
}

int
mw_run_queue_find(const struct mw_cli *cli, const char *command, struct mw_queue **ret,
                  struct mw_err *err)
{
	struct mw_queue_from one = {.command = command ? command : "auto"}, *v = &one;
	size_t n = command || !cli->n_confs ? 1 : cli->n_confs;
	if (n > 1)
		v = calloc(n, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !command && cli->n_confs; i++)
		v[i] = (struct mw_queue_from){cli->confs[i]->queue_command,
		                              cli->confs[i]->file};
	int r = mw_queue_new(v, n, ret, err);
	if (n > 1)
		free(v);
	return r;
}

int
mw_run_queue_first(struct mw_run *r, struct mw_err *err)
{
	int q = 0;
	while (r->queue && (q = read_queue(r, err)) != 0) {
		if (q == MW_ENOMEM || q == MW_ECANCEL)
			return q;
		if (!mw_queue_leave_out(r->queue)) {
			char hint[sizeof err->hint];
			(void)snprintf(hint, sizeof hint, "%s", err->hint);
			return mw_err_hint(
			    err,
			    "%s%snothing was put back: mail that the queue "
			    "holds would be there twice; --queue none goes "
			    "by what mailwal outcomes has read",
			    hint, hint[0] ? "; " : "");
		}
		/* Also where only errors are wanted: what waits in it may be there twice.
		 */
		fprintf(stderr,
		        "mailwal: warning: the mail queue of this host could not be read "
		        "(%s); what is in it is known only as far as mailwal outcomes "
		        "has read the log: of the rest, what is put back counts as "
		        "ambiguous\n",
		        err->msg);
		*err = (struct mw_err){0};
		r->queue_unread = true;
		if (mw_queue_commands(r->queue) == 1)
			r->queue = NULL;
	}
	return 0;
}

/* ---- asking ---- */

struct whose {
	const struct mw_conf *conf;
	const struct mw_copy *c;
	struct mw_arena *tmp;
};

static bool
names_him(const struct whose *w, struct mw_str rcpt)
{
	const struct mw_copy *c = w->c;
	if (mw_addr_eq(rcpt, c->rcpt) || (c->addr.n && mw_addr_eq(rcpt, c->addr)))
		return true;
	struct mw_str base = mw_addr_base(rcpt, w->conf->recipient_delimiter, w->tmp);
	const char *login = base.p ? mw_mailbox_name(w->conf, base, w->tmp) : NULL;
	return login && mw_addr_eq(mw_strz(login), mw_strz(c->mailbox));
}

/* Sendmail lists a recipient as it came; a record has the address. */
static bool
is_his(void *arg, struct mw_str rcpt, bool cut)
{
	const struct whose *w = arg;
	const struct mw_copy *c = w->c;
	if (cut)
		return mw_str_istarts(c->rcpt, rcpt) || mw_str_istarts(c->addr, rcpt);
	if (names_him(w, rcpt))
		return true;
	char *plain = mw_arena_alloc(w->tmp, rcpt.n ? rcpt.n : 1);
	if (!plain)
		return false;
	struct mw_str addr = mw_path_addr(mw_mtalog_plain(rcpt, plain), w->tmp);
	return addr.p && !mw_str_eq(addr, rcpt) && names_him(w, addr);
}

/* Is this copy in the queue, by the last reading? */
static int
queued(struct mw_run *r, const struct mw_plan_box *b, const struct mw_plan_copy *p,
       bool *ret, struct mw_err *err)
{
	const struct mw_plan_rec *rec = &r->plan->rec[p->rec];
	struct mw_err ignored = {0};
	struct mw_copy *c;
	const char *box;
	size_t n;
	*ret = false;
	if (p->sent || !mw_queue_has(r->queue, rec->queue, rec->time_us))
		return 0;
	if (mw_run_load(r, rec, &ignored))
		return 0; /* it will fail when it is put, by name */
	if (mw_copies(r->cli->conf, &r->mail, r->arena, &c, &n, err))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !*ret; i++) {
		struct whose w = {r->cli->conf, &c[i], r->arena};
		if (!c[i].sent &&
		    mw_target_box(r->target, c[i].mailbox, r->arena, &box, &ignored) ==
		        0 &&
		    strcmp(box, b->box) == 0)
			*ret = mw_queue_lists(r->queue, rec->queue, rec->time_us, is_his,
			                      &w);
	}
	return 0;
}

int
mw_run_ask_queue(struct mw_run *r, const struct mw_plan_box *b, struct mw_plan_copy *p,
                 struct mw_err *err)
{
	bool there = false;
	if (!r->queue || p->fate != MW_FATE_OPEN)
		return 0;
	if (p->waits == MW_WAITS_LEFT) { /* it left while we looked */
		if (p->known == MW_KNOWN_QUEUED)
			p->known = MW_KNOWN_NOTHING;
		return 0;
	}
	int q = queued(r, b, p, &there, err);
	p->waits = there ? MW_WAITS_YES : MW_WAITS_NO;
	if (!q && !there && p->known == MW_KNOWN_QUEUED && mw_queue_is_said(r->queue))
		p->known = MW_KNOWN_NOTHING;
	return q;
}

/* ---- and again at the end ---- */

static int
settle_copy(struct mw_run *r, struct mw_plan_box *b, struct mw_plan_copy *p, bool unread,
            struct mw_err *err)
{
	bool there = false;
	if (p->waits != MW_WAITS_YES || p->fate != MW_FATE_OPEN)
		return 0;
	r->box = b;
	if (unread)
		return mw_run_fate(r, p, MW_FATE_FAILED,
		                   "it was in the mail server's queue, which could not "
		                   "be read again: run it again");
	int q = queued(r, b, p, &there, err);
	if (!q && there)
		return mw_run_fate(r, p, MW_FATE_QUEUED, NULL);
	p->waits = MW_WAITS_LEFT;
	b->again = true;
	return q;
}

int
mw_run_queue_again(struct mw_run *r, bool *ret_any, struct mw_err *err)
{
	size_t waiting = 0;
	int q = 0;
	bool unread = false;
	*ret_any = false;
	for (size_t i = 0; i < r->plan->n_box; i++)
		for (size_t k = 0; k < r->plan->box[i].n; k++)
			waiting += r->plan->box[i].v[k].waits == MW_WAITS_YES;
	if (!waiting)
		return 0;
	q = read_queue(r, err);
	if (q == MW_ECANCEL || q == MW_ENOMEM)
		return q;
	if (q) {
		unread = true;
		q = 0;
		fprintf(stderr, "mailwal: warning: the mail queue: %s\n", err->msg);
		*err = (struct mw_err){0};
	}
	for (size_t i = 0; i < r->plan->n_box && !q; i++) {
		struct mw_plan_box *b = &r->plan->box[i];
		for (size_t k = 0; k < b->n && !q; k++)
			q = settle_copy(r, b, &b->v[k], unread, err);
		*ret_any = *ret_any || b->again;
	}
	return q ? mw_fail(err, q, "out of memory") : 0;
}
