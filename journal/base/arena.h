/* arena.h - memory that lives as long as one message, one command item, one session.
 *
 * Everything allocated is freed together; there is no single free. A limit, in bytes of
 * payload, makes growth by an outsider an error (NULL) and not a surprise. One thread.
 */
#ifndef MW_BASE_ARENA_H
#define MW_BASE_ARENA_H

#include "journal/base/str.h"

#include <stddef.h>

struct mw_arena;

struct mw_arena *mw_arena_new(size_t limit);        /* NULL: out of memory */
void mw_arena_free(struct mw_arena *a);             /* NULL ok */
void mw_arena_reset(struct mw_arena *a);            /* frees all, keeps the first block */
size_t mw_arena_used(const struct mw_arena *a);     /* payload bytes handed out */
void *mw_arena_alloc(struct mw_arena *a, size_t n); /* zeroed, 16-byte aligned; NULL */
/* Copies; the copy is NUL-terminated after n bytes. p NULL in the result on failure
 * (and only then, even for n = 0). */
struct mw_str mw_arena_str(struct mw_arena *a, struct mw_str s);
char *mw_arena_strdup(struct mw_arena *a, const char *z);
char *mw_arena_printf(struct mw_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Grows an array: returns p with room for `want` items of `size`, doubling *cap. */
void *mw_arena_grow(struct mw_arena *a, void *p, size_t *cap, size_t want, size_t size);

static inline void
mw_arena_autofree_(struct mw_arena **a)
{
	mw_arena_free(*a);
}
#define MW_ARENA_AUTO __attribute__((cleanup(mw_arena_autofree_))) struct mw_arena

#endif
