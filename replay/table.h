/* table.h - tables for people, by libsmartcols (its only user is table.c).
 *
 * Rows are kept until mw_table_print, which writes and drops them; the column names are
 * written once. Control characters and broken bytes in cells come out escaped. One
 * thread.
 */
#ifndef MW_REPLAY_TABLE_H
#define MW_REPLAY_TABLE_H

#include "journal/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct mw_table;

enum mw_table_flag {
	MW_TABLE_RIGHT = 1, /* numbers */
	MW_TABLE_TRUNC = 2, /* may be cut to fit a terminal */
};

struct mw_table_col {
	const char *name;
	double width; /* below 1: share of the terminal; else characters */
	unsigned flags;
};

/* NULL: out of memory. cols need not outlive the call. */
struct mw_table *mw_table_new(const struct mw_table_col *cols, size_t n, bool header);
/* One cell per column, copied. 0 or MW_ENOMEM. */
int mw_table_row(struct mw_table *t, const char *const *cells) MW_CHECK;
size_t mw_table_rows(const struct mw_table *t); /* kept */
/* To standard output: 0, MW_ENOMEM or MW_EIO. */
int mw_table_print(struct mw_table *t) MW_CHECK;
void mw_table_free(struct mw_table *t); /* NULL ok */

#endif
