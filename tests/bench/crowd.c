#include "tests/bench/crowd.h"

#include "journal/base/util.h"
#include "tests/bench/figures.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop;

struct crowd_turn {
	struct loop *l;
	void *record;
	unsigned k;
	double since; /* when its message was there */
	struct crowd_turn *next;
};

struct run {
	const struct crowd *c;
	atomic_uint next; /* message */
	double *v;
};

struct loop {
	struct run *r;
	pthread_t t;
	pthread_mutex_t mu;
	struct crowd_turn *done; /* guarded by mu */
	int wake;
	unsigned running;
};

void
crowd_done(struct crowd_turn *t)
{
	struct loop *l = t->l;
	uint64_t one = 1;
	(void)pthread_mutex_lock(&l->mu);
	bool first = !l->done;
	t->next = l->done;
	l->done = t;
	if (first)
		must(write(l->wake, &one, sizeof one) == sizeof one, "wake");
	(void)pthread_mutex_unlock(&l->mu);
}

/* The answers that are there, in their order. */
static struct crowd_turn *
take_done(struct loop *l)
{
	uint64_t some;
	must(read(l->wake, &some, sizeof some) == sizeof some, "wake");
	(void)pthread_mutex_lock(&l->mu);
	struct crowd_turn *t = l->done, *list = NULL;
	l->done = NULL;
	(void)pthread_mutex_unlock(&l->mu);
	while (t) {
		struct crowd_turn *next = t->next;
		t->next = list;
		list = t;
		t = next;
	}
	return list;
}

static void *
loop_main(void *arg)
{
	struct loop *l = arg;
	struct run *r = l->r;
	const struct crowd *c = r->c;
	while (l->running) {
		struct crowd_turn *list = take_done(l), *next;
		double now = now_s();
		for (struct crowd_turn *t = list; t; t = t->next) {
			if (t->record)
				r->v[t->k] = now - t->since;
			t->since = now;
		}
		for (struct crowd_turn *t = list; t; t = next) {
			next = t->next;
			if (t->record)
				c->drop(t->record);
			t->record = NULL;
			t->k = atomic_fetch_add(&r->next, 1);
			if (t->k < c->messages) {
				t->record = c->hand(c->arg, t->k, t);
				continue;
			}
			l->running--;
			if (c->none)
				c->none(c->arg);
		}
	}
	return NULL;
}

double
crowd_run(const struct crowd *c, double *v)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = c->threads ? c->threads : (unsigned)MW_MIN(MW_MAX(cores, 1), 4);
	struct crowd_turn *turn = calloc(c->sessions, sizeof *turn);
	struct loop *loop = calloc(n, sizeof *loop);
	struct run r = {.c = c, .v = v};
	must(turn && loop, "memory");
	for (unsigned i = 0; i < n; i++) {
		loop[i].r = &r;
		loop[i].wake = eventfd(1, EFD_CLOEXEC);
		must(loop[i].wake >= 0, "eventfd");
		(void)pthread_mutex_init(&loop[i].mu, NULL);
	}
	for (unsigned i = 0; i < c->sessions; i++) {
		struct loop *l = &loop[i % n];
		turn[i] = (struct crowd_turn){.l = l, .next = l->done};
		l->done = &turn[i];
		l->running++;
	}
	double t0 = now_s();
	for (unsigned i = 0; i < n; i++)
		must(pthread_create(&loop[i].t, NULL, loop_main, &loop[i]) == 0,
		     "thread");
	for (unsigned i = 0; i < n; i++) {
		(void)pthread_join(loop[i].t, NULL);
		(void)close(loop[i].wake);
		(void)pthread_mutex_destroy(&loop[i].mu);
	}
	t0 = now_s() - t0;
	free(turn);
	free(loop);
	return t0;
}
