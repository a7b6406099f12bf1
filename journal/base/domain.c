#include "journal/base/domain.h"

#include "journal/base/fold.h"
#include "journal/base/util.h"

#include <idn2.h>
#include <string.h>

enum {
	NAME_MAX_BYTES = 255, /* RFC 1035 §2.3.4 */
	/* A code point takes at most four bytes, an A-label no fewer than one of each. */
	MOST = 4 * NAME_MAX_BYTES
};

/* With the capital of sharp s as ß: UTS 46 has it so since Unicode 15.1, and as ss, which
 * is another domain, before that. The library has one or the other. */
static void
copy_name(struct mw_str s, char *name)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n; n++) {
		bool sharp =
		    mw_str_starts(mw_str(s.p + i, s.n - i), MW_STR("\xe1\xba\x9e"));
		if (sharp)
			name[n++] = '\xc3';
		name[n] = sharp ? '\x9f' : s.p[i];
		i += sharp ? 3 : 1;
	}
	name[n] = '\0';
}

/* Characters of full width, and signs like a/c, are mapped to any of ASCII: what no name
 * of a host has makes none. */
static bool
is_host(const char *z)
{
	for (; *z; z++)
		if (!(*z >= 'a' && *z <= 'z') && !(*z >= 'A' && *z <= 'Z') &&
		    !(*z >= '0' && *z <= '9') && !strchr("-_.", *z))
			return false;
	return true;
}

/* The name by A-labels, for idn2_free(); NULL: it is no name, or memory ended, which
 * *ret_memory (NULL ok) tells. */
static char *
to_ascii(struct mw_str s, bool *ret_memory)
{
	char name[MOST + 1], *ret = NULL;
	if (s.n > MOST || memchr(s.p, '\0', s.n))
		return NULL;
	copy_name(s, name);
	int r = idn2_to_ascii_8z(name, &ret, IDN2_NONTRANSITIONAL);
	if (ret_memory)
		*ret_memory = r != IDN2_MALLOC;
	if (r == IDN2_OK && is_host(ret))
		return ret;
	idn2_free(ret);
	return NULL;
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
mw_addr_has_forms(struct mw_str addr)
{
	return mw_domain_has_forms(mw_addr_domain(addr)) ||
	       !mw_is_ascii(mw_addr_local(addr));
}

struct mw_str
mw_domain_key(struct mw_str domain, struct mw_buf *b)
{
	bool memory = true;
	size_t from = b->n;
	if (!mw_domain_has_forms(domain))
		return domain;
	char *labels = to_ascii(domain, &memory);
	if (!labels && memory)
		return domain;
	if (labels)
		mw_buf_puts(b, labels);
	else
		b->failed = true;
	if (!labels)
		b->why = MW_ENOMEM;
	idn2_free(labels);
	return b->failed ? mw_str("", 0) : mw_str((char *)b->p + from, b->n - from);
}

static bool
is_quoted(struct mw_str local)
{
	return local.n > 2 && local.p[0] == '"' && local.p[local.n - 1] == '"';
}

/* What quotes hold, without backslashes in front of characters. False: no quoted string
 * (RFC 5321 §4.1.2), and nothing was appended that counts. */
static bool
unquote(struct mw_str local, struct mw_buf *b)
{
	for (size_t i = 1; i + 1 < local.n; i++) {
		if (local.p[i] == '"')
			return false;
		if (local.p[i] == '\\' && ++i + 1 == local.n)
			return false;
		mw_buf_putc(b, local.p[i]);
	}
	return true;
}

/* What was made in x is missing in b. */
static void
fail_as(struct mw_buf *b, const struct mw_buf *x)
{
	if (!x->failed || b->failed)
		return;
	b->failed = true;
	b->why = x->why;
}

typedef void (*folding)(struct mw_str, struct mw_buf *);

static struct mw_str
local_by(folding fold, struct mw_str local, struct mw_buf *b)
{
	MW_BUF_AUTO plain = {0};
	size_t from = b->n;
	if (!is_quoted(local) && mw_is_ascii(local))
		return local;
	bool quoted = is_quoted(local) && unquote(local, &plain);
	fail_as(b, &plain);
	fold(quoted ? mw_buf_str(&plain) : local, b);
	return b->failed ? mw_str("", 0) : mw_str((char *)b->p + from, b->n - from);
}

static struct mw_str
addr_by(folding fold, struct mw_str addr, struct mw_buf *b)
{
	struct mw_str local = mw_addr_local(addr), domain = mw_addr_domain(addr);
	size_t from = b->n;
	if (!is_quoted(local) && !mw_addr_has_forms(addr))
		return addr;
	bool has_domain = local.n < addr.n;
	MW_BUF_AUTO part = {0};
	local = local_by(fold, local, &part);
	mw_buf_putstr(b, local);
	if (has_domain) {
		MW_BUF_AUTO labels = {0};
		mw_buf_putc(b, '@');
		domain = mw_domain_key(domain, &labels);
		mw_buf_putstr(b, domain);
		fail_as(b, &labels);
	}
	fail_as(b, &part);
	return b->failed ? mw_str("", 0) : mw_str((char *)b->p + from, b->n - from);
}

struct mw_str
mw_local_key(struct mw_str local, struct mw_buf *b)
{
	return local_by(mw_fold, local, b);
}

struct mw_str
mw_addr_key(struct mw_str addr, struct mw_buf *b)
{
	return addr_by(mw_fold, addr, b);
}

struct mw_str
mw_local_own(struct mw_str local, struct mw_buf *b)
{
	return local_by(mw_lower, local, b);
}

struct mw_str
mw_addr_own(struct mw_str addr, struct mw_buf *b)
{
	return addr_by(mw_lower, addr, b);
}

struct mw_str
mw_addr_bare(struct mw_str key, const char *delimiter, struct mw_buf *b)
{
	struct mw_str local = mw_addr_local(key);
	size_t n = 1, from = b->n;
	while (n < local.n &&
	       (local.p[n] == '\0' || !delimiter || !strchr(delimiter, local.p[n])))
		n++;
	if (n >= local.n)
		return mw_str("", 0);
	mw_buf_put(b, local.p, n);
	mw_buf_put(b, local.p + local.n, key.n - local.n);
	return b->failed ? mw_str("", 0) : mw_str((char *)b->p + from, b->n - from);
}

static int
same_key(struct mw_str (*key)(struct mw_str, struct mw_buf *), struct mw_str a,
         struct mw_str b)
{
	MW_BUF_AUTO x = {0};
	MW_BUF_AUTO y = {0};
	struct mw_str i = key(a, &x), k = key(b, &y);
	return x.failed || y.failed ? MW_ENOMEM : mw_str_ieq(i, k);
}

int
mw_domain_same(struct mw_str a, struct mw_str b)
{
	if (mw_str_ieq(a, b))
		return 1;
	if (!mw_domain_has_forms(a) && !mw_domain_has_forms(b))
		return 0;
	return same_key(mw_domain_key, a, b);
}

int
mw_addr_same(struct mw_str a, struct mw_str b)
{
	return mw_str_ieq(a, b) ? 1 : same_key(mw_addr_own, a, b);
}

bool
mw_domain_eq(struct mw_str a, struct mw_str b)
{
	return mw_domain_same(a, b) == 1;
}

bool
mw_addr_eq(struct mw_str a, struct mw_str b)
{
	return mw_addr_same(a, b) == 1;
}

const char *
mw_domain_of(char *const *v, size_t n, struct mw_str domain)
{
	for (size_t i = 0; i < n; i++)
		if (mw_str_ieq(domain, mw_strz(v[i])))
			return v[i];
	if (!mw_domain_has_forms(domain))
		return NULL;
	MW_BUF_AUTO x = {0};
	struct mw_str key = mw_domain_key(domain, &x);
	for (size_t i = 0; i < n && !x.failed; i++) {
		MW_BUF_AUTO y = {0};
		struct mw_str other = mw_domain_key(mw_strz(v[i]), &y);
		if (!y.failed && mw_str_ieq(key, other))
			return v[i];
	}
	return NULL;
}

struct mw_str
mw_domain_letters(struct mw_str domain, struct mw_buf *b)
{
	MW_BUF_AUTO labels = {0};
	char *letters = NULL;
	size_t from = b->n;
	struct mw_str key = mw_domain_key(domain, &labels);
	fail_as(b, &labels);
	if (b->failed || key.p == domain.p)
		return b->failed ? mw_str("", 0) : domain;
	int r =
	    idn2_to_unicode_8z8z(mw_buf_cstr(&labels), &letters, IDN2_NONTRANSITIONAL);
	if (r == IDN2_MALLOC || labels.failed) {
		b->failed = true;
		b->why = MW_ENOMEM;
	}
	if (r == IDN2_OK)
		mw_buf_puts(b, letters);
	else
		mw_buf_putstr(b, key);
	idn2_free(letters);
	return b->failed ? mw_str("", 0) : mw_str((char *)b->p + from, b->n - from);
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
