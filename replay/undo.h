/* undo.h - takes away what one run put back, as far as it is still where it was put.
 *
 * The ledger says where each copy went; what its user has moved or deleted since is left
 * alone and listed. A copy taken away counts as never put: a later replay puts it back.
 */
#ifndef MW_REPLAY_UNDO_H
#define MW_REPLAY_UNDO_H

#include "replay/ledger.h"
#include "replay/report.h"

struct mw_undo {
	struct mw_ledger *ledger; /* of the target, its lock held */
	struct mw_target *target;
	struct mw_report
	    *report;     /* selected, undone, issues of kind "left" and "failed" */
	const char *run; /* its ID, or the beginning of it */
	bool dry;        /* look, and take nothing away */
	/* set by it */
	struct mw_err first; /* of the first box that failed as a whole; code 0: none */
	bool any_box_ok;
	unsigned unreachable, refused; /* boxes in a row */
};

/* 0; MW_ENOTFOUND: the ledger knows no such run; MW_EUSAGE; MW_ECANCEL. What went wrong
 * with single mailboxes is in the report. */
int mw_undo_run(struct mw_undo *u, struct mw_err *err) MW_CHECK;
/* The exit status that its report means: that of the first error where nothing could be
 * done at all. */
int mw_undo_exit(const struct mw_undo *u);

#endif
