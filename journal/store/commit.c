/* Group commit: one thread gathers what waits into one write and one sync (FORMAT.md I6,
 * I7). Whoever submitted is answered after the sync, never before it. */
#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/record/cbor.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	BATCH_FRAMES = 1024,
	BATCH_BYTES = 8 << 20,
	IOV = 256,
	COPY = 1 << 20,
	MIN_FILL = 4 << 20 /* prepare at least this much of a segment */
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

/* ---- the open segment ---- */

static int
open_segment(struct mw_store *st, struct mw_err *err)
{
	MW_BUF_AUTO stanzas = {0};
	mw_random(st->seg_key, sizeof st->seg_key);
	struct mw_seg_header h = {
	    .number = st->last_number + 1,
	    .first_seq = st->next_seq,
	    .first_batch = st->next_batch,
	    .created_us = st->clock->now_us(st->clock),
	    .prev_number = st->last_number,
	    .prev_batch = st->last_batch,
	    .prev_end = st->last_end,
	};
	memcpy(h.journal, st->id, MW_ID_LEN);
	memcpy(h.chain, st->chain, MW_HASH_LEN);
	mw_random(h.salt, sizeof h.salt);
	int r = mw_store_stanzas(st, &h, &stanzas, err);
	if (r == 0)
		r = mw_seg_create(st->fs, st->dir, &h, &st->seg, err);
	mw_buf_wipe(&stanzas);
	if (r == 0)
		r = mw_aead_init(&st->seg_aead, st->seg_key);
	if (r < 0) {
		/* The file may have got its name before the failure: its number is spent.
		 */
		char path[PATH_MAX];
		mw_seg_path(path, sizeof path, st->dir, h.number);
		mw_seg_free(st->seg);
		st->seg = NULL;
		(void)st->fs->unlink(st->fs, path);
		return r;
	}
	st->seg_records = st->seg_mails = st->seg_bytes = 0;
	st->seg_first_seq = st->next_seq;
	st->seg_tmin = INT64_MAX;
	st->seg_tmax = INT64_MIN;
	st->seg_born_us = st->clock->mono_us(st->clock);
	(void)pthread_mutex_lock(&st->mu);
	st->stats.segment = h.number;
	st->want_prepare = true;
	(void)pthread_cond_signal(&st->prepare_cv);
	(void)pthread_mutex_unlock(&st->mu);
	mw_store_say(st, MW_LOG_INFO, "event=segment-open seg=%llu seq=%llu",
	             (unsigned long long)h.number, (unsigned long long)h.first_seq);
	return 0;
}

/* Leaves the segment as it is: its successor's header will say how far it counts (I4). */
static void
abandon_segment(struct mw_store *st, uint64_t good_end)
{
	st->last_number = st->seg->h.number;
	st->last_batch = st->next_batch - 1;
	st->last_end = good_end;
	mw_store_say(st, MW_LOG_ERR, "event=segment-abandoned seg=%llu end=%llu",
	             (unsigned long long)st->last_number, (unsigned long long)good_end);
	mw_seg_free(st->seg);
	st->seg = NULL;
	mw_aead_done(&st->seg_aead);
	explicit_bzero(st->seg_key, sizeof st->seg_key);
}

/* ---- frames ---- */

/* Gives an entry its place: sequence number, slot, chain, header. */
static int
place(struct mw_store *st, struct mw_entry *e, uint16_t pos, uint8_t chain[MW_HASH_LEN])
{
	struct mw_frame *f = &e->frame;
	uint8_t aad[MW_ID_LEN + 8], wrapped[MW_WRAPPED_KEY], mac[MW_SHA256_LEN];
	f->seq = st->next_seq + pos;
	f->batch = st->next_batch;
	f->batch_pos = pos;
	memcpy(aad, e->id, MW_ID_LEN);
	mw_put64(aad + MW_ID_LEN, f->seq);
	struct mw_aead_in in = {e->id, aad, sizeof aad, e->key, MW_AEAD_KEY};
	bool host = mw_type_of_host(e->type);
	f->flags = host ? MW_FRAME_HOST : 0;
	int r = mw_aead_seal(host ? &st->host_aead : &st->seg_aead, &in, wrapped);
	if (r < 0)
		return r;
	MW_BUF_AUTO b = {0};
	mw_buf_put(&b, "tokens", 6);
	mw_buf_put(&b, e->id, MW_ID_LEN);
	mw_buf_put(&b, e->tokens.p, e->tokens.n);
	if (b.failed)
		return MW_ENOMEM;
	mw_hmac_sha256(st->seg_key, sizeof st->seg_key, b.p, b.n, mac);
	struct mw_slot slot = {mac, wrapped, e->tokens.p,
	                       (uint32_t)(e->tokens.n / MW_TOKEN_LEN)};
	mw_slot_encode(&slot, e->head + MW_FRAME_HEADER);
	mw_frame_chain(f, chain, e->meta_hash, e->body_hash);
	memcpy(chain, f->chain, MW_HASH_LEN);
	mw_frame_encode(f, st->seg->h.salt, e->head);
	return 0;
}

struct gather {
	struct iovec iov[IOV];
	int n;
	size_t bytes;
};

static int
gather_flush(struct mw_store *st, struct gather *g, struct mw_err *err)
{
	int r = g->n ? mw_seg_write(st->seg, g->iov, g->n, g->bytes, err) : 0;
	g->n = 0;
	g->bytes = 0;
	return r;
}

static int
gather_put(struct mw_store *st, struct gather *g, void *p, size_t n, struct mw_err *err)
{
	if (n == 0)
		return 0;
	if (g->n == IOV) {
		int r = gather_flush(st, g, err);
		if (r < 0)
			return r;
	}
	g->iov[g->n++] = (struct iovec){p, n};
	g->bytes += n;
	return 0;
}

/* Copies what was spilled into the segment. */
static int
unspill(struct mw_store *st, struct mw_entry *e, struct mw_err *err)
{
	MW_AUTOFREE uint8_t *p = malloc(COPY);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory for a spilled message");
	for (uint64_t at = 0; at < e->body.spilled;) {
		size_t k = (size_t)MW_MIN(e->body.spilled - at, (uint64_t)COPY);
		int64_t n = st->fs->pread(st->fs, e->body.spill, p, k, at);
		if (n != (int64_t)k) {
			errno = n < 0 ? (int)-n : EIO;
			return mw_fail_errno(err, "cannot read a spill file back");
		}
		struct iovec iov = {p, k};
		int r = mw_seg_write(st->seg, &iov, 1, k, err);
		if (r < 0)
			return r;
		at += k;
	}
	return 0;
}

static int
write_entry(struct mw_store *st, struct gather *g, struct mw_entry *e, struct mw_err *err)
{
	static uint8_t zeros[8];
	uint64_t plain = e->head_len + e->meta.len + e->body.len;
	size_t pad = (size_t)(mw_frame_len(&e->frame) - plain);
	int r = gather_put(st, g, e->head, e->head_len, err);
	if (r == 0)
		r = gather_put(st, g, e->meta.out.p, e->meta.out.n, err);
	if (r == 0 && e->body.spilled) {
		r = gather_flush(st, g, err);
		if (r == 0)
			r = unspill(st, e, err);
	}
	if (r == 0)
		r = gather_put(st, g, e->body.out.p, e->body.out.n, err);
	if (r == 0)
		r = gather_put(st, g, zeros, pad, err);
	return r;
}

/* Writes and syncs a batch into the open segment. On failure the segment is abandoned. */
static int
commit_batch(struct mw_store *st, struct mw_entry *list, struct mw_err *err)
{
	struct gather g = {.n = 0};
	uint8_t chain[MW_HASH_LEN];
	uint64_t start = st->seg->at, count = 0, off = start;
	memcpy(chain, st->chain, sizeof chain);
	int r = 0;
	for (struct mw_entry *e = list; r == 0 && e; e = e->next) {
		r = place(st, e, (uint16_t)count++, chain);
		if (r < 0)
			(void)mw_fail(err, r, "out of memory while committing");
		else
			r = write_entry(st, &g, e, err);
	}
	if (r == 0)
		r = gather_flush(st, &g, err);
	if (r == 0) /* I6, I7: nothing is answered before this */
		r = mw_seg_sync(st->seg, err);
	if (r < 0) {
		abandon_segment(st, start);
		return r;
	}
	for (struct mw_entry *e = list; e; e = e->next) {
		st->seg_records++;
		if (e->type == MW_TYPE_MAIL) {
			st->seg_mails++;
			st->seg_bytes += e->size;
			st->seg_tmin = MW_MIN(st->seg_tmin, e->time_us);
			st->seg_tmax = MW_MAX(st->seg_tmax, e->time_us);
		}
		e->wait_us = st->clock->mono_us(st->clock) - e->submitted_us;
		e->offset = off;
		off += mw_frame_len(&e->frame);
	}
	memcpy(st->chain, chain, sizeof chain);
	st->next_seq += count;
	st->next_batch++;
	return 0;
}

/* ---- closing ---- */

static int
close_entry(struct mw_store *st, struct mw_entry **ret, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO b = {0};
	int r = mw_entry_new(st, MW_TYPE_CLOSE, &e, err);
	if (r < 0)
		return r;
	bool mails = st->seg_mails > 0;
	mw_cbor_put_map(&b, mails ? 7 : 5);
	mw_cbor_put_text(&b, "first");
	mw_cbor_put_uint(&b, st->seg_first_seq);
	mw_cbor_put_text(&b, "last");
	mw_cbor_put_uint(&b, st->next_seq);
	mw_cbor_put_text(&b, "records");
	mw_cbor_put_uint(&b, st->seg_records + 1);
	mw_cbor_put_text(&b, "mails");
	mw_cbor_put_uint(&b, st->seg_mails);
	mw_cbor_put_text(&b, "bytes");
	mw_cbor_put_uint(&b, st->seg_bytes);
	if (mails) {
		mw_cbor_put_text(&b, "tmin");
		mw_cbor_put_int(&b, st->seg_tmin);
		mw_cbor_put_text(&b, "tmax");
		mw_cbor_put_int(&b, st->seg_tmax);
	}
	if (b.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory while closing a segment");
	r = mw_entry_finish(e, st->clock->now_us(st->clock), b.p, b.n, err);
	if (r == 0)
		*ret = MW_TAKE(e);
	return r;
}

static int
close_segment(struct mw_store *st, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	int r = close_entry(st, &e, err);
	if (r < 0)
		return r;
	struct mw_seg_trailer t = {.close_off = st->seg->at,
	                           .first_seq = st->seg_first_seq,
	                           .last_seq = st->next_seq,
	                           .last_batch = st->next_batch,
	                           .time_us = st->clock->now_us(st->clock)};
	uint64_t number = st->seg->h.number, records = st->seg_records;
	r = commit_batch(st, e, err);
	if (r < 0)
		return r;
	uint64_t end = st->seg->at;
	memcpy(t.chain, st->chain, MW_HASH_LEN);
	r = mw_seg_finish(st->seg, &t, err);
	if (r < 0) {
		abandon_segment(st, end);
		return r;
	}
	st->last_fill = end;
	st->last_number = number;
	st->last_batch = st->next_batch - 1;
	st->last_end = end;
	mw_seg_free(st->seg);
	st->seg = NULL;
	mw_aead_done(&st->seg_aead);
	explicit_bzero(st->seg_key, sizeof st->seg_key);
	mw_store_say(st, MW_LOG_INFO,
	             "event=segment-closed seg=%llu records=%llu bytes=%llu",
	             (unsigned long long)number, (unsigned long long)records,
	             (unsigned long long)end);
	return 0;
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
	if ((uint64_t)free_bytes >= st->o.min_free &&
	    (uint64_t)free_bytes - st->o.min_free >= bytes)
		return 0;
	(void)mw_fail(err, MW_ENOSPC,
	              "%s has %lld MiB free, the floor is %llu MiB (min_free)", st->dir,
	              (long long)(free_bytes >> 20),
	              (unsigned long long)(st->o.min_free >> 20));
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
	if (st->seg && st->seg_records > 0 &&
	    (st->seg->at + bytes > st->o.segment_size || segment_old(st)))
		(void)!close_segment(st, NULL); /* failed: abandoned, said so */
	return st->seg ? 0 : open_segment(st, err);
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

static void
count(struct mw_store *st, const struct mw_entry *list, int code)
{
	(void)pthread_mutex_lock(&st->mu);
	st->sick = code;
	st->durable_seq = st->next_seq;
	st->stats.next_seq = st->next_seq;
	if (code < 0)
		st->stats.failures++;
	else
		st->stats.batches++;
	for (const struct mw_entry *e = list; code == 0 && e; e = e->next) {
		st->stats.records++;
		st->stats.bytes_stored += entry_bytes(e);
		if (e->type != MW_TYPE_MAIL)
			continue;
		st->stats.mails++;
		st->stats.bytes_in += e->size;
		st->stats.last_mail_us = e->time_us;
	}
	(void)pthread_mutex_unlock(&st->mu);
}

static void
do_batch(struct mw_store *st, struct mw_entry *list, uint64_t bytes)
{
	struct mw_err err = {0};
	int r = make_room(st, bytes, &err);
	if (r == 0)
		r = commit_batch(st, list, &err);
	if (r < 0)
		mw_store_say(st, MW_LOG_ERR, "event=commit-failed error=%s text=\"%s\"",
		             mw_err_name(r), err.msg);
	uint64_t segment = st->seg ? st->seg->h.number : 0;
	count(st, list, r);
	answer(list, r, segment);
}

/* Waits for work; with mu held. */
static void
wait_work(struct mw_store *st)
{
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += 1;
	(void)pthread_cond_timedwait(&st->work, &st->mu, &ts);
}

static void *
committer(void *arg)
{
	struct mw_store *st = arg;
	(void)pthread_mutex_lock(&st->mu);
	for (;;) {
		uint64_t bytes;
		struct mw_entry *list = take_batch(st, &bytes);
		bool roll = st->want_roll && !list, stop = st->stop;
		if (!list && !roll && !stop && !segment_old(st)) {
			wait_work(st);
			continue;
		}
		st->busy = true;
		(void)pthread_mutex_unlock(&st->mu);
		int r = 0;
		if (list)
			do_batch(st, list, bytes);
		else if (st->seg)
			r = close_segment(st, NULL);
		(void)pthread_mutex_lock(&st->mu);
		st->busy = false;
		st->durable_seq = st->next_seq;
		if (roll) {
			st->want_roll = false;
			st->roll_code = r;
			st->rolls_done++;
		}
		(void)pthread_cond_broadcast(&st->idle);
		if (!list && stop)
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
	(void)pthread_mutex_lock(&st->mu);
	while (!st->stop) {
		if (!st->want_prepare) {
			(void)pthread_cond_wait(&st->prepare_cv, &st->mu);
			continue;
		}
		st->want_prepare = false;
		uint64_t fill = MW_MAX(st->last_fill * 2, (uint64_t)MIN_FILL);
		fill = MW_MIN(fill, st->o.segment_size);
		(void)pthread_mutex_unlock(&st->mu);
		int64_t have = st->fs->free_space(st->fs, st->dir);
		if (have > 0 && (uint64_t)have > st->o.min_free + 2 * fill)
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
	(void)pthread_cond_signal(&st->work);
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
	if (have >= 0 && (uint64_t)have < st->o.min_free)
		return MW_ENOSPC;
	return 0;
}

int
mw_commit_start(struct mw_store *st, struct mw_err *err)
{
	if (pthread_create(&st->committer, NULL, committer, st) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the committer");
	st->have_committer = true;
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
	(void)pthread_cond_broadcast(&st->prepare_cv);
	(void)pthread_mutex_unlock(&st->mu);
	if (st->have_committer)
		(void)pthread_join(st->committer, NULL);
	if (st->have_preparer)
		(void)pthread_join(st->preparer, NULL);
	st->have_committer = st->have_preparer = false;
}
