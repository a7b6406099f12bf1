/* Look-ups: the index where it reaches, a walk of the log where it does not. Both give
 * candidates in the same order, so the answers cannot differ (I1). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

enum {
	PAGE = 256,       /* hits that the index is asked for, */
	PAGE_MOST = 8192, /* and once it is known that there are many */
	BATCH = 32        /* hits that are looked at before they are given */
};

struct find {
	struct mw_store *st;
	uint8_t token[MW_TOKEN_LEN];
	int (*cb)(void *arg, const struct mw_record *r);
	void *arg;
	uint64_t done; /* every sequence number below is dealt with */
	uint64_t before;
	bool stopped; /* by cb: its code is the caller's, and says nothing of the index */
};

static uint64_t
part_last(uint64_t segment)
{
	return ((segment - 1) / MW_INDEX_SPAN + 1) * MW_INDEX_SPAN;
}

static int
has_token(const struct find *f, const struct mw_record *r, struct mw_err *err)
{
	return mw_record_has_token(f->st, r, f->token, err);
}

/* Walks from a point to the end of the partition of segment `last`. end is the last
 * record that the index knows of, or NULL. */
static int
scan(struct find *f, const struct mw_index_point *from, const struct mw_record *end,
     uint64_t last, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	int r = mw_cursor_at(f->st, from, &c, err);
	if (r < 0)
		return r;
	if (end) {
		mw_cursor_whole(c, end);
		mw_cursor_ask(c);
	}
	mw_cursor_seen(c);
	mw_cursor_ahead(c);
	for (;;) {
		struct mw_record rec;
		r = mw_cursor_next(c, &rec, err);
		if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
			mw_err_clear(err); /* verify tells; a look-up serves the rest */
			continue;
		}
		if (r <= 0)
			return r;
		if (rec.loc.segment > last || rec.seq >= f->before)
			return 0;
		if (rec.seq < f->done)
			continue;
		f->done = rec.seq + 1;
		struct mw_err e = {0};
		r = has_token(f, &rec, &e);
		if (r == MW_ENOMEM || r == MW_EIO) /* nobody knows whether it has */
			return mw_fail(err, r, "%s", e.msg);
		if (r == 1) {
			r = f->cb(f->arg, &rec);
			if (r)
				return r;
		}
	}
}

struct batch {
	struct mw_record rec[BATCH];
	bool has[BATCH];
	size_t n, most; /* who wants but one has little done for nothing */
};

/* Looks at hits of the index that stand near each other; the place after the last of
 * them. *ret says what was wrong behind it: MW_EDAMAGED when one is not where the index
 * says. */
static size_t
look_at(struct find *f, const struct mw_index_hit *hit, size_t n, struct batch *b,
        struct mw_err *err, int *ret)
{
	struct mw_loc loc[BATCH];
	n = MW_MIN(n, b->most);
	for (size_t i = 0; i < n; i++)
		loc[i] = (struct mw_loc){hit[i].segment, hit[i].offset};
	n = mw_store_ahead(f->st, loc, n);
	int r = 0;
	for (b->n = 0; b->n < n; b->n++) {
		struct mw_record *rec = &b->rec[b->n];
		r = mw_store_get(f->st, loc[b->n], rec, err);
		if (r == 0 && rec->seq != hit[b->n].seq)
			r = mw_fail(err, MW_EDAMAGED, "index: wrong place");
		if (r == 0)
			r = has_token(f, rec, err);
		if (r < 0)
			break;
		b->has[b->n] = r == 1;
	}
	mw_store_behind(f->st);
	b->most = MW_MIN(b->most * 2, (size_t)BATCH);
	*ret = r < 0 ? r : 0;
	return b->n;
}

static int
give(struct find *f, const struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		f->done = b->rec[i].seq + 1;
		int r = b->has[i] ? f->cb(f->arg, &b->rec[i]) : 0;
		if (r) {
			f->stopped = true;
			return r;
		}
	}
	return 0;
}

/* Gives the index's hits of a partition; MW_EDAMAGED when one is not where it says. */
static int
from_index(struct find *f, uint64_t segment, const struct mw_index_point *point,
           struct mw_err *err)
{
	struct batch b = {.most = 1};
	size_t page = PAGE;
	MW_AUTOFREE struct mw_index_hit *hit = calloc(page, sizeof *hit);
	if (!hit)
		return mw_fail(err, MW_ENOMEM, "out of memory while looking up");
	uint64_t before = MW_MIN(point->next_seq, f->before);
	for (;;) {
		int got = mw_index_find(f->st->index, segment, f->token, f->done, hit,
		                        page, err);
		if (got < 0)
			return got;
		size_t all = (size_t)got, n = 0;
		while (n < all && hit[n].seq < before)
			n++;
		for (size_t i = 0; i < n;) {
			struct mw_err why = {0};
			int wrong, r;
			i += look_at(f, &hit[i], n - i, &b, &why, &wrong);
			r = give(f, &b);
			if (r == 0 && wrong && err)
				*err = why;
			if (r || wrong)
				return r ? r : wrong;
		}
		if (n < all || n < page)
			return 0; /* what was written since: the walk meets it */
		struct mw_index_hit *more = NULL;
		if (page < PAGE_MOST)
			more = reallocarray(hit, PAGE_MOST, sizeof *hit);
		if (more) { /* else it takes longer */
			hit = more;
			page = PAGE_MOST;
		}
	}
}

static int
fits(struct mw_store *st, const struct mw_index_point *p, struct mw_record *ret)
{
	struct mw_record rec;
	int r = mw_store_get(st, (struct mw_loc){p->segment, p->last}, &rec, NULL);
	if (r < 0)
		return r == MW_ENOMEM ? r : 0;
	*ret = rec;
	return rec.seq + 1 == p->next_seq &&
	       rec.loc.offset + rec.frame_len == p->offset &&
	       memcmp(rec.chain, p->chain, sizeof p->chain) == 0;
}

int
mw_store_index_fits(struct mw_store *st, const struct mw_index_point *p)
{
	struct mw_record ignored;
	return fits(st, p, &ignored);
}

static int
first_point(struct mw_store *st, uint64_t segment, struct mw_index_point *ret,
            struct mw_err *err)
{
	struct mw_open_seg *o;
	int r = mw_store_seg(st, segment, &o, err);
	if (r < 0)
		return r;
	*ret = (struct mw_index_point){.segment = segment,
	                               .offset = o->seg->h.length,
	                               .next_seq = o->seg->h.first_seq};
	return 0;
}

/* One partition: [first, last] are the segments it has. */
static int
find_part(struct find *f, uint64_t first, struct mw_err *err)
{
	struct mw_index_point point;
	struct mw_record end;
	uint64_t last = part_last(first);
	int r = f->st->index ? mw_index_point(f->st->index, first, &point, err) : 0;
	if (r == 1) /* else what it knows of is not there any more */
		r = fits(f->st, &point, &end);
	if (r == MW_ENOMEM)
		return r;
	mw_err_clear(err);
	if (r == 1) {
		uint64_t before = f->done;
		r = from_index(f, first, &point, err);
		if (r == 0) {
			f->done = MW_MAX(f->done, point.next_seq);
			return f->done >= f->before ? 0
			                            : scan(f, &point, &end, last, err);
		}
		if (f->stopped || (r != MW_EDAMAGED && r != MW_ENOTFOUND && r != MW_EIO))
			return r;
		/* The index is no help here. What was given was verified; go on from
		 * the first number that was not. */
		f->done = MW_MAX(f->done, before);
		mw_err_clear(err);
	}
	r = first_point(f->st, first, &point, err);
	if (r == MW_EDAMAGED || r == MW_ENOTFOUND) {
		mw_err_clear(err);
		point = (struct mw_index_point){.segment = first};
		r = 0;
	}
	return r < 0 ? r : scan(f, &point, NULL, last, err);
}

/* LMDB wants a file opened once in a process: a writer's index thread has it. */
int
mw_store_index(struct mw_store *st, struct mw_index **ret, struct mw_err *err)
{
	int r = 0;
	if (!st->index && st->o.mode == MW_STORE_READ && !st->o.no_index)
		r = mw_index_open(st->dir, st->id, 0, &st->index, err);
	if (r == MW_ENOMEM)
		return r;
	mw_err_clear(err);
	if (ret)
		*ret = st->index;
	return 0;
}

/* Which of these segments holds `from`: the last one that starts at or before it. */
static size_t
holds(struct mw_store *st, const uint64_t *v, size_t n, uint64_t from)
{
	struct mw_open_seg *o;
	for (size_t i = from ? n : 0; i > 0; i--)
		if (mw_store_seg(st, v[i - 1], &o, NULL) == 0 &&
		    o->seg->h.first_seq <= from)
			return i - 1;
	return 0;
}

/* By f's token. */
static int
find_token(struct find *f, struct mw_err *err)
{
	struct mw_store *st = f->st;
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n = 0;
	int r = mw_store_index(st, NULL, err);
	if (r == 0)
		r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	size_t i = r == 0 ? holds(st, v, n, f->done) : 0;
	while (r == 0 && i < n && f->done < f->before) {
		r = find_part(f, v[i], err);
		uint64_t last = part_last(v[i]);
		while (i < n && v[i] <= last)
			i++;
	}
	return r;
}

static int
find(struct find *f, enum mw_key key, struct mw_str value, struct mw_err *err)
{
	mw_store_token(f->st, key, value, f->token);
	return find_token(f, err);
}

int
mw_store_find_name(struct mw_store *st, enum mw_key key, struct mw_str name,
                   int (*cb)(void *arg, const struct mw_record *r), void *arg,
                   struct mw_err *err)
{
	uint8_t token[MW_STORE_NAMES][MW_TOKEN_LEN];
	int n = mw_store_names(st, key, name, token), r = 0;
	if (n < 0)
		return mw_fail(err, n, "out of memory while looking up");
	for (int i = 0; r == 0 && i < n; i++) {
		struct find f = {.st = st, .cb = cb, .arg = arg, .before = UINT64_MAX};
		memcpy(f.token, token[i], sizeof token[i]);
		r = find_token(&f, err);
	}
	return r;
}

int
mw_store_find_token(struct mw_store *st, const uint8_t token[8],
                    int (*cb)(void *arg, const struct mw_record *r), void *arg,
                    struct mw_err *err)
{
	struct find f = {.st = st, .cb = cb, .arg = arg, .before = UINT64_MAX};
	memcpy(f.token, token, sizeof f.token);
	return find_token(&f, err);
}

int
mw_store_find(struct mw_store *st, enum mw_key key, struct mw_str value,
              int (*cb)(void *arg, const struct mw_record *r), void *arg,
              struct mw_err *err)
{
	return mw_store_find_before(st, key, value, UINT64_MAX, cb, arg, err);
}

int
mw_store_find_before(struct mw_store *st, enum mw_key key, struct mw_str value,
                     uint64_t before, int (*cb)(void *arg, const struct mw_record *r),
                     void *arg, struct mw_err *err)
{
	struct find f = {.st = st, .cb = cb, .arg = arg, .before = before};
	return find(&f, key, value, err);
}

/* The number of the first record of the newest segment. */
static int
newest_first(struct mw_store *st, uint64_t *ret_seq)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	struct mw_open_seg *o;
	struct mw_err ignored = {0};
	int r = mw_seg_list(st->fs, st->dir, &v, &n, &ignored);
	if (r == 0 && n)
		r = mw_store_seg(st, v[n - 1], &o, &ignored);
	if (r == 0 && n)
		*ret_seq = o->seg->h.first_seq;
	return r;
}

int
mw_store_find_from(struct mw_store *st, enum mw_key key, struct mw_str value,
                   uint64_t *from, int (*cb)(void *arg, const struct mw_record *r),
                   void *arg, struct mw_err *err)
{
	struct find f = {
	    .st = st, .cb = cb, .arg = arg, .done = *from, .before = UINT64_MAX};
	uint64_t open = 0;
	int r = find(&f, key, value, err);
	/* What is not synced may go, and its numbers are given once more. */
	if (r == 0 && newest_first(st, &open) == 0)
		*from = MW_MAX(*from, MW_MIN(f.done, open));
	return r;
}

static int
each_of(struct mw_store *st, const struct mw_seg_header *h,
        int (*cb)(void *arg, const struct mw_record *r), void *arg, struct mw_err *err)
{
	struct mw_index_point at = {.segment = h->number,
	                            .offset = h->length,
	                            .next_seq = h->first_seq};
	MW_CURSOR_AUTO *c = NULL;
	int r = mw_cursor_at(st, &at, &c, err);
	while (r == 0) {
		struct mw_record rec;
		r = mw_cursor_next(c, &rec, err);
		if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
			mw_err_clear(err);
			r = 0;
			continue;
		}
		if (r <= 0 || rec.loc.segment != at.segment)
			return MW_MIN(r, 0);
		r = cb(arg, &rec);
	}
	return r;
}

int
mw_store_each_unparted(struct mw_store *st, const char *delimiter,
                       int (*cb)(void *arg, const struct mw_record *r), void *arg,
                       struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	uint32_t want = mw_crc32c(0, delimiter, strlen(delimiter));
	size_t n = 0;
	int r = *delimiter ? mw_seg_list(st->fs, st->dir, &v, &n, err) : 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct mw_open_seg *o;
		int k = mw_store_seg(st, v[i], &o, err);
		if (k == MW_ENOMEM || k == MW_EIO)
			return k;
		if (k < 0) { /* verify tells; a look-up serves the rest */
			mw_err_clear(err);
			continue;
		}
		struct mw_seg_header h = o->seg->h;
		if (h.delimiter != want)
			r = each_of(st, &h, cb, arg, err);
	}
	return r;
}

int
mw_store_indexed(struct mw_store *st, uint64_t *ret_seq, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	uint64_t seq = 1;
	size_t n;
	int r = mw_store_index(st, NULL, err);
	if (r == 0)
		r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	for (size_t i = 0; r == 0 && st->index && i < n;) {
		struct mw_index_point point;
		struct mw_open_seg *o;
		/* A partition counts if the one before it was complete. */
		if (mw_store_seg(st, v[i], &o, NULL) < 0 ||
		    (i > 0 && o->seg->h.first_seq > seq) ||
		    mw_index_point(st->index, v[i], &point, NULL) != 1 ||
		    mw_store_index_fits(st, &point) != 1)
			break;
		seq = MW_MAX(seq, point.next_seq);
		uint64_t last = part_last(v[i]);
		while (i < n && v[i] <= last)
			i++;
	}
	if (r == 0)
		*ret_seq = seq;
	return r;
}

/* ---- by ID ---- */

struct by_id {
	uint8_t id[MW_ID_LEN];
	unsigned bits;
	struct mw_record rec;
	unsigned found;
};

static int
id_one(void *arg, const struct mw_record *r)
{
	struct by_id *b = arg;
	if (!mw_id_match(r->id, b->id, b->bits))
		return 0;
	if (b->found++ == 0)
		b->rec = *r;
	return b->found > 1 || b->bits == 128;
}

static int
id_scan(struct mw_store *st, struct by_id *b, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	int r = mw_cursor_new(st, 1, &c, err);
	if (r < 0)
		return r;
	for (;;) {
		struct mw_record rec;
		r = mw_cursor_next(c, &rec, err);
		if (r == MW_EDAMAGED) {
			mw_err_clear(err);
			continue;
		}
		if (r <= 0)
			return r;
		if (id_one(b, &rec))
			return 0;
	}
}

int
mw_store_find_id(struct mw_store *st, const char *text, struct mw_record *ret,
                 struct mw_err *err)
{
	struct by_id b = {.found = 0};
	if (!mw_id_parse(text, b.id, &b.bits))
		return mw_fail(err, MW_ENOTFOUND, "no record '%s'", text);
	int r =
	    b.bits >= MW_ID_TOKEN * 8
	        ? mw_store_find(st, MW_KEY_ID, mw_str((const char *)b.id, MW_ID_TOKEN),
	                        id_one, &b, err)
	        : id_scan(st, &b, err);
	if (r < 0)
		return r;
	if (b.found == 0)
		return mw_fail(err, MW_ENOTFOUND, "no record '%s'", text);
	if (b.found > 1) {
		(void)mw_fail(err, MW_EUSAGE, "'%s' fits more than one record", text);
		(void)mw_err_hint(err, "give more characters of the ID");
		return MW_EUSAGE;
	}
	*ret = b.rec;
	return 0;
}
