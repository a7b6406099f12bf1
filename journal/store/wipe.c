/* Taking records out of an append-only log: their key slots are wiped (FORMAT.md I9). */
#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdlib.h>

/* How far a segment that its writer never closed counts: its successor says so. */
static int
settle(struct mw_store *st, const struct mw_seg *s, uint64_t next,
       struct mw_segment_info *ret, struct mw_err *err)
{
	struct mw_seg *n = NULL;
	if (s->closed) {
		ret->settled = ret->closed = true;
		ret->last_seq = s->t.last_seq;
		memcpy(ret->chain, s->t.chain, MW_HASH_LEN);
		return 0;
	}
	int r = next ? mw_seg_open(st->fs, st->dir, next, st->id, &n, err) : 1;
	if (r != 0) { /* one that is damaged says nothing */
		if (r != MW_ENOMEM)
			mw_err_clear(err);
		return r == MW_ENOMEM ? r : 0;
	}
	if (n->h.prev_number == s->h.number && n->h.first_seq > s->h.first_seq) {
		ret->settled = true;
		ret->last_seq = n->h.first_seq - 1;
		memcpy(ret->chain, n->h.chain, MW_HASH_LEN);
	}
	mw_seg_free(n);
	return 0;
}

int
mw_store_segment_info(struct mw_store *st, struct mw_segment_info **ret, size_t *ret_n,
                      struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	if (r < 0)
		return r;
	struct mw_segment_info *info = calloc(n + 1, sizeof *info);
	if (!info)
		return mw_fail(err, MW_ENOMEM, "out of memory for the segments");
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct mw_seg *s = NULL;
		info[i].number = v[i];
		r = mw_seg_open(st->fs, st->dir, v[i], st->id, &s, err);
		if (r < 0 && r != MW_ENOMEM) {
			mw_err_clear(err);
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		info[i].first_seq = s->h.first_seq;
		info[i].bytes = s->size;
		r = settle(st, s, i + 1 < n ? v[i + 1] : 0, &info[i], err);
		mw_seg_free(s);
	}
	if (r < 0) {
		free(info);
		return r;
	}
	*ret = info;
	*ret_n = n;
	return 0;
}

/* 0 if nothing is appended to it any more. */
static int
check_settled(struct mw_store *st, uint64_t number, const struct mw_seg *s,
              struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	if (r < 0 || s->closed)
		return r;
	if (n == 0 || v[n - 1] <= number)
		return mw_fail(err, MW_EUSAGE, "segment %llu is still open",
		               (unsigned long long)number);
	return 0;
}

static int
check_places(struct mw_seg *s, const struct mw_wipe_at *p, size_t n, struct mw_err *err)
{
	for (size_t i = 0; i < n; i++) {
		struct mw_frame f;
		int r = mw_seg_frame(s, p[i].offset, MW_CHECK_HEADER, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 0 || f.seq != p[i].seq)
			return mw_fail(err, MW_EUSAGE,
			               "segment %llu, offset %llu: no record %llu there",
			               (unsigned long long)s->h.number,
			               (unsigned long long)p[i].offset,
			               (unsigned long long)p[i].seq);
	}
	return 0;
}

/* ---- a settled segment, being changed ---- */

struct changing {
	struct mw_seg *s;
	int fd;
	bool begun; /* its part of the index is gone */
};

/* The segment, found to have these records, opened for writing. */
static int
change(struct mw_store *st, uint64_t segment, const struct mw_wipe_at *p, size_t n,
       struct changing *g, struct mw_err *err)
{
	char path[PATH_MAX];
	mw_assert(st->o.mode == MW_STORE_WRITE);
	*g = (struct changing){NULL, -1, false};
	int r = mw_seg_open(st->fs, st->dir, segment, st->id, &g->s, err);
	if (r == 0)
		r = check_settled(st, segment, g->s, err);
	if (r == 0)
		r = check_places(g->s, p, n, err);
	if (r < 0)
		return r;
	mw_seg_path(path, sizeof path, st->dir, segment);
	g->fd = st->fs->open(st->fs, path, MW_OPEN_WRITE);
	if (g->fd < 0) {
		errno = -g->fd;
		return mw_fail_errno(err, "cannot open %s for wiping", path);
	}
	/* now: who knows whether this process lives on */
	r = mw_redo_begin(st, segment, err);
	g->begun = r == 0;
	return r;
}

static int
failed(const struct changing *g, int r, struct mw_err *err)
{
	errno = -r;
	return mw_fail_errno(err, "cannot wipe a record in segment %llu",
	                     (unsigned long long)g->s->h.number);
}

/* After a failure the descriptor is not touched again (I5). */
static int
sync_change(const struct changing *g, struct mw_err *err)
{
	int r = g->s->fs->sync(g->s->fs, g->fd);
	return r < 0 ? failed(g, r, err) : 0;
}

static void
changed(struct mw_store *st, uint64_t segment, struct changing *g)
{
	if (g->fd >= 0)
		(void)st->fs->close(st->fs, g->fd);
	mw_seg_free(g->s);
	if (g->begun)
		mw_redo_end(st, segment);
}

/* ---- whole slots ---- */

static int
wipe_one(struct mw_store *st, const struct changing *g, const struct mw_wipe_at *p,
         struct mw_err *err)
{
	struct mw_frame f;
	int r = mw_seg_frame(g->s, p->offset, MW_CHECK_HEADER, &f, NULL, err);
	if (r < 0)
		return r;
	if (r == 0) /* it was there a moment ago */
		return mw_fail(err, MW_EDAMAGED, "segment %llu, offset %llu: damaged",
		               (unsigned long long)g->s->h.number,
		               (unsigned long long)p->offset);
	MW_AUTOFREE uint8_t *slot = calloc(1, f.slot_len);
	if (!slot)
		return mw_fail(err, MW_ENOMEM, "out of memory while wiping");
	mw_slot_mark(slot, f.slot_len, MW_SLOT_WIPED);
	struct iovec iov = {slot, f.slot_len};
	r = st->fs->pwritev(st->fs, g->fd, &iov, 1, p->offset + MW_FRAME_HEADER);
	if (r < 0)
		return failed(g, r, err);
	mw_dict_forget(st, f.id);
	return 0;
}

int
mw_store_wipe(struct mw_store *st, uint64_t segment, const struct mw_wipe_at *p, size_t n,
              struct mw_err *err)
{
	struct changing g;
	int r = change(st, segment, p, n, &g, err);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = wipe_one(st, &g, &p[i], err);
	if (r == 0)
		r = sync_change(&g, err);
	changed(st, segment, &g);
	if (r == 0)
		mw_store_say(st, MW_LOG_INFO, "event=wiped seg=%llu records=%zu",
		             (unsigned long long)segment, n);
	return r;
}

/* ---- tokens ---- */

static bool
is_cut(const struct mw_cut *c, const uint8_t *token)
{
	for (size_t i = 0; i < c->n_token; i++)
		if (memcmp(c->token[i], token, MW_TOKEN_LEN) == 0)
			return true;
	return false;
}

static bool
has_any(const struct mw_cut *c, const struct mw_slot *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (is_cut(c, s->tokens + i * MW_TOKEN_LEN))
			return true;
	return false;
}

/* A slot is changed in three steps, each synced before the next: it is marked, by the 8
 * bytes that are in one sector; then its tokens are not under its CRC, and each of them,
 * as aligned as these, is there or is not; then it is marked as before. */
enum cut_step {
	CUT_MARK,
	CUT_TOKENS,
	CUT_UNMARK,
	CUT_STEPS
};

/* What is to be written of the slot: from *at on; 0: nothing. */
static size_t
cut_slot(uint8_t *slot, size_t len, const struct mw_cut *c, enum cut_step step,
         size_t *at)
{
	struct mw_slot x;
	enum mw_slot_state state = mw_slot_decode(slot, len, &x);
	*at = 0;
	if (step == CUT_MARK) {
		/* One that is marked is marked again: its sync may have failed. */
		if (state != MW_SLOT_CUTTING &&
		    (state != MW_SLOT_LIVE || !has_any(c, &x)))
			return 0;
		mw_slot_mark(slot, len, MW_SLOT_CUTTING);
		return 8;
	}
	if (state != MW_SLOT_CUTTING)
		return 0;
	if (step == CUT_UNMARK) {
		mw_slot_mark(slot, len, MW_SLOT_LIVE);
		return 8;
	}
	*at = MW_SLOT_FIXED;
	for (size_t i = MW_SLOT_FIXED; i < len; i += MW_TOKEN_LEN)
		if (is_cut(c, slot + i))
			memset(slot + i, 0, MW_TOKEN_LEN);
	return len - MW_SLOT_FIXED;
}

static int
cut_one(struct changing *g, const struct mw_wipe_at *p, const struct mw_cut *c,
        enum cut_step step, struct mw_err *err)
{
	struct mw_frame f;
	size_t at;
	int r = mw_seg_frame(g->s, p->offset, MW_CHECK_HEADER, &f, NULL, err);
	if (r < 0)
		return r;
	if (r == 0)
		return mw_fail(err, MW_EDAMAGED, "segment %llu, offset %llu: damaged",
		               (unsigned long long)g->s->h.number,
		               (unsigned long long)p->offset);
	MW_AUTOFREE uint8_t *slot = malloc(f.slot_len);
	if (!slot)
		return mw_fail(err, MW_ENOMEM, "out of memory while erasing");
	uint64_t off = p->offset + MW_FRAME_HEADER;
	int64_t k = mw_seg_read(g->s, slot, f.slot_len, off);
	if (k < 0)
		return failed(g, (int)k, err);
	if (k < (int64_t)f.slot_len)
		return 0; /* verify tells */
	struct iovec iov = {slot, cut_slot(slot, f.slot_len, c, step, &at)};
	if (iov.iov_len == 0)
		return 0;
	iov.iov_base = slot + at;
	r = g->s->fs->pwritev(g->s->fs, g->fd, &iov, 1, off + at);
	return r < 0 ? failed(g, r, err) : 0;
}

int
mw_store_cut(struct mw_store *st, uint64_t segment, const struct mw_cut *c,
             struct mw_err *err)
{
	struct changing g;
	int r = change(st, segment, c->at, c->n, &g, err);
	for (int step = CUT_MARK; r == 0 && step < CUT_STEPS; step++) {
		for (size_t i = 0; r == 0 && i < c->n; i++)
			r = cut_one(&g, &c->at[i], c, (enum cut_step)step, err);
		if (r == 0)
			r = sync_change(&g, err);
	}
	changed(st, segment, &g);
	if (r == 0)
		mw_store_say(st, MW_LOG_INFO, "event=tokens-removed seg=%llu records=%zu",
		             (unsigned long long)segment, c->n);
	return r;
}
