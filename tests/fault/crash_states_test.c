/* The machine stops in the middle of a load, after any call, on a file system that may
 * also fail; then every state of the disk that could be found is recovered from: what was
 * acknowledged is there byte for byte, nothing is called damage, and the journal goes on.
 *
 *   fault_crash_states_test [--states N] [--seed S]
 *
 * N distinct states of the disk, default a slice. A failing state is printed as the
 * numbers that make it again. */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/fs_mem.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum {
	MAILS = 40, /* numbers that a load may use; above: after the crash */
	VARIANTS = 24
};

static char dir[PATH_MAX]; /* real, but for nothing but the lock file */
static uint64_t want_states = 2000, seed = 1;

static uint64_t
dice(uint64_t *s)
{
	*s ^= *s >> 12;
	*s ^= *s << 25;
	*s ^= *s >> 27;
	return *s * UINT64_C(0x2545F4914F6CDD1D) >> 16;
}

/* ---- one load, decided by a number ---- */

struct plan {
	uint64_t load;  /* what is sent */
	enum fs_op op;  /* which calls fail … */
	uint64_t from;  /* … from this one on */
	int err;        /* 0: none */
	uint64_t times; /* 0: for ever */
	uint64_t
	    kill_at; /* the daemon is killed at this call, and started again; 0: no */
	uint64_t stop_at; /* the machine stops at this call (after the kill) */
};

static struct plan now; /* for the message */
static uint64_t now_crash, now_how;

static void __attribute__((noreturn, format(printf, 1, 2))) bad(const char *fmt, ...)
{
	char text[700];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	fail_msg(
	    "load %llu, op %d from %llu errno %d times %llu, kill at %llu, stop at %llu, "
	    "crash %llu seed %llu: %s",
	    (unsigned long long)now.load, (int)now.op, (unsigned long long)now.from,
	    now.err, (unsigned long long)now.times, (unsigned long long)now.kill_at,
	    (unsigned long long)now.stop_at, (unsigned long long)now_how,
	    (unsigned long long)now_crash, text);
	abort();
}

static void
content_of(unsigned k, struct mw_buf *out)
{
	uint64_t x = k + 99;
	size_t n = k % 9 == 4 ? 120000 : k % 4 == 3 ? 5000 : 60 + k * 7;
	mw_buf_printf(out, "Subject: %u\r\n\r\n", k);
	for (size_t i = 0; i < n; i += 4) {
		uint64_t w = dice(&x);
		mw_buf_put(out, &w, 4);
	}
}

static struct mw_buf content[MAILS + 2];

static struct mw_store *
open_store(struct fs_mem *m, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .fs = fs_mem_fs(m),
	                          .segment_size = 90000, /* rolls in the middle */
	                          .spill_above = 65536,
	                          .no_index = true};
	struct mw_store *st = NULL;
	return mw_store_open(&o, &st, err) < 0 ? NULL : st;
}

static struct mw_entry *
entry(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	char qid[16];
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_mail m = {.time_us = 1000 + k, .queue_id = mw_strz(qid)};
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, content[k].p, content[k].n, &err) < 0 ||
	    mw_entry_describe(e, &m, &err) < 0 || mw_entry_finish_mail(e, &m, &err) < 0)
		return NULL; /* a spill file failed */
	return MW_TAKE(e);
}

struct ledger {
	bool acked[MAILS + 2];
	uint64_t seq[MAILS + 2];
};

struct group {
	pthread_mutex_t mu;
	pthread_cond_t cv;
	unsigned open;
};

struct one {
	struct group *g;
	struct mw_entry *e;
	struct mw_commit c;
};

static void
answered(void *arg, const struct mw_commit *c)
{
	struct one *o = arg;
	pthread_mutex_lock(&o->g->mu);
	o->c = *c;
	if (--o->g->open == 0)
		pthread_cond_signal(&o->g->cv);
	pthread_mutex_unlock(&o->g->mu);
}

/* Submits mails k … k + n - 1 together, so that they share a batch, and waits. */
static void
send_group(struct mw_store *st, unsigned k, unsigned n, struct ledger *l)
{
	struct group g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};
	struct one v[8];
	memset(v, 0, sizeof v);
	mw_assert(n <= MW_COUNT(v));
	for (unsigned i = 0; i < n; i++) {
		v[i].g = &g;
		v[i].e = entry(st, k + i);
	}
	for (unsigned i = 0; i < n; i++)
		if (v[i].e) {
			pthread_mutex_lock(&g.mu);
			g.open++;
			pthread_mutex_unlock(&g.mu);
			mw_store_submit(st, v[i].e, answered, &v[i]);
		}
	pthread_mutex_lock(&g.mu);
	g.open--;
	while (g.open)
		pthread_cond_wait(&g.cv, &g.mu);
	pthread_mutex_unlock(&g.mu);
	for (unsigned i = 0; i < n; i++) {
		l->acked[k + i] = v[i].e && v[i].c.code == 0;
		l->seq[k + i] = v[i].c.seq;
		mw_entry_free(v[i].e);
	}
}

/* Mails from number k on. */
static void
load(struct fs_mem *m, uint64_t number, unsigned k, struct ledger *l)
{
	struct mw_err err = {0};
	uint64_t s = number * 77 + 5;
	struct mw_store *st = open_store(m, &err);
	unsigned end = k + 4 + (unsigned)(dice(&s) % (MAILS / 2 - 4));
	while (st && k < end) {
		unsigned n = 1 + (unsigned)(dice(&s) % 6);
		n = MW_MIN(n, end - k);
		send_group(st, k, n, l);
		k += n;
		uint64_t what = dice(&s) % 12;
		if (what == 0) {
			(void)!mw_store_roll(st, &err);
		} else if (what == 1) { /* a second run of the daemon */
			mw_store_close(st);
			st = open_store(m, &err);
		}
	}
	mw_store_close(st);
}

/* ---- after the crash ---- */

static void
check(struct mw_store *st, const struct ledger *l)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	bool seen[MAILS + 2] = {false};
	uint64_t last = 0;
	int q;
	if (mw_cursor_new(st, 1, &c, &err) < 0)
		bad("%s", err.msg);
	while ((q = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO got = {0};
		struct mw_mail m;
		if (r.seq != last + 1)
			bad("record %llu comes after %llu", (unsigned long long)r.seq,
			    (unsigned long long)last);
		last = r.seq;
		if (r.type != MW_TYPE_MAIL)
			continue;
		if (mw_record_mail(st, &r, a, &m, &err) < 0 ||
		    mw_record_content(st, &r, &m, 1 << 24, &got, &err) < 0)
			bad("%s", err.msg);
		unsigned k = (unsigned)strtoul(m.queue_id.p + 1, NULL, 10);
		if (k >= MAILS + 2 || got.n != content[k].n ||
		    memcmp(got.p, content[k].p, got.n) != 0)
			bad("mail %u is altered", k);
		if (l->acked[k] && l->seq[k] == r.seq)
			seen[k] = true;
	}
	if (q < 0)
		bad("called damage: %s", err.msg);
	for (unsigned k = 0; k < MAILS + 2; k++)
		if (l->acked[k] && !seen[k])
			bad("acknowledged mail %u is gone", k);
}

static void
recover(struct fs_mem *disk, const struct ledger *before, bool whole)
{
	struct mw_err err = {0};
	struct ledger l = *before;
	struct mw_store *st = open_store(disk, &err);
	if (!st)
		bad("does not open: %s", err.msg);
	check(st, &l);
	if (whole) {
		send_group(st, MAILS, 2, &l);
		if (!l.acked[MAILS] || !l.acked[MAILS + 1])
			bad("takes nothing more");
		mw_store_close(st);
		st = open_store(disk, &err);
		if (!st)
			bad("does not open again: %s", err.msg);
		check(st, &l);
	}
	mw_store_close(st);
}

/* ---- all of them ---- */

static uint64_t *seen; /* hashes of states; 0: free */
static size_t n_seen, cap_seen;

static bool
is_new(uint64_t h)
{
	h += !h;
	for (size_t i = h % cap_seen;; i = (i + 1) % cap_seen) {
		if (seen[i] == h)
			return false;
		if (seen[i])
			continue;
		seen[i] = h;
		n_seen++;
		return true;
	}
}

static struct fs_mem *
fresh(void)
{
	struct fs_mem *m = fs_mem_new();
	struct mw_err err = {0};
	const struct mw_fs *fs = fs_mem_fs(m);
	if (mw_store_create(dir, fs, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	/* the directory itself is made durable by whoever installs */
	assert_int_equal(fs->sync_dir(fs, dir), 0);
	return m;
}

static struct plan
draw(uint64_t *s, uint64_t calls)
{
	static const int errs[] = {EIO, ENOSPC, EDQUOT, EINTR, EROFS};
	static const enum fs_op ops[] = {FS_WRITE, FS_SYNC, FS_SYNC_DIR, FS_OPEN,
	                                 FS_OTHER};
	struct plan p = {.load = dice(s) % 1000, .stop_at = 1 + dice(s) % (calls + 3)};
	if (dice(s) % 2)
		p.kill_at = 1 + dice(s) % calls;
	if (dice(s) % 3 == 0)
		return p;
	p.op = ops[dice(s) % MW_COUNT(ops)];
	p.err = errs[dice(s) % MW_COUNT(errs)];
	p.from = 1 + dice(s) % (p.op == FS_WRITE ? 40 : 12);
	p.times = dice(s) % 3; /* 0: for ever */
	return p;
}

static void
states(void **state)
{
	(void)state;
	uint64_t s = seed * UINT64_C(0x9E3779B97F4A7C15), calls = 150, runs = 0, same = 0;
	cap_seen = (size_t)want_states * 2 + 1024;
	seen = calloc(cap_seen, sizeof *seen);
	assert_non_null(seen);
	while (n_seen < want_states) {
		struct ledger l = {{false}, {0}};
		struct fs_mem *m = fresh();
		now = draw(&s, calls);
		now_how = now_crash = 0;
		if (now.err)
			fs_mem_fail(m, now.op, now.from, now.err, now.times);
		if (now.kill_at) {
			fs_mem_stop_at(m, now.kill_at);
			load(m, now.load, 0, &l);
			if (fs_mem_sins(m))
				bad("a failed descriptor was used again");
			fs_mem_revive(m);
		}
		fs_mem_stop_at(m, now.stop_at);
		load(m, now.load + 1, MAILS / 2, &l);
		if (fs_mem_sins(m))
			bad("a failed descriptor was used again");
		for (unsigned v = 0; v < VARIANTS && n_seen < want_states; v++) {
			now_how = v < 2 ? v : v % 3 ? FS_CRASH_MIX : FS_CRASH_TORN;
			now_crash = dice(&s);
			struct fs_mem *disk =
			    fs_mem_crash(m, (enum fs_crash)now_how, now_crash);
			if (is_new(fs_mem_hash(disk)))
				recover(disk, &l, n_seen % 4 == 0);
			else
				same++;
			fs_mem_free(disk);
		}
		fs_mem_free(m);
		runs++;
		if (want_states > 5000 && runs % 500 == 0)
			print_message("%zu states\n", n_seen);
	}
	print_message(
	    "%zu distinct crash states (%llu runs, %llu met twice), seed %llu\n", n_seen,
	    (unsigned long long)runs, (unsigned long long)same, (unsigned long long)seed);
	free(seen);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "%.2000s/mw-crash-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	for (unsigned k = 0; k < MAILS + 2; k++)
		content_of(k, &content[k]);
	return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	char lock[PATH_MAX + 8];
	for (unsigned k = 0; k < MAILS + 2; k++)
		mw_buf_free(&content[k]);
	(void)snprintf(lock, sizeof lock, "%s/lock", dir);
	(void)unlink(lock);
	return rmdir(dir);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(states),
	};
	for (int i = 1; i < argc; i++) {
		bool n = strcmp(argv[i], "--states") == 0;
		if (i + 1 == argc || (!n && strcmp(argv[i], "--seed") != 0)) {
			print_error("usage: %s [--states N] [--seed S]\n", argv[0]);
			return 64;
		}
		*(n ? &want_states : &seed) = strtoull(argv[i + 1], NULL, 10);
		i++;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
