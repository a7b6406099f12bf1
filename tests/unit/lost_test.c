/* lost_test.c - records that cannot be read, less what prunes removed and what an
 * operator settled: as a table of single records has it; and of very many, in little
 * memory. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"
#include "tests/support/dice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	SEQS = 120,
	ROUNDS = 2000,
	MANY = 200000,
	RUNS = 2000
};

static uint64_t dice_state = 20261124;

/* Ascending ranges, apart, of 1 … SEQS - 1; in[seq] is set. How many. */
static size_t
ranges(struct mw_seq_range *v, bool *in)
{
	size_t n = 0;
	memset(in, 0, SEQS * sizeof *in);
	for (uint64_t at = 1 + dice_roll(&dice_state, 20); at + 8 < SEQS;
	     at += 2 + dice_roll(&dice_state, 20)) {
		uint64_t last = at + dice_roll(&dice_state, 8);
		v[n++] = (struct mw_seq_range){at, last};
		for (uint64_t s = at; s <= last; s++)
			in[s] = true;
		at = last;
	}
	return n;
}

static bool
has(const struct mw_lost *l, uint64_t seq)
{
	for (size_t i = 0; i < l->n; i++)
		if (seq >= l->v[i].first && seq <= l->v[i].last)
			return true;
	return false;
}

static void
as_a_table_has_it(void **state)
{
	struct mw_seq_range lost[SEQS], gone[SEQS], settled[SEQS];
	bool is_lost[SEQS], is_gone[SEQS], is_settled[SEQS];
	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		MW_ARENA_AUTO *a = mw_arena_new(1 << 20);
		struct mw_gone_segs g[SEQS];
		struct mw_lost l = {.n = 0}, known = {.n = 0};
		size_t n = ranges(lost, is_lost);
		struct mw_audit x = {.gone = g, .settled = settled};
		x.n_gone = ranges(gone, is_gone);
		x.n_settled = ranges(settled, is_settled);
		for (size_t k = 0; k < x.n_gone; k++)
			g[k] = (struct mw_gone_segs){.first_seq = gone[k].first,
			                             .last_seq = gone[k].last};
		for (size_t k = n; k > 0; k--) /* found in any order */
			assert_int_equal(mw_lost_add(&l, a, lost[k - 1].first,
			                             lost[k - 1].last),
			                 0);
		assert_int_equal(mw_lost_settle(&l, &x, a, &known), 0);
		for (uint64_t s = 0; s < SEQS; s++) {
			bool left = is_lost[s] && !is_gone[s];
			assert_int_equal(has(&l, s), left && !is_settled[s]);
			assert_int_equal(has(&known, s), left && is_settled[s]);
		}
	}
}

/* 64 MiB were taken by a few dozen of these runs. */
static void
very_many(void **state)
{
	MW_ARENA_AUTO *a = mw_arena_new(64U << 20);
	struct mw_lost l = {.n = 0}, known = {.n = 0}, told = {.n = 0};
	struct mw_gone_segs *g = calloc(RUNS, sizeof *g);
	struct mw_audit x = {.gone = g, .n_gone = RUNS};
	(void)state;
	assert_non_null(g);
	for (uint64_t i = 0; i < MANY; i++)
		assert_int_equal(mw_lost_add(&l, a, 1 + i * 3, 1 + i * 3), 0);
	for (uint64_t i = 0; i < RUNS; i++)
		g[i] = (struct mw_gone_segs){.first_seq = 1 + i * 30,
		                             .last_seq = 9 + i * 30};
	assert_int_equal(mw_lost_settle(&l, &x, a, &known), 0);
	assert_int_equal(l.n, MANY - 3 * RUNS);
	assert_int_equal(mw_lost_told(&l, a, &told), 0);
	assert_int_equal(told.n, MW_LOST_TOLD);
	assert_int_equal(told.v[0].first, l.v[0].first);
	assert_int_equal(told.v[told.n - 1].last, l.v[l.n - 1].last);
	free(g);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_a_table_has_it),
	    cmocka_unit_test(very_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
