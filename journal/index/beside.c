#include "journal/index/beside.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static void
path_of(const char *dir, const char *name, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/%s", dir, name);
}

/* ---- the note ---- */

static void
boot_id(char out[64])
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	out[0] = '\0';
	if (!f)
		return;
	if (!fgets(out, 64, f))
		out[0] = '\0';
	(void)fclose(f);
}

int
mw_beside_dir(const char *dir, struct mw_err *err)
{
	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return mw_fail_errno(err, "cannot create %s", dir);
	return 0;
}

bool
mw_beside_stale(const char *dir)
{
	char path[PATH_MAX], now[64], then[64] = "";
	path_of(dir, "dirty", path);
	boot_id(now);
	FILE *f = mw_fs_stream(path);
	if (!f)
		return false;
	bool same = fgets(then, sizeof then, f) && strcmp(now, then) == 0;
	(void)fclose(f);
	return !same;
}

bool
mw_beside_marked(const char *dir)
{
	char path[PATH_MAX];
	path_of(dir, "dirty", path);
	return access(path, F_OK) == 0;
}

int
mw_beside_mark(const char *dir, struct mw_err *err)
{
	char path[PATH_MAX], now[64];
	path_of(dir, "dirty", path);
	boot_id(now);
	FILE *f = fopen(path, "we");
	if (!f)
		return mw_fail_errno(err, "cannot write %s", path);
	bool bad = fputs(now, f) == EOF || fflush(f) == EOF || fsync(fileno(f)) < 0;
	if (fclose(f) == EOF || bad)
		return mw_fail_errno(err, "cannot write %s", path);
	return 0;
}

void
mw_beside_clean(const char *dir)
{
	char path[PATH_MAX];
	path_of(dir, "dirty", path);
	(void)unlink(path);
}

/* ---- the locks ---- */

int
mw_beside_lock(const char *dir, int *ret, struct mw_err *err)
{
	char path[PATH_MAX], pid[24] = "";
	path_of(dir, "writer.lock", path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	int r;
	do
		r = flock(fd, LOCK_EX | LOCK_NB);
	while (r < 0 && errno == EINTR);
	if (r == 0) { /* as long as any pid: nothing of the last one stays */
		int n = snprintf(pid, sizeof pid, "%-20ld\n", (long)getpid());
		(void)!pwrite(fd, pid, (size_t)n, 0);
		*ret = fd;
		return 0;
	}
	r = errno;
	if (r == EWOULDBLOCK) {
		if (pread(fd, pid, sizeof pid - 1, 0) <= 0)
			pid[0] = '?';
		pid[strspn(pid, "?0123456789")] = '\0';
		r = mw_fail(err, MW_ELOCKED, "the index is being written by process %s",
		            pid);
	} else {
		errno = r;
		r = mw_fail_errno(err, "cannot lock %s", path);
	}
	(void)close(fd);
	return r;
}

/* Who has the lock needs it for an instant only, unless he was stopped. */
static int
hold(const char *dir, int how, int most_ms, int *ret, struct mw_err *err)
{
	enum {
		POLL_MS = 10
	};
	MW_AUTOCLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*ret = -1;
	for (int ms = 0; fd >= 0 && flock(fd, how | LOCK_NB) < 0; ms += POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			break; /* this file system has no locks */
		if (ms >= most_ms) {
			(void)mw_fail(err, MW_ELOCKED,
			              "index: another process was stopped while it "
			              "opened %s",
			              dir);
			(void)mw_err_hint(err, "let it go on, or end it: 'fuser -v %s'",
			                  dir);
			return MW_ELOCKED;
		}
		(void)poll(NULL, 0, POLL_MS);
	}
	*ret = MW_TAKE_FD(fd);
	return 0;
}

int
mw_beside_files(const char *dir, bool alone, int most_ms, int *ret, struct mw_err *err)
{
	return hold(dir, alone ? LOCK_EX : LOCK_SH, most_ms, ret, err);
}

/* ---- the maps ---- */

void
mw_beside_path(const char *dir, uint64_t number, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/%08llx.mdb", dir,
	                (unsigned long long)number);
}

void
mw_beside_new_path(const char *dir, uint64_t number, char out[PATH_MAX])
{
	(void)!snprintf(out, PATH_MAX, "%.4000s/%08llx.mdb.new", dir,
	                (unsigned long long)number);
}

int
mw_beside_keep(const char *dir, uint64_t number)
{
	char path[PATH_MAX];
	mw_beside_path(dir, number, path);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void
mw_beside_unlink_new(const char *dir, uint64_t number)
{
	char path[PATH_MAX];
	mw_beside_new_path(dir, number, path);
	(void)unlink(path);
}

int
mw_beside_take(const char *dir, uint64_t number)
{
	char from[PATH_MAX], path[PATH_MAX], lock[PATH_MAX];
	MW_AUTOCLOSE int fd = -1;
	int r = hold(dir, LOCK_EX, MW_BESIDE_MS, &fd, NULL);
	if (r < 0)
		return r;
	mw_beside_new_path(dir, number, from);
	mw_beside_path(dir, number, path);
	if (snprintf(lock, sizeof lock, "%s-lock", path) < (int)sizeof lock)
		(void)unlink(lock);
	return rename(from, path) < 0 ? MW_EIO : 0;
}

/* Shared with those that only read: one of them that has opened the locks finds no pages
 * then, and none are made as long as it is at it. So the pages go first. */
int
mw_beside_unlink(const char *dir, uint64_t number, struct mw_err *err)
{
	char path[PATH_MAX], lock[PATH_MAX];
	MW_AUTOCLOSE int fd = -1;
	int r = hold(dir, LOCK_SH, MW_BESIDE_MS, &fd, err);
	if (r < 0)
		return r;
	mw_beside_unlink_new(dir, number);
	mw_beside_path(dir, number, path);
	(void)unlink(path);
	if (snprintf(lock, sizeof lock, "%s-lock", path) < (int)sizeof lock)
		(void)unlink(lock);
	return 0;
}

/* All whose names end like that. */
static int
unlink_all(const char *dir, const char *end, struct mw_err *err)
{
	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : mw_fail_errno(err, "cannot list %s", dir);
	for (struct dirent *e; (e = readdir(d));) {
		char path[PATH_MAX];
		size_t n = strlen(e->d_name), k = strlen(end);
		if (n < k || strcmp(e->d_name + n - k, end) != 0)
			continue;
		if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) <
		    (int)sizeof path)
			(void)unlink(path);
	}
	(void)closedir(d);
	return 0;
}

int
mw_beside_wipe(const char *dir, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = -1;
	int r = hold(dir, LOCK_SH, MW_BESIDE_MS, &fd, err);
	if (r == 0)
		r = unlink_all(dir, ".mdb.new", err);
	if (r == 0)
		r = unlink_all(dir, ".mdb", err);
	return r == 0 ? unlink_all(dir, ".mdb-lock", err) : r;
}
