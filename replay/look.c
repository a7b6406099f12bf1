#include "replay/look.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

static int
by_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static int
by_key(const void *a, const void *b)
{
	return by_u64(&((const struct mw_rc_stored *)a)->key,
	              &((const struct mw_rc_stored *)b)->key);
}

/* The queue IDs in the Received fields of each stored message, topmost first. */
struct mw_seen_hops {
	struct mw_hop *v;
	size_t n, cap;
	size_t *end; /* behind those of l->s[i]; as many as that */
	size_t cap_end;
	bool failed; /* out of memory */
};

static void
hops_free(struct mw_look *l)
{
	if (!l->hops)
		return;
	free(l->hops->v);
	free(l->hops->end);
	free(l->hops);
	l->hops = NULL;
}

void
mw_look_forget(struct mw_look *l)
{
	for (size_t i = 0; i < l->m; i++)
		free(l->s[i].profile);
	l->m = 0;
	hops_free(l);
}

void
mw_look_done(struct mw_look *l)
{
	mw_look_forget(l);
	free(l->s);
	free(l->c);
	free(l->queue);
}

int
mw_look_init(struct mw_look *l, struct mw_run *r, struct mw_plan_box *b,
             struct mw_err *err)
{
	*l = (struct mw_look){.r = r, .b = b, .err = err};
	l->c = calloc(b->n ? b->n : 1, sizeof *l->c);
	l->queue = calloc(b->n ? b->n : 1, sizeof *l->queue);
	if (!l->c || !l->queue)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < b->n; i++) {
		const struct mw_plan_rec *rec = &r->plan->rec[b->v[i].rec];
		if (rec->queue)
			l->queue[l->n_queue++] = rec->queue;
	}
	qsort(l->queue, l->n_queue, sizeof *l->queue, by_u64);
	return 0;
}

static bool
known_queue(void *arg, uint64_t queue)
{
	const struct mw_look *l = arg;
	return l->n_queue &&
	       bsearch(&queue, l->queue, l->n_queue, sizeof queue, by_u64) != NULL;
}

int
mw_look_blind(struct mw_look *l)
{
	l->hops = calloc(1, sizeof *l->hops);
	return l->hops ? 0 : MW_ENOMEM;
}

static void
add_hop(void *arg, struct mw_hop hop)
{
	struct mw_seen_hops *h = arg;
	if (h->n == h->cap) {
		size_t cap = h->cap ? h->cap * 2 : 1024;
		void *p = reallocarray(h->v, cap, sizeof *h->v);
		if (!p) {
			h->failed = true;
			return;
		}
		h->v = p;
		h->cap = cap;
	}
	h->v[h->n++] = hop;
}

/* Of the message that l->s[l->m] is going to be. */
static int
keep_hops(struct mw_look *l, struct mw_str header, uint64_t *ret_msgid)
{
	struct mw_seen_hops *h = l->hops;
	if (l->m >= h->cap_end) {
		void *p = reallocarray(h->end, l->cap, sizeof *h->end);
		if (!p)
			return MW_ENOMEM;
		h->end = p;
		h->cap_end = l->cap;
	}
	*ret_msgid = mw_header_hops(header, add_hop, h);
	h->end[l->m] = h->n;
	return h->failed ? MW_ENOMEM : 0;
}

/* Now that our queue IDs are known: what mw_header_facts would have found. */
static void
settle_hops(struct mw_look *l)
{
	const struct mw_seen_hops *h = l->hops;
	for (size_t i = 0, k = 0; h && i < l->m; i++) {
		for (; k < h->end[i] && !l->s[i].queue; k++)
			if (known_queue(l, h->v[k].queue)) {
				l->s[i].queue = h->v[k].queue;
				l->s[i].received_us = h->v[k].us;
			}
		k = h->end[i];
	}
	hops_free(l);
}

int
mw_look_found(struct mw_look *l, const struct mw_found *f)
{
	struct mw_facts facts = {.received_us = INT64_MIN};
	if (l->m == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 256;
		void *p = cap < UINT32_MAX ? reallocarray(l->s, cap, sizeof *l->s) : NULL;
		if (!p)
			return MW_ENOMEM;
		l->s = p;
		l->cap = cap;
	}
	if (!l->hops)
		mw_header_facts(f->header, known_queue, l, &facts);
	else if (keep_hops(l, f->header, &facts.msgid))
		return MW_ENOMEM;
	l->s[l->m++] = (struct mw_rc_stored){
	    .key = f->key,
	    .msgid = facts.msgid,
	    .queue = facts.queue,
	    .size = f->size,
	    .date_us = f->date_us,
	    .received_us = facts.received_us,
	    .sent_folder = f->sent_folder,
	};
	return 0;
}

static int
on_found(void *arg, const struct mw_found *f)
{
	struct mw_look *l = arg;
	int q = mw_look_found(l, f);
	return q ? mw_fail(l->err, q, "out of memory") : 0;
}

static int
on_profile(void *arg, uint64_t key, struct mw_profile *take)
{
	struct mw_look *l = arg;
	struct mw_rc_stored want = {.key = key};
	struct mw_rc_stored *s =
	    l->m ? bsearch(&want, l->s, l->m, sizeof want, by_key) : NULL;
	if (!s || s->profile)
		free(take);
	else
		s->profile = take;
	return 0;
}

/* A server may mention a message twice; it is one. */
static void
sort_stored(struct mw_look *l)
{
	size_t k = 0;
	if (!l->m)
		return;
	qsort(l->s, l->m, sizeof *l->s, by_key);
	for (size_t i = 1; i < l->m; i++)
		if (l->s[i].key != l->s[k].key)
			l->s[++k] = l->s[i];
	l->m = k + 1;
}

int
mw_look_fetch(struct mw_look *l, size_t n, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *keys = calloc(n ? n : 1, sizeof *keys);
	size_t k = 0;
	if (!keys)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < l->m && k < n; i++)
		if (l->s[i].need)
			keys[k++] = l->s[i].key;
	return mw_target_fetch(l->r->target, keys, k, on_profile, l, err);
}

/* Profiles of our own copies. One that cannot be read has none: it fails when it is put.
 */
static int
read_needed(struct mw_look *l, struct mw_profile **prof, struct mw_err *err)
{
	struct mw_profiler *f = mw_profiler_new();
	int q = f ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < l->b->n && !q; i++) {
		struct mw_err ignored;
		if (!l->c[i].need)
			continue;
		if (mw_cli_stopped())
			q = mw_fail(err, MW_ECANCEL, "interrupted");
		else if (mw_run_content(l->r, &l->r->plan->rec[l->b->v[i].rec],
		                        mw_profiler_put, f, &ignored))
			free(mw_profiler_take(f));
		else
			l->c[i].profile = prof[i] = mw_profiler_take(f);
	}
	mw_profiler_free(f);
	return q;
}

static int
reconcile(struct mw_look *l, struct mw_err *err)
{
	size_t n = l->b->n;
	int q = mw_reconcile_fast(l->c, n, l->s, l->m);
	if (q > 0) {
		int f = mw_look_fetch(l, (size_t)q, err);
		if (f)
			return f;
	}
	if (q >= 0)
		q = mw_reconcile_digest(l->c, n, l->s, l->m);
	if (q < 0)
		return mw_fail(err, q, "out of memory");
	struct mw_profile **prof = calloc(n ? n : 1, sizeof(void *));
	if (!prof)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = q > 0 ? read_needed(l, prof, err) : 0;
	if (!r && mw_reconcile_body(l->c, n, l->s, l->m))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		free(prof[i]);
		l->c[i].profile = NULL;
	}
	free(prof);
	return r;
}

static void
fill_copies(struct mw_look *l)
{
	for (size_t i = 0; i < l->b->n; i++) {
		const struct mw_plan_copy *p = &l->b->v[i];
		const struct mw_plan_rec *rec = &l->r->plan->rec[p->rec];
		l->c[i] = (struct mw_rc_copy){
		    .msgid = rec->msgid,
		    .queue = rec->queue,
		    .time_us = rec->time_us,
		    .size = rec->size + p->front,
		    .digest = rec->digest,
		    .sent = p->sent,
		    .wanted = p->wanted,
		    .anywhere = l->r->plan->by_message,
		};
	}
}

static bool
all_there(const struct mw_look *l)
{
	for (size_t i = 0; i < l->b->n; i++)
		if (l->c[i].wanted && l->c[i].how == MW_RC_MISSING)
			return false;
	return true;
}

int
mw_look_early(struct mw_look *l, struct mw_err *err)
{
	if (l->early == MW_EARLY_NONE)
		return MW_LOOK_ANEW;
	/* Where there is nothing, no Received field was left out. */
	bool brief = l->early == MW_EARLY_BRIEF && l->m;
	fill_copies(l);
	settle_hops(l);
	sort_stored(l);
	int q = brief ? mw_reconcile_brief(l->c, l->b->n, l->s, l->m)
	              : mw_reconcile_fast(l->c, l->b->n, l->s, l->m);
	if (q < 0)
		return mw_fail(err, q, "out of memory");
	if (brief || all_there(l))
		return !brief || q ? MW_LOOK_DONE : MW_LOOK_ANEW;
	bool bodies = q > 0;
	q = bodies ? mw_target_changed(l->r->target, err) : 0;
	if (q)
		return q < 0 ? q : MW_LOOK_ANEW;
	l->err = err;
	q = reconcile(l, err);
	return q ? q : bodies ? MW_LOOK_DONE : MW_LOOK_IF_SAME;
}

int
mw_look(struct mw_look *l, struct mw_err *err)
{
	mw_look_forget(l);
	fill_copies(l);
	l->err = err;
	int q = mw_target_scan(l->r->target, on_found, l, err);
	if (q)
		return q;
	sort_stored(l);
	return reconcile(l, err);
}
