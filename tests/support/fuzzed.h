/* fuzzed.h - a journal that hostile bytes are captured into: what the fuzz targets of the
 * front ends share. Nothing is synced; made once, left open, its files gone at exit.
 */
#ifndef MW_TEST_FUZZED_H
#define MW_TEST_FUZZED_H

#include "milter/session.h"

#include <stdbool.h>

extern struct mw_store *fuzzed_store; /* NULL before fuzzed_start */
extern struct mw_capture
    fuzzed_cap; /* over it; 20 recipients and 100,000 bytes at most */

void fuzzed_start(void);

/* Ends the program and says what is not so, unless it is. */
void require(bool ok, const char *what);

#endif
