/* segment_int.h - what the files of the segment room share. */
#ifndef MW_SEGMENT_INT_H
#define MW_SEGMENT_INT_H

#include "journal/segment/segment.h"

enum {
	STANZAS_AT = 156
};

/* Both copies of the header block: h->length bytes, zeroed before. */
void mw_seg_header_put(const struct mw_seg_header *h, uint8_t *p);
/* Reads them into s->h: either will do; s->header_hurt if one does not hold. */
int mw_seg_header_get(struct mw_seg *s, uint64_t number, const uint8_t *journal,
                      struct mw_err *err) MW_CHECK;

#endif
