/* mtalog_time.c - the time stamps of log lines. */
#include "replay/mtalog.h"

#include <string.h>
#include <time.h>

#define DAY_US (INT64_C(86400) * 1000000)

/* n decimal digits at the front; -1 if they are not there. */
static int
digits(struct mw_str *s, size_t n)
{
	int v = 0;
	if (s->n < n)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return -1;
		v = v * 10 + (s->p[i] - '0');
	}
	*s = mw_str(s->p + n, s->n - n);
	return v;
}

static bool
eat(struct mw_str *s, char c)
{
	if (!s->n || s->p[0] != c)
		return false;
	*s = mw_str(s->p + 1, s->n - 1);
	return true;
}

/* "12:00:00" */
static bool
clock_time(struct mw_str *s, struct tm *tm)
{
	int h = digits(s, 2), m, sec;
	if (h < 0 || !eat(s, ':') || (m = digits(s, 2)) < 0 || !eat(s, ':') ||
	    (sec = digits(s, 2)) < 0 || h > 23 || m > 59 || sec > 60)
		return false;
	tm->tm_hour = h;
	tm->tm_min = m;
	tm->tm_sec = sec;
	return true;
}

/* Days since 1970 of a civil date (Gregorian). */
static int64_t
days(int y, int m, int d)
{
	int64_t yy = y - (m <= 2), era = yy / 400, yoe = yy - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static bool
real_date(int y, int m, int d)
{
	static const int len[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	return m >= 1 && m <= 12 && d >= 1 && d <= len[m - 1] &&
	       (m != 2 || d < 29 || leap);
}

/* In the local zone; false where there is no such day in that year. */
static bool
local(const struct tm *of, int year, int64_t *ret_us)
{
	struct tm tm = *of;
	if (!real_date(year, of->tm_mon + 1, of->tm_mday))
		return false;
	tm.tm_year = year - 1900;
	tm.tm_isdst = -1;
	time_t t = mktime(&tm);
	/* The hour that comes twice when summer time ends: taken as the later one, since
	 * what seems delivered too late is put back, and too early might be lost. */
	struct tm winter = *of;
	winter.tm_year = year - 1900;
	winter.tm_isdst = 0;
	time_t later = mktime(&winter);
	if (later > t && winter.tm_isdst == 0 && winter.tm_hour == of->tm_hour)
		t = later;
	if (t == (time_t)-1)
		return false;
	*ret_us = (int64_t)t * 1000000;
	return true;
}

/* ".123456", of any length; false: there is none. */
static bool
fraction(struct mw_str *s, int64_t *ret_us)
{
	int64_t us = 0, unit = 100000;
	struct mw_str t = *s;
	int c = -1;
	if ((!eat(&t, '.') && !eat(&t, ',')) || (c = digits(&t, 1)) < 0)
		return false;
	for (; c >= 0; c = digits(&t, 1), unit /= 10)
		us += c * unit;
	*s = t;
	*ret_us = us;
	return true;
}

/* "Nov 22 12:00:00": of the last such day that is not after ref. A day's grace, since
 * clocks and zones of two machines differ. */
static bool
classic(struct mw_str s, int64_t ref_us, int64_t *ret_us, bool *ret_coarse,
        struct mw_str *rest)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm = {0}, at;
	time_t ref = (time_t)(ref_us / 1000000);
	int64_t us = 0;
	int m = 0;
	if (s.n < 15 || s.p[3] != ' ' || !localtime_r(&ref, &at))
		return false;
	while (m < 12 && memcmp(months + (size_t)m * 3, s.p, 3) != 0)
		m++;
	if (m == 12)
		return false;
	tm.tm_mon = m;
	s = mw_str(s.p + 4, s.n - 4);
	tm.tm_mday = eat(&s, ' ') ? digits(&s, 1) : digits(&s, 2);
	if (tm.tm_mday < 1 || !eat(&s, ' ') || !clock_time(&s, &tm))
		return false;
	*ret_coarse = !fraction(&s, &us);
	if (!eat(&s, ' '))
		return false;
	*rest = s;
	for (int y = at.tm_year + 1901; y > at.tm_year + 1891; y--)
		if (local(&tm, y, ret_us) && *ret_us <= ref_us + DAY_US) {
			*ret_us += us;
			return true;
		}
	return false;
}

/* "1795351647.123456", as journalctl -o short-unix has it. */
static bool
since_1970(struct mw_str s, int64_t *ret_us, bool *ret_coarse, struct mw_str *rest)
{
	int high = digits(&s, 5), low = digits(&s, 5);
	int64_t us = 0;
	if (high < 0 || low < 0 || !fraction(&s, &us) || !eat(&s, ' '))
		return false;
	*ret_coarse = false;
	*ret_us = ((int64_t)high * 100000 + low) * 1000000 + us;
	*rest = s;
	return true;
}

/* "Mon 2026-11-23 12:00:00 CET", as journalctl -o short-full has it: UTC, or the local
 * zone, whose name also tells which of an hour is meant that comes twice. */
static bool
full(struct mw_str s, int64_t *ret_us, bool *ret_coarse, struct mw_str *rest)
{
	static const char weekdays[] = "SunMonTueWedThuFriSat";
	struct tm tm = {0};
	char name[16];
	int64_t us = 0;
	size_t n = 0;
	int w = 0, y, m, d;
	while (w < 7 && (s.n < 4 || memcmp(weekdays + (size_t)w * 3, s.p, 3) != 0))
		w++;
	if (w == 7)
		return false;
	s = mw_str(s.p + 3, s.n - 3);
	if (!eat(&s, ' ') || (y = digits(&s, 4)) < 1970 || !eat(&s, '-') ||
	    (m = digits(&s, 2)) < 0 || !eat(&s, '-') || (d = digits(&s, 2)) < 0 ||
	    !eat(&s, ' ') || !clock_time(&s, &tm) || !real_date(y, m, d))
		return false;
	*ret_coarse = !fraction(&s, &us);
	if (!eat(&s, ' '))
		return false;
	while (n < s.n && n < sizeof name - 1 && s.p[n] != ' ') {
		name[n] = s.p[n];
		n++;
	}
	name[n] = 0;
	s = mw_str(s.p + n, s.n - n);
	if (!n || !eat(&s, ' ') || !s.n || s.p[0] == '[') /* -o verbose */
		return false;
	*rest = s;
	if (strcmp(name, "UTC") == 0) {
		*ret_us = (days(y, m, d) * 86400 + (int64_t)tm.tm_hour * 3600 +
		           (int64_t)tm.tm_min * 60 + tm.tm_sec) *
		              1000000 +
		          us;
		return true;
	}
	tm.tm_year = y - 1900;
	tm.tm_mon = m - 1;
	tm.tm_mday = d;
	for (int summer = 0; summer < 2; summer++) {
		struct tm at = tm;
		at.tm_isdst = summer;
		time_t t = mktime(&at);
		if (t == (time_t)-1 || at.tm_isdst != summer || !at.tm_zone ||
		    strcmp(at.tm_zone, name) != 0)
			continue;
		*ret_us = (int64_t)t * 1000000 + us;
		return true;
	}
	return false;
}

/* "Z", "+00:00", "+0000" or nothing (local). */
static bool
zone(struct mw_str *s, bool *ret_local, int64_t *ret_offset_us)
{
	*ret_local = false;
	*ret_offset_us = 0;
	if (eat(s, 'Z'))
		return true;
	if (!s->n || (s->p[0] != '+' && s->p[0] != '-')) {
		*ret_local = true;
		return true;
	}
	int sign = s->p[0] == '-' ? -1 : 1;
	*s = mw_str(s->p + 1, s->n - 1);
	int h = digits(s, 2);
	(void)eat(s, ':');
	int m = digits(s, 2);
	if (h < 0 || m < 0 || h > 15 || m > 59)
		return false;
	*ret_offset_us = (int64_t)sign * (h * 3600 + m * 60) * 1000000;
	return true;
}

/* "2026-11-22T12:00:00.123456+01:00", RFC 3339, with 'T' or a blank. */
static bool
iso(struct mw_str s, int64_t *ret_us, bool *ret_coarse, struct mw_str *rest)
{
	struct tm tm = {0};
	int64_t us = 0, offset;
	bool is_local;
	int y = digits(&s, 4), m, d;
	if (y < 1970 || !eat(&s, '-') || (m = digits(&s, 2)) < 0 || !eat(&s, '-') ||
	    (d = digits(&s, 2)) < 0 || !(eat(&s, 'T') || eat(&s, ' ')) ||
	    !clock_time(&s, &tm) || !real_date(y, m, d))
		return false;
	*ret_coarse = !fraction(&s, &us);
	if (!zone(&s, &is_local, &offset) || !eat(&s, ' '))
		return false;
	if (is_local) {
		tm.tm_mon = m - 1;
		tm.tm_mday = d;
		if (!local(&tm, y, ret_us))
			return false;
		*ret_us += us;
	} else {
		int64_t sec = days(y, m, d) * 86400 + (int64_t)tm.tm_hour * 3600 +
		              (int64_t)tm.tm_min * 60 + tm.tm_sec;
		*ret_us = sec * 1000000 + us - offset;
	}
	*rest = s;
	return true;
}

bool
mw_mtalog_time(struct mw_str line, int64_t ref_us, int64_t *ret_us, bool *ret_coarse,
               struct mw_str *ret_rest)
{
	struct mw_str s = line;
	if (eat(&s, '<')) { /* a priority, as it goes over the wire */
		size_t i = 0;
		while (i < s.n && i < 3 && s.p[i] >= '0' && s.p[i] <= '9')
			i++;
		s = mw_str(s.p + i, s.n - i);
		if (!i || !eat(&s, '>'))
			return false;
		if (s.n > 2 && s.p[0] == '1' && s.p[1] == ' ') /* RFC 5424 */
			s = mw_str(s.p + 2, s.n - 2);
	}
	return classic(s, ref_us, ret_us, ret_coarse, ret_rest) ||
	       iso(s, ret_us, ret_coarse, ret_rest) ||
	       since_1970(s, ret_us, ret_coarse, ret_rest) ||
	       full(s, ret_us, ret_coarse, ret_rest);
}
