/* verdict.h - SPF verdicts, beside the mail and never in its way (P5).
 *
 * A journaled message leaves a question in a queue of bounded length; when it is full,
 * the question is counted and dropped. A few threads, each with a helper process of its
 * own (helper.h), answer; one more appends the verdicts as records of type SPF, many to a
 * sync. What is not answered when the daemon stops is dropped too.
 *
 * Threads: mw_verdict_ask and mw_verdict_stats from any thread.
 */
#ifndef MW_MILTER_VERDICT_H
#define MW_MILTER_VERDICT_H

#include "conf/conf.h"
#include "journal/store/store.h"

struct mw_verdict;

/* What a start would refuse: MW_ECONF. Nothing with spf = no. */
int mw_verdict_check(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;
/* *ret is NULL with spf = no. store is borrowed. MW_ECONF, MW_ENOMEM. */
int mw_verdict_start(struct mw_store *store, const struct mw_conf *conf,
                     struct mw_verdict **ret, struct mw_err *err) MW_CHECK;
/* Kills the helpers, appends what is answered, frees. NULL ok. */
void mw_verdict_stop(struct mw_verdict *v);
/* A question about a journaled message, if it is one for SPF: mail that comes in from a
 * host outside. Copies what it needs and never waits. NULL v ok. */
void mw_verdict_ask(struct mw_verdict *v, const struct mw_mail *m,
                    const uint8_t id[MW_ID_LEN], uint64_t seq);

struct mw_verdict_stats {
	uint64_t checked;   /* verdicts in the journal */
	uint64_t temperror; /* of these */
	uint64_t dropped;   /* the queue was full, or the journal did not take it */
	uint64_t deaths;    /* of helpers */
	uint64_t queued;    /* now: asked, and not on disk yet */
};
void mw_verdict_stats(struct mw_verdict *v, struct mw_verdict_stats *ret); /* NULL: 0 */

#endif
