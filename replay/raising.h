/* raising.h - the boxes in which a run is about to use up UIDs, kept beside its ledger:
 * what a killed run leaves there is taken away by the next one, whatever that one is to
 * do.
 *
 * A note is a file "raising-<hash of the box>" in the ledger's directory, durable before
 * the first placeholder is made, gone when the last of them is. Whoever uses these holds
 * the ledger's lock; notes of different boxes may be made side by side.
 */
#ifndef MW_REPLAY_RAISING_H
#define MW_REPLAY_RAISING_H

#include "journal/base/err.h"

/* dir: of the ledger (mw_ledger_dir). 0; the disk's failures. */
int mw_raising_note(const char *dir, const char *mailbox, const char *box,
                    struct mw_err *err) MW_CHECK;
/* Nothing is left there. A note that cannot be removed costs a look next time. */
void mw_raising_done(const char *dir, const char *box);

/* Every box with a note; cb's code other than 0 ends it and is returned. A note may be
 * removed in its callback. */
int mw_raising_each(const char *dir,
                    int (*cb)(void *arg, const char *mailbox, const char *box), void *arg,
                    struct mw_err *err) MW_CHECK;

#endif
