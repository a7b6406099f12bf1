/* plan.h - which copies belong where: the journal's side of a replay, box by box.
 *
 * Two walks: the first finds what the selection names and so the boxes concerned; the
 * second gathers, for these boxes only, every copy that the journal has, since an old
 * copy must be able to claim its stored message before a new one does. About 120 bytes a
 * record and 12 a copy. One thread; everything lives in the plan.
 */
#ifndef MW_REPLAY_PLAN_H
#define MW_REPLAY_PLAN_H

#include "replay/select.h"
#include "replay/target.h"

struct mw_plan_rec {
	uint8_t id[MW_ID_LEN];
	uint8_t digest[32];
	struct mw_loc loc;
	uint64_t seq;
	int64_t time_us;
	uint64_t size;
	uint64_t msgid, queue; /* hashes, see profile.h */
	const char *folder;    /* where imported mail was; NULL: INBOX or Sent */
	uint32_t journal;
	bool imported; /* its time is not the journal's, nor the store's */
};

enum mw_fate {
	MW_FATE_OPEN,
	MW_FATE_TRIED, /* given to the target, no answer: in doubt until the next scan */
	MW_FATE_PRESENT,
	MW_FATE_RESTORED,
	MW_FATE_FAILED,
	MW_FATE_DOUBTFUL, /* write-only target: may have been delivered */
	MW_FATE_SKIPPED,
	/* By the MTA's log, and not there: */
	MW_FATE_REMOVED, /* delivered before the mark, so removed by its user */
	MW_FATE_REFUSED,
	MW_FATE_BOUNCED,
	MW_FATE_QUEUED /* the MTA will deliver it */
};

enum mw_waits {
	MW_WAITS_NO,
	MW_WAITS_YES, /* in the queue, not in the box: asked again at the end */
	MW_WAITS_LEFT /* it was, and left: only another scan can tell */
};

struct mw_plan_copy {
	uint32_t rec;
	uint8_t fate; /* enum mw_fate; only for wanted ones */
	bool sent, wanted, ambiguous;
	bool may_wait;  /* by the MTA's log it may be in the queue still */
	bool told;      /* the MTA's log tells what became of its message, */
	bool twin;      /* or not, but of the same message, come again */
	bool filed;     /* given to the user's script; the next scan tells the rest */
	uint32_t front; /* bytes that this run put before the captured ones */
	uint8_t known;  /* enum mw_known_class: what the MTA's log says of it */
	uint8_t waits;  /* enum mw_waits: what the MTA's queue says */
	bool spent;     /* its retry counts as there by it */
};

struct mw_plan_box {
	const char *box, *mailbox;
	struct mw_plan_copy *v; /* oldest first */
	size_t n, cap, n_wanted;
	bool again;    /* to be scanned once more: copies left the queue meanwhile */
	bool bad_name; /* the mailbox cannot be a place of this target */
	bool shared;   /* of several mailboxes: a report names the place */
	size_t same;   /* while it is made: the box that this is a name of, + 1 */
	bool in_use;   /* counted as that (run_live.c) */
};

struct mw_plan {
	struct mw_arena *arena;
	struct mw_plan_rec *rec;
	size_t n_rec, cap_rec;
	struct mw_plan_box *box;
	size_t n_box, cap_box;
	uint32_t *gone_on; /* of a journal set: records whose mail only went on outside */
	size_t n_gone_on, cap_gone_on;
	size_t *slot; /* hash of box names, position + 1 */
	size_t n_slot;
	size_t n_wanted;
	bool by_message;   /* made with the option mailbox */
	size_t unreadable; /* records that could not be read: what they hold is unknown */
};

struct mw_plan_opts {
	struct mw_cli *cli;
	const struct mw_query *query;
	struct mw_target *target;
	/* Of this mailbox only, each message once: a wanted message is there if one of
	 * its copies is, wherever it lies (recover). NULL: off. */
	const char *mailbox;
	bool export; /* one box, each selected message once, whoever it was for */
	/* Called when the first box is known, while the plan is being made; imported: of
	 * what was brought in. The texts live as long as the plan. NULL ok. */
	void (*first_box)(void *arg, const char *mailbox, const char *box, bool imported);
	/* Called for each unreadable record; NULL ok. */
	void (*bad)(void *arg, const struct mw_err *err);
	void *arg;
};

int mw_plan_make(const struct mw_plan_opts *o, struct mw_plan **ret,
                 struct mw_err *err) MW_CHECK;
void mw_plan_free(struct mw_plan *p); /* NULL ok */
/* Is the copy itself one that --user or --domain names: 1, 0 or MW_ENOMEM? (Other terms
 * choose messages.) */
int mw_plan_named(const struct mw_conf *conf, const struct mw_query *q,
                  const struct mw_copy *c, struct mw_arena *tmp) MW_CHECK;

#endif
