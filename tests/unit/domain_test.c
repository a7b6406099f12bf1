/* Names of one domain: case, A-labels, and what is no name. */
#include "journal/base/domain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names),
	    cmocka_unit_test(lists),
	    cmocka_unit_test(forms),
	};
	return cmocka_run_group_tests_name("names of a domain", tests, NULL, NULL);
}
