/* index_int.h - what index.c, salvage.c and state.c share. Nobody else includes it. */
#ifndef MW_INDEX_INDEX_INT_H
#define MW_INDEX_INDEX_INT_H

#include "journal/index/index.h"
#include "journal/index/kv.h"
#include "journal/index/run.h"

/* What a partition states of itself, under the least key. */
struct index_state {
	struct mw_index_point point;
	struct mw_run *run; /* malloc'd; ascending, one goes on where the last ended */
	uint32_t n;
};

void index_state_free(struct index_state *s);
/* 1, 0 there is none, negative. Freed by index_state_free when it is 1. */
int index_state_get(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN],
                    struct index_state *ret) MW_CHECK;
int index_state_put(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN],
                    const struct index_state *s) MW_CHECK;

/* salvage.c: of partition `number` of the index in dir; see mw_index_salvage. */
int index_salvage(const char *dir, const uint8_t journal[MW_ID_LEN], uint64_t number,
                  const struct mw_index_salvage *how, struct mw_err *err) MW_CHECK;

#endif
