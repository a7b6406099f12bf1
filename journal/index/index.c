#include "journal/index/index.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/beside.h"
#include "journal/index/index_int.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OPEN_MOST = 8,
	MERGE = 8,   /* so many runs of a size become one */
	TOP = 5,     /* … unless they have the size of MERGE^TOP records: these stay */
	TYPICAL = 16 /* tokens of a record, about */
};

struct part {
	uint64_t number;
	struct mw_kv *kv;
	bool stated;   /* it was seen to have a state: that does not go away */
	uint64_t used; /* for closing the one not used for longest */
};

struct mw_index {
	char dir[PATH_MAX];
	uint8_t journal[MW_ID_LEN];
	int writable;
	int lock;   /* of the one that writes now; -1 */
	bool begun; /* it wrote the note, or had the lock */
	uint64_t tick;
	struct part open[OPEN_MOST];
	uint64_t *whole; /* a writer: partitions that were looked through */
	size_t n_whole;
	bool unsynced; /* a sync failed: what is on disk, nobody knows */
	bool kept_out; /* by a process that was stopped */
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
	int r = mw_beside_dir(ix->dir, err);
	if (r == 0 && mw_beside_stale(ix->dir))
		r = mw_index_wipe(ix, err);
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
	/* mw_index_begin does so under the lock, should the note go meanwhile. */
	bool noted = writable && mw_beside_marked(ix->dir) && !mw_beside_stale(ix->dir);
	int r = writable && !noted ? mark(ix, err) : 0;
	if (r < 0) {
		ix->writable = 0;
		mw_index_close(ix);
		return r;
	}
	ix->begun = writable && !noted; /* the note is ours */
	*ret = ix;
	return 0;
}

static void
part_close(struct part *p)
{
	mw_kv_close(p->kv);
	p->kv = NULL;
}

/* Closes a partition; a writer's is synced. One whose sync failed is removed: the
 * kernel drops what it could not write, and gives older pages from then on. */
static void
part_done(struct mw_index *ix, struct part *p)
{
	bool bad = p->kv && ix->writable && mw_kv_sync(p->kv, NULL) < 0;
	part_close(p);
	if (bad) {
		ix->unsynced = true;
		(void)!mw_beside_unlink(ix->dir, p->number, NULL); /* as noted */
	}
}

void
mw_index_close(struct mw_index *ix)
{
	if (!ix)
		return;
	for (int i = 0; i < OPEN_MOST; i++)
		part_done(ix, &ix->open[i]);
	/* Of two writers the last one takes the note away. One that stays has the next
	 * boot throw the index away. Who never came to write leaves the other's. */
	if (ix->begun && !ix->unsynced &&
	    (ix->lock >= 0 || mw_beside_lock(ix->dir, &ix->lock, NULL) == 0))
		mw_beside_clean(ix->dir);
	mw_index_end(ix);
	free(ix->whole);
	free(ix);
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
	struct index_state *ret;
	const uint8_t *token;
	uint64_t from;
	struct mw_index_hit *out;
	size_t max;
	const struct mw_index_entry *e;
	size_t n;
	const uint64_t *pairs;
	size_t n_pairs;
	uint8_t *bad;
	bool stated;
};

static int
check_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *c = arg;
	struct index_state s;
	int r = index_state_get(t, c->journal, &s);
	if (r <= 0)
		return r;
	r = 0;
	for (uint32_t i = 0; r == 0 && i < s.n; i++)
		r = mw_index_run_check(t, &s.run[i]);
	index_state_free(&s);
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
		r = mw_kv_check(p->kv, err);
	if (r == 0)
		v[ix->n_whole++] = number;
	return r;
}

/* The partition's map, opened if need be: 1; 0 where there is none; negative otherwise.
 */
static int
part_get(struct mw_index *ix, uint64_t number, struct part **ret, struct mw_err *err)
{
	struct part *slot = &ix->open[0];
	for (int i = 0; i < OPEN_MOST; i++) {
		struct part *p = &ix->open[i];
		if (p->kv && p->number == number) {
			p->used = ++ix->tick;
			*ret = p;
			return 1;
		}
		if (!p->kv || (slot->kv && p->used < slot->used))
			slot = p;
	}
	part_done(ix, slot);
	char path[PATH_MAX];
	mw_beside_path(ix->dir, number, path);
	MW_AUTOCLOSE int files = -1;
	/* Who waited once for nothing does not again, until it goes by itself. */
	int r = mw_beside_files(ix->dir, ix->writable, ix->kept_out ? 0 : MW_BESIDE_MS,
	                        &files, err);
	ix->kept_out = r == MW_ELOCKED;
	if (r < 0)
		return r;
	r = mw_kv_open(path, ix->writable ? MW_KV_CREATE : MW_KV_READ, &slot->kv, err);
	if (files >= 0)
		(void)close(MW_TAKE_FD(files));
	if (r == MW_ENOTFOUND && !ix->writable)
		return 0;
	if (r == 0)
		r = check_part(ix, slot, number, err);
	if (r < 0) {
		part_close(slot);
		return r;
	}
	slot->number = number;
	slot->stated = false;
	slot->used = ++ix->tick;
	*ret = slot;
	return 1;
}

void
mw_index_ahead(struct mw_index *ix, uint64_t segment)
{
	struct part *p;
	if (part_get(ix, part_of(segment), &p, NULL) == 1)
		mw_kv_ahead(p->kv);
}

static int
read_point(void *arg, struct mw_kv_txn *t)
{
	struct reading *c = arg;
	return index_state_get(t, c->journal, c->ret);
}

int
mw_index_point(struct mw_index *ix, uint64_t segment, struct mw_index_point *ret,
               struct mw_err *err)
{
	struct part *p;
	uint64_t number = part_of(segment);
	int r = part_get(ix, number, &p, err);
	if (r == 1) {
		struct index_state s = {.n = 0};
		struct reading c = {.journal = ix->journal, .ret = &s};
		r = told(err, mw_kv_read(p->kv, read_point, &c, err));
		if (r == 0 && p->stated)
			r = mw_fail(err, MW_EDAMAGED, "index: its state is gone");
		p->stated = r == 1;
		index_state_free(&s);
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
	bool stated;
};

/* How many times MERGE fits: runs of one level are merged with each other. It goes by
 * what a merge has to move: a record to ten thousand people has their tokens. */
static unsigned
level(const struct mw_run *r)
{
	unsigned k = 0;
	for (uint32_t n = MW_MAX(r->records, r->entries / TYPICAL); n >= MERGE;
	     n /= MERGE)
		k++;
	return k;
}

/* So each entry is written TOP times at most, and a partition has few runs. */
static int
merge(struct mw_kv_txn *t, struct index_state *s)
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
add_run(struct mw_kv_txn *t, const struct putting *p, struct index_state *s)
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
	struct index_state s = {.n = 0};
	struct mw_str key, v;
	int r = index_state_get(t, p->journal, &s);
	/* Without a state nothing else is there. */
	if (r == 0 && (p->stated || mw_kv_txn_floor(t, MW_STR("\377"), &key, &v) != 0))
		return MW_EDAMAGED;
	if (r == 0) {
		s.run = calloc(2, sizeof *s.run);
		r = s.run ? 1 : MW_ENOMEM;
	}
	if (r == 1)
		r = add_run(t, p, &s);
	s.point = *p->point;
	if (r == 0)
		r = index_state_put(t, p->journal, &s);
	index_state_free(&s);
	return r;
}

int
mw_index_put(struct mw_index *ix, const struct mw_index_entry *e, size_t n,
             const struct mw_index_point *point, struct mw_err *err)
{
	struct part *part;
	MW_AUTOFREE uint64_t *pairs = NULL;
	size_t n_pairs;
	int r = part_get(ix, part_of(point->segment), &part, err);
	if (r < 0)
		return r;
	r = mw_index_run_sort(e, n, &pairs, &n_pairs);
	if (r < 0)
		return told(err, r);
	struct putting p = {e, n, point, ix->journal, pairs, n_pairs, part->stated};
	r = told(err, mw_kv_write(part->kv, put_all, &p, err));
	part->stated = part->stated || r == 0;
	return r;
}

/* ---- looking up ---- */

static int
find_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *f = arg;
	struct index_state s;
	size_t n = 0;
	int r = index_state_get(t, f->journal, &s);
	if (r <= 0)
		return r == 0 && f->stated ? MW_EDAMAGED : r;
	for (uint32_t i = 0; r >= 0 && i < s.n && n < f->max; i++) {
		r = mw_index_run_find(t, &s.run[i], f->token, f->from, f->out + n,
		                      f->max - n);
		n += r > 0 ? (size_t)r : 0;
	}
	index_state_free(&s);
	return r < 0 ? r : (int)n;
}

int
mw_index_find(struct mw_index *ix, uint64_t segment, const uint8_t token[MW_TOKEN_LEN],
              uint64_t from_seq, struct mw_index_hit *out, size_t max, struct mw_err *err)
{
	struct part *p;
	int r = part_get(ix, part_of(segment), &p, err);
	if (r <= 0)
		return r;
	struct reading f = {.journal = ix->journal,
	                    .token = token,
	                    .from = from_seq,
	                    .out = out,
	                    .max = MW_MIN(max, (size_t)INT_MAX),
	                    .stated = p->stated};
	return told(err, mw_kv_read(p->kv, find_all, &f, err));
}

static int
audit_all(void *arg, struct mw_kv_txn *t)
{
	const struct reading *a = arg;
	struct index_state s;
	int r = index_state_get(t, a->journal, &s);
	if (r <= 0)
		return r;
	r = 0;
	for (uint32_t i = 0; r == 0 && i < s.n; i++)
		if (s.run[i].last_seq >= a->e[0].seq &&
		    s.run[i].first_seq <= a->e[a->n - 1].seq)
			r = mw_index_run_audit(t, &s.run[i], a->e, a->n, a->pairs,
			                       a->n_pairs, a->bad);
	index_state_free(&s);
	return r;
}

int
mw_index_audit(struct mw_index *ix, uint64_t segment, const struct mw_index_entry *e,
               size_t n, uint8_t *bad, struct mw_err *err)
{
	struct part *p;
	MW_AUTOFREE uint64_t *pairs = NULL;
	struct reading a = {.journal = ix->journal, .e = e, .n = n, .bad = bad};
	memset(bad, 1, n); /* of no run: not found */
	int r = n ? part_get(ix, part_of(segment), &p, err) : 0;
	if (r <= 0)
		return r;
	r = mw_index_run_sort(e, n, &pairs, &a.n_pairs);
	a.pairs = pairs;
	if (r == 0)
		r = mw_kv_read(p->kv, audit_all, &a, err);
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
	if (!ix->writable)
		return 0;
	uint64_t number = part_of(segment);
	for (int i = 0; i < OPEN_MOST; i++)
		if (ix->open[i].kv && ix->open[i].number == number)
			part_close(&ix->open[i]);
	not_whole(ix, number);
	return mw_beside_unlink(ix->dir, number, err);
}

int
mw_index_forget(const char *dir, uint64_t segment, int *ret_fd, struct mw_err *err)
{
	char sub[PATH_MAX];
	(void)!snprintf(sub, sizeof sub, "%.4000s/index", dir);
	MW_AUTOCLOSE int fd = mw_beside_keep(sub, part_of(segment));
	int r = mw_beside_unlink(sub, part_of(segment), err);
	if (r == 0)
		*ret_fd = MW_TAKE_FD(fd);
	return r;
}

int
mw_index_salvage(struct mw_index *ix, uint64_t segment,
                 const struct mw_index_salvage *how, struct mw_err *err)
{
	return told(err, index_salvage(ix->dir, ix->journal, part_of(segment), how, err));
}

int
mw_index_take(struct mw_index *ix, uint64_t segment)
{
	uint64_t number = part_of(segment);
	uint64_t *v = reallocarray(ix->whole, ix->n_whole + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	ix->whole = v;
	int r = mw_beside_take(ix->dir, number);
	if (r == 0) /* each piece was looked at on the way */
		v[ix->n_whole++] = number;
	return r;
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
mw_index_begin(struct mw_index *ix, struct mw_err *err)
{
	int r = mw_beside_lock(ix->dir, &ix->lock, err);
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
	ix->begun = ix->begun || r == 0;
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
