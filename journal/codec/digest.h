/* digest.h - SHA-256 and HMAC-SHA-256 (OpenSSL stays behind this header). Nothing here
 * allocates, so nothing here can fail: chain and tokens are made in the committer. */
#ifndef MW_CODEC_DIGEST_H
#define MW_CODEC_DIGEST_H

#include "journal/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	MW_SHA256_LEN = 32
};

struct mw_sha256 {
	uint32_t state[28]; /* OpenSSL's */
};

int mw_sha256_init(struct mw_sha256 *h) MW_CHECK; /* 0 */
void mw_sha256_update(struct mw_sha256 *h, const void *p, size_t n);
/* Gives the digest; the state must be initialised again. */
void mw_sha256_final(struct mw_sha256 *h, uint8_t out[MW_SHA256_LEN]);
void mw_sha256_free(struct mw_sha256 *h); /* for a run that is given up; wipes */
void mw_sha256_of(const void *p, size_t n, uint8_t out[MW_SHA256_LEN]);

struct mw_hmac { /* may be copied: one key's for many codes */
	struct mw_sha256 inner, outer;
};

void mw_hmac_init(struct mw_hmac *h, const void *key, size_t keylen);
void mw_hmac_update(struct mw_hmac *h, const void *p, size_t n);
/* Gives the code; the state is wiped. */
void mw_hmac_final(struct mw_hmac *h, uint8_t out[MW_SHA256_LEN]);
void mw_hmac_sha256(const void *key, size_t keylen, const void *p, size_t n,
                    uint8_t out[MW_SHA256_LEN]);

#endif
