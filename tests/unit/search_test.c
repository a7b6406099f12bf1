/* search_test.c - what is decoded and folded before it is compared; hostile messages. */
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/mime_walk.h"
#include "replay/search.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static void
folding(void **state)
{
	(void)state;
	static const char *const t[][2] = {
	    {"Facture N\xc2\xb0"
	     "12 \xe2\x80\x94 M\xc3\xbcller",
	     "facture n\xc2\xb0"
	     "12 - muller"},
	    {"  A \t\r\n\xc2\xa0 b ", "a b"},
	    {"Stra\xc3\x9f"
	     "e",
	     "strasse"},
	    {"\xc4\xb0stanbul \xc3\x98"
	     "st \xc5\x81\xc3\xb3"
	     "d\xc5\xba",
	     "istanbul ost lodz"},
	    {"\xce\x9f\xce\x94\xce\x9f\xce\xa3 \xce\xbf\xce\xb4\xcf\x8c\xcf\x82",
	     "\xce\xbf\xce\xb4\xce\xbf\xcf\x83 \xce\xbf\xce\xb4\xce\xbf\xcf\x83"},
	    {"e\xcc\x81t\xc3\xa9", "ete"}, /* decomposed and composed */
	    {"\xef\xac\x81le", "file"},    /* ligature */
	    {"so\xc2\xad"
	     "ft",
	     "soft"},
	    {"\xe2\x80\x99"
	     "a\xe2\x80\x9d",
	     "'a\""},
	    {"\xd0\x81\xd0\xbb\xd0\xba\xd0\xb0", "\xd0\xb5\xd0\xbb\xd0\xba\xd0\xb0"},
	    {"", ""},
	    {"\xcc\x81 ", ""},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		MW_BUF_AUTO b = {0};
		mw_mime_fold_needle(mw_strz(t[i][0]), &b);
		assert_string_equal(mw_buf_cstr(&b), t[i][1]);
	}
}

static void
header_words(void **state)
{
	(void)state;
	static const struct {
		const char *raw, *text;
		bool found;
	} t[] = {
	    {"=?iso-8859-1?Q?Fa=E7ade?=", "facade", true},
	    {"=?KOI8-R?B?8NLJ18XU?=", "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82",
	     true},
	    {"=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", "\xe6\x97\xa5\xe6\x9c\xac", true},
	    {"=?gb2312?B?1tDOxA==?=", "\xe4\xb8\xad\xe6\x96\x87", true},
	    /* a character cut between two words */
	    {"=?utf-8?B?w7xiZXLD?= =?utf-8?B?vGJlcg==?=", "uberuber", true},
	    /* whole ones, so that the first word ends with "=" */
	    {"=?utf-8?B?w4Q=?= =?utf-8?B?cGZlbA==?= =?UTF-8?b?IQ==?= x", "apfel! x",
	     true},
	    {"=?ISO-2022-JP?B?GyRCJDMkcxsoQg==?=\r\n =?ISO-2022-JP?B?GyRCJEskQRsoQg==?=",
	     "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1", true},
	    {"=?utf-8?B?w4Q=?= and =?utf-8?B?cGZlbA==?=", "a and pfel", true},
	    {"=?utf-8?B?w4Q=?= =?utf-8?Q?pfel?=", "apfel", true},
	    {"=?utf-8?B?w4Q*=?= =?utf-8?B?w4", "=?utf-8?b?w4", true},
	    {"=?utf-8?B?"
	     "?= =?utf-8?B?cGZlbA==?=",
	     "pfel", true},
	    {"=?utf-8?Q?two?= =?utf-8?Q?_words?=", "TWO WORDS", true},
	    {"R\xe9sum\xe9", "resume", true}, /* windows-1252 in the raw */
	    {"R\xc3\xa9sum\xc3\xa9", "RESUME", true},
	    {"=?utf-8?Q?cut", "=?utf-8", true},
	    {"=?no-such?Q?x=41?=", "nothing", false},
	    {"plain", "plai", true},
	    {"plain", "plains", false},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++)
		if (mw_search_header(mw_strz(t[i].raw), &t[i].text, 1) != t[i].found)
			fail_msg("%zu: %s", i, t[i].raw);
}

/* Is it found, however the message is cut? */
static bool
finds(const char *message, size_t n, const char *body, const char *attachment)
{
	static const size_t cuts[] = {1, 2, 7, 64, 1 << 20};
	const struct mw_search_for what = {&body, &attachment, body != NULL,
	                                   attachment != NULL};
	struct mw_search *s;
	struct mw_err err = {0};
	int yes = -1;
	assert_int_equal(mw_search_new(&what, &s, &err), 0);
	for (size_t k = 0; k < MW_COUNT(cuts); k++) {
		for (size_t at = 0; at < n; at += cuts[k])
			assert_int_equal(mw_search_put(s, message + at,
			                               MW_MIN(cuts[k], n - at)),
			                 0);
		int now = mw_search_matches(s);
		if (yes >= 0 && now != yes)
			fail_msg("cut by %zu: %d, before %d: %.60s", cuts[k], now, yes,
			         message);
		yes = now;
	}
	mw_search_free(s);
	return yes == 1;
}

#define BODY(m, text) finds(m, strlen(m), text, NULL)
#define NAME(m, text) finds(m, strlen(m), NULL, text)

static void
bodies(void **state)
{
	(void)state;
	static const struct {
		const char *message, *text;
		bool found;
	} t[] = {
	    {"Subject: x\r\n\r\nHello\r\n  wide World", "hello wide world", true},
	    {"Subject: secret\r\n\r\nHello", "secret", false},
	    {"no header at all", "header", false},
	    {"A: b\n\nplain \xc3\x89t\xc3\xa9\n", "ete", true},
	    {"A: b\n\nraw \xc9t\xe9\n", "ete", true},
	    {"Content-Type: text/plain; charset=utf-8\r\n"
	     "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
	     "Gr=C3=BC=C3=9Fe aus M=C3=BCn=\r\nchen",
	     "grusse aus munchen", true},
	    {"Content-Type: text/plain; charset=\"windows-1251\"\r\n"
	     "Content-Transfer-Encoding: BASE64\r\n\r\nz/Do4uXy\r\n",
	     "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", true},
	    {"Content-Type: text/plain; charset=utf-16le\r\n"
	     "Content-Transfer-Encoding: base64\r\n\r\ncwBlAGMAcgBlAHQA\r\n",
	     "secret", true},
	    /* without its "=", or cut */
	    {"Content-Transfer-Encoding: base64\r\n\r\nc2VjcmU\r\n", "secre", true},
	    {"Content-Transfer-Encoding: base64\r\n\r\nc2VjcmV0cw", "secrets", true},
	    {"Content-Transfer-Encoding: base64\r\n\r\nc2VjcmV0c", "secret", true},
	    {"Content-Transfer-Encoding: base64\r\n\r\nc2VjcmV0cw==\r\n", "secrets",
	     true},
	    {"Content-Type: text/html\r\n\r\n<style>p{x:hidden}</style><p>im<b>por</b>"
	     "tant</p><p>caf&eacute; &#233;t&#xE9; &amp;co",
	     "important cafe ete &co", true},
	    {"Content-Type: text/html\r\n\r\n<style>p{x:hidden}</style>a", "hidden",
	     false},
	    {"Content-Type: multipart/mixed; boundary=\"b 1\"\r\n\r\npreamble\r\n--b "
	     "1\r\n"
	     "\r\none\r\n--b 1 \r\nContent-Type: image/png\r\n\r\nimage\r\n--b 1\r\n"
	     "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nfour\r\n"
	     "--b 1--\r\nepilogue",
	     "four", true},
	    {"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none"
	     "\r\n--b--\r\nepilogue",
	     "preamble", false},
	    {"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none"
	     "\r\n--b--\r\nepilogue",
	     "epilogue", false},
	    {"Content-Type: multipart/mixed; "
	     "boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\n"
	     "two",
	     "one two", false}, /* not across parts */
	    {"Content-Type: multipart/mixed; "
	     "boundary=b\n\n--b\n\n--bb\n--\none\n--b--x\n",
	     "--bb -- one --b--x", true},
	    {"Content-Type: multipart/mixed\r\n\r\nno boundary", "boundary", true},
	    {"Content-Type: application/pdf\r\n\r\nbinary", "binary", false},
	    {"Content-Type: ;;;=\r\n\r\nstill read", "read", true},
	    {"Content-Type: text/plain; charset=no-such\r\n\r\nstill read", "read", true},
	    {"A: b\r\n\r\nx", "y", false},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++)
		if (BODY(t[i].message, t[i].text) != t[i].found)
			fail_msg("%zu: %s", i, t[i].message);
}

static void
attachment_names(void **state)
{
	(void)state;
	static const struct {
		const char *fields, *text;
		bool found;
	} t[] = {
	    {"Content-Disposition: attachment; filename=\"Rechnung M\xc3\xa4rz.pdf\"",
	     "rechnung marz.PDF", true},
	    {"Content-Disposition: attachment;\r\n"
	     " filename=\"=?utf-8?B?w4Q=?=\r\n =?utf-8?B?cGZlbC5wZGY=?=\"",
	     "apfel.pdf", true},
	    {"Content-Disposition: attachment; filename*=UTF-8''R%C3%A9sum%C3%A9.doc",
	     "resume.doc", true},
	    {"Content-Disposition: attachment;\r\n filename*0*=iso-8859-1''Fa%E7;\r\n"
	     " filename*1=ade.txt",
	     "facade.txt", true},
	    {"Content-Type: image/png; name=\"=?utf-8?B?w4lDUkFOLnBuZw==?=\"",
	     "ecran.png", true},
	    {"Content-Type: application/x; name=a.zip\r\nContent-Disposition: "
	     "attachment; "
	     "filename=b.zip",
	     "a.zip", true},
	    {"Content-Type: application/x; name=a.zip\r\nContent-Disposition: "
	     "attachment; "
	     "filename=b.zip",
	     "b.zip", true},
	    {"Content-Disposition: inline", "inline", false},
	    {"Content-Type: text/plain", "plain", false},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		char m[1000];
		(void)
		    snprintf(m, sizeof m,
		             "Subject: x\r\nContent-Type: multipart/mixed; "
		             "boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n%s\r\n\r\nAAAA"
		             "\r\n--b--\r\n",
		             t[i].fields);
		if (NAME(m, t[i].text) != t[i].found)
			fail_msg("%zu: %s", i, t[i].fields);
	}
}

static void
both_and_again(void **state)
{
	(void)state;
	const char *const body[] = {"nowhere", "text"}, *const name[] = {"a.pdf"};
	const struct mw_search_for what = {body, name, 2, 1};
	const char *m = "Content-Disposition: inline; filename=A.pdf\n\nthe text";
	const char *other = "A: b\n\nthe text";
	struct mw_search *s;
	struct mw_err err = {0};
	assert_int_equal(mw_search_new(&what, &s, &err), 0);
	for (int k = 0; k < 3; k++) {
		assert_int_equal(mw_search_put(s, m, strlen(m)), 0);
		assert_true(mw_search_matches(s));
		assert_int_equal(mw_search_put(s, m, 30), 0);
		mw_search_forget(s);
		assert_int_equal(mw_search_put(s, other, strlen(other)), 0);
		assert_false(mw_search_matches(s));
	}
	mw_search_free(s);
	const char *const empty[] = {"\xcc\x81"};
	const struct mw_search_for bad = {empty, NULL, 1, 0};
	assert_int_equal(mw_search_new(&bad, &s, &err), MW_EUSAGE);
}

static long
peak_kb(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

/* Repeats `unit` up to n bytes between head and tail; must be found and cost little. */
static void
bomb(const char *what, const char *head, const char *unit, const char *tail, bool found)
{
	const struct mw_clock *c = mw_clock_system();
	const char *text[] = {"needle"};
	const struct mw_search_for q = {text, text, 1, 0};
	size_t n = 0, u = strlen(unit);
	struct mw_search *s;
	struct mw_err err = {0};
	int64_t start = c->mono_us(c);
	long before = peak_kb();
	assert_int_equal(mw_search_new(&q, &s, &err), 0);
	assert_int_equal(mw_search_put(s, head, strlen(head)), 0);
	while (n < 8000000) {
		assert_int_equal(mw_search_put(s, unit, u), 0);
		n += u;
	}
	assert_int_equal(mw_search_put(s, tail, strlen(tail)), 0);
	bool yes = mw_search_matches(s);
	mw_search_free(s);
	if (yes != found)
		fail_msg("%s: %sfound", what, yes ? "" : "not ");
	if (c->mono_us(c) - start > 120000000)
		fail_msg("%s: too slow", what);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed */
	if (peak_kb() - before > 20000)
		fail_msg("%s: %ld kB more", what, peak_kb() - before);
#else
	(void)before;
#endif
}

#define MULTI "Content-Type: multipart/mixed; boundary=b\n\n"

static void
bombs(void **state)
{
	(void)state;
	bomb("parts", MULTI, "--b\n\nx\n", "--b\n\nneedle\n--b--\n", true);
	bomb("nesting", "", MULTI "--b\n", "\nneedle", true);
	bomb("messages", "", "Content-Type: message/rfc822\n\n", "\nneedle", true);
	bomb("fields", "", "a: b\n", "\nneedle", true);
	bomb("one field", "Content-Type: text/plain; a=", "bbbbbbbbbb", "\n\nneedle",
	     true);
	bomb("parameters", "Content-Type: text/plain", "; a*0=b", "\n\nneedle", true);
	bomb("continuations", "Content-Type: text/plain\n", " ;x=y\n", "\n\nneedle",
	     true);
	bomb("one line", "A: b\n\n", "0123456789", "needle", true);
	bomb("NULs", "A: b\n\n", "\x01\x01\x01\x01", "\nneedle", true);
	bomb("base64 junk", "Content-Transfer-Encoding: base64\n\n", "====\n",
	     "bmVlZGxl\n", false);
	bomb("quoted", "Content-Transfer-Encoding: quoted-printable\n\n", "=\n", "needle",
	     true);
	bomb("tags", "Content-Type: text/html\n\n", "<<<", ">needle", true);
	bomb("entities", "Content-Type: text/html\n\n", "&&#;", " needle", true);
	bomb("dashes", MULTI "--b\n\n", "--\n", "needle", true);
	bomb("marks", "A: b\n\n", "e\xcc\x81\xcc\x81\xcc\x81", "needle", true);
}

/* Many boundaries open at once, every line a near miss. */
static void
near_misses(void **state)
{
	(void)state;
	MW_BUF_AUTO m = {0};
	for (int i = 0; i < 40; i++)
		mw_buf_printf(
		    &m, "Content-Type: multipart/mixed; boundary=%0150d\n\n--%0150d\n", i,
		    i);
	bomb("near misses", mw_buf_cstr(&m), "--00000000000000000000000000000000000000\n",
	     "\nneedle", true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(folding),        cmocka_unit_test(header_words),
	    cmocka_unit_test(bodies),         cmocka_unit_test(attachment_names),
	    cmocka_unit_test(both_and_again), cmocka_unit_test(bombs),
	    cmocka_unit_test(near_misses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
