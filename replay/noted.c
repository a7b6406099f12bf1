#include "replay/noted.h"

#include "journal/base/clock.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <stdio.h>

void
mw_noted(const char *journal, const char *name, bool make, const struct mw_buf *lines)
{
	const struct mw_clock *clock = mw_clock_system();
	char dir[4096], file[40];
	MW_BUF_AUTO all = {0};
	struct mw_err err;
	(void)snprintf(dir, sizeof dir, "%.4000s/ledger", journal);
	(void)snprintf(file, sizeof file, "last.%.20s", name);
	mw_buf_printf(&all, "time %lld\n", (long long)(clock->now_us(clock) / 1000000));
	mw_buf_putstr(&all, mw_buf_str(lines));
	if (mw_buf_ok(&all) == 0 && mw_cli_as_owner(journal, &err) == 0) {
		if (make) /* FORMAT.md I1 */
			(void)!mw_fs_posix()->mkdir(mw_fs_posix(), dir);
		(void)!mw_fs_write_file(mw_fs_posix(), dir, file, all.p, all.n);
	}
	mw_cli_as_self();
}
