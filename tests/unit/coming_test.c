/* What replay has told will come back: each counts once, for five days, over restarts,
 * whatever has become of the file. MW_TEST_THREADS */
#include "milter/coming.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal/base/bytes.h"
#include "journal/base/util.h"

#include <cmocka.h>

static const int64_t now = INT64_C(1790000000) * 1000000;
static const int64_t day = INT64_C(86400000000);
static char dir[64], path[80];
static struct mw_pool *pool;
static struct mw_coming c;

static void
begin(int64_t at)
{
	pool = mw_pool_new(1);
	assert_non_null(pool);
	mw_coming_open(&c, dir, pool, at);
}

static void
end(void)
{
	mw_pool_free(pool);
	assert_false(mw_coming_busy(&c));
	mw_coming_close(&c);
}

static void
again(int64_t at)
{
	end();
	begin(at);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-coming-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof path, "%s/coming", dir);
	begin(now);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	end();
	(void)unlink(path);
	return rmdir(dir);
}

/* A tag and an ID for a number; the number's bytes are spread as an HMAC's are. */
static void
make(unsigned i, uint8_t tag[MW_TRAIL_TAG], uint8_t id[MW_ID_LEN])
{
	uint8_t sum[MW_SHA256_LEN];
	mw_sha256_of(&i, sizeof i, sum);
	memcpy(tag, sum, MW_TRAIL_TAG);
	memset(id, (int)i, MW_ID_LEN);
}

static int
tell(unsigned i, int64_t at)
{
	uint8_t tag[MW_TRAIL_TAG], id[MW_ID_LEN];
	struct mw_err err = {0};
	make(i, tag, id);
	return mw_coming_tell(&c, tag, id, at, &err);
}

static bool
take(unsigned i, int64_t at, struct mw_coming_one *ret)
{
	uint8_t tag[MW_TRAIL_TAG], id[MW_ID_LEN];
	make(i, tag, id);
	if (!mw_coming_take(&c, tag, at, ret))
		return false;
	assert_memory_equal(ret->tag, tag, sizeof tag);
	assert_memory_equal(ret->id, id, sizeof id);
	return true;
}

static bool
delivered(unsigned i, int64_t at)
{
	struct mw_coming_one one;
	if (!take(i, at, &one))
		return false;
	mw_coming_done(&c, &one);
	return true;
}

static void
each_counts_once(void **state)
{
	(void)state;
	struct mw_coming_one one;
	assert_false(mw_coming_any(&c, now));
	assert_false(take(1, now, &one));
	assert_int_equal(tell(1, now), 0);
	assert_int_equal(tell(2, now), 0);
	assert_true(mw_coming_any(&c, now));
	assert_true(delivered(1, now));
	assert_false(take(1, now, &one));
	assert_false(take(3, now, &one));
	assert_true(take(2, now, &one));
	assert_false(mw_coming_any(&c, now));
	/* refused further on: it will come again */
	mw_coming_again(&c, &one, now);
	assert_true(mw_coming_any(&c, now));
	assert_true(delivered(2, now));
	assert_false(take(2, now, &one));
	/* told twice is told once: a surplus is journaled */
	assert_int_equal(tell(1, now), 0);
	assert_int_equal(tell(1, now), 0);
	assert_true(delivered(1, now));
	assert_false(take(1, now, &one));
}

static void
for_five_days(void **state)
{
	(void)state;
	struct mw_coming_one one;
	const int64_t keep = MW_GUARD_DAYS * day;
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(tell(i, now), 0);
	assert_true(take(1, now + keep, &one));
	assert_false(take(2, now + keep + 1, &one));
	assert_false(mw_coming_any(&c, now + keep + 1));
	again(now + keep + 1);
	assert_false(take(3, now, &one));
	/* a clock that went back by more than an hour */
	assert_int_equal(tell(3, now), 0);
	assert_false(take(3, now - INT64_C(3600000001), &one));
	assert_true(take(3, now - INT64_C(3600000000), &one));
}

static void
over_restarts(void **state)
{
	(void)state;
	struct mw_coming_one one;
	for (unsigned i = 1; i <= 1000; i++)
		assert_int_equal(tell(i, now + i), 0);
	for (unsigned i = 1; i <= 1000; i += 2)
		assert_true(delivered(i, now + 5000));
	/* taken, and this process ends before it was delivered: it will come again */
	assert_true(take(2, now + 5000, &one));
	again(now + 6000);
	for (unsigned i = 1; i <= 1000; i++)
		assert_int_equal(take(i, now + 6000, &one), i % 2 == 0);
	again(now + 6000);
	assert_true(delivered(2, now + 6000));
	assert_int_equal(tell(1, now + 6000), 0); /* put back once more */
	again(now + 6000);
	assert_true(delivered(1, now + 6000));
	assert_false(take(2, now + 6000, &one));
}

/* What is not whole is left out; the rest counts. */
static void
whatever_the_file_holds(void **state)
{
	(void)state;
	struct mw_coming_one one;
	uint8_t text[48 * 20], noise[48 * 20 + 31];
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(tell(i, now), 0);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, text, sizeof text, 0), sizeof text);
	for (size_t at = 0; at < sizeof text; at += 7) { /* a flipped bit */
		uint8_t bad = text[at] ^ (uint8_t)(1 << at % 8);
		assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
		again(now);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(take(i, now, &one), i != at / 48);
		(void)close(fd);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
		assert_int_equal(write(fd, text, sizeof text), sizeof text);
	}
	for (size_t n = 0; n < sizeof text; n += 11) { /* cut off */
		assert_int_equal(ftruncate(fd, (off_t)n), 0);
		again(now);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(take(i, now, &one), i < n / 48);
		assert_int_equal(tell(30, now), 0); /* goes on behind whole lines */
		again(now);
		assert_true(delivered(30, now));
		(void)close(fd);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
		assert_int_equal(write(fd, text, sizeof text), sizeof text);
	}
	for (int k = 0; k < 50; k++) { /* anything */
		mw_random(noise, sizeof noise);
		assert_int_equal(pwrite(fd, noise, sizeof noise, 0), sizeof noise);
		again(now);
		assert_false(mw_coming_any(&c, now));
		assert_int_equal(tell(1, now), 0);
		again(now);
		assert_true(take(1, now, &one));
		(void)close(fd);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
	}
	(void)close(fd);
}

static void
a_file_that_cannot_be_written(void **state)
{
	(void)state;
	struct mw_coming_one one;
	end();
	(void)unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	begin(now);
	assert_true(tell(1, now) < 0); /* who asks hears it */
	assert_false(take(1, now, &one));
	end();
	assert_int_equal(rmdir(path), 0);
	begin(now);
	assert_int_equal(tell(1, now), 0);
	assert_true(delivered(1, now));
}

static void
bounded(void **state)
{
	(void)state;
	struct stat st;
	struct mw_coming_one one;
	enum {
		MANY = 4 * MW_COMING_MOST
	};
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(tell(i, now + i), 0);
	assert_true(c.n_slot <= 2 * (size_t)MW_COMING_MOST);
	assert_true(c.left <= MW_COMING_MOST && c.left >= MW_COMING_MOST / 2);
	for (unsigned i = MANY - 1000; i < MANY; i++) /* the newest count */
		assert_true(take(i, now + MANY, &one));
	assert_false(take(0, now + MANY, &one));
	again(now + MANY);
	assert_true(take(MANY - 1001, now + MANY, &one));
	/* many one after the other leave no long file */
	for (unsigned i = 0; i < 60000; i++) {
		assert_int_equal(tell(i, now + MANY), 0);
		assert_true(delivered(i, now + MANY));
	}
	again(now + MANY + MW_GUARD_DAYS * day);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size <= 48 * 2);
	/* all at the same moment */
	for (unsigned i = 0; i < 3 * MW_COMING_MOST; i++)
		assert_int_equal(tell(i, now + MANY), 0);
}

static void *
hurry(void *arg)
{
	unsigned from = *(unsigned *)arg;
	struct mw_coming_one one;
	for (unsigned i = from; i < from + 2000; i++) {
		(void)tell(i, now);
		if (i % 3 == 0 && take(i, now, &one))
			mw_coming_again(&c, &one, now);
		(void)delivered(i % 2 ? i : i - 1, now);
		(void)mw_coming_any(&c, now);
	}
	return NULL;
}

static void
from_many_threads(void **state)
{
	(void)state;
	pthread_t t[4];
	unsigned from[4] = {1, 1, 1001, 5001};
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hurry, &from[i]), 0);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(t[i], NULL);
	again(now);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_counts_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(for_five_days, setup, teardown),
	    cmocka_unit_test_setup_teardown(over_restarts, setup, teardown),
	    cmocka_unit_test_setup_teardown(whatever_the_file_holds, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_file_that_cannot_be_written, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(bounded, setup, teardown),
	    cmocka_unit_test_setup_teardown(from_many_threads, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
