/* Verify finds what was done to a log: damage, a missing segment, a cut tail, a rewritten
 * or re-signed history; and finds nothing in a sound one. */
#include "journal/verify/verify.h"

#include "journal/base/util.h"
#include "journal/segment/segment.h"
#include "journal/verify/checkpoint.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], dir[128];

static int
shell(const char *fmt, ...)
{
	char cmd[1000];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	return system(cmd);
}

static struct mw_store *
open_as(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}

static void
append(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	char text[64];
	int n = snprintf(text, sizeof text, "Subject: %u\r\n\r\nbody %u\r\n", k, k);
	struct mw_mail m = {.time_us = 1000 + k};
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
	assert_int_equal(mw_entry_body(e, text, (size_t)n, &err), 0);
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	assert_int_equal(mw_entry_finish_mail(e, &m, &err), 0);
	assert_int_equal(mw_store_append(st, e, NULL, &err), 0);
}

/* Three closed segments of four mails each. */
static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-verify-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (unsigned k = 0; k < 12; k++) {
		append(st, k);
		if (k % 4 == 3)
			assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	return shell("rm -rf '%s'", root);
}

static struct mw_verify_result
verify(const struct mw_checkpoint *c, size_t n, int want)
{
	struct mw_store *st = open_as(MW_STORE_READ);
	struct mw_verify_opts o = {.sample = 100, .checkpoint = c, .n_checkpoint = n};
	struct mw_verify_result r;
	struct mw_err err = {0};
	int got = mw_verify_run(st, &o, &r, &err);
	if (got != want)
		fail_msg("answer %d, not %d: %s", got, want, err.msg);
	mw_store_close(st);
	return r;
}

static void
take_checkpoint(uint64_t below, struct mw_checkpoint *ret)
{
	struct mw_store *st = open_as(MW_STORE_READ);
	struct mw_record rec;
	struct mw_err err = {0};
	MW_BUF_AUTO note = {0};
	assert_int_equal(mw_store_last(st, below, &rec, &err), 1);
	if (mw_checkpoint_make(st, &rec, 1700000000000000, &note, &err) < 0)
		fail_msg("%s", err.msg);
	struct mw_str text = mw_buf_str(&note);
	const uint8_t *pk = mw_store_sign_public(st);
	if (mw_checkpoint_parse(text, pk, ret, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(ret->seq, rec.seq);
	assert_int_equal(ret->time_us, 1700000000000000);
	assert_memory_equal(ret->chain, rec.chain, 32);
	for (size_t i = 0; i < note.n; i++) { /* every altered note is refused */
		struct mw_checkpoint x;
		note.p[i] ^= 1;
		if (mw_checkpoint_parse(mw_buf_str(&note), pk, &x, &err) == 0)
			fail_msg("altered byte %zu is accepted", i);
		note.p[i] ^= 1;
	}
	mw_store_close(st);
}

static void
sound(void **state)
{
	(void)state;
	struct mw_checkpoint c[2];
	take_checkpoint(UINT64_MAX, &c[0]);
	take_checkpoint(6, &c[1]);
	assert_int_equal(c[1].seq, 5);
	struct mw_verify_result r = verify(c, 2, 0);
	assert_int_equal(r.segments, 3);
	assert_int_equal(r.signed_segments, 3);
	assert_int_equal(r.mails, 12);
	assert_int_equal(r.contents, 12);
	assert_int_equal(r.anchored_seq, 15);
	assert_int_equal(verify(NULL, 0, 0).anchored_seq, 0);
}

static void
missing_segments(void **state)
{
	(void)state;
	struct mw_checkpoint c;
	take_checkpoint(UINT64_MAX, &c);
	(void)shell("mv '%s/segments/0000000000000002.seg' '%s/'", dir, root);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_MISSING], 1);
	(void)shell("mv '%s/0000000000000002.seg' '%s/segments/'", root, dir);
	(void)shell("mv '%s/segments/0000000000000001.seg' '%s/'", dir, root);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_MISSING], 1);
	(void)shell("mv '%s/0000000000000001.seg' '%s/segments/'", root, dir);
	(void)shell("mv '%s/segments/0000000000000003.seg' '%s/'", dir, root);
	/* the index saw more … */
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_INDEX], 1);
	(void)shell("rm -rf '%s'/index/*", dir);
	(void)verify(NULL, 0, 0); /* … without it nobody can tell … */
	assert_int_equal(verify(&c, 1, 1).findings[MW_FINDING_CHECKPOINT],
	                 1); /* … but this */
}

static void
rewritten_history(void **state)
{
	(void)state;
	struct mw_checkpoint c;
	take_checkpoint(UINT64_MAX, &c);
	/* The owner of the host makes up another past, with the journal's own keys. */
	(void)shell("rm -rf '%s'/segments/*.seg '%s'/index/*", dir, dir);
	struct mw_err err = {0};
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (unsigned k = 0; k < 20; k++) {
		append(st, k + 100);
		if (k % 4 == 3)
			assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
	(void)verify(NULL, 0, 0);
	assert_int_equal(verify(&c, 1, 1).findings[MW_FINDING_CHECKPOINT], 1);
}

static void
every_bit_of_a_trailer(void **state)
{
	(void)state;
	char path[256];
	(void)snprintf(path, sizeof path, "%s/segments/0000000000000002.seg", dir);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	off_t size = lseek(fd, 0, SEEK_END);
	for (off_t at = size - MW_SEG_TRAILER; at < size; at += 3) {
		uint8_t b;
		assert_int_equal(pread(fd, &b, 1, at), 1);
		b ^= 4;
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
		/* the segment counts as its successor says, and that it was closed */
		struct mw_verify_result r = verify(NULL, 0, 1);
		assert_int_equal(r.findings[MW_FINDING_DAMAGED], 1);
		assert_int_equal(r.signed_segments, 2);
		assert_int_equal(r.mails, 12);
		b ^= 4;
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
	}
	(void)close(fd);
	(void)verify(NULL, 0, 0);
}

static void
foreign_signing_key(void **state)
{
	(void)state;
	/* segments re-signed with another key: the journal's public key says no */
	(void)shell("sed -i 's/^sign_public = .*/sign_public = %064d/' '%s/journal'", 7,
	            dir);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_SIGNATURE], 3);
}

static void
scratch(unsigned segment, off_t at)
{
	char path[256];
	(void)snprintf(path, sizeof path, "%s/segments/%016x.seg", dir, segment);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "scratch", 7, at), 7);
	(void)close(fd);
}

/* Either header block will do; only both together cost a segment. */
static void
header_and_its_copy(void **state)
{
	(void)state;
	static const off_t places[] = {0, 8, 100, 4000};
	for (unsigned i = 0; i < MW_COUNT(places); i++) {
		scratch(2, places[i]);
		struct mw_verify_result r = verify(NULL, 0, 1);
		assert_int_equal(r.mails, 12);
		assert_int_equal(r.findings[MW_FINDING_DAMAGED], 1);
	}
	scratch(3, 4096 + 50); /* the copy, of the newest: opening for writing goes on */
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_DAMAGED], 2);
	struct mw_store *st = open_as(MW_STORE_WRITE);
	append(st, 99);
	mw_store_close(st);
	assert_int_equal(verify(NULL, 0, 1).mails, 13);
	scratch(2, 4096 + 8);
	struct mw_verify_result r = verify(NULL, 0, 1);
	assert_int_equal(r.mails, 9);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	    T(sound),
	    T(missing_segments),
	    T(rewritten_history),
	    T(every_bit_of_a_trailer),
	    T(foreign_signing_key),
	    T(header_and_its_copy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
