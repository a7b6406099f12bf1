/* What is not there any more and why: tombstones and audit records, gathered. */
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

struct mw_gone {
	struct mw_store *st;
	struct mw_arena *arena;
	struct mw_seq_range *whole; /* sorted and merged */
	size_t n_whole, cap_whole;
	struct mw_tombstone *person; /* those with tokens, in log order */
	size_t n_person, cap_person;
	struct mw_audit audit; /* the newest */
	uint64_t next[2];      /* what is below is known: tombstones, audits */
	struct mw_err *err;
	int failed;
	uint64_t seen[2]; /* what is below was found already */
	bool more;        /* something was found */
};

static int
by_first(const void *a, const void *b)
{
	uint64_t x = ((const struct mw_seq_range *)a)->first;
	uint64_t y = ((const struct mw_seq_range *)b)->first;
	return x < y ? -1 : x > y;
}

static void
merge(struct mw_gone *g)
{
	size_t k = 0;
	if (g->n_whole)
		qsort(g->whole, g->n_whole, sizeof *g->whole, by_first);
	for (size_t i = 0; i < g->n_whole; i++) {
		struct mw_seq_range *last = k ? &g->whole[k - 1] : NULL;
		if (last && g->whole[i].first <= last->last + 1)
			last->last = MW_MAX(last->last, g->whole[i].last);
		else
			g->whole[k++] = g->whole[i];
	}
	g->n_whole = k;
}

/* A tombstone speaks of the past only. */
static void
clip(struct mw_tombstone *t, uint64_t seq)
{
	while (t->n_range && t->range[t->n_range - 1].first >= seq)
		t->n_range--;
	if (t->n_range && t->range[t->n_range - 1].last >= seq)
		t->range[t->n_range - 1].last = seq - 1;
}

static int
add_tombstone(struct mw_gone *g, const struct mw_tombstone *t)
{
	void *p = t->n_token ? (void *)mw_arena_grow(g->arena, g->person, &g->cap_person,
	                                             g->n_person + 1, sizeof *g->person)
	                     : mw_arena_grow(g->arena, g->whole, &g->cap_whole,
	                                     g->n_whole + t->n_range, sizeof *g->whole);
	if (!p)
		return mw_fail(g->err, MW_ENOMEM, "out of memory for tombstones");
	if (t->n_token) {
		g->person = p;
		g->person[g->n_person++] = *t;
		return 0;
	}
	g->whole = p;
	for (size_t i = 0; i < t->n_range; i++)
		g->whole[g->n_whole++] = t->range[i];
	return 0;
}

static int
take_record(struct mw_gone *g, const struct mw_record *r)
{
	MW_BUF_AUTO cbor = {0};
	struct mw_err e = {0};
	struct mw_tombstone t;
	struct mw_audit x;
	int k = mw_record_meta(g->st, r, &cbor, &e);
	if (k == MW_EDAMAGED || k == MW_EERASED || k == MW_EKEY)
		return 0; /* one that is damaged speaks for nothing; verify tells */
	if (k < 0) /* but what the erased said may not be forgotten for want of memory */
		return g->failed = mw_fail(g->err, k, "%s", e.msg);
	if (r->type == MW_TYPE_TOMBSTONE) {
		k = mw_tombstone_decode(cbor.p, cbor.n, g->arena, &t, &e);
		if (k == 0) {
			clip(&t, r->seq);
			k = t.n_range ? add_tombstone(g, &t) : 0;
			return k < 0 ? (g->failed = k) : 0;
		}
	} else if (r->type == MW_TYPE_AUDIT) {
		k = mw_audit_decode(cbor.p, cbor.n, g->arena, &x, &e);
		if (k == 0)
			g->audit = x;
	}
	if (k == MW_ENOMEM)
		return g->failed = mw_fail(g->err, k, "%s", e.msg);
	return 0;
}

static int
on_record(void *arg, const struct mw_record *r)
{
	struct mw_gone *g = arg;
	uint64_t *seen = &g->seen[r->type == MW_TYPE_AUDIT];
	if (r->seq < *seen)
		return 0;
	int k = take_record(g, r);
	if (k == 0) {
		*seen = r->seq + 1;
		g->more = true;
	}
	return k;
}

int
mw_gone_more(struct mw_gone *g, struct mw_store *st, struct mw_err *err)
{
	static const char types[] = {MW_TYPE_TOMBSTONE, MW_TYPE_AUDIT};
	bool was = st->loading_gone;
	int r = 0;
	g->st = st;
	g->err = err;
	g->failed = 0;
	g->more = false;
	st->loading_gone = true;
	for (size_t i = 0; r == 0 && i < sizeof types; i++)
		r = mw_store_find_from(st, MW_KEY_TYPE, mw_str(&types[i], 1), &g->next[i],
		                       on_record, g, err);
	st->loading_gone = was;
	g->st = NULL;
	g->err = NULL;
	merge(g);
	r = g->failed < 0 ? g->failed : MW_MIN(r, 0);
	/* After a failure once more from there: a tombstone twice does no harm. */
	return r < 0 ? r : g->more;
}

int
mw_gone_load(struct mw_store *st, struct mw_gone **ret, struct mw_err *err)
{
	struct mw_gone *g = calloc(1, sizeof *g);
	if (!g || !(g->arena = mw_arena_new(0))) {
		free(g);
		return mw_fail(err, MW_ENOMEM, "out of memory for tombstones");
	}
	int r = mw_gone_more(g, st, err);
	if (r < 0) {
		mw_gone_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

void
mw_gone_free(struct mw_gone *g)
{
	if (!g)
		return;
	mw_arena_free(g->arena);
	free(g);
}

static bool
in_ranges(const struct mw_seq_range *v, size_t n, uint64_t seq)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (v[mid].last < seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && v[lo].first <= seq;
}

bool
mw_gone_record(const struct mw_gone *g, uint64_t seq)
{
	return in_ranges(g->whole, g->n_whole, seq);
}

static bool
touches(const struct mw_seq_range *v, size_t n, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].first <= last && v[i].last >= first)
			return true;
	return false;
}

bool
mw_gone_touches(const struct mw_gone *g, uint64_t first, uint64_t last)
{
	bool yes = touches(g->whole, g->n_whole, first, last);
	for (size_t i = 0; !yes && i < g->n_person; i++)
		yes = touches(g->person[i].range, g->person[i].n_range, first, last);
	return yes;
}

bool
mw_gone_copies(const struct mw_gone *g, uint64_t seq)
{
	for (size_t i = 0; i < g->n_person; i++)
		if (in_ranges(g->person[i].range, g->person[i].n_range, seq))
			return true;
	return false;
}

bool
mw_gone_token(const struct mw_gone *g, uint64_t seq, const uint8_t *token)
{
	for (size_t i = 0; i < g->n_person; i++) {
		const struct mw_tombstone *t = &g->person[i];
		if (!in_ranges(t->range, t->n_range, seq))
			continue;
		for (size_t k = 0; k < t->n_token; k++)
			if (memcmp(t->token[k], token, MW_RETIRE_TOKEN) == 0)
				return true;
	}
	return false;
}

int
mw_gone_stretch(const struct mw_gone *g, uint64_t first, uint64_t last, uint8_t chain[32])
{
	for (size_t i = 0; i < g->audit.n_gone; i++) {
		const struct mw_gone_segs *s = &g->audit.gone[i];
		if (s->first_seq > first || s->last_seq < last)
			continue;
		if (s->last_seq != last)
			return 1;
		if (chain)
			memcpy(chain, s->chain, sizeof s->chain);
		return 2;
	}
	return 0;
}

static uint64_t
overlap(uint64_t a, uint64_t b, uint64_t first, uint64_t last)
{
	a = MW_MAX(a, first);
	b = MW_MIN(b, last);
	return a <= b ? b - a + 1 : 0;
}

void
mw_gone_tally(const struct mw_gone *g, uint64_t first, uint64_t last,
              uint64_t *ret_removed, uint64_t *ret_erased)
{
	*ret_removed = *ret_erased = 0;
	for (size_t i = 0; i < g->audit.n_gone; i++)
		*ret_removed += overlap(g->audit.gone[i].first_seq,
		                        g->audit.gone[i].last_seq, first, last);
	for (size_t k = 0; k < g->n_whole; k++) {
		uint64_t a = MW_MAX(g->whole[k].first, first);
		uint64_t b = MW_MIN(g->whole[k].last, last);
		*ret_erased += overlap(a, b, first, last);
		for (size_t i = 0; a <= b && i < g->audit.n_gone; i++)
			*ret_erased -= overlap(g->audit.gone[i].first_seq,
			                       g->audit.gone[i].last_seq, a, b);
	}
}

const struct mw_gone_segs *
mw_gone_segments(const struct mw_gone *g, size_t *ret_n)
{
	*ret_n = g->audit.n_gone;
	return g->audit.gone;
}

/* What this store knows, brought up to now: 1 there is more, 0, negative. */
static int
refresh(struct mw_store *st, struct mw_err *err)
{
	if (st->gone)
		return mw_gone_more(st->gone, st, err);
	int r = mw_gone_load(st, &st->gone, err);
	return r < 0 ? r : 1;
}

int
mw_store_hole_known(struct mw_store *st, uint64_t first, uint64_t last,
                    struct mw_err *err)
{
	/* Gathering walks the log itself: what it meets on the way is no matter then. */
	if (st->loading_gone)
		return 1;
	if (st->gone && mw_gone_stretch(st->gone, first, last, NULL) > 0)
		return 1;
	int r = refresh(st, err);
	return r < 0 ? r : mw_gone_stretch(st->gone, first, last, NULL) > 0;
}

static bool
named(const struct mw_gone *g, uint64_t seq)
{
	return g && (mw_gone_record(g, seq) || mw_gone_stretch(g, seq, seq, NULL) > 0);
}

int
mw_store_gone(struct mw_store *st, uint64_t seq, struct mw_err *err)
{
	if (st->loading_gone)
		return 0;
	if (named(st->gone, seq))
		return 1;
	int r = refresh(st, err);
	return r < 0 ? r : named(st->gone, seq);
}
