/* Looking into runs: finding, and proving them whole. */
#include "journal/index/run.h"

#include "journal/index/run_int.h"

#include <stdlib.h>

/* The first record of the run at or after a sequence number: its ordinal. */
static int
ordinal_from(struct mw_kv_txn *t, const struct mw_run *run, uint64_t from,
             struct run_block *b, uint32_t *ret)
{
	uint32_t low = 0, high = (run->records - 1) / RUN_BLOCK;
	*ret = 0;
	if (from <= run->first_seq)
		return 0;
	while (low < high) { /* the last block that begins at or before it */
		uint32_t mid = low + (high - low + 1) / 2;
		int r = run_block_get(t, run, mid, b);
		if (r < 0)
			return r;
		if (b->v[0].seq <= from)
			low = mid;
		else
			high = mid - 1;
	}
	int r = run_block_get(t, run, low, b);
	size_t i = 0;
	while (r == 0 && i < b->n && b->v[i].seq < from)
		i++;
	*ret = low * RUN_BLOCK + (uint32_t)i;
	return r;
}

/* The places of a group's ordinals from `first` on. */
static int
places_of(const struct run_groups *g, const struct mw_run *run, uint32_t first,
          struct run_block *b, struct mw_index_hit *out, size_t max)
{
	struct run_rd rd = {g->ord, g->rd.p, false};
	uint64_t at = 0;
	size_t n = 0;
	for (uint32_t k = 0; k < g->n && n < max; k++) {
		at += run_var(&rd) + (k > 0);
		if (rd.bad || at >= run->records)
			return MW_EDAMAGED;
		if (at < first)
			continue;
		int r = run_block_get(g->t, run, (uint32_t)at / RUN_BLOCK, b);
		if (r < 0)
			return r;
		out[n++] = b->v[at % RUN_BLOCK];
	}
	return (int)n;
}

int
mw_index_run_find(struct mw_kv_txn *t, const struct mw_run *run,
                  const uint8_t token[MW_TOKEN_LEN], uint64_t from,
                  struct mw_index_hit *out, size_t max)
{
	struct run_groups g = {.t = t};
	struct run_block b = {.number = UINT32_MAX};
	uint32_t prefix = (uint32_t)(mw_get64be(token) >> 32), first = 0;
	if (run->last_seq < from || max == 0)
		return 0;
	int r = run_groups_at(&g, t, run->id, prefix);
	if (r == 0)
		do
			r = run_groups_next(&g);
		while (r == 1 && g.prefix < prefix);
	if (r == 1 && g.prefix == prefix) {
		r = ordinal_from(t, run, from, &b, &first);
		if (r == 0)
			r = places_of(&g, run, first, &b, out, max);
	} else if (r == 1) {
		r = 0;
	}
	mw_buf_free(&g.chunk);
	return r;
}

/* The checksum of each value says that it is as it was written, and each chunk which one
 * comes next: nothing in them need be decoded for that, which takes eight times as long.
 */
int
mw_index_run_check(struct mw_kv_txn *t, const struct mw_run *run)
{
	struct run_groups g = {.t = t};
	uint32_t n = (run->records + RUN_BLOCK - 1) / RUN_BLOCK;
	int r = 0;
	for (uint32_t k = 0; r == 0 && k < n; k++)
		r = run_block_whole(t, run, k);
	if (r == 0)
		r = run_groups_at(&g, t, run->id, 0);
	if (r == 0)
		do
			r = run_groups_pass(&g);
		while (r == 1);
	mw_buf_free(&g.chunk);
	return r;
}

/* Which entry each ordinal of the run is; one that is there with another place, or not
 * there, is bad. */
static int
match_places(struct mw_kv_txn *t, const struct mw_run *run,
             const struct mw_index_entry *e, size_t n, uint32_t *which, uint8_t *bad)
{
	MW_AUTOFREE struct run_block *b = malloc(sizeof *b);
	if (!b)
		return MW_ENOMEM;
	b->number = UINT32_MAX;
	size_t i = 0;
	int r = 0;
	while (i < n && e[i].seq < run->first_seq)
		i++;
	for (uint32_t k = 0; r == 0 && k < run->records; k++) {
		r = run_block_get(t, run, k / RUN_BLOCK, b);
		const struct mw_index_hit *h = &b->v[k % RUN_BLOCK];
		which[k] = UINT32_MAX;
		while (r == 0 && i < n && e[i].seq < h->seq)
			bad[i++] = 1;
		if (r < 0 || i == n || e[i].seq != h->seq)
			continue;
		bad[i] = e[i].segment != h->segment || e[i].offset != h->offset;
		which[k] = (uint32_t)i++;
	}
	return r;
}

/* Holds a group against the pairs of its prefix, *at being the first of them. */
static int
match_group(const struct run_groups *g, const struct mw_run *run, const uint32_t *which,
            const uint64_t *pairs, size_t n_pairs, size_t *at, uint8_t *found)
{
	struct run_rd rd = {g->ord, g->rd.p, false};
	uint64_t ord = 0;
	size_t i = *at;
	for (uint32_t k = 0; k < g->n; k++) {
		ord += run_var(&rd) + (k > 0);
		if (rd.bad || ord >= run->records)
			return MW_EDAMAGED;
		uint32_t one = which[ord];
		if (one == UINT32_MAX)
			continue;
		while (i < n_pairs && pairs[i] >> 32 == g->prefix &&
		       (uint32_t)pairs[i] < one)
			i++;
		while (i < n_pairs && pairs[i] == ((uint64_t)g->prefix << 32 | one))
			found[i++] = 1;
	}
	*at = i;
	return 0;
}

static int
match_groups(struct mw_kv_txn *t, const struct mw_run *run, const uint32_t *which,
             const uint64_t *pairs, size_t n_pairs, uint8_t *found)
{
	struct run_groups g = {.t = t};
	size_t at = 0;
	int r = run_groups_at(&g, t, run->id, 0);
	while (r == 0 && (r = run_groups_next(&g)) == 1) {
		while (at < n_pairs && pairs[at] >> 32 < g.prefix)
			at++;
		r = match_group(&g, run, which, pairs, n_pairs, &at, found);
	}
	mw_buf_free(&g.chunk);
	return r;
}

int
mw_index_run_audit(struct mw_kv_txn *t, const struct mw_run *run,
                   const struct mw_index_entry *e, size_t n, const uint64_t *pairs,
                   size_t n_pairs, uint8_t *bad)
{
	MW_AUTOFREE uint32_t *which = calloc((size_t)run->records + 1, sizeof *which);
	MW_AUTOFREE uint8_t *found = calloc(n_pairs + 1, 1);
	int r = which && found ? match_places(t, run, e, n, which, bad) : MW_ENOMEM;
	if (r == 0)
		r = match_groups(t, run, which, pairs, n_pairs, found);
	for (size_t i = 0; r == 0 && i < n_pairs; i++) {
		const struct mw_index_entry *x = &e[(uint32_t)pairs[i]];
		if (!found[i] && x->seq >= run->first_seq && x->seq <= run->last_seq)
			bad[(uint32_t)pairs[i]] = 1;
	}
	return r;
}
