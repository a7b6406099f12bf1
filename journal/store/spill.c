#include "journal/store/spill.h"

#include "journal/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct mw_spill {
	struct mw_spiller *w;
	struct mw_spill *next;
	int fd;
	uint64_t at;
	/* guarded by w->mu: */
	struct mw_buf piece; /* the thread's while waiting */
	bool waiting;        /* to be written or closed, or just that is done */
	bool dropped;        /* nobody wants it any more: to be closed */
	int code;            /* MW_E* of the first failure */
	struct mw_err why;   /* … in words */
};

static int64_t
mono(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c);
}

int
mw_spiller_init(struct mw_spiller *w, const struct mw_fs *fs, const char *dir)
{
	pthread_condattr_t a;
	*w = (struct mw_spiller){.fs = fs,
	                         .dir = dir,
	                         .patience_us = MW_SPILL_PATIENCE_US};
	w->tail = &w->head;
	if (pthread_condattr_init(&a) != 0)
		return MW_ENOMEM;
	(void)pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	int bad = pthread_mutex_init(&w->mu, NULL) != 0 ||
	          pthread_cond_init(&w->work, NULL) != 0 ||
	          pthread_cond_init(&w->done, &a) != 0;
	(void)pthread_condattr_destroy(&a);
	w->begun = !bad;
	return bad ? MW_ENOMEM : 0;
}

/* ---- the thread ---- */

static int
write_piece(struct mw_spiller *w, struct mw_spill *s, struct mw_err *err)
{
	const struct mw_fs *fs = w->fs;
	if (s->fd < 0) {
		int fd = fs->open_temp(fs, w->dir);
		if (fd < 0) {
			errno = -fd;
			return mw_fail_errno(err, "cannot open a spill file in %s",
			                     w->dir);
		}
		s->fd = fd;
	}
	struct iovec iov = {s->piece.p, s->piece.n};
	int r = fs->pwritev(fs, s->fd, &iov, 1, s->at);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write a spill file in %s", w->dir);
	}
	s->at += s->piece.n;
	return 0;
}

static void
end(struct mw_spiller *w, struct mw_spill *s)
{
	if (s->fd >= 0)
		(void)w->fs->close(w->fs, s->fd);
	mw_buf_free(&s->piece);
	free(s);
}

/* One spill's turn, with w->mu, which is let go meanwhile. */
static void
turn(struct mw_spiller *w, struct mw_spill *s)
{
	struct mw_err err = {0};
	bool drop = s->dropped, write = !drop && s->code == 0;
	w->since_us = mono();
	(void)pthread_mutex_unlock(&w->mu);
	int r = write ? write_piece(w, s, &err) : 0;
	if (drop)
		end(w, s);
	(void)pthread_mutex_lock(&w->mu);
	w->since_us = 0;
	(void)pthread_cond_broadcast(&w->done);
	if (drop)
		return;
	if (r < 0 && s->code == 0) {
		s->code = r;
		s->why = err;
	}
	mw_buf_clear(&s->piece);
	s->waiting = s->dropped; /* dropped meanwhile: its turn comes again */
	if (s->waiting) {
		s->next = NULL;
		*w->tail = s;
		w->tail = &s->next;
	}
}

static void *
spiller(void *arg)
{
	struct mw_spiller *w = arg;
	(void)pthread_mutex_lock(&w->mu);
	for (;;) {
		while (!w->head && !w->stop)
			(void)pthread_cond_wait(&w->work, &w->mu);
		struct mw_spill *s = w->head;
		if (!s)
			break;
		w->head = s->next;
		if (!w->head)
			w->tail = &w->head;
		turn(w, s);
	}
	(void)pthread_mutex_unlock(&w->mu);
	return NULL;
}

void
mw_spiller_done(struct mw_spiller *w)
{
	if (!w->begun)
		return;
	(void)pthread_mutex_lock(&w->mu);
	w->stop = true;
	(void)pthread_cond_signal(&w->work);
	(void)pthread_mutex_unlock(&w->mu);
	if (w->running)
		(void)pthread_join(w->thread, NULL);
	(void)pthread_mutex_destroy(&w->mu);
	(void)pthread_cond_destroy(&w->work);
	(void)pthread_cond_destroy(&w->done);
}

/* ---- who brings records ---- */

/* With w->mu. */
static void
hand_over(struct mw_spiller *w, struct mw_spill *s)
{
	s->waiting = true;
	s->next = NULL;
	*w->tail = s;
	w->tail = &s->next;
	(void)pthread_cond_signal(&w->work);
}

static int
failed(const struct mw_spill *s, struct mw_err *err)
{
	if (err && s->code < 0)
		*err = s->why;
	return s->code;
}

/* With w->mu: until its piece is written. */
static int
await(struct mw_spiller *w, struct mw_spill *s, struct mw_err *err)
{
	while (s->waiting && s->code == 0) {
		int64_t now = mono();
		int64_t until = (w->since_us ? w->since_us : now) + w->patience_us;
		if (now >= until) {
			s->code = mw_fail(&s->why, MW_ETIMEOUT,
			                  "the disk of %s does not answer", w->dir);
			break;
		}
		struct timespec ts = {until / 1000000, until % 1000000 * 1000};
		(void)pthread_cond_timedwait(&w->done, &w->mu, &ts);
	}
	return failed(s, err);
}

static int
start(struct mw_spiller *w, struct mw_err *err)
{
	if (!w->running && pthread_create(&w->thread, NULL, spiller, w) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start a thread for spill files");
	w->running = true;
	return 0;
}

int
mw_spill_put(struct mw_spiller *w, struct mw_spill **s, struct mw_buf *b,
             struct mw_err *err)
{
	if (!*s) {
		*s = calloc(1, sizeof **s);
		if (!*s)
			return mw_fail(err, MW_ENOMEM, "out of memory for a spill file");
		(*s)->w = w;
		(*s)->fd = -1;
	}
	(void)pthread_mutex_lock(&w->mu);
	int r = start(w, err);
	if (r == 0)
		r = await(w, *s, err);
	if (r == 0) {
		struct mw_buf empty = (*s)->piece;
		(*s)->piece = *b;
		*b = empty;
		hand_over(w, *s);
	}
	(void)pthread_mutex_unlock(&w->mu);
	return r;
}

int
mw_spill_flush(struct mw_spill *s, struct mw_err *err)
{
	(void)pthread_mutex_lock(&s->w->mu);
	int r = await(s->w, s, err);
	(void)pthread_mutex_unlock(&s->w->mu);
	return r;
}

int
mw_spill_fd(const struct mw_spill *s)
{
	return s->fd;
}

void
mw_spill_free(struct mw_spill *s)
{
	if (!s)
		return;
	struct mw_spiller *w = s->w;
	(void)pthread_mutex_lock(&w->mu);
	s->dropped = true;
	if (!s->waiting && w->running)
		hand_over(w, s);
	else if (!w->running) { /* nothing was ever written */
		(void)pthread_mutex_unlock(&w->mu);
		end(w, s);
		return;
	}
	(void)pthread_mutex_unlock(&w->mu);
}
