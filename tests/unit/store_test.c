/* The store: what is appended comes back byte for byte, after a clean end, after a crash,
 * with and without its index. MW_TEST_THREADS */
#include "journal/record/outcome.h"
#include "journal/record/retire.h"
#include "journal/store/store.h"

#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/hpke.h"
#include "journal/store/control.h"
#include "tests/support/dice.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct box {
	char dir[PATH_MAX];
	char journal[PATH_MAX];
};

static int
setup(void **state)
{
	struct box *b = calloc(1, sizeof *b);
	assert_non_null(b);
	(void)snprintf(b->dir, sizeof b->dir, "%s/mw-store-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->journal, sizeof b->journal, "%.4000s/j", b->dir);
	struct mw_err err = {0};
	assert_int_equal(mw_store_create(b->journal, NULL, NULL, &err), 0);
	*state = b;
	return 0;
}

static void
rm_rf(const char *path)
{
	DIR *d = opendir(path);
	if (d) {
		for (struct dirent *e; (e = readdir(d));) {
			char p[PATH_MAX];
			if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
				continue;
			if (snprintf(p, sizeof p, "%s/%s", path, e->d_name) < PATH_MAX)
				rm_rf(p);
		}
		(void)closedir(d);
		(void)rmdir(path);
	} else {
		(void)unlink(path);
	}
}

static int
teardown(void **state)
{
	struct box *b = *state;
	rm_rf(b->dir);
	free(b);
	return 0;
}

static struct mw_store *
open_store(struct box *b, enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = mode,
	                          .segment_size = 1 << 20};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("open: %s", err.msg);
	return st;
}

/* Deterministic content: message k. Every fourth is incompressible and large. */
static void
content_of(unsigned k, struct mw_buf *out)
{
	mw_buf_printf(out, "Received: by x id Q%u;\r\nMessage-ID: <%u@x.test>\r\n", k, k);
	mw_buf_printf(out, "Subject: number\r\n %u\r\nFrom: a%u@x.test\r\n\r\n", k, k);
	size_t n = k % 4 == 3 ? 400000 + k * 7 : (size_t)k * 37 % 5000;
	uint64_t x = k + 1;
	for (size_t i = 0; i < n; i++) {
		(void)dice_next(&x);
		mw_buf_putc(out, k % 4 == 3 ? (char)(x >> 33) : (char)('a' + x % 7));
	}
}

static struct mw_entry *
entry_of(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	MW_BUF_AUTO c = {0};
	content_of(k, &c);
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
	for (size_t at = 0; at < c.n;) { /* cut anywhere */
		size_t n = MW_MIN(c.n - at, 1 + (at * 31 + k) % 70000);
		assert_int_equal(mw_entry_body(e, c.p + at, n, &err), 0);
		at += n;
	}
	char rcpt[64], qid[32];
	(void)snprintf(rcpt, sizeof rcpt, "User%u@Example.TEST", k % 5);
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_rcpt r = {.addr = mw_strz(rcpt), .flags = MW_RCPT_LOCAL};
	struct mw_mail m = {.time_us = 1700000000000000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("s@x.test"),
	                    .front = MW_STR("milter"),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	assert_int_equal(m.size, c.n);
	if (mw_entry_finish_mail(e, &m, &err) < 0)
		fail_msg("finish: %s", err.msg);
	return e;
}

static void
append(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	struct mw_commit c;
	MW_ENTRY_AUTO *e = entry_of(st, k);
	if (mw_store_append(st, e, &c, &err) < 0)
		fail_msg("append: %s", err.msg);
}

/* Reads everything; asserts that the mails are first … n-1 in some order, exact. */
static void
check_all(struct mw_store *st, unsigned n)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned seen = 0;
	uint64_t seq = 0;
	int k;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		assert_int_equal(r.seq, seq + 1);
		seq = r.seq;
		if (r.type != MW_TYPE_MAIL)
			continue;
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_mail m;
		MW_BUF_AUTO got = {0};
		MW_BUF_AUTO want = {0};
		unsigned id;
		if (mw_record_mail(st, &r, a, &m, &err) < 0)
			fail_msg("meta: %s", err.msg);
		assert_int_equal(sscanf(m.queue_id.p, "Q%u", &id), 1);
		content_of(id, &want);
		if (mw_record_content(st, &r, &m, 1 << 24, &got, &err) < 0)
			fail_msg("content: %s", err.msg);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
		uint8_t sha[32];
		mw_sha256_of(want.p, want.n, sha);
		assert_memory_equal(m.sha256, sha, 32);
		char subject[32];
		(void)snprintf(subject, sizeof subject, "number %u", id);
		assert_true(mw_str_eq(m.subject, mw_strz(subject)));
		seen++;
	}
	if (k < 0)
		fail_msg("walk: %s", err.msg);
	assert_int_equal(seen, n);
}

static void
round_trip_and_reopen(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 40; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ); /* beside the writer */
	check_all(rd, 40);
	mw_store_close(rd);
	mw_store_close(st);
	st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 40; k < 50; k++)
		append(st, k);
	mw_store_close(st);
	rd = open_store(b, MW_STORE_READ);
	check_all(rd, 50);
	mw_store_close(rd);
}

static void
second_writer_is_refused(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE), *other = NULL;
	struct mw_store_opts o = {.dir = b->journal, .mode = MW_STORE_WRITE};
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &other, &err), MW_ELOCKED);
	assert_non_null(strstr(err.msg, "in use by process"));
	mw_store_close(st);
}

struct found {
	uint64_t seq[64];
	unsigned n;
};

static int
find_cb(void *arg, const struct mw_record *r)
{
	struct found *f = arg;
	assert_true(f->n < 64);
	f->seq[f->n++] = r->seq;
	return 0;
}

static void
find_rcpt(struct mw_store *st, struct found *f)
{
	struct mw_err err = {0};
	f->n = 0;
	if (mw_store_find(st, MW_KEY_RCPT, MW_STR("user2@example.test"), find_cb, f,
	                  &err) < 0)
		fail_msg("find: %s", err.msg);
}

static int
give_up(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return MW_EDAMAGED;
}

static void
index_is_a_cache(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 60; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct found one, two;
	find_rcpt(rd, &one);
	assert_int_equal(one.n, 12);
	mw_store_close(rd);
	mw_store_close(st);

	char ix[PATH_MAX];
	(void)snprintf(ix, sizeof ix, "%.4000s/index/00000000.mdb", b->journal);
	struct stat sb;
	assert_int_equal(stat(ix, &sb), 0);
	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two); /* from the index */
	assert_int_equal(one.n, two.n);
	assert_memory_equal(one.seq, two.seq, one.n * sizeof one.seq[0]);
	mw_store_close(rd);

	/* What the caller's function says is the answer, by index and by walk. */
	struct mw_err err = {0};
	for (int k = 0; k < 2; k++) {
		unsigned calls = 0;
		rd = open_store(b, MW_STORE_READ);
		assert_int_equal(mw_store_find(rd, MW_KEY_RCPT,
		                               MW_STR("user2@example.test"), give_up,
		                               &calls, &err),
		                 MW_EDAMAGED);
		assert_int_equal(calls, 1);
		mw_store_close(rd);
		if (k == 0)
			assert_int_equal(truncate(ix, 5000), 0); /* garbled */
	}

	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	mw_store_close(rd);

	rm_rf(ix); /* gone */
	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	uint64_t n = 0;
	assert_int_equal(mw_store_reindex(rd, &n, &err), 0);
	assert_true(n >= 60);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	mw_store_close(rd);
}

static void
id_prefixes(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = entry_of(st, 1);
	char id[MW_ID_TEXT + 1];
	mw_id_text(id, mw_entry_id(e));
	struct mw_commit c;
	assert_int_equal(mw_store_append(st, e, &c, &err), 0);
	for (unsigned k = 2; k < 12; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct mw_record r;
	for (size_t n = MW_ID_TEXT; n >= 7; n -= n > 12 ? 15 : 1) {
		id[n] = '\0';
		if (mw_store_find_id(rd, id, &r, &err) < 0)
			fail_msg("find %s: %s", id, err.msg);
		assert_int_equal(r.seq, c.seq);
	}
	assert_int_equal(mw_store_find_id(rd, "zzzzzzzzzzz", &r, &err), MW_ENOTFOUND);
	mw_store_close(rd);
	mw_store_close(st);
}

/* The daemon is killed: a copy of the directory is what a crash leaves. */
static void
copy_dir(const char *from, const char *to)
{
	char cmd[4 * PATH_MAX + 64];
	int r = -1;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s' && cp -a '%s' '%s' 2>/dev/null", to,
	               from, to);
	/* a file that is being prepared may get its name just then */
	for (unsigned k = 0; r != 0 && k < 50; k++)
		r = system(cmd);
	assert_int_equal(r, 0);
}

static void
crash_keeps_what_was_acknowledged(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 7; k++)
		append(st, k);
	struct box copy = *b;
	(void)snprintf(copy.journal, sizeof copy.journal, "%.4000s/copy", b->dir);
	copy_dir(b->journal, copy.journal);
	mw_store_close(st);

	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000002.seg",
	               copy.journal);
	struct mw_store *rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 7);
	mw_store_close(rd);
	st = open_store(&copy, MW_STORE_WRITE); /* recovers */
	append(st, 7);
	mw_store_close(st);
	rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 8);
	mw_store_close(rd);
}

/* Where the segment's zero tail begins. */
static long
data_end(const char *path)
{
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	long last = 0;
	for (long i = 1;; i++) {
		int c = fgetc(f);
		if (c == EOF)
			break;
		if (c)
			last = i;
	}
	(void)fclose(f);
	return last;
}

static void
torn_tail_is_not_damage(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	append(st, 1);
	append(st, 2);
	struct box copy = *b;
	(void)snprintf(copy.journal, sizeof copy.journal, "%.4000s/copy", b->dir);
	copy_dir(b->journal, copy.journal);
	mw_store_close(st);
	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000001.seg",
	               copy.journal);
	long end = data_end(seg);
	int fd = open(seg, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "\0\0\0\0", 4, end - 8),
	                 4); /* inside the last frame */
	(void)close(fd);
	struct mw_store *rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 1);
	mw_store_close(rd);
	st = open_store(&copy, MW_STORE_WRITE);
	append(st, 3);
	mw_store_close(st);
	rd = open_store(&copy, MW_STORE_READ);
	check_all(rd, 2);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned notes = 0;
	assert_int_equal(mw_cursor_new(rd, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1)
		notes += r.type == MW_TYPE_RECOVERY;
	assert_int_equal(notes, 1);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(rd);
}

static void
damage_is_contained_and_named(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	struct mw_commit at[3];
	for (unsigned k = 0; k < 3; k++) {
		MW_ENTRY_AUTO *e = entry_of(st, k);
		assert_int_equal(mw_store_append(st, e, &at[k], &err), 0);
	}
	mw_store_close(st);
	char seg[PATH_MAX];
	(void)snprintf(seg, sizeof seg, "%.4000s/segments/0000000000000001.seg",
	               b->journal);
	int fd = open(seg, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)at[1].loc.offset + 20), 1);
	(void)close(fd);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	assert_int_equal(mw_cursor_new(rd, 1, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(mw_cursor_next(c, &r, &err), MW_EDAMAGED);
	assert_non_null(strstr(err.msg, "records 2 to 2 are lost"));
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(r.seq, 3);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(rd);
}

/* ---- many at once ---- */

static void *
many(void *arg)
{
	struct mw_store *st = ((void **)arg)[0];
	unsigned first = (unsigned)(uintptr_t)((void **)arg)[1];
	for (unsigned k = 0; k < 25; k++)
		append(st, (first + k) * 4); /* small ones */
	return NULL;
}

static void
many_threads_share_syncs(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	pthread_t t[8];
	void *args[8][2];
	for (unsigned i = 0; i < 8; i++) {
		args[i][0] = st;
		args[i][1] = (void *)(uintptr_t)(i * 25);
		assert_int_equal(pthread_create(&t[i], NULL, many, args[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++)
		(void)pthread_join(t[i], NULL);
	struct mw_store_stats s;
	mw_store_stats(st, &s);
	assert_int_equal(s.mails, 200);
	assert_true(s.batches < 200);
	mw_store_close(st);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	check_all(rd, 200);
	mw_store_close(rd);
}

static void
roll_and_note(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	append(st, 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	append(st, 2);
	struct mw_store_stats s;
	mw_store_stats(st, &s);
	assert_int_equal(s.segment, 2);
	struct mw_mark m = {.name = MW_STR("nightly"),
	                    .phase = MW_MARK_START,
	                    .time_us = 5};
	MW_BUF_AUTO cb = {0};
	assert_int_equal(mw_mark_encode(&m, &cb), 0);
	struct mw_commit c;
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, 5, cb.p, cb.n, &c, &err), 0);
	mw_store_close(st);
	uint64_t seq = 0;
	if (mw_control_note(b->journal, MW_TYPE_MARK, 5, cb.p, cb.n, &seq, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(seq > c.seq);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	check_all(rd, 2);
	struct found f = {.n = 0};
	char type = MW_TYPE_MARK;
	assert_int_equal(mw_store_find(rd, MW_KEY_TYPE, mw_str(&type, 1), find_cb, &f,
	                               &err),
	                 0);
	assert_int_equal(f.n, 2);
	mw_store_close(rd);
}

static void
full_disk_floor(void **state)
{
	struct box *b = *state;
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .min_free = UINT64_C(1) << 60};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_store_ready(st), MW_ENOSPC);
	MW_ENTRY_AUTO *e = entry_of(st, 1);
	assert_int_equal(mw_store_append(st, e, NULL, &err), MW_ENOSPC);
	mw_store_close(st);
}

/* With recovery keys: no key, no content; with either key all of it; look-ups, marks and
 * the index need none; and nothing of the mail can be read off the disk. */
static void
encrypted_to_recovery_keys(void **state)
{
	struct box *b = *state;
	uint8_t sk[64], pk[64], other[32];
	mw_random(sk, sizeof sk);
	mw_random(other, sizeof other);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	assert_int_equal(mw_hpke_public(sk + 32, pk + 32), 0);
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = 2};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_store_recovery_keys(st), 2);
	for (unsigned k = 0; k < 10; k++)
		append(st, k);
	mw_store_close(st);
	st = open_store(b, MW_STORE_WRITE); /* a writer that was given no keys */
	assert_int_equal(mw_store_recovery_keys(st), 2);
	append(st, 10);
	struct mw_mark m = {.name = MW_STR("n"), .time_us = 5};
	MW_BUF_AUTO cb = {0};
	assert_int_equal(mw_mark_encode(&m, &cb), 0);
	struct mw_commit c;
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, 5, cb.p, cb.n, &c, &err), 0);
	mw_store_close(st);

	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct found f = {.n = 0};
	find_rcpt(rd, &f);
	assert_int_equal(f.n, 2);
	struct mw_record r;
	MW_BUF_AUTO meta = {0};
	assert_int_equal(mw_store_get(rd, c.loc, &r, &err), 0);
	assert_int_equal(mw_record_meta(rd, &r, &meta, &err), 0); /* the mark */
	MW_CURSOR_AUTO *cur = NULL;
	assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
	assert_int_equal(mw_cursor_next(cur, &r, &err), 1);
	assert_int_equal(mw_record_meta(rd, &r, &meta, &err), MW_EKEY);
	assert_non_null(strstr(err.hint, "--key"));
	mw_cursor_free(MW_TAKE(cur));
	mw_store_close(rd);
	for (int k = 0; k < 3; k++) {
		struct mw_store_opts ro = {.dir = b->journal,
		                           .secret = k < 2 ? sk + 32 * k : other,
		                           .n_secret = 1};
		assert_int_equal(mw_store_open(&ro, &rd, &err), 0);
		if (k < 2) {
			check_all(rd, 11);
		} else {
			assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
			assert_int_equal(mw_cursor_next(cur, &r, &err), 1);
			assert_int_equal(mw_record_meta(rd, &r, &meta, &err), MW_EKEY);
			mw_cursor_free(MW_TAKE(cur));
		}
		mw_store_close(rd);
	}
	char cmd[2 * PATH_MAX];
	(void)snprintf(cmd, sizeof cmd,
	               "grep -raqE 'example|x[.]test|Message-ID|aaaaaaa|number' '%s'",
	               b->journal);
	assert_int_equal(WEXITSTATUS(system(cmd)), 1); /* nothing found */
}

static void
count_keys(void *arg, const uint8_t *id)
{
	unsigned *n = arg;
	*n += id != NULL;
}

/* Keys changed while the writer runs: its next segment has them. */
static void
keys_are_rotated(void **state)
{
	struct box *b = *state;
	uint8_t sk[64], pk[64];
	mw_random(sk, sizeof sk);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	assert_int_equal(mw_hpke_public(sk + 32, pk + 32), 0);
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk,
	                          .n_recovery = 1};
	struct mw_store *st = NULL, *rd = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	append(st, 0);
	assert_int_equal(mw_store_set_recovery(b->journal, pk, 2, &err), 0);
	assert_int_equal(mw_store_roll(st, &err), 0);
	append(st, 1);
	mw_store_close(st);
	rd = open_store(b, MW_STORE_READ);
	unsigned n = 0;
	assert_int_equal(mw_store_segment_keys(rd, 1, count_keys, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(mw_store_segment_keys(rd, 2, count_keys, &n, &err), 0);
	assert_int_equal(n, 3);
	mw_store_close(rd);
	struct mw_store_opts ro = {.dir = b->journal, .secret = sk, .n_secret = 1};
	assert_int_equal(mw_store_open(&ro, &rd, &err), 0);
	check_all(rd, 2);
	mw_store_close(rd);
}

static int
count_type(void *arg, const struct mw_record *r)
{
	unsigned *n = arg;
	n[r->type == MW_TYPE_OUTCOME || r->type == MW_TYPE_RESTORE]++;
	return 0;
}

/* Whoever looks for a mail finds the outcomes that speak of it, and no others. */
static void
outcomes_refer_to_their_mails(void **arg)
{
	struct box *b = *arg;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_outcome v[2] = {{.seq = 1, .done = true}, {.seq = 2, .done = true}};
	struct mw_outcomes o = {.time_us = 1, .v = v, .n = 2};
	uint8_t other[MW_ID_LEN];
	struct mw_commit c;
	struct mw_err err = {0};
	MW_BUF_AUTO cb = {0};
	mw_id_new(v[0].id);
	mw_id_new(v[1].id);
	mw_id_new(other);
	uint8_t back[1][MW_ID_LEN];
	mw_id_new(back[0]);
	struct mw_restore x = {.id = back, .n_id = 1};
	assert_int_equal(mw_restore_encode(&x, &cb), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_RESTORE, 5, cb.p, cb.n, &c, &err), 0);
	mw_buf_clear(&cb);
	assert_int_equal(mw_outcomes_encode(&o, &cb), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, 5, cb.p, cb.n, &c, &err), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, 5, "junk", 4, &c, &err), 0);
	const uint8_t *const ids[] = {v[0].id, v[1].id, back[0], other};
	for (unsigned i = 0; i < 4; i++) {
		unsigned n[2] = {0};
		struct mw_str id = {(const char *)ids[i], 6};
		assert_int_equal(mw_store_find(st, MW_KEY_ID, id, count_type, n, &err),
		                 0);
		assert_int_equal(n[0], 0);
		assert_int_equal(n[1], i < 3);
	}
	mw_store_close(st);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	    T(round_trip_and_reopen),
	    T(second_writer_is_refused),
	    T(index_is_a_cache),
	    T(id_prefixes),
	    T(crash_keeps_what_was_acknowledged),
	    T(torn_tail_is_not_damage),
	    T(damage_is_contained_and_named),
	    T(many_threads_share_syncs),
	    T(roll_and_note),
	    T(outcomes_refer_to_their_mails),
	    T(full_disk_floor),
	    T(encrypted_to_recovery_keys),
	    T(keys_are_rotated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
