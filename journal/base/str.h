/* str.h - borrowed byte strings. Mail bytes are not C strings: NUL and 8-bit occur. */
#ifndef MW_BASE_STR_H
#define MW_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct mw_str {
	const char *p; /* may be NULL when n is 0; not terminated */
	size_t n;
};

#define MW_STR(lit) ((struct mw_str){(lit), sizeof(lit) - 1})

static inline struct mw_str
mw_str(const char *p, size_t n)
{
	return (struct mw_str){p, n};
}

static inline struct mw_str
mw_strz(const char *z)
{
	return (struct mw_str){z, z ? strlen(z) : 0};
}

bool mw_str_eq(struct mw_str a, struct mw_str b);
bool mw_str_ieq(struct mw_str a, struct mw_str b);      /* ASCII case folded */
bool mw_str_starts(struct mw_str s, struct mw_str pre); /* exact */
bool mw_str_istarts(struct mw_str s, struct mw_str pre);
struct mw_str mw_str_trim(struct mw_str s); /* space, tab, CR, LF off both ends */
/* Part before / after the first `c`; returns false and leaves outputs when absent. */
bool mw_str_cut(struct mw_str s, char c, struct mw_str *ret_before,
                struct mw_str *ret_after);
/* The domain of an address: after the last '@', empty if none. */
struct mw_str mw_addr_domain(struct mw_str addr);
/* The local part: before the last '@', all of it if none. */
struct mw_str mw_addr_local(struct mw_str addr);
/* A local part without the quotes around it ("kurt" is kurt, RFC 5321 §4.1.2); one that
 * has a backslash in them stays as it is. */
struct mw_str mw_addr_plain(struct mw_str local);
/* Length of the valid UTF-8 character at p, 0 if there is none. */
size_t mw_utf8_char(const char *p, size_t n);
/* The same, 0 for a control character (C1 too) as well. */
size_t mw_utf8_harmless(const char *p, size_t n);

#endif
