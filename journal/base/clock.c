#include "journal/base/clock.h"

#include "journal/base/err.h"
#include "journal/base/zone.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define SEC INT64_C(1000000)

static int64_t
sys_now(const struct mw_clock *c)
{
	(void)c;
	struct timespec ts;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * SEC + ts.tv_nsec / 1000;
}

static int64_t
sys_mono(const struct mw_clock *c)
{
	(void)c;
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * SEC + ts.tv_nsec / 1000;
}

const struct mw_clock *
mw_clock_system(void)
{
	static const struct mw_clock c = {sys_now, sys_mono, NULL};
	return &c;
}

static int64_t
floor_sec(int64_t us)
{
	return us >= 0 ? us / SEC : -((-us + SEC - 1) / SEC);
}

void
mw_time_rfc3339(char *out, size_t n, int64_t us)
{
	time_t t = (time_t)floor_sec(us);
	struct tm tm;
	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(out, n, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year + 1900,
	               tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
	               (int)(us - (int64_t)t * SEC));
}

void
mw_time_local(char *out, size_t n, int64_t us)
{
	time_t t = (time_t)floor_sec(us);
	struct tm tm;
	if (!localtime_r(&t, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(out, n, "%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year + 1900,
	               tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

void
mw_time_imap(char *out, size_t n, int64_t us)
{
	time_t t = (time_t)floor_sec(us);
	struct tm tm;
	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(out, n, "%02d-%s-%04d %02d:%02d:%02d +0000", tm.tm_mday,
	               months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
	               tm.tm_sec);
}

/* One unit of a duration; longest names first so that "min" is not read as "m". */
static const struct {
	const char *name;
	int64_t us;
} units[] = {
    {"microseconds", 1},
    {"milliseconds", 1000},
    {"seconds", SEC},
    {"minutes", 60 * SEC},
    {"months", 2629800 * SEC}, /* 30.44 days, as systemd.time(7) */
    {"second", SEC},
    {"minute", 60 * SEC},
    {"month", 2629800 * SEC},
    {"weeks", 7 * 86400 * SEC},
    {"years", 31557600 * SEC},
    {"hours", 3600 * SEC},
    {"week", 7 * 86400 * SEC},
    {"year", 31557600 * SEC},
    {"hour", 3600 * SEC},
    {"days", 86400 * SEC},
    {"msec", 1000},
    {"min", 60 * SEC},
    {"sec", SEC},
    {"day", 86400 * SEC},
    {"ms", 1000},
    {"us", 1},
    {"hr", 3600 * SEC},
    {"M", 2629800 * SEC},
    {"y", 31557600 * SEC},
    {"w", 7 * 86400 * SEC},
    {"d", 86400 * SEC},
    {"h", 3600 * SEC},
    {"m", 60 * SEC},
    {"s", SEC},
};

static const char *
skip_space(const char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	return s;
}

/* Reads a number with an optional fraction; *ret_scaled is value * 1e6. */
static bool
number(const char **s, int64_t *ret_scaled)
{
	const char *p = *s;
	if (*p < '0' || *p > '9')
		return false;
	int64_t v = 0;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (v > INT64_C(900000000000))
			return false;
		v = v * 10 + (*p - '0');
	}
	v *= SEC;
	if (*p == '.') {
		int64_t f = SEC / 10;
		for (p++; *p >= '0' && *p <= '9'; p++, f /= 10)
			v += (*p - '0') * f;
	}
	*s = p;
	*ret_scaled = v;
	return true;
}

static bool
duration_terms(const char **s, int64_t *ret_us, bool need_unit)
{
	int64_t sum = 0;
	bool any = false;
	for (;;) {
		const char *p = skip_space(*s);
		int64_t v;
		if (!number(&p, &v))
			break;
		p = skip_space(p);
		size_t i, len = 0;
		for (i = 0; i < sizeof units / sizeof units[0]; i++) {
			len = strlen(units[i].name);
			if (strncmp(p, units[i].name, len) == 0 &&
			    !isalpha((unsigned char)p[len]))
				break;
		}
		int64_t unit = SEC;
		if (i < sizeof units / sizeof units[0]) {
			unit = units[i].us;
			p += len;
		} else if (need_unit || isalpha((unsigned char)*p)) {
			return false;
		}
		double d = (double)v / (double)SEC * (double)unit;
		if ((double)sum + d > 4e18) /* and a time less or plus it still fits */
			return false;
		sum += unit % SEC == 0 && v % SEC == 0 ? v / SEC * unit : (int64_t)d;
		any = true;
		*s = p;
	}
	*ret_us = sum;
	return any;
}

int
mw_duration_parse(const char *text, int64_t *ret_us)
{
	int64_t us;
	const char *s = text;
	if (!duration_terms(&s, &us, false) || *skip_space(s))
		return MW_EUSAGE;
	*ret_us = us;
	return 0;
}

static bool
two(const char **s, int *ret)
{
	if (!isdigit((unsigned char)(*s)[0]) || !isdigit((unsigned char)(*s)[1]))
		return false;
	*ret = ((*s)[0] - '0') * 10 + (*s)[1] - '0';
	*s += 2;
	return true;
}

/* "HH:MM[:SS[.frac]]" */
static bool
clock_part(const char **s, struct tm *tm, int64_t *ret_frac)
{
	int h, m, sec = 0;
	const char *p = *s;
	int64_t frac = 0;
	if (!two(&p, &h) || *p != ':')
		return false;
	p++;
	if (!two(&p, &m))
		return false;
	if (*p == ':') {
		p++;
		if (!two(&p, &sec))
			return false;
		if (*p == '.' || *p == ',') {
			int64_t f = SEC / 10;
			for (p++; isdigit((unsigned char)*p); p++, f /= 10)
				frac += (*p - '0') * f;
		}
	}
	if (h > 23 || m > 59 || sec > 60)
		return false;
	tm->tm_hour = h;
	tm->tm_min = m;
	tm->tm_sec = sec;
	*ret_frac = frac;
	*s = p;
	return true;
}

/* "Z", "UTC", "GMT", "+02:00", "+0200": *ret_off in seconds. */
static bool
zone_part(const char **s, long *ret_off)
{
	const char *p = skip_space(*s);
	if (*p == 'Z' || *p == 'z') {
		*ret_off = 0;
		*s = p + 1;
		return true;
	}
	if (strncasecmp(p, "UTC", 3) == 0 || strncasecmp(p, "GMT", 3) == 0) {
		*ret_off = 0;
		*s = p + 3;
		return true;
	}
	if (*p != '+' && *p != '-')
		return false;
	int sign = *p == '-' ? -1 : 1, h, m = 0;
	p++;
	if (!two(&p, &h))
		return false;
	if (*p == ':')
		p++;
	if (isdigit((unsigned char)*p) && !two(&p, &m))
		return false;
	if (h > 14 || m > 59)
		return false;
	*ret_off = sign * (h * 3600L + m * 60L);
	*s = p;
	return true;
}

static bool
valid_date(int y, int m, int d)
{
	static const int len[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (y % 4 == 0 && y % 100) || y % 400 == 0;
	return m >= 1 && m <= 12 && d >= 1 && d <= len[m - 1] + (m == 2 && leap);
}

/* The number of a month's name, from 1, and what follows; 0: none. */
static int
month_name(const char **s)
{
	for (int m = 0; m < 12; m++)
		if (strncasecmp(*s, months[m], 3) == 0 &&
		    !isalpha((unsigned char)(*s)[3])) {
			*s += 3;
			return m + 1;
		}
	return 0;
}

/* "21-Nov-2026" or, as mail has it, "21 Nov 2026". */
static bool
day_month_year(const char **s, int *ret_y, int *ret_m, int *ret_d)
{
	const char *p = *s;
	char *end;
	int a, b;
	if (!isdigit((unsigned char)*p))
		return false;
	*ret_d = (int)strtol(p, &end, 10);
	if (end - p > 2 || (*end != '-' && *end != ' '))
		return false;
	const char sep = *end;
	p = sep == ' ' ? skip_space(end) : end + 1;
	*ret_m = month_name(&p);
	if (!*ret_m || *p != sep)
		return false;
	p = sep == ' ' ? skip_space(p) : p + 1;
	if (!two(&p, &a) || !two(&p, &b))
		return false;
	*ret_y = a * 100 + b;
	*s = p;
	return true;
}

/* "2026-11-20", "21-Nov-2026", "21 Nov 2026" */
static bool
date_part(const char **s, struct tm *tm)
{
	const char *p = *s;
	int a, b, y, m, d;
	if (two(&p, &a) && isdigit((unsigned char)p[0])) { /* yyyy-mm-dd */
		if (!two(&p, &b) || *p++ != '-' || !two(&p, &m) || *p++ != '-' ||
		    !two(&p, &d))
			return false;
		y = a * 100 + b;
	} else {
		p = *s;
		if (!day_month_year(&p, &y, &m, &d))
			return false;
	}
	if (!valid_date(y, m, d))
		return false;
	tm->tm_year = y - 1900;
	tm->tm_mon = m - 1;
	tm->tm_mday = d;
	*s = p;
	return true;
}

/* "Mon", "Monday", with a comma or not: 0 is Sunday, -1: none. */
static int
weekday_part(const char **s)
{
	static const char *const names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
	                                    "Thursday", "Friday", "Saturday"};
	for (int i = 0; i < 7; i++) {
		size_t whole = strlen(names[i]);
		size_t n = strncasecmp(*s, names[i], whole) == 0 ? whole
		           : strncasecmp(*s, names[i], 3) == 0   ? 3
		                                                 : 0;
		const char *p = *s + n;
		if (n && (*p == ',' || *p == ' ' || *p == '\t' || *p == '\0')) {
			*s = skip_space(p + (*p == ','));
			return i;
		}
	}
	return -1;
}

static bool
relative(const char *s, int64_t now_us, int64_t *ret_us)
{
	int64_t us;
	const char *p = s;
	if (*p == '+' || *p == '-') {
		p++;
		if (!duration_terms(&p, &us, true) || *skip_space(p))
			return false;
		*ret_us = *s == '-' ? now_us - us : now_us + us;
		return true;
	}
	if (!duration_terms(&p, &us, true))
		return false;
	p = skip_space(p);
	if (*p && strcmp(p, "ago") != 0)
		return false;
	*ret_us = now_us - us;
	return true;
}

static int
weekday_of(int y, int m, int d)
{
	struct tm tm = {.tm_year = y, .tm_mon = m, .tm_mday = d, .tm_hour = 12};
	(void)timegm(&tm); /* fills in tm_wday; no zone is meant */
	return tm.tm_wday;
}

/* The day, the time of day, or both; a weekday before them. */
static bool
day_and_time(const char **s, struct tm *tm, int64_t *ret_frac, int *ret_weekday)
{
	const char *p = *s;
	int weekday = weekday_part(&p);
	*ret_weekday = -1;
	if (date_part(&p, tm)) {
		if (weekday >= 0 &&
		    weekday != weekday_of(tm->tm_year, tm->tm_mon, tm->tm_mday))
			return false; /* one of the two is not what was meant */
		tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
		if (*p == 'T' || *p == 't' || *p == ' ') {
			const char *q = skip_space(p + 1);
			if (clock_part(&q, tm, ret_frac))
				p = q;
			else if (*p != ' ')
				return false;
		}
	} else {
		if (weekday >= 0)
			tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
		if (!clock_part(&p, tm, ret_frac) && weekday < 0)
			return false;
		*ret_weekday = weekday;
	}
	*s = p;
	return true;
}

static bool
absolute(const char *s, int64_t now_us, bool last, int64_t *ret_us)
{
	time_t now = (time_t)floor_sec(now_us);
	struct tm tm;
	int64_t frac = 0;
	long off = 0;
	int weekday;
	const char *p = s;
	if (!localtime_r(&now, &tm))
		return false;
	int today = tm.tm_wday;
	tm.tm_isdst = -1;
	if (!day_and_time(&p, &tm, &frac, &weekday))
		return false;
	bool zone = zone_part(&p, &off);
	const char *name = skip_space(p);
	size_t n_name = zone ? 0 : mw_zone_name(name);
	if (n_name)
		p = name + n_name;
	if (*skip_space(p))
		return false;
	if (weekday >= 0) /* the last one, today if its time has come */
		tm.tm_mday -= (today - weekday + 7) % 7;
	for (int back = 0;; back++) {
		struct tm try = tm;
		try.tm_mday -= 7 * back;
		time_t t =
		    zone ? timegm(&try) - off : mw_zone_time(&try, name, n_name, last);
		*ret_us = (int64_t)t * SEC + frac;
		if (weekday < 0 || *ret_us <= now_us || back)
			return true;
	}
}

static int
parse(const char *text, int64_t now_us, bool last, int64_t *ret_us)
{
	static const struct {
		const char *word;
		int days;
	} words[] = {{"today", 0}, {"yesterday", -1}, {"tomorrow", 1}};
	const char *s = skip_space(text);

	if (strcasecmp(s, "now") == 0) {
		*ret_us = now_us;
		return 0;
	}
	for (size_t i = 0; i < 3; i++) {
		if (strcasecmp(s, words[i].word) != 0)
			continue;
		time_t now = (time_t)floor_sec(now_us);
		struct tm tm;
		if (!localtime_r(&now, &tm))
			return MW_EUSAGE;
		tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
		tm.tm_mday += words[i].days;
		tm.tm_isdst = -1;
		*ret_us = (int64_t)mw_zone_time(&tm, NULL, 0, last) * SEC;
		return 0;
	}
	if (*s == '@') {
		const char *p = s + 1;
		int64_t v;
		if (!number(&p, &v) || *skip_space(p))
			return MW_EUSAGE;
		*ret_us = v;
		return 0;
	}
	if (absolute(s, now_us, last, ret_us) || relative(s, now_us, ret_us))
		return 0;
	return MW_EUSAGE;
}

int
mw_time_parse(const char *text, int64_t now_us, int64_t *ret_us)
{
	return parse(text, now_us, false, ret_us);
}

int
mw_time_parse_last(const char *text, int64_t now_us, int64_t *ret_us)
{
	return parse(text, now_us, true, ret_us);
}

void
mw_duration_human(char *out, size_t n, int64_t us)
{
	int64_t s = us / SEC;
	if (us < 0)
		(void)snprintf(out, n, "-");
	else if (us < SEC)
		(void)snprintf(out, n, "%lld ms", (long long)(us / 1000));
	else if (s < 120)
		(void)snprintf(out, n, "%lld s", (long long)s);
	else if (s < 7200)
		(void)snprintf(out, n, "%lld min", (long long)(s / 60));
	else if (s < 48 * 3600)
		(void)snprintf(out, n, "%lld h", (long long)(s / 3600));
	else
		(void)snprintf(out, n, "%lld d", (long long)(s / 86400));
}

void
mw_size_human(char *out, size_t n, uint64_t bytes)
{
	static const char *const u[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t i = 0;
	while (v >= 1024 && i + 1 < sizeof u / sizeof u[0])
		v /= 1024, i++;
	(void)snprintf(out, n, i ? "%.1f %s" : "%.0f %s", v, u[i]);
}

int
mw_size_parse(const char *text, uint64_t *ret)
{
	const char *s = skip_space(text);
	int64_t v;
	if (!number(&s, &v))
		return MW_EUSAGE;
	s = skip_space(s);
	static const char letters[] = "KMGTP";
	double mul = 1;
	const char *l = *s ? strchr(letters, toupper((unsigned char)*s)) : NULL;
	if (l) {
		for (long i = 0; i <= l - letters; i++)
			mul *= 1024;
		s++;
		if (*s == 'i')
			s++;
	}
	if (*s == 'B' || *s == 'b')
		s++;
	if (*skip_space(s))
		return MW_EUSAGE;
	double d = (double)v / (double)SEC * mul;
	if (d > 9e18)
		return MW_EUSAGE;
	*ret = (uint64_t)d;
	return 0;
}
