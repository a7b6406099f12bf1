/* One person in every form that mail can have him: what is held, ruled, selected,
 * recovered or erased in one form is so in each (P10, P11; FORMAT.md I23), in a journal
 * with keys and in one without. */
#include "journal/base/domain.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/record/retire.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/retain_cli.h"

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

/* jürgen@bücher.example */
#define ACE "xn--bcher-kva.example"
#define LOCAL                                                                            \
	"j\xc3\xbc"                                                                      \
	"rgen"
#define DOMAIN                                                                           \
	"b\xc3\xbc"                                                                      \
	"cher.example"
/* in upper case, with dots of their own, in full width */
#define LOCAL_UPPER                                                                      \
	"J\xc3\x9c"                                                                      \
	"RGEN"
#define DOMAIN_UPPER                                                                     \
	"B\xc3\x9c"                                                                      \
	"CHER.Example"
#define LOCAL_APART                                                                      \
	"ju\xcc\x88"                                                                     \
	"rgen"
#define DOMAIN_APART                                                                     \
	"b"                                                                              \
	"u\xcc\x88"                                                                      \
	"cher.example"
#define DOMAIN_WIDE                                                                      \
	"\xef\xbd\x82\xc3\xbc"                                                           \
	"cher\xef\xbc\x8e"                                                               \
	"example"

static const char *const same[] = {
    LOCAL "@" DOMAIN,
    LOCAL_UPPER "@" DOMAIN_UPPER,
    LOCAL_APART "@" DOMAIN_APART,
    "JU\xcc\x88RGEN@" DOMAIN_WIDE,
    LOCAL "@" ACE,
    LOCAL_UPPER "@XN--BCHER-KVA.Example",
    "\"" LOCAL_APART "\"@" ACE,
    "\"" LOCAL "\"@" DOMAIN_UPPER,
    "\"j\xc3\xbcr\\gen\"@" DOMAIN_APART,
};
/* and these only as a recipient, who has them without it too */
static const char *const extended[] = {
    LOCAL_UPPER "+x@" DOMAIN_WIDE,
    "\"" LOCAL_APART "+y\"@" DOMAIN_UPPER,
};
static const char *const others[] = {
    "jurgen@" DOMAIN,
    LOCAL "@bucher.example",
    LOCAL "s@" ACE,
    "\"" LOCAL " \"@" DOMAIN,
};

enum {
	SAME = MW_COUNT(same),
	ALL = MW_COUNT(same) + MW_COUNT(extended),
	OF_DOMAIN = ALL + 3
};

static uint8_t pk[MW_KEY_LEN];
static char key[300], with_key[320];

/* With a key file for the program, or without keys. */
static void
choose_keys(bool keys)
{
	char cmd[700];
	struct mw_err err = {0};
	(void)snprintf(key, sizeof key, "%s/key", root);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s' '%s' '%s.pub'", journal, key, key);
	assert_int_equal(system(cmd), 0);
	with_key[0] = '\0';
	if (keys && mw_keyring_new(key, MW_STR(""), pk, &err) < 0)
		fail_msg("%s", err.msg);
	if (keys)
		(void)snprintf(with_key, sizeof with_key, "--key '%s'", key);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
}

static void
put_to(struct mw_store *st, const char *to, const char *more, const char *from,
       const char *login, int64_t when)
{
	static unsigned number;
	char text[100], qid[20];
	(void)snprintf(qid, sizeof qid, "4X%u", ++number);
	(void)snprintf(text, sizeof text, "Message-ID: <%s@far.test>\r\n\r\n%s\r\n", qid,
	               qid);
	struct mw_rcpt r[2] = {{.addr = mw_strz(to), .flags = MW_RCPT_LOCAL},
	                       {.addr = mw_strz(more), .flags = MW_RCPT_LOCAL}};
	struct mw_mail m = {.time_us = when,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .auth_user = mw_strz(login),
	                    .direction = *login ? MW_DIR_OUT : MW_DIR_IN,
	                    .rcpt = r,
	                    .n_rcpt = *more ? 2 : 1};
	(void)journaled(st, &m, text, strlen(text), NULL);
}

/* Mail to each form, from each, by each as a login, and of the others; 40 days old. Then
 * mail that tells the days. shared: each is somebody else's, too. */
static void
fill(bool keys, bool shared)
{
	struct fake f = {.now = now_us - 40 * DAY};
	const char *more = shared ? "anna@bucher.example" : "";
	choose_keys(keys);
	struct mw_store *st = writer(&f, keys ? pk : NULL);
	for (size_t i = 0; i < ALL; i++)
		put_to(st, i < SAME ? same[i] : extended[i - SAME], more, "s@far.test",
		       "", f.now);
	for (size_t i = 0; i < MW_COUNT(others); i++)
		put_to(st, others[i], more, "s@far.test", "", f.now);
	for (int d = 39; d > 0; d--) {
		f.now = now_us - d * DAY;
		put_to(st, "x@example.org", "", "y@far.test", "", f.now);
	}
	mw_store_close(st);
	write_conf("local_domains = bucher.example " ACE "\nrecipient_delimiter = +\n");
}

static unsigned
number_of(const char *name)
{
	char want_name[40];
	unsigned n = 0;
	(void)snprintf(want_name, sizeof want_name, "\"%s\":", name);
	const char *p = strstr(out, want_name);
	if (p)
		p += strlen(want_name);
	if (!p || sscanf(p, " %u", &n) != 1)
		fail_msg("no %s in: %s", name, out);
	return n;
}

static void
says_number(const char *what, const char *form, unsigned n, unsigned expect)
{
	if (n != expect)
		fail_msg("%s %s: %u, not %u:\n%s", what, form, n, expect, out);
}

static unsigned
count_lines(void)
{
	unsigned n = 0;
	for (const char *p = out; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static void
run_ok(int expect, const char *fmt, const char *a, const char *b)
{
	char args[900];
	(void)snprintf(args, sizeof args, fmt, a, b); /* NOLINT */
	want(expect, args);
}

static struct mw_str
domain_of(const char *addr)
{
	return mw_addr_domain(mw_strz(addr));
}

/* Nothing is changed by these. */
static void
ask_in_each_form(bool keys)
{
	fill(keys, false);
	for (size_t i = 0; i < SAME; i++) {
		const char *f = same[i];
		run_ok(0, "%s list --user '%s' --no-header -o tsv", with_key, f);
		unsigned n = count_lines();
		says_number("list --user", f, n, ALL);
		run_ok(0, "%s list --domain '%s' --json", with_key, domain_of(f).p);
		n = count_lines();
		says_number("list --domain", f, n, OF_DOMAIN);
		run_ok(0, "%s recover --user '%s' --all --to eml:/none -n --json",
		       with_key, f);
		says_number("recover", f, number_of("selected"), ALL);
		run_ok(0, "%s erase --user '%s' -n --json", with_key, f);
		says_number("erase", f, number_of("erased"), ALL);
	}
}

static void
selections(void **state)
{
	(void)state;
	ask_in_each_form(false);
	ask_in_each_form(true);
}

/* A hold needs no key: prune has none in either journal. */
static void
hold_in_each_form(bool keys)
{
	fill(keys, false);
	for (size_t i = 0; i < SAME; i++) {
		char text[300];
		run_ok(0, "%s hold add h --user '%s'", "", same[i]);
		write_conf("local_domains = bucher.example " ACE
		           "\nrecipient_delimiter = +\nretain all { keep = 20d }\n");
		run_ok(0, "%s prune %s --json", "", "-n");
		says_number("hold", same[i], number_of("held"), ALL);
		run_ok(77, "%s erase --user '%s' --yes", with_key, same[(i + 3) % SAME]);
		(void)snprintf(text, sizeof text, "%u messages are under hold", ALL);
		assert_true(says(text));
		run_ok(0, "%s hold rm h%s", "", "");
		run_ok(0, "%s hold add h --domain '%s'", "", domain_of(same[i]).p);
		run_ok(0, "%s prune %s --json", "", "-n");
		says_number("hold of domain", same[i], number_of("held"), OF_DOMAIN);
		run_ok(0, "%s hold rm h%s", "", "");
	}
	/* and one that was pruned under it */
	run_ok(0, "%s hold add h --user '%s'", "", same[3]);
	run_ok(0, "%s prune %s --json", "", "--yes");
	run_ok(0, "%s list --user '%s' --no-header -o tsv", with_key, same[1]);
	unsigned n = count_lines();
	says_number("pruned under hold", same[1], n, ALL);
	run_ok(0, "%s verify%s", with_key, "");
}

static void
holds(void **state)
{
	(void)state;
	hold_in_each_form(false);
	hold_in_each_form(true);
}

/* A rule, by address and by domain; what it has expires first. */
static void
rule_in_each_form(bool keys)
{
	fill(keys, false);
	for (size_t i = 0; i < 2 * SAME; i++) {
		const char *f = same[i % SAME];
		char text[600];
		if (i < SAME)
			(void)snprintf(text, sizeof text,
			               "local_domains = " ACE
			               "\nrecipient_delimiter = +\n"
			               "retain r { match = rcpt:%s\nkeep = 5d }\n",
			               f);
		else
			(void)snprintf(text, sizeof text,
			               "local_domains = " ACE
			               "\nrecipient_delimiter = +\n"
			               "retain r { match = domain:%s\nkeep = 5d }\n",
			               domain_of(f).p);
		if (strchr(text, '\\'))
			continue; /* means something else there */
		write_conf(text);
		run_ok(0, "%s prune %s --json", "", "-n");
		says_number("rule", text, number_of("remove"),
		            i < SAME ? ALL : OF_DOMAIN);
	}
}

static void
rules(void **state)
{
	(void)state;
	rule_in_each_form(false);
	rule_in_each_form(true);
}

static const uint8_t *sought;
static bool found;

static int
search_file(const char *path, const struct stat *sb, int flag, struct FTW *w)
{
	(void)w;
	if (flag != FTW_F || sb->st_size == 0)
		return 0;
	size_t n = (size_t)sb->st_size;
	MW_AUTOFREE char *p = malloc(n);
	FILE *f = fopen(path, "re");
	assert_non_null(p);
	assert_non_null(f);
	n = fread(p, 1, n, f);
	(void)fclose(f);
	found = found || memmem(p, n, sought, 8) != NULL;
	return 0;
}

/* Does a file of the journal have these 8 bytes? */
static bool
file_has(const uint8_t *token)
{
	sought = token;
	found = false;
	assert_int_equal(nftw(journal, search_file, 16, FTW_PHYS), 0);
	return found;
}

/* Of mail that another one keeps he goes with every token that he had. */
static void
cut_in_each_form(bool keys)
{
	fill(keys, true);
	static const char *const had[] = {"j\xc3\xbcrgen@" ACE, "j\xc3\xbcrgen+x@" ACE,
	                                  "j\xc3\xbcrgen+y@" ACE};
	uint8_t token[MW_COUNT(had)][8], anna[8];
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	for (size_t i = 0; i < MW_COUNT(had); i++)
		mw_store_token(st, MW_KEY_RCPT, mw_strz(had[i]), token[i]);
	mw_store_token(st, MW_KEY_RCPT, MW_STR("anna@bucher.example"), anna);
	mw_store_close(st);
	for (size_t i = 0; i < MW_COUNT(had); i++)
		assert_true(file_has(token[i]));
	run_ok(0, "%s erase --user '%s' --yes --json", with_key, same[7]);
	says_number("erase", same[7], number_of("kept_for_others"), ALL);
	for (size_t i = 0; i < MW_COUNT(had); i++)
		if (file_has(token[i]))
			fail_msg("%s", had[i]);
	assert_true(file_has(anna));
	for (size_t i = 0; i < SAME; i++) {
		run_ok(0, "%s list --user '%s' --no-header -o tsv", with_key, same[i]);
		assert_string_equal(out, "");
	}
	run_ok(0, "%s list --user anna@bucher.example --no-header -o tsv%s", with_key,
	       "");
	assert_true(!says(LOCAL "@" DOMAIN "\t") && !says("+x@") && says("jurgen@"));
	run_ok(0, "%s verify%s", with_key, "");
	run_ok(0, "%s reindex%s", with_key, "");
	run_ok(0, "%s verify%s", with_key, "");
}

static void
shared_mail(void **state)
{
	(void)state;
	cut_in_each_form(false);
	cut_in_each_form(true);
}

/* In records that an earlier version wrote the tokens are of the names as they came: they
 * go, too, also that of an extension in quotes. */
static void
older_records(void **state)
{
	(void)state;
	static const char *const kurt[] = {"\"kurt+ext\"@golden.test",
	                                   "\"kurt@golden.test", "kurt@golden.test"};
	static const char *const juergen[] = {LOCAL "@" DOMAIN,
	                                      LOCAL_UPPER "@" DOMAIN_UPPER, LOCAL "@" ACE,
	                                      "\"" LOCAL_APART "+x\"@" ACE,
	                                      "\"" LOCAL_APART "@" ACE};
	char cmd[1000];
	uint8_t token[MW_COUNT(kurt) + MW_COUNT(juergen)][8];
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	(void)snprintf(
	    cmd, sizeof cmd,
	    "rm -rf '%s' && cp -r '%s/tests/golden/v1/names' '%s' && mkdir '%s'/ledger",
	    journal, MW_SOURCE_DIR, journal, journal);
	assert_int_equal(system(cmd), 0);
	write_conf("recipient_delimiter = +\n");
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	for (size_t i = 0; i < MW_COUNT(token); i++)
		mw_store_token(st, MW_KEY_RCPT,
		               mw_strz(i < MW_COUNT(kurt) ? kurt[i]
		                                          : juergen[i - MW_COUNT(kurt)]),
		               token[i]);
	mw_store_close(st);
	for (size_t i = 0; i < MW_COUNT(token); i++)
		assert_true(file_has(token[i]));
	want(0, "erase --user kurt@golden.test --yes --json");
	says_number("erase", "kurt", number_of("kept_for_others"), 2);
	for (size_t i = 0; i < MW_COUNT(token); i++)
		if (file_has(token[i]) != (i >= MW_COUNT(kurt)))
			fail_msg("token %zu", i);
	run_ok(0, "%s erase --user '%s' --yes --json", "", same[1]);
	says_number("erase", same[1], number_of("kept_for_others"), 4);
	for (size_t i = 0; i < MW_COUNT(token); i++)
		if (file_has(token[i]))
			fail_msg("token %zu", i);
	assert_int_equal(lines("list --all --no-header -o tsv"), 6);
	assert_false(says("kurt") || says("rgen"));
	assert_int_equal(lines("list --user anna@golden.test --no-header -o tsv"), 6);
	want(1, "verify"); /* there is no key to sign with, and nothing else */
	assert_true(says("not signed") && !says("tampering") && !says("record 1 "));
}

/* Sent mail is its owner's by the login, in each form. */
static void
sent_mail(void **state)
{
	(void)state;
	struct fake f = {.now = now_us - 3 * DAY};
	choose_keys(false);
	struct mw_store *st = writer(&f, NULL);
	for (size_t i = 0; i < SAME; i++)
		put_to(st, "x@far.test", "", same[i], same[i], f.now);
	put_to(st, "x@far.test", "", same[1], LOCAL_UPPER, f.now);
	mw_store_close(st);
	write_conf("local_domains = " ACE "\nrecipient_delimiter = +\n");
	for (size_t i = 0; i < SAME; i++) {
		run_ok(0, "%s list --user '%s' --no-header -o tsv", "", same[i]);
		unsigned n = count_lines();
		says_number("sent by", same[i], n, SAME + 1);
		run_ok(0, "%s list --sender '%s' --no-header -o tsv", "", same[i]);
		n = count_lines();
		says_number("list --sender", same[i], n, SAME + 1);
		run_ok(0, "%s recover --user '%s' --all --to eml:/none -n --json", "",
		       same[i]);
		says_number("recover", same[i], number_of("selected"), SAME + 1);
		run_ok(0, "%s hold add h --user '%s'", "", same[i]);
		run_ok(77, "%s erase --user '%s' --yes", "", same[(i + 4) % SAME]);
		run_ok(0, "%s hold rm h%s", "", "");
		run_ok(0, "%s hold add h --sender '%s'", "", same[i]);
		run_ok(77, "%s erase --user '%s' --yes", "", same[(i + 4) % SAME]);
		run_ok(0, "%s hold rm h%s", "", "");
	}
	run_ok(0, "%s erase --user '%s' --yes --json", "", same[2]);
	/* its recipient has it too */
	says_number("erase", same[2], number_of("kept_for_others"), SAME + 1);
	for (size_t i = 0; i < SAME; i++) {
		run_ok(0, "%s list --user '%s' --no-header -o tsv", "", same[i]);
		assert_string_equal(out, "");
	}
	assert_int_equal(lines("list --all --no-header -o tsv"), SAME + 1);
	run_ok(0, "%s verify%s", "", "");
}

/* Names that look like forms of one, and are another's: nobody sees, gets back or erases
 * the other's mail. */
#define SHARP                                                                            \
	"stra\xc3\x9f"                                                                   \
	"e"
#define CAPITAL                                                                          \
	"STRA\xe1\xba\x9e"                                                               \
	"E"
static const char *const person[][2] = {
    /* and another form of the first */
    {"a@" SHARP ".example", "A@" CAPITAL ".Example"},
    {"a@strasse.example", "A@STRASSE.example"},
    {SHARP "@x.example", CAPITAL "@x.example"},
    {"strasse@x.example", "STRASSE@x.example"},
    {"\xce\xb1\xcf\x82@gr.example", "\xce\x91\xce\xa3@gr.example"},
    {"\xce\xb1\xcf\x83@gr.example", "\"\xce\xb1\xcf\x83\"@gr.example"},
    {"\xef\xac\x81nn@x.example", "\"\xef\xac\x81nn\"@x.example"},
    {"finn@x.example", "Finn@x.example"},
    {"a@\xcf\x83\xcf\x82.example", "a@xn--3xab.example"},
    {"a@\xcf\x83\xcf\x83.example", "a@\xce\xa3\xce\xa3.example"},
};

static void
fill_persons(bool keys, const char *login)
{
	struct fake f = {.now = now_us - 3 * DAY};
	choose_keys(keys);
	struct mw_store *st = writer(&f, keys ? pk : NULL);
	for (size_t i = 0; i < MW_COUNT(person); i++)
		for (size_t k = 0; k < 2; k++)
			if (login)
				put_to(st, "y@far.test", "", person[i][k], person[i][k],
				       f.now);
			else
				put_to(st, person[i][k], "", "s@far.test", "", f.now);
	mw_store_close(st);
	write_conf("recipient_delimiter = +\n");
}

static void
one_person(const char *who, const char *target)
{
	run_ok(0, "%s list --user '%s' --no-header -o tsv", with_key, who);
	says_number("list --user", who, count_lines(), 2);
	run_ok(0, "%s recover --user '%s' --all --to eml:/none -n --json", with_key, who);
	says_number("recover", who, number_of("selected"), 2);
	run_ok(0, "%s recover --user '%s' --all --missing --to eml:/none -n --json",
	       with_key, who);
	says_number("recover --missing", who, number_of("selected"), 2);
	char args[600];
	(void)snprintf(args, sizeof args, "%s replay --user '%s' -n --json --to %s",
	               with_key, who, target);
	want(0, args);
	says_number("replay", who, number_of("selected"), 2);
	run_ok(0, "%s erase --user '%s' -n --json", with_key, who);
	says_number("erase", who, number_of("erased"), 2);
}

static void
persons_apart(bool keys)
{
	char target[400];
	(void)snprintf(target, sizeof target, "'eml:%s/out'", root);
	fill_persons(keys, NULL);
	for (size_t i = 0; i < MW_COUNT(person); i++)
		for (size_t k = 0; k < 2; k++)
			one_person(person[i][k], target);
	/* one by one they go, and the others stay */
	for (size_t i = 0; i < MW_COUNT(person); i++) {
		run_ok(0, "%s erase --user '%s' --yes --json", with_key, person[i][0]);
		says_number("erase", person[i][0], number_of("erased"), 2);
	}
	fill_persons(keys, "login");
	for (size_t i = 0; i < MW_COUNT(person); i++)
		for (size_t k = 0; k < 2; k++) {
			const char *who = person[i][k];
			run_ok(0, "%s list --user '%s' --no-header -o tsv", with_key,
			       who);
			says_number("sent", who, count_lines(), 2);
			run_ok(0, "%s list --sender '%s' --no-header -o tsv", with_key,
			       who);
			says_number("sender", who, count_lines(), 2);
			run_ok(0, "%s list --domain '%s' --no-header -o tsv", with_key,
			       domain_of(who).p);
			unsigned n = 0;
			for (size_t j = 0; j < MW_COUNT(person); j++)
				n += 2 * mw_domain_eq(domain_of(who),
				                      domain_of(person[j][0]));
			says_number("domain", who, count_lines(), n);
		}
}

static void
two_persons(void **state)
{
	(void)state;
	persons_apart(false);
	persons_apart(true);
	/* nobody, though a token of his is another's */
	fill_persons(false, NULL);
	want(0, "erase --user strasse@x.example --yes --json");
	want(0, "erase --user finn@x.example --yes --json");
	want(67, "replay --user strasse@x.example -n --to eml:/none");
	want(67, "recover --user finn@x.example --all -n --to eml:/none");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(selections),  cmocka_unit_test(holds),
	    cmocka_unit_test(rules),       cmocka_unit_test(shared_mail),
	    cmocka_unit_test(sent_mail),   cmocka_unit_test(older_records),
	    cmocka_unit_test(two_persons),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
