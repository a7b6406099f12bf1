/* target_args.h - the options that say how to reach a target, for every command with
 * --to.
 */
#ifndef MW_REPLAY_TARGET_ARGS_H
#define MW_REPLAY_TARGET_ARGS_H

#include "replay/cmd.h"
#include "replay/report.h"
#include "replay/target.h"

/* If argv[*i] is one of them, takes it (and its value) into t: 1, 0, or MW_EUSAGE. */
int mw_target_option(struct mw_target_opts *t, int argc, char **argv, int *i,
                     struct mw_err *err);

/* The same for those alone that say how to log in there, and whom to trust. */
int mw_target_login_option(struct mw_target_opts *t, int argc, char **argv, int *i,
                           struct mw_err *err);

/* The words that name the report's target, ledger and site and log in there once more,
 * each behind a blank and fit for a shell. In its arena; NULL out of memory. */
const char *mw_target_again(const struct mw_cli *cli, const struct mw_report *r,
                            const struct mw_target_opts *t);

#endif
