/* cbor.h - CBOR (RFC 8949) in the small: definite lengths, a bounded pull reader.
 * The only room file that sees libcbor is cbor.c. */
#ifndef MW_RECORD_CBOR_H
#define MW_RECORD_CBOR_H

#include "journal/base/buf.h"

#include <stdint.h>

/* Writers: failures are sticky in the buffer. */
void mw_cbor_put_uint(struct mw_buf *b, uint64_t v);
void mw_cbor_put_int(struct mw_buf *b, int64_t v);
void mw_cbor_put_bytes(struct mw_buf *b, struct mw_str s);
void mw_cbor_put_text(struct mw_buf *b, const char *z); /* UTF-8: our own words only */
void mw_cbor_put_array(struct mw_buf *b, size_t n);
void mw_cbor_put_map(struct mw_buf *b, size_t n);

enum mw_cbor_kind {
	MW_CBOR_BAD = 0,
	MW_CBOR_UINT,
	MW_CBOR_NINT, /* value is -1 - u */
	MW_CBOR_BYTES,
	MW_CBOR_TEXT,
	MW_CBOR_ARRAY, /* u items follow */
	MW_CBOR_MAP,   /* u pairs follow */
	MW_CBOR_OTHER  /* bool, null, float, … : skipped as one item */
};

struct mw_cbor_item {
	enum mw_cbor_kind kind;
	uint64_t u;
	struct mw_str s; /* points into the input */
};

struct mw_cbor_rd { /* zero `at` and `bad` to start */
	const uint8_t *p;
	size_t n, at;
	bool bad; /* sticky */
};

/* The next item (head only for arrays and maps). kind BAD at malformed or missing input,
 * at indefinite lengths and at containers that claim more items than bytes are left. */
struct mw_cbor_item mw_cbor_next(struct mw_cbor_rd *r);
/* Skips the rest of an item just read (the members of a container). */
void mw_cbor_skip(struct mw_cbor_rd *r, const struct mw_cbor_item *it);
/* Typed reads; a wrong type is BAD. */
uint64_t mw_cbor_uint(struct mw_cbor_rd *r);
int64_t mw_cbor_int(struct mw_cbor_rd *r);
struct mw_str mw_cbor_bytes(struct mw_cbor_rd *r); /* byte or text string */
size_t mw_cbor_array(struct mw_cbor_rd *r);
size_t mw_cbor_map(struct mw_cbor_rd *r);

#endif
