/* What mailwal's list and show tell of hostile mail, as bytes, text and JSON; what a
 * SELECTION finds; the summary of every job. */
#include "tests/support/samples_cli.h"

#include "journal/base/util.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void
raw_is_what_was_captured(void **state)
{
	(void)state;
	for (size_t i = 0; i < N; i++) {
		struct ran r;
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, samples_id[i]);
		RUN(&r, "-j", samples_journal, "show", id, "--raw");
		assert_int_equal(r.status, 0);
		assert_int_equal(r.out.n, samples[i].n);
		if (r.out.n)
			assert_memory_equal(r.out.p, samples[i].content, samples[i].n);
		assert_int_equal(r.err.n, 0);
		ran_done(&r);
		id[8] = '\0';
		RUN(&r, "show", "--raw", id, "-j", samples_journal);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
		RUN(&r, "show", "--raw", samples[i].queue_id, "-j", samples_journal);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
	}
}

static void
json_has_the_contract(void **state)
{
	(void)state;
	static const char *const keys[] = {"id",       "seq",        "time",
	                                   "queue_id", "message_id", "sender",
	                                   "size",     "from",       "digest",
	                                   "sha256",   "recipients", "direction",
	                                   "subject",  "client"};
	struct ran r;
	RUN(&r, "-j", samples_journal, "list", "--json");
	assert_int_equal(r.status, 0);
	assert_int_equal(ran_lines(&r.out), N);
	char *line = (char *)(uintptr_t)mw_buf_cstr(&r.out), *save = NULL;
	size_t i = 0;
	for (char *l = strtok_r(line, "\n", &save); l;
	     l = strtok_r(NULL, "\n", &save), i++) {
		json_error_t je;
		json_t *o = json_loads(l, 0, &je);
		char id[MW_ID_TEXT + 1];
		assert_non_null(o);
		for (size_t k = 0; k < MW_COUNT(keys); k++)
			assert_non_null(json_object_get(o, keys[k]));
		mw_id_text(id, samples_id[i]);
		assert_string_equal(json_string_value(json_object_get(o, "id")), id);
		assert_int_equal(json_integer_value(json_object_get(o, "size")),
		                 samples[i].n);
		for (const char *p = l; *p; p++) /* nothing a terminal would obey */
			assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
		json_decref(o);
	}
	assert_int_equal(i, N);
	ran_done(&r);
}

static void
json_of_outgoing_mail(void **state)
{
	(void)state;
	struct ran r;
	json_error_t je;
	RUN(&r, "-j", samples_journal, "show", "4XencodeC", "--json");
	assert_int_equal(r.status, 0);
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "subject")),
	                    "R\xc3\xa9sum\xc3\xa9 of 2026");
	assert_int_equal(json_array_size(json_object_get(o, "recipients")), 2);
	assert_int_equal(json_array_size(json_object_get(o, "refused_recipients")), 1);
	assert_int_equal(json_array_size(json_object_get(o, "mailboxes")), 0);
	assert_string_equal(json_string_value(json_object_get(o, "sent_mailbox")),
	                    "alice@example.org");
	json_decref(o);
	ran_done(&r);
}

static void
summaries_have_the_contract(void **state)
{
	(void)state;
	static const char *const keys[] = {"selected", "already_there", "restored",
	                                   "failed", "duration_s"};
	char to[300];
	(void)snprintf(to, sizeof to, "eml:%s/summaries", samples_dir);
	const char *const jobs[][6] = {{"verify"},
	                               {"reindex"},
	                               {"checkpoint"},
	                               {"prune", "--dry-run"},
	                               {"export", "--all", "--to", to},
	                               {"drill", "run", "--all"}};
	for (size_t i = 0; i < MW_COUNT(jobs); i++) {
		struct ran r;
		const char *const *j = jobs[i];
		RUN(&r, "-j", samples_journal, "--json", j[0], j[1], j[2], j[3]);
		assert_int_equal(r.status, 0);
		char *save = NULL, *line = NULL;
		char *text = (char *)(uintptr_t)mw_buf_cstr(&r.out);
		for (char *l = strtok_r(text, "\n", &save); l;
		     l = strtok_r(NULL, "\n", &save))
			line = l;
		assert_non_null(line);
		json_error_t je;
		json_t *o = json_loads(line, 0, &je);
		assert_non_null(o);
		assert_string_equal(json_string_value(json_object_get(o, "message_type")),
		                    "summary");
		for (size_t k = 0; k < MW_COUNT(keys); k++)
			assert_true(json_is_number(json_object_get(o, keys[k])));
		if (strcmp(j[0], "verify") == 0)
			assert_int_equal(json_integer_value(
			                     json_object_get(o, "selected")),
			                 N);
		json_decref(o);
		ran_done(&r);
	}
}

static void
text_obeys_no_control(void **state)
{
	(void)state;
	static const char *const forms[] = {"table", "tsv"};
	for (size_t k = 0; k < MW_COUNT(forms); k++) {
		struct ran r;
		RUN(&r, "-j", samples_journal, "list", "-o", forms[k]);
		assert_int_equal(r.status, 0);
		assert_int_equal(ran_lines(&r.out), N + 1);
		for (size_t i = 0; i < r.out.n; i++)
			assert_true(r.out.p[i] >= ' ' || r.out.p[i] == '\n' ||
			            (k == 1 && r.out.p[i] == '\t'));
		assert_false(ran_holds(&r.out, "\xc2\x9b"));
		assert_true(ran_holds(&r.out, "\\x1b[31mred"));
		ran_done(&r);
	}
}

static void
selections(void **state)
{
	(void)state;
	static const struct {
		const char *opt, *value;
		size_t n;
	} cases[] = {
	    {"--user", "alice@example.org",
	     4}, /* with tag, a bounce, and sent as alice */
	    {"--user", "ALICE@example.ORG", 4},
	    {"--user", "alice", 4}, /* the login too */
	    {"--user", "refused@far.test", 0},
	    {"--domain", "far.test", 3},
	    {"--sender", "alice@example.org", 1},
	    {"--sender", "<>", 1},
	    {"--message-id", "<one@far.test>", 1},
	    {"--message-id", "one@far.test", 1},
	    {"--message-id", "<no-angles@here>", 1},
	    {"--queue-id", "4XbounceD", 1},
	    {"--queue-id", "4xbounced", 0},
	    {"--direction", "out", 1},
	    {"--subject", "r\xc3\x89SUM", 1},
	    {"--larger", "100", 1},
	    {"--smaller", "1", 1},
	    {"--since", "2026-11-22 10:14:03", 2},
	    {"--until", "@1795342442", 2},
	    {"--limit", "2", 2},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct ran r;
		RUN(&r, "-j", samples_journal, "list", "--json", cases[i].opt,
		    cases[i].value);
		if (r.status != 0 || ran_lines(&r.out) != cases[i].n)
			fail_msg("%s %s: status %d, %zu lines, expected %zu; %s",
			         cases[i].opt, cases[i].value, r.status,
			         ran_lines(&r.out), cases[i].n, mw_buf_cstr(&r.err));
		ran_done(&r);
	}
}

static void
limit_takes_the_newest(void **state)
{
	(void)state;
	struct ran r;
	RUN(&r, "-j", samples_journal, "-j", samples_empty, "list", "--limit", "1", "-o",
	    "tsv", "--no-header");
	assert_int_equal(ran_lines(&r.out), 1);
	assert_true(ran_holds(&r.out, "x@y.test"));
	ran_done(&r);
	RUN(&r, "-j", samples_journal, "list", "--limit", "1", "--since", "2026-11-22",
	    "-o", "tsv", "--no-header");
	assert_int_equal(ran_lines(&r.out), 1);
	assert_true(ran_holds(&r.out, "Hello there"));
	ran_done(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(raw_is_what_was_captured),
	    cmocka_unit_test(json_has_the_contract),
	    cmocka_unit_test(json_of_outgoing_mail),
	    cmocka_unit_test(summaries_have_the_contract),
	    cmocka_unit_test(text_obeys_no_control),
	    cmocka_unit_test(selections),
	    cmocka_unit_test(limit_takes_the_newest),
	};
	return cmocka_run_group_tests(tests, samples_setup, samples_teardown);
}
