/* erase_outcomes.h - an OUTCOME record speaks of several mails. When one of them is
 * erased, what it says of the others is written anew and the record goes (P11).
 *
 * Life: zeroed → mw_renew_note for each record that speaks of what is erased →
 * mw_renew_prepare (reads; nothing is changed) → mw_renew_write, before the tombstone →
 * mw_renew_done. One thread. The caller holds mw_outcomes_lock meanwhile, so that no
 * newer fact is written that an older one would then follow.
 */
#ifndef MW_REPLAY_ERASE_OUTCOMES_H
#define MW_REPLAY_ERASE_OUTCOMES_H

#include "replay/outcomes.h"
#include "replay/retain.h"
#include "replay/select.h"

struct mw_renew {
	struct mw_arena *arena;
	struct mw_record *rec; /* that go */
	size_t n_rec, cap_rec;
	struct mw_renewed *mail; /* of which something stays, by sequence number */
	size_t n_mail, cap_mail;
};

int mw_renew_note(struct mw_renew *w, const struct mw_record *r,
                  struct mw_err *err) MW_CHECK;
/* Gathers what the records say of mails that are not in list->whole, without the persons
 * of q in those of list->part. MW_EKEY, MW_EDAMAGED: one cannot be read. */
int mw_renew_prepare(struct mw_renew *w, struct mw_store *st,
                     const struct mw_erase_list *list, const struct mw_query *q,
                     struct mw_err *err) MW_CHECK;
int mw_renew_write(struct mw_renew *w, struct mw_retain_owner *o,
                   struct mw_err *err) MW_CHECK;
void mw_renew_done(struct mw_renew *w);

#endif
