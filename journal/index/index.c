#include "journal/index/index.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/kv.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	VERSION = 3,
	OPEN_MOST = 8,
	POINT_LEN = 1 + MW_ID_LEN + 32 + 32 + 8,
	CHECK_MOST = 64 << 20 /* a reader looks through a partition up to this size */
};

struct part {
	uint64_t number;
	struct mw_kv *kv;
	uint64_t used; /* for closing the one not used for longest */
	uint64_t sum;  /* over all its entries, see entry_sum */
};

struct mw_index {
	char dir[PATH_MAX];
	uint8_t journal[MW_ID_LEN];
	int writable;
	uint64_t tick;
	struct part open[OPEN_MOST];
};

static uint64_t
part_of(uint64_t segment)
{
	return (segment - 1) / MW_INDEX_SPAN;
}

static void
part_path(const struct mw_index *ix, uint64_t number, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/%08llx.mdb", ix->dir,
	                (unsigned long long)number);
}

/* Maps are not synced at each commit. A killed process loses nothing by that; a machine
 * that stopped may leave pages of different ages, which nobody would notice. So the
 * writer leaves a note with the boot it runs in, and a later boot throws such an index
 * away. */
static void
boot_id(char out[64])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	out[0] = '\0';
	if (!f)
		return;
	if (!fgets(out, 64, f))
		out[0] = '\0';
	(void)fclose(f);
}

static void
dirty_path(const struct mw_index *ix, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/dirty", ix->dir);
}

static int
mark_dirty(struct mw_index *ix, struct mw_err *err)
{
	char path[PATH_MAX], now[64], then[64] = "";
	dirty_path(ix, path);
	boot_id(now);
	FILE *f = fopen(path, "re");
	if (f) {
		bool same = fgets(then, sizeof then, f) && strcmp(now, then) == 0;
		(void)fclose(f);
		int r = same ? 0 : mw_index_wipe(ix, err);
		if (r < 0)
			return r;
	}
	f = fopen(path, "we");
	if (!f)
		return mw_fail_errno(err, "cannot write %s", path);
	bool bad = fputs(now, f) == EOF || fflush(f) == EOF || fsync(fileno(f)) < 0;
	if (fclose(f) == EOF || bad)
		return mw_fail_errno(err, "cannot write %s", path);
	return 0;
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
	int r = writable ? mark_dirty(ix, err) : 0;
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
	if (ix->writable) {
		char path[PATH_MAX];
		dirty_path(ix, path);
		(void)unlink(path);
	}
	free(ix);
}

static void
part_close(struct part *p)
{
	mw_kv_close(p->kv);
	p->kv = NULL;
}

static void
part_unlink(struct mw_index *ix, uint64_t number)
{
	char path[PATH_MAX], lock[PATH_MAX];
	part_path(ix, number, path);
	(void)unlink(path);
	if (snprintf(lock, sizeof lock, "%s-lock", path) < (int)sizeof lock)
		(void)unlink(lock);
}

/* What an entry adds to the sum over a partition; the sum is kept beside the point. LMDB
 * has no checksums: so a key that a garbled page has lost is noticed. */
static uint64_t
entry_sum(struct mw_str key, struct mw_str v)
{
	uint64_t h = 14695981039346656037U + key.n;
	for (size_t i = 0; i < key.n; i++)
		h = (h ^ (uint8_t)key.p[i]) * 1099511628211U;
	for (size_t i = 0; i < v.n; i++)
		h = (h ^ (uint8_t)v.p[i]) * 1099511628211U;
	return h ^ h >> 32;
}

struct summing {
	uint64_t sum, stated;
};

static int
sum_one(void *arg, struct mw_str key, struct mw_str v)
{
	struct summing *s = arg;
	if (key.n > 1)
		s->sum += entry_sum(key, v);
	else if (v.n == POINT_LEN)
		s->stated = mw_get64((const uint8_t *)v.p + 81);
	return 0;
}

/* Are all entries there that were written? */
static int
check_part(const struct mw_index *ix, struct part *p, const char *path,
           struct mw_err *err)
{
	struct summing s = {0, 0};
	struct stat sb;
	if (!ix->writable && (stat(path, &sb) < 0 || sb.st_size > CHECK_MOST))
		return 0;
	int r = mw_kv_scan(p->kv, MW_STR(""), MW_STR(""), sum_one, &s, err);
	if (r == 0 && s.sum != s.stated)
		r = mw_fail(err, MW_EDAMAGED, "index: %s is garbled", path);
	p->sum = s.sum;
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
	part_path(ix, number, path);
	int r =
	    mw_kv_open(path, ix->writable ? MW_KV_CREATE : MW_KV_READ, &slot->kv, err);
	if (r == MW_ENOTFOUND && !ix->writable)
		return 0;
	if (r == 0)
		r = check_part(ix, slot, path, err);
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
point_of(struct mw_index *ix, struct mw_kv *kv, struct mw_index_point *ret,
         struct mw_err *err)
{
	static const char key[1] = {0};
	MW_BUF_AUTO b = {.max = 4096};
	int r = mw_kv_get(kv, mw_str(key, 1), &b, err);
	if (r <= 0)
		return r;
	if (b.n != POINT_LEN || b.p[0] != VERSION ||
	    memcmp(b.p + 1, ix->journal, MW_ID_LEN) != 0)
		return mw_fail(err, MW_EDAMAGED,
		               "index: made by another version or for another journal");
	ret->segment = mw_get64(b.p + 17);
	ret->offset = mw_get64(b.p + 25);
	ret->next_seq = mw_get64(b.p + 33);
	ret->last = mw_get64(b.p + 41);
	memcpy(ret->chain, b.p + 49, sizeof ret->chain);
	return 1;
}

int
mw_index_point(struct mw_index *ix, uint64_t segment, struct mw_index_point *ret,
               struct mw_err *err)
{
	struct mw_kv *kv;
	uint64_t number = part_of(segment);
	int r = part_get(ix, number, &kv, err);
	if (r == 1)
		r = point_of(ix, kv, ret, err);
	if (r == 1 && part_of(ret->segment) != number)
		r = mw_fail(err, MW_EDAMAGED, "index: position out of its partition");
	if (r == MW_EDAMAGED || r == MW_EFORMAT) { /* I1: it heals by going away */
		if (ix->writable)
			r = mw_index_drop(ix, segment, err);
		else
			r = 0;
	}
	return r;
}

struct putting {
	const struct mw_index_entry *e;
	size_t n;
	const struct mw_index_point *point;
	const uint8_t *journal;
	uint64_t sum, new_sum;
};

static int
add(struct mw_kv_txn *t, struct mw_str key, struct mw_str v, uint64_t *sum)
{
	int r = mw_kv_add(t, key, v);
	if (r == 1)
		*sum += entry_sum(key, v);
	return r < 0 ? r : 0;
}

static int
put_entry(struct mw_kv_txn *t, const struct mw_index_entry *e, uint64_t *sum)
{
	uint8_t key[1 + MW_TOKEN_LEN + 8], place[16];
	key[0] = 1;
	mw_put64be(key + 1, e->seq);
	mw_put64(place, e->segment);
	mw_put64(place + 8, e->offset);
	int r = add(t, mw_str((char *)key, 9), mw_str((char *)place, 16), sum);
	key[0] = 2;
	mw_put64be(key + 1 + MW_TOKEN_LEN, e->seq);
	for (uint32_t k = 0; r == 0 && k < e->n_tokens; k++) {
		memcpy(key + 1, e->tokens + k * MW_TOKEN_LEN, MW_TOKEN_LEN);
		r = add(t, mw_str((char *)key, sizeof key), mw_str("", 0), sum);
	}
	return r;
}

static int
put_all(void *arg, struct mw_kv_txn *t)
{
	struct putting *p = arg;
	int r = 0;
	p->new_sum = p->sum; /* it may be run again */
	for (size_t i = 0; r == 0 && i < p->n; i++)
		r = put_entry(t, &p->e[i], &p->new_sum);
	uint8_t v[POINT_LEN];
	static const char key[1] = {0};
	v[0] = VERSION;
	memcpy(v + 1, p->journal, MW_ID_LEN);
	mw_put64(v + 17, p->point->segment);
	mw_put64(v + 25, p->point->offset);
	mw_put64(v + 33, p->point->next_seq);
	mw_put64(v + 41, p->point->last);
	memcpy(v + 49, p->point->chain, sizeof p->point->chain);
	mw_put64(v + 81, p->new_sum);
	if (r == 0)
		r = mw_kv_put(t, mw_str(key, 1), mw_str((char *)v, sizeof v));
	return r;
}

int
mw_index_put(struct mw_index *ix, const struct mw_index_entry *e, size_t n,
             const struct mw_index_point *point, struct mw_err *err)
{
	struct mw_kv *kv;
	int r = part_get(ix, part_of(point->segment), &kv, err);
	if (r < 0)
		return r;
	struct part *part = &ix->open[0];
	while (part->kv != kv)
		part++;
	struct putting p = {e, n, point, ix->journal, part->sum, 0};
	r = mw_kv_write(kv, put_all, &p, err);
	if (r == 0)
		part->sum = p.new_sum;
	return r;
}

struct finding {
	struct mw_index_hit *out;
	size_t n, max;
};

static int
find_one(void *arg, struct mw_str key, struct mw_str v)
{
	(void)v;
	struct finding *f = arg;
	if (key.n != 1 + MW_TOKEN_LEN + 8)
		return 0;
	f->out[f->n].seq = mw_get64be((const uint8_t *)key.p + 1 + MW_TOKEN_LEN);
	return ++f->n == f->max;
}

int
mw_index_find(struct mw_index *ix, uint64_t segment, const uint8_t token[MW_TOKEN_LEN],
              uint64_t from_seq, struct mw_index_hit *out, size_t max, struct mw_err *err)
{
	struct mw_kv *kv;
	int r = part_get(ix, part_of(segment), &kv, err);
	if (r <= 0)
		return r;
	uint8_t key[1 + MW_TOKEN_LEN + 8];
	key[0] = 2;
	memcpy(key + 1, token, MW_TOKEN_LEN);
	mw_put64be(key + 1 + MW_TOKEN_LEN, from_seq);
	struct finding f = {out, 0, MW_MIN(max, (size_t)INT_MAX)};
	r = mw_kv_scan(kv, mw_str((char *)key, 1 + MW_TOKEN_LEN),
	               mw_str((char *)key, sizeof key), find_one, &f, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f.n; i++) {
		MW_BUF_AUTO b = {.max = 64};
		key[0] = 1;
		mw_put64be(key + 1, out[i].seq);
		r = mw_kv_get(kv, mw_str((char *)key, 9), &b, err);
		if (r < 0)
			return r;
		if (r == 0 || b.n != 16)
			return mw_fail(err, MW_EDAMAGED, "index: a place is missing");
		out[i].segment = mw_get64(b.p);
		out[i].offset = mw_get64(b.p + 8);
	}
	return (int)f.n;
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
	part_unlink(ix, number);
	return 0;
}

int
mw_index_wipe(struct mw_index *ix, struct mw_err *err)
{
	if (!ix->writable)
		return 0;
	for (int i = 0; i < OPEN_MOST; i++)
		part_close(&ix->open[i]);
	DIR *d = opendir(ix->dir);
	if (!d)
		return errno == ENOENT ? 0
		                       : mw_fail_errno(err, "cannot list %s", ix->dir);
	for (struct dirent *e; (e = readdir(d));) {
		char path[PATH_MAX];
		if (!strstr(e->d_name, ".mdb"))
			continue;
		if (snprintf(path, sizeof path, "%s/%s", ix->dir, e->d_name) <
		    (int)sizeof path)
			(void)unlink(path);
	}
	(void)closedir(d);
	return 0;
}
