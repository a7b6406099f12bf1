/* hpke.h - HPKE base mode, single shot (RFC 9180): DHKEM(X25519, HKDF-SHA256),
 * HKDF-SHA256, AES-256-GCM; AES-128-GCM only so that the RFC's own vectors can be run.
 * Wraps a segment key to a recovery key; slow (100 µs), so never per message. */
#ifndef MW_CODEC_HPKE_H
#define MW_CODEC_HPKE_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdint.h>

enum {
	MW_HPKE_KEY = 32,
	MW_HPKE_ENC = 32,
	MW_HPKE_TAG = 16
};
enum mw_hpke_aead {
	MW_HPKE_AES128 = 1,
	MW_HPKE_AES256 = 2
};

/* enc gets MW_HPKE_ENC bytes, ct plain.n + MW_HPKE_TAG. `ephemeral` (32 secret bytes) is
 * for test vectors; NULL: a fresh one. */
struct mw_hpke_in {
	enum mw_hpke_aead aead;
	struct mw_str info, aad;
	const uint8_t *ephemeral;
};
int mw_hpke_seal(const struct mw_hpke_in *in, const uint8_t pk[MW_HPKE_KEY],
                 struct mw_str plain, uint8_t enc[MW_HPKE_ENC], uint8_t *ct) MW_CHECK;
/* plain gets ct.n - MW_HPKE_TAG bytes. MW_EKEY if it does not open. */
int mw_hpke_open(const struct mw_hpke_in *in, const uint8_t sk[MW_HPKE_KEY],
                 const uint8_t enc[MW_HPKE_ENC], struct mw_str ct,
                 uint8_t *plain) MW_CHECK;
/* Public from secret: 0 or MW_ENOMEM. */
int mw_hpke_public(const uint8_t sk[MW_HPKE_KEY], uint8_t pk[MW_HPKE_KEY]) MW_CHECK;

#endif
