/* plan_place.h - which boxes of a plan are one place in the file system.
 *
 * Two that are one would wait for each other's lock, and each would take the other's mail
 * for its own. Looked at once for each box. One thread.
 */
#ifndef MW_REPLAY_PLAN_PLACE_H
#define MW_REPLAY_PLAN_PLACE_H

#include "replay/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mw_plan_place {
	dev_t dev;
	ino_t ino;        /* of what is there of its path */
	const char *rest; /* of the path: below that; in the box's name */
	size_t box;
};

struct mw_plan_places { /* zero to start with */
	struct mw_plan_place *v;
	size_t n;
	size_t *slot;
	size_t n_slot;
};

/* *ret is the box that was noted for this place before, or box itself, which is noted for
 * it. path must last. 0 or MW_ENOMEM. */
int mw_plan_place(struct mw_plan_places *p, const char *path, size_t box,
                  size_t *ret) MW_CHECK;
/* Takes off the boxes that are only names of others: positions change. */
void mw_plan_drop_names(struct mw_plan *p);
/* Equal for paths that are one place while what is there stays; 0: it is not known. */
uint64_t mw_plan_place_hash(const char *path);
/* Are two paths one place? */
bool mw_plan_one_place(const char *a, const char *b);
void mw_plan_places_done(struct mw_plan_places *p);

#endif
