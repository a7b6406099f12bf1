#include "tests/bench/raw.h"

#include "journal/base/util.h"
#include "tests/bench/figures.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

struct raw {
	pthread_mutex_t mu;
	pthread_cond_t work, done;
	unsigned long handed, durable; /* records */
	unsigned running;
	int fd;
	size_t room, record;
	bool failed;
};

struct client {
	struct raw *r;
	unsigned each;
	double *v;
};

static void *
client(void *arg)
{
	struct client *c = arg;
	struct raw *r = c->r;
	for (unsigned i = 0; i < c->each; i++) {
		double t = now_s();
		(void)pthread_mutex_lock(&r->mu);
		unsigned long mine = ++r->handed;
		(void)pthread_cond_signal(&r->work);
		while (r->durable < mine && !r->failed)
			(void)pthread_cond_wait(&r->done, &r->mu);
		(void)pthread_mutex_unlock(&r->mu);
		c->v[i] = now_s() - t;
	}
	(void)pthread_mutex_lock(&r->mu);
	r->running--;
	(void)pthread_cond_signal(&r->work);
	(void)pthread_mutex_unlock(&r->mu);
	return NULL;
}

static void
commit_all(struct raw *r)
{
	static uint8_t bytes[1 << 20];
	size_t at = 0;
	(void)pthread_mutex_lock(&r->mu);
	while (r->running && !r->failed) {
		unsigned long to = r->handed;
		if (to == r->durable) {
			(void)pthread_cond_wait(&r->work, &r->mu);
			continue;
		}
		size_t n = MW_MIN((to - r->durable) * r->record, sizeof bytes);
		(void)pthread_mutex_unlock(&r->mu);
		at = at + n > r->room ? 0 : at;
		bool ok = pwrite(r->fd, bytes, n, (off_t)at) == (ssize_t)n &&
		          fdatasync(r->fd) == 0;
		at += n;
		(void)pthread_mutex_lock(&r->mu);
		r->durable = to;
		r->failed = !ok;
		(void)pthread_cond_broadcast(&r->done);
	}
	(void)pthread_mutex_unlock(&r->mu);
}

double
raw_crowd(int fd, size_t room, size_t record, unsigned each, double *v)
{
	struct raw r = {.mu = PTHREAD_MUTEX_INITIALIZER,
	                .work = PTHREAD_COND_INITIALIZER,
	                .done = PTHREAD_COND_INITIALIZER,
	                .running = RAW_THREADS,
	                .fd = fd,
	                .room = room,
	                .record = record};
	pthread_t t[RAW_THREADS];
	struct client c[RAW_THREADS];
	unsigned n = 0;
	double t0 = now_s();
	for (; n < RAW_THREADS; n++) {
		c[n] = (struct client){&r, each, v + (size_t)n * each};
		if (pthread_create(&t[n], NULL, client, &c[n]) != 0)
			break;
	}
	if (n == RAW_THREADS)
		commit_all(&r);
	(void)pthread_mutex_lock(&r.mu);
	r.failed = r.failed || n < RAW_THREADS;
	(void)pthread_cond_broadcast(&r.done);
	(void)pthread_mutex_unlock(&r.mu);
	for (unsigned i = 0; i < n; i++)
		(void)pthread_join(t[i], NULL);
	return r.failed ? 0 : RAW_THREADS * each / (now_s() - t0);
}
