/* mfi.h - the same session behind libmilter (milter_engine = libmilter).
 *
 * One listening place only. Threads: libmilter runs the callbacks of one connection on
 * changing threads, one at a time; an end of message waits in its callback. libmilter's
 * own signal thread must not get our signals: see main.c.
 *
 * LIMITS: where libmilter itself finds no memory for a packet of macros it leaves them
 * out and does not say so. That message's record lacks what they tell (queue ID, TLS,
 * login); its addresses and its content do not come that way. The native engine refuses
 * such a message for the time being.
 */
#ifndef MW_MILTER_MFI_H
#define MW_MILTER_MFI_H

#include "milter/capture.h"
#include "milter/listen.h"

/* One per process. */
int mw_mfi_start(struct mw_capture *cap, const struct mw_listeners *l,
                 struct mw_err *err) MW_CHECK;
/* True once libmilter has left by itself (it took SIGTERM, or failed). */
bool mw_mfi_ended(void);
/* Stops libmilter, waits (at most about 9 s) until every end of message is answered. */
void mw_mfi_stop(void);

#endif
