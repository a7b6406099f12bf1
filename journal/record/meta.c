#include "journal/record/meta.h"

#include "journal/base/util.h"
#include "journal/record/cbor.h"

#include <stddef.h>

const char *
mw_type_name(enum mw_type t)
{
	static const char *const names[] = {"unknown",   "mail",      "outcome",  "mark",
	                                    "hold",      "tombstone", "dict",     "audit",
	                                    "expansion", "spf",       "recovery", "close",
	                                    "restore"};
	return (size_t)t < MW_COUNT(names) ? names[t] : names[0];
}

const char *
mw_direction_name(enum mw_direction d)
{
	return d == MW_DIR_IN ? "in" : d == MW_DIR_OUT ? "out" : "internal";
}

const char *
mw_mark_phase_name(enum mw_mark_phase p)
{
	return p == MW_MARK_START      ? "start"
	       : p == MW_MARK_COMPLETE ? "complete"
	                               : "failed";
}

/* One row per key: encoder and decoder walk the same table, so they cannot differ. */
enum ftype {
	F_INT,
	F_STR,
	F_TEXT,
	F_U64,
	F_U32,
	F_HASH,
	F_RCPT,
	F_ENUM
};

struct frow {
	const char *key;
	enum ftype type;
	size_t off;
};

#define ROW(key, type, member)                                                           \
	{                                                                                \
		key, type, offsetof(struct mw_mail, member)                              \
	}
static const struct frow mail_rows[] = {
    ROW("time", F_INT, time_us),      ROW("qid", F_STR, queue_id),
    ROW("mid", F_STR, message_id),    ROW("subj", F_STR, subject),
    ROW("from", F_STR, from),         ROW("ca", F_STR, client_addr),
    ROW("cn", F_STR, client_name),    ROW("cp", F_U32, client_port),
    ROW("helo", F_STR, helo),         ROW("tlsv", F_STR, tls_version),
    ROW("tlsc", F_STR, tls_cipher),   ROW("at", F_STR, auth_type),
    ROW("au", F_STR, auth_user),      ROW("as", F_STR, auth_sender),
    ROW("dn", F_STR, daemon),         ROW("mta", F_STR, mta),
    ROW("host", F_STR, hostname),     ROW("front", F_TEXT, front),
    ROW("s", F_STR, sender),          ROW("sa", F_STR, sender_args),
    ROW("r", F_RCPT, rcpt),           ROW("size", F_U64, size),
    ROW("hsize", F_U64, header_size), ROW("sha", F_HASH, sha256),
    ROW("dig", F_HASH, digest),       ROW("dir", F_ENUM, direction),
    ROW("fl", F_U32, flags),          ROW("fold", F_STR, folder),
};
#undef ROW

static const void *
member(const struct mw_mail *m, const struct frow *f)
{
	return (const char *)m + f->off;
}

static bool
absent(const struct mw_mail *m, const struct frow *f)
{
	const void *p = member(m, f);
	switch (f->type) {
	case F_STR:
	case F_TEXT:
		return ((const struct mw_str *)p)->n == 0;
	case F_U64:
		return *(const uint64_t *)p == 0;
	case F_U32:
		return *(const uint32_t *)p == 0;
	case F_ENUM:
		return *(const enum mw_direction *)p == MW_DIR_IN;
	case F_RCPT:
		return m->n_rcpt == 0;
	case F_INT:
	case F_HASH:
		break;
	}
	return false;
}

static void
put_rcpts(const struct mw_mail *m, struct mw_buf *out)
{
	mw_cbor_put_array(out, m->n_rcpt);
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		mw_cbor_put_array(out, 5);
		mw_cbor_put_bytes(out, r->addr);
		mw_cbor_put_bytes(out, r->args);
		mw_cbor_put_bytes(out, r->mailer);
		mw_cbor_put_uint(out, r->flags);
		mw_cbor_put_array(out, r->n_mailbox);
		for (size_t k = 0; k < r->n_mailbox; k++)
			mw_cbor_put_bytes(out, r->mailbox[k]);
	}
}

static void
put_field(const struct mw_mail *m, const struct frow *f, struct mw_buf *out)
{
	const void *p = member(m, f);
	mw_cbor_put_text(out, f->key);
	switch (f->type) {
	case F_INT:
		mw_cbor_put_int(out, *(const int64_t *)p);
		break;
	case F_STR:
	case F_TEXT:
		mw_cbor_put_bytes(out, *(const struct mw_str *)p);
		break;
	case F_U64:
		mw_cbor_put_uint(out, *(const uint64_t *)p);
		break;
	case F_U32:
		mw_cbor_put_uint(out, *(const uint32_t *)p);
		break;
	case F_ENUM:
		mw_cbor_put_uint(out, (uint64_t) * (const enum mw_direction *)p);
		break;
	case F_HASH:
		mw_cbor_put_bytes(out, mw_str(p, 32));
		break;
	case F_RCPT:
		put_rcpts(m, out);
		break;
	}
}

int
mw_mail_encode(const struct mw_mail *m, struct mw_buf *out)
{
	size_t n = 0;
	for (size_t i = 0; i < MW_COUNT(mail_rows); i++)
		n += !absent(m, &mail_rows[i]);
	mw_cbor_put_map(out, n);
	for (size_t i = 0; i < MW_COUNT(mail_rows); i++)
		if (!absent(m, &mail_rows[i]))
			put_field(m, &mail_rows[i], out);
	return mw_buf_ok(out);
}

/* ---- decoding ---- */

struct dec {
	struct mw_cbor_rd r;
	struct mw_arena *a;
	bool nomem;
};

static struct mw_str
get_str(struct dec *d)
{
	struct mw_str s = mw_cbor_bytes(&d->r);
	if (d->r.bad)
		return s;
	struct mw_str c = mw_arena_str(d->a, s);
	if (!c.p)
		d->nomem = d->r.bad = true;
	return c;
}

static void
get_mailboxes(struct dec *d, struct mw_rcpt *r)
{
	size_t n = mw_cbor_array(&d->r);
	if (d->r.bad || n == 0)
		return;
	r->mailbox = mw_arena_alloc(d->a, n * sizeof *r->mailbox);
	if (!r->mailbox) {
		d->nomem = d->r.bad = true;
		return;
	}
	for (size_t i = 0; i < n && !d->r.bad; i++)
		r->mailbox[i] = get_str(d);
	r->n_mailbox = n;
}

static void
get_rcpt(struct dec *d, struct mw_rcpt *r)
{
	size_t n = mw_cbor_array(&d->r);
	if (n < 5) {
		d->r.bad = true;
		return;
	}
	r->addr = get_str(d);
	r->args = get_str(d);
	r->mailer = get_str(d);
	r->flags = (uint32_t)mw_cbor_uint(&d->r);
	get_mailboxes(d, r);
	for (; n > 5 && !d->r.bad; n--) { /* members of later versions */
		struct mw_cbor_item it = mw_cbor_next(&d->r);
		mw_cbor_skip(&d->r, &it);
	}
}

static void
get_rcpts(struct dec *d, struct mw_mail *m)
{
	size_t n = mw_cbor_array(&d->r);
	if (d->r.bad || n == 0)
		return;
	m->rcpt = mw_arena_alloc(d->a, n * sizeof *m->rcpt);
	if (!m->rcpt) {
		d->nomem = d->r.bad = true;
		return;
	}
	m->n_rcpt = n;
	for (size_t i = 0; i < n && !d->r.bad; i++)
		get_rcpt(d, &m->rcpt[i]);
}

static void
get_field(struct dec *d, struct mw_mail *m, const struct frow *f)
{
	void *p = (char *)m + f->off;
	switch (f->type) {
	case F_INT:
		*(int64_t *)p = mw_cbor_int(&d->r);
		break;
	case F_STR:
	case F_TEXT:
		*(struct mw_str *)p = get_str(d);
		break;
	case F_U64:
		*(uint64_t *)p = mw_cbor_uint(&d->r);
		break;
	case F_U32:
		*(uint32_t *)p = (uint32_t)mw_cbor_uint(&d->r);
		break;
	case F_ENUM: {
		uint64_t v = mw_cbor_uint(&d->r);
		*(enum mw_direction *)p = v == 1   ? MW_DIR_OUT
		                          : v == 2 ? MW_DIR_INTERNAL
		                                   : MW_DIR_IN;
		break;
	}
	case F_HASH: {
		struct mw_str s = mw_cbor_bytes(&d->r);
		if (!d->r.bad && s.n == 32)
			memcpy(p, s.p, 32);
		else
			d->r.bad = true;
		break;
	}
	case F_RCPT:
		get_rcpts(d, m);
		break;
	}
}

/* An unknown key: skip its value, or refuse the record (I12). */
static int
unknown(struct mw_cbor_rd *r, struct mw_str key, struct mw_err *err)
{
	if (key.n && key.p[0] == '!') {
		(void)mw_fail(err, MW_EVERSION, "the metadata need the feature '%.*s'",
		              (int)MW_MIN(key.n, 40), key.p);
		(void)mw_err_hint(err, "read it with a newer mailwal");
		return MW_EVERSION;
	}
	struct mw_cbor_item it = mw_cbor_next(r);
	mw_cbor_skip(r, &it);
	return 0;
}

int
mw_mail_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
               struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_mail m;
	memset(&m, 0, sizeof m);
	size_t pairs = mw_cbor_map(&d.r);
	for (size_t i = 0; i < pairs && !d.r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d.r);
		size_t k;
		for (k = 0; k < MW_COUNT(mail_rows); k++)
			if (mw_str_eq(key, mw_strz(mail_rows[k].key)))
				break;
		if (d.r.bad)
			break;
		if (k < MW_COUNT(mail_rows)) {
			get_field(&d, &m, &mail_rows[k]);
		} else {
			int r = unknown(&d.r, key, err);
			if (r < 0)
				return r;
		}
	}
	if (d.nomem)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading metadata");
	if (d.r.bad || d.r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed metadata at byte %zu", d.r.at);
	*ret = m;
	return 0;
}

/* ---- marks and recoveries ---- */

int
mw_mark_encode(const struct mw_mark *m, struct mw_buf *out)
{
	mw_cbor_put_map(out, 5);
	mw_cbor_put_text(out, "name");
	mw_cbor_put_bytes(out, m->name);
	mw_cbor_put_text(out, "phase");
	mw_cbor_put_uint(out, (uint64_t)m->phase);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, m->time_us);
	mw_cbor_put_text(out, "start");
	mw_cbor_put_uint(out, m->start_seq);
	mw_cbor_put_text(out, "by");
	mw_cbor_put_bytes(out, m->by);
	return mw_buf_ok(out);
}

int
mw_mark_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mark *ret,
               struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_mark m;
	memset(&m, 0, sizeof m);
	size_t pairs = mw_cbor_map(&d.r);
	for (size_t i = 0; i < pairs && !d.r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d.r);
		if (mw_str_eq(key, MW_STR("name"))) {
			m.name = get_str(&d);
		} else if (mw_str_eq(key, MW_STR("phase"))) {
			uint64_t v = mw_cbor_uint(&d.r);
			m.phase = v == 0   ? MW_MARK_START
			          : v == 1 ? MW_MARK_COMPLETE
			                   : MW_MARK_FAILED;
		} else if (mw_str_eq(key, MW_STR("time"))) {
			m.time_us = mw_cbor_int(&d.r);
		} else if (mw_str_eq(key, MW_STR("start"))) {
			m.start_seq = mw_cbor_uint(&d.r);
		} else if (mw_str_eq(key, MW_STR("by"))) {
			m.by = get_str(&d);
		} else if (!d.r.bad) {
			int r = unknown(&d.r, key, err);
			if (r < 0)
				return r;
		}
	}
	if (d.nomem)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading a mark");
	if (d.r.bad || d.r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed mark at byte %zu", d.r.at);
	*ret = m;
	return 0;
}

int
mw_recovery_encode(const struct mw_recovery *r, struct mw_buf *out)
{
	mw_cbor_put_map(out, 4);
	mw_cbor_put_text(out, "seg");
	mw_cbor_put_uint(out, r->segment);
	mw_cbor_put_text(out, "end");
	mw_cbor_put_uint(out, r->end);
	mw_cbor_put_text(out, "torn");
	mw_cbor_put_uint(out, r->torn_bytes);
	mw_cbor_put_text(out, "damaged");
	mw_cbor_put_uint(out, r->damaged);
	return mw_buf_ok(out);
}

int
mw_recovery_decode(const void *p, size_t n, struct mw_recovery *ret, struct mw_err *err)
{
	struct mw_cbor_rd r = {p, n, 0, false};
	struct mw_recovery v = {0};
	size_t pairs = mw_cbor_map(&r);
	for (size_t i = 0; i < pairs && !r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&r);
		if (mw_str_eq(key, MW_STR("seg"))) {
			v.segment = mw_cbor_uint(&r);
		} else if (mw_str_eq(key, MW_STR("end"))) {
			v.end = mw_cbor_uint(&r);
		} else if (mw_str_eq(key, MW_STR("torn"))) {
			v.torn_bytes = mw_cbor_uint(&r);
		} else if (mw_str_eq(key, MW_STR("damaged"))) {
			v.damaged = (uint32_t)mw_cbor_uint(&r);
		} else if (!r.bad) {
			int e = unknown(&r, key, err);
			if (e < 0)
				return e;
		}
	}
	if (r.bad || r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed recovery note at byte %zu",
		               r.at);
	*ret = v;
	return 0;
}
