/* The store: what is appended comes back byte for byte, from one thread and from many,
 * and what cannot be appended is told. MW_TEST_THREADS */
#include "tests/support/numbered.h"

#include "journal/base/util.h"
#include "journal/store/control.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
round_trip_and_reopen(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 40; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ); /* beside the writer */
	check_all(rd, 40);
	mw_store_close(rd);
	mw_store_close(st);
	st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 40; k < 50; k++)
		append(st, k);
	mw_store_close(st);
	rd = open_store(b, MW_STORE_READ);
	check_all(rd, 50);
	mw_store_close(rd);
}

static void
second_writer_is_refused(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE), *other = NULL;
	struct mw_store_opts o = {.dir = b->journal, .mode = MW_STORE_WRITE};
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &other, &err), MW_ELOCKED);
	assert_non_null(strstr(err.msg, "in use by process"));
	mw_store_close(st);
}

/* ---- many at once ---- */

static void *
many(void *arg)
{
	struct mw_store *st = ((void **)arg)[0];
	unsigned first = (unsigned)(uintptr_t)((void **)arg)[1];
	for (unsigned k = 0; k < 25; k++)
		append(st, (first + k) * 4); /* small ones */
	return NULL;
}

static void
many_threads_share_syncs(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	pthread_t t[8];
	void *args[8][2];
	for (unsigned i = 0; i < 8; i++) {
		args[i][0] = st;
		args[i][1] = (void *)(uintptr_t)(i * 25);
		assert_int_equal(pthread_create(&t[i], NULL, many, args[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++)
		(void)pthread_join(t[i], NULL);
	struct mw_store_stats s;
	mw_store_stats(st, &s);
	assert_int_equal(s.mails, 200);
	assert_true(s.batches < 200);
	mw_store_close(st);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	check_all(rd, 200);
	mw_store_close(rd);
}

static void
roll_and_note(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	append(st, 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	append(st, 2);
	struct mw_store_stats s;
	mw_store_stats(st, &s);
	assert_int_equal(s.segment, 2);
	struct mw_mark m = {.name = MW_STR("nightly"),
	                    .phase = MW_MARK_START,
	                    .time_us = 5};
	MW_BUF_AUTO cb = {0};
	assert_int_equal(mw_mark_encode(&m, &cb), 0);
	struct mw_commit c;
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, 5, cb.p, cb.n, &c, &err), 0);
	mw_store_close(st);
	uint64_t seq = 0;
	if (mw_control_note(b->journal, MW_TYPE_MARK, 5, cb.p, cb.n, &seq, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(seq > c.seq);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	check_all(rd, 2);
	struct found f = {.n = 0};
	char type = MW_TYPE_MARK;
	assert_int_equal(mw_store_find(rd, MW_KEY_TYPE, mw_str(&type, 1), find_cb, &f,
	                               &err),
	                 0);
	assert_int_equal(f.n, 2);
	mw_store_close(rd);
}

static void
full_disk_floor(void **state)
{
	struct box *b = *state;
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .min_free = UINT64_C(1) << 60};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_store_ready(st), MW_ENOSPC);
	MW_ENTRY_AUTO *e = entry_of(st, 1);
	assert_int_equal(mw_store_append(st, e, NULL, &err), MW_ENOSPC);
	mw_store_close(st);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, numbered_setup, numbered_teardown)
	    T(round_trip_and_reopen),    T(second_writer_is_refused),
	    T(many_threads_share_syncs), T(roll_and_note),
	    T(full_disk_floor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
