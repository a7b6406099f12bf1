/* drill.h - a restore, rehearsed: a sample of the journal is replayed into a scratch
 * target, read back, held against the log, and measured.
 *
 * Life: mw_drill_init → fill what is asked → mw_drill_check → mw_drill_run → (found,
 * then mw_drill_json and drill_report.h) → mw_drill_done. One thread.
 *
 * What is compared: every expected copy, by the SHA-256 of its captured bytes as the
 * record has it; targets that rewrite bytes (IMAP servers, mbox) may answer with the same
 * canonical digest (FORMAT.md §7), which is counted apart. The arrival date to the
 * second, the folder, the order within a folder, and that nothing else is there.
 */
#ifndef MW_REPLAY_DRILL_H
#define MW_REPLAY_DRILL_H

#include "journal/verify/verify.h"
#include "replay/drill_scratch.h"
#include "replay/run.h"

enum {
	MW_DRILL_SAMPLE = 1000,  /* copies, unless said otherwise */
	MW_DRILL_FINDINGS = 1000 /* listed; all are counted */
};

struct mw_drill_finding {
	char id[MW_ID_TEXT + 1]; /* "": not known */
	uint64_t seq;            /* 0: not known */
	const char *kind, *mailbox, *text;
};

/* Copies: drawn = left_out + expected; expected = identical + normalised + missing +
 * altered + wrong_folder. */
struct mw_drill_count {
	uint64_t eligible;      /* in the selection */
	uint64_t drawn, newest; /* taken; the newest ones among them */
	uint64_t mailboxes, bytes;
	uint64_t
	    left_out; /* refused, bounced, queued, removed: a replay leaves them out */
	uint64_t expected, restored;
	uint64_t identical, normalised;
	uint64_t missing, altered, wrong_folder, wrong_date, out_of_order, surplus;
	uint64_t restored_bytes;
};

struct mw_drill_log {            /* the journal as it was */
	uint64_t first_seq, seq; /* seq: the newest acknowledged record at the start */
	uint8_t chain[32];       /* head of the chain there */
	struct mw_verify_result verified;
	uint64_t gaps; /* sequence numbers lost or missing that nothing explains */
	char acknowledged_id[MW_ID_TEXT +
	                     1];        /* by the daemon, at the start; "": unknown */
	char newest_id[MW_ID_TEXT + 1]; /* newest mail that was read whole; "": none */
	int64_t newest_us;
	char mark[128]; /* name of the newest completed mark; "": none */
	uint64_t mark_seq;
	int64_t mark_us;
	uint64_t since_copies, since_bytes; /* from the mark on, else all */
};

struct mw_drill_time {
	int64_t start_us, end_us;         /* wall clock */
	int64_t plan_us, run_us, read_us; /* durations */
	int64_t rto_us;                   /* plan and run, carried over to the whole */
	bool rto_measured; /* the drill was the whole: nothing carried over */
	int64_t rpo_us;
	bool rpo_known; /* there is captured mail in the log, not only imported */
	bool rpo_bound; /* an upper bound: no daemon to say what it acknowledged last */
	int64_t acknowledged_us; /* newest mail by the daemon; 0: not known */
};

struct mw_drill {
	/* asked */
	struct mw_cli *cli;
	struct mw_store *st;
	const struct mw_query *query;
	const char *selection; /* as typed, for the report */
	const char *to;        /* "scratch", "dovecot", or a TARGET */
	const char *scratch_base;
	const char *operator_name;
	struct mw_target_opts t;
	uint64_t sample; /* 0: the whole selection */
	uint64_t seed;
	/* at work */
	struct mw_arena *arena;
	char id[MW_ID_TEXT + 1], journal_id[MW_ID_TEXT + 1];
	struct mw_scratch scratch;
	struct mw_target *target;
	struct mw_plan *plan;
	struct mw_report report;
	struct mw_run run;
	/* found */
	struct mw_drill_count n;
	struct mw_drill_log log;
	struct mw_drill_time time;
	struct mw_drill_finding *finding;
	size_t n_finding, cap_finding;
	uint64_t findings; /* all, listed or not */
	bool out_of_memory;
};

int mw_drill_init(struct mw_drill *d, struct mw_cli *cli, struct mw_err *err) MW_CHECK;
/* Removes what it made; the error that left something behind, or 0. */
int mw_drill_done(struct mw_drill *d, struct mw_err *err);
/* Can it be done: keys, signing key, mail to drill with. MW_EKEY, MW_ENOTFOUND. */
int mw_drill_check(struct mw_drill *d, struct mw_err *err) MW_CHECK;
/* All of it: 0, whatever was found; negative: it could not be done (MW_ECANCEL too). */
int mw_drill_run(struct mw_drill *d, struct mw_err *err) MW_CHECK;
bool mw_drill_passed(const struct mw_drill *d);

/* ---- between the files of the drill ---- */

/* Adds a finding; text is copied, kind is a literal. id and mailbox may be NULL. */
void mw_drill_found(struct mw_drill *d, const char *kind, const uint8_t *id,
                    const char *mailbox, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Takes the sample (drill_run.c): copies not drawn are not wanted any more. */
int mw_drill_draw(struct mw_plan *p, uint64_t sample, uint64_t newest, uint64_t seed,
                  uint64_t *ret_newest) MW_CHECK;
/* Reads the target back and compares (drill_check.c). */
int mw_drill_compare(struct mw_drill *d, struct mw_err *err) MW_CHECK;
/* Is the given target empty? MW_EUSAGE when it is not: it may be a live one. */
int mw_drill_is_scratch(struct mw_drill *d, struct mw_err *err) MW_CHECK;
/* Where the log stands, before; and all of it, after (drill_log.c). */
int mw_drill_log_before(struct mw_drill *d, struct mw_err *err) MW_CHECK;
int mw_drill_log_after(struct mw_drill *d, struct mw_err *err) MW_CHECK;
/* Does a copy of this fate have to be there? */
bool mw_drill_expected(const struct mw_plan_copy *c);

#endif
