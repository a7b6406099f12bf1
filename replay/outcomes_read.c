/* outcomes_read.c - outcomes as the journal has them, and the records they are about. */
#include "replay/outcomes.h"

#include "journal/base/util.h"
#include "journal/store/later.h"

enum {
	ID_TOKEN = 6 /* bytes of an ID that are looked up */
};

struct walk {
	struct mw_store *st;
	const struct mw_gone *gone;
	struct mw_arena *arena;
	int (*cb)(void *arg, const struct mw_outcome *o);
	void *arg;
	size_t unreadable;
};

static int
on_record(void *arg, const struct mw_record *r)
{
	struct walk *w = arg;
	MW_BUF_AUTO cbor = {0};
	struct mw_outcomes o;
	struct mw_err err = {0};
	if (r->type != MW_TYPE_OUTCOME || mw_gone_record(w->gone, r->seq))
		return 0;
	mw_arena_reset(w->arena);
	if (mw_record_meta(w->st, r, &cbor, &err) < 0 ||
	    mw_outcomes_decode(cbor.p, cbor.n, w->arena, &o, &err) < 0) {
		w->unreadable++;
		return 0;
	}
	for (size_t i = 0; i < o.n; i++) {
		int e = w->cb(w->arg, &o.v[i]);
		if (e)
			return e;
	}
	return 0;
}

static int
walk(struct walk *w, enum mw_key key, struct mw_str value, struct mw_err *err)
{
	MW_GONE_AUTO *own = NULL;
	int r = w->gone ? 0 : mw_gone_load(w->st, &own, err);
	if (r < 0)
		return r;
	if (own)
		w->gone = own;
	w->arena = mw_arena_new(64U << 20);
	if (!w->arena)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = mw_store_find(w->st, key, value, on_record, w, err);
	mw_arena_free(w->arena);
	return r;
}

int
mw_outcomes_about(struct mw_store *st, const struct mw_gone *gone,
                  const uint8_t id[MW_ID_LEN],
                  int (*cb)(void *, const struct mw_outcome *), void *arg,
                  struct mw_err *err)
{
	struct walk w = {.st = st, .gone = gone, .cb = cb, .arg = arg};
	return walk(&w, MW_KEY_ID, mw_str((const char *)id, ID_TOKEN), err);
}

int
mw_outcomes_walk(struct mw_store *st, int (*cb)(void *, const struct mw_outcome *),
                 void *arg, size_t *ret_unreadable, struct mw_err *err)
{
	struct walk w = {.st = st, .cb = cb, .arg = arg};
	char type = MW_TYPE_OUTCOME;
	int r = walk(&w, MW_KEY_TYPE, mw_str(&type, 1), err);
	if (ret_unreadable)
		*ret_unreadable = w.unreadable;
	return r;
}

struct newest {
	int64_t from, to;
	struct mw_record rec;
	bool found;
};

static int
on_candidate(void *arg, const struct mw_record *r)
{
	struct newest *n = arg;
	if (r->type != MW_TYPE_MAIL || r->time_us < n->from || r->time_us > n->to)
		return 0;
	n->rec = *r;
	n->found = true;
	return 0;
}

int
mw_outcomes_record(struct mw_store *st, struct mw_str queue_id, int64_t not_before_us,
                   int64_t time_us, struct mw_record *ret, struct mw_err *err)
{
	struct newest n = {.from = not_before_us, .to = time_us};
	int r = mw_store_find(st, MW_KEY_QUEUE_ID, queue_id, on_candidate, &n, err);
	if (r < 0)
		return r;
	*ret = n.rec;
	return n.found;
}

int
mw_outcomes_again(struct mw_store *st, const struct mw_record *a, struct mw_str a_queue,
                  const struct mw_record *b, struct mw_err *err)
{
	uint8_t own[2][8];
	MW_BUF_AUTO x = {0};
	MW_BUF_AUTO y = {0};
	mw_store_token(st, MW_KEY_ID, mw_str((const char *)a->id, ID_TOKEN), own[0]);
	mw_store_token(st, MW_KEY_QUEUE_ID, a_queue, own[1]);
	int r = mw_record_tokens(st, a, &x, err);
	if (r >= 0)
		r = mw_later_tokens(st, b, &y, err);
	if (r < 0)
		return r;
	size_t n = 0;
	for (size_t i = 0; i + 8 <= x.n; i += 8) {
		bool there =
		    memcmp(x.p + i, own[0], 8) == 0 || memcmp(x.p + i, own[1], 8) == 0;
		n += !there;
		for (size_t k = 0; !there && k + 8 <= y.n; k += 8)
			there = memcmp(x.p + i, y.p + k, 8) == 0;
		if (!there)
			return 0;
	}
	return n > 0;
}
