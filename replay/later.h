/* later.h - the expansions of many mails of one journal, one after the other.
 *
 * The first are looked up one by one, then all expansions of the journal are gathered
 * once. Zero to start, mw_laters_done at the end. One thread.
 */
#ifndef MW_REPLAY_LATER_H
#define MW_REPLAY_LATER_H

#include "conf/conf.h"
#include "journal/store/later.h"

struct mw_laters {
	size_t asked;
	struct mw_later_ref *v; /* by ID of the mail; NULL: not gathered */
	size_t n, cap;
	bool mapped;
	bool unmapped; /* one cannot be read: they stay looked up one by one */
};

/* Puts in what is awaited and has come, and takes out who was erased (mw_later_left).
 * Negative where it may have come and cannot be
 * read (mw_later_read): m does not say then whose the mail is. */
int mw_laters_apply(struct mw_laters *b, struct mw_store *st, const struct mw_record *r,
                    struct mw_arena *a, struct mw_mail *m, struct mw_err *err) MW_CHECK;
void mw_laters_done(struct mw_laters *b);

/* How long after its record is seen a mail's expansion may still come; 0 where no alias
 * table is on a network. */
int64_t mw_later_within_us(const struct mw_conf *conf);
/* Waits so long if the mail is young, unless stopped. True: it did wait. */
bool mw_later_wait(const struct mw_conf *conf, int64_t mail_time_us,
                   bool (*stopped)(void));

#endif
