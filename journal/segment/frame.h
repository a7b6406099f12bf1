/* frame.h - the bytes of a frame: header, chain, key slot (FORMAT.md §3, §4).
 * Pure functions; knows no mail and no keys. */
#ifndef MW_SEGMENT_FRAME_H
#define MW_SEGMENT_FRAME_H

#include "journal/base/err.h"
#include "journal/base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MW_FRAME_HEADER = 120,
	MW_FRAME_LEAF_BYTES = 88, /* header bytes 8 … 87 enter the leaf */
	MW_SLOT_FIXED = 72,
	MW_SLOT_KEY_AT = 24,
	MW_SLOT_MAC_AT = 16,
	MW_SALT_LEN = 16,
	MW_HASH_LEN = 32,
	MW_WRAPPED_KEY = 48
};

struct mw_frame {
	uint64_t seq, batch;
	int64_t time_us;
	uint8_t id[MW_ID_LEN];
	uint8_t type, flags;
	uint16_t batch_pos;
	uint32_t slot_len, meta_len, meta_crc;
	uint64_t body_len;
	uint32_t body_crc, dict;
	uint64_t plain_len;
	uint8_t chain[MW_HASH_LEN];
};

/* Whole length in the file, padding included. */
uint64_t mw_frame_len(const struct mw_frame *f);
/* Fills the chain hash of f from the one before and the hashes of its stored parts. */
void mw_frame_chain(struct mw_frame *f, const uint8_t prev[MW_HASH_LEN],
                    const uint8_t meta_hash[MW_HASH_LEN],
                    const uint8_t body_hash[MW_HASH_LEN]);
void mw_frame_encode(const struct mw_frame *f, const uint8_t salt[MW_SALT_LEN],
                     uint8_t out[MW_FRAME_HEADER]);
/* False unless magic, CRC and the shape of the lengths hold. */
bool mw_frame_decode(const uint8_t in[MW_FRAME_HEADER], const uint8_t salt[MW_SALT_LEN],
                     struct mw_frame *ret);

enum mw_slot_state {
	MW_SLOT_BAD = 0,
	MW_SLOT_LIVE = 1,
	MW_SLOT_WIPED = 2,
	MW_SLOT_CUTTING = 3 /* live; tokens are being removed, and not under the CRC */
};

/* Writes length, state live, tokens, MAC and wrapped key; then the CRC. */
struct mw_slot {
	const uint8_t *mac;    /* 8 */
	const uint8_t *key;    /* MW_WRAPPED_KEY */
	const uint8_t *tokens; /* 8 n */
	uint32_t n;
};
void mw_slot_encode(const struct mw_slot *s, uint8_t *out);
/* Checks CRC and shape of len bytes. A token of eight zero bytes was removed. */
enum mw_slot_state mw_slot_decode(const uint8_t *p, size_t len, struct mw_slot *ret);
bool mw_slot_no_token(const uint8_t token[8]);
/* Sets the state of a slot of len bytes, and the CRC: all that changes are its first 8
 * bytes, which lie within one sector. */
void mw_slot_mark(uint8_t *p, size_t len, enum mw_slot_state state);

#endif
