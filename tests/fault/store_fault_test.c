/* The store on a failing and crashing file system: what was acknowledged is there after
 * any crash, byte for byte; a torn tail is never called damage; a failed descriptor is
 * never written or synced again; nothing is acknowledged after a failed sync.
 *
 * MW_FAULT_ROUNDS scales the number of crash states (default 1: a seeded slice). */
/* MW_TEST_COST 25 */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/dice.h"
#include "tests/support/fs_mem.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
	MAILS = 12
};

static char root[PATH_MAX],
    journal[PATH_MAX]; /* real, but for nothing but the lock file */

static bool with_dict; /* mails that share words, and a dictionary in the middle */

static unsigned
rounds(void)
{
	const char *s = getenv("MW_FAULT_ROUNDS");
	long n = s ? strtol(s, NULL, 10) : 1;
	return n > 0 ? (unsigned)n : 1;
}

static void
content_of(unsigned k, struct mw_buf *out)
{
	mw_buf_printf(out, "Subject: %u\r\n\r\n", k);
	for (unsigned i = 0; with_dict && i < 40; i++)
		mw_buf_printf(out,
		              "All of them say this, line %u of forty lines, in the same "
		              "words, as mail does.\r\n",
		              i);
	size_t n = k % 5 == 4 ? 150000 : 200 + k * 331;
	dice_noise(out, n, k + 99);
}

static struct mw_store *
open_store(struct fs_mem *m, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = fs_mem_fs(m),
	                          .segment_size = 200000, /* rolls in the middle */
	                          .spill_above = 65536,
	                          .no_index = true,
	                          .dictionary = with_dict,
	                          .dict_share = 100};
	struct mw_store *st = NULL;
	return mw_store_open(&o, &st, err) < 0 ? NULL : st;
}

/* Appends mail k: 0 when acknowledged. */
static int
append(struct mw_store *st, unsigned k, uint64_t *ret_seq)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO c = {0};
	char qid[16];
	content_of(k, &c);
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_rcpt rcpt = {.addr = mw_strz(qid)};
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(qid),
	                    .rcpt = &rcpt,
	                    .n_rcpt = with_dict};
	int r = mw_entry_new(st, MW_TYPE_MAIL, &e, &err);
	if (r == 0)
		r = mw_entry_body(e, c.p, c.n, &err);
	if (r == 0)
		r = mw_entry_describe(e, &m, &err);
	if (r == 0)
		r = mw_entry_finish_mail(e, &m, &err);
	struct mw_commit a;
	if (r == 0)
		r = mw_store_append(st, e, &a, &err);
	if (r == 0)
		*ret_seq = a.seq;
	return r;
}

struct ledger {
	bool acked[64];
	uint64_t seq[64];
	bool trained;
};

/* Reads the journal: every acknowledged mail, exact, at its sequence number; no damage.
 */
static void
check(struct mw_store *st, const struct ledger *l, const char *what, uint64_t at)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	bool seen[64] = {false};
	int k;
	if (mw_cursor_new(st, 1, &c, &err) < 0)
		fail_msg("%s at %llu: %s", what, (unsigned long long)at, err.msg);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_mail m;
		MW_BUF_AUTO got = {0};
		MW_BUF_AUTO want = {0};
		unsigned id;
		if (r.type != MW_TYPE_MAIL)
			continue;
		if (mw_record_mail(st, &r, a, &m, &err) < 0 ||
		    mw_record_content(st, &r, &m, 1 << 24, &got, &err) < 0)
			fail_msg("%s at %llu: %s", what, (unsigned long long)at, err.msg);
		assert_int_equal(sscanf(m.queue_id.p, "Q%u", &id), 1);
		content_of(id, &want);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
		if (l->acked[id] && l->seq[id] == r.seq)
			seen[id] = true;
	}
	if (k < 0)
		fail_msg("%s at %llu: called damage: %s", what, (unsigned long long)at,
		         err.msg);
	for (unsigned i = 0; i < 64; i++)
		if (l->acked[i] && !seen[i])
			fail_msg("%s at %llu: acknowledged mail %u is gone", what,
			         (unsigned long long)at, i);
}

static struct fs_mem *
fresh(void)
{
	struct fs_mem *m = fs_mem_new();
	struct mw_err err = {0};
	if (mw_store_create(journal, fs_mem_fs(m), NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	/* the directory itself is made durable by whoever installs */
	const struct mw_fs *fs = fs_mem_fs(m);
	assert_int_equal(fs->sync_dir(fs, journal), 0);
	return m;
}

/* Runs the load on m; returns what was acknowledged. */
static void
load(struct fs_mem *m, struct ledger *l)
{
	struct mw_err err = {0};
	struct mw_store *st = open_store(m, &err);
	if (!st)
		return;
	for (unsigned k = 0; k < MAILS; k++) {
		l->acked[k] = append(st, k, &l->seq[k]) == 0;
		if (with_dict && k == 6)
			l->trained = mw_store_train(st);
	}
	mw_store_close(st);
}

static void
recover_and_check(struct fs_mem *disk, struct ledger *l, const char *what, uint64_t at)
{
	struct mw_err err = {0};
	struct mw_store *st = open_store(disk, &err);
	if (!st)
		fail_msg("%s at %llu: does not open: %s", what, (unsigned long long)at,
		         err.msg);
	check(st, l, what, at);
	for (unsigned k = 40; k < 42; k++) { /* and goes on working */
		if (append(st, k, &l->seq[k]) < 0)
			fail_msg("%s at %llu: takes nothing more", what,
			         (unsigned long long)at);
		l->acked[k] = true;
	}
	check(st, l, what, at);
	mw_store_close(st);
	st = open_store(disk, &err);
	assert_non_null(st);
	check(st, l, what, at);
	mw_store_close(st);
}

static void
crash_at_every_call(void **state)
{
	(void)state;
	struct fs_mem *m = fresh();
	struct ledger l = {.trained = false};
	load(m, &l);
	for (unsigned k = 0; k < MAILS; k++)
		assert_true(l.acked[k]);
	uint64_t calls = fs_mem_calls(m, FS_ANY);
	fs_mem_free(m);
	assert_true(calls > 50);
	uint64_t states = 0;
	for (uint64_t at = 1; at <= calls + 2; at++) {
		for (unsigned s = 0; s < 2 + (with_dict ? 1 : 2) * rounds(); s++) {
			struct ledger r = {.trained = false};
			m = fresh();
			fs_mem_stop_at(m, at);
			load(m, &r);
			enum fs_crash how = s == 0   ? FS_CRASH_DROP
			                    : s == 1 ? FS_CRASH_KEEP
			                             : FS_CRASH_MIX;
			struct fs_mem *disk = fs_mem_crash(m, how, at * 131 + s);
			recover_and_check(disk, &r, "crash", at);
			fs_mem_free(m);
			fs_mem_free(disk);
			states++;
		}
	}
	print_message("%llu crash states\n", (unsigned long long)states);
}

static void
count_dicts(struct fs_mem *m, unsigned want)
{
	struct mw_err err = {0};
	struct mw_store *st = open_store(m, &err);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	unsigned dicts = 0, users = 0;
	assert_non_null(st);
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1) {
		dicts += r.type == MW_TYPE_DICT;
		users += r.type == MW_TYPE_MAIL && r.dict;
	}
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
	assert_int_equal(dicts, want);
	assert_int_equal(users, 4);
}

/* The same where dictionary records stand in the batches. */
static void
crash_with_a_dictionary(void **state)
{
	with_dict = true;
	struct fs_mem *m = fresh();
	struct ledger l = {.trained = false};
	load(m, &l);
	assert_true(l.trained);
	count_dicts(m, 4); /* two segments need it */
	fs_mem_free(m);
	crash_at_every_call(state);
	with_dict = false;
}

/* Fails call n of a kind, once or for ever; then the machine stops as well. */
static void
fail_every(enum fs_op op, int e, uint64_t times, const char *what)
{
	struct ledger all = {.trained = false};
	struct fs_mem *m = fresh();
	load(m, &all);
	uint64_t calls = fs_mem_calls(m, op);
	fs_mem_free(m);
	for (uint64_t at = 1; at <= calls; at++) {
		struct ledger l = {.trained = false};
		m = fresh();
		fs_mem_fail(m, op, at, e, times);
		load(m, &l);
		if (fs_mem_sins(m))
			fail_msg("%s at %llu: a failed descriptor was used again", what,
			         (unsigned long long)at);
		struct fs_mem *disk = fs_mem_crash(m, FS_CRASH_MIX, at);
		recover_and_check(disk, &l, what, at);
		fs_mem_free(m);
		fs_mem_free(disk);
	}
}

static void
writes_fail(void **state)
{
	(void)state;
	fail_every(FS_WRITE, EIO, 1, "EIO on a write");
	fail_every(FS_WRITE, ENOSPC, 0, "ENOSPC on writes");
}

static void
syncs_fail(void **state)
{
	(void)state;
	fail_every(FS_SYNC, EIO, 1, "EIO on a sync");
	fail_every(FS_SYNC, EIO, 0, "EIO on syncs");
	fail_every(FS_SYNC_DIR, EIO, 1, "EIO on a directory sync");
}

static void
opens_fail(void **state)
{
	(void)state;
	fail_every(FS_OPEN, EMFILE, 1, "EMFILE on an open");
	fail_every(FS_OTHER, EIO, 1, "EIO on a rename, unlink or truncate");
}

static void
failures_with_a_dictionary(void **state)
{
	(void)state;
	with_dict = true;
	fail_every(FS_WRITE, EIO, 1, "EIO on a write, dictionary");
	fail_every(FS_SYNC, EIO, 1, "EIO on a sync, dictionary");
	with_dict = false;
}

static void
service_comes_back(void **state)
{
	(void)state;
	struct fs_mem *m = fresh();
	struct mw_err err = {0};
	struct mw_store *st = open_store(m, &err);
	struct ledger l = {.trained = false};
	assert_non_null(st);
	l.acked[0] = append(st, 0, &l.seq[0]) == 0;
	assert_true(l.acked[0]);
	fs_mem_fail(m, FS_SYNC, 1, EIO, 0);
	for (unsigned k = 1; k < 4; k++)
		assert_true(append(st, k, &l.seq[k]) < 0);
	fs_mem_fail(m, FS_SYNC, 1, 0, 0); /* the disk is back */
	for (unsigned k = 4; k < 8; k++) {
		l.acked[k] = append(st, k, &l.seq[k]) == 0;
		assert_true(l.acked[k]);
	}
	fs_mem_free_space(m, 1000);
	struct mw_store_opts o = {.dir = journal};
	(void)o;
	assert_int_equal(append(st, 8, &l.seq[8]) < 0, 1);
	fs_mem_free_space(m, INT64_C(1) << 40);
	l.acked[9] = append(st, 9, &l.seq[9]) == 0;
	assert_true(l.acked[9]);
	check(st, &l, "after trouble", 0);
	mw_store_close(st);
	assert_int_equal(fs_mem_sins(m), 0);
	fs_mem_free(m);
}

/* Every byte of a small closed journal flipped: the record hit is refused or named, every
 * other one is served, and nothing wrong is ever served. */
static void
every_byte_flipped(void **state)
{
	(void)state;
	struct fs_mem *m = fresh();
	struct mw_err err = {0};
	struct mw_store *st = open_store(m, &err);
	struct ledger l = {.trained = false};
	for (unsigned k = 0; k < 3; k++)
		l.acked[k] = append(st, k, &l.seq[k]) == 0;
	mw_store_close(st);
	char path[PATH_MAX + 64];
	(void)snprintf(path, sizeof path, "%s/segments/0000000000000001.seg", journal);
	size_t n;
	uint8_t *p = fs_mem_bytes(m, path, &n);
	assert_non_null(p);
	for (size_t i = 0; i < n; i += i < 8192 ? 37 : 1) {
		p[i] ^= (uint8_t)(1U << (i % 8));
		struct mw_store_opts o = {.dir = journal,
		                          .mode = MW_STORE_READ,
		                          .fs = fs_mem_fs(m)};
		assert_int_equal(mw_store_open(&o, &st, &err), 0);
		MW_CURSOR_AUTO *c = NULL;
		struct mw_record r;
		unsigned good = 0;
		int k;
		assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
		while ((k = mw_cursor_next(c, &r, &err)) != 0) {
			MW_ARENA_AUTO *a = mw_arena_new(0);
			MW_BUF_AUTO got = {0};
			MW_BUF_AUTO want = {0};
			struct mw_mail mail;
			unsigned id = 0;
			if (k < 0 || r.type != MW_TYPE_MAIL)
				continue;
			if (mw_record_mail(st, &r, a, &mail, &err) < 0 ||
			    mw_record_content(st, &r, &mail, 1 << 20, &got, &err) < 0)
				continue;
			assert_int_equal(sscanf(mail.queue_id.p, "Q%u", &id), 1);
			content_of(id, &want);
			assert_int_equal(got.n, want.n);
			assert_memory_equal(got.p, want.p, want.n);
			good++;
		}
		if (good < (i < 8192 ? 3U : 2U)) /* a header block has its copy */
			fail_msg("byte %zu: only %u of 3 served", i, good);
		mw_cursor_free(MW_TAKE(c));
		mw_store_close(st);
		p[i] ^= (uint8_t)(1U << (i % 8));
	}
	fs_mem_free(m);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%s/mw-fault-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(journal, sizeof journal, "%.4000s", root);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char lock[PATH_MAX + 8];
	(void)snprintf(lock, sizeof lock, "%s/lock", root);
	(void)unlink(lock);
	return rmdir(root);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(crash_at_every_call),
	    cmocka_unit_test(writes_fail),
	    cmocka_unit_test(syncs_fail),
	    cmocka_unit_test(opens_fail),
	    cmocka_unit_test(crash_with_a_dictionary),
	    cmocka_unit_test(failures_with_a_dictionary),
	    cmocka_unit_test(service_comes_back),
	    cmocka_unit_test(every_byte_flipped),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
