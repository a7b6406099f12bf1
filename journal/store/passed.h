/* passed.h - how many messages went past the journal (on_failure = accept), kept until an
 * operator has taken note: the file `passed` of a journal.
 *
 * A note, not the log: it is written in place, 512 bytes that were there before, so that
 * it can be written when the disk is full. A reader may meet it at any time; one that is
 * not whole reads as MW_EDAMAGED. Writers: the daemon; the command where none runs.
 */
#ifndef MW_STORE_PASSED_H
#define MW_STORE_PASSED_H

#include "journal/base/err.h"

#include <stdint.h>

struct mw_passed {
	uint64_t count;            /* ever */
	uint64_t acknowledged;     /* of these */
	int64_t first_us, last_us; /* of those not acknowledged; 0: none */
};

/* What is on record for the journal in dir; zeros where there is no file yet. */
int mw_passed_read(const char *dir, struct mw_passed *ret, struct mw_err *err) MW_CHECK;
int mw_passed_write(const char *dir, const struct mw_passed *p,
                    struct mw_err *err) MW_CHECK;

#endif
