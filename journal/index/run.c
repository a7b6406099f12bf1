/* Reading and writing of runs: places in blocks, then groups of ordinals in chunks. */
#include "journal/index/run.h"

#include "journal/index/run_int.h"

#include <stdlib.h>

enum {
	VAR_MOST = 10,
	RADIX = 256
};

void
run_key(uint8_t key[RUN_KEY], uint32_t id, uint8_t kind, uint32_t n)
{
	uint8_t be[8];
	mw_put64be(be, (uint64_t)id << 32 | n);
	memcpy(key, be, 4);
	key[4] = kind;
	memcpy(key + 5, be + 4, 4);
}

static struct mw_str
str_of(const uint8_t *p, size_t n)
{
	return mw_str((const char *)p, n);
}

static uint32_t
checksum(struct mw_str key, const uint8_t *v, size_t n)
{
	return mw_crc32c(mw_crc32c(0, key.p, key.n), v + 4, n - 4);
}

/* Checks a value and begins to read it. */
static int
value_open(struct mw_str key, struct mw_str v, struct run_rd *ret)
{
	const uint8_t *p = (const uint8_t *)v.p;
	if (v.n < 4 || mw_get32(p) != checksum(key, p, v.n))
		return MW_EDAMAGED;
	*ret = (struct run_rd){p + 4, p + v.n, false};
	return 0;
}

static int
value_get(struct mw_kv_txn *t, const uint8_t key[RUN_KEY], struct run_rd *ret)
{
	struct mw_str v, k = str_of(key, RUN_KEY);
	int r = mw_kv_txn_get(t, k, &v);
	if (r == 0)
		return MW_EDAMAGED;
	return r < 0 ? r : value_open(k, v, ret);
}

/* The value in b, of which the first four bytes are left for the checksum. */
static int
value_put(struct mw_kv_txn *t, const uint8_t key[RUN_KEY], struct mw_buf *b)
{
	struct mw_str k = str_of(key, RUN_KEY);
	int r = mw_buf_ok(b);
	if (r < 0)
		return r;
	mw_put32(b->p, checksum(k, b->p, b->n));
	r = mw_kv_append(t, k, mw_buf_str(b));
	mw_buf_clear(b);
	return r;
}

/* ---- reading ---- */

int
run_block_get(struct mw_kv_txn *t, const struct mw_run *run, uint32_t number,
              struct run_block *b)
{
	uint8_t key[RUN_KEY];
	struct run_rd rd;
	if (b->number == number)
		return 0;
	if (number >= (run->records + RUN_BLOCK - 1) / RUN_BLOCK)
		return MW_EDAMAGED;
	run_key(key, run->id, RUN_PLACES, number);
	int r = value_get(t, key, &rd);
	if (r < 0)
		return r;
	size_t n = MW_MIN(run->records - number * RUN_BLOCK, (uint32_t)RUN_BLOCK);
	struct mw_index_hit at = {0};
	at.seq = run_var(&rd);
	at.segment = run_var(&rd);
	at.offset = run_var(&rd) * 8;
	for (size_t i = 0; i < n; i++) {
		b->v[i] = at;
		if (i + 1 == n)
			break;
		uint64_t h = run_var(&rd);
		at.seq += (h >> 1) + 1;
		if (h & 1) {
			at.segment += run_var(&rd);
			at.offset = 0;
		}
		at.offset += run_var(&rd) * 8;
	}
	if (rd.bad || rd.p != rd.end)
		return MW_EDAMAGED;
	b->n = n;
	b->number = number;
	return 0;
}

int
run_block_whole(struct mw_kv_txn *t, const struct mw_run *run, uint32_t number)
{
	uint8_t key[RUN_KEY];
	struct run_rd rd;
	run_key(key, run->id, RUN_PLACES, number);
	return value_get(t, key, &rd);
}

/* Takes a chunk over: LMDB's memory lasts until the next write only. */
static int
chunk_take(struct run_groups *g, uint32_t first, struct run_rd rd)
{
	if (rd.end - rd.p < RUN_CHUNK_HEAD - 4)
		return MW_EDAMAGED;
	g->last = rd.p[0] != 0;
	g->next = mw_get32(rd.p + 1);
	if (!g->last && g->next <= first)
		return MW_EDAMAGED;
	mw_buf_clear(&g->chunk);
	mw_buf_put(&g->chunk, rd.p, (size_t)(rd.end - rd.p));
	int r = mw_buf_ok(&g->chunk);
	if (r < 0)
		return r;
	g->rd = (struct run_rd){g->chunk.p + RUN_CHUNK_HEAD - 4, g->chunk.p + g->chunk.n,
	                        false};
	g->prefix = first;
	return 0;
}

int
run_groups_at(struct run_groups *g, struct mw_kv_txn *t, uint32_t id, uint32_t prefix)
{
	uint8_t key[RUN_KEY];
	struct mw_str k, v;
	struct run_rd rd;
	g->t = t;
	g->id = id;
	run_key(key, id, RUN_CHUNK, prefix);
	int r = mw_kv_txn_floor(t, str_of(key, RUN_KEY), &k, &v);
	if (r < 0)
		return r;
	if (r == 0 || k.n != RUN_KEY || memcmp(k.p, key, 5) != 0)
		return MW_EDAMAGED; /* a run has a chunk that begins at 0 */
	r = value_open(k, v, &rd);
	if (r < 0)
		return r;
	r = chunk_take(g, (uint32_t)mw_get64be((const uint8_t *)k.p + 1), rd);
	if (r == 0 && !g->last && prefix >= g->next)
		return MW_EDAMAGED; /* the one after it is not there */
	return r;
}

static int
chunk_next(struct run_groups *g)
{
	uint8_t key[RUN_KEY];
	struct run_rd rd;
	run_key(key, g->id, RUN_CHUNK, g->next);
	int r = value_get(g->t, key, &rd);
	return r < 0 ? r : chunk_take(g, g->next, rd);
}

int
run_groups_pass(struct run_groups *g)
{
	if (g->last)
		return 0;
	int r = chunk_next(g);
	return r < 0 ? r : 1;
}

int
run_groups_next(struct run_groups *g)
{
	while (g->rd.p == g->rd.end) {
		if (g->last)
			return 0;
		int r = chunk_next(g);
		if (r < 0)
			return r;
	}
	uint64_t h = run_var(&g->rd), n = 1, bytes = 0;
	if (h & 1)
		n = run_var(&g->rd);
	if (n >= RUN_SKIP)
		bytes = run_var(&g->rd);
	if (g->rd.bad || n == 0 || n > UINT32_MAX || h >> 1 > UINT32_MAX - g->prefix ||
	    bytes > (uint64_t)(g->rd.end - g->rd.p))
		return MW_EDAMAGED;
	g->prefix += (uint32_t)(h >> 1);
	g->n = (uint32_t)n;
	g->ord = g->rd.p;
	if (n >= RUN_SKIP)
		g->rd.p += bytes;
	else
		for (uint64_t i = 0; i < n; i++)
			(void)run_var(&g->rd);
	return g->rd.bad ? MW_EDAMAGED : 1;
}

/* ---- writing ---- */

struct writer {
	struct mw_kv_txn *t;
	struct mw_run run;
	struct mw_buf block, chunk, group;
	struct mw_index_hit place; /* the last one */
	uint32_t chunk_first, prefix;
};

static void
writer_free(struct writer *w)
{
	mw_buf_free(&w->block);
	mw_buf_free(&w->chunk);
	mw_buf_free(&w->group);
}

static void
put_var(struct mw_buf *b, uint64_t v)
{
	uint8_t x[VAR_MOST];
	mw_buf_put(b, x, (size_t)(run_put_var(x, v) - x));
}

static int
block_end(struct writer *w)
{
	uint8_t key[RUN_KEY];
	int r = mw_buf_ok(&w->block); /* empty for want of memory is no empty block */
	if (r < 0 || w->block.n == 0)
		return r;
	run_key(key, w->run.id, RUN_PLACES, (w->run.records - 1) / RUN_BLOCK);
	return value_put(w->t, key, &w->block);
}

static int
put_place(struct writer *w, struct mw_index_hit h)
{
	struct mw_index_hit last = w->place;
	bool first = w->run.records % RUN_BLOCK == 0;
	int r = first ? block_end(w) : 0;
	if (r < 0)
		return r;
	if (w->run.records && (h.seq <= last.seq || h.segment < last.segment ||
	                       (h.segment == last.segment && h.offset <= last.offset)))
		return MW_EDAMAGED;
	if (first) {
		mw_buf_put(&w->block, "\0\0\0", 4);
		put_var(&w->block, h.seq);
		put_var(&w->block, h.segment);
		put_var(&w->block, h.offset / 8);
	} else if (h.segment == last.segment) {
		put_var(&w->block, (h.seq - last.seq - 1) << 1);
		put_var(&w->block, (h.offset - last.offset) / 8);
	} else {
		put_var(&w->block, (h.seq - last.seq - 1) << 1 | 1);
		put_var(&w->block, h.segment - last.segment);
		put_var(&w->block, h.offset / 8);
	}
	if (w->run.records++ == 0)
		w->run.first_seq = h.seq;
	w->run.last_seq = h.seq;
	w->place = h;
	return 0;
}

static int
chunk_end(struct writer *w, bool last, uint32_t next)
{
	uint8_t key[RUN_KEY];
	run_key(key, w->run.id, RUN_CHUNK, w->chunk_first);
	int r = mw_buf_ok(&w->chunk);
	if (r < 0)
		return r;
	w->chunk.p[4] = last;
	mw_put32(w->chunk.p + 5, next);
	return value_put(w->t, key, &w->chunk);
}

static void
chunk_begin(struct writer *w, uint32_t first)
{
	static const uint8_t head[RUN_CHUNK_HEAD];
	mw_buf_put(&w->chunk, head, sizeof head);
	w->chunk_first = w->prefix = first;
}

/* Ordinals ascend. */
static int
put_group(struct writer *w, uint32_t prefix, const uint32_t *ord, size_t n)
{
	uint8_t head[3 * VAR_MOST], *p = head;
	mw_buf_clear(&w->group);
	put_var(&w->group, ord[0]);
	for (size_t i = 1; i < n; i++)
		put_var(&w->group, ord[i] - ord[i - 1] - 1);
	/* A chunk is not begun for its first group: the one from 0 on must be there. */
	if (w->chunk.n > RUN_CHUNK_HEAD && prefix > w->prefix &&
	    w->chunk.n + w->group.n + VAR_MOST > RUN_CHUNK_FILL) {
		int r = chunk_end(w, false, prefix);
		if (r < 0)
			return r;
		chunk_begin(w, prefix);
	}
	p = run_put_var(p, (uint64_t)(prefix - w->prefix) << 1 | (n > 1));
	if (n > 1)
		p = run_put_var(p, n);
	if (n >= RUN_SKIP)
		p = run_put_var(p, w->group.n);
	mw_buf_put(&w->chunk, head, (size_t)(p - head));
	mw_buf_put(&w->chunk, w->group.p, w->group.n);
	w->prefix = prefix;
	w->run.entries += (uint32_t)n;
	return mw_buf_ok(&w->group);
}

static int
writer_places_done(struct writer *w)
{
	int r = block_end(w);
	chunk_begin(w, 0);
	return r;
}

static int
put_pairs(struct writer *w, const uint64_t *v, size_t n, uint32_t *ord)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < n;) {
		uint32_t prefix = (uint32_t)(v[i] >> 32);
		size_t k = 0;
		for (; i < n && v[i] >> 32 == prefix; i++)
			if (k == 0 || ord[k - 1] != (uint32_t)v[i])
				ord[k++] = (uint32_t)v[i];
		r = put_group(w, prefix, ord, k);
	}
	return r;
}

int
mw_index_run_make(struct mw_kv_txn *t, uint32_t id, const struct mw_index_entry *e,
                  size_t n, const uint64_t *pairs, size_t n_pairs, struct mw_run *ret)
{
	struct writer w = {.t = t, .run = {.id = id}};
	MW_AUTOFREE uint32_t *ord = calloc(n + 1, sizeof *ord);
	int r = ord ? 0 : MW_ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = put_place(&w,
		              (struct mw_index_hit){e[i].seq, e[i].segment, e[i].offset});
	if (r == 0)
		r = writer_places_done(&w);
	if (r == 0)
		r = put_pairs(&w, pairs, n_pairs, ord);
	if (r == 0)
		r = chunk_end(&w, true, 0);
	if (r == 0)
		*ret = w.run;
	writer_free(&w);
	return r;
}

/* By the prefix alone: the entries' numbers ascend already, and stay so. */
static void
radix(uint64_t *v, uint64_t *other, size_t n)
{
	for (unsigned shift = 32; shift < 64; shift += 8) {
		size_t at[RADIX] = {0}, sum = 0;
		for (size_t i = 0; i < n; i++)
			at[v[i] >> shift & 0xff]++;
		for (size_t k = 0; k < RADIX; k++) {
			size_t c = at[k];
			at[k] = sum;
			sum += c;
		}
		for (size_t i = 0; i < n; i++)
			other[at[v[i] >> shift & 0xff]++] = v[i];
		uint64_t *swap = v;
		v = other;
		other = swap;
	}
}

int
mw_index_run_sort(const struct mw_index_entry *e, size_t n, uint64_t **ret, size_t *ret_n)
{
	size_t all = 0, k = 0;
	for (size_t i = 0; i < n; i++)
		all += e[i].n_tokens;
	uint64_t *v = calloc(all + 1, sizeof *v);
	MW_AUTOFREE uint64_t *other = calloc(all + 1, sizeof *other);
	if (!v || !other) {
		free(v);
		return MW_ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < e[i].n_tokens; j++) {
			const uint8_t *t = e[i].tokens + j * MW_TOKEN_LEN;
			v[k++] = (mw_get64be(t) & UINT64_C(0xffffffff00000000)) | i;
		}
	radix(v, other, all); /* four rounds: it ends where it began */
	*ret = v;
	*ret_n = all;
	return 0;
}

/* ---- merging ---- */

struct merge {
	struct run_groups *g; /* one for each run */
	uint32_t *base;       /* what its ordinals are counted from */
	int *have;            /* 1: it stands at a group; 0: it has ended */
	size_t n;
	uint32_t *ord;
	size_t n_ord;
};

static int
merge_places(struct writer *w, const struct mw_run *v, size_t n)
{
	MW_AUTOFREE struct run_block *b = malloc(sizeof *b);
	if (!b)
		return MW_ENOMEM;
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		b->number = UINT32_MAX;
		for (uint32_t k = 0; r == 0 && k < v[i].records; k += RUN_BLOCK) {
			r = run_block_get(w->t, &v[i], k / RUN_BLOCK, b);
			for (size_t j = 0; r == 0 && j < b->n; j++)
				r = put_place(w, b->v[j]);
		}
	}
	return r;
}

/* The ordinals of a group, after those of older runs. */
static int
take_group(struct merge *m, size_t i, size_t most)
{
	struct run_groups *g = &m->g[i];
	struct run_rd rd = {g->ord, g->rd.p, false};
	uint64_t at = 0;
	if (g->n > most - m->n_ord)
		return MW_EDAMAGED;
	for (uint32_t k = 0; k < g->n; k++) {
		at += run_var(&rd) + (k > 0);
		m->ord[m->n_ord++] = (uint32_t)(m->base[i] + at);
	}
	if (rd.bad || at >= most)
		return MW_EDAMAGED;
	return m->have[i] = run_groups_next(g);
}

static int
merge_groups(struct writer *w, struct merge *m, size_t most)
{
	for (;;) {
		uint64_t least = UINT64_MAX;
		for (size_t i = 0; i < m->n; i++)
			if (m->have[i])
				least = MW_MIN(least, (uint64_t)m->g[i].prefix);
		if (least == UINT64_MAX)
			return 0;
		m->n_ord = 0;
		int r = 0;
		for (size_t i = 0; r >= 0 && i < m->n; i++)
			if (m->have[i] && m->g[i].prefix == least)
				r = take_group(m, i, most);
		if (r >= 0)
			r = put_group(w, (uint32_t)least, m->ord, m->n_ord);
		if (r < 0)
			return r;
	}
}

static int
merge_open(struct writer *w, struct merge *m, const struct mw_run *v)
{
	uint32_t base = 0;
	for (size_t i = 0; i < m->n; i++) {
		int r = run_groups_at(&m->g[i], w->t, v[i].id, 0);
		if (r == 0)
			r = run_groups_next(&m->g[i]);
		if (r < 0)
			return r;
		m->have[i] = r;
		m->base[i] = base;
		base += v[i].records;
	}
	return 0;
}

static int
remove_run(struct mw_kv_txn *t, uint32_t id)
{
	uint8_t from[RUN_KEY], to[RUN_KEY];
	run_key(from, id, 0, 0);
	run_key(to, id + 1, 0, 0);
	return mw_kv_del_range(t, str_of(from, RUN_KEY), str_of(to, RUN_KEY));
}

int
mw_index_run_merge(struct mw_kv_txn *t, uint32_t id, const struct mw_run *v, size_t n,
                   struct mw_run *ret)
{
	struct writer w = {.t = t, .run = {.id = id}};
	uint64_t records = 0;
	for (size_t i = 0; i < n; i++)
		records += v[i].records;
	MW_AUTOFREE struct run_groups *g = calloc(n, sizeof *g);
	MW_AUTOFREE uint32_t *base = calloc(n, sizeof *base);
	MW_AUTOFREE int *have = calloc(n, sizeof *have);
	MW_AUTOFREE uint32_t *ord = calloc(records + 1, sizeof *ord);
	struct merge m = {g, base, have, n, ord, 0};
	int r = g && base && have && ord ? merge_places(&w, v, n) : MW_ENOMEM;
	if (r == 0)
		r = writer_places_done(&w);
	if (r == 0)
		r = merge_open(&w, &m, v);
	if (r == 0)
		r = merge_groups(&w, &m, records);
	if (r == 0)
		r = chunk_end(&w, true, 0);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = remove_run(t, v[i].id);
	for (size_t i = 0; g && i < n; i++)
		mw_buf_free(&g[i].chunk);
	if (r == 0)
		*ret = w.run;
	writer_free(&w);
	return r;
}
