/* search.h - looking into a message: text of its body, names of its attachments.
 *
 * What is looked for and what is looked into are folded alike (mime.h): case, accents,
 * typographic quotes and runs of blanks do not matter; encodings and charsets are
 * decoded, HTML is read as shown. Life: new → (put… → matches)… → free. One thread.
 */
#ifndef MW_REPLAY_SEARCH_H
#define MW_REPLAY_SEARCH_H

#include "journal/base/arena.h"
#include "journal/base/err.h"
#include "replay/mime.h"

#include <stdbool.h>
#include <stddef.h>

struct mw_search;

/* The texts are OR-ed in each list; a message matches when each list that has any has a
 * match. MW_EUSAGE for a text that has nothing to compare. */
struct mw_search_for {
	const char *const *body, *const *attachment;
	size_t n_body, n_attachment;
};
int mw_search_new(const struct mw_search_for *what, struct mw_search **ret,
                  struct mw_err *err) MW_CHECK;
void mw_search_free(struct mw_search *s); /* NULL ok */
/* Content, cut anywhere: a sink. 0, or MW_ENOMEM. */
int mw_search_put(void *search, const void *p, size_t n);
/* The message is whole: does it match? Ready for the next one. */
bool mw_search_matches(struct mw_search *s);
/* What was put of a message does not count. */
void mw_search_forget(struct mw_search *s);

/* Has the decoded header value one of these in it? */
bool mw_search_header(struct mw_str raw, const char *const *v, size_t n);
/* The same for many headers: what is looked for is folded once. NULL: out of memory. */
struct mw_str *mw_search_needles(const char *const *v, size_t n, struct mw_arena *a);
bool mw_search_folded(struct mw_str raw, const struct mw_str *needles, size_t n);

#endif
