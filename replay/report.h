/* report.h - what a replay or export did: numbers, and every copy not put back by name.
 *
 * The unit is the copy: one message for one mailbox. Numbers always add up:
 * selected = already_there + restored + failed + doubtful + skipped + removed + refused +
 * bounced + queued + left (interrupted); ambiguous ones are among the restored.
 */
#ifndef MW_REPLAY_REPORT_H
#define MW_REPLAY_REPORT_H

#include "journal/base/arena.h"
#include "journal/base/err.h"
#include "replay/cmd.h"

struct mw_issue { /* a copy that deserves a line */
	char id[MW_ID_TEXT + 1];
	const char *mailbox, *kind, *reason; /* kind: failed, doubtful, ambiguous, … */
	bool sent;
	int64_t time_us;
};

struct mw_report_raise {                    /* a folder whose UIDs were to be raised */
	const char *mailbox, *folder, *why; /* why: not raised; NULL: it was */
	uint64_t uidnext, uidnext_to, modseq, modseq_to;
};

struct mw_report {
	struct mw_arena *arena;
	const char *command, *target, *run_id;
	bool undoable;             /* what is put there can be taken away again */
	const char *state;         /* where the ledger is, if not in the journal */
	const char *again;         /* options that an undo needs, or NULL */
	const char *user, *folder; /* of recover; NULL: does not apply */
	uint64_t audit_seq;        /* the RESTORE record; 0: none */
	bool dry, interrupted;
	uint64_t selected, already_there, restored, failed, doubtful, ambiguous, skipped;
	uint64_t removed, refused, bounced, queued; /* by the MTA's log, not put back */
	bool check;                   /* nothing was put; compared, not restored */
	uint64_t compared, identical; /* of those: byte for byte */
	uint64_t undone;
	uint64_t unreadable; /* records; what they held is unknown */
	bool no_key;         /* some of them for want of a key */
	uint64_t mailboxes, bytes;
	uint64_t held_back;          /* what scripts would have sent out */
	uint64_t raised, not_raised; /* folders */
	uint64_t in_use;             /* mailboxes of what looks like a store in use */
	struct mw_report_raise *raise;
	size_t n_raise, cap_raise;
	int64_t start_us, duration_us;
	struct mw_issue *issue;
	size_t n_issue, cap_issue;
};

int mw_report_init(struct mw_report *r, struct mw_err *err) MW_CHECK;
void mw_report_done(struct mw_report *r);
/* Adds a line to the list; mailbox and reason are copied, kind is a literal. id NULL:
 * none. MW_ENOMEM. */
int mw_report_issue(struct mw_report *r, const uint8_t *id, const struct mw_issue *what);
/* The same for a record that could not be read; one that was erased is none. arg: the
 * report. Out of memory leaves it in the count alone. */
void mw_report_unreadable(void *arg, const struct mw_err *err);
/* Adds a folder; the strings are copied. MW_ENOMEM. */
int mw_report_raised(struct mw_report *r, const struct mw_report_raise *what);
uint64_t mw_report_left(const struct mw_report *r);
/* A folder of that list, as JSON. */
json_t *mw_report_raise_json(const struct mw_report_raise *a);
/* The summary object on standard output (json), or the closing sentence for people. */
void mw_report_print(const struct mw_report *r, bool json);
/* Before a run: can its report be written there? path NULL: none is wanted. to: the
 * target whose directories the run makes, and with them, maybe, the report's; NULL: none.
 */
int mw_report_check(const char *path, const char *to, struct mw_err *err) MW_CHECK;
/* The whole report as a JSON file (temp, sync, rename). */
int mw_report_write(const struct mw_report *r, const char *path,
                    struct mw_err *err) MW_CHECK;

#endif
