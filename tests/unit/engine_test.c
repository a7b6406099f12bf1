/* The native engine: real sockets with real trouble (proto_test.c has the packets).
 * MW_TEST_THREADS */
#include "milter/engine.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "journal/base/util.h"
#include "tests/support/packets.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static char *sock_path;

static struct mw_conf *
settings(void)
{
	struct mw_conf *c = taking_settings();
	free(c->milter_listen.v[0]);
	char *spec = NULL;
	assert_true(asprintf(&spec, "unix:%s", sock_path) > 0);
	c->milter_listen.v[0] = spec;
	return c;
}

static int
setup(void **state)
{
	(void)state;
	if (taking_dir() < 0 || asprintf(&sock_path, "%s/sock", dir) < 0)
		return -1;
	return taking_open(settings());
}

static int
teardown(void **state)
{
	(void)state;
	free(sock_path);
	return taking_end();
}

static int
dial(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	(void)snprintf(un.sun_path, sizeof un.sun_path, "%s", sock_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) < 0) {
		(void)close(fd);
		fd = -1;
	}
	return fd;
}

static void
say(int fd, const struct mw_buf *b)
{
	assert_int_equal(send(fd, b->p, b->n, MSG_NOSIGNAL), (ssize_t)b->n);
}

enum {
	PATIENCE_MS = 60000
};

/* The command byte of the next reply; 0: the connection ended, -1: nothing in time. */
static int
hear(int fd, int timeout_ms)
{
	uint8_t p[4096];
	size_t n = 0, want = 4;
	while (n < want) {
		struct pollfd q = {.fd = fd, .events = POLLIN};
		if (poll(&q, 1, timeout_ms) <= 0)
			return -1;
		ssize_t k = recv(fd, p + n, want - n, 0);
		if (k <= 0)
			return 0;
		n += (size_t)k;
		if (n == 4)
			want = 4 + ((size_t)p[2] << 8 | p[3]);
		assert_true(want <= sizeof p);
	}
	return p[4];
}

static void
say_message(int fd)
{
	struct mw_buf b = {0};
	negotiate(&b, 6, ALL_ACTIONS, ALL_STEPS);
	message(&b, "<a@b.test>\0", 11);
	say(fd, &b);
	mw_buf_free(&b);
}

struct rig {
	struct mw_listeners l;
	struct mw_engine *e;
};

static void
rig_start(struct rig *r)
{
	struct mw_err err = {0};
	struct mw_settings *s = mw_capture_settings(&cap);
	if (mw_listen_open(s->conf, &r->l, &err) < 0 ||
	    mw_engine_start(&cap, &r->l, &r->e, &err) < 0)
		fail_msg("%s", err.msg);
	mw_settings_unref(s);
}

static void
rig_stop(struct rig *r)
{
	mw_engine_stop(r->e, false);
	mw_listen_close(&r->l);
	assert_int_equal(access(sock_path, F_OK), -1);
	assert_int_equal(atomic_load(&cap.count.open_sessions), 0);
	assert_int_equal(atomic_load(&cap.count.at_eom), 0);
}

static int64_t
now_ms(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c) / 1000;
}

/* 50 ends of message at once share commits: no queue behind each other. */
static void
burst(void **state)
{
	(void)state;
	enum {
		N = 50
	};
	struct rig r;
	struct mw_store_stats s;
	int fd[N];
	uint64_t before = mails();
	rig_start(&r);
	for (int i = 0; i < N; i++)
		assert_true((fd[i] = dial()) >= 0);
	mw_store_stats(store, &s);
	uint64_t commits = s.batches;
	atomic_store(&slow_sync_ms, 300);
	for (int i = 0; i < N; i++)
		say_message(fd[i]);
	for (int i = 0; i < N; i++) {
		assert_int_equal(hear(fd[i], PATIENCE_MS), 'O');
		assert_int_equal(hear(fd[i], PATIENCE_MS), 'c');
		assert_int_equal(hear(fd[i], PATIENCE_MS), 'c');
	}
	atomic_store(&slow_sync_ms, 0);
	mw_store_stats(store, &s);
	assert_true(s.batches - commits < N / 2); /* a few; on a busy machine some more */
	assert_int_equal(mails(), before + N);
	for (int i = 0; i < N; i++)
		(void)close(fd[i]);
	rig_stop(&r);
}

/* Who waits at the end of a message is answered; who idles is closed at once. */
static void
stop_answers(void **state)
{
	(void)state;
	struct rig r;
	rig_start(&r);
	int idle = dial(), busy = dial(), gone = dial(), deaf = dial();
	uint64_t before = mails();
	atomic_store(&slow_sync_ms, 400);
	say_message(busy);
	say_message(gone);
	say_message(deaf);
	assert_int_equal(hear(busy, PATIENCE_MS), 'O');
	assert_int_equal(hear(busy, PATIENCE_MS), 'c');
	while (atomic_load(&cap.count.at_eom) < 3)
		(void)usleep(1000);
	(void)close(gone); /* hangs up while the disk works */
	int64_t t = now_ms();
	mw_engine_stop(r.e, false);
	t = now_ms() - t;
	assert_true(t < PATIENCE_MS);
	mw_listen_close(&r.l);
	atomic_store(&slow_sync_ms, 0);
	assert_int_equal(hear(busy, 0), 'c');
	assert_int_equal(hear(busy, 0), 0);
	assert_int_equal(hear(idle, 0), 0);
	assert_int_equal(mails(), before + 3);
	(void)close(idle);
	(void)close(busy);
	(void)close(deaf);
	assert_int_equal(atomic_load(&cap.count.open_sessions), 0);
}

static void
probes_and_drops(void **state)
{
	(void)state;
	struct rig r;
	struct mw_buf b = {0};
	uint64_t before = mails();
	rig_start(&r);
	for (int i = 0; i < 200; i++) {
		int fd = dial();
		assert_true(fd >= 0);
		if (i % 2) { /* half a message, then the line drops */
			mw_buf_clear(&b);
			negotiate(&b, 6, ALL_ACTIONS, ALL_STEPS);
			P('M', "<a@b.test>\0");
			P('B', "half");
			b.n -= (size_t)i % 7;
			say(fd, &b);
		}
		(void)close(fd);
	}
	int fd = dial(); /* and one that speaks another protocol */
	mw_buf_clear(&b);
	mw_buf_puts(&b, "EHLO there\r\n");
	say(fd, &b);
	assert_int_equal(hear(fd, PATIENCE_MS), 0);
	(void)close(fd);
	fd = dial();
	say_message(fd);
	for (int i = 0; i < 3; i++)
		assert_true(hear(fd, PATIENCE_MS) > 0);
	(void)close(fd);
	mw_buf_free(&b);
	rig_stop(&r);
	assert_int_equal(mails(), before + 1);
}

/* Processor time of this process. */
static int64_t
used_us(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * INT64_C(1000000) +
	       u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

/* At the descriptor limit: no spin, and all is well when descriptors come back. */
static void
no_descriptors(void **state)
{
	(void)state;
	enum {
		N = 60
	};
	struct rig r;
	struct rlimit old, low;
	int fd[N];
	rig_start(&r);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (int i = 0; i < N; i++)
		assert_true((fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >=
		            0);
	low = old;
	low.rlim_cur = (rlim_t)fd[N - 1] + 10; /* room for about ten more */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	(void)snprintf(un.sun_path, sizeof un.sun_path, "%s", sock_path);
	for (int i = 0; i < N; i++)
		assert_int_equal(connect(fd[i], (struct sockaddr *)&un, sizeof un), 0);
	int64_t cpu_us = INT64_MAX; /* what still settles is no spin */
	for (int i = 0; i < 20 && cpu_us > 100 * 1000; i++) {
		int64_t before = used_us();
		(void)usleep(1000 * 1000);
		cpu_us = used_us() - before;
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	if (cpu_us > 100 * 1000)
		fail_msg("%lld us of CPU in one second", (long long)cpu_us);
	for (int i = 0; i < N; i++) {
		say_message(fd[i]);
		for (int k = 0; k < 3; k++)
			assert_true(hear(fd[i], PATIENCE_MS) > 0);
		(void)close(fd[i]);
	}
	rig_stop(&r);
}

/* A peer that reads no answers is not read either, and holds up nobody. */
static void
deaf_peer(void **state)
{
	(void)state;
	struct rig r;
	struct mw_buf b = {0};
	rig_start(&r);
	int fd = dial(), other = dial();
	struct timeval tv = {.tv_usec = 300 * 1000};
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	negotiate(&b, 6, ALL_ACTIONS, 0x100000); /* every step has a reply */
	say(fd, &b);
	mw_buf_clear(&b);
	for (int i = 0; i < 1000; i++)
		P('U', "\0");
	size_t sent = 0;
	for (int i = 0; i < 20000; i++) {
		ssize_t k = send(fd, b.p, b.n, MSG_NOSIGNAL);
		if (k < (ssize_t)b.n)
			break;
		sent += (size_t)k;
	}
	assert_true(sent < 20000u * b.n); /* it was stopped */
	say_message(other);
	for (int k = 0; k < 3; k++)
		assert_true(hear(other, PATIENCE_MS) > 0);
	(void)close(fd);
	(void)close(other);
	mw_buf_free(&b);
	rig_stop(&r);
}

/* Beyond session_limit they wait their turn in the listen queue. */
static void
session_limit(void **state)
{
	(void)state;
	enum {
		N = 20,
		LIMIT = 5
	};
	struct mw_conf *c = settings();
	struct rig r;
	int fd[N];
	c->session_limit = LIMIT;
	assert_int_equal(mw_capture_reload(&cap, c, NULL), 0);
	rig_start(&r);
	for (int i = 0; i < N; i++) {
		assert_true((fd[i] = dial()) >= 0);
		say_message(fd[i]);
	}
	(void)usleep(300 * 1000);
	/* the engine's threads look at the limit each for itself */
	assert_true(atomic_load(&cap.count.open_sessions) < LIMIT + 4);
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < 3; k++)
			assert_true(hear(fd[i], PATIENCE_MS) > 0);
		(void)close(fd[i]);
	}
	rig_stop(&r);
	assert_int_equal(mw_capture_reload(&cap, settings(), NULL), 0);
}

static void
idle_timeout(void **state)
{
	(void)state;
	struct mw_conf *c = settings();
	c->milter_idle_timeout = 500 * 1000;
	assert_int_equal(mw_capture_reload(&cap, c, NULL), 0);
	struct rig r;
	rig_start(&r);
	int fd = dial();
	assert_int_equal(hear(fd, PATIENCE_MS), 0);
	(void)close(fd);
	rig_stop(&r);
	assert_int_equal(mw_capture_reload(&cap, settings(), NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(burst),
	    cmocka_unit_test(stop_answers),
	    cmocka_unit_test(probes_and_drops),
	    cmocka_unit_test(no_descriptors),
	    cmocka_unit_test(deaf_peer),
	    cmocka_unit_test(session_limit),
	    cmocka_unit_test(idle_timeout),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
