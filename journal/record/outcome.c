#include "journal/record/outcome.h"

#include "journal/base/util.h"
#include "journal/record/cbor.h"

const char *
mw_fact_name(enum mw_fact f)
{
	static const char *const names[] = {"unknown", "sent",      "bounced",
	                                    "expired", "deferred",  "refused",
	                                    "held",    "discarded", "delivered"};
	return (size_t)f < MW_COUNT(names) ? names[f] : names[0];
}

static void
put_rcpt(const struct mw_outcome_rcpt *r, struct mw_buf *out)
{
	mw_cbor_put_array(out, 7);
	mw_cbor_put_bytes(out, r->addr);
	mw_cbor_put_bytes(out, r->original);
	mw_cbor_put_uint(out, (uint64_t)r->fact);
	mw_cbor_put_int(out, r->time_us);
	mw_cbor_put_bytes(out, r->dsn);
	mw_cbor_put_bytes(out, r->relay);
	mw_cbor_put_bytes(out, r->text);
}

static void
put_one(const struct mw_outcome *o, struct mw_buf *out)
{
	size_t n =
	    (size_t)3 + (o->whole ? 2U : 0U) + o->done + o->freed + (o->n_rcpt ? 1U : 0U);
	mw_cbor_put_map(out, n);
	mw_cbor_put_text(out, "id");
	mw_cbor_put_bytes(out, mw_str((const char *)o->id, MW_ID_LEN));
	mw_cbor_put_text(out, "seq");
	mw_cbor_put_uint(out, o->seq);
	mw_cbor_put_text(out, "qid");
	mw_cbor_put_bytes(out, o->queue_id);
	if (o->whole) {
		mw_cbor_put_text(out, "all");
		mw_cbor_put_uint(out, (uint64_t)o->whole);
		mw_cbor_put_text(out, "at");
		mw_cbor_put_int(out, o->whole_us);
	}
	if (o->done) {
		mw_cbor_put_text(out, "done");
		mw_cbor_put_int(out, o->done_us);
	}
	if (o->freed) {
		mw_cbor_put_text(out, "freed");
		mw_cbor_put_uint(out, 1);
	}
	if (o->n_rcpt) {
		mw_cbor_put_text(out, "r");
		mw_cbor_put_array(out, o->n_rcpt);
		for (size_t i = 0; i < o->n_rcpt; i++)
			put_rcpt(&o->rcpt[i], out);
	}
}

int
mw_outcomes_encode(const struct mw_outcomes *o, struct mw_buf *out)
{
	mw_cbor_put_map(out, 2);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, o->time_us);
	mw_cbor_put_text(out, "o");
	mw_cbor_put_array(out, o->n);
	for (size_t i = 0; i < o->n; i++)
		put_one(&o->v[i], out);
	return mw_buf_ok(out);
}

/* ---- decoding ---- */

struct dec {
	struct mw_cbor_rd r;
	struct mw_arena *a;
	struct mw_err *err;
	int code; /* first failure that is not "malformed" */
};

static void
failed(struct dec *d, int code)
{
	d->code = d->code ? d->code : code;
	d->r.bad = true;
}

static struct mw_str
get_str(struct dec *d)
{
	struct mw_str s = mw_cbor_bytes(&d->r);
	if (d->r.bad)
		return s;
	struct mw_str c = mw_arena_str(d->a, s);
	if (!c.p)
		failed(d, mw_fail(d->err, MW_ENOMEM, "out of memory"));
	return c;
}

/* Numbers of later versions are told as unknown, not refused. */
static enum mw_fact
get_fact(struct dec *d)
{
	uint64_t v = mw_cbor_uint(&d->r);
	return v <= MW_FACT_DELIVERED ? (enum mw_fact)v : MW_FACT_UNKNOWN;
}

static void
unknown(struct dec *d, struct mw_str key)
{
	if (d->r.bad)
		return;
	if (key.n && key.p[0] == '!') {
		failed(d, mw_fail(d->err, MW_EVERSION,
		                  "the outcomes need the feature '%.*s'",
		                  (int)MW_MIN(key.n, 40), key.p));
		return;
	}
	struct mw_cbor_item it = mw_cbor_next(&d->r);
	mw_cbor_skip(&d->r, &it);
}

static void
get_rcpt(struct dec *d, struct mw_outcome_rcpt *r)
{
	size_t n = mw_cbor_array(&d->r);
	if (n < 7) {
		d->r.bad = true;
		return;
	}
	r->addr = get_str(d);
	r->original = get_str(d);
	r->fact = get_fact(d);
	r->time_us = mw_cbor_int(&d->r);
	r->dsn = get_str(d);
	r->relay = get_str(d);
	r->text = get_str(d);
	for (; n > 7 && !d->r.bad; n--) { /* members of later versions */
		struct mw_cbor_item it = mw_cbor_next(&d->r);
		mw_cbor_skip(&d->r, &it);
	}
}

/* Room for the items of an array that was announced; NULL also for an empty one. */
static void *
get_array(struct dec *d, size_t size, size_t *ret_n)
{
	size_t n = mw_cbor_array(&d->r);
	*ret_n = 0;
	if (d->r.bad || n == 0)
		return NULL;
	void *p = mw_arena_alloc(d->a, n * size);
	if (!p)
		failed(d, mw_fail(d->err, MW_ENOMEM, "out of memory"));
	else
		*ret_n = n;
	return p;
}

static void
get_one(struct dec *d, struct mw_outcome *o)
{
	size_t pairs = mw_cbor_map(&d->r);
	bool id = false;
	for (size_t i = 0; i < pairs && !d->r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d->r), s;
		if (mw_str_eq(key, MW_STR("id"))) {
			s = mw_cbor_bytes(&d->r);
			id = !d->r.bad && s.n == MW_ID_LEN;
			if (id)
				memcpy(o->id, s.p, MW_ID_LEN);
		} else if (mw_str_eq(key, MW_STR("seq"))) {
			o->seq = mw_cbor_uint(&d->r);
		} else if (mw_str_eq(key, MW_STR("qid"))) {
			o->queue_id = get_str(d);
		} else if (mw_str_eq(key, MW_STR("all"))) {
			o->whole = get_fact(d);
		} else if (mw_str_eq(key, MW_STR("at"))) {
			o->whole_us = mw_cbor_int(&d->r);
		} else if (mw_str_eq(key, MW_STR("done"))) {
			o->done_us = mw_cbor_int(&d->r);
			o->done = true;
		} else if (mw_str_eq(key, MW_STR("freed"))) {
			o->freed = mw_cbor_uint(&d->r) != 0;
		} else if (mw_str_eq(key, MW_STR("r"))) {
			o->rcpt = get_array(d, sizeof *o->rcpt, &o->n_rcpt);
			for (size_t k = 0; k < o->n_rcpt && !d->r.bad; k++)
				get_rcpt(d, &o->rcpt[k]);
		} else {
			unknown(d, key);
		}
	}
	d->r.bad = d->r.bad || !id;
}

int
mw_outcomes_decode(const void *p, size_t n, struct mw_arena *a, struct mw_outcomes *ret,
                   struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a, .err = err};
	struct mw_outcomes o = {0};
	size_t pairs = mw_cbor_map(&d.r);
	for (size_t i = 0; i < pairs && !d.r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d.r);
		if (mw_str_eq(key, MW_STR("time"))) {
			o.time_us = mw_cbor_int(&d.r);
		} else if (mw_str_eq(key, MW_STR("o"))) {
			o.v = get_array(&d, sizeof *o.v, &o.n);
			for (size_t k = 0; k < o.n && !d.r.bad; k++)
				get_one(&d, &o.v[k]);
		} else {
			unknown(&d, key);
		}
	}
	if (d.code)
		return d.code;
	if (d.r.bad || d.r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed outcomes at byte %zu", d.r.at);
	*ret = o;
	return 0;
}
