/* salvage.c - a partition without some segments, made of what it was before: runs that
 * have nothing of these are taken over as they are, so that a wipe in one segment does
 * not cost the index of 128. The old file is gone from its directory by then. */
#include "journal/base/util.h"
#include "journal/index/beside.h"
#include "journal/index/index_int.h"
#include "journal/index/run_int.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- one run, as it is in the file ---- */

struct raw {
	struct mw_run run;
	struct mw_buf bytes; /* keys and values */
	struct item {
		size_t at, n; /* of the value; its key is before it */
	} * item;
	size_t n, cap;
};

static void
raw_free(struct raw *w)
{
	mw_buf_free(&w->bytes);
	free(w->item);
}

/* Takes over the value of a key; *ret is what is in it, until the next call. */
static int
raw_take(struct raw *w, struct mw_kv_txn *t, const uint8_t key[RUN_KEY],
         struct mw_str *ret)
{
	struct mw_str v, k = mw_str((const char *)key, RUN_KEY);
	int r = mw_kv_txn_get(t, k, &v);
	if (r <= 0)
		return r < 0 ? r : MW_EDAMAGED;
	if (v.n < 4 || mw_get32((const uint8_t *)v.p) !=
	                   mw_crc32c(mw_crc32c(0, k.p, k.n), v.p + 4, v.n - 4))
		return MW_EDAMAGED;
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 256;
		struct item *p = reallocarray(w->item, cap, sizeof *p);
		if (!p)
			return MW_ENOMEM;
		w->item = p;
		w->cap = cap;
	}
	mw_buf_put(&w->bytes, key, RUN_KEY);
	w->item[w->n++] = (struct item){w->bytes.n, v.n};
	mw_buf_put(&w->bytes, v.p, v.n);
	*ret = v;
	return mw_buf_ok(&w->bytes);
}

/* All of a run, in the order of its keys. */
static int
raw_read(void *arg, struct mw_kv_txn *t)
{
	struct raw *w = arg;
	uint8_t key[RUN_KEY];
	struct mw_str v;
	int r = 0;
	for (uint32_t k = 0; r == 0 && k < w->run.records; k += RUN_BLOCK) {
		run_key(key, w->run.id, RUN_PLACES, k / RUN_BLOCK);
		r = raw_take(w, t, key, &v);
	}
	for (uint32_t first = 0, last = 0; r == 0 && !last;) {
		run_key(key, w->run.id, RUN_CHUNK, first);
		r = raw_take(w, t, key, &v);
		if (r == 0 && v.n < RUN_CHUNK_HEAD)
			r = MW_EDAMAGED;
		if (r < 0)
			break;
		uint32_t next = mw_get32((const uint8_t *)v.p + 5);
		last = (uint8_t)v.p[4];
		if (!last && next <= first)
			r = MW_EDAMAGED;
		first = next;
	}
	return r;
}

static int
raw_write(void *arg, struct mw_kv_txn *t)
{
	const struct raw *w = arg;
	int r = 0;
	for (size_t i = 0; r == 0 && i < w->n; i++) {
		const char *p = (const char *)w->bytes.p + w->item[i].at;
		r = mw_kv_append(t, mw_str(p - RUN_KEY, RUN_KEY),
		                 mw_str(p, w->item[i].n));
	}
	return r;
}

/* ---- a run made anew ---- */

struct anew {
	struct mw_run run;
	const struct mw_index_entry *e;
	size_t n;
	const uint64_t *pairs;
	size_t n_pairs;
};

static int
anew_write(void *arg, struct mw_kv_txn *t)
{
	struct anew *a = arg;
	return mw_index_run_make(t, a->run.id, a->e, a->n, a->pairs, a->n_pairs, &a->run);
}

/* ---- the partition ---- */

struct salvage {
	const struct mw_index_salvage *how;
	const uint8_t *journal;
	struct mw_kv *old, *new;
	struct index_state s;
	struct mw_index_hit first, last; /* places of the run that is looked at */
	const struct mw_run *run;
	struct mw_err *err;
};

static int
read_state(void *arg, struct mw_kv_txn *t)
{
	struct salvage *v = arg;
	return index_state_get(t, v->journal, &v->s);
}

static int
write_state(void *arg, struct mw_kv_txn *t)
{
	const struct salvage *v = arg;
	return index_state_put(t, v->journal, &v->s);
}

static int
read_ends(void *arg, struct mw_kv_txn *t)
{
	struct salvage *v = arg;
	struct run_block b = {.number = UINT32_MAX};
	if (v->run->records == 0)
		return MW_EDAMAGED;
	int r = run_block_get(t, v->run, 0, &b);
	v->first = b.v[0];
	if (r == 0)
		r = run_block_get(t, v->run, (v->run->records - 1) / RUN_BLOCK, &b);
	v->last = b.v[r == 0 ? b.n - 1 : 0];
	return r;
}

/* Does the run have something of a segment that changed? */
static bool
changed(const struct salvage *v)
{
	for (size_t i = 0; i < v->how->n; i++)
		if (v->how->segment[i] >= v->first.segment &&
		    v->how->segment[i] <= v->last.segment)
			return true;
	return false;
}

static int
take_over(struct salvage *v, const struct mw_run *run)
{
	struct raw w = {.run = *run};
	int r = mw_kv_read(v->old, raw_read, &w, v->err);
	if (r == 0)
		r = mw_kv_write(v->new, raw_write, &w, v->err);
	raw_free(&w);
	return r;
}

/* What the log has of it now; 0: nothing. */
static int
make_anew(struct salvage *v, const struct mw_run *run, struct mw_run *ret)
{
	struct anew a = {.run = *run};
	MW_AUTOFREE uint64_t *pairs = NULL;
	int r = v->how->again(v->how->arg, &v->first, run->last_seq, &a.e, &a.n, v->err);
	if (r < 0 || a.n == 0)
		return r;
	r = mw_index_run_sort(a.e, a.n, &pairs, &a.n_pairs);
	if (r < 0)
		return r;
	a.pairs = pairs;
	r = mw_kv_write(v->new, anew_write, &a, v->err);
	*ret = a.run;
	return r < 0 ? r : 1;
}

static int
each_run(struct salvage *v)
{
	uint32_t n = 0, all = v->s.n;
	int r = 0;
	for (uint32_t i = 0; r >= 0 && i < all; i++) {
		struct mw_run run = v->s.run[i];
		if (v->how->stopped(v->how->arg))
			return MW_ECANCEL;
		v->run = &run;
		r = mw_kv_read(v->old, read_ends, v, v->err);
		if (r < 0)
			return r;
		if (changed(v)) {
			r = make_anew(v, &run, &v->s.run[n]);
			n += r == 1;
		} else {
			r = take_over(v, &run);
			v->s.run[n++] = run;
		}
	}
	v->s.n = n;
	return r < 0 ? r : mw_kv_write(v->new, write_state, v, v->err);
}

static int
open_both(struct salvage *v, const char *dir, uint64_t number, int from)
{
	char path[PATH_MAX];
	/* it has no name, but a descriptor */
	(void)!snprintf(path, sizeof path, "/proc/self/fd/%d", from);
	int r = mw_kv_open(path, MW_KV_READ | MW_KV_FOREIGN, &v->old, v->err);
	if (r < 0)
		return r;
	mw_kv_ahead(v->old);
	r = mw_kv_read(v->old, read_state, v, v->err);
	if (r <= 0)
		return r;
	mw_beside_new_path(dir, number, path);
	r = mw_kv_open(path, MW_KV_CREATE | MW_KV_FOREIGN, &v->new, v->err);
	return r < 0 ? r : 1;
}

int
index_salvage(const char *dir, const uint8_t journal[MW_ID_LEN], uint64_t number,
              const struct mw_index_salvage *how, struct mw_err *err)
{
	struct salvage v = {.how = how, .journal = journal, .err = err};
	mw_beside_unlink_new(dir, number);
	int r = open_both(&v, dir, number, how->from);
	if (r == 1) {
		r = each_run(&v);
		if (r >= 0)
			r = mw_kv_sync(v.new, err);
		r = r < 0 ? r : 1;
	}
	index_state_free(&v.s);
	mw_kv_close(v.old);
	mw_kv_close(v.new);
	return r;
}
