/* Keeping the index behind the log: a thread of the writer walks what is durable and not
 * yet indexed. It has its own reader, so nothing here touches the commit path (P5). */
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdlib.h>

enum {
	BATCH = 16384,          /* to a transaction: many together are cheaper */
	BATCH_TOKENS = 8 << 20, /* or so many bytes: thrice that is needed to sort them */
	STOP_US = 10000000      /* at its end a writer still catches up for so long */
};

struct chunk {
	struct mw_index_entry e[BATCH];
	size_t n;
	struct mw_buf tokens; /* of all entries; e[].tokens are set when it is whole */
	size_t at[BATCH];
};

static int
flush(struct mw_index *ix, struct chunk *c, const struct mw_index_point *point,
      struct mw_err *err)
{
	for (size_t i = 0; i < c->n; i++)
		c->e[i].tokens = c->tokens.p + c->at[i];
	int r = mw_index_put(ix, c->e, c->n, point, err);
	c->n = 0;
	mw_buf_clear(&c->tokens);
	return r;
}

int
mw_index_entry_of(struct mw_store *st, const struct mw_record *rec, struct mw_buf *tokens,
                  struct mw_index_entry *ret, struct mw_err *err)
{
	size_t before = tokens->n;
	int r = mw_record_tokens(st, rec, tokens, err);
	if (r < 0 && r != MW_EDAMAGED)
		return r; /* it may pass: what was not read is not called indexed */
	if (r < 0) {      /* its slot is damaged: verify tells; it has no tokens */
		mw_err_clear(err);
		tokens->n = before;
		tokens->failed = false;
	}
	*ret = (struct mw_index_entry){.seq = rec->seq,
	                               .segment = rec->loc.segment,
	                               .offset = rec->loc.offset,
	                               .n_tokens = (uint32_t)((tokens->n - before) /
	                                                      MW_TOKEN_LEN)};
	return 0;
}

static int
add(struct mw_store *st, struct chunk *c, const struct mw_record *rec, struct mw_err *err)
{
	c->at[c->n] = c->tokens.n;
	int r = mw_index_entry_of(st, rec, &c->tokens, &c->e[c->n], err);
	c->n += r == 0;
	return r;
}

/* A writer that ends does not wait for an index that lacks all of a large log: what is
 * done is kept, and the next one goes on from there. */
bool
mw_index_time_is_up(struct mw_store *st)
{
	int64_t until = atomic_load(&st->index_until);
	return until && st->clock->mono_us(st->clock) >= until;
}

/* Indexes from `from` to the end of its partition, at most up to limit_seq. *ret_n
 * counts. 1: all of it, there are records after it; 0: more may come. */
static int
index_part(struct mw_store *st, struct mw_index *ix, struct mw_index_point from,
           uint64_t limit_seq, uint64_t *ret_n, struct mw_err *err)
{
	uint64_t last = ((from.segment - 1) / MW_INDEX_SPAN + 1) * MW_INDEX_SPAN;
	MW_CURSOR_AUTO *cur = NULL;
	MW_AUTOFREE struct chunk *c = calloc(1, sizeof *c);
	if (!c)
		return mw_fail(err, MW_ENOMEM, "out of memory while indexing");
	int r = mw_cursor_at(st, &from, &cur, err);
	if (r == 0 && limit_seq != UINT64_MAX)
		mw_cursor_limit(cur, limit_seq);
	if (r == 0)
		mw_cursor_ahead(cur);
	struct mw_index_point point = from;
	bool whole = false;
	while (r == 0 && !mw_index_time_is_up(st)) {
		struct mw_record rec;
		r = mw_cursor_next(cur, &rec, err);
		if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
			mw_err_clear(err);
			r = 0;
			continue;
		}
		if (r <= 0 || rec.seq >= limit_seq || rec.loc.segment > last) {
			whole = r == 1 && rec.loc.segment > last;
			r = r < 0 ? r : 0;
			break;
		}
		r = add(st, c, &rec, err);
		if (r < 0)
			break;
		point = (struct mw_index_point){.segment = rec.loc.segment,
		                                .offset = rec.loc.offset + rec.frame_len,
		                                .next_seq = rec.seq + 1,
		                                .last = rec.loc.offset};
		memcpy(point.chain, rec.chain, sizeof point.chain);
		++*ret_n;
		if (c->n == BATCH || c->tokens.n >= BATCH_TOKENS)
			r = flush(ix, c, &point, err);
	}
	if (r == 0 && c->n)
		r = flush(ix, c, &point, err);
	mw_buf_free(&c->tokens);
	return r < 0 ? r : whole;
}

int
mw_index_catch_up(struct mw_store *st, struct mw_index *ix, uint64_t limit_seq,
                  uint64_t *ret_records, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n = 0, i = 0;
	uint64_t count = 0;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	while (i < n && v[i] < st->index_done) /* complete, and seen to be */
		i++;
	while (r == 0 && i < n && !mw_index_time_is_up(st)) {
		struct mw_index_point point;
		uint64_t last = ((v[i] - 1) / MW_INDEX_SPAN + 1) * MW_INDEX_SPAN;
		r = mw_index_point(ix, v[i], &point, err);
		if (r == 1 && point.segment < v[i]) /* pruned past it */
			r = 0;
		if (r == 1) { /* I1: of another log it heals by going away */
			r = mw_store_index_fits(st, &point);
			if (r == 0)
				r = mw_index_drop(ix, v[i], err);
		}
		if (r == MW_ENOMEM)
			return mw_fail(err, r, "out of memory while indexing");
		if (r == 0) {
			struct mw_open_seg *o;
			point = (struct mw_index_point){.segment = v[i]};
			r = mw_store_seg(st, v[i], &o, err);
			if (r == 0) {
				point.offset = o->seg->h.length;
				point.next_seq = o->seg->h.first_seq;
			} else if (r != MW_ENOMEM) {
				mw_err_clear(err);
				r = 0;
			}
		}
		if (r >= 0)
			r = index_part(st, ix, point, limit_seq, &count, err);
		while (i < n && v[i] <= last)
			i++;
		if (r == 1 && i < n) /* the list may be newer than the limit */
			st->index_done = v[i];
		r = MW_MIN(r, 0);
	}
	if (r < 0)
		st->index_done = 0;
	if (ret_records)
		*ret_records = count;
	return r;
}

/* ---- the thread ---- */

static void *
indexer(void *arg)
{
	struct mw_store *st = arg;
	struct mw_index *ix = NULL;
	uint64_t seen = 0;
	int last_code = 0;
	(void)pthread_setname_np(pthread_self(), "mw-index");
	(void)pthread_mutex_lock(&st->mu);
	for (;;) {
		uint64_t limit = st->durable_seq;
		bool stop = st->stop;
		(void)pthread_mutex_unlock(&st->mu);
		if (limit != seen || stop || mw_redo_waits(st)) {
			struct mw_err err = {0};
			int r = ix ? 0 : mw_index_open(st->dir, st->id, 1, &ix, &err);
			if (r == 0)
				r = mw_index_begin(ix, &err);
			if (r == 1)
				st->ix_reader->index_done = 0;
			if (r < 0) /* what went is to be gone, whoever keeps us out */
				mw_redo_let_go(st);
			if (r >= 0 && !mw_redo_run(st, ix)) {
				r = MW_ELOCKED; /* some of it is being changed */
			} else if (r >= 0) {
				r = mw_index_catch_up(st->ix_reader, ix, limit, NULL,
				                      &err);
				mw_store_segs_newest(st->ix_reader);
			}
			if (r < 0 && r != last_code && r != MW_ELOCKED)
				mw_store_say(st, MW_LOG_WARN,
				             "event=index-behind error=%s text=\"%s\"",
				             mw_err_name(r), err.msg);
			if (r == MW_EDAMAGED && ix) /* I1: heal by going away */
				(void)!mw_index_wipe(ix, NULL);
			if (ix)
				mw_index_end(ix);
			last_code = r;
			if (r == 0)
				seen = limit;
		}
		(void)pthread_mutex_lock(&st->mu);
		if (last_code == 0)
			st->indexed_seq = seen;
		if (stop)
			break;
		if (!st->stop) {
			struct timespec ts;
			(void)clock_gettime(CLOCK_MONOTONIC, &ts);
			ts.tv_sec += 1;
			(void)pthread_cond_timedwait(&st->index_cv, &st->mu, &ts);
		}
	}
	(void)pthread_mutex_unlock(&st->mu);
	mw_index_close(ix);
	return NULL;
}

int
mw_index_start(struct mw_store *st, struct mw_err *err)
{
	int r = mw_store_again(st, NULL, &st->ix_reader, err);
	if (r < 0)
		return r;
	st->ix_reader->loading_gone = true; /* it is not asked why something is gone */
	if (pthread_create(&st->indexer, NULL, indexer, st) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the index thread");
	st->have_indexer = true;
	return 0;
}

void
mw_index_stop(struct mw_store *st)
{
	if (st->have_indexer) {
		atomic_store(&st->ix_reader->index_until,
		             st->clock->mono_us(st->clock) + STOP_US);
		(void)pthread_mutex_lock(&st->mu);
		st->stop = true;
		(void)pthread_cond_broadcast(&st->index_cv);
		(void)pthread_mutex_unlock(&st->mu);
		(void)pthread_join(st->indexer, NULL);
	}
	st->have_indexer = false;
	mw_store_close(st->ix_reader);
	st->ix_reader = NULL;
}

int
mw_store_reindex(struct mw_store *st, uint64_t *ret_records, struct mw_err *err)
{
	struct mw_index *ix = NULL;
	bool none = st->o.no_index, loading = st->loading_gone;
	mw_index_close(st->index);
	st->index = NULL;
	st->o.no_index = st->loading_gone = true; /* ours alone */
	st->index_done = 0;
	int r = mw_index_open(st->dir, st->id, 1, &ix, err);
	if (r == 0)
		r = mw_index_begin(ix, err);
	if (r >= 0)
		r = mw_index_wipe(ix, err);
	if (r == 0)
		r = mw_index_catch_up(st, ix, UINT64_MAX, ret_records, err);
	mw_index_close(ix);
	st->o.no_index = none;
	st->loading_gone = loading;
	return r;
}
