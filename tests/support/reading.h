/* reading.h - a journal in a directory of the test's own, and what a command has when it
 * reads it. Everything fails in words.
 */
#ifndef MW_TEST_READING_H
#define MW_TEST_READING_H

#include "replay/cmd.h"

/* A new journal in a new directory below /tmp, open for writing, its delimiter '+'. */
struct scratch {
	char root[64]; /* the directory */
	char dir[80];  /* the journal in it */
};
struct mw_store *scratch_make(struct scratch *s);
int scratch_remove(const struct scratch *s); /* 0: all of it is gone */

/* The journal read with settings that the caller fills in. Not to be moved. */
struct reading {
	struct mw_conf conf;
	struct mw_cli cli;
	struct mw_store *store;
	char *journal;
	struct mw_arena *arena;
};
void reading_begin(struct reading *r, struct scratch *s);
void reading_end(struct reading *r);

#endif
