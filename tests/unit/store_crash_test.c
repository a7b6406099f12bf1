/* The store after a crash, with a torn tail, and with damage: what was acknowledged comes
 * back, and what is lost is named. MW_TEST_THREADS */
#include "tests/support/numbered.h"

#include "journal/base/util.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The daemon is killed: a copy of the directory is what a crash leaves. */
static void
copy_dir(const char *from, const char *to)
{
	char cmd[4 * PATH_MAX + 64];
	int r = -1;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s' && cp -a '%s' '%s' 2>/dev/null", to,
	               from, to);
	/* a file that is being prepared may get its name just then */
	for (unsigned k = 0; r != 0 && k < 50; k++)
		r = system(cmd);
	assert_int_equal(r, 0);
}

static void
crash_keeps_what_was_acknowledged(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 7; k++)
		append(st, k);
	struct box copy = *b;
	(void)snprintf(copy.journal, sizeof copy.journal, "%.4000s/copy", b->dir);
	copy_dir(b->journal, copy.journal);
	mw_store_close(st);

	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000002.seg",
	               copy.journal);
	struct mw_store *rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 7);
	mw_store_close(rd);
	st = open_store(&copy, MW_STORE_WRITE); /* recovers */
	append(st, 7);
	mw_store_close(st);
	rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 8);
	mw_store_close(rd);
}

/* Where the segment's zero tail begins. */
static long
data_end(const char *path)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	long last = 0;
	for (long i = 1;; i++) {
		int c = fgetc(f);
		if (c == EOF)
			break;
		if (c)
			last = i;
	}
	(void)fclose(f);
	return last;
}

static void
torn_tail_is_not_damage(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	append(st, 1);
	append(st, 2);
	struct box copy = *b;
	(void)snprintf(copy.journal, sizeof copy.journal, "%.4000s/copy", b->dir);
	copy_dir(b->journal, copy.journal);
	mw_store_close(st);
	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000001.seg",
	               copy.journal);
	long end = data_end(seg);
	int fd = open(seg, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "\0\0\0\0", 4, end - 8),
	                 4); /* inside the last frame */
	(void)close(fd);
	struct mw_store *rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 1);
	mw_store_close(rd);
	st = open_store(&copy, MW_STORE_WRITE);
	append(st, 3);
	mw_store_close(st);
	rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 2);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned notes = 0;
	assert_int_equal(mw_cursor_new(rd, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1)
		notes += r.type == MW_TYPE_RECOVERY;
	assert_int_equal(notes, 1);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(rd);
}

static void
damage_is_contained_and_named(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	struct mw_commit at[3];
	for (unsigned k = 0; k < 3; k++) {
		MW_ENTRY_AUTO *e = entry_of(st, k);
		assert_int_equal(mw_store_append(st, e, &at[k], &err), 0);
	}
	mw_store_close(st);
	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000001.seg",
	               b->journal);
	int fd = open(seg, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)at[1].loc.offset + 20), 1);
	(void)close(fd);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	assert_int_equal(mw_cursor_new(rd, 1, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(mw_cursor_next(c, &r, &err), MW_EDAMAGED);
	assert_non_null(strstr(err.msg, "records 2 to 2 are lost"));
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(r.seq, 3);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(rd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, numbered_setup, numbered_teardown)
	    T(crash_keeps_what_was_acknowledged),
	    T(torn_tail_is_not_damage),
	    T(damage_is_contained_and_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
