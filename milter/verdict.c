#include "milter/verdict.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/helper.h"

enum {
	WORKERS = 4,
	QUEUE_MAX = 2000,
	NAME_KEPT = 1000, /* bytes of HELO and sender in a record */
	DONE_MAX = 256,   /* verdicts waiting for the journal */
	GATHER_MS = 250,  /* one sync for all that come in this time */
	WARN_EVERY_US = 60 * 1000 * 1000
};

struct question {
	STAILQ_ENTRY(question) next;
	uint8_t id[MW_ID_LEN];
	uint64_t seq;
	struct mw_spf spf; /* strings point into text */
	char text[];
};

struct done {
	STAILQ_ENTRY(done) next;
	struct mw_entry *entry;
	bool temperror;
	struct mw_verdict *v;
};

struct worker {
	struct mw_verdict *v;
	pthread_t thread;
	struct mw_helper helper;
};

struct mw_verdict {
	struct mw_store *store;
	struct mw_helper_setup setup;
	int stop_fd;
	struct worker *worker;
	pthread_t writer;
	unsigned n_workers;
	bool has_writer;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work, ready, room;
	STAILQ_HEAD(, question) queue;
	STAILQ_HEAD(done_list, done) done;
	size_t n_queue, n_done, n_submitted;
	bool stop, last; /* last: no worker is left */
	struct mw_verdict_stats stats;
	int64_t warned_us;
};

static int64_t
now_us(bool wall)
{
	const struct mw_clock *c = mw_clock_system();
	return wall ? c->now_us(c) : c->mono_us(c);
}

/* ---- questions ---- */

static bool
is_outside(struct mw_str addr)
{
	char text[INET6_ADDRSTRLEN + 1];
	struct in_addr v4;
	struct in6_addr v6;
	if (addr.n == 0 || addr.n >= sizeof text)
		return false;
	memcpy(text, addr.p, addr.n);
	text[addr.n] = 0;
	if (inet_pton(AF_INET, text, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 != 127;
	return inet_pton(AF_INET6, text, &v6) == 1 && !IN6_IS_ADDR_LOOPBACK(&v6);
}

static struct mw_str
keep(char **at, struct mw_str s)
{
	size_t n = MW_MIN(s.n, (size_t)NAME_KEPT);
	struct mw_str out = mw_str(*at, n);
	if (n)
		memcpy(*at, s.p, n);
	*at += n;
	return out;
}

static struct question *
question_new(const struct mw_mail *m, const uint8_t id[MW_ID_LEN], uint64_t seq)
{
	size_t n = MW_MIN(m->client_addr.n, (size_t)NAME_KEPT) +
	           MW_MIN(m->helo.n, (size_t)NAME_KEPT) +
	           MW_MIN(m->sender.n, (size_t)NAME_KEPT);
	struct question *q = calloc(1, sizeof *q + n);
	if (!q)
		return NULL;
	char *at = q->text;
	memcpy(q->id, id, MW_ID_LEN);
	q->seq = seq;
	q->spf.ip = keep(&at, m->client_addr);
	q->spf.helo = keep(&at, m->helo);
	q->spf.from = keep(&at, m->sender);
	return q;
}

void
mw_verdict_ask(struct mw_verdict *v, const struct mw_mail *m, const uint8_t id[MW_ID_LEN],
               uint64_t seq)
{
	if (!v || m->direction != MW_DIR_IN || m->flags & MW_MAIL_NON_SMTP ||
	    !is_outside(m->client_addr))
		return;
	struct question *q = question_new(m, id, seq);
	bool warn = false;
	uint64_t dropped = 0;
	(void)pthread_mutex_lock(&v->lock);
	if (q && v->n_queue < QUEUE_MAX && !v->stop) {
		STAILQ_INSERT_TAIL(&v->queue, q, next);
		q = NULL;
		v->n_queue++;
		(void)pthread_cond_signal(&v->work);
	} else {
		int64_t now = now_us(false);
		dropped = ++v->stats.dropped;
		warn = now - v->warned_us > WARN_EVERY_US || v->warned_us == 0;
		if (warn)
			v->warned_us = now;
	}
	(void)pthread_mutex_unlock(&v->lock);
	free(q);
	if (warn)
		mw_log(
		    MW_LOG_WARN, NULL,
		    "event=spf_dropped dropped=%llu reason=\"more mail than SPF checks "
		    "can keep up with\"",
		    (unsigned long long)dropped);
}

/* ---- workers ---- */

/* A record of the verdict, sealed here, not in the writer. */
static struct done *
seal(struct mw_verdict *v, struct question *q)
{
	struct mw_err err = {0};
	MW_BUF_AUTO cbor = {0};
	MW_ENTRY_AUTO *e = NULL;
	memcpy(q->spf.ref, q->id, MW_ID_LEN);
	q->spf.seq = q->seq;
	struct done *d = calloc(1, sizeof *d);
	int r = d ? mw_spf_encode(&q->spf, &cbor) : MW_ENOMEM;
	if (r == 0)
		r = mw_entry_new(v->store, MW_TYPE_SPF, &e, &err);
	if (r == 0) {
		mw_entry_refer(e, q->id);
		r = mw_entry_finish(e, q->spf.time_us, cbor.p, cbor.n, &err);
	}
	if (r < 0) {
		free(d);
		return NULL;
	}
	d->v = v;
	d->temperror = q->spf.result == MW_SPF_TEMPERROR;
	d->entry = MW_TAKE(e);
	return d;
}

static void
hand_over(struct mw_verdict *v, struct done *d)
{
	(void)pthread_mutex_lock(&v->lock);
	while (d && v->n_done >= DONE_MAX)
		(void)pthread_cond_wait(&v->room, &v->lock);
	if (d) {
		STAILQ_INSERT_TAIL(&v->done, d, next);
		v->n_done++;
		(void)pthread_cond_signal(&v->ready);
	} else {
		v->stats.dropped++;
	}
	(void)pthread_mutex_unlock(&v->lock);
}

/* False: stopped, there is no verdict. */
static bool
judge(struct worker *w, struct question *q)
{
	struct mw_err err = {0};
	uint64_t deaths = w->helper.deaths;
	int64_t start = now_us(false);
	q->spf.time_us = now_us(true);
	int r = mw_helper_ask(&w->helper, &q->spf, &err);
	q->spf.took_us = (uint64_t)(now_us(false) - start);
	if (r == MW_ECANCEL)
		return false;
	if (r < 0)
		mw_log(MW_LOG_NOTICE, NULL,
		       "event=spf_helper_ended error=%s reason=\"%s\"", mw_err_name(r),
		       err.msg);
	(void)pthread_mutex_lock(&w->v->lock);
	w->v->stats.deaths += w->helper.deaths - deaths;
	(void)pthread_mutex_unlock(&w->v->lock);
	return true;
}

static void *
worker_main(void *arg)
{
	struct worker *w = arg;
	struct mw_verdict *v = w->v;
	for (;;) {
		(void)pthread_mutex_lock(&v->lock);
		while (!v->stop && STAILQ_EMPTY(&v->queue))
			(void)pthread_cond_wait(&v->work, &v->lock);
		struct question *q = v->stop ? NULL : STAILQ_FIRST(&v->queue);
		if (q) {
			STAILQ_REMOVE_HEAD(&v->queue, next);
			v->n_queue--;
		}
		(void)pthread_mutex_unlock(&v->lock);
		if (!q)
			break;
		hand_over(v, judge(w, q) ? seal(v, q) : NULL);
		free(q);
	}
	mw_helper_end(&w->helper); /* by the thread that started it */
	return NULL;
}

/* ---- the writer ---- */

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct done *d = arg;
	struct mw_verdict *v = d->v;
	(void)pthread_mutex_lock(&v->lock);
	if (c->code == 0) {
		v->stats.checked++;
		v->stats.temperror += d->temperror;
	} else {
		v->stats.dropped++;
	}
	if (--v->n_submitted == 0)
		(void)pthread_cond_signal(&v->ready);
	(void)pthread_mutex_unlock(&v->lock);
}

/* Submits all of it and waits until the last is on disk or refused. */
static void
append(struct mw_verdict *v, struct done_list *list)
{
	struct done *d;
	STAILQ_FOREACH(d, list, next)
	mw_store_submit(v->store, d->entry, on_commit, d);
	(void)pthread_mutex_lock(&v->lock);
	while (v->n_submitted)
		(void)pthread_cond_wait(&v->ready, &v->lock);
	(void)pthread_mutex_unlock(&v->lock);
	while ((d = STAILQ_FIRST(list))) {
		STAILQ_REMOVE_HEAD(list, next);
		mw_entry_free(d->entry);
		free(d);
	}
}

/* Lets verdicts gather, with the lock held: each sync costs the mail beside it. */
static void
gather(struct mw_verdict *v)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += GATHER_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!v->stop && v->n_done < DONE_MAX)
		if (pthread_cond_timedwait(&v->ready, &v->lock, &until) != 0)
			break;
}

static void *
writer_main(void *arg)
{
	struct mw_verdict *v = arg;
	for (;;) {
		struct done_list list = STAILQ_HEAD_INITIALIZER(list);
		(void)pthread_mutex_lock(&v->lock);
		while (!v->last && STAILQ_EMPTY(&v->done))
			(void)pthread_cond_wait(&v->ready, &v->lock);
		bool end = STAILQ_EMPTY(&v->done);
		if (!end)
			gather(v);
		STAILQ_CONCAT(&list, &v->done);
		v->n_submitted = v->n_done;
		v->n_done = 0;
		(void)pthread_cond_broadcast(&v->room);
		(void)pthread_mutex_unlock(&v->lock);
		if (end)
			return NULL;
		append(v, &list);
	}
}

/* ---- life ---- */

int
mw_verdict_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_helper_setup s;
	return conf->spf ? mw_helper_setup(conf, &s, err) : 0;
}

static int
start_threads(struct mw_verdict *v, struct mw_err *err)
{
	if (pthread_create(&v->writer, NULL, writer_main, v) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the writer of verdicts");
	v->has_writer = true;
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *w = &v->worker[i];
		w->v = v;
		mw_helper_init(&w->helper, &v->setup, v->stop_fd);
		if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
			return mw_fail(err, MW_ENOMEM, "cannot start an SPF thread");
		v->n_workers++;
	}
	return 0;
}

int
mw_verdict_start(struct mw_store *store, const struct mw_conf *conf,
                 struct mw_verdict **ret, struct mw_err *err)
{
	pthread_condattr_t mono;
	*ret = NULL;
	if (!conf->spf)
		return 0;
	struct mw_verdict *v = calloc(1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	v->store = store;
	STAILQ_INIT(&v->queue);
	STAILQ_INIT(&v->done);
	(void)pthread_mutex_init(&v->lock, NULL); /* these cannot fail */
	(void)pthread_condattr_init(&mono);
	(void)pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&v->work, NULL);
	(void)pthread_cond_init(&v->room, NULL);
	(void)pthread_cond_init(&v->ready, &mono);
	(void)pthread_condattr_destroy(&mono);
	v->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	v->worker = calloc(WORKERS, sizeof *v->worker);
	int r = v->worker ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0 && v->stop_fd < 0)
		r = mw_fail_errno(err, "cannot make an eventfd");
	if (r == 0)
		r = mw_helper_setup(conf, &v->setup, err);
	if (r == 0)
		r = start_threads(v, err);
	if (r < 0) {
		mw_verdict_stop(v);
		return r;
	}
	*ret = v;
	return 0;
}

static void
finish(struct mw_verdict *v, bool *flag)
{
	(void)pthread_mutex_lock(&v->lock);
	*flag = true;
	(void)pthread_cond_broadcast(&v->work);
	(void)pthread_cond_broadcast(&v->ready);
	(void)pthread_mutex_unlock(&v->lock);
}

void
mw_verdict_stop(struct mw_verdict *v)
{
	uint64_t one = 1;
	struct question *q;
	if (!v)
		return;
	finish(v, &v->stop);
	if (v->stop_fd >= 0)
		(void)!write(v->stop_fd, &one, sizeof one); /* cannot be full */
	for (unsigned i = 0; i < v->n_workers; i++)
		(void)pthread_join(v->worker[i].thread, NULL);
	finish(v, &v->last);
	if (v->has_writer)
		(void)pthread_join(v->writer, NULL);
	if (v->n_queue)
		mw_log(MW_LOG_NOTICE, NULL,
		       "event=spf_dropped dropped=%zu reason=\"stop\"", v->n_queue);
	while ((q = STAILQ_FIRST(&v->queue))) {
		STAILQ_REMOVE_HEAD(&v->queue, next);
		free(q);
	}
	if (v->stop_fd >= 0)
		(void)close(v->stop_fd);
	(void)pthread_mutex_destroy(&v->lock);
	(void)pthread_cond_destroy(&v->work);
	(void)pthread_cond_destroy(&v->ready);
	(void)pthread_cond_destroy(&v->room);
	free(v->worker);
	free(v);
}

void
mw_verdict_stats(struct mw_verdict *v, struct mw_verdict_stats *ret)
{
	memset(ret, 0, sizeof *ret);
	if (!v)
		return;
	(void)pthread_mutex_lock(&v->lock);
	*ret = v->stats;
	ret->queued = v->n_queue;
	(void)pthread_mutex_unlock(&v->lock);
}
