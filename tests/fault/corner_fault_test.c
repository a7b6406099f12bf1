/* Corners of the engine in which a fault once hid: each stands here by itself.
 * MW_TEST_THREADS */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/dice.h"
#include "tests/support/fs_mem.h"
#include "tests/support/shell.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	DICTS = 5, /* one more than a segment is known to have */
	PER_DICT = 40,
	BODY = 50000
};

static char root[64], dir[80];
static struct mw_fs fs; /* the real one, with an eye on it */
static uint8_t key[32];

/* ---- memory that is wanting ---- */

static atomic_bool others_fail; /* every calloc of all threads but the first */
static pthread_t main_thread;
static atomic_int stage;          /* 1: the trainer's next calloc waits … */
static atomic_bool close_is_near; /* … for this, and fails */

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                     \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CALLOC_FAILS 0 /* they bring their own */
#else
#define CALLOC_FAILS 1
enum {
	TRAINER_NICE = 10
};
void *__libc_calloc(size_t k, size_t n);
void *
calloc(size_t k, size_t n)
{
	if (atomic_load(&others_fail) && !pthread_equal(pthread_self(), main_thread)) {
		errno = ENOMEM;
		return NULL;
	}
	if (atomic_load(&stage) == 0 || getpriority(PRIO_PROCESS, 0) != TRAINER_NICE)
		return __libc_calloc(k, n);
	atomic_store(&stage, 2);
	for (int i = 0; i < 24000 && !atomic_load(&close_is_near); i++)
		(void)usleep(5000);
	(void)usleep(300000); /* the end is asked for; if not yet, nothing is proven */
	errno = ENOMEM;
	return NULL;
}
#endif

static struct mw_store *
open_with(const struct mw_store_opts *given)
{
	struct mw_store_opts o = *given;
	o.dir = dir;
	o.fs = &fs;
	return opened(&o);
}

static struct mw_store *
writer(bool index)
{
	return open_with(
	    &(struct mw_store_opts){.mode = MW_STORE_WRITE, .no_index = !index});
}

static struct mw_store *
reader(void)
{
	return open_with(&(struct mw_store_opts){.mode = MW_STORE_READ});
}

static void
fresh(void)
{
	struct mw_err err = {0};
	fs = *mw_fs_posix();
	shell("rm -rf '%s'", dir);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
}

/* A finished entry to u@corner.test. */
static struct mw_entry *
entry(struct mw_store *st, unsigned k, struct mw_str content)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	char qid[16], from[40], to[40];
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	(void)snprintf(from, sizeof from, "f%u@corner.test", k);
	(void)snprintf(to, sizeof to, "t%u@corner.test", k);
	struct mw_rcpt r[2] = {{.addr = MW_STR("u@corner.test")}, {.addr = mw_strz(to)}};
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .rcpt = r,
	                    .n_rcpt = 2};
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, content.p, content.n, &err) < 0 ||
	    mw_entry_describe(e, &m, &err) < 0 || mw_entry_finish_mail(e, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return e;
}

static void
append(struct mw_store *st, unsigned k, struct mw_str content)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = entry(st, k, content);
	if (mw_store_append(st, e, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

struct hits {
	unsigned n;
	uint64_t segment[64];
};

static int
hit(void *arg, const struct mw_record *r)
{
	struct hits *h = arg;
	if (h->n < MW_COUNT(h->segment))
		h->segment[h->n] = r->loc.segment;
	h->n++;
	return 0;
}

static struct hits
find(struct mw_store *st)
{
	struct hits h = {.n = 0};
	struct mw_err err = {0};
	if (mw_store_find(st, MW_KEY_RCPT, MW_STR("u@corner.test"), hit, &h, &err) < 0)
		fail_msg("%s", err.msg);
	return h;
}

static void
segment_path(unsigned n, char out[200])
{
	(void)snprintf(out, 200, "%s/segments/%016x.seg", dir, n);
}

/* ---- look-ups ---- */

/* A segment whose headers are both gone is told once and passed over. */
static void
segment_without_a_header(void **state)
{
	(void)state;
	struct mw_err err = {0};
	for (unsigned lost = 1; lost <= 2; lost++) {
		MW_CURSOR_AUTO *c = NULL;
		struct mw_record r;
		unsigned mails = 0, told = 0;
		char path[200];
		fresh();
		struct mw_store *st = writer(false);
		for (unsigned k = 0; k < 3; k++) {
			append(st, k, MW_STR("\r\nx"));
			assert_int_equal(mw_store_roll(st, &err), 0);
		}
		mw_store_close(st);
		segment_path(lost, path);
		shell("dd if=/dev/zero of='%s' bs=4096 count=2 conv=notrunc status=none",
		      path);
		(void)alarm(200); /* it once went round for ever */
		st = reader();
		struct hits h = find(st);
		assert_int_equal(h.n, 2);
		assert_int_equal(h.segment[0], lost == 1 ? 2 : 1);
		assert_int_equal(h.segment[1], 3);
		int k;
		assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
		while ((k = mw_cursor_next(c, &r, &err)) != 0) {
			told += k < 0;
			mails += k == 1 && r.type == MW_TYPE_MAIL;
		}
		assert_int_equal(mails, 2);
		assert_true(told >= 1 && told <= 3);
		mw_cursor_free(MW_TAKE(c));
		mw_store_close(st);
		(void)alarm(0);
	}
}

static atomic_uint_fast64_t bytes_read;

static int64_t
counting_pread(const struct mw_fs *f, int fd, void *p, size_t n, uint64_t off)
{
	(void)f;
	int64_t k = mw_fs_posix()->pread(mw_fs_posix(), fd, p, n, off);
	atomic_fetch_add(&bytes_read, k > 0 ? (uint64_t)k : 0);
	return k;
}

/* Beside a daemon that is at work, a second look-up does not check all of the open
 * segment again; and it sees what came since. */
static void
open_segment_is_walked_once(void **state)
{
	(void)state;
	MW_BUF_AUTO big = {0};
	mw_buf_puts(&big, "\r\n");
	dice_noise(&big, BODY - big.n, 5);
	fresh();
	fs.pread = counting_pread;
	struct mw_store *w = writer(false);
	for (unsigned k = 0; k < 20; k++)
		append(w, k, mw_buf_str(&big));
	struct mw_store *st = reader();
	atomic_store(&bytes_read, 0);
	assert_int_equal(find(st).n, 20);
	uint64_t first = atomic_exchange(&bytes_read, 0);
	assert_true(first > 20 * (uint64_t)BODY);
	assert_int_equal(find(st).n, 20);
	uint64_t second = atomic_exchange(&bytes_read, 0);
	append(w, 20, mw_buf_str(&big));
	assert_int_equal(find(st).n, 21);
	uint64_t third = atomic_load(&bytes_read);
	if (second > first / 4 || third > first / 2)
		fail_msg("%llu bytes read, then %llu and %llu", (unsigned long long)first,
		         (unsigned long long)second, (unsigned long long)third);
	mw_store_close(st);
	mw_store_close(w);
}

static atomic_bool writes_fail;

static int
failing_write(const struct mw_fs *f, int fd, struct iovec *iov, int n, uint64_t off)
{
	(void)f;
	return atomic_load(&writes_fail)
	           ? -EIO
	           : mw_fs_posix()->pwritev(mw_fs_posix(), fd, iov, n, off);
}

/* The same segment, but a recovery has decided meanwhile that less of it counts: a reader
 * that knew its end before goes by that decision (I13). */
static void
end_that_was_taken_back(void **state)
{
	(void)state;
	static uint8_t kept[65536];
	struct mw_err err = {0};
	struct mw_record last;
	char path[200];
	fresh();
	fs.pwritev = failing_write;
	struct mw_store *w = writer(false);
	for (unsigned k = 0; k < 3; k++)
		append(w, k, MW_STR("\r\nx"));
	atomic_store(&writes_fail, true); /* it ends as if killed */
	mw_store_close(w);
	atomic_store(&writes_fail, false);
	struct mw_store *st = reader();
	assert_int_equal(find(st).n, 3);
	assert_int_equal(mw_store_last(st, UINT64_MAX, &last, &err), 1);
	assert_true(last.frame_len <= sizeof kept);
	segment_path(1, path);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	off_t at = (off_t)last.loc.offset;
	size_t n = (size_t)last.frame_len;
	assert_int_equal(pread(fd, kept, n, at), n);
	static const uint8_t zeros[65536];
	assert_int_equal(pwrite(fd, zeros, n, at), n); /* not to be read for a while */
	w = writer(false);
	append(w, 3, MW_STR("\r\nx"));
	assert_int_equal(pwrite(fd, kept, n, at), n);
	assert_int_equal(close(fd), 0);
	struct hits h = find(st);
	assert_int_equal(h.n, 3);
	assert_int_equal(h.segment[2], 2);
	mw_store_close(st);
	mw_store_close(w);
}

/* ---- the index ---- */

/* How often this process has the index's first file open: its lock files. */
static unsigned
index_opens(void)
{
	char lock[200], to[300], link[80];
	unsigned n = 0;
	(void)snprintf(lock, sizeof lock, "%s/index/00000000.mdb-lock", dir);
	DIR *d = opendir("/proc/self/fd");
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		(void)snprintf(link, sizeof link, "/proc/self/fd/%.20s", e->d_name);
		ssize_t k = readlink(link, to, sizeof to - 1);
		if (k <= 0)
			continue;
		to[k] = '\0';
		n += strcmp(to, lock) == 0;
	}
	(void)closedir(d);
	return n;
}

static void
indexed(struct mw_store *st)
{
	struct mw_store_stats s = {.index_lag_records = 1};
	for (int i = 0; i < 24000 && s.index_lag_records; i++) {
		mw_store_stats(st, &s);
		(void)usleep(5000);
	}
	assert_int_equal(s.index_lag_records, 0);
}

/* A writer's look-ups, and a reader in the same process, leave the index to its thread:
 * LMDB wants a file opened once in a process. The answers are the same. */
static void
index_is_open_once(void **state)
{
	(void)state;
	struct mw_err err = {0};
	fresh();
	struct mw_store *w = writer(true);
	for (unsigned k = 0; k < 10; k++)
		append(w, k, MW_STR("\r\nx"));
	indexed(w);
	assert_int_equal(index_opens(), 1);
	assert_int_equal(find(w).n, 10);
	assert_int_equal(index_opens(), 1);
	struct mw_store *st = reader();
	assert_int_equal(find(st).n, 10);
	assert_int_equal(index_opens(), 1);
	mw_store_close(w);
	assert_int_equal(find(st).n, 10);
	assert_int_equal(index_opens(), 1);
	uint64_t n = 0;
	assert_int_equal(mw_store_reindex(st, &n, &err), 0);
	assert_int_equal(find(st).n, 10);
	assert_int_equal(index_opens(), 1);
	mw_store_close(st);
	assert_int_equal(index_opens(), 0);
}

static atomic_bool slot_fails;
static uint64_t slot_at; /* of mail 5 */

static int64_t
slot_pread(const struct mw_fs *f, int fd, void *p, size_t n, uint64_t off)
{
	(void)f;
	if (off <= slot_at && slot_at - off < n && atomic_load(&slot_fails))
		return -EIO;
	return mw_fs_posix()->pread(mw_fs_posix(), fd, p, n, off);
}

/* A record whose slot could not be read for a moment is not called indexed without its
 * tokens: that would be a wrong answer for ever. */
static void
passing_error_while_indexing(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_record r;
	uint64_t n = 0;
	fresh();
	struct mw_store *st = writer(false);
	for (unsigned k = 0; k < 10; k++) {
		append(st, k, MW_STR("\r\nx"));
		if (k == 5) {
			assert_int_equal(mw_store_last(st, UINT64_MAX, &r, &err), 1);
			slot_at = r.loc.offset + 120; /* behind the frame's header */
		}
	}
	mw_store_close(st);
	fs.pread = slot_pread;
	st = reader();
	atomic_store(&slot_fails, true);
	assert_int_equal(mw_store_reindex(st, &n, &err), MW_EIO);
	struct hits h = {.n = 0};
	/* Nor does a walk call a record none that it could not look at. */
	assert_int_equal(mw_store_find(st, MW_KEY_RCPT, MW_STR("u@corner.test"), hit, &h,
	                               &err),
	                 MW_EIO);
	atomic_store(&slot_fails, false);
	assert_int_equal(find(st).n, 10);
	mw_store_close(st);
	st = reader();
	assert_int_equal(find(st).n, 10);
	assert_int_equal(mw_store_reindex(st, &n, &err), 0);
	assert_int_equal(find(st).n, 10);
	mw_store_close(st);
}

/* ---- dictionaries ---- */

static pthread_mutex_t gate_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_cv = PTHREAD_COND_INITIALIZER;
static bool gate_shut, gate_waits;
static unsigned answers;

static int
gated_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)pthread_mutex_lock(&gate_mu);
	gate_waits = gate_shut;
	(void)pthread_cond_broadcast(&gate_cv);
	while (gate_shut)
		(void)pthread_cond_wait(&gate_cv, &gate_mu);
	gate_waits = false;
	(void)pthread_mutex_unlock(&gate_mu);
	return mw_fs_posix()->sync(mw_fs_posix(), fd);
}

static void
answered(void *arg, const struct mw_commit *c)
{
	*(struct mw_commit *)arg = *c;
	(void)pthread_mutex_lock(&gate_mu);
	answers++;
	(void)pthread_cond_broadcast(&gate_cv);
	(void)pthread_mutex_unlock(&gate_mu);
}

/* Mails of one kind have words of their own. */
static void
wordy(unsigned kind, unsigned k, struct mw_buf *out)
{
	mw_buf_printf(out, "From: p%u@corner.test\r\n\r\n", k);
	uint64_t x = kind + 1;
	for (unsigned i = 0; i < 400; i++) {
		mw_buf_printf(out, "%llx%s", (unsigned long long)(dice_next(&x) >> 20),
		              i % 8 == 7 ? "\r\n" : " ");
	}
}

static void
read_back(const struct mw_loc *loc, unsigned kind, unsigned k)
{
	struct mw_err err = {0};
	struct mw_record r;
	MW_BUF_AUTO want = {0};
	MW_BUF_AUTO got = {0};
	MW_STORE_AUTO *st = reader();
	wordy(kind, k, &want);
	assert_int_equal(mw_store_get(st, *loc, &r, &err), 0);
	if (mw_record_content(st, &r, NULL, 1 << 20, &got, &err) < 0)
		fail_msg("acknowledged, and not to be read: %s", err.msg);
	assert_int_equal(got.n, want.n);
	assert_memory_equal(got.p, want.p, want.n);
}

static struct mw_store_opts dictionary = {.mode = MW_STORE_WRITE,
                                          .no_index = true,
                                          .dictionary = true,
                                          .dict_share = 100};

static void
teach(struct mw_store *st, unsigned kind)
{
	for (unsigned k = 0; k < PER_DICT; k++) {
		MW_BUF_AUTO c = {0};
		wordy(kind, k, &c);
		append(st, k, mw_buf_str(&c));
	}
	assert_int_equal(mw_store_train(st), 1);
}

/* More dictionaries at once than a segment is known to have: whatever is acknowledged can
 * be read. */
static void
dictionaries_in_one_batch(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_entry *e[DICTS + 1];
	struct mw_commit c[DICTS + 1];
	memset(c, 0, sizeof c);
	fresh();
	fs.sync = gated_sync;
	struct mw_store *st = open_with(&dictionary);
	for (unsigned i = 0; i < DICTS; i++) {
		MW_BUF_AUTO text = {0};
		teach(st, i);
		wordy(i, 700 + i, &text);
		e[i] = entry(st, 700 + i, mw_buf_str(&text));
	}
	assert_int_equal(mw_store_roll(st, &err), 0);
	e[DICTS] = entry(st, 800, MW_STR("\r\nfirst"));
	(void)pthread_mutex_lock(&gate_mu);
	gate_shut = true;
	answers = 0;
	(void)pthread_mutex_unlock(&gate_mu);
	mw_store_submit(st, e[DICTS], answered, &c[DICTS]);
	(void)pthread_mutex_lock(&gate_mu);
	while (!gate_waits)
		(void)pthread_cond_wait(&gate_cv, &gate_mu);
	(void)pthread_mutex_unlock(&gate_mu);
	for (unsigned i = 0; i < DICTS; i++)
		mw_store_submit(st, e[i], answered, &c[i]);
	(void)pthread_mutex_lock(&gate_mu);
	gate_shut = false;
	(void)pthread_cond_broadcast(&gate_cv);
	while (answers < DICTS + 1)
		(void)pthread_cond_wait(&gate_cv, &gate_mu);
	(void)pthread_mutex_unlock(&gate_mu);
	for (unsigned i = 0; i < DICTS; i++)
		if (c[i].code == 0)
			read_back(&c[i].loc, i, 700 + i);
	append(st, 900, MW_STR("\r\nit goes on"));
	for (unsigned i = 0; i <= DICTS; i++)
		mw_entry_free(e[i]);
	mw_store_close(st);
}

static void *
close_it(void *arg)
{
	atomic_store(&close_is_near, true);
	mw_store_close(arg);
	return NULL;
}

/* The trainer fails to make records ahead while the writer ends: it ends all the same. */
static void
end_while_a_spare_fails(void **state)
{
	(void)state;
	struct mw_err err = {0};
	MW_BUF_AUTO text = {0};
	pthread_t t;
	if (!CALLOC_FAILS || getpriority(PRIO_PROCESS, 0) >= 10)
		skip();
	fresh();
	struct mw_store *st = open_with(&dictionary);
	teach(st, 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	atomic_store(&stage, 1);
	wordy(1, 100, &text);
	append(st, 100, mw_buf_str(&text)); /* takes the spare: another is made */
	for (int i = 0; i < 24000 && atomic_load(&stage) == 1; i++)
		(void)usleep(5000);
	assert_int_equal(atomic_load(&stage), 2);
	(void)alarm(200); /* it once waited for ever */
	assert_int_equal(pthread_create(&t, NULL, close_it, st), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	(void)alarm(0);
	atomic_store(&stage, 0);
}

/* ---- a close that fails ---- */

/* What a writer holds is given back also where its last segment cannot be closed: for
 * want of memory, before anything is written. */
static void
nothing_is_left_at_a_failed_close(void **state)
{
	(void)state;
	if (!CALLOC_FAILS)
		skip();
	size_t before = 0;
	struct mw_store_opts o = {.mode = MW_STORE_WRITE,
	                          .no_index = true,
	                          .segment_size = 65536,
	                          .recovery = key,
	                          .n_recovery = 1};
	for (unsigned k = 0; k < 60; k++) {
		fresh();
		struct mw_store *st = open_with(&o);
		append(st, k, MW_STR("\r\nx"));
		atomic_store(&others_fail, true);
		mw_store_close(st);
		atomic_store(&others_fail, false);
		if (k == 19) /* pools are full */
			before = mallinfo2().uordblks;
	}
	size_t after = mallinfo2().uordblks;
	if (after > before + 40 * (size_t)100)
		fail_msg("%zu bytes in use, then %zu", before, after);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%s/mw-corner-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	memset(key, 9, sizeof key);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

int
main(void)
{
	main_thread = pthread_self();
	(void)mallopt(M_ARENA_MAX, 1); /* mallinfo2 looks at one */
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(segment_without_a_header),
	    cmocka_unit_test(open_segment_is_walked_once),
	    cmocka_unit_test(end_that_was_taken_back),
	    cmocka_unit_test(index_is_open_once),
	    cmocka_unit_test(passing_error_while_indexing),
	    cmocka_unit_test(dictionaries_in_one_batch),
	    cmocka_unit_test(end_while_a_spare_fails),
	    cmocka_unit_test(nothing_is_left_at_a_failed_close),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
