#include "journal/record/expansion.h"

#include "journal/base/util.h"
#include "journal/record/cbor.h"

enum {
	GIVEN = MW_RCPT_LOCAL | MW_RCPT_EXPANDED | MW_RCPT_UNDECIDED
};

static void
put_rcpts(const struct mw_expansion *x, struct mw_buf *out)
{
	mw_cbor_put_array(out, x->n_rcpt);
	for (size_t i = 0; i < x->n_rcpt; i++) {
		const struct mw_expanded *r = &x->rcpt[i];
		mw_cbor_put_array(out, 3);
		mw_cbor_put_uint(out, r->index);
		mw_cbor_put_uint(out, r->flags);
		mw_cbor_put_array(out, r->n_mailbox);
		for (size_t k = 0; k < r->n_mailbox; k++)
			mw_cbor_put_bytes(out, r->mailbox[k]);
	}
}

int
mw_expansion_encode(const struct mw_expansion *x, struct mw_buf *out)
{
	mw_cbor_put_map(out, 6U + (x->flags != 0) + (x->reason.n != 0));
	mw_cbor_put_text(out, "ref");
	mw_cbor_put_bytes(out, mw_str((const char *)x->ref, sizeof x->ref));
	mw_cbor_put_text(out, "seq");
	mw_cbor_put_uint(out, x->seq);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, x->time_us);
	mw_cbor_put_text(out, "dur");
	mw_cbor_put_uint(out, x->took_us);
	mw_cbor_put_text(out, "dir");
	mw_cbor_put_uint(out, (uint64_t)x->direction);
	if (x->flags) {
		mw_cbor_put_text(out, "fl");
		mw_cbor_put_uint(out, x->flags);
	}
	if (x->reason.n) {
		mw_cbor_put_text(out, "why");
		mw_cbor_put_bytes(out, x->reason);
	}
	mw_cbor_put_text(out, "r");
	put_rcpts(x, out);
	return mw_buf_ok(out);
}

/* ---- decoding ---- */

/* False: no memory. What is malformed is in r. */
static bool
take_rcpt(struct mw_cbor_rd *r, struct mw_arena *a, struct mw_expanded *x)
{
	if (mw_cbor_array(r) != 3)
		r->bad = true;
	x->index = mw_cbor_uint(r);
	x->flags = (uint32_t)mw_cbor_uint(r) & GIVEN;
	size_t n = mw_cbor_array(r);
	/* each takes at least one byte: no small input asks for much memory */
	if (r->bad || n > r->n - r->at) {
		r->bad = true;
		return true;
	}
	x->mailbox = mw_arena_alloc(a, n * sizeof *x->mailbox);
	if (!x->mailbox)
		return false;
	x->n_mailbox = n;
	for (size_t k = 0; k < n; k++) {
		struct mw_str v = mw_cbor_bytes(r);
		if (r->bad)
			return true;
		x->mailbox[k] = mw_arena_str(a, v);
		if (!x->mailbox[k].p)
			return false;
	}
	return true;
}

static bool
take_rcpts(struct mw_cbor_rd *r, struct mw_arena *a, struct mw_expansion *x)
{
	size_t n = mw_cbor_array(r);
	if (r->bad || n > r->n - r->at) {
		r->bad = true;
		return true;
	}
	x->rcpt = mw_arena_alloc(a, n * sizeof *x->rcpt);
	if (!x->rcpt)
		return false;
	x->n_rcpt = n;
	for (size_t i = 0; i < n && !r->bad; i++)
		if (!take_rcpt(r, a, &x->rcpt[i]))
			return false;
	return true;
}

static void
take_direction(struct mw_cbor_rd *r, struct mw_expansion *x)
{
	uint64_t d = mw_cbor_uint(r);
	if (d > MW_DIR_INTERNAL)
		r->bad = true;
	else
		x->direction = (enum mw_direction)d;
}

/* One pair. 0, MW_EVERSION or MW_ENOMEM. */
static int
take_pair(struct mw_cbor_rd *r, struct mw_str key, struct mw_arena *a,
          struct mw_expansion *x)
{
	if (mw_str_eq(key, MW_STR("ref"))) {
		struct mw_str v = mw_cbor_bytes(r);
		if (!r->bad && v.n == sizeof x->ref)
			memcpy(x->ref, v.p, v.n);
		else
			r->bad = true;
	} else if (mw_str_eq(key, MW_STR("seq"))) {
		x->seq = mw_cbor_uint(r);
	} else if (mw_str_eq(key, MW_STR("time"))) {
		x->time_us = mw_cbor_int(r);
	} else if (mw_str_eq(key, MW_STR("dur"))) {
		x->took_us = mw_cbor_uint(r);
	} else if (mw_str_eq(key, MW_STR("dir"))) {
		take_direction(r, x);
	} else if (mw_str_eq(key, MW_STR("fl"))) {
		x->flags = (uint32_t)mw_cbor_uint(r) & MW_MAIL_TABLES_FAILED;
	} else if (mw_str_eq(key, MW_STR("why"))) {
		struct mw_str v = mw_cbor_bytes(r);
		if (!r->bad)
			x->reason = mw_arena_str(a, v);
		return r->bad || x->reason.p ? 0 : MW_ENOMEM;
	} else if (mw_str_eq(key, MW_STR("r"))) {
		return take_rcpts(r, a, x) ? 0 : MW_ENOMEM;
	} else if (key.n && key.p[0] == '!') {
		return MW_EVERSION;
	} else {
		struct mw_cbor_item it = mw_cbor_next(r);
		mw_cbor_skip(r, &it);
	}
	return 0;
}

int
mw_expansion_decode(const void *p, size_t n, struct mw_arena *a, struct mw_expansion *ret,
                    struct mw_err *err)
{
	struct mw_cbor_rd r = {p, n, 0, false};
	struct mw_expansion x;
	memset(&x, 0, sizeof x);
	size_t pairs = mw_cbor_map(&r);
	for (size_t i = 0; i < pairs && !r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&r);
		int e = r.bad ? 0 : take_pair(&r, key, a, &x);
		if (e == MW_ENOMEM)
			return mw_fail(err, e,
			               "out of memory while reading an expansion");
		if (e == MW_EVERSION) {
			(void)mw_fail(err, e, "the expansion needs the feature '%.*s'",
			              (int)MW_MIN(key.n, 40), key.p);
			(void)mw_err_hint(err, "read it with a newer mailwal");
			return e;
		}
	}
	if (r.bad || r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed expansion at byte %zu", r.at);
	*ret = x;
	return 0;
}

/* ---- beside its mail ---- */

bool
mw_expansion_awaited(const struct mw_mail *m)
{
	for (size_t i = 0; i < m->n_rcpt; i++)
		if (m->rcpt[i].flags & MW_RCPT_LATER)
			return true;
	return false;
}

void
mw_expansion_apply(const struct mw_expansion *x, struct mw_mail *m)
{
	bool any = false;
	for (size_t i = 0; i < x->n_rcpt; i++) {
		const struct mw_expanded *e = &x->rcpt[i];
		if (e->index >= m->n_rcpt)
			continue;
		struct mw_rcpt *r = &m->rcpt[e->index];
		if (!(r->flags & MW_RCPT_LATER))
			continue;
		r->flags =
		    (r->flags & ~(uint32_t)(GIVEN | MW_RCPT_LATER)) | (e->flags & GIVEN);
		r->mailbox = e->mailbox;
		r->n_mailbox = e->n_mailbox;
		any = true;
	}
	if (!any)
		return;
	m->direction = x->direction;
	m->flags |= x->flags & MW_MAIL_TABLES_FAILED;
}
