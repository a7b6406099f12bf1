/* took.h - which recipients a host took as its own, to be asked many times: a message to
 * thousands is held against another host's record of it, recipient by recipient.
 */
#ifndef MW_REPLAY_TOOK_H
#define MW_REPLAY_TOOK_H

#include "journal/base/arena.h"
#include "journal/record/meta.h"

struct mw_took {
	struct mw_str *v; /* sorted, without regard to case */
	size_t n;
};

/* In the arena, as long as m lives. 0 or MW_ENOMEM. */
int mw_took_init(struct mw_took *t, const struct mw_mail *m, struct mw_arena *a) MW_CHECK;
bool mw_took_has(const struct mw_took *t, struct mw_str addr);

#endif
