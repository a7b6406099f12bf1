/* verify_int.h - what the files of the room share. Nobody else includes it.
 *
 * Two things are kept apart. What the bytes of one frame say, whatever stands around it
 * (struct mw_facts), is found out by whoever has time for it: look.c, in any thread,
 * ahead.c says when. What that means in its place (the chain, sequence numbers,
 * tombstones, the index) is judged by the caller's thread alone, in log order: verify.c,
 * record.c. So findings are the same however many threads there are.
 */
#ifndef MW_VERIFY_VERIFY_INT_H
#define MW_VERIFY_VERIFY_INT_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/window.h"
#include "journal/index/index.h"
#include "journal/segment/segment.h"
#include "journal/verify/verify.h"

/* ---- look.c ---- */

struct mw_facts {
	uint64_t off;
	int valid; /* 1: a valid frame; 0: none, and why; -1: nobody could look */
	const char *why;
	struct mw_frame f;
	/* of a valid frame */
	struct mw_seg_sums sums;
	struct mw_record rec;
	int wiped;               /* its key slot: 1, 0, MW_EDAMAGED */
	int slot;                /* enum mw_slot_is, where it is not damaged */
	bool foreign;            /* its tokens were not written with it */
	size_t tokens, n_tokens; /* bytes of them, in the look's buffer */
	int content;    /* 0: well, not looked at, or no key; else MW_E*, and a text */
	size_t text;    /* … where it is in the look's buffer, with its NUL */
	bool read_back; /* all of its content was */
};

/* A way of looking, of one thread at a time. */
struct mw_look {
	struct mw_store *st;
	double sample;
	struct mw_arena *arena;
	struct mw_buf *token, *text; /* of the facts found */
};

/* Finds out about the frame at off of s. Negative: I/O, memory. */
int mw_verify_look(struct mw_look *l, struct mw_seg *s, uint64_t off,
                   struct mw_facts *ret, struct mw_err *err) MW_CHECK;

/* ---- ahead.c ---- */

/* Looks ahead of the caller, in pieces of a segment, with threads and bounded memory. */
struct mw_ahead;
struct mw_job { /* something else for its threads to do */
	void (*run)(void *arg);
	void *arg;
	int state;
};

/* *ret NULL where there is no memory for it, or no thread is wanted: then everything is
 * done by the caller itself. */
void mw_ahead_start(const struct mw_look *like, const struct mw_fs *fs, int threads,
                    uint64_t bytes, struct mw_ahead **ret);
void mw_ahead_stop(struct mw_ahead *a); /* NULL ok */
/* A segment is begun; what was looked at of the one before is forgotten. */
void mw_ahead_segment(struct mw_ahead *a, struct mw_seg *s, uint64_t end);
/* What was found at off, and the buffers of its tokens and text, until the next call;
 * NULL: nothing was. */
const struct mw_facts *mw_ahead_at(struct mw_ahead *a, uint64_t off,
                                   const struct mw_look **ret_look);
/* Has a job done, by a thread or, with a NULL, at once; and waits for its end. */
void mw_ahead_do(struct mw_ahead *a, struct mw_job *j);
void mw_ahead_wait(struct mw_ahead *a, struct mw_job *j);

/* ---- verify.c, record.c ---- */

enum {
	GATHERED = 32768,
	GATHERED_TOKENS = 32 << 20 /* or so many bytes: to sort them takes twice that */
};

struct gathered { /* records that are to be looked up in the index */
	struct mw_index_entry e[GATHERED];
	size_t at[GATHERED]; /* of its tokens; e[].tokens are set at the end */
	uint8_t bad[GATHERED];
	size_t n;
	struct mw_buf tokens;
	struct mw_index *index;
	struct mw_job job;
	int answer;
	bool asked;
};

enum {
	HELD = 16 /* findings about one record */
};

struct held {
	struct mw_finding f;
	char text[700];
};

struct verify {
	struct mw_store *st;
	const struct mw_fs *fs;
	const char *dir;
	const struct mw_verify_opts *o;
	struct mw_verify_result *res;
	struct mw_err *err;
	struct mw_look look; /* for what nobody has looked at before */
	struct mw_buf token, text;
	struct mw_facts facts; /* … of that */
	struct mw_ahead *ahead;
	struct mw_index *index;
	struct mw_index_point point; /* of the partition of point_for */
	uint64_t point_for;
	bool have_point;
	struct gathered *gathered; /* two: one is filled, one is looked up */
	unsigned filling;
	uint64_t expect; /* next sequence number, 0: any */
	uint8_t chain[MW_HASH_LEN];
	bool chain_known;
	uint64_t prev_number;
	uint64_t all_bytes;
	uint64_t dict_seg; /* a dictionary that is there: its segment and place */
	uint32_t dict_good;
	struct mw_gone *gone; /* what tombstones and audits say; NULL: nothing known */
	bool gone_grew;       /* … and said more since we began */
	/* Somebody may remove records, and files, beside us. So what is found is held
	 * back until it is known that nothing went meanwhile; see sure.c. */
	bool holding;
	size_t n_held;
	struct held held[HELD];
};

/* ---- sure.c ---- */

/* Has `look` look until what it finds is sure, and tells that. As look, or 1: the segment
 * left the log, and nothing was found. */
int mw_verify_surely(struct verify *v, struct mw_seg *s,
                     int (*look)(struct verify *v, struct mw_seg *s, void *arg),
                     void *arg) MW_CHECK;
/* Asks what went by now: 1 more than was known, 0, MW_ENOMEM. */
int mw_verify_gone_more(struct verify *v) MW_CHECK;
/* Is it known that this record went? */
bool mw_verify_is_gone(const struct verify *v, uint64_t seq);

void mw_verify_found(struct verify *v, struct mw_finding f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void mw_verify_tell(struct verify *v, const struct mw_finding *f, const char *text);
/* MW_ENOMEM, said so. */
int mw_verify_no_memory(struct verify *v) MW_CHECK;
/* The record of a valid frame, which l found out about; once that is sure, its tokens are
 * gathered for the index. */
int mw_verify_record(struct verify *v, struct mw_seg *s, const struct mw_facts *x,
                     const struct mw_look *l) MW_CHECK;
int mw_verify_index(struct verify *v, const struct mw_facts *x,
                    const struct mw_look *l) MW_CHECK;

/* Looks up in the index all that was gathered for it, and tells. */
int mw_verify_index_flush(struct verify *v) MW_CHECK;

#endif
