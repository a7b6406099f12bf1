#include "journal/codec/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>

/* Fetched once: an implicit fetch per message costs more than hashing a small one. */
static EVP_MD *sha256_md;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
fetch(void)
{
	sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
	mw_assert(sha256_md != NULL);
}

int
mw_sha256_init(struct mw_sha256 *h)
{
	(void)pthread_once(&once, fetch);
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx)
		return MW_ENOMEM;
	if (EVP_DigestInit_ex2(h->ctx, sha256_md, NULL) != 1) {
		mw_sha256_free(h);
		return MW_ENOMEM;
	}
	return 0;
}

void
mw_sha256_update(struct mw_sha256 *h, const void *p, size_t n)
{
	mw_assert(EVP_DigestUpdate(h->ctx, p, n) == 1);
}

void
mw_sha256_final(struct mw_sha256 *h, uint8_t out[MW_SHA256_LEN])
{
	mw_assert(EVP_DigestFinal_ex(h->ctx, out, NULL) == 1);
	mw_sha256_free(h);
}

void
mw_sha256_free(struct mw_sha256 *h)
{
	EVP_MD_CTX_free(h->ctx);
	h->ctx = NULL;
}

void
mw_sha256_of(const void *p, size_t n, uint8_t out[MW_SHA256_LEN])
{
	(void)pthread_once(&once, fetch);
	mw_assert(EVP_Digest(p, n, out, NULL, sha256_md, NULL) == 1);
}

void
mw_hmac_sha256(const void *key, size_t keylen, const void *p, size_t n,
               uint8_t out[MW_SHA256_LEN])
{
	(void)pthread_once(&once, fetch);
	unsigned len = MW_SHA256_LEN;
	mw_assert(HMAC(sha256_md, key, (int)keylen, p, n, out, &len) != NULL);
}
