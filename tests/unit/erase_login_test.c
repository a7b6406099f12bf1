/* mailwal erase where people of two domains have the same login: a login without domain
 * is the sender's, in each mail for itself. */
/* MW_TEST_COST 3 */
#include "journal/codec/hpke.h"
#include "journal/store/store.h"

#include "tests/support/retain_cli.h"

#include <limits.h>
#include <unistd.h>

#define ANNA  "anna@example.org"
#define OTHER "anna@example.net"
#define HR    "hr@example.org"

static void
write_mails(const uint8_t *recovery)
{
	static const struct mail kinds[] = {
	    /* of whom it is: the recipients and the one who sent it */
	    {"4XHERS", ANNA, {ANNA, HR}, "anna", MW_DIR_INTERNAL},
	    {"4XOTHER", OTHER, {ANNA, HR}, "anna", MW_DIR_INTERNAL},
	    {"4XWHOLE", ANNA, {HR}, "Anna@Example.ORG", MW_DIR_INTERNAL},
	    {"4XALONE", ANNA, {"bob@far.test"}, "anna", MW_DIR_OUT},
	    {"4XAPART", OTHER, {"bob@far.test"}, "anna", MW_DIR_OUT},
	    {"4XPLAIN", HR, {ANNA, HR}, "hr", MW_DIR_INTERNAL},
	};
	struct mw_err err = {0};
	struct fake f = {.now = now_us - DAY};
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	struct mw_store *st = writer(&f, recovery);
	for (size_t i = 0; i < MW_COUNT(kinds); i++)
		put(st, &kinds[i], f.now + (int64_t)i * 1000000);
	mw_store_close(st);
	char ledger[PATH_MAX]; /* it may be deleted at any time (FORMAT.md I1) */
	(void)snprintf(ledger, sizeof ledger, "%.4000s/ledger", journal);
	assert_int_equal(rmdir(ledger), 0);
}

static void
queue_ids(const char *user, const char *want_ids)
{
	char args[200], have[200] = "";
	(void)snprintf(args, sizeof args, "list --json --user %s", user);
	want(0, args);
	for (const char *p = out; (p = strstr(p, "\"queue_id\":\"")) != NULL;) {
		p += strlen("\"queue_id\":\"");
		size_t n = strlen(have);
		(void)snprintf(have + n, sizeof have - n, "%.*s ", (int)strcspn(p, "\""),
		               p);
	}
	assert_string_equal(have, want_ids);
}

static void
login(const char *qid, bool there)
{
	char args[200];
	(void)snprintf(args, sizeof args, "list --json --queue-id %s", qid);
	want(0, args);
	if (!says(qid) || !!strcasestr(out, "\"auth_user\":\"anna\"") != there)
		fail_msg("%s: %s", qid, out);
}

static void
only_her_login(const uint8_t *recovery)
{
	(void)recovery;
	write_conf("local_domains = example.net\n");
	write_mails(recovery);
	queue_ids(ANNA, "4XHERS 4XOTHER 4XWHOLE 4XALONE 4XPLAIN ");
	queue_ids(OTHER, "4XOTHER 4XAPART ");
	want(0, "erase --user " ANNA " --yes --json");
	assert_true(says("\"erased\":1,\"kept_for_others\":4"));
	want(0, "verify");
	/* the other one still has what she sent, and is found by her login */
	queue_ids(OTHER, "4XOTHER 4XAPART ");
	queue_ids("anna", "4XOTHER 4XAPART ");
	queue_ids(HR, "4XHERS 4XOTHER 4XWHOLE 4XPLAIN ");
	login("4XOTHER", true);
	login("4XHERS", false);
	/* again, when there is nothing left, and then the other one */
	want(0, "erase --user " OTHER " --yes --json");
	assert_true(says("\"erased\":1,\"kept_for_others\":1"));
	login("4XOTHER", false);
	queue_ids(HR, "4XHERS 4XOTHER 4XWHOLE 4XPLAIN ");
	want(0, "verify");
	want(0, "reindex");
	queue_ids(HR, "4XHERS 4XOTHER 4XWHOLE 4XPLAIN ");
	want(0, "verify");
}

static void
plain(void **state)
{
	(void)state;
	only_her_login(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(plain, setup, teardown),
	};
	return cmocka_run_group_tests_name("erase: logins of two domains", tests, NULL,
	                                   NULL);
}
