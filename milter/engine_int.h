/* engine_int.h - the inside of the native engine: engine.c has the threads, conn.c one
 * connection. A connection belongs to its loop's thread; on_done alone runs elsewhere. */
#ifndef MW_MILTER_ENGINE_INT_H
#define MW_MILTER_ENGINE_INT_H

#include "milter/engine.h"
#include "milter/proto.h"

#include <sys/queue.h>

struct loop;

struct conn {
	TAILQ_ENTRY(conn) idle; /* in loop->conns, least recently active first */
	TAILQ_ENTRY(conn) wait; /* in loop->waiting, while pending */
	TAILQ_ENTRY(conn) turn; /* in loop->again, while `again` */
	struct conn *next_done; /* in loop->done */
	struct loop *loop;
	int fd;             /* -1: the peer is gone, an answer is still due */
	bool inet, watched; /* watched: by epoll */
	bool writable, readable, again;
	bool ending;                   /* the peer has closed its side: read to the end */
	bool stuck;                    /* waits for EPOLLOUT */
	bool finish;                   /* close as soon as out is empty */
	int64_t active_us, look_at_us; /* when pending: look whether it takes too long */
	int64_t progress_at_us;
	size_t sent; /* of proto.out */
	struct mw_proto proto;
};

TAILQ_HEAD(conn_list, conn);

struct loop {
	struct mw_engine *engine;
	pthread_t thread;
	int ep, wake;
	struct conn_list conns, waiting, again;
	size_t n_conns;
	bool listening;
	int64_t listen_at_us; /* when not listening: try again then */
	int64_t stop_at_us;   /* when stop was noticed; 0 */
	pthread_mutex_t lock; /* guards done */
	struct conn *done;
	char *scratch;
};

struct mw_engine {
	struct mw_capture *cap;
	struct mw_listeners listeners; /* borrowed descriptors */
	bool drain;                    /* set before stop */
	atomic_bool stop;
	atomic_int open;
	atomic_int_fast64_t warned_us; /* last warning about accept */
	unsigned n;
	struct loop loop[];
};

static inline int64_t
mw_loop_now(const struct loop *l)
{
	const struct mw_clock *c = l->engine->cap->clock;
	return c->mono_us(c);
}

enum {
	MW_LOOP_SCRATCH = 256 * 1024
};

/* conn.c */

/* Takes the descriptor over; false: it is still the caller's. */
bool mw_conn_new(struct loop *l, int fd, bool inet);
void mw_conn_free(struct conn *c); /* nothing may be pending */
/* Sends what is due. False: the connection is gone. */
bool mw_conn_flush(struct conn *c);
/* Reads and handles what there is, a few reads at a time; may free c. */
void mw_conn_run(struct conn *c);
/* The store answered: tells the MTA and goes on; may free c. */
void mw_conn_answer(struct conn *c);

#endif
