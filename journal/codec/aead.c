#include "journal/codec/aead.h"

#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
	POOL = 32
};

/* Fetched once, when there is memory for it, and kept. */
static EVP_CIPHER *
cipher(void)
{
	static EVP_CIPHER *_Atomic gcm;
	EVP_CIPHER *c = atomic_load(&gcm), *none = NULL;
	if (c)
		return c;
	c = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	if (c && !atomic_compare_exchange_strong(&gcm, &none, c)) {
		EVP_CIPHER_free(c); /* another thread was faster */
		c = none;
	}
	return c;
}

/* Contexts kept between messages: making one takes longer than sealing a short mail. They
 * hold the schedule of a key of zeros. */
static pthread_mutex_t pool_mu = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static EVP_CIPHER_CTX *pool[POOL];
static int pooled;

int
mw_aead_init(struct mw_aead *a, const uint8_t key[MW_AEAD_KEY])
{
	EVP_CIPHER *gcm = NULL; /* one that was kept has its cipher */
	(void)pthread_mutex_lock(&pool_mu);
	a->ctx = pooled ? pool[--pooled] : NULL;
	(void)pthread_mutex_unlock(&pool_mu);
	if (!a->ctx) {
		gcm = cipher();
		a->ctx = gcm ? EVP_CIPHER_CTX_new() : NULL;
	}
	if (!a->ctx)
		return MW_ENOMEM;
	if (EVP_CipherInit_ex2(a->ctx, gcm, key, NULL, 1, NULL) != 1) {
		EVP_CIPHER_CTX_free(a->ctx);
		a->ctx = NULL;
		return MW_ENOMEM;
	}
	return 0;
}

int
mw_aead_rekey(struct mw_aead *a, const uint8_t key[MW_AEAD_KEY])
{
	if (!a->ctx)
		return mw_aead_init(a, key);
	if (EVP_CipherInit_ex2(a->ctx, NULL, key, NULL, 1, NULL) == 1)
		return 0;
	EVP_CIPHER_CTX_free(a->ctx);
	a->ctx = NULL;
	return MW_ENOMEM;
}

void
mw_aead_done(struct mw_aead *a)
{
	static const uint8_t zeros[MW_AEAD_KEY];
	EVP_CIPHER_CTX *c = a->ctx;
	a->ctx = NULL;
	if (!c)
		return;
	if (EVP_CipherInit_ex2(c, NULL, zeros, zeros, 1, NULL) == 1) {
		(void)pthread_mutex_lock(&pool_mu);
		if (pooled < POOL) {
			pool[pooled++] = c;
			c = NULL;
		}
		(void)pthread_mutex_unlock(&pool_mu);
	}
	EVP_CIPHER_CTX_free(c); /* cleanses the schedule */
}

static int
start(struct mw_aead *a, const struct mw_aead_in *in, int enc)
{
	int len;
	if (in->n > INT_MAX || in->aad_n > INT_MAX)
		return MW_ELIMIT;
	if (EVP_CipherInit_ex2(a->ctx, NULL, NULL, in->nonce, enc, NULL) != 1 ||
	    (in->aad_n &&
	     EVP_CipherUpdate(a->ctx, NULL, &len, in->aad, (int)in->aad_n) != 1))
		return MW_ENOMEM;
	return 0;
}

int
mw_aead_seal(struct mw_aead *a, const struct mw_aead_in *in, uint8_t *out)
{
	int len = 0;
	int r = start(a, in, 1);
	if (r < 0)
		return r;
	if ((in->n && EVP_CipherUpdate(a->ctx, out, &len, in->p, (int)in->n) != 1) ||
	    EVP_CipherFinal_ex(a->ctx, out + in->n, &len) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_GCM_GET_TAG, MW_AEAD_TAG, out + in->n) !=
	        1)
		return MW_ENOMEM;
	return 0;
}

int
mw_aead_open(struct mw_aead *a, const struct mw_aead_in *in, uint8_t *out)
{
	if (in->n < MW_AEAD_TAG)
		return MW_EDAMAGED;
	size_t n = in->n - MW_AEAD_TAG;
	uint8_t tag[MW_AEAD_TAG];
	memcpy(tag, (const uint8_t *)in->p + n, MW_AEAD_TAG);
	int len = 0;
	int r = start(a, in, 0);
	if (r < 0)
		return r;
	if ((n && EVP_CipherUpdate(a->ctx, out, &len, in->p, (int)n) != 1) ||
	    EVP_CIPHER_CTX_ctrl(a->ctx, EVP_CTRL_GCM_SET_TAG, MW_AEAD_TAG, tag) != 1)
		return MW_ENOMEM;
	uint8_t none[16];
	if (EVP_CipherFinal_ex(a->ctx, none, &len) != 1) {
		memset(out, 0, n);
		return MW_EDAMAGED;
	}
	return 0;
}
