/* queue_ahead.h - the MTA's queue, listed while the plan is still being made.
 *
 * A listing is good for a plan if the queue was asked after all the plan's mail had
 * settled in it; what was listed before is thrown away, and the queue asked again.
 *
 * Life: mw_queue_ahead_start → mw_queue_ahead_take, once → mw_queue_ahead_free. Threads:
 * one of its own, which alone uses the queue until take or free has joined it. Memory:
 * listings of at most MW_QUEUE_AHEAD_MAX bytes each; where one is longer, all are left.
 */
#ifndef MW_REPLAY_QUEUE_AHEAD_H
#define MW_REPLAY_QUEUE_AHEAD_H

#include "replay/queue.h"

enum {
	MW_QUEUE_AHEAD_MAX = 4 << 20,
	MW_QUEUE_READS = 2 /* a message that moves may be missed by one of them */
};

struct mw_queue_ahead;

/* NULL: none can be had, which is no failure. q is borrowed. */
struct mw_queue_ahead *mw_queue_ahead_start(struct mw_queue *q);
/* Waits for it. 1: the queue knows what was listed, as after MW_QUEUE_READS reads; 0: it
 * must be read (it was asked before settled_us on the system's clock, the listing was too
 * long, or could not be understood). What mw_queue_print reports; MW_ENOMEM. */
int mw_queue_ahead_take(struct mw_queue_ahead *a, int64_t settled_us,
                        bool (*known)(void *arg, uint64_t id), void *arg,
                        struct mw_err *err) MW_CHECK;
/* A command that still runs is ended. NULL ok. */
void mw_queue_ahead_free(struct mw_queue_ahead *a);

#endif
