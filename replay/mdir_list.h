/* mdir_list.h - the messages of a Maildir folder, while its readers rename them.
 *
 * A flag that changes, or a message that is seen, is a rename, and a name that comes or
 * goes while a directory is listed may be left out or given twice. So a directory that
 * changed meanwhile is listed again, until nothing comes that was not there before. A
 * message is known by its file's inode and the part of its name before ':', which a
 * rename leaves as they are (maildir(5)).
 */
#ifndef MW_REPLAY_MDIR_LIST_H
#define MW_REPLAY_MDIR_LIST_H

#include "journal/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mw_mdir_entry {
	char *name; /* as it was seen last */
	uint64_t ino;
	bool in_new; /* else in cur */
};

struct mw_mdir_list {
	struct mw_mdir_entry *v;
	size_t n, cap;
};

/* What lies in new and cur of the open directory `folder`, hidden names left out: first
 * new, then cur, by name. A directory that is not there is empty. MW_ENOMEM, and what
 * mw_fail_errno makes of a directory that cannot be read, with what was found before.
 * The caller frees it, also then. */
int mw_mdir_list(int folder, struct mw_mdir_list *ret, struct mw_err *err) MW_CHECK;
void mw_mdir_list_free(struct mw_mdir_list *l);

/* Where the messages of one folder are by now, for those that are not where a list has
 * them. Zeroed: not looked at yet. */
struct mw_mdir_now {
	struct mw_mdir_list l; /* by the part of the name before ':' */
	bool listed;
};
/* Opens a message that was listed as `name`, for reading, wherever a rename has brought
 * it; no link is followed, no pipe waited for. The folder is listed for the first one
 * that is missed, and again only where that list does not hold any more: a thousand
 * renames cost one listing. -1 and errno; ENOENT: it is gone. */
int mw_mdir_open(int folder, bool in_new, const char *name, struct mw_mdir_now *now);

#endif
