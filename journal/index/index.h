/* index.h - tokens to places: a cache of the log in LMDB, one file per 128 segments
 * (FORMAT.md §9). Anything wrong with it is cured by throwing it away.
 *
 * One writer at a time (the store's index thread, or reindex beside it), readers in any
 * process. Threads: one at a time per handle.
 */
#ifndef MW_INDEX_INDEX_H
#define MW_INDEX_INDEX_H

#include "journal/base/err.h"
#include "journal/base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MW_INDEX_SPAN = 128,
	MW_TOKEN_LEN = 8
};

struct mw_index;

struct mw_index_entry {
	uint64_t seq, segment, offset;
	const uint8_t *tokens; /* MW_TOKEN_LEN each */
	uint32_t n_tokens;
};

struct mw_index_point { /* indexed up to here, exclusive */
	uint64_t segment, offset, next_seq;
	uint64_t last;     /* offset of the last frame that is indexed; 0: none */
	uint8_t chain[32]; /* its chain hash: is this the log that was indexed? */
};

/* dir/index must exist for writing. Opens no partition yet. */
int mw_index_open(const char *dir, const uint8_t journal[MW_ID_LEN], int writable,
                  struct mw_index **ret, struct mw_err *err) MW_CHECK;
void mw_index_close(struct mw_index *ix); /* NULL ok; a writer's is synced; ends */

/* A writer whose work another process could do as well begins and ends each stretch of
 * it; maps that the other one has replaced meanwhile are let go of. MW_ELOCKED: the other
 * one is at work. */
int mw_index_begin(struct mw_index *ix, struct mw_err *err) MW_CHECK;
void mw_index_end(struct mw_index *ix);

/* Most of the partition of that segment will be looked at. */
void mw_index_ahead(struct mw_index *ix, uint64_t segment);
/* How far the partition of that segment is indexed: 1 and *ret; 0 nothing there (or it
 * was unusable: a writer has then removed it). */
int mw_index_point(struct mw_index *ix, uint64_t segment, struct mw_index_point *ret,
                   struct mw_err *err) MW_CHECK;
/* Entries of one partition (that of point->segment), ascending, all after those put
 * before, in one transaction with the point; offsets are multiples of 8. Many at a time
 * are cheaper. MW_EDAMAGED: what is there is garbled; drop the partition. */
int mw_index_put(struct mw_index *ix, const struct mw_index_entry *e, size_t n,
                 const struct mw_index_point *point, struct mw_err *err) MW_CHECK;
/* Places in the partition of that segment which carry the token, or, rarely, one that is
 * like it: look at what stands there. They come ascending by
 * sequence number, from `from_seq` on: at most `max` into out. Returns the number. */
struct mw_index_hit {
	uint64_t seq, segment, offset;
};

int mw_index_find(struct mw_index *ix, uint64_t segment,
                  const uint8_t token[MW_TOKEN_LEN], uint64_t from_seq,
                  struct mw_index_hit *out, size_t max, struct mw_err *err) MW_CHECK;
/* Which of these entries (ascending, of the partition of that segment, before its point)
 * are not found through the index: bad[i] is set or cleared. Takes 24 bytes a token, and
 * is quick for thousands at a time. */
int mw_index_audit(struct mw_index *ix, uint64_t segment, const struct mw_index_entry *e,
                   size_t n, uint8_t *bad, struct mw_err *err) MW_CHECK;
/* Removes a partition's file, or all of them. Readers: does nothing. */
int mw_index_drop(struct mw_index *ix, uint64_t segment, struct mw_err *err) MW_CHECK;
int mw_index_wipe(struct mw_index *ix, struct mw_err *err) MW_CHECK;
/* Removes the file of a partition of the journal in dir at once, whoever has it open:
 * before records in it are wiped, so that no end of the process leaves their tokens. The
 * writer's handle has to drop it later. What was removed can be read by *ret_fd, the
 * caller's to close; -1: there was none, or it cannot. MW_ELOCKED: it is there still,
 * since a process that makes files of the index was stopped. */
int mw_index_forget(const char *dir, uint64_t segment, int *ret_fd,
                    struct mw_err *err) MW_CHECK;
/* Makes a partition again out of such a file, but for what it has of some segments: that
 * is read from the log again. Between begin and end. It is put in place by mw_index_take,
 * and is none before. 1; 0 or negative: nothing can be saved (garbled, or stopped). */
struct mw_index_salvage {
	int from;
	const uint64_t *segment; /* those that changed or went */
	size_t n;
	/* The entries that the log has from that place (which may be gone) up to
	 * last_seq; they last until the next call. */
	int (*again)(void *arg, const struct mw_index_hit *first, uint64_t last_seq,
	             const struct mw_index_entry **ret, size_t *ret_n,
	             struct mw_err *err);
	bool (*stopped)(void *arg);
	void *arg;
};
int mw_index_salvage(struct mw_index *ix, uint64_t segment,
                     const struct mw_index_salvage *how, struct mw_err *err) MW_CHECK;
int mw_index_take(struct mw_index *ix, uint64_t segment) MW_CHECK;

#endif
