/* domain.h - when are two domain names the same one?
 *
 * Bücher.example, BÜCHER.EXAMPLE and xn--bcher-kva.example are one domain (RFC 5890: the
 * last is the A-label of the first), and mail comes with any of them. Names of ASCII are
 * compared without regard to case, others by their A-labels as UTS 46 makes them
 * (libidn2, nontransitional). What IDNA has no A-label for is only itself, and so is
 * everything once memory has ended.
 *
 * Where names stand as tokens and cannot be compared, all ways to write one are asked
 * for.
 *
 * Any thread, no state. What forms point to is the caller's name, or in his arena.
 */
#ifndef MW_BASE_DOMAIN_H
#define MW_BASE_DOMAIN_H

#include "journal/base/arena.h"
#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stddef.h>

bool mw_domain_eq(struct mw_str a, struct mw_str b);

/* Can it be written in another way than in upper and lower case of ASCII? */
bool mw_domain_has_forms(struct mw_str domain);

/* The one of v that it is, as written there (one that differs in case of ASCII only goes
 * first); NULL: none. */
const char *mw_domain_of(char *const *v, size_t n, struct mw_str domain);

enum {
	MW_DOMAIN_FORMS = 3,
	MW_ADDR_FORMS = 3 * MW_DOMAIN_FORMS
};

/* How mail may have it, but for upper and lower case of ASCII: as given, by A-labels, in
 * letters; each once. Upper case of other letters, and accents of their own, are among
 * them only if given. How many, or MW_ENOMEM. */
int mw_domain_forms(struct mw_str domain, struct mw_arena *a,
                    struct mw_str ret[MW_DOMAIN_FORMS]) MW_CHECK;

/* The same of an address, or of a local part alone, with quotes around it and without.
 * One with the opening quote only is among them: that is what a record has for
 * "kurt+x"@…, where it has kurt@… for kurt+x@… */
int mw_addr_forms(struct mw_str addr, struct mw_arena *a,
                  struct mw_str ret[MW_ADDR_FORMS]) MW_CHECK;

#endif
