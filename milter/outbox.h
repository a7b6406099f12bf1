/* outbox.h - outcomes on their way to the journal, many to a record.
 *
 * A record for each message's outcome would cost a sync between every two messages.
 * Those of the last second are lost when the daemon is killed: they are then unknown.
 *
 * Life: mw_outbox_init → add … flush … → mw_outbox_done, before the store closes.
 * Threads: add and flush from any; flush does not wait for the disk.
 */
#ifndef MW_MILTER_OUTBOX_H
#define MW_MILTER_OUTBOX_H

#include "journal/record/outcome.h"
#include "journal/store/store.h"

#include <pthread.h>

enum {
	MW_OUTBOX_FLUSH_MS = 1000, /* call flush so often */
};

struct mw_outbox {
	struct mw_store *store;
	const struct mw_clock *clock;
	pthread_mutex_t lock; /* guards what follows */
	struct mw_arena *arena;
	struct mw_outcome *v;
	size_t n, cap;
};

void mw_outbox_init(struct mw_outbox *b, struct mw_store *store,
                    const struct mw_clock *clock);
/* Copies it. Writes by itself what has become much. What does not fit in memory is lost,
 * and logged. */
void mw_outbox_add(struct mw_outbox *b, const struct mw_outcome *o);
void mw_outbox_flush(struct mw_outbox *b);
void mw_outbox_done(struct mw_outbox *b); /* flushes */

#endif
