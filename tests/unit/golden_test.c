/* Journals written by released versions stay readable for ever: tests/golden/vN holds
 * small ones, and what must come out of them. MW_GOLDEN_MAKE=DIR writes those that are
 * not there, with this version, for the next vN.
 *
 * In each: mails 0 … 9 in two closed segments, marks, and a third segment that was not
 * closed and ends in a torn frame. In `dictionary`: two dictionary records and what was
 * compressed with them. `names`: one person in several forms, and somebody else. v1 is
 * minor version 0, v1.1 minor version 1 (FORMAT.md I23). */
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 10
};

static void
content_of(unsigned k, struct mw_buf *out)
{
	uint64_t x = k + 1;
	mw_buf_printf(
	    out,
	    "Received: from a by b id Q%u;\r\n\tMon\r\nSubject: =?utf-8?q?N=C2=BA_%u"
	    "?=\r\nMessage-ID: <%u@golden.test>\r\nFrom: a%u@golden.test\r\n\r\n",
	    k, k, k, k);
	size_t n = k == 3 ? 70000 : (size_t)k * 97;
	for (size_t i = 0; i < n; i++) {
		(void)dice_next(&x);
		mw_buf_putc(out,
		            k == 7 ? (char)(x >> 40) : (char)("ab \r\n"[(x >> 40) % 5]));
	}
}

/* ---- reading ---- */

static void
check_mail(struct mw_store *st, const struct mw_record *r, bool seen[MAILS])
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO want = {0};
	MW_BUF_AUTO got = {0};
	struct mw_err err = {0};
	struct mw_mail m;
	unsigned k = MAILS;
	if (mw_record_mail(st, r, a, &m, &err) < 0 ||
	    mw_record_content(st, r, &m, 1 << 20, &got, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(sscanf(m.queue_id.p, "Q%u", &k), 1);
	assert_true(k < MAILS && !seen[k]);
	seen[k] = true;
	content_of(k, &want);
	assert_int_equal(got.n, want.n);
	assert_memory_equal(got.p, want.p, want.n);
	assert_int_equal(m.time_us, 1700000000000000 + k);
	assert_int_equal(m.n_rcpt, 2);
	assert_true(mw_str_eq(m.rcpt[0].addr, MW_STR("one@golden.test")));
	assert_true(mw_str_eq(m.rcpt[0].args, MW_STR("NOTIFY=NEVER")));
	assert_int_equal(m.rcpt[0].flags, MW_RCPT_LOCAL | MW_RCPT_EXPANDED);
	assert_int_equal(m.rcpt[0].n_mailbox, 1);
	assert_true(mw_str_eq(m.rcpt[0].mailbox[0], MW_STR("box@golden.test")));
	assert_true(mw_str_eq(m.client_addr, MW_STR("192.0.2.1")));
	assert_int_equal(m.direction, k % 3);
}

static int
found_one(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return 0;
}

static void
check(const char *dir, const uint8_t *secret)
{
	struct mw_store_opts o = {.dir = dir,
	                          .secret = secret,
	                          .n_secret = secret ? 1 : 0};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s: %s", dir, err.msg);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	bool seen[MAILS] = {false};
	unsigned marks = 0, n = 0;
	int k;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		if (r.type == MW_TYPE_MAIL)
			check_mail(st, &r, seen);
		marks += r.type == MW_TYPE_MARK;
	}
	if (k < 0)
		fail_msg("%s: %s", dir, err.msg);
	for (unsigned i = 0; i < MAILS; i++)
		assert_true(seen[i]);
	assert_int_equal(marks, 2);
	assert_int_equal(mw_store_find(st, MW_KEY_RCPT, MW_STR("box@golden.test"),
	                               found_one, &n, &err),
	                 0);
	assert_int_equal(n, MAILS);
	struct mw_verify_opts vo = {.sample = 100};
	struct mw_verify_result res;
	assert_int_equal(mw_verify_run(st, &vo, &res, &err), 0);
	assert_int_equal(res.contents, MAILS);
	assert_int_equal(res.signed_segments, 2);
	assert_int_equal(res.findings[MW_FINDING_UNDECIDED], 1); /* the torn frame */
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
}

/* ---- dictionary: sixteen mails, then eight that are compressed with one ---- */

enum {
	LEARNT = 16,
	WITH_DICT = 8
};

static void
dict_content_of(unsigned k, struct mw_buf *out)
{
	static const char *const words[] = {"Here is what everybody gets to read",
	                                    "The quick brown fox jumps again",
	                                    "Pack my box with five dozen jugs",
	                                    "How vexingly quick daft zebras jump",
	                                    "Sphinx of black quartz, judge my vow",
	                                    "Jackdaws love my big sphinx of quartz"};
	uint64_t x = k + 1;
	mw_buf_printf(out, "From: a%u@golden.test\r\nSubject: Report %u\r\n\r\n", k, k);
	for (unsigned i = 0; i < 12; i++) {
		(void)dice_next(&x);
		mw_buf_printf(out, "%s, and what is new in line %u: %llx\r\n",
		              words[i % 6], i, (unsigned long long)x);
	}
}

static void
check_dict(const char *dir, const uint8_t *secret)
{
	struct mw_store_opts o = {.dir = dir, .secret = secret, .n_secret = 1};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	unsigned mails = 0, dicts = 0, with = 0;
	int k;
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s: %s", dir, err.msg);
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO want = {0};
		MW_BUF_AUTO got = {0};
		struct mw_mail m;
		dicts += r.type == MW_TYPE_DICT;
		if (r.type != MW_TYPE_MAIL)
			continue;
		if (mw_record_mail(st, &r, a, &m, &err) < 0 ||
		    mw_record_content(st, &r, &m, 1 << 20, &got, &err) < 0)
			fail_msg("%s", err.msg);
		dict_content_of(mails++, &want);
		with += r.dict != 0;
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
	}
	assert_int_equal(k, 0);
	assert_int_equal(mails, LEARNT + WITH_DICT);
	assert_int_equal(dicts, 2);
	assert_int_equal(with, WITH_DICT);
	struct mw_verify_opts vo = {.sample = 100};
	struct mw_verify_result res;
	assert_int_equal(mw_verify_run(st, &vo, &res, &err), 0);
	assert_int_equal(res.signed_segments, 1);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
}

/* ---- names: j\xc3\xbcrgen@b\xc3\xbccher.example in these forms, each with anna ---- */

static const char *const person[] = {
    "j\xc3\xbcrgen@b\xc3\xbc"
    "cher.example",
    "J\xc3\x9cRGEN@B\xc3\x9c"
    "CHER.Example",
    "j\xc3\xbcrgen@xn--bcher-kva.example",
    "\"ju\xcc\x88rgen+x\"@xn--bcher-kva.example",
    "\"kurt+ext\"@golden.test",
    "kurt@golden.test",
};
#define ANNA "anna@golden.test"

static unsigned
found_by(struct mw_store *st, const char *who)
{
	struct mw_err err = {0};
	unsigned n = 0;
	if (mw_store_find_name(st, MW_KEY_RCPT, mw_strz(who), found_one, &n, &err) < 0)
		fail_msg("%s: %s", who, err.msg);
	return n;
}

static void
check_names(const char *dir, unsigned minor)
{
	struct mw_store_opts o = {.dir = dir};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	struct mw_verify_opts vo = {.sample = 100};
	struct mw_verify_result res;
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s: %s", dir, err.msg);
	assert_int_equal(found_by(st, ANNA), MW_COUNT(person));
	assert_int_equal(found_by(st, person[0]), minor ? 4 : 2);
	assert_int_equal(found_by(st, person[1]), minor ? 4 : 2);
	assert_int_equal(found_by(st, person[2]), minor ? 4 : 2);
	assert_int_equal(found_by(st, person[3]), 1);
	assert_int_equal(found_by(st, person[4]), 1);
	assert_int_equal(found_by(st, "\"kurt\"@Golden.test"), 2);
	assert_int_equal(mw_verify_run(st, &vo, &res, &err), 0);
	assert_int_equal(res.contents, MW_COUNT(person));
	mw_store_close(st);
}

static void
check_version(const char *version)
{
	char path[PATH_MAX], copy[] = "/tmp/mw-golden-XXXXXX";
	uint8_t sk[MW_KEY_LEN];
	struct mw_err err = {0};
	(void)snprintf(path, sizeof path, "%s/tests/golden/%s/plain", MW_SOURCE_DIR,
	               version);
	check(path, NULL);
	/* git keeps no 0600: the key is copied first */
	int fd = mkstemp(copy);
	assert_true(fd >= 0);
	(void)snprintf(path, sizeof path, "cat '%s/tests/golden/%s/recovery.key' > %s",
	               MW_SOURCE_DIR, version, copy);
	assert_int_equal(system(path), 0);
	if (mw_keyring_load_secret(copy, MW_STR(""), sk, &err) < 0)
		fail_msg("%s", err.msg);
	(void)close(fd);
	(void)unlink(copy);
	(void)snprintf(path, sizeof path, "%s/tests/golden/%s/encrypted", MW_SOURCE_DIR,
	               version);
	check(path, sk);
	(void)snprintf(path, sizeof path, "%s/tests/golden/%s/dictionary", MW_SOURCE_DIR,
	               version);
	check_dict(path, sk);
}

static void
version_1(void **state)
{
	(void)state;
	check_version("v1");
	check_names(MW_SOURCE_DIR "/tests/golden/v1/names", 0);
}

static void
version_1_1(void **state)
{
	(void)state;
	check_version("v1.1");
	check_names(MW_SOURCE_DIR "/tests/golden/v1.1/names", 1);
}

/* ---- making ---- */

static void
append(struct mw_store *st, unsigned k)
{
	MW_BUF_AUTO c = {0};
	char qid[8];
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_str box = MW_STR("box@golden.test");
	struct mw_rcpt r[2] = {{.addr = MW_STR("one@golden.test"),
	                        .args = MW_STR("NOTIFY=NEVER"),
	                        .mailer = MW_STR("lmtp"),
	                        .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	                        .mailbox = &box,
	                        .n_mailbox = 1},
	                       {.addr = MW_STR("two@else.test"),
	                        .flags = MW_RCPT_REFUSED}};
	struct mw_mail m = {.time_us = 1700000000000000 + k,
	                    .queue_id = mw_strz(qid),
	                    .client_addr = MW_STR("192.0.2.1"),
	                    .sender = MW_STR("s@golden.test"),
	                    .front = MW_STR("milter"),
	                    .rcpt = r,
	                    .n_rcpt = 2,
	                    .direction = (enum mw_direction)(k % 3)};
	content_of(k, &c);
	(void)journaled(st, &m, c.p, c.n, NULL);
}

static void
mark(struct mw_store *st, enum mw_mark_phase phase, uint64_t start)
{
	struct mw_mark m = {MW_STR("nightly"), phase, 1700000000500000, start,
	                    MW_STR("uid 0")};
	MW_BUF_AUTO b = {0};
	struct mw_err err = {0};
	assert_int_equal(mw_mark_encode(&m, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, m.time_us, b.p, b.n, NULL, &err),
	                 0);
}

static void
make_one(const char *to, const char *name, const uint8_t *pk)
{
	char live[PATH_MAX], cmd[3 * PATH_MAX];
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	(void)snprintf(live, sizeof live, "%.3000s/%s.live", to, name);
	assert_int_equal(mw_store_create(live, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = live,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = pk ? 1 : 0,
	                          .segment_size = 1 << 20,
	                          .no_index = true};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned k = 0; k < MAILS; k++) {
		if (k == 4 || k == 8)
			assert_int_equal(mw_store_roll(st, &err), 0);
		append(st, k);
		if (k == 5)
			mark(st, MW_MARK_START, 0);
		if (k == 6)
			mark(st, MW_MARK_COMPLETE, 8);
	}
	/* as a crash leaves it: not closed, and half of a frame at the end */
	(void)snprintf(
	    cmd, sizeof cmd,
	    "cd '%s' && rm -f lock && mkdir -p ../%s/segments && cp journal ../%s/ "
	    "&& cp segments/*.seg ../%s/segments/",
	    live, name, name, name);
	assert_int_equal(system(cmd), 0);
	mw_store_close(st);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", live);
	assert_int_equal(system(cmd), 0);
	(void)snprintf(cmd, sizeof cmd, "%.3000s/%s/segments/0000000000000003.seg", to,
	               name);
	int fd = open(cmd, O_RDWR);
	assert_true(fd >= 0);
	off_t end = lseek(fd, 0, SEEK_END);
	char c = 0;
	while (end > 0 && pread(fd, &c, 1, end - 1) == 1 && c == 0)
		end--;
	end = (end + 7) & ~(off_t)7;
	assert_int_equal(pwrite(fd, "MWF1 torn", 9, end), 9);
	assert_int_equal(ftruncate(fd, end + 64), 0);
	(void)close(fd);
}

static void
make_dict(const char *to, const uint8_t *pk)
{
	char dir[PATH_MAX], cmd[PATH_MAX];
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	(void)snprintf(dir, sizeof dir, "%.3000s/dictionary", to);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = 1,
	                          .segment_size = 1 << 20,
	                          .dictionary = true,
	                          .dict_share = 100,
	                          .no_index = true};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned k = 0; k < LEARNT + WITH_DICT; k++) {
		MW_BUF_AUTO c = {0};
		char to_addr[32];
		(void)snprintf(to_addr, sizeof to_addr, "box%u@golden.test", k);
		struct mw_rcpt r = {.addr = mw_strz(to_addr), .flags = MW_RCPT_LOCAL};
		struct mw_mail m = {.time_us = 1700000000000000 + k,
		                    .rcpt = &r,
		                    .n_rcpt = 1};
		if (k == LEARNT)
			assert_int_equal(mw_store_train(st), 1);
		dict_content_of(k, &c);
		(void)journaled(st, &m, c.p, c.n, NULL);
	}
	mw_store_close(st);
	(void)snprintf(cmd, sizeof cmd,
	               "cd '%.3000s/dictionary' && rm -rf lock index ledger "
	               "recovery_keys signing_key segments/*.tmp",
	               to);
	assert_int_equal(system(cmd), 0);
}

static void
make_names(const char *to)
{
	char dir[PATH_MAX], cmd[PATH_MAX];
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	(void)snprintf(dir, sizeof dir, "%.3000s/names", to);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .delimiter = "+",
	                          .no_index = true};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned k = 0; k < MW_COUNT(person); k++) {
		struct mw_rcpt r[2] = {{.addr = mw_strz(person[k]),
		                        .flags = MW_RCPT_LOCAL},
		                       {.addr = MW_STR(ANNA), .flags = MW_RCPT_LOCAL}};
		struct mw_mail m = {.time_us = 1700000000000000 + k,
		                    .sender = MW_STR("s@golden.test"),
		                    .rcpt = r,
		                    .n_rcpt = 2};
		(void)journaled(st, &m, "\r\n", 2, NULL);
	}
	mw_store_close(st);
	(void)snprintf(cmd, sizeof cmd,
	               "cd '%.3000s/names' && rm -rf lock index ledger recovery_keys "
	               "signing_key "
	               "segments/*.tmp",
	               to);
	assert_int_equal(system(cmd), 0);
}

static bool
missing(const char *to, const char *name)
{
	char path[PATH_MAX];
	(void)snprintf(path, sizeof path, "%.3000s/%s", to, name);
	return access(path, F_OK) != 0;
}

static void
make(void **state)
{
	(void)state;
	const char *to = getenv("MW_GOLDEN_MAKE");
	char key[PATH_MAX];
	uint8_t pk[MW_KEY_LEN], sk[MW_KEY_LEN];
	struct mw_err err = {0};
	(void)snprintf(key, sizeof key, "%.3000s/recovery.key", to);
	if (access(key, F_OK) != 0) {
		assert_int_equal(mw_keyring_new(key, MW_STR(""), pk, &err), 0);
	} else { /* its public half anew */
		assert_int_equal(mw_keyring_load_secret(key, MW_STR(""), sk, &err), 0);
		assert_int_equal(mw_hpke_public(sk, pk), 0);
	}
	if (missing(to, "plain"))
		make_one(to, "plain", NULL);
	if (missing(to, "encrypted"))
		make_one(to, "encrypted", pk);
	if (missing(to, "dictionary"))
		make_dict(to, pk);
	if (missing(to, "names"))
		make_names(to);
}

int
main(void)
{
	const struct CMUnitTest reading[] = {cmocka_unit_test(version_1),
	                                     cmocka_unit_test(version_1_1)};
	const struct CMUnitTest making[] = {cmocka_unit_test(make)};
	if (getenv("MW_GOLDEN_MAKE"))
		return cmocka_run_group_tests(making, NULL, NULL);
	return cmocka_run_group_tests(reading, NULL, NULL);
}
