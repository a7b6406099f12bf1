#include "journal/segment/segment_int.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/sign.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FILL_SLICE = 1 << 20 /* zeros to a sync: a commit beside it waits for no more */
};

static const char end_magic[8] = "MWALEND1";

static int
fs_fail(struct mw_err *err, int r, const char *what, uint64_t number)
{
	errno = -r;
	return mw_fail_errno(err, "cannot %s segment %llu", what,
	                     (unsigned long long)number);
}

void
mw_seg_path(char *out, size_t n, const char *dir, uint64_t number)
{
	(void)snprintf(out, n, "%s/segments/%016llx.seg", dir,
	               (unsigned long long)number);
}

/* Three names, so that the thread that prepares and the one that commits never work on
 * the same file: fill.tmp is being filled, next.tmp is filled, new.tmp gets a header. */
static void
tmp_path(char out[PATH_MAX], const char *dir, const char *name)
{
	(void)snprintf(out, PATH_MAX, "%s/segments/%s", dir, name);
}

/* Writes zeros from `at` to `fill`. */
static int
zero_fill(const struct mw_fs *fs, int fd, uint64_t at, uint64_t fill)
{
	static char zeros[1 << 16];
	while (at < fill) {
		struct iovec iov[16];
		int n = 0;
		uint64_t to = at;
		while (n < 16 && to < fill) {
			uint64_t k = MW_MIN((uint64_t)sizeof zeros, fill - to);
			iov[n++] = (struct iovec){zeros, (size_t)k};
			to += k;
		}
		int r = fs->pwritev(fs, fd, iov, n, at);
		if (r < 0)
			return r;
		at = to;
	}
	return 0;
}

void
mw_seg_prepare(const struct mw_fs *fs, const char *dir, uint64_t fill)
{
	char next[PATH_MAX], tmp[PATH_MAX];
	tmp_path(next, dir, "next.tmp");
	tmp_path(tmp, dir, "fill.tmp");
	(void)fs->unlink(fs, tmp);
	int fd = fs->open(fs, tmp, MW_OPEN_READ | MW_OPEN_WRITE | MW_OPEN_CREATE);
	if (fd < 0)
		return;
	int r = 0;
	for (uint64_t at = 0; r == 0 && at < fill; at += FILL_SLICE) {
		r = zero_fill(fs, fd, at, MW_MIN(at + FILL_SLICE, fill));
		if (r == 0)
			r = fs->sync(fs, fd);
	}
	(void)fs->close(fs, fd);
	if (r == 0)
		r = fs->rename(fs, tmp, next);
	if (r < 0) /* full or failing: leave the space to real records */
		(void)fs->unlink(fs, tmp);
}

static int
copy_header(struct mw_seg *s, const struct mw_seg_header *h)
{
	s->h = *h;
	s->h.stanzas = malloc(h->stanzas_len ? h->stanzas_len : 1);
	if (!s->h.stanzas)
		return MW_ENOMEM;
	if (h->stanzas_len)
		memcpy(s->h.stanzas, h->stanzas, h->stanzas_len);
	size_t need = STANZAS_AT + h->stanzas_len;
	need = (need + MW_SEG_BLOCK - 1) / MW_SEG_BLOCK * MW_SEG_BLOCK;
	s->h.length = (uint32_t)(2 * need); /* the block and its copy */
	return 0;
}

/* Takes the prepared file or a new one, writes the header block, makes it durable (I3).
 */
static int
place_header(struct mw_seg *s, const char *dir, struct mw_err *err)
{
	char segs[PATH_MAX], next[PATH_MAX], tmp[PATH_MAX], path[PATH_MAX];
	const struct mw_fs *fs = s->fs;
	tmp_path(segs, dir, "");
	tmp_path(next, dir, "next.tmp");
	tmp_path(tmp, dir, "new.tmp");
	mw_seg_path(path, sizeof path, dir, s->h.number);
	(void)fs->unlink(fs, tmp);
	int flags = MW_OPEN_READ | MW_OPEN_WRITE;
	if (fs->rename(fs, next, tmp) < 0)
		flags |= MW_OPEN_CREATE;
	int fd = fs->open(fs, tmp, flags);
	if (fd < 0)
		return fs_fail(err, fd, "create", s->h.number);
	s->fd = fd;
	MW_AUTOFREE uint8_t *block = calloc(1, s->h.length);
	if (!block)
		return mw_fail(err, MW_ENOMEM, "out of memory for a segment header");
	mw_seg_header_put(&s->h, block);
	struct iovec iov = {block, s->h.length};
	int r = fs->pwritev(fs, fd, &iov, 1, 0);
	if (r == 0)
		r = fs->sync(fs, fd);
	if (r == 0)
		r = fs->rename(fs, tmp, path);
	if (r == 0)
		r = fs->sync_dir(fs, segs);
	if (r < 0) {
		s->dead = true;
		(void)fs->unlink(fs, tmp);
		return fs_fail(err, r, "start", s->h.number);
	}
	return 0;
}

int
mw_seg_create(const struct mw_fs *fs, const char *dir, const struct mw_seg_header *h,
              struct mw_seg **ret, struct mw_err *err)
{
	struct mw_seg *s = calloc(1, sizeof *s);
	if (!s)
		return mw_fail(err, MW_ENOMEM, "out of memory for a segment");
	s->fs = fs;
	s->fd = -1;
	s->writable = true;
	int r = copy_header(s, h);
	if (r < 0)
		(void)mw_fail(err, r, "out of memory for a segment");
	else
		r = place_header(s, dir, err);
	if (r < 0) {
		mw_seg_free(s);
		return r;
	}
	s->at = s->h.length;
	*ret = s;
	return 0;
}

int
mw_seg_write(struct mw_seg *s, struct iovec *iov, int n, size_t bytes, struct mw_err *err)
{
	if (s->dead) /* I5 */
		return mw_fail(err, MW_EPOISON, "segment %llu has failed before",
		               (unsigned long long)s->h.number);
	int r = s->fs->pwritev(s->fs, s->fd, iov, n, s->at);
	if (r < 0) {
		s->dead = true;
		return fs_fail(err, r, "write to", s->h.number);
	}
	s->at += bytes;
	return 0;
}

int
mw_seg_sync(struct mw_seg *s, struct mw_err *err)
{
	if (s->dead) /* I5 */
		return mw_fail(err, MW_EPOISON, "segment %llu has failed before",
		               (unsigned long long)s->h.number);
	int r = s->fs->sync(s->fs, s->fd);
	if (r < 0) {
		s->dead = true;
		return fs_fail(err, r, "sync", s->h.number);
	}
	return 0;
}

int
mw_seg_in_place(struct mw_seg *s, const char *dir, struct mw_err *err)
{
	char path[PATH_MAX];
	if (!s->fs->leads_to)
		return 0;
	mw_seg_path(path, sizeof path, dir, s->h.number);
	int r = s->fs->leads_to(s->fs, path, s->fd);
	if (r == 1)
		return 0;
	s->dead = true;
	if (r < 0)
		return fs_fail(err, r, "find", s->h.number);
	return mw_fail(err, MW_EIO,
	               "%s is gone: removed, moved away, or another file system is "
	               "mounted there",
	               path);
}

static uint32_t
trailer_crc(const uint8_t *p, const uint8_t *salt)
{
	return mw_crc32c(mw_crc32c(0, salt, MW_SALT_LEN), p + 12, MW_SEG_TRAILER - 12);
}

enum {
	SIGNED_LEN = 17 + MW_ID_LEN + MW_SALT_LEN + 8 + MW_HASH_LEN + 76,
	SIG_AT = 88
};

/* What a signature is over (FORMAT.md §5). */
static void
signed_bytes(const struct mw_seg_header *h, const uint8_t *trailer,
             uint8_t out[SIGNED_LEN])
{
	memcpy(out, "mailwal segment 1", 17);
	out += 17;
	memcpy(out, h->journal, MW_ID_LEN);
	out += MW_ID_LEN;
	memcpy(out, h->salt, MW_SALT_LEN);
	out += MW_SALT_LEN;
	mw_put64(out, h->number);
	memcpy(out + 8, h->chain, MW_HASH_LEN);
	memcpy(out + 8 + MW_HASH_LEN, trailer + 12, 76);
}

int
mw_seg_signed(const struct mw_seg *s, const uint8_t *pk)
{
	uint8_t msg[SIGNED_LEN];
	if (!(mw_get32(s->t.raw + 12) & 1))
		return 0;
	signed_bytes(&s->h, s->t.raw, msg);
	int r = mw_sign_check(pk, msg, sizeof msg, s->t.raw + SIG_AT);
	return r == 0 ? MW_EDAMAGED : r;
}

int
mw_seg_finish(struct mw_seg *s, const struct mw_seg_trailer *t, const uint8_t *seed,
              struct mw_err *err)
{
	uint8_t p[MW_SEG_TRAILER] = {0};
	memcpy(p, end_magic, 8);
	mw_put64(p + 16, t->close_off);
	mw_put64(p + 24, t->first_seq);
	mw_put64(p + 32, t->last_seq);
	mw_put64(p + 40, t->last_batch);
	mw_put64(p + 48, (uint64_t)t->time_us);
	memcpy(p + 56, t->chain, MW_HASH_LEN);
	if (seed) {
		uint8_t msg[SIGNED_LEN];
		mw_put32(p + 12, 1);
		signed_bytes(&s->h, p, msg);
		if (mw_sign(seed, msg, sizeof msg, p + SIG_AT) < 0)
			return mw_fail(err, MW_ENOMEM, "cannot sign segment %llu",
			               (unsigned long long)s->h.number);
	}
	mw_put32(p + 8, trailer_crc(p, s->h.salt));
	struct iovec iov = {p, sizeof p};
	int r = mw_seg_write(s, &iov, 1, sizeof p, err);
	if (r < 0)
		return r;
	r = s->fs->truncate(s->fs, s->fd, s->at);
	if (r < 0) {
		s->dead = true;
		return fs_fail(err, r, "cut to length", s->h.number);
	}
	return mw_seg_sync(s, err);
}

void
mw_seg_free(struct mw_seg *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		(void)s->fs->close(s->fs, s->fd);
	if (s->h.stanzas)
		explicit_bzero(s->h.stanzas, s->h.stanzas_len);
	free(s->h.stanzas);
	free(s->ahead);
	free(s);
}

/* ---- opening for reading ---- */

/* A valid trailer at the end of the file makes the segment closed. */
static int
trailer_get(struct mw_seg *s, struct mw_err *err)
{
	int64_t size = s->fs->size(s->fs, s->fd);
	if (size < 0)
		return fs_fail(err, (int)size, "read", s->h.number);
	s->size = (uint64_t)size;
	s->closed = false;
	if (s->size < s->h.length + MW_SEG_TRAILER)
		return 0;
	uint8_t p[MW_SEG_TRAILER];
	int64_t n = s->fs->pread(s->fs, s->fd, p, sizeof p, s->size - sizeof p);
	if (n < 0)
		return fs_fail(err, (int)n, "read", s->h.number);
	if (n != sizeof p || memcmp(p, end_magic, 8) != 0 ||
	    mw_get32(p + 8) != trailer_crc(p, s->h.salt))
		return 0;
	s->t.close_off = mw_get64(p + 16);
	s->t.first_seq = mw_get64(p + 24);
	s->t.last_seq = mw_get64(p + 32);
	s->t.last_batch = mw_get64(p + 40);
	s->t.time_us = (int64_t)mw_get64(p + 48);
	memcpy(s->t.chain, p + 56, MW_HASH_LEN);
	memcpy(s->t.raw, p, sizeof p);
	s->closed = true;
	return 0;
}

static bool
has_left(const struct mw_seg *s, const char *path)
{
	return s->fs->leads_to && s->fs->leads_to(s->fs, path, s->fd) == 0;
}

bool
mw_seg_left(const struct mw_seg *s, const char *dir)
{
	char path[PATH_MAX];
	mw_seg_path(path, sizeof path, dir, s->h.number);
	return has_left(s, path);
}

struct open_how {
	const char *dir;
	uint64_t number;
	const uint8_t *journal;
	int flags;
};

static int
open_seg(const struct mw_fs *fs, const struct open_how *how, struct mw_seg **ret,
         struct mw_err *err)
{
	char path[PATH_MAX];
	mw_seg_path(path, sizeof path, how->dir, how->number);
	int fd = fs->open(fs, path, how->flags);
	if (fd < 0)
		return fs_fail(err, fd, "open", how->number);
	struct mw_seg *s = calloc(1, sizeof *s);
	if (!s) {
		(void)fs->close(fs, fd);
		return mw_fail(err, MW_ENOMEM, "out of memory for a segment");
	}
	s->fs = fs;
	s->fd = fd;
	int r = mw_seg_header_get(s, how->number, how->journal, err);
	if (r == 0)
		r = trailer_get(s, err);
	if (r != MW_ENOMEM && (r < 0 || s->header_hurt) && has_left(s, path)) {
		mw_err_clear(err);
		r = fs_fail(err, -ENOENT, "open", how->number);
	}
	if (r < 0) {
		mw_seg_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int
mw_seg_open(const struct mw_fs *fs, const char *dir, uint64_t number,
            const uint8_t *journal, struct mw_seg **ret, struct mw_err *err)
{
	struct open_how how = {dir, number, journal, MW_OPEN_READ};
	return open_seg(fs, &how, ret, err);
}

int
mw_seg_open_disk(const struct mw_fs *fs, const char *dir, uint64_t number,
                 const uint8_t *journal, struct mw_seg **ret, struct mw_err *err)
{
	struct open_how how = {dir, number, journal, MW_OPEN_READ | MW_OPEN_NOCACHE};
	return open_seg(fs, &how, ret, err);
}

/* ---- the directory ---- */

struct listing {
	const char *suffix;
	uint64_t *v;
	size_t n, cap;
	bool nomem;
};

static int
list_one(void *arg, const char *name)
{
	struct listing *l = arg;
	uint8_t num[8];
	if (strlen(name) != 20 || strcmp(name + 16, l->suffix) != 0 ||
	    !mw_unhex(num, name, 8))
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		uint64_t *v = realloc(l->v, cap * sizeof *v);
		if (!v) {
			l->nomem = true;
			return 1;
		}
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = mw_get64be(num);
	return 0;
}

static int
cmp_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static int
list(const struct mw_fs *fs, const char *dir, const char *suffix, uint64_t **ret,
     size_t *ret_n, struct mw_err *err)
{
	char segs[PATH_MAX];
	struct listing l = {.suffix = suffix};
	(void)snprintf(segs, sizeof segs, "%s/segments", dir);
	int r = fs->list(fs, segs, list_one, &l);
	if (r < 0 || l.nomem) {
		free(l.v);
		if (l.nomem)
			return mw_fail(err, MW_ENOMEM, "out of memory for segments");
		errno = -r;
		return mw_fail_errno(err, "cannot list %s", segs);
	}
	if (l.n)
		qsort(l.v, l.n, sizeof *l.v, cmp_u64);
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}

int
mw_seg_list(const struct mw_fs *fs, const char *dir, uint64_t **ret, size_t *ret_n,
            struct mw_err *err)
{
	return list(fs, dir, ".seg", ret, ret_n, err);
}

int
mw_seg_list_doomed(const struct mw_fs *fs, const char *dir, uint64_t **ret, size_t *ret_n,
                   struct mw_err *err)
{
	return list(fs, dir, ".tmp", ret, ret_n, err);
}
