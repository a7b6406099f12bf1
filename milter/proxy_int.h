/* proxy_int.h - the inside of the proxy: proxy.c has listeners and threads, proxy_conn.c
 * one connection. */
#ifndef MW_MILTER_PROXY_INT_H
#define MW_MILTER_PROXY_INT_H

#include "milter/dialog.h"
#include "milter/listen.h"
#include "milter/proxy.h"
#include "milter/tls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct mw_way {
	bool lmtp;
	struct mw_listener listener;
	char *next_spec;
	struct mw_place next; /* borrows from next_spec */
};

struct mw_kept { /* a connection to a next server */
	TAILQ_ENTRY(mw_kept) link;
	const struct mw_way *way;
	int fd;
	struct mw_used known;
	int64_t born_us, until_us;
	uint64_t messages;
	bool trusted; /* XFORWARD was said: for those who may say it again */
};

struct mw_proxy_conn {
	TAILQ_ENTRY(mw_proxy_conn) link, fresh;
	struct mw_proxy *proxy;
	const struct mw_way *way;
	int client, next, wake; /* -1: closed */
	struct mw_kept *kept;   /* where `next` comes from; NULL: made for this one */
	struct mw_dialog dialog;
	struct mw_tls *tls, *next_tls;        /* NULL: in clear */
	struct mw_buf wire, next_wire, plain; /* encrypted, to be sent; scratch */
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
	pthread_t thread;
	bool running;
	int64_t warn_us; /* the listening thread's: when it may complain again */
	int wake;
	atomic_bool no_more;  /* connections are to be accepted */
	atomic_int stop;      /* 1: end soon, 2: end now */
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t gone;
	struct mw_tls_ctx *ctx; /* of the files as they were at cert_time */
	int64_t cert_time;
	TAILQ_HEAD(, mw_proxy_conn) conns;
	size_t n_conns;
	TAILQ_HEAD(, mw_proxy_conn) fresh; /* not yet taken by a thread */
	size_t n_fresh, n_idle;            /* n_idle threads wait for them */
	size_t n_threads;
	pthread_cond_t work;
	TAILQ_HEAD(, mw_kept) kept; /* the latest first */
	size_t n_kept;
};

/* Added to the eventfd of a connection. */
#define MW_PROXY_WAKE_STOP      ((uint64_t)1)
#define MW_PROXY_WAKE_COMMITTED ((uint64_t)1 << 32)

/* A session for the client, with the certificate as it is in the file now. NULL: out of
 * memory. */
struct mw_tls *mw_proxy_tls(struct mw_proxy *p);
/* proxy_keep.c. When d->keep_next: lays c->next by for another client. */
void mw_proxy_park(struct mw_proxy_conn *c);
/* Takes one that was laid by, with c->kept; false: there is none. */
bool mw_proxy_reuse(struct mw_proxy_conn *c, bool trusted);
/* c->next is closed, or will not be laid by again. */
void mw_proxy_unkeep(struct mw_proxy_conn *c);
/* Ends those that have waited long enough, or all. */
void mw_proxy_expire(struct mw_proxy *p, bool all);
/* Serves c->client to its end, then closes all descriptors but wake. */
void mw_proxy_serve(struct mw_proxy_conn *c);

#endif
