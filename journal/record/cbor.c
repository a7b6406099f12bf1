#include "journal/record/cbor.h"

#include "journal/base/util.h"

#include <cbor.h>

void
mw_cbor_put_uint(struct mw_buf *b, uint64_t v)
{
	uint8_t t[9];
	mw_buf_put(b, t, cbor_encode_uint(v, t, sizeof t));
}

void
mw_cbor_put_int(struct mw_buf *b, int64_t v)
{
	uint8_t t[9];
	if (v >= 0)
		mw_cbor_put_uint(b, (uint64_t)v);
	else
		mw_buf_put(b, t, cbor_encode_negint((uint64_t)(-1 - v), t, sizeof t));
}

void
mw_cbor_put_bytes(struct mw_buf *b, struct mw_str s)
{
	uint8_t t[9];
	mw_buf_put(b, t, cbor_encode_bytestring_start(s.n, t, sizeof t));
	mw_buf_put(b, s.p, s.n);
}

void
mw_cbor_put_text(struct mw_buf *b, const char *z)
{
	uint8_t t[9];
	size_t n = strlen(z);
	mw_buf_put(b, t, cbor_encode_string_start(n, t, sizeof t));
	mw_buf_put(b, z, n);
}

void
mw_cbor_put_array(struct mw_buf *b, size_t n)
{
	uint8_t t[9];
	mw_buf_put(b, t, cbor_encode_array_start(n, t, sizeof t));
}

void
mw_cbor_put_map(struct mw_buf *b, size_t n)
{
	uint8_t t[9];
	mw_buf_put(b, t, cbor_encode_map_start(n, t, sizeof t));
}

/* libcbor's streaming decoder calls one of these per item. */

static void
set(void *ctx, enum mw_cbor_kind kind, uint64_t u)
{
	struct mw_cbor_item *it = ctx;
	it->kind = kind;
	it->u = u;
}

static void
on_u8(void *c, uint8_t v)
{
	set(c, MW_CBOR_UINT, v);
}

static void
on_u16(void *c, uint16_t v)
{
	set(c, MW_CBOR_UINT, v);
}

static void
on_u32(void *c, uint32_t v)
{
	set(c, MW_CBOR_UINT, v);
}

static void
on_u64(void *c, uint64_t v)
{
	set(c, MW_CBOR_UINT, v);
}

static void
on_n8(void *c, uint8_t v)
{
	set(c, MW_CBOR_NINT, v);
}

static void
on_n16(void *c, uint16_t v)
{
	set(c, MW_CBOR_NINT, v);
}

static void
on_n32(void *c, uint32_t v)
{
	set(c, MW_CBOR_NINT, v);
}

static void
on_n64(void *c, uint64_t v)
{
	set(c, MW_CBOR_NINT, v);
}

static void
on_str(void *c, enum mw_cbor_kind kind, cbor_data p, size_t n)
{
	struct mw_cbor_item *it = c;
	it->kind = kind;
	it->s = mw_str((const char *)p, n);
	it->u = n;
}

static void
on_bytes(void *c, cbor_data p, size_t n)
{
	on_str(c, MW_CBOR_BYTES, p, n);
}

static void
on_text(void *c, cbor_data p, size_t n)
{
	on_str(c, MW_CBOR_TEXT, p, n);
}

static void
on_array(void *c, size_t n)
{
	set(c, MW_CBOR_ARRAY, n);
}

static void
on_map(void *c, size_t n)
{
	set(c, MW_CBOR_MAP, n);
}

static void
on_none(void *c)
{
	set(c, MW_CBOR_OTHER, 0);
}

static void
on_bool(void *c, bool v)
{
	set(c, MW_CBOR_OTHER, v);
}

static void
on_float(void *c, float v)
{
	(void)v;
	set(c, MW_CBOR_OTHER, 0);
}

static void
on_double(void *c, double v)
{
	(void)v;
	set(c, MW_CBOR_OTHER, 0);
}

/* Heads of one or two bytes, which nearly all are: true if *it is what the library would
 * have made of it. */
static bool
short_item(struct mw_cbor_rd *r, struct mw_cbor_item *it)
{
	static const enum mw_cbor_kind kinds[] = {MW_CBOR_UINT,  MW_CBOR_NINT,
	                                          MW_CBOR_BYTES, MW_CBOR_TEXT,
	                                          MW_CBOR_ARRAY, MW_CBOR_MAP};
	const uint8_t *p = r->p + r->at;
	size_t left = r->n - r->at, head = 1, major = p[0] >> 5, u = p[0] & 31;
	if (major >= MW_COUNT(kinds) || u > 24)
		return false;
	if (u == 24) {
		if (left < 2)
			return false;
		u = p[1];
		head = 2;
	}
	it->kind = kinds[major];
	it->u = u;
	if (it->kind == MW_CBOR_BYTES || it->kind == MW_CBOR_TEXT) {
		if (u > left - head)
			return false;
		it->s = mw_str((const char *)p + head, u);
		head += u;
	}
	r->at += head;
	return true;
}

/* All others. */
static bool
any_item(struct mw_cbor_rd *r, struct mw_cbor_item *it)
{
	/* Tags and indefinite items stay at cbor_empty_callbacks' no-ops: kind BAD. */
	struct cbor_callbacks cb = cbor_empty_callbacks;
	cb.uint8 = on_u8;
	cb.uint16 = on_u16;
	cb.uint32 = on_u32;
	cb.uint64 = on_u64;
	cb.negint8 = on_n8;
	cb.negint16 = on_n16;
	cb.negint32 = on_n32;
	cb.negint64 = on_n64;
	cb.byte_string = on_bytes;
	cb.string = on_text;
	cb.array_start = on_array;
	cb.map_start = on_map;
	cb.null = on_none;
	cb.undefined = on_none;
	cb.boolean = on_bool;
	cb.float2 = on_float;
	cb.float4 = on_float;
	cb.float8 = on_double;
	*it = (struct mw_cbor_item){.kind = MW_CBOR_BAD};
	struct cbor_decoder_result d =
	    cbor_stream_decode(r->p + r->at, r->n - r->at, &cb, it);
	if (d.status != CBOR_DECODER_FINISHED || it->kind == MW_CBOR_BAD)
		return false;
	r->at += d.read;
	return true;
}

struct mw_cbor_item
mw_cbor_next(struct mw_cbor_rd *r)
{
	struct mw_cbor_item it = {.kind = MW_CBOR_BAD};
	if (r->bad || r->at >= r->n) {
		r->bad = true;
		return it;
	}
	if (!short_item(r, &it) && !any_item(r, &it)) {
		r->bad = true;
		it.kind = MW_CBOR_BAD;
		return it;
	}
	if ((it.kind == MW_CBOR_ARRAY && it.u > r->n - r->at) ||
	    (it.kind == MW_CBOR_MAP && it.u > (r->n - r->at) / 2)) {
		r->bad = true;
		it.kind = MW_CBOR_BAD;
	}
	return it;
}

void
mw_cbor_skip(struct mw_cbor_rd *r, const struct mw_cbor_item *it)
{
	if (it->kind != MW_CBOR_ARRAY && it->kind != MW_CBOR_MAP)
		return;
	/* No recursion: `due` counts items still owed. Each costs at least a byte of
	 * input, so the loop is bounded by it. */
	uint64_t due = it->kind == MW_CBOR_MAP ? it->u * 2 : it->u;
	while (due && !r->bad) {
		struct mw_cbor_item in = mw_cbor_next(r);
		due--;
		if (in.kind == MW_CBOR_ARRAY)
			due += in.u;
		else if (in.kind == MW_CBOR_MAP)
			due += in.u * 2;
		if (due > r->n)
			r->bad = true;
	}
}

uint64_t
mw_cbor_uint(struct mw_cbor_rd *r)
{
	struct mw_cbor_item it = mw_cbor_next(r);
	if (it.kind != MW_CBOR_UINT)
		r->bad = true;
	return r->bad ? 0 : it.u;
}

int64_t
mw_cbor_int(struct mw_cbor_rd *r)
{
	struct mw_cbor_item it = mw_cbor_next(r);
	if ((it.kind != MW_CBOR_UINT && it.kind != MW_CBOR_NINT) || it.u > INT64_MAX)
		r->bad = true;
	if (r->bad)
		return 0;
	return it.kind == MW_CBOR_UINT ? (int64_t)it.u : -1 - (int64_t)it.u;
}

struct mw_str
mw_cbor_bytes(struct mw_cbor_rd *r)
{
	/* Heads of one byte first: keys, and most values. */
	if (!r->bad && r->at < r->n) {
		const uint8_t *p = r->p + r->at;
		size_t major = p[0] >> 5, n = p[0] & 31;
		if ((major == 2 || major == 3) && n < 24 && n < r->n - r->at) {
			r->at += 1 + n;
			return mw_str((const char *)p + 1, n);
		}
	}
	struct mw_cbor_item it = mw_cbor_next(r);
	if (it.kind != MW_CBOR_BYTES && it.kind != MW_CBOR_TEXT)
		r->bad = true;
	return r->bad ? mw_str(NULL, 0) : it.s;
}

size_t
mw_cbor_array(struct mw_cbor_rd *r)
{
	struct mw_cbor_item it = mw_cbor_next(r);
	if (it.kind != MW_CBOR_ARRAY)
		r->bad = true;
	return r->bad ? 0 : (size_t)it.u;
}

size_t
mw_cbor_map(struct mw_cbor_rd *r)
{
	struct mw_cbor_item it = mw_cbor_next(r);
	if (it.kind != MW_CBOR_MAP)
		r->bad = true;
	return r->bad ? 0 : (size_t)it.u;
}
