#include "journal/record/expansion.h"

#include "journal/base/util.h"
#include "journal/record/fields.h"

enum {
	GIVEN = MW_RCPT_LOCAL | MW_RCPT_EXPANDED | MW_RCPT_UNDECIDED
};

static void
put_rcpts(const void *rec, struct mw_buf *out)
{
	const struct mw_expansion *x = rec;
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

static void
take_rcpt(struct mw_fields_rd *d, struct mw_expanded *x)
{
	size_t more = mw_fields_tuple(d, 3);
	x->index = mw_cbor_uint(&d->r);
	x->flags = (uint32_t)mw_cbor_uint(&d->r) & GIVEN;
	x->mailbox = mw_fields_array(d, 1, sizeof *x->mailbox, &x->n_mailbox);
	for (size_t k = 0; k < x->n_mailbox && !d->r.bad; k++)
		x->mailbox[k] = mw_fields_str(d);
	mw_fields_skip(d, more);
}

static void
take_rcpts(struct mw_fields_rd *d, void *rec)
{
	struct mw_expansion *x = rec;
	x->rcpt = mw_fields_array(d, 1, sizeof *x->rcpt, &x->n_rcpt);
	for (size_t i = 0; i < x->n_rcpt && !d->r.bad; i++)
		take_rcpt(d, &x->rcpt[i]);
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_expansion, member)
static const struct mw_field rows[] = {
    {ROW("ref", BYTES, ref), .arg = MW_ID_LEN},
    {ROW("seq", U64, seq)},
    {ROW("time", INT, time_us)},
    {ROW("dur", U64, took_us)},
    {ROW("dir", ENUM, direction), .arg = MW_DIR_INTERNAL, .other = -1},
    {ROW("fl", U32, flags), .arg = MW_MAIL_TABLES_FAILED, .optional = true},
    {ROW("why", STR, reason), .optional = true},
    {ROW("r", OTHER, rcpt), .put = put_rcpts, .take = take_rcpts},
};
#undef ROW
static const struct mw_fields fields = {"expansion", rows, MW_COUNT(rows)};

int
mw_expansion_encode(const struct mw_expansion *x, struct mw_buf *out)
{
	return mw_fields_encode(&fields, x, out);
}

int
mw_expansion_decode(const void *p, size_t n, struct mw_arena *a, struct mw_expansion *ret,
                    struct mw_err *err)
{
	struct mw_expansion x = {.seq = 0};
	int r = mw_fields_decode(&fields, mw_str(p, n), a, &x, err);
	if (r == 0)
		*ret = x;
	return r;
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
