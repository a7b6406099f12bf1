/* A disk that failed and is well again is found to be so without mail: by a probe, where
 * the writer was asked for one. MW_TEST_THREADS */
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/fs_mem.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	EVERY_US = 20000,
	PATIENCE_MS = 60000,
	FLOOR = 100 << 20
};

static char journal[64]; /* a directory for the lock; all else is on the disk */
static struct fs_mem *disk;
static atomic_uint told; /* that it is well */

static void
note(void *arg, int level, const char *text)
{
	(void)arg;
	if (strncmp(text, "event=disk-well ", 16) == 0) {
		assert_int_equal(level, MW_LOG_NOTICE);
		atomic_fetch_add(&told, 1);
	}
}

static struct mw_store *
store(enum mw_store_mode mode, int64_t probe_us)
{
	struct mw_store_opts o = {.dir = journal,
	                          .mode = mode,
	                          .fs = fs_mem_fs(disk),
	                          .min_free = FLOOR,
	                          .probe_us = probe_us,
	                          .no_index = true,
	                          .note = note};
	return opened(&o);
}

/* One mail: 0, or why it was not taken. */
static int
append(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	char qid[16], text[64];
	struct mw_rcpt r = {.addr = MW_STR("u@probe.test")};
	MW_ENTRY_AUTO *e = NULL;
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	(void)snprintf(text, sizeof text, "Subject: %u\r\n\r\ntext\r\n", k);
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("s@probe.test"),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, text, strlen(text), &err) < 0 ||
	    mw_entry_describe(e, &m, &err) < 0 || mw_entry_finish_mail(e, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return mw_store_append(st, e, NULL, &err);
}

static struct mw_store_stats
stats(struct mw_store *st)
{
	struct mw_store_stats s = {0};
	mw_store_stats(st, &s);
	return s;
}

/* Until it says that it is well; no mail comes meanwhile. */
static void
well(struct mw_store *st)
{
	for (int ms = 0; stats(st).failing || atomic_load(&told) == 0; ms++) {
		if (ms >= PATIENCE_MS)
			fail_msg("the disk is well, and nobody noticed");
		(void)usleep(1000);
	}
}

/* While the disk is sick it is tried again and again. */
static void
tried_in_vain(struct mw_store *st)
{
	for (int ms = 0; stats(st).probes < 2; ms++) {
		if (ms >= PATIENCE_MS || !stats(st).failing)
			fail_msg("the disk is not tried");
		(void)usleep(1000);
	}
	assert_true(stats(st).failing);
	assert_int_equal(atomic_load(&told), 0);
}

static void
cured(enum fs_op op)
{
	fs_mem_fail(disk, op, UINT32_MAX, EIO, 1); /* a call that never comes */
}

/* Mail 1 and 2 are there, whoever else is not, and the log is sound. */
static void
both_there(void)
{
	struct mw_err err = {0};
	struct mw_store *st = store(MW_STORE_READ, 0);
	struct mw_cursor *c = NULL;
	struct mw_record r;
	unsigned mails = 0;
	int k;
	if (mw_cursor_new(st, 1, &c, &err) < 0)
		fail_msg("%s", err.msg);
	while ((k = mw_cursor_next(c, &r, &err)) > 0)
		mails += r.type == MW_TYPE_MAIL;
	if (k < 0)
		fail_msg("%s", err.msg);
	mw_cursor_free(c);
	mw_store_close(st);
	assert_int_equal(mails, 2);
	assert_int_equal(fs_mem_sins(disk), 0);
}

static int
setup(void **state)
{
	struct mw_err err = {0};
	(void)state;
	(void)snprintf(journal, sizeof journal, "/tmp/mw-probe-XXXXXX");
	assert_non_null(mkdtemp(journal));
	disk = fs_mem_new();
	atomic_store(&told, 0);
	fs_mem_free_space(disk, INT64_C(10) * FLOOR);
	return mw_store_create(journal, fs_mem_fs(disk), NULL, &err);
}

static int
teardown(void **state)
{
	(void)state;
	fs_mem_free(disk);
	shell("rm -rf '%s'", journal);
	return 0;
}

static void
sick_and_well(enum fs_op op, int e)
{
	struct mw_store *st = store(MW_STORE_WRITE, EVERY_US);
	assert_int_equal(append(st, 1), 0);
	fs_mem_fail(disk, op, 1, e, 0);
	assert_true(append(st, 9) < 0);
	tried_in_vain(st);
	uint64_t failures = stats(st).failures;
	cured(op);
	well(st);
	assert_int_equal(stats(st).failures, failures); /* a probe is no mail's failure */
	assert_int_equal(atomic_load(&told), 1);
	uint64_t segment = stats(st).segment;
	assert_int_equal(append(st, 2), 0);
	assert_int_equal(stats(st).segment, segment); /* where the probe opened one */
	mw_store_close(st);
	both_there();
}

static void
write_enospc(void **state)
{
	(void)state;
	sick_and_well(FS_WRITE, ENOSPC);
}

static void
write_eio(void **state)
{
	(void)state;
	sick_and_well(FS_WRITE, EIO);
}

static void
sync_eio(void **state)
{
	(void)state;
	sick_and_well(FS_SYNC, EIO);
}

/* Nothing was written, so the segment is still good, and is used again. */
static void
below_the_floor(void **state)
{
	(void)state;
	struct mw_store *st = store(MW_STORE_WRITE, EVERY_US);
	assert_int_equal(append(st, 1), 0);
	uint64_t segment = stats(st).segment;
	fs_mem_free_space(disk, FLOOR - 1);
	assert_int_equal(append(st, 9), MW_ENOSPC);
	tried_in_vain(st);
	fs_mem_free_space(disk, INT64_C(10) * FLOOR);
	well(st);
	assert_int_equal(stats(st).full, 1);
	assert_int_equal(append(st, 2), 0);
	assert_int_equal(stats(st).segment, segment);
	mw_store_close(st);
	both_there();
}

/* What the probe opened, and no mail came to, is closed and read like any other. */
static void
ended_before_mail(void **state)
{
	(void)state;
	struct mw_store *st = store(MW_STORE_WRITE, EVERY_US);
	assert_int_equal(append(st, 1), 0);
	fs_mem_fail(disk, FS_SYNC, 1, EIO, 0);
	assert_int_equal(append(st, 9), MW_EIO);
	cured(FS_SYNC);
	well(st);
	mw_store_close(st);
	st = store(MW_STORE_WRITE, EVERY_US);
	assert_int_equal(append(st, 2), 0);
	mw_store_close(st);
	both_there();
}

static void
not_asked_for(void **state)
{
	(void)state;
	struct mw_store *st = store(MW_STORE_WRITE, 0);
	assert_int_equal(append(st, 1), 0);
	fs_mem_fail(disk, FS_WRITE, 1, ENOSPC, 0);
	assert_int_equal(append(st, 9), MW_ENOSPC);
	cured(FS_WRITE);
	(void)usleep(1500000); /* the committer looks around each second */
	assert_true(stats(st).failing);
	assert_int_equal(append(st, 2), 0);
	assert_false(stats(st).failing);
	mw_store_close(st);
	both_there();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(write_enospc, setup, teardown),
	    cmocka_unit_test_setup_teardown(write_eio, setup, teardown),
	    cmocka_unit_test_setup_teardown(sync_eio, setup, teardown),
	    cmocka_unit_test_setup_teardown(below_the_floor, setup, teardown),
	    cmocka_unit_test_setup_teardown(ended_before_mail, setup, teardown),
	    cmocka_unit_test_setup_teardown(not_asked_for, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
