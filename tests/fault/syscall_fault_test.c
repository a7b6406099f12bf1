/* System calls fail below the journal, on a real directory: each kind of call, at its
 * n-th, with each errno or with a short count, once or from then on. What was
 * acknowledged is there byte for byte, nothing is called damage, the journal goes on.
 *
 * MW_FAULT_ROUNDS=all takes every n; else a slice (MW_SEED moves it). */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/dice.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 10,
	SLICE = 4 /* places of each kind and errno that the short form tries */
};

enum call {
	PWRITEV,
	PREAD,
	FDATASYNC,
	FSYNC,
	FTRUNCATE,
	RENAME,
	UNLINK,
	N_CALLS
};

static const char *const call_name[N_CALLS] = {
    "pwritev", "pread", "fdatasync", "fsync", "ftruncate", "rename", "unlink",
};

#define SHORT (-1) /* instead of an errno: part of what was asked */

static struct {
	_Atomic int call, err;
	_Atomic uint64_t from, to, count[N_CALLS];
} plan = {.call = N_CALLS};

/* 0, an errno, or SHORT. */
static int
fault(enum call c)
{
	uint64_t n = atomic_fetch_add(&plan.count[c], 1) + 1;
	if ((int)c != atomic_load(&plan.call) || n < atomic_load(&plan.from) ||
	    n >= atomic_load(&plan.to))
		return 0;
	return atomic_load(&plan.err);
}

static int
fails(int e)
{
	errno = e;
	return -1;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	int e = fault(PWRITEV);
	struct iovec part = {iov->iov_base, (iov->iov_len + 1) / 2};
	if (e > 0)
		return fails(e);
	if (e == SHORT)
		return syscall(SYS_pwritev, fd, &part, 1, off, 0);
	return syscall(SYS_pwritev, fd, iov, n, off, 0);
}

ssize_t
pread(int fd, void *p, size_t n, off_t off)
{
	int e = fault(PREAD);
	if (e > 0)
		return fails(e);
	return syscall(SYS_pread64, fd, p, e == SHORT ? (n + 1) / 2 : n, off);
}

/* Synced or not: this machine does not stop. */
int
fdatasync(int fd)
{
	(void)fd;
	int e = fault(FDATASYNC);
	return e > 0 ? fails(e) : 0;
}

int
fsync(int fd)
{
	(void)fd;
	int e = fault(FSYNC);
	return e > 0 ? fails(e) : 0;
}

int
ftruncate(int fd, off_t n)
{
	int e = fault(FTRUNCATE);
	return e > 0 ? fails(e) : (int)syscall(SYS_ftruncate, fd, n);
}

int
rename(const char *from, const char *to)
{
	int e = fault(RENAME);
	return e > 0 ? fails(e) : (int)syscall(SYS_rename, from, to);
}

int
unlink(const char *path)
{
	int e = fault(UNLINK);
	return e > 0 ? fails(e) : (int)syscall(SYS_unlink, path);
}

/* ---- the journal ---- */

static char root[64], dir[80];

static void
content_of(unsigned k, struct mw_buf *out)
{
	size_t n = k % 5 == 4 ? 150000 : 200 + k * 331;
	mw_buf_printf(out, "Subject: %u\r\n\r\n", k);
	dice_noise(out, n, k + 99);
}

static struct mw_store *
open_store(struct mw_err *err)
{
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 200000, /* rolls in the middle */
	                          .spill_above = 65536,
	                          .no_index = true};
	struct mw_store *st = NULL;
	return mw_store_open(&o, &st, err) < 0 ? NULL : st;
}

static int
append(struct mw_store *st, unsigned k, uint64_t *ret_seq)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO c = {0};
	char qid[16];
	content_of(k, &c);
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_mail m = {.time_us = 1000 + k, .queue_id = mw_strz(qid)};
	struct mw_commit a = {0};
	int r = mw_entry_new(st, MW_TYPE_MAIL, &e, &err);
	if (r == 0)
		r = mw_entry_body(e, c.p, c.n, &err);
	if (r == 0)
		r = mw_entry_describe(e, &m, &err);
	if (r == 0)
		r = mw_entry_finish_mail(e, &m, &err);
	if (r == 0)
		r = mw_store_append(st, e, &a, &err);
	*ret_seq = a.seq;
	return r;
}

struct ledger {
	bool acked[MAILS + 1];
	uint64_t seq[MAILS + 1];
};

static char what[160];

static void
check(struct mw_store *st, const struct ledger *l)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	bool seen[MAILS + 1] = {false};
	int q;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((q = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO got = {0};
		MW_BUF_AUTO want = {0};
		struct mw_mail m;
		if (r.type != MW_TYPE_MAIL)
			continue;
		if (mw_record_mail(st, &r, a, &m, &err) < 0 ||
		    mw_record_content(st, &r, &m, 1 << 24, &got, &err) < 0)
			fail_msg("%s: %s", what, err.msg);
		unsigned k = (unsigned)strtoul(m.queue_id.p + 1, NULL, 10);
		content_of(k, &want);
		if (k > MAILS || got.n != want.n || memcmp(got.p, want.p, got.n) != 0)
			fail_msg("%s: mail %u is altered", what, k);
		if (l->seq[k] == r.seq)
			seen[k] = true;
	}
	if (q < 0)
		fail_msg("%s: called damage: %s", what, err.msg);
	for (unsigned k = 0; k <= MAILS; k++)
		if (l->acked[k] && !seen[k])
			fail_msg("%s: acknowledged mail %u is gone", what, k);
}

/* Calls before the load starts are left in peace: opening is allowed to fail. */
static void
load(struct ledger *l)
{
	struct mw_err err = {0};
	struct mw_store *st = open_store(&err);
	for (unsigned k = 0; st && k < MAILS; k++) {
		l->acked[k] = append(st, k, &l->seq[k]) == 0;
		if (k == MAILS / 2) {
			mw_store_close(st);
			st = open_store(&err);
		}
	}
	mw_store_close(st);
}

static void
fresh(void)
{
	char cmd[200];
	struct mw_err err = {0};
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	for (int c = 0; c < N_CALLS; c++)
		atomic_store(&plan.count[c], 0);
}

static void
one(enum call c, int err, uint64_t n, uint64_t times)
{
	struct ledger l = {{false}, {0}};
	struct mw_err e = {0};
	(void)snprintf(what, sizeof what, "%s %llu %s, %s", call_name[c],
	               (unsigned long long)n, err == SHORT ? "short" : strerror(err),
	               times == 1 ? "once" : "from then on");
	fresh();
	atomic_store(&plan.from, n);
	atomic_store(&plan.to, n + times);
	atomic_store(&plan.err, err);
	atomic_store(&plan.call, c);
	load(&l);
	atomic_store(&plan.call, N_CALLS);
	if (err == EINTR || err == SHORT)
		for (unsigned k = 0; k < MAILS && (c == PWRITEV || c == PREAD); k++)
			if (!l.acked[k])
				fail_msg("%s: mail %u was not taken", what, k);
	struct mw_store *st = open_store(&e);
	if (!st)
		fail_msg("%s: does not open: %s", what, e.msg);
	check(st, &l);
	l.acked[MAILS] = append(st, MAILS, &l.seq[MAILS]) == 0;
	assert_true(l.acked[MAILS]);
	mw_store_close(st);
	st = open_store(&e);
	assert_non_null(st);
	check(st, &l);
	mw_store_close(st);
}

static void
every_call(void **state)
{
	(void)state;
	static const int errs[] = {EIO, ENOSPC, EDQUOT, EROFS, EINTR, SHORT};
	const char *z = getenv("MW_FAULT_ROUNDS"), *s = getenv("MW_SEED");
	bool all = z && strcmp(z, "all") == 0;
	uint64_t calls[N_CALLS], at = s ? strtoull(s, NULL, 10) : 0, runs = 0;
	struct ledger l = {{false}, {0}};
	fresh();
	load(&l);
	for (unsigned k = 0; k < MAILS; k++)
		assert_true(l.acked[k]);
	for (int c = 0; c < N_CALLS; c++)
		calls[c] = atomic_load(&plan.count[c]);
	for (enum call c = PWRITEV; c < N_CALLS; c++)
		for (size_t i = 0; i < MW_COUNT(errs); i++) {
			uint64_t step = all ? 1 : calls[c] / SLICE + 1;
			if (errs[i] == SHORT && c != PWRITEV && c != PREAD)
				continue;
			for (uint64_t n = 1 + at++ % step; n <= calls[c]; n += step) {
				/* an interrupted call is interrupted a few times at most
				 */
				one(c, errs[i], n, 1);
				one(c, errs[i], n, errs[i] == EINTR ? 9 : UINT64_MAX / 2);
				runs += 2;
			}
		}
	print_message("%llu runs\n", (unsigned long long)runs);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%s/mw-syscall-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[200];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_call),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
