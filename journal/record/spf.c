#include "journal/record/spf.h"

#include "journal/base/util.h"
#include "journal/record/fields.h"

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

static void
put_result(const void *rec, struct mw_buf *out)
{
	mw_cbor_put_text(out, mw_spf_result_name(((const struct mw_spf *)rec)->result));
}

static void
take_result(struct mw_fields_rd *d, void *rec)
{
	struct mw_str word = mw_cbor_bytes(&d->r);
	if (!d->r.bad && !mw_spf_result_parse(word, &((struct mw_spf *)rec)->result))
		d->r.bad = true;
}

#define ROW(k, t, member)                                                                \
	.key = (k), .type = MW_FIELD_##t, .at = offsetof(struct mw_spf, member)
static const struct mw_field rows[] = {
    {ROW("ref", BYTES, ref), .arg = MW_ID_LEN},
    {ROW("seq", U64, seq)},
    {ROW("res", OTHER, result), .put = put_result, .take = take_result},
    {ROW("time", INT, time_us)},
    {ROW("dur", U64, took_us)},
    {ROW("err", U32, code), .optional = true},
    {ROW("ip", STR, ip), .optional = true},
    {ROW("helo", STR, helo), .optional = true},
    {ROW("from", STR, from), .optional = true},
    {ROW("rec", STR, record), .optional = true},
    {ROW("exp", STR, explanation), .optional = true},
    {ROW("why", STR, reason), .optional = true},
    {ROW("lib", STR, library), .optional = true},
};
#undef ROW
static const struct mw_fields fields = {"verdict", rows, MW_COUNT(rows)};

int
mw_spf_encode(const struct mw_spf *s, struct mw_buf *out)
{
	return mw_fields_encode(&fields, s, out);
}

int
mw_spf_decode(const void *p, size_t n, struct mw_arena *a, struct mw_spf *ret,
              struct mw_err *err)
{
	struct mw_spf s = {.seq = 0};
	int r = mw_fields_decode(&fields, mw_str(p, n), a, &s, err);
	if (r == 0)
		*ret = s;
	return r;
}
