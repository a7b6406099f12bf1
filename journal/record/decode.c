/* RFC 2047 encoded words, for people to read and search. */
#include "journal/record/header.h"

#include <stdint.h>
#include <string.h>

static int
hexval(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static void
put_utf8(struct mw_buf *out, uint32_t u)
{
	char t[4];
	size_t n = 0;
	if (u < 0x80) {
		t[n++] = (char)u;
	} else if (u < 0x800) {
		t[n++] = (char)(0xc0 | u >> 6);
		t[n++] = (char)(0x80 | (u & 0x3f));
	} else if (u < 0x10000) {
		t[n++] = (char)(0xe0 | u >> 12);
		t[n++] = (char)(0x80 | (u >> 6 & 0x3f));
		t[n++] = (char)(0x80 | (u & 0x3f));
	} else {
		t[n++] = (char)(0xf0 | u >> 18);
		t[n++] = (char)(0x80 | (u >> 12 & 0x3f));
		t[n++] = (char)(0x80 | (u >> 6 & 0x3f));
		t[n++] = (char)(0x80 | (u & 0x3f));
	}
	mw_buf_put(out, t, n);
}

/* Length of the valid UTF-8 sequence at p, 0 if there is none. */
static size_t
utf8_len(const uint8_t *p, size_t n)
{
	size_t len = p[0] < 0x80   ? 1
	             : p[0] < 0xc2 ? 0
	             : p[0] < 0xe0 ? 2
	             : p[0] < 0xf0 ? 3
	             : p[0] < 0xf5 ? 4
	                           : 0;
	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

static void
put_clean_utf8(struct mw_buf *out, struct mw_str s)
{
	const uint8_t *p = (const uint8_t *)s.p;
	for (size_t i = 0; i < s.n;) {
		size_t len = utf8_len(p + i, s.n - i);
		if (len == 0 || p[i] == 0) {
			put_utf8(out, 0xfffd);
			i++;
		} else {
			mw_buf_put(out, p + i, len);
			i += len;
		}
	}
}

static void
put_latin(struct mw_buf *out, struct mw_str s, bool cp1252, bool euro15)
{
	static const uint16_t c1[32] = {0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026,
	                                0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039,
	                                0x0152, 0xfffd, 0x017d, 0xfffd, 0xfffd, 0x2018,
	                                0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
	                                0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd,
	                                0x017e, 0x0178};
	for (size_t i = 0; i < s.n; i++) {
		uint8_t b = (uint8_t)s.p[i];
		if (b == 0)
			put_utf8(out, 0xfffd);
		else if (euro15 && b == 0xa4)
			put_utf8(out, 0x20ac);
		else if (cp1252 && b >= 0x80 && b < 0xa0)
			put_utf8(out, c1[b - 0x80]);
		else
			put_utf8(out, b);
	}
}

static bool
unbase64(struct mw_str s, struct mw_buf *out)
{
	static const char set[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t acc = 0;
	unsigned bits = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '=')
			break;
		const char *q = s.p[i] ? strchr(set, s.p[i]) : NULL;
		if (!q)
			return false;
		acc = acc << 6 | (uint32_t)(q - set);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			mw_buf_putc(out, (char)(acc >> bits & 0xff));
		}
	}
	return true;
}

static bool
unq(struct mw_str s, struct mw_buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '_') {
			mw_buf_putc(out, ' ');
		} else if (s.p[i] == '=' && i + 2 < s.n) {
			int a = hexval(s.p[i + 1]), b = hexval(s.p[i + 2]);
			if (a < 0 || b < 0)
				return false;
			mw_buf_putc(out, (char)(a << 4 | b));
			i += 2;
		} else {
			mw_buf_putc(out, s.p[i]);
		}
	}
	return true;
}

/* "=?charset?B|Q?text?=" at the start of s; *ret_len is its length. */
static bool
encoded_word(struct mw_str s, struct mw_buf *out, size_t *ret_len)
{
	struct mw_str rest, charset, enc, text;
	if (!mw_str_starts(s, MW_STR("=?")))
		return false;
	rest = mw_str(s.p + 2, s.n - 2);
	if (!mw_str_cut(rest, '?', &charset, &rest) ||
	    !mw_str_cut(rest, '?', &enc, &rest) || enc.n != 1 ||
	    !mw_str_cut(rest, '?', &text, &rest) || rest.n == 0 || rest.p[0] != '=' ||
	    charset.n == 0 || charset.n > 40)
		return false;
	struct mw_str lang;
	(void)mw_str_cut(charset, '*', &charset, &lang); /* RFC 2231 language */
	MW_BUF_AUTO raw = {.max = 65536};
	bool ok = (enc.p[0] == 'B' || enc.p[0] == 'b')   ? unbase64(text, &raw)
	          : (enc.p[0] == 'Q' || enc.p[0] == 'q') ? unq(text, &raw)
	                                                 : false;
	if (!ok || raw.failed)
		return false;
	struct mw_str r = mw_buf_str(&raw);
	if (mw_str_ieq(charset, MW_STR("utf-8")) ||
	    mw_str_ieq(charset, MW_STR("us-ascii")) ||
	    mw_str_ieq(charset, MW_STR("utf8")))
		put_clean_utf8(out, r);
	else if (mw_str_ieq(charset, MW_STR("iso-8859-1")))
		put_latin(out, r, false, false);
	else if (mw_str_ieq(charset, MW_STR("iso-8859-15")))
		put_latin(out, r, false, true);
	else if (mw_str_ieq(charset, MW_STR("windows-1252")))
		put_latin(out, r, true, false);
	else
		return false;
	*ret_len = (size_t)(rest.p + 1 - s.p);
	return true;
}

void
mw_header_decode(struct mw_str unfolded, struct mw_buf *out)
{
	struct mw_str v = unfolded;
	size_t i = 0;
	bool after_word = false;
	while (i < v.n) {
		size_t len;
		/* White space between two encoded words is not shown (RFC 2047 §6.2). */
		size_t j = i;
		while (after_word && j < v.n && (v.p[j] == ' ' || v.p[j] == '\t'))
			j++;
		if (encoded_word(mw_str(v.p + j, v.n - j), out, &len)) {
			i = j + len;
			after_word = true;
			continue;
		}
		after_word = false;
		size_t end = i + 1;
		while (end < v.n && v.p[end] != '=' && v.p[end] != ' ')
			end++;
		put_clean_utf8(out, mw_str(v.p + i, end - i));
		i = end;
	}
}
