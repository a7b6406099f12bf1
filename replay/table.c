#include "replay/table.h"

#include <libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>

struct mw_table {
	struct libscols_table *t;
	size_t n_cols, n_rows;
	bool header;
};

struct mw_table *
mw_table_new(const struct mw_table_col *cols, size_t n, bool header)
{
	struct mw_table *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->t = scols_new_table();
	t->n_cols = n;
	t->header = header;
	for (size_t i = 0; t->t && i < n; i++) {
		int flags = (cols[i].flags & MW_TABLE_RIGHT ? SCOLS_FL_RIGHT : 0) |
		            (cols[i].flags & MW_TABLE_TRUNC ? SCOLS_FL_TRUNC : 0);
		if (!scols_table_new_column(t->t, cols[i].name, cols[i].width, flags)) {
			mw_table_free(t);
			return NULL;
		}
	}
	if (!t->t) {
		free(t);
		return NULL;
	}
	return t;
}

int
mw_table_row(struct mw_table *t, const char *const *cells)
{
	struct libscols_line *line = scols_table_new_line(t->t, NULL);
	if (!line)
		return MW_ENOMEM;
	for (size_t i = 0; i < t->n_cols; i++)
		if (scols_line_set_data(line, i, cells[i] ? cells[i] : "") < 0)
			return MW_ENOMEM;
	t->n_rows++;
	return 0;
}

size_t
mw_table_rows(const struct mw_table *t)
{
	return t->n_rows;
}

int
mw_table_print(struct mw_table *t)
{
	if (t->n_rows == 0)
		return 0;
	(void)scols_table_enable_noheadings(t->t, !t->header);
	int r = scols_print_table(t->t);
	scols_table_remove_lines(t->t);
	t->n_rows = 0;
	t->header = false;
	if (ferror(stdout))
		return MW_EIO;
	return r < 0 ? MW_ENOMEM : 0;
}

void
mw_table_free(struct mw_table *t)
{
	if (!t)
		return;
	scols_unref_table(t->t);
	free(t);
}
