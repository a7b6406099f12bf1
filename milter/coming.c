#include "milter/coming.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/fs.h"
#include "journal/base/log.h"
#include "journal/base/util.h"

enum {
	FIRST = 64,
	LINE = 48, /* tag, ID, time in µs or 0, four bytes of 0, CRC of these */
	LINES_SPARE = 4096
};

static const int64_t keep_us = MW_GUARD_DAYS * INT64_C(86400000000);
static const int64_t ahead_us = INT64_C(3600000000); /* a clock that was set back */

/* ---- the table; with its lock ---- */

static bool
is_free(const struct mw_coming_one *s)
{
	static const uint8_t none[MW_TRAIL_TAG];
	return s->us == 0 && memcmp(s->tag, none, sizeof none) == 0;
}

static bool
is_due(const struct mw_coming_one *s, int64_t now_us)
{
	return s->us && s->us >= now_us - keep_us && s->us <= now_us + ahead_us;
}

/* The tag's place, or the free one where it belongs. There is always a free one. */
static struct mw_coming_one *
find(struct mw_coming_one *slot, size_t n_slot, const uint8_t tag[MW_TRAIL_TAG])
{
	size_t i = (size_t)mw_get64(tag) & (n_slot - 1); /* nobody can choose a tag */
	while (!is_free(&slot[i]) && memcmp(slot[i].tag, tag, MW_TRAIL_TAG) != 0)
		i = (i + 1) & (n_slot - 1);
	return &slot[i];
}

static size_t
count_due(const struct mw_coming *c, int64_t now_us, int64_t *ret_oldest)
{
	size_t n = 0;
	*ret_oldest = now_us;
	for (size_t i = 0; i < c->n_slot; i++)
		if (is_due(&c->slot[i], now_us)) {
			*ret_oldest = MW_MIN(*ret_oldest, c->slot[i].us);
			n++;
		}
	return n;
}

/* Room for one more: what has come or is too old goes, and of too many the older ones. */
static bool
make_room(struct mw_coming *c, int64_t now_us)
{
	int64_t oldest;
	if (c->n_slot && c->n < c->n_slot / 2)
		return true;
	size_t left = count_due(c, now_us, &oldest);
	/* not only when it is full: it would be gone through for each that comes */
	size_t most = left < MW_COMING_MOST / 4 * 3 ? left : MW_COMING_MOST / 2;
	int64_t from = left == most ? oldest : now_us - (now_us - oldest) / 2;
	size_t n_slot = MW_MAX(c->n_slot, (size_t)FIRST), n = 0;
	if (left >= n_slot / 4 && n_slot < 2 * (size_t)MW_COMING_MOST)
		n_slot *= 2;
	struct mw_coming_one *slot = calloc(n_slot, sizeof *slot);
	if (!slot)
		return false;
	for (size_t i = 0; i < c->n_slot; i++)
		if (is_due(&c->slot[i], now_us) && c->slot[i].us >= from && n < most) {
			*find(slot, n_slot, c->slot[i].tag) = c->slot[i];
			n++;
		}
	free(c->slot);
	c->slot = slot;
	c->n_slot = n_slot;
	c->n = c->left = n;
	return true;
}

static bool
expect(struct mw_coming *c, const struct mw_coming_one *one, int64_t now_us)
{
	if (!make_room(c, now_us))
		return false;
	struct mw_coming_one *s = find(c->slot, c->n_slot, one->tag);
	c->n += is_free(s);
	c->left += s->us == 0;
	*s = *one;
	if (one->us > atomic_load(&c->newest_us))
		atomic_store(&c->newest_us, one->us);
	return true;
}

static bool
strike(struct mw_coming *c, const uint8_t tag[MW_TRAIL_TAG], int64_t now_us,
       struct mw_coming_one *ret)
{
	if (!c->n_slot)
		return false;
	struct mw_coming_one *s = find(c->slot, c->n_slot, tag);
	if (!is_due(s, now_us))
		return false;
	*ret = *s;
	s->us = 0;
	if (--c->left == 0)
		atomic_store(&c->newest_us, 0);
	return true;
}

/* ---- the file; with its lock ---- */

static void
trouble(const struct mw_err *err)
{
	mw_log(MW_LOG_WARN, NULL, "event=note_lost error=%s reason=\"%s\"",
	       mw_err_name(err->code), err->msg);
}

static void
write_line(uint8_t out[LINE], const struct mw_coming_one *one)
{
	memset(out, 0, LINE);
	memcpy(out, one->tag, MW_TRAIL_TAG);
	memcpy(out + 16, one->id, MW_ID_LEN);
	mw_put64(out + 32, (uint64_t)one->us);
	mw_put32(out + 44, mw_crc32c(0, out, 44));
}

static int
path_of(const struct mw_coming *c, char path[PATH_MAX], struct mw_err *err)
{
	return snprintf(path, PATH_MAX, "%s/coming", c->dir) < PATH_MAX
	           ? 0
	           : mw_fail(err, MW_EUSAGE, "path too long: %.80s…", c->dir);
}

/* Whole lines or none. */
static int
append(struct mw_coming *c, const uint8_t *p, size_t n, struct mw_err *err)
{
	const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
	char path[PATH_MAX];
	struct stat st;
	int r = path_of(c, path, err);
	if (r < 0)
		return r;
	if (c->fd < 0)
		c->fd = open(path, flags, 0640);
	if (c->fd < 0 || fstat(c->fd, &st) < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	ssize_t k = write(c->fd, p, n);
	if (k == (ssize_t)n) {
		c->lines += n / LINE;
		return 0;
	}
	if (k >= 0)
		errno = ENOSPC;
	(void)mw_fail_errno(err, "cannot write %s/coming", c->dir);
	(void)!ftruncate(c->fd, st.st_size); /* a part of a line spoils what follows */
	return err->code;
}

/* The file anew, with what is still expected. */
static int
write_anew(struct mw_coming *c, int64_t now_us, struct mw_err *err)
{
	MW_BUF_AUTO text = {0};
	uint8_t line[LINE];
	(void)pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->n_slot; i++)
		if (is_due(&c->slot[i], now_us)) {
			write_line(line, &c->slot[i]);
			mw_buf_put(&text, line, sizeof line);
		}
	(void)pthread_mutex_unlock(&c->lock);
	int r = mw_buf_ok(&text);
	if (r < 0)
		return mw_fail(err, r, "out of memory");
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	r = mw_fs_write_file(mw_fs_posix(), c->dir, "coming", text.n ? text.p : line,
	                     text.n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/coming", c->dir);
	}
	c->lines = text.n / LINE;
	return 0;
}

/* True if the file is to be written anew: not all of it is needed, or whole. */
static bool
read_lines(struct mw_coming *c, const uint8_t *p, size_t n, int64_t now_us)
{
	bool anew = n % LINE != 0;
	c->lines = n / LINE;
	for (size_t i = 0; i < c->lines; i++, p += LINE) {
		struct mw_coming_one one = {.us = (int64_t)mw_get64(p + 32)}, was;
		bool whole = mw_get32(p + 44) == mw_crc32c(0, p, 44);
		memcpy(one.tag, p, MW_TRAIL_TAG);
		memcpy(one.id, p + 16, MW_ID_LEN);
		if (whole && is_due(&one, now_us))
			anew |= !expect(c, &one, now_us);
		else
			anew = true;
		if (whole && one.us == 0)
			(void)strike(c, one.tag, now_us, &was);
	}
	return anew;
}

static int
load(struct mw_coming *c, int64_t now_us, struct mw_err *err)
{
	char path[PATH_MAX];
	void *text = NULL;
	size_t n = 0;
	int r = path_of(c, path, err);
	if (r < 0)
		return r;
	r = mw_fs_read_file(mw_fs_posix(), path, (size_t)LINE * 8 * MW_COMING_MOST, &text,
	                    &n);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	bool anew = read_lines(c, text, n, now_us);
	free(text);
	return anew ? write_anew(c, now_us, err) : 0;
}

/* ---- */

void
mw_coming_open(struct mw_coming *c, const char *dir, struct mw_pool *pool, int64_t now_us)
{
	struct mw_err err = {0};
	memset(c, 0, sizeof *c);
	c->dir = dir;
	c->pool = pool;
	c->fd = -1;
	(void)pthread_mutex_init(&c->lock, NULL); /* cannot fail with NULL attributes */
	(void)pthread_mutex_init(&c->file_lock, NULL);
	if (load(c, now_us, &err) < 0)
		trouble(&err);
}

void
mw_coming_close(struct mw_coming *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	free(c->slot);
	free(c->gone);
	c->slot = NULL;
	c->gone = NULL;
	(void)pthread_mutex_destroy(&c->lock);
	(void)pthread_mutex_destroy(&c->file_lock);
}

int
mw_coming_tell(struct mw_coming *c, const uint8_t tag[MW_TRAIL_TAG],
               const uint8_t id[MW_ID_LEN], int64_t now_us, struct mw_err *err)
{
	struct mw_coming_one one = {.us = now_us};
	uint8_t line[LINE];
	memcpy(one.tag, tag, MW_TRAIL_TAG);
	memcpy(one.id, id, MW_ID_LEN);
	write_line(line, &one);
	(void)pthread_mutex_lock(&c->file_lock);
	(void)pthread_mutex_lock(&c->lock);
	bool many = c->lines > 4 * c->left + LINES_SPARE;
	(void)pthread_mutex_unlock(&c->lock);
	int r = many ? write_anew(c, now_us, err) : 0;
	if (r == 0)
		r = append(c, line, sizeof line, err);
	(void)pthread_mutex_lock(&c->lock);
	if (r == 0 && !expect(c, &one, now_us))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_mutex_unlock(&c->file_lock);
	return r;
}

bool
mw_coming_any(struct mw_coming *c, int64_t now_us)
{
	int64_t newest = atomic_load(&c->newest_us);
	return newest && newest >= now_us - keep_us;
}

bool
mw_coming_take(struct mw_coming *c, const uint8_t tag[MW_TRAIL_TAG], int64_t now_us,
               struct mw_coming_one *ret)
{
	(void)pthread_mutex_lock(&c->lock);
	bool took = strike(c, tag, now_us, ret);
	(void)pthread_mutex_unlock(&c->lock);
	return took;
}

/* In the pool's thread. */
static void
write_gone(void *arg)
{
	struct mw_coming *c = arg;
	struct mw_err err = {0};
	(void)pthread_mutex_lock(&c->file_lock);
	(void)pthread_mutex_lock(&c->lock);
	while (c->n_gone) {
		uint8_t text[64 * LINE];
		size_t n = MW_MIN(c->n_gone, (size_t)64);
		struct mw_coming_one one = {.us = 0};
		c->n_gone -= n;
		for (size_t i = 0; i < n; i++) {
			memcpy(one.tag, c->gone[c->n_gone + i], MW_TRAIL_TAG);
			write_line(text + i * LINE, &one);
		}
		(void)pthread_mutex_unlock(&c->lock);
		if (append(c, text, n * LINE, &err) < 0)
			trouble(&err);
		(void)pthread_mutex_lock(&c->lock);
	}
	c->writing = false;
	(void)pthread_mutex_unlock(&c->lock);
	(void)pthread_mutex_unlock(&c->file_lock);
}

void
mw_coming_done(struct mw_coming *c, const struct mw_coming_one *one)
{
	(void)pthread_mutex_lock(&c->lock);
	if (c->n_gone == c->cap_gone) {
		size_t cap = c->cap_gone ? 2 * c->cap_gone : FIRST;
		uint8_t(*v)[MW_TRAIL_TAG] =
		    cap <= MW_COMING_MOST ? reallocarray(c->gone, cap, sizeof *v) : NULL;
		if (v) {
			c->gone = v;
			c->cap_gone = cap;
		}
	}
	if (c->n_gone < c->cap_gone) /* else the file has a line too many */
		memcpy(c->gone[c->n_gone++], one->tag, MW_TRAIL_TAG);
	bool start = !c->writing;
	c->writing = true;
	(void)pthread_mutex_unlock(&c->lock);
	if (!start)
		return;
	c->job = (struct mw_job){.fn = write_gone, .arg = c};
	if (mw_pool_run(c->pool, &c->job))
		return;
	(void)pthread_mutex_lock(&c->lock);
	c->writing = false; /* no thread to be had: the next one tries */
	(void)pthread_mutex_unlock(&c->lock);
}

void
mw_coming_again(struct mw_coming *c, const struct mw_coming_one *one, int64_t now_us)
{
	(void)pthread_mutex_lock(&c->lock);
	(void)!expect(c, one, now_us); /* no memory: it is journaled when it comes */
	(void)pthread_mutex_unlock(&c->lock);
}

bool
mw_coming_busy(struct mw_coming *c)
{
	(void)pthread_mutex_lock(&c->lock);
	bool busy = c->writing;
	(void)pthread_mutex_unlock(&c->lock);
	return busy;
}
