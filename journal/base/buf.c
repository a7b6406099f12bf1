#include "journal/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
mw_buf_reserve(struct mw_buf *b, size_t extra)
{
	if (extra > SIZE_MAX - b->n - 2)
		return MW_ELIMIT;
	size_t need = b->n + extra;
	if (b->max && need > b->max)
		return MW_ELIMIT;
	need++; /* room for the NUL of mw_buf_cstr and vsnprintf, beyond max */
	if (need <= b->cap && b->p)
		return 0;
	size_t cap = b->cap ? b->cap : 256;
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	uint8_t *p = realloc(b->p, cap);
	if (!p)
		return MW_ENOMEM;
	b->p = p;
	b->cap = cap;
	return 0;
}

void
mw_buf_put(struct mw_buf *b, const void *p, size_t n)
{
	if (b->failed || n == 0)
		return;
	b->why = mw_buf_reserve(b, n);
	if (b->why < 0) {
		b->failed = true;
		return;
	}
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

void
mw_buf_putc(struct mw_buf *b, char c)
{
	mw_buf_put(b, &c, 1);
}

void
mw_buf_puts(struct mw_buf *b, const char *z)
{
	mw_buf_put(b, z, strlen(z));
}

void
mw_buf_putstr(struct mw_buf *b, struct mw_str s)
{
	mw_buf_put(b, s.p, s.n);
}

void
mw_buf_printf(struct mw_buf *b, const char *fmt, ...)
{
	va_list ap, ap2;
	va_start(ap, fmt);
	va_copy(ap2, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (!b->failed)
		b->why = n < 0 ? MW_EBUG : mw_buf_reserve(b, (size_t)n);
	if (b->failed || b->why < 0) {
		b->failed = true;
	} else {
		(void)vsnprintf((char *)b->p + b->n, (size_t)n + 1, fmt, ap2);
		b->n += (size_t)n;
	}
	va_end(ap2);
}

int
mw_buf_ok(const struct mw_buf *b)
{
	return b->failed ? b->why : 0;
}

const char *
mw_buf_cstr(struct mw_buf *b)
{
	if (b->failed || mw_buf_reserve(b, 0) < 0)
		return "";
	b->p[b->n] = '\0';
	return (const char *)b->p;
}

struct mw_str
mw_buf_str(const struct mw_buf *b)
{
	return mw_str((const char *)b->p, b->n);
}

void
mw_buf_clear(struct mw_buf *b)
{
	b->n = 0;
	b->failed = false;
	b->why = 0;
}

void
mw_buf_free(struct mw_buf *b)
{
	free(b->p);
	size_t max = b->max;
	memset(b, 0, sizeof *b);
	b->max = max;
}

void
mw_buf_wipe(struct mw_buf *b)
{
	if (b->p)
		explicit_bzero(b->p, b->cap);
	mw_buf_free(b);
}

void
mw_buf_drop(struct mw_buf *b, size_t n)
{
	mw_assert(n <= b->n);
	if (n && n < b->n)
		memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
}
