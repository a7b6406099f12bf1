/* sift.h - of many records, which a query cannot take: looked at on all processors.
 *
 * Most of a search is to read records that do not match. Threads, each with a reader of
 * its own, open them and hold what an expansion or an erasure leaves alone (subject,
 * From, sender, Message-ID, size, time) against the query. What does not fit is out; all
 * else, and whatever cannot be read, is left to the caller, who looks at it in order as
 * if nobody had. So what is found, and what is said of damage, does not depend on this.
 *
 * The caller's thread is one of them; the others end before a call returns.
 */
#ifndef MW_REPLAY_SIFT_H
#define MW_REPLAY_SIFT_H

#include "replay/select.h"

struct mw_sift_ref {
	uint64_t seq; /* 0: none */
	struct mw_loc loc;
	bool later; /* an expansion: its mail is meant */
	bool out;   /* its mail is read, and does not match */
};

struct mw_sift { /* zero to start with */
	size_t looked, out;
};

/* Is there anything in q that it can tell by? */
bool mw_sift_can(const struct mw_query *q);
/* Sets `out` in some of the n refs, which are in log order. Looks at fewer than n where
 * it is not worth while; how many were looked at. */
size_t mw_sift(struct mw_sift *s, struct mw_store *st, const struct mw_query *q,
               struct mw_sift_ref *v, size_t n);

#endif
