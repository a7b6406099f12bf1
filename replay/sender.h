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

#endif
