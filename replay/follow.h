/* follow.h - a standby store that is kept current: what is captured goes there at once.
 *
 * Two ways of working. Careful: a stretch of the log through plan and run of a replay,
 * which looks at the mailboxes first; so at the start, and after any doubt (a connection
 * that broke, a restart), since only the mailboxes know what arrived. Live: each new
 * record straight into its mailboxes over sessions that stay open, with no look, since
 * nothing of it was ever tried.
 *
 * What is done is kept as a sequence number per journal, behind the truth at any moment:
 * whatever lies beyond it at a start is done carefully. Beside it, what each mailbox was
 * (mw_target_mark): of one that is another by now, or an older state of it, everything is
 * looked at carefully. One follower a target (the ledger's lock). One thread, but for the
 * runs' own and for looks at many mailboxes.
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

struct mw_follow_box { /* a mailbox of the standby */
	char *mailbox, *box;
	struct mw_target_mark mark; /* what it was; next is a lower bound */
	bool anew;                  /* it is another by now */
};

struct mw_follow_puts;  /* copies that were put; follow_hops.c */
struct mw_follow_held;  /* failures that are not told yet; follow_held.c */
struct mw_follow_twin { /* a record of the same message, of another host */
	bool later;     /* that host got it from ours, else ours from it */
	uint8_t id[MW_ID_LEN];
	struct mw_mail mail;
	struct mw_copy *copy; /* its copies */
	size_t n;
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
		int64_t since_us;  /* monotonic; 0: none waits */
	} * wait;                  /* by journal */
	struct mw_follow_box *box; /* by their name */
	size_t n_box, cap_box;
	bool boxes_new, boxes_dirty; /* one came or is another; any is not as saved */
	int64_t boxes_saved_us;
	struct mw_follow_puts *put;  /* the newest ones */
	struct mw_follow_held *held; /* NULL: none yet */
	uint64_t *live_from; /* by journal: all since was put live, and is among them */
	struct mw_follow_sum sum;
	struct mw_arena *arena; /* of one message */
	struct mw_follow_session *session;
	size_t n_session;
	struct mw_rate rate; /* of what goes live; runs keep to the target's own */
	int64_t saved_us;    /* monotonic */
	int64_t began_us;    /* the first start, in which q is meant; 0: not known */
	bool dirty;
};

/* Works until mw_cli_stopped. 0, or what makes going on useless. */
int mw_follow_run(struct mw_follow *f, struct mw_err *err) MW_CHECK;

/* ---- between its files ---- */

/* follow_state.c: next 1 for a journal that the file does not know, or that is not the
 * one it was. The query begins where it did at the first start. */
int mw_follow_load(struct mw_follow *f, struct mw_err *err) MW_CHECK;
int mw_follow_save(struct mw_follow *f, struct mw_err *err) MW_CHECK;

/* follow_boxes.c. What the mailboxes were, from its file, and into it: at once what is
 * new, the rest now or now and then. */
int mw_follow_boxes_load(struct mw_follow *f, struct mw_err *err) MW_CHECK;
int mw_follow_boxes_save(struct mw_follow *f, bool now, struct mw_err *err) MW_CHECK;
void mw_follow_boxes_free(struct mw_follow *f);
/* Looks at all that are known, and sets anew. 0; MW_ECANCEL, MW_ENOMEM; or why none can
 * be reached. */
int mw_follow_boxes_check(struct mw_follow *f, struct mw_err *err) MW_CHECK;
/* After a run: what the mailboxes of the plan are now; anew if they became others since
 * check. As check. */
int mw_follow_boxes_note(struct mw_follow *f, const struct mw_plan *p,
                         struct mw_err *err) MW_CHECK;
/* Is any of them anew? Then ret is a line about them. */
bool mw_follow_boxes_anew(const struct mw_follow *f, struct mw_buf *ret);
/* Takes all others out of the plan. */
void mw_follow_boxes_only_anew(const struct mw_follow *f, struct mw_plan *p);
/* They have what they lacked. */
void mw_follow_boxes_filled(struct mw_follow *f);
/* t has just opened it. 0; MW_EPROTO: it is another, and now anew. */
int mw_follow_box_opened(struct mw_follow *f, struct mw_target *t, const char *mailbox,
                         const char *box, struct mw_err *err) MW_CHECK;
/* A copy went there. False: into another one, now anew. */
bool mw_follow_box_got(struct mw_follow *f, const char *box,
                       const struct mw_put_place *at);

/* follow_hops.c. Of records from pos on all that is put will be remembered. */
int mw_follow_hops_start(struct mw_follow *f, struct mw_err *err) MW_CHECK;
void mw_follow_hops_free(struct mw_follow *f);
enum {
	MW_FOLLOW_DIGEST = sizeof(((struct mw_mail *)0)->digest)
};

struct mw_follow_what { /* a copy */
	size_t journal;
	const struct mw_record *rec;
	const uint8_t *digest; /* of the mail */
	const char *box;
	bool sent;
};
void mw_follow_was_put(struct mw_follow *f, const struct mw_follow_what *w);
/* Into this box, whatever name it has there. */
bool mw_follow_is_put(const struct mw_follow *f, const uint8_t id[MW_ID_LEN],
                      const char *box, bool sent);
/* Was one of the same content put there that was refused behind its capture, as the log
 * says by now? Then this is its retry, and there; each stands for one. 1, 0, negative. */
int mw_follow_is_retry(struct mw_follow *f, const struct mw_follow_what *w,
                       struct mw_arena *tmp);
/* Records before pos in other journals that are the same message as rec of that journal,
 * on another host of its way. They live in the arena. MW_EPROTO: it is not known what was
 * put of one, so the mailboxes must be asked; not with pos NULL, for all there are. */
int mw_follow_twins(struct mw_follow *f, const struct mw_follow_pos *pos, size_t journal,
                    const struct mw_record *rec, const struct mw_mail *m,
                    struct mw_arena *arena, struct mw_follow_twin **ret, size_t *ret_n,
                    struct mw_err *err) MW_CHECK;

/* follow_held.c. A copy that was not put: addr, by which a later host of a set may have
 * taken the mail (then its people have it), if code is MW_ENOUSER or MW_EAUTH (an
 * alias has no mailbox and no password). All else, and what has
 * no addr, is told at once. */
void mw_follow_hold(struct mw_follow *f, size_t journal, const struct mw_record *r,
                    const char *mailbox, struct mw_str addr, int code, const char *why);
/* Tells of those that waited long enough, or of all. */
void mw_follow_tell_held(struct mw_follow *f, bool all);
void mw_follow_held_free(struct mw_follow *f);
/* Did that host take it for this recipient, as one of its own? */
bool mw_follow_took(const struct mw_mail *m, struct mw_str addr);

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
