/* However many threads look ahead, verify finds the same, in the same order, as one that
 * reads record after record: on a sound log, and on logs damaged in every way. Also the
 * window that they read through. MW_TEST_THREADS */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/base/window.h"
#include "journal/codec/hpke.h"
#include "journal/segment/segment.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum {
	MAILS = 900,
	ROUNDS = 24,
	SEGMENTS = 3
};

static char root[64], base[80], work[80];
static uint8_t public_key[MW_HPKE_KEY], secret_key[MW_HPKE_KEY];
static uint64_t dice = 7;

static uint64_t
roll(uint64_t n)
{
	return dice_roll(&dice, (uint32_t)n);
}

static struct mw_store *
open_as(const char *dir, enum mw_store_mode mode, bool key)
{
	struct mw_store_opts o = {.dir = dir,
	                          .mode = mode,
	                          .recovery = public_key,
	                          .n_recovery = mode == MW_STORE_WRITE,
	                          .secret = secret_key,
	                          .n_secret = key};
	return opened(&o);
}

static void
append(struct mw_store *st, unsigned k)
{
	static char noise[3 << 20];
	char to[40];
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	/* most small, some larger than all that is read at once */
	size_t n = k % 300 == 299 ? sizeof noise : k % 50 == 49 ? 90000 : roll(9000);
	for (size_t i = 0; i < n; i++)
		noise[i] = (char)(roll(4) ? roll(96) + 32 : 'x');
	(void)snprintf(to, sizeof to, "u%u@ahead.test", k % 11);
	struct mw_rcpt r = {.addr = mw_strz(to)};
	struct mw_mail m = {.time_us = 1000 + k, .rcpt = &r, .n_rcpt = 1};
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
	assert_int_equal(mw_entry_body(e, "Subject: x\r\n\r\n", 14, &err), 0);
	assert_int_equal(mw_entry_body(e, noise, n, &err), 0);
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	assert_int_equal(mw_entry_finish_mail(e, &m, &err), 0);
	assert_int_equal(mw_store_append(st, e, NULL, &err), 0);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-ahead-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(base, sizeof base, "%s/base", root);
	(void)snprintf(work, sizeof work, "%s/work", root);
	mw_random(secret_key, sizeof secret_key);
	assert_int_equal(mw_hpke_public(secret_key, public_key), 0);
	assert_int_equal(mw_store_create(base, NULL, NULL, &err), 0);
	struct mw_store *st = open_as(base, MW_STORE_WRITE, false);
	for (unsigned k = 0; k < MAILS; k++) {
		append(st, k);
		if (k % (MAILS / SEGMENTS) == MAILS / SEGMENTS - 1 && k + 1 < MAILS)
			assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

/* ---- what verify says, as text ---- */

static void
on_finding(void *arg, const struct mw_finding *f)
{
	mw_buf_printf(arg, "%s %llu %llu %llu-%llu %s\n", mw_finding_name(f->kind),
	              (unsigned long long)f->segment, (unsigned long long)f->offset,
	              (unsigned long long)f->first_seq, (unsigned long long)f->last_seq,
	              f->text);
}

static void
say(int threads, double sample, bool key, struct mw_buf *out)
{
	struct mw_store *st = open_as(work, MW_STORE_READ, key);
	struct mw_verify_opts o = {.sample = sample,
	                           .found = on_finding,
	                           .arg = out,
	                           .threads = threads};
	struct mw_verify_result r;
	struct mw_err err = {0};
	int answer = mw_verify_run(st, &o, &r, &err);
	char chain[65];
	mw_hex(chain, r.chain, 32);
	mw_buf_printf(out,
	              "%d: %llu segments %llu records %llu mails %llu contents %llu "
	              "bytes %llu-%llu %llu signed %s %s\n",
	              answer, (unsigned long long)r.segments,
	              (unsigned long long)r.records, (unsigned long long)r.mails,
	              (unsigned long long)r.contents, (unsigned long long)r.bytes,
	              (unsigned long long)r.first_seq, (unsigned long long)r.last_seq,
	              (unsigned long long)r.signed_segments, chain, err.msg);
	for (int k = 0; k <= MW_FINDING_PENDING; k++)
		mw_buf_printf(out, " %llu", (unsigned long long)r.findings[k]);
	mw_store_close(st);
}

/* Returns whether something was found. */
static bool
all_say_the_same(const char *what, double sample, bool key)
{
	static const int threads[] = {1, 2, 5};
	MW_BUF_AUTO plain = {0};
	say(MW_VERIFY_PLAIN, sample, key, &plain);
	for (size_t i = 0; i < MW_COUNT(threads); i++) {
		MW_BUF_AUTO got = {0};
		say(threads[i], sample, key, &got);
		if (strcmp(mw_buf_cstr(&got), mw_buf_cstr(&plain)) != 0)
			fail_msg("%s, %d threads:\n%s\n--- but one record after the "
			         "other:\n%s",
			         what, threads[i], mw_buf_cstr(&got),
			         mw_buf_cstr(&plain));
	}
	return strncmp(mw_buf_cstr(&plain), "0:", 2) != 0;
}

/* ---- damage ---- */

static int
open_segment(unsigned number)
{
	char path[PATH_MAX];
	mw_seg_path(path, sizeof path, work, number);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* A place in a segment: somewhere, or of a frame. */
static off_t
place(int fd, unsigned number, bool of_frame)
{
	struct stat sb;
	assert_int_equal(fstat(fd, &sb), 0);
	off_t at = (off_t)roll((uint64_t)sb.st_size - 300);
	if (!of_frame)
		return at;
	struct mw_seg *s = NULL;
	struct mw_frame f;
	uint64_t off = 0;
	assert_int_equal(mw_seg_open(mw_fs_posix(), work, number, NULL, &s, NULL), 0);
	if (mw_seg_find(s, (uint64_t)at, UINT64_MAX, 0, &off, &f, NULL) != 1)
		off = s->h.length;
	mw_seg_free(s);
	return (off_t)off;
}

static const char *
hurt(unsigned k)
{
	static uint8_t bytes[70000];
	static const char *const how[] = {"a bit", "a frame header",        "a slot",
	                                  "zeros", "another frame's bytes", "a cut"};
	unsigned number = 1 + (unsigned)roll(SEGMENTS), what = k % MW_COUNT(how);
	int fd = open_segment(number);
	off_t at = place(fd, number, what == 1 || what == 2);
	uint8_t b;
	if (what <= 2) {
		at += what == 1   ? (off_t)roll(MW_FRAME_HEADER)
		      : what == 2 ? MW_FRAME_HEADER + (off_t)roll(72)
		                  : 0;
		assert_int_equal(pread(fd, &b, 1, at), 1);
		b ^= (uint8_t)(1U << roll(8));
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
	} else if (what == 3) {
		size_t n = roll(sizeof bytes);
		memset(bytes, 0, n);
		assert_int_equal(pwrite(fd, bytes, n, at), n);
	} else if (what == 4) {
		off_t from = place(fd, number, true), to = place(fd, number, true);
		ssize_t n = pread(fd, bytes, 5000, from);
		assert_true(n > 0);
		assert_int_equal(pwrite(fd, bytes, (size_t)n, to), n);
	} else {
		assert_int_equal(ftruncate(fd, at), 0);
	}
	assert_int_equal(close(fd), 0);
	return how[what];
}

static void
sound(void **state)
{
	(void)state;
	shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
	assert_false(all_say_the_same("sound", 100, true));
	assert_false(all_say_the_same("sound, some", 30, true));
	assert_false(all_say_the_same("sound, without the key", 100, false));
}

static void
damaged(void **state)
{
	(void)state;
	unsigned found = 0;
	for (unsigned k = 0; k < ROUNDS; k++) {
		const char *what = "";
		shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
		for (uint64_t n = 1 + roll(k % 7 == 6 ? 60 : 3); n > 0; n--)
			what = hurt(k);
		found += all_say_the_same(what, k % 2 ? 100 : 20, k % 3 > 0);
	}
	assert_true(found > ROUNDS * 3 / 4);
}

/* The index lacks what is in the log: told in the same order, too. */
static void
other_index(void **state)
{
	(void)state;
	struct mw_err err = {0};
	shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
	struct mw_store *st = open_as(work, MW_STORE_WRITE, false);
	append(st, 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	mw_store_close(st);
	shell("rm -rf '%s/index' && cp -a '%s/index' '%s/index'", work, base, work);
	assert_false(all_say_the_same("an older index", 0, true));
	int fd = open_segment(1); /* a record that the index has */
	off_t at = place(fd, 1, true);
	assert_int_equal(pwrite(fd, "XXXXXXXX", 8, at), 8);
	assert_int_equal(close(fd), 0);
	assert_true(all_say_the_same("an older index, and damage", 0, true));
}

/* ---- the window ---- */

static void
window_reads(void **state)
{
	(void)state;
	char path[100];
	static uint8_t file[400000], got[70000];
	(void)snprintf(path, sizeof path, "%s/window", root);
	for (size_t i = 0; i < sizeof file; i++)
		file[i] = (uint8_t)roll(256);
	int w = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	size_t size = 200000;
	assert_int_equal(pwrite(w, file, size, 0), size);
	MW_WINDOW_AUTO *win = mw_window_new(mw_fs_posix(), 65536);
	const struct mw_fs *fs = mw_window_fs(win);
	int fd = fs->open(fs, path, MW_OPEN_READ);
	assert_true(fd >= 0);
	assert_int_equal(fs->open(fs, path, MW_OPEN_READ), fd);
	assert_int_equal(fs->close(fs, fd), 0);
	for (unsigned k = 0; k < 3000; k++) {
		uint64_t off = roll(size + 1000);
		size_t n = roll(k % 10 ? 500 : sizeof got);
		if (k == 1000) { /* it grows: what was not there before is seen */
			assert_int_equal(pwrite(w, file, sizeof file, 0), sizeof file);
			size = sizeof file;
		}
		int64_t r = fs->pread(fs, fd, got, n, off);
		int64_t want = off >= size ? 0 : (int64_t)MW_MIN((uint64_t)n, size - off);
		assert_int_equal(r, want);
		assert_memory_equal(got, file + off, (size_t)MW_MAX(want, 0));
	}
	/* what was read stays so until it is forgotten */
	assert_int_equal(fs->pread(fs, fd, got, 8, 5000), 8);
	assert_int_equal(pwrite(w, "changed!", 8, 5000), 8);
	assert_int_equal(fs->pread(fs, fd, got, 8, 5000), 8);
	assert_memory_equal(got, file + 5000, 8);
	mw_window_forget(win);
	assert_int_equal(fs->pread(fs, fd, got, 8, 5000), 8);
	assert_memory_equal(got, "changed!", 8);
	mw_window_show(win, fd, 9000, "shown", 5);
	assert_int_equal(fs->pread(fs, fd, got, 5, 9000), 5);
	assert_memory_equal(got, "shown", 5);
	assert_int_equal(fs->close(fs, fd), 0);
	assert_int_equal(close(w), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(window_reads),
	    cmocka_unit_test(sound),
	    cmocka_unit_test(damaged),
	    cmocka_unit_test(other_index),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
