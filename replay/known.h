/* known.h - what the journal knows of the outcomes of its mail, asked copy by copy.
 *
 * Life: mw_known_load → mw_known_copy, mw_known_late → mw_known_free. One thread. In
 * doubt the answer is NOTHING: then the copy is looked for and put back if it is missing,
 * since a surplus is better than a loss.
 */
#ifndef MW_REPLAY_KNOWN_H
#define MW_REPLAY_KNOWN_H

#include "journal/record/outcome.h"
#include "replay/select.h"

enum mw_known_class {
	MW_KNOWN_NOTHING = 0,
	MW_KNOWN_REFUSED, /* refused behind the capture, or discarded as configured */
	MW_KNOWN_BOUNCED, /* the sender was told that it did not arrive; or expired */
	MW_KNOWN_QUEUED,  /* the MTA has it still, and will deliver it */
	MW_KNOWN_OLD,     /* delivered before the mark: the backup has it, unless the user
	                   * had removed it */
	MW_KNOWN_UNSURE   /* nothing; but if it is missing, its user may have removed it
	                   * before the backup came to it */
};

struct mw_known;

/* All outcomes of one journal. fresh: the logs were read just now, so that what was in
 * the queue then is there still; else nothing counts as QUEUED. */
int mw_known_load(struct mw_store *st, bool fresh, struct mw_known **ret,
                  struct mw_err *err) MW_CHECK;
/* The same from outcomes in memory, in log order; they are copied. */
int mw_known_new(const struct mw_outcome *v, size_t n, bool fresh, struct mw_known **ret,
                 struct mw_err *err) MW_CHECK;
void mw_known_free(struct mw_known *k); /* NULL ok */

/* mark_us: when the backup began whose copy the target holds; INT64_MIN: none. */
enum mw_known_class mw_known_copy(struct mw_known *k, const struct mw_conf *conf,
                                  uint64_t seq, const struct mw_copy *c, int64_t mark_us,
                                  struct mw_arena *tmp);
/* May the MTA have it still, by what the logs said last, however long ago? False for what
 * was sent: a copy in Sent is in no queue. k NULL: nothing is known. */
bool mw_known_may_wait(struct mw_known *k, const struct mw_conf *conf, uint64_t seq,
                       const struct mw_copy *c, struct mw_arena *tmp);
/* Is anything known of it? */
bool mw_known_told(const struct mw_known *k, uint64_t seq);
/* Was it refused as a whole behind the capture? Then it stayed with the host or program
 * that sent it; of all else this host became responsible. */
bool mw_known_not_taken(const struct mw_known *k, uint64_t seq);
/* The newest stamp of what is known of that copy, in whole seconds with some servers; it
 * was not delivered before. INT64_MIN: nothing is known. */
int64_t mw_known_newest(struct mw_known *k, const struct mw_conf *conf, uint64_t seq,
                        const struct mw_copy *c, struct mw_arena *tmp);
/* Records before a sequence number of which something was delivered or handed on at
 * mark_us or later, or was still to be when the logs were read: the backup may lack them.
 * Sorted, malloc'd; NULL when there are none. */
int mw_known_late(const struct mw_known *k, uint64_t before_seq, int64_t mark_us,
                  uint64_t **ret, size_t *ret_n, struct mw_err *err) MW_CHECK;
/* Did mailwal outcomes read the MTA's logs within the last minutes, and is there no mail
 * in the journal that they should have told of and did not? */
bool mw_known_is_fresh(const char *journal_dir, struct mw_store *st);

/* The outcomes of a journal set, for one replay. */
struct mw_known_set {
	struct mw_known **known; /* by journal */
	int64_t *mark_us;        /* when the completed mark began; INT64_MIN: none */
	int64_t *end_us;         /* and when it was completed; INT64_MIN: none */
	struct mw_late *late;    /* for mw_query */
	size_t n;
};

/* By the query's since_mark, as of its marks_us; without one nothing is old or late. */
int mw_known_set_load(const struct mw_cli *cli, const struct mw_query *q,
                      struct mw_known_set *ret, struct mw_err *err) MW_CHECK;
void mw_known_set_done(struct mw_known_set *s);

#endif
