#include "journal/record/spf.h"

#include "journal/base/util.h"
#include "journal/record/cbor.h"

#include <stddef.h>

static const char *const names[] = {"none",     "neutral",   "pass",     "fail",
                                    "softfail", "temperror", "permerror"};

const char *
mw_spf_result_name(enum mw_spf_result r)
{
	return (size_t)r < MW_COUNT(names) ? names[r] : "none";
}

bool
mw_spf_result_parse(struct mw_str word, enum mw_spf_result *ret)
{
	for (size_t i = 0; i < MW_COUNT(names); i++) {
		if (mw_str_eq(word, mw_strz(names[i]))) {
			*ret = (enum mw_spf_result)i;
			return true;
		}
	}
	return false;
}

/* The strings, one row per key, for encoder and decoder alike. */
static const struct {
	const char *key;
	size_t off;
} rows[] = {
    {"ip", offsetof(struct mw_spf, ip)},
    {"helo", offsetof(struct mw_spf, helo)},
    {"from", offsetof(struct mw_spf, from)},
    {"rec", offsetof(struct mw_spf, record)},
    {"exp", offsetof(struct mw_spf, explanation)},
    {"why", offsetof(struct mw_spf, reason)},
    {"lib", offsetof(struct mw_spf, library)},
};

static const struct mw_str *
row(const struct mw_spf *s, size_t i)
{
	const void *p = (const char *)s + rows[i].off;
	return p;
}

int
mw_spf_encode(const struct mw_spf *s, struct mw_buf *out)
{
	size_t n = 5 + (s->code != 0);
	for (size_t i = 0; i < MW_COUNT(rows); i++)
		n += row(s, i)->n != 0;
	mw_cbor_put_map(out, n);
	mw_cbor_put_text(out, "ref");
	mw_cbor_put_bytes(out, mw_str((const char *)s->ref, sizeof s->ref));
	mw_cbor_put_text(out, "seq");
	mw_cbor_put_uint(out, s->seq);
	mw_cbor_put_text(out, "res");
	mw_cbor_put_text(out, mw_spf_result_name(s->result));
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, s->time_us);
	mw_cbor_put_text(out, "dur");
	mw_cbor_put_uint(out, s->took_us);
	if (s->code) {
		mw_cbor_put_text(out, "err");
		mw_cbor_put_uint(out, s->code);
	}
	for (size_t i = 0; i < MW_COUNT(rows); i++) {
		if (row(s, i)->n == 0)
			continue;
		mw_cbor_put_text(out, rows[i].key);
		mw_cbor_put_bytes(out, *row(s, i));
	}
	return mw_buf_ok(out);
}

/* One pair whose key has no row of its own. 0, or MW_EVERSION. */
static int
other(struct mw_cbor_rd *r, struct mw_str key, struct mw_spf *s, struct mw_err *err)
{
	if (mw_str_eq(key, MW_STR("ref"))) {
		struct mw_str v = mw_cbor_bytes(r);
		if (!r->bad && v.n == sizeof s->ref)
			memcpy(s->ref, v.p, v.n);
		else
			r->bad = true;
	} else if (mw_str_eq(key, MW_STR("res"))) {
		struct mw_str v = mw_cbor_bytes(r);
		if (!r->bad && !mw_spf_result_parse(v, &s->result))
			r->bad = true;
	} else if (mw_str_eq(key, MW_STR("seq"))) {
		s->seq = mw_cbor_uint(r);
	} else if (mw_str_eq(key, MW_STR("err"))) {
		s->code = (uint32_t)mw_cbor_uint(r);
	} else if (mw_str_eq(key, MW_STR("time"))) {
		s->time_us = mw_cbor_int(r);
	} else if (mw_str_eq(key, MW_STR("dur"))) {
		s->took_us = mw_cbor_uint(r);
	} else if (key.n && key.p[0] == '!') {
		(void)mw_fail(err, MW_EVERSION, "the verdict needs the feature '%.*s'",
		              (int)MW_MIN(key.n, 40), key.p);
		(void)mw_err_hint(err, "read it with a newer mailwal");
		return MW_EVERSION;
	} else {
		struct mw_cbor_item it = mw_cbor_next(r);
		mw_cbor_skip(r, &it);
	}
	return 0;
}

int
mw_spf_decode(const void *p, size_t n, struct mw_arena *a, struct mw_spf *ret,
              struct mw_err *err)
{
	struct mw_cbor_rd r = {p, n, 0, false};
	struct mw_spf s;
	memset(&s, 0, sizeof s);
	size_t pairs = mw_cbor_map(&r);
	for (size_t i = 0; i < pairs && !r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&r);
		size_t k = 0;
		if (r.bad)
			break;
		while (k < MW_COUNT(rows) && !mw_str_eq(key, mw_strz(rows[k].key)))
			k++;
		if (k == MW_COUNT(rows)) {
			int e = other(&r, key, &s, err);
			if (e < 0)
				return e;
			continue;
		}
		struct mw_str v = mw_cbor_bytes(&r);
		if (r.bad)
			break;
		void *to = (char *)&s + rows[k].off;
		struct mw_str copy = mw_arena_str(a, v);
		if (!copy.p)
			return mw_fail(err, MW_ENOMEM,
			               "out of memory while reading a verdict");
		*(struct mw_str *)to = copy;
	}
	if (r.bad || r.at != n)
		return mw_fail(err, MW_EFORMAT, "malformed verdict at byte %zu", r.at);
	*ret = s;
	return 0;
}
