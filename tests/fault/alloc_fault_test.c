/* Every allocation fails once, in the journal: nothing crashes, the answer is MW_ENOMEM
 * and never a wrong one, what was acknowledged is there, and the journal opens, verifies
 * and goes on.
 *
 * MW_FAULT_ROUNDS=all fails each one; else a slice (every 1st, 1+step-th …, the start of
 * which moves with MW_SEED). */
/* MW_TEST_COST 20 */
#include "tests/support/alloc_fail.h"

#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "journal/codec/zstd.h"
#include "journal/retain/retain.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

static int
no_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	return 0;
}

static int
no_sync_dir(const struct mw_fs *f, const char *path)
{
	(void)f;
	(void)path;
	return 0;
}

static void
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

static int
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

static int
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

static int
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

static int
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

static void
enomem(int r, const struct mw_err *err)
{
	require(r >= 0 || r == MW_ENOMEM, "the answer is %s: %s", mw_err_name(r),
	        err->msg);
}

static void
told(void *arg, const struct mw_finding *f)
{
	(void)arg;
	if (mw_finding_bad(f->kind))
		print_error("%s: segment %llu, offset %llu: %s\n",
		            mw_finding_name(f->kind), (unsigned long long)f->segment,
		            (unsigned long long)f->offset, f->text);
}

static int
verify(struct mw_store *st, struct mw_verify_result *res, struct mw_err *err)
{
	struct mw_verify_opts o = {.sample = 100, .found = told};
	return mw_verify_run(st, &o, res, err);
}

static int
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
static void
check(const char *dir, const struct ledger *l)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_gone *gone = NULL;
	struct mw_record r;
	struct mw_verify_result res;
	bool seen[ALL] = {false};
	unsigned k;
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

/* The journal goes on. */
static void
goes_on(const char *dir, struct ledger *l, unsigned k)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	require(open_writer(dir, &st, &err) == 0, "does not open: %s", err.msg);
	require(append(st, k, l, &err) == 0, "takes nothing more: %s", err.msg);
	mw_store_close(st);
	check(dir, l);
}

/* ---- the runs ---- */

/* Runs `one` with allocation n failing, for each n, until none fails any more. */
static void
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

static void
fresh_copy(void)
{
	shell("rm -rf '%s' && cp -a '%s' '%s'", work, base, work);
	now = in_base;
}

/* Create. */

static void
nothing_there(void)
{
	shell("rm -rf '%s'", work);
	memset(&now, 0, sizeof now);
}

static void
create_one(void)
{
	struct mw_err err = {0};
	int r = mw_store_create(work, &fs, NULL, &err);
	enomem(r, &err);
}

static void
create_after(void)
{
	struct mw_err err = {0};
	int r = mw_store_create(work, &fs, NULL, &err);
	require(r == 0 || r == MW_ECREATE, "cannot be created: %s", err.msg);
	goes_on(work, &now, MAILS);
}

/* Write: recovery of a journal whose last segment is open, mails, a note, a roll. */

static void
write_one(void)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	int r = open_writer(work, &st, &err);
	enomem(r, &err);
	if (r < 0)
		return;
	for (unsigned k = MAILS; k < (with_dict ? ALL - 1 : MAILS + 4); k++) {
		mw_err_clear(&err);
		enomem(append(st, k, &now, &err), &err);
		if (with_dict && k == MAILS + 5) /* which the next mails bring along */
			(void)mw_store_train(st);
		if (k != MAILS + 2)
			continue;
		enomem(mark(st, &err), &err);
		enomem(mw_store_roll(st, &err), &err);
	}
	mw_store_close(st);
}

static void
write_after(void)
{
	check(work, &now);
	goes_on(work, &now, ALL - 1);
}

/* Read, every way there is; a wrong answer is worse than none. */

static unsigned found_n;

static int
count_found(void *arg, const struct mw_record *r)
{
	(void)arg;
	(void)r;
	found_n++;
	return 0;
}

static int
look_up(struct mw_store *st, enum mw_key key, struct mw_str v, unsigned want,
        struct mw_err *err)
{
	found_n = 0;
	int r = mw_store_find(st, key, v, count_found, NULL, err);
	require(r < 0 || found_n == want, "%u found, not %u", found_n, want);
	return r;
}

static int
walk(struct mw_store *st, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	unsigned k, n = 0, dicts = 0;
	int q = mw_cursor_new(st, 1, &c, err);
	while (q == 0 && (q = mw_cursor_next(c, &r, err)) == 1) {
		q = r.type == MW_TYPE_MAIL ? read_one(st, &r, &k, err) : 0;
		n += r.type == MW_TYPE_MAIL;
		dicts += r.type == MW_TYPE_MAIL && r.dict;
		if (q < 0)
			return q;
	}
	require(q < 0 || n == MAILS, "%u mails, not %u", n, MAILS);
	require(q < 0 || dicts == (with_dict ? 2 : 0), "%u mails with a dictionary",
	        dicts);
	return q;
}

static void
read_one_way(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	struct mw_record r;
	struct mw_verify_result res;
	struct mw_segment_info *info = NULL;
	MW_GONE_AUTO *g = NULL;
	size_t n = 0;
	int q = open_reader(base, &st, &err);
	enomem(q, &err);
	if (q < 0)
		return;
	enomem(walk(st, &err), &err);
	mw_err_clear(&err);
	enomem(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), MAILS, &err), &err);
	enomem(look_up(st, MW_KEY_QUEUE_ID, MW_STR("Q3"), 1, &err), &err);
	q = mw_store_last(st, UINT64_MAX, &r, &err);
	enomem(q, &err);
	if (q == 1) {
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, r.id);
		q = mw_store_find_id(st, id, &r, &err);
		enomem(q, &err);
	}
	q = mw_gone_load(st, &g, &err);
	enomem(q, &err);
	q = mw_store_segment_info(st, &info, &n, &err);
	enomem(q, &err);
	for (size_t i = 0; q == 0 && i < n; i++)
		require(info[i].first_seq > 0, "segment %zu is called damaged", i + 1);
	free(info);
	q = verify(st, &res, &err);
	enomem(q, &err);
	require(q <= 0, "verify speaks of damage");
	require(q < 0 || res.contents == MAILS, "%llu contents checked",
	        (unsigned long long)res.contents);
}

static void
nothing(void)
{
}

/* Rebuild the index. */

static void
reindex_one(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	uint64_t n;
	int r = open_reader(work, &st, &err);
	if (r == 0)
		r = mw_store_reindex(st, &n, &err);
	enomem(r, &err);
}

static void
reindex_after(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	require(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), MAILS, &err) == 0, "%s",
	        err.msg);
	check(work, &now);
}

/* Take records out. */

static int
prune(struct mw_err *err)
{
	struct mw_conf_retain rule = {.name = (char *)(uintptr_t) "all", .max_size = 1};
	struct mw_conf conf = {.retain = &rule, .n_retain = 1};
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *log = NULL;
	struct mw_retain_sum sum;
	struct mw_retain_done done;
	struct mw_store *st = NULL;
	int r = open_reader(work, &st, err);
	if (r == 0)
		r = mw_rules_new(st, &conf, &rules, err);
	if (r == 0)
		r = mw_holds_load(st, &holds, err);
	if (r == 0)
		r = mw_retain_gather(st, rules, holds, NULL, &log, err);
	mw_store_close(st);
	if (r == 0) {
		struct mw_retain_limits l = {.rule = &rule,
		                             .n_rule = 1,
		                             .now_us = now_us,
		                             .gone = log->audit ? log->audit->gone : NULL,
		                             .n_gone =
		                                 log->audit ? log->audit->n_gone : 0,
		                             .damaged = log->damaged > 0};
		require(!l.damaged, "the log is called damaged");
		mw_retain_plan(&l, log->rec, log->n, &sum);
		struct mw_retain_owner o = {.dir = work, .by = "uid 0", .now_us = now_us};
		r = open_writer(work, &o.st, err);
		if (r == 0)
			r = mw_retain_run(&o, log, &done, err);
		mw_owner_close(&o);
	}
	mw_retain_free(log);
	mw_holds_free(holds);
	mw_rules_free(rules);
	return r;
}

static void
prune_one(void)
{
	struct mw_err err = {0};
	int r = prune(&err);
	enomem(r, &err);
	memset(&now, 0, sizeof now); /* all of them may be gone */
}

static void
prune_after(void)
{
	struct mw_err err = {0};
	check(work, &now);
	require(prune(&err) == 0, "the next run fails: %s", err.msg);
	check(work, &now);
	MW_STORE_AUTO *st = NULL;
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	require(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), 0, &err) == 0, "%s",
	        err.msg);
}

static int
first_mail(void *arg, const struct mw_record *r)
{
	*(struct mw_record *)arg = *r;
	return 1;
}

static void
erase_one(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	struct mw_record rec = {.seq = 0};
	struct mw_erase_list e = {.whole = &rec, .n_whole = 1};
	struct mw_retain_owner o = {.dir = work, .by = "uid 0", .now_us = now_us};
	int r = open_reader(work, &st, &err);
	if (r == 0)
		r = mw_store_find(st, MW_KEY_QUEUE_ID, MW_STR("Q1"), first_mail, &rec,
		                  &err);
	if (r == 0) /* it has no tokens any more */
		return;
	if (r == 1)
		r = open_writer(work, &o.st, &err);
	if (r == 0)
		r = mw_erase_run(&o, &e, &err);
	enomem(r, &err);
	mw_owner_close(&o);
	now.acked[1] = false; /* gone, or named by a tombstone, or still there */
}

static void
erase_after(void)
{
	check(work, &now);
	erase_one();
	MW_STORE_AUTO *st = NULL;
	struct mw_err err = {0};
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	struct mw_verify_result res;
	require(verify(st, &res, &err) == 0, "%s", err.msg);
	check(work, &now);
}

static bool
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

static void
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

static void
journal(void **state)
{
	(void)state;
	make_base();
	/* A round of the trainer's own may have come before, and used the samples up. */
	for (int i = 0; with_dict && i < 20 && !uses_a_dictionary(base); i++)
		make_base();
	assert_int_equal(uses_a_dictionary(base), with_dict);
	each("create", nothing_there, create_one, create_after);
	each("write", fresh_copy, write_one, write_after);
	each("read", nothing, read_one_way, nothing);
	each("reindex", fresh_copy, reindex_one, reindex_after);
	each("prune", fresh_copy, prune_one, prune_after);
	each("erase", fresh_copy, erase_one, erase_after);
}

static void
plain_journal(void **state)
{
	encrypted = false;
	journal(state);
}

static void
encrypted_journal(void **state)
{
	encrypted = true;
	journal(state);
}

/* Dictionaries are trained, stored, read back and erased. */
static void
journal_with_a_dictionary(void **state)
{
	encrypted = with_dict = true;
	journal(state);
	with_dict = false;
}

/* Want of memory is not called damage, nor damage want of memory. */
static void
dictionary(void **state)
{
	(void)state;
	MW_BUF_AUTO d = {0};
	size_t len[8];
	for (size_t i = 0; i < MW_COUNT(len); i++)
		len[i] = 250;
	struct mw_str text = mw_str((const char *)content[0].p, 2000);
	assert_int_equal(mw_zdict_make(text, text.p, len, MW_COUNT(len), 3, &d), 0);
	for (int level = 0; level <= 3; level += 3) {
		uint64_t failed = 1;
		for (uint64_t n = 1; failed; n++) {
			struct mw_zdict *z = NULL;
			alloc_fail_at(n, 1);
			int r = mw_zdict_new(d.p, d.n, level, &z);
			failed = alloc_fail_off();
			assert_int_equal(r, failed ? MW_ENOMEM : 0);
			mw_zdict_free(z);
		}
		for (size_t at = 8; at < 12; at++) {
			struct mw_zdict *z = NULL;
			uint8_t was = d.p[at];
			d.p[at] = 0xff;
			assert_int_equal(mw_zdict_new(d.p, d.n, level, &z), MW_EDAMAGED);
			d.p[at] = was;
		}
	}
}

static int
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

static int
teardown(void **state)
{
	(void)state;
	for (unsigned k = 0; k < ALL; k++)
		mw_buf_free(&content[k]);
	shell("rm -rf '%s'", root);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dictionary),
	    cmocka_unit_test(plain_journal),
	    cmocka_unit_test(encrypted_journal),
	    cmocka_unit_test(journal_with_a_dictionary),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
