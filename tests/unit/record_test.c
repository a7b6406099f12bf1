/* The record room: metadata encode and decode, the canonical form, header fields. */
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/record/canon.h"
#include "journal/record/cbor.h"
#include "journal/record/header.h"
#include "journal/record/meta.h"
#include "tests/support/dice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static uint64_t seed = 7;

static unsigned
dice(unsigned n)
{
	return dice_roll(&seed, n);
}

static void
random_mail(struct mw_arena *a, struct mw_mail *m)
{
	memset(m, 0, sizeof *m);
	m->time_us = (int64_t)dice(1000000) - 500000;
	struct mw_str *s[] = {&m->queue_id,  &m->message_id,  &m->subject,
	                      &m->from,      &m->client_addr, &m->client_name,
	                      &m->helo,      &m->tls_version, &m->tls_cipher,
	                      &m->auth_type, &m->auth_user,   &m->auth_sender,
	                      &m->daemon,    &m->mta,         &m->hostname,
	                      &m->front,     &m->sender,      &m->sender_args,
	                      &m->folder};
	for (size_t i = 0; i < MW_COUNT(s); i++)
		*s[i] = dice_odd(&seed, a);
	m->n_rcpt = dice(4);
	m->rcpt = mw_arena_alloc(a, 4 * sizeof *m->rcpt);
	for (size_t i = 0; i < m->n_rcpt; i++) {
		struct mw_rcpt *r = &m->rcpt[i];
		r->addr = dice_odd(&seed, a);
		r->args = dice_odd(&seed, a);
		r->mailer = dice_odd(&seed, a);
		r->flags = dice(16);
		r->n_mailbox = dice(3);
		r->mailbox = mw_arena_alloc(a, 3 * sizeof *r->mailbox);
		for (size_t k = 0; k < r->n_mailbox; k++)
			r->mailbox[k] = dice_odd(&seed, a);
	}
	m->size = dice(100000);
	m->header_size = dice(1000);
	for (size_t i = 0; i < 32; i++) {
		m->sha256[i] = (uint8_t)dice(256);
		m->digest[i] = (uint8_t)dice(256);
	}
	m->direction = (enum mw_direction)dice(3);
	m->flags = dice(16);
	m->n_class = dice(3);
	m->n_fact = dice(3);
	m->class = mw_arena_alloc(a, 3 * sizeof *m->class);
	m->fact = mw_arena_alloc(a, 3 * sizeof *m->fact);
	for (size_t i = 0; i < 3; i++) {
		m->class[i] = dice_odd(&seed, a);
		m->fact[i] = dice_odd(&seed, a);
	}
}

static void
decode_of_encode_is_the_same(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_mail m, got;
		struct mw_err err = {0};
		MW_BUF_AUTO one = {0};
		MW_BUF_AUTO two = {0};
		random_mail(a, &m);
		assert_int_equal(mw_mail_encode(&m, &one), 0);
		if (mw_mail_decode(one.p, one.n, a, &got, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(mw_mail_encode(&got, &two), 0);
		assert_int_equal(one.n, two.n);
		assert_memory_equal(one.p, two.p, one.n);
		assert_true(mw_str_eq(m.sender, got.sender));
		assert_int_equal(m.n_rcpt, got.n_rcpt);
		assert_int_equal(m.n_class, got.n_class);
		assert_int_equal(m.n_fact, got.n_fact);
		for (size_t k = 0; k < m.n_class; k++)
			assert_true(mw_str_eq(m.class[k], got.class[k]));
		assert_int_equal(m.time_us, got.time_us);
		for (size_t n = 0; n < one.n; n += 1 + dice(9)) /* any prefix: refused */
			assert_true(mw_mail_decode(one.p, n, a, &got, &err) < 0);
	}
}

/* What is read where it stands is what a copy would be, of good bytes and of bad ones. */
static void
the_same_where_it_stands(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_mail m, got, here;
		struct mw_err err = {0}, why = {0};
		MW_BUF_AUTO one = {0};
		MW_BUF_AUTO two = {0};
		MW_BUF_AUTO three = {0};
		random_mail(a, &m);
		assert_int_equal(mw_mail_encode(&m, &one), 0);
		for (unsigned k = dice(4); k; k--)
			one.p[dice((unsigned)one.n)] = (uint8_t)dice(256);
		int r = mw_mail_decode(one.p, one.n, a, &got, &err);
		assert_int_equal(mw_mail_decode_here(one.p, one.n, a, &here, &why), r);
		assert_string_equal(err.msg, why.msg);
		if (r < 0)
			continue;
		assert_int_equal(mw_mail_encode(&got, &two), 0);
		assert_int_equal(mw_mail_encode(&here, &three), 0);
		assert_true(mw_str_eq(mw_buf_str(&two), mw_buf_str(&three)));
		assert_true(here.sender.n == 0 ||
		            (here.sender.p > (char *)one.p &&
		             here.sender.p < (char *)one.p + one.n));
	}
}

static void
unknown_keys(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_mail got;
	struct mw_err err = {0};
	MW_BUF_AUTO b = {0};
	mw_cbor_put_map(&b, 2);
	mw_cbor_put_text(&b, "later");
	mw_cbor_put_array(&b, 2);
	mw_cbor_put_map(&b, 1);
	mw_cbor_put_uint(&b, 1);
	mw_cbor_put_text(&b, "x");
	mw_cbor_put_int(&b, -70000);
	mw_cbor_put_text(&b, "size");
	mw_cbor_put_uint(&b, 42);
	assert_int_equal(mw_mail_decode(b.p, b.n, a, &got, &err), 0);
	assert_int_equal(got.size, 42);
	mw_buf_clear(&b);
	mw_cbor_put_map(&b, 1);
	mw_cbor_put_text(&b, "!must");
	mw_cbor_put_uint(&b, 1);
	assert_int_equal(mw_mail_decode(b.p, b.n, a, &got, &err), MW_EVERSION);
	static const uint8_t bomb[] = {0xbb, 0xff, 0xff, 0xff, 0xff,
	                               0xff, 0xff, 0xff, 0xff};
	assert_int_equal(mw_mail_decode(bomb, sizeof bomb, a, &got, &err), MW_EFORMAT);
}

/* ---- canonical form ---- */

static void
collect(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
}

static void
canon(struct mw_str in, size_t cut, struct mw_buf *out)
{
	struct mw_canon c;
	mw_canon_init(&c, collect, out);
	for (size_t at = 0; at < in.n;) {
		size_t n = cut ? MW_MIN(cut, in.n - at) : 1 + dice((unsigned)(in.n - at));
		mw_canon_put(&c, in.p + at, n);
		at += n;
	}
	mw_canon_done(&c);
}

static const struct {
	const char *name;
	struct mw_str in, out;
} canons[] = {
#define LONG "A23456789-B23456789-C23456789-D23456789-E23456789-F23456789-"
#define C(name, in, out)                                                                 \
	{                                                                                \
		name, MW_STR(in), MW_STR(out)                                            \
	}
    C("plain", "A: b\r\n\r\nhi\r\n", "A: b\n\nhi"),
    C("trace off", "Received: x\r\n\tfolded\r\nA: b\r\nReturn-Path: <>\r\n\r\nhi",
      "A: b\n\nhi"),
    C("trace name with blank", "Received : x\r\nA: b\r\n\r\n", "A: b"),
    C("trace look-alike stays", "Received-SPF: x\r\n\r\nq", "Received-SPF: x\n\nq"),
    C("in the body it stays", "A: b\n\nReceived: x\n", "A: b\n\nReceived: x"),
    C("8 bit in header", "A: \xc3\xa9\n\n\xc3\xa9", "A: XX\n\n\xc3\xa9"),
    C("NUL", "A: b\n\nx\0y", "A: b\n\nx\x80y"),
    C("lone CR", "A: b\n\nx\ry\r\r\nz", "A: b\n\nxy\nz"),
    C("mbox line", "From me Mon\nA: b\n\nc", "A: b\n\nc"),
    C("mbox line with colon", "From me Mon 10:11\nA: b\n\nc", "A: b\n\nc"),
    C("From header is no mbox line", "From: me\n\nc", "From: me\n\nc"),
    C("newlines at the end", "A: b\n\nc\n\n\n\r\n", "A: b\n\nc"),
    C("newlines inside stay", "A: b\n\nc\n\n\n\nd\n", "A: b\n\nc\n\n\n\nd"),
    C("no empty line", "A: b\nB: c", "A: b\nB: c"),
    C("only a header", "A: b\r\n\r\n", "A: b"),
    C("empty", "", ""),
    C("no colon", "garbage\nReceived: x\n\nq", "garbage\n\nq"),
    C("body only", "\r\nhi", "\nhi"),
    C("no name", "A: b\n: c\nReceived: x\n\nq", "A: b\n: c\n\nq"),
    C("odd bytes in a name", "A: b\nB\xe9\0\r: c\nRece\rived: x\n\nq",
      "A: b\nBXX: c\n\nq"),
    C("a long name",
      "A: b\n" LONG "123: c\n" LONG "1234: c\n" LONG "12345: c\n"
      "Received: x\n\nq",
      "A: b\n" LONG "123: c\n" LONG "1234: c\n" LONG "12345: c\n\nq"),
    C("a folded line of nothing", "A: b\r\n\t\r\nReceived: x\r\n \r\nC: d\r\n\r\nq",
      "A: b\n\t\nC: d\n\nq"),
    C("no newline, trace", "A: b\nReceived: x", "A: b"),
#undef C
#undef LONG
};

static void
canonical_form(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(canons); i++)
		for (size_t cut = 0; cut < 20; cut++) {
			MW_BUF_AUTO got = {0};
			canon(canons[i].in, cut ? cut : 1000, &got);
			if (!mw_str_eq(mw_buf_str(&got), canons[i].out))
				fail_msg("%s (cut %zu): got '%.*s'", canons[i].name, cut,
				         (int)got.n, got.p);
		}
}

/* Each field that some store or client adds or changes, alone, folded and in any case. */
static void
every_field_that_stores_change_is_off(void **state)
{
	(void)state;
	static const char *const names[] = {"Return-Path",
	                                    "Received",
	                                    "Delivered-To",
	                                    "X-Original-To",
	                                    "Envelope-To",
	                                    "Delivery-Date",
	                                    "X-Sieve",
	                                    "X-Cyrus-Session-Id",
	                                    "X-TUID",
	                                    "X-OfflineIMAP",
	                                    "Status",
	                                    "X-Status",
	                                    "X-Keywords",
	                                    "X-UID",
	                                    "Authentication-Results",
	                                    "ARC-Seal",
	                                    "ARC-Message-Signature",
	                                    "ARC-Authentication-Results"};
	for (size_t i = 0; i < 2 * MW_COUNT(names); i++) {
		char name[40];
		MW_BUF_AUTO got = {0}, text = {0};
		(void)snprintf(name, sizeof name, "%s", names[i / 2]);
		for (char *p = name; i % 2 && *p; p++)
			*p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
		if (i % 2)
			mw_buf_printf(&text, "%s: three\nA: b\nC: d\n\nhi\n", name);
		else
			mw_buf_printf(&text,
			              "A: b\r\n%s: one\r\n\tand two\r\nC: d\r\n\r\nhi",
			              name);
		canon(mw_buf_str(&text), 1000, &got);
		if (!mw_str_eq(mw_buf_str(&got), MW_STR("A: b\nC: d\n\nhi")))
			fail_msg("%s: got '%.*s'", name, (int)got.n, got.p);
	}
}

static void
canonical_form_survives_delivery(void **state)
{
	(void)state;
	static const char parts[] =
	    "A: b\r\nReceived: by x\r\n\tid 1\r\nX: \xe9\r\n\r\nbo\0dy\r\n";
	struct mw_str in = mw_str(parts, sizeof parts - 1);
	MW_BUF_AUTO stored = {0};
	mw_buf_puts(&stored, "Return-Path: <a@b>\nDelivered-To: c\n");
	for (size_t i = 0; i < in.n; i++)
		if (in.p[i] != '\r')
			mw_buf_putc(&stored, in.p[i]);
	mw_buf_puts(&stored, "\n\n");
	MW_BUF_AUTO one = {0};
	MW_BUF_AUTO two = {0};
	canon(in, 7, &one);
	canon(mw_buf_str(&stored), 5, &two);
	assert_int_equal(one.n, two.n);
	assert_memory_equal(one.p, two.p, one.n);
}

/* ---- header fields ---- */

static void
fields(void **state)
{
	(void)state;
	struct mw_str h = MW_STR("A: 1\r\nB :2\r\n\t3\r\nno field here\r\nC: 4\r\n");
	struct mw_field f;
	assert_true(mw_header_next(&h, &f));
	assert_true(mw_str_eq(f.name, MW_STR("A")));
	assert_true(mw_str_eq(f.value, MW_STR(" 1")));
	assert_true(mw_header_next(&h, &f));
	assert_true(mw_str_eq(f.name, MW_STR("B")));
	assert_true(mw_str_eq(f.value, MW_STR("2\r\n\t3")));
	assert_true(mw_str_eq(f.raw, MW_STR("B :2\r\n\t3\r\n")));
	assert_false(mw_header_next(&h, &f));
	assert_true(mw_str_starts(h, MW_STR("no field")));
}

static void
unfolding_and_ids(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_str u =
	    mw_header_unfold(a, MW_STR(" from x\r\n\t by y id 4XyZ;\r\n date"), 999);
	assert_true(mw_str_eq(u, MW_STR("from x by y id 4XyZ; date")));
	assert_true(mw_str_eq(mw_header_received_id(u), MW_STR("4XyZ")));
	assert_true(mw_str_eq(mw_header_received_id(MW_STR(
	                          "by h (Postfix) with ESMTPS id A1 for <b@c>; d")),
	                      MW_STR("A1")));
	assert_int_equal(mw_header_received_id(MW_STR("by h; Mon")).n, 0);
	assert_true(mw_str_eq(mw_header_msgid(MW_STR("x <a@b> y")), MW_STR("<a@b>")));
	assert_true(mw_str_eq(mw_header_msgid(MW_STR("  bare ")), MW_STR("bare")));
	size_t h;
	assert_int_equal(mw_header_split(MW_STR("A: b\r\n\r\nc"), &h), 8);
	assert_int_equal(h, 6);
	assert_int_equal(mw_header_split(MW_STR("A: b\r\n"), &h), 6);
	assert_int_equal(h, 6);
}

static void
encoded_words(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out;
	} t[] = {
	    {"plain text", "plain text"},
	    {"=?utf-8?B?w6k=?= x", "\xc3\xa9 x"},
	    {"=?UTF-8?Q?a=C3=A9_b?=", "a\xc3\xa9 b"},
	    {"=?iso-8859-1?q?caf=e9?=", "caf\xc3\xa9"},
	    {"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"},
	    {"a =?utf-8?q?b?= c", "a b c"},
	    {"=?windows-1252?q?=80?=", "\xe2\x82\xac"},
	    {"=?koi8-r?q?x?=", "=?koi8-r?q?x?="},
	    {"=?utf-8?q?broken", "=?utf-8?q?broken"},
	    {"\xff raw", "\xef\xbf\xbd raw"},
	    {"=?utf-8?q?=ff?=", "\xef\xbf\xbd"},
	    {"", ""},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		MW_BUF_AUTO b = {0};
		mw_header_decode(mw_strz(t[i].in), &b);
		assert_string_equal(mw_buf_cstr(&b), t[i].out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(decode_of_encode_is_the_same),
	    cmocka_unit_test(the_same_where_it_stands),
	    cmocka_unit_test(unknown_keys),
	    cmocka_unit_test(canonical_form),
	    cmocka_unit_test(every_field_that_stores_change_is_off),
	    cmocka_unit_test(canonical_form_survives_delivery),
	    cmocka_unit_test(fields),
	    cmocka_unit_test(unfolding_and_ids),
	    cmocka_unit_test(encoded_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
