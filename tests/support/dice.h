/* dice.h - numbers and bytes that look random and are the same in every run: the state
 * is the caller's, and any first value will do (Knuth's linear congruence, of which the
 * upper half is used).
 */
#ifndef MW_TEST_DICE_H
#define MW_TEST_DICE_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"

#include <stddef.h>
#include <stdint.h>

static inline uint64_t
dice_next(uint64_t *state)
{
	return *state = *state * 6364136223846793005U + 1442695040888963407U;
}

/* 0 to n - 1. */
static inline uint32_t
dice_roll(uint64_t *state, uint32_t n)
{
	return (uint32_t)((dice_next(state) >> 33) % n);
}

/* Up to 19 bytes, many of them such as nobody expects in an address or a name. */
static inline struct mw_str
dice_odd(uint64_t *state, struct mw_arena *a)
{
	static const char odd[] = "a\0\xff\"<>\r\n \xc3\xa9@";
	size_t n = dice_roll(state, 4) ? dice_roll(state, 20) : 0;
	char *p = (char *)mw_arena_alloc(a, n + 1);
	for (size_t i = 0; i < n; i++)
		p[i] = odd[dice_roll(state, sizeof odd - 1)];
	return mw_str(p, n);
}

/* Appends n bytes that do not compress. */
static inline void
dice_noise(struct mw_buf *out, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		mw_buf_putc(out, (char)(dice_next(&seed) >> 40));
}

#endif
