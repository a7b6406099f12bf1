/* The codec room against published vectors, and against damage. */
#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/aead.h"
#include "journal/codec/digest.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/codec/sign.h"
#include "journal/codec/zstd.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

static void
hex(uint8_t *out, const char *h)
{
	assert_true(mw_unhex(out, h, strlen(h) / 2));
}

/* RFC 9180 appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base. */
static void
hpke_vector(void **state)
{
	(void)state;
	uint8_t info[20], ske[32], pkr[32], skr[32], enc_want[32], pt[29], aad[7],
	    ct_want[45];
	uint8_t enc[32], ct[45], back[29];
	hex(info, "4f6465206f6e2061204772656369616e2055726e");
	hex(ske, "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736");
	hex(enc_want, "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
	hex(pkr, "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d");
	hex(skr, "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
	hex(pt, "4265617574792069732074727574682c20747275746820626561757479");
	hex(aad, "436f756e742d30");
	hex(ct_want,
	    "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac"
	    "83d07bea87e13c512a");
	struct mw_hpke_in in = {MW_HPKE_AES128, mw_str((char *)info, sizeof info),
	                        mw_str((char *)aad, sizeof aad), ske};
	struct mw_str plain = mw_str((char *)pt, 29);
	assert_int_equal(mw_hpke_seal(&in, pkr, plain, enc, ct), 0);
	assert_memory_equal(enc, enc_want, 32);
	assert_memory_equal(ct, ct_want, 29 + 16);
	in.ephemeral = NULL;
	assert_int_equal(mw_hpke_open(&in, skr, enc, mw_str((char *)ct, 45), back), 0);
	assert_memory_equal(back, pt, 29);
}

static void
hpke_round_trip_and_refusals(void **state)
{
	(void)state;
	uint8_t sk[32], pk[32], other[32], enc[32], ct[48], back[32], zero[32] = {0};
	mw_random(sk, 32);
	mw_random(other, 32);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	struct mw_hpke_in in = {MW_HPKE_AES256, MW_STR("i"), MW_STR("a"), NULL};
	struct mw_str plain = mw_str((char *)other, 32), sealed = mw_str((char *)ct, 48);
	assert_int_equal(mw_hpke_seal(&in, pk, plain, enc, ct), 0);
	assert_int_equal(mw_hpke_open(&in, sk, enc, sealed, back), 0);
	assert_memory_equal(back, other, 32);
	assert_int_equal(mw_hpke_open(&in, other, enc, sealed, back), MW_EKEY);
	for (unsigned i = 0; i < 48; i++) {
		ct[i] ^= 1;
		assert_int_equal(mw_hpke_open(&in, sk, enc, sealed, back), MW_EKEY);
		ct[i] ^= 1;
	}
	in.aad = MW_STR("b");
	assert_int_equal(mw_hpke_open(&in, sk, enc, sealed, back), MW_EKEY);
	assert_int_equal(mw_hpke_seal(&in, zero, plain, enc, ct), MW_EKEY);
}

/* RFC 8032 §7.1 test 2. */
static void
ed25519_vector(void **state)
{
	(void)state;
	uint8_t seed[32], pk[32], want_pk[32], sig[64], want[64], msg[1] = {0x72};
	hex(seed, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
	hex(want_pk, "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
	hex(want,
	    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15"
	    "996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
	assert_int_equal(mw_sign_public(seed, pk), 0);
	assert_memory_equal(pk, want_pk, 32);
	assert_int_equal(mw_sign(seed, msg, 1, sig), 0);
	assert_memory_equal(sig, want, 64);
	assert_int_equal(mw_sign_check(pk, msg, 1, sig), 1);
	sig[5] ^= 1;
	assert_int_equal(mw_sign_check(pk, msg, 1, sig), 0);
}

static void
sha256_vectors(void **state)
{
	(void)state;
	uint8_t got[32], want[32];
	hex(want, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	mw_sha256_of("abc", 3, got);
	assert_memory_equal(got, want, 32);
	uint8_t key[20]; /* RFC 4231 test case 1 */
	memset(key, 0x0b, sizeof key);
	hex(want, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	mw_hmac_sha256(key, sizeof key, "Hi There", 8, got);
	assert_memory_equal(got, want, 32);
}

/* NIST GCM test case 14: AES-256, zero key, zero nonce, 16 zero bytes. */
static void
gcm_vector(void **state)
{
	(void)state;
	uint8_t key[32] = {0}, nonce[12] = {0}, zero[16] = {0}, out[32], want[32],
	        back[16];
	struct mw_aead a;
	hex(want, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
	assert_int_equal(mw_aead_init(&a, key), 0);
	struct mw_aead_in in = {nonce, NULL, 0, zero, 16};
	assert_int_equal(mw_aead_seal(&a, &in, out), 0);
	assert_memory_equal(out, want, 32);
	in = (struct mw_aead_in){nonce, NULL, 0, out, 32};
	assert_int_equal(mw_aead_open(&a, &in, back), 0);
	assert_memory_equal(back, zero, 16);
	out[3] ^= 1;
	assert_int_equal(mw_aead_open(&a, &in, back), MW_EDAMAGED);
	mw_aead_done(&a);
}

static int
to_buf(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return 0;
}

static void
zstd_round_trip(void **state)
{
	(void)state;
	for (size_t n = 0; n < 700000; n = n * 3 + 1) {
		MW_BUF_AUTO in = {0};
		MW_BUF_AUTO packed = {0};
		MW_BUF_AUTO out = {0};
		for (size_t i = 0; i < n; i++)
			mw_buf_putc(&in, (char)(i * i >> 7));
		struct mw_zc *c = NULL;
		struct mw_zd *d = NULL;
		assert_int_equal(mw_zc_new(3, &c), 0);
		for (size_t at = 0; at < n; at += 10000)
			assert_int_equal(mw_zc_put(c, in.p + at, MW_MIN(n - at, 10000),
			                           false, to_buf, &packed),
			                 0);
		assert_int_equal(mw_zc_put(c, NULL, 0, true, to_buf, &packed), 0);
		mw_zc_free(c);
		assert_int_equal(mw_zd_new(NULL, &d), 0);
		for (size_t at = 0; at < packed.n; at += 777)
			assert_int_equal(mw_zd_put(d, packed.p + at,
			                           MW_MIN(packed.n - at, 777), n, to_buf,
			                           &out),
			                 0);
		assert_true(mw_zd_complete(d));
		assert_true(mw_zd_put(d, "x", 1, n, to_buf, &out) < 0);
		mw_zd_free(d);
		assert_int_equal(out.n, n);
		if (n)
			assert_memory_equal(out.p, in.p, n);
	}
}

/* Frames given as a whole, by one decompressor: the short ones take a way of their own.
 */
static void
zstd_whole_frames(void **state)
{
	static const size_t sizes[] = {0, 1, 300, 32767, 32768, 32769, 100000};
	struct mw_zd *d = NULL;
	(void)state;
	assert_int_equal(mw_zd_new(NULL, &d), 0);
	for (size_t k = 0; k < MW_COUNT(sizes); k++) {
		MW_BUF_AUTO in = {0};
		MW_BUF_AUTO packed = {0};
		MW_BUF_AUTO out = {0};
		size_t n = sizes[k];
		for (size_t i = 0; i < n; i++)
			mw_buf_putc(&in, (char)(i * i >> 7));
		assert_int_equal(mw_zc_all(3, NULL, in.p, n, to_buf, &packed), 0);
		assert_int_equal(mw_zd_again(d, NULL), 0);
		assert_int_equal(mw_zd_put(d, packed.p, packed.n, n, to_buf, &out), 0);
		assert_true(mw_zd_complete(d));
		assert_int_equal(out.n, n);
		assert_true(n == 0 || memcmp(out.p, in.p, n) == 0);
		assert_true(mw_zd_put(d, "x", 1, n + 1, to_buf, &out) < 0);
		if (n) {
			assert_int_equal(mw_zd_again(d, NULL), 0);
			assert_int_equal(mw_zd_put(d, packed.p, packed.n, n - 1, to_buf,
			                           &out),
			                 MW_ELIMIT);
		}
		assert_int_equal(mw_zd_again(d, NULL), 0);
		int r = mw_zd_put(d, packed.p, packed.n - 1, n, to_buf, &out);
		assert_true(r == MW_EDAMAGED || (r == 0 && !mw_zd_complete(d)));
		mw_buf_putc(&packed, 0); /* bytes after the frame */
		assert_int_equal(mw_zd_again(d, NULL), 0);
		assert_int_equal(mw_zd_put(d, packed.p, packed.n, n, to_buf, &out),
		                 MW_EDAMAGED);
		/* And two frames are not one. */
		packed.n--;
		size_t one = packed.n;
		assert_int_equal(mw_buf_reserve(&packed, one), 0);
		mw_buf_put(&packed, packed.p, one);
		assert_int_equal(mw_zd_again(d, NULL), 0);
		assert_int_equal(mw_zd_put(d, packed.p, packed.n, 2 * n, to_buf, &out),
		                 MW_EDAMAGED);
	}
	mw_zd_free(d);
}

static void
bomb_is_stopped(void **state)
{
	(void)state;
	MW_BUF_AUTO zeros = {0};
	MW_BUF_AUTO packed = {0};
	MW_BUF_AUTO out = {0};
	struct mw_zd *d = NULL;
	assert_int_equal(mw_buf_reserve(&zeros, 1 << 22), 0);
	memset(zeros.p, 0, 1 << 22);
	assert_int_equal(mw_zc_all(3, NULL, zeros.p, 1 << 22, to_buf, &packed), 0);
	assert_int_equal(mw_zd_new(NULL, &d), 0);
	assert_int_equal(mw_zd_put(d, packed.p, packed.n, 1000, to_buf, &out), MW_ELIMIT);
	assert_true(out.n <= 1000);
	mw_zd_free(d);
}

static void
key_files(void **state)
{
	(void)state;
	char dir[] = "/tmp/mw-keys-XXXXXX", file[PATH_MAX], pub[PATH_MAX];
	uint8_t pk[32], got[32], sk[32];
	struct mw_err err = {0};
	assert_non_null(mkdtemp(dir));
	for (int pass = 0; pass < 2; pass++) {
		struct mw_str p = pass ? MW_STR("correct horse") : MW_STR("");
		(void)snprintf(file, sizeof file, "%s/k%d", dir, pass);
		(void)snprintf(pub, sizeof pub, "%s/k%d.pub", dir, pass);
		if (mw_keyring_new(file, p, pk, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(mw_keyring_new(file, p, got, &err), MW_ECREATE);
		assert_int_equal(mw_keyring_load_public(pub, got, &err), 0);
		assert_memory_equal(pk, got, 32);
		assert_int_equal(mw_keyring_load_secret(file, p, sk, &err), 0);
		assert_int_equal(mw_hpke_public(sk, got), 0);
		assert_memory_equal(pk, got, 32);
		assert_int_equal(mw_keyring_load_secret(pub, p, sk, &err), MW_EKEY);
		assert_int_equal(mw_keyring_load_public(file, got, &err), MW_EFORMAT);
		if (pass) {
			assert_int_equal(mw_keyring_load_secret(file, MW_STR(""), sk,
			                                        &err),
			                 MW_EKEY);
			assert_int_equal(mw_keyring_load_secret(file, MW_STR("x"), sk,
			                                        &err),
			                 MW_EKEY);
		}
		assert_int_equal(chmod(file, 0644), 0);
		assert_int_equal(mw_keyring_load_secret(file, p, sk, &err), MW_EPERM);
		(void)unlink(file);
		(void)unlink(pub);
	}
	assert_int_equal(rmdir(dir), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hpke_vector),
	    cmocka_unit_test(hpke_round_trip_and_refusals),
	    cmocka_unit_test(ed25519_vector),
	    cmocka_unit_test(sha256_vectors),
	    cmocka_unit_test(gcm_vector),
	    cmocka_unit_test(zstd_round_trip),
	    cmocka_unit_test(zstd_whole_frames),
	    cmocka_unit_test(bomb_is_stopped),
	    cmocka_unit_test(key_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
