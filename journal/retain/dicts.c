/* dicts.c - dictionaries that no record needs any more are erased too (FORMAT.md I18). */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>

enum {
	DICTS = 512 /* of a segment; more are left to the next prune */
};

struct dicts {
	struct mw_record rec[DICTS];
	bool needed[DICTS];
	size_t n;
};

static int
look_at(struct mw_store *st, const struct mw_record *r, struct dicts *d,
        struct mw_err *err)
{
	if (r->dict == 0)
		return 0;
	int wiped = mw_record_wiped(st, r, err);
	if (wiped == MW_EDAMAGED)
		wiped = 0; /* it may be read yet, by luck; a dictionary is cheap */
	if (wiped < 0)
		return wiped;
	if (r->type == MW_TYPE_DICT && !wiped && d->n < DICTS)
		d->rec[d->n++] = *r;
	for (size_t i = 0; r->type != MW_TYPE_DICT && i < d->n; i++)
		d->needed[i] = d->needed[i] || (!wiped && d->rec[i].dict == r->dict);
	return 0;
}

/* The dictionaries of a settled segment; none where part of it cannot be read. */
static int
gather(struct mw_store *st, const struct mw_segment_info *s, struct dicts *d,
       struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record rec;
	d->n = 0;
	memset(d->needed, 0, sizeof d->needed);
	int r = mw_cursor_new(st, s->first_seq, &c, err);
	while (r == 0) {
		struct mw_err e = {0};
		r = mw_cursor_next(c, &rec, &e);
		if (r == MW_EDAMAGED) {
			d->n = 0;
			return 0;
		}
		if (r < 0 && err)
			*err = e;
		if (r <= 0 || rec.seq > s->last_seq)
			return r < 0 ? r : 0;
		r = look_at(st, &rec, d, err);
	}
	return r;
}

static int
erase(struct mw_retain_owner *o, const struct dicts *d, struct mw_err *err)
{
	uint64_t seq[DICTS];
	struct mw_target_rec at[DICTS];
	size_t n = 0;
	for (size_t i = 0; i < d->n; i++) {
		const struct mw_record *r = &d->rec[i];
		if (d->needed[i])
			continue;
		seq[n] = r->seq;
		at[n++] = (struct mw_target_rec){r->loc.segment, r->loc.offset, r->seq};
	}
	int r = mw_tomb_for(o, MW_TOMB_ERASURE, seq, n, NULL, err);
	return r == 0 ? mw_wipe_all(o, at, n, err) : r;
}

static bool
hit(const struct mw_erase_list *e, uint64_t segment)
{
	for (size_t i = 0; i < e->n_whole; i++)
		if (e->whole[i].loc.segment == segment)
			return true;
	return false;
}

int
mw_erase_dicts(struct mw_retain_owner *o, const struct mw_erase_list *e,
               struct mw_err *err)
{
	MW_AUTOFREE struct mw_segment_info *info = NULL;
	MW_AUTOFREE struct dicts *d = calloc(1, sizeof *d);
	MW_STORE_AUTO *own = NULL;
	struct mw_store *st = o->st;
	size_t n = 0;
	int r = d ? 0 : mw_fail(err, MW_ENOMEM, "out of memory for dictionaries");
	if (r == 0 && !st) { /* a daemon has it: we read beside it */
		struct mw_store_opts opts = {.dir = o->dir};
		r = mw_store_open(&opts, &own, err);
		st = own;
	}
	if (r == 0)
		r = mw_store_segment_info(st, &info, &n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (!info[i].settled || !info[i].first_seq || !hit(e, info[i].number))
			continue;
		r = gather(st, &info[i], d, err);
		if (r == 0)
			r = erase(o, d, err);
	}
	return r;
}
