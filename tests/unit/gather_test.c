/* The group commit's wait: entries that come while others are on their way share a write
 * and a sync; one that is alone does not wait. MW_TEST_THREADS */
#include "journal/store/store.h"

#include "journal/base/util.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	N = 5,
	LINKS = 50000 /* seconds of it */
};

static char dir[64], journal[80];
static struct mw_store *store;

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(dir, sizeof dir, "/tmp/mw-gather-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_WRITE};
	if (mw_store_create(journal, NULL, NULL, &err) < 0 ||
	    mw_store_open(&o, &store, &err) < 0)
		fail_msg("%s", err.msg);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	mw_store_close(store);
	(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

static struct mw_entry *
entry(void)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	struct mw_rcpt r = {.addr = MW_STR("u@example.test")};
	struct mw_mail m = {.sender = MW_STR("s@x.test"), .rcpt = &r, .n_rcpt = 1};
	assert_int_equal(mw_entry_new(store, MW_TYPE_MAIL, &e, &err), 0);
	assert_int_equal(mw_entry_body(e, "A: b\r\n\r\nc\r\n", 11, &err), 0);
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	assert_int_equal(mw_entry_finish_mail(e, &m, &err), 0);
	return e;
}

struct ticket {
	struct mw_entry *e;
	struct mw_commit c;
	bool done;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct ticket *t = arg;
	pthread_mutex_lock(&lock);
	t->c = *c;
	t->done = true;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

static void
wait_for(struct ticket *t)
{
	pthread_mutex_lock(&lock);
	while (!t->done)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	assert_int_equal(t->c.code, 0);
	mw_entry_free(t->e);
}

/* One a hundredth of a second; most records that shared a commit. */
static uint32_t
send_some(void)
{
	struct ticket t[N] = {{0}};
	uint32_t most = 0;
	for (int i = 0; i < N; i++) {
		t[i].e = entry();
		mw_store_submit(store, t[i].e, on_commit, &t[i]);
		(void)usleep(10000);
	}
	for (int i = 0; i < N; i++) {
		wait_for(&t[i]);
		most = MW_MAX(most, t[i].c.batch_records);
	}
	return most;
}

static uint64_t
batches(void)
{
	struct mw_store_stats s;
	mw_store_stats(store, &s);
	return s.batches;
}

static void
shares_a_commit(void **state)
{
	(void)state;
	mw_store_set_gather(store, 3000000);
	mw_store_coming(store, 8);
	assert_int_equal(send_some(), N);
	assert_int_equal(batches(), 1);
	mw_store_coming(store, -8);
}

static int64_t
one_takes_us(void)
{
	struct timespec a, b;
	struct ticket t = {.e = entry()};
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	mw_store_submit(store, t.e, on_commit, &t);
	wait_for(&t);
	(void)clock_gettime(CLOCK_MONOTONIC, &b);
	return (int64_t)(b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
}

/* With a wait of an hour: that it comes back at all is the proof. */
static void
alone_it_does_not_wait(void **state)
{
	(void)state;
	mw_store_set_gather(store, INT64_C(3600) * 1000000);
	(void)one_takes_us();
	mw_store_coming(store, 3); /* few others are not worth it */
	(void)one_takes_us();
	mw_store_coming(store, -3);
	mw_store_set_gather(store, 0);
	mw_store_coming(store, 1000);
	(void)one_takes_us();
	mw_store_set_gather(store, 200000);
	assert_true(one_takes_us() >= 200000);
	/* nobody came: that was in vain, so the next ones do not wait */
	mw_store_set_gather(store, INT64_C(3600) * 1000000);
	for (int i = 0; i < 8; i++)
		(void)one_takes_us();
	mw_store_set_gather(store, 200000);
	assert_true(one_takes_us() >= 200000);
	mw_store_coming(store, -1000);
	struct mw_store_stats s;
	mw_store_stats(store, &s);
	assert_int_equal(s.coming, 0);
}

/* Half of a crowd is enough: again with a wait of an hour. */
static void
half_a_crowd_goes(void **state)
{
	enum {
		HALF = 32
	};
	(void)state;
	static struct ticket t[HALF + 1];
	memset(t, 0, sizeof t);
	mw_store_set_gather(store, INT64_C(3600) * 1000000);
	mw_store_coming(store, HALF + 8);
	for (int i = 0; i < HALF; i++) {
		t[i].e = entry();
		mw_store_submit(store, t[i].e, on_commit, &t[i]);
	}
	(void)usleep(100000);
	assert_int_equal(batches(), 0); /* more are on their way than wait */
	mw_store_coming(store, -8);     /* eight were given up */
	for (int i = 0; i < HALF; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].c.batch_records, HALF);
	}
	/* and where the last one comes as the others wait already */
	memset(t, 0, sizeof t);
	for (int i = 0; i < HALF - 1; i++) {
		t[i].e = entry();
		mw_store_submit(store, t[i].e, on_commit, &t[i]);
	}
	(void)usleep(100000);
	assert_int_equal(batches(), 1);
	t[HALF - 1].e = entry();
	mw_store_submit(store, t[HALF - 1].e, on_commit, &t[HALF - 1]);
	for (int i = 0; i < HALF; i++) {
		wait_for(&t[i]);
		assert_int_equal(t[i].c.batch_records, HALF);
	}
	mw_store_coming(store, -HALF);
}

/* Mail without end: with each answer the next one is submitted, so whenever the committer
 * looks there is some. */
struct chain {
	struct mw_entry *e[LINKS];
	size_t at;
	int code;
	atomic_bool enough;
};

static void
next_link(void *arg, const struct mw_commit *c)
{
	struct chain *k = arg;
	k->code = k->code ? k->code : c->code;
	if (!atomic_load(&k->enough) && ++k->at < LINKS) {
		k->e[k->at] = entry();
		mw_store_submit(store, k->e[k->at], next_link, k);
	}
}

static void
a_segment_is_closed_under_load(void **state)
{
	(void)state;
	static struct chain k;
	struct mw_err err = {0};
	struct mw_store_stats st;
	memset(&k, 0, sizeof k);
	k.e[0] = entry();
	mw_store_submit(store, k.e[0], next_link, &k);
	assert_int_equal(mw_store_roll(store, &err), 0);
	atomic_store(&k.enough, true);
	mw_store_stats(store, &st);
	assert_true(st.mails < LINKS);
	mw_store_close(store); /* and with it all that is on its way */
	for (size_t i = 0; i < LINKS; i++)
		mw_entry_free(k.e[i]);
	store = NULL;
	assert_int_equal(k.code, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(shares_a_commit, setup, teardown),
	    cmocka_unit_test_setup_teardown(alone_it_does_not_wait, setup, teardown),
	    cmocka_unit_test_setup_teardown(half_a_crowd_goes, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_segment_is_closed_under_load, setup,
	                                    teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
