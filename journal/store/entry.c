/* A record on its way in: hashed, compressed, cut, sealed (FORMAT.md §6), in the thread
 * of whoever brings it. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/record/cbor.h"
#include "journal/record/header.h"
#include "journal/record/outcome.h"
#include "journal/record/retire.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

static void
canon_emit(void *arg, const void *p, size_t n)
{
	struct mw_entry *e = arg;
	mw_sha256_update(&e->canon_sha, p, n);
}

static void
make_aad(struct mw_entry *e)
{
	memcpy(e->aad, "mailwal1", 8);
	memcpy(e->aad + 8, e->st->id, MW_ID_LEN);
	memcpy(e->aad + 8 + MW_ID_LEN, e->id, MW_ID_LEN);
	e->aad[MW_AAD_LEN - 1] = (uint8_t)e->type;
}

/* Its ID and its key. */
static void
random_parts(struct mw_entry *e)
{
	uint8_t p[MW_ID_LEN + sizeof e->key];
	mw_random(p, sizeof p);
	memcpy(e->id, p, MW_ID_LEN);
	memcpy(e->key, p + MW_ID_LEN, sizeof e->key);
	explicit_bzero(p, sizeof p);
}

int
mw_entry_new(struct mw_store *st, enum mw_type type, struct mw_entry **ret,
             struct mw_err *err)
{
	struct mw_entry *e = calloc(1, sizeof *e);
	if (!e)
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	e->st = st;
	e->type = type;
	e->line_start = true;
	e->body.part = 1;
	e->header.max = MW_HEADER_KEEP;
	random_parts(e);
	make_aad(e);
	mw_canon_init(&e->canon, canon_emit, e);
	int r = mw_aead_init(&e->aead, e->key);
	struct mw_sha256 *sha[] = {&e->sha, &e->canon_sha, &e->body.sha, &e->meta.sha};
	for (size_t i = 0; r == 0 && i < MW_COUNT(sha); i++)
		r = mw_sha256_init(sha[i]);
	if (r < 0) {
		mw_entry_free(e);
		return mw_fail(err, r, "out of memory for a record");
	}
	*ret = e;
	return 0;
}

static void
sealing_free(struct mw_sealing *s)
{
	mw_buf_wipe(&s->plain);
	mw_buf_free(&s->out);
	mw_sha256_free(&s->sha);
	mw_spill_free(s->spill);
}

void
mw_entry_free(struct mw_entry *e)
{
	if (!e)
		return;
	mw_canon_done(&e->canon);
	sealing_free(&e->body);
	sealing_free(&e->meta);
	mw_sha256_free(&e->sha);
	mw_sha256_free(&e->canon_sha);
	mw_aead_done(&e->aead);
	mw_zc_free(e->zc);
	mw_dict_unref(e->dict);
	mw_buf_wipe(&e->early);
	mw_buf_wipe(&e->header);
	mw_buf_free(&e->tokens);
	mw_arena_free(e->arena);
	free(e->head);
	explicit_bzero(e->key, sizeof e->key);
	free(e);
}

size_t
mw_entry_memory(const struct mw_entry *e)
{
	return sizeof *e + e->head_len + e->header.cap + e->early.cap + e->tokens.cap +
	       e->body.plain.cap + e->body.out.cap * (e->body.spill ? 2 : 1) +
	       e->meta.plain.cap + e->meta.out.cap;
}

const uint8_t *
mw_entry_id(const struct mw_entry *e)
{
	return e->id;
}

/* ---- sealing ---- */

static int
spill(struct mw_entry *e, struct mw_sealing *s, struct mw_err *err)
{
	uint64_t n = s->out.n;
	int r = mw_spill_put(&e->st->spiller, &s->spill, &s->out, err);
	if (r == 0)
		s->spilled += n;
	return r;
}

/* Seals the piece in progress. */
static int
seal_piece(struct mw_entry *e, struct mw_sealing *s, bool last, struct mw_err *err)
{
	uint8_t nonce[MW_AEAD_NONCE] = {s->part, last};
	mw_put64(nonce + 4, s->pieces++);
	size_t n = s->plain.n + MW_AEAD_TAG;
	int r = mw_buf_reserve(&s->out, n);
	if (r == 0) {
		struct mw_aead_in in = {nonce, e->aad, sizeof e->aad, s->plain.p,
		                        s->plain.n};
		r = mw_aead_seal(&e->aead, &in, s->out.p + s->out.n);
	}
	if (r < 0)
		return mw_fail(err, r, "out of memory for a record");
	const uint8_t *sealed = s->out.p + s->out.n;
	s->crc = mw_crc32c(s->crc, sealed, n);
	mw_sha256_update(&s->sha, sealed, n);
	s->out.n += n;
	s->len += n;
	mw_buf_clear(&s->plain);
	if (s->part == 1 && e->type == MW_TYPE_MAIL && s->out.n > e->st->o.spill_above)
		return spill(e, s, err);
	return 0;
}

int
mw_seal_put(struct mw_entry *e, struct mw_sealing *s, const void *p, size_t n,
            struct mw_err *err)
{
	const uint8_t *q = p;
	while (n) {
		if (s->plain.n == MW_PIECE) { /* more follows: it is not the last */
			int r = seal_piece(e, s, false, err);
			if (r < 0)
				return r;
		}
		size_t k = MW_MIN(n, MW_PIECE - s->plain.n);
		mw_buf_put(&s->plain, q, k);
		if (s->plain.failed)
			return mw_fail(err, MW_ENOMEM, "out of memory for a record");
		q += k;
		n -= k;
	}
	return 0;
}

struct seal_arg {
	struct mw_entry *e;
	struct mw_sealing *s;
	struct mw_err *err;
};

static int
seal_sink(void *arg, const void *p, size_t n)
{
	struct seal_arg *a = arg;
	return mw_seal_put(a->e, a->s, p, n, a->err);
}

/* ---- content ---- */

/* Keeps the header and counts its bytes up to the empty line. */
static void
watch_header(struct mw_entry *e, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!e->line_start) { /* the rest of the line, then */
			const uint8_t *lf = memchr(p + i, '\n', n - i);
			size_t k = lf ? (size_t)(lf - p) - i + 1 : n - i;
			e->header_size += k;
			e->line_start = lf != NULL;
			i += k - 1;
			continue;
		}
		uint8_t b = p[i];
		if (b == '\n') {
			e->header_done = true;
			e->header_size -= e->cr_pending;
			mw_buf_put(&e->header, p, i);
			return;
		}
		if (b == '\r' && !e->cr_pending) {
			e->cr_pending = true;
		} else {
			e->cr_pending = e->line_start = false;
		}
		e->header_size++;
	}
	mw_buf_put(&e->header, p, n); /* beyond MW_HEADER_KEEP: what came before */
}

static int
start_stream(struct mw_entry *e, struct mw_err *err)
{
	struct seal_arg a = {e, &e->body, err};
	int r = mw_zc_new(e->st->o.level, &e->zc);
	if (r < 0)
		return mw_fail(err, r, "out of memory for compression");
	r = mw_zc_put(e->zc, e->early.p, e->early.n, false, seal_sink, &a);
	mw_buf_wipe(&e->early);
	return r;
}

int
mw_entry_body(struct mw_entry *e, const void *p, size_t n, struct mw_err *err)
{
	mw_assert(!e->body_done && e->type == MW_TYPE_MAIL);
	if (n == 0)
		return 0;
	e->size += n;
	mw_sha256_update(&e->sha, p, n);
	mw_canon_put(&e->canon, p, n);
	if (!e->header_done)
		watch_header(e, p, n);
	if (mw_buf_ok(&e->header) == MW_ENOMEM) /* else Message-ID and Subject would go */
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	if (!e->zc && e->early.n + n <= MW_ONE_SHOT) {
		mw_buf_put(&e->early, p, n);
		return e->early.failed
		           ? mw_fail(err, MW_ENOMEM, "out of memory for a record")
		           : 0;
	}
	int r = e->zc ? 0 : start_stream(e, err);
	struct seal_arg a = {e, &e->body, err};
	if (r == 0)
		r = mw_zc_put(e->zc, p, n, false, seal_sink, &a);
	if (r < 0 && err && !err->code)
		(void)mw_fail(err, r, "cannot compress a record");
	return r;
}

static int
end_body(struct mw_entry *e, struct mw_err *err)
{
	if (e->body_done)
		return 0;
	struct seal_arg a = {e, &e->body, err};
	if (!e->zc)
		e->dict = mw_dict_get(e->st);
	int r = e->zc ? mw_zc_put(e->zc, NULL, 0, true, seal_sink, &a)
	              : mw_zc_all(e->st->o.level, mw_dict_z(e->dict), e->early.p,
	                          e->early.n, seal_sink, &a);
	if (r == 0)
		r = seal_piece(e, &e->body, true, err);
	if (r == 0 && e->body.spill)
		r = mw_spill_flush(e->body.spill, err);
	if (r < 0) {
		if (err && !err->code)
			(void)mw_fail(err, r, "cannot compress a record");
		return r;
	}
	mw_canon_done(&e->canon);
	mw_sha256_final(&e->sha, e->sha256);
	mw_sha256_final(&e->canon_sha, e->digest);
	mw_zc_free(e->zc);
	e->zc = NULL;
	e->body_done = true;
	return 0;
}

/* The first field of each name that the metadata has, unfolded; empty where there is
 * none.
 */
static int
header_texts(struct mw_entry *e, struct mw_str *ret_id, struct mw_mail *m)
{
	struct {
		struct mw_str name, *to;
		bool have;
	} want[] = {{MW_STR("Message-ID"), ret_id, false},
	            {MW_STR("Subject"), &m->subject, false},
	            {MW_STR("From"), &m->from, false}};
	struct mw_str rest = mw_buf_str(&e->header);
	struct mw_field f;
	size_t found = 0;
	*ret_id = m->subject = m->from = MW_STR("");
	while (found < MW_COUNT(want) && mw_header_next(&rest, &f)) {
		for (size_t i = 0; i < MW_COUNT(want); i++) {
			if (want[i].have || f.name.n != want[i].name.n ||
			    !mw_str_ieq(f.name, want[i].name))
				continue;
			struct mw_str s = mw_header_unfold(e->arena, f.value, 1000);
			if (!s.p)
				return MW_ENOMEM;
			*want[i].to = s;
			want[i].have = true;
			found++;
		}
	}
	return 0;
}

int
mw_entry_describe(struct mw_entry *e, struct mw_mail *m, struct mw_err *err)
{
	int r = end_body(e, err);
	if (r < 0)
		return r;
	if (!e->arena && !(e->arena = mw_arena_new(65536)))
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	m->size = e->size;
	m->header_size = e->header_size;
	memcpy(m->sha256, e->sha256, sizeof m->sha256);
	memcpy(m->digest, e->digest, sizeof m->digest);
	struct mw_str mid;
	r = header_texts(e, &mid, m);
	if (r < 0)
		return mw_fail(err, r, "out of memory for a record");
	m->message_id = mw_header_msgid(mid);
	return 0;
}

/* ---- finishing ---- */

static int
seal_meta(struct mw_entry *e, const void *p, size_t n, struct mw_err *err)
{
	struct seal_arg a = {e, &e->meta, err};
	int r = mw_zc_all(e->st->o.level, NULL, p, n, seal_sink, &a);
	if (r == 0)
		r = seal_piece(e, &e->meta, true, err);
	if (r < 0 && err && !err->code)
		(void)mw_fail(err, r, "cannot compress metadata");
	return r;
}

/* Everything about the frame that needs no place in the log. */
static int
make_frame(struct mw_entry *e, struct mw_err *err)
{
	struct mw_frame *f = &e->frame;
	mw_token_unique(&e->tokens);
	if (e->tokens.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	if (e->tokens.n > UINT32_MAX / 2 || e->meta.len > UINT32_MAX)
		return mw_fail(err, MW_ELIMIT, "too many recipients for one record");
	f->time_us = e->time_us;
	memcpy(f->id, e->id, MW_ID_LEN);
	f->type = (uint8_t)e->type;
	f->slot_len = (uint32_t)(MW_SLOT_FIXED + e->tokens.n);
	f->meta_len = (uint32_t)e->meta.len;
	f->meta_crc = e->meta.crc;
	f->body_len = e->body.len;
	f->body_crc = e->body.crc;
	f->plain_len = e->size;
	mw_sha256_final(&e->meta.sha, e->meta_hash);
	mw_sha256_final(&e->body.sha, e->body_hash);
	e->head_len = MW_FRAME_HEADER + f->slot_len;
	e->head = malloc(e->head_len);
	if (!e->head)
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	e->finished = true;
	return 0;
}

int
mw_entry_finish_mail(struct mw_entry *e, const struct mw_mail *m, struct mw_err *err)
{
	mw_assert(e->type == MW_TYPE_MAIL && !e->finished);
	int r = end_body(e, err);
	if (r < 0)
		return r;
	MW_BUF_AUTO cbor = {.max = UINT32_MAX / 2};
	r = mw_mail_encode(m, &cbor);
	if (r < 0)
		return mw_fail(err, r, "cannot encode metadata: %s", mw_err_text(r));
	e->time_us = m->time_us;
	mw_token_add(e, MW_KEY_ID, mw_str((const char *)e->id, MW_ID_TOKEN));
	mw_token_mail(e, m);
	mw_dict_offer(e, m);
	r = seal_meta(e, cbor.p, cbor.n, err);
	return r < 0 ? r : make_frame(e, err);
}

/* Outcomes refer to each of their mails: so retention keeps them as long as one of these
 * stays. What cannot be read refers to none; its reader will say so. */
static int
refer_outcomes(struct mw_entry *e, const void *cbor, size_t n, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_outcomes o;
	int r = a ? mw_outcomes_decode(cbor, n, a, &o, NULL) : MW_ENOMEM;
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory for a record");
	for (size_t i = 0; r == 0 && i < o.n; i++)
		mw_entry_refer(e, o.v[i].id);
	return 0;
}

/* So does what says which mail was put back for somebody. */
static int
refer_restored(struct mw_entry *e, const void *cbor, size_t n, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_restore x;
	int r = a ? mw_restore_decode(cbor, n, a, &x, NULL) : MW_ENOMEM;
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory for a record");
	for (size_t i = 0; r == 0 && i < x.n_id; i++)
		mw_entry_refer(e, x.id[i]);
	return 0;
}

int
mw_entry_finish(struct mw_entry *e, int64_t time_us, const void *cbor, size_t n,
                struct mw_err *err)
{
	mw_assert(e->type != MW_TYPE_MAIL && !e->finished);
	char type = (char)e->type;
	e->time_us = time_us;
	e->body_done = true;
	mw_token_add(e, MW_KEY_ID, mw_str((const char *)e->id, MW_ID_TOKEN));
	mw_token_add(e, MW_KEY_TYPE, mw_str(&type, 1));
	int r = e->type == MW_TYPE_OUTCOME   ? refer_outcomes(e, cbor, n, err)
	        : e->type == MW_TYPE_RESTORE ? refer_restored(e, cbor, n, err)
	                                     : 0;
	if (r == 0)
		r = seal_meta(e, cbor, n, err);
	return r < 0 ? r : make_frame(e, err);
}

int
mw_entry_dict(struct mw_store *st, struct mw_str bytes, const struct mw_dict_note *n,
              struct mw_entry **ret, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO cbor = {0};
	int r = mw_entry_new(st, MW_TYPE_DICT, &e, err);
	if (r < 0)
		return r;
	mw_cbor_put_map(&cbor, 3);
	mw_cbor_put_text(&cbor, "time");
	mw_cbor_put_int(&cbor, n->time_us);
	mw_cbor_put_text(&cbor, "mails");
	mw_cbor_put_uint(&cbor, n->mails);
	mw_cbor_put_text(&cbor, "size");
	mw_cbor_put_uint(&cbor, n->size);
	struct seal_arg a = {e, &e->body, err};
	e->size = bytes.n;
	r = mw_zc_all(st->o.level, NULL, bytes.p, bytes.n, seal_sink, &a);
	if (r == 0)
		r = seal_piece(e, &e->body, true, err);
	if (r < 0 || cbor.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory for a dictionary");
	r = mw_entry_finish(e, n->time_us, cbor.p, cbor.n, err);
	if (r == 0)
		*ret = MW_TAKE(e);
	return r;
}
