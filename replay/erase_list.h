/* erase_list.h - what an erasure takes: records as a whole, and the names of a person in
 * those that others keep.
 *
 * Life: zeroed → mw_erase_take_*, mw_erase_name_* (mw_erase_list_clear begins anew) →
 * mw_erase_run with .list → mw_erase_list_free. One thread. Functions return 0 or
 * MW_ENOMEM.
 */
#ifndef MW_REPLAY_ERASE_LIST_H
#define MW_REPLAY_ERASE_LIST_H

#include "replay/retain.h"
#include "replay/select.h"

struct mw_erase_listed {
	struct mw_erase_list list;
	size_t cap_whole, cap_part, cap_cut, cap_cut_login, cap_token, cap_login;
};

int mw_erase_take_whole(struct mw_erase_listed *l, const struct mw_record *r,
                        struct mw_err *err) MW_CHECK;
int mw_erase_take_part(struct mw_erase_listed *l, uint64_t seq,
                       struct mw_err *err) MW_CHECK;
/* A record that loses his tokens; login: what mw_erase_name_login gave, or 0. */
int mw_erase_take_cut(struct mw_erase_listed *l, const struct mw_record *r,
                      uint32_t login, struct mw_err *err) MW_CHECK;

/* An address of q's users, as a record has it: the tokens by which it is found, whichever
 * version wrote it, with and without its extension (unless what is left is somebody
 * else's). */
int mw_erase_name_address(struct mw_erase_listed *l, const struct mw_store *st,
                          const struct mw_query *q, struct mw_str addr,
                          struct mw_err *err) MW_CHECK;
/* His in this mail; in the next it may be another one's: *ret is for mw_erase_take_cut.
 */
int mw_erase_name_login(struct mw_erase_listed *l, const struct mw_store *st,
                        struct mw_str login, uint32_t *ret, struct mw_err *err) MW_CHECK;

void mw_erase_list_clear(struct mw_erase_listed *l);
void mw_erase_list_free(struct mw_erase_listed *l);

#endif
