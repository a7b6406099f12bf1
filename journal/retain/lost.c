/* Records that cannot be read and may be holds: nothing may go while there are such. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <inttypes.h>
#include <stdlib.h>

int
mw_lost_add(struct mw_lost *l, struct mw_arena *a, uint64_t first, uint64_t last)
{
	struct mw_seq_range *v = mw_arena_grow(a, l->v, &l->cap, l->n + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	l->v = v;
	l->v[l->n++] = (struct mw_seq_range){first, last};
	return 0;
}

static int
by_first(const void *a, const void *b)
{
	uint64_t x = ((const struct mw_seq_range *)a)->first;
	uint64_t y = ((const struct mw_seq_range *)b)->first;
	return x < y ? -1 : x > y;
}

void
mw_lost_sort(struct mw_lost *l)
{
	size_t k = 0;
	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, by_first);
	for (size_t i = 0; i < l->n; i++) {
		struct mw_seq_range *before = k ? &l->v[k - 1] : NULL;
		if (before && l->v[i].first <= before->last + 1)
			before->last = MW_MAX(before->last, l->v[i].last);
		else
			l->v[k++] = l->v[i];
	}
	l->n = k;
}

/* What of l is in v, too, goes from l to both (NULL: nowhere). All are ascending, apart;
 * each is walked once. */
static int
take_out(struct mw_lost *l, const struct mw_seq_range *v, size_t n, struct mw_arena *a,
         struct mw_lost *both)
{
	struct mw_lost left = {.n = 0};
	size_t from_k = 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		uint64_t at = l->v[i].first, last = l->v[i].last;
		while (from_k < n && v[from_k].last < at)
			from_k++;
		for (size_t k = from_k; r == 0 && k < n && v[k].first <= last; k++) {
			uint64_t from = MW_MAX(at, v[k].first);
			uint64_t to = MW_MIN(last, v[k].last);
			if (from > at)
				r = mw_lost_add(&left, a, at, from - 1);
			if (r == 0 && both)
				r = mw_lost_add(both, a, from, to);
			at = to + 1;
		}
		if (r == 0 && at <= last)
			r = mw_lost_add(&left, a, at, last);
	}
	if (r == 0)
		*l = left;
	return r;
}

int
mw_lost_settle(struct mw_lost *l, const struct mw_audit *x, struct mw_arena *a,
               struct mw_lost *ret_settled)
{
	struct mw_lost gone = {.n = 0};
	int r = 0;
	mw_lost_sort(l);
	for (size_t i = 0; x && r == 0 && i < x->n_gone; i++)
		r = mw_lost_add(&gone, a, x->gone[i].first_seq, x->gone[i].last_seq);
	mw_lost_sort(&gone); /* an audit from elsewhere may have it otherwise */
	if (x && r == 0)
		r = take_out(l, gone.v, gone.n, a, NULL);
	if (x && r == 0)
		r = take_out(l, x->settled, x->n_settled, a, ret_settled);
	return r;
}

int
mw_lost_told(const struct mw_lost *l, struct mw_arena *a, struct mw_lost *ret)
{
	struct mw_lost told = {.n = 0};
	int r = 0;
	for (size_t i = 0; r == 0 && i < MW_MIN(l->n, (size_t)MW_LOST_TOLD); i++)
		r = mw_lost_add(&told, a, l->v[i].first, l->v[i].last);
	if (r == 0 && told.n < l->n)
		told.v[told.n - 1].last = l->v[l->n - 1].last;
	if (r == 0)
		*ret = told;
	return r;
}

uint64_t
mw_lost_count(const struct mw_lost *l)
{
	uint64_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		n += l->v[i].last - l->v[i].first + 1;
	return n;
}

void
mw_lost_text(const struct mw_lost *l, struct mw_buf *out)
{
	enum {
		MOST = 6
	};
	for (size_t i = 0; i < l->n && i < MOST; i++) {
		mw_buf_printf(out, "%s%" PRIu64, i ? ", " : "", l->v[i].first);
		if (l->v[i].last > l->v[i].first)
			mw_buf_printf(out, "-%" PRIu64, l->v[i].last);
	}
	if (l->n > MOST)
		mw_buf_puts(out, ", …");
}

/* ---- a walk for them alone ---- */

struct look {
	struct mw_store *st;
	struct mw_arena *a;
	struct mw_lost *lost;
	struct mw_audit audit;
	bool audited;
	uint64_t next;
};

/* 1: it can be read, 0: it cannot. */
static int
readable(struct look *k, const struct mw_record *r)
{
	MW_BUF_AUTO cbor = {0};
	struct mw_hold h;
	struct mw_audit x;
	int e;
	if (r->type == MW_TYPE_EXPANSION) {
		e = mw_record_slot(k->st, r, &cbor, NULL);
		return e == MW_ENOMEM ? e
		                      : e >= 0 || mw_store_gone(k->st, r->seq, NULL) == 1;
	}
	if (r->type != MW_TYPE_HOLD && r->type != MW_TYPE_AUDIT)
		return 1;
	e = mw_record_meta(k->st, r, &cbor, NULL);
	if (e == 0 && r->type == MW_TYPE_HOLD)
		e = mw_hold_decode(cbor.p, cbor.n, k->a, &h, NULL);
	else if (e == 0 && (e = mw_audit_decode(cbor.p, cbor.n, k->a, &x, NULL)) == 0) {
		k->audit = x;
		k->audited = true;
	}
	if (e == MW_ENOMEM)
		return e;
	return e == 0 || r->type == MW_TYPE_AUDIT;
}

static int
take(struct look *k, const struct mw_record *r)
{
	int e = 0;
	if (r->seq > k->next)
		e = mw_lost_add(k->lost, k->a, k->next, r->seq - 1);
	k->next = MW_MAX(k->next, r->seq + 1);
	int ok = e == 0 ? readable(k, r) : e;
	return ok == 0 ? mw_lost_add(k->lost, k->a, r->seq, r->seq) : MW_MIN(ok, 0);
}

static int
walk(struct look *k, bool (*stopped)(void), struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	unsigned failures = 0;
	int r = mw_cursor_new(k->st, 1, &c, err);
	if (r == 0)
		mw_cursor_ahead(c);
	while (r == 0) {
		struct mw_record rec;
		struct mw_err e = {0};
		if (stopped && stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		r = mw_cursor_next(c, &rec, &e);
		if (r == 0)
			return 0;
		if (r > 0)
			r = take(k, &rec);
		else if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION ||
		         (++failures < 64 && r != MW_ENOMEM))
			r = 0;
		else if (err)
			*err = e;
	}
	return err && err->code ? r : mw_fail(err, r, "out of memory for damaged places");
}

int
mw_holds_lost(struct mw_store *st, struct mw_arena *a, bool (*stopped)(void),
              struct mw_lost *ret, struct mw_err *err)
{
	MW_AUTOFREE struct mw_segment_info *seg = NULL;
	struct mw_lost lost = {.n = 0}, settled = {.n = 0};
	struct look k = {.st = st, .a = a, .lost = &lost, .next = 1};
	uint64_t end = 1;
	size_t n = 0;
	int r = mw_store_segment_info(st, &seg, &n, err);
	if (r == 0)
		r = walk(&k, stopped, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		end = MW_MAX(end, seg[i].last_seq + 1);
	if (end > k.next)
		r = mw_lost_add(&lost, a, k.next, end - 1);
	if (r == 0)
		r = mw_lost_settle(&lost, k.audited ? &k.audit : NULL, a, &settled);
	if (r < 0)
		return mw_fail(err, r, "out of memory for damaged places");
	*ret = lost;
	return 0;
}
