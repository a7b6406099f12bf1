/* spill.h - what of a large record waits in an unlinked file until its end has come (it
 * is sealed already). One thread of a store opens, writes and closes these files, so that
 * who brings the record is not held by a disk that does not answer: he waits for the
 * piece before his next one, and no longer than `patience_us` for any one write.
 *
 * Life: mw_spiller_init; spills; mw_spiller_done when the last spill was freed. A spill
 * belongs to one thread at a time.
 */
#ifndef MW_STORE_SPILL_H
#define MW_STORE_SPILL_H

#include "journal/base/buf.h"
#include "journal/base/err.h"
#include "journal/base/fs.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	MW_SPILL_PATIENCE_US = 5000000
};

struct mw_spill;

struct mw_spiller {
	const struct mw_fs *fs;
	const char *dir; /* borrowed: where the files are */
	pthread_mutex_t mu;
	pthread_cond_t work, done;
	pthread_t thread;
	bool begun; /* set once, by mw_spiller_init */
	bool running, stop;
	int64_t since_us;    /* monotonic: when what the thread is at began; 0: nothing */
	int64_t patience_us; /* MW_SPILL_PATIENCE_US; tests have less */
	struct mw_spill *head, **tail;
};

/* 0 or MW_ENOMEM. No thread yet. */
int mw_spiller_init(struct mw_spiller *w, const struct mw_fs *fs,
                    const char *dir) MW_CHECK;
/* Waits until every file is closed. */
void mw_spiller_done(struct mw_spiller *w);

/* Appends what b has to *s, which is made if it is NULL; b is empty then, with other
 * room. An error of an earlier write may come here; after one no call succeeds. */
int mw_spill_put(struct mw_spiller *w, struct mw_spill **s, struct mw_buf *b,
                 struct mw_err *err) MW_CHECK;
/* 0 when all is written. */
int mw_spill_flush(struct mw_spill *s, struct mw_err *err) MW_CHECK;
/* After mw_spill_flush: to read it. */
int mw_spill_fd(const struct mw_spill *s);
/* May be NULL. Waits for nothing. */
void mw_spill_free(struct mw_spill *s);

#endif
