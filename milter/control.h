/* control.h - the daemon's side of journal/store/control.h: status, note, roll, import.
 *
 * One thread, one request at a time, in the order in which they are whole: who is silent
 * holds up nobody, and goes after 5 s, or when more come than there is room for. Imports
 * get threads of their own.
 */
#ifndef MW_MILTER_CONTROL_H
#define MW_MILTER_CONTROL_H

#include "milter/capture.h"

struct mw_control;

/* handover(arg, fd) gives the listening sockets to the peer of fd (handover.h) and makes
 * the daemon end; it runs in the control thread. 1: done, the answer is given; negative:
 * refused. NULL: not offered. */
struct mw_control_hooks {
	int (*handover)(void *arg, int fd, struct mw_err *err);
	void *arg;
};

int mw_control_start(struct mw_capture *cap, const struct mw_control_hooks *hooks,
                     struct mw_control **ret, struct mw_err *err) MW_CHECK;
void mw_control_stop(struct mw_control *c); /* NULL ok; removes the socket */
/* The status object, as `status` answers it. */
void mw_control_status(struct mw_capture *cap, struct mw_buf *out);

#endif
