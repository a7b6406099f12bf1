#include "journal/base/fs.h"

#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

void
mw_fs_keep_standard(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)open("/", O_PATH); /* the lowest that is free: fd */
}

static int
px_open(const struct mw_fs *fs, const char *path, int flags)
{
	(void)fs;
	int f = O_CLOEXEC | O_NOFOLLOW;
	if ((flags & MW_OPEN_WRITE) && (flags & MW_OPEN_READ))
		f |= O_RDWR;
	else if (flags & MW_OPEN_WRITE)
		f |= O_WRONLY;
	if (flags & MW_OPEN_CREATE)
		f |= O_CREAT | O_EXCL;
	else
		f |= O_NONBLOCK; /* a pipe that somebody laid there is not waited for */
	int fd = open(path, f, flags & MW_OPEN_SECRET ? 0600 : 0640);
	if (fd < 0)
		return -errno;
	if (flags & MW_OPEN_NOCACHE)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return fd;
}

static int
px_close(const struct mw_fs *fs, int fd)
{
	(void)fs;
	return close(fd) < 0 ? -errno : 0;
}

static int64_t
px_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	(void)fs;
	size_t done = 0;
	while (done < n) {
		ssize_t r = pread(fd, (char *)p + done, n - done, (off_t)(off + done));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (int64_t)done;
}

static int
px_pwritev(const struct mw_fs *fs, int fd, struct iovec *iov, int n, uint64_t off)
{
	(void)fs;
	while (n > 0) {
		ssize_t r = pwritev(fd, iov, n > IOV_MAX ? IOV_MAX : n, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0 && iov->iov_len)
			return -EIO;
		off += (uint64_t)r;
		size_t left = (size_t)r;
		while (n > 0 && left >= iov->iov_len) {
			left -= iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + left;
			iov->iov_len -= left;
		}
	}
	return 0;
}

static int
px_sync(const struct mw_fs *fs, int fd)
{
	(void)fs;
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int
px_truncate(const struct mw_fs *fs, int fd, uint64_t size)
{
	(void)fs;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static int64_t
px_size(const struct mw_fs *fs, int fd)
{
	(void)fs;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISFIFO(st.st_mode) ? -ESPIPE : (int64_t)st.st_size;
}

static int
px_leads_to(const struct mw_fs *fs, const char *path, int fd)
{
	(void)fs;
	struct stat is, named;
	if (fstat(fd, &is) < 0)
		return -errno;
	if (stat(path, &named) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	return is.st_dev == named.st_dev && is.st_ino == named.st_ino;
}

static int
px_unlink(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	return unlink(path) < 0 ? -errno : 0;
}

static int
px_rename(const struct mw_fs *fs, const char *from, const char *to)
{
	(void)fs;
	return rename(from, to) < 0 ? -errno : 0;
}

static int
px_mkdir(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	return mkdir(path, 0750) < 0 ? -errno : 0;
}

static int
px_sync_dir(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = fsync(fd) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

static int
px_list(const struct mw_fs *fs, const char *path, int (*cb)(void *, const char *),
        void *arg)
{
	(void)fs;
	DIR *d = opendir(path);
	if (!d)
		return -errno;
	int r = 0;
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e) {
			r = errno ? -errno : 0;
			break;
		}
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = cb(arg, e->d_name);
		if (r)
			break;
	}
	(void)closedir(d);
	return r;
}

static int64_t
px_free_space(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	struct statvfs v;
	if (statvfs(path, &v) < 0)
		return -errno;
	return (int64_t)(v.f_bavail * v.f_frsize);
}

/* statfs(2) lists the numbers; those without a name in linux/magic.h by value. */
static int
px_lies_on(const struct mw_fs *fs, const char *path, const char **ret_name)
{
	static const struct {
		uint32_t magic;
		enum mw_fs_kind kind;
		const char *name;
	} known[] = {
	    {NFS_SUPER_MAGIC, MW_FS_NETWORK, "NFS"},
	    {SMB_SUPER_MAGIC, MW_FS_NETWORK, "SMB"},
	    {CIFS_SUPER_MAGIC, MW_FS_NETWORK, "SMB"},
	    {SMB2_SUPER_MAGIC, MW_FS_NETWORK, "SMB"},
	    {AFS_SUPER_MAGIC, MW_FS_NETWORK, "AFS"},
	    {AFS_FS_MAGIC, MW_FS_NETWORK, "AFS"},
	    {CODA_SUPER_MAGIC, MW_FS_NETWORK, "Coda"},
	    {NCP_SUPER_MAGIC, MW_FS_NETWORK, "NCP"},
	    {V9FS_MAGIC, MW_FS_NETWORK, "9P"},
	    {CEPH_SUPER_MAGIC, MW_FS_NETWORK, "CephFS"},
	    {TMPFS_MAGIC, MW_FS_MEMORY, "tmpfs"},
	    {RAMFS_MAGIC, MW_FS_MEMORY, "ramfs"},
	};
	struct statfs v;
	(void)fs;
	if (statfs(path, &v) < 0)
		return -errno;
	for (size_t i = 0; i < MW_COUNT(known); i++)
		if ((uint32_t)v.f_type == known[i].magic) {
			*ret_name = known[i].name;
			return (int)known[i].kind;
		}
	*ret_name = "a local file system";
	return MW_FS_LOCAL;
}

static int
px_open_temp(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	if (errno != EOPNOTSUPP && errno != EISDIR)
		return -errno;
	char tmp[PATH_MAX];
	if (snprintf(tmp, sizeof tmp, "%s/.spill-XXXXXX", path) >= (int)sizeof tmp)
		return -ENAMETOOLONG;
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)unlink(tmp);
	return fd;
}

const struct mw_fs *
mw_fs_posix(void)
{
	static const struct mw_fs fs = {
	    .open = px_open,
	    .close = px_close,
	    .pread = px_pread,
	    .pwritev = px_pwritev,
	    .sync = px_sync,
	    .truncate = px_truncate,
	    .size = px_size,
	    .unlink = px_unlink,
	    .rename = px_rename,
	    .mkdir = px_mkdir,
	    .sync_dir = px_sync_dir,
	    .list = px_list,
	    .leads_to = px_leads_to,
	    .free_space = px_free_space,
	    .lies_on = px_lies_on,
	    .open_temp = px_open_temp,
	};
	return &fs;
}

static int
write_new(const struct mw_fs *fs, const char *dir, const char *name,
          const struct iovec *in, int flags)
{
	char tmp[PATH_MAX], path[PATH_MAX];
	if (snprintf(tmp, sizeof tmp, "%s/.%s.tmp", dir, name) >= (int)sizeof tmp ||
	    snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return -ENAMETOOLONG;
	(void)fs->unlink(fs, tmp);
	int fd = fs->open(fs, tmp, MW_OPEN_WRITE | MW_OPEN_CREATE | flags);
	if (fd < 0)
		return fd;
	char *copy =
	    malloc(in->iov_len ? in->iov_len : 1); /* iovec wants a mutable base */
	int r = copy ? 0 : -ENOMEM;
	if (!r) {
		memcpy(copy, in->iov_base, in->iov_len);
		struct iovec iov = {copy, in->iov_len};
		r = fs->pwritev(fs, fd, &iov, 1, 0);
	}
	free(copy);
	if (!r)
		r = fs->sync(fs, fd);
	int c = fs->close(fs, fd);
	if (!r)
		r = c;
	if (!r)
		r = fs->rename(fs, tmp, path);
	if (!r)
		return fs->sync_dir(fs, dir);
	(void)fs->unlink(fs, tmp);
	return r;
}

static struct iovec
vec(const void *p, size_t n)
{
	union {
		const void *in;
		void *out;
	} u = {p};
	return (struct iovec){u.out, n};
}

int
mw_fs_write_file(const struct mw_fs *fs, const char *dir, const char *name, const void *p,
                 size_t n)
{
	struct iovec v = vec(p, n);
	return write_new(fs, dir, name, &v, 0);
}

int
mw_fs_write_secret(const struct mw_fs *fs, const char *dir, const char *name,
                   const void *p, size_t n)
{
	struct iovec v = vec(p, n);
	return write_new(fs, dir, name, &v, MW_OPEN_SECRET);
}

/* What is there stays what it is: a device, say, or a link, whose file may be missing. */
static int
write_whole(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

static int
write_through(const char *path, const char *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0640);
	int r = fd < 0 ? -errno : write_whole(fd, p, n);
	/* What is no file has nothing to sync. */
	if (r == 0 && fsync(fd) < 0 && errno != EINVAL && errno != ENOTSUP &&
	    errno != EROFS)
		r = -errno;
	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

/* The directory that the path is in, and its name there; ret_through: it is no file, and
 * is written to as it is. */
static int
parts(const char *path, char dir[PATH_MAX], const char **ret_name, bool *ret_through)
{
	struct stat st;
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t len = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
	if (*name == '\0')
		return -EISDIR;
	if (len >= PATH_MAX)
		return -ENAMETOOLONG;
	*ret_through = lstat(path, &st) == 0 && !S_ISREG(st.st_mode) &&
	               (st.st_uid == 0 || st.st_uid == geteuid());
	memcpy(dir, slash ? path : ".", slash ? len : 1);
	dir[slash ? len : 1] = '\0';
	*ret_name = name;
	return 0;
}

/* "-", or the file that standard output goes to: opened anew it would be written over. */
static bool
is_stdout(const char *path)
{
	struct stat a, b;
	return strcmp(path, "-") == 0 || (stat(path, &a) == 0 && S_ISREG(a.st_mode) &&
	                                  fstat(STDOUT_FILENO, &b) == 0 &&
	                                  a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

int
mw_fs_write_named(const char *path, const void *p, size_t n)
{
	char dir[PATH_MAX];
	const char *name;
	bool through;
	if (is_stdout(path))
		return fflush(stdout) ? -errno : write_whole(STDOUT_FILENO, p, n);
	int r = parts(path, dir, &name, &through);
	if (r < 0)
		return r;
	return through ? write_through(path, p, n)
	               : mw_fs_write_file(mw_fs_posix(), dir, name, p, n);
}

int
mw_fs_may_write_named(const char *path)
{
	char dir[PATH_MAX];
	const char *name;
	struct stat st;
	bool through;
	if (is_stdout(path))
		return 0;
	int r = parts(path, dir, &name, &through);
	if (r < 0)
		return r;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return -EISDIR;
	if (through && access(path, W_OK) == 0)
		return 0;
	if (through) /* what a link leads to may be made */
		return errno == ENOENT ? 0 : -errno;
	if (stat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return access(dir, W_OK | X_OK) < 0 ? -errno : 0;
}

int
mw_fs_read_file(const struct mw_fs *fs, const char *path, size_t max, void **ret,
                size_t *ret_n)
{
	int fd = fs->open(fs, path, MW_OPEN_READ);
	if (fd < 0)
		return fd;
	int64_t size = fs->size(fs, fd);
	int r = size < 0 ? (int)size : (uint64_t)size > max ? -EFBIG : 0;
	char *p = r ? NULL : malloc((size_t)size + 1);
	if (!r && !p)
		r = -ENOMEM;
	if (!r) {
		int64_t n = fs->pread(fs, fd, p, (size_t)size, 0);
		if (n < 0)
			r = (int)n;
		else
			size = n;
	}
	(void)fs->close(fs, fd);
	if (r) {
		free(p);
		return r;
	}
	p[size] = '\0';
	*ret = p;
	*ret_n = (size_t)size;
	return 0;
}

int
mw_fs_read_named(const char *path, size_t max, void **ret, size_t *ret_n)
{
	bool in = strcmp(path, "-") == 0;
	int fd = in ? STDIN_FILENO : open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	char *p = r ? NULL : malloc(max + 1);
	size_t n = 0;
	if (!r && !p)
		r = -ENOMEM;
	while (!r) {
		ssize_t k = read(fd, p + n, max + 1 - n);
		if (k == 0)
			break;
		if (k < 0)
			r = errno == EINTR ? 0 : -errno;
		else if ((n += (size_t)k) > max)
			r = -EFBIG;
	}
	if (fd >= 0 && !in)
		(void)close(fd);
	if (r) {
		free(p);
		return r;
	}
	p[n] = '\0';
	*ret = p;
	*ret_n = n;
	return 0;
}

FILE *
mw_fs_stream(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	FILE *f = NULL;
	if (fd >= 0 && fstat(fd, &st) == 0) {
		errno = ESPIPE;
		f = S_ISREG(st.st_mode) ? fdopen(fd, "r") : NULL;
	}
	if (fd >= 0 && !f) {
		int e = errno;
		(void)close(fd);
		errno = e;
	}
	return f;
}

bool
mw_fs_is_pipe(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
}
