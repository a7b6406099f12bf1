/* outcome.h - what became of captured mail, and its CBOR form (FORMAT.md §6, OUTCOME).
 *
 * One record holds what a stretch of the MTA's log said of several messages. Records add
 * up in log order: the latest state of a recipient counts, `done` and `whole` stay. The
 * same fact twice is the same fact.
 *
 * Pure functions over bytes. Laws: decode(encode(x)) = x; any input decodes to a value or
 * to MW_EFORMAT (MW_EVERSION for keys that begin with '!'). Decoded strings and arrays
 * live in the caller's arena.
 */
#ifndef MW_RECORD_OUTCOME_H
#define MW_RECORD_OUTCOME_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/err.h"
#include "journal/base/id.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum mw_fact { /* numbers are on disk: never reuse one */
	MW_FACT_UNKNOWN = 0,
	MW_FACT_SENT = 1,      /* handed to another server or program */
	MW_FACT_BOUNCED = 2,   /* undeliverable for good; the sender was told */
	MW_FACT_EXPIRED = 3,   /* given up after too long a time in the queue */
	MW_FACT_DEFERRED = 4,  /* will be tried again */
	MW_FACT_REFUSED = 5,   /* refused by a step behind the capture: never accepted */
	MW_FACT_HELD = 6,      /* waits in the hold queue */
	MW_FACT_DISCARDED = 7, /* accepted and thrown away, as the MTA was told to */
	MW_FACT_DELIVERED = 8  /* into a mailbox: that was its last hop */
};

const char *mw_fact_name(enum mw_fact f); /* "sent" …; "unknown" */

enum {
	MW_OUTCOME_TEXT_MAX = 200 /* bytes of the MTA's text that are kept */
};

struct mw_outcome_rcpt {
	struct mw_str addr;     /* as the MTA delivers to it; raw bytes */
	struct mw_str original; /* before the MTA's aliases, empty when the same */
	enum mw_fact fact;
	int64_t time_us;   /* of the MTA's log line */
	struct mw_str dsn; /* "2.0.0", may be empty */
	struct mw_str relay;
	struct mw_str text;
};

struct mw_outcome {
	uint8_t id[MW_ID_LEN]; /* of the MAIL record */
	uint64_t seq;          /* its sequence number */
	struct mw_str queue_id;
	enum mw_fact
	    whole; /* REFUSED, EXPIRED, HELD, DISCARDED: of the message, else 0 */
	int64_t whole_us;
	bool done;  /* the MTA has removed it from its queue */
	bool freed; /* it was released from hold, or is in the queue after all: takes an
	             * earlier HELD or REFUSED back */
	int64_t done_us;
	struct mw_outcome_rcpt *rcpt;
	size_t n_rcpt;
};

struct mw_outcomes {
	int64_t time_us; /* when this was written */
	struct mw_outcome *v;
	size_t n;
};

/* Appends the deterministic CBOR form. 0, MW_ENOMEM or MW_ELIMIT. */
int mw_outcomes_encode(const struct mw_outcomes *o, struct mw_buf *out) MW_CHECK;
int mw_outcomes_decode(const void *p, size_t n, struct mw_arena *a,
                       struct mw_outcomes *ret, struct mw_err *err) MW_CHECK;

#endif
