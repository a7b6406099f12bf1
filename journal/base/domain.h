/* domain.h - when are two domain names the same one?
 *
 * Bücher.example, BÜCHER.EXAMPLE and xn--bcher-kva.example are one domain (RFC 5890: the
 * last is the A-label of the first), and mail comes with any of them. Names of ASCII are
 * compared without regard to case, others by their A-labels as UTS 46 makes them
 * (libidn2, nontransitional). What IDNA has no A-label for is only itself, and so is
 * everything once memory has ended.
 *
 * Any thread, no state.
 */
#ifndef MW_BASE_DOMAIN_H
#define MW_BASE_DOMAIN_H

#include "journal/base/str.h"

#include <stdbool.h>
#include <stddef.h>

bool mw_domain_eq(struct mw_str a, struct mw_str b);

/* Can it be written in another way than in upper and lower case of ASCII? */
bool mw_domain_has_forms(struct mw_str domain);

/* The one of v that it is, as written there (one that differs in case of ASCII only goes
 * first); NULL: none. */
const char *mw_domain_of(char *const *v, size_t n, struct mw_str domain);

#endif
