/* run.h - sorted runs, of which a partition of the index consists (FORMAT.md §9).
 *
 * A run holds the tokens of a stretch of the log, sorted, in pieces of about a page, and
 * the places of its records. It is written at once and never changed; small ones are
 * merged into larger ones. All that is done inside the transactions of kv.h, by one
 * thread. Each piece has a checksum and says where the next one begins: what is missing
 * or garbled is MW_EDAMAGED, never a wrong answer.
 */
#ifndef MW_INDEX_RUN_H
#define MW_INDEX_RUN_H

#include "journal/index/index.h"
#include "journal/index/kv.h"

struct mw_run {
	uint32_t id; /* never 0, larger than that of any run before it in the map */
	uint32_t records, entries;
	uint64_t first_seq, last_seq;
};

/* Pairs of the first four bytes of a token (high half) and the number of its entry (low
 * half), sorted; *ret is malloc'd. MW_ENOMEM. */
int mw_index_run_sort(const struct mw_index_entry *e, size_t n, uint64_t **ret,
                      size_t *ret_n) MW_CHECK;

/* Writes a run of n entries (n > 0, ascending by sequence number), with their pairs. */
int mw_index_run_make(struct mw_kv_txn *t, uint32_t id, const struct mw_index_entry *e,
                      size_t n, const uint64_t *pairs, size_t n_pairs,
                      struct mw_run *ret) MW_CHECK;
/* Writes one run out of n that follow each other, and removes these. */
int mw_index_run_merge(struct mw_kv_txn *t, uint32_t id, const struct mw_run *v, size_t n,
                       struct mw_run *ret) MW_CHECK;
/* Is all of it there? 0, or MW_EDAMAGED. */
int mw_index_run_check(struct mw_kv_txn *t, const struct mw_run *run) MW_CHECK;

/* Places that may carry the token, ascending, from sequence number `from` on, at most
 * max: the number found. */
int mw_index_run_find(struct mw_kv_txn *t, const struct mw_run *run,
                      const uint8_t token[MW_TOKEN_LEN], uint64_t from,
                      struct mw_index_hit *out, size_t max) MW_CHECK;
/* Sets bad[i] for each entry within the run's sequence numbers that is not found through
 * it, and clears it for the others. pairs: see mw_index_run_sort, of all n entries. */
int mw_index_run_audit(struct mw_kv_txn *t, const struct mw_run *run,
                       const struct mw_index_entry *e, size_t n, const uint64_t *pairs,
                       size_t n_pairs, uint8_t *bad) MW_CHECK;

#endif
