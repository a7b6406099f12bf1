/* Dictionaries read back: two copies stand in a segment, either will do (I18). */
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

/* Makes a dictionary out of the DICT record at off. */
static int
load_at(struct mw_store *st, uint64_t segment, uint64_t off, uint32_t at,
        struct mw_zdict **ret, struct mw_err *err)
{
	struct mw_record r;
	MW_BUF_AUTO bytes = {0};
	struct mw_loc loc = {segment, off};
	int e = mw_store_get(st, loc, &r, err);
	if (e < 0)
		return e;
	if (r.type != MW_TYPE_DICT || r.dict != at)
		return mw_fail(err, MW_EDAMAGED,
		               "segment %llu, offset %llu: no dictionary",
		               (unsigned long long)segment, (unsigned long long)off);
	e = mw_record_content(st, &r, NULL, MW_ZDICT_MOST, &bytes, err);
	if (e == 0) {
		e = mw_zdict_new(bytes.p, bytes.n, 0, ret);
		if (e < 0)
			(void)mw_fail(err, e, "segment %llu, offset %llu: %s",
			              (unsigned long long)segment,
			              (unsigned long long)off,
			              e == MW_ENOMEM ? "out of memory for a dictionary"
			                             : "its content is no dictionary");
	}
	mw_buf_wipe(&bytes);
	return e;
}

/* The second copy stands behind the first, wherever that ends. */
static int
load_copy(struct mw_store *st, uint64_t segment, uint32_t at, struct mw_zdict **ret,
          struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_frame f;
	uint64_t first = 8 * (uint64_t)at, off;
	int e = mw_store_seg(st, segment, &o, err);
	if (e == 0)
		e = mw_seg_find(o->seg, first + 8, first + 2 * (uint64_t)MW_ZDICT_MOST, 0,
		                &off, &f, err);
	if (e == 0)
		e = mw_fail(err, MW_EDAMAGED, "no second copy");
	return e < 0 ? e : load_at(st, segment, off, at, ret, err);
}

static int
load(struct mw_store *st, const struct mw_record *r, struct mw_zdict **ret,
     struct mw_err *err)
{
	struct mw_err e = {0};
	int k = load_at(st, r->loc.segment, 8 * (uint64_t)r->dict, r->dict, ret, &e);
	if (k == MW_EDAMAGED || k == MW_EERASED || k == MW_ELIMIT) {
		struct mw_err e2 = {0};
		k = load_copy(st, r->loc.segment, r->dict, ret, &e2);
	}
	if (k == 0)
		return 0;
	bool lost = k == MW_EDAMAGED || k == MW_EERASED || k == MW_ELIMIT;
	return mw_fail(
	    err, lost ? MW_EDAMAGED : k,
	    "record with sequence %llu needs the dictionary in segment %llu at "
	    "offset %llu, which cannot be read: %s",
	    (unsigned long long)r->seq, (unsigned long long)r->loc.segment,
	    8ULL * r->dict, e.msg);
}

int
mw_dict_for(struct mw_store *st, const struct mw_record *r, const struct mw_zdict **ret,
            struct mw_err *err)
{
	struct mw_read_dict *slot = &st->read_dict[0];
	*ret = NULL;
	if (r->dict == 0)
		return 0;
	for (size_t i = 0; i < MW_READ_DICTS; i++) {
		struct mw_read_dict *d = &st->read_dict[i];
		if (d->z && d->segment == r->loc.segment && d->at == r->dict) {
			d->used = ++st->tick;
			*ret = d->z;
			return 0;
		}
		if (!d->z || (slot->z && d->used < slot->used))
			slot = d;
	}
	struct mw_zdict *z = NULL;
	int e = load(st, r, &z, err);
	if (e < 0)
		return e;
	mw_zdict_free(slot->z);
	*slot = (struct mw_read_dict){r->loc.segment, r->dict, z, ++st->tick};
	*ret = z;
	return 0;
}

void
mw_dict_read_done(struct mw_store *st)
{
	for (size_t i = 0; i < MW_READ_DICTS; i++) {
		mw_zdict_free(st->read_dict[i].z);
		st->read_dict[i].z = NULL;
	}
}
