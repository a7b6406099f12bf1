#include "tests/support/fs_mem_int.h"

#include "journal/base/err.h"
#include "journal/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fs_mem *
self(const struct mw_fs *fs)
{
	return fs->ctx;
}

/* Counts a call: 0 go on, else the errno to fail with. */
static int
called(struct fs_mem *m, enum fs_op op)
{
	m->calls[FS_ANY]++;
	m->calls[op]++;
	if (m->stop_at && m->calls[FS_ANY] >= m->stop_at)
		m->stopped = true;
	if (m->stopped)
		return EIO;
	const struct plan *p = &m->plan;
	uint64_t n = m->calls[p->op];
	if (p->err && (p->op == FS_ANY || p->op == op) && n >= p->from && n < p->to)
		return p->err;
	return 0;
}

struct name *
fs_mem_name(struct fs_mem *m, const char *path, bool make)
{
	for (size_t i = 0; i < m->n_names; i++)
		if (strcmp(m->names[i].path, path) == 0)
			return &m->names[i];
	if (!make)
		return NULL;
	mw_assert(m->n_names < FILES);
	struct name *n = &m->names[m->n_names++];
	memset(n, 0, sizeof *n);
	n->path = strdup(path);
	mw_assert(n->path);
	return n;
}

void
fs_mem_resize(struct image *im, size_t n)
{
	if (n > im->cap) {
		im->cap = n * 2;
		im->p = realloc(im->p, im->cap);
		mw_assert(im->p);
	}
	if (n > im->n)
		memset(im->p + im->n, 0, n - im->n);
	im->n = n;
}

static void
touch(struct inode *in, size_t off, size_t n)
{
	size_t last = (off + n + SECTOR - 1) / SECTOR;
	if (last > in->n_dirty) {
		in->dirty = realloc(in->dirty, last);
		mw_assert(in->dirty);
		memset(in->dirty + in->n_dirty, 0, last - in->n_dirty);
		in->n_dirty = last;
	}
	for (size_t i = off / SECTOR; i < last; i++)
		in->dirty[i] = 1;
}

static void
clean(struct inode *in)
{
	if (in->n_dirty)
		memset(in->dirty, 0, in->n_dirty);
}

struct inode *
fs_mem_keep(struct fs_mem *m, struct inode *in)
{
	mw_assert(in);
	in->next = m->all;
	m->all = in;
	return in;
}

static int
fm_open(const struct mw_fs *fs, const char *path, int flags)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int r = -called(m, FS_OPEN);
	struct name *n = r ? NULL : fs_mem_name(m, path, (flags & MW_OPEN_CREATE) != 0);
	if (!r && (flags & MW_OPEN_CREATE) && n->seen)
		r = -EEXIST;
	if (!r && !(flags & MW_OPEN_CREATE) && (!n || !n->seen))
		r = -ENOENT;
	if (!r && !n->seen)
		n->seen = fs_mem_keep(m, calloc(1, sizeof *n->seen));
	if (!r && (flags & MW_OPEN_NOCACHE) && n->seen->lost) {
		fs_mem_resize(&n->seen->seen, n->seen->disk.n);
		if (n->seen->disk.n)
			memcpy(n->seen->seen.p, n->seen->disk.p, n->seen->disk.n);
		clean(n->seen);
		n->seen->lost = false;
	}
	for (int fd = 0; !r && fd < FDS; fd++)
		if (!m->fd_used[fd]) {
			m->fd_used[fd] = true;
			m->fd_dead[fd] = false;
			m->fds[fd] = n->seen;
			(void)pthread_mutex_unlock(&m->mu);
			return fd + 1000;
		}
	(void)pthread_mutex_unlock(&m->mu);
	return r ? r : -EMFILE;
}

static int
fm_close(const struct mw_fs *fs, int fd)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	m->fd_used[fd - 1000] = false;
	(void)pthread_mutex_unlock(&m->mu);
	return 0;
}

static int64_t
fm_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_READ);
	struct image *im = &m->fds[fd - 1000]->seen;
	int64_t r = -e;
	if (!e) {
		size_t k = off >= im->n ? 0 : MW_MIN(n, im->n - (size_t)off);
		if (k)
			memcpy(p, im->p + off, k);
		r = (int64_t)k;
	}
	(void)pthread_mutex_unlock(&m->mu);
	return r;
}

static int
fm_pwritev(const struct mw_fs *fs, int fd, struct iovec *iov, int n, uint64_t off)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_WRITE);
	struct inode *in = m->fds[fd - 1000];
	m->sins += m->fd_dead[fd - 1000];
	/* A failing write leaves half of what it was given, as a full disk does; one that
	 * the machine stops at leaves all of it, unsynced. */
	bool stopping = m->stopped && m->calls[FS_ANY] == m->stop_at;
	for (int i = 0;
	     (!e || stopping || i < n / 2) && i < n && (!m->stopped || stopping); i++) {
		size_t end = (size_t)off + iov[i].iov_len;
		fs_mem_resize(&in->seen, MW_MAX(end, in->seen.n));
		memcpy(in->seen.p + off, iov[i].iov_base, iov[i].iov_len);
		touch(in, (size_t)off, iov[i].iov_len);
		off = end;
	}
	if (e)
		m->fd_dead[fd - 1000] = true;
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int
fm_sync(const struct mw_fs *fs, int fd)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_SYNC);
	struct inode *in = m->fds[fd - 1000];
	m->sins += m->fd_dead[fd - 1000];
	if (e) {
		m->fd_dead[fd - 1000] = true;
		if (!m->stopped) {
			in->lost = true; /* clean after a failed sync */
			clean(in);
		}
	} else if (!in->lost) {
		fs_mem_resize(&in->disk, in->seen.n);
		if (in->seen.n)
			memcpy(in->disk.p, in->seen.p, in->seen.n);
		clean(in);
	}
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int
fm_truncate(const struct mw_fs *fs, int fd, uint64_t size)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_OTHER);
	struct inode *in = m->fds[fd - 1000];
	if (!e) {
		fs_mem_resize(&in->seen, (size_t)size);
		touch(in, (size_t)size, 1);
	}
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int64_t
fm_size(const struct mw_fs *fs, int fd)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_READ);
	int64_t r = e ? -e : (int64_t)m->fds[fd - 1000]->seen.n;
	(void)pthread_mutex_unlock(&m->mu);
	return r;
}

static int
fm_unlink(const struct mw_fs *fs, const char *path)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_OTHER);
	struct name *n = fs_mem_name(m, path, false);
	if (!e && (!n || !n->seen))
		e = ENOENT;
	if (!e)
		n->seen = NULL; /* inodes live as long as the test */
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int
fm_rename(const struct mw_fs *fs, const char *from, const char *to)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_OTHER);
	struct name *a = fs_mem_name(m, from, false);
	if (!e && (!a || !a->seen))
		e = ENOENT;
	if (!e) {
		struct inode *in = a->seen;
		a->seen = NULL;
		fs_mem_name(m, to, true)->seen = in;
	}
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int
fm_mkdir(const struct mw_fs *fs, const char *path)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_OTHER);
	if (!e)
		fs_mem_name(m, path, true)->is_dir = true;
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static bool
inside(const char *dir, const char *path)
{
	size_t n = strlen(dir);
	while (n && dir[n - 1] == '/')
		n--;
	return strncmp(dir, path, n) == 0 && path[n] == '/' && path[n + 1] &&
	       !strchr(path + n + 1, '/');
}

static int
fm_sync_dir(const struct mw_fs *fs, const char *path)
{
	struct fs_mem *m = self(fs);
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_SYNC_DIR);
	for (size_t i = 0; !e && i < m->n_names; i++)
		if (inside(path, m->names[i].path))
			m->names[i].disk = m->names[i].seen;
	(void)pthread_mutex_unlock(&m->mu);
	return -e;
}

static int
fm_list(const struct mw_fs *fs, const char *path, int (*cb)(void *, const char *),
        void *arg)
{
	struct fs_mem *m = self(fs);
	char *found[FILES];
	size_t n = 0;
	(void)pthread_mutex_lock(&m->mu);
	int e = called(m, FS_READ);
	for (size_t i = 0; !e && i < m->n_names; i++)
		if ((m->names[i].seen || m->names[i].is_dir) &&
		    inside(path, m->names[i].path))
			found[n++] = strdup(strrchr(m->names[i].path, '/') + 1);
	(void)pthread_mutex_unlock(&m->mu);
	int r = -e;
	for (size_t i = 0; i < n; i++) {
		if (!r)
			r = cb(arg, found[i]);
		free(found[i]);
	}
	return r;
}

static int64_t
fm_free_space(const struct mw_fs *fs, const char *path)
{
	(void)path;
	return self(fs)->space;
}

static int
fm_open_temp(const struct mw_fs *fs, const char *path)
{
	static unsigned serial;
	char name[300];
	(void)snprintf(name, sizeof name, "%.200s/spill-%u", path,
	               __atomic_add_fetch(&serial, 1, __ATOMIC_SEQ_CST));
	int fd = fm_open(fs, name, MW_OPEN_READ | MW_OPEN_WRITE | MW_OPEN_CREATE);
	if (fd >= 0) { /* not counted: a crash of the machine loses it anyway */
		struct fs_mem *m = self(fs);
		(void)pthread_mutex_lock(&m->mu);
		fs_mem_name(m, name, true)->seen = NULL;
		(void)pthread_mutex_unlock(&m->mu);
	}
	return fd;
}

struct fs_mem *
fs_mem_new(void)
{
	struct fs_mem *m = calloc(1, sizeof *m);
	mw_assert(m);
	(void)pthread_mutex_init(&m->mu, NULL);
	m->space = INT64_C(1) << 40;
	m->fs = (struct mw_fs){.open = fm_open,
	                       .close = fm_close,
	                       .pread = fm_pread,
	                       .pwritev = fm_pwritev,
	                       .sync = fm_sync,
	                       .truncate = fm_truncate,
	                       .size = fm_size,
	                       .unlink = fm_unlink,
	                       .rename = fm_rename,
	                       .mkdir = fm_mkdir,
	                       .sync_dir = fm_sync_dir,
	                       .list = fm_list,
	                       .free_space = fm_free_space,
	                       .open_temp = fm_open_temp,
	                       .ctx = m};
	return m;
}

void
fs_mem_free(struct fs_mem *m)
{
	while (m->all) {
		struct inode *in = m->all;
		m->all = in->next;
		free(in->seen.p);
		free(in->disk.p);
		free(in->dirty);
		free(in);
	}
	for (size_t i = 0; i < m->n_names; i++)
		free(m->names[i].path);
	(void)pthread_mutex_destroy(&m->mu);
	free(m);
}

const struct mw_fs *
fs_mem_fs(struct fs_mem *m)
{
	return &m->fs;
}

void
fs_mem_fail(struct fs_mem *m, enum fs_op op, uint64_t n, int e, uint64_t times)
{
	(void)pthread_mutex_lock(&m->mu);
	uint64_t from = m->calls[op] + n;
	m->plan = (struct plan){op, from, times ? from + times : UINT64_MAX, e};
	(void)pthread_mutex_unlock(&m->mu);
}

void
fs_mem_stop_at(struct fs_mem *m, uint64_t n)
{
	(void)pthread_mutex_lock(&m->mu);
	m->stop_at = m->calls[FS_ANY] + n;
	(void)pthread_mutex_unlock(&m->mu);
}

void
fs_mem_revive(struct fs_mem *m)
{
	(void)pthread_mutex_lock(&m->mu);
	m->stopped = false;
	m->stop_at = 0;
	m->plan.err = 0;
	(void)pthread_mutex_unlock(&m->mu);
}

uint64_t
fs_mem_calls(const struct fs_mem *m, enum fs_op op)
{
	return m->calls[op];
}

uint64_t
fs_mem_sins(const struct fs_mem *m)
{
	return m->sins;
}

void
fs_mem_free_space(struct fs_mem *m, int64_t bytes)
{
	m->space = bytes;
}

uint8_t *
fs_mem_bytes(struct fs_mem *m, const char *path, size_t *ret_n)
{
	struct name *n = fs_mem_name(m, path, false);
	if (!n || !n->seen)
		return NULL;
	*ret_n = n->seen->seen.n;
	return n->seen->seen.p;
}
