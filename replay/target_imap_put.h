/* target_imap_put.h - one call of mw_imap_box_put, shared by the files that carry it out.
 * Private.
 *
 *	target_imap_put.c    what goes where, batches, refusals
 *	target_imap_round.c  batches sent one behind the other, over two connections
 *	target_imap_move.c   from the staging folder to where mail belongs
 */
#ifndef MW_REPLAY_TARGET_IMAP_PUT_H
#define MW_REPLAY_TARGET_IMAP_PUT_H

#include "replay/target_imap.h"

enum {
	MW_IMAP_ROUNDS = 4 /* batches whose answers may be due at a time */
};

/* A batch that was sent, in two parts where there are two connections: the first `part`
 * of v by the first one. */
struct mw_imap_round {
	const struct mw_put **v; /* the round's own array */
	size_t n, part;
	uint64_t number;
	char *uids[2];   /* in the staging folder, once the server has told */
	unsigned moves;  /* MOVE commands under way, behind a SELECT */
	uint64_t behind; /* which come behind the APPEND of the round of that number */
};

struct mw_imap_putting {
	struct mw_target *t;
	struct mw_imap_box *b;
	const struct mw_put_io *io;
	const char *dest;      /* quoted */
	const char *dest_name; /* for the ledger */
	char full[400];        /* the server said over quota: no more is tried */
	bool one;              /* a batch at a time, over one connection, for now */
	bool last;             /* nothing is put behind what is under way */
	bool sieve;            /* by the user's script, what it leaves to INBOX */
	uint64_t batch_messages, batch_bytes;
	/* In the order sent: those that are moved, then those whose APPENDs are due. */
	struct mw_imap_round round[2 * MW_IMAP_ROUNDS];
	size_t n_moving, n_round;
	uint64_t number; /* of the last one sent */
};

/* Messages and what stands in front of each, for an APPEND. */
struct mw_imap_load {
	struct mw_imap_msg *m;
	struct mw_imap_piece *piece;
	size_t n;
};

int mw_imap_load_make(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                      struct mw_imap_load *l, struct mw_err *err) MW_CHECK;
void mw_imap_load_done(struct mw_imap_load *l);
/* The content of mw_imap_batch for them; its arg is the struct mw_imap_putting. */
int mw_imap_load_content(void *arg, const struct mw_imap_msg *m,
                         int (*sink)(void *, const void *, size_t), void *sarg,
                         struct mw_err *err) MW_CHECK;
/* Appends and moves a batch, and answers for each message of it; a batch that is refused
 * in ever smaller parts. */
int mw_imap_put_batch(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                      struct mw_err *err) MW_CHECK;

/* ---- target_imap_round.c ---- */

/* Can batches be sent one behind the other here? */
bool mw_imap_rounds(const struct mw_imap_putting *p);
/* Sends a batch, and starts to move those before whose answers have come. */
int mw_imap_round_put(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                      struct mw_err *err) MW_CHECK;
/* All that was sent is where it belongs, and answered for. */
int mw_imap_round_end(struct mw_imap_putting *p, struct mw_err *err) MW_CHECK;
/* Frees what is left after a failure. */
void mw_imap_rounds_done(struct mw_imap_putting *p);

/* ---- target_imap_move.c ---- */

/* Starts the MOVEs of a round whose UIDs are known. */
int mw_imap_move_start(struct mw_imap_putting *p, struct mw_imap_round *d,
                       struct mw_err *err) MW_CHECK;
/* Takes their answers, which are the next due, and answers for each message. */
int mw_imap_move_end(struct mw_imap_putting *p, struct mw_imap_round *d,
                     struct mw_err *err) MW_CHECK;
/* Moves what was just appended over the first connection; uids NULL: the server told
 * none. */
int mw_imap_move_now(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                     const char *uids, struct mw_err *err) MW_CHECK;

#endif
