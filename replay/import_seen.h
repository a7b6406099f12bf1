/* import_seen.h - does the journal hold this copy already?
 *
 * The rules of reconcile.h, asked one message at a time through the index: the queue ID
 * in a Received field with time and owner; the canonical digest and owner; for the same
 * Message-ID and owner the captured header a subset and the body equal, or for the
 * owner's own sent mail the body equal. Without a key that opens the journal only what is
 * not encrypted is compared: tokens, times, sizes.
 *
 * Life: mw_seen_new → mw_seen … → mw_seen_free. The store is a reader's, borrowed. What
 * the import itself brings in is its own business; what is captured meanwhile is met. One
 * thread.
 */
#ifndef MW_REPLAY_IMPORT_SEEN_H
#define MW_REPLAY_IMPORT_SEEN_H

#include "conf/conf.h"
#include "journal/store/store.h"
#include "replay/import.h"
#include "replay/profile.h"

struct mw_seen;

int mw_seen_new(struct mw_store *st, const struct mw_conf *conf, struct mw_seen **ret,
                struct mw_err *err) MW_CHECK;
void mw_seen_free(struct mw_seen *s); /* NULL ok */

/* 1 it is there, 0 it is not, negative: the journal cannot be read. header: of the
 * message; p: its profile. */
int mw_seen(struct mw_seen *s, const struct mw_import_msg *m, struct mw_str header,
            const struct mw_profile *p, struct mw_err *err) MW_CHECK;
/* The same without the content: an import of before, by Message-ID, size and second. */
int mw_seen_import(struct mw_seen *s, const struct mw_import_msg *m,
                   struct mw_err *err) MW_CHECK;

#endif
