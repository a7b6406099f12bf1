/* profile.h - what identifies a message's bytes, and what its header says about it.
 *
 * A profile is computed from the whole message as a stream: the canonical digest
 * (record/canon.h), a hash of the canonical body, and one hash per header field that is
 * not a trace field. Line ends, NUL and 8-bit header bytes are folded as in canon.h.
 */
#ifndef MW_REPLAY_PROFILE_H
#define MW_REPLAY_PROFILE_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	MW_PROFILE_FIELDS = 8192,        /* most fields; beyond: never a subset */
	MW_PROFILE_HEADER = 1024 * 1024, /* most header bytes looked at */
};

struct mw_profile {
	uint8_t digest[32];
	uint8_t exact[32]; /* SHA-256 of the bytes as they came */
	uint8_t body[16];
	/* The same without the '>' that mbox stores and some deliveries put before a line
	 * that begins with "From " (or ">From "). */
	uint8_t unquoted[16];
	bool cut; /* the header went beyond the limits */
	uint32_t n_field;
	uint64_t field[]; /* ascending */
};

struct mw_profiler; /* one message in progress */

struct mw_profiler *mw_profiler_new(void); /* NULL: out of memory */
/* Bytes cut anywhere. Always 0, so that it serves as a sink; failures are sticky. */
int mw_profiler_put(void *profiler, const void *p, size_t n);
/* The profile (free it with free()), NULL when out of memory; the profiler is ready for
 * the next message. */
struct mw_profile *mw_profiler_take(struct mw_profiler *p);
void mw_profiler_free(struct mw_profiler *p); /* NULL ok */

/* Is every field of a in b, as often? */
bool mw_profile_subset(const struct mw_profile *a, const struct mw_profile *b);

uint64_t mw_hash64(struct mw_str s); /* never 0; 0 stands for "none" */
/* The hash of a Message-ID value (folds, blanks and brackets as record/header.h has it);
 * 0 for an empty one. */
uint64_t mw_msgid_hash(struct mw_str value);

struct mw_facts { /* of a stored message's header */
	uint64_t msgid;
	uint64_t queue;      /* the topmost queue ID that known() accepts, 0: none */
	int64_t received_us; /* of that field; INT64_MIN: none */
};

void mw_header_facts(struct mw_str header, bool (*known)(void *arg, uint64_t queue),
                     void *arg, struct mw_facts *ret);

struct mw_hop { /* a queue ID in a Received field, and the time of that field */
	uint64_t queue;
	int64_t us;
};

/* The same while nobody can say yet which queue IDs are known: each of them, the topmost
 * first. Returns the Message-ID's hash, 0: none. */
uint64_t mw_header_hops(struct mw_str header, void (*hop)(void *arg, struct mw_hop h),
                        void *arg);

#endif
