/* What is noted of a message whose sender Postfix told to come again: only once the same
 * has come for the same recipients, by the journal, which needs no key for that. */
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "tests/support/retain_cli.h"

/* 40 seconds between them; the first failed at its end, the second is in the queue. */
#define FIRST  "4jY3xX0jDpz1h7FF"
#define SECOND "4jY3yh1RGzz1h7G6"

struct again {
	const char *name, *content, *rcpt[3];
	bool journaled, refused;
};

static const struct again cases[] = {
    {"the same", "one", {"alice@example.org"}, true, true},
    {"for more recipients", "one", {"hr@example.org", "alice@example.org"}, true, false},
    {"in capitals", "one", {"Alice@Example.org"}, true, true},
    {"for another recipient", "one", {"hr@example.org"}, true, false},
    {"another text of that Message-ID", "two", {"alice@example.org"}, true, false},
    {"past the milter", "one", {"alice@example.org"}, false, false},
};

static void
put_one(struct mw_store *st, const char *qid, const char *content,
        const char *const rcpt[3], int64_t when)
{
	MW_BUF_AUTO text = {0};
	struct mw_rcpt r[3] = {{.flags = 0}};
	struct mw_mail m = {.time_us = when,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("bob@far.test"),
	                    .front = MW_STR("milter"),
	                    .direction = MW_DIR_IN,
	                    .rcpt = r};
	for (size_t i = 0; i < 3 && rcpt[i]; i++) {
		r[i].addr = mw_strz(rcpt[i]);
		r[i].flags = MW_RCPT_LOCAL;
		m.n_rcpt++;
	}
	mw_buf_printf(&text, "Subject: %s\r\nMessage-ID: <once@far.test>\r\n\r\n%s\r\n",
	              content, content);
	(void)journaled(st, &m, text.p, text.n, NULL);
}

static void
fill(const struct again *a, const uint8_t *recovery)
{
	static const char *const first[3] = {"alice@example.org"};
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	char cmd[600];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	struct mw_store *st = writer(&f, recovery);
	put_one(st, FIRST, "one", first, now_us - 100000000);
	if (a->journaled)
		put_one(st, SECOND, a->content, a->rcpt, now_us - 60000000);
	mw_store_close(st);
}

static void
write_log(const char *path)
{
	static const struct {
		int s;
		const char *line;
	} v[] = {
	    {-101, "smtpd[11]: connect from u[192.0.2.1]"},
	    {-101, "smtpd[11]: " FIRST ": client=u[192.0.2.1]"},
	    {-100, "cleanup[12]: " FIRST ": message-id=<once@far.test>"},
	    {-100,
	     "smtpd[11]: disconnect from u[192.0.2.1] ehlo=1 mail=1 rcpt=1 data=0/1 "
	     "commands=3/4"},
	    {-61, "smtpd[14]: connect from u[192.0.2.1]"},
	    {-61, "smtpd[14]: " SECOND ": client=u[192.0.2.1]"},
	    {-60, "cleanup[15]: " SECOND ": message-id=<once@far.test>"},
	    {-60, "qmgr[13]: " SECOND ": from=<bob@far.test>, size=320, nrcpt=1 (queue "
	          "active)"},
	    {-60, "smtpd[14]: disconnect from u[192.0.2.1] ehlo=1 mail=1 rcpt=1 data=1 "
	          "quit=1 commands=5"},
	};
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	for (size_t i = 0; i < MW_COUNT(v); i++) {
		char when[40];
		mw_time_rfc3339(when, sizeof when, now_us + v[i].s * INT64_C(1000000));
		fprintf(f, "%s mx postfix/%s\n", when, v[i].line);
	}
	assert_int_equal(fclose(f), 0);
}

static void
each(const uint8_t *recovery, const char *key)
{
	char path[400];
	(void)snprintf(path, sizeof path, "%.250s/mail.log", root);
	write_conf("");
	write_log(path);
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		fill(&cases[i], recovery);
		assert_int_equal(run("outcomes '%s'", path), 0);
		assert_int_equal(run("%s show " FIRST, key), 0);
		if (says("refused") != cases[i].refused)
			fail_msg("%s%s: %s", cases[i].name, *key ? ", encrypted" : "",
			         out);
		if (cases[i].journaled) {
			assert_int_equal(run("%s show " SECOND, key), 0);
			assert_false(says("refused"));
		}
	}
}

static void
only_the_same(void **state)
{
	(void)state;
	each(NULL, "");
}

static void
without_a_key(void **state)
{
	(void)state;
	uint8_t pk[32];
	char path[400];
	struct mw_err err = {0};
	(void)snprintf(path, sizeof path, "%.250s/key", root);
	assert_int_equal(mw_keyring_new(path, MW_STR(""), pk, &err), 0);
	(void)snprintf(path, sizeof path, "--key %.250s/key", root);
	each(pk, path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(only_the_same),
	    cmocka_unit_test(without_a_key),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
