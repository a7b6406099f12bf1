#include "journal/base/fold.h"

#include "journal/base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>

typedef uint8_t *(*mapping)(const uint8_t *s, size_t n, const char *language,
                            uninorm_t form, uint8_t *buf, size_t *len);

bool
mw_is_ascii(struct mw_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 128)
			return false;
	return true;
}

static void
put_bytes(struct mw_str s, struct mw_buf *b)
{
	size_t from = b->n;
	mw_buf_putstr(b, s);
	for (size_t i = from; !b->failed && i < b->n; i++)
		if (b->p[i] >= 'A' && b->p[i] <= 'Z')
			b->p[i] = (uint8_t)(b->p[i] + 32);
}

static void
put_mapped(struct mw_str s, mapping map, struct mw_buf *b)
{
	uint8_t room[4 * MW_FOLD_MOST];
	const uint8_t *p = (const uint8_t *)s.p;
	size_t n = sizeof room;
	if (s.n > MW_FOLD_MOST || mw_is_ascii(s) || u8_check(p, s.n)) {
		put_bytes(s, b);
		return;
	}
	uint8_t *v = map(p, s.n, NULL, UNINORM_NFC, room, &n);
	if (v) {
		mw_buf_put(b, v, n);
	} else if (errno == ENOMEM) {
		b->failed = true;
		b->why = MW_ENOMEM;
	} else {
		put_bytes(s, b);
	}
	if (v != room)
		free(v);
}

void
mw_fold(struct mw_str s, struct mw_buf *b)
{
	put_mapped(s, u8_casefold, b);
}

void
mw_lower(struct mw_str s, struct mw_buf *b)
{
	put_mapped(s, u8_tolower, b);
}
