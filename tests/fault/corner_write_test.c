/* Corners of dictionaries and of a writer's end in which a fault once hid: each stands
 * here by itself. MW_TEST_THREADS */
#include "tests/support/corner.h"

#include "tests/support/dice.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum {
	DICTS = 5, /* one more than a segment is known to have */
	PER_DICT = 40
};

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
	uint8_t key[32];
	memset(key, 9, sizeof key);
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

int
main(void)
{
	main_thread = pthread_self();
	(void)mallopt(M_ARENA_MAX, 1); /* mallinfo2 looks at one */
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dictionaries_in_one_batch),
	    cmocka_unit_test(end_while_a_spare_fails),
	    cmocka_unit_test(nothing_is_left_at_a_failed_close),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
