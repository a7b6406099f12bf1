#include "journal/base/domain.h"

#include <idn2.h>
#include <string.h>

enum {
	NAME_MAX_BYTES = 255, /* RFC 1035 §2.3.4 */
	/* A code point takes at most four bytes, an A-label no fewer than one of each. */
	MOST = 4 * NAME_MAX_BYTES
};

/* The name by A-labels, for idn2_free(); NULL: it is no name, or memory ended. */
static char *
to_ascii(struct mw_str s)
{
	char name[MOST + 1], *ret = NULL;
	if (s.n > MOST || memchr(s.p, '\0', s.n))
		return NULL;
	memcpy(name, s.p, s.n);
	name[s.n] = '\0';
	return idn2_to_ascii_8z(name, &ret, IDN2_NONTRANSITIONAL) == IDN2_OK ? ret : NULL;
}

bool
mw_domain_has_forms(struct mw_str d)
{
	for (size_t i = 0; i < d.n; i++)
		if ((unsigned char)d.p[i] >= 128 ||
		    mw_str_istarts(mw_str(d.p + i, d.n - i), MW_STR("xn--")))
			return true;
	return false;
}

bool
mw_domain_eq(struct mw_str a, struct mw_str b)
{
	if (mw_str_ieq(a, b))
		return true;
	if (!mw_domain_has_forms(a) || !mw_domain_has_forms(b))
		return false;
	char *x = to_ascii(a), *y = x ? to_ascii(b) : NULL;
	bool same = y && mw_str_ieq(mw_strz(x), mw_strz(y));
	idn2_free(y);
	idn2_free(x);
	return same;
}

const char *
mw_domain_of(char *const *v, size_t n, struct mw_str domain)
{
	for (size_t i = 0; i < n; i++)
		if (mw_str_ieq(domain, mw_strz(v[i])))
			return v[i];
	for (size_t i = 0; mw_domain_has_forms(domain) && i < n; i++)
		if (mw_domain_eq(domain, mw_strz(v[i])))
			return v[i];
	return NULL;
}
