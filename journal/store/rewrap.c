/* Old segments opened to new keys: a closed segment never changes, so further stanzas
 * stand in a file beside it (FORMAT.md §2, I19). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	HEAD = 88,
	CRC_AT = 8,
	MAC_AT = 56,
	STANZA = 4 + MW_WRAPPED_SEG_KEY,
	STANZAS_MOST = 64
};

static const char magic[] = "MWALKEY1";
static const char label[] = "mailwal added keys 1";

static void
name_of(uint64_t number, char out[32])
{
	(void)snprintf(out, 32, "%016llx.keys", (unsigned long long)number);
}

void
mw_added_path(const struct mw_store *st, uint64_t number, char out[PATH_MAX])
{
	char name[32];
	name_of(number, name);
	(void)!snprintf(out, PATH_MAX, "%.4000s/segments/%s", st->dir, name);
}

static void
mac_of(const uint8_t key[MW_AEAD_KEY], const uint8_t *p, size_t n, struct mw_buf *tmp,
       uint8_t out[MW_SHA256_LEN])
{
	mw_buf_clear(tmp);
	mw_buf_put(tmp, label, sizeof label - 1);
	mw_buf_put(tmp, p + CRC_AT + 4, MAC_AT - CRC_AT - 4);
	mw_buf_put(tmp, p + HEAD, n - HEAD);
	if (!tmp->failed)
		mw_hmac_sha256(key, MW_AEAD_KEY, tmp->p, tmp->n, out);
}

int
mw_added_load(const struct mw_store *st, const struct mw_seg *s, struct mw_added *ret,
              struct mw_err *err)
{
	char path[PATH_MAX];
	size_t n;
	memset(ret, 0, sizeof *ret);
	mw_added_path(st, s->h.number, path);
	int r =
	    mw_fs_read_file(st->fs, path, HEAD + STANZAS_MOST * STANZA, &ret->file, &n);
	if (r == -ENOENT)
		return 0;
	if (r == -ENOMEM)
		return mw_fail(err, MW_ENOMEM, "out of memory for keys");
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	const uint8_t *p = ret->file;
	const char *why = NULL;
	if (n < HEAD || memcmp(p, magic, sizeof magic - 1) != 0)
		why = "is no file of added keys";
	else if (mw_get32(p + CRC_AT) != mw_crc32c(0, p + CRC_AT + 4, n - CRC_AT - 4) ||
	         n != HEAD + STANZA * (uint64_t)mw_get32(p + 12))
		why = "does not match its checksum";
	else if (memcmp(p + 16, s->h.journal, MW_ID_LEN) != 0 ||
	         memcmp(p + 32, s->h.salt, MW_SALT_LEN) != 0 ||
	         mw_get64(p + 48) != s->h.number)
		why = "is of another segment";
	if (why) {
		mw_added_free(ret);
		return mw_fail(err, MW_EDAMAGED, "%s %s", path, why);
	}
	ret->size = n;
	ret->stanzas = p + HEAD;
	ret->n = mw_get32(p + 12);
	return 1;
}

void
mw_added_free(struct mw_added *a)
{
	free(a->file);
	memset(a, 0, sizeof *a);
}

bool
mw_added_proven(const struct mw_added *a, const uint8_t key[MW_AEAD_KEY])
{
	MW_BUF_AUTO tmp = {0};
	uint8_t mac[MW_SHA256_LEN];
	mac_of(key, a->file, a->size, &tmp, mac);
	return !tmp.failed &&
	       memcmp(mac, (const uint8_t *)a->file + MAC_AT, sizeof mac) == 0;
}

const uint8_t *
mw_added_stanza(const struct mw_added *a, uint32_t i)
{
	const uint8_t *p = a->stanzas + (size_t)i * STANZA;
	return mw_get16(p) == 2 && mw_get16(p + 2) == MW_WRAPPED_SEG_KEY ? p + 4 : NULL;
}

int
mw_added_unwrap(const struct mw_store *st, const struct mw_seg *s,
                uint8_t key[MW_AEAD_KEY])
{
	struct mw_added a;
	int r = mw_added_load(st, s, &a, NULL), good = 0;
	if (r != 1) /* 'mailwal verify' names a bad one */
		return r == MW_ENOMEM ? r : 0;
	for (uint32_t i = 0; good == 0 && i < a.n; i++) {
		const uint8_t *p = mw_added_stanza(&a, i);
		good = p ? mw_unwrap_stanza(st, s, p, key) : 0;
		if (good == 1 && !mw_added_proven(&a, key))
			good = 0;
	}
	mw_added_free(&a);
	if (good != 1)
		explicit_bzero(key, MW_AEAD_KEY);
	return good;
}

/* ---- writing ---- */

static bool
has_key(const struct mw_seg *s, const struct mw_added *a, const uint8_t id[MW_KEY_ID_LEN])
{
	struct mw_rd r = {s->h.stanzas, s->h.stanzas_len, 0, false};
	for (uint32_t i = 0; i < s->h.n_stanzas; i++) {
		uint16_t kind = mw_rd16(&r), n = mw_rd16(&r);
		const uint8_t *p = mw_rd_bytes(&r, n);
		if (!p)
			return false;
		if (kind == 2 && n == MW_WRAPPED_SEG_KEY &&
		    memcmp(p, id, MW_KEY_ID_LEN) == 0)
			return true;
	}
	for (uint32_t i = 0; i < a->n; i++) {
		const uint8_t *p = mw_added_stanza(a, i);
		if (p && memcmp(p, id, MW_KEY_ID_LEN) == 0)
			return true;
	}
	return false;
}

static int
write_added(struct mw_store *st, const struct mw_seg *s, const uint8_t key[MW_AEAD_KEY],
            struct mw_buf *b, struct mw_err *err)
{
	char dir[PATH_MAX], name[32];
	MW_BUF_AUTO tmp = {0};
	if (mw_buf_ok(b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for keys");
	size_t n = (b->n - HEAD) / STANZA;
	if (n > STANZAS_MOST)
		return mw_fail(err, MW_ELIMIT, "segment %llu has %d added keys already",
		               (unsigned long long)s->h.number, STANZAS_MOST);
	memcpy(b->p, magic, sizeof magic - 1);
	mw_put32(b->p + 12, (uint32_t)n);
	memcpy(b->p + 16, s->h.journal, MW_ID_LEN);
	memcpy(b->p + 32, s->h.salt, MW_SALT_LEN);
	mw_put64(b->p + 48, s->h.number);
	mac_of(key, b->p, b->n, &tmp, b->p + MAC_AT);
	if (tmp.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory for keys");
	mw_put32(b->p + CRC_AT, mw_crc32c(0, b->p + CRC_AT + 4, b->n - CRC_AT - 4));
	name_of(s->h.number, name);
	(void)!snprintf(dir, sizeof dir, "%.4000s/segments", st->dir);
	int r = mw_fs_write_file(st->fs, dir, name, b->p, b->n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/%s", dir, name);
	}
	return 1;
}

static int
rewrap(struct mw_store *st, struct mw_open_seg *o, const struct mw_added *a,
       const uint8_t *pk, size_t n, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	size_t added = 0;
	uint8_t zero[HEAD] = {0};
	mw_buf_put(&b, zero, sizeof zero);
	mw_buf_put(&b, a->stanzas, a->n * (size_t)STANZA);
	for (size_t i = 0; i < n; i++) {
		uint8_t id[MW_KEY_ID_LEN];
		mw_keyring_id(pk + 32 * i, id);
		if (has_key(o->seg, a, id))
			continue;
		int r = mw_wrap_stanza(&o->seg->h, o->key, pk + 32 * i, &b);
		if (r < 0)
			return mw_fail(err, r, "recovery key %zu cannot be used", i + 1);
		added++;
	}
	return added ? write_added(st, o->seg, o->key, &b, err) : 0;
}

/* Was it made for all of these? By its header alone, which is signed: what was added says
 * nothing to who cannot open it. */
static bool
made_for(const struct mw_seg *s, const uint8_t *pk, size_t n)
{
	const struct mw_added none = {0};
	for (size_t i = 0; i < n; i++) {
		uint8_t id[MW_KEY_ID_LEN];
		mw_keyring_id(pk + 32 * i, id);
		if (!has_key(s, &none, id))
			return false;
	}
	return true;
}

int
mw_store_rewrap(struct mw_store *st, uint64_t number, const uint8_t *pk, size_t n,
                struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_added a;
	int r = mw_store_seg(st, number, &o, err);
	if (r < 0)
		return r;
	if (o->seg->h.n_stanzas && mw_get16(o->seg->h.stanzas) == 1)
		return 0; /* readable without any key */
	r = mw_store_seg_key(st, o, err);
	if (r < 0)
		return r;
	if (r == 0 && made_for(o->seg, pk, n))
		return 0;
	if (r == 0)
		return mw_fail(err, MW_EKEY, "segment %llu: no key given opens it",
		               (unsigned long long)number);
	r = mw_added_load(st, o->seg, &a, err);
	if (r == 1 && !mw_added_proven(&a, o->key)) {
		mw_added_free(&a);
		r = MW_EDAMAGED;
	}
	if (r == MW_EDAMAGED) { /* it is of no use to anybody: made anew */
		mw_err_clear(err);
		r = 0;
	}
	if (r < 0)
		return r;
	r = rewrap(st, o, &a, pk, n, err);
	mw_added_free(&a);
	return r;
}

int
mw_store_added_check(struct mw_store *st, uint64_t number, struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_added a;
	int r = mw_store_seg(st, number, &o, err);
	if (r == 0)
		r = mw_added_load(st, o->seg, &a, err);
	if (r != 1)
		return r;
	r = mw_store_seg_key(st, o, err);
	if (r == 1 && !mw_added_proven(&a, o->key))
		r = mw_fail(err, MW_EDAMAGED,
		            "the keys added to segment %llu were not made by who could "
		            "read it",
		            (unsigned long long)number);
	else if (r == 0)
		r = 1; /* nobody here can tell */
	mw_added_free(&a);
	return r;
}
