/* noted.h - what a command leaves for mailwald's metrics, which links no JSON: lines "key
 * number" in the file last.NAME of a journal's ledger.
 */
#ifndef MW_REPLAY_NOTED_H
#define MW_REPLAY_NOTED_H

#include "journal/base/buf.h"

/* lines: as above, behind the time, which is put in front. Nothing is told where it
 * cannot be written: the journal may be another's, or a copy on read-only ground. make:
 * also where there is no ledger yet; not for who only looks. */
void mw_noted(const char *journal, const char *name, bool make,
              const struct mw_buf *lines);

#endif
