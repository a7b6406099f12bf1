/* sign.h - Ed25519 (RFC 8032): signatures of closed segments, checkpoints and reports. */
#ifndef MW_CODEC_SIGN_H
#define MW_CODEC_SIGN_H

#include "journal/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MW_SIGN_SEED = 32,
	MW_SIGN_PUBLIC = 32,
	MW_SIGN_LEN = 64
};

int mw_sign_public(const uint8_t seed[MW_SIGN_SEED], uint8_t pk[MW_SIGN_PUBLIC]) MW_CHECK;
int mw_sign(const uint8_t seed[MW_SIGN_SEED], const void *p, size_t n,
            uint8_t sig[MW_SIGN_LEN]) MW_CHECK;
bool mw_sign_verify(const uint8_t pk[MW_SIGN_PUBLIC], const void *p, size_t n,
                    const uint8_t sig[MW_SIGN_LEN]);

#endif
