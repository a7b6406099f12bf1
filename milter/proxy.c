#include "milter/proxy.h"

#include <netdb.h>
#include <string.h>
#include <sys/stat.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	STOP_S = 6,  /* for replies to ends of messages */
	DRAIN_S = 3, /* for sessions to end, when others accept in our place */
};

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
	if (r == 0)
		mw_proxy_where(w);
	return r < 0 ? mw_err_prefix(err, "proxy_listen") : 0;
}

static void
proxy_free(struct mw_proxy *p)
{
	bool found = mw_proxy_loops_end(p);
	mw_proxy_expire(p, true);
	for (size_t i = 0; i < p->n_ways; i++) {
		struct mw_listener *l = &p->way[i].listener;
		mw_listen_remove(l);
		if (l->fd >= 0)
			(void)close(l->fd);
		if (p->way[i].next_is)
			freeaddrinfo(p->way[i].next_is);
		if (found)
			free(p->way[i].next_spec);
	}
	mw_outbox_done(&p->outbox);
	mw_tls_ctx_free(p->ctx);
	mw_tls_ctx_free(p->next_ctx);
	free(p->cert_file);
	free(p->key_file);
	if (!found) /* a name is still looked up, for nobody */
		return;
	free(p->way);
	pthread_cond_destroy(&p->gone);
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
	(void)pthread_condattr_destroy(&a);
}

static int
open_all(struct mw_proxy *p, const struct mw_conf *conf, struct mw_err *err)
{
	p->limit = (uint64_t)conf->session_limit;
	p->keep_us = conf->proxy_keep_next;
	p->way = calloc(conf->proxy_listen.n, sizeof *p->way);
	if (!p->way)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int tls = tls_open(p, conf, err);
	if (tls < 0)
		return tls;
	for (size_t i = 0; i < conf->proxy_listen.n; i++) {
		int r =
		    way_open(conf, conf->proxy_listen.v[i], &p->way[p->n_ways++], err);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < p->n_ways; i++)
		p->way[i].listening = (struct mw_watch){.kind = MW_WATCH_LISTENER,
		                                        .fd = -1,
		                                        .of = &p->way[i]};
	return mw_proxy_loops_start(p, err);
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
			TAILQ_INIT(&p->kept);
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

static void
tell_all(struct mw_proxy *p, int stop)
{
	atomic_store(&p->stop, stop);
	mw_proxy_wake_all(p);
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
	while (atomic_load(&p->n_conns))
		if (pthread_cond_timedwait(&p->gone, &p->lock, &until) != 0)
			break;
}

void
mw_proxy_stop(struct mw_proxy *p, bool drain)
{
	if (!p)
		return;
	atomic_store(&p->no_more, true);
	mw_proxy_wake_all(p);
	pthread_mutex_lock(&p->lock);
	while (p->n_hear)
		(void)pthread_cond_wait(&p->gone, &p->lock);
	if (drain)
		wait_gone(p, DRAIN_S);
	tell_all(p, 1);
	wait_gone(p, STOP_S);
	if (atomic_load(&p->n_conns))
		tell_all(p, 2);
	while (atomic_load(&p->n_conns)) /* the store answers, in the end */
		(void)pthread_cond_wait(&p->gone, &p->lock);
	pthread_mutex_unlock(&p->lock);
	proxy_free(p);
}
