/* once.h - what may count one time only: the tokens of the loop guard.
 *
 * Bounded memory, and no file: what it cannot know any more it takes for used. So nothing
 * made before it began counts, and nothing made before the newest that it had to forget.
 *
 * Life: init (zeroed by it), take …, done. Threads: any.
 */
#ifndef MW_MILTER_ONCE_H
#define MW_MILTER_ONCE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MW_ONCE_SLOTS = 1 << 20 /* most, of 16 bytes each */
};

struct mw_once_slot {
	uint64_t tag; /* 0: free */
	int64_t made_us;
};

struct mw_once {
	pthread_mutex_t lock; /* guards what follows */
	struct mw_once_slot *slot;
	size_t n, n_slot; /* used, and a power of two or 0 */
	int64_t keep_us;  /* older ones are refused by others anyway */
	int64_t floor_us; /* what was made before that is taken for used */
};

void mw_once_init(struct mw_once *o, int64_t now_us, int64_t keep_us);
void mw_once_done(struct mw_once *o);
/* True the first time that this tag comes; false after that, and where it cannot be
 * known or there is no memory to remember it. A tag tells things apart, and nobody can
 * choose one. */
bool mw_once_take(struct mw_once *o, uint64_t tag, int64_t made_us, int64_t now_us);

#endif
