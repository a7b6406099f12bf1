#include "journal/base/domain.h"

#include "journal/base/util.h"

#include <locale.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <wctype.h>

enum {
	NAME_MAX_BYTES = 255, /* RFC 1035 §2.3.4 */
	LABEL_MAX = 63,
	/* RFC 3492 §5 */
	BASE = 36,
	T_MIN = 1,
	T_MAX = 26,
	SKEW = 38,
	DAMP = 700,
	BIAS = 72,
	FIRST = 128
};

struct ascii {
	char p[NAME_MAX_BYTES + 1];
	size_t n;
	bool bad; /* no name that the DNS could hold */
};

/* ---- lower case of other letters ---- */

static locale_t utf8_locale;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
make_locale(void)
{
	utf8_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

static uint32_t
lower(uint32_t c)
{
	if (c < 128)
		return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
	(void)pthread_once(&once, make_locale);
	return utf8_locale ? (uint32_t)towlower_l((wint_t)c, utf8_locale) : c;
}

/* ---- one label ---- */

static void
put(struct ascii *a, char c)
{
	if (a->n >= NAME_MAX_BYTES)
		a->bad = true;
	else
		a->p[a->n++] = c;
}

static uint32_t
adapt(uint32_t delta, uint32_t points, bool first)
{
	uint32_t k = 0;
	delta = first ? delta / DAMP : delta / 2;
	delta += delta / points;
	for (; delta > (BASE - T_MIN) * T_MAX / 2; k += BASE)
		delta /= BASE - T_MIN;
	return k + (BASE - T_MIN + 1) * delta / (delta + SKEW);
}

static void
put_number(struct ascii *a, uint32_t q, uint32_t bias)
{
	for (uint32_t k = BASE;; k += BASE) {
		uint32_t t = k <= bias ? T_MIN : k >= bias + T_MAX ? T_MAX : k - bias;
		if (q < t)
			break;
		uint32_t digit = t + (q - t) % (BASE - t);
		put(a, (char)(digit < 26 ? 'a' + digit : '0' + digit - 26));
		q = (q - t) / (BASE - t);
	}
	put(a, (char)(q < 26 ? 'a' + q : '0' + q - 26));
}

/* RFC 3492 §6.3. With at most 63 code points below 2^21 nothing overflows. */
static void
put_punycode(struct ascii *a, const uint32_t *cp, uint32_t n)
{
	uint32_t done = 0, next = FIRST, delta = 0, bias = BIAS;
	for (uint32_t i = 0; i < n; i++)
		if (cp[i] < FIRST) {
			put(a, (char)cp[i]);
			done++;
		}
	uint32_t basic = done;
	if (basic)
		put(a, '-');
	for (; done < n; delta++, next++) {
		uint32_t least = UINT32_MAX;
		for (uint32_t i = 0; i < n; i++)
			if (cp[i] >= next && cp[i] < least)
				least = cp[i];
		delta += (least - next) * (done + 1);
		next = least;
		for (uint32_t i = 0; i < n; i++) {
			delta += cp[i] < next;
			if (cp[i] != next)
				continue;
			put_number(a, delta, bias);
			bias = adapt(delta, done + 1, done == basic);
			delta = 0;
			done++;
		}
	}
}

/* 0: no UTF-8. */
static size_t
code_point(const char *p, size_t n, uint32_t *ret)
{
	const uint8_t *u = (const uint8_t *)p;
	size_t len = u[0] < 0x80   ? 1
	             : u[0] < 0xc2 ? 0
	             : u[0] < 0xe0 ? 2
	             : u[0] < 0xf0 ? 3
	                           : 4;
	if (len == 0 || len > n || u[0] > 0xf4)
		return 0;
	uint32_t c = len == 1 ? u[0] : u[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	*ret = c;
	return len;
}

static void
put_label(struct ascii *a, struct mw_str s)
{
	uint32_t cp[LABEL_MAX], n = 0;
	bool other = false;
	for (size_t i = 0, len; i < s.n && !a->bad; i += len) {
		uint32_t c = 0;
		len = code_point(s.p + i, s.n - i, &c);
		if (len == 0 || n == LABEL_MAX) {
			a->bad = true;
			return;
		}
		cp[n] = lower(c);
		other = other || cp[n] >= FIRST;
		n++;
	}
	for (const char *p = "xn--"; other && *p; p++)
		put(a, *p);
	if (other)
		put_punycode(a, cp, n);
	for (uint32_t i = 0; !other && i < n; i++)
		put(a, (char)cp[i]);
}

static void
to_ascii(struct mw_str s, struct ascii *ret)
{
	struct mw_str label;
	ret->n = 0;
	ret->bad = false;
	while (mw_str_cut(s, '.', &label, &s)) {
		put_label(ret, label);
		put(ret, '.');
	}
	put_label(ret, s);
}

/* ---- names ---- */

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
	struct ascii x, y;
	to_ascii(a, &x);
	to_ascii(b, &y);
	return !x.bad && !y.bad && x.n == y.n && memcmp(x.p, y.p, x.n) == 0;
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
