/* canon.h - the canonical form of a message (FORMAT.md §7), computed as a stream.
 *
 * The form forgets what delivery and stores are known to change, so that the digest of a
 * captured message meets the digest of its stored copy: trace fields off, CR dropped, NUL
 * as 0x80, 8-bit header bytes as 'X', a leading mbox "From " line off, empty lines at the
 * end off. It narrows candidates; it proves nothing by itself.
 */
#ifndef MW_RECORD_CANON_H
#define MW_RECORD_CANON_H

#include "journal/base/buf.h"

struct mw_canon {
	void (*emit)(void *arg, const void *p, size_t n);
	void *arg;
	struct mw_buf line; /* the header field in progress */
	uint64_t held;      /* newlines held back: emitted only if more follows */
	int state;
	bool skip;      /* inside a trace field */
	bool field_8bit; /* unused bits are zero */
};

void mw_canon_init(struct mw_canon *c, void (*emit)(void *, const void *, size_t),
		   void *arg);
/* Bytes may be cut anywhere. Memory: one header line, bounded at 256 KiB; a longer line
 * is treated as it comes. */
void mw_canon_put(struct mw_canon *c, const void *p, size_t n);
void mw_canon_done(struct mw_canon *c); /* emits what is due and frees */

/* True for a field name (no colon) that delivery adds: Received, Return-Path, … */
bool mw_canon_is_trace(struct mw_str name);

#endif
