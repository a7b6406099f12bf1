/* recover_audit.h - the record in the journal that mail was put back for a user
 * (RESTORE).
 *
 * Life: zeroed with cli and report → begin before the first copy is put (again before
 * later attempts: written once) → end after the run. In each journal that has some of the
 * mail, through the daemon where one runs. No reader of this process may have a journal
 * open meanwhile.
 */
#ifndef MW_REPLAY_RECOVER_AUDIT_H
#define MW_REPLAY_RECOVER_AUDIT_H

#include "replay/plan.h"
#include "replay/report.h"

struct mw_restore_log {
	struct mw_cli *cli;
	struct mw_report *report; /* its audit_seq is set to the first record's */
	bool begun;
	char by[200];
};

/* Says which copies are about to be put: 0, or why it could not be said; then nothing may
 * be put. */
int mw_restore_log_begin(struct mw_restore_log *l, const struct mw_plan *p,
                         struct mw_err *err) MW_CHECK;
/* Says which were, if a begin was written. plan NULL: nothing was begun. */
int mw_restore_log_end(struct mw_restore_log *l, const struct mw_plan *p,
                       struct mw_err *err) MW_CHECK;

/* Prints all such records of a journal set, of one user or of all (NULL); the exit
 * status. (recover_history.c) */
int mw_restore_history(struct mw_cli *cli, const char *user);

#endif
