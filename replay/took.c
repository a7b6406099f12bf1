#include "replay/took.h"

#include <stdlib.h>

static int
lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Equal as mw_str_ieq has it. */
static int
by_name(const void *x, const void *y)
{
	const struct mw_str *a = x, *b = y;
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (lower(a->p[i]) != lower(b->p[i]))
			return lower(a->p[i]) - lower(b->p[i]);
	return a->n < b->n ? -1 : a->n > b->n;
}

int
mw_took_init(struct mw_took *t, const struct mw_mail *m, struct mw_arena *a)
{
	const unsigned any =
	    MW_RCPT_REFUSED | MW_RCPT_EXCLUDED | MW_RCPT_UNDECIDED | MW_RCPT_LOCAL;
	t->n = 0;
	t->v = mw_arena_alloc(a, (m->n_rcpt + 1) * sizeof *t->v);
	if (!t->v)
		return MW_ENOMEM;
	for (size_t i = 0; i < m->n_rcpt; i++)
		if ((m->rcpt[i].flags & any) == MW_RCPT_LOCAL)
			t->v[t->n++] = m->rcpt[i].addr;
	if (t->n)
		qsort(t->v, t->n, sizeof *t->v, by_name);
	return 0;
}

bool
mw_took_has(const struct mw_took *t, struct mw_str addr)
{
	return t->n && bsearch(&addr, t->v, t->n, sizeof *t->v, by_name);
}
