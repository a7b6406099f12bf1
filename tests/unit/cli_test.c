/* The mailwal program: wrong usage, wrong places and full outputs; marks, status, reindex
 * and verify on journals made here. */
#include "tests/support/samples_cli.h"

#include "journal/base/util.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
wrong_usage(void **state)
{
	(void)state;
	EXPECT(64, "no command", "-q");
	EXPECT(64, "did you mean 'list'", "lst");
	EXPECT(64, "did you mean '--since'", "-j", samples_journal, "list", "--sinec",
	       "x");
	EXPECT(64, "not a time", "-j", samples_journal, "list", "--since", "gestern");
	EXPECT(64, "needs a value", "-j", samples_journal, "list", "--user");
	EXPECT(64, "not after", "-j", samples_journal, "list", "-S", "now", "-U",
	       "yesterday");
	EXPECT(64, "not both", "-j", samples_journal, "show", "zz", "--raw", "--headers");
	EXPECT(64, "unknown verb", "config", "chekc");
	EXPECT(64, "which server", "setup", "exim");
	EXPECT(66, "no record has", "-j", samples_journal, "show", "00000");
	EXPECT(0, "Usage: mailwal list", "list", "--help");
	EXPECT(0, "SELECTION", "help", "list");
}

static void
wrong_places(void **state)
{
	(void)state;
	char missing[320], config[320];
	(void)snprintf(missing, sizeof missing, "%s/missing", samples_dir);
	(void)snprintf(config, sizeof config, "%s/bad.conf", samples_dir);
	EXPECT(66, "mailwal init", "-j", missing, "list");
	EXPECT(73, "not empty", "init", samples_journal);
	EXPECT(66, NULL, "-c", missing, "list");
	FILE *f = fopen(config, "w");
	assert_non_null(f);
	fputs("journal_dri = /x\n", f);
	fclose(f);
	EXPECT(78, "journal_dir", "-c", config, "list");
	EXPECT(78, "journal_dir", "config", "check", config);
	struct ran r;
	RUN(&r, "-j", samples_dir, "list"); /* a directory that is no journal */
	assert_int_not_equal(r.status, 0);
	assert_true(ran_holds(&r.err, "journal"));
	ran_done(&r);
}

static void
full_output(void **state)
{
	(void)state;
	struct ran r;
	static const char *const what[] = {"list", "help", "version"};
	for (size_t i = 0; i < MW_COUNT(what); i++) {
		run_to(&r, "/dev/full",
		       (const char *const[]){"-j", samples_journal, what[i], NULL});
		assert_int_equal(r.status, 74);
		assert_true(ran_holds(&r.err, "standard output"));
		ran_done(&r);
	}
	run_to(&r, "/dev/full",
	       (const char *const[]){"-j", samples_journal, "show", "4XplainAA", "--raw",
	                             NULL});
	assert_int_equal(r.status, 74);
	ran_done(&r);
}

static void
marks(void **state)
{
	(void)state;
	EXPECT(66, "never started", "-j", samples_empty, "mark", "nightly", "--complete");
	EXPECT(0, "started", "-j", samples_empty, "mark", "nightly");
	EXPECT(64, "has not ended", "-j", samples_empty, "mark", "nightly");
	EXPECT(0, "complete", "-j", samples_empty, "mark", "nightly", "--complete");
	EXPECT(64, "already ended", "-j", samples_empty, "mark", "nightly", "--failed");
	EXPECT(0, "started", "-j", samples_empty, "mark", "nightly");
	EXPECT(0, "started", "-j", samples_empty, "mark", "nightly", "--restart");
	EXPECT(0, "failed", "-j", samples_empty, "mark", "nightly", "--failed");
	EXPECT(64, "blanks", "-j", samples_empty, "mark", "a b");
	EXPECT(64, "one journal", "-j", samples_empty, "-j", samples_journal, "mark",
	       "x");
	struct ran r;
	RUN(&r, "-j", samples_empty, "mark", "--list", "--json");
	assert_int_equal(r.status, 0);
	assert_int_equal(ran_lines(&r.out), 3);
	assert_true(ran_holds(&r.out, "\"state\":\"complete\""));
	assert_true(ran_holds(&r.out, "\"state\":\"failed\""));
	ran_done(&r);
	EXPECT(0, "nightly", "-j", samples_empty, "mark", "--list");
	EXPECT(66, "did you mean 'nightly'", "-j", samples_empty, "list", "--since-mark",
	       "nihgtly");
	EXPECT(0, NULL, "-j", samples_empty, "list", "--since-mark", "nightly");
	/* A name may begin with a dash. */
	EXPECT(64, "-x", "-j", samples_empty, "mark", "-x");
	EXPECT(0, "-x", "-j", samples_empty, "mark", "--", "-x");
	EXPECT(64, "--failed", "-j", samples_empty, "mark", "--", "-x", "--failed");
	EXPECT(0, "failed", "-j", samples_empty, "mark", "--failed", "--", "-x");
	EXPECT(0, "-x", "-j", samples_empty, "mark", "--list", "--", "-x");
	EXPECT(0, NULL, "-j", samples_empty, "list", "--since-mark=-x");
	EXPECT(64, "which mark", "-j", samples_empty, "mark", "--");
}

static void
status_without_daemon(void **state)
{
	(void)state;
	struct ran r;
	EXPECT(1, "not running", "-j", samples_journal, "status");
	EXPECT(2, "MAILWAL CRITICAL", "-j", samples_journal, "status", "--nagios");
	RUN(&r, "-j", samples_journal, "status", "--json");
	json_error_t je;
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	assert_int_equal(json_integer_value(json_object_get(o, "mails")), N);
	assert_true(json_is_false(json_object_get(o, "daemon_running")));
	json_decref(o);
	ran_done(&r);
}

static void
reindex_gives_the_same(void **state)
{
	(void)state;
	struct ran before, after;
	RUN(&before, "-j", samples_journal, "list", "--json", "--sender", "bob@far.test");
	EXPECT(0, "indexed", "-j", samples_journal, "reindex");
	RUN(&after, "-j", samples_journal, "list", "--json", "--sender", "bob@far.test");
	assert_int_equal(before.out.n, after.out.n);
	assert_int_equal(ran_lines(&after.out), 2);
	assert_memory_equal(before.out.p, after.out.p, after.out.n);
	ran_done(&before);
	ran_done(&after);
}

/* Where the first sample lies, as show --json tells. */
static void
place(char *segment, size_t n, long *ret_offset)
{
	struct ran r;
	json_error_t je;
	RUN(&r, "-j", samples_journal, "show", samples[0].queue_id, "--json");
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	(void)snprintf(segment, n, "segments/%016llx.seg",
	               (unsigned long long)json_integer_value(
	                   json_object_get(o, "segment")));
	*ret_offset = (long)json_integer_value(json_object_get(o, "offset"));
	json_decref(o);
	ran_done(&r);
}

static void
damage_is_told_and_contained(void **state)
{
	(void)state;
	char command[800], segment[64], path[500], copy[300];
	long offset;
	struct ran r;
	(void)snprintf(copy, sizeof copy, "%s/damaged", samples_dir);
	(void)snprintf(command, sizeof command, "cp -r '%s' '%s'", samples_journal, copy);
	assert_int_equal(system(command), 0);
	EXPECT(0, "ok", "-j", copy, "verify");
	place(segment, sizeof segment, &offset);
	(void)snprintf(path, sizeof path, "%s/%s", copy, segment);
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, offset + 200, SEEK_SET), 0);
	int c = fgetc(f);
	assert_int_equal(fseek(f, offset + 200, SEEK_SET), 0);
	assert_int_not_equal(fputc(c ^ 0x55, f), EOF);
	assert_int_equal(fclose(f), 0);
	EXPECT(1, "DAMAGE FOUND", "-j", copy, "verify");
	RUN(&r, "-j", copy, "verify", "--json");
	assert_int_equal(r.status, 1);
	assert_true(ran_holds(&r.out, "\"ok\":false"));
	ran_done(&r);
	RUN(&r, "-j", copy, "show", samples[0].queue_id, "--raw");
	assert_int_not_equal(r.status, 0);
	assert_true(r.out.n < samples[0].n); /* nothing after the failing piece */
	ran_done(&r);
	for (size_t i = 1; i < N; i++) {
		RUN(&r, "-j", copy, "show", samples[i].queue_id, "--raw");
		assert_int_equal(r.status, 0);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
	}
}

static void
monitoring_knows_four_answers(void **state)
{
	(void)state;
	char missing[320];
	(void)snprintf(missing, sizeof missing, "%s/missing", samples_dir);
	EXPECT(3, "MAILWAL UNKNOWN", "-c", missing, "status", "--nagios");
	EXPECT(3, "MAILWAL UNKNOWN", "-j", samples_journal, "status", "--nagios", "--x");
	EXPECT(2, "MAILWAL CRITICAL", "-j", missing, "status", "--nagios");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(wrong_usage),
	    cmocka_unit_test(wrong_places),
	    cmocka_unit_test(full_output),
	    cmocka_unit_test(marks),
	    cmocka_unit_test(status_without_daemon),
	    cmocka_unit_test(reindex_gives_the_same),
	    cmocka_unit_test(damage_is_told_and_contained),
	    cmocka_unit_test(monitoring_knows_four_answers),
	};
	return cmocka_run_group_tests(tests, samples_setup, samples_teardown);
}
