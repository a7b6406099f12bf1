/* bytes.h - little-endian fields and a bounded reader whose failure is sticky. */
#ifndef MW_BASE_BYTES_H
#define MW_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void
mw_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void
mw_put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline void
mw_put64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline void
mw_put64be(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static inline uint64_t
mw_get64be(const uint8_t *p)
{
	uint64_t v = 0;
	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static inline uint16_t
mw_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t
mw_get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

static inline uint64_t
mw_get64(const uint8_t *p)
{
	return (uint64_t)mw_get32(p) | (uint64_t)mw_get32(p + 4) << 32;
}

/* Reads past the end give zeros and set `bad`; check once, at the end. */
struct mw_rd {
	const uint8_t *p;
	size_t n, at;
	bool bad;
};

const uint8_t *mw_rd_bytes(struct mw_rd *r, size_t n); /* NULL when short */
uint8_t mw_rd8(struct mw_rd *r);
uint16_t mw_rd16(struct mw_rd *r);
uint32_t mw_rd32(struct mw_rd *r);
uint64_t mw_rd64(struct mw_rd *r);

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4). Start with crc = 0; chainable. */
uint32_t mw_crc32c(uint32_t crc, const void *p, size_t n);

/* Lower-case hexadecimal; out has room for 2 n + 1. */
void mw_hex(char *out, const uint8_t *p, size_t n);
bool mw_unhex(uint8_t *out, const char *hex, size_t n); /* n output bytes exactly */

#endif
