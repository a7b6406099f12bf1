#include "milter/dot.h"

#include <string.h>

#include "journal/base/util.h"

enum {
	WINDOW = 256
};

static void
both(struct mw_buf *wire, struct mw_buf *content, const char *p, size_t n)
{
	if (n) {
		mw_buf_put(wire, p, n);
		mw_buf_put(content, p, n);
	}
}

/* The state after one byte of a line that is no end of data. */
static void
step(struct mw_dot *d, char c)
{
	if (c == '\r' || c == '\n') {
		d->inside = !(c == '\n' && d->cr);
		d->lax = MW_LAX_EMPTY;
	} else {
		d->inside = true;
		if (c == '.' && d->lax == MW_LAX_EMPTY)
			d->lax = MW_LAX_DOT;
		else if (c != 0)
			d->lax = MW_LAX_OTHER;
	}
	d->cr = c == '\r';
}

/* How many of n bytes change nothing any more: those of a line that has begun, and is no
 * lone dot for anybody, up to a CR or LF. Not far, so that CRs without LF cost little. */
static size_t
middle(const struct mw_dot *d, const char *p, size_t n)
{
	if (!d->inside || d->lax != MW_LAX_OTHER)
		return 0;
	n = MW_MIN(n, (size_t)WINDOW);
	const char *lf = memchr(p, '\n', n);
	n = lf ? (size_t)(lf - p) : n;
	const char *cr = memchr(p, '\r', n);
	return cr ? (size_t)(cr - p) : n;
}

/* What was held is not the end: it goes on, its first dot is no content. */
static void
release(struct mw_dot *d, struct mw_buf *wire, struct mw_buf *content)
{
	mw_buf_putc(wire, '.');
	step(d, '.');
	if (d->held == MW_DOT_CR) {
		both(wire, content, "\r", 1);
		step(d, '\r');
	}
	d->held = MW_DOT_NONE;
}

/* One byte while something is held. True: the byte was taken. */
static bool
held(struct mw_dot *d, char c, struct mw_buf *wire, struct mw_buf *content,
     enum mw_dot_found *ret)
{
	*ret = MW_DOT_MORE;
	if (d->held == MW_DOT_DOT && c == '\r') {
		d->held = MW_DOT_CR;
		return true;
	}
	if (d->held == MW_DOT_CR && c == '\n') {
		*ret = MW_DOT_END;
		return true;
	}
	if (!d->pass && (d->held == MW_DOT_CR || c == '\n'))
		*ret = MW_DOT_SMUGGLED;
	else
		release(d, wire, content);
	return false;
}

enum mw_dot_found
mw_dot_scan(struct mw_dot *d, const char *p, size_t n, size_t *ret_used,
            struct mw_buf *wire, struct mw_buf *content)
{
	size_t i = 0, from = 0;
	enum mw_dot_found found = MW_DOT_MORE;
	while (i < n) {
		char c = p[i];
		if (d->held != MW_DOT_NONE) {
			bool taken = held(d, c, wire, content, &found);
			i += taken;
			from = i;
			if (found != MW_DOT_MORE)
				break;
			if (taken || d->held != MW_DOT_NONE)
				continue;
		} else if (c == '.' && !d->inside) {
			both(wire, content, p + from, i - from);
			d->held = MW_DOT_DOT;
			from = ++i;
			continue;
		}
		size_t k = middle(d, p + i, n - i);
		if (k) {
			i += k;
			continue;
		}
		if (!d->pass && d->lax == MW_LAX_DOT && (c == '\r' || c == '\n')) {
			found = MW_DOT_SMUGGLED;
			break;
		}
		step(d, c);
		i++;
	}
	both(wire, content, p + from, i - from);
	*ret_used = i;
	return found;
}
