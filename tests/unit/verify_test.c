/* Verify finds what was done to a log: damage, a missing segment, a cut tail, a rewritten
 * or re-signed history; and finds nothing in a sound one. */
#include "journal/verify/verify.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/segment/segment.h"
#include "journal/verify/checkpoint.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], dir[128];

static struct mw_store *
open_as(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode};
	return opened(&o);
}

static void
append(struct mw_store *st, unsigned k)
{
	char text[64];
	int n = snprintf(text, sizeof text, "Subject: %u\r\n\r\nbody %u\r\n", k, k);
	struct mw_mail m = {.time_us = 1000 + k};
	(void)journaled(st, &m, text, (size_t)n, NULL);
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
	shell("rm -rf '%s'", root);
	return 0;
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
	shell("mv '%s/segments/0000000000000002.seg' '%s/'", dir, root);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_MISSING], 1);
	shell("mv '%s/0000000000000002.seg' '%s/segments/'", root, dir);
	shell("mv '%s/segments/0000000000000001.seg' '%s/'", dir, root);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_MISSING], 1);
	shell("mv '%s/0000000000000001.seg' '%s/segments/'", root, dir);
	shell("mv '%s/segments/0000000000000003.seg' '%s/'", dir, root);
	/* the index saw more … */
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_INDEX], 1);
	shell("rm -rf '%s'/index/*", dir);
	(void)verify(NULL, 0, 0); /* … without it nobody can tell … */
	assert_int_equal(verify(&c, 1, 1).findings[MW_FINDING_CHECKPOINT],
	                 1); /* … but this */
}

/* Each way to take something back, done with what the host itself holds: its index is
 * made anew and its signing key is used. What verify says alone, and with a checkpoint.
 */
static void
taken_back(void **state)
{
	(void)state;
	static const struct {
		const char *name, *how;
		int alone;
		enum mw_finding_kind kind; /* with the checkpoint */
	} cases[] = {
	    {"the last segment cut off", "rm 3.seg", 0, MW_FINDING_CHECKPOINT},
	    {"all but the first", "rm 2.seg 3.seg", 0, MW_FINDING_CHECKPOINT},
	    {"the last one cut in half", "truncate -s 9000 3.seg", 0,
	     MW_FINDING_CHECKPOINT},
	    {"the first missing", "rm 1.seg", 1, MW_FINDING_MISSING},
	    {"one in the middle missing", "rm 2.seg", 1, MW_FINDING_MISSING},
	    {"an epoch deleted, the next in its place", "mv 3.seg 2.seg", 1,
	     MW_FINDING_DAMAGED},
	    {"two swapped", "mv 2.seg x && mv 3.seg 2.seg && mv x 3.seg", 1,
	     MW_FINDING_DAMAGED},
	    {"rolled back to an older copy", "rm 2.seg 3.seg && cp old 2.seg", 0,
	     MW_FINDING_CHECKPOINT},
	};
	struct mw_checkpoint c;
	take_checkpoint(UINT64_MAX, &c);
	/* An older copy: the second segment as it was when its first mail had come. */
	shell("head -c 10000 '%s/segments/0000000000000002.seg' >'%s/old'", dir, root);
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		shell("rm -rf '%s'/index/* '%s/keep' && cp -a '%s/segments' "
		      "'%s/keep' && mkdir '%s/x' && cd '%s/x' && for n in 1 2 3; do "
		      "mv '%s'/segments/000000000000000$n.seg $n.seg; done; cp "
		      "../old . && %s; for f in *.seg; do mv $f "
		      "'%s'/segments/000000000000000$f; done; rm -rf '%s/x'",
		      dir, root, dir, root, root, root, dir, cases[i].how, dir, root);
		print_message("%s\n", cases[i].name);
		(void)verify(NULL, 0, cases[i].alone);
		assert_true(verify(&c, 1, 1).findings[cases[i].kind] > 0);
		assert_true(verify(&c, 1, 1).findings[MW_FINDING_CHECKPOINT] > 0 ||
		            cases[i].alone);
		shell("rm -rf '%s/segments' && mv '%s/keep' '%s/segments'", dir, root,
		      dir);
	}
	(void)verify(&c, 1, 0);
}

/* A key slot wiped by hand, its checksum made to fit: nothing else has changed. */
static void
wiped_without_a_tombstone(void **state)
{
	(void)state;
	struct mw_checkpoint c;
	take_checkpoint(UINT64_MAX, &c);
	struct mw_store *st = open_as(MW_STORE_READ);
	struct mw_record r;
	struct mw_err err = {0};
	char path[256];
	assert_int_equal(mw_store_last(st, 8, &r, &err), 1);
	mw_store_close(st);
	MW_AUTOFREE uint8_t *slot = calloc(1, r.slot_len);
	slot[4] = MW_SLOT_WIPED;
	mw_put32(slot, mw_crc32c(0, slot + 4, r.slot_len - 4));
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", dir,
	               (unsigned long long)r.loc.segment);
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, slot, r.slot_len,
	                        (off_t)r.loc.offset + MW_FRAME_HEADER),
	                 r.slot_len);
	(void)close(fd);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_WIPED], 1);
	assert_int_equal(verify(&c, 1, 1).findings[MW_FINDING_WIPED], 1);
}

static void
rewritten_history(void **state)
{
	(void)state;
	struct mw_checkpoint c;
	take_checkpoint(UINT64_MAX, &c);
	/* The owner of the host makes up another past, with the journal's own keys. */
	shell("rm -rf '%s'/segments/*.seg '%s'/index/*", dir, dir);
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
	shell("sed -i 's/^sign_public = .*/sign_public = %064d/; /^check/d' '%s/journal'",
	      7, dir);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_SIGNATURE], 3);
}

/* Of the file that makes it a journal: holds and marks open with a key in it. */
static void
every_byte_of_the_identity(void **state)
{
	(void)state;
	char path[256];
	struct stat sb;
	struct mw_err err = {0};
	(void)snprintf(path, sizeof path, "%s/journal", dir);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &sb), 0);
	for (off_t at = 0; at < sb.st_size; at++) {
		uint8_t b, x;
		assert_int_equal(pread(fd, &b, 1, at), 1);
		x = b ^ (uint8_t)(1 << at % 8);
		assert_int_equal(pwrite(fd, &x, 1, at), 1);
		struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_READ};
		struct mw_store *st = NULL;
		if (mw_store_open(&o, &st, &err) == 0)
			fail_msg("byte %lld: nobody noticed", (long long)at);
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
	}
	(void)close(fd);
	(void)verify(NULL, 0, 0);
}

/* A journal that was made before that file had a check. */
static void
identity_without_check(void **state)
{
	(void)state;
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_READ};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	shell("sed -i /^check/d '%s/journal'", dir);
	(void)verify(NULL, 0, 0);
	shell("cp '%s/journal' '%s/whole'", dir, root);
	shell("sed -i s/^sign_public/sign-public/ '%s/journal'", dir);
	assert_int_equal(mw_store_open(&o, &st, &err), MW_EDAMAGED);
	shell("cp '%s/whole' '%s/journal'", root, dir);
	shell("sed -i 's/^token_key = .*/token_key = %064d/' '%s/journal'", 7, dir);
	assert_int_equal(verify(NULL, 0, 1).findings[MW_FINDING_CONTENT], 15);
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
	    T(taken_back),
	    T(wiped_without_a_tombstone),
	    T(rewritten_history),
	    T(every_bit_of_a_trailer),
	    T(foreign_signing_key),
	    T(every_byte_of_the_identity),
	    T(identity_without_check),
	    T(header_and_its_copy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
