#include "milter/outbox.h"

#include "journal/base/log.h"
#include "journal/base/util.h"

enum {
	RECORD_MAX = 500,       /* messages in one record */
	BYTES_MAX = 512 * 1024, /* memory of what waits */
};

void
mw_outbox_init(struct mw_outbox *b, struct mw_store *store, const struct mw_clock *clock)
{
	memset(b, 0, sizeof *b);
	b->store = store;
	b->clock = clock;
	(void)pthread_mutex_init(&b->lock, NULL); /* cannot fail with NULL attributes */
}

void
mw_outbox_done(struct mw_outbox *b)
{
	mw_outbox_flush(b);
	pthread_mutex_destroy(&b->lock);
}

static void
lost(size_t n, int error)
{
	mw_log(MW_LOG_WARN, NULL, "event=outcomes_lost records=%zu error=%s", n,
	       mw_err_name(error));
}

static void
written(void *arg, const struct mw_commit *c)
{
	if (c->code < 0)
		lost(1, c->code);
	mw_entry_free(arg);
}

/* Called with the lock. */
static void
flush(struct mw_outbox *b)
{
	MW_BUF_AUTO cbor = {0};
	struct mw_entry *e = NULL;
	struct mw_outcomes all = {.time_us = b->clock->now_us(b->clock),
	                          .v = b->v,
	                          .n = b->n};
	if (b->n) {
		int r = mw_outcomes_encode(&all, &cbor);
		if (r == 0)
			r = mw_entry_new(b->store, MW_TYPE_OUTCOME, &e, NULL);
		if (r == 0)
			r = mw_entry_finish(e, all.time_us, cbor.p, cbor.n, NULL);
		if (r == 0) {
			mw_store_submit(b->store, e, written, e);
		} else {
			mw_entry_free(e);
			lost(b->n, r);
		}
	}
	mw_arena_free(b->arena);
	b->arena = NULL;
	b->v = NULL;
	b->n = b->cap = 0;
}

void
mw_outbox_flush(struct mw_outbox *b)
{
	pthread_mutex_lock(&b->lock);
	flush(b);
	pthread_mutex_unlock(&b->lock);
}

static bool
copy_str(struct mw_arena *a, struct mw_str *s)
{
	*s = mw_arena_str(a, *s);
	return s->p;
}

/* A copy in a; false: no memory. */
static bool
copy(struct mw_arena *a, const struct mw_outcome *o, struct mw_outcome *ret)
{
	*ret = *o;
	bool ok = copy_str(a, &ret->queue_id);
	if (o->n_rcpt == 0)
		return ok;
	ret->rcpt = mw_arena_alloc(a, o->n_rcpt * sizeof *o->rcpt);
	if (!ret->rcpt)
		return false;
	memcpy(ret->rcpt, o->rcpt, o->n_rcpt * sizeof *o->rcpt);
	for (size_t i = 0; i < o->n_rcpt; i++) {
		struct mw_outcome_rcpt *r = &ret->rcpt[i];
		ok = ok && copy_str(a, &r->addr) && copy_str(a, &r->original) &&
		     copy_str(a, &r->dsn) && copy_str(a, &r->relay) &&
		     copy_str(a, &r->text);
	}
	return ok;
}

void
mw_outbox_add(struct mw_outbox *b, const struct mw_outcome *o)
{
	struct mw_outcome *v = NULL, c;
	pthread_mutex_lock(&b->lock);
	if (!b->arena)
		b->arena = mw_arena_new(0);
	if (b->arena && copy(b->arena, o, &c))
		v = mw_arena_grow(b->arena, b->v, &b->cap, b->n + 1, sizeof *v);
	if (v) {
		v[b->n++] = c;
		b->v = v;
	} else {
		lost(1, MW_ENOMEM);
	}
	if (b->n >= RECORD_MAX || (b->arena && mw_arena_used(b->arena) > BYTES_MAX))
		flush(b);
	pthread_mutex_unlock(&b->lock);
}
