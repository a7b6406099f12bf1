#include "replay/target_mbox.h"
#include "replay/import.h"
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

/* mboxrd: LF line ends, "From SENDER DATE" (UTC) before each message, '>' before each
 * line that looks like one. Locked as others lock it: fcntl and FILE.lock. The lock file
 * also says how long the mbox was before the batch in progress, so that a killed run's
 * torn end is cut off by the next. */

enum {
	BATCH = 64
};

struct span {                   /* one message, From_ line excluded */
	uint64_t at, len, size; /* size: as CRLF text, unquoted */
	int64_t date_us;
};

struct mbox {
	char *path;
	struct mw_mbox_lock lock;
	int fd;
	struct span *v;
	size_t n, cap;
	uint64_t scanned; /* file size at the scan */
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
	if (!r && !dry)
		r = mw_mbox_lock(&m->lock, t, box, err);
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

/* One or more '>' and then "From ": mboxrd takes one off. */
static bool
is_quoted(struct mw_str s)
{
	size_t i = 0;
	while (i < s.n && s.p[i] == '>')
		i++;
	return i && mw_str_starts(mw_str(s.p + i, s.n - i), MW_STR("From "));
}

/* The separating empty line is no content. */
static void
end_span(struct span *s, size_t blank)
{
	if (!s || !s->len)
		return;
	s->len -= blank;
	s->size -= 2;
}

static int
add_span(struct mbox *m, uint64_t at, int64_t date_us)
{
	if (m->n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 256;
		void *p = realloc(m->v, cap * sizeof *m->v);
		if (!p)
			return MW_ENOMEM;
		m->v = p;
		m->cap = cap;
	}
	m->v[m->n++] = (struct span){at, 0, 0, date_us};
	return 0;
}

/* Finds the messages: a From_ line at the start or after an empty line. */
static int
find_spans(struct mbox *m, FILE *f, struct mw_err *err)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	uint64_t at = 0;
	size_t blank = 1; /* bytes of the empty line before this one */
	int r = 0;
	m->n = 0;
	while (!r && (n = getline(&line, &cap, f)) > 0) {
		struct mw_str s = mw_str(line, (size_t)n);
		bool lf = line[n - 1] == '\n', cr = lf && n > 1 && line[n - 2] == '\r';
		struct span *last = m->n ? &m->v[m->n - 1] : NULL;
		struct mw_str sender;
		int64_t date_us;
		bool zone;
		if (blank && mw_from_line(s, &sender, &date_us, &zone)) {
			end_span(last, blank);
			r = add_span(m, at + (uint64_t)n, date_us);
		} else if (last) {
			last->len += (uint64_t)n;
			last->size += (uint64_t)n + (lf && !cr) - is_quoted(s);
		}
		blank = lf && n == 1 + cr ? (size_t)n : 0;
		at += (uint64_t)n;
	}
	struct span *last = m->n ? &m->v[m->n - 1] : NULL;
	if (blank)
		end_span(last, blank);
	free(line);
	m->scanned = at;
	if (!r && ferror(f))
		return mw_fail_errno(err, "cannot read %s", m->path);
	return r ? mw_fail(err, r, "out of memory") : 0;
}

/* Feeds message i, unquoted, to the sink; at most `most` bytes of it. */
static int
feed(const struct mbox *m, FILE *f, size_t i, uint64_t most,
     int (*sink)(void *, const void *, size_t), void *arg)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	uint64_t left = MW_MIN(m->v[i].len, most);
	int r = fseeko(f, (off_t)m->v[i].at, SEEK_SET) ? MW_EIO : 0;
	while (!r && left && (n = getline(&line, &cap, f)) > 0) {
		size_t k = MW_MIN((uint64_t)n, left);
		bool q = is_quoted(mw_str(line, k));
		left -= k;
		r = sink(arg, line + q, k - q);
	}
	free(line);
	return r;
}

static int
to_buf(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return 0;
}

static FILE *
reader(const struct mbox *m)
{
	struct mw_err why;
	int fd = mw_mbox_open(m->path, O_RDONLY, &why);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f && fd >= 0)
		(void)close(fd);
	return f;
}

/* Closing any descriptor of a file ends our fcntl locks on it: taken again. */
static void
reader_close(const struct mbox *m, FILE *f)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	(void)fclose(f);
	if (!m->dry)
		(void)fcntl(m->fd, F_SETLK, &fl); /* the lock file holds in any case */
}

static int
mbox_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
          struct mw_err *err)
{
	struct mbox *m = t->own;
	MW_BUF_AUTO header = {0};
	if (m->fd < 0)
		return 0;
	FILE *f = reader(m);
	if (!f)
		return mw_fail_errno(err, "cannot read %s", m->path);
	int r = find_spans(m, f, err);
	for (size_t i = 0; i < m->n && !r; i++) {
		mw_buf_clear(&header);
		r = feed(m, f, i, 64 * 1024, to_buf, &header);
		struct mw_found found = {i, m->v[i].size, m->v[i].date_us, false,
		                         mw_buf_str(&header)};
		r = r ? mw_fail(err, r, "cannot read %s", m->path) : cb(arg, &found);
	}
	reader_close(m, f);
	return r;
}

static int
mbox_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
           int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
           struct mw_err *err)
{
	struct mbox *m = t->own;
	FILE *f = reader(m);
	struct mw_profiler *pr = mw_profiler_new();
	int r = f && pr ? 0 : mw_fail_errno(err, "cannot read %s", m->path);
	for (size_t i = 0; i < n && !r; i++) {
		r = feed(m, f, (size_t)keys[i], UINT64_MAX, mw_profiler_put, pr);
		struct mw_profile *p = r ? NULL : mw_profiler_take(pr);
		if (p)
			r = cb(arg, keys[i], p);
		else
			r = mw_fail(err, MW_EIO, "cannot read %s", m->path);
	}
	mw_profiler_free(pr);
	if (f)
		reader_close(m, f);
	return r;
}

/* ---- put ---- */

struct quoting { /* CRLF to LF, mboxrd quoting; a line may come in pieces */
	struct mw_files_out *o;
	size_t marks; /* '>' seen at the start of this line, held back */
	size_t match; /* letters of "From " seen after them */
	bool deciding, cr;
	char last;
};

static int
emit(struct quoting *q, const char *p, size_t n)
{
	if (n)
		q->last = p[n - 1];
	return mw_files_write(q->o, p, n);
}

/* The start of a line is known: write what was held back. */
static int
decided(struct quoting *q, bool quote)
{
	int r = quote ? emit(q, ">", 1) : 0;
	for (; !r && q->marks; q->marks--)
		r = emit(q, ">", 1);
	if (!r)
		r = emit(q, "From ", q->match);
	q->match = 0;
	q->deciding = false;
	return r;
}

static int
one_byte(struct quoting *q, char c)
{
	if (q->deciding) {
		if (!q->match && c == '>') {
			q->marks++;
			return 0;
		}
		if (c == "From "[q->match]) {
			if (++q->match == 5)
				return decided(q, true);
			return 0;
		}
		int r = decided(q, false);
		if (r)
			return r;
	}
	if (c == '\n')
		q->deciding = true;
	return emit(q, &c, 1);
}

static int
quote_sink(void *arg, const void *p, size_t n)
{
	struct quoting *q = arg;
	const char *s = p;
	for (size_t i = 0; i < n; i++) {
		int r = 0;
		if (q->cr && s[i] != '\n') /* a bare CR stays */
			r = one_byte(q, '\r');
		q->cr = s[i] == '\r';
		if (!r && !q->cr)
			r = one_byte(q, s[i]);
		if (r)
			return r;
	}
	return 0;
}

static int
write_from(struct mw_files_out *o, const struct mw_put *p, const struct mw_mail *m)
{
	char line[1200], who[1000];
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	const time_t oldest = -2208988800; /* 1900: no line is read with an older one */
	time_t sec = MW_MAX((time_t)(p->time_us / 1000000), oldest);
	struct tm tm;
	size_t n = MW_MIN(m->sender.n, sizeof who - 1);
	if (!gmtime_r(&sec, &tm))
		return mw_fail(o->err, MW_EFORMAT, "impossible time");
	for (size_t i = 0; i < n; i++)
		who[i] = (unsigned char)m->sender.p[i] <= 32 ? '_' : m->sender.p[i];
	who[n] = '\0';
	int k = snprintf(line, sizeof line, "From %s %.3s %.3s %2d %02d:%02d:%02d %d\n",
	                 n ? who : "MAILER-DAEMON", days + tm.tm_wday * 3,
	                 months + tm.tm_mon * 3, tm.tm_mday, tm.tm_hour, tm.tm_min,
	                 tm.tm_sec, tm.tm_year + 1900);
	return mw_files_write(o, line, (size_t)k);
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
	struct quoting q = {.o = o, .deciding = true, .last = '\n'};
	int r = io->envelope(io->arg, p, &mail, err);
	if (!r)
		r = separate(m, o);
	if (!r)
		r = write_from(o, p, mail);
	if (!r)
		r = io->content(io->arg, p, quote_sink, &q, err);
	if (!r && q.deciding)
		r = decided(&q, false);
	if (!r && q.cr)
		r = emit(&q, "\r", 1);
	if (!r && q.last != '\n')
		r = emit(&q, "\n", 1);
	if (!r)
		r = emit(&q, "\n", 1);
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
