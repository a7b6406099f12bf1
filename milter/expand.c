#include "milter/expand.h"

#include <stdlib.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/record/expansion.h"
#include "milter/aside.h"
#include "milter/identity.h"
#include "milter/session_int.h"

enum {
	WORKERS = 4,
	OPEN_MAX = 5000,
	BYTES_MAX = 64 << 20,
	QUESTION_MAX = 16 << 20 /* of one, with its expansion */
};

struct question {
	struct mw_aside_q q;
	struct mw_expand *x;
	struct mw_settings *set;
	struct mw_arena *arena;
	struct mw_mail mail; /* what look-up, direction and tokens need of it */
	uint8_t id[MW_ID_LEN];
	uint64_t seq;
	int64_t asked_mono_us;
};

struct mw_expand {
	struct mw_store *store;
	const struct mw_clock *clock;
	struct mw_aside *aside;
	atomic_bool hurry; /* ends the waiting in look-ups */
};

/* ---- a question ---- */

/* All but the question itself: once it is answered, only the record counts. */
static void
let_go(struct question *q)
{
	mw_settings_unref(q->set);
	mw_arena_free(q->arena);
	q->set = NULL;
	q->arena = NULL;
}

static void
question_free(struct mw_aside_q *aq)
{
	struct question *q = (struct question *)aq;
	let_go(q);
	free(q);
}

static bool
keep(struct mw_arena *a, struct mw_str *to, struct mw_str s)
{
	*to = mw_arena_str(a, s);
	return to->p;
}

static bool
keep_mail(struct question *q, const struct mw_mail *m)
{
	struct mw_arena *a = q->arena;
	struct mw_mail *k = &q->mail;
	bool ok = keep(a, &k->sender, m->sender) &&
	          keep(a, &k->auth_user, m->auth_user) &&
	          keep(a, &k->client_addr, m->client_addr) &&
	          keep(a, &k->front, m->front) && keep(a, &k->queue_id, m->queue_id);
	k->flags = m->flags;
	k->direction = m->direction;
	k->rcpt = mw_arena_alloc(a, m->n_rcpt * sizeof *k->rcpt);
	k->n_rcpt = m->n_rcpt;
	for (size_t i = 0; ok && k->rcpt && i < m->n_rcpt; i++) {
		struct mw_rcpt *r = &k->rcpt[i];
		r->flags = m->rcpt[i].flags;
		ok = keep(a, &r->addr, m->rcpt[i].addr) &&
		     keep(a, &r->mailer, m->rcpt[i].mailer);
	}
	return ok && k->rcpt;
}

static struct question *
question_new(struct mw_expand *x, struct mw_settings *set, const struct mw_mail *m)
{
	struct question *q = calloc(1, sizeof *q);
	if (!q)
		return NULL;
	q->x = x;
	q->set = set;
	atomic_fetch_add(&set->refs, 1);
	q->arena = mw_arena_new(QUESTION_MAX);
	q->asked_mono_us = x->clock->mono_us(x->clock);
	if (!q->arena || !keep_mail(q, m)) {
		question_free(&q->q);
		return NULL;
	}
	q->q.bytes = sizeof *q + mw_arena_used(q->arena);
	return q;
}

/* ---- the answer ---- */

static void
look_up(struct question *q, struct mw_err *why)
{
	struct mw_mail *m = &q->mail;
	int64_t until = q->asked_mono_us + q->set->conf->identities_timeout;
	for (size_t i = 0; i < m->n_rcpt; i++)
		m->rcpt[i].flags &= ~(uint32_t)(MW_RCPT_LATER | MW_RCPT_UNDECIDED);
	struct mw_until u = {until, &q->x->hurry};
	q->q.doubtful = mw_identity_resolve(q->set->identity, q->arena, m, &u, why) < 0;
	if (q->q.doubtful)
		mw_log(MW_LOG_WARN, m->queue_id.n ? m->queue_id.p : NULL,
		       "event=undecided error=%s reason=\"%s\"", mw_err_name(why->code),
		       why->msg);
	mw_message_direct(q->set->conf, m);
}

static int
describe(struct question *q, const struct mw_err *why, struct mw_expansion *x)
{
	const struct mw_mail *m = &q->mail;
	const struct mw_clock *c = q->x->clock;
	*x =
	    (struct mw_expansion){.seq = q->seq,
	                          .time_us = c->now_us(c),
	                          .took_us = (uint64_t)(c->mono_us(c) - q->asked_mono_us),
	                          .direction = m->direction,
	                          .flags = m->flags & MW_MAIL_TABLES_FAILED,
	                          .reason = mw_strz(why->msg)};
	memcpy(x->ref, q->id, MW_ID_LEN);
	x->rcpt = mw_arena_alloc(q->arena, m->n_rcpt * sizeof *x->rcpt);
	if (!x->rcpt)
		return MW_ENOMEM;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		if (!(r->flags & MW_RCPT_REFUSED))
			x->rcpt[x->n_rcpt++] =
			    (struct mw_expanded){i, r->flags, r->mailbox, r->n_mailbox};
	}
	return 0;
}

/* The record, sealed here, not in the writer. */
static int
seal(struct question *q, const struct mw_err *why)
{
	struct mw_expansion x;
	struct mw_err err = {0};
	MW_BUF_AUTO cbor = {0};
	MW_ENTRY_AUTO *e = NULL;
	int r = describe(q, why, &x);
	if (r == 0)
		r = mw_expansion_encode(&x, &cbor);
	if (r == 0)
		r = mw_entry_new(q->x->store, MW_TYPE_EXPANSION, &e, &err);
	if (r == 0) {
		mw_entry_refer(e, q->id);
		mw_entry_people(e, &q->mail);
		r = mw_entry_finish(e, x.time_us, cbor.p, cbor.n, &err);
	}
	if (r == 0)
		q->q.entry = MW_TAKE(e);
	return r;
}

static int
answer(void *owner, unsigned thread, struct mw_aside_q *aq)
{
	struct question *q = (struct question *)aq;
	struct mw_err why = {0};
	(void)owner;
	(void)thread;
	look_up(q, &why);
	int r = seal(q, &why);
	let_go(q);
	return r;
}

static void
hurry(void *owner)
{
	atomic_store(&((struct mw_expand *)owner)->hurry, true);
}

static void
dropped(uint64_t total, const char *why)
{
	mw_log(MW_LOG_WARN, NULL, "event=expansion_dropped dropped=%llu reason=\"%s\"",
	       (unsigned long long)total, why);
}

/* ---- life ---- */

static const struct mw_aside_kind kind = {
    .threads = WORKERS,
    .open_max = OPEN_MAX,
    .bytes_max = BYTES_MAX,
    .gather_ms = 100,
    .overloaded = "more mail than the alias tables can keep up with",
    .answer = answer,
    .free = question_free,
    .hurry = hurry,
    .dropped = dropped,
};

void
mw_expand_ask(struct mw_expand *x, struct mw_settings *set, const struct mw_mail *m,
              const uint8_t id[MW_ID_LEN], uint64_t seq)
{
	if (!x || !mw_expansion_awaited(m))
		return;
	struct question *q = question_new(x, set, m);
	if (q) {
		memcpy(q->id, id, MW_ID_LEN);
		q->seq = seq;
	}
	mw_aside_ask(x->aside, q ? &q->q : NULL);
}

int
mw_expand_start(struct mw_store *store, struct mw_expand **ret, struct mw_err *err)
{
	struct mw_expand *x = calloc(1, sizeof *x);
	if (!x)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	x->store = store;
	x->clock = mw_clock_system();
	int r = mw_aside_start(&kind, store, x, &x->aside, err);
	if (r < 0) {
		free(x);
		return r;
	}
	*ret = x;
	return 0;
}

void
mw_expand_stop(struct mw_expand *x)
{
	if (x)
		mw_aside_stop(x->aside);
	free(x);
}

void
mw_expand_stats(struct mw_expand *x, struct mw_expand_stats *ret)
{
	struct mw_aside_stats s;
	mw_aside_stats(x ? x->aside : NULL, &s);
	ret->expanded = s.recorded - s.doubtful;
	ret->failed = s.doubtful;
	ret->dropped = s.dropped;
	ret->queued = s.open;
}
