#include "replay/erased.h"

#include "journal/retain/retain.h"

#include <stdlib.h>

int
mw_erased_gone(struct mw_erased *e, struct mw_store *st, size_t k,
               const struct mw_gone **ret, struct mw_err *err)
{
	if (k >= e->n) {
		struct mw_gone **v = reallocarray(e->v, k + 1, sizeof(struct mw_gone *));
		if (!v)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		e->v = v;
		struct mw_laters *w = reallocarray(e->later, k + 1, sizeof *w);
		if (!w)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		e->later = w;
		while (e->n <= k) {
			e->later[e->n] = (struct mw_laters){.v = NULL};
			e->v[e->n++] = NULL;
		}
	}
	int r = e->v[k] ? 0 : mw_gone_load(st, &e->v[k], err);
	if (r == 0)
		*ret = e->v[k];
	return r;
}

int
mw_erased_mail(struct mw_erased *e, struct mw_store *st, size_t k,
               const struct mw_record *r, struct mw_arena *a, struct mw_mail *ret,
               struct mw_err *err)
{
	const struct mw_gone *g = NULL;
	int s = mw_erased_gone(e, st, k, &g, err);
	if (s < 0)
		return s;
	if (mw_gone_record(g, r->seq)) {
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, r->id);
		return mw_fail(err, MW_EERASED, "record %.11s has been erased", id);
	}
	s = mw_record_mail(st, r, a, ret, err);
	if (s == 0)
		s = mw_laters_apply(&e->later[k], st, r, a, ret, err);
	if (s == 0 && mw_erased_strip(g, st, r->seq, ret) < 0)
		s = mw_fail(err, MW_ENOMEM, "out of memory");
	return s;
}

void
mw_erased_done(struct mw_erased *e)
{
	for (size_t k = 0; k < e->n; k++) {
		mw_gone_free(e->v[k]);
		mw_laters_done(&e->later[k]);
	}
	free(e->v);
	free(e->later);
	e->v = NULL;
	e->later = NULL;
	e->n = 0;
}
