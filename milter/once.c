#include "milter/once.h"

#include <stdlib.h>
#include <string.h>

#include "journal/base/util.h"

enum {
	FIRST = 64
};

void
mw_once_init(struct mw_once *o, int64_t now_us, int64_t keep_us)
{
	memset(o, 0, sizeof *o);
	(void)pthread_mutex_init(&o->lock, NULL); /* cannot fail with NULL attributes */
	o->floor_us = now_us;
	o->keep_us = keep_us;
}

void
mw_once_done(struct mw_once *o)
{
	free(o->slot);
	o->slot = NULL;
	(void)pthread_mutex_destroy(&o->lock);
}

/* The tag's slot, or the free one where it belongs. There is always a free one. */
static struct mw_once_slot *
find(struct mw_once_slot *slot, size_t n_slot, uint64_t tag)
{
	size_t i = (size_t)tag & (n_slot - 1);
	while (slot[i].tag && slot[i].tag != tag)
		i = (i + 1) & (n_slot - 1);
	return &slot[i];
}

/* All are forgotten, and with them whatever was made until then. */
static void
forget(struct mw_once *o)
{
	for (size_t i = 0; i < o->n_slot; i++)
		if (o->slot[i].tag)
			o->floor_us = MW_MAX(o->floor_us, o->slot[i].made_us + 1);
	memset(o->slot, 0, o->n_slot * sizeof *o->slot);
	o->n = 0;
}

/* Room for one more: leaves out what is too old, then grows, then forgets. */
static bool
make_room(struct mw_once *o, int64_t now_us)
{
	size_t left = 0;
	if (o->n_slot && o->n < o->n_slot / 2)
		return true;
	for (size_t i = 0; i < o->n_slot; i++)
		left += o->slot[i].tag && o->slot[i].made_us >= now_us - o->keep_us;
	size_t n_slot = MW_MAX(o->n_slot, (size_t)FIRST);
	if (left >= n_slot / 4 && n_slot < MW_ONCE_SLOTS)
		n_slot *= 2;
	if (left >= n_slot / 8 * 3) { /* else it would be copied again and again */
		forget(o);
		return true;
	}
	struct mw_once_slot *slot = calloc(n_slot, sizeof *slot);
	if (!slot)
		return false;
	for (size_t i = 0; i < o->n_slot; i++)
		if (o->slot[i].tag && o->slot[i].made_us >= now_us - o->keep_us)
			*find(slot, n_slot, o->slot[i].tag) = o->slot[i];
	free(o->slot);
	o->slot = slot;
	o->n_slot = n_slot;
	o->n = left;
	return true;
}

bool
mw_once_take(struct mw_once *o, uint64_t tag, int64_t made_us, int64_t now_us)
{
	bool first = false;
	tag += tag == 0;
	(void)pthread_mutex_lock(&o->lock);
	if (made_us >= o->floor_us && make_room(o, now_us) && made_us >= o->floor_us) {
		struct mw_once_slot *s = find(o->slot, o->n_slot, tag);
		first = s->tag == 0;
		*s = (struct mw_once_slot){tag, made_us};
		o->n += first;
	}
	(void)pthread_mutex_unlock(&o->lock);
	return first;
}
