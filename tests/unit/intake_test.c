/* An import's stream into a journal, and a reader that waits at its end. MW_TEST_THREADS
 */
#include "journal/store/intake.h"

#include "journal/base/util.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

struct bench {
	char dir[PATH_MAX], journal[PATH_MAX];
	struct mw_store *st;
	int fd[2];
	struct mw_intake_done done;
	int code[200]; /* of the answers */
	size_t n;
};

static void
start(struct bench *b)
{
	struct mw_err err = {0};
	(void)snprintf(b->dir, sizeof b->dir, "%s/mw-intake-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->journal, sizeof b->journal, "%.4000s/j", b->dir);
	assert_int_equal(mw_store_create(b->journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20};
	assert_int_equal(mw_store_open(&o, &b->st, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b->fd), 0);
}

static void
stop(struct bench *b)
{
	char cmd[PATH_MAX + 16];
	mw_store_close(b->st);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%.4000s'", b->dir);
	assert_int_equal(system(cmd), 0);
}

static void *
serve(void *arg)
{
	struct bench *b = arg;
	const struct mw_intake_opts o = {.max_content = 1 << 20, .now_us = 2000000};
	mw_intake_serve(b->st, b->fd[1], &o, &b->done);
	(void)close(b->fd[1]);
	return NULL;
}

static void
on_answer(void *arg, void *ref, int code, const char *why)
{
	struct bench *b = arg;
	(void)why;
	assert_int_equal((size_t)(uintptr_t)ref, b->n); /* in order */
	b->code[b->n++] = code;
}

static void
one(struct mw_intake *c, size_t i, size_t size)
{
	char text[64];
	struct mw_err err = {0};
	struct mw_str box = MW_STR("anna@example.test");
	struct mw_rcpt to = {.addr = box,
	                     .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	                     .mailbox = &box,
	                     .n_mailbox = 1};
	struct mw_mail m = {.time_us = (int64_t)i, .rcpt = &to, .n_rcpt = 1};
	if (i == 7)
		m.time_us = INT64_C(4000000000000000); /* not yet */
	int n = snprintf(text, sizeof text, "Message-ID: <%zu@x>\r\n\r\n", i);
	assert_int_equal(mw_intake_body(c, text, (size_t)n, &err), 0);
	for (; size; size -= MW_MIN(size, 30U))
		assert_int_equal(mw_intake_body(c, "a line of thirty bytes here \r\n",
		                                MW_MIN(size, 30U), &err),
		                 0);
	assert_int_equal(mw_intake_commit(c, &m, (void *)(uintptr_t)i, &err), 0);
}

/* Order, abort, a message beyond the limit, more than may be unanswered, a lost line. */
static void
stream(void **state)
{
	struct bench b = {0};
	struct mw_err err = {0};
	struct mw_intake *c;
	pthread_t thread;
	(void)state;
	start(&b);
	assert_int_equal(pthread_create(&thread, NULL, serve, &b), 0);
	assert_int_equal(mw_intake_new(b.fd[0], on_answer, &b, &c, &err), 0);
	for (size_t i = 0; i < 150; i++) {
		if (i % 10 == 3) {
			assert_int_equal(mw_intake_body(c, "forget me", 9, &err), 0);
			assert_int_equal(mw_intake_abort(c, &err), 0);
		}
		one(c, i, i == 5 ? 2 << 20 : i * 10);
	}
	assert_int_equal(mw_intake_flush(c, &err), 0);
	assert_int_equal(b.n, 150);
	for (size_t i = 0; i < 150; i++)
		assert_int_equal(b.code[i], i == 5 ? MW_ELIMIT : 0);
	assert_int_equal(mw_intake_body(c, "half a mess", 11, &err), 0);
	assert_int_equal(mw_intake_flush(c, &err), 0);
	mw_intake_free(c);
	(void)pthread_join(thread, NULL);
	assert_int_equal(b.done.taken, 149);
	assert_int_equal(b.done.refused, 1);

	struct mw_store_opts o = {.dir = b.journal};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *cur = NULL;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_record rec;
	size_t n = 0;
	assert_int_equal(mw_store_open(&o, &rd, &err), 0);
	assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
	while (mw_cursor_next(cur, &rec, &err) == 1) {
		struct mw_mail m;
		char id[32];
		if (rec.type != MW_TYPE_MAIL)
			continue;
		n += n == 5;
		(void)snprintf(id, sizeof id, "<%zu@x>", n);
		assert_true(rec.imported);
		assert_int_equal(mw_record_mail(rd, &rec, a, &m, &err), 0);
		assert_true(mw_str_eq(m.message_id, mw_strz(id)));
		assert_true(mw_str_eq(m.front, MW_STR("import")));
		assert_int_equal(m.time_us, n == 7 ? 2000000 : n);
		n++;
	}
	assert_int_equal(n, 150);
	stop(&b);
}

static uint64_t n_read; /* bytes */
static int64_t (*real_pread)(const struct mw_fs *, int, void *, size_t, uint64_t);

static int64_t
counted(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	n_read += n;
	return real_pread(fs, fd, p, n, off);
}

/* A reader at the end meets each new record, over segments, and does not read what it
 * knows nor the space behind. */
static void
waiting_reader(void **state)
{
	struct bench b = {0};
	struct mw_err err = {0};
	struct mw_fs fs = *mw_fs_posix();
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *cur = NULL;
	struct mw_record rec;
	uint64_t most = 0;
	(void)state;
	start(&b);
	real_pread = fs.pread;
	fs.pread = counted;
	struct mw_store_opts o = {.dir = b.journal, .fs = &fs};
	assert_int_equal(mw_store_open(&o, &rd, &err), 0);
	assert_int_equal(mw_cursor_new(rd, 1, &cur, &err), 0);
	for (int i = 0; i < 300; i++) {
		struct mw_commit c;
		assert_int_equal(mw_store_note(b.st, MW_TYPE_SPF, i, "x", 1, &c, &err),
		                 0);
		n_read = 0;
		do
			assert_int_equal(mw_cursor_next(cur, &rec, &err), 1);
		while (rec.type == MW_TYPE_CLOSE);
		assert_int_equal(rec.seq, c.seq);
		assert_int_equal(mw_cursor_next(cur, &rec, &err), 0);
		most = i % 100 > 1 ? MW_MAX(most, n_read) : most;
		if (i % 100 == 99)
			assert_int_equal(mw_store_roll(b.st, &err), 0);
	}
	assert_true(most < 20000); /* the segments have a megabyte */
	mw_cursor_free(MW_TAKE(cur));
	mw_store_close(MW_TAKE(rd));
	(void)close(b.fd[0]);
	(void)close(b.fd[1]);
	stop(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(stream),
	    cmocka_unit_test(waiting_reader),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
