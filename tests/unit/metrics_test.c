/* The metrics of mailwald as text: each of the table, well formed, counting. */
#include "milter/metrics.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "journal/base/util.h"

#include <cmocka.h>

static char root[256], journal[300];
static struct mw_store *store;
static struct mw_capture cap;
static struct mw_buf text;

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	struct mw_conf *conf;
	(void)snprintf(root, sizeof root, "%s/mw-metrics-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/j", root);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20};
	assert_int_equal(mw_store_open(&o, &store, &err), 0);
	assert_int_equal(mw_conf_load(NULL, &conf, &report, &err), 0);
	assert_int_equal(mw_capture_init(&cap, store, conf, &err), 0);
	return 0;
}

static int
teardown(void **state)
{
	char cmd[600];
	(void)state;
	mw_capture_done(&cap);
	mw_store_close(store);
	mw_buf_free(&text);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

static const char *
fetch(void)
{
	mw_buf_clear(&text);
	mw_metrics_text(&cap, &text);
	return mw_buf_cstr(&text);
}

/* The value behind a sample's name and labels; fails if it is not there once. */
static double
value(const char *sample)
{
	char line[300];
	const char *all = fetch();
	(void)snprintf(line, sizeof line, "\n%s ", sample);
	const char *p = strstr(all, line);
	if (!p || strstr(p + 1, line))
		fail_msg("%s: %s in\n%s", sample, p ? "twice" : "missing", all);
	return strtod(p + strlen(line), NULL);
}

static void
left(const char *dir, const char *name, const char *lines)
{
	char path[400];
	(void)snprintf(path, sizeof path, "%s/%s", journal, dir);
	(void)mkdir(path, 0750);
	(void)snprintf(path, sizeof path, "%s/%s/%s", journal, dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(lines, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void
drilled(const char *lines)
{
	left("drills", "last", lines);
}

/* Every line is a comment of the two kinds or a sample of the metric named before. */
static void
well_formed(void **state)
{
	(void)state;
	static const char *const names[] = {
#define MW_METRIC(name, type, help) #name,
#include "milter/metrics.def"
#undef MW_METRIC
	};
	unsigned seen[MW_COUNT(names)] = {0};
	char current[100] = "";
	drilled("time 1795361590\npassed 1\nrestored 81\nmismatches 0\nrto 1.500\nrpo "
	        "0.000\n");
	left("ledger", "last.verify", "time 1795361590\npassed 1\nfindings 0\n");
	left("ledger", "last.audit", "time 1795361590\npassed 0\nholes 2\n");
	left("ledger", "last.prune", "time 1795361590\nremoved 7\nfreed 4096\n");
	left("ledger", "last.holds", "time 1795361590\nholds 3\n");
	char *copy = strdup(fetch()), *save = NULL;
	assert_int_equal(text.p[text.n - 1], '\n');
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char name[100];
		size_t n;
		if (strncmp(l, "# TYPE ", 7) == 0)
			continue;
		if (strncmp(l, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(l + 7, "%99s", current), 1);
			for (size_t i = 0; i < MW_COUNT(names); i++)
				seen[i] += strcmp(names[i], current) == 0;
			continue;
		}
		n = strcspn(l, "{ ");
		assert_true(n < sizeof name);
		memcpy(name, l, n);
		name[n] = '\0';
		if (strncmp(name, current, strlen(current)) != 0)
			fail_msg("'%s' below %s", l, current);
		char *end, *v = strrchr(l, ' ');
		assert_non_null(v);
		(void)strtod(v + 1, &end);
		if (end == v + 1 || *end)
			fail_msg("no number: %s", l);
		for (char *c = l; *c; c++)
			assert_true(isprint((unsigned char)*c));
	}
	free(copy);
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (seen[i] != 1)
			fail_msg("%s is there %u times", names[i], seen[i]);
}

static void
counts(void **state)
{
	(void)state;
	assert_true(value("mailwal_ready") == 1);
	assert_true(value("mailwal_config_reload_success") == 1);
	atomic_store(&cap.reload_refused, 1);
	assert_true(value("mailwal_config_reload_success") == 0);
	atomic_fetch_add(&cap.count.journaled, 3);
	atomic_fetch_add(&cap.count.recipients, 5);
	assert_true(value("mailwal_recipients_total") == 5);
	assert_true(value("mailwal_segments") >= 0);
	assert_true(value("mailwal_journal_bytes{kind=\"segments\"}") >= 0);
	assert_true(value("mailwal_journal_bytes{kind=\"index\"}") >= 0);
	assert_true(value("mailwal_holds") == 3 && value("mailwal_audit_holes") == 2);
	left("ledger", "last.audit", "time 1795361590\npassed 0\n"); /* not done */
	assert_null(strstr(fetch(), "mailwal_audit_holes "));
	assert_true(value("mailwal_prune_last_freed_bytes") == 4096);
	assert_true(value("mailwal_messages_total{result=\"journaled\"}") == 3);
	assert_true(value("mailwal_messages_total{result=\"passed_unjournaled\"}") == 0);
	mw_capture_excluded(&cap, "spam \"a\\b\"", 100);
	mw_capture_excluded(&cap, "spam \"a\\b\"", 11);
	assert_true(
	    value("mailwal_excluded_messages_total{section=\"spam \\\"a\\\\b\\\"\"}") ==
	    2);
	assert_true(
	    value("mailwal_excluded_bytes_total{section=\"spam \\\"a\\\\b\\\"\"}") ==
	    111);
	assert_true(value("mailwal_filesystem_avail_bytes") > 0);
	assert_true(value("mailwal_filesystem_floor_bytes") == 256.0 * 1024 * 1024);
	double now = (double)mw_clock_system()->now_us(mw_clock_system()) / 1e6;
	assert_true(now - value("mailwal_start_time_seconds") < 60);
	assert_true(now >= value("mailwal_start_time_seconds"));
}

static void
waits_are_a_histogram(void **state)
{
	(void)state;
	static const int64_t us[] = {0, 1000, 1001, 40000, 5000000, 5000001, 90000000};
	for (size_t i = 0; i < MW_COUNT(us); i++)
		mw_capture_waited(&cap, us[i]);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"0.001\"}") == 2);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"0.0025\"}") == 3);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"0.025\"}") == 3);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"0.05\"}") == 4);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"5\"}") == 5);
	assert_true(value("mailwal_commit_wait_seconds_bucket{le=\"+Inf\"}") == 7);
	assert_true(value("mailwal_commit_wait_seconds_count") == 7);
	double sum = value("mailwal_commit_wait_seconds_sum");
	assert_true(sum > 100.042 && sum < 100.043);
}

/* The file is the journal owner's, and still not trusted. */
static void
drills(void **state)
{
	(void)state;
	char big[6000];
	drilled("time 1795361590\npassed 0\nrestored 81\nmismatches 2\nrto 1.5\nrpo 0\n");
	assert_true(value("mailwal_drill_last_success") == 0);
	assert_true(value("mailwal_drill_mismatches") == 2);
	assert_true(value("mailwal_drill_rto_seconds") == 1.5);
	assert_true(value("mailwal_drill_last_run_timestamp_seconds") == 1795361590);
	drilled("time 1\nevil 3\npassed 1\" 7\nmismatches 1");
	assert_true(value("mailwal_drill_last_run_timestamp_seconds") == 1);
	assert_null(strstr(fetch(), "mailwal_drill_last_success"));
	assert_null(strstr(fetch(), "mailwal_drill_mismatches"));
	memset(big, '9', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	drilled(big);
	assert_null(strstr(fetch(), "mailwal_drill"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(well_formed),
	    cmocka_unit_test(counts),
	    cmocka_unit_test(waits_are_a_histogram),
	    cmocka_unit_test(drills),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
