/* target_mbox.h - an mbox file and its lock; private to target_mbox*.c.
 *
 * The file may lie in a directory of somebody else, who lays there what he likes: root
 * follows no link and cuts no file for him. Of links only root's and our own count.
 */
#ifndef MW_REPLAY_TARGET_MBOX_H
#define MW_REPLAY_TARGET_MBOX_H

#include "replay/target.h"

#include <limits.h>

struct mw_mbox_lock {
	char path[PATH_MAX];
	int fd; /* -1: not held */
};

/* flags: of open(2). With O_CREAT, a new one is (as root) the directory's owner's.
 * A descriptor, or negative: MW_ENOTFOUND, MW_EPERM a link of another, … */
int mw_mbox_open(const char *path, int flags, struct mw_err *err) MW_CHECK;
/* FILE.lock, waited for; that of a dead mailwal of this host is broken, and what it left
 * half-written cut off. Makes the directory, if asked to. MW_ELOCKED, MW_ECANCEL, … */
int mw_mbox_lock(struct mw_mbox_lock *l, const struct mw_target *t, const char *path,
                 struct mw_err *err) MW_CHECK;
/* For a dry run: would its directory be there, or be made? */
int mw_mbox_parent_dry(const struct mw_target *t, const char *path,
                       struct mw_err *err) MW_CHECK;
/* Notes where a torn append of ours would begin. */
int mw_mbox_lock_note(const struct mw_mbox_lock *l, uint64_t size,
                      struct mw_err *err) MW_CHECK;
void mw_mbox_unlock(struct mw_mbox_lock *l);

#endif
