#include "journal/index/index.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/beside.h"
#include "journal/index/kv.h"
#include "journal/index/run.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	VERSION = 4,
	OPEN_MOST = 8,
	POINT_LEN = 1 + MW_ID_LEN + 32 + 32 + 4, /* then the runs, and a checksum */
	RUN_LEN = 28,
	MERGE = 8, /* so many runs of a size become one */
	TOP = 5    /* … unless they have MERGE^TOP records: these stay */
};

struct part {
	uint64_t number;
	struct mw_kv *kv;
	uint64_t used; /* for closing the one not used for longest */
};

struct mw_index {
	char dir[PATH_MAX];
	uint8_t journal[MW_ID_LEN];
	int writable;
	int lock; /* of the one that writes now; -1 */
	uint64_t tick;
	struct part open[OPEN_MOST];
	uint64_t *whole; /* a writer: partitions that were looked through */
	size_t n_whole;
};

/* What a partition states of itself, under the least key. */
struct state {
	struct mw_index_point point;
	struct mw_run *run; /* malloc'd; ascending, one goes on where the last ended */
	uint32_t n;
};

static uint64_t
part_of(uint64_t segment)
{
	return (segment - 1) / MW_INDEX_SPAN;
}

/* What another boot left may be garbled, so it goes; from now on this one is noted. */
static int
mark(struct mw_index *ix, struct mw_err *err)
{
	int r = mw_beside_stale(ix->dir) ? mw_index_wipe(ix, err) : 0;
	return r < 0 ? r : mw_beside_mark(ix->dir, err);
}

int
mw_index_open(const char *dir, const uint8_t journal[MW_ID_LEN], int writable,
              struct mw_index **ret, struct mw_err *err)
{
	struct mw_index *ix = calloc(1, sizeof *ix);
	if (!ix)
		return mw_fail(err, MW_ENOMEM, "out of memory for the index");
	if (snprintf(ix->dir, sizeof ix->dir, "%s/index", dir) >=
	    (int)sizeof ix->dir - 32) {
		free(ix);
		return mw_fail(err, MW_EUSAGE, "path too long: %s", dir);
	}
	memcpy(ix->journal, journal, MW_ID_LEN);
	ix->writable = writable;
	ix->lock = -1;
	int r = writable ? mark(ix, err) : 0;
	if (r < 0) {
		ix->writable = 0;
		mw_index_close(ix);
		return r;
	}
	*ret = ix;
	return 0;
}

void
mw_index_close(struct mw_index *ix)
{
	if (!ix)
		return;
	for (int i = 0; i < OPEN_MOST; i++) {
		if (ix->open[i].kv && ix->writable)
			(void)!mw_kv_sync(ix->open[i].kv, NULL);
		mw_kv_close(ix->open[i].kv);
	}
	/* of two writers the last one takes the note away */
	if (ix->writable &&
	    (ix->lock >= 0 || mw_beside_lock(ix->dir, false, &ix->lock, NULL) == 0))
		mw_beside_clean(ix->dir);
	mw_index_end(ix);
	free(ix->whole);
	free(ix);
}

static void
part_close(struct part *p)
{
	mw_kv_close(p->kv);
	p->kv = NULL;
}

/* ---- a partition's state ---- */

static struct mw_str
state_key(void)
{
	return MW_STR("\0");
}

static void
state_free(struct state *s)
{
	free(s->run);
	s->run = NULL;
}

static int
state_decode(const uint8_t journal[MW_ID_LEN], struct mw_str v, struct state *ret)
{
	const uint8_t *p = (const uint8_t *)v.p;
	if (v.n < POINT_LEN + 4 || p[0] != VERSION ||
	    memcmp(p + 1, journal, MW_ID_LEN) != 0 ||
	    mw_get32(p + v.n - 4) != mw_crc32c(0, p, v.n - 4))
		return MW_EDAMAGED;
	struct state s = {.n = mw_get32(p + 81)};
	if ((v.n - POINT_LEN - 4) / RUN_LEN != s.n)
		return MW_EDAMAGED;
	s.run = calloc(s.n + 2, sizeof *s.run); /* room to add */
	if (!s.run)
		return MW_ENOMEM;
	s.point.segment = mw_get64(p + 17);
	s.point.offset = mw_get64(p + 25);
	s.point.next_seq = mw_get64(p + 33);
	s.point.last = mw_get64(p + 41);
	memcpy(s.point.chain, p + 49, sizeof s.point.chain);
	p += POINT_LEN;
	for (uint32_t i = 0; i < s.n; i++, p += RUN_LEN)
		s.run[i] = (struct mw_run){mw_get32(p), mw_get32(p + 4), mw_get32(p + 8),
		                           mw_get64(p + 12), mw_get64(p + 20)};
	*ret = s;
	return 0;
}

/* 1, 0 there is none, negative. Freed by state_free when it is 1. */
static int
state_get(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN], struct state *ret)
{
	struct mw_str v;
	int r = mw_kv_txn_get(t, state_key(), &v);
	if (r == 1)
		r = state_decode(journal, v, ret);
	else
		return r;
	return r < 0 ? r : 1;
}

static int
state_put(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN], const struct state *s)
{
	uint8_t v[POINT_LEN] = {VERSION}, run[RUN_LEN];
	MW_BUF_AUTO b = {0};
	memcpy(v + 1, journal, MW_ID_LEN);
	mw_put64(v + 17, s->point.segment);
	mw_put64(v + 25, s->point.offset);
	mw_put64(v + 33, s->point.next_seq);
	mw_put64(v + 41, s->point.last);
	memcpy(v + 49, s->point.chain, sizeof s->point.chain);
	mw_put32(v + 81, s->n);
	mw_buf_put(&b, v, sizeof v);
	for (uint32_t i = 0; i < s->n; i++) {
		mw_put32(run, s->run[i].id);
		mw_put32(run + 4, s->run[i].records);
		mw_put32(run + 8, s->run[i].entries);
		mw_put64(run + 12, s->run[i].first_seq);
		mw_put64(run + 20, s->run[i].last_seq);
		mw_buf_put(&b, run, sizeof run);
	}
	mw_put32(run, mw_crc32c(0, b.p, b.n));
	mw_buf_put(&b, run, 4);
	int r = mw_buf_ok(&b);
	return r < 0 ? r : mw_kv_put(t, state_key(), mw_buf_str(&b));
}

/* What a transaction of ours came to, in words where LMDB had none. */
static int
told(struct mw_err *err, int r)
{
	if (r < 0 && err && !err->code)
		return mw_fail(err, r, "index: %s",
		               r == MW_EDAMAGED ? "made by another version, for another "
		                                  "journal, or garbled"
		                                : mw_err_text(r));
	return r;
}

struct reading {
	const uint8_t *journal;
	struct state *ret;
	const uint8_t *token;
	uint64_t from;
	struct mw_index_hit *out;
	size_t max;
	const struct mw_index_entry *e;
	size_t n;
	const uint64_t *pairs;
	size_t n_pairs;
	uint8_t *bad;
};

static int
check_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *c = arg;
	struct state s;
	int r = state_get(t, c->journal, &s);
	if (r <= 0)
		return r;
	r = 0;
	for (uint32_t i = 0; r == 0 && i < s.n; i++)
		r = mw_index_run_check(t, &s.run[i]);
	state_free(&s);
	return r;
}

/* A writer looks through a partition once: is all there that was written? LMDB has no
 * checksums. A reader meets what is garbled when it uses it. */
static int
check_part(struct mw_index *ix, const struct part *p, uint64_t number, struct mw_err *err)
{
	struct reading c = {.journal = ix->journal};
	if (!ix->writable)
		return 0;
	for (size_t i = 0; i < ix->n_whole; i++)
		if (ix->whole[i] == number)
			return 0;
	uint64_t *v = reallocarray(ix->whole, ix->n_whole + 1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory for the index");
	ix->whole = v;
	int r = told(err, mw_kv_read(p->kv, check_all, &c, err));
	if (r == 0)
		v[ix->n_whole++] = number;
	return r;
}

/* The partition's map, opened if need be: 1; 0 where there is none; negative otherwise.
 */
static int
part_get(struct mw_index *ix, uint64_t number, struct mw_kv **ret, struct mw_err *err)
{
	struct part *slot = &ix->open[0];
	for (int i = 0; i < OPEN_MOST; i++) {
		struct part *p = &ix->open[i];
		if (p->kv && p->number == number) {
			p->used = ++ix->tick;
			*ret = p->kv;
			return 1;
		}
		if (!p->kv || (slot->kv && p->used < slot->used))
			slot = p;
	}
	if (slot->kv && ix->writable)
		(void)!mw_kv_sync(slot->kv, NULL);
	part_close(slot);
	char path[PATH_MAX];
	mw_beside_path(ix->dir, number, path);
	int files = mw_beside_files(ix->dir, ix->writable);
	int r =
	    mw_kv_open(path, ix->writable ? MW_KV_CREATE : MW_KV_READ, &slot->kv, err);
	if (files >= 0)
		(void)close(files);
	if (r == MW_ENOTFOUND && !ix->writable)
		return 0;
	if (r == 0)
		r = check_part(ix, slot, number, err);
	if (r < 0) {
		part_close(slot);
		return r;
	}
	slot->number = number;
	slot->used = ++ix->tick;
	*ret = slot->kv;
	return 1;
}

static int
read_point(void *arg, struct mw_kv_txn *t)
{
	struct reading *c = arg;
	return state_get(t, c->journal, c->ret);
}

int
mw_index_point(struct mw_index *ix, uint64_t segment, struct mw_index_point *ret,
               struct mw_err *err)
{
	struct mw_kv *kv;
	uint64_t number = part_of(segment);
	int r = part_get(ix, number, &kv, err);
	if (r == 1) {
		struct state s = {.n = 0};
		struct reading c = {.journal = ix->journal, .ret = &s};
		r = told(err, mw_kv_read(kv, read_point, &c, err));
		state_free(&s);
		if (r == 1 && part_of(s.point.segment) != number)
			r = mw_fail(err, MW_EDAMAGED,
			            "index: position out of its partition");
		else if (r == 1)
			*ret = s.point;
	}
	if (r == MW_EDAMAGED || r == MW_EFORMAT) { /* I1: it heals by going away */
		if (ix->writable)
			r = mw_index_drop(ix, segment, err);
		else
			r = 0;
	}
	return r;
}

/* ---- writing ---- */

struct putting {
	const struct mw_index_entry *e;
	size_t n;
	const struct mw_index_point *point;
	const uint8_t *journal;
	const uint64_t *pairs;
	size_t n_pairs;
};

/* How many times MERGE fits: runs of one level are merged with each other. */
static unsigned
level(const struct mw_run *r)
{
	unsigned k = 0;
	for (uint32_t n = r->records; n >= MERGE; n /= MERGE)
		k++;
	return k;
}

/* So each entry is written TOP times at most, and a partition has few runs. */
static int
merge(struct mw_kv_txn *t, struct state *s)
{
	while (s->n >= MERGE) {
		struct mw_run *last = &s->run[s->n - 1], new;
		unsigned top = level(last), k = 0;
		while (k < s->n && level(&last[-(ptrdiff_t)k]) <= top)
			k++;
		if (top >= TOP || k < MERGE)
			return 0;
		struct mw_run *first = last - (k - 1);
		int r = mw_index_run_merge(t, last->id + 1, first, k, &new);
		if (r < 0)
			return r;
		*first = new;
		s->n -= k - 1;
	}
	return 0;
}

static int
add_run(struct mw_kv_txn *t, const struct putting *p, struct state *s)
{
	uint32_t id = s->n ? s->run[s->n - 1].id + 1 : 1;
	if (p->n == 0)
		return 0;
	if (s->n && s->run[s->n - 1].last_seq >= p->e[0].seq)
		return MW_EDAMAGED;
	int r = mw_index_run_make(t, id, p->e, p->n, p->pairs, p->n_pairs, &s->run[s->n]);
	if (r < 0)
		return r;
	s->n++;
	return merge(t, s);
}

static int
put_all(void *arg, struct mw_kv_txn *t)
{
	const struct putting *p = arg;
	struct state s = {.n = 0};
	int r = state_get(t, p->journal, &s);
	if (r == 0) {
		s.run = calloc(2, sizeof *s.run);
		r = s.run ? 1 : MW_ENOMEM;
	}
	if (r == 1)
		r = add_run(t, p, &s);
	s.point = *p->point;
	if (r == 0)
		r = state_put(t, p->journal, &s);
	state_free(&s);
	return r;
}

int
mw_index_put(struct mw_index *ix, const struct mw_index_entry *e, size_t n,
             const struct mw_index_point *point, struct mw_err *err)
{
	struct mw_kv *kv;
	MW_AUTOFREE uint64_t *pairs = NULL;
	size_t n_pairs;
	int r = part_get(ix, part_of(point->segment), &kv, err);
	if (r < 0)
		return r;
	r = mw_index_run_sort(e, n, &pairs, &n_pairs);
	if (r < 0)
		return told(err, r);
	struct putting p = {e, n, point, ix->journal, pairs, n_pairs};
	return told(err, mw_kv_write(kv, put_all, &p, err));
}

/* ---- looking up ---- */

static int
find_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *f = arg;
	struct state s;
	size_t n = 0;
	int r = state_get(t, f->journal, &s);
	if (r <= 0)
		return r;
	for (uint32_t i = 0; r >= 0 && i < s.n && n < f->max; i++) {
		r = mw_index_run_find(t, &s.run[i], f->token, f->from, f->out + n,
		                      f->max - n);
		n += r > 0 ? (size_t)r : 0;
	}
	state_free(&s);
	return r < 0 ? r : (int)n;
}

int
mw_index_find(struct mw_index *ix, uint64_t segment, const uint8_t token[MW_TOKEN_LEN],
              uint64_t from_seq, struct mw_index_hit *out, size_t max, struct mw_err *err)
{
	struct mw_kv *kv;
	int r = part_get(ix, part_of(segment), &kv, err);
	if (r <= 0)
		return r;
	struct reading f = {.journal = ix->journal,
	                    .token = token,
	                    .from = from_seq,
	                    .out = out,
	                    .max = MW_MIN(max, (size_t)INT_MAX)};
	return told(err, mw_kv_read(kv, find_all, &f, err));
}

static int
audit_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *a = arg;
	struct state s;
	int r = state_get(t, a->journal, &s);
	if (r <= 0)
		return r;
	r = 0;
	for (uint32_t i = 0; r == 0 && i < s.n; i++)
		if (s.run[i].last_seq >= a->e[0].seq &&
		    s.run[i].first_seq <= a->e[a->n - 1].seq)
			r = mw_index_run_audit(t, &s.run[i], a->e, a->n, a->pairs,
			                       a->n_pairs, a->bad);
	state_free(&s);
	return r;
}

int
mw_index_audit(struct mw_index *ix, uint64_t segment, const struct mw_index_entry *e,
               size_t n, uint8_t *bad, struct mw_err *err)
{
	struct mw_kv *kv;
	MW_AUTOFREE uint64_t *pairs = NULL;
	struct reading a = {.journal = ix->journal, .e = e, .n = n, .bad = bad};
	memset(bad, 1, n); /* of no run: not found */
	int r = n ? part_get(ix, part_of(segment), &kv, err) : 0;
	if (r <= 0)
		return r;
	r = mw_index_run_sort(e, n, &pairs, &a.n_pairs);
	a.pairs = pairs;
	if (r == 0)
		r = mw_kv_read(kv, audit_all, &a, err);
	return told(err, r);
}

/* ---- going away ---- */

static void
not_whole(struct mw_index *ix, uint64_t number)
{
	for (size_t i = 0; i < ix->n_whole; i++)
		if (ix->whole[i] == number)
			ix->whole[i--] = ix->whole[--ix->n_whole];
}

int
mw_index_drop(struct mw_index *ix, uint64_t segment, struct mw_err *err)
{
	(void)err;
	if (!ix->writable)
		return 0;
	uint64_t number = part_of(segment);
	for (int i = 0; i < OPEN_MOST; i++)
		if (ix->open[i].kv && ix->open[i].number == number)
			part_close(&ix->open[i]);
	not_whole(ix, number);
	mw_beside_unlink(ix->dir, number);
	return 0;
}

void
mw_index_forget(const char *dir, uint64_t segment)
{
	char sub[PATH_MAX];
	(void)!snprintf(sub, sizeof sub, "%.4000s/index", dir);
	mw_beside_unlink(sub, part_of(segment));
}

int
mw_index_wipe(struct mw_index *ix, struct mw_err *err)
{
	if (!ix->writable)
		return 0;
	for (int i = 0; i < OPEN_MOST; i++)
		part_close(&ix->open[i]);
	ix->n_whole = 0;
	return mw_beside_wipe(ix->dir, err);
}

/* ---- writers of several processes ---- */

int
mw_index_begin(struct mw_index *ix, bool wait, struct mw_err *err)
{
	int r = mw_beside_lock(ix->dir, wait, &ix->lock, err);
	bool other = false;
	for (int i = 0; r == 0 && i < OPEN_MOST; i++) {
		struct part *p = &ix->open[i];
		char path[PATH_MAX];
		mw_beside_path(ix->dir, p->number, path);
		if (p->kv && !mw_kv_is_at(p->kv, path)) {
			part_close(p);
			not_whole(ix, p->number);
			other = true;
		}
	}
	if (r == 0 && !mw_beside_marked(ix->dir))
		r = mark(ix, err);
	if (r < 0)
		mw_index_end(ix);
	return r < 0 ? r : other;
}

void
mw_index_end(struct mw_index *ix)
{
	if (ix->lock >= 0)
		(void)close(ix->lock);
	ix->lock = -1;
}
