#include "milter/aside.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "journal/base/clock.h"
#include "journal/base/util.h"

enum {
	READY_MAX = 256, /* answers; then the writer does not wait for more */
	WARN_EVERY_US = 60 * 1000 * 1000
};

struct worker {
	struct mw_aside *a;
	pthread_t thread;
	unsigned number;
};

STAILQ_HEAD(list, mw_aside_q);

struct mw_aside {
	const struct mw_aside_kind *kind;
	struct mw_store *store;
	void *owner;
	pthread_t writer;
	bool has_writer;

	pthread_mutex_t lock;       /* guards what follows */
	pthread_cond_t work, ready; /* for the workers; for the writer */
	struct list queue, answered;
	size_t n_open, n_answered;
	size_t asked_bytes;  /* of questions in the queue or being answered */
	size_t sealed_bytes; /* of answers that are not on disk yet */
	bool stop;
	struct mw_aside_stats stats;
	int64_t warned_us; /* 0: never */
	unsigned n_workers;
	struct worker worker[];
};

static void
free_question(struct mw_aside_q *q)
{
	mw_entry_free(q->entry);
	q->aside->kind->free(q);
}

/* Counts, and tells once in a while. Without the lock. */
static void
count_dropped(struct mw_aside *a, uint64_t n, const char *why)
{
	const struct mw_clock *c = mw_clock_system();
	int64_t now = c->mono_us(c);
	(void)pthread_mutex_lock(&a->lock);
	uint64_t total = a->stats.dropped += n;
	bool warn = a->warned_us == 0 || now - a->warned_us > WARN_EVERY_US;
	if (warn)
		a->warned_us = now;
	(void)pthread_mutex_unlock(&a->lock);
	if (warn)
		a->kind->dropped(total, why);
}

/* ---- answering ---- */

/* The next question, once there is room for its answer. NULL: it is over. */
static struct mw_aside_q *
next_question(struct mw_aside *a)
{
	(void)pthread_mutex_lock(&a->lock);
	while (!(STAILQ_EMPTY(&a->queue) ? a->stop
	                                 : a->sealed_bytes < a->kind->bytes_max / 2))
		(void)pthread_cond_wait(&a->work, &a->lock);
	struct mw_aside_q *q = STAILQ_FIRST(&a->queue);
	if (q)
		STAILQ_REMOVE_HEAD(&a->queue, next);
	(void)pthread_mutex_unlock(&a->lock);
	return q;
}

static void
answer(struct mw_aside *a, unsigned thread, struct mw_aside_q *q)
{
	size_t asked = q->bytes;
	int r = a->kind->answer(a->owner, thread, q);
	(void)pthread_mutex_lock(&a->lock);
	a->asked_bytes -= asked;
	if (r == 0) {
		q->bytes = mw_entry_memory(q->entry);
		a->sealed_bytes += q->bytes;
		STAILQ_INSERT_TAIL(&a->answered, q, next);
		a->n_answered++;
	} else {
		a->n_open--;
	}
	(void)pthread_cond_signal(&a->ready); /* also where nothing is open now */
	(void)pthread_mutex_unlock(&a->lock);
	if (r < 0) {
		free_question(q);
		count_dropped(a, 1, mw_err_text(r));
	}
}

static void *
worker_main(void *arg)
{
	struct worker *w = arg;
	struct mw_aside *a = w->a;
	struct mw_aside_q *q;
	while ((q = next_question(a)))
		answer(a, w->number, q);
	if (a->kind->thread_end)
		a->kind->thread_end(a->owner, w->number);
	return NULL;
}

/* ---- asking ---- */

/* With the lock. False: there is no thread at all. */
static bool
have_workers(struct mw_aside *a)
{
	while (a->n_workers < a->kind->threads) {
		struct worker *w = &a->worker[a->n_workers];
		*w = (struct worker){.a = a, .number = a->n_workers};
		if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
			break;
		a->n_workers++;
	}
	return a->n_workers > 0;
}

void
mw_aside_ask(struct mw_aside *a, struct mw_aside_q *q)
{
	const char *why = NULL;
	if (!q) {
		count_dropped(a, 1, mw_err_text(MW_ENOMEM));
		return;
	}
	q->aside = a;
	(void)pthread_mutex_lock(&a->lock);
	if (a->stop || a->n_open >= a->kind->open_max ||
	    a->asked_bytes + q->bytes > a->kind->bytes_max / 2)
		why = a->kind->overloaded;
	else if (!have_workers(a))
		why = "no thread can be started";
	if (!why) {
		a->n_open++;
		a->asked_bytes += q->bytes;
		STAILQ_INSERT_TAIL(&a->queue, q, next);
		(void)pthread_cond_signal(&a->work);
	}
	(void)pthread_mutex_unlock(&a->lock);
	if (why) {
		free_question(q);
		count_dropped(a, 1, why);
	}
}

/* ---- the writer ---- */

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct mw_aside_q *q = arg;
	struct mw_aside *a = q->aside;
	size_t bytes = q->bytes;
	bool recorded = c->code == 0, doubtful = q->doubtful;
	free_question(q);
	if (!recorded)
		count_dropped(a, 1, mw_err_text(c->code));
	(void)pthread_mutex_lock(&a->lock);
	a->n_open--;
	a->sealed_bytes -= bytes;
	a->stats.recorded += recorded;
	a->stats.doubtful += recorded && doubtful;
	(void)pthread_cond_broadcast(&a->work); /* there may be room again */
	if (a->stop && a->n_open == 0)
		(void)pthread_cond_signal(&a->ready);
	(void)pthread_mutex_unlock(&a->lock); /* now a may go, where it stops */
}

/* Lets answers gather, with the lock held: each sync costs the mail beside it. */
static void
gather(struct mw_aside *a)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + a->kind->gather_ms * 1000000;
	until.tv_sec += ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	while (!a->stop && a->n_answered < READY_MAX &&
	       a->sealed_bytes < a->kind->bytes_max / 2)
		if (pthread_cond_timedwait(&a->ready, &a->lock, &until) != 0)
			break;
}

/* Ends when it shall stop and nothing is open. */
static void *
writer_main(void *arg)
{
	struct mw_aside *a = arg;
	(void)pthread_mutex_lock(&a->lock);
	for (;;) {
		struct list list = STAILQ_HEAD_INITIALIZER(list);
		struct mw_aside_q *q;
		while (STAILQ_EMPTY(&a->answered) && !(a->stop && a->n_open == 0))
			(void)pthread_cond_wait(&a->ready, &a->lock);
		if (STAILQ_EMPTY(&a->answered))
			break;
		gather(a);
		STAILQ_CONCAT(&list, &a->answered);
		a->n_answered = 0;
		(void)pthread_mutex_unlock(&a->lock);
		while ((q = STAILQ_FIRST(&list))) {
			STAILQ_REMOVE_HEAD(&list, next);
			mw_store_submit(a->store, q->entry, on_commit, q);
		}
		(void)pthread_mutex_lock(&a->lock);
	}
	(void)pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* ---- life ---- */

int
mw_aside_start(const struct mw_aside_kind *kind, struct mw_store *store, void *owner,
               struct mw_aside **ret, struct mw_err *err)
{
	pthread_condattr_t mono;
	struct mw_aside *a = calloc(1, sizeof *a + kind->threads * sizeof a->worker[0]);
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	a->kind = kind;
	a->store = store;
	a->owner = owner;
	STAILQ_INIT(&a->queue);
	STAILQ_INIT(&a->answered);
	(void)pthread_mutex_init(&a->lock, NULL); /* these cannot fail */
	(void)pthread_condattr_init(&mono);
	(void)pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&a->work, NULL);
	(void)pthread_cond_init(&a->ready, &mono);
	(void)pthread_condattr_destroy(&mono);
	a->has_writer = pthread_create(&a->writer, NULL, writer_main, a) == 0;
	if (!a->has_writer) {
		mw_aside_stop(a);
		return mw_fail(err, MW_ENOMEM,
		               "cannot start the writer of later records");
	}
	*ret = a;
	return 0;
}

/* What is still in the queue is given up, where its kind wants that. */
static void
drop_queue(struct mw_aside *a)
{
	struct list list = STAILQ_HEAD_INITIALIZER(list);
	struct mw_aside_q *q;
	uint64_t n = 0;
	(void)pthread_mutex_lock(&a->lock);
	if (a->kind->drop_at_stop)
		STAILQ_CONCAT(&list, &a->queue);
	STAILQ_FOREACH(q, &list, next)
	{
		a->n_open--;
		a->asked_bytes -= q->bytes;
		n++;
	}
	a->stats.dropped += n;
	uint64_t total = a->stats.dropped;
	(void)pthread_mutex_unlock(&a->lock);
	while ((q = STAILQ_FIRST(&list))) {
		STAILQ_REMOVE_HEAD(&list, next);
		free_question(q);
	}
	if (n)
		a->kind->dropped(total, "mailwald ends");
}

void
mw_aside_stop(struct mw_aside *a)
{
	if (!a)
		return;
	(void)pthread_mutex_lock(&a->lock);
	a->stop = true;
	(void)pthread_cond_broadcast(&a->work);
	(void)pthread_mutex_unlock(&a->lock);
	if (a->kind->hurry)
		a->kind->hurry(a->owner);
	drop_queue(a);
	for (unsigned i = 0; i < a->n_workers; i++)
		(void)pthread_join(a->worker[i].thread, NULL);
	(void)pthread_mutex_lock(&a->lock);
	(void)pthread_cond_signal(&a->ready);
	(void)pthread_mutex_unlock(&a->lock);
	if (a->has_writer)
		(void)pthread_join(a->writer, NULL);
	(void)pthread_mutex_destroy(&a->lock);
	(void)pthread_cond_destroy(&a->work);
	(void)pthread_cond_destroy(&a->ready);
	free(a);
}

void
mw_aside_stats(struct mw_aside *a, struct mw_aside_stats *ret)
{
	memset(ret, 0, sizeof *ret);
	if (!a)
		return;
	(void)pthread_mutex_lock(&a->lock);
	*ret = a->stats;
	ret->open = a->n_open;
	ret->bytes = a->asked_bytes + a->sealed_bytes;
	(void)pthread_mutex_unlock(&a->lock);
}
