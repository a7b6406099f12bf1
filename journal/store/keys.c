/* Who can read a segment: its key, in the clear or wrapped to each recovery key
 * (FORMAT.md §2). The capture host holds public keys only. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool
mw_type_of_host(enum mw_type t)
{
	return t == MW_TYPE_MARK || t == MW_TYPE_HOLD || t == MW_TYPE_TOMBSTONE ||
	       t == MW_TYPE_AUDIT || t == MW_TYPE_RECOVERY || t == MW_TYPE_CLOSE;
}

static int
load(struct mw_store *st, struct mw_err *err)
{
	char path[PATH_MAX];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	(void)!snprintf(path, sizeof path, "%.4000s/recovery_keys", st->dir);
	int r = mw_fs_read_file(st->fs, path, 65536, &text, &n);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	struct mw_str rest = mw_str(text, n), line;
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		if (line.n != 64 || st->n_recovery == MW_KEYS_MOST ||
		    !mw_unhex(st->recovery[st->n_recovery], line.p, 32))
			return mw_fail(err, MW_EKEY, "%s: line %zu is no public key",
			               path, st->n_recovery + 1);
		st->n_recovery++;
	}
	return 0;
}

static int
write_keys(const struct mw_fs *fs, const char *dir, const uint8_t *pk, size_t n,
           struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	if (n > MW_KEYS_MOST)
		return mw_fail(err, MW_ELIMIT, "more than %d recovery keys",
		               MW_KEYS_MOST);
	for (size_t i = 0; i < n; i++) {
		char hex[65];
		mw_hex(hex, pk + 32 * i, 32);
		mw_buf_puts(&b, hex);
		mw_buf_putc(&b, '\n');
	}
	if (b.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory for keys");
	int r = mw_fs_write_file(fs, dir, "recovery_keys", b.p, b.n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/recovery_keys", dir);
	}
	return 0;
}

int
mw_store_set_recovery(const char *dir, const uint8_t *pk, size_t n, struct mw_err *err)
{
	if (n == 0)
		return mw_fail(err, MW_EUSAGE, "no recovery key is given");
	return write_keys(mw_fs_posix(), dir, pk, n, err);
}

size_t
mw_store_recovery_keys(const struct mw_store *st)
{
	return st->n_recovery;
}

const uint8_t *
mw_store_recovery_key(const struct mw_store *st, size_t k)
{
	return st->recovery[k];
}

int
mw_store_keys(struct mw_store *st, struct mw_err *err)
{
	mw_hmac_sha256(st->token_key, sizeof st->token_key, "host key", 8, st->host_key);
	int r = mw_aead_init(&st->host_aead, st->host_key);
	if (r < 0)
		return mw_fail(err, r, "out of memory for keys");
	if (st->o.n_secret) {
		st->secret = malloc(32 * st->o.n_secret);
		if (!st->secret)
			return mw_fail(err, MW_ENOMEM, "out of memory for keys");
		memcpy(st->secret, st->o.secret, 32 * st->o.n_secret);
		st->n_secret = st->o.n_secret;
	}
	st->o.secret = NULL;
	st->o.n_secret = 0;
	if (st->o.mode != MW_STORE_WRITE || st->o.n_recovery == 0)
		return load(st, err);
	if (st->o.n_recovery > MW_KEYS_MOST)
		return mw_fail(err, MW_ELIMIT, "more than %d recovery keys",
		               MW_KEYS_MOST);
	memcpy(st->recovery, st->o.recovery, 32 * st->o.n_recovery);
	st->n_recovery = st->o.n_recovery;
	return 0;
}

int
mw_store_keys_keep(struct mw_store *st, struct mw_err *err)
{
	return st->o.n_recovery
	           ? write_keys(st->fs, st->dir, st->recovery[0], st->n_recovery, err)
	           : 0;
}

void
mw_store_keys_done(struct mw_store *st)
{
	if (st->secret)
		explicit_bzero(st->secret, 32 * st->n_secret);
	free(st->secret);
	st->secret = NULL;
	st->n_secret = 0;
}

int
mw_store_load_recovery(char *const *files, size_t n, struct mw_buf *out,
                       struct mw_err *err)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t pk[32];
		int r = mw_keyring_load_public(files[i], pk, err);
		if (r < 0)
			return r;
		mw_buf_put(out, pk, sizeof pk);
	}
	return out->failed ? mw_fail(err, MW_ENOMEM, "out of memory for keys") : 0;
}

int
mw_store_probe_recovery(const char *file, struct mw_err *err)
{
	uint8_t pk[32];
	return mw_keyring_load_public(file, pk, err);
}

static void
binding(const uint8_t *journal, const uint8_t *salt, uint64_t number,
        uint8_t out[MW_ID_LEN + MW_SALT_LEN + 8])
{
	memcpy(out, journal, MW_ID_LEN);
	memcpy(out + MW_ID_LEN, salt, MW_SALT_LEN);
	mw_put64(out + MW_ID_LEN + MW_SALT_LEN, number);
}

static void
put_stanza(struct mw_buf *out, uint16_t kind, const void *p, uint16_t n)
{
	uint8_t head[4];
	mw_put16(head, kind);
	mw_put16(head + 2, n);
	mw_buf_put(out, head, sizeof head);
	mw_buf_put(out, p, n);
}

static const struct mw_str info = {"mailwal segment key 1", 21};

int
mw_wrap_stanza(const struct mw_seg_header *h, const uint8_t key[MW_AEAD_KEY],
               const uint8_t pk[32], struct mw_buf *out)
{
	uint8_t aad[MW_ID_LEN + MW_SALT_LEN + 8], s[MW_WRAPPED_SEG_KEY];
	binding(h->journal, h->salt, h->number, aad);
	struct mw_hpke_in in = {MW_HPKE_AES256, info, mw_str((char *)aad, sizeof aad),
	                        NULL};
	mw_keyring_id(pk, s);
	int r = mw_hpke_seal(&in, pk, mw_str((const char *)key, MW_AEAD_KEY),
	                     s + MW_KEY_ID_LEN, s + MW_KEY_ID_LEN + MW_HPKE_ENC);
	if (r == 0)
		put_stanza(out, 2, s, sizeof s);
	return r;
}

int
mw_store_stanzas(struct mw_store *st, struct mw_seg_header *h, struct mw_buf *out,
                 struct mw_err *err)
{
	/* 'mailwal keys rotate' may have changed them */
	size_t before = st->n_recovery;
	st->n_recovery = 0;
	int e = load(st, err);
	if (e == 0 && before && !st->n_recovery)
		e = mw_fail(err, MW_EKEY, "%s/recovery_keys is gone", st->dir);
	if (e < 0) { /* a journal with keys never goes back to none */
		st->n_recovery = before;
		return e;
	}
	for (size_t i = 0; i < st->n_recovery; i++) {
		int r = mw_wrap_stanza(h, st->seg_key, st->recovery[i], out);
		if (r < 0)
			return mw_fail(err, r, "recovery key %zu cannot be used", i + 1);
	}
	if (st->n_recovery == 0)
		put_stanza(out, 1, st->seg_key, MW_AEAD_KEY);
	h->n_stanzas = st->n_recovery ? (uint32_t)st->n_recovery : 1;
	h->stanzas = out->p;
	h->stanzas_len = out->n;
	return out->failed ? mw_fail(err, MW_ENOMEM, "out of memory for keys") : 0;
}

int
mw_unwrap_stanza(const struct mw_store *st, const struct mw_seg *s, const uint8_t *p,
                 uint8_t key[MW_AEAD_KEY])
{
	uint8_t aad[MW_ID_LEN + MW_SALT_LEN + 8], pk[32], id[MW_KEY_ID_LEN];
	binding(s->h.journal, s->h.salt, s->h.number, aad);
	struct mw_hpke_in in = {MW_HPKE_AES256, info, mw_str((char *)aad, sizeof aad),
	                        NULL};
	struct mw_str ct = mw_str((const char *)p + MW_KEY_ID_LEN + MW_HPKE_ENC,
	                          MW_AEAD_KEY + MW_HPKE_TAG);
	for (size_t i = 0; i < st->n_secret; i++) {
		const uint8_t *sk = st->secret + 32 * i;
		int r = mw_hpke_public(sk, pk);
		if (r < 0)
			return r;
		mw_keyring_id(pk, id);
		if (memcmp(id, p, sizeof id) != 0)
			continue;
		r = mw_hpke_open(&in, sk, p + MW_KEY_ID_LEN, ct, key);
		if (r == 0 || r == MW_ENOMEM)
			return r == 0 ? 1 : r;
	}
	return 0;
}

int
mw_store_unwrap(const struct mw_store *st, const struct mw_seg *s,
                uint8_t key[MW_AEAD_KEY])
{
	struct mw_rd r = {s->h.stanzas, s->h.stanzas_len, 0, false};
	for (uint32_t i = 0; i < s->h.n_stanzas; i++) {
		uint16_t kind = mw_rd16(&r), n = mw_rd16(&r);
		const uint8_t *p = mw_rd_bytes(&r, n);
		if (!p)
			return 0;
		if (kind == 1 && n == MW_AEAD_KEY) {
			memcpy(key, p, MW_AEAD_KEY);
			return 1;
		}
		int e = kind == 2 && n == MW_WRAPPED_SEG_KEY
		            ? mw_unwrap_stanza(st, s, p, key)
		            : 0;
		if (e != 0)
			return e;
	}
	return st->n_secret ? mw_added_unwrap(st, s, key) : 0;
}

int
mw_store_segment_keys(struct mw_store *st, uint64_t number,
                      void (*cb)(void *arg, const uint8_t *id), void *arg,
                      struct mw_err *err)
{
	struct mw_open_seg *o;
	int e = mw_store_seg(st, number, &o, err);
	if (e < 0)
		return e;
	struct mw_rd r = {o->seg->h.stanzas, o->seg->h.stanzas_len, 0, false};
	for (uint32_t i = 0; i < o->seg->h.n_stanzas; i++) {
		uint16_t kind = mw_rd16(&r), n = mw_rd16(&r);
		const uint8_t *p = mw_rd_bytes(&r, n);
		if (!p)
			return mw_fail(err, MW_EDAMAGED, "segment %llu: bad key stanza",
			               (unsigned long long)number);
		if (kind == 1 || (kind == 2 && n >= MW_KEY_ID_LEN))
			cb(arg, kind == 1 ? NULL : p);
	}
	struct mw_added a;
	if (mw_added_load(st, o->seg, &a, NULL) != 1) /* 'mailwal verify' names it */
		return 0;
	for (uint32_t i = 0; i < a.n; i++) {
		const uint8_t *p = mw_added_stanza(&a, i);
		if (p)
			cb(arg, p);
	}
	mw_added_free(&a);
	return 0;
}

int
mw_store_segments(struct mw_store *st, uint64_t **ret, size_t *ret_n, struct mw_err *err)
{
	return mw_seg_list(st->fs, st->dir, ret, ret_n, err);
}
