/* An audit that could not be done: logs that cannot be read, and those that are none. It
 * ends with an error that says what to do, and status tells until one is done. */
#include "tests/support/retain_cli.h"

#include <time.h>

static char log_path[400];

static void
write_log(const char *text, const char *command)
{
	char cmd[1300];
	FILE *f = fopen(log_path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	if (!command)
		return;
	(void)snprintf(cmd, sizeof cmd, "cd '%.250s' && %s", root, command);
	assert_int_equal(system(cmd), 0);
}

struct want_error {
	const char *name, *text, *command; /* what "log" holds, and what is done to it */
	const char *args;                  /* in place of the log */
	int status;
	const char *told;
};

#define LINE "Nov 22 12:00:00 mx postfix/smtpd[1]: connect from u[192.0.2.1]\n"

static const struct want_error cases[] = {
    {"no log at all", "root:x:0:0:root:/root:/bin/sh\n", NULL, NULL, 65, "none of its"},
    {"of another program", "Nov 22 12:00:00 mx dovecot: imap-login: Login\n", NULL, NULL,
     65, "not a line of Postfix"},
    {"empty, and mail was journaled since", "", "touch -d '-3 days' log", NULL, 65,
     "not a line of Postfix"},
    {"nothing from a pipe", "", NULL, "- <'%s/log' 2>&1 #", 65, "not a line of Postfix"},
    {"verbose", "Mon 2026-11-23 21:39:40.154934 UTC [s=da;i=20d;b=0c]\n    _PID=1\n",
     NULL, NULL, 65, "short-full"},
    {"json-pretty", "{\n\t\"MESSAGE\" : \"x\"\n}\n", NULL, NULL, 65, "json-pretty"},
    {"times since the start", "[29893.472643] vm postfix/smtpd[1]: connect from u[::1]\n",
     NULL, NULL, 65, "short-iso-precise"},
    {"packed, damaged", "",
     "seq 200000 | gzip >log && printf 'XXXXXXXX' | dd of=log bs=1 "
     "seek=3000 conv=notrunc 2>/dev/null",
     NULL, 74, "damaged or cut"},
    {"packed, cut", LINE, "seq 200000 | xz >log && truncate -s 3000 log", NULL, 74,
     "damaged or cut"},
    {"packed, through a pipe", LINE, "seq 9 | gzip >log", "- <'%s/log' 2>&1 #", 65,
     "none of"},
    {"a directory", LINE, NULL, "'%s'", 64, "older ones first"},
    {"none there", LINE, NULL, "'%s/none'", 66, "No such file"},
};

static void
audit(const struct want_error *c)
{
	char args[700] = "";
	if (c->args) {
		const char *at = strstr(c->args, "%s");
		(void)snprintf(args, sizeof args, "audit %.*s%s%s", (int)(at - c->args),
		               c->args, root, at + 2);
	} else {
		(void)snprintf(args, sizeof args, "audit '%s'", log_path);
	}
	int got = run("%s", args);
	if (got != c->status || !strstr(out, c->told))
		fail_msg("%s: exit %d, not %d; want \"%s\" in:\n%s", c->name, got,
		         c->status, c->told, out);
}

/* status tells of it until an audit is done. */
static void
not_done(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		write_log(LINE, NULL);
		assert_int_equal(run("audit '%s'", log_path), 0);
		(void)run("status");
		assert_null(strstr(out, "could not be done"));
		write_log(cases[i].text, cases[i].command);
		audit(&cases[i]);
		assert_int_equal(run("status"), 1);
		assert_non_null(strstr(out, "the last audit could not be done: "));
		assert_non_null(strstr(out, "0 accepted")); /* the last that was */
		assert_in_range(run("status --nagios"), 1, 3);
		assert_non_null(strstr(out, "audit could not be done"));
		(void)run("--json status");
		assert_non_null(strstr(out, "\"audit_failed\":\"20"));
	}
}

/* A quiet night: nothing logged, nothing journaled. */
static void
quiet(void **state)
{
	(void)state;
	static const char *const texts[] = {"", "Nov 22 12:00:00 mx dovecot: x\n", LINE,
	                                    "-- No entries --\n"};
	make(NULL);
	write_conf("");
	for (size_t i = 0; i < MW_COUNT(texts); i++) {
		write_log(texts[i], NULL);
		if (run("audit --since -2h '%s'", log_path) != 0)
			fail_msg("%zu: %s", i, out);
	}
}

/* Just rotated, or cut: nothing is wrong, and what was not compared is told. */
static void
begins_late(void **state)
{
	(void)state;
	static const struct {
		const char *text, *args;
		bool told;
	} logs[] = {{"", "", true}, /* (the journal's newest mail is of a day ago) */
	            {"", "--since -26h", true},
	            {"", "--since -2h", false},
	            {NULL, "--since -26h", true},
	            {NULL, "--since -2h", false},
	            {NULL, "", false}};
	char line[200];
	time_t now = time(NULL);
	struct tm tm;
	(void)gmtime_r(&now, &tm);
	(void)strftime(line, sizeof line,
	               "%Y-%m-%dT%H:%M:%SZ mx postfix/smtpd[1]: connect from u[::1]\n",
	               &tm);
	make(NULL);
	write_conf("");
	for (size_t i = 0; i < MW_COUNT(logs); i++) {
		write_log(logs[i].text ? logs[i].text : line, NULL);
		int r = run("audit %s '%s' 2>&1 #", logs[i].args, log_path);
		bool told = strstr(out, "messages journaled before that were not");
		if (r != 0 || told != logs[i].told)
			fail_msg("%zu: %d\n%s", i, r, out);
		(void)run("--json audit %s '%s' 2>/dev/null #", logs[i].args, log_path);
		assert_true(!told == !!strstr(out, "\"not_compared\":0,"));
	}
}

/* Nothing was compared, so that is no audit that status could speak of. */
static void
nothing_compared(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	write_log(LINE, NULL);
	assert_int_equal(run("audit '%s'", log_path), 0);
	for (int empty = 0; empty < 2; empty++) {
		char cmd[700];
		(void)snprintf(cmd, sizeof cmd,
		               "cd '%s' && rm ledger/audit.state ledger/last.audit",
		               journal);
		assert_int_equal(system(cmd), 0);
		write_log("", NULL);
		assert_int_equal(run("audit %s '%s'", empty ? "" : "--since -2h",
		                     log_path),
		                 0);
		(void)run("--json status");
		if (!empty != !!strstr(out, "\"audit_holes\":0"))
			fail_msg("%d: %s", empty, out);
	}
}

/* An older log that is empty is not where the log begins. */
static void
empty_before(void **state)
{
	char line[200];
	time_t now = time(NULL);
	struct tm tm;
	(void)state;
	(void)gmtime_r(&now, &tm);
	(void)strftime(line, sizeof line,
	               "%Y-%m-%dT%H:%M:%SZ mx postfix/smtpd[1]: connect from u[::1]\n",
	               &tm);
	make(NULL);
	write_conf("");
	write_log(line, ": >log.1 && touch -d '-2 days' log.1");
	assert_int_equal(run("audit --since -26h '%s.1' '%s' 2>&1 #", log_path, log_path),
	                 0);
	assert_non_null(strstr(out, "messages journaled before that were not"));
}

/* Whatever its name says. */
static void
packed(void **state)
{
	(void)state;
	static const char *const programs[] = {"gzip", "xz", "zstd", "bzip2"};
	make(NULL);
	write_conf("");
	for (size_t i = 0; i < MW_COUNT(programs); i++) {
		char cmd[100], text[400];
		(void)snprintf(cmd, sizeof cmd, "%s -c <log >packed && mv packed log",
		               programs[i]);
		/* What was read is known by its content, however it is packed. */
		(void)snprintf(text, sizeof text, "%s%s%s",
		               LINE "Nov 22 12:00:00 mx postfix/smtpd[2]: ", programs[i],
		               "\n" LINE);
		write_log(text, cmd);
		assert_int_equal(run("--json audit '%s'", log_path), 0);
		assert_non_null(strstr(out, "\"lines\":3"));
		assert_int_equal(run("--json outcomes '%s'", log_path), 0);
		assert_non_null(strstr(out, "\"lines\":3"));
		assert_int_equal(run("--json outcomes '%s'", log_path), 0);
		assert_non_null(strstr(out, "\"lines\":0"));
		assert_int_equal(run("--json audit - <'%s' #", log_path), 0);
		(void)remove(log_path);
	}
	write_log("neither\n", NULL);
	assert_int_equal(run("outcomes '%s'", log_path), 65);
	assert_non_null(strstr(out, "none of its 1 lines"));
}

static int
begin(void **state)
{
	int r = setup(state);
	(void)snprintf(log_path, sizeof log_path, "%.250s/log", root);
	return r;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(not_done),     cmocka_unit_test(quiet),
	    cmocka_unit_test(begins_late),  cmocka_unit_test(nothing_compared),
	    cmocka_unit_test(empty_before), cmocka_unit_test(packed),
	};
	return cmocka_run_group_tests(tests, begin, teardown);
}
