/* Files of large records, on a disk that writes, that fails, and that does not answer.
 * MW_TEST_THREADS */
#include "journal/store/spill.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct box {
	char dir[PATH_MAX];
	struct mw_fs fs;
	struct mw_spiller w;
};

/* What the disk does: one test at a time, but two threads. */
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t thawed = PTHREAD_COND_INITIALIZER;
static bool frozen;
static int fails, begun, ended;

static void
touch(void)
{
	(void)pthread_mutex_lock(&mu);
	while (frozen)
		(void)pthread_cond_wait(&thawed, &mu);
	(void)pthread_mutex_unlock(&mu);
}

static void
freeze(bool on)
{
	(void)pthread_mutex_lock(&mu);
	frozen = on;
	(void)pthread_cond_broadcast(&thawed);
	(void)pthread_mutex_unlock(&mu);
}

static int
count(int *what, int by)
{
	(void)pthread_mutex_lock(&mu);
	int n = *what += by;
	(void)pthread_mutex_unlock(&mu);
	return n;
}

static int
open_temp(const struct mw_fs *fs, const char *path)
{
	touch();
	(void)count(&begun, 1);
	return mw_fs_posix()->open_temp(fs, path);
}

static int
pwritev_(const struct mw_fs *fs, int fd, struct iovec *iov, int n, uint64_t off)
{
	touch();
	if (count(&fails, 0))
		return -count(&fails, 0);
	return mw_fs_posix()->pwritev(fs, fd, iov, n, off);
}

static int
close_(const struct mw_fs *fs, int fd)
{
	touch();
	(void)count(&ended, 1);
	return mw_fs_posix()->close(fs, fd);
}

static int
setup(void **state)
{
	struct box *b = calloc(1, sizeof *b);
	assert_non_null(b);
	(void)snprintf(b->dir, sizeof b->dir, "%s/mw-spill-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	b->fs = *mw_fs_posix();
	b->fs.open_temp = open_temp;
	b->fs.pwritev = pwritev_;
	b->fs.close = close_;
	frozen = false;
	fails = begun = ended = 0;
	assert_int_equal(mw_spiller_init(&b->w, &b->fs, b->dir), 0);
	*state = b;
	return 0;
}

static int
teardown(void **state)
{
	struct box *b = *state;
	mw_spiller_done(&b->w);
	assert_int_equal(begun, ended);
	shell("rmdir '%s'", b->dir); /* nothing is left there */
	free(b);
	return 0;
}

/* n bytes of that letter; what it said. */
static int
put(struct box *b, struct mw_spill **s, char letter, size_t n, struct mw_err *err)
{
	MW_BUF_AUTO piece = {0};
	assert_int_equal(mw_buf_reserve(&piece, n), 0);
	memset(piece.p, letter, n);
	piece.n = n;
	int r = mw_spill_put(&b->w, s, &piece, err);
	assert_int_equal(piece.n, r == 0 ? 0 : n);
	return r;
}

static void
comes_back_in_order(void **state)
{
	struct box *b = *state;
	struct mw_spill *s[2] = {NULL};
	struct mw_err err = {0};
	char back[1000];
	for (int i = 0; i < 10; i++)
		for (int k = 0; k < 2; k++)
			assert_int_equal(put(b, &s[k], (char)('a' + i + 10 * k), 100,
			                     &err),
			                 0);
	for (int k = 0; k < 2; k++) {
		assert_int_equal(mw_spill_flush(s[k], &err), 0);
		assert_int_equal(pread(mw_spill_fd(s[k]), back, sizeof back, 0),
		                 sizeof back);
		for (int i = 0; i < 1000; i++)
			assert_int_equal(back[i], 'a' + i / 100 + 10 * k);
		mw_spill_free(s[k]);
	}
}

static void
a_failure_is_told_once_and_for_all(void **state)
{
	struct box *b = *state;
	struct mw_spill *s = NULL;
	struct mw_err err = {0};
	assert_int_equal(put(b, &s, 'a', 100, &err), 0);
	assert_int_equal(mw_spill_flush(s, &err), 0);
	(void)count(&fails, ENOSPC);
	assert_int_equal(put(b, &s, 'b', 100, &err), 0); /* it is not known yet */
	assert_int_equal(mw_spill_flush(s, &err), MW_ENOSPC);
	assert_non_null(strstr(err.msg, b->dir));
	(void)count(&fails, -ENOSPC);
	err = (struct mw_err){0};
	assert_int_equal(put(b, &s, 'c', 100, &err), MW_ENOSPC);
	assert_int_equal(err.code, MW_ENOSPC);
	assert_int_equal(mw_spill_flush(s, &err), MW_ENOSPC);
	mw_spill_free(s);
}

static double
seconds(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
a_disk_that_does_not_answer_holds_nobody(void **state)
{
	struct box *b = *state;
	struct mw_spill *s[3] = {NULL}, *none = NULL;
	struct mw_err err = {0};
	b->w.patience_us = INT64_C(60000000);
	assert_int_equal(put(b, &s[0], 'a', 100, &err), 0);
	assert_int_equal(mw_spill_flush(s[0], &err), 0);
	freeze(true);
	b->w.patience_us = 300000;
	assert_int_equal(put(b, &s[0], 'a', 100, &err), 0);
	assert_int_equal(put(b, &s[1], 'b', 100, &err), 0);
	double began = seconds();
	assert_int_equal(put(b, &s[0], 'a', 100, &err), MW_ETIMEOUT);
	assert_non_null(strstr(err.msg, "does not answer"));
	assert_true(seconds() - began < 60); /* and not for ever */
	began = seconds();
	assert_int_equal(put(b, &s[1], 'b', 100, &err), MW_ETIMEOUT);
	assert_int_equal(mw_spill_flush(s[1], &err), MW_ETIMEOUT);
	/* it is known to be stuck: what comes now waits no more */
	assert_int_equal(put(b, &s[2], 'c', 100, &err), 0);
	assert_int_equal(mw_spill_flush(s[2], &err), MW_ETIMEOUT);
	assert_true(seconds() - began < 60);
	for (int k = 0; k < 3; k++)
		mw_spill_free(s[k]); /* at once */
	mw_spill_free(none);
	assert_int_equal(count(&ended, 0), 0);
	freeze(false);
	int r = MW_ETIMEOUT; /* until the write that hung has come back */
	for (began = seconds(); r == MW_ETIMEOUT && seconds() - began < 60;) {
		struct mw_spill *after = NULL;
		assert_int_equal(put(b, &after, 'd', 100, &err), 0);
		r = mw_spill_flush(after, &err);
		mw_spill_free(after);
	}
	assert_int_equal(r, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(comes_back_in_order, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_failure_is_told_once_and_for_all, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(a_disk_that_does_not_answer_holds_nobody,
	                                    setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
