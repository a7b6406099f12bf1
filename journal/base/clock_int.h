/* clock_int.h - what printing and reading of times share. */
#ifndef MW_BASE_CLOCK_INT_H
#define MW_BASE_CLOCK_INT_H

#include <stdint.h>

#define SEC INT64_C(1000000)

extern const char *const mw_months[12]; /* "Jan" … */

static inline int64_t
mw_floor_sec(int64_t us)
{
	return us >= 0 ? us / SEC : -((-us + SEC - 1) / SEC);
}

#endif
