/* import_mbox.c - one file, many messages: a From_ line before each, in five dialects. */
#include "replay/import.h"

#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

enum {
	BUFFER = 128 * 1024,
	LOCK_TRIES = 50,
	LOCK_NAP_MS = 200,
	FROM_MAX = 2000 /* a longer line begins no message */
};

/* ---- the From_ line ---- */

static bool
number(struct mw_str s, int low, int high, int *ret)
{
	int v = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || v > 9999)
			return false;
		v = v * 10 + (s.p[i] - '0');
	}
	*ret = v;
	return s.n && v >= low && v <= high;
}

static int
name_at(struct mw_str s, const char *names)
{
	for (int i = 0; s.n == 3 && names[3 * i]; i++)
		if (strncasecmp(s.p, names + 3 * i, 3) == 0)
			return i;
	return -1;
}

static bool
clock_time(struct mw_str s, struct tm *tm)
{
	struct mw_str h, m, rest = s, sec = mw_str("0", 1);
	if (!mw_str_cut(rest, ':', &h, &rest))
		return false;
	m = rest;
	(void)mw_str_cut(rest, ':', &m, &sec); /* seconds may be missing */
	return number(h, 0, 23, &tm->tm_hour) && number(m, 0, 59, &tm->tm_min) &&
	       number(sec, 0, 60, &tm->tm_sec);
}

/* "+0100", "GMT": seconds east of Greenwich. Names of other zones say too little. */
static bool
zone(struct mw_str s, int *ret)
{
	int v;
	*ret = 0;
	if (mw_str_ieq(s, MW_STR("GMT")) || mw_str_ieq(s, MW_STR("UTC")) ||
	    mw_str_ieq(s, MW_STR("Z")))
		return true;
	if (s.n != 5 || (s.p[0] != '+' && s.p[0] != '-') ||
	    !number(mw_str(s.p + 1, 4), 0, 1459, &v))
		return false;
	*ret = (s.p[0] == '-' ? -1 : 1) * (v / 100 * 3600 + v % 100 * 60);
	return true;
}

static size_t
words(struct mw_str s, struct mw_str *v, size_t most)
{
	size_t n = 0, i = 0;
	while (i < s.n && n < most) {
		while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t'))
			i++;
		size_t at = i;
		while (i < s.n && s.p[i] != ' ' && s.p[i] != '\t')
			i++;
		if (i > at)
			v[n++] = mw_str(s.p + at, i - at);
	}
	return n;
}

/* "Thu Nov 19 10:00[:00] [ZONE] 2026 [ZONE]" from v on. */
static bool
date(const struct mw_str *v, size_t n, int64_t *ret_us, bool *ret_zone)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm = {0};
	int year, east = 0;
	if (n < 5 || name_at(v[0], days) < 0 || (tm.tm_mon = name_at(v[1], months)) < 0 ||
	    !number(v[2], 1, 31, &tm.tm_mday) || !clock_time(v[3], &tm))
		return false;
	size_t at = 4;
	*ret_zone = false;
	if (!number(v[at], 1900, 9999, &year)) {
		*ret_zone = zone(v[at++], &east);
		if (at == n || !number(v[at], 1900, 9999, &year))
			return false;
	}
	if (at + 1 < n && !*ret_zone)
		*ret_zone = zone(v[at + 1], &east);
	tm.tm_year = year - 1900;
	*ret_us = ((int64_t)timegm(&tm) - east) * 1000000;
	return true;
}

int
mw_from_line(struct mw_str line, struct mw_str *ret_sender, int64_t *ret_us,
             bool *ret_zone)
{
	struct mw_str v[24];
	if (!mw_str_starts(line, MW_STR("From ")) || line.n > FROM_MAX)
		return 0;
	line = mw_str_trim(mw_str(line.p + 5, line.n - 5));
	size_t n = words(line, v, MW_COUNT(v));
	for (size_t i = 0; i < n; i++) {
		if (!date(v + i, n - i, ret_us, ret_zone))
			continue;
		struct mw_str s = mw_str_trim(mw_str(line.p, (size_t)(v[i].p - line.p)));
		if (mw_str_ieq(s, MW_STR("MAILER-DAEMON")) || mw_str_eq(s, MW_STR("-")))
			s = MW_STR("");
		*ret_sender = s;
		return 1;
	}
	return 0;
}

/* ---- pieces of the file ---- */

struct reader {
	int fd;
	char *buf;
	size_t at, n;
	uint64_t off; /* of buf[at] in the file */
	bool mid;     /* the piece to come goes on with a line */
	bool failed;
};

/* More bytes behind what is there; false at the end of the file. */
static bool
fill(struct reader *r)
{
	if (r->at) {
		memmove(r->buf, r->buf + r->at, r->n - r->at);
		r->n -= r->at;
		r->at = 0;
	}
	for (;;) {
		ssize_t k =
		    pread(r->fd, r->buf + r->n, BUFFER - r->n, (off_t)(r->off + r->n));
		if (k < 0 && errno == EINTR)
			continue;
		r->failed = r->failed || k < 0;
		if (k <= 0)
			return false;
		r->n += (size_t)k;
		return true;
	}
}

/* A line, or a piece of one that is too long for the buffer. False at the end. */
static bool
piece(struct reader *r, struct mw_str *ret, bool *ret_bol)
{
	const char *lf;
	while (!(lf = memchr(r->buf + r->at, '\n', r->n - r->at)) &&
	       r->n - r->at < BUFFER && fill(r))
		;
	size_t k = lf ? (size_t)(lf + 1 - (r->buf + r->at)) : r->n - r->at;
	if (k == 0)
		return false;
	*ret = mw_str(r->buf + r->at, k);
	*ret_bol = !r->mid;
	r->mid = !lf;
	r->at += k;
	r->off += k;
	return true;
}

/* ---- messages ---- */

enum state {
	BEFORE, /* no message yet, or between two */
	HEADER,
	BODY
};

struct mbox {
	const struct mw_import_src *s;
	const struct mw_import_box *b;
	struct reader r;
	struct mw_crlf crlf;
	enum state state;
	bool sent, wanted, blank, any;
	struct mw_str held; /* an empty line that may be the separator */
	uint64_t content_length;
	bool has_length, raw; /* raw: nothing is quoted in this one */
	uint64_t number;
};

static int
emit(struct mbox *m, struct mw_str s)
{
	return m->wanted ? mw_crlf_put(&m->crlf, s.p, s.n) : 0;
}

static int
emit_held(struct mbox *m)
{
	struct mw_str s = m->held;
	m->held = mw_str("", 0);
	return s.n ? emit(m, s) : 0;
}

static int
end_message(struct mbox *m)
{
	bool wanted = m->wanted;
	m->wanted = false;
	m->state = BEFORE;
	m->held = mw_str("", 0);
	return wanted ? m->s->sink->end(m->s->sink->arg, 0, NULL) : 0;
}

static int
begin_message(struct mbox *m, struct mw_str sender, int64_t us, bool has_zone)
{
	char name[5000];
	(void)snprintf(name, sizeof name, "%s, message %llu", m->b->path,
	               (unsigned long long)++m->number);
	const struct mw_import_msg msg = {.name = name,
	                                  .owner = m->b->owner,
	                                  .mailbox = m->b->mailbox,
	                                  .sent = m->sent,
	                                  .time_us = us,
	                                  .no_zone = !has_zone,
	                                  .sender = sender};
	int r = m->s->sink->begin(m->s->sink->arg, &msg);
	m->crlf = (struct mw_crlf){.sink = m->s->sink};
	m->state = HEADER;
	m->wanted = r == 0;
	m->any = true;
	m->has_length = m->raw = false;
	return r < 0 ? r : 0;
}

static void
note_length(struct mbox *m, struct mw_str line)
{
	static const struct mw_str field = {"Content-Length:", 15};
	uint64_t v = 0;
	if (!mw_str_istarts(line, field))
		return;
	struct mw_str s = mw_str_trim(mw_str(line.p + field.n, line.n - field.n));
	m->has_length = s.n > 0 && s.n < 16;
	for (size_t i = 0; i < s.n && m->has_length; i++) {
		m->has_length = s.p[i] >= '0' && s.p[i] <= '9';
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	m->content_length = v;
}

/* Does the length lead to the end of the file or to a From_ line? That is one at the
 * start of a line only: the length is its sender's, and could point behind the > of a
 * quoted one.
 */
static bool
length_fits(const struct mbox *m)
{
	char b[16];
	struct stat st;
	if (fstat(m->r.fd, &st) < 0)
		return false;
	uint64_t size = (uint64_t)st.st_size, end = m->r.off + m->content_length;
	if (end > size)
		return false;
	if (end + 2 >= size)
		return true;
	ssize_t n = pread(m->r.fd, b, sizeof b, (off_t)end - 1);
	struct mw_str s = mw_str(b, n > 0 ? (size_t)n : 0);
	char before = 0;
	for (int i = 0; i < 3 && s.n && (i == 0 || s.p[0] == '\n' || s.p[0] == '\r');
	     i++) {
		before = s.p[0];
		s = mw_str(s.p + 1, s.n - 1);
	}
	return before == '\n' && mw_str_starts(s, MW_STR("From "));
}

/* The body by its length, as it stands, or with ">From " unquoted. */
static int
by_length(struct mbox *m)
{
	uint64_t left = m->content_length;
	bool bol;
	struct mw_str s;
	int r = 0;
	while (r == 0 && left && piece(&m->r, &s, &bol)) {
		if (s.n > left) { /* give the rest of the line back */
			m->r.at -= s.n - (size_t)left;
			m->r.off -= s.n - left;
			m->r.mid = false;
			s.n = (size_t)left;
		}
		left -= s.n;
		size_t cut = bol && !m->raw && mw_str_starts(s, MW_STR(">From ")) ? 1 : 0;
		r = emit(m, mw_str(s.p + cut, s.n - cut));
	}
	m->blank = true;
	return r < 0 ? r : end_message(m);
}

static int
end_header(struct mbox *m)
{
	enum mw_mbox_format f = m->s->format;
	m->state = BODY;
	m->blank = true;
	if (!m->has_length || f == MW_MBOX_RD || f == MW_MBOX_O || !length_fits(m))
		return 0;
	m->raw = f != MW_MBOX_CL;
	return by_length(m);
}

static size_t
quotes(const struct mbox *m, struct mw_str s)
{
	size_t i = 0;
	bool one = m->s->format == MW_MBOX_O || m->s->format == MW_MBOX_CL;
	if (m->s->format == MW_MBOX_CL2)
		return 0;
	while (i < s.n && s.p[i] == '>' && !(one && i == 1))
		i++;
	return i && mw_str_starts(mw_str(s.p + i, s.n - i), MW_STR("From ")) ? 1 : 0;
}

static bool
is_blank(struct mw_str s)
{
	return mw_str_eq(s, MW_STR("\n")) || mw_str_eq(s, MW_STR("\r\n"));
}

static int
one_line(struct mbox *m, struct mw_str s, bool bol)
{
	struct mw_str sender;
	int64_t us;
	bool has_zone;
	if (bol && m->blank && mw_from_line(s, &sender, &us, &has_zone)) {
		int r = m->state == BEFORE ? 0 : end_message(m);
		m->blank = false;
		return r < 0 ? r : begin_message(m, sender, us, has_zone);
	}
	bool blank = bol && is_blank(s);
	if (m->state == BEFORE) {
		m->blank = blank || (m->blank && !m->any);
		return blank
		           ? 0
		           : mw_fail(NULL, MW_EFORMAT, "no From_ line where one is due");
	}
	m->blank = blank;
	if (m->state == HEADER) {
		if (bol)
			note_length(m, s);
		int r = emit(m, s);
		return r < 0 || !blank ? r : end_header(m);
	}
	int r = emit_held(m);
	if (r < 0)
		return r;
	if (blank) {
		m->held = s.n == 1 ? MW_STR("\n") : MW_STR("\r\n");
		return 0;
	}
	size_t cut = bol ? quotes(m, s) : 0;
	return emit(m, mw_str(s.p + cut, s.n - cut));
}

/* As readers lock it, so that nobody rewrites it under us. */
static int
lock(int fd, const char *path, struct mw_err *err)
{
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	for (int i = 0; i < LOCK_TRIES && !mw_cli_stopped(); i++) {
		if (fcntl(fd, F_SETLK, &fl) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			return 0; /* a file system without locks */
		(void)poll(NULL, 0, LOCK_NAP_MS);
	}
	return mw_fail(err, MW_ELOCKED, "%s is locked by another program", path);
}

static int
all_messages(struct mbox *m, struct mw_err *err)
{
	struct mw_str s;
	bool bol;
	int r = 0;
	while (r == 0 && piece(&m->r, &s, &bol))
		r = one_line(m, s, bol);
	const struct mw_import_sink *sink = m->s->sink;
	if (r == MW_EFORMAT && m->state == BEFORE)
		return mw_fail(err, r,
		               m->any ? "%s: after message %llu there is no From_ line"
		                      : "%s is no mbox: it does not begin with a "
		                        "From_ line",
		               m->b->path, (unsigned long long)m->number);
	if (r < 0)
		return r;
	if (m->r.failed && m->wanted) {
		m->wanted = false;
		return sink->end(sink->arg, MW_EIO, "the file cannot be read on");
	}
	if (m->r.failed)
		return mw_fail(err, MW_EIO, "%s cannot be read on", m->b->path);
	return m->state == BEFORE ? 0 : end_message(m);
}

int
mw_import_mbox(const struct mw_import_src *s, const struct mw_import_box *b,
               struct mw_err *err)
{
	struct mbox m = {.s = s, .b = b, .blank = true};
	struct stat st;
	const char *slash = strrchr(b->path, '/');
	MW_AUTOCLOSE int fd = open(b->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return mw_fail_errno(err, "cannot open %s", b->path);
	if (!S_ISREG(st.st_mode))
		return mw_fail(err, MW_EUSAGE, "%s is no file", b->path);
	int r = lock(fd, b->path, err);
	if (r < 0)
		return r;
	m.sent = s->sent ||
	         mw_import_folder(s->cli->conf, mw_strz(slash ? slash + 1 : b->path),
	                          0) == MW_IMPORT_SENT;
	m.r = (struct reader){.fd = fd, .buf = malloc(BUFFER)};
	if (!m.r.buf)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = all_messages(&m, err);
	free(m.r.buf);
	return r;
}
