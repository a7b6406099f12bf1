/* sender.h - the SPF verdict on a journaled mail, as list and show present it. */
#ifndef MW_REPLAY_SENDER_H
#define MW_REPLAY_SENDER_H

#include "journal/record/spf.h"
#include "replay/cmd.h"

/* The newest verdict on the mail with that ID: 1, or 0 if there is none that can be read;
 * strings are in the arena. */
int mw_sender_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
                   struct mw_spf *ret);
/* {"result": "pass", …}; NULL: out of memory. */
json_t *mw_sender_json(const struct mw_spf *s);
/* Adds it as the member "spf" where there is a verdict; o, which may be NULL. */
json_t *mw_sender_add(json_t *o, const struct mw_spf *s);

/* The verdicts on many mails of one journal after the other: the first are looked up one
 * by one, then all verdicts of the journal are gathered once. Zero to start. */
struct mw_senders {
	struct mw_store *store;
	size_t asked;
	bool none; /* the journal has no verdict at all */
	bool mapped;
	struct mw_sender_ref *v; /* by ID of the mail */
	size_t n, cap;
};

int mw_senders_find(struct mw_senders *b, struct mw_store *st,
                    const uint8_t id[MW_ID_LEN], struct mw_arena *a, struct mw_spf *ret);
void mw_senders_done(struct mw_senders *b);

#endif
