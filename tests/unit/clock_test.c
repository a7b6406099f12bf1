/* clock_test.c - journal/base/clock: what people write for times, durations and sizes.
 */
#include "journal/base/clock.h"

#include "journal/base/err.h"
#include "journal/base/util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define SEC INT64_C(1000000)
/* 2026-11-22 10:11:12.5 in Berlin (UTC+1) */
#define NOW (INT64_C(1795338672) * SEC + 500000)

static void
times_parse(void **state)
{
	static const struct {
		const char *text, *utc;
	} cases[] = {
	    {"now", "2026-11-22T09:11:12.500000Z"},
	    {"NOW", "2026-11-22T09:11:12.500000Z"},
	    {"today", "2026-11-21T23:00:00.000000Z"},
	    {"yesterday", "2026-11-20T23:00:00.000000Z"},
	    {"tomorrow", "2026-11-22T23:00:00.000000Z"},
	    {"today UTC", "2026-11-22T00:00:00.000000Z"},
	    {"yesterday UTC", "2026-11-21T00:00:00.000000Z"},
	    {"tomorrow Pacific/Auckland", "2026-11-22T11:00:00.000000Z"},
	    {"today Pacific/Kiritimati", "2026-11-21T10:00:00.000000Z"},
	    {"today +1400", "2026-11-21T10:00:00.000000Z"},
	    {"today -1000", "2026-11-21T10:00:00.000000Z"}, /* there the 21st */
	    {"yesterday Pacific/Honolulu", "2026-11-20T10:00:00.000000Z"},
	    {"Yesterday 18:00", "2026-11-21T17:00:00.000000Z"},
	    {"yesterday ", "2026-11-20T23:00:00.000000Z"},
	    {"today 7:05 UTC", "2026-11-22T07:05:00.000000Z"},
	    {"26-11-20", "2026-11-19T23:00:00.000000Z"},
	    {"26-1-2 8:00", "2026-01-02T07:00:00.000000Z"},
	    {"99-11-20 UTC", "1999-11-20T00:00:00.000000Z"},
	    {"2026-1-2", "2026-01-01T23:00:00.000000Z"},
	    {"2026-11-20 8:05", "2026-11-20T07:05:00.000000Z"},
	    {"8:5", "2026-11-22T07:05:00.000000Z"},
	    {"2026-11-20", "2026-11-19T23:00:00.000000Z"},
	    {"2026-11-20 08:00", "2026-11-20T07:00:00.000000Z"},
	    {"  2026-11-20   08:00  ", "2026-11-20T07:00:00.000000Z"},
	    {"2026-11-20 08:00:30", "2026-11-20T07:00:30.000000Z"},
	    {"2026-11-20 08:00:30.25", "2026-11-20T07:00:30.250000Z"},
	    {"2026-11-20 08:00:30,1234567", "2026-11-20T07:00:30.123456Z"},
	    {"2026-07-01 08:00", "2026-07-01T06:00:00.000000Z"}, /* summer time */
	    {"2024-02-29", "2024-02-28T23:00:00.000000Z"},
	    {"2026-11-20 08:00 UTC", "2026-11-20T08:00:00.000000Z"},
	    {"2026-11-20 08:00 Europe/London", "2026-11-20T08:00:00.000000Z"},
	    {"2026-07-01 08:00 America/New_York", "2026-07-01T12:00:00.000000Z"},
	    {"2026-11-20 Asia/Kolkata", "2026-11-19T18:30:00.000000Z"},
	    {"2026-11-20 08:00 Etc/GMT+3", "2026-11-20T11:00:00.000000Z"},
	    {"2026-07-01 08:00 Europe/Berlin", "2026-07-01T06:00:00.000000Z"},
	    {"2026-10-25 02:30", "2026-10-25T00:30:00.000000Z"}, /* comes twice */
	    {"2026-10-25 01:59:59", "2026-10-24T23:59:59.000000Z"},
	    {"2026-10-25 03:00", "2026-10-25T02:00:00.000000Z"},
	    {"2026-03-29 01:59:59", "2026-03-29T00:59:59.000000Z"},
	    {"2026-03-29 02:30", "2026-03-29T00:30:00.000000Z"}, /* left out */
	    {"2026-03-29 03:00", "2026-03-29T01:00:00.000000Z"},
	    {"2026-11-20T08:00:00Z", "2026-11-20T08:00:00.000000Z"},
	    {"2026-11-20t08:00:00z", "2026-11-20T08:00:00.000000Z"},
	    {"2026-11-20T08:00:00+02:00", "2026-11-20T06:00:00.000000Z"},
	    {"2026-11-20T08:00:00.5-0330", "2026-11-20T11:30:00.500000Z"},
	    {"2026-11-20 +01", "2026-11-19T23:00:00.000000Z"},
	    {"08:00", "2026-11-22T07:00:00.000000Z"},
	    {"23:59:59", "2026-11-22T22:59:59.000000Z"},
	    {"21-Nov-2026", "2026-11-20T23:00:00.000000Z"},
	    {"1-jan-2026 12:00", "2026-01-01T11:00:00.000000Z"},
	    {"Mon, 02 Nov 2026 10:00:00 +0100", "2026-11-02T09:00:00.000000Z"},
	    {"2 Nov 2026 10:00:00 GMT", "2026-11-02T10:00:00.000000Z"},
	    {"Thu, 2 Jul 2026", "2026-07-01T22:00:00.000000Z"},
	    {"Mon 2026-11-02 10:00", "2026-11-02T09:00:00.000000Z"},
	    {"friday 2026-11-20T08:00:00Z", "2026-11-20T08:00:00.000000Z"},
	    {"Mon 10:00", "2026-11-16T09:00:00.000000Z"},
	    {"Sun 10:00", "2026-11-22T09:00:00.000000Z"},
	    {"Sun 10:30", "2026-11-15T09:30:00.000000Z"}, /* not yet today */
	    {"Sunday 10:30 +0200", "2026-11-22T08:30:00.000000Z"},
	    {"Sat", "2026-11-20T23:00:00.000000Z"},
	    {"01:00 Pacific/Honolulu", "2026-11-21T11:00:00.000000Z"},
	    {"08:00 -1000", "2026-11-21T18:00:00.000000Z"},
	    {"Sat Pacific/Honolulu", "2026-11-21T10:00:00.000000Z"},
	    {"Sun Pacific/Honolulu", "2026-11-15T10:00:00.000000Z"},
	    {"Thursday", "2026-11-18T23:00:00.000000Z"},
	    {"-2h", "2026-11-22T07:11:12.500000Z"},
	    {"-1h30min", "2026-11-22T07:41:12.500000Z"},
	    {"+5min", "2026-11-22T09:16:12.500000Z"},
	    {"-90", "2026-11-22T09:09:42.500000Z"},
	    {"-1min 30", "2026-11-22T09:09:42.500000Z"},
	    {"5min left", "2026-11-22T09:16:12.500000Z"},
	    {"-500000usec", "2026-11-22T09:11:12.000000Z"},
	    {"-500000µs", "2026-11-22T09:11:12.000000Z"},
	    {"2 days ago", "2026-11-20T09:11:12.500000Z"},
	    {"7d", "2026-11-15T09:11:12.500000Z"},
	    {"1 week ago", "2026-11-15T09:11:12.500000Z"},
	    {"500ms ago", "2026-11-22T09:11:12.000000Z"},
	    {"@1700000000", "2023-11-14T22:13:20.000000Z"},
	    {"@1700000000.5", "2023-11-14T22:13:20.500000Z"},
	    {"@0", "1970-01-01T00:00:00.000000Z"},
	    {"1960-01-01 00:00:00.25 UTC", "1960-01-01T00:00:00.250000Z"},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		int64_t us = 0;
		char text[40];
		if (mw_time_parse(cases[i].text, NOW, &us) < 0)
			fail_msg("'%s' is not understood", cases[i].text);
		mw_time_rfc3339(text, sizeof text, us);
		if (strcmp(text, cases[i].utc) != 0)
			fail_msg("'%s' is read as %s, want %s", cases[i].text, text,
			         cases[i].utc);
	}
}

static void
an_end_leaves_nothing_out(void **state)
{
	static const struct {
		const char *text, *utc;
	} cases[] = {
	    {"2026-10-25 02:30", "2026-10-25T01:30:00.000000Z"},
	    {"2026-10-25 02:30 Europe/Berlin", "2026-10-25T01:30:00.000000Z"},
	    {"2026-11-01 01:30 America/New_York", "2026-11-01T06:30:00.000000Z"},
	    {"2026-10-25 01:30", "2026-10-24T23:30:00.000000Z"},
	    {"2026-03-29 02:30", "2026-03-29T01:30:00.000000Z"},
	    {"2026-11-20 08:00", "2026-11-20T07:00:00.000000Z"},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		int64_t us = 0;
		char text[40];
		assert_int_equal(mw_time_parse_last(cases[i].text, NOW, &us), 0);
		mw_time_rfc3339(text, sizeof text, us);
		assert_string_equal(text, cases[i].utc);
	}
}

/* Clocks jump over midnight in Beirut and Santiago, and show it twice in Havana. */
static void
a_day_may_begin_at_another_hour(void **state)
{
	static const struct {
		int64_t now;
		const char *text, *utc;
	} cases[] = {
	    {1774733400, "today Asia/Beirut", "2026-03-27T22:00:00.000000Z"}, /* 23:30 */
	    {1774733400, "tomorrow Asia/Beirut", "2026-03-28T21:00:00.000000Z"},
	    {1774737000, "yesterday 12:00 Asia/Beirut", "2026-03-28T10:00:00.000000Z"},
	    {1788665400, "today America/Santiago", "2026-09-05T04:00:00.000000Z"},
	    {1793507400, "today America/Havana", "2026-11-01T04:00:00.000000Z"},
	    {1793507400, "yesterday America/Havana", "2026-10-31T04:00:00.000000Z"},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		int64_t us = 0;
		char text[40];
		assert_int_equal(mw_time_parse(cases[i].text, cases[i].now * SEC, &us),
		                 0);
		mw_time_rfc3339(text, sizeof text, us);
		assert_string_equal(text, cases[i].utc);
	}
}

static void
wrong_times_are_refused(void **state)
{
	static const char *const cases[] = {
	    "",
	    " ",
	    "soon",
	    "2026-11-20 08:00 Mars/Olympus",
	    "2026-11-20 08:00 ../../etc/passwd",
	    "2026-11-20 08:00 Europe/Berlin x",
	    "2026-11-20 08:00 Europe/../UTC",
	    "2026",
	    "2026-11",
	    "2026-11-31",
	    "2026-02-29",
	    "2100-02-29",
	    "2026-13-01",
	    "2026-00-10",
	    "2026-01-00",
	    "226-1-1",
	    "2026-1-",
	    "21-11-2026",
	    "1-11-20",
	    "yesterdays",
	    "todayT08:00",
	    "yesterday 25:00",
	    "Mon today",
	    "today yesterday",
	    "2026-11-20 24:00",
	    "2026-11-20 08:60",
	    "2026-11-20 08:00:61",
	    "2026-11-20 :00",
	    "2026-11-20 8:",
	    "2026-11-20 008:00",
	    "Mon, 03 Nov 2026 10:00:00 +0100",
	    "Tue 2026-11-02",
	    "Mo 10:00",
	    "Monda 10:00",
	    "Mon10:00",
	    "Mon 10:00x",
	    "Mon, 02-Nov 2026",
	    "Mon, 02 November 2026",
	    "02 Nov",
	    "Mon -2h",
	    "2026-11-20 08:00 o'clock",
	    "2026-11-20T",
	    "2026-11-20T08",
	    "2026-11-20T08:00:00+25:00",
	    "2026-11-20T08:00:00+02:75",
	    "2026-11-20T08:00:00 CET",
	    "20261120",
	    "31-Feb-2026",
	    "0-Jan-2026",
	    "+5-Jan-2026",
	    "-5-Jan-2026",
	    "021-Nov-2026",
	    "21-Nov-26",
	    "21-November-2026",
	    "@",
	    "@x",
	    "@-1",
	    "@1700000000x",
	    "90",
	    "-90x",
	    "left",
	    "2 parsecs ago",
	    "2 days before",
	    "-",
	    "+",
	    "- ",
	    "2 days ago ago",
	    "99999999999y",
	    "yesterday 08:00x",
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		int64_t us = 42;
		if (mw_time_parse(cases[i], NOW, &us) == 0)
			fail_msg("'%s' is taken for a time: %lld", cases[i],
			         (long long)us);
	}
}

static void
times_print(void **state)
{
	char text[40];

	(void)state;
	mw_time_imap(text, sizeof text, NOW);
	assert_string_equal(text, "22-Nov-2026 09:11:12 +0000");
	mw_time_imap(text, sizeof text, 0);
	assert_string_equal(text, "01-Jan-1970 00:00:00 +0000");
	mw_time_local(text, sizeof text, NOW);
	assert_string_equal(text, "2026-11-22 10:11:12");
	mw_time_rfc3339(text, sizeof text, -1);
	assert_string_equal(text, "1969-12-31T23:59:59.999999Z");
	assert_in_range(mw_clock_system()->now_us(mw_clock_system()),
	                INT64_C(1600000000) * SEC, INT64_C(9000000000) * SEC);
	int64_t a = mw_clock_system()->mono_us(mw_clock_system());
	assert_true(mw_clock_system()->mono_us(mw_clock_system()) >= a);
}

static void
durations_parse(void **state)
{
	static const struct {
		const char *text;
		int64_t us; /* -1: refused */
	} cases[] = {
	    {"0", 0},
	    {"90", 90 * SEC},
	    {"90s", 90 * SEC},
	    {"1.5", SEC + SEC / 2},
	    {"250ms", 250000},
	    {"7us", 7},
	    {"5min", 300 * SEC},
	    {"5m", 300 * SEC},
	    {"1M", 2629800 * SEC},
	    {"12h", 43200 * SEC},
	    {"30d", 30 * 86400 * SEC},
	    {"30 days", 30 * 86400 * SEC},
	    {"2w", 14 * 86400 * SEC},
	    {"1y", 31557600 * SEC},
	    {"1y 6months", (31557600 + 6 * 2629800) * SEC},
	    {"1h30min", 5400 * SEC},
	    {"0.5h", 1800 * SEC},
	    {" 1 h ", 3600 * SEC},
	    {"", -1},
	    {"h", -1},
	    {"-1h", -1},
	    {"1x", -1},
	    {"1hour2", 3602 * SEC},
	    {"1 hours ago", -1},
	    {"0x10", -1},
	    {"1e3", -1},
	    {"99999999999999", -1},
	    {"100000y 100000y", -1},
	    {"90parsecs", -1},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		int64_t us = -1;
		int r = mw_duration_parse(cases[i].text, &us);
		if ((r < 0) != (cases[i].us < 0) || us != cases[i].us)
			fail_msg("'%s' gives %d, %lld", cases[i].text, r, (long long)us);
	}
}

static void
sizes_parse(void **state)
{
	static const struct {
		const char *text;
		uint64_t n;
		bool wrong;
	} cases[] = {
	    {"0", 0, false},
	    {"512", 512, false},
	    {"512B", 512, false},
	    {"1K", 1024, false},
	    {"1k", 1024, false},
	    {"10 KiB", 10240, false},
	    {"64M", 64 << 20, false},
	    {"1.5G", UINT64_C(3) << 29, false},
	    {"4T", UINT64_C(4) << 40, false},
	    {"2PB", UINT64_C(2) << 50, false},
	    {"", 0, true},
	    {"K", 0, true},
	    {"-1", 0, true},
	    {"1X", 0, true},
	    {"1KM", 0, true},
	    {"1 K x", 0, true},
	    {"99999P", 0, true},
	    {"ten", 0, true},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		uint64_t n = 0;
		int r = mw_size_parse(cases[i].text, &n);
		if ((r < 0) != cases[i].wrong || n != cases[i].n)
			fail_msg("'%s' gives %d, %llu", cases[i].text, r,
			         (unsigned long long)n);
	}
}

static void
numbers_for_people(void **state)
{
	static const struct {
		int64_t us;
		const char *want;
	} durations[] = {{0, "0 ms"},
	                 {1500, "1 ms"},
	                 {90 * SEC, "90 s"},
	                 {600 * SEC, "10 min"},
	                 {7200 * SEC, "2 h"},
	                 {4 * 86400 * SEC, "4 d"},
	                 {-1, "-"}};
	static const struct {
		uint64_t n;
		const char *want;
	} sizes[] = {{0, "0 B"},
	             {1023, "1023 B"},
	             {1024, "1.0 KiB"},
	             {1234567, "1.2 MiB"},
	             {UINT64_MAX, "16384.0 PiB"}};
	char text[24];

	(void)state;
	for (size_t i = 0; i < MW_COUNT(durations); i++) {
		mw_duration_human(text, sizeof text, durations[i].us);
		assert_string_equal(text, durations[i].want);
	}
	for (size_t i = 0; i < MW_COUNT(sizes); i++) {
		mw_size_human(text, 16, sizes[i].n);
		assert_string_equal(text, sizes[i].want);
	}
}
int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(times_parse),
	    cmocka_unit_test(an_end_leaves_nothing_out),
	    cmocka_unit_test(a_day_may_begin_at_another_hour),
	    cmocka_unit_test(wrong_times_are_refused),
	    cmocka_unit_test(times_print),
	    cmocka_unit_test(durations_parse),
	    cmocka_unit_test(sizes_parse),
	    cmocka_unit_test(numbers_for_people),
	};

	/* A zone with summer time, told in full: no zone files are needed. */
	setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
