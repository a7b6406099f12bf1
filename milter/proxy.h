/* proxy.h - the SMTP and LMTP front ends: what mail passes through is journaled.
 *
 * Each way (proxy_listen) has a listening socket and a next server; each connection has
 * one of its own to the next server. A few threads, one for each processor, serve them
 * all; nothing of it waits but for what is ready. dialog.h decides what is said.
 *
 * Life: mw_proxy_start → … → mw_proxy_stop, while the store is open. Call start with the
 * journal's lock held (see listen.h).
 */
#ifndef MW_MILTER_PROXY_H
#define MW_MILTER_PROXY_H

#include "milter/capture.h"
#include "milter/listen.h"

struct mw_proxy;

/* *ret stays NULL where no proxy_listen is set. MW_ECONF, MW_EPERM, MW_EIO, MW_ENOMEM. */
int mw_proxy_start(struct mw_capture *cap, struct mw_proxy **ret,
                   struct mw_err *err) MW_CHECK;
/* Only what can be known without listening: certificates and keys. MW_ECONF. */
int mw_proxy_check(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;
/* Copies its listening sockets, borrowed; how many. NULL p: none. */
size_t mw_proxy_listeners(const struct mw_proxy *p, struct mw_listener *v, size_t max);
/* Somebody else has them too: their paths stay. */
void mw_proxy_leave(struct mw_proxy *p);
/* Stops listening, lets messages whose end has come be answered, tells the rest 421; at
 * most about 6 s; then frees. drain: others accept in our place; sessions first get 3 s
 * to end by themselves. What may take longer: the store's answer to a message, and a name
 * of a next server that is being looked up, which cannot be broken off: as long as
 * resolv.conf(5) lets it. NULL ok. */
void mw_proxy_stop(struct mw_proxy *p, bool drain);

#endif
