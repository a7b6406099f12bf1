#include "replay/sift.h"

#include "journal/base/util.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
	THREADS_MOST = 8,
	CHUNK = 256,    /* records that a thread takes at a time */
	NEAR = 32,      /* that are read in one piece */
	WORTH_IT = 512, /* records from which threads are worth their start */
	FIRST = 4096,   /* looked at before it is known whether it helps, */
	ROUND = 65536,  /* and then: the caller gives what was found in between */
	MEMORY_PER_MAIL = 64 << 20
};

struct shared {
	const struct mw_query *q;
	struct mw_sift_ref *v;
	size_t n;
	atomic_size_t next;
};

struct worker {
	struct shared *s;
	struct mw_store *st;
	pthread_t thread;
	size_t out;
};

bool
mw_sift_can(const struct mw_query *q)
{
	return q->n_subject || q->n_from || q->n_sender || q->n_message_id || q->larger ||
	       q->smaller;
}

static void
look(struct worker *w, struct mw_sift_ref *ref, struct mw_buf *meta, struct mw_arena *a)
{
	struct mw_record rec;
	struct mw_mail m;
	mw_arena_reset(a);
	if (mw_store_get(w->st, ref->loc, &rec, NULL) < 0 || rec.type != MW_TYPE_MAIL ||
	    mw_record_mail_here(w->st, &rec, meta, a, &m, NULL) < 0)
		return;
	ref->out = mw_query_match(w->s->q, &m, rec.id) == 0;
	w->out += ref->out;
}

static void
look_at_chunk(struct worker *w, struct mw_sift_ref *v, size_t n, struct mw_buf *meta,
              struct mw_arena *a)
{
	for (size_t i = 0; i < n;) {
		struct mw_loc loc[NEAR];
		size_t k = MW_MIN(n - i, (size_t)NEAR);
		for (size_t j = 0; j < k; j++)
			loc[j] = v[i + j].loc;
		k = mw_store_ahead(w->st, loc, k);
		for (size_t to = i + k; i < to; i++)
			if (v[i].seq)
				look(w, &v[i], meta, a);
	}
}

static void *
run(void *arg)
{
	struct worker *w = arg;
	struct shared *s = w->s;
	struct mw_arena *a = mw_arena_new(MEMORY_PER_MAIL);
	MW_BUF_AUTO meta = {0};
	while (a && !mw_cli_stopped()) {
		size_t at = atomic_fetch_add(&s->next, CHUNK);
		if (at >= s->n)
			break;
		look_at_chunk(w, s->v + at, MW_MIN((size_t)CHUNK, s->n - at), &meta, a);
	}
	mw_arena_free(a);
	mw_store_behind(w->st);
	return NULL;
}

/* One processor more, if there is one. */
static bool
start(struct worker *w, struct shared *s, const struct mw_store *st)
{
	sigset_t all, was;
	*w = (struct worker){.s = s};
	if (mw_store_again(st, NULL, &w->st, NULL) < 0)
		return false;
	(void)sigfillset(&all); /* signals are for the caller's thread */
	(void)pthread_sigmask(SIG_SETMASK, &all, &was);
	int r = pthread_create(&w->thread, NULL, run, w);
	(void)pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (r)
		mw_store_close(w->st);
	return r == 0;
}

/* Only what is the mail's own for good: an expansion changes recipients and direction, an
 * erasure recipients and login. */
static struct mw_query
settled(const struct mw_query *q)
{
	struct mw_query s = *q;
	s.n_user = s.n_domain = s.n_id = s.n_queue_id = 0;
	s.directions = 0;
	return s;
}

size_t
mw_sift(struct mw_sift *sift, struct mw_store *st, const struct mw_query *q,
        struct mw_sift_ref *v, size_t n)
{
	const struct mw_query mine = settled(q);
	struct worker w[THREADS_MOST];
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t most = cpus > 0 ? MW_MIN((size_t)cpus, (size_t)THREADS_MOST) : 1, k = 1;
	n = MW_MIN(n, (size_t)(sift->looked ? ROUND : FIRST));
	/* Where most stay, they would only be read twice. */
	if (n < WORTH_IT || sift->out < sift->looked / 2)
		return 0;
	struct shared s = {.q = &mine, .v = v, .n = n};
	w[0] = (struct worker){.s = &s, .st = st};
	while (k < most && start(&w[k], &s, st))
		k++;
	(void)run(&w[0]);
	for (size_t i = 0; i < k; i++) {
		if (i) {
			(void)pthread_join(w[i].thread, NULL);
			mw_store_close(w[i].st);
		}
		sift->out += w[i].out;
	}
	sift->looked += n;
	return n;
}
