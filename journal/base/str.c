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
