#include "journal/base/bytes.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

const uint8_t *
mw_rd_bytes(struct mw_rd *r, size_t n)
{
	if (r->bad || n > r->n - r->at) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->p + r->at;
	r->at += n;
	return p;
}

uint8_t
mw_rd8(struct mw_rd *r)
{
	const uint8_t *p = mw_rd_bytes(r, 1);
	return p ? *p : 0;
}

uint16_t
mw_rd16(struct mw_rd *r)
{
	const uint8_t *p = mw_rd_bytes(r, 2);
	return p ? mw_get16(p) : 0;
}

uint32_t
mw_rd32(struct mw_rd *r)
{
	const uint8_t *p = mw_rd_bytes(r, 4);
	return p ? mw_get32(p) : 0;
}

uint64_t
mw_rd64(struct mw_rd *r)
{
	const uint8_t *p = mw_rd_bytes(r, 8);
	return p ? mw_get64(p) : 0;
}

static uint32_t
crc_soft(uint32_t c, const uint8_t *p, size_t n)
{
	static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede,
	                                    0x30e349b1, 0x417b1dbc, 0x5125dad3,
	                                    0x61c69362, 0x7198540d, 0x82f63b78,
	                                    0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
	                                    0xc38d26c4, 0xd3d3e1ab, 0xe330a81a,
	                                    0xf36e6f75};
	while (n--) {
		c ^= *p++;
		c = c >> 4 ^ nibble[c & 15];
		c = c >> 4 ^ nibble[c & 15];
	}
	return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc_hard(uint32_t c, const uint8_t *p, size_t n)
{
	uint64_t c64 = c;
	for (; n >= 8; p += 8, n -= 8)
		c64 = _mm_crc32_u64(c64, mw_get64(p));
	c = (uint32_t)c64;
	for (; n; p++, n--)
		c = _mm_crc32_u8(c, *p);
	return c;
}
#endif

uint32_t
mw_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_hard(~crc, p, n);
#endif
	return ~crc_soft(~crc, p, n);
}

void
mw_hex(char *out, const uint8_t *p, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = '\0';
}

static int
unhex1(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
mw_unhex(uint8_t *out, const char *hex, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int a = unhex1(hex[2 * i]), b = a < 0 ? -1 : unhex1(hex[2 * i + 1]);
		if (a < 0 || b < 0)
			return false;
		out[i] = (uint8_t)(a << 4 | b);
	}
	return true;
}
