/* mbox_length.c - when a Content-Length in an mbox is believed. */
#include "replay/mbox_int.h"

#include "journal/base/util.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
	SURE = 32 /* so many messages of good length for each From_ line within one */
};

void
mw_length_note(struct mw_length *l, struct mw_str line)
{
	static const struct mw_str field = {"Content-Length:", 15};
	uint64_t v = 0;
	if (!mw_str_istarts(line, field))
		return;
	struct mw_str s = mw_str_trim(mw_str(line.p + field.n, line.n - field.n));
	bool good = s.n > 0 && s.n < 16;
	for (size_t i = 0; i < s.n && good; i++) {
		good = s.p[i] >= '0' && s.p[i] <= '9';
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	l->wrong = l->wrong || !good || (l->has && l->n != v);
	l->has = true;
	l->n = v;
}

/* Does it lead to the end of the file, or to a From_ line at the start of a line, behind
 * at most two line ends? short: the second of them seems to be the body's. lines: how
 * many. */
static bool
fits(int fd, uint64_t end, int *ret_lines, bool *ret_short)
{
	char b[MW_FROM_MAX + 8];
	struct mw_from from;
	ssize_t n, i = 1;
	int lines = 0;
	while ((n = pread(fd, b, sizeof b, (off_t)end - 1)) < 0 && errno == EINTR)
		;
	if (n < 1)
		return false;
	for (; lines < 2; lines++) {
		ssize_t lf = i + (i < n && b[i] == '\r');
		if (lf >= n || b[lf] != '\n')
			break;
		i = lf + 1;
	}
	*ret_lines = lines;
	*ret_short = lines == 2 && b[0] == '\n';
	if (i == n)
		return true;
	const char *lf = memchr(b + i, '\n', (size_t)(n - i));
	size_t len = lf ? (size_t)(lf + 1 - (b + i)) : (size_t)(n - i);
	return (lines || b[0] == '\n') && mw_from_line(mw_str(b + i, len), &from);
}

struct survey {           /* of a body */
	uint64_t from;    /* From_ lines at its start or after an empty line */
	uint64_t quoted;  /* ">From " */
	uint64_t literal; /* what a quoting store would have quoted */
};

static bool
is_field(struct mw_str line)
{
	size_t i = 0;
	while (i < line.n && line.p[i] > ' ' && line.p[i] != ':' && line.p[i] != 127)
		i++;
	size_t name = i;
	while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t'))
		i++;
	return name && i < line.n && line.p[i] == ':';
}

/* most: no more From_ lines are counted. False: the file cannot be read. */
static bool
survey(struct mw_lines *r, uint64_t at, uint64_t n, uint64_t most, struct survey *ret)
{
	struct survey s = {0, 0, 0};
	struct mw_str line;
	struct mw_from from;
	bool bol, blank = true, behind = false; /* behind: a From_ line */
	mw_lines_seek(r, at);
	while (r->off < at + n && s.from < most && mw_lines_next(r, &line, &bol)) {
		if (!bol) {
			blank = behind = false;
			continue;
		}
		/* No store begins a message with anything but its header. */
		s.literal += behind && !is_field(line);
		behind = blank && mw_from_line(line, &from);
		s.from += behind;
		/* Some quote only behind an empty line. */
		s.literal += !behind && blank && mw_str_starts(line, MW_STR("From "));
		s.quoted += mw_line_quoted(line) > 0;
		blank = mw_line_blank(line);
	}
	*ret = s;
	return !r->failed;
}

/* Its place behind the header that begins at r; own: lengths do not count here. False at
 * the end of the file. */
static bool
header(struct mw_lines *r, struct mw_length *l)
{
	struct mw_str line;
	bool bol;
	*l = (struct mw_length){0, false, false};
	while (mw_lines_next(r, &line, &bol)) {
		if (bol && mw_line_blank(line))
			return true;
		if (bol)
			mw_length_note(l, line);
	}
	return false;
}

/* To the From_ line that ends this message of our own. */
static void
pass_own(struct mw_lines *r)
{
	struct mw_str line;
	struct mw_from from;
	bool bol, blank = true;
	while (mw_lines_next(r, &line, &bol)) {
		if (bol && blank && mw_from_line(line, &from)) {
			mw_lines_back(r, line.n);
			return;
		}
		blank = bol && mw_line_blank(line);
	}
}

/* Is it a file whose store writes lengths? Every message must have one that fits, and
 * there must be what its senders alone could not have made: lines that a quoting store
 * would have quoted, or many more messages than From_ lines within one. (Messages of our
 * own, which others append to, say nothing.) */
static bool
lengths_rule(struct mw_lines *r)
{
	struct mw_str line;
	struct mw_from from;
	struct mw_length l;
	struct survey s;
	uint64_t good = 0, within = 0, literal = 0;
	bool bol, is_short;
	int lines;
	mw_lines_seek(r, 0);
	while (mw_lines_next(r, &line, &bol)) {
		if (mw_line_blank(line))
			continue;
		if (!bol || !mw_from_line(line, &from))
			return false;
		bool body = header(r, &l);
		if (from.own) {
			if (body)
				pass_own(r);
			continue;
		}
		uint64_t at = r->off;
		if (!body || !l.has || l.wrong ||
		    !fits(r->fd, at + l.n, &lines, &is_short) || is_short ||
		    !survey(r, at, l.n, UINT64_MAX, &s))
			return false;
		good++;
		within += s.from;
		literal += s.literal;
		mw_lines_seek(r, at + l.n);
	}
	return !r->failed && (literal ? good > within : good > within * SURE);
}

bool
mw_length_holds(struct mw_lengths *s, enum mw_mbox_format format, uint64_t at,
                const struct mw_length *l)
{
	struct survey in;
	bool is_short;
	int lines;
	if (!l->has || format == MW_MBOX_RD || format == MW_MBOX_O)
		return false;
	if (!fits(s->r.fd, at + l->n, &lines, &is_short))
		return false;
	if (format != MW_MBOX_AUTO)
		return true;
	if (l->wrong || is_short || !survey(&s->r, at, l->n, 1, &in))
		return false;
	/* The body as its sender counted it, one line of which was quoted since. */
	if (lines == 2 && !in.from && in.quoted)
		return false;
	if (in.from && !s->known)
		s->known = lengths_rule(&s->r) ? 1 : -1;
	return !in.from || s->known > 0;
}
