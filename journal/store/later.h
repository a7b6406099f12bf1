/* later.h - what a later record says of a mail: the expansion of its recipients.
 *
 * A reader store, or a writer's own thread that reads (store.h: threads). Nothing is kept
 * between calls. Of several expansions of one mail the first counts that can be read.
 */
#ifndef MW_STORE_LATER_H
#define MW_STORE_LATER_H

#include "journal/record/expansion.h"
#include "journal/store/store.h"

/* What an EXPANSION record says: 1; 0 it is of another type, erased or damaged. Negative:
 * it cannot be read now (MW_EIO, MW_EKEY, MW_ENOMEM …), so nobody knows where its mail
 * belongs. */
int mw_later_read(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                  struct mw_expansion *ret, struct mw_err *err) MW_CHECK;
/* The expansion of the mail with that ID: 1, 0, or what the look-up reports. */
int mw_later_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
                  struct mw_expansion *ret, struct mw_err *err) MW_CHECK;
/* mw_record_mail, with the expansion put in where one was to come and has come. */
int mw_later_mail(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                  struct mw_mail *ret, struct mw_err *err) MW_CHECK;
/* The mail's record that an expansion is of: 1, 0 it is not there, negative. */
int mw_later_of(struct mw_store *st, const struct mw_expansion *x, struct mw_record *ret,
                struct mw_err *err) MW_CHECK;
/* Tokens of the mail's record and of its expansions, appended to out. Needs no key. */
int mw_later_tokens(struct mw_store *st, const struct mw_record *mail, struct mw_buf *out,
                    struct mw_err *err) MW_CHECK;

#endif
