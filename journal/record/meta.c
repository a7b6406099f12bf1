#include "journal/record/meta.h"

#include "journal/base/util.h"
#include "journal/record/fields.h"

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

/* ---- mail ---- */

static void
put_rcpts(const void *rec, struct mw_buf *out)
{
	const struct mw_mail *m = rec;
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
take_rcpt(struct mw_fields_rd *d, struct mw_rcpt *r)
{
	size_t more = mw_fields_tuple(d, 5);
	r->addr = mw_fields_str(d);
	r->args = mw_fields_str(d);
	r->mailer = mw_fields_str(d);
	r->flags = (uint32_t)mw_cbor_uint(&d->r);
	r->mailbox = mw_fields_array(d, 1, sizeof *r->mailbox, &r->n_mailbox);
	for (size_t i = 0; i < r->n_mailbox && !d->r.bad; i++)
		r->mailbox[i] = mw_fields_str(d);
	mw_fields_skip(d, more);
}

static void
take_rcpts(struct mw_fields_rd *d, void *rec)
{
	struct mw_mail *m = rec;
	m->rcpt = mw_fields_array(d, 1, sizeof *m->rcpt, &m->n_rcpt);
	for (size_t i = 0; i < m->n_rcpt && !d->r.bad; i++)
		take_rcpt(d, &m->rcpt[i]);
}

static bool
has_rcpts(const void *rec)
{
	return ((const struct mw_mail *)rec)->n_rcpt != 0;
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_mail, member)
#define OPT(k, t, member)                                                                \
	{                                                                                \
		ROW(k, t, member), .optional = true                                      \
	}
static const struct mw_field mail_rows[] = {
    {ROW("time", INT, time_us)},
    OPT("qid", STR, queue_id),
    OPT("mid", STR, message_id),
    OPT("subj", STR, subject),
    OPT("from", STR, from),
    OPT("ca", STR, client_addr),
    OPT("cn", STR, client_name),
    OPT("cp", U32, client_port),
    OPT("helo", STR, helo),
    OPT("tlsv", STR, tls_version),
    OPT("tlsc", STR, tls_cipher),
    OPT("at", STR, auth_type),
    OPT("au", STR, auth_user),
    OPT("as", STR, auth_sender),
    OPT("dn", STR, daemon),
    OPT("mta", STR, mta),
    OPT("host", STR, hostname),
    OPT("front", STR, front),
    OPT("s", STR, sender),
    OPT("sa", STR, sender_args),
    {ROW("r", OTHER, rcpt), .optional = true, .given = has_rcpts, .put = put_rcpts,
     .take = take_rcpts},
    OPT("size", U64, size),
    OPT("hsize", U64, header_size),
    {ROW("sha", BYTES, sha256), .arg = 32},
    {ROW("dig", BYTES, digest), .arg = 32},
    {ROW("dir", ENUM, direction), .arg = MW_DIR_INTERNAL, .optional = true},
    OPT("fl", U32, flags),
    OPT("fold", STR, folder),
    {ROW("cls", STRS, class), .optional = true,
     .count = offsetof(struct mw_mail, n_class)},
    {ROW("fact", STRS, fact), .optional = true,
     .count = offsetof(struct mw_mail, n_fact)},
};
#undef OPT
#undef ROW
static const struct mw_fields mail = {"metadata", mail_rows, MW_COUNT(mail_rows)};

int
mw_mail_encode(const struct mw_mail *m, struct mw_buf *out)
{
	return mw_fields_encode(&mail, m, out);
}

int
mw_mail_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
               struct mw_err *err)
{
	struct mw_mail m = {.time_us = 0};
	int r = mw_fields_decode(&mail, mw_str(p, n), a, &m, err);
	if (r == 0)
		*ret = m;
	return r;
}

int
mw_mail_decode_here(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
                    struct mw_err *err)
{
	struct mw_mail m = {.time_us = 0};
	int r = mw_fields_decode_here(&mail, mw_str(p, n), a, &m, err);
	if (r == 0)
		*ret = m;
	return r;
}

/* ---- marks and recoveries ---- */

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_mark, member)
static const struct mw_field mark_rows[] = {
    {ROW("name", STR, name)},
    {ROW("phase", ENUM, phase), .arg = MW_MARK_FAILED, .other = MW_MARK_FAILED},
    {ROW("time", INT, time_us)},
    {ROW("start", U64, start_seq)},
    {ROW("by", STR, by)},
};
#undef ROW
static const struct mw_fields mark = {"mark", mark_rows, MW_COUNT(mark_rows)};

int
mw_mark_encode(const struct mw_mark *m, struct mw_buf *out)
{
	return mw_fields_encode(&mark, m, out);
}

int
mw_mark_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mark *ret,
               struct mw_err *err)
{
	struct mw_mark m = {.time_us = 0};
	int r = mw_fields_decode(&mark, mw_str(p, n), a, &m, err);
	if (r == 0)
		*ret = m;
	return r;
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_recovery, member)
static const struct mw_field recovery_rows[] = {
    {ROW("seg", U64, segment)},
    {ROW("end", U64, end)},
    {ROW("torn", U64, torn_bytes)},
    {ROW("damaged", U32, damaged)},
};
#undef ROW
static const struct mw_fields recovery = {"recovery note", recovery_rows,
                                          MW_COUNT(recovery_rows)};

int
mw_recovery_encode(const struct mw_recovery *v, struct mw_buf *out)
{
	return mw_fields_encode(&recovery, v, out);
}

int
mw_recovery_decode(const void *p, size_t n, struct mw_recovery *ret, struct mw_err *err)
{
	struct mw_recovery v = {0};
	int r = mw_fields_decode(&recovery, mw_str(p, n), NULL, &v, err);
	if (r == 0)
		*ret = v;
	return r;
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_close, member)
static const struct mw_field close_rows[] = {
    {ROW("first", U64, first), .required = true},
    {ROW("last", U64, last), .required = true},
    {ROW("records", U64, records), .required = true},
    {ROW("mails", U64, mails), .required = true},
    {ROW("tmin", INT, tmin_us)},
    {ROW("tmax", INT, tmax_us)},
};
#undef ROW
static const struct mw_fields close_fields = {"closing record", close_rows,
                                              MW_COUNT(close_rows)};

int
mw_close_decode(const void *p, size_t n, struct mw_close *ret, struct mw_err *err)
{
	struct mw_close v = {0};
	int r = mw_fields_decode(&close_fields, mw_str(p, n), NULL, &v, err);
	if (r == 0)
		*ret = v;
	return r;
}
