/* run.h - a replay at work: box by box, scan → reconcile → put, again after any doubt.
 *
 * Life: fill struct mw_run, mw_run_all, read the report, mw_run_done.
 *
 * Threads: mw_run_all works on several boxes at a time (jobs), each in a thread with a
 * struct mw_run of its own, its own target and readers. What they share is reached
 * through pointers: the plan (a box belongs to the thread that took it), the report and
 * the ledger (under shared->mu), the shared block.
 */
#ifndef MW_REPLAY_RUN_H
#define MW_REPLAY_RUN_H

#include "replay/known.h"
#include "replay/ledger.h"
#include "replay/plan.h"
#include "replay/progress.h"
#include "replay/report.h"

#include <pthread.h>

enum {
	MW_JOBS_DEFAULT = 4,
	MW_JOBS_MAX = 64,
	MW_RUN_ATTEMPTS = 3 /* without progress, then a box is given up */
};

struct mw_early;
struct mw_queue;

enum mw_live {
	MW_LIVE_NOT_ASKED,
	MW_LIVE_GO_ON,
	MW_LIVE_STOP,
	MW_LIVE_INTERRUPTED
};

struct mw_run_shared { /* by all threads of a run, under mu */
	pthread_mutex_t mu;
	struct mw_progress progress;
	size_t next_box;
	int result; /* what ends everything: MW_ECANCEL, MW_ENOMEM, MW_EDECLINED */
	struct mw_err result_err;
	int first_code; /* of the first box that failed as a whole */
	struct mw_err first_err;
	struct mw_err away; /* of a box that may be reached later; code 0: none */
	bool any_box_ok;
	bool second; /* only boxes marked again */
	struct mw_rate rate;
	enum mw_live live; /* the answer to "a store in use: go on?" */
	uint64_t empty_boxes,
	    empty_removed;             /* empty, yet copies count as removed there */
	unsigned unreachable, refused; /* boxes in a row */
	struct mw_err gone;            /* of the last unreachable one */
	unsigned threads, working;     /* at most, and at a box now */
};

struct mw_run {
	struct mw_cli *cli;
	struct mw_plan *plan;
	struct mw_target *target;
	struct mw_ledger *ledger; /* NULL: a dry run, an export */
	struct mw_report *report;
	struct mw_progress progress;
	bool dry, resend_doubtful;
	bool check;             /* compare only; implies dry */
	bool sieve;             /* copies are filed by their users' scripts */
	bool prepare;           /* put nothing: look, and raise UIDs (run_raise.c) */
	uint64_t uid_gap;       /* UIDs to leave out; 0: do not raise */
	struct mw_queue *queue; /* the MTAs'; NULL: not asked (run_queue.c) */
	bool queue_unread;      /* one that was found could not be read */
	struct mw_queue_ahead *queue_ahead; /* its listing, already; NULL: none */
	struct mw_early *early; /* a look into the first box (early.h); NULL: none */
	unsigned jobs;          /* boxes at a time; 0: MW_JOBS_DEFAULT */
	bool retries_stand; /* what was refused behind its capture may be there: for its
	                     * retry */
	/* warn, and ask on a terminal, before what looks like a store in use */
	bool ask_live;
	/* Called before copies of a box are put (each attempt), after all readers were
	 * closed, so that it may write to a journal. 0, or why nothing may be put. NULL
	 * ok.
	 */
	int (*before_put)(void *arg, struct mw_run *r, struct mw_err *err);
	/* What the MTA's log says of a copy that is missing, where the plan did not ask:
	 * an enum mw_known_class; sets the copy's may_wait too. NULL ok. */
	enum mw_known_class (*ask_known)(void *arg, struct mw_run *r,
	                                 struct mw_plan_copy *c);
	void *arg;
	/* this thread's: */
	struct mw_run_shared *shared;
	struct mw_store **stores; /* by journal, opened as needed */
	struct mw_arena *arena;   /* of one message */
	/* the box at work */
	struct mw_plan_box *box;
	const struct mw_plan_copy *charged; /* whose bytes went last: counted once */
	struct mw_plan_copy *broken;        /* its content could not be read */
	struct mw_err broken_err;
	struct mw_mail mail;
	struct mw_record rec;
	uint64_t untold; /* journals, a bit each, whose daemon is not told what comes */
};

/* Works through all boxes, once a struct mw_run. 0, or a code that ends everything:
 * MW_ECANCEL, MW_EDECLINED, MW_ENOMEM, a ledger that cannot be written. Failures of boxes
 * and copies are in the report. */
int mw_run_all(struct mw_run *r, struct mw_err *err) MW_CHECK;
void mw_run_done(struct mw_run *r);
/* One box (run_box.c). 0; MW_ECANCEL; MW_EDECLINED; MW_ENOMEM; else why the box failed as
 * a whole. */
int mw_run_box(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err) MW_CHECK;

/* run_live.c: before the first copy is put into a box, or said to be by a dry run, which
 * is never asked. 0; MW_EDECLINED: no; MW_ECANCEL. */
int mw_run_may_put(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err) MW_CHECK;
/* Before copies are put: raises UIDNEXT and HIGHESTMODSEQ where they will go, or says
 * so in a dry run. The box's open copies are the missing ones. */
int mw_run_raise(struct mw_run *r, const struct mw_plan_box *b,
                 struct mw_err *err) MW_CHECK;
/* The step prepare for one box: opens it, says what its server can do and, where it can
 * be read, raises UIDs in all its folders. Prints its line. As mw_run_box. */
int mw_run_prepare(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err) MW_CHECK;

/* The same for a target that cannot be read back (run_relay.c). */
int mw_run_write_only(struct mw_run *r, struct mw_plan_box *b,
                      struct mw_err *err) MW_CHECK;
/* What is still open of the box, n copies, to the target. */
int mw_run_put_missing(struct mw_run *r, struct mw_plan_box *b, size_t n,
                       struct mw_err *err) MW_CHECK;
/* Is another try of the same box any use after that code? */
bool mw_run_worth_retry(int code);
size_t mw_run_open_copies(const struct mw_plan_box *b);
/* A copy that was given to the user's script: it is in some folder, or it is not. */
int mw_run_filed(struct mw_run *r, struct mw_plan_copy *p, bool there,
                 struct mw_err *err) MW_CHECK;
/* Did the script take it away in an earlier run? Then mw_run_taken settles it. */
bool mw_run_taken_before(const struct mw_run *r, const struct mw_plan_copy *p);
int mw_run_taken(struct mw_run *r, struct mw_plan_copy *p) MW_CHECK;
/* Members of struct mw_put_io. */
int mw_run_address(void *arg, const struct mw_put *p, struct mw_str *ret,
                   struct mw_err *err) MW_CHECK;
int mw_run_tell(void *arg, const struct mw_put *p, struct mw_str sender,
                struct mw_str rcpt, const struct mw_trail *trail, struct mw_err *err);
int mw_run_token(void *arg, const struct mw_put *p, struct mw_str rcpt,
                 const uint8_t body[32], char *ret, struct mw_err *err) MW_CHECK;
/* The reader of the journal of that number, opened as needed; NULL: err says why. Valid
 * until they are closed (before_put). */
struct mw_store *mw_run_store(struct mw_run *r, uint32_t journal, struct mw_err *err);
void mw_run_close_stores(struct mw_run *r);

/* After the run, which ended with r: errors, summary, the report file where one is
 * wanted. The exit status. */
int mw_run_finish(struct mw_run *r, int result, struct mw_err *err, const char *report);
/* The queues to read: command (--queue), else the queue_command of every configuration.
 * *ret is the caller's, NULL where none is to be read. MW_EUSAGE, MW_ENOMEM. */
int mw_run_queue_find(const struct mw_cli *cli, const char *command,
                      struct mw_queue **ret, struct mw_err *err) MW_CHECK;
/* Before mw_run_all: what is in the MTA's queue now. 0; a queue that somebody named
 * cannot be read, MW_ECANCEL, MW_ENOMEM. One that was found and cannot be read is warned
 * of and not asked any more: what it may hold is ambiguous when it is put back. */
int mw_run_queue_first(struct mw_run *r, struct mw_err *err) MW_CHECK;
/* Of a copy that a scan did not see: sets its waits, and its known where the queue knows
 * better. 0, MW_ENOMEM. */
int mw_run_ask_queue(struct mw_run *r, const struct mw_plan_box *b,
                     struct mw_plan_copy *p, struct mw_err *err) MW_CHECK;
/* After all boxes: reads the queue again and settles what waits; *ret_any: there are
 * boxes marked again. 0, MW_ECANCEL, MW_ENOMEM. */
int mw_run_queue_again(struct mw_run *r, bool *ret_any, struct mw_err *err) MW_CHECK;
/* Takes away what runs that were killed while they raised UIDs left in any box
 * (run_left.c); mw_run_all does it first. No box may be open. 0, MW_ECANCEL, MW_ENOMEM, a
 * ledger that cannot be read; a box that cannot be reached is noted. */
int mw_run_clear_left(struct mw_ledger *ledger, struct mw_target *t,
                      struct mw_err *err) MW_CHECK;
/* The exit status that a finished report means. */
int mw_run_exit(const struct mw_run *r);

/* The content of a record, to a sink; metadata into r->mail (arena). */
int mw_run_load(struct mw_run *r, const struct mw_plan_rec *rec,
                struct mw_err *err) MW_CHECK;
int mw_run_content(struct mw_run *r, const struct mw_plan_rec *rec,
                   int (*sink)(void *, const void *, size_t), void *arg,
                   struct mw_err *err) MW_CHECK;
/* The fate of a copy that is not there by what the MTA's log says; OPEN: nothing. */
enum mw_fate mw_run_known_fate(const struct mw_plan_copy *c);
/* Did the MTA refuse, discard or bounce it? Then there is nothing to look for. */
bool mw_run_never_arrived(const struct mw_plan_copy *c);
/* Settles an open copy, and counts it. Any thread. */
int mw_run_fate(struct mw_run *r, struct mw_plan_copy *c, enum mw_fate fate,
                const char *reason) MW_CHECK;

#endif
