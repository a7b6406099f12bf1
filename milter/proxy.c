#include "milter/proxy.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	STACK = 512 * 1024, /* getaddrinfo wants much of it */
	IDLE_S = 5,         /* that a thread waits for another connection */
	FULL_MS = 1000,     /* at session_limit until clients are turned away */
	PAUSE_MS = 200,     /* when no descriptor or thread can be had */
	STOP_S = 6,         /* for replies to ends of messages */
	DRAIN_S = 3,        /* for sessions to end, when others accept in our place */
};

static void
wake(int fd, uint64_t v)
{
	(void)!write(fd, &v, sizeof v); /* full only if already awake */
}

/* ---- connections ---- */

static void
conn_over(struct mw_proxy_conn *c)
{
	struct mw_proxy *p = c->proxy;
	TAILQ_REMOVE(&p->conns, c, link);
	(void)close(c->wake); /* under the lock: stop may write to it */
	free(c);
	/* At the limit the listening thread waits for this. */
	if (p->n_conns-- >= p->limit)
		wake(p->wake, 1);
}

/* Called with the lock: the next connection for this thread; NULL: it is to end. */
static struct mw_proxy_conn *
next_conn(struct mw_proxy *p)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_S;
	int r = 0;
	p->n_idle++;
	while (!p->n_fresh && !atomic_load(&p->no_more) && r == 0)
		r = pthread_cond_timedwait(&p->work, &p->lock, &until);
	p->n_idle--;
	struct mw_proxy_conn *c = TAILQ_FIRST(&p->fresh);
	if (c) {
		TAILQ_REMOVE(&p->fresh, c, fresh);
		p->n_fresh--;
	}
	return c;
}

static void *
conn_main(void *arg)
{
	struct mw_proxy_conn *c = arg;
	struct mw_proxy *p = c->proxy;
	while (c) {
		mw_proxy_serve(c);
		pthread_mutex_lock(&p->lock);
		conn_over(c);
		pthread_cond_signal(&p->gone);
		c = next_conn(p);
		if (!c) {
			p->n_threads--;
			pthread_cond_signal(&p->gone);
		}
		pthread_mutex_unlock(&p->lock); /* after the last one p may be gone */
	}
	return NULL;
}

static int
start_thread(struct mw_proxy_conn *c)
{
	pthread_attr_t a;
	pthread_t t;
	if (pthread_attr_init(&a) != 0)
		return -1;
	int r = pthread_attr_setstacksize(&a, STACK);
	if (r == 0)
		r = pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	if (r == 0)
		r = pthread_create(&t, &a, conn_main, c);
	(void)pthread_attr_destroy(&a);
	return r == 0 ? 0 : -1;
}

/* Gives c to a thread that waits, or to a new one. False: there is none to be had. */
static bool
conn_start(struct mw_proxy *p, struct mw_proxy_conn *c)
{
	pthread_mutex_lock(&p->lock);
	TAILQ_INSERT_TAIL(&p->conns, c, link);
	p->n_conns++;
	bool waits = p->n_idle > p->n_fresh;
	if (waits) {
		TAILQ_INSERT_TAIL(&p->fresh, c, fresh);
		p->n_fresh++;
		pthread_cond_signal(&p->work);
	} else {
		p->n_threads++;
	}
	pthread_mutex_unlock(&p->lock);
	if (waits || start_thread(c) == 0)
		return true;
	pthread_mutex_lock(&p->lock);
	TAILQ_REMOVE(&p->conns, c, link);
	p->n_conns--;
	p->n_threads--;
	pthread_mutex_unlock(&p->lock);
	return false;
}

/* Takes fd over; false: there is no room for it now. */
static bool
conn_new(struct mw_proxy *p, const struct mw_way *w, int fd)
{
	struct mw_proxy_conn *c = calloc(1, sizeof *c);
	int on = 1;
	if (c) {
		*c = (struct mw_proxy_conn){
		    .proxy = p, .way = w, .client = fd, .next = -1, .wake = -1};
		c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
	if (w->listener.inet)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (c && c->wake >= 0 && conn_start(p, c))
		return true;
	if (c && c->wake >= 0)
		(void)close(c->wake);
	free(c);
	(void)close(fd);
	return false;
}

/* One more than session_limit is told so, and does not take a thread. */
static void
turn_away(struct mw_proxy *p, const struct mw_way *w, int fd)
{
	static const char text[] = "421 4.3.2 Too many sessions, try again later\r\n";
	int64_t now = p->cap->clock->mono_us(p->cap->clock);
	if (now >= p->warn_us) {
		p->warn_us = now + FULL_MS * INT64_C(1000);
		mw_log(MW_LOG_WARN, NULL,
		       "event=accept_failed on=%s reason=\"session_limit reached\"",
		       w->listener.name);
	}
	(void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
}

/* Accepts what waits on one socket. False: no more for a while. */
static bool
accept_some(struct mw_proxy *p, const struct mw_way *w, bool full)
{
	int fd = accept4(w->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0 && full) {
		turn_away(p, w, fd);
		return true;
	}
	if (fd >= 0 && conn_new(p, w, fd))
		return true;
	if (fd < 0 && errno != EMFILE && errno != ENFILE && errno != ENOMEM &&
	    errno != ENOBUFS)
		return true; /* it went away, or another one */
	mw_log(MW_LOG_WARN, NULL, "event=accept_failed on=%s reason=\"%s\"",
	       w->listener.name,
	       fd < 0 ? strerror(errno) : "no memory, descriptor or thread");
	return false;
}

static void *
proxy_main(void *arg)
{
	struct mw_proxy *p = arg;
	bool pause = false;
	int64_t flush_us = 0, full_us = 0;
	struct pollfd *v = calloc(p->n_ways + 1, sizeof *v);
	if (!v) {
		mw_log(MW_LOG_ERR, NULL, "event=accept_failed reason=\"out of memory\"");
		return NULL;
	}
	while (!atomic_load(&p->no_more)) {
		pthread_mutex_lock(&p->lock);
		bool full = p->n_conns >= p->limit;
		pthread_mutex_unlock(&p->lock);
		int64_t before = p->cap->clock->mono_us(p->cap->clock);
		if (!full || !full_us)
			full_us = full ? before : 0;
		/* for a moment they wait in the queue: perhaps somebody goes */
		bool hold = full && before - full_us < FULL_MS * INT64_C(1000);
		v[0] = (struct pollfd){.fd = p->wake, .events = POLLIN};
		for (size_t i = 0; i < p->n_ways; i++)
			v[i + 1] =
			    (struct pollfd){.fd = hold || pause ? -1
			                                        : p->way[i].listener.fd,
			                    .events = POLLIN};
		int r = poll(v, (nfds_t)(p->n_ways + 1),
		             pause || hold ? PAUSE_MS : MW_OUTBOX_FLUSH_MS);
		int64_t now = p->cap->clock->mono_us(p->cap->clock);
		if (now >= flush_us) {
			mw_outbox_flush(&p->outbox);
			mw_proxy_expire(p, false);
			flush_us = now + MW_OUTBOX_FLUSH_MS * INT64_C(1000);
		}
		pause = false;
		if (r <= 0)
			continue;
		uint64_t n;
		if (v[0].revents)
			(void)!read(p->wake, &n, sizeof n); /* only to reset it */
		for (size_t i = 0; i < p->n_ways && !pause; i++)
			if (v[i + 1].revents)
				pause = !accept_some(p, &p->way[i], full);
	}
	free(v);
	return NULL;
}

/* ---- TLS ---- */

static int64_t
file_time(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return 0;
	return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

/* Changes when either file does: they are not renewed in one moment. */
static int64_t
cert_time(const struct mw_proxy *p)
{
	return file_time(p->cert_file) + file_time(p->key_file);
}

/* Reads the files again, which one thread does for all, while the others go on with what
 * there is. */
static void
renew(struct mw_proxy *p, int64_t now)
{
	struct mw_err err = {0};
	struct mw_tls_ctx *fresh = NULL;
	if (mw_tls_server(p->cert_file, p->key_file, &fresh, &err) < 0) {
		mw_log(MW_LOG_WARN, NULL, "event=certificate_refused reason=\"%s\"",
		       err.msg);
		return;
	}
	pthread_mutex_lock(&p->lock);
	if (p->cert_time == now) { /* else they have changed once more */
		struct mw_tls_ctx *old = p->ctx;
		p->ctx = fresh;
		fresh = old;
	}
	pthread_mutex_unlock(&p->lock);
	mw_tls_ctx_free(fresh);
}

struct mw_tls *
mw_proxy_tls(struct mw_proxy *p)
{
	int64_t now = cert_time(p);
	pthread_mutex_lock(&p->lock);
	bool mine = now && now != p->cert_time;
	if (mine)
		p->cert_time = now;
	pthread_mutex_unlock(&p->lock);
	if (mine)
		renew(p, now);
	pthread_mutex_lock(&p->lock);
	struct mw_tls *t = mw_tls_new(p->ctx, NULL);
	pthread_mutex_unlock(&p->lock);
	return t;
}

static int
tls_open(struct mw_proxy *p, const struct mw_conf *conf, struct mw_err *err)
{
	const char *cert = conf->proxy_tls_cert_file, *key = conf->proxy_tls_key_file,
	           *ca = conf->proxy_next_tls_ca;
	bool any = cert && *cert, both = any && key && *key;
	if (any != (key && *key))
		return mw_fail(err, MW_ECONF,
		               "proxy_tls_cert_file and proxy_tls_key_file belong "
		               "together");
	if (both) {
		p->cert_file = strdup(cert);
		p->key_file = strdup(key);
		if (!p->cert_file || !p->key_file)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		p->cert_time = cert_time(p);
		int r = mw_tls_server(cert, key, &p->ctx, err);
		if (r)
			return r;
	}
	p->next_tls = (enum mw_next_tls)conf->proxy_next_tls;
	if (p->next_tls == MW_NEXT_TLS_NONE)
		return 0;
	return mw_tls_client(ca && *ca ? ca : NULL, p->next_tls == MW_NEXT_TLS_VERIFY,
	                     &p->next_ctx, err);
}

int
mw_proxy_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_proxy p = {0};
	int r = conf->proxy_listen.n ? tls_open(&p, conf, err) : 0;
	mw_tls_ctx_free(p.ctx);
	mw_tls_ctx_free(p.next_ctx);
	free(p.cert_file);
	free(p.key_file);
	return r;
}

/* ---- the proxy ---- */

/* "smtp:LISTEN->NEXT", as conf/ has checked it. */
static int
way_open(const struct mw_conf *conf, const char *spec, struct mw_way *w,
         struct mw_err *err)
{
	const char *arrow = strstr(spec, "->");
	w->lmtp = strncmp(spec, "lmtp:", 5) == 0;
	w->listener.fd = -1;
	if (!arrow || strlen(spec) < 5)
		return mw_fail(err, MW_ECONF, "proxy_listen: cannot understand \"%s\"",
		               spec);
	MW_AUTOFREE char *listen = strndup(spec + 5, (size_t)(arrow - spec - 5));
	w->next_spec = strdup(arrow + 2);
	if (!listen || !w->next_spec)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_place_parse(w->next_spec, &w->next, err);
	if (r == 0)
		r = mw_listen_at(conf, listen, &w->listener, err);
	return r < 0 ? mw_err_prefix(err, "proxy_listen") : 0;
}

static void
proxy_free(struct mw_proxy *p)
{
	mw_proxy_expire(p, true);
	for (size_t i = 0; i < p->n_ways; i++) {
		struct mw_listener *l = &p->way[i].listener;
		if (l->unlink)
			(void)unlink(l->unlink); /* a stale one does no harm */
		free(l->unlink);
		if (l->fd >= 0)
			(void)close(l->fd);
		free(p->way[i].next_spec);
	}
	free(p->way);
	mw_outbox_done(&p->outbox);
	mw_tls_ctx_free(p->ctx);
	mw_tls_ctx_free(p->next_ctx);
	free(p->cert_file);
	free(p->key_file);
	if (p->wake >= 0)
		(void)close(p->wake);
	pthread_cond_destroy(&p->gone);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void
init_sync(struct mw_proxy *p)
{
	pthread_condattr_t a;
	(void)pthread_mutex_init(&p->lock, NULL); /* these cannot fail on Linux */
	(void)pthread_condattr_init(&a);
	(void)pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->gone, &a);
	(void)pthread_cond_init(&p->work, &a);
	(void)pthread_condattr_destroy(&a);
}

static int
open_all(struct mw_proxy *p, const struct mw_conf *conf, struct mw_err *err)
{
	p->limit = (uint64_t)conf->session_limit;
	p->keep_us = conf->proxy_keep_next;
	p->way = calloc(conf->proxy_listen.n, sizeof *p->way);
	p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!p->way)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (p->wake < 0)
		return mw_fail_errno(err, "cannot make an eventfd");
	int tls = tls_open(p, conf, err);
	if (tls < 0)
		return tls;
	for (size_t i = 0; i < conf->proxy_listen.n; i++) {
		int r =
		    way_open(conf, conf->proxy_listen.v[i], &p->way[p->n_ways++], err);
		if (r < 0)
			return r;
	}
	if (pthread_create(&p->thread, NULL, proxy_main, p) != 0)
		return mw_fail(err, MW_EUNAVAIL, "cannot start a thread");
	p->running = true;
	return 0;
}

int
mw_proxy_start(struct mw_capture *cap, struct mw_proxy **ret, struct mw_err *err)
{
	struct mw_settings *s = mw_capture_settings(cap);
	int r = 0;
	*ret = NULL;
	if (s->conf->proxy_listen.n) {
		struct mw_proxy *p = calloc(1, sizeof *p);
		r = p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
		if (p) {
			p->cap = cap;
			p->wake = -1;
			TAILQ_INIT(&p->conns);
			TAILQ_INIT(&p->kept);
			TAILQ_INIT(&p->fresh);
			init_sync(p);
			mw_outbox_init(&p->outbox, cap->store, cap->clock);
			r = open_all(p, s->conf, err);
			if (r < 0)
				proxy_free(p);
			else
				*ret = p;
		}
	}
	mw_settings_unref(s);
	for (size_t i = 0; *ret && i < (*ret)->n_ways; i++)
		mw_log(MW_LOG_NOTICE, NULL, "event=listening on=%s engine=%s nexthop=%s",
		       (*ret)->way[i].listener.name,
		       (*ret)->way[i].lmtp ? "lmtp" : "smtp", (*ret)->way[i].next_spec);
	return r;
}

/* Called with the lock. */
static void
tell_all(struct mw_proxy *p, int stop)
{
	struct mw_proxy_conn *c;
	atomic_store(&p->stop, stop);
	TAILQ_FOREACH(c, &p->conns, link)
	wake(c->wake, MW_PROXY_WAKE_STOP);
}

size_t
mw_proxy_listeners(const struct mw_proxy *p, struct mw_listener *v, size_t max)
{
	size_t n = 0;
	for (size_t i = 0; p && i < p->n_ways && n < max; i++)
		v[n++] = p->way[i].listener;
	return n;
}

void
mw_proxy_leave(struct mw_proxy *p)
{
	for (size_t i = 0; p && i < p->n_ways; i++)
		mw_listen_leave(&p->way[i].listener);
}

/* Waits for the connections to end by themselves. Called with the lock. */
static void
wait_gone(struct mw_proxy *p, int seconds)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	while (p->n_conns)
		if (pthread_cond_timedwait(&p->gone, &p->lock, &until) != 0)
			break;
}

void
mw_proxy_stop(struct mw_proxy *p, bool drain)
{
	if (!p)
		return;
	atomic_store(&p->no_more, true);
	wake(p->wake, 1);
	if (p->running)
		(void)pthread_join(p->thread, NULL);
	pthread_mutex_lock(&p->lock);
	if (drain)
		wait_gone(p, DRAIN_S);
	tell_all(p, 1);
	wait_gone(p, STOP_S);
	if (p->n_conns)
		tell_all(p, 2);
	pthread_cond_broadcast(&p->work);
	while (p->n_threads) /* the store answers, in the end */
		(void)pthread_cond_wait(&p->gone, &p->lock);
	pthread_mutex_unlock(&p->lock);
	proxy_free(p);
}
