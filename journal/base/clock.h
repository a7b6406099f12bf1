/* clock.h - time behind a table, so that tests can lie. Nobody else calls time(). */
#ifndef MW_BASE_CLOCK_H
#define MW_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

struct mw_clock {
	int64_t (*now_us)(const struct mw_clock *c);  /* wall clock, µs since 1970 UTC */
	int64_t (*mono_us)(const struct mw_clock *c); /* monotonic µs */
	void *ctx;
};

const struct mw_clock *mw_clock_system(void);

/* RFC 3339 in UTC with microseconds, e.g. 2026-11-22T10:11:12.123456Z; out >= 28. */
void mw_time_rfc3339(char *out, size_t n, int64_t us);
/* Local time, "2026-11-22 10:11:12". */
void mw_time_local(char *out, size_t n, int64_t us);
/* IMAP date-time (RFC 9051): "22-Nov-2026 10:11:12 +0000", without quotes; out >= 27. */
void mw_time_imap(char *out, size_t n, int64_t us);
/* Parses the journalctl forms: "2026-11-20 08:00[:00[.5]]", "2026-11-20",
 * "26-11-20", "8:00", "now", "today", "yesterday 18:00", "tomorrow", "-2h", "+5min",
 * "-90" (seconds), "2 days ago", "7d" (seven days ago), "5min left", "@1700000000[.5]",
 * RFC 3339, "21-Nov-2026", mail's own "Mon, 02 Nov 2026 10:00:00 +0100". A weekday may
 * stand before each date, and must be that day's; before a time of day, or alone, it is
 * the last such day. Local zone unless Z, UTC, an offset or a zone such as Europe/Berlin
 * (see zone.h) is given. Of an hour that comes twice, where clocks are set back, the
 * earlier is meant, or with _last the later: so that a span from one to the other leaves
 * nothing out. Returns 0 or MW_EUSAGE. */
int mw_time_parse(const char *text, int64_t now_us, int64_t *ret_us);
int mw_time_parse_last(const char *text, int64_t now_us, int64_t *ret_us);
/* "30d", "12h", "5min", "1y 6months", "90" (seconds) to µs; 0 or MW_EUSAGE. */
int mw_duration_parse(const char *text, int64_t *ret_us);
/* "2 s", "3 min", "5 h", "2 d" for people. */
void mw_duration_human(char *out, size_t n, int64_t us);
/* "1.2 KiB" … for people; out >= 16. */
void mw_size_human(char *out, size_t n, uint64_t bytes);
/* "64M", "1G", "10 KiB", "512" to bytes (powers of 1024); 0 or MW_EUSAGE. */
int mw_size_parse(const char *text, uint64_t *ret);

#endif
