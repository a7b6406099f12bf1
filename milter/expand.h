/* expand.h - alias tables on a network, asked after the mail was answered (P5).
 *
 * A journaled message whose recipients need such a table leaves a question; a few threads
 * ask, each until the message's deadline (identities_timeout from its answer on), and
 * what they learn is appended as a record of type EXPANSION, many to a sync. A table that
 * fails, hangs or is too slow makes a record that says so. A question for which there is
 * no room is counted and dropped: its message stays without expansion, as after a kill.
 *
 * Threads: all functions from any thread; stop comes last.
 */
#ifndef MW_MILTER_EXPAND_H
#define MW_MILTER_EXPAND_H

#include "milter/capture.h"

struct mw_expand;

/* store is borrowed. MW_ENOMEM. */
int mw_expand_start(struct mw_store *store, struct mw_expand **ret,
                    struct mw_err *err) MW_CHECK;
/* Has what is asked end soon, undecided, and appends it. Before the store is closed.
 * NULL ok. */
void mw_expand_stop(struct mw_expand *x);
/* A question about a journaled message, if it has recipients that wait for one. Copies
 * what it needs and never waits. NULL x ok. */
void mw_expand_ask(struct mw_expand *x, struct mw_settings *set, const struct mw_mail *m,
                   const uint8_t id[MW_ID_LEN], uint64_t seq);

struct mw_expand_stats {
	uint64_t expanded; /* records in the journal, all recipients decided */
	uint64_t failed;   /* the same, some left undecided */
	uint64_t dropped;  /* no room, or the journal did not take it: no record */
	uint64_t queued;   /* now: asked, and not on disk yet */
};
void mw_expand_stats(struct mw_expand *x, struct mw_expand_stats *ret); /* NULL: 0 */

#endif
