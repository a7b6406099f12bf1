/* numbered.h - a journal of mail that is known by its numbers: what message k is can be
 * made again, so that whatever comes back is compared whole. Each test has a journal of
 * its own, its state a struct box. Everything fails in words.
 */
#ifndef MW_TEST_NUMBERED_H
#define MW_TEST_NUMBERED_H

#include "journal/store/store.h"

#include <limits.h>

struct box {
	char dir[PATH_MAX];     /* of the test's own */
	char journal[PATH_MAX]; /* in it, new */
};
int numbered_setup(void **state);
int numbered_teardown(void **state);

struct mw_store *open_store(const struct box *b, enum mw_store_mode mode);

/* Message k, to user<k % 5>@example.test. Every fourth is incompressible and large. */
void content_of(unsigned k, struct mw_buf *out);
struct mw_entry *entry_of(struct mw_store *st, unsigned k);
void append(struct mw_store *st, unsigned k); /* durable */

/* Reads everything: n mails, in any order, each exact, and no number left out. */
void check_all(struct mw_store *st, unsigned n);

/* The records that a look-up told of. */
struct found {
	uint64_t seq[64];
	unsigned n;
};
int find_cb(void *arg, const struct mw_record *r);
void find_rcpt(struct mw_store *st, struct found *f); /* to user2@example.test */

#endif
