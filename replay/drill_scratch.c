#include "replay/drill_scratch.h"

#include "journal/base/clock.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "mailwal-drill-"
#define LOCK   "lock"

enum {
	DEPTH_MAX = 64 /* we made it: it is not that deep */
};

/* Removes what is in the directory fd; links are not followed. */
static int
empty(int fd, int depth)
{
	struct dirent *e;
	struct stat sb;
	int r = 0, copy = dup(fd);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d || depth > DEPTH_MAX) {
		if (d)
			(void)closedir(d);
		else if (copy >= 0)
			(void)close(copy);
		return -1;
	}
	rewinddir(d);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &sb, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* gone meanwhile */
		if (!S_ISDIR(sb.st_mode)) {
			r |= unlinkat(fd, e->d_name, 0);
			continue;
		}
		MW_AUTOCLOSE int sub =
		    openat(fd, e->d_name,
		           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 || empty(sub, depth + 1) < 0)
			r = -1;
		else
			r |= unlinkat(fd, e->d_name, AT_REMOVEDIR);
	}
	(void)closedir(d);
	return r;
}

static int
remove_tree(const char *dir)
{
	MW_AUTOCLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || empty(fd, 0) < 0)
		return -1;
	return rmdir(dir);
}

/* A directory that a killed drill of ours left: nobody holds its lock. */
static int
remove_stale(void *arg, const char *name)
{
	const char *base = arg;
	char dir[PATH_MAX], lock[PATH_MAX + sizeof LOCK + 1];
	struct stat sb;
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0 ||
	    snprintf(dir, sizeof dir, "%s/%s", base, name) >= (int)sizeof dir)
		return 0;
	if (lstat(dir, &sb) < 0 || !S_ISDIR(sb.st_mode) || sb.st_uid != geteuid())
		return 0;
	(void)snprintf(lock, sizeof lock, "%s/" LOCK, dir);
	MW_AUTOCLOSE int fd = open(lock, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	/* Without a lock it is being made just now, or being removed. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		(void)remove_tree(dir);
	return 0;
}

int
mw_scratch_make(const char *base, struct mw_scratch *s, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	char lock[PATH_MAX + sizeof LOCK + 1], path[PATH_MAX];
	memset(s, 0, sizeof *s);
	s->lock = -1;
	if (!base)
		base = getenv("TMPDIR");
	if (!base || *base != '/')
		base = base && *base ? base : "/var/tmp";
	/* Dovecot and the Maildir target want whole paths. */
	if (!realpath(base, path))
		return mw_fail_errno(err, "no scratch directory %s", base);
	(void)fs->list(fs, path, remove_stale, path);
	if (snprintf(s->dir, sizeof s->dir, "%s/" PREFIX "XXXXXX", path) >=
	    PATH_MAX - 200) {
		s->dir[0] = '\0';
		return mw_fail(err, MW_EUSAGE, "the path %s is too long", base);
	}
	if (!mkdtemp(s->dir)) {
		s->dir[0] = '\0';
		return mw_fail_errno(err, "cannot make a scratch directory in %s", base);
	}
	(void)snprintf(lock, sizeof lock, "%s/" LOCK, s->dir);
	s->lock = open(lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->lock < 0 || flock(s->lock, LOCK_EX | LOCK_NB) < 0) {
		(void)mw_fail_errno(err, "cannot make %s", lock);
		(void)mw_scratch_end(s, NULL);
		return err ? err->code : MW_EIO;
	}
	return 0;
}

void
mw_scratch_maildir(struct mw_scratch *s)
{
	size_t n = (size_t)snprintf(s->target, sizeof s->target, "maildir:");
	for (const char *p = s->dir; *p && n + 16 < sizeof s->target; p++) {
		if (*p == '%') /* a letter of the pattern */
			s->target[n++] = '%';
		s->target[n++] = *p;
	}
	(void)snprintf(s->target + n, sizeof s->target - n, "/mail/%%u");
}

int
mw_scratch_room(const struct mw_scratch *s, uint64_t bytes, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	char want[32], have[32];
	int64_t n = fs->free_space(fs, s->dir);
	/* A block more for each message, and the server's own files: an eighth. */
	uint64_t need = bytes + bytes / 8 + (UINT64_C(16) << 20);
	if (n < 0 || (uint64_t)n >= need)
		return 0;
	mw_size_human(want, sizeof want, need);
	mw_size_human(have, sizeof have, (uint64_t)n);
	(void)mw_fail(err, MW_ENOSPC,
	              "a drill of this size needs %s in %s, and %s are free", want,
	              s->dir, have);
	(void)mw_err_hint(err, "a smaller --sample, or another place: --scratch DIR");
	return MW_ENOSPC;
}

int
mw_scratch_end(struct mw_scratch *s, struct mw_err *err)
{
	int r = 0;
	mw_scratch_stop(s);
	if (s->dir[0] && remove_tree(s->dir) < 0)
		r = mw_fail_errno(
		    err, "cannot remove the scratch directory %s: it may hold mail",
		    s->dir);
	if (s->dir[0] && s->lock >= 0)
		(void)close(s->lock);
	s->dir[0] = '\0';
	return r;
}
