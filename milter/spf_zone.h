/* spf_zone.h - DNS answers from a file, for tests: mailwald-spf --zone FILE.
 *
 * A line is "NAME TYPE VALUE"; NAME and VALUE may hold %XX. NAME "*.suffix" fits what has
 * no line of its own. TYPE is A, AAAA, MX, TXT, PTR, CNAME (followed), or ANY; VALUE of
 * MX is the host alone. VALUE may be !timeout (for ANY: of types that the name has not),
 * !hang (no answer, ever) or !crash (the process aborts). "@latency MS" delays every
 * answer.
 */
#ifndef MW_MILTER_SPF_ZONE_H
#define MW_MILTER_SPF_ZONE_H

#include "journal/base/err.h"

#include <stddef.h>

struct mw_zone;

enum mw_zone_answer {
	MW_ZONE_DATA,
	MW_ZONE_NO_DATA,
	MW_ZONE_NO_NAME,
	MW_ZONE_TIMEOUT
};

enum {
	MW_ZONE_VALUES = 64 /* most values of one answer */
};

int mw_zone_load(const char *path, struct mw_zone **ret, struct mw_err *err) MW_CHECK;
void mw_zone_free(struct mw_zone *z); /* NULL ok */
/* The values of a name, which stay the zone's. */
enum mw_zone_answer mw_zone_lookup(const struct mw_zone *z, const char *name,
                                   const char *type, const char *value[MW_ZONE_VALUES],
                                   size_t *ret_n);

#endif
