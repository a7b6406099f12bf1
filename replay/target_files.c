#include "replay/target_files.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
	LOCK_TRIES = 300,
	LOCK_NAP_MS = 200
};

int
mw_files_pattern_check(const char *p)
{
	for (; *p; p++)
		if (*p == '%' && (!*++p || !strchr("und%", *p)))
			return MW_EUSAGE;
	return 0;
}

/* A mailbox name, or a part of it, as one component of a path. */
static bool
safe_component(struct mw_str s)
{
	if (!s.n || s.n > 200 || s.p[0] == '.')
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '/' || (unsigned char)s.p[i] < 32 || s.p[i] == 127)
			return false;
	return true;
}

static int
unsafe(const char *mailbox, struct mw_err *err)
{
	return mw_fail(err, MW_ENOUSER, "mailbox name \"%.100s\" cannot be a path",
	               mailbox);
}

int
mw_files_box(struct mw_target *t, const char *mailbox, struct mw_arena *a,
             const char **ret, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	struct mw_str u = mw_strz(mailbox);
	struct mw_str part[2] = {mw_addr_local(u), mw_addr_domain(u)};
	for (const char *p = t->url.host; *p; p++) {
		if (*p != '%') {
			mw_buf_putc(&b, *p);
			continue;
		}
		p++;
		struct mw_str s = *p == 'u' ? u : *p == 'n' ? part[0] : part[1];
		if (*p == '%')
			s = MW_STR("%");
		else if (!safe_component(s))
			return unsafe(mailbox, err);
		mw_buf_putstr(&b, s);
	}
	if (t->ops == &mw_target_eml && !t->o.plain_dir && !strchr(t->url.host, '%')) {
		if (!safe_component(u))
			return unsafe(mailbox, err);
		mw_buf_putc(&b, '/');
		mw_buf_putstr(&b, u);
	}
	if (b.n >= PATH_MAX - 300)
		return unsafe(mailbox, err);
	char *s = mw_arena_strdup(a, mw_buf_cstr(&b));
	if (!s || mw_buf_ok(&b))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	*ret = s;
	return 0;
}

/* Is there an empty line, so that the header is whole? */
static bool
header_ends(const struct mw_buf *b, size_t from)
{
	from = from > 3 ? from - 3 : 0;
	for (size_t i = from; i + 1 < b->n; i++) {
		if (b->p[i] != '\n')
			continue;
		if (b->p[i + 1] == '\n' ||
		    (i + 2 < b->n && b->p[i + 1] == '\r' && b->p[i + 2] == '\n'))
			return true;
	}
	return false;
}

int
mw_files_header(int fd, struct mw_buf *buf, struct mw_err *err)
{
	mw_buf_clear(buf);
	while (buf->n < MW_PROFILE_HEADER) {
		if (mw_buf_reserve(buf, 8192))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		ssize_t k = read(fd, buf->p + buf->n, 8192);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return mw_fail_errno(err, "cannot read");
		size_t was = buf->n;
		buf->n += (size_t)k;
		if (!k || header_ends(buf, was))
			break;
	}
	return 0;
}

int
mw_files_profile(int fd, struct mw_profile **ret, struct mw_err *err)
{
	struct mw_profiler *f = mw_profiler_new();
	char chunk[32 * 1024];
	ssize_t k = 0;
	int r = f ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	while (!r && (k = read(fd, chunk, sizeof chunk)) != 0) {
		if (k < 0 && errno != EINTR)
			r = mw_fail_errno(err, "cannot read");
		else if (k > 0)
			(void)mw_profiler_put(f, chunk, (size_t)k);
	}
	struct mw_profile *p = r ? NULL : mw_profiler_take(f);
	if (!r && !p)
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	mw_profiler_free(f);
	if (!r)
		*ret = p;
	return r;
}

int
mw_files_lock(struct mw_target *t, const char *dir, int *ret_fd, struct mw_err *err)
{
	*ret_fd = -1;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return mw_fail_errno(err, "cannot look into %s", dir);
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		bool taken = errno == EWOULDBLOCK, stop = t->o.stopped && t->o.stopped();
		if (taken && !stop && i < LOCK_TRIES) {
			(void)poll(NULL, 0, LOCK_NAP_MS);
			continue;
		}
		(void)close(fd);
		if (!taken) /* NFS */
			return 0;
		return stop ? mw_fail(err, MW_ECANCEL, "interrupted")
		            : mw_fail(err, MW_ELOCKED, "another mailwal is at work in %s",
		                      dir);
	}
	*ret_fd = fd;
	return 0;
}

void
mw_files_mark(const char *path, struct mw_target_mark *ret)
{
	struct statx st;
	uint64_t born[3] = {0, 0, 0};
	*ret = (struct mw_target_mark){0, 0};
	if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &st) < 0)
		return;
	born[0] = st.stx_ino;
	if (st.stx_mask & STATX_BTIME) {
		born[1] = (uint64_t)st.stx_btime.tv_sec;
		born[2] = st.stx_btime.tv_nsec;
	}
	ret->same = mw_hash64(mw_str((const char *)born, sizeof born));
}

/* Is each directory down to this one root's, so that others take away and rename nothing
 * in it but, where it is sticky, what is theirs? */
static bool
roots_tree(const char *dir)
{
	char part[PATH_MAX];
	struct stat st;
	size_t n = 0, len = strlen(dir);
	while (n < len && len < sizeof part) {
		n += 1 + strcspn(dir + n + 1, "/");
		(void)snprintf(part, sizeof part, "%.*s", (int)n, dir);
		if (lstat(part, &st) < 0 || st.st_uid != 0)
			return false;
		bool link = S_ISLNK(st.st_mode);
		if (link && stat(part, &st) < 0)
			return false;
		if (st.st_uid != 0 || ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
			return false;
	}
	return n == len;
}

/* Has somebody else laid a link among the directories above it? */
static bool
led_astray(const char *path)
{
	char part[PATH_MAX];
	struct stat st;
	(void)snprintf(part, sizeof part, "%s", path);
	for (char *p = part; (p = strchr(p + 1, '/'));) {
		*p = '\0';
		if (lstat(part, &st) == 0 && S_ISLNK(st.st_mode) && st.st_uid != 0)
			return true;
		*p = '/';
	}
	return false;
}

/* The directory that path lies in, into at; and that by its own name. */
static bool
lies_in_roots(char *at, struct stat *ret_dir)
{
	char real[PATH_MAX];
	char *slash = strrchr(at, '/');
	if (!slash)
		return false;
	*slash = '\0';
	const char *dir = *at ? at : "/";
	bool good = realpath(dir, real) && roots_tree(dir) && roots_tree(real) &&
	            stat(dir, ret_dir) == 0;
	*slash = '/';
	return good;
}

bool
mw_files_link_stays(const char *path)
{
	enum {
		LINKS = 8
	};
	char at[PATH_MAX], to[PATH_MAX], own[PATH_MAX + 8];
	struct stat st, dir, end;
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	if (path[0] != '/' || n >= sizeof at || stat(path, &end) < 0 ||
	    !S_ISDIR(end.st_mode))
		return false;
	(void)snprintf(at, sizeof at, "%.*s", (int)n, path);
	for (int i = 0; i < LINKS; i++) {
		if (led_astray(at) || lstat(at, &st) < 0)
			return false;
		if (!S_ISLNK(st.st_mode))
			return S_ISDIR(st.st_mode);
		if (!lies_in_roots(at, &dir))
			return false;
		bool his = st.st_uid == end.st_uid && !(dir.st_mode & 022);
		ssize_t k = readlink(at, to, sizeof to - 1);
		if ((st.st_uid != 0 && !his) || k <= 0)
			return false;
		while (k > 1 && to[k - 1] == '/')
			k--;
		to[k] = '\0';
		*strrchr(at, '/') = '\0';
		int len = snprintf(own, sizeof own, "%s%s%s", to[0] == '/' ? "" : at,
		                   to[0] == '/' ? "" : "/", to);
		if (len >= (int)sizeof at)
			return false;
		memcpy(at, own, (size_t)len + 1);
	}
	return false;
}

int
mw_files_sync_dir(const char *path, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return mw_fail_errno(err, "cannot sync directory %s", path);
	return 0;
}

/* Unlinks the file of that ID in one directory, or only looks for it: 1 done, 0 not
 * there.
 */
static int
unlink_in(const char *path, const char *mark, bool dry, struct mw_err *err)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;
	if (!d)
		return errno == ENOENT ? 0 : mw_fail_errno(err, "cannot read %s", path);
	while (r == 0 && (e = readdir(d)) != NULL) {
		if (!strstr(e->d_name, mark))
			continue;
		if (dry || unlinkat(dirfd(d), e->d_name, 0) == 0)
			r = 1;
		else if (errno != ENOENT)
			r = mw_fail_errno(err, "cannot remove %s/%s", path, e->d_name);
	}
	(void)closedir(d);
	if (r > 0 && !dry && mw_files_sync_dir(path, err))
		r = err ? err->code : MW_EIO;
	return r;
}

int
mw_files_remove(struct mw_target *t, const struct mw_removing *what, struct mw_err *err)
{
	char id[MW_ID_TEXT + 1], mark[MW_ID_TEXT + 4], path[PATH_MAX];
	static const char *const sub[] = {"new", "cur"};
	int r = 0;
	(void)t;
	for (size_t i = 0; i < what->n && r >= 0; i++) {
		const struct mw_removal *v = &what->v[i];
		mw_id_text(id, v->id);
		(void)snprintf(mark, sizeof mark, "_%.*s.", MW_ID_SHORT, id);
		r = 0;
		for (size_t k = 0; k < MW_COUNT(sub) && r == 0; k++)
			if (snprintf(path, sizeof path, "%s/%s", v->place.folder,
			             sub[k]) < (int)sizeof path)
				r = unlink_in(path, mark, what->dry, err);
		if (r >= 0)
			r = what->removed(what->arg, i, r ? 0 : MW_ENOTFOUND);
	}
	return r < 0 ? r : 0;
}

/* Held while a directory is looked at or made: workers make mailboxes beside each other,
 * and what lies above is there for the others only with its mode and owner, which they
 * take. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

/* 1: it is there. 0: nothing is. */
static int
is_directory(const char *path, struct stat *st, struct mw_err *err)
{
	(void)pthread_mutex_lock(&making);
	int r = stat(path, st);
	(void)pthread_mutex_unlock(&making);
	if (r < 0)
		return 0;
	if (S_ISDIR(st->st_mode))
		return 1;
	return mw_fail(err, MW_ECREATE, "%s is there and no directory", path);
}

static int
make_below(const struct stat *parent, const char *path, struct mw_err *err)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int r = mw_fail_errno(err, "cannot make directory %s", path);
		if (r == MW_ENOTFOUND && err)
			err->code = MW_ECREATE;
		return r == MW_ENOTFOUND ? MW_ECREATE : r;
	}
	mode_t mode = parent->st_mode & 07770; /* others have no business in mail */
	if (parent->st_mode & S_ISVTX)         /* below /tmp and the like: ours alone */
		mode = 0700;
	/* By its descriptor: whose directory it lies in may lay a link there now. */
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	if (geteuid() == 0 && fchown(fd, parent->st_uid, parent->st_gid) < 0)
		return mw_fail_errno(err, "cannot set the owner of %s", path);
	if (fchmod(fd, mode | 0700) < 0)
		return mw_fail_errno(err, "cannot set the mode of %s", path);
	return 0;
}

int
mw_files_mkdirs(const char *path, struct mw_err *err)
{
	char buf[PATH_MAX];
	struct stat st;
	int r = is_directory(path, &st, err);
	if (r)
		return r < 0 ? r : 0;
	if (snprintf(buf, sizeof buf, "%s", path) >= (int)sizeof buf)
		return mw_fail(err, MW_ECREATE, "path too long: %.100s…", path);
	char *slash = strrchr(buf, '/');
	const char *parent = ".";
	if (slash == buf)
		parent = "/";
	else if (slash) {
		*slash = '\0';
		parent = buf;
	}
	r = mw_files_mkdirs(parent, err);
	if (r)
		return r;
	(void)pthread_mutex_lock(&making);
	r = stat(parent, &st) < 0 ? mw_fail_errno(err, "cannot make directory %s", parent)
	                          : make_below(&st, path, err);
	(void)pthread_mutex_unlock(&making);
	return r ? r : mw_files_sync_dir(parent, err);
}

int
mw_files_mkdirs_dry(const char *path, struct mw_err *err)
{
	char buf[PATH_MAX];
	struct stat st;
	if (snprintf(buf, sizeof buf, "%s", path) >= (int)sizeof buf)
		return mw_fail(err, MW_ECREATE, "path too long: %.100s…", path);
	for (char *slash; stat(buf, &st) < 0; *slash = '\0') {
		slash = strrchr(buf, '/');
		if (!slash || slash == buf)
			return 0;
	}
	if (S_ISDIR(st.st_mode))
		return 0;
	return mw_fail(err, MW_ECREATE, "%s is there and no directory", buf);
}

int
mw_files_flush(struct mw_files_out *o)
{
	size_t at = 0;
	while (at < o->n) {
		ssize_t k = write(o->fd, o->buf + at, o->n - at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return mw_fail_errno(o->err, "cannot write %s", o->path);
		at += (size_t)k;
	}
	o->n = 0;
	return 0;
}

int
mw_files_write(void *out, const void *p, size_t n)
{
	struct mw_files_out *o = out;
	const char *q = p;
	o->total += n;
	while (n) {
		size_t k = MW_MIN(n, sizeof o->buf - o->n);
		memcpy(o->buf + o->n, q, k);
		o->n += k;
		q += k;
		n -= k;
		if (o->n < sizeof o->buf)
			break;
		int r = mw_files_flush(o);
		if (r)
			return r;
	}
	return 0;
}

bool
mw_files_is_refusal(int code)
{
	return code == MW_ENOSPC || code == MW_EPERM || code == MW_EIO ||
	       code == MW_ECREATE || code == MW_ENOTFOUND || code == MW_EREFUSED;
}
