/* digest.h - SHA-256 and HMAC-SHA-256 (OpenSSL stays behind this header). */
#ifndef MW_CODEC_DIGEST_H
#define MW_CODEC_DIGEST_H

#include "journal/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	MW_SHA256_LEN = 32
};

struct mw_sha256 {
	void *ctx;
};

int mw_sha256_init(struct mw_sha256 *h) MW_CHECK; /* 0 or MW_ENOMEM */
void mw_sha256_update(struct mw_sha256 *h, const void *p, size_t n);
/* Gives the digest; the state is freed and must be initialised again. */
void mw_sha256_final(struct mw_sha256 *h, uint8_t out[MW_SHA256_LEN]);
void mw_sha256_free(struct mw_sha256 *h); /* for a run that is given up; {NULL} ok */
/* One call; aborts only if OpenSSL itself is broken. */
void mw_sha256_of(const void *p, size_t n, uint8_t out[MW_SHA256_LEN]);
void mw_hmac_sha256(const void *key, size_t keylen, const void *p, size_t n,
                    uint8_t out[MW_SHA256_LEN]);

#endif
