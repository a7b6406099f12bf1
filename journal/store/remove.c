/* Segments of which nothing is needed any more (FORMAT.md §10, I20): the file is taken
 * out of the log by a new name, its header is overwritten, and with it the key of all
 * that is in it; then it goes. What a crash leaves half done, the next writer finishes.
 */
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	HEADERS = 2 * 65536, /* both header blocks, at their largest */
	AHEAD = 128 << 10,
	SMALL = 2048
};

static void
doomed_path(const struct mw_store *st, uint64_t number, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/segments/%016llx.tmp", st->dir,
	                (unsigned long long)number);
}

static void
segments_path(const struct mw_store *st, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/segments", st->dir);
}

/* Zeros over its first `most` bytes, on the disk before we return. -ENOENT: 0. */
static int
overwrite(const struct mw_fs *fs, const char *path, size_t most)
{
	int fd = fs->open(fs, path, MW_OPEN_WRITE);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	MW_AUTOFREE uint8_t *zeros = calloc(1, most);
	int64_t size = zeros ? fs->size(fs, fd) : -ENOMEM;
	int r = (int)MW_MIN(size, 0);
	struct iovec iov = {zeros, r == 0 ? (size_t)MW_MIN(size, (int64_t)most) : 0};
	if (r == 0 && iov.iov_len)
		r = fs->pwritev(fs, fd, &iov, 1, 0);
	if (r == 0)
		r = fs->sync(fs, fd);
	(void)fs->close(fs, fd);
	return r;
}

static int
gone_is_fine(int r)
{
	return r == -ENOENT ? 0 : r;
}

/* A segment under its last name. Its keys first: the name tells that they are left. */
static int
finish_one(struct mw_store *st, uint64_t number)
{
	char path[PATH_MAX], added[PATH_MAX];
	if (mw_redo_begin(st, number, NULL) < 0)
		return -EAGAIN;
	mw_redo_end(st, number); /* it has left the log already */
	doomed_path(st, number, path);
	mw_added_path(st, number, added);
	int r = overwrite(st->fs, path, HEADERS);
	if (r == 0)
		r = overwrite(st->fs, added, HEADERS);
	if (r == 0)
		r = gone_is_fine(st->fs->unlink(st->fs, added));
	return r == 0 ? gone_is_fine(st->fs->unlink(st->fs, path)) : r;
}

/* All that has its last name, of this run or of one that was cut short. */
static int
finish_all(struct mw_store *st, struct mw_err *err)
{
	char dir[PATH_MAX];
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	int r = mw_seg_list_doomed(st->fs, st->dir, &v, &n, err);
	if (r < 0 || n == 0)
		return r;
	segments_path(st, dir);
	/* else one could come back, with its header overwritten */
	r = st->fs->sync_dir(st->fs, dir);
	int bad = r;
	for (size_t i = 0; r == 0 && i < n; i++) { /* one that fails keeps no other */
		int k = finish_one(st, v[i]);
		bad = bad ? bad : k;
		if (k == -EAGAIN) /* nor would the next one */
			break;
		if (k == 0)
			mw_store_say(st, MW_LOG_INFO, "event=segment-removed seg=%llu",
			             (unsigned long long)v[i]);
	}
	if (r == 0)
		r = st->fs->sync_dir(st->fs, dir);
	r = bad ? bad : r;
	if (r == 0)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot remove expired segments in %s", dir);
}

void
mw_store_finish_removal(struct mw_store *st)
{
	struct mw_err err = {0};
	if (finish_all(st, &err) < 0) /* P5: mail is taken all the same */
		mw_store_say(st, MW_LOG_WARN,
		             "event=removal-unfinished error=%s text=\"%s\"",
		             mw_err_name(err.code), err.msg);
}

/* No dictionary of this writer is made from them any more (I18). It can know mail of its
 * own life only. */
static void
forget_mail(struct mw_store *st, uint64_t number)
{
	struct mw_seg *s = NULL;
	struct mw_frame f = {.seq = 0};
	if (!mw_dict_knows_mail(st) || number <= st->segments_before ||
	    mw_seg_open(st->fs, st->dir, number, st->id, &s, NULL) < 0)
		return;
	for (uint64_t off = s->h.length;; off += mw_frame_len(&f)) {
		/* of large records only the header is read */
		if (f.body_len < SMALL && off + AHEAD / 8 > s->ahead_at + s->ahead_n)
			mw_seg_ahead(s, off, AHEAD);
		if (mw_seg_frame(s, off, MW_CHECK_HEADER, &f, NULL, NULL) != 1)
			break;
		if (f.type == MW_TYPE_MAIL)
			mw_dict_forget(st, f.id);
	}
	mw_seg_free(s);
}

static int
check_newest(struct mw_store *st, const uint64_t *segment, size_t n, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n_seg;
	int r = mw_seg_list(st->fs, st->dir, &v, &n_seg, err);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (n_seg == 0 || segment[i] >= v[n_seg - 1])
			r = mw_fail(
			    err, MW_EUSAGE,
			    "segment %llu is the newest: the next one continues it",
			    (unsigned long long)segment[i]);
	return r;
}

int
mw_store_remove(struct mw_store *st, const uint64_t *segment, size_t n,
                struct mw_err *err)
{
	char dir[PATH_MAX], path[PATH_MAX], last[PATH_MAX];
	mw_assert(st->o.mode == MW_STORE_WRITE);
	int bad = 0, r = check_newest(st, segment, n, err);
	if (r < 0)
		return r;
	segments_path(st, dir);
	for (size_t i = 0; i < n; i++) {
		r = mw_redo_begin(st, segment[i], err);
		if (r < 0) { /* what was renamed is finished by the next run */
			while (i > 0)
				mw_redo_end(st, segment[--i]);
			return r;
		}
		forget_mail(st, segment[i]);
		mw_seg_path(path, sizeof path, st->dir, segment[i]);
		doomed_path(st, segment[i], last);
		int k = gone_is_fine(st->fs->rename(st->fs, path, last));
		bad = bad ? bad : k;
	}
	r = finish_all(st, err);
	if (bad && r == 0) {
		errno = -bad;
		r = mw_fail_errno(err, "cannot remove segments in %s", dir);
	}
	for (size_t i = 0; i < n; i++)
		mw_redo_end(st, segment[i]);
	return r;
}
