/* Records back from the log: nothing is passed on that fails its check (I8). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdlib.h>

/* ---- frames ---- */

void
mw_record_of(struct mw_record *r, uint64_t segment, uint64_t off,
             const struct mw_frame *f)
{
	memset(r, 0, sizeof *r);
	r->loc = (struct mw_loc){segment, off};
	r->seq = f->seq;
	r->batch = f->batch;
	r->time_us = f->time_us;
	memcpy(r->id, f->id, MW_ID_LEN);
	r->type = (enum mw_type)f->type;
	r->flags = f->flags;
	r->dict = f->dict;
	r->imported = (f->flags & MW_FRAME_IMPORTED) != 0;
	memcpy(r->chain, f->chain, MW_HASH_LEN);
	r->slot_len = f->slot_len;
	r->meta_len = f->meta_len;
	r->meta_crc = f->meta_crc;
	r->body_len = f->body_len;
	r->body_crc = f->body_crc;
	r->plain_len = f->plain_len;
	r->frame_len = mw_frame_len(f);
}

int
mw_store_get(struct mw_store *st, struct mw_loc loc, struct mw_record *ret,
             struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_frame f;
	const char *why = "";
	int r = mw_store_seg(st, loc.segment, &o, err);
	if (r == 0)
		r = mw_seg_frame(o->seg, loc.offset, MW_CHECK_HEADER, &f, &why, err);
	if (r < 0)
		return r;
	if (r == 0 && mw_seg_left(o->seg, st->dir)) {
		mw_store_seg_drop(st, loc.segment);
		return mw_fail(err, MW_ENOTFOUND, "segment %llu is not there any more",
		               (unsigned long long)loc.segment);
	}
	if (r == 0)
		return mw_fail(err, MW_EDAMAGED, "segment %llu, offset %llu: %s",
		               (unsigned long long)loc.segment,
		               (unsigned long long)loc.offset, why);
	mw_record_of(ret, loc.segment, loc.offset, &f);
	return 0;
}

int
mw_store_or_gone(struct mw_store *st, uint64_t seq, int e, struct mw_err *err)
{
	if (e != MW_EDAMAGED && e != MW_ENOTFOUND)
		return e;
	struct mw_err why = {0};
	int k = mw_store_gone(st, seq, &why);
	if (k == MW_ENOMEM)
		return mw_fail(err, k, "%s", why.msg);
	if (k != 1)
		return e;
	mw_err_clear(err);
	return mw_fail(err, MW_EERASED, "sequence %llu has expired or was erased",
	               (unsigned long long)seq);
}

int
mw_store_get_seq(struct mw_store *st, struct mw_loc loc, uint64_t seq,
                 struct mw_record *ret, struct mw_err *err)
{
	struct mw_record rec;
	int r = mw_store_get(st, loc, &rec, err);
	if (r == 0 && rec.seq != seq)
		r = mw_fail(err, MW_EDAMAGED,
		            "segment %llu, offset %llu: no record %llu there",
		            (unsigned long long)loc.segment,
		            (unsigned long long)loc.offset, (unsigned long long)seq);
	if (r == 0)
		*ret = rec;
	return mw_store_or_gone(st, seq, r, err);
}

static int
damaged(const struct mw_record *r, struct mw_err *err, const char *what)
{
	char id[MW_ID_TEXT + 1];
	mw_id_text(id, r->id);
	id[MW_ID_SHORT] = '\0';
	return mw_fail(err, MW_EDAMAGED,
	               "record %s (sequence %llu, segment %llu, offset %llu): %s", id,
	               (unsigned long long)r->seq, (unsigned long long)r->loc.segment,
	               (unsigned long long)r->loc.offset, what);
}

/* Reads exactly n bytes of the record's frame at `at`. */
static int
read_part(struct mw_open_seg *o, const struct mw_record *r, uint64_t at, void *p,
          size_t n, struct mw_err *err)
{
	int64_t k = mw_seg_read(o->seg, p, n, r->loc.offset + at);
	if (k < 0) {
		errno = (int)-k;
		return mw_fail_errno(err, "cannot read segment %llu",
		                     (unsigned long long)r->loc.segment);
	}
	return (uint64_t)k < n ? damaged(r, err, "the file ends within it") : 0;
}

/* enum mw_slot_state, or negative. What it says stands in b, or in what was read ahead.
 */
static int
read_slot(struct mw_open_seg *o, const struct mw_record *r, struct mw_buf *b,
          struct mw_slot *ret, struct mw_err *err)
{
	const uint8_t *p =
	    mw_seg_at_hand(o->seg, r->slot_len, r->loc.offset + MW_FRAME_HEADER);
	if (!p) {
		int e = mw_buf_reserve(b, r->slot_len);
		if (e < 0)
			return mw_fail(err, e, "out of memory while reading");
		e = read_part(o, r, MW_FRAME_HEADER, b->p, r->slot_len, err);
		if (e < 0)
			return e;
		p = b->p;
	}
	enum mw_slot_state state = mw_slot_decode(p, r->slot_len, ret);
	if (state != MW_SLOT_BAD)
		return (int)state;
	return damaged(r, err, "its key slot does not match its checksum");
}

int
mw_record_slot(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
               struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_slot slot;
	MW_BUF_AUTO b = {0};
	int e = mw_store_seg(st, r->loc.segment, &o, err);
	if (e == 0)
		e = read_slot(o, r, &b, &slot, err);
	if (e < 0)
		return e;
	if (e == MW_SLOT_WIPED)
		return MW_SLOT_IS_WIPED;
	size_t n = (size_t)slot.n * MW_TOKEN_LEN, from = out->n;
	mw_buf_put(out, slot.tokens, n);
	if (mw_buf_ok(out) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading");
	out->n = from;
	for (size_t i = 0; i < n; i += MW_TOKEN_LEN) {
		if (mw_slot_no_token(slot.tokens + i))
			continue;
		memmove(out->p + out->n, slot.tokens + i, MW_TOKEN_LEN);
		out->n += MW_TOKEN_LEN;
	}
	return e == MW_SLOT_CUTTING ? MW_SLOT_IS_BEING_CUT
	       : out->n - from < n  ? MW_SLOT_IS_CUT
	                            : MW_SLOT_IS_WHOLE;
}

int
mw_record_tokens(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
                 struct mw_err *err)
{
	return MW_MIN(mw_record_slot(st, r, out, err), 0);
}

int
mw_record_has_token(struct mw_store *st, const struct mw_record *r,
                    const uint8_t token[MW_TOKEN_LEN], struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_slot slot;
	MW_BUF_AUTO b = {0};
	int e = mw_store_seg(st, r->loc.segment, &o, err);
	if (e == 0)
		e = read_slot(o, r, &b, &slot, err);
	if (e < 0 || e == MW_SLOT_WIPED || mw_slot_no_token(token))
		return MW_MIN(e, 0);
	for (uint32_t i = 0; i < slot.n; i++)
		if (memcmp(slot.tokens + (size_t)i * MW_TOKEN_LEN, token, MW_TOKEN_LEN) ==
		    0)
			return 1;
	return 0;
}

int
mw_record_tokens_own(struct mw_store *st, const struct mw_record *r, struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_slot slot;
	MW_BUF_AUTO b = {0};
	struct mw_hmac h;
	uint8_t mac[MW_SHA256_LEN];
	int e = mw_store_seg(st, r->loc.segment, &o, err);
	int key = e == 0 ? mw_store_seg_key(st, o, err) : e;
	if (key <= 0)
		return key < 0 ? key : 1;
	e = read_slot(o, r, &b, &slot, err);
	if (e != MW_SLOT_LIVE)
		return MW_MIN(e, 1);
	mw_hmac_init(&h, o->key, sizeof o->key);
	mw_hmac_update(&h, "tokens", 6);
	mw_hmac_update(&h, r->id, MW_ID_LEN);
	mw_hmac_update(&h, slot.tokens, (size_t)slot.n * MW_TOKEN_LEN);
	mw_hmac_final(&h, mac);
	bool own = memcmp(mac, slot.mac, 8) == 0;
	for (uint32_t i = 0; !own && i < slot.n; i++) /* cut: not the code's any more */
		own = mw_slot_no_token(slot.tokens + (size_t)i * MW_TOKEN_LEN);
	return own;
}

int
mw_record_wiped(struct mw_store *st, const struct mw_record *r, struct mw_err *err)
{
	struct mw_open_seg *o;
	struct mw_slot slot;
	MW_BUF_AUTO b = {0};
	int e = mw_store_seg(st, r->loc.segment, &o, err);
	if (e == 0)
		e = read_slot(o, r, &b, &slot, err);
	return e < 0 ? e : e == MW_SLOT_WIPED;
}

/* ---- opening sealed parts ---- */

struct opener {
	struct mw_store *st;
	struct mw_open_seg *o;
	const struct mw_record *r;
	struct mw_aead aead;
	uint8_t aad[MW_AAD_LEN];
};

/* Its context is kept for the next record. */
static void
opener_done(struct opener *op)
{
	if (op->st->aead.ctx)
		mw_aead_done(&op->aead);
	else
		op->st->aead = op->aead;
	op->aead.ctx = NULL;
}

static int
opener_start(struct opener *op, struct mw_err *err)
{
	const struct mw_record *r = op->r;
	struct mw_slot slot;
	MW_BUF_AUTO b = {0};
	uint8_t key[MW_AEAD_KEY], aad[MW_ID_LEN + 8];
	int e = read_slot(op->o, r, &b, &slot, err);
	if (e < 0)
		return e;
	if (e == MW_SLOT_WIPED) {
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, r->id);
		return mw_fail(err, MW_EERASED, "record %.11s has been erased", id);
	}
	bool host = (r->flags & MW_FRAME_HOST) != 0;
	e = host ? 1 : mw_store_seg_key(op->st, op->o, err);
	if (e < 0)
		return e;
	if (e == 0) {
		(void)mw_fail(err, MW_EKEY, "segment %llu is encrypted%s",
		              (unsigned long long)r->loc.segment,
		              op->st->n_secret ? ", and no key given opens it" : "");
		(void)mw_err_hint(err, "give a private recovery key with --key FILE");
		return MW_EKEY;
	}
	memcpy(aad, r->id, MW_ID_LEN);
	mw_put64(aad + MW_ID_LEN, r->seq);
	struct mw_aead host_aead = {NULL}, *seg = host ? &host_aead : &op->o->aead;
	if (!seg->ctx)
		e = mw_aead_init(seg, host ? op->st->host_key : op->o->key);
	struct mw_aead_in in = {r->id, aad, sizeof aad, slot.key, MW_WRAPPED_KEY};
	if (e >= 0)
		e = mw_aead_open(seg, &in, key);
	mw_aead_done(&host_aead);
	if (e == 0) {
		op->aead = op->st->aead; /* a record may be opened while one is */
		op->st->aead.ctx = NULL;
		e = mw_aead_rekey(&op->aead, key);
	}
	explicit_bzero(key, sizeof key);
	if (e == MW_EDAMAGED)
		return damaged(r, err, "its key does not open");
	if (e < 0)
		return mw_fail(err, e, "out of memory while reading");
	memcpy(op->aad, "mailwal1", 8);
	memcpy(op->aad + 8, op->st->id, MW_ID_LEN);
	memcpy(op->aad + 8 + MW_ID_LEN, r->id, MW_ID_LEN);
	op->aad[MW_AAD_LEN - 1] = (uint8_t)r->type;
	return 0;
}

struct part_range {
	uint8_t part;
	uint64_t at, len, max_plain;
	const struct mw_zdict *dict;
};

static size_t
piece_most(const struct part_range *p)
{
	return (size_t)MW_MIN(p->len, (uint64_t)MW_PIECE + MW_AEAD_TAG);
}

/* One stored piece: read, authenticated, handed to the decompressor. */
static int
open_piece(struct opener *op, const struct part_range *p, uint64_t number, uint64_t at,
           size_t n, uint8_t *buf, struct mw_err *err)
{
	uint8_t nonce[MW_AEAD_NONCE] = {p->part, at + n == p->len};
	uint8_t *sealed = buf, *plain = buf + piece_most(p);
	mw_put64(nonce + 4, number);
	int e = read_part(op->o, op->r, p->at + at, sealed, n, err);
	if (e < 0)
		return e;
	struct mw_aead_in in = {nonce, op->aad, sizeof op->aad, sealed, n};
	e = mw_aead_open(&op->aead, &in, plain);
	if (e == MW_EDAMAGED)
		return damaged(op->r, err,
		               p->part ? "its content does not authenticate"
		                       : "its metadata do not authenticate");
	return e < 0 ? mw_fail(err, e, "out of memory while reading") : 0;
}

/* The decompressor, for the next part. */
static void
zd_done(struct mw_store *st, struct mw_zd *z)
{
	if (st->zd || !z || !mw_zd_small(z))
		mw_zd_free(z);
	else
		st->zd = z;
}

static int
open_part(struct opener *op, const struct part_range *p, mw_zstd_sink *sink, void *arg,
          struct mw_err *err)
{
	struct mw_zd *z = op->st->zd;
	op->st->zd = NULL; /* a part may be opened while one is */
	size_t most = piece_most(p);
	MW_AUTOFREE uint8_t *buf = malloc(2 * most + 1);
	int e = !buf ? MW_ENOMEM : z ? mw_zd_again(z, p->dict) : mw_zd_new(p->dict, &z);
	if (e < 0) {
		mw_zd_free(z);
		return mw_fail(err, e, "out of memory while reading");
	}
	if (p->len < MW_AEAD_TAG)
		e = damaged(op->r, err, "a part is too short");
	uint64_t number = 0;
	for (uint64_t at = 0; e == 0 && at < p->len; number++) {
		size_t n = (size_t)MW_MIN(p->len - at, (uint64_t)MW_PIECE + MW_AEAD_TAG);
		e = open_piece(op, p, number, at, n, buf, err);
		if (e == 0) {
			if (err)
				err->code = 0;
			e = mw_zd_put(z, buf + most, n - MW_AEAD_TAG, p->max_plain, sink,
			              arg);
			if ((e == MW_EDAMAGED || e == MW_ELIMIT) && !(err && err->code))
				(void)damaged(op->r, err, "it does not decompress");
			else if (e < 0 && err && !err->code)
				(void)mw_fail(err, e, "reading stopped: %s",
				              mw_err_text(e));
		}
		at += n;
	}
	if (e == 0 && !mw_zd_complete(z))
		e = damaged(op->r, err, "a part is cut short");
	zd_done(op->st, z);
	return e;
}

static int
opener_init(struct opener *op, struct mw_store *st, const struct mw_record *r,
            struct mw_err *err)
{
	memset(op, 0, sizeof *op);
	op->st = st;
	op->r = r;
	int e = mw_store_seg(st, r->loc.segment, &op->o, err);
	return e < 0 ? e : opener_start(op, err);
}

static int
buf_sink(void *arg, const void *p, size_t n)
{
	struct mw_buf *b = arg;
	mw_buf_put(b, p, n);
	return mw_buf_ok(b);
}

int
mw_record_meta(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
               struct mw_err *err)
{
	struct opener op;
	int e = opener_init(&op, st, r, err);
	if (e < 0)
		return mw_store_or_gone(st, r->seq, e, err);
	struct part_range p = {0, MW_FRAME_HEADER + r->slot_len, r->meta_len,
	                       UINT64_C(1) << 31, NULL};
	e = open_part(&op, &p, buf_sink, out, err);
	opener_done(&op);
	return mw_store_or_gone(st, r->seq, e, err);
}

typedef int decoder(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
                    struct mw_err *err);

static int
mail_of(struct mw_store *st, const struct mw_record *r, struct mw_buf *meta,
        decoder *decode, struct mw_arena *a, struct mw_mail *ret, struct mw_err *err)
{
	if (r->type != MW_TYPE_MAIL)
		return mw_fail(err, MW_EUSAGE,
		               "sequence %llu is no message but a %s record",
		               (unsigned long long)r->seq, mw_type_name(r->type));
	int e = mw_record_meta(st, r, meta, err);
	if (e < 0)
		return e;
	e = decode(meta->p, meta->n, a, ret, err);
	if (e < 0)
		(void)mw_err_prefix(err, "sequence %llu", (unsigned long long)r->seq);
	return e;
}

int
mw_record_mail(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
               struct mw_mail *ret, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	return mail_of(st, r, &b, mw_mail_decode, a, ret, err);
}

int
mw_record_mail_here(struct mw_store *st, const struct mw_record *r, struct mw_buf *meta,
                    struct mw_arena *a, struct mw_mail *ret, struct mw_err *err)
{
	mw_buf_clear(meta);
	return mail_of(st, r, meta, mw_mail_decode_here, a, ret, err);
}

struct body_arg {
	int (*sink)(void *arg, const void *p, size_t n);
	void *arg;
	struct mw_sha256 sha;
	uint64_t n;
};

static int
body_sink(void *arg, const void *p, size_t n)
{
	struct body_arg *b = arg;
	mw_sha256_update(&b->sha, p, n);
	b->n += n;
	return b->sink(b->arg, p, n);
}

static int
body(struct mw_store *st, const struct mw_record *r, const struct mw_mail *m,
     struct body_arg *b, struct mw_err *err)
{
	struct opener op;
	uint8_t got[MW_SHA256_LEN];
	const struct mw_zdict *dict = NULL;
	int e = opener_init(&op, st, r, err);
	if (e < 0)
		return e;
	if (r->type != MW_TYPE_DICT) /* its own place, there */
		e = mw_dict_for(st, r, &dict, err);
	if (e == 0 && mw_sha256_init(&b->sha) < 0)
		e = mw_fail(err, MW_ENOMEM, "out of memory while reading");
	if (e < 0) {
		opener_done(&op);
		return e;
	}
	struct part_range p = {1, MW_FRAME_HEADER + (uint64_t)r->slot_len + r->meta_len,
	                       r->body_len, r->plain_len, dict};
	e = open_part(&op, &p, body_sink, b, err);
	opener_done(&op);
	mw_sha256_final(&b->sha, got);
	if (e < 0)
		return e;
	if (b->n != r->plain_len)
		return damaged(r, err, "its length is not what was captured");
	if (m && (m->size != b->n || memcmp(m->sha256, got, sizeof got) != 0))
		return damaged(r, err, "its SHA-256 is not what was captured");
	return 0;
}

int
mw_record_body(struct mw_store *st, const struct mw_record *r, const struct mw_mail *m,
               int (*sink)(void *arg, const void *p, size_t n), void *arg,
               struct mw_err *err)
{
	struct body_arg b = {.sink = sink, .arg = arg};
	return mw_store_or_gone(st, r->seq, body(st, r, m, &b, err), err);
}

int
mw_record_content(struct mw_store *st, const struct mw_record *r, const struct mw_mail *m,
                  size_t max, struct mw_buf *out, struct mw_err *err)
{
	if (r->plain_len > max)
		return mw_fail(err, MW_ELIMIT, "message of %llu bytes is too large here",
		               (unsigned long long)r->plain_len);
	int e = mw_buf_reserve(out, (size_t)r->plain_len);
	if (e < 0)
		return mw_fail(err, e, "out of memory for a message");
	return mw_record_body(st, r, m, buf_sink, out, err);
}
