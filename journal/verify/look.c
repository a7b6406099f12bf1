/* What the bytes of one frame say: its checksums, key slot, tokens and content. */
#include "journal/base/util.h"
#include "journal/verify/verify_int.h"

static int
drop(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

/* One message in so many: by its number, so that a run can be repeated, and no look
 * depends on another one (SplitMix64). */
static bool
sampled(const struct mw_look *l, uint64_t seq)
{
	uint64_t x = seq * UINT64_C(0x9e3779b97f4a7c15) + 20260101;
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return (double)(x >> 33) / (double)(UINT64_C(1) << 31) * 100.0 < l->sample;
}

static int
look_content(struct mw_look *l, struct mw_facts *x, struct mw_err *err)
{
	struct mw_err e;
	struct mw_mail m;
	bool dict = x->rec.type == MW_TYPE_DICT; /* looked at always: much hangs on it */
	mw_err_clear(&e);
	mw_arena_reset(l->arena);
	int r = dict ? mw_record_body(l->st, &x->rec, NULL, drop, NULL, &e)
	             : mw_record_mail(l->st, &x->rec, l->arena, &m, &e);
	if (r == 0 && !dict && sampled(l, x->rec.seq)) {
		x->read_back = true;
		r = mw_record_body(l->st, &x->rec, &m, drop, NULL, &e);
	}
	if (r == MW_EERASED || r == MW_EKEY || r == 0)
		return 0;
	if (r == MW_ENOMEM || r == MW_EIO) {
		if (err)
			*err = e;
		return r;
	}
	x->content = r;
	x->text = l->text->n;
	mw_buf_put(l->text, e.msg, strlen(e.msg) + 1);
	r = mw_buf_ok(l->text);
	return r < 0 ? mw_fail(err, r, "out of memory while verifying") : 0;
}

static int
look_slot(struct mw_look *l, struct mw_facts *x, struct mw_err *err)
{
	x->tokens = l->token->n;
	int r = mw_record_slot(l->st, &x->rec, l->token, err);
	if (r < 0)
		l->token->n = x->tokens;
	if (r == MW_EDAMAGED)
		x->wiped = r;
	else if (r < 0)
		return r;
	else
		x->wiped = (x->slot = r) == MW_SLOT_IS_WIPED;
	x->n_tokens = l->token->n - x->tokens;
	if (r != MW_SLOT_IS_WHOLE)
		return 0;
	r = mw_record_tokens_own(l->st, &x->rec, err);
	x->foreign = r == 0;
	return r == MW_EDAMAGED ? 0 : MW_MIN(r, 0);
}

int
mw_verify_look(struct mw_look *l, struct mw_seg *s, uint64_t off, struct mw_facts *ret,
               struct mw_err *err)
{
	struct mw_loc loc = {s->h.number, off};
	struct mw_facts x = {.off = off};
	x.valid = mw_seg_frame_sums(s, off, &x.f, &x.sums, &x.why, err);
	if (x.valid < 0)
		return x.valid;
	int r = x.valid ? mw_store_get(l->st, loc, &x.rec, err) : 0;
	if (r == MW_EDAMAGED) { /* it changed since: nothing is left to look at */
		x.wiped = MW_EDAMAGED;
		r = 0;
	} else if (r == 0 && x.valid) {
		r = look_slot(l, &x, err);
	}
	if (r == 0 && x.valid && x.wiped == 0 &&
	    (x.rec.type == MW_TYPE_MAIL || x.rec.type == MW_TYPE_DICT))
		r = look_content(l, &x, err);
	if (r < 0)
		return r;
	*ret = x;
	return 0;
}
