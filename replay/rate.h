/* rate.h - so many messages, so many bytes a second, for all threads of a run together.
 *
 * Life: mw_rate_parse into a struct mw_rate_limits → mw_rate_init → mw_rate_wait from any
 * thread → mw_rate_done. There is no burst: what was not used is not saved up.
 */
#ifndef MW_REPLAY_RATE_H
#define MW_REPLAY_RATE_H

#include "journal/base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct mw_rate_limits { /* a second; 0: none */
	double messages, bytes;
};

struct mw_rate {
	struct mw_rate_limits limits;
	pthread_mutex_t mu;
	int64_t message_us, byte_us; /* monotonic: when the next may go */
};

/* "20" or "20/s", "300/min", "1000/h": messages; "500K", "2M/s": bytes. Each sets its own
 * of the two and leaves the other. MW_EUSAGE. */
int mw_rate_parse(const char *text, struct mw_rate_limits *limits,
                  struct mw_err *err) MW_CHECK;

void mw_rate_init(struct mw_rate *r, const struct mw_rate_limits *limits);
void mw_rate_done(struct mw_rate *r);
/* Takes the next place in the row: how many µs from now on it is. */
int64_t mw_rate_claim(struct mw_rate *r, uint64_t messages, uint64_t bytes,
                      int64_t now_us);
/* Takes it and waits for it, though not once stopped says yes (NULL ok). */
void mw_rate_wait(struct mw_rate *r, uint64_t messages, uint64_t bytes,
                  bool (*stopped)(void));

#endif
