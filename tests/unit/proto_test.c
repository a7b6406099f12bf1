/* The milter protocol: packets as bytes, whole, cut, odd (proto.h).
 * MW_TEST_THREADS */
#include "milter/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "journal/base/util.h"
#include "tests/support/packets.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static int
setup(void **state)
{
	(void)state;
	return taking_dir() < 0 ? -1 : taking_open(taking_settings());
}

static int
teardown(void **state)
{
	(void)state;
	return taking_end();
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
	negotiate(&b, 6, ALL_ACTIONS, ALL_STEPS);
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
	negotiate(&b, 6, ALL_ACTIONS, 0x1fffff);
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
			negotiate(&b, 6, ALL_ACTIONS, ALL_STEPS);
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
		negotiate(&b, 6, ALL_ACTIONS, ALL_STEPS);
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
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
