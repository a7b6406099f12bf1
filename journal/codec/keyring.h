/* keyring.h - recovery keys in files: X25519 in the forms other tools read (RFC 8410):
 * private keys PKCS #8 PEM, with a passphrase PBES2; public keys SubjectPublicKeyInfo
 * PEM. Whoever holds a secret wipes it. */
#ifndef MW_CODEC_KEYRING_H
#define MW_CODEC_KEYRING_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdint.h>

enum {
	MW_KEY_LEN = 32,
	MW_KEY_ID_LEN = 8
};

/* Names a public key: the first 8 bytes of its SHA-256. */
void mw_keyring_id(const uint8_t pk[MW_KEY_LEN], uint8_t id[MW_KEY_ID_LEN]);

int mw_keyring_load_public(const char *file, uint8_t pk[MW_KEY_LEN],
                           struct mw_err *err) MW_CHECK;
/* passphrase: empty for none; MW_EKEY when one is needed or wrong; MW_EPERM when others
 * can read the file. */
int mw_keyring_load_secret(const char *file, struct mw_str passphrase,
                           uint8_t sk[MW_KEY_LEN], struct mw_err *err) MW_CHECK;
/* Makes a pair: FILE (mode 0600) and FILE.pub. Refuses to overwrite. */
int mw_keyring_new(const char *file, struct mw_str passphrase, uint8_t pk[MW_KEY_LEN],
                   struct mw_err *err) MW_CHECK;

#endif
