#include "journal/base/window.h"

#include "journal/base/err.h"
#include "journal/base/util.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FILES = 24,
	PAGE = 4096
};

struct stretch {
	int fd; /* -1: none */
	uint64_t off;
	size_t n;
	const uint8_t *p;
};

struct mw_window {
	struct mw_fs fs;
	const struct mw_fs *below;
	struct stretch shown, ahead;
	struct {
		char path[PATH_MAX];
		int fd;
		unsigned users; /* 0: free */
	} file[FILES];
	size_t cap;
	uint8_t buf[];
};

static int
win_open(const struct mw_fs *fs, const char *path, int flags)
{
	struct mw_window *w = fs->ctx;
	size_t slot = FILES;
	if (flags != MW_OPEN_READ)
		return w->below->open(w->below, path, flags);
	for (size_t i = 0; i < FILES; i++) {
		if (w->file[i].users && strcmp(w->file[i].path, path) == 0) {
			w->file[i].users++;
			return w->file[i].fd;
		}
		if (!w->file[i].users)
			slot = i;
	}
	int fd = w->below->open(w->below, path, flags);
	if (fd < 0 || slot == FILES || strlen(path) >= sizeof w->file[slot].path)
		return fd;
	(void)snprintf(w->file[slot].path, sizeof w->file[slot].path, "%s", path);
	w->file[slot].fd = fd;
	w->file[slot].users = 1;
	return fd;
}

static int
win_close(const struct mw_fs *fs, int fd)
{
	struct mw_window *w = fs->ctx;
	for (size_t i = 0; i < FILES; i++)
		if (w->file[i].users && w->file[i].fd == fd && --w->file[i].users)
			return 0;
	if (w->shown.fd == fd)
		w->shown.fd = -1;
	if (w->ahead.fd == fd)
		w->ahead.fd = -1;
	return w->below->close(w->below, fd);
}

static bool
has(const struct stretch *s, int fd, uint64_t off, size_t n)
{
	return s->fd == fd && off >= s->off && off - s->off <= s->n &&
	       n <= s->n - (size_t)(off - s->off);
}

static int64_t
win_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	struct mw_window *w = fs->ctx;
	const struct stretch *s = has(&w->shown, fd, off, n) ? &w->shown : &w->ahead;
	if (!has(s, fd, off, n)) {
		if (n > w->cap - PAGE)
			return w->below->pread(w->below, fd, p, n, off);
		uint64_t from = off & ~(uint64_t)(PAGE - 1);
		w->ahead.fd = -1;
		int64_t k = w->below->pread(w->below, fd, w->buf, w->cap, from);
		/* A bad place further on is no concern of this read. */
		if (k < 0)
			return w->below->pread(w->below, fd, p, n, off);
		w->ahead = (struct stretch){fd, from, (size_t)k, w->buf};
		if (off - from >= (uint64_t)k)
			return 0;
		n = MW_MIN(n, (size_t)k - (size_t)(off - from));
		s = &w->ahead;
	}
	if (n)
		memcpy(p, s->p + (size_t)(off - s->off), n);
	return (int64_t)n;
}

static const void *
win_at_hand(const struct mw_fs *fs, int fd, size_t n, uint64_t off)
{
	const struct mw_window *w = fs->ctx;
	const struct stretch *s = has(&w->shown, fd, off, n) ? &w->shown : &w->ahead;
	return has(s, fd, off, n) ? s->p + (size_t)(off - s->off) : NULL;
}

static int
win_pwritev(const struct mw_fs *fs, int fd, struct iovec *iov, int n, uint64_t off)
{
	struct mw_window *w = fs->ctx;
	mw_window_forget(w);
	return w->below->pwritev(w->below, fd, iov, n, off);
}

static int
win_sync(const struct mw_fs *fs, int fd)
{
	const struct mw_window *w = fs->ctx;
	return w->below->sync(w->below, fd);
}

static int
win_truncate(const struct mw_fs *fs, int fd, uint64_t size)
{
	struct mw_window *w = fs->ctx;
	mw_window_forget(w);
	return w->below->truncate(w->below, fd, size);
}

static int64_t
win_size(const struct mw_fs *fs, int fd)
{
	const struct mw_window *w = fs->ctx;
	return w->below->size(w->below, fd);
}

static int
win_unlink(const struct mw_fs *fs, const char *path)
{
	const struct mw_window *w = fs->ctx;
	return w->below->unlink(w->below, path);
}

static int
win_rename(const struct mw_fs *fs, const char *from, const char *to)
{
	const struct mw_window *w = fs->ctx;
	return w->below->rename(w->below, from, to);
}

static int
win_mkdir(const struct mw_fs *fs, const char *path)
{
	const struct mw_window *w = fs->ctx;
	return w->below->mkdir(w->below, path);
}

static int
win_sync_dir(const struct mw_fs *fs, const char *path)
{
	const struct mw_window *w = fs->ctx;
	return w->below->sync_dir(w->below, path);
}

static int
win_list(const struct mw_fs *fs, const char *path, int (*cb)(void *arg, const char *name),
         void *arg)
{
	const struct mw_window *w = fs->ctx;
	return w->below->list(w->below, path, cb, arg);
}

static int64_t
win_free_space(const struct mw_fs *fs, const char *path)
{
	const struct mw_window *w = fs->ctx;
	return w->below->free_space(w->below, path);
}

static int
win_open_temp(const struct mw_fs *fs, const char *path)
{
	const struct mw_window *w = fs->ctx;
	return w->below->open_temp(w->below, path);
}

struct mw_window *
mw_window_new(const struct mw_fs *below, size_t bytes)
{
	static const struct mw_fs table = {
	    .open = win_open,
	    .close = win_close,
	    .pread = win_pread,
	    .pwritev = win_pwritev,
	    .sync = win_sync,
	    .truncate = win_truncate,
	    .size = win_size,
	    .unlink = win_unlink,
	    .rename = win_rename,
	    .mkdir = win_mkdir,
	    .sync_dir = win_sync_dir,
	    .list = win_list,
	    .free_space = win_free_space,
	    .open_temp = win_open_temp,
	    .at_hand = win_at_hand,
	};
	mw_assert(bytes >= (size_t)2 * PAGE);
	struct mw_window *w = malloc(sizeof *w + bytes);
	if (!w)
		return NULL;
	w->fs = table;
	w->fs.ctx = w;
	w->below = below;
	w->cap = bytes;
	for (size_t i = 0; i < FILES; i++)
		w->file[i].users = 0;
	mw_window_forget(w);
	return w;
}

void
mw_window_free(struct mw_window *w)
{
	free(w);
}

const struct mw_fs *
mw_window_fs(const struct mw_window *w)
{
	return &w->fs;
}

void
mw_window_show(struct mw_window *w, int fd, uint64_t off, const void *p, size_t n)
{
	w->shown = (struct stretch){fd, off, n, p};
}

void
mw_window_forget(struct mw_window *w)
{
	w->shown.fd = w->ahead.fd = -1;
}
