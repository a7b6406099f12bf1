/* reindex_test.c - catching up leaves no record out where one partition of the index ends
 * and the next begins, and records with very many tokens take no memory to match. */
#include "journal/base/util.h"
#include "journal/index/index.h"
#include "journal/store/store_int.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	HEAVY = 40,
	OFTEN = 12,
	HEAVY_TOKENS = 200000,
	MOST_KIB = 160 << 10 /* of which the index itself, mapped, is 60 MiB */
};

static char dir[PATH_MAX];

static int
setup(void **state)
{
	(void)state;
	journal_make(dir, sizeof dir, "reindex");
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	journal_remove(dir);
	return 0;
}

static struct mw_store *
open_as(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode, .no_index = true};
	return opened(&o);
}

/* A record with n tokens of no meaning, and those that each has. */
static void
note(struct mw_store *st, size_t n)
{
	static uint64_t dice = 7;
	MW_ENTRY_AUTO *e = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_entry_new(st, MW_TYPE_MARK, &e, &err), 0);
	for (size_t i = 0; i < n; i++) {
		(void)dice_next(&dice);
		mw_buf_put(&e->tokens, &dice, sizeof dice);
	}
	assert_int_equal(mw_entry_finish(e, 1000, "\xa0", 1, &err), 0);
	assert_int_equal(mw_store_append(st, e, NULL, &err), 0);
}

/* The list of segments may be newer than what is durable: so the next partition has begun
 * while the last records of this one are still to come. */
static void
across_partitions(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_index *ix = NULL;
	struct mw_segment_info *v = NULL;
	struct mw_index_point p;
	size_t n;
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (int i = 0; i < MW_INDEX_SPAN + 2; i++) {
		note(st, 0);
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
	st = open_as(MW_STORE_READ);
	st->loading_gone = true;
	assert_int_equal(mw_store_segment_info(st, &v, &n, &err), 0);
	assert_true(n > MW_INDEX_SPAN + 1);
	uint64_t first = v[MW_INDEX_SPAN].first_seq;
	assert_int_equal(mw_index_open(dir, st->id, 1, &ix, &err), 0);
	for (uint64_t limit = first - 1; limit < first + 4; limit++) {
		assert_int_equal(mw_index_catch_up(st, ix, limit, NULL, &err), 0);
		assert_int_equal(mw_index_point(ix, MW_INDEX_SPAN, &p, &err), 1);
		assert_int_equal(p.next_seq, MW_MIN(limit, first));
	}
	assert_int_equal(st->index_done, MW_INDEX_SPAN + 1);
	mw_index_close(ix);
	mw_store_close(st);
	free(v);
}

static size_t
open_segments(void)
{
	size_t n = 0;
	for (int fd = 0; fd < 1024; fd++) {
		char link[40], to[PATH_MAX];
		(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t len = readlink(link, to, sizeof to);
		n += len > 4 && memcmp(to + len - 4, ".seg", 4) == 0;
	}
	return n;
}

/* A writer that has gone through many segments has the last ones open, not those it
 * indexed. */
static void
few_descriptors(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_WRITE};
	struct mw_store *st = opened(&o);
	struct mw_store_stats s;
	for (int i = 0; i < 6; i++) {
		note(st, 0);
		assert_int_equal(mw_store_roll(st, &err), 0);
		for (int k = 0; k < 12000; k++) { /* two minutes at most */
			mw_store_stats(st, &s);
			if (s.index_lag_records == 0)
				break;
			(void)usleep(10000);
		}
		assert_int_equal(s.index_lag_records, 0);
	}
	assert_true(open_segments() <= 4);
	mw_store_close(st);
}

static int
count(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return 0;
}

static void
reindex_and_find(void)
{
	char type = MW_TYPE_MARK;
	unsigned n = 0;
	struct mw_err err = {0};
	struct mw_store *st = open_as(MW_STORE_READ);
	if (mw_store_reindex(st, NULL, &err) < 0)
		_exit(1);
	st->o.no_index = false;
	if (mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), count, &n, &err) < 0 ||
	    n != HEAVY)
		_exit(2);
	mw_store_close(st);
	_exit(0);
}

static void
many_tokens(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct rusage ru;
	int status;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* these keep what was freed */
#endif
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (int i = 0; i < HEAVY; i++)
		note(st, HEAVY_TOKENS);
	assert_int_equal(mw_store_roll(st, &err), 0);
	mw_store_close(st);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		reindex_and_find();
	assert_int_equal(wait4(pid, &status, 0, &ru), pid);
	assert_int_equal(status, 0);
	assert_true(ru.ru_maxrss < MOST_KIB);
}

/* Whose process ends when it has just wiped a record leaves no tokens of it behind: the
 * thread that sees to the index had no time. */
static void
wiped_and_killed(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_index *ix = NULL;
	struct mw_index_point at;
	struct mw_record r;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_store *st = open_as(MW_STORE_WRITE);
	note(st, 3);
	assert_int_equal(mw_store_roll(st, &err), 0);
	note(st, 3);
	mw_store_close(st);
	st = open_as(MW_STORE_READ);
	assert_int_equal(mw_store_reindex(st, NULL, &err), 0);
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(mw_index_open(dir, st->id, 0, &ix, &err), 0);
	assert_int_equal(mw_index_point(ix, 1, &at, &err), 1);
	mw_index_close(ix);
	mw_store_close(st);
	st = open_as(MW_STORE_WRITE); /* without that thread */
	struct mw_wipe_at p = {r.loc.offset, r.seq};
	assert_int_equal(mw_store_wipe(st, r.loc.segment, &p, 1, &err), 0);
	assert_int_equal(mw_index_open(dir, st->id, 0, &ix, &err), 0);
	assert_int_equal(mw_index_point(ix, 1, &at, &err), 0);
	mw_index_close(ix);
	mw_store_close(st);
}

/* A writer that ends while all of the index is still to be built does not wait for that;
 * the next one goes on. */
static void
ends_in_time(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_index *ix = NULL;
	uint64_t n, all = 0;
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (int i = 0; i < 10; i++)
		note(st, 1);
	mw_store_close(st);
	st = open_as(MW_STORE_READ);
	st->loading_gone = true;
	assert_int_equal(mw_index_open(dir, st->id, 1, &ix, &err), 0);
	atomic_store(&st->index_until, 1); /* long ago */
	assert_int_equal(mw_index_catch_up(st, ix, UINT64_MAX, &all, &err), 0);
	assert_int_equal(all, 0);
	assert_int_equal(st->index_done, 0);
	atomic_store(&st->index_until, st->clock->mono_us(st->clock) + 3600000000);
	assert_int_equal(mw_index_catch_up(st, ix, UINT64_MAX, &n, &err), 0);
	assert_true(n >= 10);
	mw_index_close(ix);
	mw_store_close(st);
}

static void
reindex_often(void)
{
	struct mw_err err = {0};
	struct mw_store *st = open_as(MW_STORE_READ);
	for (int i = 0; i < OFTEN;) {
		int r = mw_store_reindex(st, NULL, &err);
		if (r < 0 && r != MW_ELOCKED) {
			(void)fprintf(stderr, "reindex: %s\n", err.msg);
			_exit(1);
		}
		i += r == 0;
		if (r < 0)
			(void)usleep(1000);
	}
	mw_store_close(st);
	_exit(0);
}

/* Reindex while a daemon takes mail: neither finds the other's work half done, and what
 * the daemon indexes afterwards is found in the index that stands there. */
static void
beside_a_daemon(void **state)
{
	(void)state;
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_WRITE};
	struct mw_store *st;
	struct mw_index *ix = NULL;
	struct mw_index_point at = {0};
	struct mw_err err = {0};
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		reindex_often();
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	while (waitpid(pid, &status, WNOHANG) == 0)
		note(st, 3);
	assert_int_equal(status, 0);
	note(st, 3);
	mw_store_close(st); /* the thread finishes first */
	st = open_as(MW_STORE_WRITE);
	assert_int_equal(mw_index_open(dir, st->id, 0, &ix, &err), 0);
	assert_int_equal(mw_index_point(ix, 1, &at, &err), 1);
	assert_int_equal(at.next_seq, st->next_seq);
	mw_index_close(ix);
	mw_store_close(st);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(across_partitions, setup, teardown),
	    cmocka_unit_test_setup_teardown(few_descriptors, setup, teardown),
	    cmocka_unit_test_setup_teardown(many_tokens, setup, teardown),
	    cmocka_unit_test_setup_teardown(wiped_and_killed, setup, teardown),
	    cmocka_unit_test_setup_teardown(ends_in_time, setup, teardown),
	    cmocka_unit_test_setup_teardown(beside_a_daemon, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
