/* recover.h - one user's mail in a journal set: whose it is, and where to look it up.
 *
 * Pure of targets. Life: mw_recover_whose, then the keys go into queries; all strings
 * live in the arena given. One thread.
 */
#ifndef MW_REPLAY_RECOVER_H
#define MW_REPLAY_RECOVER_H

#include "replay/select.h"

struct mw_recover_user {
	const char *mailbox; /* login, as mw_copies names it */
	bool by_alias;       /* the address given leads there, but is another one */
	/* Every record with a copy of that mailbox has one of these keys; NULL: no such
	 * list can be made (the mailbox's name does not tell its domain), the whole log
	 * must be walked. */
	const struct mw_select_key *key;
	size_t n_key;
};

/* Finds the one mailbox that `who` means: its own address or login; its name without a
 * domain; or an alias, as it was expanded at capture. MW_ENOUSER, or MW_EUSAGE naming
 * the mailboxes where there are several. bad as in mw_select, but for a
 * key that is missing: MW_EKEY if nothing that can be read tells who that is. */
int mw_recover_whose(struct mw_cli *cli, const char *who, struct mw_arena *a,
                     void (*bad)(void *arg, const struct mw_err *err), void *arg,
                     struct mw_recover_user *ret, struct mw_err *err) MW_CHECK;

/* Has the mail a copy for this mailbox? 1, 0, or MW_ENOMEM. */
int mw_recover_has_copy(const struct mw_conf *conf, const struct mw_mail *m,
                        const char *mailbox, struct mw_arena *tmp);

#endif
