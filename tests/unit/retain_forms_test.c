/* Holds and rules know an address in each of its forms: an internationalized domain by
 * its letters or as xn--, a local part with quotes around it or without. */
#include "journal/retain/retain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/retain_cli.h"

#define B_LETTERS                                                                        \
	"b\xc3\xbc"                                                                      \
	"cher.example"
#define B_UPPER                                                                          \
	"B\xc3\x9c"                                                                      \
	"CHER.Example"
#define B_ACE "xn--bcher-kva.example"

static const char *const same[] = {
    "kurt@" B_LETTERS,       "kurt@" B_ACE,         "Kurt@XN--Bcher-kva.example",
    "\"kurt\"@" B_ACE,       "\"Kurt\"@" B_LETTERS, "kurt+x@" B_ACE,
    "\"kurt+x\"@" B_LETTERS,
};
static const char *const asked[] = {
    "kurt@" B_LETTERS,     "kurt@" B_UPPER, "kurt@" B_ACE, "KURT@XN--BCHER-KVA.example",
    "\"kurt\"@" B_LETTERS,
};
static const char *const others[] = {"kurt@bucher.example", "kurti@" B_ACE,
                                     "\"a kurt\"@" B_LETTERS};

static struct mw_store *
fresh(struct fake *f)
{
	struct mw_err err = {0};
	char cmd[600];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	f->now = now_us - 40 * DAY;
	return writer(f, NULL);
}

static void
note(struct mw_store *st, const struct mw_hold *h)
{
	struct mw_err err = {0};
	MW_BUF_AUTO b = {0};
	assert_int_equal(mw_hold_encode(h, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_HOLD, 3, b.p, b.n, NULL, &err), 0);
}

/* Of the mails in the journal, those that a hold or a rule is for. */
static unsigned
count(const struct mw_conf *conf_, bool ruled)
{
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	struct mw_store *st = opened(&o);
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *l = NULL;
	struct mw_err err = {0};
	unsigned n = 0;
	assert_int_equal(mw_rules_new(st, conf_, &rules, &err), 0);
	assert_int_equal(mw_holds_load(st, &holds, &err), 0);
	assert_int_equal(mw_retain_gather(st, rules, holds, NULL, &l, &err), 0);
	for (size_t i = 0; i < l->n; i++)
		if (l->rec[i].type == MW_TYPE_MAIL)
			n += ruled ? l->rec[i].ruled : l->rec[i].held;
	mw_retain_free(l);
	mw_holds_free(holds);
	mw_rules_free(rules);
	mw_store_close(st);
	return n;
}

enum what {
	USER,
	DOMAIN,
	SENDER
};

/* One mail for each address, to it or from it. */
static struct mw_store *
filled(struct fake *f, enum what what)
{
	struct mw_store *st = fresh(f);
	for (size_t i = 0; i < MW_COUNT(same) + MW_COUNT(others); i++) {
		const char *who =
		    i < MW_COUNT(same) ? same[i] : others[i - MW_COUNT(same)];
		struct mail m = {"4Xq", "s@far.test", {"r@far.test"}, NULL, MW_DIR_IN};
		if (what == SENDER)
			m.sender = who;
		else
			m.rcpt[0] = who;
		put(st, &m, f->now);
	}
	return st;
}

static void
holds(void **state)
{
	(void)state;
	static const struct mw_conf none;
	for (int what = USER; what <= SENDER; what++) {
		for (size_t i = 0; i < MW_COUNT(asked); i++) {
			struct mw_str v = mw_strz(asked[i]);
			struct mw_hold h = {.name = MW_STR("h"),
			                    .since_us = INT64_MIN,
			                    .until_us = INT64_MAX,
			                    .direction = -1};
			/* an extension counts with a recipient only */
			unsigned expect = what == SENDER ? 5 : 7;
			if (what == DOMAIN) {
				v = mw_addr_domain(v);
				h.domain = &v;
				h.n_domain = 1;
				expect = 9; /* and the two others of that domain */
			} else if (what == USER) {
				h.user = &v;
				h.n_user = 1;
			} else {
				h.sender = &v;
				h.n_sender = 1;
			}
			struct fake f;
			struct mw_store *st = filled(&f, (enum what)what);
			note(st, &h);
			mw_store_close(st);
			unsigned n = count(&none, false);
			if (n != expect)
				fail_msg("hold %.*s (%d): %u", (int)v.n, v.p, what, n);
		}
	}
}

static void
logins(void **state)
{
	(void)state;
	static const struct mw_conf none;
	struct mw_str v = MW_STR("\"kurt\"@" B_LETTERS);
	struct mw_hold h = {.name = MW_STR("h"),
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1,
	                    .user = &v,
	                    .n_user = 1};
	static const char *const login[] = {"kurt", "kurt@" B_ACE, "kurti"};
	struct fake f;
	struct mw_store *st = fresh(&f);
	for (size_t i = 0; i < MW_COUNT(login); i++) {
		struct mail m = {
		    "4Xq", "s@far.test", {"r@far.test"}, login[i], MW_DIR_OUT};
		put(st, &m, f.now);
	}
	note(st, &h);
	mw_store_close(st);
	assert_int_equal(count(&none, false), 2);
}

static void
rules(void **state)
{
	(void)state;
	static const char *const word[] = {"rcpt:", "domain:", "sender:"};
	for (int what = USER; what <= SENDER; what++) {
		struct fake f;
		mw_store_close(filled(&f, (enum what)what));
		for (size_t i = 0; i < MW_COUNT(asked); i++) {
			char text[200], *terms[] = {text};
			struct mw_str v = mw_strz(asked[i]);
			if (what == DOMAIN)
				v = mw_addr_domain(v);
			(void)snprintf(text, sizeof text, "%s%.*s", word[what], (int)v.n,
			               v.p);
			struct mw_conf_retain rule = {.match = {terms, 1}};
			struct mw_conf c = {.retain = &rule, .n_retain = 1};
			unsigned n = count(&c, true);
			if (n != (what == USER ? 7U : what == DOMAIN ? 9U : 5U))
				fail_msg("%s: %u", text, n);
		}
	}
}

/* Two forms of one domain in one mail: all its recipients have the rule. */
static void
both_forms_in_one(void **state)
{
	(void)state;
	static const struct mail kinds[] = {
	    {"A", "s@far.test", {"a@" B_ACE, "b@" B_LETTERS}, NULL, MW_DIR_IN},
	    {"B",
	     "s@far.test",
	     {"a@" B_ACE, "b@" B_LETTERS, "x@far.test"},
	     NULL,
	     MW_DIR_IN},
	    {"C", "s@far.test", {"a@" B_ACE, "x@far.test"}, NULL, MW_DIR_IN},
	};
	char text[] = "domain:" B_LETTERS, *terms[] = {text};
	struct mw_conf_retain rule = {.match = {terms, 1}};
	struct mw_conf c = {.retain = &rule, .n_retain = 1};
	struct fake f;
	struct mw_store *st = fresh(&f);
	for (size_t i = 0; i < MW_COUNT(kinds); i++)
		put(st, &kinds[i], f.now);
	mw_store_close(st);
	assert_int_equal(count(&c, true), 1);
}

/* What a hold covers, neither erase nor prune takes, in whatever form it came. */
static void
through_the_program(void **state)
{
	(void)state;
	struct fake f;
	struct mw_store *st = filled(&f, USER);
	for (int d = 39; d > 0; d--) { /* mail tells the days */
		const struct mail m = {
		    "4Xd", "s@far.test", {"x@example.org"}, NULL, MW_DIR_IN};
		f.now = now_us - d * DAY;
		put(st, &m, f.now);
	}
	mw_store_close(st);
	write_conf("recipient_delimiter = +\nretain all { keep = 20d }\n");
	want(0, "hold add case --user kurt@" B_LETTERS);
	want(77, "erase --user kurt@" B_LETTERS " --yes");
	assert_true(says("7 messages are under hold (case)"));
	want(77, "erase --user kurt@" B_ACE " --yes");
	want(77, "erase --user '\"kurt\"@" B_ACE "' --yes");
	want(0, "list --all --no-header -o tsv");
	assert_true(says("kurt@") && says("kurti@") && says("bucher"));
	want(0, "prune --yes --json");
	assert_true(says("\"held\":7,"));
	assert_int_equal(lines("list --user kurt@" B_ACE " --no-header -o tsv"), 7);
	want(0, "list --all --no-header -o tsv");
	assert_true(says("kurt@") && !says("kurti@") && !says("bucher"));
	want(0, "hold rm case");
	want(0, "erase --user kurt@" B_ACE " --yes --json");
	assert_true(says("\"erased\":7"));
	want(0, "verify");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(holds),
	    cmocka_unit_test(logins),
	    cmocka_unit_test(rules),
	    cmocka_unit_test(both_forms_in_one),
	    cmocka_unit_test(through_the_program),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
