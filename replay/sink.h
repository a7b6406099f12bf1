/* sink.h - an SMTP server that takes everything, counts it and keeps nothing: where the
 * quiet Dovecot instance of a replay with Sieve sends what scripts would send out.
 *
 * Life: mw_sink_start (binds, starts one thread) → any thread asks → mw_sink_stop. Up to
 * MW_SINK_CLIENTS connections at a time; more wait. A client that sends a line beyond 4
 * kB is cut off; content is counted and dropped as it comes. Loopback addresses only.
 */
#ifndef MW_REPLAY_SINK_H
#define MW_REPLAY_SINK_H

#include "journal/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	MW_SINK_CLIENTS = 64
};

#define MW_SINK_DEFAULT "127.0.0.1:12525"

struct mw_sink;

/* where: "127.0.0.1:PORT" or "[::1]:PORT". MW_EUSAGE; MW_EUNAVAIL where somebody else
 * listens. */
int mw_sink_start(const char *where, struct mw_sink **ret, struct mw_err *err) MW_CHECK;
void mw_sink_stop(struct mw_sink *s); /* NULL ok */
const char *mw_sink_where(const struct mw_sink *s);
/* Messages swallowed, canaries not counted. */
uint64_t mw_sink_count(struct mw_sink *s);
/* Waits up to ms until a message to an address "mailwal-canary-TOKEN@…" has come. */
bool mw_sink_saw(struct mw_sink *s, const char *token, int ms);

#endif
