#include "replay/later.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	ONE_BY_ONE = 64, /* look-ups, before all of a journal are gathered */
	MEMORY_PER_RECORD = 256 << 20,
	SLACK_US = 2000000 /* to gather and to write */
};

struct mw_later_ref {
	uint8_t id[MW_ID_LEN];
	uint64_t seq; /* of the expansion */
	struct mw_loc loc;
};

struct gather {
	struct mw_laters *b;
	struct mw_store *st;
	struct mw_arena *arena;
	struct mw_err *err;
	int failed;
};

static int
gather(void *arg, const struct mw_record *r)
{
	struct gather *g = arg;
	struct mw_laters *b = g->b;
	struct mw_expansion x;
	mw_arena_reset(g->arena);
	int k = mw_later_read(g->st, r, g->arena, &x, g->err);
	if (k <= 0)
		return g->failed = k;
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 1024;
		struct mw_later_ref *v = reallocarray(b->v, cap, sizeof *v);
		if (!v)
			return g->failed = mw_fail(g->err, MW_ENOMEM, "out of memory");
		b->v = v;
		b->cap = cap;
	}
	struct mw_later_ref *ref = &b->v[b->n++];
	memcpy(ref->id, x.ref, MW_ID_LEN);
	ref->seq = r->seq;
	ref->loc = r->loc;
	return 0;
}

static int
by_id(const void *a, const void *b)
{
	const struct mw_later_ref *x = a, *y = b;
	int d = memcmp(x->id, y->id, MW_ID_LEN);
	return d ? d : x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Where one cannot be read it is not known whose it is: then each is looked up. */
static int
map(struct mw_laters *b, struct mw_store *st, struct mw_err *err)
{
	static const char type = MW_TYPE_EXPANSION;
	MW_ARENA_AUTO *a = mw_arena_new(MEMORY_PER_RECORD);
	struct mw_err why = {0};
	struct gather g = {.b = b, .st = st, .arena = a, .err = &why};
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), gather, &g, err);
	if (g.failed && g.failed != MW_ENOMEM) {
		b->n = 0;
		b->unmapped = true;
		return 0;
	}
	if (g.failed)
		return mw_fail(err, g.failed, "%s", why.msg);
	if (r < 0)
		return r;
	if (b->n)
		qsort(b->v, b->n, sizeof *b->v, by_id);
	b->mapped = true;
	return 0;
}

/* The first of a mail. */
static const struct mw_later_ref *
mapped(const struct mw_laters *b, const uint8_t id[MW_ID_LEN])
{
	size_t from = 0, to = b->n;
	while (from < to) { /* the first that is not before that ID */
		size_t mid = from + (to - from) / 2;
		if (memcmp(b->v[mid].id, id, MW_ID_LEN) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	if (from == b->n || memcmp(b->v[from].id, id, MW_ID_LEN) != 0)
		return NULL;
	return &b->v[from];
}

int
mw_laters_apply(struct mw_laters *b, struct mw_store *st, const struct mw_record *r,
                struct mw_arena *a, struct mw_mail *m, struct mw_err *err)
{
	struct mw_expansion x;
	struct mw_record rec;
	int k = 0;
	if (!mw_expansion_awaited(m))
		return mw_later_left(st, r, NULL, m, err);
	if (!b->mapped && !b->unmapped && b->asked++ >= ONE_BY_ONE)
		k = map(b, st, err);
	if (k < 0)
		return k;
	const struct mw_later_ref *ref = b->mapped ? mapped(b, r->id) : NULL;
	if (ref && mw_store_get(st, ref->loc, &rec, NULL) == 0)
		k = mw_later_read(st, &rec, a, &x, err);
	else /* it may have been written since */
		k = mw_later_find(st, r->id, a, &x, &rec, err);
	if (k == 1)
		mw_expansion_apply(&x, m);
	return k < 0 ? k : mw_later_left(st, r, k == 1 ? &rec : NULL, m, err);
}

void
mw_laters_done(struct mw_laters *b)
{
	free(b->v);
	memset(b, 0, sizeof *b);
}

int64_t
mw_later_within_us(const struct mw_conf *conf)
{
	for (size_t i = 0; i < conf->identities.n; i++) {
		struct mw_str t = mw_strz(conf->identities.v[i]);
		if (mw_str_starts(t, MW_STR("socketmap:")) ||
		    mw_str_starts(t, MW_STR("tcp:")))
			return conf->identities_timeout + SLACK_US;
	}
	return 0;
}

bool
mw_later_wait(const struct mw_conf *conf, int64_t mail_time_us, bool (*stopped)(void))
{
	const struct mw_clock *c = mw_clock_system();
	int64_t within = mw_later_within_us(conf), age;
	if (within == 0 || __builtin_sub_overflow(c->now_us(c), mail_time_us, &age) ||
	    age > within + conf->commit_timeout)
		return false;
	int64_t until = c->mono_us(c) + within;
	while (c->mono_us(c) < until && !stopped())
		(void)usleep(20000);
	return true;
}
