#include "replay/imap_parse.h"

#include <string.h>
#include <time.h>

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

struct scan { /* a reader of small date texts */
	struct mw_str s;
};

static void
blanks(struct scan *c)
{
	int depth = 0; /* comments */
	while (c->s.n) {
		char ch = c->s.p[0];
		if (ch == '(')
			depth++;
		else if (ch == ')' && depth)
			depth--;
		else if (!depth && ch != ' ' && ch != '\t' && ch != '\r' && ch != '\n')
			return;
		c->s = mw_str(c->s.p + 1, c->s.n - 1);
	}
}

static bool
digits(struct scan *c, size_t most, int *ret)
{
	int v = 0;
	size_t n = 0;
	while (n < most && n < c->s.n && c->s.p[n] >= '0' && c->s.p[n] <= '9')
		v = v * 10 + (c->s.p[n++] - '0');
	c->s = mw_str(c->s.p + n, c->s.n - n);
	*ret = v;
	return n > 0;
}

static bool
take(struct scan *c, char ch)
{
	if (!c->s.n || c->s.p[0] != ch)
		return false;
	c->s = mw_str(c->s.p + 1, c->s.n - 1);
	return true;
}

static bool
month(struct scan *c, int *ret)
{
	for (int m = 0; m < 12; m++) {
		if (mw_str_istarts(c->s, mw_str(months + m * 3, 3))) {
			c->s = mw_str(c->s.p + 3, c->s.n - 3);
			*ret = m;
			return true;
		}
	}
	return false;
}

static bool
hms(struct scan *c, struct tm *tm)
{
	if (!digits(c, 2, &tm->tm_hour) || !take(c, ':') || !digits(c, 2, &tm->tm_min))
		return false;
	if (take(c, ':') && !digits(c, 2, &tm->tm_sec))
		return false;
	return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 61;
}

/* "+0100"; named zones of RFC 5322 §4.3; anything else is UTC. */
static long
zone(struct scan *c)
{
	static const struct {
		const char *name;
		int hours;
	} names[] = {{"EST", -5}, {"EDT", -4}, {"CST", -6}, {"CDT", -5},
	             {"MST", -7}, {"MDT", -6}, {"PST", -8}, {"PDT", -7}};
	int v;
	bool minus = c->s.n && c->s.p[0] == '-';
	if (minus || (c->s.n && c->s.p[0] == '+')) {
		c->s = mw_str(c->s.p + 1, c->s.n - 1);
		if (!digits(c, 4, &v))
			return 0;
		long off = (v / 100) * 3600L + (v % 100) * 60L;
		return minus ? -off : off;
	}
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (mw_str_istarts(c->s, mw_strz(names[i].name)))
			return names[i].hours * 3600L;
	return 0;
}

/* Days from 1970 to the first of a month of 0 to 11: the year taken to begin in March. A
 * scan reads many dates, and timegm() takes five times as long. */
static int64_t
days_to(int year, int month)
{
	int64_t y = month < 2 ? year - 1 : year, m = (month + 10) % 12;
	return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 - 719468;
}

static bool
finish(const struct tm *tm, int year, long off, int64_t *ret_us)
{
	if (year < 1970 || year > 9999 || tm->tm_mday < 1 || tm->tm_mday > 31)
		return false;
	int64_t day = days_to(year, tm->tm_mon) + tm->tm_mday - 1;
	int64_t s = (day * 24 + tm->tm_hour) * 3600 + tm->tm_min * 60 + tm->tm_sec;
	*ret_us = (s - off) * 1000000;
	return true;
}

bool
mw_imap_parse_date(struct mw_str s, int64_t *ret_us)
{
	struct scan c = {mw_str_trim(s)};
	struct tm tm = {0};
	int year;
	if (!digits(&c, 2, &tm.tm_mday) || !take(&c, '-') || !month(&c, &tm.tm_mon) ||
	    !take(&c, '-') || !digits(&c, 4, &year) || !take(&c, ' ') || !hms(&c, &tm))
		return false;
	blanks(&c);
	return finish(&tm, year, zone(&c), ret_us);
}

bool
mw_rfc5322_date(struct mw_str s, int64_t *ret_us)
{
	const char *semi = s.n ? memrchr(s.p, ';', s.n) : NULL;
	struct scan c = {s};
	struct tm tm = {0};
	int year, skip;
	if (semi)
		c.s = mw_str(semi + 1, s.n - (size_t)(semi + 1 - s.p));
	blanks(&c);
	for (skip = 0; skip < 12 && c.s.n && (c.s.p[0] < '0' || c.s.p[0] > '9'); skip++)
		c.s = mw_str(c.s.p + 1, c.s.n - 1); /* "Sun, " */
	if (!digits(&c, 2, &tm.tm_mday))
		return false;
	blanks(&c);
	if (!month(&c, &tm.tm_mon))
		return false;
	blanks(&c);
	if (!digits(&c, 4, &year))
		return false;
	if (year < 100)
		year += year < 50 ? 2000 : 1900;
	blanks(&c);
	if (!hms(&c, &tm))
		return false;
	blanks(&c);
	return finish(&tm, year, zone(&c), ret_us);
}

static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/* ---- folder names ---- */

static void
base64_flush(struct mw_buf *out, uint32_t *bits, int *n, bool last)
{
	while (*n >= 6) {
		*n -= 6;
		mw_buf_putc(out, alphabet[*bits >> *n & 63]);
	}
	if (last && *n) {
		mw_buf_putc(out, alphabet[*bits << (6 - *n) & 63]);
		*n = 0;
	}
}

static bool
utf8_next(struct mw_str *s, uint32_t *ret)
{
	const unsigned char *p = (const unsigned char *)s->p;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (len > s->n || (p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4)
		return false;
	uint32_t v = len == 1 ? p[0] : p[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return false;
		v = v << 6 | (p[i] & 0x3fU);
	}
	if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
		return false;
	*s = mw_str(s->p + len, s->n - len);
	*ret = v;
	return true;
}

bool
mw_imap_utf7(struct mw_str s, struct mw_buf *out)
{
	bool shifted = false;
	uint32_t bits = 0, v;
	int n = 0;
	while (s.n) {
		if (!utf8_next(&s, &v))
			return false;
		if (v >= 0x20 && v < 0x7f) {
			if (shifted) {
				base64_flush(out, &bits, &n, true);
				mw_buf_putc(out, '-');
				shifted = false;
			}
			mw_buf_putc(out, (char)v);
			if (v == '&')
				mw_buf_putc(out, '-');
			continue;
		}
		if (!shifted)
			mw_buf_putc(out, '&');
		shifted = true;
		uint32_t unit[2] = {v, 0};
		int units = 1;
		if (v > 0xffff) {
			unit[0] = 0xd800 + ((v - 0x10000) >> 10);
			unit[1] = 0xdc00 + ((v - 0x10000) & 0x3ff);
			units = 2;
		}
		for (int i = 0; i < units; i++) {
			bits = (bits << 16 | unit[i]) & 0x3fffff;
			n += 16;
			base64_flush(out, &bits, &n, false);
		}
	}
	if (shifted) {
		base64_flush(out, &bits, &n, true);
		mw_buf_putc(out, '-');
	}
	return true;
}

static void
utf8_put(struct mw_buf *out, uint32_t v)
{
	if (v < 0x80) {
		mw_buf_putc(out, (char)v);
		return;
	}
	int more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
	static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
	mw_buf_putc(out, (char)(lead[more] | v >> (6 * more)));
	while (more--)
		mw_buf_putc(out, (char)(0x80 | (v >> (6 * more) & 0x3f)));
}

/* What stands between '&' and '-': UTF-16 in base64. */
static void
unshift(struct mw_str s, struct mw_buf *out)
{
	uint32_t bits = 0, high = 0;
	int n = 0;
	for (size_t i = 0; i < s.n; i++) {
		const char *at = s.p[i] ? strchr(alphabet, s.p[i]) : NULL;
		bits = (bits << 6 | (uint32_t)(at ? at - alphabet : 0)) & 0x3fffff;
		n += 6;
		if (n < 16)
			continue;
		n -= 16;
		uint32_t unit = bits >> n & 0xffff;
		if (unit >= 0xd800 && unit < 0xdc00) {
			high = unit;
			continue;
		}
		bool low = high && unit >= 0xdc00 && unit < 0xe000;
		utf8_put(out, low ? 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00)
		                  : unit);
		high = 0;
	}
}

bool
mw_imap_from_utf7(struct mw_str s, struct mw_buf *out)
{
	MW_BUF_AUTO back = {0};
	size_t start = out->n;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '&') {
			mw_buf_putc(out, s.p[i]);
			continue;
		}
		const char *end = memchr(s.p + i, '-', s.n - i);
		size_t len = end ? (size_t)(end - s.p) - i : s.n - i;
		if (len == 1)
			mw_buf_putc(out, '&');
		else
			unshift(mw_str(s.p + i + 1, len - 1), out);
		i += len;
	}
	/* One way of writing each name: anything else is told by this. */
	return !out->failed &&
	       mw_imap_utf7(mw_str((const char *)out->p + start, out->n - start),
	                    &back) &&
	       mw_str_eq(mw_buf_str(&back), s);
}

bool
mw_imap_quote(struct mw_str name, struct mw_buf *out)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] == '\r' || name.p[i] == '\n' || name.p[i] == '\0')
			return false;
	mw_buf_putc(out, '"');
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '"' || name.p[i] == '\\')
			mw_buf_putc(out, '\\');
		mw_buf_putc(out, name.p[i]);
	}
	mw_buf_putc(out, '"');
	return true;
}
