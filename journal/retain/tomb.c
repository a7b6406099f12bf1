/* tomb.c - tombstones written, and the slots that they name wiped. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>
#include <string.h>

int
mw_tomb_write(struct mw_retain_owner *o, const struct mw_tombstone *t, struct mw_err *err)
{
	int r = 0;
	for (size_t at = 0; r == 0 && at < t->n_range; at += MW_TOMB_RANGES) {
		MW_BUF_AUTO cbor = {0};
		struct mw_tombstone part = *t;
		part.range = t->range + at;
		part.n_range = MW_MIN(t->n_range - at, (size_t)MW_TOMB_RANGES);
		r = mw_tombstone_encode(&part, &cbor);
		r = r < 0 ? mw_fail(err, r, "out of memory for a tombstone")
		          : mw_owner_note(o, MW_TYPE_TOMBSTONE, &cbor, err);
	}
	return r;
}

/* n ascending sequence numbers into ranges; out has room for n. */
static size_t
ranges_of(const uint64_t *seq, size_t n, struct mw_seq_range *out)
{
	size_t k = 0;
	for (size_t i = 0; i < n; i++) {
		if (k && seq[i] <= out[k - 1].last + 1)
			out[k - 1].last = seq[i];
		else
			out[k++] = (struct mw_seq_range){seq[i], seq[i]};
	}
	return k;
}

int
mw_tomb_for(struct mw_retain_owner *o, enum mw_tomb_why why, const uint64_t *seq,
            size_t n, const struct mw_tombstone *who, struct mw_err *err)
{
	struct mw_tombstone t = {.why = why, .time_us = o->now_us, .by = mw_strz(o->by)};
	if (n == 0)
		return 0;
	MW_AUTOFREE struct mw_seq_range *v = calloc(n, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory for a tombstone");
	t.range = v;
	t.n_range = ranges_of(seq, n, v);
	if (who) {
		t.token = who->token;
		t.n_token = who->n_token;
	}
	return mw_tomb_write(o, &t, err);
}

int
mw_wipe_all(struct mw_retain_owner *o, const struct mw_target_rec *v, size_t n,
            struct mw_err *err)
{
	MW_AUTOFREE struct mw_wipe_at *p = calloc(n + 1, sizeof *p);
	int r = p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory while wiping");
	for (size_t i = 0; r == 0 && i < n;) {
		uint64_t segment = v[i].segment;
		size_t k = 0;
		for (; i < n && v[i].segment == segment; i++)
			p[k++] = (struct mw_wipe_at){v[i].offset, v[i].seq};
		r = mw_owner_wipe(o, segment, p, k, err);
	}
	return r;
}

int
mw_cut_all(struct mw_retain_owner *o, const struct mw_target_rec *v, size_t n,
           const struct mw_tombstone *t, struct mw_err *err)
{
	MW_AUTOFREE struct mw_wipe_at *p = calloc(n + 1, sizeof *p);
	int r = p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory while erasing");
	for (size_t i = 0; r == 0 && i < n;) {
		uint64_t segment = v[i].segment;
		struct mw_cut c = {(const uint8_t(*)[8])t->token, t->n_token, p, 0};
		for (; i < n && v[i].segment == segment; i++)
			p[c.n++] = (struct mw_wipe_at){v[i].offset, v[i].seq};
		r = mw_owner_cut(o, segment, &c, err);
	}
	return r;
}

static int
by_seq(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static int
by_place(const void *a, const void *b)
{
	const struct mw_target_rec *x = a, *y = b;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* In log order; v and seq have room for n. */
static void
places_of(const struct mw_record *rec, size_t n, struct mw_target_rec *v, uint64_t *seq)
{
	for (size_t i = 0; i < n; i++) {
		seq[i] = rec[i].seq;
		v[i] = (struct mw_target_rec){rec[i].loc.segment, rec[i].loc.offset,
		                              rec[i].seq};
	}
	qsort(seq, n, sizeof *seq, by_seq);
	qsort(v, n, sizeof *v, by_place);
}

/* Those that lose the same tokens. */
struct cut {
	struct mw_tombstone t; /* its tokens: all addresses, and one login or none */
	uint64_t *seq;
	struct mw_target_rec *v;
	size_t n;
};

static void
cut_free(struct cut *c, size_t n)
{
	for (size_t i = 0; c && i < n; i++) {
		free(c[i].t.token);
		free(c[i].seq);
		free(c[i].v);
	}
	free(c);
}

/* Of the records that lose login k (0: none) beside the addresses. */
static int
cut_make(const struct mw_erase_list *e, size_t k, struct cut *c)
{
	MW_AUTOFREE struct mw_record *rec = calloc(e->n_cut + 1, sizeof *rec);
	c->t.token = calloc(e->n_token + 2, MW_RETIRE_TOKEN);
	c->seq = calloc(e->n_cut + 1, sizeof *c->seq);
	c->v = calloc(e->n_cut + 1, sizeof *c->v);
	if (!rec || !c->t.token || !c->seq || !c->v)
		return MW_ENOMEM;
	if (e->n_token)
		memcpy(c->t.token, e->token, e->n_token * MW_RETIRE_TOKEN);
	c->t.n_token = e->n_token;
	for (size_t i = 0; k && i < 2; i++) {
		const uint8_t *token = e->login[k - 1].token[i];
		if (i == 0 || memcmp(token, e->login[k - 1].token[0], MW_RETIRE_TOKEN))
			memcpy(c->t.token[c->t.n_token++], token, MW_RETIRE_TOKEN);
	}
	for (size_t i = 0; c->t.n_token && i < e->n_cut; i++)
		if ((e->cut_login ? e->cut_login[i] : 0) == k)
			rec[c->n++] = e->cut[i];
	places_of(rec, c->n, c->v, c->seq);
	return 0;
}

int
mw_erase_run(struct mw_retain_owner *o, const struct mw_erase_list *e, struct mw_err *err)
{
	size_t n_cut = e->n_login + 1;
	MW_AUTOFREE uint64_t *seq = calloc(e->n_whole + 1, sizeof *seq);
	MW_AUTOFREE struct mw_target_rec *v = calloc(e->n_whole + 1, sizeof *v);
	struct cut *cut = calloc(n_cut, sizeof *cut);
	int r = seq && v && cut ? 0 : MW_ENOMEM;
	for (size_t k = 0; r == 0 && k < n_cut; k++)
		r = cut_make(e, k, &cut[k]);
	if (r < 0) {
		cut_free(cut, n_cut);
		return mw_fail(err, r, "out of memory for a tombstone");
	}
	places_of(e->whole, e->n_whole, v, seq);
	r = mw_tomb_for(o, MW_TOMB_ERASURE, seq, e->n_whole, NULL, err);
	for (size_t k = 0; r == 0 && k < n_cut; k++)
		r = mw_tomb_for(o, MW_TOMB_ERASURE, cut[k].seq, cut[k].n, &cut[k].t, err);
	/* What was captured a moment ago may stand in the open segment. */
	if (r == 0 && (e->n_whole || e->n_cut))
		r = mw_owner_roll(o, err);
	if (r == 0)
		r = mw_wipe_all(o, v, e->n_whole, err);
	for (size_t k = 0; r == 0 && k < n_cut; k++)
		if (cut[k].n)
			r = mw_cut_all(o, cut[k].v, cut[k].n, &cut[k].t, err);
	cut_free(cut, n_cut);
	return r == 0 && e->n_whole ? mw_erase_dicts(o, e, err) : r;
}
