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
/* 1 the signature holds, 0 it does not, MW_ENOMEM. */
int mw_sign_check(const uint8_t pk[MW_SIGN_PUBLIC], const void *p, size_t n,
                  const uint8_t sig[MW_SIGN_LEN]) MW_CHECK;

/* Base64 (RFC 4648 §4). out gets 4 * ((n + 2) / 3) + 1 bytes, terminated. */
void mw_base64(const uint8_t *p, size_t n, char *out);
/* Exactly n bytes out of text; false if it is anything else. */
bool mw_unbase64(const char *text, size_t len, uint8_t *out, size_t n);

#endif
