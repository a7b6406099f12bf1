#include "journal/record/outcome.h"

#include "journal/base/util.h"
#include "journal/record/fields.h"

const char *
mw_fact_name(enum mw_fact f)
{
	static const char *const names[] = {"unknown", "sent",      "bounced",
	                                    "expired", "deferred",  "refused",
	                                    "held",    "discarded", "delivered"};
	return (size_t)f < MW_COUNT(names) ? names[f] : names[0];
}

static void
put_rcpts(const void *rec, struct mw_buf *out)
{
	const struct mw_outcome *o = rec;
	mw_cbor_put_array(out, o->n_rcpt);
	for (size_t i = 0; i < o->n_rcpt; i++) {
		const struct mw_outcome_rcpt *r = &o->rcpt[i];
		mw_cbor_put_array(out, 7);
		mw_cbor_put_bytes(out, r->addr);
		mw_cbor_put_bytes(out, r->original);
		mw_cbor_put_uint(out, (uint64_t)r->fact);
		mw_cbor_put_int(out, r->time_us);
		mw_cbor_put_bytes(out, r->dsn);
		mw_cbor_put_bytes(out, r->relay);
		mw_cbor_put_bytes(out, r->text);
	}
}

/* Numbers of later versions are told as unknown, not refused. */
static void
take_rcpt(struct mw_fields_rd *d, struct mw_outcome_rcpt *r)
{
	size_t more = mw_fields_tuple(d, 7);
	r->addr = mw_fields_str(d);
	r->original = mw_fields_str(d);
	uint64_t fact = mw_cbor_uint(&d->r);
	r->fact = fact <= MW_FACT_DELIVERED ? (enum mw_fact)fact : MW_FACT_UNKNOWN;
	r->time_us = mw_cbor_int(&d->r);
	r->dsn = mw_fields_str(d);
	r->relay = mw_fields_str(d);
	r->text = mw_fields_str(d);
	mw_fields_skip(d, more);
}

static void
take_rcpts(struct mw_fields_rd *d, void *rec)
{
	struct mw_outcome *o = rec;
	o->rcpt = mw_fields_array(d, 1, sizeof *o->rcpt, &o->n_rcpt);
	for (size_t k = 0; k < o->n_rcpt && !d->r.bad; k++)
		take_rcpt(d, &o->rcpt[k]);
}

static bool
has_rcpts(const void *rec)
{
	return ((const struct mw_outcome *)rec)->n_rcpt != 0;
}

static bool
has_whole(const void *rec)
{
	return ((const struct mw_outcome *)rec)->whole != MW_FACT_UNKNOWN;
}

static void
put_whole_us(const void *rec, struct mw_buf *out)
{
	mw_cbor_put_int(out, ((const struct mw_outcome *)rec)->whole_us);
}

static void
take_whole_us(struct mw_fields_rd *d, void *rec)
{
	((struct mw_outcome *)rec)->whole_us = mw_cbor_int(&d->r);
}

static bool
is_done(const void *rec)
{
	return ((const struct mw_outcome *)rec)->done;
}

static void
put_done(const void *rec, struct mw_buf *out)
{
	mw_cbor_put_int(out, ((const struct mw_outcome *)rec)->done_us);
}

static void
take_done(struct mw_fields_rd *d, void *rec)
{
	struct mw_outcome *o = rec;
	o->done_us = mw_cbor_int(&d->r);
	o->done = true;
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_outcome, member)
static const struct mw_field one_rows[] = {
    {ROW("id", BYTES, id), .arg = MW_ID_LEN, .required = true},
    {ROW("seq", U64, seq)},
    {ROW("qid", STR, queue_id)},
    {ROW("all", ENUM, whole), .arg = MW_FACT_DELIVERED, .optional = true},
    {ROW("at", OTHER, whole_us), .optional = true, .given = has_whole,
     .put = put_whole_us, .take = take_whole_us},
    {ROW("done", OTHER, done), .optional = true, .given = is_done, .put = put_done,
     .take = take_done},
    {ROW("freed", BOOL, freed), .optional = true},
    {ROW("r", OTHER, rcpt), .optional = true, .given = has_rcpts, .put = put_rcpts,
     .take = take_rcpts},
};
#undef ROW
static const struct mw_fields one = {"outcomes", one_rows, MW_COUNT(one_rows)};

static void
put_all(const void *rec, struct mw_buf *out)
{
	const struct mw_outcomes *o = rec;
	mw_cbor_put_array(out, o->n);
	for (size_t i = 0; i < o->n; i++)
		mw_fields_put(&one, &o->v[i], out);
}

static void
take_all(struct mw_fields_rd *d, void *rec)
{
	struct mw_outcomes *o = rec;
	o->v = mw_fields_array(d, 1, sizeof *o->v, &o->n);
	for (size_t k = 0; k < o->n && !d->r.bad; k++)
		mw_fields_take(&one, d, &o->v[k]);
}

static const struct mw_field rows[] = {
    {.key = "time", .type = MW_FIELD_INT, .at = offsetof(struct mw_outcomes, time_us)},
    {.key = "o", .type = MW_FIELD_OTHER, .put = put_all, .take = take_all},
};
static const struct mw_fields fields = {"outcomes", rows, MW_COUNT(rows)};

int
mw_outcomes_encode(const struct mw_outcomes *o, struct mw_buf *out)
{
	return mw_fields_encode(&fields, o, out);
}

int
mw_outcomes_decode(const void *p, size_t n, struct mw_arena *a, struct mw_outcomes *ret,
                   struct mw_err *err)
{
	struct mw_outcomes o = {0};
	int r = mw_fields_decode(&fields, mw_str(p, n), a, &o, err);
	if (r == 0)
		*ret = o;
	return r;
}
