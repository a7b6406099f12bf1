/* proxy_int.h - the inside of the proxy: proxy.c has the ways and its start and stop,
 * proxy_loop.c the threads, proxy_conn.c one connection, proxy_dial.c the way to the next
 * server, proxy_keep.c connections to next servers that wait. A connection belongs to its
 * loop's thread once it has begun; on_done and the look-up of a name alone run elsewhere.
 */
#ifndef MW_MILTER_PROXY_INT_H
#define MW_MILTER_PROXY_INT_H

#include "milter/dialog.h"
#include "milter/listen.h"
#include "milter/pool.h"
#include "milter/proxy.h"
#include "milter/tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct addrinfo;
struct mw_proxy_loop;

struct mw_watch { /* a descriptor and what epoll is told of it */
	enum {
		MW_WATCH_WAKE,
		MW_WATCH_LISTENER,
		MW_WATCH_CLIENT,
		MW_WATCH_NEXT
	} kind;
	int fd;          /* -1: closed */
	uint32_t events; /* 0: not watched */
	void *of;        /* the way, the connection */
};

struct mw_way {
	bool lmtp;
	struct mw_listener listener;
	char *next_spec;
	struct mw_place next;      /* borrows from next_spec */
	struct addrinfo *next_is;  /* where it is an address and no name; else NULL */
	struct mw_watch listening; /* the same for all loops; only kind and of are used */
};

struct mw_kept { /* a connection to a next server */
	TAILQ_ENTRY(mw_kept) link;
	const struct mw_way *way;
	int fd;
	struct mw_used known;
	int64_t born_us, until_us;
	uint64_t messages;
	bool trusted; /* XFORWARD was said: for those who may say it again */
	bool local;   /* the next server is on this host */
};

struct mw_lookup { /* of a next server's name: one at a time of each, for a loop */
	struct mw_job job;
	struct mw_lookup *next;       /* in loop->found */
	LIST_ENTRY(mw_lookup) asking; /* in loop->asking, while somebody waits */
	struct mw_proxy_loop *loop;
	TAILQ_HEAD(, mw_proxy_conn) waiting; /* the loop's */
	const struct mw_way *way;
	atomic_bool given_up;
	int error; /* of getaddrinfo */
	struct addrinfo *list;
	unsigned refs; /* the loop's: connections that go by the list */
};

struct mw_proxy_conn {
	TAILQ_ENTRY(mw_proxy_conn) link; /* in loop->conns, or loop->over */
	struct mw_proxy_conn *next_done; /* in loop->done, or loop->fresh */
	struct mw_proxy *proxy;
	struct mw_proxy_loop *loop;
	const struct mw_way *way;
	struct mw_watch client, next;
	char peer[64];            /* the client's address */
	bool dialing;             /* next is being connected */
	bool lingering;           /* the client's end is awaited, and nothing else */
	bool over;                /* in loop->over */
	struct mw_lookup *lookup; /* under way; NULL */
	TAILQ_ENTRY(mw_proxy_conn) waits; /* in lookup->waiting */
	struct mw_lookup *found;          /* done; NULL */
	const struct addrinfo *addr;      /* the one that is tried, while dialing */
	int64_t dial_until_us, linger_us; /* while dialing; while lingering */
	struct mw_kept *kept; /* where `next` comes from; NULL: made for this one */
	struct mw_dialog dialog;
	struct mw_tls *tls, *next_tls;        /* NULL: in clear */
	struct mw_buf wire, next_wire, plain; /* encrypted, to be sent; scratch */
};

TAILQ_HEAD(mw_proxy_conns, mw_proxy_conn);

struct mw_proxy_loop {
	struct mw_proxy *proxy;
	pthread_t thread;
	bool running;
	int ep;
	struct mw_watch wake;
	struct mw_proxy_conns conns;
	struct mw_proxy_conns over; /* to be freed when no event can name them */
	int64_t look_at_us;         /* no deadline of a connection is before that */
	bool listening, deaf;       /* deaf: for good */
	int64_t listen_at_us;       /* not before */
	int stop;                   /* as its connections know it */
	char *scratch;              /* of MW_PROXY_READ */
	LIST_HEAD(, mw_lookup) asking;
	atomic_uint_fast64_t n_conns; /* its own, with those in fresh */
	pthread_mutex_t lock;         /* guards what follows */
	struct mw_proxy_conn *done;   /* their records' fate is known */
	struct mw_proxy_conn *fresh;  /* accepted by another loop, to be begun */
	struct mw_lookup *found;
};

enum {
	MW_PROXY_READ = 32 * 1024,
	MW_PROXY_LOOPS = 4
};

struct mw_proxy {
	struct mw_capture *cap;
	struct mw_outbox outbox;
	struct mw_way *way;
	size_t n_ways;
	uint64_t limit;             /* session_limit */
	char *cert_file, *key_file; /* NULL: no STARTTLS for clients */
	enum mw_next_tls next_tls;
	struct mw_tls_ctx *next_ctx; /* NULL: none */
	int64_t keep_us;             /* proxy_keep_next */
	struct mw_pool *pool;        /* looks up names */
	struct mw_proxy_loop loop[MW_PROXY_LOOPS];
	unsigned n_loops;
	atomic_int_fast64_t warn_us;  /* when it may complain again */
	atomic_int_fast64_t plain_us; /* until then XFORWARD is not answered here */
	atomic_int_fast64_t
	    full_us; /* since when session_limit is reached; 0: it is not */
	atomic_uint_fast64_t n_conns; /* written with the lock */
	atomic_bool no_more;          /* connections are to be accepted */
	atomic_int stop;              /* 1: end soon, 2: end now */
	atomic_bool quit;             /* the loops */
	pthread_mutex_t lock;         /* guards what follows */
	pthread_cond_t gone;
	unsigned n_hear;        /* loops that accept connections */
	struct mw_tls_ctx *ctx; /* of the files as they were at cert_time */
	int64_t cert_time;
	TAILQ_HEAD(, mw_kept) kept; /* the latest first */
	size_t n_kept;
};

static inline int64_t
mw_proxy_now(const struct mw_proxy *p)
{
	return p->cap->clock->mono_us(p->cap->clock);
}

/* proxy.c. A session for the client, with the certificate as it is in the file now. NULL:
 * out of memory. */
struct mw_tls *mw_proxy_tls(struct mw_proxy *p);

/* proxy_loop.c */

/* Starts them all. What was started is to be ended with _end, whatever is returned.
 * MW_EIO, MW_ENOMEM, MW_EUNAVAIL. */
int mw_proxy_loops_start(struct mw_proxy *p, struct mw_err *err) MW_CHECK;
/* There are no connections any more. */
/* False: threads of it go on looking up names: the loops and ways must stay. */
bool mw_proxy_loops_end(struct mw_proxy *p);
void mw_proxy_wake_all(struct mw_proxy *p);
/* Watches w for these events only; 0: not at all. False: that cannot be done. */
bool mw_proxy_watch(struct mw_proxy_loop *l, struct mw_watch *w, uint32_t events);
/* Taken off the watch first: a program that is just being started has a copy of the
 * descriptor, and as long as it has, closing ours would not end the events. */
void mw_proxy_close(struct mw_proxy_loop *l, struct mw_watch *w);
/* Has come to its end: closed, counted, and freed a little later. */
void mw_proxy_over(struct mw_proxy_conn *c);

/* proxy_conn.c */

/* Takes fd over, for l, and counts it. Any thread. NULL: it is still the caller's, there
 * is no memory. */
struct mw_proxy_conn *mw_proxy_conn_new(struct mw_proxy_loop *l, const struct mw_way *w,
                                        int fd);
/* In its loop's thread: goes to the next server. */
void mw_proxy_conn_begin(struct mw_proxy_conn *c);
void mw_proxy_conn_free(struct mw_proxy_conn *c); /* after mw_proxy_over */
/* Its descriptor w is ready. */
void mw_proxy_conn_ready(struct mw_proxy_conn *c, struct mw_watch *w, uint32_t events);
void mw_proxy_conn_committed(struct mw_proxy_conn *c);
/* Sends, closes and waits as the dialog wants. */
void mw_proxy_conn_turn(struct mw_proxy_conn *c);
/* Has it waited too long? Returns its next deadline; INT64_MAX: none. */
int64_t mw_proxy_conn_look(struct mw_proxy_conn *c, int64_t now);

/* proxy_dial.c */

/* Connects c->next; the dialog is told where that fails. */
void mw_proxy_dial(struct mw_proxy_conn *c);
/* It is ready, or its time is over. */
void mw_proxy_dialed(struct mw_proxy_conn *c);
void mw_proxy_dial_late(struct mw_proxy_conn *c);
/* Closes c->next, connected or not. */
void mw_proxy_hang_up(struct mw_proxy_conn *c);
/* A look-up is done: tells those who wait for it, and frees it after the last. */
void mw_proxy_found(struct mw_lookup *u);
/* Notes in w where the next server is, when it is given by address. */
void mw_proxy_where(struct mw_way *w);
/* Fills o->peer from the address, text in buf. */
void mw_proxy_who(int fd, struct mw_dialog_opts *o, char buf[64]);

/* proxy_keep.c. When d->keep_next: lays c->next by for another client. */
void mw_proxy_park(struct mw_proxy_conn *c);
/* Takes one that was laid by, with c->kept; false: there is none. */
bool mw_proxy_reuse(struct mw_proxy_conn *c, bool trusted);
/* c->next is closed, or will not be laid by again. */
void mw_proxy_unkeep(struct mw_proxy_conn *c);
/* Ends those that have waited long enough, or all. */
void mw_proxy_expire(struct mw_proxy *p, bool all);

#endif
