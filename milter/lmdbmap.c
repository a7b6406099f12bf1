/* lmdbmap.c - alias tables that postmap made as lmdb maps. */
#include "milter/identity_int.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "journal/base/util.h"
#include "journal/index/kv.h"

struct map {
	char *path;
	pthread_mutex_t lock; /* guards the rest; LMDB cannot regrow a map in use */
	struct mw_kv *kv;
	struct stat st; /* of the file that kv has open */
};

/* A replaced file is opened anew; one that postmap rewrote in place shows its new state
 * by itself. */
static int
lmdb_begin(void *table, struct mw_use *u, struct mw_err *err)
{
	struct map *t = table;
	struct stat st;
	int r = 0;
	(void)u;
	if (stat(t->path, &st) < 0)
		return mw_fail_errno(err, "cannot read alias table %s", t->path);
	pthread_mutex_lock(&t->lock);
	if (t->kv && (st.st_ino != t->st.st_ino || st.st_dev != t->st.st_dev)) {
		mw_kv_close(t->kv);
		t->kv = NULL;
	}
	if (!t->kv) {
		r = mw_kv_open(t->path, MW_KV_READ | MW_KV_FOREIGN, &t->kv, err);
		if (r < 0)
			t->kv = NULL;
		t->st = st;
	}
	pthread_mutex_unlock(&t->lock);
	return r < 0 ? mw_err_prefix(err, "alias table %s", t->path) : 0;
}

static void
lmdb_end(void *table, struct mw_use *u)
{
	(void)table;
	(void)u;
}

/* Postfix writes keys and values with their NUL; other tools do not. */
static int
get(struct map *t, struct mw_str key, struct mw_buf *out, struct mw_err *err)
{
	MW_BUF_AUTO k = {0};
	mw_buf_putstr(&k, key);
	mw_buf_putc(&k, 0);
	if (mw_buf_ok(&k) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_kv_get(t->kv, mw_buf_str(&k), out, err);
	return r == 0 ? mw_kv_get(t->kv, key, out, err) : r;
}

static int
lmdb_lookup(void *table, struct mw_use *u, struct mw_str key, struct mw_buf *out,
            struct mw_err *err)
{
	struct map *t = table;
	(void)u;
	pthread_mutex_lock(&t->lock);
	int r = t->kv ? get(t, key, out, err)
	              : mw_fail(err, MW_EUNAVAIL, "alias table %s is not open", t->path);
	pthread_mutex_unlock(&t->lock);
	if (r > 0 && out->n && out->p[out->n - 1] == 0)
		out->n--;
	return r;
}

static int
lmdb_open(const char *where, void **ret, struct mw_err *err)
{
	struct map *t = calloc(1, sizeof *t);
	size_t n = strlen(where);
	bool full = n > 5 && strcmp(where + n - 5, ".lmdb") == 0;
	if (!t || asprintf(&t->path, "%s%s", where, full ? "" : ".lmdb") < 0) {
		free(t);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	(void)pthread_mutex_init(&t->lock, NULL); /* cannot fail with NULL attributes */
	*ret = t;
	return 0;
}

static void
lmdb_close(void *table)
{
	struct map *t = table;
	mw_kv_close(t->kv);
	pthread_mutex_destroy(&t->lock);
	free(t->path);
	free(t);
}

const struct mw_table_kind mw_table_lmdb = {
    .open = lmdb_open,
    .close = lmdb_close,
    .begin = lmdb_begin,
    .end = lmdb_end,
    .lookup = lmdb_lookup,
};
