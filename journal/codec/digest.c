/* OpenSSL 3 marks these functions as deprecated in favour of EVP, which allocates for
 * each digest, and so may fail in the middle of a batch. They are the same code below. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "journal/codec/digest.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct mw_sha256), "room for the state");
_Static_assert(_Alignof(SHA256_CTX) <= _Alignof(struct mw_sha256), "its alignment");

enum {
	BLOCK = 64
};

static SHA256_CTX *
ctx(struct mw_sha256 *h)
{
	return (SHA256_CTX *)(void *)h->state;
}

int
mw_sha256_init(struct mw_sha256 *h)
{
	mw_assert(SHA256_Init(ctx(h)) == 1);
	return 0;
}

void
mw_sha256_update(struct mw_sha256 *h, const void *p, size_t n)
{
	if (n)
		mw_assert(SHA256_Update(ctx(h), p, n) == 1);
}

void
mw_sha256_final(struct mw_sha256 *h, uint8_t out[MW_SHA256_LEN])
{
	mw_assert(SHA256_Final(out, ctx(h)) == 1);
}

void
mw_sha256_free(struct mw_sha256 *h)
{
	OPENSSL_cleanse(h, sizeof *h);
}

void
mw_sha256_of(const void *p, size_t n, uint8_t out[MW_SHA256_LEN])
{
	struct mw_sha256 h;
	mw_assert(mw_sha256_init(&h) == 0);
	mw_sha256_update(&h, p, n);
	mw_sha256_final(&h, out);
}

/* RFC 2104 */
void
mw_hmac_init(struct mw_hmac *h, const void *key, size_t keylen)
{
	uint8_t block[BLOCK] = {0};
	if (keylen > BLOCK)
		mw_sha256_of(key, keylen, block);
	else if (keylen)
		memcpy(block, key, keylen);
	for (size_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x36;
	mw_assert(mw_sha256_init(&h->inner) == 0);
	mw_sha256_update(&h->inner, block, BLOCK);
	for (size_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x36 ^ 0x5c;
	mw_assert(mw_sha256_init(&h->outer) == 0);
	mw_sha256_update(&h->outer, block, BLOCK);
	OPENSSL_cleanse(block, sizeof block);
}

void
mw_hmac_update(struct mw_hmac *h, const void *p, size_t n)
{
	mw_sha256_update(&h->inner, p, n);
}

void
mw_hmac_final(struct mw_hmac *h, uint8_t out[MW_SHA256_LEN])
{
	uint8_t inner[MW_SHA256_LEN];
	mw_sha256_final(&h->inner, inner);
	mw_sha256_update(&h->outer, inner, sizeof inner);
	mw_sha256_final(&h->outer, out);
	OPENSSL_cleanse(inner, sizeof inner);
	OPENSSL_cleanse(h, sizeof *h);
}

void
mw_hmac_sha256(const void *key, size_t keylen, const void *p, size_t n,
               uint8_t out[MW_SHA256_LEN])
{
	struct mw_hmac h;
	mw_hmac_init(&h, key, keylen);
	mw_hmac_update(&h, p, n);
	mw_hmac_final(&h, out);
}
