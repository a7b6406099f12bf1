/* erased.h - mail read with what was erased left out (P11).
 *
 * Life: zeroed, mw_erased_mail any number of times, mw_erased_done. One thread.
 */
#ifndef MW_REPLAY_ERASED_H
#define MW_REPLAY_ERASED_H

#include "replay/later.h"

struct mw_erased { /* tombstones of each journal, loaded on first use */
	struct mw_gone **v;
	struct mw_laters *later; /* as many */
	size_t n;
};

/* What tombstones of this journal (position k in the set) say; owned by e. */
int mw_erased_gone(struct mw_erased *e, struct mw_store *st, size_t k,
                   const struct mw_gone **ret, struct mw_err *err) MW_CHECK;
/* mw_record_mail, its recipients as expanded later, without the recipients whose copies
 * were erased. MW_EERASED where a tombstone names the record, even if its key slot is
 * still to be wiped. */
int mw_erased_mail(struct mw_erased *e, struct mw_store *st, size_t k,
                   const struct mw_record *r, struct mw_arena *a, struct mw_mail *ret,
                   struct mw_err *err) MW_CHECK;
void mw_erased_done(struct mw_erased *e);

#endif
