/* handover.h - a new mailwald takes the place of the one that runs (mailwald -u).
 *
 * The new one asks over the control socket; the old one gives it its listening sockets
 * (SCM_RIGHTS), stops accepting, lets the messages under way come to their end, and goes.
 * Its lock on the journal goes last: the new one waits for it, opens the journal and then
 * begins to accept. Whoever connects meanwhile waits in the listen queue, which both
 * processes hold open, and is refused by neither.
 *
 * Threads: mw_handover_give runs in the control thread; all else before other threads.
 */
#ifndef MW_MILTER_HANDOVER_H
#define MW_MILTER_HANDOVER_H

#include "milter/listen.h"

/* What the asker sends, and the first word of the answer. */
#define MW_HANDOVER_REQUEST "handover"

/* Sends names and descriptors. MW_EIO. */
int mw_handover_give(int fd, const struct mw_listener *v, size_t n,
                     struct mw_err *err) MW_CHECK;
/* Asks the daemon of the journal in dir. 0: *ret are its sockets, ours now; it ends.
 * MW_EUNAVAIL, MW_ENOTFOUND: none listens. MW_EPERM, MW_EPROTO, MW_EIO. */
int mw_handover_ask(const char *dir, struct mw_listeners *ret,
                    struct mw_err *err) MW_CHECK;

#endif
