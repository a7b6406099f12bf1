#include "journal/store/store_int.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

const char *
mw_store_above(const char *dir, char buf[PATH_MAX])
{
	(void)snprintf(buf, PATH_MAX, "%s", dir);
	for (size_t n = strlen(buf); n > 1 && buf[n - 1] == '/'; n--)
		buf[n - 1] = 0;
	char *slash = strrchr(buf, '/');
	if (!slash)
		(void)snprintf(buf, PATH_MAX, ".");
	else
		slash[slash == buf] = 0;
	return buf;
}

int
mw_store_place(const struct mw_fs *fs, const char *dir, const char **ret_memory,
               struct mw_err *err)
{
	char parent[PATH_MAX];
	const char *name = NULL;
	*ret_memory = NULL;
	if (!fs->lies_on)
		return 0;
	int kind = fs->lies_on(fs, dir, &name);
	if (kind == -ENOENT)
		kind = fs->lies_on(fs, mw_store_above(dir, parent), &name);
	if (kind == MW_FS_NETWORK) {
		(void)mw_fail(err, MW_ECONF, "%s is on a network file system (%s)", dir,
		              name);
		(void)mw_err_hint(
		    err, "a journal is written on a local disk only: another host's lock "
		         "is not seen there, and the index is mapped into memory; give "
		         "another journal_dir");
		return MW_ECONF;
	}
	if (kind == MW_FS_MEMORY)
		*ret_memory = name;
	return 0; /* what cannot be looked at is told by who opens it */
}
