/* list.h - mail of a selection, printed: what list shows, and other commands in its way.
 */
#ifndef MW_REPLAY_LIST_H
#define MW_REPLAY_LIST_H

#include "replay/select.h"

struct mw_list_opts {
	struct mw_cli *cli;
	struct mw_query q;
	bool tsv, header;
	uint64_t limit; /* 0: none; the newest, unless the query says since when */
	/* Only items that it takes (1; 0, or an error that ends it), asked in the order
	 * of the walk; NULL: all. */
	int (*take)(void *arg, const struct mw_item *it);
	void *arg;
};

/* If argv[*i] is one of -o, --no-header, --limit, takes it: 1, 0, or MW_EUSAGE. */
int mw_list_option(struct mw_list_opts *o, int argc, char **argv, int *i,
                   struct mw_err *err);
/* Prints it all, to --json too. The exit status; *ret_n (NULL ok) rows were printed. */
int mw_list_run(const struct mw_list_opts *o, uint64_t *ret_n);

#endif
