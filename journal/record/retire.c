#include "journal/record/retire.h"

#include "journal/base/util.h"
#include "journal/record/cbor.h"

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

static void *
get_room(struct dec *d, size_t n, size_t each)
{
	void *p = mw_arena_alloc(d->a, (n + 1) * each);
	if (!p)
		d->nomem = d->r.bad = true;
	return p;
}

/* An unknown key: skip its value, or refuse the record (I12). */
static int
unknown(struct dec *d, struct mw_str key, struct mw_err *err)
{
	if (key.n && key.p[0] == '!') {
		(void)mw_fail(err, MW_EVERSION, "the record needs the feature '%.*s'",
		              (int)MW_MIN(key.n, 40), key.p);
		(void)mw_err_hint(err, "read it with a newer mailwal");
		return MW_EVERSION;
	}
	struct mw_cbor_item it = mw_cbor_next(&d->r);
	mw_cbor_skip(&d->r, &it);
	return 0;
}

/* Walks the pairs of the one map; take reads the value of a key it knows. */
static int
each_key(struct dec *d, void *arg,
         bool (*take)(struct dec *d, struct mw_str key, void *arg), const char *what,
         struct mw_err *err)
{
	size_t pairs = mw_cbor_map(&d->r);
	for (size_t i = 0; i < pairs && !d->r.bad; i++) {
		struct mw_str key = mw_cbor_bytes(&d->r);
		if (d->r.bad)
			break;
		if (take(d, key, arg))
			continue;
		int r = unknown(d, key, err);
		if (r < 0)
			return r;
	}
	if (d->nomem)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading %s", what);
	if (d->r.bad || d->r.at != d->r.n)
		return mw_fail(err, MW_EFORMAT, "malformed %s at byte %zu", what,
		               d->r.at);
	return 0;
}

/* ---- holds ---- */

struct list_row {
	const char *key;
	size_t list, count;
};

#define LIST(key, member)                                                                \
	{                                                                                \
		key, offsetof(struct mw_hold, member),                                   \
		    offsetof(struct mw_hold, n_##member)                                 \
	}
static const struct list_row lists[] = {
    LIST("user", user),      LIST("domain", domain), LIST("sender", sender),
    LIST("mid", message_id), LIST("qid", queue_id),
};
#undef LIST

static const struct mw_str *
list_of(const struct mw_hold *h, const struct list_row *row, size_t *ret_n)
{
	const char *base = (const char *)h;
	*ret_n = *(const size_t *)(const void *)(base + row->count);
	return *(struct mw_str *const *)(const void *)(base + row->list);
}

int
mw_hold_encode(const struct mw_hold *h, struct mw_buf *out)
{
	size_t pairs = 4, n;
	for (size_t i = 0; i < MW_COUNT(lists); i++)
		pairs += list_of(h, &lists[i], &n) && n;
	pairs += h->since_us != INT64_MIN;
	pairs += h->until_us != INT64_MAX;
	pairs += h->direction >= 0;
	pairs += h->larger != 0;
	pairs += h->smaller != 0;
	mw_cbor_put_map(out, pairs);
	mw_cbor_put_text(out, "name");
	mw_cbor_put_bytes(out, h->name);
	mw_cbor_put_text(out, "op");
	mw_cbor_put_uint(out, h->released);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, h->time_us);
	mw_cbor_put_text(out, "by");
	mw_cbor_put_bytes(out, h->by);
	for (size_t i = 0; i < MW_COUNT(lists); i++) {
		const struct mw_str *v = list_of(h, &lists[i], &n);
		if (!n)
			continue;
		mw_cbor_put_text(out, lists[i].key);
		mw_cbor_put_array(out, n);
		for (size_t k = 0; k < n; k++)
			mw_cbor_put_bytes(out, v[k]);
	}
	if (h->since_us != INT64_MIN) {
		mw_cbor_put_text(out, "since");
		mw_cbor_put_int(out, h->since_us);
	}
	if (h->until_us != INT64_MAX) {
		mw_cbor_put_text(out, "until");
		mw_cbor_put_int(out, h->until_us);
	}
	if (h->direction >= 0) {
		mw_cbor_put_text(out, "dir");
		mw_cbor_put_uint(out, (uint64_t)h->direction);
	}
	if (h->larger) {
		mw_cbor_put_text(out, "larger");
		mw_cbor_put_uint(out, h->larger);
	}
	if (h->smaller) {
		mw_cbor_put_text(out, "smaller");
		mw_cbor_put_uint(out, h->smaller);
	}
	return mw_buf_ok(out);
}

static bool
take_list(struct dec *d, struct mw_str key, struct mw_hold *h)
{
	for (size_t i = 0; i < MW_COUNT(lists); i++) {
		if (!mw_str_eq(key, mw_strz(lists[i].key)))
			continue;
		char *base = (char *)h;
		size_t n = mw_cbor_array(&d->r);
		struct mw_str *v =
		    d->r.bad ? NULL : get_room(d, n, sizeof(struct mw_str));
		for (size_t k = 0; v && k < n && !d->r.bad; k++)
			v[k] = get_str(d);
		*(struct mw_str **)(void *)(base + lists[i].list) = v;
		*(size_t *)(void *)(base + lists[i].count) = v ? n : 0;
		return true;
	}
	return false;
}

static bool
take_hold(struct dec *d, struct mw_str key, void *arg)
{
	struct mw_hold *h = arg;
	if (mw_str_eq(key, MW_STR("name")))
		h->name = get_str(d);
	else if (mw_str_eq(key, MW_STR("op")))
		h->released = mw_cbor_uint(&d->r) != 0;
	else if (mw_str_eq(key, MW_STR("time")))
		h->time_us = mw_cbor_int(&d->r);
	else if (mw_str_eq(key, MW_STR("by")))
		h->by = get_str(d);
	else if (mw_str_eq(key, MW_STR("since")))
		h->since_us = mw_cbor_int(&d->r);
	else if (mw_str_eq(key, MW_STR("until")))
		h->until_us = mw_cbor_int(&d->r);
	else if (mw_str_eq(key, MW_STR("dir")))
		h->direction = (int)(mw_cbor_uint(&d->r) & 0xff);
	else if (mw_str_eq(key, MW_STR("larger")))
		h->larger = mw_cbor_uint(&d->r);
	else if (mw_str_eq(key, MW_STR("smaller")))
		h->smaller = mw_cbor_uint(&d->r);
	else
		return take_list(d, key, h);
	return true;
}

int
mw_hold_decode(const void *p, size_t n, struct mw_arena *a, struct mw_hold *ret,
               struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_hold h = {.since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1};
	int r = each_key(&d, &h, take_hold, "hold", err);
	if (r == 0)
		*ret = h;
	return r;
}

/* ---- tombstones ---- */

int
mw_tombstone_encode(const struct mw_tombstone *t, struct mw_buf *out)
{
	uint64_t records = 0;
	for (size_t i = 0; i < t->n_range; i++)
		records += t->range[i].last - t->range[i].first + 1;
	mw_cbor_put_map(out, t->n_token ? 6 : 5);
	mw_cbor_put_text(out, "why");
	mw_cbor_put_uint(out, (uint64_t)t->why);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, t->time_us);
	mw_cbor_put_text(out, "by");
	mw_cbor_put_bytes(out, t->by);
	mw_cbor_put_text(out, "n");
	mw_cbor_put_uint(out, records);
	mw_cbor_put_text(out, "seqs");
	mw_cbor_put_array(out, 2 * t->n_range);
	for (size_t i = 0; i < t->n_range; i++) {
		mw_cbor_put_uint(out, t->range[i].first);
		mw_cbor_put_uint(out, t->range[i].last - t->range[i].first + 1);
	}
	if (t->n_token) {
		mw_cbor_put_text(out, "tok");
		mw_cbor_put_array(out, t->n_token);
		for (size_t i = 0; i < t->n_token; i++)
			mw_cbor_put_bytes(out, mw_str((const char *)t->token[i],
			                              MW_RETIRE_TOKEN));
	}
	return mw_buf_ok(out);
}

static void
take_ranges(struct dec *d, struct mw_tombstone *t)
{
	size_t n = mw_cbor_array(&d->r);
	if (d->r.bad || n % 2) {
		d->r.bad = true;
		return;
	}
	struct mw_seq_range *v = get_room(d, n / 2, sizeof *v);
	uint64_t after = 0;
	for (size_t i = 0; v && i < n / 2 && !d->r.bad; i++) {
		uint64_t first = mw_cbor_uint(&d->r), count = mw_cbor_uint(&d->r);
		if (first < after || count == 0 || first + count < first)
			d->r.bad = true;
		v[i] = (struct mw_seq_range){first, first + count - 1};
		after = first + count;
	}
	t->range = v;
	t->n_range = v ? n / 2 : 0;
}

static void
take_tokens(struct dec *d, struct mw_tombstone *t)
{
	size_t n = mw_cbor_array(&d->r);
	if (d->r.bad)
		return;
	t->token = get_room(d, n, MW_RETIRE_TOKEN);
	for (size_t i = 0; t->token && i < n && !d->r.bad; i++) {
		struct mw_str s = mw_cbor_bytes(&d->r);
		if (d->r.bad || s.n != MW_RETIRE_TOKEN)
			d->r.bad = true;
		else
			memcpy(t->token[i], s.p, MW_RETIRE_TOKEN);
	}
	t->n_token = t->token ? n : 0;
}

static bool
take_tombstone(struct dec *d, struct mw_str key, void *arg)
{
	struct mw_tombstone *t = arg;
	if (mw_str_eq(key, MW_STR("why")))
		t->why = mw_cbor_uint(&d->r) ? MW_TOMB_ERASURE : MW_TOMB_RETENTION;
	else if (mw_str_eq(key, MW_STR("time")))
		t->time_us = mw_cbor_int(&d->r);
	else if (mw_str_eq(key, MW_STR("by")))
		t->by = get_str(d);
	else if (mw_str_eq(key, MW_STR("n")))
		(void)mw_cbor_uint(&d->r); /* for people; the ranges count */
	else if (mw_str_eq(key, MW_STR("seqs")))
		take_ranges(d, t);
	else if (mw_str_eq(key, MW_STR("tok")))
		take_tokens(d, t);
	else
		return false;
	return true;
}

int
mw_tombstone_decode(const void *p, size_t n, struct mw_arena *a, struct mw_tombstone *ret,
                    struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_tombstone t = {.why = MW_TOMB_RETENTION};
	int r = each_key(&d, &t, take_tombstone, "tombstone", err);
	if (r == 0)
		*ret = t;
	return r;
}

/* ---- audits ---- */

int
mw_audit_encode(const struct mw_audit *x, struct mw_buf *out)
{
	mw_cbor_put_map(out, 7);
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, x->time_us);
	mw_cbor_put_text(out, "by");
	mw_cbor_put_bytes(out, x->by);
	mw_cbor_put_text(out, "records");
	mw_cbor_put_uint(out, x->records);
	mw_cbor_put_text(out, "bytes");
	mw_cbor_put_uint(out, x->bytes);
	mw_cbor_put_text(out, "segs");
	mw_cbor_put_uint(out, x->segments);
	mw_cbor_put_text(out, "freed");
	mw_cbor_put_uint(out, x->freed);
	mw_cbor_put_text(out, "gone");
	mw_cbor_put_array(out, x->n_gone);
	for (size_t i = 0; i < x->n_gone; i++) {
		const struct mw_gone_segs *g = &x->gone[i];
		mw_cbor_put_array(out, 7);
		mw_cbor_put_uint(out, g->first_seg);
		mw_cbor_put_uint(out, g->last_seg);
		mw_cbor_put_uint(out, g->first_seq);
		mw_cbor_put_uint(out, g->last_seq);
		mw_cbor_put_bytes(out, mw_str((const char *)g->chain, sizeof g->chain));
		mw_cbor_put_int(out, g->clock_us);
		mw_cbor_put_int(out, g->took_us);
	}
	return mw_buf_ok(out);
}

static void
take_gone_one(struct dec *d, struct mw_gone_segs *g)
{
	size_t n = mw_cbor_array(&d->r);
	if (n < 7) {
		d->r.bad = true;
		return;
	}
	g->first_seg = mw_cbor_uint(&d->r);
	g->last_seg = mw_cbor_uint(&d->r);
	g->first_seq = mw_cbor_uint(&d->r);
	g->last_seq = mw_cbor_uint(&d->r);
	struct mw_str s = mw_cbor_bytes(&d->r);
	if (d->r.bad || s.n != sizeof g->chain || g->last_seg < g->first_seg ||
	    g->last_seq < g->first_seq)
		d->r.bad = true;
	else
		memcpy(g->chain, s.p, sizeof g->chain);
	g->clock_us = mw_cbor_int(&d->r);
	g->took_us = mw_cbor_int(&d->r);
	for (; n > 7 && !d->r.bad; n--) { /* members of later versions */
		struct mw_cbor_item it = mw_cbor_next(&d->r);
		mw_cbor_skip(&d->r, &it);
	}
}

static bool
take_audit(struct dec *d, struct mw_str key, void *arg)
{
	struct mw_audit *x = arg;
	if (mw_str_eq(key, MW_STR("time"))) {
		x->time_us = mw_cbor_int(&d->r);
	} else if (mw_str_eq(key, MW_STR("by"))) {
		x->by = get_str(d);
	} else if (mw_str_eq(key, MW_STR("records"))) {
		x->records = mw_cbor_uint(&d->r);
	} else if (mw_str_eq(key, MW_STR("bytes"))) {
		x->bytes = mw_cbor_uint(&d->r);
	} else if (mw_str_eq(key, MW_STR("segs"))) {
		x->segments = mw_cbor_uint(&d->r);
	} else if (mw_str_eq(key, MW_STR("freed"))) {
		x->freed = mw_cbor_uint(&d->r);
	} else if (mw_str_eq(key, MW_STR("gone"))) {
		size_t n = mw_cbor_array(&d->r);
		x->gone = d->r.bad ? NULL : get_room(d, n, sizeof *x->gone);
		x->n_gone = x->gone ? n : 0;
		for (size_t i = 0; i < x->n_gone && !d->r.bad; i++)
			take_gone_one(d, &x->gone[i]);
	} else {
		return false;
	}
	return true;
}

int
mw_audit_decode(const void *p, size_t n, struct mw_arena *a, struct mw_audit *ret,
                struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_audit x = {.time_us = 0};
	int r = each_key(&d, &x, take_audit, "audit record", err);
	if (r == 0)
		*ret = x;
	return r;
}

/* ---- restores ---- */

struct restore_row {
	const char *key;
	size_t at;
};

static const struct restore_row restore_text[] = {
    {"by", offsetof(struct mw_restore, by)},
    {"user", offsetof(struct mw_restore, user)},
    {"to", offsetof(struct mw_restore, target)},
    {"folder", offsetof(struct mw_restore, folder)},
    {"run", offsetof(struct mw_restore, run)},
};
static const struct restore_row restore_count[] = {
    {"selected", offsetof(struct mw_restore, selected)},
    {"restored", offsetof(struct mw_restore, restored)},
    {"present", offsetof(struct mw_restore, present)},
    {"failed", offsetof(struct mw_restore, failed)},
};

int
mw_restore_encode(const struct mw_restore *x, struct mw_buf *out)
{
	const char *base = (const char *)x;
	mw_cbor_put_map(out, 3 + MW_COUNT(restore_text) + MW_COUNT(restore_count));
	mw_cbor_put_text(out, "time");
	mw_cbor_put_int(out, x->time_us);
	mw_cbor_put_text(out, "phase");
	mw_cbor_put_uint(out, x->ended);
	for (size_t i = 0; i < MW_COUNT(restore_text); i++) {
		const void *s = base + restore_text[i].at;
		mw_cbor_put_text(out, restore_text[i].key);
		mw_cbor_put_bytes(out, *(const struct mw_str *)s);
	}
	for (size_t i = 0; i < MW_COUNT(restore_count); i++) {
		const void *v = base + restore_count[i].at;
		mw_cbor_put_text(out, restore_count[i].key);
		mw_cbor_put_uint(out, *(const uint64_t *)v);
	}
	mw_cbor_put_text(out, "ids");
	mw_cbor_put_array(out, x->n_id);
	for (size_t i = 0; i < x->n_id; i++)
		mw_cbor_put_bytes(out, mw_str((const char *)x->id[i], MW_ID_LEN));
	return mw_buf_ok(out);
}

static void
take_ids(struct dec *d, struct mw_restore *x)
{
	size_t n = mw_cbor_array(&d->r);
	if (d->r.bad)
		return;
	x->id = get_room(d, n, MW_ID_LEN);
	for (size_t i = 0; x->id && i < n && !d->r.bad; i++) {
		struct mw_str s = mw_cbor_bytes(&d->r);
		if (d->r.bad || s.n != MW_ID_LEN)
			d->r.bad = true;
		else
			memcpy(x->id[i], s.p, MW_ID_LEN);
	}
	x->n_id = x->id ? n : 0;
}

static bool
take_restore(struct dec *d, struct mw_str key, void *arg)
{
	struct mw_restore *x = arg;
	char *base = arg;
	for (size_t i = 0; i < MW_COUNT(restore_text); i++) {
		if (mw_str_eq(key, mw_strz(restore_text[i].key))) {
			void *s = base + restore_text[i].at;
			*(struct mw_str *)s = get_str(d);
			return true;
		}
	}
	for (size_t i = 0; i < MW_COUNT(restore_count); i++) {
		if (mw_str_eq(key, mw_strz(restore_count[i].key))) {
			void *v = base + restore_count[i].at;
			*(uint64_t *)v = mw_cbor_uint(&d->r);
			return true;
		}
	}
	if (mw_str_eq(key, MW_STR("time")))
		x->time_us = mw_cbor_int(&d->r);
	else if (mw_str_eq(key, MW_STR("phase")))
		x->ended = mw_cbor_uint(&d->r) != 0;
	else if (mw_str_eq(key, MW_STR("ids")))
		take_ids(d, x);
	else
		return false;
	return true;
}

int
mw_restore_decode(const void *p, size_t n, struct mw_arena *a, struct mw_restore *ret,
                  struct mw_err *err)
{
	struct dec d = {.r = {p, n, 0, false}, .a = a};
	struct mw_restore x = {.time_us = 0};
	int r = each_key(&d, &x, take_restore, "restore record", err);
	if (r == 0)
		*ret = x;
	return r;
}
