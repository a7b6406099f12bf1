/* intake.h - imports at work in this daemon (journal/store/intake.h), a thread each.
 *
 * Life: mw_intakes_new → mw_intakes_take … → mw_intakes_free, which ends what still runs:
 * messages that came whole stay. Threads: take and free by the control thread's owner.
 */
#ifndef MW_MILTER_INTAKE_H
#define MW_MILTER_INTAKE_H

#include "milter/capture.h"

#include <sys/types.h>

struct mw_intakes;

int mw_intakes_new(struct mw_capture *cap, struct mw_intakes **ret,
                   struct mw_err *err) MW_CHECK;
/* Answers "ok" and serves fd in a thread; true: fd was taken over. Else the error was
 * answered (MW_ELOCKED: as many as may be are at work). */
bool mw_intakes_take(struct mw_intakes *v, int fd, uid_t uid);
void mw_intakes_free(struct mw_intakes *v); /* NULL ok; waits */

#endif
