/* proxy_loop.c - the threads of the proxy: each has its connections, and waits for all of
 * them at once. The first one also does what is due every second. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	EVENTS = 64,
	FULL_MS = 1000, /* at session_limit until clients are turned away */
	LOOK_UP_S = 2,  /* at the end: nobody waits for the name any more */
	PAUSE_MS = 200, /* when no descriptor or memory can be had, or at the limit */
};

#define MS INT64_C(1000)

static void
wake(struct mw_proxy_loop *l)
{
	uint64_t one = 1;
	(void)!write(l->wake.fd, &one, sizeof one); /* full only if already awake */
}

void
mw_proxy_wake_all(struct mw_proxy *p)
{
	for (unsigned i = 0; i < p->n_loops; i++)
		wake(&p->loop[i]);
}

/* ---- what is watched ---- */

bool
mw_proxy_watch(struct mw_proxy_loop *l, struct mw_watch *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};
	if (w->fd < 0 || w->events == events)
		return true;
	int op = !events ? EPOLL_CTL_DEL : w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (epoll_ctl(l->ep, op, w->fd, &ev) < 0)
		return false;
	w->events = events;
	return true;
}

void
mw_proxy_close(struct mw_proxy_loop *l, struct mw_watch *w)
{
	if (w->fd < 0)
		return;
	(void)mw_proxy_watch(l, w, 0);
	(void)close(w->fd);
	w->fd = -1;
	w->events = 0;
}

void
mw_proxy_over(struct mw_proxy_conn *c)
{
	struct mw_proxy_loop *l = c->loop;
	c->over = true;
	c->lingering = false;
	mw_proxy_close(l, &c->client);
	TAILQ_REMOVE(&l->conns, c, link);
	TAILQ_INSERT_TAIL(&l->over, c, link);
}

/* Frees them, and only then counts them as gone: what they hold belongs to p. */
static void
bury(struct mw_proxy_loop *l)
{
	struct mw_proxy *p = l->proxy;
	struct mw_proxy_conn *c;
	uint64_t n = 0, had;
	while ((c = TAILQ_FIRST(&l->over))) {
		TAILQ_REMOVE(&l->over, c, link);
		mw_proxy_conn_free(c);
		n++;
	}
	if (n == 0)
		return;
	atomic_fetch_sub(&l->n_conns, n);
	pthread_mutex_lock(&p->lock);
	had = atomic_fetch_sub(&p->n_conns, n);
	if (had == n)
		pthread_cond_signal(&p->gone);
	pthread_mutex_unlock(&p->lock);
	if (had >= p->limit) /* others wait for this */
		mw_proxy_wake_all(p);
}

/* ---- listening ---- */

static void
listen_off(struct mw_proxy_loop *l)
{
	struct mw_proxy *p = l->proxy;
	for (size_t i = 0; i < p->n_ways; i++)
		(void)epoll_ctl(l->ep, EPOLL_CTL_DEL, p->way[i].listener.fd, NULL);
	l->listening = false;
}

static void
listen_on(struct mw_proxy_loop *l)
{
	struct mw_proxy *p = l->proxy;
	for (size_t i = 0; i < p->n_ways; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE,
		                         .data.ptr = &p->way[i].listening};
		if (epoll_ctl(l->ep, EPOLL_CTL_ADD, p->way[i].listener.fd, &ev) < 0) {
			listen_off(l);
			l->listen_at_us = mw_proxy_now(p) + PAUSE_MS * MS;
			return;
		}
	}
	l->listening = true;
}

/* At session_limit they wait in the queue for a moment: perhaps somebody goes. */
static bool
hold(struct mw_proxy *p, bool full, int64_t now)
{
	int64_t since = atomic_load(&p->full_us);
	if (!full) {
		if (since)
			atomic_store(&p->full_us, 0);
		return false;
	}
	if (!since && atomic_compare_exchange_strong(&p->full_us, &since, now))
		return true;
	return now - since < FULL_MS * MS;
}

static bool
is_full(const struct mw_proxy *p)
{
	return atomic_load(&p->n_conns) >= p->limit;
}

static void
listen_as_fits(struct mw_proxy_loop *l, int64_t now)
{
	struct mw_proxy *p = l->proxy;
	if (l->deaf)
		return;
	if (atomic_load(&p->no_more)) {
		listen_off(l);
		l->deaf = true;
		pthread_mutex_lock(&p->lock);
		p->n_hear--;
		pthread_cond_signal(&p->gone);
		pthread_mutex_unlock(&p->lock);
		return;
	}
	bool want = !hold(p, is_full(p), now) && now >= l->listen_at_us;
	if (want && !l->listening)
		listen_on(l);
	else if (!want && l->listening)
		listen_off(l);
}

/* Not more than once a second. */
static void
complain(struct mw_proxy *p, const struct mw_way *w, const char *why)
{
	int64_t now = mw_proxy_now(p), from = atomic_load(&p->warn_us);
	if (now >= from &&
	    atomic_compare_exchange_strong(&p->warn_us, &from, now + 1000 * MS))
		mw_log(MW_LOG_WARN, NULL, "event=accept_failed on=%s reason=\"%s\"",
		       w->listener.name, why);
}

/* One more than session_limit is told so. */
static void
turn_away(struct mw_proxy *p, const struct mw_way *w, int fd)
{
	static const char text[] = "421 4.3.2 Too many sessions, try again later\r\n";
	complain(p, w, "session_limit reached");
	(void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
}

/* The kernel wakes the same loop for each client as long as it is not busy. */
static struct mw_proxy_loop *
idlest(struct mw_proxy_loop *l)
{
	struct mw_proxy *p = l->proxy;
	struct mw_proxy_loop *to = l;
	for (unsigned i = 0; i < p->n_loops; i++)
		if (atomic_load(&p->loop[i].n_conns) < atomic_load(&to->n_conns))
			to = &p->loop[i];
	return to;
}

/* With the loop that has the fewest. False: there is no memory. */
static bool
begin_one(struct mw_proxy_loop *l, const struct mw_way *w, int fd)
{
	struct mw_proxy_loop *to = idlest(l);
	struct mw_proxy_conn *c = mw_proxy_conn_new(to, w, fd);
	if (!c)
		return false;
	if (to == l) {
		mw_proxy_conn_begin(c);
		return true;
	}
	pthread_mutex_lock(&to->lock);
	c->next_done = to->fresh;
	to->fresh = c;
	wake(to);
	pthread_mutex_unlock(&to->lock);
	return true;
}

/* Takes one connection; more than that are told again. */
static void
accept_one(struct mw_proxy_loop *l, const struct mw_way *w)
{
	struct mw_proxy *p = l->proxy;
	bool full = is_full(p);
	if (!l->listening || hold(p, full, mw_proxy_now(p)))
		return;
	bool crowded = mw_listen_crowded(w->listener.fd);
	int fd = crowded
	             ? -1
	             : accept4(w->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0 && full) {
		turn_away(p, w, fd);
		return;
	}
	if (fd >= 0 && begin_one(l, w, fd))
		return;
	if (fd < 0 && !crowded && errno != EMFILE && errno != ENFILE && errno != ENOMEM &&
	    errno != ENOBUFS)
		return; /* it went away, or to another loop */
	complain(p, w,
	         crowded  ? "no descriptors to spare"
	         : fd < 0 ? strerror(errno)
	                  : "no memory");
	if (fd >= 0)
		(void)close(fd);
	listen_off(l); /* they wait in the queue */
	l->listen_at_us = mw_proxy_now(p) + PAUSE_MS * MS;
}

/* ---- the loop ---- */

/* In the order in which they came. */
static struct mw_proxy_conn *
in_order(struct mw_proxy_conn *c)
{
	struct mw_proxy_conn *rev = NULL;
	while (c) {
		struct mw_proxy_conn *next = c->next_done;
		c->next_done = rev;
		rev = c;
		c = next;
	}
	return rev;
}

/* What other threads have left. */
static void
take_done(struct mw_proxy_loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct mw_proxy_conn *done = in_order(l->done), *fresh = in_order(l->fresh);
	struct mw_lookup *u = l->found;
	l->done = l->fresh = NULL;
	l->found = NULL;
	pthread_mutex_unlock(&l->lock);
	while (done) {
		struct mw_proxy_conn *next = done->next_done;
		mw_proxy_conn_committed(done);
		done = next;
	}
	while (fresh) {
		struct mw_proxy_conn *next = fresh->next_done;
		mw_proxy_conn_begin(fresh);
		fresh = next;
	}
	while (u) {
		struct mw_lookup *next = u->next;
		mw_proxy_found(u);
		u = next;
	}
}

static void
on_event(struct mw_proxy_loop *l, const struct epoll_event *ev)
{
	struct mw_watch *w = ev->data.ptr;
	switch (w->kind) {
	case MW_WATCH_WAKE:
		take_done(l);
		break;
	case MW_WATCH_LISTENER:
		accept_one(l, w->of);
		break;
	default:
		mw_proxy_conn_ready(w->of, w, ev->events);
	}
}

/* Deadlines, when one may have passed; and a stop, which all are told of. */
static void
look_after(struct mw_proxy_loop *l, int64_t now)
{
	struct mw_proxy_conn *c, *next;
	int stop = atomic_load(&l->proxy->stop);
	bool told = stop != l->stop;
	if (!told && now < l->look_at_us)
		return;
	l->stop = stop;
	l->look_at_us = INT64_MAX;
	for (c = TAILQ_FIRST(&l->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (told)
			mw_proxy_conn_turn(c);
		int64_t at = mw_proxy_conn_look(c, now);
		l->look_at_us = MW_MIN(l->look_at_us, at);
	}
}

/* Returns when to come again. */
static int64_t
every_second(struct mw_proxy *p, int64_t at, int64_t now)
{
	if (now < at)
		return at;
	mw_outbox_flush(&p->outbox);
	mw_proxy_expire(p, false);
	return now + MW_OUTBOX_FLUSH_MS * MS;
}

static int
wait_ms(const struct mw_proxy_loop *l, int64_t at, int64_t now)
{
	at = MW_MIN(at, l->look_at_us);
	if (!l->deaf && !l->listening)
		at = MW_MIN(at, now + PAUSE_MS * MS);
	if (at == INT64_MAX)
		return -1;
	return at <= now ? 0 : (int)MW_MIN((at - now) / 1000 + 1, 3600000);
}

static void *
loop_main(void *arg)
{
	struct mw_proxy_loop *l = arg;
	struct mw_proxy *p = l->proxy;
	struct epoll_event ev[EVENTS];
	bool first = l == &p->loop[0];
	int64_t now = mw_proxy_now(p), again = first ? now : INT64_MAX;
	pthread_mutex_lock(&p->lock); /* until all have been started */
	pthread_mutex_unlock(&p->lock);
	while (!atomic_load(&p->quit)) {
		listen_as_fits(l, now);
		int n = epoll_wait(l->ep, ev, EVENTS, wait_ms(l, again, now));
		for (int i = 0; i < n; i++)
			on_event(l, &ev[i]);
		now = mw_proxy_now(p);
		look_after(l, now);
		bury(l);
		if (first)
			again = every_second(p, again, now);
	}
	take_done(l); /* names that nobody waits for */
	return NULL;
}

/* ---- start and end ---- */

static int
loop_make(struct mw_proxy *p, struct mw_proxy_loop *l, struct mw_err *err)
{
	l->proxy = p;
	l->look_at_us = INT64_MAX;
	TAILQ_INIT(&l->conns);
	TAILQ_INIT(&l->over);
	(void)pthread_mutex_init(&l->lock, NULL); /* cannot fail with NULL attributes */
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	l->wake = (struct mw_watch){.kind = MW_WATCH_WAKE,
	                            .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	p->n_loops++;
	if (l->ep < 0 || l->wake.fd < 0)
		return mw_fail_errno(err, "cannot make what a thread waits on");
	/* Edge-triggered: each write is an event, and nobody needs to read it. */
	if (!mw_proxy_watch(l, &l->wake, EPOLLIN | EPOLLET))
		return mw_fail_errno(err, "cannot wait for an eventfd");
	l->scratch = malloc(MW_PROXY_READ);
	return l->scratch ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

/* None of them begins before all are there: those of a start that fails have taken no
 * connection. */
static int
run_all(struct mw_proxy *p, struct mw_err *err)
{
	int r = 0;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->n_loops && r == 0; i++) {
		struct mw_proxy_loop *l = &p->loop[i];
		l->running = pthread_create(&l->thread, NULL, loop_main, l) == 0;
		if (!l->running) {
			atomic_store(&p->quit, true);
			r = mw_fail(err, MW_EUNAVAIL, "cannot start a thread");
		}
	}
	p->n_hear = p->n_loops;
	pthread_mutex_unlock(&p->lock);
	return r;
}

int
mw_proxy_loops_start(struct mw_proxy *p, struct mw_err *err)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = cpus < 1                ? 1
	             : cpus > MW_PROXY_LOOPS ? MW_PROXY_LOOPS
	                                     : (unsigned)cpus;
	p->pool = mw_pool_new(MW_PROXY_LOOPS);
	if (!p->pool)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++) {
		int r = loop_make(p, &p->loop[i], err);
		if (r < 0)
			return r;
	}
	return run_all(p, err);
}

bool
mw_proxy_loops_end(struct mw_proxy *p)
{
	/* What it still finds is left with the loops. */
	bool found = mw_pool_end(p->pool, LOOK_UP_S);
	atomic_store(&p->quit, true);
	mw_proxy_wake_all(p);
	for (unsigned i = 0; i < p->n_loops; i++)
		if (p->loop[i].running)
			(void)pthread_join(p->loop[i].thread, NULL);
	for (unsigned i = 0; i < p->n_loops; i++) {
		struct mw_proxy_loop *l = &p->loop[i];
		if (l->ep >= 0)
			(void)close(l->ep);
		free(l->scratch);
		if (!found)
			continue;
		if (l->wake.fd >= 0)
			(void)close(l->wake.fd);
		pthread_mutex_destroy(&l->lock);
	}
	return found;
}
