/* The native engine: packets as bytes (proto.h), then real sockets with real trouble.
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
#include "milter/proto.h"
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

/* ---- packets ---- */

static void
packet(struct mw_buf *b, char cmd, const char *data, size_t n)
{
	uint8_t len[4] = {0, (uint8_t)((n + 1) >> 16), (uint8_t)((n + 1) >> 8),
	                  (uint8_t)(n + 1)};
	mw_buf_put(b, len, 4);
	mw_buf_putc(b, cmd);
	mw_buf_put(b, data, n);
}

static void
be32(struct mw_buf *b, uint32_t v)
{
	uint8_t x[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
	                (uint8_t)v};
	mw_buf_put(b, x, 4);
}

static void
negotiate(struct mw_buf *b, uint32_t version, uint32_t actions, uint32_t steps)
{
	MW_BUF_AUTO d = {0};
	be32(&d, version);
	be32(&d, actions);
	be32(&d, steps);
	packet(b, 'O', (const char *)d.p, d.n);
}

#define P(cmd, lit) packet(&b, cmd, lit, sizeof(lit) - 1)

/* All but "no reply to MAIL", so that a test sees its answer. */
static const uint32_t all_steps = 0x1fbfff, all_actions = 0x1ff;

static void
message(struct mw_buf *out, const char *sender, size_t n_sender)
{
	struct mw_buf b = *out;
	P('D', "Mi\0Q1\0{mail_addr}\0a@b.test\0");
	packet(&b, 'M', sender, n_sender);
	P('R', "<c@d.test>\0NOTIFY=NEVER\0");
	P('T', "");
	P('L', "Subject\0 x\0");
	P('L', "X-Fold\0\ta\n b\0");
	P('N', "");
	P('B', "one\r");
	P('B', "\ntwo\r\n");
	P('D', "Ei\0Q2\0");
	P('E', "");
	*out = b;
}

/* Feeds bytes in pieces of `step`; the replies' command bytes in `ret`. */
static int
feed(const struct mw_buf *in, size_t step, char *ret, size_t max)
{
	struct waiter w = MW_WAITER;
	struct mw_proto p;
	int r = 0;
	mw_proto_init(&p, &cap, on_done, &w);
	for (size_t at = 0; r == 0 && at < in->n && !p.closing; at += step) {
		r = mw_proto_input(&p, in->p + at, MW_MIN(step, in->n - at), NULL);
		while (r == 0 && p.pending) {
			wait_done(&w);
			r = mw_proto_resume(&p, NULL);
		}
	}
	size_t k = 0;
	for (size_t at = 0; at + 5 <= p.out.n && k + 1 < max;) {
		ret[k++] = (char)p.out.p[at + 4];
		at += 4 + ((size_t)p.out.p[at + 2] << 8 | p.out.p[at + 3]);
	}
	ret[k] = 0;
	mw_proto_done(&p);
	return r;
}

static void
any_cut_is_the_same(void **state)
{
	(void)state;
	static const size_t steps[] = {1, 2, 3, 5, 7, 64, 100000};
	struct mw_buf b = {0};
	char got[64];
	negotiate(&b, 6, all_actions, all_steps);
	P('D', "Cj\0mx.test\0");
	P('C', "c.test\0004\x12\x34\061.2.3.4\0");
	P('H', "helo.test\0");
	message(&b, "<a@b.test>\0SIZE=7\0", 18);
	P('A', "");
	P('A', "");
	message(&b, "<>\0", 3);
	P('K', "");
	P('C', "d.test\0L\0\0/x\0");
	message(&b, "<e@b.test>\0", 11);
	P('Q', "");
	for (size_t i = 0; i < MW_COUNT(steps); i++) {
		uint64_t before = mails();
		assert_int_equal(feed(&b, steps[i], got, sizeof got), 0);
		assert_string_equal(got, "Occcccc"); /* one for MAIL, one for the end */
		assert_int_equal(mails(), before + 3);
	}
	mw_buf_free(&b);
}

static void
every_step_replies_when_asked(void **state)
{
	(void)state;
	struct mw_buf b = {0};
	char got[64];
	negotiate(&b, 6, 0, 0x100000); /* exact headers, all replies, no symbol lists */
	P('C', "c.test\0U");
	P('H', "h\0");
	P('U', "XYZZY\0");
	message(&b, "<a@b.test>\0", 11);
	assert_int_equal(feed(&b, 100000, got, sizeof got), 0);
	assert_string_equal(got, "Occcccccccccc");
	mw_buf_free(&b);
}

static void
negotiations(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		uint32_t version, actions, steps;
		int want;
		uint32_t ret_version, ret_actions, ret_steps;
		char mail; /* the answer to MAIL; 0: none */
	} cases[] = {
	    {"Postfix", 6, 0x1ff, 0x1fffff, 0, 6, 0x100, 0x1ff880, 0},
	    {"newer", 7, 0x1ff, 0x3fffffff, 0, 6, 0x100, 0x1ff880, 0},
	    {"wants replies", 6, 0x1ff, 0x1fbfff, 0, 6, 0x100, 0x1fb880, 'c'},
	    {"no exact headers", 6, 0x1ff, 0x7f, 0, 6, 0x100, 0, 'y'},
	    {"protocol 2", 2, 0x3f, 0x7f, 0, 2, 0, 0, 'y'},
	    {"protocol 1", 1, 0xf, 0x3f, MW_EPROTO, 0, 0, 0, 0},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_buf b = {0};
		struct mw_proto p;
		mw_proto_init(&p, &cap, NULL, NULL);
		negotiate(&b, cases[i].version, cases[i].actions, cases[i].steps);
		int r = mw_proto_input(&p, b.p, b.n, NULL);
		if (r != cases[i].want)
			fail_msg("%s: %d", cases[i].name, r);
		if (r == 0) {
			struct mw_buf want = {0};
			be32(&want, cases[i].ret_version);
			be32(&want, cases[i].ret_actions);
			be32(&want, cases[i].ret_steps);
			assert_int_equal(p.out.p[4], 'O');
			if (memcmp(p.out.p + 5, want.p, 12) != 0)
				fail_msg("%s: other options", cases[i].name);
			mw_buf_free(&want);
			mw_buf_clear(&b);
			mw_buf_clear(&p.out);
			P('M', "<a@b.test>\0");
			assert_int_equal(mw_proto_input(&p, b.p, b.n, NULL), 0);
			if ((p.out.n ? p.out.p[4] : 0) != cases[i].mail)
				fail_msg("%s: MAIL gave %c", cases[i].name, p.out.p[4]);
			if (cases[i].mail == 'y')
				assert_memory_equal(p.out.p + 5, "451 4.3.0 ", 10);
		}
		mw_proto_done(&p);
		mw_buf_free(&b);
	}
}

/* While the disk is full MAIL has a reply, and it is 451. */
static void
a_sick_journal_answers_mail(void **state)
{
	(void)state;
	struct mw_proto p;
	MW_BUF_AUTO b = {0};
	atomic_store(&free_mib, 1);
	for (int i = 0; i < 1200 && mw_store_ready(store) == 0; i++)
		(void)usleep(100 * 1000); /* the store looks now and then */
	mw_proto_init(&p, &cap, NULL, NULL);
	negotiate(&b, 6, all_actions, 0x1fffff);
	assert_int_equal(mw_proto_input(&p, b.p, b.n, NULL), 0);
	assert_int_equal(p.steps, 0x1fb880);
	mw_buf_clear(&b);
	mw_buf_clear(&p.out);
	P('M', "<a@b.test>\0");
	assert_int_equal(mw_proto_input(&p, b.p, b.n, NULL), 0);
	assert_true(p.out.n > 15);
	assert_memory_equal(p.out.p + 4, "y451 4.3.0 ", 11);
	mw_proto_done(&p);
	atomic_store(&free_mib, MW_FREE_MIB);
	for (int i = 0; i < 1200 && mw_store_ready(store) != 0; i++)
		(void)usleep(100 * 1000);
	assert_int_equal(mw_store_ready(store), 0);
}

static void
odd_packets(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		bool negotiated;
		const char *bytes;
		size_t n;
		int want;
	} cases[] = {
#define CASE(name, neg, lit, want) {name, neg, lit, sizeof(lit) - 1, want}
	    CASE("empty packet", true, "\0\0\0\0", MW_EPROTO),
	    CASE("empty packet first", false, "\0\0\0\0", MW_EPROTO),
	    CASE("too large", true, "\0\x20\0\1B", MW_EPROTO),
	    CASE("huge", true, "\xff\xff\xff\xff", MW_EPROTO),
	    CASE("HTTP", false, "GET / HTTP/1.0\r\n\r\n", MW_EPROTO),
	    CASE("command before negotiation", false, "\0\0\0\1A", MW_EPROTO),
	    CASE("unknown command", true, "\0\0\0\1z", MW_EPROTO),
	    CASE("short negotiation", false, "\0\0\0\3Oab", MW_EPROTO),
	    CASE("incomplete packet", true, "\0\0\0\7Mabc", 0),
	    CASE("quit before negotiation", false, "\0\0\0\1Q", 0),
	    CASE("macros without a stage", true, "\0\0\0\1D", 0),
	    CASE("macros without names", true, "\0\0\0\2DM", 0),
	    CASE("macros cut short", true, "\0\0\0\4DMij", 0),
	    CASE("macro without value", true, "\0\0\0\5DMi\0j", 0),
	    CASE("connect without anything", true, "\0\0\0\1C", 0),
	    CASE("connect cut short", true, "\0\0\0\5Cx\0004\1", 0),
	    CASE("helo without text", true, "\0\0\0\1H", 0),
	    CASE("mail without address", true, "\0\0\0\1M", 0),
	    CASE("rcpt before mail", true, "\0\0\0\3Ra\0", MW_EPROTO),
	    CASE("end before mail", true, "\0\0\0\1E", MW_EPROTO),
	    CASE("header without name", true, "\0\0\0\1M\0\0\0\1L", MW_EPROTO),
	    CASE("header with empty name", true, "\0\0\0\1M\0\0\0\3L\0\0", MW_EPROTO),
	    CASE("header without value", true, "\0\0\0\1M\0\0\0\2LA", 0),
	    CASE("header with a rest", true, "\0\0\0\1M\0\0\0\6LA\0b\0c", MW_EPROTO),
	    CASE("data before mail", true, "\0\0\0\1T", MW_EPROTO),
	    CASE("abort when idle", true, "\0\0\0\1A\0\0\0\1A", 0),
	    CASE("new client when idle", true, "\0\0\0\1K\0\0\0\1K", 0),
	    CASE("dropped in the middle", true, "\0\0\0\1M\0\0\0\3Bxx", 0),
#undef CASE
	};
	uint64_t before = mails();
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_buf b = {0};
		char got[64];
		if (cases[i].negotiated)
			negotiate(&b, 6, all_actions, all_steps);
		mw_buf_put(&b, cases[i].bytes, cases[i].n);
		for (size_t step = 1; step < 100000; step *= 1000) {
			int r = feed(&b, step, got, sizeof got);
			if (r != cases[i].want)
				fail_msg("%s: %s", cases[i].name, mw_err_name(r));
		}
		mw_buf_free(&b);
	}
	assert_int_equal(mails(), before);
	assert_int_equal(atomic_load(&cap.count.open_sessions), 0);
}

/* A body chunk of the largest size, and one byte more. */
static void
largest_packet(void **state)
{
	(void)state;
	for (size_t extra = 0; extra < 2; extra++) {
		struct mw_buf b = {0};
		char got[64];
		negotiate(&b, 6, all_actions, all_steps);
		P('M', "<a@b.test>\0");
		be32(&b, MW_PACKET_MAX + (uint32_t)extra);
		mw_buf_putc(&b, 'B');
		assert_int_equal(mw_buf_reserve(&b, MW_PACKET_MAX), 0);
		memset(b.p + b.n, 'x', MW_PACKET_MAX);
		b.n += MW_PACKET_MAX - 1;
		P('E', "");
		assert_int_equal(feed(&b, 65536, got, sizeof got), extra ? MW_EPROTO : 0);
		assert_string_equal(got, extra ? "Oc" : "Occ");
		mw_buf_free(&b);
	}
}

/* ---- sockets ---- */

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
	negotiate(&b, 6, all_actions, all_steps);
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
			negotiate(&b, 6, all_actions, all_steps);
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
	negotiate(&b, 6, all_actions, 0x100000); /* every step has a reply */
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
	    cmocka_unit_test(any_cut_is_the_same),
	    cmocka_unit_test(every_step_replies_when_asked),
	    cmocka_unit_test(a_sick_journal_answers_mail),
	    cmocka_unit_test(negotiations),
	    cmocka_unit_test(odd_packets),
	    cmocka_unit_test(largest_packet),
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
