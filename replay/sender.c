#include "replay/sender.h"

#include "journal/base/util.h"

enum {
	ONE_BY_ONE = 64, /* look-ups, before all verdicts of a journal are gathered */
	MEMORY_PER_VERDICT = 1 << 20
};

struct mw_sender_ref {
	uint8_t id[MW_ID_LEN];
	uint64_t seq; /* of the verdict */
	struct mw_loc loc;
};

struct find {
	struct mw_store *st;
	struct mw_arena *arena;
	const uint8_t *id;
	struct mw_spf *ret;
	int found;
};

static bool
decode(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
       struct mw_spf *ret)
{
	MW_BUF_AUTO meta = {0};
	return r->type == MW_TYPE_SPF && mw_record_meta(st, r, &meta, NULL) == 0 &&
	       mw_spf_decode(meta.p, meta.n, a, ret, NULL) == 0;
}

static int
consider(void *arg, const struct mw_record *r)
{
	struct find *f = arg;
	struct mw_spf s;
	if (!decode(f->st, r, f->arena, &s))
		return 0;
	if (memcmp(s.ref, f->id, MW_ID_LEN) == 0) {
		*f->ret = s;
		f->found = 1;
	}
	return 0;
}

int
mw_sender_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
               struct mw_spf *ret)
{
	struct find f = {.st = st, .arena = a, .id = id, .ret = ret};
	struct mw_str key = mw_str((const char *)id, 6);
	if (mw_store_find(st, MW_KEY_ID, key, consider, &f, NULL) < 0)
		return 0; /* the mail itself is shown all the same */
	return f.found;
}

static void
set(json_t *o, const char *key, struct mw_str s)
{
	if (s.n)
		(void)json_object_set_new(o, key, mw_json_str(s));
}

json_t *
mw_sender_json(const struct mw_spf *s)
{
	char time[32];
	json_t *o = json_object();
	if (!o)
		return NULL;
	mw_time_rfc3339(time, sizeof time, s->time_us);
	set(o, "result", mw_strz(mw_spf_result_name(s->result)));
	set(o, "ip", s->ip);
	set(o, "helo", s->helo);
	set(o, "from", s->from);
	set(o, "record", s->record);
	set(o, "explanation", s->explanation);
	set(o, "reason", s->reason);
	set(o, "library", s->library);
	if (s->code)
		(void)json_object_set_new(o, "code", json_integer(s->code));
	(void)json_object_set_new(o, "time", json_string(time));
	(void)json_object_set_new(o, "duration_ms",
	                          json_integer((json_int_t)(s->took_us / 1000)));
	return o;
}

json_t *
mw_sender_add(json_t *o, const struct mw_spf *s)
{
	if (o)
		(void)json_object_set_new(o, "spf", mw_sender_json(s));
	return o;
}

/* ---- many ---- */

static int
any(void *arg, const struct mw_record *r)
{
	bool *some = arg;
	*some = *some || r->type == MW_TYPE_SPF;
	return *some;
}

struct gather {
	struct mw_senders *b;
	struct mw_arena *arena;
	bool failed;
};

static int
gather(void *arg, const struct mw_record *r)
{
	struct gather *g = arg;
	struct mw_senders *b = g->b;
	struct mw_spf s;
	mw_arena_reset(g->arena);
	if (!decode(b->store, r, g->arena, &s))
		return 0;
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 1024;
		struct mw_sender_ref *v = reallocarray(b->v, cap, sizeof *v);
		if (!v) {
			g->failed = true;
			return 1;
		}
		b->v = v;
		b->cap = cap;
	}
	struct mw_sender_ref *ref = &b->v[b->n++];
	memcpy(ref->id, s.ref, MW_ID_LEN);
	ref->seq = r->seq;
	ref->loc = r->loc;
	return 0;
}

static int
by_id(const void *a, const void *b)
{
	const struct mw_sender_ref *x = a, *y = b;
	int d = memcmp(x->id, y->id, MW_ID_LEN);
	return d ? d : x->seq < y->seq ? -1 : x->seq > y->seq;
}

static struct mw_str
spf_type(void)
{
	static const char type = MW_TYPE_SPF;
	return mw_str(&type, 1);
}

static bool
map(struct mw_senders *b)
{
	MW_ARENA_AUTO *a = mw_arena_new(MEMORY_PER_VERDICT);
	struct gather g = {.b = b, .arena = a};
	if (!a ||
	    mw_store_find(b->store, MW_KEY_TYPE, spf_type(), gather, &g, NULL) < 0 ||
	    g.failed)
		return false;
	if (b->n)
		qsort(b->v, b->n, sizeof *b->v, by_id);
	return b->mapped = true;
}

/* The newest of a mail. */
static const struct mw_sender_ref *
mapped(const struct mw_senders *b, const uint8_t id[MW_ID_LEN])
{
	size_t from = 0, to = b->n;
	while (from < to) { /* the first behind all of that ID */
		size_t mid = from + (to - from) / 2;
		if (memcmp(b->v[mid].id, id, MW_ID_LEN) <= 0)
			from = mid + 1;
		else
			to = mid;
	}
	if (from == 0 || memcmp(b->v[from - 1].id, id, MW_ID_LEN) != 0)
		return NULL;
	return &b->v[from - 1];
}

int
mw_senders_find(struct mw_senders *b, struct mw_store *st, const uint8_t id[MW_ID_LEN],
                struct mw_arena *a, struct mw_spf *ret)
{
	if (b->store != st) {
		bool some = false;
		mw_senders_done(b);
		b->store = st;
		(void)!mw_store_find(st, MW_KEY_TYPE, spf_type(), any, &some, NULL);
		b->none = !some;
	}
	if (b->none)
		return 0;
	if (!b->mapped && (b->asked++ < ONE_BY_ONE || !map(b)))
		return mw_sender_find(st, id, a, ret);
	const struct mw_sender_ref *ref = mapped(b, id);
	struct mw_record r;
	return ref && mw_store_get(st, ref->loc, &r, NULL) == 0 && decode(st, &r, a, ret);
}

void
mw_senders_done(struct mw_senders *b)
{
	free(b->v);
	memset(b, 0, sizeof *b);
}
