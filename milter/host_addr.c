#include "milter/host_addr.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	AGAIN_S = 5,    /* between two look-ups of a name */
	REFRESH_S = 60, /* … of one that has an address */
	SLICE_MS = 100
};

struct mw_host_addr {
	pthread_mutex_t lock;
	pthread_cond_t found;
	unsigned refs; /* the owner's, and a look-up's */
	bool busy;
	int64_t again_us; /* monotonic */
	struct sockaddr_storage addr;
	socklen_t len; /* 0: none */
	char *host, *port;
};

static int64_t
now_us(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c);
}

/* Takes the lock, held. */
static void
let_go(struct mw_host_addr *h)
{
	bool last = --h->refs == 0;
	(void)pthread_mutex_unlock(&h->lock);
	if (!last)
		return;
	(void)pthread_mutex_destroy(&h->lock);
	(void)pthread_cond_destroy(&h->found);
	free(h->host);
	free(h->port);
	free(h);
}

static int
addresses(const struct mw_host_addr *h, int flags, struct sockaddr_storage *ret,
          socklen_t *ret_len)
{
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *ai;
	if (getaddrinfo(h->host, h->port, &hint, &ai) != 0)
		return MW_EUNAVAIL;
	memcpy(ret, ai->ai_addr, ai->ai_addrlen);
	*ret_len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return 0;
}

static void *
look_up(void *arg)
{
	struct mw_host_addr *h = arg;
	struct sockaddr_storage addr;
	socklen_t len;
	int r = addresses(h, 0, &addr, &len);
	(void)pthread_mutex_lock(&h->lock);
	if (r == 0) {
		h->addr = addr;
		h->len = len;
	}
	h->busy = false;
	h->again_us = now_us() + AGAIN_S * INT64_C(1000000);
	(void)pthread_cond_broadcast(&h->found);
	let_go(h);
	return NULL;
}

/* With the lock. */
static void
start(struct mw_host_addr *h)
{
	pthread_t thread;
	sigset_t all, old;
	if (h->busy || now_us() < h->again_us)
		return;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	h->busy = pthread_create(&thread, NULL, look_up, h) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!h->busy)
		return;
	h->refs++;
	(void)pthread_detach(thread);
}

struct mw_host_addr *
mw_host_addr_new(const char *host, const char *port)
{
	struct mw_host_addr *h = calloc(1, sizeof *h);
	if (!h)
		return NULL;
	h->refs = 1;
	(void)pthread_mutex_init(&h->lock, NULL);
	(void)pthread_cond_init(&h->found, NULL);
	h->host = strdup(host);
	h->port = strdup(port);
	if (!h->host || !h->port) {
		mw_host_addr_free(h);
		return NULL;
	}
	if (addresses(h, AI_NUMERICHOST, &h->addr, &h->len) == 0) {
		h->again_us = INT64_MAX / 2;
		return h;
	}
	(void)pthread_mutex_lock(&h->lock);
	start(h);
	(void)pthread_mutex_unlock(&h->lock);
	return h;
}

void
mw_host_addr_free(struct mw_host_addr *h)
{
	if (!h)
		return;
	(void)pthread_mutex_lock(&h->lock);
	let_go(h);
}

int
mw_host_addr_get(struct mw_host_addr *h, int64_t deadline_us, const atomic_bool *hurry,
                 struct sockaddr_storage *ret, socklen_t *ret_len)
{
	int64_t now;
	int r = 0;
	(void)pthread_mutex_lock(&h->lock);
	if (!h->len || now_us() > h->again_us + REFRESH_S * INT64_C(1000000))
		start(h);
	while (!h->len && h->busy && r == 0) {
		now = now_us();
		if (now >= deadline_us || (hurry && atomic_load(hurry))) {
			r = MW_ETIMEOUT;
			break;
		}
		int64_t until = MW_MIN(deadline_us, now + SLICE_MS * 1000);
		struct timespec t = {until / 1000000, until % 1000000 * 1000};
		(void)pthread_cond_clockwait(&h->found, &h->lock, CLOCK_MONOTONIC, &t);
	}
	if (h->len) {
		*ret = h->addr;
		*ret_len = h->len;
		r = 0;
	} else if (r == 0) {
		r = MW_EUNAVAIL;
	}
	(void)pthread_mutex_unlock(&h->lock);
	return r;
}

void
mw_host_addr_failed(struct mw_host_addr *h)
{
	(void)pthread_mutex_lock(&h->lock);
	start(h);
	(void)pthread_mutex_unlock(&h->lock);
}
