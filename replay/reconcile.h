/* reconcile.h - which copies of the journal a box already holds: a pure decision.
 *
 * In: every copy that the journal has for the box (not only the selected ones, so that an
 * old copy claims its stored message before a new one does) and every message found in
 * it. Each stored message is claimed at most once: multisets, not sets. Rules, in the
 * order of the design:
 *	queue	the MTA's queue ID in the topmost Received field that names one of ours,
 *		within a day of the capture, Message-IDs not contradicting
 *	fast	Message-ID, exact size and exact second of arrival, when unique on both
 *		sides: what an earlier replay put there
 *	digest	equal canonical digest (same arrival second first)
 *	subset	equal canonical body (but for '>' before "From "), all captured fields
 *		among the stored ones
 *	sent	equal body and Message-ID, for a user's own Sent copy (in the Sent folder,
 *		or anywhere where the copy says so)
 *
 * What is left is missing; if an unclaimed stored message bears the same Message-ID, the
 * evidence is contradictory and the copy is marked ambiguous.
 *
 * Life: fill the arrays → mw_reconcile_fast → fetch the profiles of stored messages with
 * `need` → mw_reconcile_digest → read those of copies with `need` → mw_reconcile_body.
 * Each later step may be skipped when nothing needs it. Nothing is allocated beyond the
 * call; no I/O.
 */
#ifndef MW_REPLAY_RECONCILE_H
#define MW_REPLAY_RECONCILE_H

#include "journal/base/err.h"
#include "replay/profile.h"

#include <stddef.h>

enum mw_rc_how {
	MW_RC_MISSING = 0,
	MW_RC_QUEUE,
	MW_RC_FAST,
	MW_RC_DIGEST,
	MW_RC_SUBSET,
	MW_RC_SENT
};

struct mw_rc_copy {            /* oldest first */
	uint64_t msgid, queue; /* hashes, 0: none */
	int64_t time_us;
	uint64_t size;
	const uint8_t *digest;            /* 32 bytes */
	const struct mw_profile *profile; /* NULL until read */
	bool sent;                        /* the owner's Sent copy */
	bool wanted;                      /* selected: to be put back if missing */
	bool anywhere; /* a Sent copy as the client saved it counts in any folder */
	/* decided: */
	bool need, ambiguous;
	enum mw_rc_how how;
	uint32_t stored; /* index of what it claimed, when how is not MISSING */
};

struct mw_rc_stored {
	uint64_t key, msgid, queue, size;
	int64_t date_us, received_us;
	struct mw_profile *profile; /* NULL until fetched; the caller frees it */
	bool sent_folder;
	/* decided: */
	bool claimed, need;
};

/* The queue and fast rules; sets need on stored messages that must be looked at. Returns
 * how many, or MW_ENOMEM. */
int mw_reconcile_fast(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m);
/* Of stored messages whose Received fields were not asked for: 1 every wanted copy is
 * there by the fast rule, and would be so by the queue and fast rules with them; 0 that
 * cannot be said. MW_ENOMEM. */
int mw_reconcile_brief(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m);
/* The digest rule, on what has a profile; sets need on copies. Returns how many. */
int mw_reconcile_digest(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m);
/* The subset and sent rules, and the ambiguous marks. Returns 0 or MW_ENOMEM. */
int mw_reconcile_body(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m);

#endif
