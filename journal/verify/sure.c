/* Telling damage from what a prune does at the same time. What is removed was named in
 * the log before (I14, I15, I20): so whatever does not hold, or is not there, is looked
 * at once more after it was asked what went by now, until the answer to that is "no
 * more". */
#include "journal/base/util.h"
#include "journal/verify/verify_int.h"

#include <stdio.h>
#include <string.h>

enum {
	LOOKS_MOST =
	    1000 /* nobody removes things that often while one place is looked at */
};

struct before { /* what a look changes */
	struct mw_verify_result res;
	uint64_t expect, prev_number, dict_seg;
	uint8_t chain[MW_HASH_LEN];
	bool chain_known;
};

static void
keep(const struct verify *v, struct before *b)
{
	b->res = *v->res;
	b->expect = v->expect;
	b->prev_number = v->prev_number;
	b->dict_seg = v->dict_seg;
	memcpy(b->chain, v->chain, sizeof b->chain);
	b->chain_known = v->chain_known;
}

static void
restore(struct verify *v, const struct before *b)
{
	*v->res = b->res;
	v->expect = b->expect;
	v->prev_number = b->prev_number;
	v->dict_seg = b->dict_seg;
	memcpy(v->chain, b->chain, sizeof b->chain);
	v->chain_known = b->chain_known;
	v->n_held = 0;
}

void
mw_verify_tell(struct verify *v, const struct mw_finding *f, const char *text)
{
	struct mw_finding told = *f;
	told.text = text;
	v->res->findings[f->kind]++;
	if (v->o->found)
		v->o->found(v->o->arg, &told);
}

void
mw_verify_found(struct verify *v, struct mw_finding f, const char *fmt, ...)
{
	struct held h = {.f = f};
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(h.text, sizeof h.text, fmt, ap);
	va_end(ap);
	if (v->holding && v->n_held < HELD)
		v->held[v->n_held++] = h;
	else
		mw_verify_tell(v, &h.f, h.text);
}

int
mw_verify_gone_more(struct verify *v)
{
	int r = v->gone ? mw_gone_more(v->gone, v->st, NULL)
	                : mw_gone_load(v->st, &v->gone, NULL);
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	v->gone_grew = v->gone_grew || r == 1;
	return r == 1;
}

bool
mw_verify_is_gone(const struct verify *v, uint64_t seq)
{
	return v->gone && (mw_gone_record(v->gone, seq) ||
	                   mw_gone_stretch(v->gone, seq, seq, NULL) > 0);
}

int
mw_verify_surely(struct verify *v, struct mw_seg *s,
                 int (*look)(struct verify *v, struct mw_seg *s, void *arg), void *arg)
{
	struct before b;
	keep(v, &b);
	for (int looks = 0;; looks++) {
		v->holding = true;
		int r = look(v, s, arg);
		v->holding = false;
		if (r == MW_ENOMEM || r == MW_ECANCEL || (r == 0 && v->n_held == 0))
			return r;
		if (mw_seg_left(s, v->dir)) {
			restore(v, &b);
			mw_err_clear(v->err);
			return 1;
		}
		if (r < 0)
			return r;
		r = mw_verify_gone_more(v);
		if (r < 0)
			return r;
		if ((looks > 0 && r == 0) || looks == LOOKS_MOST)
			break;
		restore(v, &b);
	}
	for (size_t i = 0; i < v->n_held; i++)
		mw_verify_tell(v, &v->held[i].f, v->held[i].text);
	v->n_held = 0;
	return 0;
}
