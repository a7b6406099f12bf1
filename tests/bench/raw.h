/* raw.h - the limit of group commit: threads that hand over bytes which are ready, and
 * one that gathers what waits into one write and one fdatasync.
 *
 * Threads: raw_crowd starts its own and has ended them when it returns. Nothing is kept.
 */
#ifndef MW_BENCH_RAW_H
#define MW_BENCH_RAW_H

#include <stddef.h>

enum {
	RAW_THREADS = 64
};

/* RAW_THREADS threads hand over `each` records of so many bytes, one after the other, to
 * be written round and round into the first `room` bytes of fd. v gets the seconds that
 * each waited, RAW_THREADS * each of them. Returns records a second, 0: it did not work.
 */
double raw_crowd(int fd, size_t room, size_t record, unsigned each, double *v);

#endif
