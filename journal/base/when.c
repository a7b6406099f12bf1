/* when.c - times, durations and sizes as people write them; see clock.h. */
#include "journal/base/clock.h"

#include "journal/base/clock_int.h"
#include "journal/base/err.h"
#include "journal/base/zone.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

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
    {"usec", 1},
    {"min", 60 * SEC},
    {"sec", SEC},
    {"day", 86400 * SEC},
    {"ms", 1000},
    {"us", 1},
    {"µs", 1}, /* U+00B5 */
    {"μs", 1}, /* U+03BC */
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

/* One digit or two. */
static bool
short_number(const char **s, int *ret)
{
	if (two(s, ret))
		return true;
	if (!isdigit((unsigned char)**s))
		return false;
	*ret = *(*s)++ - '0';
	return true;
}

/* "HH:MM[:SS[.frac]]" */
static bool
clock_part(const char **s, struct tm *tm, int64_t *ret_frac)
{
	int h, m, sec = 0;
	const char *p = *s;
	int64_t frac = 0;
	if (!short_number(&p, &h) || *p != ':')
		return false;
	p++;
	if (!short_number(&p, &m))
		return false;
	if (*p == ':') {
		p++;
		if (!short_number(&p, &sec))
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
		if (strncasecmp(*s, mw_months[m], 3) == 0 &&
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

/* "2026-11-20", "26-11-20": the year of two digits is one from 1969 to 2068. */
static bool
year_month_day(const char **s, int *ret_y, int *ret_m, int *ret_d)
{
	const char *p = *s;
	int a, b;
	if (!two(&p, &a))
		return false;
	if (two(&p, &b))
		*ret_y = a * 100 + b;
	else
		*ret_y = a + (a < 69 ? 2000 : 1900);
	if (*p++ != '-' || !short_number(&p, ret_m) || *p++ != '-' ||
	    !short_number(&p, ret_d))
		return false;
	*s = p;
	return true;
}

/* "2026-11-20", "21-Nov-2026", "21 Nov 2026" */
static bool
date_part(const char **s, struct tm *tm)
{
	const char *p = *s;
	int y, m, d;
	if (!year_month_day(&p, &y, &m, &d) && !day_month_year(&p, &y, &m, &d))
		return false;
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

/* "today", "yesterday", "tomorrow": *ret is 0, -1, 1. */
static bool
day_word(const char **s, int *ret)
{
	static const struct {
		const char *word;
		int days;
	} words[] = {{"today", 0}, {"yesterday", -1}, {"tomorrow", 1}};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		size_t n = strlen(words[i].word);
		if (strncasecmp(*s, words[i].word, n) != 0 ||
		    ((*s)[n] != '\0' && (*s)[n] != ' '))
			continue;
		*s += n;
		*ret = words[i].days;
		return true;
	}
	return false;
}

static bool
relative(const char *s, int64_t now_us, int64_t *ret_us)
{
	int64_t us;
	const char *p = s;
	if (*p == '+' || *p == '-') {
		p++;
		if (!duration_terms(&p, &us, false) || *skip_space(p))
			return false;
		*ret_us = *s == '-' ? now_us - us : now_us + us;
		return true;
	}
	if (!duration_terms(&p, &us, true))
		return false;
	p = skip_space(p);
	bool left = strcmp(p, "left") == 0;
	if (*p && !left && strcmp(p, "ago") != 0)
		return false;
	*ret_us = left ? now_us + us : now_us - us;
	return true;
}

static int
weekday_of(int y, int m, int d)
{
	struct tm tm = {.tm_year = y, .tm_mon = m, .tm_mday = d, .tm_hour = 12};
	(void)timegm(&tm); /* fills in tm_wday; no zone is meant */
	return tm.tm_wday;
}

struct given {
	struct tm tm;
	int64_t frac;
	int weekday; /* that stands for the last such day; -1: none */
	bool named;  /* the day is told from today: by so many, or that weekday */
	int days;
	const char *zone; /* its name, n_zone 0: the offset, or the local one */
	size_t n_zone;
	bool fixed;
	long off;
};

/* The day, the time of day, or both; a weekday before them. */
static bool
day_and_time(const char **s, struct given *g)
{
	const char *p = *s;
	struct tm *tm = &g->tm;
	int weekday = weekday_part(&p);
	g->weekday = -1;
	g->named = weekday < 0 && day_word(&p, &g->days);
	if (g->named || date_part(&p, tm)) {
		if (weekday >= 0 &&
		    weekday != weekday_of(tm->tm_year, tm->tm_mon, tm->tm_mday))
			return false; /* one of the two is not what was meant */
		tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
		if (((*p == 'T' || *p == 't') && !g->named) || *p == ' ') {
			const char *q = skip_space(p + 1);
			if (clock_part(&q, tm, &g->frac))
				p = q;
			else if (*p != ' ')
				return false;
		}
	} else {
		if (weekday >= 0)
			tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
		if (!clock_part(&p, tm, &g->frac) && weekday < 0)
			return false;
		g->weekday = weekday;
		g->named = true;
	}
	*s = p;
	return true;
}

static time_t
time_of(const struct given *g, struct tm tm, bool last)
{
	return g->fixed ? timegm(&tm) - g->off
	                : mw_zone_time(&tm, g->zone, g->n_zone, last);
}

/* The second behind the day before: clocks may jump over midnight, or show it twice. */
static time_t
first_second(const struct given *g, struct tm day)
{
	day.tm_mday--;
	day.tm_hour = 23;
	day.tm_min = day.tm_sec = 59;
	return time_of(g, day, true) + 1;
}

/* Where it is another day in that zone, today is that one. */
static void
move_today(struct given *g, time_t now)
{
	struct tm next = g->tm;
	next.tm_mday++;
	if (first_second(g, g->tm) > now)
		g->tm.tm_mday--;
	else if (first_second(g, next) <= now)
		g->tm.tm_mday++;
	g->tm.tm_mday += g->days;
}

static bool
absolute(const char *s, int64_t now_us, bool last, int64_t *ret_us)
{
	time_t now = (time_t)mw_floor_sec(now_us);
	struct given g = {.frac = 0};
	const char *p = s;
	if (!localtime_r(&now, &g.tm))
		return false;
	g.tm.tm_isdst = -1;
	if (!day_and_time(&p, &g))
		return false;
	g.fixed = zone_part(&p, &g.off);
	g.zone = skip_space(p);
	g.n_zone = g.fixed ? 0 : mw_zone_name(g.zone);
	if (g.n_zone)
		p = g.zone + g.n_zone;
	if (*skip_space(p))
		return false;
	if (g.named)
		move_today(&g, now);
	const int today = weekday_of(g.tm.tm_year, g.tm.tm_mon, g.tm.tm_mday);
	if (g.weekday >= 0) /* the last one, today if its time has come */
		g.tm.tm_mday -= (today - g.weekday + 7) % 7;
	for (int back = 0;; back++) {
		struct tm try = g.tm;
		try.tm_mday -= 7 * back;
		*ret_us = (int64_t)time_of(&g, try, last) * SEC + g.frac;
		if (g.weekday < 0 || *ret_us <= now_us || back)
			return true;
	}
}

static int
parse(const char *text, int64_t now_us, bool last, int64_t *ret_us)
{
	const char *s = skip_space(text);

	if (strcasecmp(s, "now") == 0) {
		*ret_us = now_us;
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
