/* What may count once counts once: also when memory is bounded and time goes by.
 * MW_TEST_THREADS */
#include "milter/once.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const int64_t start = INT64_C(1790000000000000), day = INT64_C(86400000000);

static uint64_t
tag(uint64_t n)
{
	return (n + 1) * 0x9e3779b97f4a7c15u;
}

static void
once_and_never_again(void **state)
{
	(void)state;
	struct mw_once o;
	mw_once_init(&o, start, 5 * day);
	for (uint64_t i = 0; i < 5000; i++)
		assert_true(mw_once_take(&o, tag(i), start + (int64_t)i, start + 9000));
	for (uint64_t i = 0; i < 5000; i++)
		assert_false(mw_once_take(&o, tag(i), start + (int64_t)i, start + 9000));
	assert_true(mw_once_take(&o, 0, start, start));
	assert_false(mw_once_take(&o, 0, start, start));
	assert_int_equal(o.n, 5001);
	mw_once_done(&o);
}

static void
what_was_made_before_it_began_is_not_known(void **state)
{
	(void)state;
	struct mw_once o;
	mw_once_init(&o, start, 5 * day);
	assert_false(mw_once_take(&o, 1, start - 1, start + 5));
	assert_true(mw_once_take(&o, 1, start, start + 5));
	mw_once_done(&o);
}

static void
old_ones_make_room(void **state)
{
	(void)state;
	struct mw_once o;
	mw_once_init(&o, start, 5 * day);
	size_t most = 0;
	for (uint64_t i = 0; i < 200000; i++) { /* a thousand a day */
		int64_t now = start + (int64_t)i * day / 1000;
		assert_true(mw_once_take(&o, tag(i), now, now));
		if (i > 3000) /* three days ago */
			assert_false(mw_once_take(&o, tag(i - 3000), now - 3 * day, now));
		most = o.n_slot > most ? o.n_slot : most;
	}
	assert_int_equal(o.floor_us, start);
	assert_true(most <= 32768);
	mw_once_done(&o);
}

static void
what_it_must_forget_is_taken_for_used(void **state)
{
	(void)state;
	struct mw_once o;
	const uint64_t n = MW_ONCE_SLOTS + 1000;
	mw_once_init(&o, start, 5 * day);
	uint64_t firsts = 0;
	for (uint64_t i = 0; i < n; i++)
		firsts += mw_once_take(&o, tag(i), start + (int64_t)i, start + day);
	assert_true(firsts >= n - 3); /* each made after those that were forgotten */
	assert_true(o.n_slot <= MW_ONCE_SLOTS);
	assert_true(o.floor_us > start);
	for (uint64_t i = 0; i < n; i += 101)
		assert_false(mw_once_take(&o, tag(i), start + (int64_t)i, start + day));
	mw_once_done(&o);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(once_and_never_again),
	    cmocka_unit_test(what_was_made_before_it_began_is_not_known),
	    cmocka_unit_test(old_ones_make_room),
	    cmocka_unit_test(what_it_must_forget_is_taken_for_used),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
