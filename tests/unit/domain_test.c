/* Names of one domain: case, A-labels, and what is no name. */
#include "journal/base/domain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define STRASZE                                                                          \
	"stra\xc3\x9f"                                                                   \
	"e"
#define LONG "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void
names(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
	    {"example.org", "EXAMPLE.org", true},
	    {"example.org", "example.net", false},
	    {"", "", true},
	    {"", "b\xc3\xbc", false},
	    {"b\xc3\xbc"
	     "cher.example",
	     "B\xc3\x9c"
	     "CHER.Example",
	     true},
	    {"b\xc3\xbc"
	     "cher.example",
	     "xn--bcher-kva.example", true},
	    {"B\xc3\x9c"
	     "CHER.example",
	     "XN--BCHER-KVA.EXAMPLE", true},
	    {"b\xc3\xbc"
	     "cher.example",
	     "xn--bcher-kva.example.org", false},
	    {"b\xc3\xbc"
	     "cher.example",
	     "bucher.example", false},
	    {"stra\xc3\x9f"
	     "e.de",
	     "xn--strae-oqa.de", true},
	    /* two domains (IDNA 2008), and what upper case makes of them */
	    {STRASZE ".de", "strasse.de", false},
	    {STRASZE ".de", "STRASSE.de", false},
	    {"strasse.de", "xn--strae-oqa.de", false},
	    {"STRA\xe1\xba\x9e"
	     "E.de",
	     STRASZE ".de", true},
	    {"STRA\xe1\xba\x9e"
	     "E.de",
	     "strasse.de", false},
	    {"\xce\xb1\xcf\x82.gr", "\xce\xb1\xcf\x83.gr", false},
	    {"\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d\xe0\xa4\xb7.in",
	     "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa4\xb7.in", false},
	    /* no A-labels of anything, or of what has no need of them */
	    {"xn--strasse-.de", "strasse.de", false},
	    {"xn--.de", ".de", false},
	    /* maps to a name that no host has */
	    {"a\xe2\x84\x80.de", "aa/c.de", false},
	    {"\xef\xbc\xa0.de", "@.de", false},
	    /* of each label */
	    {"mail.\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88",
	     "mail.xn--r8jz45g.xn--zckzah", true},
	    {"\xd0\x9f\xd0\xa0\xd0\x90\xd0\x92\xd0\x94\xd0\x90.\xd1\x80\xd1\x84",
	     "xn--80aafi6cg.xn--p1ai", true},
	    /* with the accent as a letter of its own */
	    {"b"
	     "u\xcc\x88"
	     "cher.example",
	     "xn--bcher-kva.example", true},
	    /* no letters of a name (IDNA 2008 has none of them), so only themselves */
	    {"\xf0\x9f\x92\xa9.la", "\xf0\x9f\x92\xa9.LA", true},
	    {"\xf0\x9f\x92\xa9.la", "xn--ls8h.la", false},
	    /* all of it other than ASCII, and a hyphen in front of the code */
	    {"\xc3\xbc", "xn--tda", true},
	    {"a-\xc3\xbc", "xn--a--yka", true},
	    /* no names, so only the same bytes are the same */
	    {"b\xc3", "b\xc3", true},
	    {"b\xc3", "xn--b-cja", false},
	    {"b\xfc"
	     "cher.example",
	     "xn--bcher-kva.example", false},
	    {LONG "\xc3\xbc.de", LONG "\xc3\x9c.de", false},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mw_str a = mw_strz(cases[i].a), b = mw_strz(cases[i].b);
		if (mw_domain_eq(a, b) != cases[i].same ||
		    mw_domain_eq(b, a) != cases[i].same)
			fail_msg("%s, %s", cases[i].a, cases[i].b);
	}
}

static void
lists(void **state)
{
	char one[] = "b\xc3\xbc"
	             "cher.example",
	     two[] = "xn--bcher-kva.example", org[] = "example.org";
	char *v[] = {org, one, two};
	(void)state;
	/* the one that is written so, else the first that it is */
	assert_ptr_equal(mw_domain_of(v, 3, mw_strz("XN--bcher-kva.example")), two);
	assert_ptr_equal(mw_domain_of(v, 3,
	                              mw_strz("B\xc3\x9c"
	                                      "CHER.example")),
	                 one);
	assert_ptr_equal(mw_domain_of(v, 2, mw_strz(two)), one);
	assert_ptr_equal(mw_domain_of(v, 1, mw_strz("Example.Org")), org);
	assert_null(mw_domain_of(v, 1, mw_strz(two)));
	assert_null(mw_domain_of(NULL, 0, mw_strz(two)));
	assert_true(mw_domain_has_forms(mw_strz("mail.Xn--tda.de")));
	assert_false(mw_domain_has_forms(mw_strz("mail.example.de")));
}

static void
forms(void **state)
{
	static const struct {
		const char *addr, *form[MW_ADDR_FORMS + 1];
	} cases[] = {
	    {"K@Example.org", {"K@Example.org", "\"K\"@Example.org", "\"K@Example.org"}},
	    {"\"k\"@x.de", {"k@x.de", "\"k\"@x.de", "\"k@x.de"}},
	    {"k", {"k", "\"k\"", "\"k"}},
	    {"\"a\\ b\"@x.de", {"\"a\\ b\"@x.de"}},
	    {"\"a@b\"@x.de", {"a@b@x.de", "\"a@b\"@x.de", "\"a@b@x.de"}},
	    {"@x.de", {"@x.de"}},
	    {"", {""}},
	    {"\"a\\b\"@\xc3\xbc.de", {"\"a\\b\"@\xc3\xbc.de", "\"a\\b\"@xn--tda.de"}},
	    {"@XN--TDA.de", {"@XN--TDA.de", "@\xc3\xbc.de"}},
	    {"@\xc3\x9c.DE", {"@\xc3\x9c.DE", "@xn--tda.de", "@\xc3\xbc.de"}},
	    {"@u\xcc\x88.de", {"@u\xcc\x88.de", "@xn--tda.de", "@\xc3\xbc.de"}},
	    /* no names: as they stand */
	    {"@b\xfc.de", {"@b\xfc.de"}},
	    {"@xn--ls8h.la", {"@xn--ls8h.la"}},
	    {"@" LONG "\xc3\xbc.de", {"@" LONG "\xc3\xbc.de"}},
	    {"k@\xc3\xbc.de",
	     {"k@\xc3\xbc.de", "\"k\"@\xc3\xbc.de", "\"k@\xc3\xbc.de", "k@xn--tda.de",
	      "\"k\"@xn--tda.de", "\"k@xn--tda.de"}},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_str v[MW_ADDR_FORMS];
		int n = mw_addr_forms(mw_strz(cases[i].addr), a, v), k = 0;
		for (; k < n && cases[i].form[k]; k++)
			if (!mw_str_eq(v[k], mw_strz(cases[i].form[k])))
				fail_msg("%s: %.*s", cases[i].addr, (int)v[k].n, v[k].p);
		if (k != n || cases[i].form[k])
			fail_msg("%s: %d forms", cases[i].addr, n);
	}
	MW_ARENA_AUTO *small = mw_arena_new(1);
	struct mw_str v[MW_ADDR_FORMS];
	assert_int_equal(mw_domain_forms(MW_STR("\xc3\xbc.de"), small, v), MW_ENOMEM);
	assert_int_equal(mw_addr_forms(MW_STR("k@x.de"), small, v), MW_ENOMEM);
	assert_int_equal(mw_addr_forms(MW_STR("k@\xc3\xbc.de"), small, v), MW_ENOMEM);
}

/* ---- keys of addresses ---- */

static void
one_key(const char *addr, const char *expect)
{
	MW_BUF_AUTO b = {0};
	MW_BUF_AUTO again = {0};
	struct mw_str key = mw_addr_key(mw_strz(addr), &b);
	assert_false(b.failed);
	if (!mw_str_ieq(key, mw_strz(expect)))
		fail_msg("%s: %.*s", addr, (int)key.n, key.p);
	struct mw_str twice = mw_addr_key(key, &again);
	if (!mw_str_ieq(twice, key))
		fail_msg("%s: again %.*s", addr, (int)twice.n, twice.p);
}

static void
keys(void **state)
{
	static const struct {
		const char *addr, *key;
	} cases[] = {
	    {"", ""},
	    {"kurt", "kurt"},
	    {"Kurt@Example.org", "kurt@example.org"},
	    {"\"Kurt\"@Example.org", "kurt@example.org"},
	    {"\"ku\\rt\"@example.org", "kurt@example.org"},
	    {"\"a b\"@x.de", "a b@x.de"},
	    {"\"a@b\"@x.de", "a@b@x.de"},
	    {"\"a\\@b\"@x.de", "a@b@x.de"},
	    {"\"a\\\\b\"@x.de", "a\\b@x.de"},
	    /* no quoted strings */
	    {"\"a\"b\"@x.de", "\"a\"b\"@x.de"},
	    {"\"ab\\\"@x.de", "\"ab\\\"@x.de"},
	    {"\"@x.de", "\"@x.de"},
	    {"\"\"@x.de", "\"\"@x.de"},
	    {"\"kurt@x.de", "\"kurt@x.de"},
	    /* letters of any script, composed or not */
	    {"J\xc3\x96RG@x.de", "j\xc3\xb6rg@x.de"},
	    {"jo\xcc\x88rg@x.de", "j\xc3\xb6rg@x.de"},
	    {"\"JO\xcc\x88RG\"@X.de", "j\xc3\xb6rg@x.de"},
	    {"stra\xc3\x9f"
	     "e@x.de",
	     "strasse@x.de"},
	    {"\xe2\x84\xaaurt@x.de", "kurt@x.de"},
	    {"\xce\xa3\xce\x91\xce\xa3@x.de", "\xcf\x83\xce\xb1\xcf\x83@x.de"},
	    {"\xcf\x83\xce\xb1\xcf\x82@x.de", "\xcf\x83\xce\xb1\xcf\x83@x.de"},
	    /* no UTF-8: its bytes */
	    {"J\xd6RG@x.de", "j\xd6rg@x.de"},
	    {"J\xc3@X.de", "j\xc3@x.de"},
	    /* domains */
	    {"k@B\xc3\x9c"
	     "CHER.example",
	     "k@xn--bcher-kva.example"},
	    {"K@XN--BCHER-KVA.Example", "k@xn--bcher-kva.example"},
	    {"k@\xef\xbd\x98\xef\xbc\x8e"
	     "de",
	     "k@x.de"},
	    {"k@b\xfc.de", "k@b\xfc.de"},
	    {"k@xn--ls8h.la", "k@xn--ls8h.la"},
	    {"J\xc3\x96RG@b\xfc.de", "j\xc3\xb6rg@b\xfc.de"},
	    {"@", "@"},
	    {"\xc3\x96@", "\xc3\xb6@"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		one_key(cases[i].addr, cases[i].key);
		for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
			/* what is one has one key; not the other way round (persons()) */
			if ((mw_addr_eq(mw_strz(cases[i].addr), mw_strz(cases[k].addr)) &&
			     strcmp(cases[i].key, cases[k].key) != 0) ||
			    (i == k &&
			     !mw_addr_eq(mw_strz(cases[i].addr), mw_strz(cases[k].addr))))
				fail_msg("%s, %s", cases[i].addr, cases[k].addr);
	}
	assert_true(mw_domain_eq(mw_strz("x.de"), mw_strz("\xef\xbd\x98.de")));
	char x[] = "x.de", *v[] = {x};
	assert_ptr_equal(mw_domain_of(v, 1, mw_strz("\xef\xbd\x98.de")), x);
}

/* Who is one person, and who are two that only a key has in common. */
static void
persons(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
	    {"Kurt@Example.org", "\"ku\\rt\"@example.ORG", true},
	    {"\"a@b\"@x.de", "\"a\\@b\"@x.de", true},
	    {"J\xc3\x96RG@x.de", "jo\xcc\x88rg@x.de", true},
	    {"\"JO\xcc\x88RG\"@x.de", "j\xc3\xb6rg@x.de", true},
	    {"\xe2\x84\xaaurt@x.de", "kurt@x.de", true},
	    {"j\xc3\xb6rg@x.de", "jorg@x.de", false},
	    {STRASZE "@x.de", "strasse@x.de", false},
	    {STRASZE "@x.de", "STRASSE@x.de", false},
	    {"STRA\xe1\xba\x9e"
	     "E@x.de",
	     STRASZE "@x.de", true},
	    {"a@" STRASZE ".de", "a@strasse.de", false},
	    {"a@" STRASZE ".de", "A@XN--STRAE-OQA.de", true},
	    {"\xce\xa3\xce\x91\xce\xa3@x.de", "\xcf\x83\xce\xb1\xcf\x82@x.de", true},
	    {"\xcf\x83\xce\xb1\xcf\x83@x.de", "\xcf\x83\xce\xb1\xcf\x82@x.de", false},
	    {"\xef\xac\x81nn@x.de", "finn@x.de", false},
	    {"\xc5\xbf"
	     "am@x.de",
	     "sam@x.de", false},
	    {"\xef\xbd\x8burt@x.de", "kurt@x.de", false},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mw_str a = mw_strz(cases[i].a), b = mw_strz(cases[i].b);
		if (mw_addr_eq(a, b) != cases[i].same ||
		    mw_addr_eq(b, a) != cases[i].same)
			fail_msg("%s, %s", cases[i].a, cases[i].b);
	}
}

/* Of a plain name, where each mail passes, nothing is made. */
static void
plain(void **state)
{
	(void)state;
	MW_BUF_AUTO b = {0};
	struct mw_str a = MW_STR("Kurt+x@Example.org"), d = MW_STR("Example.org");
	assert_ptr_equal(mw_addr_key(a, &b).p, a.p);
	assert_ptr_equal(mw_domain_key(d, &b).p, d.p);
	assert_ptr_equal(mw_local_key(d, &b).p, d.p);
	assert_null(b.p);
	struct mw_str bare = mw_addr_bare(a, "+", &b);
	assert_true(mw_str_eq(bare, MW_STR("Kurt@Example.org")));
	MW_BUF_AUTO none = {0};
	assert_int_equal(mw_addr_bare(a, "", &none).n, 0);
	assert_int_equal(mw_addr_bare(a, NULL, &none).n, 0);
	assert_int_equal(mw_addr_bare(MW_STR("+k@x.de"), "+", &none).n, 0);
	assert_int_equal(mw_addr_bare(MW_STR(""), "+", &none).n, 0);
	assert_false(none.failed);
}

/* A megabyte of each costs little, and is its own key, with ASCII folded. */
static void
huge(void **state)
{
	static const char *const part[] = {"\xc3\x9c", "A\xcc\x88", "\xff",
	                                   "xn--",     "\"",        "\\",
	                                   "\"\\a",    "\xcc\x88",  "\xef\xbc\x8e"};
	enum {
		SIZE = 1 << 20
	};
	(void)state;
	for (size_t i = 0; i < 2 * (sizeof part / sizeof *part); i++) {
		const char *p = part[i / 2];
		MW_BUF_AUTO in = {0};
		MW_BUF_AUTO b = {0};
		MW_BUF_AUTO twice = {0};
		if (i % 2)
			mw_buf_puts(&in, "k@");
		while (in.n < SIZE)
			mw_buf_puts(&in, p);
		if (i % 2 == 0)
			mw_buf_puts(&in, "@x.de");
		clock_t began = clock();
		struct mw_str key = mw_addr_key(mw_buf_str(&in), &b);
		assert_true(clock() - began < 20 * CLOCKS_PER_SEC);
		assert_false(b.failed);
		assert_true(key.n > SIZE / 3);
		key = mw_addr_key(key, &twice);
		assert_true(mw_addr_eq(mw_buf_str(&in), key));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names), cmocka_unit_test(lists),   cmocka_unit_test(forms),
	    cmocka_unit_test(keys),  cmocka_unit_test(persons), cmocka_unit_test(plain),
	    cmocka_unit_test(huge),
	};
	return cmocka_run_group_tests_name("names of a domain", tests, NULL, NULL);
}
