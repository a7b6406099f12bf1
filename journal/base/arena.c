#include "journal/base/arena.h"
#include "journal/base/err.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct block {
	struct block *next;
	size_t used, cap;
	_Alignas(16) uint8_t data[];
};

struct mw_arena {
	struct block *head;
	size_t limit, used;
};

enum {
	FIRST_BLOCK = 2048
};

struct mw_arena *
mw_arena_new(size_t limit)
{
	struct mw_arena *a = calloc(1, sizeof *a);
	if (a)
		a->limit = limit ? limit : SIZE_MAX;
	return a;
}

void
mw_arena_free(struct mw_arena *a)
{
	if (!a)
		return;
	for (struct block *b = a->head, *n; b; b = n) {
		n = b->next;
		free(b);
	}
	free(a);
}

void
mw_arena_reset(struct mw_arena *a)
{
	while (a->head && a->head->next) {
		struct block *n = a->head->next;
		free(a->head);
		a->head = n;
	}
	if (a->head) {
		memset(a->head->data, 0, a->head->used);
		a->head->used = 0;
	}
	a->used = 0;
}

size_t
mw_arena_used(const struct mw_arena *a)
{
	return a->used;
}

void *
mw_arena_alloc(struct mw_arena *a, size_t n)
{
	if (n > SIZE_MAX - 64)
		return NULL;
	n = (n + 15) & ~(size_t)15;
	if (n == 0)
		n = 16;
	if (n > a->limit - a->used)
		return NULL;
	struct block *b = a->head;
	if (!b || b->cap - b->used < n) {
		size_t cap = b ? b->cap * 2 : FIRST_BLOCK;
		if (cap > 1 << 20)
			cap = 1 << 20;
		if (cap < n)
			cap = n;
		b = calloc(1, sizeof *b + cap);
		if (!b)
			return NULL;
		b->cap = cap;
		b->next = a->head;
		a->head = b;
	}
	void *p = b->data + b->used;
	b->used += n;
	a->used += n;
	return p;
}

struct mw_str
mw_arena_str(struct mw_arena *a, struct mw_str s)
{
	char *p = mw_arena_alloc(a, s.n + 1);
	if (!p)
		return mw_str(NULL, 0);
	if (s.n)
		memcpy(p, s.p, s.n);
	return mw_str(p, s.n);
}

char *
mw_arena_strdup(struct mw_arena *a, const char *z)
{
	size_t n = strlen(z);
	char *p = mw_arena_alloc(a, n + 1);
	if (p)
		memcpy(p, z, n);
	return p;
}

char *
mw_arena_printf(struct mw_arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *p = n < 0 ? NULL : mw_arena_alloc(a, (size_t)n + 1);
	if (!p)
		return NULL;
	va_start(ap, fmt);
	(void)vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return p;
}

void *
mw_arena_grow(struct mw_arena *a, void *p, size_t *cap, size_t want, size_t size)
{
	if (want <= *cap)
		return p;
	size_t n = *cap ? *cap * 2 : 8;
	if (n < want)
		n = want;
	if (n > SIZE_MAX / size)
		return NULL;
	void *q = mw_arena_alloc(a, n * size);
	if (!q)
		return NULL;
	if (*cap)
		memcpy(q, p, *cap * size);
	*cap = n;
	return q;
}
