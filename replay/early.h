/* early.h - a box opened, and looked into, while the plan is still being made.
 *
 * Making a plan takes the processor here, scanning a mailbox takes the server's: side by
 * side they cost what the longer one costs. Of imported mail the look asks for no
 * Received fields, so it can only say "all that is wanted is there", and says that only
 * where the full look would (mw_reconcile_brief). Of other mail the queue IDs of all
 * Received fields are kept until the plan knows which are ours. Something missing counts
 * only if the box was not changed when the plan was made and the MTA's queue read; else
 * the scan is thrown away and the box, which is open by then, is looked at as always.
 *
 * Life: mw_early_start, once, from the plan's first_box → mw_early_take by whoever works
 * on that box → mw_early_free. Threads: one of its own, with a target of its own, joined
 * in take or free.
 */
#ifndef MW_REPLAY_EARLY_H
#define MW_REPLAY_EARLY_H

#include "replay/look.h"

struct mw_early;

/* NULL: none can be had, which is no failure. */
struct mw_early *mw_early_start(const struct mw_target *t, const char *mailbox,
                                const char *box, bool dry, enum mw_early_look look);
/* Is it that box's, and not taken yet? */
bool mw_early_of(const struct mw_early *e, const char *box);
/* Ends the scan. r->target becomes the early one, and the other way round: with its box
 * open (0), or not (what open or scan said). What was found goes into l, whose early says
 * whether it was looked at. */
int mw_early_take(struct mw_early *e, struct mw_run *r, struct mw_look *l,
                  struct mw_err *err) MW_CHECK;
void mw_early_free(struct mw_early *e); /* NULL ok */

#endif
