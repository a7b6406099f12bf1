#include "journal/codec/sign.h"

#include <openssl/evp.h>
#include <string.h>

static EVP_PKEY *
secret(const uint8_t seed[MW_SIGN_SEED])
{
	return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, MW_SIGN_SEED);
}

int
mw_sign_public(const uint8_t seed[MW_SIGN_SEED], uint8_t pk[MW_SIGN_PUBLIC])
{
	size_t n = MW_SIGN_PUBLIC;
	EVP_PKEY *k = secret(seed);
	int ok = k && EVP_PKEY_get_raw_public_key(k, pk, &n) == 1;
	EVP_PKEY_free(k);
	return ok ? 0 : MW_ENOMEM;
}

int
mw_sign(const uint8_t seed[MW_SIGN_SEED], const void *p, size_t n,
        uint8_t sig[MW_SIGN_LEN])
{
	size_t len = MW_SIGN_LEN;
	EVP_PKEY *k = secret(seed);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	int ok = k && c && EVP_DigestSignInit(c, NULL, NULL, NULL, k) == 1 &&
	         EVP_DigestSign(c, sig, &len, p, n) == 1;
	EVP_MD_CTX_free(c);
	EVP_PKEY_free(k);
	return ok ? 0 : MW_ENOMEM;
}

static int
check_once(const uint8_t pk[MW_SIGN_PUBLIC], const void *p, size_t n,
           const uint8_t sig[MW_SIGN_LEN])
{
	EVP_PKEY *k =
	    EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pk, MW_SIGN_PUBLIC);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	int ok = MW_ENOMEM; /* all that can go wrong before the last step */
	if (k && c && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k) == 1)
		ok = EVP_DigestVerify(c, sig, MW_SIGN_LEN, p, n) == 1;
	EVP_MD_CTX_free(c);
	EVP_PKEY_free(k);
	return ok;
}

int
mw_sign_check(const uint8_t pk[MW_SIGN_PUBLIC], const void *p, size_t n,
              const uint8_t sig[MW_SIGN_LEN])
{
	int r = check_once(pk, p, n, sig);
	/* OpenSSL's last step allocates, and says the same when it cannot as when the
	 * signature does not hold: nobody is accused by one answer. */
	return r == 0 ? check_once(pk, p, n, sig) : r;
}

void
mw_base64(const uint8_t *p, size_t n, char *out)
{
	(void)EVP_EncodeBlock((unsigned char *)out, p, (int)n);
}

bool
mw_unbase64(const char *text, size_t len, uint8_t *out, size_t n)
{
	uint8_t tmp[256];
	if (len != (n + 2) / 3 * 4 || len / 4 * 3 > sizeof tmp)
		return false;
	if (EVP_DecodeBlock(tmp, (const unsigned char *)text, (int)len) < (int)n)
		return false;
	char again[352]; /* one text for one value: no stray bits in the last character */
	mw_base64(tmp, n, again);
	if (memcmp(again, text, len) != 0)
		return false;
	memcpy(out, tmp, n);
	return true;
}
