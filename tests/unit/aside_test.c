/* Later records: what waits for an answer or for the disk is bounded in number and in
 * memory; what is dropped is counted; a stop ends with all that was answered on disk.
 * MW_TEST_THREADS */
#include "milter/aside.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "journal/base/util.h"
#include "milter/capture.h"
#include "milter/expand.h"
#include "milter/identity.h"
#include "tests/support/dice.h"

#include <cmocka.h>

static char root[64], journal[80], sock_path[80];
static struct mw_store *st;
static struct mw_fs fs;

/* ---- a disk that can be held up ---- */

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static bool shut;      /* no sync returns */
static bool held;      /* no answer is given */
static unsigned asked; /* of the big table */

static int
gated_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	(void)pthread_mutex_lock(&mu);
	while (shut)
		(void)pthread_cond_wait(&cv, &mu);
	(void)pthread_mutex_unlock(&mu);
	return 0;
}

static void
set(bool *flag, bool to)
{
	(void)pthread_mutex_lock(&mu);
	*flag = to;
	(void)pthread_cond_broadcast(&cv);
	(void)pthread_mutex_unlock(&mu);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-aside-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(journal, sizeof journal, "%s/j", root);
	(void)snprintf(sock_path, sizeof sock_path, "%s/map", root);
	fs = *mw_fs_posix();
	fs.sync = gated_sync;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .no_index = true,
	                          .fs = &fs};
	int r = mw_store_create(journal, NULL, NULL, &err);
	return r == 0 ? mw_store_open(&o, &st, &err) : r;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[100];
	mw_store_close(st);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

/* ---- a kind of its own ---- */

struct note {
	struct mw_aside_q q;
	bool fails;
};

static atomic_int freed, ended, hurried;
static _Atomic uint64_t told;

static int
answer(void *owner, unsigned thread, struct mw_aside_q *q)
{
	struct mw_err err = {0};
	(void)thread;
	assert_ptr_equal(owner, &freed);
	(void)pthread_mutex_lock(&mu);
	while (held)
		(void)pthread_cond_wait(&cv, &mu);
	(void)pthread_mutex_unlock(&mu);
	if (((struct note *)q)->fails)
		return MW_ENOMEM;
	struct mw_entry *e;
	int r = mw_entry_new(st, MW_TYPE_SPF, &e, &err);
	if (r == 0)
		r = mw_entry_finish(e, 1, "\xa0", 1, &err);
	q->entry = e;
	return r;
}

static void
note_free(struct mw_aside_q *q)
{
	atomic_fetch_add(&freed, 1);
	free(q);
}

static void
hurry(void *owner)
{
	(void)owner;
	atomic_fetch_add(&hurried, 1);
	set(&held, false);
}

static void
thread_end(void *owner, unsigned thread)
{
	(void)owner;
	atomic_fetch_add(&ended, 1 << 8 * thread);
}

static void
dropped(uint64_t total, const char *why)
{
	assert_non_null(why);
	atomic_store(&told, total);
}

static struct mw_aside_kind kind = {.threads = 2,
                                    .open_max = 100,
                                    .bytes_max = 100000,
                                    .gather_ms = 5,
                                    .overloaded = "too many",
                                    .answer = answer,
                                    .free = note_free,
                                    .hurry = hurry,
                                    .thread_end = thread_end,
                                    .dropped = dropped};

static struct mw_aside *
start(void)
{
	struct mw_aside *a = NULL;
	struct mw_err err = {0};
	atomic_store(&freed, 0);
	atomic_store(&ended, 0);
	atomic_store(&hurried, 0);
	atomic_store(&told, 0);
	assert_int_equal(mw_aside_start(&kind, st, &freed, &a, &err), 0);
	return a;
}

static void
ask(struct mw_aside *a, size_t bytes, bool fails)
{
	struct note *n = calloc(1, sizeof *n);
	assert_non_null(n);
	n->q.bytes = bytes;
	n->fails = fails;
	mw_aside_ask(a, &n->q);
}

static struct mw_aside_stats
stats(struct mw_aside *a)
{
	struct mw_aside_stats s;
	mw_aside_stats(a, &s);
	return s;
}

/* Polls; five minutes at most: a sanitizer on a busy machine is slow. */
#define AWAIT(cond)                                                                      \
	do {                                                                             \
		int left_ = 60000;                                                       \
		while (!(cond) && left_--)                                               \
			(void)usleep(5000);                                              \
		assert_true(cond);                                                       \
	} while (0)

static void
answers_are_recorded(void **state)
{
	(void)state;
	struct mw_aside *a = start();
	for (int i = 0; i < 50; i++)
		ask(a, 10, i % 5 == 0);
	mw_aside_ask(a, NULL); /* no memory for the question */
	AWAIT(stats(a).open == 0);
	struct mw_aside_stats s = stats(a);
	assert_int_equal(s.recorded, 40);
	assert_int_equal(s.dropped, 11);
	assert_int_equal(s.bytes, 0);
	assert_int_equal(atomic_load(&freed), 50);
	assert_true(atomic_load(&told) >= 1);
	mw_aside_stop(a);
	assert_int_equal(atomic_load(&ended), 0x101);
}

static void
number_and_bytes_are_bounded(void **state)
{
	(void)state;
	struct mw_aside *a = start();
	set(&held, true);
	for (int i = 0; i < 150; i++)
		ask(a, 10, false);
	assert_int_equal(stats(a).open, 100);
	assert_int_equal(stats(a).dropped, 50);
	set(&held, false);
	AWAIT(stats(a).open == 0);
	set(&held, true);
	for (int i = 0; i < 20; i++)
		ask(a, 10000, false); /* five are half of what may wait */
	assert_int_equal(stats(a).open, 5);
	assert_int_equal(stats(a).bytes, 50000);
	set(&held, false);
	AWAIT(stats(a).open == 0);
	assert_int_equal(stats(a).recorded, 105);
	mw_aside_stop(a);
}

static void
a_slow_disk_holds_the_answers_up(void **state)
{
	(void)state;
	struct mw_aside *a = start();
	set(&shut, true);
	for (int i = 0; i < 100; i++)
		ask(a, 10, false);
	AWAIT(stats(a).bytes >= kind.bytes_max / 2);
	size_t most = 0, one = 0;
	for (int i = 0; i < 40; i++) {
		most = MW_MAX(most, stats(a).bytes);
		(void)usleep(5000);
	}
	set(&shut, false);
	struct mw_entry *e;
	struct mw_err err = {0};
	assert_int_equal(mw_entry_new(st, MW_TYPE_SPF, &e, &err), 0);
	assert_int_equal(mw_entry_finish(e, 1, "\xa0", 1, &err), 0);
	one = mw_entry_memory(e);
	mw_entry_free(e);
	assert_true(one > 500 && most <= kind.bytes_max / 2 + 1000 + 2 * one);
	AWAIT(stats(a).open == 0);
	assert_int_equal(stats(a).recorded, 100);
	mw_aside_stop(a);
}

static void
a_stop_answers_or_drops(void **state)
{
	(void)state;
	for (int drop = 0; drop < 2; drop++) {
		kind.drop_at_stop = drop;
		struct mw_aside *a = start();
		uint64_t from = 0;
		struct mw_store_stats s;
		mw_store_stats(st, &s);
		from = s.next_seq;
		set(&held, true);
		for (int i = 0; i < 60; i++)
			ask(a, 10, false);
		/* both threads have one in hand, which they keep until the hurry */
		mw_aside_stop(a);
		mw_store_stats(st, &s);
		assert_int_equal(atomic_load(&freed), 60);
		assert_int_equal(atomic_load(&hurried), 1);
		if (drop)
			assert_int_equal(s.next_seq - from + atomic_load(&told), 60);
		else
			assert_int_equal(s.next_seq - from, 60);
	}
	kind.drop_at_stop = false;
}

static void
concurrently(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) { /* stops while commits come back */
		struct mw_aside *a = start();
		for (int k = 0; k < 30; k++)
			ask(a, 10, k == 3);
		mw_aside_stop(a);
		assert_int_equal(atomic_load(&freed), 30);
	}
}

/* ---- expansions: long answers, and a disk that does not take them ---- */

enum {
	LONG = 150000, /* bytes of one address */
	EACH = 5,      /* addresses of one answer */
	MAILS = 150
};

static char *big; /* the answer */
static size_t n_big;
static int listener;

static void
make_big(void)
{
	uint64_t x = 7;
	const size_t room = EACH * (LONG + 20) + 40;
	big = malloc(room);
	assert_non_null(big);
	size_t n = (size_t)snprintf(big, room, "%d:OK ", EACH * (LONG + 8) + 3);
	for (int i = 0; i < EACH; i++) {
		for (int k = 0; k < LONG; k++) {
			big[n++] = "abcdefghijklmnopqrstuvwxyz234567"[dice_roll(&x, 32)];
		}
		memcpy(big + n, "@x.test,", 8);
		n += 8;
	}
	big[n++] = ',';
	n_big = n;
}

static bool
say(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

static void *
serve_one(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char *b = malloc(LONG + 100);
	size_t n = 0;
	ssize_t k = 1;
	while (b && k > 0) {
		k = recv(fd, b + n, (size_t)LONG + 100 - n, 0);
		n += k > 0 ? (size_t)k : 0;
		char *colon = memchr(b, ':', MW_MIN(n, 10));
		size_t len = colon ? strtoul(b, NULL, 10) : 0;
		if (!colon || n < (size_t)(colon - b) + len + 2)
			continue;
		n = 0;
		if (len > 100 || memcmp(colon + 1, "m big@x.test", 12) != 0) {
			k = say(fd, "9:NOTFOUND ,", 12) ? 1 : 0;
			continue;
		}
		k = say(fd, big, n_big) ? 1 : 0;
		(void)pthread_mutex_lock(&mu);
		asked++;
		(void)pthread_mutex_unlock(&mu);
	}
	free(b);
	(void)close(fd);
	return NULL;
}

static void *
serve(void *arg)
{
	(void)arg;
	for (;;) {
		pthread_t t;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			return NULL;
		if (pthread_create(&t, NULL, serve_one, (void *)(intptr_t)fd) == 0)
			(void)pthread_detach(t);
		else
			(void)close(fd);
	}
}

static size_t
memory(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

/* Asks for all of them and says how much memory that took at most while no sync came. */
static size_t
flood(struct mw_expand *x, struct mw_settings *set_)
{
	struct mw_str box = MW_STR("big@x.test");
	struct mw_rcpt r = {.addr = box, .flags = MW_RCPT_UNDECIDED | MW_RCPT_LATER};
	struct mw_mail m = {.rcpt = &r, .n_rcpt = 1};
	uint8_t id[MW_ID_LEN] = {1};
	size_t before = memory(), most = 0;
	unsigned last = 0;
	for (int i = 0; i < MAILS; i++)
		mw_expand_ask(x, set_, &m, id, (uint64_t)i);
	for (int still = 0; still < 150;) { /* until it stands still */
		(void)usleep(10000);
		most = MW_MAX(most, memory());
		(void)pthread_mutex_lock(&mu);
		still = asked == last ? still + 1 : 0;
		last = asked;
		(void)pthread_mutex_unlock(&mu);
		if (last == MAILS && still > 10)
			break;
	}
	return most > before ? most - before : 0;
}

static void
long_expansions_are_bounded(void **state)
{
	(void)state;
	char spec[120], *table[1] = {spec}, none[] = "";
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct mw_err err = {0};
	struct mw_expand_stats s;
	pthread_t t;
	make_big();
	memcpy(sa.sun_path, sock_path, strlen(sock_path) + 1);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof sa), 0);
	assert_int_equal(listen(listener, 20), 0);
	assert_int_equal(pthread_create(&t, NULL, serve, NULL), 0);
	(void)snprintf(spec, sizeof spec, "socketmap:unix:%s:m", sock_path);
	struct mw_conf conf = {.identities = {table, 1},
	                       .recipient_delimiter = none,
	                       .identities_timeout = INT64_C(600000000)};
	struct mw_settings set_ = {.refs = 1, .conf = &conf};
	assert_int_equal(mw_identity_open(&conf, &set_.identity, &err), 0);
	struct mw_expand *x = NULL;
	assert_int_equal(mw_expand_start(st, &x, &err), 0);
	set(&shut, true);
	size_t most = flood(x, &set_);
	set(&shut, false);
	for (int i = 0; i < 60000; i++) {
		mw_expand_stats(x, &s);
		if (s.queued == 0)
			break;
		(void)usleep(5000);
	}
	print_message("%zu bytes at most, %llu expanded\n", most,
	              (unsigned long long)s.expanded);
	assert_int_equal(s.expanded, MAILS);
	assert_int_equal(s.dropped, 0);
	mw_expand_stop(x);
	(void)shutdown(listener, SHUT_RDWR);
	(void)pthread_join(t, NULL);
	(void)close(listener);
	mw_identity_close(set_.identity);
	free(big);
	/* half of 64 MiB, and four at work, each with its tree and its record */
	assert_true(most < 60 << 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(answers_are_recorded),
	    cmocka_unit_test(number_and_bytes_are_bounded),
	    cmocka_unit_test(a_slow_disk_holds_the_answers_up),
	    cmocka_unit_test(a_stop_answers_or_drops),
	    cmocka_unit_test(concurrently),
	    cmocka_unit_test(long_expansions_are_bounded),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
