/* The states: at the start of a header line, inside one, in the body. A header line is
 * gathered until its name is known (at most LINE_MAX bytes), then passed on or skipped.
 */
#include "journal/record/canon.h"

#include "journal/base/util.h"

#include <string.h>

enum {
	BOL,
	NAME,
	FIELD,
	BODY
};

#define NAME_OF(lit)                                                                     \
	{                                                                                \
		(lit), sizeof(lit) - 1                                                   \
	}

static const struct mw_str trace[] = {
    NAME_OF("return-path"),
    NAME_OF("received"),
    NAME_OF("delivered-to"),
    NAME_OF("x-original-to"),
    NAME_OF("envelope-to"),
    NAME_OF("delivery-date"),
    NAME_OF("x-sieve"),
    NAME_OF("x-cyrus-session-id"),
    NAME_OF("x-tuid"),
    NAME_OF("x-offlineimap"),
    NAME_OF("status"),
    NAME_OF("x-status"),
    NAME_OF("x-keywords"),
    NAME_OF("x-uid"),
    NAME_OF("authentication-results"),
    NAME_OF("arc-seal"),
    NAME_OF("arc-message-signature"),
    NAME_OF("arc-authentication-results"),
};

bool
mw_canon_is_trace(struct mw_str name)
{
	/* Each of them begins with one of these letters, most other names do not. */
	if (name.n == 0 || !memchr("rdexsaRDEXSA", name.p[0], 12))
		return false;
	for (size_t i = 0; i < MW_COUNT(trace); i++)
		if (name.n == trace[i].n && mw_str_ieq(name, trace[i]))
			return true;
	return false;
}

void
mw_canon_init(struct mw_canon *c, void (*emit)(void *, const void *, size_t), void *arg)
{
	memset(c, 0, sizeof *c);
	c->emit = emit;
	c->arg = arg;
	c->state = BOL;
	c->first = true;
}

bool
mw_canon_in_body(const struct mw_canon *c)
{
	return c->state == BODY;
}

static void
flush(struct mw_canon *c)
{
	if (c->n_buf)
		c->emit(c->arg, c->buf, c->n_buf);
	c->n_buf = 0;
}

/* Whoever gets the form is called for many bytes at a time, not for each. */
static void
gather(struct mw_canon *c, const void *p, size_t n)
{
	if (n > sizeof c->buf - c->n_buf)
		flush(c);
	if (n > sizeof c->buf) {
		c->emit(c->arg, p, n);
		return;
	}
	memcpy(c->buf + c->n_buf, p, n);
	c->n_buf += n;
}

/* n > 0 bytes that do not end in a newline. Newlines are held back where they come: the
 * ones at the very end are dropped. */
static void
out_line(struct mw_canon *c, const uint8_t *p, size_t n)
{
	static const char nl[16] = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
	while (c->held) {
		size_t k = c->held < sizeof nl ? (size_t)c->held : sizeof nl;
		gather(c, nl, k);
		c->held -= k;
	}
	gather(c, p, n);
}

static void
out(struct mw_canon *c, const uint8_t *p, size_t n)
{
	size_t line = n;
	while (line && p[line - 1] == '\n')
		line--;
	if (line)
		out_line(c, p, line);
	c->held += n - line;
}

static void
flush_name(struct mw_canon *c)
{
	if (!c->skip)
		out(c, c->name, c->n_name);
	c->n_name = 0;
}

/* The gathered start of a field: decide whether to skip it. */
static void
decide(struct mw_canon *c, bool colon)
{
	size_t n = c->n_name;
	if (colon)
		n--; /* the ':' itself is gathered too */
	while (n && (c->name[n - 1] == ' ' || c->name[n - 1] == '\t'))
		n--;
	c->skip = colon && mw_canon_is_trace(mw_str((const char *)c->name, n));
	flush_name(c);
}

static void
header_byte(struct mw_canon *c, uint8_t b)
{
	if (b >= 0x80)
		b = 'X';
	if (c->state == BOL) {
		if (b == '\n') { /* the empty line */
			c->skip = false;
			out(c, &b, 1);
			flush(c); /* all of the header, see mw_canon_in_body */
			c->state = BODY;
			return;
		}
		if ((b == ' ' || b == '\t') && !c->first) { /* continuation */
			c->state = FIELD;
		} else {
			c->state = NAME;
			c->n_name = 0;
			c->skip = false;
		}
	}
	if (c->state == NAME) {
		c->name[c->n_name++] = b;
		if (b == '\n') {
			bool from = c->first && c->n_name >= 5 &&
			            memcmp(c->name, "From ", 5) == 0;
			if (from)
				c->n_name = 0;
			else
				decide(c, false);
			c->first = false;
			c->state = BOL;
		} else if (b == ':' && !(c->first && c->n_name > 5 &&
		                         memcmp(c->name, "From ", 5) == 0)) {
			decide(c, true);
			c->first = false;
			c->state = FIELD;
		} else if (c->n_name == sizeof c->name) {
			if (c->first && memcmp(c->name, "From ", 5) == 0)
				c->n_name = 0, c->skip = true; /* a long mbox line */
			else
				decide(c, false);
			c->first = false;
			c->state = FIELD;
		}
		return;
	}
	if (!c->skip)
		out(c, &b, 1);
	if (b == '\n')
		c->state = BOL;
}

/* Nothing in it that has to be changed or left out? All of it is looked at, so that it
 * can be looked at many bytes at a time. */
static bool
plain(const uint8_t *p, size_t n)
{
	uint8_t odd = 0;
	for (size_t i = 0; i < n; i++)
		odd |= (uint8_t)(p[i] >= 0x80) | (uint8_t)(p[i] == 0) |
		       (uint8_t)(p[i] == '\r');
	return !odd;
}

/* The rest of a header line, as far as it is there. Returns how many bytes were taken. */
static size_t
field(struct mw_canon *c, const uint8_t *p, size_t n)
{
	const uint8_t *end = memchr(p, '\n', n);
	size_t len = end ? (size_t)(end - p) : n, at = 0;
	size_t text = len && p[len - 1] == '\r' ? len - 1 : len;
	if (!c->skip && text && plain(p, text)) {
		out_line(c, p, text);
		at = len;
	}
	while (!c->skip && at < len) {
		uint8_t line[128];
		size_t k = 0;
		for (; at < len && k < sizeof line; at++) {
			line[k] = p[at] == 0 || p[at] >= 0x80 ? 'X' : p[at];
			k += p[at] != '\r';
		}
		if (k)
			out_line(c, line, k);
	}
	if (!end)
		return n;
	c->held += !c->skip;
	c->state = BOL;
	return len + 1;
}

/* The length of a field's name at the start of a line, as far as its colon; 0 where this
 * has to be found byte by byte. */
static size_t
name_len(const struct mw_canon *c, const uint8_t *p, size_t n)
{
	size_t most = MW_MIN(n, sizeof c->name), k = 0;
	while (k < most && p[k] > ' ' && p[k] < 0x80 && p[k] != ':')
		k++;
	return k < most && p[k] == ':' ? k : 0;
}

/* A header line that is no message's first one, in one go. Returns how many bytes were
 * taken, 0 if it has to be looked at byte by byte. */
static size_t
whole_line(struct mw_canon *c, const uint8_t *p, size_t n)
{
	if (*p != ' ' && *p != '\t') {
		size_t k = name_len(c, p, n);
		if (k == 0)
			return 0;
		c->skip = mw_canon_is_trace(mw_str((const char *)p, k));
	}
	c->state = FIELD;
	return field(c, p, n);
}

/* Bytes of the body without a CR: NUL becomes 0x80. */
static void
between(struct mw_canon *c, const uint8_t *p, size_t n, bool nuls)
{
	static const uint8_t nul = 0x80;
	const uint8_t *q;
	while (nuls && (q = memchr(p, 0, n))) {
		out(c, p, (size_t)(q - p));
		out_line(c, &nul, 1);
		n -= (size_t)(q - p) + 1;
		p = q + 1;
	}
	out(c, p, n);
}

static void
body(struct mw_canon *c, const uint8_t *p, size_t n)
{
	bool nuls = memchr(p, 0, n);
	while (n) {
		const uint8_t *cr = memchr(p, '\r', n);
		size_t k = cr ? (size_t)(cr - p) : n;
		between(c, p, k, nuls);
		k += cr != NULL;
		p += k;
		n -= k;
	}
}

void
mw_canon_put(struct mw_canon *c, const void *p, size_t n)
{
	const uint8_t *q = p;
	size_t i = 0;
	while (i < n && c->state != BODY) {
		if (c->state == FIELD) {
			i += field(c, q + i, n - i);
			continue;
		}
		size_t k = c->state == BOL && !c->first ? whole_line(c, q + i, n - i) : 0;
		if (k) {
			i += k;
			continue;
		}
		uint8_t b = q[i++];
		if (b == '\r')
			continue;
		header_byte(c, b ? b : 0x80);
	}
	if (i < n)
		body(c, q + i, n - i);
}

void
mw_canon_done(struct mw_canon *c)
{
	if (c->state == NAME) {
		bool from =
		    c->first && c->n_name >= 5 && memcmp(c->name, "From ", 5) == 0;
		if (!from)
			decide(c, false);
	}
	flush(c);
	explicit_bzero(c->buf, sizeof c->buf);
	c->held = 0;
	c->state = BODY;
	c->n_name = 0;
}
