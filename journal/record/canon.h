/* canon.h - the canonical form of a message (FORMAT.md §7), computed as a stream.
 *
 * The form forgets what delivery and stores are known to change, so that the digest of a
 * captured message meets the digest of its stored copy: trace fields off, CR dropped, NUL
 * as 0x80, 8-bit header bytes as 'X', a leading mbox "From " line off, empty lines at the
 * end off. It narrows candidates; it proves nothing by itself.
 */
#ifndef MW_RECORD_CANON_H
#define MW_RECORD_CANON_H

#include "journal/base/str.h"

#include <stdint.h>

struct mw_canon { /* private; no memory is held beyond this */
	void (*emit)(void *arg, const void *p, size_t n);
	void *arg;
	uint64_t held; /* newlines held back: emitted only if more follows */
	size_t n_name;
	int state;
	bool skip;  /* inside a trace field */
	bool first; /* no line has ended yet */
	uint8_t name[64];
	size_t n_buf;
	uint8_t buf[1024]; /* not emitted yet */
};

void mw_canon_init(struct mw_canon *c, void (*emit)(void *, const void *, size_t),
                   void *arg);
/* Bytes may be cut anywhere; they are emitted in pieces of any size, some of them later.
 */
void mw_canon_put(struct mw_canon *c, const void *p, size_t n);
void mw_canon_done(struct mw_canon *c); /* emits what is due */

/* Has the empty line after the header come? Asked from within emit: these are body bytes,
 * but for a newline held back from the header's end. */
bool mw_canon_in_body(const struct mw_canon *c);
/* True for a field name (no colon) that delivery adds: Received, Return-Path, … */
bool mw_canon_is_trace(struct mw_str name);

#endif
