/* proxy.h - the SMTP and LMTP front ends: what mail passes through is journaled.
 *
 * Each way (proxy_listen) has a listening socket and a next server; each connection has
 * one of its own to the next server, and a thread. dialog.h decides what is said.
 *
 * Life: mw_proxy_start → … → mw_proxy_stop, while the store is open. Call start with the
 * journal's lock held (see listen.h).
 */
#ifndef MW_MILTER_PROXY_H
#define MW_MILTER_PROXY_H

#include "milter/capture.h"

struct mw_proxy;

/* *ret stays NULL where no proxy_listen is set. MW_ECONF, MW_EPERM, MW_EIO, MW_ENOMEM. */
int mw_proxy_start(struct mw_capture *cap, struct mw_proxy **ret,
                   struct mw_err *err) MW_CHECK;
/* Stops listening, lets messages whose end has come be answered, tells the rest 421; at
 * most about 6 s; then frees. NULL ok. */
void mw_proxy_stop(struct mw_proxy *p);

#endif
