/* item.h - one journaled mail as list and show present it. */
#ifndef MW_REPLAY_ITEM_H
#define MW_REPLAY_ITEM_H

#include "replay/select.h"

/* The object of `list --json` (mailwal(1), JSON OUTPUT). NULL: out of memory. */
json_t *mw_item_json(const struct mw_cli *cli, const struct mw_item *it,
                     struct mw_arena *a);
/* "alice@example.org +2": the accepted recipients in short. */
void mw_item_to(const struct mw_mail *m, struct mw_buf *out);
/* Names of the set flags as a JSON array. */
json_t *mw_item_flags(uint32_t flags);

#endif
