/* floor.h - the least that a log as this one can do for a message: hash it, compress it
 * with a dictionary, seal it, write it with others, sync, wake its session. No metadata,
 * no canonical form, no chain, no slots, no index.
 *
 * Threads: as crowd.h, and one that commits; all have ended when it returns.
 */
#ifndef MW_BENCH_FLOOR_H
#define MW_BENCH_FLOOR_H

#include "journal/codec/zstd.h"

#include <stddef.h>
#include <stdint.h>

struct floor_mail {
	const uint8_t *p;
	size_t n;
};

/* v: as crowd_run. fd: `room` bytes prepared. Messages a second. */
double floor_run(int fd, size_t room, const struct mw_zdict *z,
                 const struct floor_mail *m, size_t n_mail, unsigned messages, double *v);

#endif
