/* spf_sandbox.h - locks mailwald-spf in: what it may still do is ask DNS and answer.
 *
 * Called once, by the only thread, before the first question. In this order: the user,
 * limits, no core, death with the parent, no new privileges, no file but those under
 * /etc, /run and the libraries (Landlock, where the kernel has it), and a list of system
 * calls (x86-64 and arm64): no exec, no fork, no file opened for writing, no listening,
 * no executable memory.
 */
#ifndef MW_MILTER_SPF_SANDBOX_H
#define MW_MILTER_SPF_SANDBOX_H

#include "journal/base/err.h"

#include <sys/types.h>

/* uid, gid: (uid_t)-1 keeps the user. parent: 0, or the process to die with. MW_EPERM
 * when a lock that must be there cannot be had. */
int mw_spf_sandbox(uid_t uid, gid_t gid, pid_t parent, struct mw_err *err) MW_CHECK;

#endif
