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
wipe_one(struct mw_store *st, struct mw_seg *s, int fd, const struct mw_wipe_at *p,
         struct mw_err *err)
{
	struct mw_frame f;
	int r = mw_seg_frame(s, p->offset, MW_CHECK_HEADER, &f, NULL, err);
	if (r < 0)
		return r;
	if (r == 0) /* it was there a moment ago */
		return mw_fail(err, MW_EDAMAGED, "segment %llu, offset %llu: damaged",
		               (unsigned long long)s->h.number,
		               (unsigned long long)p->offset);
	MW_AUTOFREE uint8_t *slot = calloc(1, f.slot_len);
	if (!slot)
		return mw_fail(err, MW_ENOMEM, "out of memory while wiping");
	slot[4] = MW_SLOT_WIPED;
	mw_put32(slot, mw_crc32c(0, slot + 4, f.slot_len - 4));
	struct iovec iov = {slot, f.slot_len};
	r = s->fs->pwritev(s->fs, fd, &iov, 1, p->offset + MW_FRAME_HEADER);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot wipe a record in segment %llu",
		                     (unsigned long long)s->h.number);
	}
	mw_dict_forget(st, f.id);
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

int
mw_store_wipe(struct mw_store *st, uint64_t segment, const struct mw_wipe_at *p, size_t n,
              struct mw_err *err)
{
	char path[PATH_MAX];
	struct mw_seg *s = NULL;
	mw_assert(st->o.mode == MW_STORE_WRITE);
	int r = mw_seg_open(st->fs, st->dir, segment, st->id, &s, err);
	if (r < 0)
		return r;
	r = check_settled(st, segment, s, err);
	if (r == 0)
		r = check_places(s, p, n, err);
	mw_seg_path(path, sizeof path, st->dir, segment);
	int fd = r == 0 ? st->fs->open(st->fs, path, MW_OPEN_WRITE) : -1;
	if (r == 0 && fd < 0) {
		errno = -fd;
		r = mw_fail_errno(err, "cannot open %s for wiping", path);
	}
	if (r == 0) /* now: who knows whether this process lives on */
		mw_index_forget(st->dir, segment);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = wipe_one(st, s, fd, &p[i], err);
	if (r == 0) { /* after a failure the descriptor is not touched again (I5) */
		int e = st->fs->sync(st->fs, fd);
		if (e < 0) {
			errno = -e;
			r = mw_fail_errno(err, "cannot sync %s", path);
		}
	}
	if (fd >= 0)
		(void)st->fs->close(st->fs, fd);
	mw_seg_free(s);
	mw_index_redo(st, segment);
	if (r == 0)
		mw_store_say(st, MW_LOG_INFO, "event=wiped seg=%llu records=%zu",
		             (unsigned long long)segment, n);
	return r;
}
