/* ledger.h - what was put where by which run, on this host, per target.
 *
 * A directory "ledger/<hash of the target>/" in the journal's directory (or --state DIR):
 *	lock	held (flock) by the run at work; a second one gets MW_ELOCKED at once
 *	id	random name of this ledger, for the marker in a staging folder: whoever
 *		holds the lock knows that any run with this ID is dead
 *	log	one line a fact, appended, each with its CRC
 *	target	of LMTP and SMTP, how it was written (ledger_server.h)
 *	raising-*	boxes in which UIDs are being used up (raising.h)
 *
 * Lines: "I RUN RECORD BOX S CRC" (intent), "D RUN RECORD BOX S FOLDER UIDVALIDITY UID
 * TIME CRC" (done; TIME of arrival in µs, not in older lines), "R RUN RECORD BOX S CRC"
 * (refused: not there), "U RUN RECORD BOX S CRC" (taken away again), "T RUN RECORD BOX S
 * CRC" (taken away by the user's Sieve script). BOX and FOLDER are percent-encoded, S is
 * 1 for a Sent copy. The first intent of a batch and the last done are made durable by
 * mw_ledger_sync. A torn or damaged line is passed over.
 *
 * On targets that can be read, the scan decides and the ledger is a record for people and
 * for undo; on write-only ones it is the only memory, and an intent without its done is
 * doubtful. Open and close in one thread; the rest in any.
 */
#ifndef MW_REPLAY_LEDGER_H
#define MW_REPLAY_LEDGER_H

#include "journal/base/err.h"
#include "journal/base/id.h"
#include "replay/target.h"

#include <stdbool.h>
#include <stdint.h>

struct mw_ledger;

enum mw_ledger_state {
	MW_LEDGER_NONE,
	MW_LEDGER_DOUBTFUL,
	MW_LEDGER_DONE,
	MW_LEDGER_TAKEN /* the user's Sieve script took it away */
};

/* Opens (makes) the ledger of target below dir and takes its lock. MW_ELOCKED names the
 * holder's pid; MW_EPERM and MW_ENOSPC with the hint --state. load false (--fresh): what
 * is written there is not read. */
int mw_ledger_open(const char *dir, const char *target, bool load, struct mw_ledger **ret,
                   struct mw_err *err) MW_CHECK;
void mw_ledger_close(struct mw_ledger *l); /* NULL ok */
const char *mw_ledger_id(const struct mw_ledger *l);
const char *mw_ledger_dir(const struct mw_ledger *l); /* for raising.h */
const char *mw_ledger_run(const struct mw_ledger *l); /* this run's ID */
/* NULL, or the name of the same LMTP or SMTP server under which earlier runs knew it. */
const char *mw_ledger_other(const struct mw_ledger *l);

/* What was read counts no more; how many copies that were (those refused, too). */
size_t mw_ledger_forget(struct mw_ledger *l);
enum mw_ledger_state mw_ledger_get(struct mw_ledger *l, const uint8_t id[MW_ID_LEN],
                                   const char *box, bool sent);
int mw_ledger_intent(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                     bool sent, struct mw_err *err) MW_CHECK;
/* place NULL: unknown. */
int mw_ledger_done(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                   bool sent, const struct mw_put_place *place,
                   struct mw_err *err) MW_CHECK;
/* The target said no: the copy is certainly not there. */
int mw_ledger_refused(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                      bool sent, struct mw_err *err) MW_CHECK;
int mw_ledger_taken(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                    bool sent, struct mw_err *err) MW_CHECK;
/* A run put it there, and mw_undo took it away again. */
int mw_ledger_undone(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                     bool sent, struct mw_err *err) MW_CHECK;

struct mw_ledger_put { /* one copy that a run put somewhere */
	uint8_t id[MW_ID_LEN];
	const char *box;
	bool sent, undone;
	struct mw_put_place place;
};
/* Every copy that a run put, in order; run is its ID or the beginning of it. The strings
 * are the callback's for its duration. Returns how many lines bear that run's ID,
 * MW_EUSAGE when it stands for several runs, or what the callback returned. */
int mw_ledger_of_run(struct mw_ledger *l, const char *run,
                     int (*cb)(void *arg, const struct mw_ledger_put *put), void *arg,
                     struct mw_err *err) MW_CHECK;
/* All lines so far durable. */
int mw_ledger_sync(struct mw_ledger *l, struct mw_err *err) MW_CHECK;

#endif
