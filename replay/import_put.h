/* import_put.h - the sink of an import: what the journal lacks, to the journal's writer.
 *
 * Life: mw_import_put_new → mw_import_sink_of, a walk over sources → mw_import_put_end →
 * mw_import_put_free. One thread. A message up to MEMORY bytes is looked up before it is
 * sent; a larger one is streamed and, if the journal has it, taken back.
 */
#ifndef MW_REPLAY_IMPORT_PUT_H
#define MW_REPLAY_IMPORT_PUT_H

#include "journal/store/intake.h"
#include "replay/import.h"
#include "replay/import_seen.h"
#include "replay/progress.h"

struct mw_import_sum {
	uint64_t selected, already_there, imported, failed, skipped, bytes;
};

struct mw_import_put_opts {
	struct mw_cli *cli;
	struct mw_seen *seen;
	struct mw_progress *progress;
	int fd; /* of the writer; -1: a dry run */
	/* Called for each message that could not be taken in. */
	void (*failed)(void *arg, const char *name, const char *mailbox, const char *why);
	void *arg;
};

struct mw_import_put;

/* Takes fd over on success. */
int mw_import_put_new(const struct mw_import_put_opts *o, struct mw_import_put **ret,
                      struct mw_err *err) MW_CHECK;
const struct mw_import_sink *mw_import_sink_of(const struct mw_import_put *p);
/* Waits for what is under way. 0, or what ended the import (MW_ENOSPC, MW_EUNAVAIL, …).
 */
int mw_import_put_end(struct mw_import_put *p, struct mw_import_sum *ret,
                      struct mw_err *err) MW_CHECK;
void mw_import_put_free(struct mw_import_put *p); /* NULL ok */

#endif
