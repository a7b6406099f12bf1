#include "journal/base/zone.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	NAME_MAX_BYTES = 64
};

size_t
mw_zone_name(const char *s)
{
	char path[NAME_MAX_BYTES + 40];
	size_t n = 0;
	bool slash = false;
	for (; isalnum((unsigned char)s[n]) || (s[n] && strchr("_+-/", s[n])); n++)
		slash = slash || s[n] == '/';
	/* Without a slash it could be a weekday, or a word. */
	if (!slash || n > NAME_MAX_BYTES || !isalpha((unsigned char)s[0]))
		return 0;
	(void)snprintf(path, sizeof path, "/usr/share/zoneinfo/%.*s", (int)n, s);
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? n : 0;
}

static bool
same_fields(const struct tm *a, const struct tm *b)
{
	return a->tm_min == b->tm_min && a->tm_hour == b->tm_hour &&
	       a->tm_mday == b->tm_mday && a->tm_mon == b->tm_mon &&
	       a->tm_year == b->tm_year;
}

static time_t
here(const struct tm *tm, bool last)
{
	struct tm wish = *tm;
	bool any = false;
	time_t t[2], best = 0;
	(void)timegm(&wish); /* brings the fields into range */
	for (int dst = 0; dst < 2; dst++) {
		struct tm try = wish, back;
		try.tm_isdst = dst;
		t[dst] = mktime(&try);
		if (!localtime_r(&t[dst], &back) || !same_fields(&back, &wish))
			continue;
		if (!any || (last ? t[dst] > best : t[dst] < best))
			best = t[dst];
		any = true;
	}
	if (any)
		return best;
	return (t[0] < t[1]) == last ? t[1] : t[0];
}

time_t
mw_zone_time(const struct tm *tm, const char *zone, size_t n, bool last)
{
	char name[NAME_MAX_BYTES + 2];
	if (!n || n > NAME_MAX_BYTES)
		return here(tm, last);
	const char *old = getenv("TZ");
	char *keep = old ? strdup(old) : NULL;
	(void)snprintf(name, sizeof name, ":%.*s", (int)n, zone);
	(void)setenv("TZ", name, 1);
	tzset();
	time_t t = here(tm, last);
	if (keep)
		(void)setenv("TZ", keep, 1);
	else
		(void)unsetenv("TZ");
	tzset();
	free(keep);
	return t;
}
