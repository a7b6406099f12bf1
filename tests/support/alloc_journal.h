/* alloc_journal.h - a journal of segments, marks and an open end on which every
 * allocation fails once, and what must hold of it afterwards: nothing crashes, the answer
 * is MW_ENOMEM and never a wrong one, what was acknowledged is there, and the journal
 * opens, verifies and goes on.
 *
 * For exactly one file of a program (alloc_fail.h), from one thread. MW_FAULT_ROUNDS=all
 * fails each one; else a slice (every 1st, 1+step-th …, the start of which moves with
 * MW_SEED).
 */
#ifndef MW_TEST_ALLOC_JOURNAL_H
#define MW_TEST_ALLOC_JOURNAL_H

#include "tests/support/alloc_fail.h"

#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "journal/retain/retain.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 8,
	ALL = 2 * MAILS + 1, /* that are ever written */
	SLICE = 30,          /* failures of each kind that the short form tries */
	STEPS_MOST = 1 << 20
};

static char root[64], base[80], work[80];
static uint8_t sk[2 * 32], pk[2 * 32];
static bool encrypted, with_dict;
static int64_t now_us;
static struct mw_fs fs;

/* ---- a journal to work on ---- */

static inline int
no_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	return 0;
}

static inline int
no_sync_dir(const struct mw_fs *f, const char *path)
{
	(void)f;
	(void)path;
	return 0;
}

static inline void
content_of(unsigned k, struct mw_buf *out)
{
	/* a Message-ID longer than any small buffer, a body that is spilled */
	mw_buf_printf(
	    out, "Subject: %u\r\nFrom: a%u@alloc.test\r\nMessage-ID: <%0*u@x>\r\n\r\n", k,
	    k, k % 2 ? 700 : 8, k);
	uint64_t y = 1;
	for (unsigned i = 0; i < 200; i++) { /* what they share */
		mw_buf_printf(out, "%llx%s", (unsigned long long)(dice_next(&y) >> 20),
		              i % 8 == 7 ? "\r\n" : " ");
	}
	size_t n = k % 3 == 2 ? 200000 : 300 + k * 31;
	dice_noise(out, n, k + 7);
}

static inline int
open_writer(const char *dir, struct mw_store **ret, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .segment_size = 1 << 20,
	                          .spill_above = 65536,
	                          .recovery = encrypted ? pk : NULL,
	                          .n_recovery = encrypted ? 2 : 0,
	                          .delimiter = "+",
	                          .dictionary = with_dict,
	                          .dict_share = 100};
	return mw_store_open(&o, ret, err);
}

static inline int
open_reader(const char *dir, struct mw_store **ret, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = dir,
	                          .fs = &fs,
	                          .secret = encrypted ? sk : NULL,
	                          .n_secret = encrypted ? 2 : 0};
	return mw_store_open(&o, ret, err);
}

struct ledger {
	bool acked[ALL];
	uint64_t seq[ALL];
};

/* Contents, made beforehand so that only the product allocates. */
static struct mw_buf content[ALL];

static inline int
append(struct mw_store *st, unsigned k, struct ledger *l, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	char qid[16], to[3][40];
	struct mw_rcpt r[3];
	struct mw_commit c;
	memset(r, 0, sizeof r);
	for (size_t i = 0; i < MW_COUNT(r); i++) {
		(void)snprintf(to[i], sizeof to[i], "u%zu+x%u@d%zu.test", i, k, i);
		r[i].addr = mw_strz(to[i]);
	}
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_mail m = {.time_us = now_us + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("from@alloc.test"),
	                    .rcpt = r,
	                    .n_rcpt = MW_COUNT(r)};
	int q = mw_entry_new(st, MW_TYPE_MAIL, &e, err);
	for (size_t at = 0; q == 0 && at < content[k].n; at += 40000)
		q = mw_entry_body(e, content[k].p + at,
		                  MW_MIN((size_t)40000, content[k].n - at), err);
	if (q == 0)
		q = mw_entry_describe(e, &m, err);
	if (q == 0)
		q = mw_entry_finish_mail(e, &m, err);
	if (q == 0)
		q = mw_store_append(st, e, &c, err);
	if (q == 0) {
		l->acked[k] = true;
		l->seq[k] = c.seq;
	}
	return q;
}

static inline int
mark(struct mw_store *st, struct mw_err *err)
{
	struct mw_mark m = {.name = MW_STR("night"), .time_us = 5};
	MW_BUF_AUTO b = {0};
	int r = mw_mark_encode(&m, &b);
	if (r == 0)
		r = mw_store_note(st, MW_TYPE_MARK, 5, b.p, b.n, NULL, err);
	else
		(void)mw_fail(err, r, "mark");
	return r;
}

/* ---- what must hold afterwards ---- */

static const char *what;
static uint64_t at_call;

#define require(x, ...)                                                                  \
	do {                                                                             \
		if (!(x)) {                                                              \
			print_error("%s, allocation %llu: ", what,                       \
			            (unsigned long long)at_call);                        \
			fail_msg(__VA_ARGS__);                                           \
		}                                                                        \
	} while (0)

static inline void
enomem(int r, const struct mw_err *err)
{
	require(r >= 0 || r == MW_ENOMEM, "the answer is %s: %s", mw_err_name(r),
	        err->msg);
}

static inline void
told(void *arg, const struct mw_finding *f)
{
	(void)arg;
	if (mw_finding_bad(f->kind))
		print_error("%s: segment %llu, offset %llu: %s\n",
		            mw_finding_name(f->kind), (unsigned long long)f->segment,
		            (unsigned long long)f->offset, f->text);
}

static inline int
verify(struct mw_store *st, struct mw_verify_result *res, struct mw_err *err)
{
	struct mw_verify_opts o = {.sample = 100, .found = told};
	return mw_verify_run(st, &o, res, err);
}

static inline int
read_one(struct mw_store *st, const struct mw_record *r, unsigned *ret_k,
         struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO got = {0};
	struct mw_mail m;
	if (!a)
		return mw_fail(err, MW_ENOMEM, "arena");
	int q = mw_record_mail(st, r, a, &m, err);
	if (q == 0)
		q = mw_record_content(st, r, &m, 1 << 24, &got, err);
	if (q < 0)
		return q;
	unsigned k = (unsigned)strtoul(m.queue_id.p + 1, NULL, 10);
	require(k < ALL && got.n == content[k].n &&
	            memcmp(got.p, content[k].p, got.n) == 0,
	        "mail %u is not what it was", k);
	require(m.n_rcpt == 3 && m.sender.n == 15 && m.message_id.n > 8 && m.subject.n,
	        "the envelope of mail %u is not what it was", k);
	*ret_k = k;
	return 0;
}

/* Every acknowledged mail, once, exact; and verify finds nothing bad. */
static inline void
check(const char *dir, const struct ledger *l)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_gone *gone = NULL;
	struct mw_record r;
	struct mw_verify_result res;
	bool seen[ALL] = {false};
	unsigned k = 0;
	int q;
	require(open_reader(dir, &st, &err) == 0, "does not open: %s", err.msg);
	require(mw_cursor_new(st, 1, &c, &err) == 0, "%s", err.msg);
	require(mw_gone_load(st, &gone, &err) == 0, "%s", err.msg);
	while ((q = mw_cursor_next(c, &r, &err)) == 1) {
		if (r.type != MW_TYPE_MAIL || mw_record_wiped(st, &r, &err) == 1)
			continue;
		/* A tombstone says so, the wiping was cut short: before the mail,
		 * perhaps, and behind its dictionary. */
		if (mw_gone_record(gone, r.seq))
			continue;
		require(read_one(st, &r, &k, &err) == 0, "%s", err.msg);
		seen[k] = seen[k] || l->seq[k] == r.seq;
	}
	mw_gone_free(gone);
	require(q == 0, "called damage: %s", err.msg);
	for (k = 0; k < ALL; k++)
		require(!l->acked[k] || seen[k], "acknowledged mail %u is gone", k);
	require(verify(st, &res, &err) == 0, "verify finds damage: %s", err.msg);
}

static unsigned found_n;

static inline int
count_found(void *arg, const struct mw_record *r)
{
	(void)arg;
	(void)r;
	found_n++;
	return 0;
}

/* The answer; want of them are found, or none where it is an error. */
static inline int
look_up(struct mw_store *st, enum mw_key key, struct mw_str v, unsigned want,
        struct mw_err *err)
{
	found_n = 0;
	int r = mw_store_find(st, key, v, count_found, NULL, err);
	require(r < 0 || found_n == want, "%u found, not %u", found_n, want);
	return r;
}

/* ---- the runs ---- */

/* Runs `one` with allocation n failing, for each n, until none fails any more. */
static inline void
each(const char *name, void (*prepare)(void), void (*one)(void), void (*after)(void))
{
	const char *z = getenv("MW_FAULT_ROUNDS"), *seed = getenv("MW_SEED");
	what = name;
	at_call = 0;
	prepare();
	alloc_fail_at(0, 0);
	one();
	(void)alloc_fail_off();
	uint64_t calls = atomic_load(&alloc_calls);
	after();
	uint64_t step = z && strcmp(z, "all") == 0 ? 1 : calls / SLICE + 1;
	uint64_t n = 1 + (seed ? strtoull(seed, NULL, 10) % step : 0);
	uint64_t runs = 0, hit = 0;
	for (; n < STEPS_MOST; n += step, runs++) {
		at_call = n;
		prepare();
		alloc_fail_at(n,
		              runs % 5 == 4 ? 20 : 1); /* now and then a whole stretch */
		one();
		uint64_t failed = alloc_fail_off();
		after();
		hit += failed > 0;
		if (!failed)
			break;
	}
	print_message("%s%s%s: %llu allocations, %llu made to fail\n", name,
	              encrypted ? ", keys" : "", with_dict ? ", dictionary" : "",
	              (unsigned long long)calls, (unsigned long long)hit);
}

static struct ledger in_base, now;

static inline void
fresh_copy(void)
{
	shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
	now = in_base;
}

static inline bool
uses_a_dictionary(const char *dir)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	bool does = false;
	require(open_reader(dir, &st, &err) == 0, "%s", err.msg);
	require(mw_cursor_new(st, 1, &c, &err) == 0, "%s", err.msg);
	while (mw_cursor_next(c, &r, &err) == 1)
		does = does || (r.type == MW_TYPE_MAIL && r.dict);
	return does;
}

static inline void
make_base(void)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	shell("rm -rf '%s'", base);
	now_us = mw_clock_system()->now_us(mw_clock_system());
	memset(&in_base, 0, sizeof in_base);
	assert_int_equal(mw_store_create(base, &fs, NULL, &err), 0);
	for (unsigned k = 0; k < MAILS; k++) { /* segments of two, the last killed */
		if (!st)
			assert_int_equal(open_writer(base, &st, &err), 0);
		assert_int_equal(append(st, k, &in_base, &err), 0);
		if (k == 1)
			assert_int_equal(mark(st, &err), 0);
		if (k % 2 == 0)
			continue;
		if (k == MAILS - 1)
			break;
		if (with_dict) {    /* which is its writer's: one for all */
			if (k == 5) /* unless it was faster by itself */
				(void)mw_store_train(st);
			assert_int_equal(mw_store_roll(st, &err), 0);
			continue;
		}
		mw_store_close(st);
		st = NULL;
	}
	struct mw_store_stats stats = {.index_lag_records = 1};
	while (stats.index_lag_records > 0)
		mw_store_stats(st, &stats);
	shell("cp -a '%s' '%s.k'", base, base); /* as after a SIGKILL */
	mw_store_close(st);
	shell("rm -rf '%s' && mv '%s.k' '%s'", base, base, base);
}

/* What the program runs on each kind of journal, by each(): set by main. */
static void (*journal_runs)(void);

static inline void
run_on(bool keys, bool dict)
{
	encrypted = keys;
	with_dict = dict;
	make_base();
	/* A round of the trainer's own may have come before, and used the samples up. */
	for (int i = 0; with_dict && i < 20 && !uses_a_dictionary(base); i++)
		make_base();
	assert_int_equal(uses_a_dictionary(base), with_dict);
	journal_runs();
}

static inline void
plain_journal(void **state)
{
	(void)state;
	run_on(false, false);
}

static inline void
encrypted_journal(void **state)
{
	(void)state;
	run_on(true, false);
}

/* Dictionaries are trained, stored, read back and erased. */
static inline void
journal_with_a_dictionary(void **state)
{
	(void)state;
	run_on(true, true);
}

static inline int
setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	(void)snprintf(root, sizeof root, "%.30s/mw-alloc-XXXXXX",
	               tmp                             ? tmp
	               : access("/dev/shm", W_OK) == 0 ? "/dev/shm"
	                                               : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(base, sizeof base, "%s/base", root);
	(void)snprintf(work, sizeof work, "%s/work", root);
	fs = *mw_fs_posix();
	fs.sync = no_sync;
	fs.sync_dir = no_sync_dir;
	for (unsigned k = 0; k < ALL; k++)
		content_of(k, &content[k]);
	for (size_t i = 0; i < 2; i++) {
		memset(sk + i * 32, (int)i + 1, 32);
		if (mw_hpke_public(sk + i * 32, pk + i * 32) < 0)
			return -1;
	}
	return 0;
}

static inline int
teardown(void **state)
{
	(void)state;
	for (unsigned k = 0; k < ALL; k++)
		mw_buf_free(&content[k]);
	shell("rm -rf '%s'", root);
	return 0;
}

#endif
