/* domain.h - when are two domain names, or two addresses, the same one?
 *
 * Bücher.example, BÜCHER.EXAMPLE and xn--bcher-kva.example are one domain (RFC 5890: the
 * last is the A-label of the first), and mail comes with any of them. Names of ASCII are
 * compared without regard to case, others by their A-labels as UTS 46 makes them
 * (libidn2, nontransitional). What IDNA has no A-label for is only itself, and so is
 * everything once memory has ended.
 *
 * Of an address the local part is compared without quotes and backslashes that it does
 * not need, and in lower case of any script, with its letters composed (fold.h): jörg is
 * JÖRG, but straße and strasse may be two persons, and no one sees the other's mail. So
 * is a login, or a local part alone. mailbox_name makes two mailboxes of them, too.
 *
 * The key of a name is a form that all its forms have in common (FORMAT.md I23): what
 * tokens are made from. It folds more than that: what is found by it is still to be
 * compared. Records of earlier versions have tokens of the name as it came, so all ways
 * to write one are asked for there.
 *
 * Any thread, no state. What forms point to is the caller's name, or in his arena.
 */
#ifndef MW_BASE_DOMAIN_H
#define MW_BASE_DOMAIN_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stddef.h>

/* 1, 0 or MW_ENOMEM. */
int mw_domain_same(struct mw_str a, struct mw_str b) MW_CHECK;
int mw_addr_same(struct mw_str a, struct mw_str b) MW_CHECK;
/* The same where to find none the same does no harm: with memory at its end two forms are
 * two names. */
bool mw_domain_eq(struct mw_str a, struct mw_str b);
bool mw_addr_eq(struct mw_str a, struct mw_str b);

/* The key, but for upper and lower case of ASCII: the name itself where it is of ASCII
 * alone and has no other form, which costs no memory; else what was appended to b. After
 * a failure, noted in b, it is empty. Bounded: what is longer than a name may be is its
 * own key. */
struct mw_str mw_domain_key(struct mw_str domain, struct mw_buf *b);
struct mw_str mw_local_key(struct mw_str local, struct mw_buf *b);
struct mw_str mw_addr_key(struct mw_str addr, struct mw_buf *b);

/* The domain in letters, to be read: one in A-labels, or in another case; else as it is.
 */
struct mw_str mw_domain_letters(struct mw_str domain, struct mw_buf *b);

/* The same of the form that tells two persons apart: what mw_addr_eq compares. */
struct mw_str mw_local_own(struct mw_str local, struct mw_buf *b);
struct mw_str mw_addr_own(struct mw_str addr, struct mw_buf *b);

/* The address without its extension, from an address's key or own form: up to the first
 * of these characters (NULL: none) that is not its first byte, and the domain. Appended
 * to b; empty: it has no extension, or a failure is noted in b. */
struct mw_str mw_addr_bare(struct mw_str key, const char *delimiter, struct mw_buf *b);

/* Can it be written in another way than in upper and lower case of ASCII? (Each name can
 * in letters of full width: these have forms.) */
bool mw_domain_has_forms(struct mw_str domain);
/* The same of an address, quotes aside. */
bool mw_addr_has_forms(struct mw_str addr);

/* The one of v that it is, as written there (one that differs in case of ASCII only goes
 * first); NULL: none. */
const char *mw_domain_of(char *const *v, size_t n, struct mw_str domain);

enum {
	MW_DOMAIN_FORMS = 3,
	MW_ADDR_FORMS = 3 * MW_DOMAIN_FORMS
};

/* How records of earlier versions may have it, but for upper and lower case of ASCII: as
 * given, by A-labels, in letters; each once. Upper case of other letters, and accents of
 * their own, are among them only if given. How many, or MW_ENOMEM. */
int mw_domain_forms(struct mw_str domain, struct mw_arena *a,
                    struct mw_str ret[MW_DOMAIN_FORMS]) MW_CHECK;

/* The same of an address, or of a local part alone, with quotes around it and without.
 * One with the opening quote only is among them: that is what a record has for
 * "kurt+x"@…, where it has kurt@… for kurt+x@… */
int mw_addr_forms(struct mw_str addr, struct mw_arena *a,
                  struct mw_str ret[MW_ADDR_FORMS]) MW_CHECK;

#endif
