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
/* The expansion of the mail with that ID, and its record: 1, 0, or what the look-up
 * reports. */
int mw_later_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
                  struct mw_expansion *ret, struct mw_record *ret_rec,
                  struct mw_err *err) MW_CHECK;
/* Takes out of m, with the expansion of that record put in (NULL: none is), whoever was
 * erased from it: whose tokens are not there any more (FORMAT.md I21), whether or not the
 * tombstone can be read that said so. Needs no key. 0, MW_EERASED it went
 * meanwhile, or what reading a slot reports. */
int mw_later_left(struct mw_store *st, const struct mw_record *mail,
                  const struct mw_record *expansion, struct mw_mail *m,
                  struct mw_err *err) MW_CHECK;
/* The same by any rule: 1 where somebody was, 0, MW_ENOMEM. Mailboxes and recipients are
 * MW_KEY_RCPT, the login is MW_KEY_OWNER. */
typedef int mw_is_erased(const void *arg, enum mw_key kind, struct mw_str name);
int mw_mail_strip(struct mw_mail *m, mw_is_erased *erased, const void *arg) MW_CHECK;
/* mw_record_mail, with the expansion put in where one was to come and has come, without
 * whoever was erased from it. */
int mw_later_mail(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                  struct mw_mail *ret, struct mw_err *err) MW_CHECK;
/* The mail's record that an expansion is of: 1, 0 it is not there, negative. */
int mw_later_of(struct mw_store *st, const struct mw_expansion *x, struct mw_record *ret,
                struct mw_err *err) MW_CHECK;
/* Tokens of the mail's record and of its expansions, appended to out. Needs no key. */
int mw_later_tokens(struct mw_store *st, const struct mw_record *mail, struct mw_buf *out,
                    struct mw_err *err) MW_CHECK;

#endif
