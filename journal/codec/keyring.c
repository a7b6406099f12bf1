#include "journal/codec/keyring.h"

#include "journal/base/util.h"
#include "journal/codec/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>

void
mw_keyring_id(const uint8_t pk[MW_KEY_LEN], uint8_t id[MW_KEY_ID_LEN])
{
	uint8_t h[MW_SHA256_LEN];
	mw_sha256_of(pk, MW_KEY_LEN, h);
	memcpy(id, h, MW_KEY_ID_LEN);
}

struct asked {
	struct mw_str pass;
	bool needed;
};

static int
on_passphrase(char *buf, int size, int rwflag, void *arg)
{
	struct asked *a = arg;
	(void)rwflag;
	a->needed = true;
	if (a->pass.n == 0 || a->pass.n > (size_t)size)
		return -1;
	memcpy(buf, a->pass.p, a->pass.n);
	return (int)a->pass.n;
}

/* Whether a PEM file says of itself that it is of this kind, "PRIVATE" or "PUBLIC". Its
 * text is wiped: it may be in the clear. */
static bool
is_kind(FILE *f, const char *kind)
{
	const size_t n = strlen(kind);
	char line[128];
	bool yes = false;
	rewind(f);
	for (int i = 0; i < 64 && !yes && fgets(line, sizeof line, f); i++) {
		const char *at = strncmp(line, "-----BEGIN ", 11) == 0
		                     ? strstr(line, " KEY-----")
		                     : NULL;
		yes = at && at - line >= (ptrdiff_t)n && memcmp(at - n, kind, n) == 0;
	}
	explicit_bzero(line, sizeof line);
	return yes;
}

int
mw_keyring_load_public(const char *file, uint8_t pk[MW_KEY_LEN], struct mw_err *err)
{
	size_t n = MW_KEY_LEN;
	struct asked none = {MW_STR(""), false}; /* OpenSSL would ask the terminal */
	char buf[4096]; /* ours, so that it can be wiped: the wrong file may be private */
	FILE *f = fopen(file, "re");
	if (!f)
		return mw_fail_errno(err, "cannot read key %s", file);
	(void)setvbuf(f, buf, _IOFBF, sizeof buf);
	EVP_PKEY *k = PEM_read_PUBKEY(f, NULL, on_passphrase, &none);
	bool private = !k && is_kind(f, "PRIVATE");
	(void)fclose(f);
	explicit_bzero(buf, sizeof buf);
	bool ok = k && EVP_PKEY_is_a(k, "X25519") &&
	          EVP_PKEY_get_raw_public_key(k, pk, &n) == 1 && n == MW_KEY_LEN;
	EVP_PKEY_free(k);
	if (ok)
		return 0;
	(void)mw_fail(err, MW_EFORMAT,
	              private ? "%s is a private key; here the public one is wanted"
	                      : "%s is no public recovery key",
	              file);
	(void)mw_err_hint(err, "give the .pub file that 'mailwal keys new' wrote");
	return MW_EFORMAT;
}

static int
no_secret(const char *file, bool public, struct mw_err *err)
{
	(void)mw_fail(err, MW_EKEY,
	              public ? "%s is a public key; here the private one is wanted"
	                     : "%s is no private recovery key",
	              file);
	return mw_err_hint(err,
	                   "give the file that 'mailwal keys new' wrote, without .pub");
}

int
mw_keyring_load_secret(const char *file, struct mw_str passphrase, uint8_t sk[MW_KEY_LEN],
                       struct mw_err *err)
{
	size_t n = MW_KEY_LEN;
	struct stat sb;
	struct asked a = {passphrase, false};
	EVP_PKEY *k = NULL;
	char buf[4096]; /* ours, so that it can be wiped */
	FILE *f = fopen(file, "re");
	if (!f)
		return mw_fail_errno(err, "cannot read key %s", file);
	(void)setvbuf(f, buf, _IOFBF, sizeof buf);
	bool open_to_all =
	    fstat(fileno(f), &sb) == 0 && S_ISREG(sb.st_mode) && (sb.st_mode & 077);
	if (!open_to_all)
		k = PEM_read_PrivateKey(f, NULL, on_passphrase, &a);
	bool public = !k && is_kind(f, "PUBLIC");
	(void)fclose(f);
	explicit_bzero(buf, sizeof buf);
	if (open_to_all && !public) {
		(void)mw_fail(err, MW_EPERM, "key %s can be read by others", file);
		(void)mw_err_hint(err, "chmod 600 %s", file);
		return MW_EPERM;
	}
	bool ok = k && EVP_PKEY_is_a(k, "X25519") &&
	          EVP_PKEY_get_raw_private_key(k, sk, &n) == 1 && n == MW_KEY_LEN;
	EVP_PKEY_free(k);
	if (ok)
		return 0;
	if (a.needed) {
		(void)mw_fail(err, MW_EKEY, "key %s needs %s passphrase", file,
		              passphrase.n ? "another" : "a");
		(void)mw_err_hint(err, "give it with --passphrase-file FILE");
		return MW_EKEY;
	}
	return no_secret(file, public, err);
}

static int
create(const char *file, mode_t mode, FILE **ret, struct mw_err *err)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0 && errno == EEXIST)
		return mw_fail(err, MW_ECREATE, "%s is there already", file);
	if (fd < 0 && errno == ENOENT)
		return mw_fail(err, MW_ECREATE, "cannot create %s: no such directory",
		               file);
	if (fd < 0)
		return mw_fail_errno(err, "cannot create %s", file);
	*ret = fdopen(fd, "w");
	if (!*ret) {
		(void)close(fd);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return 0;
}

static int
finish(FILE *f, bool ok, const char *file, struct mw_err *err)
{
	ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
	if (fclose(f) == EOF || !ok) {
		int r = mw_fail_errno(err, "cannot write %s", file);
		(void)unlink(file);
		return r;
	}
	return 0;
}

int
mw_keyring_new(const char *file, struct mw_str passphrase, uint8_t pk[MW_KEY_LEN],
               struct mw_err *err)
{
	char pub[PATH_MAX];
	size_t n = MW_KEY_LEN;
	FILE *f;
	if (snprintf(pub, sizeof pub, "%s.pub", file) >= (int)sizeof pub)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", file);
	EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	if (!k || EVP_PKEY_get_raw_public_key(k, pk, &n) != 1) {
		EVP_PKEY_free(k);
		return mw_fail(err, MW_ENOMEM, "cannot make a key");
	}
	int r = create(file, 0600, &f, err);
	if (r == 0) {
		struct asked a = {passphrase, false};
		r = finish(f,
		           PEM_write_PKCS8PrivateKey(f, k,
		                                     passphrase.n ? EVP_aes_256_cbc()
		                                                  : NULL,
		                                     NULL, 0, on_passphrase, &a) == 1,
		           file, err);
	}
	if (r == 0) {
		r = create(pub, 0644, &f, err);
		if (r == 0)
			r = finish(f, PEM_write_PUBKEY(f, k) == 1, pub, err);
		if (r < 0)
			(void)unlink(file);
	}
	EVP_PKEY_free(k);
	return r;
}
