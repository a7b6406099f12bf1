#include "replay/queue_ahead.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"

#include <pthread.h>
#include <stdlib.h>

struct mw_queue_ahead {
	struct mw_queue *q;
	int64_t asked_us;
	pthread_t thread;
	bool running;
	atomic_bool unwanted; /* nobody will take it */
	/* the thread's, until it is joined */
	struct mw_buf *text; /* MW_QUEUE_READS of each command's, one after the other */
	size_t n_text;
	int code;
	struct mw_err err;
};

static int
keep(void *arg, const void *p, size_t n, struct mw_err *err)
{
	struct mw_buf *b = arg;
	if (b->n + n > MW_QUEUE_AHEAD_MAX)
		return mw_fail(err, MW_ELIMIT, "a long queue");
	mw_buf_put(b, p, n);
	return mw_buf_ok(b) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}

static void *
list(void *arg)
{
	struct mw_queue_ahead *a = arg;
	for (size_t i = 0; i < a->n_text && !a->code; i++)
		a->code = mw_queue_print(a->q, i / MW_QUEUE_READS, &a->unwanted, keep,
		                         &a->text[i], &a->err);
	return NULL;
}

struct mw_queue_ahead *
mw_queue_ahead_start(struct mw_queue *q)
{
	const struct mw_clock *clk = mw_clock_system();
	struct mw_queue_ahead *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	a->q = q;
	a->n_text = mw_queue_commands(q) * MW_QUEUE_READS;
	a->text = calloc(a->n_text, sizeof *a->text);
	a->asked_us = clk->now_us(clk);
	a->running = a->text && pthread_create(&a->thread, NULL, list, a) == 0;
	if (a->running)
		return a;
	mw_queue_ahead_free(a);
	return NULL;
}

static void
end(struct mw_queue_ahead *a)
{
	if (a->running)
		(void)pthread_join(a->thread, NULL);
	a->running = false;
}

int
mw_queue_ahead_take(struct mw_queue_ahead *a, int64_t settled_us,
                    bool (*known)(void *arg, uint64_t id), void *arg, struct mw_err *err)
{
	struct mw_err why;
	end(a);
	if (a->code && a->code != MW_ELIMIT) {
		*err = a->err; /* it may have taken its time to fail: not once more */
		return a->code;
	}
	if (a->code || a->asked_us < settled_us)
		return 0;
	for (size_t i = 0; i < a->n_text; i++) {
		size_t k = i / MW_QUEUE_READS;
		struct mw_buf *b = &a->text[i];
		int r = b->n ? mw_queue_learn(a->q, k, b->p, b->n, known, arg, &why) : 0;
		if (!r)
			r = mw_queue_learn(a->q, k, NULL, 0, known, arg, &why);
		if (r)
			return r == MW_ENOMEM ? mw_fail(err, r, "out of memory") : 0;
	}
	return 1;
}

void
mw_queue_ahead_free(struct mw_queue_ahead *a)
{
	if (!a)
		return;
	atomic_store(&a->unwanted, true);
	end(a);
	for (size_t i = 0; a->text && i < a->n_text; i++)
		mw_buf_free(&a->text[i]);
	free(a->text);
	free(a);
}
