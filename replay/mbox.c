#include "replay/mbox_int.h"

#include "journal/base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OUT = 32 * 1024
};

/* ---- lines ---- */

/* More bytes behind what is there; false at the end of the file. */
static bool
fill(struct mw_lines *r)
{
	if (r->at) {
		memmove(r->buf, r->buf + r->at, r->n - r->at);
		r->n -= r->at;
		r->at = 0;
	}
	for (;;) {
		ssize_t k = pread(r->fd, r->buf + r->n, MW_MBOX_BUFFER - r->n,
		                  (off_t)(r->off + r->n));
		if (k < 0 && errno == EINTR)
			continue;
		r->failed = r->failed || k < 0;
		if (k <= 0)
			return false;
		r->n += (size_t)k;
		return true;
	}
}

bool
mw_lines_next(struct mw_lines *r, struct mw_str *ret, bool *ret_bol)
{
	const char *lf = NULL;
	size_t seen = 0;
	for (;;) {
		lf = memchr(r->buf + r->at + seen, '\n', r->n - r->at - seen);
		seen = r->n - r->at;
		if (lf || seen == MW_MBOX_BUFFER || !fill(r))
			break;
	}
	size_t k = lf ? (size_t)(lf + 1 - (r->buf + r->at)) : r->n - r->at;
	if (k == 0 || r->failed)
		return false;
	*ret = mw_str(r->buf + r->at, k);
	*ret_bol = !r->mid;
	r->mid = !lf;
	r->at += k;
	r->off += k;
	return true;
}

void
mw_lines_back(struct mw_lines *r, size_t n)
{
	r->at -= n;
	r->off -= n;
	r->mid = false;
}

void
mw_lines_seek(struct mw_lines *r, uint64_t at)
{
	if (at >= r->off && at - r->off <= r->n - r->at) {
		r->at += (size_t)(at - r->off);
	} else if (at < r->off && r->off - at <= r->at) { /* it is still there */
		r->at -= (size_t)(r->off - at);
	} else {
		r->at = r->n = 0;
	}
	r->off = at;
	r->mid = false;
}

bool
mw_line_blank(struct mw_str s)
{
	return mw_str_eq(s, MW_STR("\n")) || mw_str_eq(s, MW_STR("\r\n"));
}

size_t
mw_line_quoted(struct mw_str s)
{
	size_t i = 0;
	while (i < s.n && s.p[i] == '>')
		i++;
	return mw_str_starts(mw_str(s.p + i, s.n - i), MW_STR("From ")) ? i : 0;
}

/* ---- messages ---- */

struct mw_mbox {
	enum mw_mbox_format format;
	bool strict;
	struct mw_lines r;
	struct mw_lengths lengths;
	bool pending; /* a message was begun whose content nobody has asked for */
	bool any;     /* a From_ line was found */
	/* the message at work */
	bool own;            /* as mailwal writes it */
	bool raw;            /* nothing is quoted */
	bool lf;             /* each "\n" of the file was "\r\n" */
	bool decided, as_is; /* else: what its first line says */
	char last;           /* byte that was emitted */
	int (*sink)(void *, const void *, size_t);
	void *arg;
	size_t n;
	char out[OUT + 2];
};

int
mw_mbox_new(int fd, enum mw_mbox_format format, bool strict, struct mw_mbox **ret)
{
	struct mw_mbox *m = calloc(1, sizeof *m);
	if (!m)
		return MW_ENOMEM;
	m->format = format;
	m->strict = strict;
	m->r = (struct mw_lines){.fd = fd, .buf = malloc(MW_MBOX_BUFFER)};
	m->lengths.r = (struct mw_lines){.fd = fd, .buf = malloc(MW_MBOX_BUFFER)};
	if (!m->r.buf || !m->lengths.r.buf) {
		mw_mbox_free(m);
		return MW_ENOMEM;
	}
	*ret = m;
	return 0;
}

void
mw_mbox_free(struct mw_mbox *m)
{
	if (!m)
		return;
	free(m->r.buf);
	free(m->lengths.r.buf);
	free(m);
}

void
mw_mbox_seek(struct mw_mbox *m, uint64_t at)
{
	mw_lines_seek(&m->r, at);
	m->pending = false;
}

static int
ignore(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

int
mw_mbox_next(struct mw_mbox *m, uint64_t *ret_at, struct mw_from *ret)
{
	struct mw_str s;
	bool bol, blank = true;
	int r = m->pending ? mw_mbox_content(m, ignore, NULL) : 0;
	if (r < 0)
		return r;
	for (;;) {
		uint64_t at = m->r.off;
		if (!mw_lines_next(&m->r, &s, &bol))
			return m->r.failed ? MW_EIO : 0;
		if (bol && blank && mw_from_line(s, ret)) {
			bool cr = s.n > 1 && s.p[s.n - 2] == '\r';
			m->own = ret->own;
			m->lf = ret->own && !cr;
			m->raw = m->decided = m->as_is = false;
			m->last = '\n';
			m->n = 0;
			m->pending = m->any = true;
			*ret_at = at;
			return 1;
		}
		blank = bol && mw_line_blank(s);
		if (!blank && m->strict)
			return MW_EFORMAT;
	}
}

static int
flush(struct mw_mbox *m)
{
	size_t n = m->n;
	m->n = 0;
	return n ? m->sink(m->arg, m->out, n) : 0;
}

/* Whole lines or pieces of them: a line end only at the end. */
static int
emit(struct mw_mbox *m, struct mw_str s)
{
	bool end = s.n && s.p[s.n - 1] == '\n';
	int r = 0;
	if (!s.n)
		return 0;
	char before = s.n > 1 ? s.p[s.n - 2] : m->last;
	m->last = s.p[s.n - 1];
	s.n -= end;
	while (r == 0 && s.n) {
		size_t k = MW_MIN(s.n, OUT - m->n);
		memcpy(m->out + m->n, s.p, k);
		m->n += k;
		s = mw_str(s.p + k, s.n - k);
		if (m->n == OUT)
			r = flush(m);
	}
	if (!end || r)
		return r;
	if (!m->decided && !m->lf)
		m->as_is = before == '\r';
	m->decided = true;
	if (m->lf || (!m->as_is && before != '\r'))
		m->out[m->n++] = '\r';
	m->out[m->n++] = '\n';
	return m->n >= OUT ? flush(m) : 0;
}

/* The body by its length, as it stands, or with ">From " unquoted. */
static int
by_length(struct mw_mbox *m, uint64_t left)
{
	struct mw_str s;
	bool bol;
	int r = 0;
	while (r == 0 && left && mw_lines_next(&m->r, &s, &bol)) {
		if (s.n > left) { /* give the rest of the line back */
			mw_lines_back(&m->r, s.n - (size_t)left);
			s.n = (size_t)left;
		}
		left -= s.n;
		size_t cut = bol && !m->raw && mw_str_starts(s, MW_STR(">From ")) ? 1 : 0;
		r = emit(m, mw_str(s.p + cut, s.n - cut));
	}
	m->r.mid = false; /* what is next begins a line, though no "\n" ended this one */
	return r;
}

/* "From : x" is a field, which some quote; ">From x DATE" in a header is UUCP's. */
static bool
is_from_field(struct mw_str s)
{
	struct mw_str v = mw_str_trim(mw_str(s.p + 5, s.n - 5));
	return v.n && v.p[0] == ':';
}

/* Does "From " stand behind more '>' than fit into a piece? */
static bool
quoted_beyond(const struct mw_mbox *m, struct mw_str s)
{
	char b[4096];
	size_t i = 0, j;
	if (s.n < MW_MBOX_BUFFER)
		return false;
	while (i < s.n && s.p[i] == '>')
		i++;
	uint64_t at = m->r.off - (s.n - i);
	for (;; at += j) {
		ssize_t k = s.n - i < 5 ? pread(m->r.fd, b, sizeof b, (off_t)at) : 0;
		for (j = 0; (ssize_t)j < k && b[j] == '>';)
			j++;
		if (k < 5 || j == 0)
			return k >= 5 && memcmp(b, "From ", 5) == 0;
	}
}

/* The '>' that its writer put there. */
static size_t
quotes(const struct mw_mbox *m, struct mw_str s, bool in_header)
{
	bool one = m->format == MW_MBOX_O || m->format == MW_MBOX_CL;
	size_t marks = mw_line_quoted(s);
	if (!marks && quoted_beyond(m, s))
		return m->own || (m->format != MW_MBOX_CL2 && !one && !in_header);
	if (!marks || m->own)
		return marks ? 1 : 0;
	if (m->format == MW_MBOX_CL2 || (one && marks > 1))
		return 0;
	return !in_header || is_from_field(mw_str(s.p + marks, s.n - marks)) ? 1 : 0;
}

/* The header ends with this empty line. 1: the body was read by its length. */
static int
end_header(struct mw_mbox *m, const struct mw_length *length, struct mw_str blank)
{
	/* Others' headers end with one, whatever stands behind it. */
	int r = emit(m, blank);
	if (r || !mw_length_holds(&m->lengths, m->format, m->r.off, length))
		return r;
	m->raw = m->format != MW_MBOX_CL;
	r = by_length(m, length->n);
	return r ? r : 1;
}

static int
all_lines(struct mw_mbox *m)
{
	struct mw_length length = {0, false, false};
	struct mw_str s, held = {"", 0}; /* an empty line that may be the separator */
	struct mw_from from;
	bool bol, in_header = true, blank = false;
	int r = 0;
	while (r == 0 && mw_lines_next(&m->r, &s, &bol)) {
		if (bol && blank && mw_from_line(s, &from)) {
			mw_lines_back(&m->r, s.n);
			return 0;
		}
		r = emit(m, held);
		held.n = 0;
		blank = bol && mw_line_blank(s);
		if (r)
			return r;
		if (blank && in_header && !m->own) {
			r = end_header(m, &length, s);
			if (r > 0)
				return 0;
		} else if (blank) {
			held = s.n == 1 ? MW_STR("\n") : MW_STR("\r\n");
		} else {
			if (bol && in_header)
				mw_length_note(&length, s);
			size_t cut = bol ? quotes(m, s, in_header) : 0;
			r = emit(m, mw_str(s.p + cut, s.n - cut));
		}
		in_header = in_header && !blank;
	}
	return r;
}

int
mw_mbox_content(struct mw_mbox *m, int (*sink)(void *, const void *, size_t), void *arg)
{
	m->sink = sink;
	m->arg = arg;
	m->pending = false;
	int r = all_lines(m);
	if (r == 0 && m->r.failed)
		r = MW_EIO;
	return r ? r : flush(m);
}

int
mw_mbox_known(const struct mw_mbox *m)
{
	return m->lengths.known;
}

void
mw_mbox_know(struct mw_mbox *m, int known)
{
	m->lengths.known = known;
}

bool
mw_mbox_failed(const struct mw_mbox *m)
{
	return m->r.failed;
}
