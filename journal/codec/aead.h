/* aead.h - AES-256-GCM (NIST SP 800-38D), one key at a time. */
#ifndef MW_CODEC_AEAD_H
#define MW_CODEC_AEAD_H

#include "journal/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	MW_AEAD_KEY = 32,
	MW_AEAD_NONCE = 12,
	MW_AEAD_TAG = 16
};

struct mw_aead { /* holds a key schedule: mw_aead_done wipes it */
	void *ctx;
};

int mw_aead_init(struct mw_aead *a, const uint8_t key[MW_AEAD_KEY]) MW_CHECK;
/* Another key, or the first one of {NULL}. After a failure it is {NULL}. */
int mw_aead_rekey(struct mw_aead *a, const uint8_t key[MW_AEAD_KEY]) MW_CHECK;
void mw_aead_done(struct mw_aead *a); /* {NULL} ok */

struct mw_aead_in {
	const uint8_t *nonce; /* MW_AEAD_NONCE bytes, never twice under one key */
	const void *aad;
	size_t aad_n;
	const void *p;
	size_t n;
};

/* out gets n + MW_AEAD_TAG bytes; in and out must not overlap. 0 or MW_ENOMEM. */
int mw_aead_seal(struct mw_aead *a, const struct mw_aead_in *in, uint8_t *out) MW_CHECK;
/* in->n counts the tag; out gets n - MW_AEAD_TAG bytes. MW_EDAMAGED if the tag does not
 * hold: then out is zeroed. */
int mw_aead_open(struct mw_aead *a, const struct mw_aead_in *in, uint8_t *out) MW_CHECK;

#endif
