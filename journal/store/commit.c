/* Group commit: one thread gathers what waits into one write and one sync (FORMAT.md I6,
 * I7). Whoever submitted is answered after the sync, never before it. */
#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	BATCH_FRAMES = 1024,
	BATCH_BYTES = 8 << 20,
	MIN_COMING = 4,        /* entries on their way that a commit waits for … */
	MANY_COMING = 8,       /* … and those for which it waits all of gather_us */
	ENOUGH = 32,           /* entries that wait for no more than are waiting */
	NOT_AGAIN = 8,         /* commits that do not wait after one that did in vain */
	PROBE_BYTES = 1 << 20, /* that a disk has room for when it is well again */
	MIN_FILL = 16 << 20    /* prepare at least this much of a segment */
};

void
mw_store_say(const struct mw_store *st, int level, const char *fmt, ...)
{
	char text[700];
	va_list ap;
	if (!st->o.note)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	st->o.note(st->o.note_arg, level, text);
}

/* ---- the committer ---- */

static uint64_t
entry_bytes(const struct mw_entry *e)
{
	return e->head_len + e->meta.len + e->body.len + 8;
}

/* Takes a batch off the queue; called with mu held. */
static struct mw_entry *
take_batch(struct mw_store *st, uint64_t *ret_bytes)
{
	struct mw_entry *list = st->head, *e = list;
	uint64_t bytes = 0;
	unsigned n = 0;
	struct mw_entry *last = NULL;
	while (e && n < BATCH_FRAMES &&
	       (n == 0 || bytes + entry_bytes(e) <= BATCH_BYTES)) {
		bytes += entry_bytes(e);
		n++;
		last = e;
		e = e->next;
	}
	if (last) {
		atomic_fetch_sub(&st->waiting, n);
		st->head = last->next;
		if (!st->head)
			st->tail = &st->head;
		last->next = NULL;
	}
	*ret_bytes = bytes;
	return list;
}

static int
enough_space(struct mw_store *st, uint64_t bytes, struct mw_err *err)
{
	int64_t free_bytes = st->fs->free_space(st->fs, st->dir);
	if (free_bytes < 0)
		return 0; /* the write will tell */
	(void)pthread_mutex_lock(&st->mu);
	st->stats.free_bytes = (uint64_t)free_bytes;
	(void)pthread_mutex_unlock(&st->mu);
	if ((uint64_t)free_bytes >= atomic_load(&st->min_free) &&
	    (uint64_t)free_bytes - atomic_load(&st->min_free) >= bytes)
		return 0;
	(void)mw_fail(err, MW_ENOSPC,
	              "%s has %lld MiB free, the floor is %llu MiB (min_free)", st->dir,
	              (long long)(free_bytes >> 20),
	              (unsigned long long)(atomic_load(&st->min_free) >> 20));
	(void)mw_err_hint(err, "free some space or prune the journal");
	return MW_ENOSPC;
}

static bool
segment_old(const struct mw_store *st)
{
	return st->seg && st->seg_records > 0 &&
	       st->clock->mono_us(st->clock) - st->seg_born_us >= st->o.segment_age_us;
}

static int
make_room(struct mw_store *st, uint64_t bytes, struct mw_err *err)
{
	int r = enough_space(st, bytes, err);
	if (r < 0)
		return r;
	bool other =
	    st->seg && st->seg->h.delimiter && st->seg->h.delimiter != st->delimiter_crc;
	if (st->seg &&
	    (other || (st->seg_records > 0 &&
	               (st->seg->at + bytes > st->o.segment_size || segment_old(st)))))
		(void)!mw_segment_close(st, NULL); /* failed: abandoned, said so */
	return st->seg ? 0 : mw_segment_start(st, err);
}

static void
answer(struct mw_entry *list, int code, uint64_t segment)
{
	uint32_t n = 0;
	for (struct mw_entry *e = list; e; e = e->next)
		n++;
	for (struct mw_entry *e = list, *next; e; e = next) {
		next = e->next;
		struct mw_commit c = {.code = code};
		if (code == 0) {
			c.seq = e->frame.seq;
			c.loc = (struct mw_loc){segment, e->offset};
			c.batch_records = n;
			c.wait_us = e->wait_us;
		}
		e->cb(e->cb_arg, &c); /* e may be gone now */
	}
}

void
mw_store_durable(struct mw_store *st)
{
	st->durable_seq = st->next_seq;
	memcpy(st->durable_chain, st->chain, MW_HASH_LEN);
}

uint64_t
mw_store_head(struct mw_store *st, uint8_t chain[32])
{
	(void)pthread_mutex_lock(&st->mu);
	uint64_t seq = st->durable_seq - 1;
	memcpy(chain, st->durable_chain, MW_HASH_LEN);
	(void)pthread_mutex_unlock(&st->mu);
	return seq;
}

static void
count(struct mw_store *st, const struct mw_entry *list, int code)
{
	int64_t now_us = code < 0 ? st->clock->now_us(st->clock) : 0;
	st->tried_us = st->clock->mono_us(st->clock);
	(void)pthread_mutex_lock(&st->mu);
	mw_store_durable(st);
	st->stats.next_seq = st->next_seq;
	st->stats.failing = code < 0;
	if (code < 0) {
		st->stats.failures++;
		st->stats.full += code == MW_ENOSPC;
		st->stats.failed_code = code;
		st->stats.failed_us = now_us;
	} else {
		st->stats.batches++;
	}
	for (const struct mw_entry *e = list; code == 0 && e; e = e->next) {
		st->stats.records++;
		st->stats.bytes_stored += entry_bytes(e);
		if (e->type != MW_TYPE_MAIL)
			continue;
		st->stats.mails++;
		st->stats.bytes_in += e->size;
		if (!e->imported)
			st->stats.last_mail_us = e->time_us;
	}
	(void)pthread_mutex_unlock(&st->mu);
}

/* A segment says by which characters its records' extensions are parted. Those that were
 * made before and after a reload may come together, and in either order. */
static void
note_delimiter(struct mw_store *st, const struct mw_entry *list)
{
	bool first = true;
	for (const struct mw_entry *e = list; e; e = e->next) {
		if (!e->parted)
			continue;
		if (!first && st->delimiter_crc != e->delimiter) {
			st->delimiter_crc = 0;
			return;
		}
		st->delimiter_crc = e->delimiter;
		first = false;
	}
}

static void
do_batch(struct mw_store *st, struct mw_entry *list, uint64_t bytes)
{
	struct mw_err err = {0};
	note_delimiter(st, list);
	int r = make_room(st, bytes, &err);
	if (r == 0)
		r = mw_commit_batch(st, list, &err);
	if (r < 0)
		mw_store_say(st, MW_LOG_ERR, "event=commit-failed error=%s text=\"%s\"",
		             mw_err_name(r), err.msg);
	uint64_t segment = st->seg ? st->seg->h.number : 0;
	count(st, list, r);
	answer(list, r, segment);
}

/* Nobody but this thread finds out on a quiet host that the disk is well again. With mu
 * held. */
static bool
probe_due(const struct mw_store *st)
{
	return st->stats.failing && st->o.probe_us > 0 &&
	       st->clock->mono_us(st->clock) - st->tried_us >= st->o.probe_us;
}

/* Well is a disk that has room and, where the failure cost the open segment, takes the
 * head of another, synced: the next mail goes there. */
static void
probe(struct mw_store *st)
{
	int r = make_room(st, PROBE_BYTES, NULL);
	st->tried_us = st->clock->mono_us(st->clock);
	(void)pthread_mutex_lock(&st->mu);
	st->stats.probes++;
	st->stats.failing = r < 0;
	(void)pthread_mutex_unlock(&st->mu);
	if (r < 0)
		return; /* as before: it has been told */
	mw_store_say(st, MW_LOG_NOTICE, "event=disk-well seg=%llu",
	             (unsigned long long)st->seg->h.number);
}

static struct timespec
in_us(int64_t us)
{
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	int64_t ns = ts.tv_nsec + us % 1000000 * 1000;
	ts.tv_sec += us / 1000000 + ns / 1000000000;
	ts.tv_nsec = ns % 1000000000;
	return ts;
}

/* Waits for work; with mu held. */
static void
wait_work(struct mw_store *st)
{
	int64_t us = 1000000; /* then it looks whether the segment is old */
	if (st->stats.failing && st->o.probe_us > 0)
		us = MW_MIN(us, st->o.probe_us);
	struct timespec ts = in_us(us);
	(void)pthread_cond_timedwait(&st->work, &st->mu, &ts);
}

/* Are those that wait worth a commit of their own? All who were on their way are there,
 * or half of a crowd: while these are written, the other half is made ready. */
static bool
arrived(struct mw_store *st)
{
	int coming = atomic_load(&st->coming);
	unsigned waiting = atomic_load(&st->waiting);
	return coming <= 0 || (waiting >= ENOUGH && waiting >= (unsigned)coming);
}

/* In any thread, mu not held: lets the committer go, if it waits for no more than that.
 */
static void
tell_arrived(struct mw_store *st)
{
	if (!atomic_load(&st->gathering) || !arrived(st))
		return;
	(void)pthread_mutex_lock(&st->mu);
	(void)pthread_cond_signal(&st->arrived);
	(void)pthread_mutex_unlock(&st->mu);
}

/* Until enough are there, at most so long. With mu held. */
static void
wait_arrived(struct mw_store *st, int64_t us)
{
	struct timespec ts = in_us(us);
	atomic_store(&st->gathering, true);
	int r = 0;
	while (r == 0 && !st->stop && !arrived(st))
		r = pthread_cond_timedwait(&st->arrived, &st->mu, &ts);
	atomic_store(&st->gathering, false);
}

/* Others are on their way: one sync for all of them is worth a moment, and a longer one
 * the more they are. Where they turn out to be slow, the next few do not wait for them.
 * Not a wait for `work`, which would wake this thread for each that comes. With mu held.
 */
static void
gather(struct mw_store *st)
{
	int64_t us = atomic_load(&st->gather_us);
	int coming = atomic_load(&st->coming);
	if (!st->head || st->stop || us <= 0 || coming < MIN_COMING)
		return;
	if (st->hurry) {
		st->hurry--;
		return;
	}
	if (coming < MANY_COMING)
		us /= 4;
	wait_arrived(st, us);
	st->hurry = st->head->next ? 0 : NOT_AGAIN;
}

/* A batch thread that is woken does not interrupt: after a sync this one would answer,
 * and begin the next commit, when the others have done all that they have and wait. Of
 * this thread alone (Linux); if refused, it waits its turn as they do. */
static void
not_behind(void)
{
	struct sched_param none = {0};
	if (sched_getscheduler(0) == SCHED_BATCH)
		(void)sched_setscheduler(0, SCHED_OTHER, &none);
}

static void *
committer(void *arg)
{
	struct mw_store *st = arg;
	(void)pthread_setname_np(pthread_self(), "mw-commit");
	not_behind();
	(void)pthread_mutex_lock(&st->mu);
	for (;;) {
		gather(st);
		uint64_t bytes = 0;
		/* A roll waits for no pause in the mail: under load there is none. */
		bool roll = st->want_roll, stop = st->stop;
		struct mw_entry *list = roll ? NULL : take_batch(st, &bytes);
		bool look = !list && !roll && !stop && probe_due(st);
		if (!list && !roll && !stop && !look && !segment_old(st)) {
			wait_work(st);
			continue;
		}
		st->busy = true;
		st->batch_us = list ? list->submitted_us : 0;
		(void)pthread_mutex_unlock(&st->mu);
		int r = 0;
		if (list)
			do_batch(st, list, bytes);
		else if (look)
			probe(st);
		else if (st->seg)
			r = mw_segment_close(st, NULL);
		(void)pthread_mutex_lock(&st->mu);
		st->busy = false;
		st->batch_us = 0;
		mw_store_durable(st);
		if (roll) {
			st->want_roll = false;
			st->roll_code = r;
			st->rolls_done++;
		}
		(void)pthread_cond_broadcast(&st->idle);
		if (!list && !roll && stop)
			break;
	}
	(void)pthread_mutex_unlock(&st->mu);
	return NULL;
}

/* ---- the preparer: writes zeros ahead, so that commits allocate nothing ---- */

static void *
preparer(void *arg)
{
	struct mw_store *st = arg;
	(void)pthread_setname_np(pthread_self(), "mw-prepare");
	(void)pthread_mutex_lock(&st->mu);
	while (!st->stop) {
		if (!st->want_prepare) {
			(void)pthread_cond_wait(&st->prepare_cv, &st->mu);
			continue;
		}
		st->want_prepare = false;
		uint64_t fill = atomic_load(&st->last_fill) * 2;
		fill = MW_MIN(MW_MAX(fill, (uint64_t)MIN_FILL), st->o.segment_size);
		(void)pthread_mutex_unlock(&st->mu);
		int64_t have = st->fs->free_space(st->fs, st->dir);
		if (have > 0 && (uint64_t)have > atomic_load(&st->min_free) + 2 * fill)
			mw_seg_prepare(st->fs, st->dir, fill);
		(void)pthread_mutex_lock(&st->mu);
	}
	(void)pthread_mutex_unlock(&st->mu);
	return NULL;
}

/* ---- the interface ---- */

void
mw_store_submit(struct mw_store *st, struct mw_entry *e,
                void (*cb)(void *arg, const struct mw_commit *c), void *arg)
{
	mw_assert(e->finished && st->o.mode == MW_STORE_WRITE);
	e->cb = cb;
	e->cb_arg = arg;
	e->next = NULL;
	e->submitted_us = st->clock->mono_us(st->clock);
	(void)pthread_mutex_lock(&st->mu);
	*st->tail = e;
	st->tail = &e->next;
	atomic_fetch_add(&st->waiting, 1);
	(void)pthread_cond_signal(&st->work);
	if (atomic_load(&st->gathering) && arrived(st))
		(void)pthread_cond_signal(&st->arrived);
	(void)pthread_mutex_unlock(&st->mu);
}

struct waiter {
	pthread_mutex_t mu;
	pthread_cond_t cv;
	bool done;
	struct mw_commit c;
};

static void
wake(void *arg, const struct mw_commit *c)
{
	struct waiter *w = arg;
	(void)pthread_mutex_lock(&w->mu);
	w->c = *c;
	w->done = true;
	(void)pthread_cond_signal(&w->cv);
	(void)pthread_mutex_unlock(&w->mu);
}

int
mw_store_append(struct mw_store *st, struct mw_entry *e, struct mw_commit *ret,
                struct mw_err *err)
{
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER,
	                   PTHREAD_COND_INITIALIZER,
	                   false,
	                   {0}};
	mw_store_submit(st, e, wake, &w);
	(void)pthread_mutex_lock(&w.mu);
	while (!w.done)
		(void)pthread_cond_wait(&w.cv, &w.mu);
	(void)pthread_mutex_unlock(&w.mu);
	(void)pthread_mutex_destroy(&w.mu);
	(void)pthread_cond_destroy(&w.cv);
	if (ret)
		*ret = w.c;
	if (w.c.code < 0)
		return mw_fail(err, w.c.code, "the journal took no record: %s",
		               mw_err_text(w.c.code));
	return 0;
}

int
mw_store_note(struct mw_store *st, enum mw_type type, int64_t time_us, const void *cbor,
              size_t n, struct mw_commit *ret, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	int r = mw_entry_new(st, type, &e, err);
	if (r == 0)
		r = mw_entry_finish(e, time_us, cbor, n, err);
	return r < 0 ? r : mw_store_append(st, e, ret, err);
}

int
mw_store_roll(struct mw_store *st, struct mw_err *err)
{
	(void)pthread_mutex_lock(&st->mu);
	uint64_t want = st->rolls_done + 1;
	st->want_roll = true;
	(void)pthread_cond_signal(&st->work);
	while (st->rolls_done < want)
		(void)pthread_cond_wait(&st->idle, &st->mu);
	int r = st->roll_code;
	(void)pthread_mutex_unlock(&st->mu);
	return r < 0 ? mw_fail(err, r, "cannot close the segment: %s", mw_err_text(r))
	             : 0;
}

int
mw_store_ready(struct mw_store *st)
{
	int64_t have = st->fs->free_space(st->fs, st->dir);
	if (have >= 0 && (uint64_t)have < atomic_load(&st->min_free))
		return MW_ENOSPC;
	return 0;
}

int64_t
mw_store_waiting_us(struct mw_store *st)
{
	(void)pthread_mutex_lock(&st->mu);
	int64_t since = st->batch_us ? st->batch_us
	                : st->head   ? st->head->submitted_us
	                             : 0;
	(void)pthread_mutex_unlock(&st->mu);
	return since ? st->clock->mono_us(st->clock) - since : 0;
}

void
mw_store_set_gather(struct mw_store *st, int64_t us)
{
	atomic_store(&st->gather_us, us);
}

void
mw_store_set_delimiter(struct mw_store *st, const char *z)
{
	(void)pthread_mutex_lock(&st->mu);
	(void)snprintf(st->delimiter, sizeof st->delimiter, "%s", z);
	(void)pthread_mutex_unlock(&st->mu);
}

void
mw_store_coming(struct mw_store *st, int change)
{
	atomic_fetch_add(&st->coming, change);
	if (change < 0)
		tell_arrived(st);
}

void
mw_store_set_min_free(struct mw_store *st, uint64_t bytes)
{
	atomic_store(&st->min_free, bytes);
}

int
mw_commit_start(struct mw_store *st, struct mw_err *err)
{
	if (pthread_create(&st->committer, NULL, committer, st) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the committer");
	st->have_committer = true;
	st->want_prepare = true;
	if (pthread_create(&st->preparer, NULL, preparer, st) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the preparer");
	st->have_preparer = true;
	return 0;
}

void
mw_commit_stop(struct mw_store *st)
{
	(void)pthread_mutex_lock(&st->mu);
	st->stop = true;
	(void)pthread_cond_broadcast(&st->work);
	(void)pthread_cond_signal(&st->arrived);
	(void)pthread_cond_broadcast(&st->prepare_cv);
	(void)pthread_mutex_unlock(&st->mu);
	if (st->have_committer)
		(void)pthread_join(st->committer, NULL);
	if (st->have_preparer)
		(void)pthread_join(st->preparer, NULL);
	st->have_committer = st->have_preparer = false;
}
