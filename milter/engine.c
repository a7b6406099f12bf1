#include "milter/engine_int.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "journal/base/log.h"
#include "journal/base/util.h"

enum {
	EVENTS = 64,
	ACCEPTS_PER_TURN = 32,
};

#define SECOND INT64_C(1000000)
static const int64_t progress_us = MW_PROGRESS_S * SECOND;
static const int64_t backoff_us = SECOND / 4;       /* after a failed accept */
static const int64_t content_grace_us = 3 * SECOND; /* at stop: messages half sent */
static const int64_t linger_us = SECOND / 5;        /* when drained: between messages */
static const int64_t stop_limit_us = 9 * SECOND;

/* ---- listening ---- */

static void
listen_on(struct loop *l)
{
	struct mw_engine *e = l->engine;
	for (size_t i = 0; i < e->listeners.n; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE};
		ev.data.ptr = &e->listeners.v[i];
		(void)epoll_ctl(l->ep, EPOLL_CTL_ADD, e->listeners.v[i].fd, &ev);
	}
	l->listening = true;
}

static void
listen_off(struct loop *l, int64_t until_us)
{
	struct mw_engine *e = l->engine;
	for (size_t i = 0; l->listening && i < e->listeners.n; i++)
		(void)epoll_ctl(l->ep, EPOLL_CTL_DEL, e->listeners.v[i].fd, NULL);
	l->listening = false;
	l->listen_at_us = until_us;
}

static void
warn_accept(struct loop *l, const char *why)
{
	int64_t now = mw_loop_now(l), last = atomic_load(&l->engine->warned_us);
	if (now - last < 60 * SECOND && last)
		return;
	if (atomic_compare_exchange_strong(&l->engine->warned_us, &last, now))
		mw_log(MW_LOG_ERR, NULL, "event=accept_paused reason=\"%s\" sessions=%d",
		       why, atomic_load(&l->engine->open));
}

static void
accept_some(struct loop *l, const struct mw_listener *ls)
{
	struct mw_settings *s = mw_capture_settings(l->engine->cap);
	int64_t limit = s->conf->session_limit;
	mw_settings_unref(s);
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		if (atomic_load(&l->engine->open) >= limit) {
			warn_accept(l, "session_limit reached");
			listen_off(l, mw_loop_now(l) + backoff_us);
			return;
		}
		bool crowded = mw_listen_crowded(ls->fd);
		int fd = crowded
		             ? -1
		             : accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (!mw_conn_new(l, fd, ls->inet))
				(void)close(fd);
			continue;
		}
		if (crowded || errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		    errno == ENOMEM) {
			/* They wait in the listen queue; no spin meanwhile. */
			warn_accept(l, crowded ? "no descriptors to spare"
			                       : strerror(errno));
			listen_off(l, mw_loop_now(l) + backoff_us);
			return;
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return; /* nobody there (another thread was faster), or a bad
			           connection: the next event tells */
	}
}

/* ---- the loop ---- */

static void
take_done(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct conn *c = l->done, *rev = NULL;
	l->done = NULL;
	pthread_mutex_unlock(&l->lock);
	while (c) { /* in the order in which they came */
		struct conn *next = c->next_done;
		c->next_done = rev;
		rev = c;
		c = next;
	}
	while (rev) {
		struct conn *next = rev->next_done;
		mw_conn_answer(rev);
		rev = next;
	}
}

static bool
is_listener(const struct loop *l, const void *p)
{
	const struct mw_listener *v = l->engine->listeners.v;
	for (size_t i = 0; i < l->engine->listeners.n; i++)
		if (p == &v[i])
			return true;
	return false;
}

static void
on_event(struct loop *l, const struct epoll_event *ev)
{
	if (!ev->data.ptr) {
		take_done(l);
		return;
	}
	if (is_listener(l, ev->data.ptr)) {
		if (l->listening)
			accept_some(l, ev->data.ptr);
		return;
	}
	struct conn *c = ev->data.ptr;
	if (ev->events & EPOLLOUT)
		c->writable = true;
	if (ev->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->ending = true;
	if (mw_conn_flush(c))
		mw_conn_run(c);
}

static void
close_idle(struct loop *l, int64_t now)
{
	struct mw_settings *s = mw_capture_settings(l->engine->cap);
	int64_t limit = s->conf->milter_idle_timeout;
	mw_settings_unref(s);
	struct conn *c, *next;
	for (c = TAILQ_FIRST(&l->conns); c && now - c->active_us > limit; c = next) {
		next = TAILQ_NEXT(c, idle);
		if (c->proto.pending)
			continue;
		mw_log(MW_LOG_INFO, NULL, "event=idle_timeout");
		mw_conn_free(c);
	}
}

/* Once a second for each that waits for the store: is it too long? Does the MTA need to
 * be told that we are still at it? */
static void
look_after(struct loop *l, int64_t now)
{
	struct conn *c;
	while ((c = TAILQ_FIRST(&l->waiting)) && c->look_at_us <= now) {
		TAILQ_REMOVE(&l->waiting, c, wait);
		TAILQ_INSERT_TAIL(&l->waiting, c, wait);
		c->look_at_us = now + SECOND;
		if (mw_session_overdue(c->proto.session)) {
			mw_conn_answer(c);
			continue;
		}
		if (c->fd < 0 || now < c->progress_at_us)
			continue;
		c->progress_at_us = now + progress_us;
		mw_proto_progress(&c->proto);
		(void)mw_conn_flush(c); /* pending: it is never freed here */
	}
}

/* At stop: what is at its end is answered, what is being sent gets a short while. When
 * drained, so do an envelope, and a connection that has brought no message yet: its MTA
 * would refuse the session. One between two messages is closed a little later, so that
 * the end of a session can be told in the ordinary way. */
static bool
worth_waiting(const struct loop *l, const struct conn *c, int64_t since)
{
	const struct mw_session *s = c->proto.session;
	if (!l->engine->drain)
		return s && mw_session_in_content(s);
	if (!c->proto.served || (s && mw_session_in_message(s)))
		return true;
	return since < linger_us;
}

static void
stopping(struct loop *l, int64_t now)
{
	if (!l->stop_at_us) {
		l->stop_at_us = now;
		listen_off(l, INT64_MAX);
	}
	bool late = now - l->stop_at_us > content_grace_us;
	struct conn *c, *next;
	for (c = TAILQ_FIRST(&l->conns); c; c = next) {
		next = TAILQ_NEXT(c, idle);
		if (c->proto.pending || c->proto.out.n > 0)
			continue;
		if (late || !worth_waiting(l, c, now - l->stop_at_us))
			mw_conn_free(c);
	}
}

static int
wait_ms(const struct loop *l, int64_t now)
{
	int64_t at = INT64_MAX;
	const struct conn *c;
	if (!TAILQ_EMPTY(&l->again))
		return 0;
	if (!l->listening && !l->stop_at_us)
		at = l->listen_at_us;
	if ((c = TAILQ_FIRST(&l->waiting)))
		at = MW_MIN(at, c->look_at_us);
	if (!TAILQ_EMPTY(&l->conns)) /* idle time-outs need no precision */
		at = MW_MIN(at, now + SECOND);
	if (l->stop_at_us)
		at = MW_MIN(at, now + SECOND / 20);
	if (at == INT64_MAX)
		return -1;
	return at <= now ? 0 : (int)MW_MIN((at - now) / 1000 + 1, 60000);
}

static void
take_turns(struct loop *l)
{
	struct conn_list list = TAILQ_HEAD_INITIALIZER(list);
	TAILQ_CONCAT(&list, &l->again, turn);
	struct conn *c;
	while ((c = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, c, turn);
		c->again = false;
		mw_conn_run(c); /* frees c at most */
	}
}

static bool
finished(const struct loop *l, int64_t now)
{
	if (!l->stop_at_us)
		return false;
	return TAILQ_EMPTY(&l->conns) ||
	       (now - l->stop_at_us > stop_limit_us && TAILQ_EMPTY(&l->waiting));
}

static void *
loop_main(void *arg)
{
	struct loop *l = arg;
	struct epoll_event ev[EVENTS];
	int64_t now = mw_loop_now(l), swept = now;
	while (!finished(l, now)) {
		int n = epoll_wait(l->ep, ev, EVENTS, wait_ms(l, now));
		for (int i = 0; i < n; i++)
			if (ev[i].data.ptr && !is_listener(l, ev[i].data.ptr))
				on_event(l, &ev[i]);
		/* Listeners and answers last: what they free or add has no event left
		 * in this round. */
		for (int i = 0; i < n; i++)
			if (!ev[i].data.ptr || is_listener(l, ev[i].data.ptr))
				on_event(l, &ev[i]);
		take_turns(l);
		now = mw_loop_now(l);
		look_after(l, now);
		if (now - swept >= SECOND) {
			swept = now;
			close_idle(l, now);
		}
		if (atomic_load(&l->engine->stop))
			stopping(l, now);
		else if (!l->listening && now >= l->listen_at_us)
			listen_on(l);
	}
	while (!TAILQ_EMPTY(&l->conns)) /* only after stop_limit_us: deaf peers */
		mw_conn_free(TAILQ_FIRST(&l->conns));
	return NULL;
}

/* ---- start and stop ---- */

static int
loop_init(struct mw_engine *e, struct loop *l)
{
	l->engine = e;
	TAILQ_INIT(&l->conns);
	TAILQ_INIT(&l->waiting);
	TAILQ_INIT(&l->again);
	(void)pthread_mutex_init(&l->lock, NULL); /* cannot fail with NULL attributes */
	l->scratch = malloc(MW_LOOP_SCRATCH);
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	l->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!l->scratch || l->ep < 0 || l->wake < 0)
		return -1;
	/* Edge-triggered: each write is an event, and nobody needs to read it. */
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	if (epoll_ctl(l->ep, EPOLL_CTL_ADD, l->wake, &ev) < 0)
		return -1;
	listen_on(l);
	return pthread_create(&l->thread, NULL, loop_main, l) == 0 ? 0 : -1;
}

static void
loop_done(struct loop *l)
{
	if (l->ep >= 0)
		(void)close(l->ep);
	if (l->wake >= 0)
		(void)close(l->wake);
	free(l->scratch);
	pthread_mutex_destroy(&l->lock);
}

static unsigned
thread_count(const struct mw_conf *conf)
{
	if (conf->milter_threads > 0)
		return (unsigned)conf->milter_threads;
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > 4 ? 4 : (unsigned)n;
}

int
mw_engine_start(struct mw_capture *cap, const struct mw_listeners *l,
                struct mw_engine **ret, struct mw_err *err)
{
	struct mw_settings *s = mw_capture_settings(cap);
	unsigned n = thread_count(s->conf);
	mw_settings_unref(s);
	struct mw_engine *e = calloc(1, sizeof *e + n * sizeof e->loop[0]);
	if (!e)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	e->cap = cap;
	e->listeners = *l;
	for (; e->n < n; e->n++) {
		if (loop_init(e, &e->loop[e->n]) == 0)
			continue;
		int r = mw_fail_errno(err, "cannot start an engine thread");
		loop_done(&e->loop[e->n]);
		mw_engine_stop(e, false);
		return r;
	}
	*ret = e;
	return 0;
}

void
mw_engine_stop(struct mw_engine *e, bool drain)
{
	uint64_t one = 1;
	e->drain = drain;
	atomic_store(&e->stop, true);
	for (unsigned i = 0; i < e->n; i++)
		(void)!write(e->loop[i].wake, &one, sizeof one); /* full only if awake */
	for (unsigned i = 0; i < e->n; i++)
		(void)pthread_join(e->loop[i].thread, NULL);
	for (unsigned i = 0; i < e->n; i++)
		loop_done(&e->loop[i]);
	free(e);
}
