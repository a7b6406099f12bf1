#include "journal/codec/dict.h"

#include "journal/base/id.h"
#include "journal/base/util.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
	SKETCH = 1 << 22, /* counters, one byte each */
	RUN_MOST = 400    /* a fragment is about this long at most */
};

struct window {                  /* that occurs often enough to be looked at */
	uint64_t hash;           /* 0: free */
	uint32_t senders, rcpts; /* a bit for each: as many are different at least */
	uint32_t count;
	bool taken;
};

struct fragment {
	const uint8_t *p;
	size_t n;
	double worth;
};

struct maker {
	uint64_t seed;
	uint8_t *sketch;
	struct window *tab;
	size_t size, used; /* of tab; size a power of two */
	struct fragment *frag;
	size_t n_frag, cap_frag;
};

static bool
word(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* May a window begin or end between a and b? */
static bool
between(uint8_t a, uint8_t b)
{
	return !word(a) || !word(b);
}

/* The next window at or after *at: its place and length; false: no more. */
static bool
next_window(const uint8_t *p, size_t n, size_t *at, size_t *ret_len)
{
	for (size_t a = *at; a + MW_DICT_WINDOW <= n; a++) {
		if (a && !between(p[a - 1], p[a]))
			continue;
		size_t e = a + MW_DICT_WINDOW;
		while (e < n && !between(p[e - 1], p[e]))
			e++;
		if (e - a > MW_DICT_WINDOW_MOST)
			continue;
		*at = a;
		*ret_len = e - a;
		return true;
	}
	return false;
}

/* 64 bits of it, seeded anew each time, so that nobody outside can make two collide. */
static uint64_t
hash(const struct maker *m, const uint8_t *p, size_t n)
{
	uint64_t h = m->seed;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x9e3779b97f4a7c15U;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93U;
	h ^= h >> 29;
	return h ? h : 1;
}

static struct window *
look(const struct maker *m, uint64_t h)
{
	size_t i = (size_t)h & (m->size - 1);
	while (m->tab[i].hash && m->tab[i].hash != h)
		i = (i + 1) & (m->size - 1);
	return &m->tab[i];
}

static bool
shared(const struct window *w)
{
	return w->hash && __builtin_popcount(w->senders) >= MW_DICT_SHARED &&
	       __builtin_popcount(w->rcpts) >= MW_DICT_SHARED;
}

/* First how often each window occurs, roughly; returns how many occur often enough. */
static size_t
sketch(struct maker *m, const struct mw_dict_sample *v, size_t n)
{
	size_t often = 0, len;
	for (size_t i = 0; i < n; i++) {
		for (size_t at = 0; next_window(v[i].p, v[i].n, &at, &len); at++) {
			uint8_t *c = &m->sketch[hash(m, v[i].p + at, len) % SKETCH];
			*c = (uint8_t)(*c + (*c < UINT8_MAX));
			often += *c == MW_DICT_SHARED;
		}
	}
	return often;
}

/* Then exactly who shares those. */
static void
count(struct maker *m, const struct mw_dict_sample *v, size_t n)
{
	size_t len;
	for (size_t i = 0; i < n; i++) {
		for (size_t at = 0; next_window(v[i].p, v[i].n, &at, &len); at++) {
			uint64_t h = hash(m, v[i].p + at, len);
			if (m->sketch[h % SKETCH] < MW_DICT_SHARED)
				continue;
			struct window *w = look(m, h);
			if (!w->hash && m->used >= m->size / 4 * 3)
				continue;
			m->used += !w->hash;
			w->hash = h;
			w->senders |= UINT32_C(1) << (v[i].sender % 32);
			w->rcpts |= UINT32_C(1) << (v[i].rcpt % 32);
			w->count++;
		}
	}
}

static int
add_fragment(struct maker *m, const uint8_t *p, size_t n, double worth)
{
	if (n == 0)
		return 0;
	if (m->n_frag == m->cap_frag) {
		size_t cap = m->cap_frag ? 2 * m->cap_frag : 4096;
		void *q = reallocarray(m->frag, cap, sizeof *m->frag);
		if (!q)
			return MW_ENOMEM;
		m->frag = q;
		m->cap_frag = cap;
	}
	m->frag[m->n_frag++] = (struct fragment){p, n, worth / (double)n};
	return 0;
}

/* Shared windows that overlap or touch make one fragment, up to the first that is not. */
static int
fragments_of(struct maker *m, const uint8_t *p, size_t n)
{
	size_t start = 0, end = 0, len;
	double worth = 0;
	int r = 0;
	for (size_t at = 0; r == 0 && next_window(p, n, &at, &len); at++) {
		const struct window *w = look(m, hash(m, p + at, len));
		bool good = shared(w);
		if (!good || at > end || end - start > RUN_MOST) {
			r = add_fragment(m, p + start, end - start, worth);
			start = end = at;
			worth = 0;
		}
		if (!good)
			continue;
		end = MW_MAX(end, at + len);
		worth += w->count;
	}
	return r < 0 ? r : add_fragment(m, p + start, end - start, worth);
}

/* Is most of it new to the text? Then its windows count as taken. */
static bool
take(struct maker *m, const struct fragment *f)
{
	size_t fresh = 0, all = 0, len;
	for (size_t at = 0; next_window(f->p, f->n, &at, &len); at++) {
		const struct window *w = look(m, hash(m, f->p + at, len));
		fresh += w->hash && !w->taken;
		all++;
	}
	if (fresh == 0 || 2 * fresh < all)
		return false;
	for (size_t at = 0; next_window(f->p, f->n, &at, &len); at++) {
		struct window *w = look(m, hash(m, f->p + at, len));
		w->taken = w->hash != 0;
	}
	return true;
}

static int
by_worth(const void *a, const void *b)
{
	const struct fragment *x = a, *y = b;
	return x->worth > y->worth ? -1 : x->worth < y->worth;
}

/* The best ones; zstd reaches the end of a dictionary with the shortest offsets. */
static int
pick(struct maker *m, struct mw_buf *out)
{
	size_t room = MW_DICT_TEXT, n = 0;
	if (m->n_frag)
		qsort(m->frag, m->n_frag, sizeof *m->frag, by_worth);
	for (size_t i = 0; i < m->n_frag; i++) {
		if (m->frag[i].n > room || !take(m, &m->frag[i]))
			continue;
		room -= m->frag[i].n;
		m->frag[n++] = m->frag[i];
	}
	while (n-- > 0)
		mw_buf_put(out, m->frag[n].p, m->frag[n].n);
	return mw_buf_ok(out);
}

static void
done(struct maker *m)
{
	free(m->sketch);
	free(m->tab);
	free(m->frag);
}

int
mw_dict_text(const struct mw_dict_sample *v, size_t n, struct mw_buf *out)
{
	struct maker m = {.size = 1024};
	int r = 0;
	mw_random(&m.seed, sizeof m.seed);
	m.sketch = calloc(SKETCH, 1);
	if (!m.sketch)
		return MW_ENOMEM;
	size_t often = sketch(&m, v, n);
	while (m.size < 2 * often)
		m.size *= 2;
	m.tab = calloc(m.size, sizeof *m.tab);
	if (!m.tab) {
		done(&m);
		return MW_ENOMEM;
	}
	count(&m, v, n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fragments_of(&m, v[i].p, v[i].n);
	if (r == 0)
		r = pick(&m, out);
	done(&m);
	return r;
}
