#include "journal/base/clock.h"

#include "journal/base/clock_int.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

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

void
mw_time_rfc3339(char *out, size_t n, int64_t us)
{
	time_t t = (time_t)mw_floor_sec(us);
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
	time_t t = (time_t)mw_floor_sec(us);
	struct tm tm;
	if (!localtime_r(&t, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(out, n, "%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year + 1900,
	               tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

const char *const mw_months[12] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

void
mw_time_imap(char *out, size_t n, int64_t us)
{
	time_t t = (time_t)mw_floor_sec(us);
	struct tm tm;
	if (!gmtime_r(&t, &tm))
		memset(&tm, 0, sizeof tm);
	(void)snprintf(out, n, "%02d-%s-%04d %02d:%02d:%02d +0000", tm.tm_mday,
	               mw_months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
	               tm.tm_sec);
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
