/* aside.h - later records: what is found out about a mail once it has been answered (P5).
 *
 * A journaled message leaves a question; a few threads answer, each with a record sealed
 * there; one more appends these, many to a sync. What there is no room for is counted and
 * dropped: its message stays without, as after a kill. SPF verdicts (verdict.h) and
 * expansions (expand.h) are kinds of it.
 *
 * Memory: questions and answers that wait count by what they hold. While the answers make
 * up half of bytes_max no further question is looked at, and no question is taken beyond
 * the other half: all that waits stays below bytes_max and one answer for each thread.
 *
 * Life: start, ask …, stop. Threads: all functions from any thread; stop comes last. The
 * threads that answer start with the first question.
 */
#ifndef MW_MILTER_ASIDE_H
#define MW_MILTER_ASIDE_H

#include <sys/queue.h>

#include "journal/store/store.h"

struct mw_aside;

/* Opens the struct of each kind's own question. */
struct mw_aside_q {
	STAILQ_ENTRY(mw_aside_q) next;
	struct mw_aside *aside;
	size_t bytes;           /* what it holds, by whoever asks */
	struct mw_entry *entry; /* the answer, by `answer` */
	bool doubtful;          /* likewise: it is counted apart */
};

struct mw_aside_kind {
	unsigned threads;
	size_t open_max; /* questions that are not on disk yet */
	size_t bytes_max;
	int64_t gather_ms;      /* one sync for all that come in this time */
	bool drop_at_stop;      /* else they are answered, in a hurry */
	const char *overloaded; /* why there is no room, for `dropped` */

	/* Sets q->entry, finished: 0. Else negative: the question is dropped. It is not
	 * used again but by `free`, so what it held may go. */
	int (*answer)(void *owner, unsigned thread, struct mw_aside_q *q);
	void (*free)(struct mw_aside_q *q); /* all but its entry */
	/* A stop has begun: answers are to come at once. NULL ok. */
	void (*hurry)(void *owner);
	/* In that thread, as its last. NULL ok. */
	void (*thread_end)(void *owner, unsigned thread);
	/* Tells in the log that `total` were dropped up to now. Not more than once a
	 * minute. */
	void (*dropped)(uint64_t total, const char *why);
};

/* All is borrowed until the stop. MW_ENOMEM. */
int mw_aside_start(const struct mw_aside_kind *kind, struct mw_store *store, void *owner,
                   struct mw_aside **ret, struct mw_err *err) MW_CHECK;
/* Appends what is answered, before the store is closed. NULL ok. */
void mw_aside_stop(struct mw_aside *a);
/* Takes q over and never waits. NULL q: there was no memory for it. */
void mw_aside_ask(struct mw_aside *a, struct mw_aside_q *q);

struct mw_aside_stats {
	uint64_t recorded; /* on disk */
	uint64_t doubtful; /* of these */
	uint64_t dropped;
	uint64_t open;  /* now: asked, and not on disk yet */
	uint64_t bytes; /* what these hold */
};
void mw_aside_stats(struct mw_aside *a, struct mw_aside_stats *ret); /* NULL: 0 */

#endif
