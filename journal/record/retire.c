#include "journal/record/retire.h"

#include "journal/base/util.h"
#include "journal/record/fields.h"

/* ---- holds ---- */

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_hold, member)
#define LIST(k, member)                                                                  \
	{                                                                                \
		ROW(k, STRS, member), .count = offsetof(struct mw_hold, n_##member),     \
		                      .optional = true                                   \
	}
static const struct mw_field hold_rows[] = {
    {ROW("name", STR, name)},
    {ROW("op", BOOL, released)},
    {ROW("time", INT, time_us)},
    {ROW("by", STR, by)},
    LIST("user", user),
    LIST("domain", domain),
    LIST("sender", sender),
    LIST("mid", message_id),
    LIST("qid", queue_id),
    {ROW("since", INT, since_us), .optional = true, .none = INT64_MIN},
    {ROW("until", INT, until_us), .optional = true, .none = INT64_MAX},
    {ROW("dir", ENUM, direction), .arg = 255, .other = 255, .optional = true, .none = -1},
    {ROW("larger", U64, larger), .optional = true},
    {ROW("smaller", U64, smaller), .optional = true},
};
#undef LIST
#undef ROW
static const struct mw_fields hold = {"hold", hold_rows, MW_COUNT(hold_rows)};

int
mw_hold_encode(const struct mw_hold *h, struct mw_buf *out)
{
	return mw_fields_encode(&hold, h, out);
}

int
mw_hold_decode(const void *p, size_t n, struct mw_arena *a, struct mw_hold *ret,
               struct mw_err *err)
{
	struct mw_hold h = {.since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1};
	int r = mw_fields_decode(&hold, mw_str(p, n), a, &h, err);
	if (r == 0)
		*ret = h;
	return r;
}

/* ---- tombstones ---- */

static void
put_number(const void *rec, struct mw_buf *out)
{
	const struct mw_tombstone *t = rec;
	uint64_t records = 0;
	for (size_t i = 0; i < t->n_range; i++)
		records += t->range[i].last - t->range[i].first + 1;
	mw_cbor_put_uint(out, records);
}

static void
take_number(struct mw_fields_rd *d, void *rec)
{
	(void)rec;
	(void)mw_cbor_uint(&d->r); /* for people; the ranges count */
}

static void
put_seqs(const struct mw_seq_range *v, size_t n, struct mw_buf *out)
{
	mw_cbor_put_array(out, 2 * n);
	for (size_t i = 0; i < n; i++) {
		mw_cbor_put_uint(out, v[i].first);
		mw_cbor_put_uint(out, v[i].last - v[i].first + 1);
	}
}

static void
take_seqs(struct mw_fields_rd *d, struct mw_seq_range **ret, size_t *ret_n)
{
	uint64_t after = 0;
	struct mw_seq_range *v = mw_fields_array(d, 2, sizeof *v, ret_n);
	for (size_t i = 0; i < *ret_n && !d->r.bad; i++) {
		uint64_t first = mw_cbor_uint(&d->r), count = mw_cbor_uint(&d->r);
		if (first < after || count == 0 || first + count < first)
			d->r.bad = true;
		v[i] = (struct mw_seq_range){first, first + count - 1};
		after = first + count;
	}
	*ret = v;
}

static void
put_ranges(const void *rec, struct mw_buf *out)
{
	const struct mw_tombstone *t = rec;
	put_seqs(t->range, t->n_range, out);
}

static void
take_ranges(struct mw_fields_rd *d, void *rec)
{
	struct mw_tombstone *t = rec;
	take_seqs(d, &t->range, &t->n_range);
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_tombstone, member)
static const struct mw_field tomb_rows[] = {
    {ROW("why", ENUM, why), .arg = MW_TOMB_ERASURE, .other = MW_TOMB_ERASURE},
    {ROW("time", INT, time_us)},
    {ROW("by", STR, by)},
    {.key = "n", .type = MW_FIELD_OTHER, .put = put_number, .take = take_number},
    {ROW("seqs", OTHER, range), .put = put_ranges, .take = take_ranges},
    {ROW("tok", CELLS, token), .count = offsetof(struct mw_tombstone, n_token),
     .arg = MW_RETIRE_TOKEN, .optional = true},
};
#undef ROW
static const struct mw_fields tomb = {"tombstone", tomb_rows, MW_COUNT(tomb_rows)};

int
mw_tombstone_encode(const struct mw_tombstone *t, struct mw_buf *out)
{
	return mw_fields_encode(&tomb, t, out);
}

int
mw_tombstone_decode(const void *p, size_t n, struct mw_arena *a, struct mw_tombstone *ret,
                    struct mw_err *err)
{
	struct mw_tombstone t = {.why = MW_TOMB_RETENTION};
	int r = mw_fields_decode(&tomb, mw_str(p, n), a, &t, err);
	if (r == 0)
		*ret = t;
	return r;
}

/* ---- audits ---- */

static void
put_gone(const void *rec, struct mw_buf *out)
{
	const struct mw_audit *x = rec;
	mw_cbor_put_array(out, x->n_gone);
	for (size_t i = 0; i < x->n_gone; i++) {
		const struct mw_gone_segs *g = &x->gone[i];
		mw_cbor_put_array(out, 7);
		mw_cbor_put_uint(out, g->first_seg);
		mw_cbor_put_uint(out, g->last_seg);
		mw_cbor_put_uint(out, g->first_seq);
		mw_cbor_put_uint(out, g->last_seq);
		mw_cbor_put_bytes(out, mw_str((const char *)g->chain, sizeof g->chain));
		mw_cbor_put_int(out, g->clock_us);
		mw_cbor_put_int(out, g->took_us);
	}
}

static void
take_gone_one(struct mw_fields_rd *d, struct mw_gone_segs *g)
{
	size_t more = mw_fields_tuple(d, 7);
	g->first_seg = mw_cbor_uint(&d->r);
	g->last_seg = mw_cbor_uint(&d->r);
	g->first_seq = mw_cbor_uint(&d->r);
	g->last_seq = mw_cbor_uint(&d->r);
	mw_fields_bytes(d, g->chain, sizeof g->chain);
	if (g->last_seg < g->first_seg || g->last_seq < g->first_seq)
		d->r.bad = true;
	g->clock_us = mw_cbor_int(&d->r);
	g->took_us = mw_cbor_int(&d->r);
	mw_fields_skip(d, more);
}

static void
take_gone(struct mw_fields_rd *d, void *rec)
{
	struct mw_audit *x = rec;
	x->gone = mw_fields_array(d, 1, sizeof *x->gone, &x->n_gone);
	for (size_t i = 0; i < x->n_gone && !d->r.bad; i++)
		take_gone_one(d, &x->gone[i]);
}

static bool
has_lost(const void *rec)
{
	return ((const struct mw_audit *)rec)->n_lost > 0;
}

static void
put_lost(const void *rec, struct mw_buf *out)
{
	const struct mw_audit *x = rec;
	put_seqs(x->lost, x->n_lost, out);
}

static void
take_lost(struct mw_fields_rd *d, void *rec)
{
	struct mw_audit *x = rec;
	take_seqs(d, &x->lost, &x->n_lost);
}

static bool
has_settled(const void *rec)
{
	return ((const struct mw_audit *)rec)->n_settled > 0;
}

static void
put_settled(const void *rec, struct mw_buf *out)
{
	const struct mw_audit *x = rec;
	put_seqs(x->settled, x->n_settled, out);
}

static void
take_settled(struct mw_fields_rd *d, void *rec)
{
	struct mw_audit *x = rec;
	take_seqs(d, &x->settled, &x->n_settled);
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_audit, member)
static const struct mw_field audit_rows[] = {
    {ROW("time", INT, time_us)},
    {ROW("by", STR, by)},
    {ROW("records", U64, records)},
    {ROW("bytes", U64, bytes)},
    {ROW("segs", U64, segments)},
    {ROW("freed", U64, freed)},
    {ROW("gone", OTHER, gone), .put = put_gone, .take = take_gone},
    {ROW("lost", OTHER, lost), .optional = true, .given = has_lost, .put = put_lost,
     .take = take_lost},
    {ROW("settled", OTHER, settled), .optional = true, .given = has_settled,
     .put = put_settled, .take = take_settled},
};
#undef ROW
static const struct mw_fields audit = {"audit record", audit_rows, MW_COUNT(audit_rows)};

int
mw_audit_encode(const struct mw_audit *x, struct mw_buf *out)
{
	return mw_fields_encode(&audit, x, out);
}

int
mw_audit_decode(const void *p, size_t n, struct mw_arena *a, struct mw_audit *ret,
                struct mw_err *err)
{
	struct mw_audit x = {.time_us = 0};
	int r = mw_fields_decode(&audit, mw_str(p, n), a, &x, err);
	if (r == 0)
		*ret = x;
	return r;
}

/* ---- restores ---- */

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_restore, member)
static const struct mw_field restore_rows[] = {
    {ROW("time", INT, time_us)},
    {ROW("phase", BOOL, ended)},
    {ROW("by", STR, by)},
    {ROW("user", STR, user)},
    {ROW("to", STR, target)},
    {ROW("folder", STR, folder)},
    {ROW("run", STR, run)},
    {ROW("selected", U64, selected)},
    {ROW("restored", U64, restored)},
    {ROW("present", U64, present)},
    {ROW("failed", U64, failed)},
    {ROW("ids", CELLS, id), .count = offsetof(struct mw_restore, n_id), .arg = MW_ID_LEN},
};
#undef ROW
static const struct mw_fields restore = {"restore record", restore_rows,
                                         MW_COUNT(restore_rows)};

int
mw_restore_encode(const struct mw_restore *x, struct mw_buf *out)
{
	return mw_fields_encode(&restore, x, out);
}

int
mw_restore_decode(const void *p, size_t n, struct mw_arena *a, struct mw_restore *ret,
                  struct mw_err *err)
{
	struct mw_restore x = {.time_us = 0};
	int r = mw_fields_decode(&restore, mw_str(p, n), a, &x, err);
	if (r == 0)
		*ret = x;
	return r;
}
