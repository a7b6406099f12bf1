/* select_test.c - SELECTION options, matching, and the mailboxes a mail belongs into. */
#include "journal/base/util.h"
#include "replay/select.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct mw_arena *arena;

static int
setup(void **state)
{
	(void)state;
	arena = mw_arena_new(64U << 20);
	return arena && setenv("TZ", "UTC", 1) == 0 ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	mw_arena_free(arena);
	return 0;
}

/* Parses words as SELECTION: 0, or the first error. */
static int
parse(struct mw_query *q, struct mw_err *err, const char *const *words)
{
	char *argv[32];
	int argc = 0, r = 0;
	for (; words[argc]; argc++)
		argv[argc] = mw_arena_strdup(arena, words[argc]);
	argv[argc] = NULL;
	mw_query_init(q, arena);
	for (int i = 0; i < argc; i++) {
		r = mw_query_option(q, argc, argv, &i, err);
		if (r == 0)
			return mw_fail(err, MW_EUSAGE, "not taken: %s", argv[i]);
		if (r < 0)
			return r;
	}
	return mw_query_check(q, err);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void
options_are_taken(void **state)
{
	(void)state;
	struct mw_query q;
	struct mw_err err = {0};
	assert_int_equal(parse(&q, &err,
	                       WORDS("--since=2026-11-20 08:00", "-U", "@1800000000",
	                             "-ua@b", "--user", "c@d", "--user=e@f", "--larger",
	                             "10K", "--direction=internal")),
	                 0);
	assert_true(q.since_us == INT64_C(1795161600000000));
	assert_true(q.until_us == INT64_C(1800000000000000));
	assert_int_equal(q.n_user, 3);
	assert_string_equal(q.user[0], "a@b");
	assert_string_equal(q.user[2], "e@f");
	assert_int_equal(q.larger, 10240);
	assert_int_equal(q.directions, 1U << MW_DIR_INTERNAL);
	assert_true(q.any_term);
	assert_false(q.all);
}

static void
what_is_repeated_widens(void **state)
{
	(void)state;
	struct mw_query q;
	struct mw_err err = {0};
	struct mw_mail m = {.time_us = INT64_C(1700000000000000), .size = 500};
	const uint8_t id[MW_ID_LEN] = {0};
	assert_int_equal(parse(&q, &err,
	                       WORDS("--direction", "in", "--direction", "internal",
	                             "--since", "@1700000001", "--since", "@1700000000",
	                             "--until", "@1700000009", "--until", "@1700000001",
	                             "--larger", "400", "--larger", "600", "--smaller",
	                             "700", "--smaller", "450")),
	                 0);
	assert_true(mw_query_match(&q, &m, id));
	m.direction = MW_DIR_INTERNAL;
	assert_true(mw_query_match(&q, &m, id));
	m.direction = MW_DIR_OUT;
	assert_false(mw_query_match(&q, &m, id));
	assert_int_equal(parse(&q, &err, WORDS("--since-mark", "a", "--since-mark", "b")),
	                 MW_EUSAGE);
	assert_int_equal(parse(&q, &err, WORDS("--since-mark", "a", "--since-mark", "a")),
	                 0);
}

static void
many_values_are_kept(void **state)
{
	(void)state;
	struct mw_query q;
	struct mw_err err = {0};
	char word[32], *argv[] = {word, NULL};
	mw_query_init(&q, arena);
	for (int n = 0; n < 100; n++) {
		int i = 0;
		(void)snprintf(word, sizeof word, "--queue-id=Q%d", n);
		argv[0] = mw_arena_strdup(arena, word);
		assert_int_equal(mw_query_option(&q, 1, argv, &i, &err), 1);
	}
	assert_int_equal(q.n_queue_id, 100);
	for (size_t n = 0; n < 100; n++) {
		(void)snprintf(word, sizeof word, "Q%zu", n);
		assert_string_equal(q.queue_id[n], word);
	}
}

static void
mistakes_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *words[5], *text;
	} cases[] = {
	    {{"--since", "32-Nov-2026"}, "not a time"},
	    {{"--since", ""}, "not a time"},
	    {{"--since"}, "needs a value"},
	    {{"--until", "yesterday", "--since", "today"}, "not after"},
	    {{"--larger", "lots"}, "not a size"},
	    {{"--larger", "5", "--smaller", "5"}, "nothing is larger"},
	    {{"--direction", "up"}, "none of"},
	    {{"--user", ""}, "not empty"},
	    {{"--overlap", "1h"}, "--since-mark"},
	    {{"--body", " \t"}, "nothing in"},
	    {{"--attachment", ""}, "not empty"},
	    {{"--subject", "\xcc\x81"}, "nothing in"},
	    {{"--all", "--user", "a@b"}, "--all"},
	    {{"--all=yes"}, "takes no value"},
	    {{"--users", "x"}, "not taken"},
	    {{"user"}, "not taken"},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_query q;
		struct mw_err err = {0};
		assert_int_equal(parse(&q, &err, cases[i].words), MW_EUSAGE);
		if (!strstr(err.msg, cases[i].text))
			fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.msg,
			         cases[i].text);
	}
}

static void
extensions_come_off_as_in_postfix(void **state)
{
	(void)state;
	static const struct {
		const char *addr, *delimiter, *base;
	} cases[] = {
	    {"a+b@d", "+", "a@d"},
	    {"a+b+c@d", "+", "a@d"},
	    {"+b@d", "+", "+b@d"},
	    {"a@d", "+", "a@d"},
	    {"a+b@d", "", "a+b@d"},
	    {"a+b", "+", "a"},
	    {"a-b@d", "+-", "a@d"},
	    {"owner-x@d", "-", "owner-x@d"},
	    {"x-request@d", "-", "x-request@d"},
	    {"a@b@d+e", "+", "a@b@d+e"},
	    {"", "+", ""},
	    {"@d", "+", "@d"},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_str s =
		    mw_addr_base(mw_strz(cases[i].addr), cases[i].delimiter, arena);
		if (!mw_str_eq(s, mw_strz(cases[i].base)))
			fail_msg("%s: got %.*s", cases[i].addr, (int)s.n, s.p);
	}
}

static void
mailbox_patterns(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *addr, *name;
	} cases[] = {
	    {"%u", "Alice@Example.ORG", "alice@example.org"},
	    {"%n", "Alice@Example.ORG", "alice"},
	    {"%d/%n", "Alice@Example.ORG", "example.org/alice"},
	    {"%n%%%d", "a@b", "a%b"},
	    {"%x%", "a@b", "%x%"},
	    {"", "a@b", "a@b"},
	    {"%u", "alice", "alice"},
	    /* a domain in any form, which nobody said how to write */
	    {"%u", "k@xn--bcher-kva.example", "k@xn--bcher-kva.example"},
	    {"%u",
	     "K@B\xc3\xbc"
	     "cher.Example",
	     "k@xn--bcher-kva.example"},
	    {"%d/%n",
	     "\"k\"@B"
	     "U\xcc\x88"
	     "CHER.example",
	     "xn--bcher-kva.example/k"},
	    {"%u", "\xc3\x96@XN--bcher-kva.example",
	     "\xc3\xb6@b\xc3\xbc"
	     "cher.example"},
	    {"%u",
	     "\xc3\x96@B\xc3\x9c"
	     "CHER.example",
	     "\xc3\xb6@b\xc3\xbc"
	     "cher.example"},
	    {"%u",
	     "k@stra\xc3\x9f"
	     "e.de",
	     "k@xn--strae-oqa.de"},
	    {"%u", "k@strasse.de", "k@strasse.de"},
	    {"%u", "k@\xef\xbd\x98.de", "k@x.de"},
	    {"%u", "\xc3\xb6@\xef\xbd\x98.de", "\xc3\xb6@x.de"},
	    {"%u", "k@b\xfc.de", "k@b\xfc.de"},
	    {"%u", "\xc3\xb6@xn--ls8h.la", "\xc3\xb6@xn--ls8h.la"},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		char pattern[32];
		(void)snprintf(pattern, sizeof pattern, "%s", cases[i].pattern);
		struct mw_conf conf = {.mailbox_name = pattern};
		assert_string_equal(mw_mailbox_name(&conf, mw_strz(cases[i].addr), arena),
		                    cases[i].name);
	}
}

/* ---- matching ---- */

static struct mw_str expanded[] = {{"team@example.org", 16}, {"bob+list@Other.org", 18}};

static struct mw_rcpt rcpts[] = {
    {.addr = {"Alice+News@Example.org", 22}, .flags = MW_RCPT_LOCAL},
    {.addr = {"no@example.org", 14}, .flags = MW_RCPT_LOCAL | MW_RCPT_REFUSED},
    {.addr = {"far@far.test", 12}},
    {.addr = {"all@example.org", 15},
     .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
     .mailbox = expanded,
     .n_mailbox = 2},
};

static const struct mw_mail mail = {
    .time_us = INT64_C(1795342440000000),
    .queue_id = {"4XabC", 5},
    .message_id = {"<x@y>", 5},
    .from = MW_STR("=?utf-8?Q?M=C3=BCller?= <eve@sender.test>"),
    .subject = {"=?iso-8859-1?Q?=C9T=C9?= in Paris", 32},
    .sender = {"Eve@Sender.test", 15},
    .auth_user = {"Eve", 3},
    .rcpt = rcpts,
    .n_rcpt = 4,
    .size = 1000,
    .direction = MW_DIR_INTERNAL,
};

static void
a_mail_matches(void **state)
{
	(void)state;
	static const struct {
		const char *words[5];
		bool match;
	} cases[] = {
	    {{"--user", "alice@example.org"}, true},
	    {{"--user", "alice+news@example.org"}, true},
	    {{"--user", "alice+other@example.org"}, false},
	    {{"--user", "alice"}, true},
	    {{"--user", "no@example.org"}, false},
	    {{"--user", "far"}, false}, /* not local */
	    {{"--user", "far@far.test"}, true},
	    {{"--user", "team@example.org"}, true},
	    {{"--user", "bob@other.org"}, true},
	    {{"--user", "eve"}, true},             /* the login */
	    {{"--user", "eve@sender.test"}, true}, /* … with the sender's domain */
	    {{"--user", "eve@example.org"}, false},
	    {{"--user", "x@y", "--user", "eve"}, true},
	    {{"--domain", "other.ORG"}, true},
	    {{"--domain", "@sender.test"}, true},
	    {{"--domain", "test"}, false},
	    {{"--sender", "eve@sender.test"}, true},
	    {{"--sender", "<>"}, false},
	    {{"--message-id", "x@y"}, true},
	    {{"--message-id", "X@y"}, false},
	    {{"--queue-id", "4XabC"}, true},
	    {{"--queue-id", "4Xabc"}, false},
	    {{"--subject", "\xc3\xa9t\xc3\xa9 IN"}, true},
	    {{"--subject", "ete"}, true}, /* accents do not matter */
	    {{"--subject", "etee"}, false},
	    {{"--from", "muller"}, true},
	    {{"--from", "EVE@"}, true},
	    {{"--from", "alice"}, false},
	    {{"--direction", "internal"}, true},
	    {{"--direction", "in"}, false},
	    {{"--larger", "999"}, true},
	    {{"--larger", "1000"}, false},
	    {{"--smaller", "1000"}, false},
	    {{"--since", "@1795342440"}, true},
	    {{"--until", "@1795342440"}, false},
	    {{"--user", "alice", "--sender", "other@x"}, false},
	    {{"--all"}, true},
	};
	static const uint8_t id[MW_ID_LEN] = {1};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_query q;
		struct mw_err err = {0};
		assert_int_equal(parse(&q, &err, cases[i].words), 0);
		if (mw_query_match(&q, &mail, id) != cases[i].match)
			fail_msg("%s %s", cases[i].words[0], cases[i].words[1]);
	}
}

/* ---- copies ---- */

static char pattern_u[] = "%u", pattern_n[] = "%n", plus[] = "+", sent[] = "Sent",
            empty[] = "", domain[] = "sender.test";

static bool
has(const struct mw_copy *c, size_t n, const char *mailbox, bool in_sent)
{
	size_t found = 0;
	for (size_t i = 0; i < n; i++)
		found += c[i].sent == in_sent && strcmp(c[i].mailbox, mailbox) == 0;
	return found == 1;
}

static void
copies_of_a_mail(void **state)
{
	(void)state;
	struct mw_conf conf = {.mailbox_name = pattern_u,
	                       .recipient_delimiter = plus,
	                       .sent_folder = sent};
	struct mw_copy *c;
	size_t n;
	assert_int_equal(mw_copies(&conf, &mail, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 4);
	assert_true(has(c, n, "alice@example.org", false));
	assert_true(has(c, n, "team@example.org", false));
	assert_true(has(c, n, "bob@other.org", false));
	assert_true(has(c, n, "eve@sender.test", true));
	conf.mailbox_name = pattern_n;
	conf.sent_folder = empty;
	assert_int_equal(mw_copies(&conf, &mail, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_true(has(c, n, "alice", false));
}

static void
a_login_gets_a_domain(void **state)
{
	(void)state;
	char *domains[] = {domain};
	static char other[] = "example.net";
	char *foreign[] = {other}, *two[] = {other, empty};
	struct mw_conf conf = {.mailbox_name = pattern_u,
	                       .sent_folder = sent,
	                       .local_domains = {domains, 1}};
	struct mw_mail m = {.direction = MW_DIR_OUT,
	                    .auth_user = {"Eve", 3},
	                    .sender = {"eve@SENDER.test", 15}};
	struct mw_copy *c;
	size_t n;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_string_equal(c[0].mailbox, "eve@sender.test");
	struct mw_query q;
	const char *users[] = {"eve@example.net"};
	mw_query_init(&q, arena);
	q.user = users;
	q.n_user = 1;
	mw_query_site(&q, &conf);
	assert_false(mw_query_is_login(&q, &m));
	conf.local_domains = (struct mw_conf_list){foreign, 1};
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_string_equal(c[0].mailbox, "eve@example.net");
	mw_query_site(&q, &conf); /* whose copy it is, finds and erases it */
	assert_true(mw_query_is_login(&q, &m));
	conf.local_domains = (struct mw_conf_list){two, 2};
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_string_equal(c[0].mailbox, "eve");
	m.auth_user = mw_strz("Eve@Login.test");
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_string_equal(c[0].mailbox, "eve@login.test");
	m.direction = MW_DIR_IN;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 0);
}

static void
undecided_falls_back_to_the_recipient(void **state)
{
	(void)state;
	struct mw_conf conf = {.mailbox_name = pattern_u, .recipient_delimiter = plus};
	struct mw_str box[] = {{"wrong@d", 7}};
	struct mw_rcpt r[] = {
	    {.addr = {"a+x@d", 5},
	     .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED | MW_RCPT_UNDECIDED,
	     .mailbox = box,
	     .n_mailbox = 1},
	    {.addr = {"gone@d", 6}, .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED},
	    {.addr = {"b@d", 3}, .flags = MW_RCPT_LOCAL | MW_RCPT_UNDECIDED},
	    {.addr = {"B@D", 3}, .flags = MW_RCPT_LOCAL},
	};
	struct mw_mail m = {.rcpt = r, .n_rcpt = 4};
	struct mw_copy *c;
	size_t n;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(c[0].mailbox, "a@d");
	assert_true(c[0].undecided);
	assert_string_equal(c[1].mailbox, "b@d");
	assert_false(c[1].undecided); /* one decided way in is enough */
}

static void
ten_thousand_recipients(void **state)
{
	(void)state;
	enum {
		MANY = 10000
	};
	struct mw_conf conf = {.mailbox_name = pattern_u, .recipient_delimiter = plus};
	struct mw_rcpt *r = mw_arena_alloc(arena, MANY * sizeof *r);
	assert_non_null(r);
	for (int i = 0; i < MANY; i++) {
		r[i].addr =
		    mw_strz(mw_arena_printf(arena, "user%d+%d@example.org", i % 7000, i));
		r[i].flags = MW_RCPT_LOCAL;
	}
	struct mw_mail m = {.rcpt = r, .n_rcpt = MANY};
	struct mw_copy *c;
	size_t n;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 7000);
	assert_string_equal(c[6999].mailbox, "user6999@example.org");
}

/* One domain in its several forms, and quotes that need not be there. */
static void
one_domain_one_mailbox(void **state)
{
	(void)state;
	static char ours[] = "b\xc3\xbc"
	                     "cher.example",
	            both[] = "xn--bcher-kva.example";
	char *domains[] = {ours, both};
	struct mw_conf conf = {.mailbox_name = pattern_u,
	                       .recipient_delimiter = plus,
	                       .sent_folder = sent,
	                       .local_domains = {domains, 1}};
	struct mw_str box[] = {MW_STR("kurt@XN--bcher-kva.example")};
	struct mw_rcpt r[] = {
	    {.addr = MW_STR("kurt@xn--bcher-kva.example"), .flags = MW_RCPT_LOCAL},
	    {.addr = MW_STR("Kurt@B\xc3\x9c"
	                    "CHER.example"),
	     .flags = MW_RCPT_LOCAL},
	    {.addr = MW_STR("\"kurt\"@xn--bcher-kva.example"), .flags = MW_RCPT_LOCAL},
	    {.addr = MW_STR("\"kurt+x\"@xn--bcher-kva.example"), .flags = MW_RCPT_LOCAL},
	    {.addr = MW_STR("all@xn--bcher-kva.example"),
	     .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	     .mailbox = box,
	     .n_mailbox = 1},
	    {.addr = MW_STR("\"a b\"@xn--bcher-kva.example"), .flags = MW_RCPT_LOCAL},
	};
	static const char *users[] = {"kurt@b\xc3\xbc"
	                              "cher.example",
	                              "kurt@xn--bcher-kva.example"};
	struct mw_mail m = {.rcpt = r,
	                    .n_rcpt = 6,
	                    .direction = MW_DIR_OUT,
	                    .auth_user = MW_STR("kurt"),
	                    .sender = MW_STR("kurt@xn--bcher-kva.example")};
	struct mw_copy *c;
	size_t n;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_true(has(c, n,
	                "kurt@b\xc3\xbc"
	                "cher.example",
	                false));
	assert_true(has(c, n,
	                "kurt@b\xc3\xbc"
	                "cher.example",
	                true));
	assert_true(has(c, n,
	                "a b@b\xc3\xbc"
	                "cher.example",
	                false));
	/* whose it is, finds and erases it */
	for (size_t i = 0; i < 2; i++) {
		struct mw_query q;
		mw_query_init(&q, arena);
		q.user = &users[i];
		q.n_user = 1;
		mw_query_site(&q, &conf);
		assert_true(mw_query_is_login(&q, &m));
		for (size_t k = 0; k < 4; k++)
			assert_true(mw_query_is_user(&q, r[k].addr));
		assert_true(mw_query_is_user(&q, box[0]));
		assert_false(mw_query_is_user(&q, r[5].addr));
	}
	/* where none is named, all are one still */
	conf.local_domains.n = 0;
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_true(has(c, n, "kurt@xn--bcher-kva.example", false));
	assert_true(has(c, n, "kurt@xn--bcher-kva.example", true));
	/* where both are named, each is its own */
	conf.local_domains.n = 2;
	m.auth_user = mw_str("", 0);
	assert_int_equal(mw_copies(&conf, &m, arena, &c, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_true(has(c, n, "kurt@xn--bcher-kva.example", false));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(options_are_taken),
	    cmocka_unit_test(what_is_repeated_widens),
	    cmocka_unit_test(many_values_are_kept),
	    cmocka_unit_test(mistakes_are_named),
	    cmocka_unit_test(extensions_come_off_as_in_postfix),
	    cmocka_unit_test(mailbox_patterns),
	    cmocka_unit_test(a_mail_matches),
	    cmocka_unit_test(copies_of_a_mail),
	    cmocka_unit_test(a_login_gets_a_domain),
	    cmocka_unit_test(undecided_falls_back_to_the_recipient),
	    cmocka_unit_test(ten_thousand_recipients),
	    cmocka_unit_test(one_domain_one_mailbox),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
