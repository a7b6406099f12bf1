/* Keys added to old segments: they open, they are proven, damage to them costs nothing
 * else, a crash while they are written neither, and they go with their segment. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/fs_mem.h"
#include "tests/support/shell.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	OLD,
	NEW,
	OTHER,
	KEYS
};

static char root[64], dir[128];
static uint8_t sk[KEYS][32], pk[KEYS][32];
static const char content[] = "Subject: s\r\n\r\nhidden\r\n";

static struct mw_store *
open_with(const struct mw_fs *fs, int key)
{
	struct mw_store_opts o = {.dir = dir,
	                          .fs = fs,
	                          .no_index = true,
	                          .segment_size = 65536};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (key < 0) {
		o.mode = MW_STORE_WRITE;
		o.recovery = pk[OLD];
		o.n_recovery = 1;
	} else {
		o.secret = sk[key];
		o.n_secret = 1;
	}
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}

/* Three segments with a mail each. */
static void
fill(const struct mw_fs *fs)
{
	struct mw_err err = {0};
	assert_int_equal(mw_store_create(dir, fs, NULL, &err), 0);
	struct mw_store *st = open_with(fs, -1);
	for (int i = 0; i < 3; i++) {
		struct mw_mail m = {.time_us = 1000 + i};
		(void)journaled(st, &m, content, sizeof content - 1, NULL);
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
}

/* How many mails this key reads. */
static unsigned
readable(const struct mw_fs *fs, int key)
{
	struct mw_store *st = open_with(fs, key);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned n = 0;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1) {
		MW_BUF_AUTO got = {0};
		if (r.type != MW_TYPE_MAIL)
			continue;
		int e = mw_record_content(st, &r, NULL, 1 << 20, &got, &err);
		assert_true(e == 0 || e == MW_EKEY);
		n += e == 0;
	}
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
	return n;
}

static int
rewrap(const struct mw_fs *fs, int with, int to, uint64_t segment)
{
	struct mw_store *st = open_with(fs, with);
	struct mw_err err = {0};
	int r = mw_store_rewrap(st, segment, pk[to], 1, &err);
	mw_store_close(st);
	return r;
}

static uint64_t
verify(int key, int want)
{
	struct mw_store *st = open_with(NULL, key);
	struct mw_verify_opts o = {.sample = 100};
	struct mw_verify_result r;
	struct mw_err err = {0};
	assert_int_equal(mw_verify_run(st, &o, &r, &err), want);
	mw_store_close(st);
	return r.findings[MW_FINDING_DAMAGED];
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-rewrap-XXXXXX");
	assert_non_null(mkdtemp(root));
	for (int i = 0; i < KEYS; i++) {
		char path[100];
		(void)snprintf(path, sizeof path, "%s/key%d", root, i);
		assert_int_equal(mw_keyring_new(path, MW_STR(""), pk[i], &err), 0);
		assert_int_equal(mw_keyring_load_secret(path, MW_STR(""), sk[i], &err),
		                 0);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[100];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

static void
opens_to_the_new_key(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "%s/opens", root);
	fill(NULL);
	assert_int_equal(readable(NULL, NEW), 0);
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 1);
	assert_int_equal(rewrap(NULL, OLD, NEW, 2), 1);
	assert_int_equal(readable(NULL, NEW), 2);
	assert_int_equal(readable(NULL, OLD), 3);
	assert_int_equal(readable(NULL, OTHER), 0);
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 0); /* it does already */
	assert_int_equal(rewrap(NULL, OLD, OLD, 1), 0);
	assert_int_equal(rewrap(NULL, OTHER, OTHER, 1), MW_EKEY);
	/* The new key alone is enough for a third, and the second still opens. */
	assert_int_equal(rewrap(NULL, NEW, OTHER, 1), 1);
	assert_int_equal(readable(NULL, OTHER), 1);
	assert_int_equal(readable(NULL, NEW), 2);
	assert_int_equal(verify(OLD, 0), 0);
	assert_int_equal(verify(NEW, 0), 0);
	assert_int_equal(verify(OTHER, 0), 0);
}

static FILE *
open_added(uint64_t segment, const char *how)
{
	char path[200];
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.keys", dir,
	               (unsigned long long)segment);
	return fopen(path, how);
}

static size_t
load_added(uint64_t segment, uint8_t *p, size_t n)
{
	FILE *f = open_added(segment, "r");
	assert_non_null(f);
	n = fread(p, 1, n, f);
	fclose(f);
	return n;
}

static void
save_added(uint64_t segment, const uint8_t *p, size_t n)
{
	FILE *f = open_added(segment, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	fclose(f);
}

/* Whatever stands in the file: the old key reads all, nothing false is read, and it is
 * named. */
static void
damage_costs_nothing_else(void **state)
{
	(void)state;
	uint8_t p[400], q[400];
	(void)snprintf(dir, sizeof dir, "%s/damage", root);
	fill(NULL);
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 1);
	size_t n = load_added(1, p, sizeof p);
	assert_int_equal(n, 88 + 92);
	for (size_t i = 0; i < n; i++) {
		memcpy(q, p, n);
		q[i] ^= 4;
		save_added(1, q, n);
		assert_int_equal(readable(NULL, NEW), 0);
		assert_int_equal(readable(NULL, OLD), 3);
		if (i % 6 == 0)
			assert_int_equal(verify(OLD, 1), 1);
	}
	for (size_t i = 0; i < n; i += 7) { /* cut short */
		save_added(1, p, i);
		assert_int_equal(readable(NULL, NEW), 0);
		assert_int_equal(verify(OLD, 1), 1);
	}
	save_added(2, p, n); /* of another segment */
	save_added(1, p, n);
	assert_int_equal(verify(OLD, 1), 1);
	assert_int_equal(readable(NULL, NEW), 1);
}

/* Who only has public keys can wrap a key of his own: it is not believed. */
static void
a_forged_stanza_is_not_believed(void **state)
{
	(void)state;
	uint8_t p[400], aad[40], key[32];
	(void)snprintf(dir, sizeof dir, "%s/forged", root);
	fill(NULL);
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 1);
	size_t n = load_added(1, p, sizeof p);
	memcpy(aad, p + 16, 40); /* journal, salt, number */
	mw_random(key, sizeof key);
	struct mw_hpke_in in = {MW_HPKE_AES256, MW_STR("mailwal segment key 1"),
	                        mw_str((char *)aad, sizeof aad), NULL};
	assert_int_equal(mw_hpke_seal(&in, pk[NEW], mw_str((char *)key, 32), p + 100,
	                              p + 132),
	                 0);
	mw_put32(p + 8, mw_crc32c(0, p + 12, n - 12));
	save_added(1, p, n);
	assert_int_equal(readable(NULL, NEW), 0); /* not: 1 that does not authenticate */
	assert_int_equal(verify(OLD, 1), 1);
	assert_int_equal(verify(NEW, 0), 0); /* needs a key that opens the segment */
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 1); /* made anew */
	assert_int_equal(readable(NULL, NEW), 1);
	assert_int_equal(verify(OLD, 0), 0);
}

static void
goes_with_its_segment(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(dir, sizeof dir, "%s/goes", root);
	fill(NULL);
	assert_int_equal(rewrap(NULL, OLD, NEW, 1), 1);
	struct mw_store *st = open_with(NULL, -1);
	static const uint64_t both[] = {1, 2}; /* the second has none */
	assert_int_equal(mw_store_remove(st, both, 2, &err), 0);
	mw_store_close(st);
	assert_null(open_added(1, "r"));
	assert_int_equal(readable(NULL, OLD), 1);
}

/* Stopped at any call: all is as before, or done; and it can be done again. */
static void
crash_at_every_call(void **state)
{
	(void)state;
	static const enum fs_crash how[] = {FS_CRASH_DROP, FS_CRASH_KEEP, FS_CRASH_MIX};
	bool before = false, after = false;
	(void)snprintf(dir, sizeof dir, "%s", root); /* real for the lock file alone */
	for (uint64_t at = 0; at < 14; at++) {
		for (size_t k = 0; k < MW_COUNT(how); k++) {
			struct fs_mem *m = fs_mem_new();
			fill(fs_mem_fs(m));
			assert_int_equal(fs_mem_fs(m)->sync_dir(fs_mem_fs(m), dir), 0);
			struct mw_store *st = open_with(fs_mem_fs(m), OLD);
			struct mw_err err = {0};
			fs_mem_stop_at(m, 1 + at);
			int r = mw_store_rewrap(st, 2, pk[NEW], 1, &err);
			mw_store_close(st);
			struct fs_mem *disk = fs_mem_crash(m, how[k], at * 17 + k);
			const struct mw_fs *fs = fs_mem_fs(disk);
			unsigned n = readable(fs, NEW);
			assert_true(n == 1 || (n == 0 && r != 1));
			before = before || n == 0;
			after = after || n == 1;
			assert_int_equal(readable(fs, OLD), 3);
			assert_int_equal(rewrap(fs, OLD, NEW, 2), n == 0);
			assert_int_equal(readable(fs, NEW), 1);
			fs_mem_free(m);
			fs_mem_free(disk);
		}
	}
	assert_true(before && after);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(opens_to_the_new_key),
	    cmocka_unit_test(damage_costs_nothing_else),
	    cmocka_unit_test(a_forged_stanza_is_not_believed),
	    cmocka_unit_test(goes_with_its_segment),
	    cmocka_unit_test(crash_at_every_call),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
