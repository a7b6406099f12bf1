/* outcomes.h - gathering outcomes from a log into OUTCOME records, and reading them back.
 *
 * Gather: mw_gather_init → mw_gather_event for each event, in the order of the log →
 * mw_gather_flush, which appends one record with all that is new and forgets it. A fact
 * that is in the journal already is not written again, as far as the journal can be read
 * (an encrypted one needs its key for that; a fact that is there twice does no harm).
 *
 * Which record a queue ID means: the newest one captured before the event, and, where the
 * log shows how the message began, captured since. One thread.
 */
#ifndef MW_REPLAY_OUTCOMES_H
#define MW_REPLAY_OUTCOMES_H

#include "journal/record/outcome.h"
#include "replay/cmd.h"
#include "replay/mtalog.h"
#include "replay/untaken.h"

/* Calls cb for every outcome of a journal, in log order. Unreadable records are counted.
 * Here as below: what a tombstone names is not told, wiped or not yet (P11). */
int mw_outcomes_walk(struct mw_store *st,
                     int (*cb)(void *arg, const struct mw_outcome *o), void *arg,
                     size_t *ret_unreadable, struct mw_err *err) MW_CHECK;

/* Those in records that refer to the mail with that ID; they speak of others too. gone:
 * the journal's tombstones, for who asks often; NULL: they are loaded for this call. */
int mw_outcomes_about(struct mw_store *st, const struct mw_gone *gone,
                      const uint8_t id[MW_ID_LEN],
                      int (*cb)(void *arg, const struct mw_outcome *o), void *arg,
                      struct mw_err *err) MW_CHECK;

/* The newest MAIL record with that queue ID from not_before to time: 1, 0 none. */
int mw_outcomes_record(struct mw_store *st, struct mw_str queue_id, int64_t not_before_us,
                       int64_t time_us, struct mw_record *ret,
                       struct mw_err *err) MW_CHECK;

/* Has the record b all that look-ups know a by, but for its ID and its queue ID? Then
 * content, sender, Message-ID and recipients are the same. Needs no key. 1, 0, negative.
 */
int mw_outcomes_again(struct mw_store *st, const struct mw_record *a,
                      struct mw_str a_queue, const struct mw_record *b,
                      struct mw_err *err) MW_CHECK;

/* All that is known of one message: 1, 0 nothing. In the arena. gone as above. */
int mw_outcomes_of(struct mw_store *st, const struct mw_gone *gone,
                   const struct mw_record *r, struct mw_arena *a, struct mw_outcome *ret);
/* Adds what o says to what is known; later facts count. *cap_rcpt begins at 0. */
int mw_outcomes_merge(struct mw_arena *a, struct mw_outcome *into, size_t *cap_rcpt,
                      const struct mw_outcome *o) MW_CHECK;
/* Takes out of *n outcomes, which are not written yet, what was erased since they were
 * gathered or before: mails, recipients, texts with an erased address. Returns how many
 * facts that were; *n is what stays, of v. */
size_t mw_outcomes_strip(struct mw_store *st, const struct mw_gone *gone,
                         struct mw_outcome *v, size_t *n);
/* Held by who writes outcomes, for a moment, and by who writes some anew, meanwhile; it
 * waits. As the journal's owner. MW_ECANCEL. */
int mw_outcomes_lock(const char *dir, int *ret_fd, struct mw_err *err) MW_CHECK;
/* Adds the member "outcomes" where there are some; o may be NULL. */
json_t *mw_outcomes_add(json_t *o, struct mw_store *st, const struct mw_record *r,
                        struct mw_arena *a);
/* The same in lines for people. */
void mw_outcomes_text(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                      void (*line)(const char *name, struct mw_str text));

struct mw_gather {
	struct mw_cli *cli;
	struct mw_store *st;    /* opened as needed, closed for a flush */
	struct mw_arena *arena; /* of what is not yet written */
	struct mw_outcome *v;
	size_t n, cap, bytes;
	struct mw_gather_qid *qid; /* hash: queue IDs met since the last flush */
	size_t n_qid, cap_qid;
	uint64_t *seen; /* hash set of facts that are written */
	size_t n_seen, cap_seen;
	struct mw_gather_origin *origin; /* hash: how messages began; bounded */
	size_t n_origin;
	struct mw_untaken untaken; /* whose senders were told to come again */
	bool refusals;             /* some record is known to be refused */
	uint64_t events, written, records, unknown, known;
	uint64_t early; /* queue IDs whose event is older than the capture of its message:
	                 * by a wrong clock or zone; nothing is noted of them */
};

int mw_gather_init(struct mw_gather *g, struct mw_cli *cli, struct mw_err *err) MW_CHECK;
int mw_gather_event(struct mw_gather *g, const struct mw_mta_event *e,
                    struct mw_err *err) MW_CHECK;
/* Is there so much that it should be written now? */
bool mw_gather_full(const struct mw_gather *g);
int mw_gather_flush(struct mw_gather *g, struct mw_err *err) MW_CHECK;
void mw_gather_done(struct mw_gather *g);

#endif
