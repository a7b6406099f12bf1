#include "journal/base/str.h"

#include <strings.h>

bool
mw_str_eq(struct mw_str a, struct mw_str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static unsigned char
lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool
mw_str_ieq(struct mw_str a, struct mw_str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool
mw_str_starts(struct mw_str s, struct mw_str pre)
{
	return s.n >= pre.n && mw_str_eq(mw_str(s.p, pre.n), pre);
}

bool
mw_str_istarts(struct mw_str s, struct mw_str pre)
{
	return s.n >= pre.n && mw_str_ieq(mw_str(s.p, pre.n), pre);
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct mw_str
mw_str_trim(struct mw_str s)
{
	while (s.n && is_space(s.p[0]))
		s.p++, s.n--;
	while (s.n && is_space(s.p[s.n - 1]))
		s.n--;
	return s;
}

bool
mw_str_cut(struct mw_str s, char c, struct mw_str *ret_before, struct mw_str *ret_after)
{
	const char *q = s.n ? memchr(s.p, c, s.n) : NULL;
	if (!q)
		return false;
	*ret_before = mw_str(s.p, (size_t)(q - s.p));
	*ret_after = mw_str(q + 1, s.n - (size_t)(q - s.p) - 1);
	return true;
}

struct mw_str
mw_addr_domain(struct mw_str addr)
{
	const char *q = addr.n ? memrchr(addr.p, '@', addr.n) : NULL;
	if (!q)
		return mw_str("", 0);
	return mw_str(q + 1, addr.n - (size_t)(q - addr.p) - 1);
}

struct mw_str
mw_addr_plain(struct mw_str local)
{
	bool quoted = local.n > 2 && local.p[0] == '"' && local.p[local.n - 1] == '"' &&
	              !memchr(local.p, '\\', local.n);
	return quoted ? mw_str(local.p + 1, local.n - 2) : local;
}

struct mw_str
mw_addr_local(struct mw_str addr)
{
	const char *q = addr.n ? memrchr(addr.p, '@', addr.n) : NULL;
	return q ? mw_str(addr.p, (size_t)(q - addr.p)) : addr;
}

size_t
mw_utf8_char(const char *p, size_t n)
{
	const unsigned char *s = (const unsigned char *)p;
	if (n == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* overlong forms, surrogates, beyond U+10FFFF */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

size_t
mw_utf8_harmless(const char *p, size_t n)
{
	size_t len = mw_utf8_char(p, n);
	unsigned char c = len ? (unsigned char)p[0] : 0;
	if (len == 1)
		return c >= ' ' && c != 0x7f;
	return len == 2 && c == 0xc2 && (unsigned char)p[1] < 0xa0 ? 0 : len;
}
