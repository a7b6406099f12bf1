/* taking.h - a journal that takes mail, and the faults it may have while it does.
 *
 * A group's setup calls taking_dir, then taking_open with the settings, and its teardown
 * taking_end; in between all of this is the test's to use. One at a time in a program;
 * the faults may be set from any thread.
 */
#ifndef MW_TEST_TAKING_H
#define MW_TEST_TAKING_H

#include "milter/session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

extern char dir[64];            /* of the test's own */
extern char *journal;           /* in it */
extern struct mw_store *store;  /* open for writing */
extern struct mw_capture cap;   /* over it */
extern atomic_int fail_sync;    /* a sync fails with EIO */
extern atomic_int hang;         /* a sync waits until this is 0 */
extern atomic_int slow_sync_ms; /* a sync takes so much longer */
extern atomic_int free_mib;     /* what the disk says is free; MW_FREE_MIB at first */

enum {
	MW_FREE_MIB = 1 << 20
};

int taking_dir(void);                  /* 0, else negative */
int taking_open(struct mw_conf *c);    /* takes the settings over; 0, else negative */
int taking_end(void);                  /* 0: all of it is gone */
struct mw_conf *taking_settings(void); /* as they are without a file */

uint64_t mails(void); /* that the store counts */

/* Told by another thread that something is done. */
struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};
#define MW_WAITER                                                                        \
	{                                                                                \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false               \
	}
void on_done(void *arg);
void wait_done(struct waiter *w); /* and ready for the next time */

/* The whole end of message; the answer's code, "250" for CONTINUE. */
const char *eom(struct mw_session *s);
void rcpt(struct mw_session *s, const char *to);

/* The last message of the journal, through a reader of its own; how many there are. */
uint64_t last_mail(struct mw_arena *a, struct mw_mail *ret, struct mw_buf *content);
struct got {
	struct mw_arena *arena;
	struct mw_mail mail;
	struct mw_buf content;
	uint64_t n; /* mails in the journal */
};
void last(struct got *g); /* the same in one piece, for got_free */
void got_free(struct got *g);
void str_is(struct mw_str got, const char *want);

#endif
