/* Limits of rate: what they are written as, and who may go when. */
#include "replay/rate.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define S INT64_C(1000000)

static void
texts(void **state)
{
	static const struct {
		const char *text;
		int code;
		double messages, bytes;
	} v[] = {
	    {"20", 0, 20, 0},
	    {"20/s", 0, 20, 0},
	    {"0.5", 0, 0.5, 0},
	    {"300/min", 0, 5, 0},
	    {"3600/h", 0, 1, 0},
	    {"500K", 0, 0, 512000},
	    {"2M/s", 0, 0, 2097152},
	    {"60M/min", 0, 0, 1048576},
	    {"0", MW_EUSAGE, 0, 0},
	    {"", MW_EUSAGE, 0, 0},
	    {"-1", MW_EUSAGE, 0, 0},
	    {" 1", MW_EUSAGE, 0, 0},
	    {"1e3", MW_EUSAGE, 0, 0},
	    {"0x10", MW_EUSAGE, 0, 0},
	    {"nan", MW_EUSAGE, 0, 0},
	    {"20/d", MW_EUSAGE, 0, 0},
	    {"2MB", MW_EUSAGE, 0, 0},
	    {"M", MW_EUSAGE, 0, 0},
	    {"99999999999999999999", MW_EUSAGE, 0, 0},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(v); i++) {
		struct mw_rate_limits l = {0, 0};
		struct mw_err err = {0};
		int r = mw_rate_parse(v[i].text, &l, &err);
		if (r != v[i].code)
			fail_msg("%s: %d", v[i].text, r);
		assert_true(l.messages == v[i].messages && l.bytes == v[i].bytes);
	}
}

static void
rows(void **state)
{
	const struct mw_rate_limits l = {10, 1000};
	struct mw_rate r;
	(void)state;
	mw_rate_init(&r, &l);
	assert_int_equal(mw_rate_claim(&r, 1, 0, 5 * S), 0);
	assert_int_equal(mw_rate_claim(&r, 1, 0, 5 * S), S / 10);
	assert_int_equal(mw_rate_claim(&r, 1, 0, 5 * S), 2 * S / 10);
	/* bytes have a row of their own; the later of the two counts */
	assert_int_equal(mw_rate_claim(&r, 0, 2000, 5 * S), 0);
	assert_int_equal(mw_rate_claim(&r, 1, 1, 5 * S), 2 * S);
	/* what was not used is not saved up */
	assert_int_equal(mw_rate_claim(&r, 1, 0, 60 * S), 0);
	assert_int_equal(mw_rate_claim(&r, 1, 0, 60 * S), S / 10);
	mw_rate_done(&r);
	const struct mw_rate_limits none = {0, 0};
	mw_rate_init(&r, &none);
	for (int i = 0; i < 100; i++)
		assert_int_equal(mw_rate_claim(&r, 1, UINT64_MAX, 5 * S), 0);
	mw_rate_done(&r);
}

static bool
yes(void)
{
	return true;
}

/* The wait is at least what was claimed, and ends at once where all is to end. */
static void
waits(void **state)
{
	const struct mw_rate_limits l = {20, 0}, slow = {0.001, 0};
	const struct mw_clock *clk = mw_clock_system();
	struct mw_rate r;
	(void)state;
	mw_rate_init(&r, &l);
	int64_t start = clk->mono_us(clk);
	for (int i = 0; i < 5; i++)
		mw_rate_wait(&r, 1, 0, NULL);
	assert_true(clk->mono_us(clk) - start >= 4 * S / 20);
	mw_rate_done(&r);
	mw_rate_init(&r, &slow);
	for (int i = 0; i < 3; i++) /* else it would take half an hour */
		mw_rate_wait(&r, 1, 0, yes);
	mw_rate_done(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(texts),
	    cmocka_unit_test(rows),
	    cmocka_unit_test(waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
