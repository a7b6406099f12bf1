#include "milter/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct mw_pool {
	unsigned want;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t more;
	struct mw_job *head, **tail;
	bool stop;
	unsigned running;
	pthread_t thread[];
};

static void *
worker(void *arg)
{
	struct mw_pool *p = arg;
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct mw_job *j = p->head;
		if (!j) {
			if (p->stop)
				break;
			pthread_cond_wait(&p->more, &p->lock);
			continue;
		}
		p->head = j->next;
		if (!p->head)
			p->tail = &p->head;
		pthread_mutex_unlock(&p->lock);
		j->fn(j->arg);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct mw_pool *
mw_pool_new(unsigned threads)
{
	struct mw_pool *p = calloc(1, sizeof *p + threads * sizeof p->thread[0]);
	if (!p)
		return NULL;
	p->want = threads;
	p->tail = &p->head;
	(void)pthread_mutex_init(&p->lock, NULL); /* cannot fail with NULL attributes */
	(void)pthread_cond_init(&p->more, NULL);
	return p;
}

static void
stop(struct mw_pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->lock);
}

static void
free_stopped(struct mw_pool *p)
{
	pthread_cond_destroy(&p->more);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void
mw_pool_free(struct mw_pool *p)
{
	if (!p)
		return;
	stop(p);
	for (unsigned i = 0; i < p->running; i++)
		(void)pthread_join(p->thread[i], NULL);
	free_stopped(p);
}

bool
mw_pool_end(struct mw_pool *p, unsigned seconds)
{
	struct timespec until;
	bool all = true;
	if (!p)
		return true;
	stop(p);
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	for (unsigned i = 0; i < p->running; i++)
		if (pthread_clockjoin_np(p->thread[i], NULL, CLOCK_MONOTONIC, &until) !=
		    0) {
			(void)pthread_detach(p->thread[i]);
			all = false;
		}
	if (all)
		free_stopped(p);
	return all;
}

bool
mw_pool_run(struct mw_pool *p, struct mw_job *job)
{
	pthread_mutex_lock(&p->lock);
	while (p->running < p->want &&
	       pthread_create(&p->thread[p->running], NULL, worker, p) == 0)
		p->running++;
	bool ok = p->running > 0;
	if (ok) {
		job->next = NULL;
		*p->tail = job;
		p->tail = &job->next;
		pthread_cond_signal(&p->more);
	}
	pthread_mutex_unlock(&p->lock);
	return ok;
}
