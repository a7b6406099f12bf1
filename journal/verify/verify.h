/* verify.h - is everything in the log what it was when it was written?
 *
 * Walks segments, frames, chain, key slots, contents and index; goes on past damage;
 * names every lost sequence number, its place and the reason. Changes nothing. Chain and
 * frames need no key; contents are checked where a key is at hand. Called by the store's
 * thread; threads of its own end before it returns.
 */
#ifndef MW_VERIFY_VERIFY_H
#define MW_VERIFY_VERIFY_H

#include "journal/store/store.h"

enum mw_finding_kind {
	MW_FINDING_DAMAGED, /* a record, or a stretch of records, is lost */
	MW_FINDING_MISSING, /* a segment is not there */
	MW_FINDING_CHAIN,   /* the hash chain does not hold: altered or reordered */
	MW_FINDING_CONTENT, /* frames hold, but the content is not what was captured */
	MW_FINDING_INDEX, /* the index differs from the log; 'mailwal reindex' cures it */
	MW_FINDING_SIGNATURE,  /* a closed segment's signature is missing or does not hold
	                        */
	MW_FINDING_CHECKPOINT, /* the log does not go through a checkpoint kept elsewhere
	                        */
	MW_FINDING_WIPED,      /* a key slot was wiped, and no tombstone says so */
	MW_FINDING_TORN, /* bytes of an unfinished write: never acknowledged, no damage */
	MW_FINDING_UNDECIDED, /* at the very end of an unclosed segment: torn or damaged
	                       */
	MW_FINDING_PENDING    /* a tombstone names it, and it is not wiped yet; the next
	                       * 'mailwal prune' does that */
};

const char *mw_finding_name(enum mw_finding_kind k); /* "damaged", … */
/* Does this kind make the answer "no"? (TORN, UNDECIDED and PENDING do
 * not.) */
bool mw_finding_bad(enum mw_finding_kind k);

struct mw_finding {
	enum mw_finding_kind kind;
	uint64_t segment, offset;
	uint64_t first_seq, last_seq; /* what is hit; 0: no record */
	const char *text;             /* during the callback only */
};

struct mw_checkpoint;

enum {
	MW_VERIFY_PLAIN =
	    -1 /* in `threads`: nothing is read ahead, one after the other */
};

struct mw_verify_opts {
	double sample; /* percent of messages whose content is read back: 0 … 100 */
	void (*found)(void *arg, const struct mw_finding *f);
	/* Called now and then with bytes checked; non-zero stops with MW_ECANCEL. */
	int (*progress)(void *arg, uint64_t done_bytes, uint64_t all_bytes);
	void *arg;
	const struct mw_checkpoint *checkpoint; /* n_checkpoint of them, or NULL */
	size_t n_checkpoint;
	/* How many look at records at the same time, the caller's thread included; 0: one
	 * for each processor, where the log is large enough. What is found, and in which
	 * order, does not depend on it; found and progress are called by the caller's
	 * thread alone. */
	int threads;
};

struct mw_verify_result {
	uint64_t segments, records, mails, contents, bytes;
	uint64_t findings[MW_FINDING_PENDING + 1]; /* by kind */
	uint64_t first_seq, last_seq;
	uint8_t chain[32]; /* head of the chain at last_seq */
	uint64_t
	    anchored_seq; /* newest checkpoint that holds; 0: the tail is not anchored */
	uint64_t signed_segments;
	uint64_t erased; /* records whose slot is wiped, as a tombstone says */
	uint64_t pruned; /* segments that are not there, as an audit record says */
};

/* 0: all well; 1: something is bad; negative: could not look. */
int mw_verify_run(struct mw_store *st, const struct mw_verify_opts *o,
                  struct mw_verify_result *ret, struct mw_err *err) MW_CHECK;

#endif
