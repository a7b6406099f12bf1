/* untaken.h - messages that Postfix received, whose sender it told to come again.
 *
 * A message is journaled when the milter has answered. When Postfix fails after that (its
 * cleanup dies, or cannot write), the sender gets a 4xx and comes again: two records, one
 * delivery. No line of the log says so of the message; what says it is that smtpd counts,
 * at the end of the session, one DATA that failed, and that the message is never seen in
 * the queue. A message whose answer alone was lost is: smtpd does not count it as failed,
 * and the queue manager names it.
 *
 * Told is only what adds up: the session's beginning and end were seen; each message that
 * smtpd counts as accepted is known by its queue ID to be in the queue; of all that
 * failed, as many are named; and the queue manager went on to take later mail of the same
 * host. Lines that come late (logs read in another order, a clock set back) and sessions
 * that were pushed out say nothing. Mail queued behind a 4xx for all that is seen in the
 * queue later: the caller must take back then what was told.
 *
 * And told only when its sender has come with it once more: a later message of the same
 * Message-ID is in the queue, which the caller compares. Logs lose lines, many at a time
 * (both rsyslog and journald do under load), and what is left can add up to one session
 * out of two: then a message that was accepted would look refused, and nobody would put
 * it back. One of two that are the same is no loss. Senders come again for days; so long
 * it is waited for them, as far as there is room.
 *
 * Life: mw_untaken_init → mw_untaken_event for each event, in the order of the log →
 * mw_untaken_done. What is open can be kept between runs. Bounded memory, no I/O, one
 * thread.
 */
#ifndef MW_REPLAY_UNTAKEN_H
#define MW_REPLAY_UNTAKEN_H

#include "journal/base/err.h"
#include "replay/mtalog.h"

#include <jansson.h>

struct mw_untaken_session;

struct mw_untaken {
	struct mw_untaken_session *open;  /* hash by host and process */
	struct mw_untaken_session *ended; /* that await the queue manager */
	size_t n_ended;
	struct mw_untaken_place *place; /* hash of queue IDs: whose session */
	struct mw_untaken_place *await; /* hash of Message-IDs, and queue IDs, that may be
	                                 * a message of an open session come again */
	struct {
		uint64_t host;
		int64_t us;
	} newest[16]; /* by host: no older line is believed */
	size_t n_host;
};

/* A message that was not taken: it began at begun_us, its session ended at ended_us; it
 * may have come again as that other one. 1; 0: that is not the same, another may come;
 * negative. */
typedef int mw_untaken_cb(void *arg, struct mw_str queue_id, struct mw_str again,
                          int64_t begun_us, int64_t ended_us);

int mw_untaken_init(struct mw_untaken *u) MW_CHECK; /* 0 or MW_ENOMEM */
/* Calls cb for what is known now. 0, MW_ENOMEM, or what cb returned if that is negative.
 */
int mw_untaken_event(struct mw_untaken *u, const struct mw_mta_event *e,
                     mw_untaken_cb *cb, void *arg) MW_CHECK;
/* What is open, as JSON, the caller's; NULL: no memory. */
json_t *mw_untaken_save(const struct mw_untaken *u);
/* After init. What is damaged is left out. 0 or MW_ENOMEM. */
int mw_untaken_load(struct mw_untaken *u, const json_t *state) MW_CHECK;
void mw_untaken_done(struct mw_untaken *u); /* zeroed ok */

#endif
