/* drill_scratch.h - a place of its own for a drill: a private directory, and in it, where
 * asked for, a private Dovecot. Both are gone afterwards.
 *
 * Life: zeroed → mw_scratch_make → mw_scratch_maildir or mw_scratch_dovecot →
 * mw_scratch_end. A drill that was killed leaves a directory behind, unlocked: the next
 * one to use the same base removes it. One thread.
 */
#ifndef MW_REPLAY_DRILL_SCRATCH_H
#define MW_REPLAY_DRILL_SCRATCH_H

#include "journal/base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mw_scratch {
	char dir[PATH_MAX]; /* "" until made */
	int lock;
	pid_t dovecot;                     /* 0: none */
	char target[PATH_MAX + 64];        /* TARGET text */
	char password_file[PATH_MAX + 64]; /* for Dovecot */
};

/* Makes "mailwal-drill-XXXXXX" in base (NULL: $TMPDIR, else /var/tmp), for its owner
 * only. MW_EPERM, MW_ENOTFOUND, MW_ENOSPC. */
int mw_scratch_make(const char *base, struct mw_scratch *s, struct mw_err *err) MW_CHECK;
/* The target text of Maildirs in it. */
void mw_scratch_maildir(struct mw_scratch *s);
/* Starts a Dovecot on a free loopback port, mail as the user `uid`, every mailbox with
 * one random password. MW_EUNAVAIL where none is installed or it does not start. */
int mw_scratch_dovecot(struct mw_scratch *s, uid_t uid, gid_t gid,
                       struct mw_err *err) MW_CHECK;
/* Ends that Dovecot; mail stays until mw_scratch_end. Nothing to end is fine. */
void mw_scratch_stop(struct mw_scratch *s);
/* Is there room for so many bytes? MW_ENOSPC. */
int mw_scratch_room(const struct mw_scratch *s, uint64_t bytes,
                    struct mw_err *err) MW_CHECK;
/* Ends Dovecot and removes everything. Zeroed ok; again ok. MW_EIO names what stayed. */
int mw_scratch_end(struct mw_scratch *s, struct mw_err *err);

#endif
