/* fs.h - the file system behind a table, so that tests can fail it and crash it.
 *
 * Every call returns >= 0 or a negative errno value. What a crash may do before the next
 * sync is said at each entry; tests/support brings implementations that do just that.
 * A directory entry is durable only after sync_dir() of its directory returned 0.
 */
#ifndef MW_BASE_FS_H
#define MW_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

enum mw_open {
	MW_OPEN_READ = 1,
	MW_OPEN_WRITE = 2,
	MW_OPEN_CREATE = 4,  /* with MW_OPEN_WRITE; fails with EEXIST if it is there */
	MW_OPEN_NOCACHE = 8, /* drop cached pages first: read what the disk has */
	MW_OPEN_SECRET = 16  /* with MW_OPEN_CREATE: mode 0600 */
};

/* What a path lies on. A file system that is none of these counts as local. */
enum mw_fs_kind {
	MW_FS_LOCAL,
	MW_FS_NETWORK, /* locks and syncs are another host's affair */
	MW_FS_MEMORY   /* gone with the next boot */
};

struct mw_fs {
	/* A descriptor. Mode of a new file: 0640 less umask. */
	int (*open)(const struct mw_fs *fs, const char *path, int flags);
	int (*close)(const struct mw_fs *fs, int fd);
	/* Bytes read, less than n only at the end of the file. */
	int64_t (*pread)(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off);
	/* All bytes or an error; before the next sync a crash may keep any of the
	 * 512-byte sectors touched, old or new. The iovec array may be changed. */
	int (*pwritev)(const struct mw_fs *fs, int fd, struct iovec *iov, int n,
	               uint64_t off);
	/* Makes all written data and the size durable. After a failure the state of
	 * every write since the last success is unknown: never write or sync again. */
	int (*sync)(const struct mw_fs *fs, int fd);
	int (*truncate)(const struct mw_fs *fs, int fd, uint64_t size);
	int64_t (*size)(const struct mw_fs *fs, int fd);
	int (*unlink)(const struct mw_fs *fs, const char *path);
	int (*rename)(const struct mw_fs *fs, const char *from, const char *to);
	int (*mkdir)(const struct mw_fs *fs, const char *path);
	int (*sync_dir)(const struct mw_fs *fs, const char *path);
	/* Calls cb for every entry but "." and ".."; stops when it returns non-zero. */
	int (*list)(const struct mw_fs *fs, const char *path,
	            int (*cb)(void *arg, const char *name), void *arg);
	/* Bytes that an unprivileged writer can still use. */
	int64_t (*free_space)(const struct mw_fs *fs, const char *path);
	/* 1: path leads to the file that fd has open; 0: it does not, or not any more.
	 * May be NULL: it always does. */
	int (*leads_to)(const struct mw_fs *fs, const char *path, int fd);
	/* An enum mw_fs_kind, *ret_name what people call it ("NFS"), static. May be NULL:
	 * local. */
	int (*lies_on)(const struct mw_fs *fs, const char *path, const char **ret_name);
	/* n bytes at off, where they are in memory already: until the next call of any
	 * kind. NULL: they are not. May be NULL: they never are. */
	const void *(*at_hand)(const struct mw_fs *fs, int fd, size_t n, uint64_t off);
	/* An open, unlinked file for spilling, in directory path. */
	int (*open_temp)(const struct mw_fs *fs, const char *path);
	void *ctx;
};

const struct mw_fs *mw_fs_posix(void);

/* For the first line of a program: standard input, output and error that are closed get
 * a descriptor that can be neither read nor written (EBADF, as before). Else the next
 * file that is opened would be one of them, and what is printed would go into it. */
void mw_fs_keep_standard(void);

/* Writes a whole new file: temp, sync, rename, sync of the directory. */
int mw_fs_write_file(const struct mw_fs *fs, const char *dir, const char *name,
                     const void *p, size_t n);
/* The same with mode 0600. */
int mw_fs_write_secret(const struct mw_fs *fs, const char *dir, const char *name,
                       const void *p, size_t n);
/* A file that a user named: as mw_fs_write_file(), in the real file system. What is
 * there, is no regular file (a device, a pipe, a link such as /dev/stdout) and belongs to
 * root or to us is kept and written to; what somebody else laid there is replaced.
 * -EISDIR for a path that ends with a slash. "-", and the file that standard output is:
 * standard output, after what was printed before. */
int mw_fs_write_named(const char *path, const void *p, size_t n);
/* And one to be read: as mw_fs_read_file(), through links, from a pipe or device to its
 * end, and for "-" from standard input. */
int mw_fs_read_named(const char *path, size_t max, void **ret, size_t *ret_n);
/* A file of ours, through links, as a stream; NULL with errno. A pipe in its place is not
 * waited for (ESPIPE). */
FILE *mw_fs_stream(const char *path);
bool mw_fs_is_pipe(const char *path);
/* Would that be possible, as far as can be seen? 0, or why not. Nothing is written. */
int mw_fs_may_write_named(const char *path);
/* Reads a whole file of at most max bytes into a malloc'd, NUL-terminated buffer;
 * *ret_n without the NUL. Negative errno; -EFBIG beyond max. */
int mw_fs_read_file(const struct mw_fs *fs, const char *path, size_t max, void **ret,
                    size_t *ret_n);

#endif
