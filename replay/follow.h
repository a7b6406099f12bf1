/* follow.h - a standby store that is kept current: what is captured goes there at once.
 *
 * Two ways of working. Careful: a stretch of the log through plan and run of a replay,
 * which looks at the mailboxes first; so at the start, and after any doubt (a connection
 * that broke, a restart), since only the mailboxes know what arrived. Live: each new
 * record straight into its mailboxes over sessions that stay open, with no look, since
 * nothing of it was ever tried.
 *
 * What is done is kept as a sequence number per journal, behind the truth at any moment:
 * whatever lies beyond it at a start is done carefully. One follower a target (the
 * ledger's lock). One thread, but for the runs' own.
 *
 * A record is seen when it is written, which may be a moment before it is synced: after a
 * crash of the whole host the standby may have a message that the sender will send again.
 */
#ifndef MW_REPLAY_FOLLOW_H
#define MW_REPLAY_FOLLOW_H

#include "replay/later.h"
#include "replay/ledger.h"
#include "replay/plan.h"

struct mw_follow_pos {           /* of one journal */
	uint64_t next;           /* all before it is done */
	uint8_t last[MW_ID_LEN]; /* ID of the record before it, to know the log again */
	bool has_last;
};

struct mw_follow_sum {
	uint64_t stored, already_there, failed, unreadable, outages;
	int64_t delay_us; /* from capture to stored, of the newest */
};

struct mw_follow {
	struct mw_cli *cli;
	struct mw_query q;
	struct mw_target *target; /* never opened; sessions are its clones */
	struct mw_ledger *ledger;
	const char *to;
	char file[4096];           /* the state */
	bool own_state;            /* it lies in the journal's directory */
	struct mw_follow_pos *pos; /* by journal */
	struct mw_cursor **cursor;
	struct mw_follow_wait { /* for the expansion of the mail that is next */
		struct mw_record rec;
		int64_t since_us; /* monotonic; 0: none waits */
	} * wait;                 /* by journal */
	struct mw_follow_sum sum;
	struct mw_arena *arena; /* of one message */
	struct mw_follow_session *session;
	size_t n_session;
	struct mw_rate rate; /* of what goes live; runs keep to the target's own */
	int64_t saved_us;    /* monotonic */
	bool dirty;
};

/* Works until mw_cli_stopped. 0, or what makes going on useless. */
int mw_follow_run(struct mw_follow *f, struct mw_err *err) MW_CHECK;

/* ---- between its files ---- */

/* follow_state.c: next 1 for a journal that the file does not know, or that is not the
 * one it was. */
int mw_follow_load(struct mw_follow *f, struct mw_err *err) MW_CHECK;
int mw_follow_save(struct mw_follow *f, struct mw_err *err) MW_CHECK;

/* follow_live.c: what was written since, straight into its mailboxes. 1 something was, 0
 * nothing; negative: doubt (a passing failure), or the end of it. */
int mw_follow_step(struct mw_follow *f, struct mw_err *err) MW_CHECK;
void mw_follow_close_sessions(struct mw_follow *f);
/* A failure that may pass: the standby is away, or its disk is full. */
bool mw_follow_passing(int code, const char *text);

/* follow.c: tells of a copy that will not be there. */
void mw_follow_failed(struct mw_follow *f, const uint8_t *id, const char *mailbox,
                      const char *why);

#endif
