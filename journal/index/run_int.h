/* run_int.h - what run.c and run_use.c share. Nobody else includes it. */
#ifndef MW_INDEX_RUN_INT_H
#define MW_INDEX_RUN_INT_H

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/run.h"

#include <stdbool.h>

enum {
	RUN_PLACES = 1, /* kinds of values */
	RUN_CHUNK = 2,
	RUN_KEY = 9,
	RUN_BLOCK = 128,    /* records to a block of places */
	RUN_CHUNK_HEAD = 9, /* checksum, whether it is the last, where the next begins */
	RUN_CHUNK_FILL = 4080, /* what fits one of LMDB's pages */
	RUN_SKIP = 8           /* ordinals from which on a group states its length */
};

/* Bytes being read, a value at a time; bad: they ended too early. */
struct run_rd {
	const uint8_t *p, *end;
	bool bad;
};

static inline uint64_t
run_var(struct run_rd *r)
{
	uint64_t v = 0;
	for (unsigned shift = 0; r->p < r->end && shift < 64; shift += 7) {
		uint8_t b = *r->p++;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return v;
	}
	r->bad = true;
	return 0;
}

static inline uint8_t *
run_put_var(uint8_t *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

void run_key(uint8_t key[RUN_KEY], uint32_t id, uint8_t kind, uint32_t n);

/* A block of places. */
struct run_block {
	uint32_t number; /* of v[]; UINT32_MAX: none yet */
	size_t n;
	struct mw_index_hit v[RUN_BLOCK];
};
int run_block_get(struct mw_kv_txn *t, const struct mw_run *run, uint32_t number,
                  struct run_block *b) MW_CHECK;
/* Is it there, and as it was written? 0, or MW_EDAMAGED. */
int run_block_whole(struct mw_kv_txn *t, const struct mw_run *run,
                    uint32_t number) MW_CHECK;

/* Walking the groups of a run: one for each token prefix. Begin with run_groups_at, end
 * with mw_buf_free(&g->chunk), also after a failure. */
struct run_groups {
	struct mw_kv_txn *t;
	uint32_t id;
	struct mw_buf chunk;
	struct run_rd rd;
	bool last;
	uint32_t next; /* prefix of the chunk after this one */
	/* the group */
	uint32_t prefix;
	uint32_t n;
	const uint8_t *ord; /* n ordinals: the first, then how much further less one */
};
/* At the chunk in which the prefix would be. */
int run_groups_at(struct run_groups *g, struct mw_kv_txn *t, uint32_t id,
                  uint32_t prefix) MW_CHECK;
int run_groups_next(struct run_groups *g) MW_CHECK; /* 1, 0 no more, negative */
/* At the next chunk, whatever groups are left in this one: 1, 0 no more, negative. */
int run_groups_pass(struct run_groups *g) MW_CHECK;

#endif
