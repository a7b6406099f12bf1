#include "journal/record/fields.h"

#include "journal/base/util.h"

#include <string.h>

/* ---- writing ---- */

static const void *
member(const void *rec, size_t at)
{
	return (const char *)rec + at;
}

static size_t
count_of(const struct mw_field *f, const void *rec)
{
	return *(const size_t *)member(rec, f->count);
}

static bool
is_absent(const struct mw_field *f, const void *rec)
{
	const void *p = member(rec, f->at);
	switch (f->type) {
	case MW_FIELD_INT:
		return *(const int64_t *)p == f->none;
	case MW_FIELD_U64:
		return *(const uint64_t *)p == 0;
	case MW_FIELD_U32:
		return *(const uint32_t *)p == 0;
	case MW_FIELD_BOOL:
		return !*(const bool *)p;
	case MW_FIELD_ENUM:
		return *(const int *)p == f->none;
	case MW_FIELD_STR:
		return ((const struct mw_str *)p)->n == 0;
	case MW_FIELD_STRS:
	case MW_FIELD_CELLS:
		return count_of(f, rec) == 0;
	case MW_FIELD_OTHER:
		return !f->given(rec);
	case MW_FIELD_BYTES:
		break;
	}
	return false;
}

static void
put_strs(const struct mw_str *v, size_t n, struct mw_buf *out)
{
	mw_cbor_put_array(out, n);
	for (size_t i = 0; i < n; i++)
		mw_cbor_put_bytes(out, v[i]);
}

static void
put_cells(const void *at, size_t size, size_t n, struct mw_buf *out)
{
	const char *cell;
	memcpy(&cell, at, sizeof cell); /* a pointer of another type stands there */
	mw_cbor_put_array(out, n);
	for (size_t i = 0; i < n; i++)
		mw_cbor_put_bytes(out, mw_str(cell + i * size, size));
}

static void
put_value(const struct mw_field *f, const void *rec, struct mw_buf *out)
{
	const void *p = member(rec, f->at);
	switch (f->type) {
	case MW_FIELD_INT:
		mw_cbor_put_int(out, *(const int64_t *)p);
		break;
	case MW_FIELD_U64:
		mw_cbor_put_uint(out, *(const uint64_t *)p);
		break;
	case MW_FIELD_U32:
		mw_cbor_put_uint(out, *(const uint32_t *)p);
		break;
	case MW_FIELD_BOOL:
		mw_cbor_put_uint(out, *(const bool *)p);
		break;
	case MW_FIELD_ENUM:
		mw_cbor_put_uint(out, (uint64_t) * (const int *)p);
		break;
	case MW_FIELD_STR:
		mw_cbor_put_bytes(out, *(const struct mw_str *)p);
		break;
	case MW_FIELD_STRS:
		put_strs(*(struct mw_str *const *)p, count_of(f, rec), out);
		break;
	case MW_FIELD_BYTES:
		mw_cbor_put_bytes(out, mw_str(p, f->arg));
		break;
	case MW_FIELD_CELLS:
		put_cells(p, f->arg, count_of(f, rec), out);
		break;
	case MW_FIELD_OTHER:
		f->put(rec, out);
		break;
	}
}

void
mw_fields_put(const struct mw_fields *f, const void *rec, struct mw_buf *out)
{
	size_t n = 0;
	for (size_t i = 0; i < f->n; i++)
		n += !(f->row[i].optional && is_absent(&f->row[i], rec));
	mw_cbor_put_map(out, n);
	for (size_t i = 0; i < f->n; i++) {
		if (f->row[i].optional && is_absent(&f->row[i], rec))
			continue;
		mw_cbor_put_text(out, f->row[i].key);
		put_value(&f->row[i], rec, out);
	}
}

int
mw_fields_encode(const struct mw_fields *f, const void *rec, struct mw_buf *out)
{
	mw_fields_put(f, rec, out);
	return mw_buf_ok(out);
}

/* ---- reading ---- */

static void *
no_memory(struct mw_fields_rd *d)
{
	d->nomem = d->r.bad = true;
	return NULL;
}

struct mw_str
mw_fields_str(struct mw_fields_rd *d)
{
	struct mw_str s = mw_cbor_bytes(&d->r);
	if (d->r.bad)
		return MW_STR("");
	if (d->here)
		return s;
	struct mw_str c = mw_arena_str(d->a, s);
	if (!c.p)
		(void)no_memory(d);
	return c;
}

void *
mw_fields_array(struct mw_fields_rd *d, size_t each, size_t size, size_t *ret_n)
{
	size_t n = mw_cbor_array(&d->r); /* no more than bytes are left */
	*ret_n = 0;
	if (n % each)
		d->r.bad = true;
	if (d->r.bad || n == 0)
		return NULL;
	void *p = mw_arena_alloc(d->a, n / each * size);
	if (!p)
		return no_memory(d);
	*ret_n = n / each;
	return p;
}

void
mw_fields_bytes(struct mw_fields_rd *d, void *to, size_t n)
{
	struct mw_str s = mw_cbor_bytes(&d->r);
	if (!d->r.bad && s.n == n)
		memcpy(to, s.p, n);
	else
		d->r.bad = true;
}

size_t
mw_fields_tuple(struct mw_fields_rd *d, size_t least)
{
	size_t n = mw_cbor_array(&d->r);
	if (n >= least)
		return n - least;
	d->r.bad = true;
	return 0;
}

void
mw_fields_skip(struct mw_fields_rd *d, size_t n)
{
	for (; n && !d->r.bad; n--) {
		struct mw_cbor_item it = mw_cbor_next(&d->r);
		mw_cbor_skip(&d->r, &it);
	}
}

static void
take_enum(struct mw_fields_rd *d, const struct mw_field *f, int *to)
{
	uint64_t v = mw_cbor_uint(&d->r);
	if (v > f->arg && f->other < 0)
		d->r.bad = true;
	else
		*to = v > f->arg ? f->other : (int)v;
}

static void
take_strs(struct mw_fields_rd *d, struct mw_str **to, size_t *ret_n)
{
	size_t n;
	struct mw_str *v = mw_fields_array(d, 1, sizeof *v, &n);
	for (size_t i = 0; i < n && !d->r.bad; i++)
		v[i] = mw_fields_str(d);
	*to = v;
	*ret_n = n;
}

static void
take_cells(struct mw_fields_rd *d, size_t size, void *to, size_t *ret_n)
{
	size_t n;
	char *v = mw_fields_array(d, 1, size, &n);
	for (size_t i = 0; i < n && !d->r.bad; i++)
		mw_fields_bytes(d, v + i * size, size);
	memcpy(to, &v, sizeof v); /* a pointer of another type stands there */
	*ret_n = n;
}

static void
take_value(struct mw_fields_rd *d, const struct mw_field *f, void *rec)
{
	void *p = (char *)rec + f->at, *count = (char *)rec + f->count;
	switch (f->type) {
	case MW_FIELD_INT:
		*(int64_t *)p = mw_cbor_int(&d->r);
		break;
	case MW_FIELD_U64:
		*(uint64_t *)p = mw_cbor_uint(&d->r);
		break;
	case MW_FIELD_U32:
		*(uint32_t *)p = (uint32_t)mw_cbor_uint(&d->r) &
		                 (f->arg ? (uint32_t)f->arg : UINT32_MAX);
		break;
	case MW_FIELD_BOOL:
		*(bool *)p = mw_cbor_uint(&d->r) != 0;
		break;
	case MW_FIELD_ENUM:
		take_enum(d, f, p);
		break;
	case MW_FIELD_STR:
		*(struct mw_str *)p = mw_fields_str(d);
		break;
	case MW_FIELD_STRS:
		take_strs(d, p, count);
		break;
	case MW_FIELD_BYTES:
		mw_fields_bytes(d, p, f->arg);
		break;
	case MW_FIELD_CELLS:
		take_cells(d, f->arg, p, count);
		break;
	case MW_FIELD_OTHER:
		f->take(d, rec);
		break;
	}
}

/* Rows' keys are short, and most differ in their first byte. */
static bool
is_key(const char *z, struct mw_str key)
{
	size_t i = 0;
	while (i < key.n && z[i] && z[i] == key.p[i])
		i++;
	return i == key.n && !z[i];
}

/* The row of a key, f->n if it has none; looked for from the row `next` on, since keys
 * are written in that order. */
static size_t
row_of(const struct mw_fields *f, struct mw_str key, size_t next)
{
	if (key.n == 0)
		return f->n;
	for (size_t i = 0; i < f->n; i++) {
		size_t k = next + i < f->n ? next + i : next + i - f->n;
		if (is_key(f->row[k].key, key))
			return k;
	}
	return f->n;
}

void
mw_fields_take(const struct mw_fields *f, struct mw_fields_rd *d, void *rec)
{
	uint64_t seen = 0;
	size_t next = 0;
	size_t pairs = mw_cbor_map(&d->r);
	for (size_t i = 0; i < pairs && !d->r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d->r);
		if (d->r.bad)
			return;
		size_t k = row_of(f, key, next);
		if (k < f->n) {
			take_value(d, &f->row[k], rec);
			seen |= UINT64_C(1) << k;
			next = k + 1;
		} else if (key.n && key.p[0] == '!') {
			d->feature = key;
			d->r.bad = true;
		} else {
			mw_fields_skip(d, 1);
		}
	}
	for (size_t k = 0; k < f->n; k++)
		if (f->row[k].required && !(seen >> k & 1))
			d->r.bad = true;
}

static int
decode(const struct mw_fields *f, struct mw_str in, struct mw_arena *a, bool here,
       void *rec, struct mw_err *err)
{
	struct mw_fields_rd d = {.r = {(const uint8_t *)in.p, in.n, 0, false},
	                         .a = a,
	                         .here = here};
	mw_fields_take(f, &d, rec);
	if (d.nomem)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading %s", f->what);
	if (d.feature.n) {
		(void)mw_fail(err, MW_EVERSION, "%s: it needs the feature '%.*s'",
		              f->what, (int)MW_MIN(d.feature.n, 40), d.feature.p);
		(void)mw_err_hint(err, "read it with a newer mailwal");
		return MW_EVERSION;
	}
	if (d.r.bad || d.r.at != in.n)
		return mw_fail(err, MW_EFORMAT, "malformed %s at byte %zu", f->what,
		               d.r.at);
	return 0;
}

int
mw_fields_decode(const struct mw_fields *f, struct mw_str in, struct mw_arena *a,
                 void *rec, struct mw_err *err)
{
	return decode(f, in, a, false, rec, err);
}

int
mw_fields_decode_here(const struct mw_fields *f, struct mw_str in, struct mw_arena *a,
                      void *rec, struct mw_err *err)
{
	return decode(f, in, a, true, rec, err);
}
