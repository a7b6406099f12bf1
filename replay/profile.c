#include "replay/profile.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/codec/digest.h"
#include "journal/record/canon.h"
#include "journal/record/header.h"
#include "replay/imap_parse.h"

#include <stdlib.h>
#include <string.h>

struct mw_profiler {
	struct mw_canon canon;
	struct mw_sha256 digest, body, exact;
	struct mw_sha256
	    unquoted;         /* of the body, once that differs; or at a line's start */
	struct mw_buf header; /* until the empty line, CR dropped */
	bool in_body, failed, cut, started;
	uint64_t held; /* newlines at the end of the body so far */
	bool bol;      /* a line of the body begins */
	bool deciding; /* it began with '>': so many, and so much of "From " */
	bool differs;  /* unquoted is kept */
	uint64_t marks;
	size_t match;
};

static void
to_digest(void *arg, const void *p, size_t n)
{
	struct mw_profiler *f = arg;
	mw_sha256_update(&f->digest, p, n);
}

static void
begin(struct mw_profiler *f)
{
	mw_canon_init(&f->canon, to_digest, f);
	f->failed = mw_sha256_init(&f->digest) || mw_sha256_init(&f->body) ||
	            mw_sha256_init(&f->exact);
	f->header.max = MW_PROFILE_HEADER;
	mw_buf_clear(&f->header);
	f->header.failed = false;
	f->in_body = f->cut = false;
	f->held = 0;
	f->bol = true;
	f->deciding = f->differs = false;
	f->started = true;
}

struct mw_profiler *
mw_profiler_new(void)
{
	return calloc(1, sizeof(struct mw_profiler));
}

static void
abandon(struct mw_profiler *f)
{
	if (!f->started)
		return;
	mw_sha256_free(&f->digest);
	mw_sha256_free(&f->body);
	mw_sha256_free(&f->exact);
	mw_sha256_free(&f->unquoted);
	f->started = false;
}

void
mw_profiler_free(struct mw_profiler *f)
{
	if (!f)
		return;
	abandon(f);
	mw_buf_free(&f->header);
	free(f);
}

static void
decided(struct mw_profiler *f, bool quoted)
{
	f->deciding = false;
	f->differs = f->differs || quoted;
	for (; f->differs && !quoted && f->marks; f->marks--)
		mw_sha256_update(&f->unquoted, ">", 1);
	if (f->differs)
		mw_sha256_update(&f->unquoted, "From ", f->match);
}

/* A line of the body, from its start or on. */
static void
unquote(struct mw_profiler *f, const uint8_t *p, size_t n)
{
	size_t i = 0;
	while (f->deciding && i < n) {
		if (p[i] == '>' && !f->match) {
			f->marks++;
			i++;
		} else if (p[i] == (uint8_t) "From "[f->match]) {
			i++;
			if (++f->match == 5)
				decided(f, true);
		} else {
			decided(f, false);
		}
	}
	if (f->differs && i < n)
		mw_sha256_update(&f->unquoted, p + i, n - i);
}

static void
body_run(struct mw_profiler *f, const uint8_t *p, size_t n)
{
	static const char nl[64] = {'\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n',
	                            '\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n',
	                            '\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n',
	                            '\n', '\n', '\n', '\n', '\n', '\n', '\n', '\n'};
	while (f->held) {
		size_t k = f->held < 32 ? (size_t)f->held : 32;
		mw_sha256_update(&f->body, nl, k);
		if (f->differs)
			mw_sha256_update(&f->unquoted, nl, k);
		f->held -= k;
	}
	if (f->bol && *p == '>') {
		f->deciding = true;
		f->marks = f->match = 0;
		if (!f->differs)
			f->unquoted = f->body;
	}
	f->bol = false;
	if (f->deciding || f->differs)
		unquote(f, p, n);
	mw_sha256_update(&f->body, p, n);
}

static void
line_end(struct mw_profiler *f)
{
	if (f->deciding)
		decided(f, false);
	f->bol = true;
	f->held++;
}

/* CR dropped, NUL as 0x80, newlines at the very end dropped. */
static void
body(struct mw_profiler *f, const uint8_t *p, size_t n)
{
	static const uint8_t nul = 0x80;
	size_t at = 0;
	while (at < n) {
		size_t end = at;
		while (end < n && p[end] != '\r' && p[end] != '\n' && p[end])
			end++;
		if (end > at)
			body_run(f, p + at, end - at);
		if (end < n && p[end] == '\n')
			line_end(f);
		else if (end < n && !p[end])
			body_run(f, &nul, 1);
		at = end + 1;
	}
}

/* Header bytes up to the empty line; returns how many were taken. */
static size_t
header(struct mw_profiler *f, const uint8_t *p, size_t n)
{
	size_t i = 0;
	while (i < n) {
		const uint8_t *q = memchr(p + i, '\n', n - i);
		size_t end = q ? (size_t)(q - p) + 1 : n;
		for (size_t k = i; k < end; k++)
			if (p[k] != '\r')
				mw_buf_putc(&f->header, (char)p[k]);
		i = end;
		size_t h = f->header.n;
		const uint8_t *b = f->header.p;
		if (q && (h == 1 || (h > 1 && b[h - 2] == '\n'))) {
			f->in_body = true;
			break;
		}
		if (f->header.failed) { /* too long to look at: all the rest is body */
			f->cut = f->in_body = true;
			break;
		}
	}
	return i;
}

int
mw_profiler_put(void *profiler, const void *p, size_t n)
{
	struct mw_profiler *f = profiler;
	if (!f->started)
		begin(f);
	if (f->failed)
		return 0;
	mw_sha256_update(&f->exact, p, n);
	mw_canon_put(&f->canon, p, n);
	size_t used = f->in_body ? 0 : header(f, p, n);
	if (used < n)
		body(f, (const uint8_t *)p + used, n - used);
	return 0;
}

uint64_t
mw_hash64(struct mw_str s)
{
	uint8_t d[32];
	mw_sha256_of(s.p ? s.p : "", s.n, d);
	uint64_t v = mw_get64(d);
	return v ? v : 1;
}

/* name, lower case, and value with 8-bit as X, NUL as X, blanks around it off. */
static uint64_t
field_hash(const struct mw_field *fd, struct mw_buf *tmp)
{
	mw_buf_clear(tmp);
	for (size_t i = 0; i < fd->name.n; i++) {
		char c = fd->name.p[i];
		mw_buf_putc(tmp, c >= 'A' && c <= 'Z' ? (char)(c + 32) : c);
	}
	mw_buf_putc(tmp, ':');
	struct mw_str v = mw_str_trim(fd->value);
	for (size_t i = 0; i < v.n; i++)
		mw_buf_putc(tmp, v.p[i] == '\0' || (unsigned char)v.p[i] >= 0x80
		                     ? 'X'
		                     : v.p[i]);
	return mw_hash64(mw_buf_str(tmp));
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

struct mw_profile *
mw_profiler_take(struct mw_profiler *f)
{
	MW_BUF_AUTO tmp = {0};
	if (!f->started)
		begin(f);
	if (f->failed) {
		abandon(f);
		return NULL;
	}
	f->started = false;
	mw_canon_done(&f->canon);
	struct mw_str rest = mw_buf_str(&f->header);
	struct mw_field fd;
	if (mw_str_starts(rest, MW_STR("From "))) { /* mbox */
		struct mw_str line;
		if (!mw_str_cut(rest, '\n', &line, &rest))
			rest = mw_str("", 0);
	}
	struct mw_str again = rest;
	uint32_t n = 0, max = 0;
	while (max < MW_PROFILE_FIELDS && mw_header_next(&again, &fd))
		max++;
	struct mw_profile *r = calloc(1, sizeof *r + max * sizeof r->field[0]);
	if (!r) {
		mw_sha256_free(&f->digest);
		mw_sha256_free(&f->body);
		mw_sha256_free(&f->exact);
		return NULL;
	}
	while (n < max && mw_header_next(&rest, &fd))
		if (!mw_canon_is_trace(fd.name) &&
		    !mw_str_ieq(fd.name, MW_STR("Content-Length"))) /* an mbox's own */
			r->field[n++] = field_hash(&fd, &tmp);
	/* What is no header field and no end of one (a broken line) is not compared. */
	r->n_field = n;
	r->cut = f->cut || max == MW_PROFILE_FIELDS || tmp.failed;
	qsort(r->field, n, sizeof r->field[0], by_value);
	uint8_t d[32];
	if (f->deciding)
		decided(f, false);
	mw_sha256_final(&f->body, d);
	memcpy(r->body, d, sizeof r->body);
	if (f->differs)
		mw_sha256_final(&f->unquoted, d);
	memcpy(r->unquoted, d, sizeof r->unquoted);
	mw_sha256_final(&f->digest, r->digest);
	mw_sha256_final(&f->exact, r->exact);
	return r;
}

bool
mw_profile_subset(const struct mw_profile *a, const struct mw_profile *b)
{
	uint32_t j = 0;
	if (a->cut || b->cut)
		return false;
	for (uint32_t i = 0; i < a->n_field; i++, j++) {
		while (j < b->n_field && b->field[j] < a->field[i])
			j++;
		if (j == b->n_field || b->field[j] != a->field[i])
			return false;
	}
	return true;
}

/* Without an arena: a Message-ID that is folded is rare, but then it must hash the same.
 */
uint64_t
mw_msgid_hash(struct mw_str value)
{
	char flat[1000];
	size_t n = 0;
	value = mw_header_msgid(mw_str_trim(value));
	for (size_t i = 0; i < value.n && n < sizeof flat; i++) {
		char c = value.p[i];
		if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
			flat[n++] = c;
	}
	return n ? mw_hash64(mw_str(flat, n)) : 0;
}

/* The queue ID of each Received field goes to cb, with its text, until that says enough.
 * Returns the Message-ID's hash. */
static uint64_t
each_hop(struct mw_str hdr, bool (*cb)(void *, uint64_t, struct mw_str), void *arg)
{
	struct mw_field fd;
	char text[4096];
	uint64_t msgid = 0;
	bool enough = false;
	if (mw_str_starts(hdr, MW_STR("From "))) {
		struct mw_str line;
		if (!mw_str_cut(hdr, '\n', &line, &hdr))
			hdr = mw_str("", 0);
	}
	while (mw_header_next(&hdr, &fd)) {
		if (!msgid && mw_str_ieq(fd.name, MW_STR("Message-ID"))) {
			msgid = mw_msgid_hash(fd.value);
			continue;
		}
		if (enough || !mw_str_ieq(fd.name, MW_STR("Received")))
			continue;
		struct mw_str v = mw_header_unfold_to(text, sizeof text, fd.value);
		struct mw_str id = mw_header_received_id(v);
		if (id.n)
			enough = cb(arg, mw_hash64(id), v);
	}
	return msgid;
}

struct topmost {
	bool (*known)(void *, uint64_t);
	void *arg;
	struct mw_facts facts;
};

static bool
is_known(void *arg, uint64_t queue, struct mw_str text)
{
	struct topmost *t = arg;
	if (!t->known(t->arg, queue))
		return false;
	t->facts.queue = queue;
	(void)mw_rfc5322_date(text, &t->facts.received_us);
	return true;
}

void
mw_header_facts(struct mw_str hdr, bool (*known)(void *, uint64_t), void *arg,
                struct mw_facts *ret)
{
	struct topmost t = {known, arg, {.received_us = INT64_MIN}};
	t.facts.msgid = each_hop(hdr, is_known, &t);
	*ret = t.facts;
}

struct hops {
	void (*hop)(void *, struct mw_hop);
	void *arg;
};

static bool
tell_hop(void *arg, uint64_t queue, struct mw_str text)
{
	const struct hops *s = arg;
	struct mw_hop h = {queue, INT64_MIN};
	(void)mw_rfc5322_date(text, &h.us);
	s->hop(s->arg, h);
	return false;
}

uint64_t
mw_header_hops(struct mw_str hdr, void (*hop)(void *, struct mw_hop), void *arg)
{
	struct hops s = {hop, arg};
	return each_hop(hdr, tell_hop, &s);
}
