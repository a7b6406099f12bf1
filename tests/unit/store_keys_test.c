/* The store with recovery keys: who can read what is in it, and when keys change.
 * MW_TEST_THREADS */
#include "tests/support/numbered.h"

#include "journal/base/util.h"
#include "journal/codec/hpke.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

/* With recovery keys: no key, no content; with either key all of it; look-ups, marks and
 * the index need none; and nothing of the mail can be read off the disk. */
static void
encrypted_to_recovery_keys(void **state)
{
	struct box *b = *state;
	uint8_t sk[64], pk[64], other[32];
	mw_random(sk, sizeof sk);
	mw_random(other, sizeof other);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	assert_int_equal(mw_hpke_public(sk + 32, pk + 32), 0);
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = 2};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_store_recovery_keys(st), 2);
	for (unsigned k = 0; k < 10; k++)
		append(st, k);
	mw_store_close(st);
	st = open_store(b, MW_STORE_WRITE); /* a writer that was given no keys */
	assert_int_equal(mw_store_recovery_keys(st), 2);
	append(st, 10);
	struct mw_mark m = {.name = MW_STR("n"), .time_us = 5};
	MW_BUF_AUTO cb = {0};
	assert_int_equal(mw_mark_encode(&m, &cb), 0);
	struct mw_commit c;
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, 5, cb.p, cb.n, &c, &err), 0);
	mw_store_close(st);

	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct found f = {.n = 0};
	find_rcpt(rd, &f);
	assert_int_equal(f.n, 2);
	struct mw_record r;
	MW_BUF_AUTO meta = {0};
	assert_int_equal(mw_store_get(rd, c.loc, &r, &err), 0);
	assert_int_equal(mw_record_meta(rd, &r, &meta, &err), 0); /* the mark */
	MW_CURSOR_AUTO *cur = NULL;
	assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
	assert_int_equal(mw_cursor_next(cur, &r, &err), 1);
	assert_int_equal(mw_record_meta(rd, &r, &meta, &err), MW_EKEY);
	assert_non_null(strstr(err.hint, "--key"));
	mw_cursor_free(MW_TAKE(cur));
	mw_store_close(rd);
	for (int k = 0; k < 3; k++) {
		struct mw_store_opts ro = {.dir = b->journal,
		                           .secret = k < 2 ? sk + 32 * k : other,
		                           .n_secret = 1};
		assert_int_equal(mw_store_open(&ro, &rd, &err), 0);
		if (k < 2) {
			check_all(rd, 11);
		} else {
			assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
			assert_int_equal(mw_cursor_next(cur, &r, &err), 1);
			assert_int_equal(mw_record_meta(rd, &r, &meta, &err), MW_EKEY);
			mw_cursor_free(MW_TAKE(cur));
		}
		mw_store_close(rd);
	}
	char cmd[2 * PATH_MAX];
	(void)snprintf(cmd, sizeof cmd,
	               "grep -raqE 'example|x[.]test|Message-ID|aaaaaaa|number' '%s'",
	               b->journal);
	assert_int_equal(WEXITSTATUS(system(cmd)), 1); /* nothing found */
}

static void
count_keys(void *arg, const uint8_t *id)
{
	unsigned *n = arg;
	*n += id != NULL;
}

/* Keys changed while the writer runs: its next segment has them. */
static void
keys_are_rotated(void **state)
{
	struct box *b = *state;
	uint8_t sk[64], pk[64];
	mw_random(sk, sizeof sk);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	assert_int_equal(mw_hpke_public(sk + 32, pk + 32), 0);
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = 1};
	struct mw_store *st = NULL, *rd = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	append(st, 0);
	assert_int_equal(mw_store_set_recovery(b->journal, pk, 2, &err), 0);
	assert_int_equal(mw_store_roll(st, &err), 0);
	append(st, 1);
	mw_store_close(st);
	rd = open_store(b, MW_STORE_READ);
	unsigned n = 0;
	assert_int_equal(mw_store_segment_keys(rd, 1, count_keys, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(mw_store_segment_keys(rd, 2, count_keys, &n, &err), 0);
	assert_int_equal(n, 3);
	mw_store_close(rd);
	struct mw_store_opts ro = {.dir = b->journal, .secret = sk, .n_secret = 1};
	assert_int_equal(mw_store_open(&ro, &rd, &err), 0);
	check_all(rd, 2);
	mw_store_close(rd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, numbered_setup, numbered_teardown)
	    T(encrypted_to_recovery_keys),
	    T(keys_are_rotated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
