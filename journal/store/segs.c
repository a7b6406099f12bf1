/* A reader's segments at hand, and what of them was read ahead. */
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

enum {
	AHEAD = 128 << 10,  /* bytes read at a time, */
	AHEAD_HEAD = 4096,  /* and of the last frame: header, slot, metadata */
	AHEAD_SPARSE = 8192 /* from one frame that is wanted to the next */
};

static void
seg_close(struct mw_open_seg *o)
{
	mw_seg_free(o->seg);
	mw_aead_done(&o->aead);
	explicit_bzero(o, sizeof *o);
}

int
mw_store_seg(struct mw_store *st, uint64_t number, struct mw_open_seg **ret,
             struct mw_err *err)
{
	struct mw_open_seg *slot = &st->open[st->last_seg];
	if (slot->seg && slot->seg->h.number == number) { /* mostly */
		slot->used = ++st->tick;
		*ret = slot;
		return 0;
	}
	slot = &st->open[0];
	for (int i = 0; i < MW_OPEN_SEGS; i++) {
		struct mw_open_seg *o = &st->open[i];
		if (o->seg && o->seg->h.number == number) {
			o->used = ++st->tick;
			st->last_seg = i;
			*ret = o;
			return 0;
		}
		if (!o->seg || (slot->seg && o->used < slot->used))
			slot = o;
	}
	struct mw_seg *s = NULL;
	int r = mw_seg_open(st->fs, st->dir, number, st->id, &s, err);
	if (r < 0)
		return r;
	seg_close(slot);
	slot->seg = s;
	slot->used = ++st->tick;
	st->last_seg = (int)(slot - st->open);
	*ret = slot;
	return 0;
}

int
mw_store_seg_key(struct mw_store *st, struct mw_open_seg *o, struct mw_err *err)
{
	if (!o->key_tried) {
		int r = mw_store_unwrap(st, o->seg, o->key);
		if (r < 0)
			return mw_fail(err, r, "out of memory for a segment key");
		o->have_key = r == 1;
		o->key_tried = true;
	}
	return o->have_key;
}

void
mw_store_seg_drop(struct mw_store *st, uint64_t number)
{
	for (int i = 0; i < MW_OPEN_SEGS; i++)
		if (st->open[i].seg && st->open[i].seg->h.number == number)
			seg_close(&st->open[i]);
}

void
mw_store_segs_newest(struct mw_store *st)
{
	uint64_t newest = 0;
	for (int i = 0; i < MW_OPEN_SEGS; i++)
		if (st->open[i].seg)
			newest = MW_MAX(newest, st->open[i].seg->h.number);
	for (int i = 0; i < MW_OPEN_SEGS; i++)
		if (st->open[i].seg && st->open[i].seg->h.number < newest)
			seg_close(&st->open[i]);
}

void
mw_store_segs_close(struct mw_store *st)
{
	for (int i = 0; i < MW_OPEN_SEGS; i++)
		seg_close(&st->open[i]);
	mw_aead_done(&st->aead);
	mw_zd_free(st->zd);
	st->zd = NULL;
}

size_t
mw_store_ahead(struct mw_store *st, const struct mw_loc *v, size_t n)
{
	struct mw_open_seg *o;
	size_t k = 1;
	while (k < n && v[k].segment == v[0].segment && v[k].offset > v[k - 1].offset &&
	       v[k].offset - v[0].offset <= AHEAD - AHEAD_HEAD)
		k++;
	uint64_t span = v[k - 1].offset - v[0].offset;
	if (span > k * (uint64_t)AHEAD_SPARSE) { /* most of it is of no use */
		k = 1;
		span = 0;
	}
	if (mw_store_seg(st, v[0].segment, &o, NULL) == 0)
		mw_seg_ahead(o->seg, v[0].offset, (size_t)span + AHEAD_HEAD);
	return k;
}

void
mw_store_behind(struct mw_store *st)
{
	for (int i = 0; i < MW_OPEN_SEGS; i++)
		if (st->open[i].seg)
			mw_seg_behind(st->open[i].seg);
}
