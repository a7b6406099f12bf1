/* audit.h - what a mail server's log says it accepted: one row a message, and why one
 * that has no record may have none.
 *
 * Life: mw_audit_init → mw_audit_event for each event → set `journaled` of rows (by a
 * look-up) → mw_audit_judge → read the rows → mw_audit_done. No I/O. One thread.
 */
#ifndef MW_REPLAY_AUDIT_H
#define MW_REPLAY_AUDIT_H

#include "journal/base/arena.h"
#include "replay/mtalog.h"

enum mw_audit_cause {
	MW_AUDIT_FINE = 0, /* has a record, or was not accepted */
	MW_AUDIT_REENTRY,  /* has none, but it came out of one that has: also fine */
	MW_AUDIT_BEFORE,   /* older than the journal: no hole either */
	MW_AUDIT_NOTICE,
	MW_AUDIT_DISCARDED,
	MW_AUDIT_DOWN,
	MW_AUDIT_PICKUP,
	MW_AUDIT_NO_MILTERS,
	MW_AUDIT_OTHER
};

/* "notice", …; and a sentence for people, with what to do. */
const char *mw_audit_name(enum mw_audit_cause c);
const char *mw_audit_text(enum mw_audit_cause c);
bool mw_audit_hole(enum mw_audit_cause c);

struct mw_audit_row {
	struct mw_str queue_id, client, message_id; /* in the arena */
	int64_t begun_us, accepted_us, last_us;
	uint64_t parent;           /* hash of the queue ID that it came out of, 0: none */
	bool smtp, pickup, notice; /* how it began */
	bool local;                /* sendmail(1) of Sendmail: a queue before the queue */
	bool received;             /* its header arrived */
	bool accepted, refused, discarded, probe, removed, null_sender;
	bool sendmail;
	bool unproved; /* Sendmail: perhaps given up before its end */
	bool coarse;   /* accepted_us is of a stamp of whole seconds */
	bool down;     /* a milter had failed in its session, or for it */
	/* set by the caller: */
	bool journaled;
	/* decided: */
	enum mw_audit_cause cause;
	size_t older; /* an earlier message with this queue ID, plus 1 */
};

struct mw_audit {
	struct mw_arena *arena;
	struct mw_audit_row *v;
	size_t n, cap;
	size_t *slot; /* hash of queue IDs: position of the newest row, plus 1 */
	size_t n_slot;
	struct mw_audit_proc *proc; /* hash: what Postfix' processes are at */
	int64_t *down; /* when milters were out of reach, in order of the log, said by
	                * processes of which it is not known for which message */
	size_t n_down, cap_down;
	struct {
		uint32_t pid;
		int64_t us;
	} discard[256],            /* processes whose next message is lost */
	    broken[4096];          /* of Sendmail: where a milter failed */
	int64_t first_us, last_us; /* of the log; 0: no line had a time */
};

int mw_audit_init(struct mw_audit *a, struct mw_err *err) MW_CHECK;
/* 0 or MW_ENOMEM. Also call it with events of kind NOTHING: their time counts. */
int mw_audit_event(struct mw_audit *a, const struct mw_mta_event *e) MW_CHECK;
/* Should there be a record? */
bool mw_audit_expects(const struct mw_audit_row *r);
/* Decides the cause of each row. since: the journal's beginning. 0 or MW_ENOMEM. */
int mw_audit_judge(struct mw_audit *a, int64_t journal_us) MW_CHECK;
void mw_audit_done(struct mw_audit *a);

#endif
