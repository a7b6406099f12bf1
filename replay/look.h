/* look.h - what a box holds, compared with every copy that the plan has for it.
 *
 * Life: mw_look_init → mw_look, any number of times → mw_look_done. The target's box is
 * open during mw_look. One thread.
 */
#ifndef MW_REPLAY_LOOK_H
#define MW_REPLAY_LOOK_H

#include "replay/reconcile.h"
#include "replay/run.h"

struct mw_seen_hops;

enum mw_early_look {
	MW_EARLY_NONE,  /* only the box was opened */
	MW_EARLY_BRIEF, /* without Received fields */
	MW_EARLY_FULL
};

enum mw_look_early_said {
	MW_LOOK_ANEW,   /* only mw_look can tell */
	MW_LOOK_DONE,   /* decided */
	MW_LOOK_IF_SAME /* the same, if the caller finds that the box did not change */
};

struct mw_look {
	struct mw_run *r;
	struct mw_plan_box *b;
	uint64_t *queue; /* sorted hashes of our queue IDs */
	size_t n_queue;
	struct mw_rc_copy *c;   /* as many as b->n, in its order; no profiles kept */
	struct mw_rc_stored *s; /* m, by ascending key */
	size_t m, cap;
	enum mw_early_look early;  /* l->s has what was seen while the plan was made */
	struct mw_seen_hops *hops; /* of l->s, while no queue ID is known; or NULL */
	struct mw_err *err;
};

int mw_look_init(struct mw_look *l, struct mw_run *r, struct mw_plan_box *b,
                 struct mw_err *err) MW_CHECK;
void mw_look_done(struct mw_look *l); /* after a failed init, too */
/* Scans the box and decides for every copy (l->c[i].how). MW_ECANCEL, MW_ENOMEM, what the
 * target or the journal reports. */
int mw_look(struct mw_look *l, struct mw_err *err) MW_CHECK;
/* Another message of the box, into l->s. 0, MW_ENOMEM. */
int mw_look_found(struct mw_look *l, const struct mw_found *f) MW_CHECK;
/* Decides on what l->s has by then, where that is enough (enum mw_look_early_said). What
 * was seen before the plan was made, and before the MTA's queue was read, shows what is
 * there; that something is missing it shows only if the box did not change since. As
 * mw_look. */
int mw_look_early(struct mw_look *l, struct mw_err *err) MW_CHECK;
/* Before the first mw_look_found of a look that knows no queue IDs. MW_ENOMEM. */
int mw_look_blind(struct mw_look *l) MW_CHECK;
/* Fetches the profiles of the n stored messages that are marked `need`. */
int mw_look_fetch(struct mw_look *l, size_t n, struct mw_err *err) MW_CHECK;
/* run_check.c: settles every wanted copy after a look, by comparing what is there with
 * the journal: PRESENT, FAILED (missing, altered), or what the MTA's log says. */
int mw_run_check(struct mw_look *l, struct mw_err *err) MW_CHECK;
/* Frees what was found stored; l->m is 0. */
void mw_look_forget(struct mw_look *l);

#endif
