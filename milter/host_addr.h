/* host_addr.h - the address of a host by name, looked up beside the work.
 *
 * A name server may be slow, or not there yet when the daemon starts, and an address may
 * change. A look-up has a thread of its own, at most one at a time for each name: nothing
 * waits for it beyond its own deadline, and mw_host_addr_free leaves one that hangs
 * behind.
 */
#ifndef MW_MILTER_HOST_ADDR_H
#define MW_MILTER_HOST_ADDR_H

#include "journal/base/err.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>

struct mw_host_addr;

/* host: a name or a numeric address; port: a number or a service. The first look-up
 * begins at once. NULL: out of memory. */
struct mw_host_addr *mw_host_addr_new(const char *host, const char *port);
void mw_host_addr_free(struct mw_host_addr *h); /* NULL ok */
/* The last address that was found, else waits for it until then (monotonic), or until
 * hurry (NULL: none). 0, MW_ETIMEOUT, or MW_EUNAVAIL: there is none for now; it is asked
 * for again some seconds later. Any thread. */
int mw_host_addr_get(struct mw_host_addr *h, int64_t deadline_us,
                     const atomic_bool *hurry, struct sockaddr_storage *ret,
                     socklen_t *ret_len) MW_CHECK;
/* Nobody was reached there: it is looked up anew, for those who come later. */
void mw_host_addr_failed(struct mw_host_addr *h);

#endif
