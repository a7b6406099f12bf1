#include "journal/base/domain.h"

#include "journal/base/util.h"

#include <idn2.h>
#include <string.h>

enum {
	NAME_MAX_BYTES = 255, /* RFC 1035 §2.3.4 */
	/* A code point takes at most four bytes, an A-label no fewer than one of each. */
	MOST = 4 * NAME_MAX_BYTES
};

/* The name by A-labels, for idn2_free(); NULL: it is no name, or memory ended, which
 * *ret_memory (NULL ok) tells. */
static char *
to_ascii(struct mw_str s, bool *ret_memory)
{
	char name[MOST + 1], *ret = NULL;
	if (s.n > MOST || memchr(s.p, '\0', s.n))
		return NULL;
	memcpy(name, s.p, s.n);
	name[s.n] = '\0';
	int r = idn2_to_ascii_8z(name, &ret, IDN2_NONTRANSITIONAL);
	if (ret_memory)
		*ret_memory = r != IDN2_MALLOC;
	return r == IDN2_OK ? ret : NULL;
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
	char *x = to_ascii(a, NULL), *y = x ? to_ascii(b, NULL) : NULL;
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

/* Adds it to the n that are there, unless it is one of them; how many, or MW_ENOMEM. */
static int
add_form(struct mw_str s, struct mw_arena *a, struct mw_str *v, int n)
{
	for (int i = 0; i < n; i++)
		if (mw_str_ieq(v[i], s))
			return n;
	v[n] = mw_arena_str(a, s);
	return v[n].p ? n + 1 : MW_ENOMEM;
}

int
mw_domain_forms(struct mw_str domain, struct mw_arena *a,
                struct mw_str ret[MW_DOMAIN_FORMS])
{
	bool memory = true;
	char *letters = NULL;
	int n = 1;
	ret[0] = domain;
	if (!mw_domain_has_forms(domain))
		return n;
	char *labels = to_ascii(domain, &memory);
	if (!labels)
		return memory ? n : MW_ENOMEM;
	for (char *p = labels; *p; p++)
		*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
	n = add_form(mw_strz(labels), a, ret, n);
	int r = idn2_to_unicode_8z8z(labels, &letters, IDN2_NONTRANSITIONAL);
	if (n > 0 && r == IDN2_OK)
		n = add_form(mw_strz(letters), a, ret, n);
	idn2_free(letters);
	idn2_free(labels);
	return r == IDN2_MALLOC ? MW_ENOMEM : n;
}

/* Bytes of a mail's address, which need be no text. */
static struct mw_str
join(const struct mw_str *part, size_t n, struct mw_arena *a)
{
	size_t size = 0;
	for (size_t i = 0; i < n; i++)
		size += part[i].n;
	char *p = mw_arena_alloc(a, size + 1);
	for (size_t i = 0, at = 0; p && i < n; at += part[i++].n)
		if (part[i].n)
			memcpy(p + at, part[i].p, part[i].n);
	return mw_str(p, size);
}

int
mw_addr_forms(struct mw_str addr, struct mw_arena *a, struct mw_str ret[MW_ADDR_FORMS])
{
	struct mw_str domain[MW_DOMAIN_FORMS];
	struct mw_str raw = mw_addr_local(addr), local = mw_addr_plain(raw);
	struct mw_str at = raw.n < addr.n ? MW_STR("@") : MW_STR("");
	struct mw_str quote = MW_STR("\""), none = MW_STR("");
	/* Quotes around one with a backslash would mean another. */
	int ways = local.n && !memchr(local.p, '\\', local.n) ? 3 : 1;
	int n = 0, n_domain = mw_domain_forms(mw_addr_domain(addr), a, domain);
	for (int i = 0; i < n_domain; i++)
		for (int k = 0; k < ways; k++) {
			const struct mw_str part[] = {k ? quote : none, local,
			                              k == 1 ? quote : none, at,
			                              domain[i]};
			ret[n] = join(part, MW_COUNT(part), a);
			if (!ret[n++].p)
				return MW_ENOMEM;
		}
	return n_domain < 0 ? n_domain : n;
}
