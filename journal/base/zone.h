/* zone.h - local time to seconds since 1970, in this host's zone or a named one.
 *
 * Threads: a named zone is the process's for the moment (TZ), so names are for options
 * that are read before other threads start.
 */
#ifndef MW_BASE_ZONE_H
#define MW_BASE_ZONE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/* Length of the zone's name at the beginning of s, such as Europe/Berlin; 0: none that
 * this host knows. */
size_t mw_zone_name(const char *s);

/* The fields of tm, which may be out of range as mktime(3) takes them, in that zone (n
 * bytes; n 0: this host's). Where the clocks were set back an hour comes twice: the later
 * one with `last`, else the earlier; an hour that the clocks left out lies between the
 * two. */
time_t mw_zone_time(const struct tm *tm, const char *zone, size_t n, bool last);

#endif
