#include "replay/mdir_list.h"

#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	ROUNDS = 50,
	NOTHING_NEW = 3, /* so many in a row, where it never comes to rest */
	RECENT_NS = 50000000
};

static const char *const subs[] = {"cur", "new"};

void
mw_mdir_list_free(struct mw_mdir_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
	*l = (struct mw_mdir_list){.n = 0};
}

static int
add(struct mw_mdir_list *l, const struct dirent *e, bool in_new)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 256;
		void *p = reallocarray(l->v, cap, sizeof *l->v);
		if (!p)
			return MW_ENOMEM;
		l->v = p;
		l->cap = cap;
	}
	char *name = strdup(e->d_name);
	if (!name)
		return MW_ENOMEM;
	l->v[l->n++] = (struct mw_mdir_entry){name, e->d_ino, in_new};
	return 0;
}

static int
by_identity(const void *x, const void *y)
{
	const struct mw_mdir_entry *a = x, *b = y;
	size_t n = strcspn(a->name, ":"), k = strcspn(b->name, ":");
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	int r = memcmp(a->name, b->name, MW_MIN(n, k));
	return r ? r : (n > k) - (n < k);
}

static int
by_place(const void *x, const void *y)
{
	const struct mw_mdir_entry *a = x, *b = y;
	return a->in_new != b->in_new ? b->in_new - a->in_new : strcmp(a->name, b->name);
}

/* When a directory changed last; 0 where there is none. */
static void
changed(int folder, const char *sub, struct timespec *ret)
{
	struct stat st;
	*ret = fstatat(folder, sub, &st, 0) < 0 ? (struct timespec){0} : st.st_mtim;
}

static int
list_one(int folder, bool in_new, struct mw_mdir_list *l, struct mw_err *err)
{
	const char *sub = subs[in_new];
	int r = 0, fd = openat(folder, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		r = mw_fail_errno(err, "cannot look into %s", sub);
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (!e) {
			if (errno)
				r = mw_fail_errno(err, "cannot look into %s", sub);
			break;
		}
		if (e->d_name[0] != '.' && (r = add(l, e, in_new)) < 0) {
			(void)mw_fail(err, r, "out of memory");
			break;
		}
	}
	(void)closedir(d);
	return r;
}

/* Puts what stands behind the first `old` entries, which are sorted, among them; of one
 * message what was seen last counts. Returns how many are new. */
static size_t
merge(struct mw_mdir_list *l, size_t old)
{
	size_t n = old;
	for (size_t i = old; i < l->n; i++) {
		struct mw_mdir_entry *e = &l->v[i];
		struct mw_mdir_entry *was =
		    old ? bsearch(e, l->v, old, sizeof *e, by_identity) : NULL;
		if (was) {
			free(was->name);
			*was = *e;
		} else {
			l->v[n++] = *e;
		}
	}
	l->n = n;
	if (n > old)
		qsort(l->v, n, sizeof *l->v, by_identity);
	/* One that was renamed while it was listed has come twice. */
	size_t k = 0;
	for (size_t i = 0; i < l->n; i++) {
		if (k && by_identity(&l->v[k - 1], &l->v[i]) == 0) {
			free(l->v[k - 1].name);
			k--;
		}
		l->v[k++] = l->v[i];
	}
	l->n = k;
	return k - old;
}

/* Did nothing happen there since `was`, as far as the file system's clock tells? */
static bool
at_rest(int folder, const struct timespec was[2], const struct timespec *began)
{
	for (int i = 0; i < 2; i++) {
		struct timespec now;
		changed(folder, subs[i], &now);
		int64_t ago = (int64_t)(began->tv_sec - now.tv_sec) * 1000000000 +
		              began->tv_nsec - now.tv_nsec;
		if (now.tv_sec != was[i].tv_sec || now.tv_nsec != was[i].tv_nsec ||
		    ago < (now.tv_nsec ? RECENT_NS : INT64_C(2000000000)))
			return false;
	}
	return true;
}

int
mw_mdir_list(int folder, struct mw_mdir_list *ret, struct mw_err *err)
{
	int r = 0;
	*ret = (struct mw_mdir_list){.n = 0};
	for (int i = 0, same = 0; i < ROUNDS && same < NOTHING_NEW && r == 0; i++) {
		struct timespec was[2], began;
		size_t old = ret->n;
		(void)clock_gettime(CLOCK_REALTIME, &began);
		for (int k = 0; k < 2; k++)
			changed(folder, subs[k], &was[k]);
		/* new first: what is seen meanwhile comes in cur, which may well be
		 * read where new cannot. */
		struct mw_err second = {0};
		r = list_one(folder, true, ret, err);
		int q =
		    r == MW_ENOMEM ? r : list_one(folder, false, ret, r ? &second : err);
		r = r == 0 || q == MW_ENOMEM ? q : r;
		same = merge(ret, old) ? 0 : same + 1;
		if (r == 0 && at_rest(folder, was, &began))
			break;
	}
	if (ret->n)
		qsort(ret->v, ret->n, sizeof *ret->v, by_place);
	size_t k = 0; /* one that was written anew in its place has come twice */
	for (size_t i = 0; i < ret->n; i++)
		if (k && by_place(&ret->v[k - 1], &ret->v[i]) == 0)
			free(ret->v[i].name);
		else
			ret->v[k++] = ret->v[i];
	ret->n = k;
	return r;
}

/* ---- opening what may have been renamed since ---- */

static int
base_cmp(const char *a, const char *b)
{
	size_t n = strcspn(a, ":"), k = strcspn(b, ":");
	int r = memcmp(a, b, MW_MIN(n, k));
	return r ? r : (n > k) - (n < k);
}

static int
by_base(const void *x, const void *y)
{
	const struct mw_mdir_entry *a = x, *b = y;
	return base_cmp(a->name, b->name);
}

static int
list_now(int folder, struct mw_mdir_now *now)
{
	mw_mdir_list_free(&now->l);
	int r = mw_mdir_list(folder, &now->l, NULL);
	if (now->l.n)
		qsort(now->l.v, now->l.n, sizeof *now->l.v, by_base);
	now->listed = r == 0;
	return r;
}

static int
open_in(int folder, bool in_new, const char *name)
{
	MW_AUTOCLOSE int dir =
	    openat(folder, subs[in_new], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0
	           ? -1
	           : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

int
mw_mdir_open(int folder, bool in_new, const char *name, struct mw_mdir_now *now)
{
	const struct mw_mdir_entry key = {(char *)(uintptr_t)name, 0, in_new};
	int fd = open_in(folder, in_new, name);
	for (int i = 0; fd < 0 && errno == ENOENT && i < ROUNDS; i++) {
		if ((i || !now->listed) && list_now(folder, now)) {
			errno = EIO;
			return -1;
		}
		const struct mw_mdir_entry *e =
		    now->l.n ? bsearch(&key, now->l.v, now->l.n, sizeof key, by_base)
		             : NULL;
		if (!e) { /* nor will it come back */
			errno = ENOENT;
			return -1;
		}
		fd = open_in(folder, e->in_new, e->name);
	}
	return fd;
}
