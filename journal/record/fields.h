/* fields.h - a record's CBOR map as a table: one row per key, walked by the encoder and
 * by the decoder, so that the two cannot differ.
 *
 * Laws, for every record made of rows: decode(encode(x)) = x; any input decodes to a
 * value or to MW_EFORMAT; a key without a row is skipped, unless it begins with '!', then
 * the record is refused with MW_EVERSION (FORMAT.md I12). Keys are written in the order
 * of the rows.
 *
 * Pure functions over bytes. Decoded strings and arrays live in the caller's arena.
 */
#ifndef MW_RECORD_FIELDS_H
#define MW_RECORD_FIELDS_H

#include "journal/base/arena.h"
#include "journal/base/err.h"
#include "journal/record/cbor.h"

#include <stddef.h>

enum mw_field_type {
	MW_FIELD_INT,   /* int64_t */
	MW_FIELD_U64,   /* uint64_t */
	MW_FIELD_U32,   /* uint32_t; only the bits of `arg` are read, 0: all */
	MW_FIELD_BOOL,  /* bool, as 0 or 1; more is true */
	MW_FIELD_ENUM,  /* an enum or int; a number above `arg` is read as `other`, or is
	                   malformed where that is negative */
	MW_FIELD_STR,   /* struct mw_str */
	MW_FIELD_STRS,  /* struct mw_str *, their number at `count` */
	MW_FIELD_BYTES, /* uint8_t[arg] */
	MW_FIELD_CELLS, /* uint8_t (*)[arg], their number at `count` */
	MW_FIELD_OTHER  /* by put, take and, where it is optional, given */
};

struct mw_fields_rd;

struct mw_field {
	const char *key;
	enum mw_field_type type;
	size_t at;     /* offset in the record's struct */
	bool optional; /* left out when it equals `none` or is empty */
	bool required; /* a record without it is malformed */
	int64_t none;  /* of INT and ENUM; of other numbers it is 0 */
	uint64_t arg;
	int other;
	size_t count; /* offset of a size_t */
	bool (*given)(const void *rec);
	void (*put)(const void *rec, struct mw_buf *out);
	void (*take)(struct mw_fields_rd *d, void *rec);
};

struct mw_fields {
	const char *what; /* for messages: "mark" */
	const struct mw_field *row;
	size_t n; /* at most 64 */
};

/* One record as a map, appended. What fails is sticky in out. */
void mw_fields_put(const struct mw_fields *f, const void *rec, struct mw_buf *out);
/* The same; 0, MW_ENOMEM or MW_ELIMIT. */
int mw_fields_encode(const struct mw_fields *f, const void *rec,
                     struct mw_buf *out) MW_CHECK;
/* Reads the whole of the input into rec, which holds what absent keys stand for and may
 * be half filled after a failure. a may be NULL where no row takes memory. MW_EFORMAT,
 * MW_EVERSION, MW_ENOMEM. */
int mw_fields_decode(const struct mw_fields *f, struct mw_str in, struct mw_arena *a,
                     void *rec, struct mw_err *err) MW_CHECK;
/* The same, only that strings are those of the input, which must stay as long, and no
 * NUL stands behind them. */
int mw_fields_decode_here(const struct mw_fields *f, struct mw_str in, struct mw_arena *a,
                          void *rec, struct mw_err *err) MW_CHECK;

/* ---- for `take` ---- */

struct mw_fields_rd {
	struct mw_cbor_rd r; /* r.bad ends the reading */
	struct mw_arena *a;
	bool here; /* strings are not copied */
	bool nomem;
	struct mw_str feature; /* a key that must be known, and is not */
};

/* A string of the arena, or of the input. */
struct mw_str mw_fields_str(struct mw_fields_rd *d);
/* Reads the head of an array and makes room for its items, zeroed, `each` array members
 * going into one of them. NULL for an empty one and after a failure. */
void *mw_fields_array(struct mw_fields_rd *d, size_t each, size_t size, size_t *ret_n);
/* Exactly n bytes. */
void mw_fields_bytes(struct mw_fields_rd *d, void *to, size_t n);
/* The head of an array that is one item of `least` members, of later versions more: how
 * many are to be skipped after them, by mw_fields_skip. */
size_t mw_fields_tuple(struct mw_fields_rd *d, size_t least);
void mw_fields_skip(struct mw_fields_rd *d, size_t n);
/* A map within the record. */
void mw_fields_take(const struct mw_fields *f, struct mw_fields_rd *d, void *rec);

#endif
