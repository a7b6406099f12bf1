#include "journal/index/kv.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/index/kv_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* The map is sparse address space, not memory; it doubles when it is full, up to 1 TiB.
 */
#define MAP_FIRST (UINT64_C(256) << 20)
#define MAP_MOST  (UINT64_C(1) << 40)

struct mw_kv {
	MDB_env *env;
	MDB_dbi dbi;
	uint64_t map;
	bool dead; /* its pages led LMDB astray: it is not touched again */
	dev_t dev;
	ino_t ino;
	bool listed;
	struct mw_kv *next;
};

struct mw_kv_txn {
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc; /* first LMDB error of a put or delete */
};

static int
lmdb_fail(struct mw_err *err, int rc, const char *what)
{
	/* page numbers that no file has */
	if (rc == EINVAL || rc == EFBIG || rc == EOVERFLOW)
		return mw_fail(err, MW_EDAMAGED, "index: %s: its pages are garbled",
		               what);
	if (rc > 0) {
		errno = rc;
		return mw_fail_errno(err, "index: %s", what);
	}
	int code = MW_EDAMAGED; /* most of what LMDB says comes of garbled pages only */
	if (rc == MDB_MAP_FULL)
		code = MW_ENOSPC;
	else if (rc == MDB_MAP_RESIZED || rc == MDB_READERS_FULL || rc == MDB_TLS_FULL)
		code = MW_EIO;
	return mw_fail(err, code, "index: %s: %s", what, mdb_strerror(rc));
}

/* ---- garbage pages ---- */

/* LMDB has no checksums: a page of garbage leads it out of its map, or to an assertion. A
 * cache must not end a daemon for that, so each call is a guarded stretch: a fault in it
 * comes back as MW_EDAMAGED, and the map is never touched again, not even closed. */

static __thread sigjmp_buf *guarded; /* where to go back to; NULL: not in LMDB */
static struct sigaction before[2];   /* for SIGSEGV and SIGBUS */

static void
on_fault(int sig)
{
	if (guarded)
		siglongjmp(*guarded, 1);
	/* not ours: once more, for whoever was there before */
	(void)sigaction(sig, &before[sig == SIGBUS], NULL);
}

static void
on_assert(MDB_env *env, const char *text)
{
	(void)env;
	(void)text;
	if (guarded)
		siglongjmp(*guarded, 1);
}

static void
watch_faults(void)
{
	/* SA_NODEFER: jumping out leaves no signal blocked, so no mask need be saved */
	struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
	(void)sigemptyset(&sa.sa_mask); /* these do not fail */
	(void)sigaction(SIGSEGV, &sa, &before[0]);
	(void)sigaction(SIGBUS, &sa, &before[1]);
}

static void
guard(sigjmp_buf *where)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)pthread_once(&once, watch_faults);
	guarded = where;
}

static int
broken(struct mw_kv *kv, struct mw_err *err)
{
	guarded = NULL;
	kv->dead = true;
	return mw_fail(err, MW_EDAMAGED, "index: its pages are garbled");
}

/* ---- once in a process ---- */

/* LMDB's locks are the process's: a second environment on the same file would think that
 * it is alone and set up the table of readers anew, and closing either lets go of both.
 */
static pthread_mutex_t open_mu = PTHREAD_MUTEX_INITIALIZER;
static struct mw_kv *open_list; /* guarded by open_mu */

/* Notes that this file is open here; MW_ELOCKED: it was. One that does not exist yet is
 * noted once it does. */
static int
list_in(struct mw_kv *kv, const char *path, struct mw_err *err)
{
	struct stat st;
	int r = 0;
	if (kv->listed || stat(path, &st) < 0)
		return 0;
	(void)pthread_mutex_lock(&open_mu);
	for (struct mw_kv *k = open_list; k; k = k->next)
		if (k->dev == st.st_dev && k->ino == st.st_ino)
			r = MW_ELOCKED;
	if (r == 0) {
		kv->dev = st.st_dev;
		kv->ino = st.st_ino;
		kv->listed = true;
		kv->next = open_list;
		open_list = kv;
	}
	(void)pthread_mutex_unlock(&open_mu);
	return r == 0
	           ? 0
	           : mw_fail(err, r, "index: %s is open in this process already", path);
}

static void
list_out(struct mw_kv *kv)
{
	(void)pthread_mutex_lock(&open_mu);
	for (struct mw_kv **p = &open_list; *p; p = &(*p)->next)
		if (*p == kv) {
			*p = kv->next;
			break;
		}
	(void)pthread_mutex_unlock(&open_mu);
}

/* Does the process have room for the map? Nothing of it is used. */
static bool
has_room(size_t n)
{
	void *p =
	    mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p != MAP_FAILED && munmap(p, n) == 0;
}

/* LMDB maps as much as the head of the file says: without memory for that, where there is
 * for all that the file could hold, the head is wrong. A second try, since what failed
 * may have been something else. */
static int
begin_env(struct mw_kv *kv, const char *path, unsigned f, struct mw_err *err)
{
	for (bool again = false;; again = true) {
		int rc = mdb_env_create(&kv->env);
		if (rc)
			return lmdb_fail(err, rc, "cannot create an environment");
		(void)mdb_env_set_mapsize(kv->env, kv->map);
		(void)mdb_env_set_assert(kv->env, on_assert);
		rc = mdb_env_open(kv->env, path, f, 0640);
		if (rc != ENOMEM)
			return rc ? lmdb_fail(err, rc, path) : 0;
		if (again)
			break;
		mdb_env_close(MW_TAKE(kv->env));
	}
	if (has_room(kv->map))
		return mw_fail(err, MW_EDAMAGED, "index: the head of %s is damaged",
		               path);
	return lmdb_fail(err, ENOMEM, path);
}

static int
open_env(struct mw_kv *kv, const char *path, int flags, struct mw_err *err)
{
	bool ro = (flags & MW_KV_READ) != 0;
	unsigned f = MDB_NOSUBDIR | MDB_NOTLS | MDB_NOSYNC;
	/* A look-up needs a few pages here and there: what the kernel would read around
	 * each of them takes most of the time where nothing is in memory. */
	if (ro)
		f |= MDB_RDONLY | MDB_NORDAHEAD;
	if (flags & MW_KV_FOREIGN)
		f |= MDB_NOLOCK;
	struct stat st;
	if (stat(path, &st) == 0 && (uint64_t)st.st_size > kv->map / 2)
		kv->map = (uint64_t)st.st_size * 2;
	int rc = begin_env(kv, path, f, err);
	if (rc < 0)
		return rc;
	/* LMDB lets this one be inherited by every program that is started. */
	int fd;
	if (mdb_env_get_fd(kv->env, &fd) == 0)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	MDB_stat ms;
	(void)mdb_env_stat(kv->env, &ms);
	/* The last pages of a file may be free ones that were never written: then it is
	 * shorter than its head says. In one that was cut, a look past its end is a fault
	 * like others here. */
	if (stat(path, &st) < 0)
		return mw_fail_errno(err, "index: %s", path);
	if ((uint64_t)st.st_size < (uint64_t)2 * ms.ms_psize)
		return mw_fail(err, MW_EDAMAGED, "index: %s is cut short", path);
	MDB_txn *txn;
	rc = mdb_txn_begin(kv->env, NULL, ro ? MDB_RDONLY : 0, &txn);
	if (rc)
		return lmdb_fail(err, rc, path);
	rc = mdb_dbi_open(txn, NULL, 0, &kv->dbi);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	return rc ? lmdb_fail(err, rc, path) : 0;
}

/* LMDB waits for ever for one who was stopped while he set up the locks. To be called
 * when the file is not open in this process: closing any descriptor of a file lets go of
 * the process's locks. */
static int
await_others(const char *path, struct mw_err *err)
{
	enum {
		MOST_MS = 5000,
		POLL_MS = 10
	};
	char name[PATH_MAX];
	if (snprintf(name, sizeof name, "%s-lock", path) >= (int)sizeof name)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", path);
	if (mw_fs_is_pipe(path) || mw_fs_is_pipe(name)) /* LMDB would wait for it */
		return mw_fail(err, MW_EDAMAGED, "index: %s is a pipe", path);
	MW_AUTOCLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
	for (int ms = 0; fd >= 0; ms += POLL_MS) {
		struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
		if (fcntl(fd, F_GETLK, &l) < 0 || l.l_type == F_UNLCK)
			break;
		if (ms >= MOST_MS)
			return mw_fail(err, MW_ELOCKED,
			               "index: process %ld was stopped while it opened "
			               "%s",
			               (long)l.l_pid, path);
		(void)poll(NULL, 0, POLL_MS);
	}
	return 0;
}

int
mw_kv_open(const char *path, int flags, struct mw_kv **ret, struct mw_err *err)
{
	struct mw_kv *kv = calloc(1, sizeof *kv);
	if (!kv)
		return mw_fail(err, MW_ENOMEM, "out of memory for an index");
	kv->map = MAP_FIRST;
	if (!(flags & MW_KV_CREATE) && access(path, F_OK) < 0) {
		int r = mw_fail_errno(err, "index: %s", path);
		free(kv);
		return r;
	}
	sigjmp_buf here;
	const int listed = flags & MW_KV_FOREIGN        ? 0
	                   : list_in(kv, path, err) < 0 ? MW_ELOCKED
	                                                : await_others(path, err);
	int r;
	if (listed < 0) {
		r = listed;
	} else if (sigsetjmp(here, 0)) {
		r = broken(kv, err);
	} else {
		guard(&here);
		r = open_env(kv, path, flags, err);
		guarded = NULL;
	}
	if (r == 0 && !(flags & MW_KV_FOREIGN))
		r = list_in(kv, path, err); /* made just now */
	if (r < 0) {
		mw_kv_close(kv);
		return r;
	}
	*ret = kv;
	return 0;
}

void
mw_kv_close(struct mw_kv *kv)
{
	if (!kv)
		return;
	if (kv->dead && kv->listed) /* what it had open stays so, and told as open */
		return;
	if (kv->env && !kv->dead)
		mdb_env_close(kv->env);
	list_out(kv);
	free(kv);
}

bool
mw_kv_is_at(const struct mw_kv *kv, const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && kv->dev == st.st_dev && kv->ino == st.st_ino;
}

static MDB_val
val(struct mw_str s)
{
	union {
		const char *in;
		void *out; /* LMDB takes void * and does not write through it */
	} u = {s.p};
	return (MDB_val){s.n, u.out};
}

static struct mw_str
str(MDB_val v)
{
	return mw_str(v.mv_data, v.mv_size);
}

/* A read transaction; another process may have grown the map. */
static int
read_begin(struct mw_kv *kv, MDB_txn **ret, struct mw_err *err)
{
	int rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, ret);
	if (rc == MDB_MAP_RESIZED) {
		(void)mdb_env_set_mapsize(kv->env, 0);
		rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, ret);
	}
	if (rc == MDB_READERS_FULL) {
		int dead;
		(void)mdb_reader_check(kv->env, &dead);
		rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, ret);
	}
	return rc ? lmdb_fail(err, rc, "cannot read") : 0;
}

static int
get(struct mw_kv *kv, struct mw_str key, struct mw_buf *out, struct mw_err *err)
{
	MDB_txn *txn;
	int r = read_begin(kv, &txn, err);
	if (r < 0)
		return r;
	MDB_val k = val(key), v;
	int rc = key.n ? mdb_get(txn, kv->dbi, &k, &v) : MDB_NOTFOUND;
	if (rc == 0)
		mw_buf_putstr(out, str(v));
	mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE)
		return 0;
	if (rc)
		return lmdb_fail(err, rc, "cannot read");
	r = mw_buf_ok(out);
	return r < 0 ? mw_fail(err, r, "index: value too large") : 1;
}

int
mw_kv_get(struct mw_kv *kv, struct mw_str key, struct mw_buf *out, struct mw_err *err)
{
	sigjmp_buf here;
	if (kv->dead || sigsetjmp(here, 0))
		return broken(kv, err);
	guard(&here);
	int r = get(kv, key, out, err);
	guarded = NULL;
	return r;
}

static int
read_txn(struct mw_kv *kv, int (*cb)(void *, struct mw_kv_txn *), void *arg,
         struct mw_err *err)
{
	struct mw_kv_txn t = {NULL, kv->dbi, 0};
	int r = read_begin(kv, &t.txn, err);
	if (r < 0)
		return r;
	r = cb(arg, &t);
	mdb_txn_abort(t.txn);
	return t.rc ? lmdb_fail(err, t.rc, "cannot read") : r;
}

int
mw_kv_read(struct mw_kv *kv, int (*cb)(void *, struct mw_kv_txn *), void *arg,
           struct mw_err *err)
{
	sigjmp_buf here;
	if (kv->dead || sigsetjmp(here, 0))
		return broken(kv, err);
	guard(&here);
	int r = read_txn(kv, cb, arg, err);
	guarded = NULL;
	return r;
}

/* ---- the list of free pages: kv_pages.c ---- */

int
mw_kv_check(struct mw_kv *kv, struct mw_err *err)
{
	sigjmp_buf here;
	MDB_txn *txn;
	if (kv->dead || sigsetjmp(here, 0))
		return broken(kv, err);
	guard(&here);
	int r = read_begin(kv, &txn, err);
	if (r == 0) {
		r = mw_kv_pages(kv->env, txn, kv->dbi);
		mdb_txn_abort(txn);
		if (r < 0)
			(void)mw_fail(err, r, "index: %s",
			              r == MW_ENOMEM ? "out of memory"
			                             : "its free pages are garbled");
	}
	guarded = NULL;
	return r;
}

static int
grow(struct mw_kv *kv)
{
	if (kv->map >= MAP_MOST)
		return MDB_MAP_FULL;
	kv->map *= 2;
	return mdb_env_set_mapsize(kv->env, kv->map);
}

static int
write_txn(struct mw_kv *kv, int (*cb)(void *, struct mw_kv_txn *), void *arg,
          struct mw_err *err)
{
	for (;;) {
		struct mw_kv_txn t = {NULL, kv->dbi, 0};
		int rc = mdb_txn_begin(kv->env, NULL, 0, &t.txn);
		if (rc == MDB_MAP_RESIZED) {
			(void)mdb_env_set_mapsize(kv->env, 0);
			rc = mdb_txn_begin(kv->env, NULL, 0, &t.txn);
		}
		if (rc)
			return lmdb_fail(err, rc, "cannot write");
		int r = cb(arg, &t);
		if (r == 0 && t.rc == 0) {
			rc = mdb_txn_commit(t.txn);
			if (rc == 0)
				return 0;
		} else {
			mdb_txn_abort(t.txn);
			rc = t.rc;
		}
		if (rc == MDB_MAP_FULL)
			rc = grow(kv);
		else if (rc == 0)
			return r;
		if (rc)
			return lmdb_fail(err, rc, "cannot write");
	}
}

int
mw_kv_write(struct mw_kv *kv, int (*cb)(void *, struct mw_kv_txn *), void *arg,
            struct mw_err *err)
{
	sigjmp_buf here;
	if (kv->dead || sigsetjmp(here, 0))
		return broken(kv, err);
	guard(&here);
	int r = write_txn(kv, cb, arg, err);
	guarded = NULL;
	return r;
}

/* What LMDB said inside a transaction; the first of it is kept for its end. */
static int
txn_code(struct mw_kv_txn *t, int rc)
{
	if (rc && !t->rc)
		t->rc = rc;
	return rc ? MW_EIO : 0;
}

int
mw_kv_txn_get(struct mw_kv_txn *t, struct mw_str key, struct mw_str *ret)
{
	MDB_val k = val(key), v;
	int rc = mdb_get(t->txn, t->dbi, &k, &v);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return txn_code(t, rc);
	*ret = str(v);
	return 1;
}

int
mw_kv_txn_floor(struct mw_kv_txn *t, struct mw_str key, struct mw_str *ret_key,
                struct mw_str *ret)
{
	MDB_cursor *cur;
	int rc = mdb_cursor_open(t->txn, t->dbi, &cur);
	if (rc)
		return txn_code(t, rc);
	MDB_val k = val(key), v;
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
	else if (rc == 0 && !mw_str_eq(str(k), key))
		rc = mdb_cursor_get(cur, &k, &v, MDB_PREV);
	mdb_cursor_close(cur);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return txn_code(t, rc);
	*ret_key = str(k);
	*ret = str(v);
	return 1;
}

int
mw_kv_append(struct mw_kv_txn *t, struct mw_str key, struct mw_str v)
{
	MDB_val k = val(key), d = val(v);
	int rc = mdb_put(t->txn, t->dbi, &k, &d, MDB_APPEND);
	return txn_code(t, rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc);
}

/* As LMDB orders keys. */
static int
key_cmp(struct mw_str a, struct mw_str b)
{
	int r = memcmp(a.p, b.p, MW_MIN(a.n, b.n));
	return r ? r : (a.n > b.n) - (a.n < b.n);
}

int
mw_kv_del_range(struct mw_kv_txn *t, struct mw_str from, struct mw_str to)
{
	MDB_cursor *cur;
	int rc = mdb_cursor_open(t->txn, t->dbi, &cur);
	if (rc)
		return txn_code(t, rc);
	for (;;) {
		MDB_val k = val(from), v;
		rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
		if (rc || key_cmp(str(k), to) >= 0)
			break;
		rc = mdb_cursor_del(cur, 0);
		if (rc)
			break;
	}
	mdb_cursor_close(cur);
	return txn_code(t, rc == MDB_NOTFOUND ? 0 : rc);
}

int
mw_kv_put(struct mw_kv_txn *t, struct mw_str key, struct mw_str v)
{
	MDB_val k = val(key), d = val(v);
	return txn_code(t, mdb_put(t->txn, t->dbi, &k, &d, 0));
}

int
mw_kv_sync(struct mw_kv *kv, struct mw_err *err)
{
	sigjmp_buf here;
	if (kv->dead || sigsetjmp(here, 0))
		return broken(kv, err);
	guard(&here);
	int rc = mdb_env_sync(kv->env, 1);
	guarded = NULL;
	return rc ? lmdb_fail(err, rc, "cannot sync") : 0;
}

void
mw_kv_ahead(struct mw_kv *kv)
{
	int fd;
	if (!kv->dead && mdb_env_get_fd(kv->env, &fd) == 0)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
}
