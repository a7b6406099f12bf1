#include "milter/expand.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/record/expansion.h"
#include "milter/identity.h"
#include "milter/pool.h"
#include "milter/session_int.h"

enum {
	WORKERS = 4,
	OPEN_MAX = 5000,         /* questions */
	BYTES_MAX = 64 << 20,    /* of all of them, about */
	QUESTION_MAX = 64 << 20, /* of one, with its expansion */
	READY_MAX = 256,         /* then nothing is waited for */
	GATHER_MS = 100,         /* one sync for all that come in this time */
	WARN_EVERY_US = 60 * 1000 * 1000
};

struct question {
	STAILQ_ENTRY(question) ready;
	struct mw_job job;
	struct mw_expand *x;
	struct mw_settings *set;
	struct mw_arena *arena;
	struct mw_mail mail; /* what look-up, direction and tokens need of it */
	uint8_t id[MW_ID_LEN];
	uint64_t seq;
	size_t bytes;
	int64_t asked_mono_us;
	struct mw_entry *entry; /* the answer */
	bool undecided;
};

struct mw_expand {
	struct mw_store *store;
	const struct mw_clock *clock;
	struct mw_pool *pool;
	pthread_t writer;
	bool has_writer;
	atomic_bool hurry; /* ends the waiting in look-ups */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t more;
	STAILQ_HEAD(ready_list, question) ready;
	size_t n_open, n_ready, bytes;
	bool stop;
	struct mw_expand_stats stats;
	int64_t warned_us; /* 0: never */
};

/* ---- a question ---- */

static void
question_free(struct question *q)
{
	mw_entry_free(q->entry);
	mw_settings_unref(q->set);
	mw_arena_free(q->arena);
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
		question_free(q);
		return NULL;
	}
	q->bytes = sizeof *q + mw_arena_used(q->arena);
	return q;
}

/* Called with the lock. */
static void
forget(struct question *q)
{
	struct mw_expand *x = q->x;
	x->n_open--;
	x->bytes -= q->bytes;
}

static void
dropped(struct mw_expand *x, const char *why)
{
	int64_t now = x->clock->mono_us(x->clock);
	(void)pthread_mutex_lock(&x->lock);
	uint64_t n = ++x->stats.dropped;
	bool warn = x->warned_us == 0 || now - x->warned_us > WARN_EVERY_US;
	if (warn)
		x->warned_us = now;
	(void)pthread_mutex_unlock(&x->lock);
	if (warn)
		mw_log(MW_LOG_WARN, NULL,
		       "event=expansion_dropped dropped=%llu reason=\"%s\"",
		       (unsigned long long)n, why);
}

/* ---- asking ---- */

static void
look_up(struct question *q, struct mw_err *why)
{
	struct mw_mail *m = &q->mail;
	int64_t until = q->asked_mono_us + q->set->conf->identities_timeout;
	for (size_t i = 0; i < m->n_rcpt; i++)
		m->rcpt[i].flags &= ~(uint32_t)(MW_RCPT_LATER | MW_RCPT_UNDECIDED);
	struct mw_until u = {until, &q->x->hurry};
	q->undecided = mw_identity_resolve(q->set->identity, q->arena, m, &u, why) < 0;
	if (q->undecided)
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
		q->entry = MW_TAKE(e);
	return r;
}

static void
answer(void *arg)
{
	struct question *q = arg;
	struct mw_expand *x = q->x;
	struct mw_err why = {0};
	look_up(q, &why);
	int r = seal(q, &why);
	(void)pthread_mutex_lock(&x->lock);
	if (r == 0) {
		STAILQ_INSERT_TAIL(&x->ready, q, ready);
		x->n_ready++;
		(void)pthread_cond_signal(&x->more);
	} else {
		forget(q);
	}
	(void)pthread_mutex_unlock(&x->lock);
	if (r < 0) {
		question_free(q);
		dropped(x, "out of memory");
	}
}

void
mw_expand_ask(struct mw_expand *x, struct mw_settings *set, const struct mw_mail *m,
              const uint8_t id[MW_ID_LEN], uint64_t seq)
{
	if (!x || !mw_expansion_awaited(m))
		return;
	struct question *q = question_new(x, set, m);
	if (!q) {
		dropped(x, "out of memory");
		return;
	}
	memcpy(q->id, id, MW_ID_LEN);
	q->seq = seq;
	q->job = (struct mw_job){.fn = answer, .arg = q};
	(void)pthread_mutex_lock(&x->lock);
	bool room = !x->stop && x->n_open < OPEN_MAX && x->bytes + q->bytes <= BYTES_MAX;
	if (room) {
		x->n_open++;
		x->bytes += q->bytes;
	}
	(void)pthread_mutex_unlock(&x->lock);
	if (room && mw_pool_run(x->pool, &q->job))
		return;
	if (room) {
		(void)pthread_mutex_lock(&x->lock);
		forget(q);
		(void)pthread_mutex_unlock(&x->lock);
	}
	question_free(q);
	dropped(x, room ? "no thread can be started"
	                : "more mail than the alias tables can keep up with");
}

/* ---- the writer ---- */

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct question *q = arg;
	struct mw_expand *x = q->x;
	(void)pthread_mutex_lock(&x->lock);
	forget(q);
	if (c->code == 0 && q->undecided)
		x->stats.failed++;
	else if (c->code == 0)
		x->stats.expanded++;
	bool last = x->stop && x->n_open == 0;
	if (last)
		(void)pthread_cond_signal(&x->more);
	/* From here on x may be gone, once it stops. */
	if (c->code == 0) {
		(void)pthread_mutex_unlock(&x->lock);
	} else {
		x->stats.dropped++;
		(void)pthread_mutex_unlock(&x->lock);
		mw_log(MW_LOG_WARN, NULL, "event=expansion_lost error=%s",
		       mw_err_name(c->code));
	}
	question_free(q);
}

/* Lets answers gather, with the lock held: each sync costs the mail beside it. */
static void
gather(struct mw_expand *x)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += GATHER_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!x->stop && x->n_ready < READY_MAX)
		if (pthread_cond_timedwait(&x->more, &x->lock, &until) != 0)
			break;
}

/* Ends when it shall stop and nothing is open. */
static void *
writer_main(void *arg)
{
	struct mw_expand *x = arg;
	(void)pthread_mutex_lock(&x->lock);
	for (;;) {
		struct ready_list list = STAILQ_HEAD_INITIALIZER(list);
		struct question *q;
		while (STAILQ_EMPTY(&x->ready) && !(x->stop && x->n_open == 0))
			(void)pthread_cond_wait(&x->more, &x->lock);
		if (STAILQ_EMPTY(&x->ready))
			break;
		gather(x);
		STAILQ_CONCAT(&list, &x->ready);
		x->n_ready = 0;
		(void)pthread_mutex_unlock(&x->lock);
		while ((q = STAILQ_FIRST(&list))) {
			STAILQ_REMOVE_HEAD(&list, ready);
			mw_store_submit(x->store, q->entry, on_commit, q);
		}
		(void)pthread_mutex_lock(&x->lock);
	}
	(void)pthread_mutex_unlock(&x->lock);
	return NULL;
}

/* ---- life ---- */

int
mw_expand_start(struct mw_store *store, struct mw_expand **ret, struct mw_err *err)
{
	pthread_condattr_t mono;
	struct mw_expand *x = calloc(1, sizeof *x);
	if (!x)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	x->store = store;
	x->clock = mw_clock_system();
	STAILQ_INIT(&x->ready);
	(void)pthread_mutex_init(&x->lock, NULL); /* these cannot fail */
	(void)pthread_condattr_init(&mono);
	(void)pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&x->more, &mono);
	(void)pthread_condattr_destroy(&mono);
	x->pool = mw_pool_new(WORKERS);
	x->has_writer = x->pool && pthread_create(&x->writer, NULL, writer_main, x) == 0;
	if (!x->has_writer) {
		mw_expand_stop(x);
		return mw_fail(err, MW_ENOMEM, "cannot start the writer of expansions");
	}
	*ret = x;
	return 0;
}

void
mw_expand_stop(struct mw_expand *x)
{
	if (!x)
		return;
	atomic_store(&x->hurry, true);
	mw_pool_free(x->pool); /* answers what is asked; soon, now */
	(void)pthread_mutex_lock(&x->lock);
	x->stop = true;
	(void)pthread_cond_signal(&x->more);
	(void)pthread_mutex_unlock(&x->lock);
	if (x->has_writer)
		(void)pthread_join(x->writer, NULL);
	(void)pthread_mutex_destroy(&x->lock);
	(void)pthread_cond_destroy(&x->more);
	free(x);
}

void
mw_expand_stats(struct mw_expand *x, struct mw_expand_stats *ret)
{
	memset(ret, 0, sizeof *ret);
	if (!x)
		return;
	(void)pthread_mutex_lock(&x->lock);
	*ret = x->stats;
	ret->queued = x->n_open;
	(void)pthread_mutex_unlock(&x->lock);
}
