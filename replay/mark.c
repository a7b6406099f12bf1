/* mark.c - the marks of a journal: starts paired with their ends. */
#include "replay/select.h"

#include "journal/base/util.h"

#include <string.h>

struct gather {
	struct mw_store *st;
	struct mw_arena *arena;
	struct mw_mark_info *v;
	size_t n, cap;
	struct mw_err *err;
	int failed;
};

static int
start(struct gather *g, const struct mw_record *r, const struct mw_mark *m)
{
	struct mw_mark_info *v =
	    mw_arena_grow(g->arena, g->v, &g->cap, g->n + 1, sizeof *v);
	struct mw_str name = mw_arena_str(g->arena, m->name);
	if (!v || !name.p)
		return g->failed = mw_fail(g->err, MW_ENOMEM, "out of memory");
	g->v = v;
	g->v[g->n++] = (struct mw_mark_info){.name = name.p,
	                                     .start_seq = r->seq,
	                                     .start_us = m->time_us,
	                                     .state = MW_MARK_START};
	return 0;
}

static int
on_mark(void *arg, const struct mw_record *r)
{
	struct gather *g = arg;
	MW_BUF_AUTO cbor = {0};
	struct mw_mark m;
	struct mw_err err = {0};
	if (r->type != MW_TYPE_MARK || r->erased)
		return 0;
	/* A mark that cannot be read is verify's to report; it must not hide the others.
	 */
	if (mw_record_meta(g->st, r, &cbor, &err) < 0 ||
	    mw_mark_decode(cbor.p, cbor.n, g->arena, &m, &err) < 0)
		return 0;
	if (m.phase == MW_MARK_START)
		return start(g, r, &m);
	for (size_t k = g->n; k-- > 0;) {
		if (g->v[k].start_seq != m.start_seq)
			continue;
		if (g->v[k].state == MW_MARK_START) {
			g->v[k].state = m.phase;
			g->v[k].end_us = m.time_us;
		}
		break;
	}
	return 0;
}

int
mw_marks(struct mw_store *st, struct mw_arena *a, struct mw_mark_info **ret,
         size_t *ret_n, struct mw_err *err)
{
	struct gather g = {.st = st, .arena = a, .err = err};
	char type = MW_TYPE_MARK;
	int r = mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), on_mark, &g, err);
	if (g.failed < 0 || r < 0)
		return g.failed < 0 ? g.failed : r;
	*ret = g.v;
	*ret_n = g.n;
	return 0;
}

static int
no_such(const char *name, const struct mw_mark_info *v, size_t n, struct mw_arena *a,
        struct mw_err *err)
{
	(void)mw_fail(err, MW_ENOTFOUND, "no mark named '%s'", name);
	const char **names = mw_arena_alloc(a, (n + 1) * sizeof *names);
	for (size_t k = 0; names && k < n; k++)
		names[k] = v[k].name;
	const char *near = names ? mw_nearest(name, names, n) : NULL;
	if (near)
		return mw_err_hint(err, "did you mean '%s'?", near);
	return mw_err_hint(err, n ? "'mailwal mark --list' shows them"
	                          : "this journal has no marks yet");
}

/* Completed starts go before others, newer before older. */
static const struct mw_mark_info *
newest(const struct mw_mark_info *v, size_t n, const char *name, int64_t then_us)
{
	const struct mw_mark_info *found = NULL;
	bool found_complete = false;
	for (size_t k = 0; k < n; k++) {
		bool complete = v[k].state == MW_MARK_COMPLETE && v[k].end_us <= then_us;
		if (strcmp(v[k].name, name) != 0 || v[k].start_us > then_us ||
		    (found_complete && !complete))
			continue;
		found = &v[k];
		found_complete = complete;
	}
	return found;
}

int
mw_mark_find_then(struct mw_store *st, const char *name, int64_t then_us,
                  struct mw_mark_info *ret, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(64U << 20);
	struct mw_mark_info *v = NULL;
	size_t n = 0;
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_marks(st, a, &v, &n, err);
	if (r < 0)
		return r;
	const struct mw_mark_info *found = then_us ? newest(v, n, name, then_us) : NULL;
	if (!found)
		found = newest(v, n, name, INT64_MAX);
	if (!found)
		return no_such(name, v, n, a, err);
	*ret = *found;
	ret->name = NULL;
	return 0;
}

int
mw_mark_find(struct mw_store *st, const char *name, struct mw_mark_info *ret,
             struct mw_err *err)
{
	return mw_mark_find_then(st, name, 0, ret, err);
}
