#include "journal/segment/frame.h"

#include "journal/base/bytes.h"
#include "journal/codec/digest.h"

#include <string.h>

static const uint8_t magic[4] = {'M', 'W', 'F', '1'};

uint64_t
mw_frame_len(const struct mw_frame *f)
{
	uint64_t n = MW_FRAME_HEADER + (uint64_t)f->slot_len + f->meta_len + f->body_len;
	return (n + 7) & ~UINT64_C(7);
}

static void
put_fields(const struct mw_frame *f, uint8_t *p)
{
	memcpy(p, magic, 4);
	mw_put32(p + 4, 0);
	mw_put64(p + 8, f->seq);
	mw_put64(p + 16, f->batch);
	mw_put64(p + 24, (uint64_t)f->time_us);
	memcpy(p + 32, f->id, MW_ID_LEN);
	p[48] = f->type;
	p[49] = f->flags;
	mw_put16(p + 50, f->batch_pos);
	mw_put32(p + 52, f->slot_len);
	mw_put32(p + 56, f->meta_len);
	mw_put32(p + 60, f->meta_crc);
	mw_put64(p + 64, f->body_len);
	mw_put32(p + 72, f->body_crc);
	mw_put32(p + 76, f->dict);
	mw_put64(p + 80, f->plain_len);
}

void
mw_frame_chain(struct mw_frame *f, const uint8_t prev[MW_HASH_LEN],
               const uint8_t meta_hash[MW_HASH_LEN], const uint8_t body_hash[MW_HASH_LEN])
{
	uint8_t head[MW_FRAME_HEADER];
	uint8_t in[1 + MW_FRAME_LEAF_BYTES - 8 + 2 * MW_HASH_LEN];
	uint8_t link[1 + 2 * MW_HASH_LEN];
	put_fields(f, head);
	in[0] = 0;
	memcpy(in + 1, head + 8, MW_FRAME_LEAF_BYTES - 8);
	memcpy(in + 1 + MW_FRAME_LEAF_BYTES - 8, meta_hash, MW_HASH_LEN);
	memcpy(in + 1 + MW_FRAME_LEAF_BYTES - 8 + MW_HASH_LEN, body_hash, MW_HASH_LEN);
	link[0] = 1;
	memcpy(link + 1, prev, MW_HASH_LEN);
	mw_sha256_of(in, sizeof in, link + 1 + MW_HASH_LEN);
	mw_sha256_of(link, sizeof link, f->chain);
}

static uint32_t
header_crc(const uint8_t *p, const uint8_t salt[MW_SALT_LEN])
{
	return mw_crc32c(mw_crc32c(0, salt, MW_SALT_LEN), p + 8, MW_FRAME_HEADER - 8);
}

void
mw_frame_encode(const struct mw_frame *f, const uint8_t salt[MW_SALT_LEN],
                uint8_t out[MW_FRAME_HEADER])
{
	put_fields(f, out);
	memcpy(out + 88, f->chain, MW_HASH_LEN);
	mw_put32(out + 4, header_crc(out, salt));
}

bool
mw_frame_decode(const uint8_t in[MW_FRAME_HEADER], const uint8_t salt[MW_SALT_LEN],
                struct mw_frame *ret)
{
	if (memcmp(in, magic, 4) != 0 || mw_get32(in + 4) != header_crc(in, salt))
		return false;
	struct mw_frame f = {
	    .seq = mw_get64(in + 8),
	    .batch = mw_get64(in + 16),
	    .time_us = (int64_t)mw_get64(in + 24),
	    .type = in[48],
	    .flags = in[49],
	    .batch_pos = mw_get16(in + 50),
	    .slot_len = mw_get32(in + 52),
	    .meta_len = mw_get32(in + 56),
	    .meta_crc = mw_get32(in + 60),
	    .body_len = mw_get64(in + 64),
	    .body_crc = mw_get32(in + 72),
	    .dict = mw_get32(in + 76),
	    .plain_len = mw_get64(in + 80),
	};
	memcpy(f.id, in + 32, MW_ID_LEN);
	memcpy(f.chain, in + 88, MW_HASH_LEN);
	if (f.slot_len < MW_SLOT_FIXED || f.slot_len % 8 ||
	    f.body_len > UINT64_C(1) << 48)
		return false;
	*ret = f;
	return true;
}

void
mw_slot_encode(const struct mw_slot *s, uint8_t *out)
{
	size_t len = MW_SLOT_FIXED + 8 * (size_t)s->n;
	memset(out, 0, MW_SLOT_FIXED);
	out[4] = MW_SLOT_LIVE;
	mw_put32(out + 8, s->n);
	memcpy(out + MW_SLOT_MAC_AT, s->mac, 8);
	memcpy(out + MW_SLOT_KEY_AT, s->key, MW_WRAPPED_KEY);
	if (s->n)
		memcpy(out + MW_SLOT_FIXED, s->tokens, 8 * (size_t)s->n);
	mw_put32(out, mw_crc32c(0, out + 4, len - 4));
}

/* What the CRC of a slot is over, from byte 4 on. */
static size_t
slot_covered(const uint8_t *p, size_t len)
{
	return (p[4] == MW_SLOT_CUTTING ? (size_t)MW_SLOT_FIXED : len) - 4;
}

bool
mw_slot_no_token(const uint8_t token[8])
{
	return mw_get64(token) == 0;
}

void
mw_slot_mark(uint8_t *p, size_t len, enum mw_slot_state state)
{
	p[4] = (uint8_t)state;
	mw_put32(p, mw_crc32c(0, p + 4, slot_covered(p, len)));
}

enum mw_slot_state
mw_slot_decode(const uint8_t *p, size_t len, struct mw_slot *ret)
{
	if (len < MW_SLOT_FIXED ||
	    mw_get32(p) != mw_crc32c(0, p + 4, slot_covered(p, len)))
		return MW_SLOT_BAD;
	ret->n = mw_get32(p + 8);
	ret->mac = p + MW_SLOT_MAC_AT;
	ret->key = p + MW_SLOT_KEY_AT;
	ret->tokens = p + MW_SLOT_FIXED;
	if (p[4] == MW_SLOT_WIPED) {
		ret->n = 0;
		return MW_SLOT_WIPED;
	}
	if ((p[4] != MW_SLOT_LIVE && p[4] != MW_SLOT_CUTTING) ||
	    MW_SLOT_FIXED + 8 * (uint64_t)ret->n != len)
		return MW_SLOT_BAD;
	return (enum mw_slot_state)p[4];
}
