/* imap_login.h - the login by hand, where that takes fewer round trips than libcurl's. */
#ifndef MW_REPLAY_IMAP_LOGIN_H
#define MW_REPLAY_IMAP_LOGIN_H

#include "replay/imap.h"

/* Connects, and logs in by SASL PLAIN right behind the greeting, where nobody can listen
 * (mw_net_is_private) and the greeting says that it may be done. 0: logged in, with
 * c->caps as the server told them with its answer, if it did. 1: it needs libcurl's
 * login; c is as it was. Else as mw_net_open. */
int mw_imap_log_in(struct mw_imap *c, const struct mw_net_opts *o,
                   struct mw_err *err) MW_CHECK;

#endif
