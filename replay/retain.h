/* retain.h - what hold, prune and erase share on the command line. */
#ifndef MW_REPLAY_RETAIN_H
#define MW_REPLAY_RETAIN_H

#include "journal/retain/retain.h"
#include "replay/cmd.h"

struct mw_retain_job {
	struct mw_retain_owner owner;
	char by[32];
	int lock; /* -1: none */
};

/* Fills j; for writing it takes on the owner's identity and the lock too: one prune, hold
 * or erase at a time. */
int mw_retain_begin(struct mw_cli *cli, bool write, struct mw_retain_job *j,
                    struct mw_err *err) MW_CHECK;
/* Before writing: the reader is closed (one open at a time), the owner found. */
int mw_retain_write(struct mw_cli *cli, struct mw_retain_job *j,
                    struct mw_err *err) MW_CHECK;
void mw_retain_end(struct mw_retain_job *j);
/* MW_EDAMAGED where records cannot be read that may be holds. */
int mw_retain_no_hold_lost(struct mw_cli *cli, struct mw_err *err) MW_CHECK;
/* As [first, last] pairs of sequence numbers; NULL: none. */
json_t *mw_lost_json(const struct mw_lost *l);
/* May n messages go? --yes, or a person at the terminal who types the number. 0, or
 * MW_EUSAGE, MW_EDECLINED, MW_ECANCEL. */
int mw_retain_confirm(uint64_t n, bool yes, const char *what,
                      struct mw_err *err) MW_CHECK;

#endif
