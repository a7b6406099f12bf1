/* handover.h - a new mailwald takes the place of the one that runs (mailwald -u).
 *
 * The new one asks over the control socket, and the old one gives it its listening
 * sockets (SCM_RIGHTS). Only when the new one has also got all others that it wants, and
 * says so, the old one stops accepting, lets the messages under way come to their end,
 * and goes; one that dies or fails before that changes nothing. Its lock on the journal
 * goes last: the new one waits for it, opens the journal and then begins to accept.
 * Whoever connects meanwhile waits in the listen queue, which both processes hold open,
 * and is refused by neither.
 *
 * Threads: mw_handover_give and mw_handover_taken run in the control thread; all else
 * before other threads.
 */
#ifndef MW_MILTER_HANDOVER_H
#define MW_MILTER_HANDOVER_H

#include "milter/listen.h"

/* What the asker sends. */
#define MW_HANDOVER_REQUEST "handover"

/* Sends names and descriptors, which the caller keeps. MW_EIO, MW_ELIMIT, MW_ENOMEM. */
int mw_handover_give(int fd, const struct mw_listener *v, size_t n,
                     struct mw_err *err) MW_CHECK;
/* Waits until the asker has what it needs; 0: it takes over. MW_EUNAVAIL. */
int mw_handover_taken(int fd, struct mw_err *err) MW_CHECK;
/* Asks the daemon of the journal of conf. 0: its sockets are inherited (listen.h), and it
 * ends. MW_EUNAVAIL, MW_ENOTFOUND: none listens. MW_EPERM: it is another user's, or not
 * to be asked. MW_EPROTO, MW_EIO, and what mw_listen_inherit has. */
int mw_handover_ask(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;

#endif
