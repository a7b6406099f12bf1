/* mtalog_int.h - reading a line piece by piece; private to mtalog*.c.
 *
 * Each reader takes its piece off the front of *s, which it leaves alone where it returns
 * false. Pure, nothing allocated; strings point into the line.
 */
#ifndef MW_REPLAY_MTALOG_INT_H
#define MW_REPLAY_MTALOG_INT_H

#include "replay/mtalog.h"

#include <string.h>

static inline bool
eat(struct mw_str *s, struct mw_str word)
{
	if (!mw_str_starts(*s, word))
		return false;
	*s = mw_str(s->p + word.n, s->n - word.n);
	return true;
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_alnum(char c)
{
	return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Characters up to (not with) `stop`, of the kind given; false if none. */
static inline bool
word(struct mw_str *s, bool (*kind)(char c), struct mw_str *ret)
{
	size_t n = 0;
	while (n < s->n && kind(s->p[n]))
		n++;
	*ret = mw_str(s->p, n);
	*s = mw_str(s->p + n, s->n - n);
	return n > 0;
}

static inline const char *
find(struct mw_str s, const char *what)
{
	return s.n ? memmem(s.p, s.n, what, strlen(what)) : NULL;
}

/* Up to the first `stop`, which is taken too. */
static inline bool
until(struct mw_str *s, const char *stop, struct mw_str *ret)
{
	const char *p = find(*s, stop);
	if (!p)
		return false;
	*ret = mw_str(s->p, (size_t)(p - s->p));
	size_t used = ret->n + strlen(stop);
	*s = mw_str(s->p + used, s->n - used);
	return true;
}

/* "<address>" */
bool mw_mtalog_angle(struct mw_str *s, struct mw_str *ret);
bool mw_mtalog_queue_id(struct mw_str *s, struct mw_str *ret);
/* names end with NULL. */
bool mw_mtalog_is_one(struct mw_str s, const char *const *names);

/* What stands behind "tag[pid]: ": sets the kind, and all that belongs to it, of *e,
 * whose service is set. */
void mw_mtalog_postfix(struct mw_str s, struct mw_mta_event *e);
void mw_mtalog_sendmail(struct mw_str s, struct mw_mta_event *e);

#endif
