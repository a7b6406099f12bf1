/* Corners of looking up and of the index in which a fault once hid: each stands here by
 * itself. MW_TEST_THREADS */
#include "tests/support/corner.h"

#include "tests/support/dice.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>

enum {
	BODY = 50000
};

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(segment_without_a_header),
	    cmocka_unit_test(open_segment_is_walked_once),
	    cmocka_unit_test(end_that_was_taken_back),
	    cmocka_unit_test(index_is_open_once),
	    cmocka_unit_test(passing_error_while_indexing),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
