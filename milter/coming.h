/* coming.h - copies that mailwal is putting back by way of a mail server, as it told us.
 *
 * A table of tags (journal/store/trail.h) with the record and the time of each. A tag
 * counts once, for MW_GUARD_DAYS, as long as servers keep mail in their queues. Bounded:
 * of more than MW_COMING_MOST the older ones are forgotten, and their copies journaled.
 *
 * The file "coming" in the journal's directory keeps it over the end of this process: a
 * line of 48 bytes for what was told, before that is answered, and one for what has come,
 * soon after. It is a note, not the log: without it, or with a damaged line, copies are
 * journaled twice; with a line too many, what would pass has the bytes of a record.
 *
 * Life: open, then tell, take …, settle, close. Threads: any. take and its like never
 * wait for the disk.
 */
#ifndef MW_MILTER_COMING_H
#define MW_MILTER_COMING_H

#include <pthread.h>
#include <stdatomic.h>

#include "journal/base/id.h"
#include "journal/store/trail.h"
#include "milter/pool.h"

enum {
	MW_COMING_MOST = 1 << 17
};

struct mw_coming_one {
	uint8_t tag[MW_TRAIL_TAG];
	uint8_t id[MW_ID_LEN]; /* of the record */
	int64_t us;            /* when it was told; 0: it has come, or nothing is here */
};

struct mw_coming {
	const char *dir;      /* borrowed */
	struct mw_pool *pool; /* borrowed: writes what has come */
	pthread_mutex_t lock; /* guards what follows */
	struct mw_coming_one *slot;
	size_t n, n_slot;              /* taken up, and a power of two or 0 */
	size_t left;                   /* told, and not come */
	uint8_t (*gone)[MW_TRAIL_TAG]; /* come, and not written */
	size_t n_gone, cap_gone;
	bool writing;
	struct mw_job job;
	atomic_int_fast64_t newest_us; /* 0: nothing is expected */
	pthread_mutex_t file_lock;     /* taken before the other */
	int fd;                        /* -1: not open */
	size_t lines;
};

/* What the file has that is not too old; trouble with it is logged. */
void mw_coming_open(struct mw_coming *c, const char *dir, struct mw_pool *pool,
                    int64_t now_us);
bool mw_coming_busy(struct mw_coming *c);  /* something is being written */
void mw_coming_close(struct mw_coming *c); /* when the pool has ended */
/* 0, or what keeps it from being expected. */
int mw_coming_tell(struct mw_coming *c, const uint8_t tag[MW_TRAIL_TAG],
                   const uint8_t id[MW_ID_LEN], int64_t now_us,
                   struct mw_err *err) MW_CHECK;
/* May there be anything to take? Cheap. */
bool mw_coming_any(struct mw_coming *c, int64_t now_us);
/* True if that is expected, and no more from now on. */
bool mw_coming_take(struct mw_coming *c, const uint8_t tag[MW_TRAIL_TAG], int64_t now_us,
                    struct mw_coming_one *ret);
/* What was taken has been delivered; it was not, and will come again. */
void mw_coming_done(struct mw_coming *c, const struct mw_coming_one *one);
void mw_coming_again(struct mw_coming *c, const struct mw_coming_one *one,
                     int64_t now_us);

#endif
