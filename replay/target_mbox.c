#include "replay/target_mbox.h"
#include "replay/mbox.h"
#include "replay/target_files.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

/* mboxrd (mbox.h): LF line ends, "From SENDER   DATE" (UTC) before each message, '>'
 * before each line that looks like one. Locked as others lock it: fcntl and FILE.lock.
 * The lock file also says how long the mbox was before the batch in progress, so that a
 * killed run's torn end is cut off by the next. */

enum {
	BATCH = 64,
	HEADER_SEEN = 64 * 1024
};

struct mbox {
	char *path;
	struct mw_mbox_lock lock;
	int fd;
	uint64_t *v; /* where the From_ lines are, by the last scan */
	size_t n, cap;
	int known; /* of the file, by those who read it before */
	bool dry;
};

static void
mbox_free(struct mw_target *t)
{
	struct mbox *m = t->own;
	t->own = NULL;
	if (!m)
		return;
	if (m->fd >= 0)
		(void)close(m->fd); /* fcntl locks end here */
	mw_mbox_unlock(&m->lock);
	free(m->v);
	free(m->path);
	free(m);
}

static int
mbox_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
          struct mw_err *err)
{
	(void)mailbox;
	struct mbox *m = calloc(1, sizeof *m);
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (!m)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	t->own = m;
	m->fd = m->lock.fd = -1;
	m->dry = dry;
	m->path = strdup(box);
	int r = m->path ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	struct stat st, out;
	bool there = !r && stat(box, &st) == 0;
	if (there && !S_ISREG(st.st_mode))
		r = mw_fail(err, MW_ECREATE, "%s is there and no file", box);
	else if (there && fstat(STDOUT_FILENO, &out) == 0 && st.st_dev == out.st_dev &&
	         st.st_ino == out.st_ino)
		r = mw_fail(err, MW_ECREATE, "%s is where this command prints to", box);
	if (!r)
		r = dry ? mw_mbox_parent_dry(t, box, err)
		        : mw_mbox_lock(&m->lock, t, box, err);
	if (!r) {
		m->fd = mw_mbox_open(box, dry ? O_RDONLY : O_RDWR | O_CREAT, err);
		r = dry && m->fd == MW_ENOTFOUND ? 0 : MW_MIN(m->fd, 0);
		m->fd = MW_MAX(m->fd, -1);
	}
	if (!r && !dry && fcntl(m->fd, F_SETLK, &fl) < 0)
		r = mw_fail(err, MW_ELOCKED, "%s is locked by another program", box);
	if (!r && !dry && fstat(m->fd, &st) < 0)
		r = mw_fail_errno(err, "cannot look at %s", box);
	if (!r && !dry)
		r = mw_mbox_lock_note(&m->lock, (uint64_t)st.st_size, err);
	if (r)
		mbox_free(t);
	return r;
}

/* ---- scan ---- */

static int
add_span(struct mbox *m, uint64_t at)
{
	if (m->n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 256;
		void *p = realloc(m->v, cap * sizeof *m->v);
		if (!p)
			return MW_ENOMEM;
		m->v = p;
		m->cap = cap;
	}
	m->v[m->n++] = at;
	return 0;
}

/* A descriptor of its own: what is written goes to the end of the other. */
static int
reader(const struct mbox *m, int *ret_fd, struct mw_mbox **ret, struct mw_err *err)
{
	int fd = mw_mbox_open(m->path, O_RDONLY | O_NONBLOCK, err);
	if (fd < 0)
		return fd;
	int r = mw_mbox_new(fd, MW_MBOX_AUTO, false, ret);
	if (r < 0) {
		(void)close(fd);
		return mw_fail(err, r, "out of memory");
	}
	mw_mbox_know(*ret, m->known);
	*ret_fd = fd;
	return 0;
}

/* Closing any descriptor of a file ends our fcntl locks on it: taken again. */
static void
reader_close(struct mbox *m, int fd, struct mw_mbox *f)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	m->known = mw_mbox_known(f);
	mw_mbox_free(f);
	(void)close(fd);
	if (!m->dry)
		(void)fcntl(m->fd, F_SETLK, &fl); /* the lock file holds in any case */
}

struct looking { /* at one message of a scan */
	struct mw_buf header;
	uint64_t size;
};

static int
look(void *arg, const void *p, size_t n)
{
	struct looking *l = arg;
	l->size += n;
	if (l->header.n < HEADER_SEEN)
		mw_buf_put(&l->header, p, MW_MIN(n, HEADER_SEEN - l->header.n));
	return l->header.failed ? MW_ENOMEM : 0;
}

static int
all_messages(struct mbox *m, struct mw_mbox *f,
             int (*cb)(void *, const struct mw_found *), void *arg, struct mw_err *err)
{
	struct looking l = {0};
	struct mw_from from;
	uint64_t at;
	int r, q = 0;
	m->n = 0;
	while ((r = mw_mbox_next(f, &at, &from)) > 0) {
		int64_t us = from.us;
		l.size = 0;
		mw_buf_clear(&l.header);
		r = add_span(m, at);
		if (r == 0)
			r = mw_mbox_content(f, look, &l);
		if (r < 0)
			break;
		struct mw_found found = {m->n - 1, l.size, us, false,
		                         mw_buf_str(&l.header)};
		q = cb(arg, &found);
		if (q)
			break;
	}
	mw_buf_free(&l.header);
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory");
	return r < 0 ? mw_fail(err, r, "cannot read %s", m->path) : q;
}

static int
mbox_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
          struct mw_err *err)
{
	struct mbox *m = t->own;
	struct mw_mbox *f;
	int fd;
	if (m->fd < 0)
		return 0;
	int r = reader(m, &fd, &f, err);
	if (r < 0)
		return r;
	r = all_messages(m, f, cb, arg, err);
	reader_close(m, fd, f);
	return r;
}

static int
mbox_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
           int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
           struct mw_err *err)
{
	struct mbox *m = t->own;
	struct mw_mbox *f;
	struct mw_from from;
	uint64_t at;
	int fd, r = reader(m, &fd, &f, err);
	if (r < 0)
		return r;
	struct mw_profiler *pr = mw_profiler_new();
	r = pr ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		mw_mbox_seek(f, m->v[keys[i]]);
		int q = mw_mbox_next(f, &at, &from);
		if (q > 0)
			q = mw_mbox_content(f, mw_profiler_put, pr);
		struct mw_profile *p = q ? NULL : mw_profiler_take(pr);
		r = p ? cb(arg, keys[i], p)
		      : mw_fail(err, MW_EIO, "cannot read %s", m->path);
	}
	mw_profiler_free(pr);
	reader_close(m, fd, f);
	return r;
}

/* ---- put ---- */

static int
write_from(struct mw_files_out *o, const struct mw_put *p, const struct mw_mail *m)
{
	char line[1200];
	size_t n = mw_from_write(m->sender, p->time_us, line, sizeof line);
	return mw_files_write(o, line, n);
}

/* What others wrote may end in the middle of a line, or without the empty line that must
 * stand before a From_ line: without it nobody finds the message behind. */
static int
separate(struct mbox *m, struct mw_files_out *o)
{
	char end[3] = {'\n', '\n', '\n'};
	off_t at = lseek(m->fd, 0, SEEK_END);
	size_t k = (size_t)MW_MIN(at, (off_t)sizeof end);
	if (at < 0 || pread(m->fd, end + sizeof end - k, k, at - (off_t)k) != (ssize_t)k)
		return mw_fail_errno(o->err, "cannot read %s", m->path);
	if (end[2] != '\n')
		return mw_files_write(o, "\n\n", 2);
	bool blank = end[1] == '\n' || (end[1] == '\r' && end[0] == '\n');
	return blank ? 0 : mw_files_write(o, "\n", 1);
}

static int
append_one(struct mbox *m, const struct mw_put *p, const struct mw_put_io *io,
           struct mw_err *err)
{
	const struct mw_mail *mail;
	MW_AUTOFREE struct mw_files_out *o = calloc(1, sizeof *o);
	if (!o)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	o->fd = m->fd;
	o->path = m->path;
	o->err = err;
	struct mw_mbox_writer w;
	mw_mbox_writer_init(&w, mw_files_write, o);
	int r = io->envelope(io->arg, p, &mail, err);
	if (!r)
		r = separate(m, o);
	if (!r)
		r = write_from(o, p, mail);
	if (!r)
		r = io->content(io->arg, p, mw_mbox_writer_put, &w, err);
	if (!r)
		r = mw_mbox_writer_end(&w);
	return r ? r : mw_files_flush(o);
}

static int
end_batch(struct mbox *m, const struct mw_put *const *v, size_t n, off_t start,
          const struct mw_put_io *io)
{
	struct mw_err err = {0};
	struct mw_put_place place = {m->path, 0, 0, 0};
	int q = 0, r = 0;
	if (n && fdatasync(m->fd) < 0) {
		q = mw_fail_errno(&err, "cannot sync %s", m->path);
		if (ftruncate(m->fd, start) < 0)
			return q;
	}
	for (size_t i = 0; i < n && !r; i++)
		r = io->done(io->arg, v[i], q, q ? err.msg : NULL, q ? NULL : &place);
	return r;
}

static int
mbox_put(struct mw_target *t, const struct mw_put *v, size_t n,
         const struct mw_put_io *io, struct mw_err *err)
{
	struct mbox *m = t->own;
	const struct mw_put *batch[BATCH];
	size_t k = 0;
	int r = 0;
	off_t start = lseek(m->fd, 0, SEEK_END);
	for (size_t i = 0; i < n && !r && start >= 0; i++) {
		struct mw_err why = {0};
		const struct mw_put *one = &v[i];
		if (t->o.stopped && t->o.stopped()) {
			r = end_batch(m, batch, k, start, io);
			return r ? r : mw_fail(err, MW_ECANCEL, "interrupted");
		}
		if (io->intent && (r = io->intent(io->arg, &one, 1, err)))
			break;
		off_t at = lseek(m->fd, 0, SEEK_END);
		int q = append_one(m, one, io, &why);
		if (q) { /* nothing half-written stays */
			if (ftruncate(m->fd, at) < 0)
				return mw_fail_errno(err, "cannot cut %s back", m->path);
			r = io->done(io->arg, one, q, why.msg, NULL);
			continue;
		}
		batch[k++] = one;
		if (k == BATCH) {
			r = end_batch(m, batch, k, start, io);
			k = 0;
			start = lseek(m->fd, 0, SEEK_END);
			if (!r)
				r = mw_mbox_lock_note(&m->lock, (uint64_t)start, err);
		}
	}
	if (start < 0)
		return mw_fail_errno(err, "cannot append to %s", m->path);
	int q = end_batch(m, batch, k, start, io);
	if (!r && !q)
		q = mw_mbox_lock_note(&m->lock, (uint64_t)lseek(m->fd, 0, SEEK_END), err);
	return r ? r : q;
}

static int
mbox_close(struct mw_target *t, struct mw_err *err)
{
	(void)err;
	mbox_free(t);
	return 0;
}

static int
mbox_mark(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err)
{
	const struct mbox *m = t->own;
	(void)err;
	mw_files_mark(m->path, ret);
	return 1;
}

const struct mw_target_ops mw_target_mbox = {
    .scheme = "mbox",
    .readable = true,
    .has_sent = false, /* one file: a message to oneself is there once */
    .open = mbox_open,
    .scan = mbox_scan,
    .fetch = mbox_fetch,
    .put = mbox_put,
    .deliver = mbox_put,
    .mark = mbox_mark,
    .close = mbox_close,
    .free = mbox_free,
};
