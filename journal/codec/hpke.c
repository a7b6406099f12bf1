#include "journal/codec/hpke.h"

#include "journal/base/id.h"
#include "journal/codec/digest.h"

#include <limits.h>
#include <openssl/evp.h>

/* Suite IDs (RFC 9180 §4.1, §5.1): "KEM" ‖ 0x0020; "HPKE" ‖ 0x0020 ‖ 0x0001 ‖ aead. */
static const uint8_t kem_id[] = {'K', 'E', 'M', 0x00, 0x20};

struct suite {
	uint8_t id[10];
	size_t key_len;
	const EVP_CIPHER *cipher;
};

static void
suite_of(enum mw_hpke_aead aead, struct suite *s)
{
	static const uint8_t id[10] = {'H',  'P',  'K',  'E',  0x00,
	                               0x20, 0x00, 0x01, 0x00, 0x00};
	memcpy(s->id, id, sizeof id);
	s->id[9] = (uint8_t)aead;
	s->key_len = aead == MW_HPKE_AES128 ? 16 : 32;
	s->cipher = aead == MW_HPKE_AES128 ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
}

/* LabeledExtract(salt, label, ikm) */
static void
extract(struct mw_str salt, struct mw_str suite, const char *label, struct mw_str ikm,
        uint8_t out[32])
{
	static const uint8_t none[32];
	struct mw_hmac h;
	mw_hmac_init(&h, salt.n ? (const void *)salt.p : none,
	             salt.n ? salt.n : sizeof none);
	mw_hmac_update(&h, "HPKE-v1", 7);
	mw_hmac_update(&h, suite.p, suite.n);
	mw_hmac_update(&h, label, strlen(label));
	mw_hmac_update(&h, ikm.p, ikm.n);
	mw_hmac_final(&h, out);
}

/* LabeledExpand(prk, label, info, len), len <= 32: one block of HKDF-Expand */
static void
expand(const uint8_t prk[32], struct mw_str suite, const char *label, struct mw_str info,
       uint8_t *out, size_t len)
{
	uint8_t block[32], length[2] = {(uint8_t)(len >> 8), (uint8_t)len};
	struct mw_hmac h;
	mw_assert(len <= sizeof block);
	mw_hmac_init(&h, prk, 32);
	mw_hmac_update(&h, length, sizeof length);
	mw_hmac_update(&h, "HPKE-v1", 7);
	mw_hmac_update(&h, suite.p, suite.n);
	mw_hmac_update(&h, label, strlen(label));
	mw_hmac_update(&h, info.p, info.n);
	mw_hmac_update(&h, "\1", 1);
	mw_hmac_final(&h, block);
	memcpy(out, block, len);
	explicit_bzero(block, sizeof block);
}

static int
dh(const uint8_t sk[32], const uint8_t pk[32], uint8_t out[32])
{
	size_t n = 32;
	int r = MW_ENOMEM; /* all that can go wrong before the last step */
	EVP_PKEY *a = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, sk, 32);
	EVP_PKEY *b = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, pk, 32);
	EVP_PKEY_CTX *c = a ? EVP_PKEY_CTX_new(a, NULL) : NULL;
	if (c && b && EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, b) == 1)
		r = EVP_PKEY_derive(c, out, &n) == 1 && n == 32 ? 0 : MW_EKEY;
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
	return r; /* MW_EKEY: a low-order public key */
}

int
mw_hpke_public(const uint8_t sk[MW_HPKE_KEY], uint8_t pk[MW_HPKE_KEY])
{
	size_t n = MW_HPKE_KEY;
	EVP_PKEY *a =
	    EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, sk, MW_HPKE_KEY);
	int ok = a && EVP_PKEY_get_raw_public_key(a, pk, &n) == 1 && n == MW_HPKE_KEY;
	EVP_PKEY_free(a);
	return ok ? 0 : MW_ENOMEM; /* any 32 bytes are a key */
}

/* ExtractAndExpand(dh, enc ‖ pkR), then KeySchedule(base, …) */
static void
schedule(const struct mw_hpke_in *in, const struct suite *s, const uint8_t shared_dh[32],
         const uint8_t context[64], uint8_t *key, uint8_t nonce[12])
{
	struct mw_str kem = mw_str((const char *)kem_id, sizeof kem_id);
	struct mw_str suite = mw_str((const char *)s->id, sizeof s->id);
	uint8_t prk[32], secret[32], ksc[65];
	extract(MW_STR(""), kem, "eae_prk", mw_str((const char *)shared_dh, 32), prk);
	expand(prk, kem, "shared_secret", mw_str((const char *)context, 64), secret, 32);
	ksc[0] = 0; /* mode_base */
	extract(MW_STR(""), suite, "psk_id_hash", MW_STR(""), ksc + 1);
	extract(MW_STR(""), suite, "info_hash", in->info, ksc + 33);
	extract(mw_str((const char *)secret, 32), suite, "secret", MW_STR(""), prk);
	struct mw_str c = mw_str((const char *)ksc, sizeof ksc);
	expand(prk, suite, "key", c, key, s->key_len);
	expand(prk, suite, "base_nonce", c, nonce, 12);
	explicit_bzero(prk, sizeof prk);
	explicit_bzero(secret, sizeof secret);
}

static int
gcm(const struct suite *s, bool enc, const uint8_t *key, const uint8_t nonce[12],
    struct mw_str aad, struct mw_str in, uint8_t *out)
{
	size_t n = enc ? in.n : in.n - MW_HPKE_TAG;
	uint8_t tag[MW_HPKE_TAG], none[16];
	int len = 0;
	if (n > INT_MAX || aad.n > INT_MAX)
		return MW_ELIMIT;
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	if (!enc)
		memcpy(tag, in.p + n, sizeof tag);
	int ok =
	    c && EVP_CipherInit_ex(c, s->cipher, NULL, key, nonce, enc) == 1 &&
	    EVP_CipherUpdate(c, NULL, &len, (const uint8_t *)aad.p, (int)aad.n) == 1 &&
	    EVP_CipherUpdate(c, out, &len, (const uint8_t *)in.p, (int)n) == 1;
	if (ok && !enc)
		ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, sizeof tag, tag) == 1;
	bool before = ok;
	ok = ok && EVP_CipherFinal_ex(c, none, &len) == 1;
	if (ok && enc)
		ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, sizeof tag, out + n) ==
		     1;
	EVP_CIPHER_CTX_free(c);
	return ok ? 0 : before && !enc ? MW_EKEY : MW_ENOMEM;
}

int
mw_hpke_seal(const struct mw_hpke_in *in, const uint8_t pk[MW_HPKE_KEY],
             struct mw_str plain, uint8_t enc[MW_HPKE_ENC], uint8_t *ct)
{
	struct suite s;
	uint8_t sk[32], shared[32], context[64], key[32], nonce[12];
	suite_of(in->aead, &s);
	if (in->ephemeral)
		memcpy(sk, in->ephemeral, sizeof sk);
	else
		mw_random(sk, sizeof sk);
	int r = mw_hpke_public(sk, enc);
	if (r == 0)
		r = dh(sk, pk, shared);
	if (r == 0) {
		memcpy(context, enc, 32);
		memcpy(context + 32, pk, 32);
		schedule(in, &s, shared, context, key, nonce);
		r = gcm(&s, true, key, nonce, in->aad, plain, ct);
	}
	explicit_bzero(sk, sizeof sk);
	explicit_bzero(shared, sizeof shared);
	explicit_bzero(key, sizeof key);
	return r;
}

int
mw_hpke_open(const struct mw_hpke_in *in, const uint8_t sk[MW_HPKE_KEY],
             const uint8_t enc[MW_HPKE_ENC], struct mw_str ct, uint8_t *plain)
{
	struct suite s;
	uint8_t pk[32], shared[32], context[64], key[32], nonce[12];
	if (ct.n < MW_HPKE_TAG)
		return MW_EKEY;
	suite_of(in->aead, &s);
	int r = mw_hpke_public(sk, pk);
	if (r == 0)
		r = dh(sk, enc, shared);
	if (r == 0) {
		memcpy(context, enc, 32);
		memcpy(context + 32, pk, 32);
		schedule(in, &s, shared, context, key, nonce);
		r = gcm(&s, false, key, nonce, in->aad, ct, plain);
	}
	explicit_bzero(shared, sizeof shared);
	explicit_bzero(key, sizeof key);
	return r;
}
