/* virtual.c - alias tables in files: the source text of Postfix virtual(5) tables. */

#include "milter/identity_int.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "journal/base/arena.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

enum {
	FILE_LIMIT = 512 << 20,
	RACY_US = 100 * 1000, /* a file this young may change without a new time stamp */
};

struct row {
	struct mw_str key, value;
};

/* One version of a file; never changes, counted. */
struct version {
	atomic_int refs;
	struct mw_arena *a;
	struct row *row; /* hash table, n_slot a power of two; key.p NULL: empty */
	size_t n, n_slot;
	struct stat st;
	bool racy;
};

struct virtual
{
	char *path;
	pthread_mutex_t load; /* one loader at a time; taken before lock */
	pthread_mutex_t lock; /* guards now */
	struct version *now;
};

static void
version_unref(struct version *v)
{
	if (!v || atomic_fetch_sub(&v->refs, 1) != 1)
		return;
	mw_arena_free(v->a);
	free(v->row);
	free(v);
}

static size_t
hash(struct mw_str s)
{
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (uint8_t)s.p[i]) * 1099511628211u;
	return (size_t)(h ^ h >> 32);
}

static struct row *
slot_of(const struct version *v, struct mw_str key)
{
	for (size_t i = hash(key);; i++) {
		struct row *r = &v->row[i & (v->n_slot - 1)];
		if (!r->key.p || mw_str_eq(r->key, key))
			return r;
	}
}

static int
insert(struct version *v, struct mw_str key, struct mw_str value)
{
	if (v->n * 2 >= v->n_slot) {
		struct row *old = v->row;
		size_t n_old = v->n_slot;
		v->n_slot = n_old ? n_old * 2 : 64;
		v->row = calloc(v->n_slot, sizeof *v->row);
		if (!v->row) {
			v->row = old;
			v->n_slot = n_old;
			return MW_ENOMEM;
		}
		for (size_t i = 0; i < n_old; i++)
			if (old[i].key.p)
				*slot_of(v, old[i].key) = old[i];
		free(old);
	}
	struct row *r = slot_of(v, key);
	if (r->key.p)
		return 0; /* as postmap: the first of two equal keys stays */
	r->key = mw_arena_str(v->a, key);
	r->value = mw_arena_str(v->a, value);
	v->n++;
	return r->key.p && r->value.p ? 0 : MW_ENOMEM;
}

/* "key value…" with the key ending at the first blank outside quotes, folded. */
static int
take_entry(struct version *v, struct mw_buf *line)
{
	struct mw_str s = mw_str_trim(mw_buf_str(line));
	size_t i = 0;
	bool quoted = false;
	for (; i < s.n; i++) {
		if (s.p[i] == '"')
			quoted = !quoted;
		else if (!quoted && (s.p[i] == ' ' || s.p[i] == '\t'))
			break;
	}
	struct mw_str value = mw_str_trim(mw_str(s.p + i, s.n - i));
	if (i == 0 || value.n == 0)
		return 0; /* postmap warns and skips */
	size_t at = (size_t)(s.p - (const char *)line->p);
	for (size_t k = at; k < at + i; k++)
		if (line->p[k] >= 'A' && line->p[k] <= 'Z')
			line->p[k] = (uint8_t)(line->p[k] | 0x20);
	return insert(v, mw_str(s.p, i), value);
}

/* Logical lines: one that begins with a blank goes on with the one before; empty lines
 * and comments do not end it. */
static int
parse(struct version *v, struct mw_str text)
{
	MW_BUF_AUTO line = {0};
	int r = 0;
	while (text.n && r == 0) {
		struct mw_str one = text, rest = MW_STR("");
		(void)mw_str_cut(text, '\n', &one, &rest); /* the last may lack its end */
		text = rest;
		struct mw_str t = mw_str_trim(one);
		if (t.n == 0 || t.p[0] == '#')
			continue;
		if (one.p[0] != ' ' && one.p[0] != '\t') {
			r = line.n ? take_entry(v, &line) : 0;
			mw_buf_clear(&line);
		} else if (line.n == 0) {
			continue; /* goes on with nothing */
		} else {
			mw_buf_putc(&line, ' ');
		}
		mw_buf_putstr(&line, t);
	}
	if (r == 0 && line.n)
		r = take_entry(v, &line);
	return r < 0 ? r : mw_buf_ok(&line);
}

/* Links are followed, as Postfix does; nobody waits for a pipe. */
static int
read_table(const char *path, void **ret, size_t *ret_n, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return mw_fail_errno(err, "cannot read alias table %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_LIMIT)
		return mw_fail(err, MW_EIO, "cannot read alias table %s: %s", path,
		               S_ISREG(st.st_mode) ? "too large" : "it is no file");
	size_t size = (size_t)st.st_size, n = 0;
	MW_AUTOFREE char *p = malloc(size + 1);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "alias table %s: out of memory", path);
	while (n < size) {
		ssize_t k = read(fd, p + n, size - n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return mw_fail_errno(err, "cannot read alias table %s", path);
		if (k == 0)
			break; /* it became shorter */
		n += (size_t)k;
	}
	*ret = MW_TAKE(p);
	*ret_n = n;
	return 0;
}

static int
load(const char *path, const struct stat *st, struct version **ret, struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	struct version *v = calloc(1, sizeof *v);
	MW_AUTOFREE void *text = NULL;
	size_t n = 0;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	atomic_init(&v->refs, 1);
	v->st = *st;
	v->racy = c->now_us(c) - ((int64_t)st->st_mtim.tv_sec * 1000000 +
	                          st->st_mtim.tv_nsec / 1000) <
	          RACY_US;
	v->a = mw_arena_new(0);
	v->n_slot = 64;
	v->row = calloc(v->n_slot, sizeof *v->row);
	int r = read_table(path, &text, &n, err);
	if (r == 0 && (!v->a || !v->row || parse(v, mw_str(text, n)) < 0))
		r = mw_fail(err, MW_ENOMEM, "alias table %s: out of memory", path);
	if (r < 0) {
		version_unref(v);
		return r;
	}
	*ret = v;
	return 0;
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static struct version *
current(struct virtual *t)
{
	pthread_mutex_lock(&t->lock);
	struct version *v = t->now;
	if (v)
		atomic_fetch_add(&v->refs, 1);
	pthread_mutex_unlock(&t->lock);
	return v;
}

static bool
is_fresh(const struct version *v, const struct stat *st)
{
	return v && !v->racy && same_file(&v->st, st);
}

static int
virtual_begin(void *table, struct mw_use *u, struct mw_err *err)
{
	struct virtual *t = table;
	struct stat st;
	struct version *v = NULL;
	if (stat(t->path, &st) < 0)
		return mw_fail_errno(err, "cannot read alias table %s", t->path);
	v = current(t);
	if (!is_fresh(v, &st)) {
		version_unref(v);
		pthread_mutex_lock(&t->load);
		v = current(t); /* somebody else may have loaded it meanwhile */
		int r = 0;
		if (!is_fresh(v, &st)) {
			version_unref(v);
			v = NULL;
			r = load(t->path, &st, &v, err);
		}
		if (r == 0) {
			pthread_mutex_lock(&t->lock);
			struct version *old = t->now;
			t->now = v;
			atomic_fetch_add(&v->refs, 1);
			pthread_mutex_unlock(&t->lock);
			version_unref(old);
		}
		pthread_mutex_unlock(&t->load);
		if (r < 0)
			return r;
	}
	u->state = v;
	return 0;
}

static void
virtual_end(void *table, struct mw_use *u)
{
	(void)table;
	version_unref(u->state);
}

static int
virtual_lookup(void *table, struct mw_use *u, struct mw_str key, struct mw_buf *out,
               struct mw_err *err)
{
	(void)table;
	const struct row *r = slot_of(u->state, key);
	if (!r->key.p)
		return 0;
	mw_buf_putstr(out, r->value);
	if (mw_buf_ok(out) < 0)
		return mw_fail(err, MW_ELIMIT, "an alias result is too long");
	return 1;
}

static int
virtual_open(const char *where, void **ret, struct mw_err *err)
{
	struct virtual *t = calloc(1, sizeof *t);
	if (!t || !(t->path = strdup(where))) {
		free(t);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	(void)pthread_mutex_init(&t->load, NULL); /* cannot fail with NULL attributes */
	(void)pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

static void
virtual_close(void *table)
{
	struct virtual *t = table;
	version_unref(t->now);
	pthread_mutex_destroy(&t->lock);
	pthread_mutex_destroy(&t->load);
	free(t->path);
	free(t);
}

const struct mw_table_kind mw_table_virtual = {
    .open = virtual_open,
    .close = virtual_close,
    .begin = virtual_begin,
    .end = virtual_end,
    .lookup = virtual_lookup,
};
