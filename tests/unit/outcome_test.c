/* Outcome records: encode and decode. */
#include "journal/base/util.h"
#include "journal/record/cbor.h"
#include "journal/record/outcome.h"
#include "tests/support/dice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static uint64_t seed = 11;

static unsigned
dice(unsigned n)
{
	return dice_roll(&seed, n);
}

static void
random_outcomes(struct mw_arena *a, struct mw_outcomes *o)
{
	*o = (struct mw_outcomes){.time_us = (int64_t)dice(1000000) - 500000};
	o->n = dice(4);
	o->v = mw_arena_alloc(a, 4 * sizeof *o->v);
	for (size_t i = 0; i < o->n; i++) {
		struct mw_outcome *m = &o->v[i];
		mw_random(m->id, sizeof m->id);
		m->seq = dice(100000);
		m->queue_id = dice_odd(&seed, a);
		m->whole = (enum mw_fact)dice(9);
		m->whole_us = m->whole ? (int64_t)dice(1000) - 500 : 0;
		m->done = dice(2);
		m->done_us = m->done ? (int64_t)dice(1000) - 500 : 0;
		m->freed = dice(2);
		m->n_rcpt = dice(4);
		m->rcpt = mw_arena_alloc(a, 4 * sizeof *m->rcpt);
		for (size_t k = 0; k < m->n_rcpt; k++)
			m->rcpt[k] = (struct mw_outcome_rcpt){dice_odd(&seed, a),
			                                      dice_odd(&seed, a),
			                                      (enum mw_fact)dice(9),
			                                      (int64_t)dice(1000) - 500,
			                                      dice_odd(&seed, a),
			                                      dice_odd(&seed, a),
			                                      dice_odd(&seed, a)};
	}
}

static void
same(const struct mw_outcomes *a, const struct mw_outcomes *b)
{
	assert_int_equal(a->time_us, b->time_us);
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		const struct mw_outcome *x = &a->v[i], *y = &b->v[i];
		assert_memory_equal(x->id, y->id, MW_ID_LEN);
		assert_int_equal(x->seq, y->seq);
		assert_true(mw_str_eq(x->queue_id, y->queue_id));
		assert_int_equal(x->whole, y->whole);
		assert_int_equal(x->whole_us, y->whole_us);
		assert_int_equal(x->done, y->done);
		assert_int_equal(x->done_us, y->done_us);
		assert_int_equal(x->freed, y->freed);
		assert_int_equal(x->n_rcpt, y->n_rcpt);
		for (size_t k = 0; k < x->n_rcpt; k++) {
			const struct mw_outcome_rcpt *r = &x->rcpt[k], *s = &y->rcpt[k];
			assert_true(mw_str_eq(r->addr, s->addr));
			assert_true(mw_str_eq(r->original, s->original));
			assert_int_equal(r->fact, s->fact);
			assert_int_equal(r->time_us, s->time_us);
			assert_true(mw_str_eq(r->dsn, s->dsn));
			assert_true(mw_str_eq(r->relay, s->relay));
			assert_true(mw_str_eq(r->text, s->text));
		}
	}
}

static void
decode_of_encode_is_the_same(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_outcomes o, got;
		struct mw_err err = {0};
		MW_BUF_AUTO one = {0};
		random_outcomes(a, &o);
		assert_int_equal(mw_outcomes_encode(&o, &one), 0);
		if (mw_outcomes_decode(one.p, one.n, a, &got, &err) < 0)
			fail_msg("%s", err.msg);
		same(&o, &got);
		for (size_t n = 0; n < one.n; n += 1 + dice(9)) /* any prefix: refused */
			assert_int_equal(mw_outcomes_decode(one.p, n, a, &got, &err),
			                 MW_EFORMAT);
	}
}

static void
of_later_versions(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_outcomes got;
	struct mw_err err = {0};
	MW_BUF_AUTO b = {0};
	mw_cbor_put_map(&b, 2);
	mw_cbor_put_text(&b, "later");
	mw_cbor_put_array(&b, 1);
	mw_cbor_put_int(&b, -4);
	mw_cbor_put_text(&b, "o");
	mw_cbor_put_array(&b, 1);
	mw_cbor_put_map(&b, 3);
	mw_cbor_put_text(&b, "id");
	mw_cbor_put_bytes(&b, MW_STR("0123456789abcdef"));
	mw_cbor_put_text(&b, "all");
	mw_cbor_put_uint(&b, 99);
	mw_cbor_put_text(&b, "new");
	mw_cbor_put_uint(&b, 1);
	assert_int_equal(mw_outcomes_decode(b.p, b.n, a, &got, &err), 0);
	assert_int_equal(got.n, 1);
	assert_int_equal(got.v[0].whole, MW_FACT_UNKNOWN);
	mw_buf_clear(&b);
	mw_cbor_put_map(&b, 1);
	mw_cbor_put_text(&b, "!must");
	mw_cbor_put_uint(&b, 1);
	assert_int_equal(mw_outcomes_decode(b.p, b.n, a, &got, &err), MW_EVERSION);
	mw_buf_clear(&b); /* an outcome of no record */
	mw_cbor_put_map(&b, 1);
	mw_cbor_put_text(&b, "o");
	mw_cbor_put_array(&b, 1);
	mw_cbor_put_map(&b, 0);
	assert_int_equal(mw_outcomes_decode(b.p, b.n, a, &got, &err), MW_EFORMAT);
}

static void
names(void **state)
{
	(void)state;
	assert_string_equal(mw_fact_name(MW_FACT_SENT), "sent");
	assert_string_equal(mw_fact_name(MW_FACT_DELIVERED), "delivered");
	assert_string_equal(mw_fact_name((enum mw_fact)77), "unknown");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(decode_of_encode_is_the_same),
	    cmocka_unit_test(of_later_versions),
	    cmocka_unit_test(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
