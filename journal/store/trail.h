/* trail.h - what tells a copy that comes back from whatever else is like it.
 *
 * Where ENVID (guard.h) is lost on the way, as between Postfix and an LMTP server without
 * DSN, nothing in the envelope says that mailwal put a message back. But its bytes do:
 * they are those of the record, whose Received fields name the very hop on which it came
 * then, under at least one more Received field, of the server by which it comes now. So
 * whoever puts it back tells the daemon beforehand what to expect (control.h, "expect"),
 * as a tag: an HMAC under the journal's guard key of the record's canonical digest
 * (record/canon.h), all its Received fields, and the sender and the one recipient with
 * which it goes out. The daemon makes the tags that an arriving message could have, one
 * for each field that may be its first old one, and takes one that was told, once.
 *
 * A message that its sender sends again has other Received fields, since each hop's has
 * its queue ID and time; one that a queue brings a second time has no more of them. What
 * has the same ones and the same digest for the same recipient is in the journal already.
 *
 * Use: mw_trail_init; mw_trail_put with the message from its beginning, cut anywhere;
 * mw_trail_end; mw_trail_tag. No memory is held. Threads: one a trail.
 */
#ifndef MW_STORE_TRAIL_H
#define MW_STORE_TRAIL_H

#include "journal/store/guard.h"

enum {
	MW_TRAIL_MOST = 64, /* Received fields; mail servers take 50 or so for a loop */
	MW_TRAIL_TAG = 16
};

struct mw_trail {
	uint8_t sum[MW_TRAIL_MOST][MW_SHA256_LEN]; /* of each field, the topmost first */
	size_t n;                                  /* fields, also beyond those */
	/* private */
	struct mw_sha256 sha;
	size_t n_name;
	int state;
	bool open; /* in a Received field */
};

void mw_trail_init(struct mw_trail *t);
void mw_trail_put(struct mw_trail *t, const void *p, size_t n);
void mw_trail_end(struct mw_trail *t);

struct mw_trail_of {
	struct mw_str sender, rcpt; /* as in MAIL and RCPT, without brackets */
	const uint8_t *digest;      /* canonical, MW_SHA256_LEN */
};
/* The tag of a message whose old fields begin at `from`. False: it has none, since there
 * is no field from there on, or there are more than fit. */
bool mw_trail_tag(const struct mw_trail *t, const uint8_t key[MW_GUARD_KEY],
                  const struct mw_trail_of *of, size_t from, uint8_t tag[MW_TRAIL_TAG]);

#endif
