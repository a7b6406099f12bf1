/* target_mbox_lock.c - FILE.lock, as others lock an mbox, with a note for the next run.
 */
#include "replay/target_files.h"
#include "replay/target_mbox.h"

#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	TRIES = 50,
	NAP_MS = 200
};

static bool
trusted(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

/* As root: a new mbox in somebody's directory is his. */
static int
give(int fd, const char *path)
{
	char dir[PATH_MAX];
	struct stat st;
	if (geteuid() != 0)
		return 0;
	(void)snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	return stat(slash ? dir : ".", &st) < 0 || fchown(fd, st.st_uid, st.st_gid) < 0
	           ? -1
	           : 0;
}

int
mw_mbox_open(const char *path, int flags, struct mw_err *err)
{
	struct stat st;
	bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
	if (link && !trusted(st.st_uid))
		return mw_fail(err, MW_EPERM,
		               "%s is a link that somebody else laid there", path);
	/* Who lays one there now is somebody else, too. */
	flags |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (link ? 0 : O_NOFOLLOW);
	int fd = open(path, flags & ~O_CREAT);
	if (fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
		fd = open(path, flags | (link ? 0 : O_EXCL), 0600);
		if (fd >= 0 && !link && give(fd, path) < 0) {
			int e = errno;
			(void)close(fd);
			fd = -1;
			errno = e;
		}
	}
	return fd < 0 ? mw_fail_errno(err, "cannot open %s", path) : fd;
}

int
mw_mbox_lock_note(const struct mw_mbox_lock *l, uint64_t size, struct mw_err *err)
{
	char text[400], host[200] = "localhost";
	(void)gethostname(host, sizeof host - 1);
	int n = snprintf(text, sizeof text, "mailwal %d %s %llu\n", (int)getpid(), host,
	                 (unsigned long long)size);
	if (pwrite(l->fd, text, (size_t)n, 0) != n || ftruncate(l->fd, n) < 0 ||
	    fdatasync(l->fd) < 0)
		return mw_fail_errno(err, "cannot write %s", l->path);
	return 0;
}

/* Does it say that a mailwal of this host had it, which is no more? */
static bool
is_dead(int fd, unsigned long long *ret_size)
{
	char text[400] = "", host[200] = "", mine[200] = "localhost";
	int pid = 0;
	(void)gethostname(mine, sizeof mine - 1);
	return read(fd, text, sizeof text - 1) > 0 &&
	       sscanf(text, "mailwal %d %199s %llu", &pid, host, ret_size) == 3 &&
	       pid > 0 && strcmp(host, mine) == 0 && kill(pid, 0) < 0 && errno == ESRCH;
}

/* Cuts what it left half-written. The lock's word is taken only for a file of its owner,
 * or if it is root's or ours. */
static bool
cut_back(const char *path, uid_t of, unsigned long long size)
{
	struct mw_err why;
	struct stat st;
	int open_fd = mw_mbox_open(path, O_RDWR, &why);
	if (open_fd < 0)
		return open_fd == MW_ENOTFOUND;
	MW_AUTOCLOSE int fd = open_fd;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       (trusted(of) || of == st.st_uid) &&
	       ((unsigned long long)st.st_size <= size ||
	        ftruncate(fd, (off_t)size) == 0);
}

/* Two that find it dead do not both break it, and cut what the first has put since: who
 * does, or holds it, has it locked. */
static bool
break_dead(const struct mw_mbox_lock *l, const char *path)
{
	unsigned long long size = 0;
	struct stat own, now;
	MW_AUTOCLOSE int fd =
	    open(l->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
	       is_dead(fd, &size) && fstat(fd, &own) == 0 && lstat(l->path, &now) == 0 &&
	       own.st_ino == now.st_ino && own.st_dev == now.st_dev &&
	       cut_back(path, own.st_uid, size) && unlink(l->path) == 0;
}

static int
no_parent(const char *dir, struct mw_err *err)
{
	(void)mw_fail(err, MW_ECREATE, "%s: no such directory", dir);
	return mw_err_hint(err, "--create makes it");
}

/* The directory that the mbox and its lock file lie in. */
static int
make_parent(const struct mw_target *t, const char *path, struct mw_err *err)
{
	char dir[PATH_MAX];
	(void)snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/');
	if (!slash || slash == dir || access(dir, F_OK) == 0)
		return 0;
	*slash = '\0';
	bool there = access(dir, F_OK) == 0;
	if (!there && errno != ENOENT)
		return 0; /* what is wrong with it the lock file tells */
	if (t->o.create)
		return mw_files_mkdirs(dir, err); /* also waits for one half made */
	return there ? 0 : no_parent(dir, err);
}

int
mw_mbox_parent_dry(const struct mw_target *t, const char *path, struct mw_err *err)
{
	char dir[PATH_MAX];
	(void)snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/');
	if (!slash || slash == dir || access(dir, F_OK) == 0)
		return 0;
	*slash = '\0';
	bool missing = access(dir, F_OK) < 0 && errno == ENOENT;
	return missing && !t->o.create ? no_parent(dir, err)
	                               : mw_files_mkdirs_dry(dir, err);
}

int
mw_mbox_lock(struct mw_mbox_lock *l, const struct mw_target *t, const char *path,
             struct mw_err *err)
{
	int r = make_parent(t, path, err);
	l->fd = -1;
	if (r < 0)
		return r;
	if (snprintf(l->path, sizeof l->path, "%s.lock", path) >= (int)sizeof l->path)
		return mw_fail(err, MW_EUSAGE, "path too long");
	for (int i = 0; i < TRIES; i++) {
		l->fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (l->fd >= 0) { /* before it says anything; nobody else can have it */
			(void)flock(l->fd, LOCK_EX | LOCK_NB);
			return 0;
		}
		if (errno != EEXIST)
			return errno == ENOENT || errno == ENOTDIR
			           ? mw_fail(err, MW_ECREATE,
			                     "cannot make %s: no such directory", l->path)
			           : mw_fail_errno(err, "cannot make %s", l->path);
		if (break_dead(l, path))
			continue;
		if (t->o.stopped && t->o.stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		(void)poll(NULL, 0, NAP_MS);
	}
	mw_fail(err, MW_ELOCKED, "%s is locked", path);
	return mw_err_hint(err, "%s is there; delete it if nobody uses the mbox",
	                   l->path);
}

void
mw_mbox_unlock(struct mw_mbox_lock *l)
{
	if (l->fd < 0)
		return;
	(void)unlink(l->path);
	(void)close(l->fd);
	l->fd = -1;
}
