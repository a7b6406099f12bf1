/* The end of data and the lines of SMTP: what the proxy reads. */
#include "milter/dot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "journal/base/util.h"
#include "milter/smtp.h"

#include <cmocka.h>

/* ---- the end of data ---- */

struct scanned {
	struct mw_buf wire, content;
	enum mw_dot_found found;
	size_t used;
};

/* The whole input in pieces of `step` bytes; stops at what is found. */
static void
scan(struct scanned *s, const char *p, size_t n, size_t step, bool pass)
{
	struct mw_dot d = {.pass = pass};
	memset(s, 0, sizeof *s);
	while (s->used < n && s->found == MW_DOT_MORE) {
		size_t used, m = MW_MIN(step, n - s->used);
		s->found = mw_dot_scan(&d, p + s->used, m, &used, &s->wire, &s->content);
		assert_true(used == m || s->found != MW_DOT_MORE);
		s->used += used;
	}
}

static void
scanned_free(struct scanned *s)
{
	mw_buf_free(&s->wire);
	mw_buf_free(&s->content);
}

static void
is(const struct mw_buf *b, const char *p, size_t n)
{
	if (!mw_str_eq(mw_buf_str(b), mw_str(p, n)))
		fail_msg("\"%.*s\", not \"%.*s\"", (int)b->n, (const char *)b->p, (int)n,
		         p);
}

#define LIT(s) s, sizeof(s) - 1

static void
end_of_data(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		size_t n;
		const char *wire, *content;
		size_t rest; /* bytes behind the end */
	} cases[] = {
	    {LIT(".\r\n"), "", "", 0},
	    {LIT("a\r\n.\r\n"), "a\r\n", "a\r\n", 0},
	    {LIT("a\r\n.\r\nQUIT\r\n"), "a\r\n", "a\r\n", 6},
	    {LIT("..\r\n.\r\n"), "..\r\n", ".\r\n", 0},
	    {LIT("a\r\n..b\r\n.\r\n"), "a\r\n..b\r\n", "a\r\n.b\r\n", 0},
	    {LIT(".b\r\n.\r\n"), ".b\r\n", "b\r\n", 0},
	    {LIT("a.\r\n.b.\r\n.\r\n"), "a.\r\n.b.\r\n", "a.\r\nb.\r\n", 0},
	    {LIT("a\rb\nc\r\n.\r\n"), "a\rb\nc\r\n", "a\rb\nc\r\n", 0},
	    {LIT("a\n..\n.\r\n\r\n.\r\n"), NULL, NULL, 0}, /* the dot after LF */
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		for (size_t step = 1; step < 5; step++) {
			struct scanned s;
			scan(&s, cases[i].in, cases[i].n, step, false);
			if (!cases[i].wire) {
				assert_int_equal(s.found, MW_DOT_SMUGGLED);
			} else {
				assert_int_equal(s.found, MW_DOT_END);
				is(&s.wire, cases[i].wire, strlen(cases[i].wire));
				is(&s.content, cases[i].content,
				   strlen(cases[i].content));
				assert_int_equal(cases[i].n - s.used, cases[i].rest);
			}
			scanned_free(&s);
		}
	}
}

static const struct {
	const char *p;
	size_t n;
} smuggling[] = {
    {LIT("\n.\n")},         {LIT("\n.\r")},       {LIT("\r.\n")},
    {LIT("\r.\r")},         {LIT("\n.\r\n")},     {LIT("\r.\r\n")},
    {LIT("\r\n.\n")},       {LIT("\r\n.\r")},     {LIT("\r\n.\r\r\n")},
    {LIT("\r\r\n.\r\r\n")}, {LIT("\r\n\0.\r\n")}, {LIT("\r\n.\0\r\n")},
    {LIT("\r\n.\0\0\r\n")}, {LIT("\n\0.\0\n")},   {LIT("\r\n\0\0.\0\r\n")},
};

/* A server that ends lines at any CR or LF and ignores NUL: does it see a lone dot? */
static bool
lax_end(const struct mw_buf *b)
{
	size_t dots = 0, others = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (b->p[i] == '\r' || b->p[i] == '\n') {
			if (dots == 1 && others == 0)
				return true;
			dots = others = 0;
		} else if (b->p[i] == '.') {
			dots++;
		} else if (b->p[i] != 0) {
			others++;
		}
	}
	return false;
}

static void
smuggling_is_seen(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(smuggling); i++) {
		char in[64] = "x";
		size_t n = 1, m = smuggling[i].n;
		memcpy(in + n, smuggling[i].p, m);
		n += m;
		memcpy(in + n, "QUIT\r\n.\r\n", 9);
		n += 9;
		for (size_t step = 1; step <= n; step++) {
			struct scanned s;
			scan(&s, in, n, step, false);
			assert_int_equal(s.found, MW_DOT_SMUGGLED);
			assert_false(lax_end(&s.wire));
			scanned_free(&s);
			/* let through, only the strict end is the end */
			scan(&s, in, n, step, true);
			assert_int_equal(s.found, MW_DOT_END);
			assert_int_equal(s.used, n);
			is(&s.wire, in, n - 3);
			scanned_free(&s);
		}
	}
}

/* Lines that are longer than what is looked at together, and end in any way. */
static void
long_lines(void **state)
{
	(void)state;
	static const char *const ends[] = {"\r\n.\r\n",     "\n.\r\n",
	                                   "\r.\r\n",       "\r\n.\n",
	                                   "\r\r\n.\r\r\n", "a\r\n..\r\n.\r\n"};
	char in[600];
	memset(in, 'a', sizeof in);
	for (size_t n = 250; n < 520; n += n == 260 ? 250 : 1) {
		for (size_t i = 0; i < MW_COUNT(ends); i++) {
			size_t m = strlen(ends[i]);
			bool good = strstr(ends[i], "\r\n.\r\n") != NULL;
			struct scanned s;
			memcpy(in + n, ends[i], m);
			scan(&s, in, n + m, 300, false);
			assert_int_equal(s.found, good ? MW_DOT_END : MW_DOT_SMUGGLED);
			is(&s.wire, in, s.wire.n);
			if (good)
				assert_int_equal(s.wire.n, n + m - 3);
			scanned_free(&s);
			memset(in + n, 'a', m);
		}
	}
}

/* What mw_dot_scan is to find, by the words of dot.h alone. */
static enum mw_dot_found
found_in(const char *p, size_t n, size_t *ret_used)
{
	size_t dots = 0, others = 0; /* of the line, as a lax server reads it */
	for (size_t i = 0; i < n; i++) {
		bool lone = dots == 1 && others == 0 && i && p[i - 1] == '.' &&
		            (i == 1 || (i > 2 && p[i - 2] == '\n' && p[i - 3] == '\r'));
		if (p[i] == '.')
			dots++;
		else if (p[i] && p[i] != '\r' && p[i] != '\n')
			others++;
		if (p[i] != '\r' && p[i] != '\n')
			continue;
		if (lone && p[i] == '\r' && i + 1 == n)
			return MW_DOT_MORE; /* the next byte decides */
		*ret_used = i + 2;
		if (lone && p[i] == '\r' && p[i + 1] == '\n')
			return MW_DOT_END;
		if (dots == 1 && others == 0)
			return MW_DOT_SMUGGLED;
		dots = others = 0;
	}
	return MW_DOT_MORE;
}

/* Whatever comes: what goes on holds no end for a lax server, and stuffing what was
 * content gives what went on. */
static void
any_bytes(void **state)
{
	(void)state;
	static const char alphabet[] = {'\r', '\n', '.', 0, 'a'};
	for (unsigned k = 0; k < 390625; k++) { /* all strings of 8 */
		char in[8];
		unsigned v = k;
		for (size_t i = 0; i < sizeof in; i++, v /= 5)
			in[i] = alphabet[v % 5];
		struct scanned s;
		size_t used = 0;
		scan(&s, in, sizeof in, 3, false);
		assert_int_equal(s.found, found_in(in, sizeof in, &used));
		assert_false(lax_end(&s.wire));
		if (s.found == MW_DOT_END) {
			assert_memory_equal(in + s.used - 3, ".\r\n", 3);
			is(&s.wire, in, s.used - 3);
			assert_int_equal(s.used, used);
		}
		scanned_free(&s);
	}
}

/* ---- lines ---- */

static void
paths(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		size_t argc;
		const char *first, *last;
	} cases[] = {
	    {"FROM:<a@b>", 1, "<a@b>", "<a@b>"},
	    {"from: <a@b> SIZE=1  BODY=8BITMIME", 3, "<a@b>", "BODY=8BITMIME"},
	    {"FROM:<>", 1, "<>", "<>"},
	    {"FROM:<\"a> b\"@c> X=1", 2, "<\"a> b\"@c>", "X=1"},
	    {"FROM:<a\\>b@c>", 1, "<a\\>b@c>", "<a\\>b@c>"},
	    {"FROM:a@b SIZE=1", 2, "a@b", "SIZE=1"},
	    {"FROM:<a@b", 0, NULL, NULL},
	    {"FROM:<a@b>X", 0, NULL, NULL},
	    {"FROM:", 0, NULL, NULL},
	    {"<a@b>", 0, NULL, NULL},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_str v[MW_SMTP_ARGS];
		size_t n = mw_smtp_path(mw_strz(cases[i].in), MW_STR("FROM:"), v);
		assert_int_equal(n, cases[i].argc);
		if (n == 0)
			continue;
		assert_true(mw_str_eq(v[0], mw_strz(cases[i].first)));
		assert_true(mw_str_eq(v[n - 1], mw_strz(cases[i].last)));
	}
}

static void
offers(void **state)
{
	(void)state;
	static const char all[] =
	    "250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-VRFY\r\n"
	    "250-ETRN\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250-XFORWARD NAME ADDR\r\n"
	    "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n"
	    "250-BINARYMIME\r\n250 CHUNKING\r\n";
	static const struct {
		const char *in;
		struct mw_offer o;
		const char *want;
	} cases[] = {
	    {all,
	     {.trusted = true},
	     "250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-XFORWARD "
	     "NAME "
	     "ADDR\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n"
	     "250-SMTPUTF8\r\n250 CHUNKING\r\n"},
	    {all,
	     {.limit = 500},
	     "250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 500\r\n"
	     "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n"
	     "250 CHUNKING\r\n"},
	    {"250 mx\r\n", {0}, "250 mx\r\n"},
	    {"250-mx\r\n250 STARTTLS\r\n", {0}, "250 mx\r\n"},
	    {"250-mx\r\n250 size\r\n", {.limit = 7}, "250-mx\r\n250 SIZE 7\r\n"},
	    {"250-mx\r\n250 SIZE 0\r\n", {0}, "250-mx\r\n250 SIZE\r\n"},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_BUF_AUTO out = {0};
		mw_smtp_offer(mw_strz(cases[i].in), &cases[i].o, &out);
		is(&out, cases[i].want, strlen(cases[i].want));
	}
}

static void
trace_ids(void **state)
{
	(void)state;
	static const struct {
		const char *head, *want;
	} cases[] = {
	    {"Received: from a (b [1.2.3.4])\r\n\tby mx (Postfix) with ESMTP id "
	     "4XkQ1z\r\n\tfor "
	     "<a@b>; Sun\r\nTo: x\r\n",
	     "4XkQ1z"},
	    {"Return-Path: <a@b>\r\nDelivered-To: c\r\nReceived: by mx with LMTP id "
	     "Q2;\r\nA: b",
	     "Q2"},
	    {"Received: from a (id 77) by mx (Postfix) with SMTP; Sun\r\nA: b\r\n", ""},
	    {"Received: by mx; id 5\r\nA: b\r\n", ""},
	    {"Subject: x\r\nReceived: by mx id 5;\r\n\r\n", ""},
	    {"Received: by mx id 5", ""},
	    {"", ""},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_str got = mw_smtp_received_id(mw_strz(cases[i].head));
		if (!mw_str_eq(got, mw_strz(cases[i].want)))
			fail_msg("%zu: %.*s", i, (int)got.n, got.p);
	}
	static const char nul[] = "Received: a\0b id\0 x;\r\nA: b";
	(void)mw_smtp_received_id(mw_str(nul, sizeof nul - 1));
	char out[8];
	mw_smtp_xtext(MW_STR("a+2Bb+0Ac+"), out, sizeof out);
	assert_string_equal(out, "a+b?c+");
	mw_smtp_xtext(MW_STR("[unavailable]"), out, sizeof out);
	assert_string_equal(out, "");
	mw_smtp_xtext(MW_STR("0123456789"), out, sizeof out);
	assert_string_equal(out, "0123456");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(end_of_data), cmocka_unit_test(smuggling_is_seen),
	    cmocka_unit_test(long_lines),  cmocka_unit_test(any_bytes),
	    cmocka_unit_test(paths),       cmocka_unit_test(offers),
	    cmocka_unit_test(trace_ids),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
