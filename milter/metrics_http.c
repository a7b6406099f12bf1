#include "milter/metrics.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/listen.h"

/* libmicrohttpd has a thread, a bound on connections, on memory for each and on the time
 * in which they say nothing of its own; a request body is never read. Who says a little
 * now and then has a place until somebody else wants it: the last one is always free. */

enum {
	CONNECTIONS = 17,
	TIMEOUT_S = 10,
	MEMORY = 16 * 1024
};

struct mw_metrics {
	struct mw_capture *cap;
	struct MHD_Daemon *http;
	struct mw_listener listener; /* its descriptor is http's */
	/* The connections, by the library's thread alone; fd -1: none. */
	struct place {
		int fd;
		uint64_t number; /* they are counted as they come */
	} place[CONNECTIONS];
	uint64_t came;
};

/* Notes the newest; when that was the last place, the oldest one ends. */
static void
came(struct mw_metrics *m, struct MHD_Connection *c, void **ret_place)
{
	const union MHD_ConnectionInfo *i =
	    MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct place *mine = NULL, *oldest = NULL;
	size_t n = 0;
	for (size_t k = 0; i && k < CONNECTIONS; k++) {
		struct place *p = &m->place[k];
		if (p->fd < 0 && !mine) {
			mine = p;
			*mine = (struct place){i->connect_fd, m->came++};
			*ret_place = mine;
		}
		n += p->fd >= 0;
		if (p->fd >= 0 && (!oldest || p->number < oldest->number))
			oldest = p;
	}
	if (n == CONNECTIONS)
		(void)shutdown(oldest->fd, SHUT_RDWR); /* the library then closes it */
}

static void
on_connection(void *arg, struct MHD_Connection *c, void **place,
              enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		came(arg, c, place);
	else if (*place)
		((struct place *)*place)->fd = -1;
}

static enum MHD_Result
answer(struct MHD_Connection *c, unsigned status, const char *type, struct mw_str text)
{
	struct MHD_Response *r =
	    MHD_create_response_from_buffer(text.n, (void *)(uintptr_t)text.p,
	                                    MHD_RESPMEM_MUST_COPY);
	if (!r)
		return MHD_NO;
	enum MHD_Result q = MHD_add_response_header(r, "Content-Type", type);
	if (q == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
		q = MHD_add_response_header(r, "Allow", "GET, HEAD");
	if (q == MHD_YES)
		q = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return q;
}

/* NOLINTBEGIN(readability-function-size): the library's signature */
static enum MHD_Result
on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
           const char *version, const char *body, size_t *body_n, void **per_request)
{
	struct mw_metrics *m = arg;
	MW_BUF_AUTO out = {0};
	(void)version;
	(void)body;
	(void)per_request;
	*body_n = 0; /* whatever came is dropped */
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain",
		              MW_STR("only GET\n"));
	if (strcmp(url, "/metrics") != 0)
		return answer(c, MHD_HTTP_NOT_FOUND, "text/plain",
		              MW_STR("only /metrics\n"));
	mw_metrics_text(m->cap, &out);
	if (mw_buf_ok(&out) < 0)
		return MHD_NO; /* no memory: the connection ends */
	return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
	              mw_buf_str(&out));
}
/* NOLINTEND(readability-function-size) */

/* Counts are nobody else's: this host only. */
static bool
is_local(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, sa, sizeof in6);
		return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
	}
	struct sockaddr_in in;
	memcpy(&in, sa, sizeof in);
	return sa->sa_family == AF_UNIX ||
	       (sa->sa_family == AF_INET && ntohl(in.sin_addr.s_addr) >> 24 == 127);
}

static int
not_here(const char *where, struct mw_err *err)
{
	(void)mw_fail(err, MW_ECONF, "metrics_listen: '%s' is not on this host", where);
	return mw_err_hint(err, "use unix:PATH or inet:127.0.0.1:PORT");
}

int
mw_metrics_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_place p;
	struct addrinfo *ai = NULL;
	if (!*conf->metrics_listen)
		return 0;
	int r = mw_place_parse(conf->metrics_listen, &p, err);
	if (r < 0)
		return mw_fail(err, MW_ECONF,
		               "metrics_listen: '%s' is neither unix:PATH nor "
		               "inet:HOST:PORT",
		               conf->metrics_listen);
	struct addrinfo hint = {.ai_family = p.family,
	                        .ai_socktype = SOCK_STREAM,
	                        .ai_flags = AI_NUMERICHOST};
	/* A name is asked for when it is listened on. */
	if (p.path || !p.host[0] || getaddrinfo(p.host, p.port, &hint, &ai) != 0)
		return 0;
	bool here = is_local(ai->ai_addr);
	freeaddrinfo(ai);
	return here ? 0 : not_here(conf->metrics_listen, err);
}

static int
listen_here(struct mw_capture *cap, struct mw_listener *l, struct mw_err *err)
{
	struct sockaddr_storage sa = {0};
	socklen_t n = sizeof sa;
	struct mw_settings *s = mw_capture_settings(cap);
	int r = mw_metrics_check(s->conf, err);
	if (r == 0 && (r = mw_listen_at(s->conf, s->conf->metrics_listen, l, err)) < 0)
		(void)mw_err_prefix(err, "metrics_listen");
	if (r == 0 && (getsockname(l->fd, (struct sockaddr *)&sa, &n) < 0 ||
	               !is_local((struct sockaddr *)&sa))) {
		r = not_here(s->conf->metrics_listen, err);
		(void)close(l->fd);
		mw_listen_remove(l);
	}
	mw_settings_unref(s);
	return r;
}

int
mw_metrics_start(struct mw_capture *cap, struct mw_metrics **ret, struct mw_err *err)
{
	struct mw_listener l = {.fd = -1};
	struct mw_settings *s = mw_capture_settings(cap);
	bool off = !*s->conf->metrics_listen;
	mw_settings_unref(s);
	*ret = NULL;
	if (off)
		return 0;
	int r = listen_here(cap, &l, err);
	if (r < 0)
		return r;
	struct mw_metrics *m = calloc(1, sizeof *m);
	if (m) {
		m->cap = cap;
		for (size_t i = 0; i < CONNECTIONS; i++)
			m->place[i].fd = -1;
		m->listener = l;
		l.unlink = NULL;
		m->http =
		    MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0,
		                     NULL, NULL, on_request, m, MHD_OPTION_LISTEN_SOCKET,
		                     l.fd, MHD_OPTION_CONNECTION_LIMIT,
		                     (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
		                     (unsigned)TIMEOUT_S,
		                     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
		                     MHD_OPTION_NOTIFY_CONNECTION, on_connection, m,
		                     MHD_OPTION_END);
	}
	if (!m || !m->http) {
		(void)close(l.fd);
		free(l.unlink);
		mw_metrics_stop(m);
		return mw_fail(err, MW_EIO, "metrics_listen: cannot start serving");
	}
	mw_log(MW_LOG_NOTICE, NULL, "event=metrics on=%s", l.name);
	*ret = m;
	return 0;
}

void
mw_metrics_stop(struct mw_metrics *m)
{
	if (!m)
		return;
	if (m->http)
		MHD_stop_daemon(m->http); /* closes the socket too */
	mw_listen_remove(&m->listener);
	free(m);
}
