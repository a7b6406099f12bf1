/* retire.h - the records that say what may not go, what went, and why: HOLD, TOMBSTONE
 * and AUDIT, and what was put back for one user, RESTORE, in their CBOR form (FORMAT.md
 * §6).
 *
 * Pure functions over bytes, with the laws of meta.h. Decoded arrays and strings live in
 * the caller's arena.
 */
#ifndef MW_RECORD_RETIRE_H
#define MW_RECORD_RETIRE_H

#include "journal/record/meta.h"

#include <stdbool.h>

enum {
	MW_RETIRE_TOKEN = 8,   /* bytes of a look-up token (FORMAT.md §4) */
	MW_TOMB_RANGES = 20000 /* most ranges written into one tombstone */
};

/* A legal hold: what it names is neither pruned nor erased. The newest record of a name
 * counts. Lists are OR-ed within, AND-ed among each other; all open: everything. */
struct mw_hold {
	struct mw_str name;
	bool released; /* "hold rm" */
	int64_t time_us;
	struct mw_str by;
	int64_t since_us, until_us; /* INT64_MIN, INT64_MAX: open */
	struct mw_str *user, *domain, *sender, *message_id, *queue_id;
	size_t n_user, n_domain, n_sender, n_message_id, n_queue_id;
	int direction;            /* -1: any */
	uint64_t larger, smaller; /* content bytes; 0: off */
};

int mw_hold_encode(const struct mw_hold *h, struct mw_buf *out) MW_CHECK;
int mw_hold_decode(const void *p, size_t n, struct mw_arena *a, struct mw_hold *ret,
                   struct mw_err *err) MW_CHECK;

enum mw_tomb_why {
	MW_TOMB_RETENTION = 0,
	MW_TOMB_ERASURE = 1
};

struct mw_seq_range {
	uint64_t first, last;
};

/* These records were removed; or, with tokens, the copies in them of the addresses and
 * logins that have these tokens. */
struct mw_tombstone {
	enum mw_tomb_why why;
	int64_t time_us;
	struct mw_str by;
	struct mw_seq_range *range; /* ascending, apart */
	size_t n_range;
	uint8_t (*token)[MW_RETIRE_TOKEN];
	size_t n_token;
};

int mw_tombstone_encode(const struct mw_tombstone *t, struct mw_buf *out) MW_CHECK;
int mw_tombstone_decode(const void *p, size_t n, struct mw_arena *a,
                        struct mw_tombstone *ret, struct mw_err *err) MW_CHECK;

/* A run of segments whose files were removed. */
struct mw_gone_segs {
	uint64_t first_seg, last_seg;
	uint64_t first_seq, last_seq;
	uint8_t chain[32]; /* of the last frame in them */
	/* The log's own clock (FORMAT.md §10) at the last record, and how far the run
	 * took it on from the record before. */
	int64_t clock_us, took_us;
};

/* What a prune did. The newest one names every segment ever removed. */
struct mw_audit {
	int64_t time_us;
	struct mw_str by;
	uint64_t records, bytes;   /* expired in this run: messages, stored bytes */
	uint64_t segments, freed;  /* files removed in this run, their bytes */
	struct mw_gone_segs *gone; /* ascending, apart */
	size_t n_gone;
	/* Records that could not be read: each may be a hold; and those of which an
	 * operator said that none was. */
	struct mw_seq_range *lost, *settled; /* ascending, apart */
	size_t n_lost, n_settled;
};

int mw_audit_encode(const struct mw_audit *x, struct mw_buf *out) MW_CHECK;
int mw_audit_decode(const void *p, size_t n, struct mw_arena *a, struct mw_audit *ret,
                    struct mw_err *err) MW_CHECK;

/* Mail put back for one user (recover): a begin before anything is put, an end after. A
 * long list of IDs is told in several records of the same run. */
enum {
	MW_RESTORE_IDS = 1000 /* most IDs in one record */
};

struct mw_restore {
	int64_t time_us;
	struct mw_str by, user, target, folder, run; /* folder empty: the right one */
	bool ended;
	uint64_t selected;                  /* copies asked for */
	uint64_t restored, present, failed; /* with ended */
	uint8_t (*id)[MW_ID_LEN];           /* asked for; with ended: put back */
	size_t n_id;
};

int mw_restore_encode(const struct mw_restore *x, struct mw_buf *out) MW_CHECK;
int mw_restore_decode(const void *p, size_t n, struct mw_arena *a, struct mw_restore *ret,
                      struct mw_err *err) MW_CHECK;

#endif
