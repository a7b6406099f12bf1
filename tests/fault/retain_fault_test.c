/* A prune on a machine that stops at any call: what has not expired is there, byte for
 * byte; what has is there, or a tombstone names it, and where its file is gone an audit
 * does; of such a file no key is left on the disk; and the next run finishes.
 * MW_FAULT_ROUNDS scales the number of crash states. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"
#include "tests/support/fs_mem.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#define HOUR (INT64_C(3600) * 1000000)
#define T0   (INT64_C(1700000000) * 1000000)

enum {
	MAILS = 14,
	KEPT = 6, /* the newest of them */
	HELD = 3  /* one more, in the middle */
};

static char root[PATH_MAX], journal[PATH_MAX], keys_dir[PATH_MAX + 20];
static int64_t now_us, keep_us = KEPT * 20 * HOUR + HOUR;
static uint64_t calls_before; /* the writing part of a prune */

static int64_t
fake_now(const struct mw_clock *c)
{
	(void)c;
	return now_us;
}

static int64_t
fake_mono(const struct mw_clock *c)
{
	(void)c;
	return mw_clock_system()->mono_us(mw_clock_system());
}

static const struct mw_clock fake = {fake_now, fake_mono, NULL};

static struct mw_store *
open_store(struct fs_mem *m, enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = journal,
	                          .mode = mode,
	                          .fs = fs_mem_fs(m),
	                          .clock = &fake,
	                          .segment_size = 300000,
	                          .no_index = true};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	return mw_store_open(&o, &st, &err) < 0 ? NULL : st;
}

static void
content_of(unsigned k, struct mw_buf *out)
{
	mw_buf_printf(out, "Subject: %u\r\n\r\n", k);
	for (unsigned i = 0; i < 300; i++)
		mw_buf_printf(out, "%u\r\n", (k + 3) * (i + 7) * 2654435761U);
}

static void
append(struct mw_store *st, unsigned k)
{
	MW_BUF_AUTO c = {0};
	char qid[16], rcpt[3][32];
	struct mw_rcpt r[3];
	content_of(k, &c);
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	memset(r, 0, sizeof r);
	for (size_t i = 0; i < MW_COUNT(r); i++) { /* tokens: slots over two sectors */
		(void)snprintf(rcpt[i], sizeof rcpt[i], "u%zu@d%u.test", i, k);
		r[i].addr = mw_strz(rcpt[i]);
	}
	struct mw_mail m = {.time_us = now_us,
	                    .queue_id = mw_strz(qid),
	                    .rcpt = r,
	                    .n_rcpt = MW_COUNT(r)};
	(void)journaled(st, &m, c.p, c.n, NULL);
}

/* Keys added to the first segments: only that they are there matters here. */
static void
add_keys(struct fs_mem *m)
{
	static char keys[] = "MWALKEY1 and what opens the segment";
	const struct mw_fs *fs = fs_mem_fs(m);
	for (unsigned k = 1; k <= 3; k++) {
		char path[PATH_MAX + 40];
		struct iovec iov = {keys, sizeof keys};
		(void)snprintf(path, sizeof path, "%s/segments/%016x.keys", journal, k);
		int fd = fs->open(fs, path, MW_OPEN_WRITE | MW_OPEN_CREATE);
		assert_true(fd >= 0);
		assert_int_equal(fs->pwritev(fs, fd, &iov, 1, 0), 0);
		assert_int_equal(fs->sync(fs, fd), 0);
		assert_int_equal(fs->close(fs, fd), 0);
	}
	(void)snprintf(keys_dir, sizeof keys_dir, "%s/segments", journal);
	assert_int_equal(fs->sync_dir(fs, keys_dir), 0);
}

/* A mail every 20 hours, two to a segment, one of them under hold. */
static struct fs_mem *
loaded(void)
{
	struct fs_mem *m = fs_mem_new();
	const struct mw_fs *fs = fs_mem_fs(m);
	struct mw_err err = {0};
	struct mw_str held = MW_STR("Q3");
	struct mw_hold h = {.name = MW_STR("case"),
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1,
	                    .queue_id = &held,
	                    .n_queue_id = 1};
	MW_BUF_AUTO cbor = {0};
	now_us = T0;
	assert_int_equal(mw_store_create(journal, fs, &fake, &err), 0);
	assert_int_equal(fs->sync_dir(fs, journal), 0);
	struct mw_store *st = open_store(m, MW_STORE_WRITE);
	assert_non_null(st);
	assert_int_equal(mw_hold_encode(&h, &cbor), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_HOLD, now_us, cbor.p, cbor.n, NULL,
	                               &err),
	                 0);
	for (unsigned k = 0; k < MAILS; k++) {
		append(st, k);
		if (k % 2)
			assert_int_equal(mw_store_roll(st, &err), 0);
		now_us += 20 * HOUR;
	}
	mw_store_close(st);
	add_keys(m);
	return m;
}

/* A segment that was never put into place has no frame, and its key may stay. */
static void
has_no_key(void *arg, const uint8_t *p, size_t n)
{
	uint64_t at = *(uint64_t *)arg;
	bool key = false, used = false;
	for (size_t i = 0; i + 8 <= n; i += 8) {
		bool added = memcmp(p + i, "MWALKEY1", 8) == 0;
		key = key || added || memcmp(p + i, "MAILWAL1", 8) == 0;
		used = used || added || memcmp(p + i, "MWF1", 4) == 0;
	}
	if (key && used)
		fail_msg("at %llu: a removed file left its keys on the disk",
		         (unsigned long long)at);
}

static int
count_left(void *arg, const char *name)
{
	size_t k = strspn(name, "0123456789abcdef");
	*(unsigned *)arg += k == 16 && strcmp(name + k, ".tmp") == 0;
	return 0;
}

/* Files on their way out. */
static unsigned
left(struct fs_mem *m)
{
	unsigned n = 0;
	assert_true(fs_mem_fs(m)->list(fs_mem_fs(m), keys_dir, count_left, &n) >= 0);
	return n;
}

static int
prune(struct fs_mem *m, uint64_t stop, struct mw_retain_sum *sum)
{
	struct mw_conf_retain rule = {.keep_us = keep_us};
	struct mw_conf conf = {.retain = &rule, .n_retain = 1};
	struct mw_err err = {0};
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *log = NULL;
	struct mw_retain_done done;
	rule.name = (char *)(uintptr_t) "all";
	struct mw_store *st = open_store(m, MW_STORE_READ);
	if (!st)
		return MW_EIO;
	int r = mw_rules_new(st, &conf, &rules, &err);
	if (r == 0)
		r = mw_holds_load(st, &holds, &err);
	if (r == 0)
		r = mw_retain_gather(st, rules, holds, NULL, &log, &err);
	mw_store_close(st);
	if (r == 0) {
		struct mw_retain_limits l = {.rule = &rule,
		                             .n_rule = 1,
		                             .now_us = now_us,
		                             .gone = log->audit ? log->audit->gone : NULL,
		                             .n_gone =
		                                 log->audit ? log->audit->n_gone : 0,
		                             .damaged = log->damaged > 0};
		for (size_t i = log->n_seg; i > 0 && !log->seg[i - 1].settled; i--)
			l.open_seg = log->seg[i - 1].number;
		mw_retain_plan(&l, log->rec, log->n, sum);
		calls_before = fs_mem_calls(m, FS_ANY);
		if (stop)
			fs_mem_stop_at(m, stop);
		struct mw_retain_owner o = {.dir = journal,
		                            .by = "uid 0",
		                            .now_us = now_us};
		o.st = open_store(m, MW_STORE_WRITE);
		r = o.st ? mw_retain_run(&o, log, &done, &err) : MW_EIO;
		mw_owner_close(&o);
	}
	mw_retain_free(log);
	mw_holds_free(holds);
	mw_rules_free(rules);
	return r;
}

struct seen {
	bool live[MAILS];
	unsigned wiped, half, pending;
};

/* What stands in the log; every contradiction fails. */
static void
look(struct fs_mem *m, struct seen *s, uint64_t at)
{
	struct mw_err err = {0};
	struct mw_record r;
	MW_GONE_AUTO *g = NULL;
	int k;
	memset(s, 0, sizeof *s);
	struct mw_store *st = open_store(m, MW_STORE_READ);
	assert_non_null(st);
	assert_int_equal(mw_gone_load(st, &g, &err), 0);
	struct mw_cursor *c = NULL;
	uint64_t next = 1;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		if (r.seq != next && !mw_gone_stretch(g, next, r.seq - 1, NULL))
			fail_msg("at %llu: records %llu to %llu are gone without a word",
			         (unsigned long long)at, (unsigned long long)next,
			         (unsigned long long)r.seq - 1);
		next = r.seq + 1;
		if (r.type != MW_TYPE_MAIL)
			continue;
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO got = {0};
		MW_BUF_AUTO want = {0};
		struct mw_mail mail;
		unsigned id;
		bool named = mw_gone_record(g, r.seq);
		int wiped = mw_record_wiped(st, &r, NULL);
		if (wiped != 0 && !named)
			fail_msg("at %llu: record %llu is wiped without a tombstone",
			         (unsigned long long)at, (unsigned long long)r.seq);
		s->wiped += wiped == 1;
		s->half += wiped < 0;
		s->pending += wiped != 1 && named;
		if (wiped != 0)
			continue;
		if (mw_record_mail(st, &r, a, &mail, &err) < 0 ||
		    mw_record_content(st, &r, &mail, 1 << 20, &got, &err) < 0)
			fail_msg("at %llu: %s", (unsigned long long)at, err.msg);
		assert_int_equal(sscanf(mail.queue_id.p, "Q%u", &id), 1);
		assert_true(id < MAILS);
		content_of(id, &want);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
		s->live[id] = true;
	}
	if (k < 0)
		fail_msg("at %llu: %s", (unsigned long long)at, err.msg);
	for (unsigned i = 0; i < MAILS; i++)
		if ((i >= MAILS - KEPT || i == HELD) && !s->live[i])
			fail_msg("at %llu: mail %u is gone and had not expired",
			         (unsigned long long)at, i);
	mw_cursor_free(c);
	mw_store_close(st);
}

static void
crash_at_every_call(void **state)
{
	(void)state;
	const char *z = getenv("MW_FAULT_ROUNDS");
	uint64_t rounds = z ? strtoull(z, NULL, 10) : 1, states = 0, half = 0, cut = 0;
	struct mw_retain_sum sum;
	struct seen s;
	struct fs_mem *m = loaded();
	assert_int_equal(prune(m, 0, &sum), 0);
	assert_int_equal(sum.all.remove, MAILS - KEPT - 1);
	assert_int_equal(sum.all.held, 1);
	uint64_t calls = fs_mem_calls(m, FS_ANY) - calls_before;
	look(m, &s, 0);
	assert_int_equal(s.pending, 0);
	assert_int_equal(s.wiped, 1); /* the neighbour of the one that is held */
	fs_mem_free(m);
	for (uint64_t at = 1; at <= calls + 2; at++)
		for (uint64_t k = 0; k < 2 + 2 * rounds; k++) {
			enum fs_crash how = k == 0   ? FS_CRASH_DROP
			                    : k == 1 ? FS_CRASH_KEEP
			                             : FS_CRASH_MIX;
			m = loaded();
			(void)!prune(m, at, &sum);
			struct fs_mem *disk = fs_mem_crash(m, how, at * 977 + k);
			look(disk, &s, at);
			half += s.half;
			fs_mem_nameless(m, has_no_key, &at);
			if (left(disk)) { /* a writer that comes finishes it */
				cut++;
				mw_store_close(open_store(disk, MW_STORE_WRITE));
				assert_int_equal(left(disk), 0);
				look(disk, &s, at);
			}
			int r = prune(disk, 0, &sum);
			if (r < 0)
				fail_msg("at %llu: the next run fails: %s",
				         (unsigned long long)at, mw_err_name(r));
			look(disk, &s, at);
			assert_int_equal(s.pending, 0);
			assert_int_equal(left(disk), 0);
			fs_mem_nameless(disk, has_no_key, &at);
			for (unsigned i = 0; i < MAILS - KEPT; i++)
				assert_true(i == HELD || !s.live[i]);
			fs_mem_free(m);
			fs_mem_free(disk);
			states++;
		}
	print_message(
	    "%llu crash states, %llu slots half wiped, %llu removals cut short\n",
	    (unsigned long long)states, (unsigned long long)half,
	    (unsigned long long)cut);
	assert_true(cut > 0);
}

/* ---- one of several recipients erased ---- */

enum {
	CUT = 4 /* of the first so many mails */
};

struct cut_list {
	struct mw_record rec[CUT];
	uint8_t token[CUT][8];
	size_t n;
};

static void
list_cut(struct fs_mem *m, struct cut_list *l)
{
	struct mw_record r;
	MW_STORE_AUTO *st = open_store(m, MW_STORE_READ);
	MW_CURSOR_AUTO *c = NULL;
	l->n = 0;
	assert_int_equal(mw_cursor_new(st, 1, &c, NULL), 0);
	while (l->n < CUT && mw_cursor_next(c, &r, NULL) == 1) {
		char who[32];
		if (r.type != MW_TYPE_MAIL)
			continue;
		(void)snprintf(who, sizeof who, "u1@d%zu.test", l->n);
		mw_store_token(st, MW_KEY_RCPT, mw_strz(who), l->token[l->n]);
		l->rec[l->n++] = r;
	}
}

static void
erase_one(struct fs_mem *m, uint64_t stop)
{
	struct cut_list l;
	struct mw_err err = {0};
	list_cut(m, &l);
	calls_before = fs_mem_calls(m, FS_ANY);
	if (stop)
		fs_mem_stop_at(m, stop);
	struct mw_retain_owner o = {.dir = journal,
	                            .by = "uid 0",
	                            .now_us = now_us,
	                            .st = NULL};
	struct mw_erase_list e = {.cut = l.rec,
	                          .n_cut = l.n,
	                          .token = l.token,
	                          .n_token = l.n};
	o.st = open_store(m, MW_STORE_WRITE);
	if (o.st && mw_erase_run(&o, &e, &err) < 0 && !stop)
		fail_msg("erase: %s", err.msg);
	mw_owner_close(&o);
}

/* How many mails have lost the token and are in order; each has all others. */
static unsigned
count_cut(struct fs_mem *m, uint64_t at)
{
	struct cut_list l;
	unsigned n = 0;
	list_cut(m, &l);
	MW_STORE_AUTO *st = open_store(m, MW_STORE_READ);
	for (size_t i = 0; i < l.n; i++) {
		MW_BUF_AUTO t = {0};
		struct mw_err err = {0};
		char who[32];
		uint8_t other[8];
		int k = mw_record_slot(st, &l.rec[i], &t, &err);
		if (k < 0)
			fail_msg("at %llu: %s", (unsigned long long)at, err.msg);
		(void)snprintf(who, sizeof who, "u2@d%zu.test", i);
		mw_store_token(st, MW_KEY_RCPT, mw_strz(who), other);
		assert_non_null(memmem(t.p, t.n, other, sizeof other));
		bool left = memmem(t.p, t.n, l.token[i], sizeof *l.token) != NULL;
		assert_true(k != MW_SLOT_IS_CUT || !left);
		n += k == MW_SLOT_IS_CUT;
	}
	return n;
}

/* What others keep is whole at any moment; the next run finishes. */
static void
crash_while_cutting(void **state)
{
	(void)state;
	uint64_t states = 0, half = 0;
	struct mw_retain_sum sum;
	struct seen s;
	struct fs_mem *m = loaded();
	keep_us = 1000 * HOUR;
	erase_one(m, 0);
	uint64_t calls = fs_mem_calls(m, FS_ANY) - calls_before;
	assert_int_equal(count_cut(m, 0), CUT);
	fs_mem_free(m);
	for (uint64_t at = 1; at <= calls + 2; at++)
		for (uint64_t k = 0; k < 4; k++) {
			enum fs_crash how = k == 0   ? FS_CRASH_DROP
			                    : k == 1 ? FS_CRASH_KEEP
			                             : FS_CRASH_MIX;
			m = loaded();
			erase_one(m, at);
			struct fs_mem *disk = fs_mem_crash(m, how, at * 977 + k);
			look(disk, &s, at);
			for (unsigned i = 0; i < MAILS; i++)
				assert_true(s.live[i]);
			unsigned n = count_cut(disk, at);
			assert_int_equal(prune(disk, 0, &sum), 0);
			look(disk, &s, at);
			unsigned after = count_cut(disk, at);
			assert_true(after == CUT || (n == 0 && after == 0));
			half += after && n < CUT;
			fs_mem_free(m);
			fs_mem_free(disk);
			states++;
		}
	print_message("%llu crash states, %llu finished later\n",
	              (unsigned long long)states, (unsigned long long)half);
	assert_true(half > 0);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%.2000s/mw-retain-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%.3000s/j", root);
	return mkdir(journal, 0700); /* for nothing but the lock file */
}

static int
teardown(void **state)
{
	char cmd[PATH_MAX + 16];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(crash_at_every_call),
	    cmocka_unit_test(crash_while_cutting),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
