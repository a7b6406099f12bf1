/* Whatever is in the index's files, look-ups give what a walk of the log gives, and the
 * next writer makes the index whole: missing, cut, zeros, garbage pages, an older one, a
 * newer one, one of another journal. */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 1200,
	PAGE = 4096
};

static char root[64], base[80], work[80], older[80], other[80];

static struct mw_store *
open_as(const char *dir, enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode, .segment_size = 100000};
	return opened(&o);
}

static void
fill(const char *dir, unsigned from, unsigned to)
{
	struct mw_store *st = open_as(dir, MW_STORE_WRITE);
	for (unsigned k = from; k < to; k++) {
		char qid[16], rcpt[40];
		(void)snprintf(qid, sizeof qid, "Q%u", k);
		(void)snprintf(rcpt, sizeof rcpt, "u%u@index.test", k % 7);
		struct mw_rcpt r = {.addr = mw_strz(rcpt)};
		struct mw_mail m = {.time_us = 1000 + k,
		                    .queue_id = mw_strz(qid),
		                    .rcpt = &r,
		                    .n_rcpt = 1};
		(void)journaled(st, &m, "\r\nx", 3, NULL);
	}
	mw_store_close(st);
}

static int
count(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return 0;
}

static const char *what;

/* Each look-up's number of hits. */
static void
ask(struct mw_store *st, unsigned mails)
{
	struct mw_err err = {0};
	unsigned all = 0;
	for (unsigned k = 0; k < 8; k++) {
		char rcpt[40];
		unsigned n = 0;
		(void)snprintf(rcpt, sizeof rcpt, "u%u@index.test", k);
		if (mw_store_find(st, MW_KEY_RCPT, mw_strz(rcpt), count, &n, &err) < 0)
			fail_msg("%s: %s", what, err.msg);
		all += n;
	}
	if (all != mails)
		fail_msg("%s: %u found, not %u", what, all, mails);
	for (unsigned k = 0; k < mails; k += 37) {
		char qid[16];
		unsigned n = 0;
		(void)snprintf(qid, sizeof qid, "Q%u", k);
		if (mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(qid), count, &n, &err) < 0)
			fail_msg("%s: %s", what, err.msg);
		if (n != 1)
			fail_msg("%s: %s found %u times", what, qid, n);
	}
}

/* A reader gives the right answers with this index; so does a writer, and after it the
 * index is whole. */
static void
heals(const char *name)
{
	struct mw_err err = {0};
	struct mw_verify_result res;
	struct mw_verify_opts o = {.sample = 0};
	what = name;
	struct mw_store *st = open_as(work, MW_STORE_READ);
	ask(st, MAILS);
	mw_store_close(st);
	fill(work, MAILS, MAILS + 3);
	st = open_as(work, MW_STORE_READ);
	ask(st, MAILS + 3);
	if (mw_verify_run(st, &o, &res, &err) != 0)
		fail_msg("%s: verify still finds %llu faults of the index", name,
		         (unsigned long long)res.findings[MW_FINDING_INDEX]);
	mw_store_close(st);
}

static void
again(void)
{
	shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
}

static void
missing_old_new_foreign(void)
{
	again();
	shell("rm -rf '%s'/index/*", work);
	heals("missing");
	again();
	shell("rm -rf '%s/index' && cp -a '%s/index' '%s/index'", work, older, work);
	heals("older");
	again();
	shell("rm -rf '%s/index' && cp -a '%s/index' '%s/index'", work, other, work);
	heals("of another journal");
	/* newer: the log is put back, the index is not; then it goes on differently */
	again();
	shell("rm -rf '%s' && cp -a '%s' '%s' && rm -rf '%s/index' && cp -a '%s/index' "
	      "'%s/index'",
	      work, older, work, work, base, work);
	what = "newer";
	struct mw_store *st = open_as(work, MW_STORE_READ);
	ask(st, MAILS / 2);
	mw_store_close(st);
	fill(work, MAILS / 2, MAILS);
	heals("newer, gone on");
}

static void
write_at(off_t at, const void *p, size_t n)
{
	char path[200];
	(void)snprintf(path, sizeof path, "%s/index/00000000.mdb", work);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, p, n, at), n);
	assert_int_equal(close(fd), 0);
}

static void
flip_at(off_t at, unsigned bit)
{
	char path[200];
	uint8_t b;
	(void)snprintf(path, sizeof path, "%s/index/00000000.mdb", work);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	assert_int_equal(close(fd), 0);
	b ^= (uint8_t)(1U << bit);
	write_at(at, &b, 1);
}

static off_t
index_size(void)
{
	char path[200];
	struct stat sb;
	(void)snprintf(path, sizeof path, "%s/index/00000000.mdb", work);
	assert_int_equal(stat(path, &sb), 0);
	return sb.st_size;
}

static void
garbled_pages(void)
{
	static uint8_t junk[PAGE];
	char name[60];
	again();
	off_t pages = index_size() / PAGE;
	assert_true(pages > 10);
	uint64_t x = 42;
	for (int how = 0; how < 4; how++)
		for (off_t p = -1; p < pages; p += p < 3 ? 1 : pages / 9) {
			for (size_t i = 0; i < sizeof junk; i++) {
				junk[i] = how == 1   ? 0
				          : how == 2 ? 0xff
				                     : (uint8_t)(dice_next(&x) >> 40);
			}
			again();
			(void)snprintf(name, sizeof name, "page %lld, kind %d",
			               (long long)p, how);
			for (off_t q = 0; q < pages; q++)
				if (p < 0 || q == p)
					write_at(q * PAGE + (how == 3 ? 16 : 0), junk,
					         how == 3 ? 500 : PAGE);
			heals(name);
		}
	again();
	shell("truncate -s 20000 '%s/index/00000000.mdb'", work);
	heals("cut short");
	again();
	shell("truncate -s 0 '%s/index/00000000.mdb'", work);
	heals("empty");
	again();
	shell("echo hello >'%s/index/00000000.mdb'", work);
	heals("a text file");
}

/* Each byte of the two heads, one bit at a time; of both, since one of them counts. */
static void
garbled_heads(void)
{
	char name[60];
	for (off_t at = 0; at < 160; at++) {
		again();
		flip_at(at, (unsigned)at * 5 % 8);
		flip_at(PAGE + at, (unsigned)at * 5 % 8);
		(void)snprintf(name, sizeof name, "byte %lld of the heads",
		               (long long)at);
		heals(name);
	}
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "%s/mw-index-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(base, sizeof base, "%s/base", root);
	(void)snprintf(work, sizeof work, "%s/work", root);
	(void)snprintf(older, sizeof older, "%s/older", root);
	(void)snprintf(other, sizeof other, "%s/other", root);
	assert_int_equal(mw_store_create(base, NULL, NULL, &err), 0);
	assert_int_equal(mw_store_create(other, NULL, NULL, &err), 0);
	fill(base, 0, MAILS / 2);
	shell("cp -a '%s' '%s'", base, older);
	fill(base, MAILS / 2, MAILS);
	fill(other, 0, MAILS);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

/* What LMDB held when a garbled page made it fault is given up on purpose. */
const char *__lsan_default_suppressions(void);
const char *
__lsan_default_suppressions(void)
{
	return "leak:mdb_env_open\nleak:mdb_cursor_open\nleak:mdb_txn_begin\n"
	       "leak:mw_kv_read\nleak:mw_kv_write\nleak:mw_kv_check\n";
}

/* One test: cmocka takes SIGSEGV and SIGBUS for itself at the start of each. */
static void
every_state(void **state)
{
	assert_int_equal(setup(state), 0);
	missing_old_new_foreign();
	garbled_pages();
	garbled_heads();
	(void)teardown(state);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_state),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
