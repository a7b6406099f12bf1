/* In the committer's thread: which dictionaries the open segment has, and where (I18). */
#include "journal/store/store_int.h"

uint32_t
mw_dict_at(const struct mw_store *st, const struct mw_dict *d)
{
	for (size_t i = 0; i < st->n_seg_dict; i++)
		if (st->seg_dict[i].d == d)
			return st->seg_dict[i].at;
	return 0;
}

uint32_t
mw_dict_placed(struct mw_store *st, struct mw_dict *d, uint64_t off)
{
	uint32_t at = mw_dict_at(st, d);
	if (at)
		return at;
	if (st->n_seg_dict == MW_SEG_DICTS) { /* forgotten: written again if needed */
		mw_dict_unref(st->seg_dict[0].d);
		memmove(st->seg_dict, st->seg_dict + 1,
		        --st->n_seg_dict * sizeof *st->seg_dict);
	}
	at = (uint32_t)(off / 8);
	st->seg_dict[st->n_seg_dict].d = mw_dict_ref(d);
	st->seg_dict[st->n_seg_dict++].at = at;
	return at;
}

void
mw_dict_segment_end(struct mw_store *st)
{
	while (st->n_seg_dict)
		mw_dict_unref(st->seg_dict[--st->n_seg_dict].d);
}
