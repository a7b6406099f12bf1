/* mbox_from.c - the From_ line of an mbox. */
#include "replay/mbox_int.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char days[] = "SunMonTueWedThuFriSat";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static bool
number(struct mw_str s, int low, int high, int *ret)
{
	int v = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || v > 9999)
			return false;
		v = v * 10 + (s.p[i] - '0');
	}
	*ret = v;
	return s.n && v >= low && v <= high;
}

static int
name_at(struct mw_str s, const char *names)
{
	for (int i = 0; s.n == 3 && names[3 * i]; i++)
		if (strncasecmp(s.p, names + 3 * i, 3) == 0)
			return i;
	return -1;
}

static bool
clock_time(struct mw_str s, struct tm *tm)
{
	struct mw_str h, m, rest = s, sec = mw_str("0", 1);
	if (!mw_str_cut(rest, ':', &h, &rest))
		return false;
	m = rest;
	(void)mw_str_cut(rest, ':', &m, &sec); /* seconds may be missing */
	return number(h, 0, 23, &tm->tm_hour) && number(m, 0, 59, &tm->tm_min) &&
	       number(sec, 0, 60, &tm->tm_sec);
}

/* "+0100", "GMT": seconds east of Greenwich. Names of other zones say too little. */
static bool
zone(struct mw_str s, int *ret)
{
	int v;
	*ret = 0;
	if (mw_str_ieq(s, MW_STR("GMT")) || mw_str_ieq(s, MW_STR("UTC")) ||
	    mw_str_ieq(s, MW_STR("Z")))
		return true;
	if (s.n != 5 || (s.p[0] != '+' && s.p[0] != '-') ||
	    !number(mw_str(s.p + 1, 4), 0, 1459, &v))
		return false;
	*ret = (s.p[0] == '-' ? -1 : 1) * (v / 100 * 3600 + v % 100 * 60);
	return true;
}

/* The last of them, where there are more. */
static size_t
words(struct mw_str s, struct mw_str *v, size_t most)
{
	size_t n = 0, i = 0;
	while (i < s.n) {
		while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t'))
			i++;
		size_t at = i;
		while (i < s.n && s.p[i] != ' ' && s.p[i] != '\t')
			i++;
		if (i > at && n == most)
			memmove(v, v + 1, --n * sizeof *v);
		if (i > at)
			v[n++] = mw_str(s.p + at, i - at);
	}
	return n;
}

/* "Thu Nov 19 10:00[:00] [ZONE] 2026 [ZONE]" from v on. */
static bool
date(const struct mw_str *v, size_t n, int64_t *ret_us, bool *ret_zone)
{
	struct tm tm = {0};
	int year, east = 0;
	if (n < 5 || name_at(v[0], days) < 0 || (tm.tm_mon = name_at(v[1], months)) < 0 ||
	    !number(v[2], 1, 31, &tm.tm_mday) || !clock_time(v[3], &tm))
		return false;
	size_t at = 4;
	*ret_zone = false;
	if (!number(v[at], 1900, 9999, &year)) {
		*ret_zone = zone(v[at++], &east);
		if (at == n || !number(v[at], 1900, 9999, &year))
			return false;
	}
	if (at + 1 < n && !*ret_zone)
		*ret_zone = zone(v[at + 1], &east);
	tm.tm_year = year - 1900;
	*ret_us = ((int64_t)timegm(&tm) - east) * 1000000;
	return true;
}

/* What only mailwal puts between sender and date. */
static bool
is_own(const char *sender_end, const char *date)
{
	return date - sender_end == 3 && memcmp(sender_end, "   ", 3) == 0;
}

int
mw_from_line(struct mw_str line, struct mw_from *ret)
{
	struct mw_str v[24];
	int64_t us;
	bool has_zone;
	if (!mw_str_starts(line, MW_STR("From ")) || line.n > MW_FROM_MAX)
		return 0;
	line = mw_str_trim(mw_str(line.p + 5, line.n - 5));
	size_t n = words(line, v, MW_COUNT(v));
	/* The last date: a sender's name may hold another (and blanks, quoted). */
	for (size_t i = n; i-- > 0;) {
		if (!date(v + i, n - i, &us, &has_zone))
			continue;
		struct mw_str s = mw_str_trim(mw_str(line.p, (size_t)(v[i].p - line.p)));
		bool own = s.n && is_own(s.p + s.n, v[i].p);
		if (mw_str_ieq(s, MW_STR("MAILER-DAEMON")) || mw_str_eq(s, MW_STR("-")))
			s = MW_STR("");
		*ret = (struct mw_from){s, us, has_zone, own};
		return 1;
	}
	return 0;
}

size_t
mw_from_write(struct mw_str sender, int64_t us, char *line, size_t room)
{
	char who[1000];
	/* 1900 to 9999: no line is read with another year */
	const time_t oldest = -2208988800, latest = 253402300799;
	time_t sec = MW_MIN(MW_MAX((time_t)(us / 1000000), oldest), latest);
	struct tm tm;
	size_t n = MW_MIN(sender.n, sizeof who - 1);
	mw_assert(gmtime_r(&sec, &tm));
	for (size_t i = 0; i < n; i++)
		who[i] = (unsigned char)sender.p[i] <= 32 ? '_' : sender.p[i];
	who[n] = '\0';
	int k = snprintf(line, room, "From %s   %.3s %.3s %2d %02d:%02d:%02d %d\n",
	                 n ? who : "MAILER-DAEMON", days + tm.tm_wday * 3,
	                 months + tm.tm_mon * 3, tm.tm_mday, tm.tm_hour, tm.tm_min,
	                 tm.tm_sec, tm.tm_year + 1900);
	return (size_t)k < room ? (size_t)k : room - 1;
}
