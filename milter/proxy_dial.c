/* proxy_dial.c - connections to the next server are made without waiting for it. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	CONNECT_MS = 30000,
};

void
mw_proxy_who(int fd, struct mw_dialog_opts *o, char buf[64])
{
	struct sockaddr_storage ss = {0};
	socklen_t n = sizeof ss;
	char port[16];
	buf[0] = 0;
	if (getpeername(fd, (struct sockaddr *)&ss, &n) < 0)
		return;
	o->trusted = ss.ss_family == AF_UNIX;
	if (ss.ss_family == AF_UNIX ||
	    getnameinfo((struct sockaddr *)&ss, n, buf, 64, port, sizeof port,
	                NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	if (strncmp(buf, "::ffff:", 7) == 0)
		memmove(buf, buf + 7, strlen(buf + 7) + 1);
	o->peer = mw_strz(buf);
	o->peer_port = (unsigned)strtoul(port, NULL, 10);
	o->trusted = strncmp(buf, "127.", 4) == 0 || strcmp(buf, "::1") == 0;
}

/* Is the peer on this host? */
static bool
is_local(int fd)
{
	struct mw_dialog_opts o = {0};
	char buf[64];
	mw_proxy_who(fd, &o, buf);
	return o.trusted;
}

/* ---- one address after the other ---- */

static void
let_go(struct mw_lookup *u)
{
	if (--u->refs > 0)
		return;
	if (u->list)
		freeaddrinfo(u->list);
	free(u);
}

static void
forget_addresses(struct mw_proxy_conn *c)
{
	c->dialing = false;
	c->addr = NULL;
	if (c->found)
		let_go(c->found);
	c->found = NULL;
}

static void
wait_no_more(struct mw_proxy_conn *c)
{
	struct mw_lookup *u = c->lookup;
	if (!u)
		return;
	c->lookup = NULL;
	TAILQ_REMOVE(&u->waiting, c, waits);
	if (!TAILQ_EMPTY(&u->waiting))
		return;
	LIST_REMOVE(u, asking);
	atomic_store(&u->given_up, true);
}

void
mw_proxy_hang_up(struct mw_proxy_conn *c)
{
	mw_proxy_close(c->loop, &c->next);
	wait_no_more(c);
	forget_addresses(c);
}

static void
failed(struct mw_proxy_conn *c, const char *what, const char *reason)
{
	char why[160];
	(void)snprintf(why, sizeof why, "%s: %s", what, reason);
	mw_proxy_hang_up(c);
	mw_dialog_next_down(&c->dialog, why);
}

static void
up(struct mw_proxy_conn *c)
{
	int on = 1;
	forget_addresses(c);
	/* Asked of each connection: a name may have addresses here and elsewhere. */
	c->dialog.o.next_local = c->way->next.path || is_local(c->next.fd);
	if (!c->way->next.path) /* else answers wait for acknowledgements */
		(void)setsockopt(c->next.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* 0; 1: it is under way; -1 with errno. */
static int
try_address(struct mw_proxy_conn *c, const struct sockaddr *sa, socklen_t n)
{
	MW_AUTOCLOSE int fd =
	    socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (mw_listen_too_far(fd)) {
		errno = EMFILE;
		return -1;
	}
	int r = connect(fd, sa, n) < 0;
	/* EAGAIN: a unix socket with a full queue, which cannot be waited for */
	if (r && errno != EINPROGRESS)
		return -1;
	c->next.fd = MW_TAKE_FD(fd);
	return r;
}

/* From c->addr on; error is what the one before has met. */
static void
try_addresses(struct mw_proxy_conn *c, int error)
{
	for (; c->addr; c->addr = c->addr->ai_next) {
		int r = try_address(c, c->addr->ai_addr, c->addr->ai_addrlen);
		if (r == 0) {
			up(c);
			return;
		}
		if (r > 0) {
			c->dialing = true;
			return;
		}
		error = errno;
	}
	failed(c, "cannot connect", strerror(error));
}

void
mw_proxy_dialed(struct mw_proxy_conn *c)
{
	struct pollfd p = {.fd = c->next.fd, .events = POLLOUT};
	int e = 0;
	socklen_t n = sizeof e;
	if (poll(&p, 1, 0) == 0)
		return; /* that was an event of the address before */
	if (getsockopt(c->next.fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
		e = errno;
	if (e == 0) {
		up(c);
		return;
	}
	mw_proxy_close(c->loop, &c->next);
	c->addr = c->addr->ai_next;
	try_addresses(c, e);
}

void
mw_proxy_dial_late(struct mw_proxy_conn *c)
{
	failed(c, "cannot connect", strerror(ETIMEDOUT));
}

/* ---- names ---- */

static int
addresses(const struct mw_place *p, int flags, struct addrinfo **ret)
{
	struct addrinfo hint = {.ai_family = p->family,
	                        .ai_socktype = SOCK_STREAM,
	                        .ai_flags = flags};
	return getaddrinfo(p->host, p->port, &hint, ret);
}

void
mw_proxy_where(struct mw_way *w)
{
	if (!w->next.path && addresses(&w->next, AI_NUMERICHOST, &w->next_is) != 0)
		w->next_is = NULL;
}

/* In a thread of the pool. */
static void
look_up(void *arg)
{
	struct mw_lookup *u = arg;
	struct mw_proxy_loop *l = u->loop;
	uint64_t one = 1;
	if (!atomic_load(&u->given_up))
		u->error = addresses(&u->way->next, 0, &u->list);
	pthread_mutex_lock(&l->lock);
	u->next = l->found;
	l->found = u;
	(void)!write(l->wake.fd, &one, sizeof one); /* full only if already awake */
	pthread_mutex_unlock(&l->lock);
}

void
mw_proxy_found(struct mw_lookup *u)
{
	struct mw_proxy_conn *c;
	u->refs = 1;
	if (!TAILQ_EMPTY(&u->waiting))
		LIST_REMOVE(u, asking);
	while ((c = TAILQ_FIRST(&u->waiting))) {
		TAILQ_REMOVE(&u->waiting, c, waits);
		c->lookup = NULL;
		c->found = u;
		c->addr = u->list;
		u->refs++;
		if (u->error)
			failed(c, "cannot resolve", gai_strerror(u->error));
		else
			try_addresses(c, EADDRNOTAVAIL);
		mw_proxy_conn_turn(c);
	}
	let_go(u);
}

/* The one that is under way, or one that begins. NULL: it cannot. */
static struct mw_lookup *
ask(struct mw_proxy_loop *l, const struct mw_way *w)
{
	struct mw_lookup *u;
	LIST_FOREACH(u, &l->asking, asking)
	if (u->way == w)
		return u;
	u = calloc(1, sizeof *u);
	if (!u)
		return NULL;
	*u = (struct mw_lookup){.loop = l, .way = w};
	u->job = (struct mw_job){.fn = look_up, .arg = u};
	TAILQ_INIT(&u->waiting);
	if (!mw_pool_run(l->proxy->pool, &u->job)) {
		free(u);
		return NULL;
	}
	LIST_INSERT_HEAD(&l->asking, u, asking);
	return u;
}

static void
find(struct mw_proxy_conn *c)
{
	struct mw_lookup *u = ask(c->loop, c->way);
	if (!u) {
		failed(c, "cannot resolve", "no memory, or no thread to be had");
		return;
	}
	c->lookup = u;
	c->dialing = true;
	TAILQ_INSERT_TAIL(&u->waiting, c, waits);
}

void
mw_proxy_dial(struct mw_proxy_conn *c)
{
	const struct mw_place *p = &c->way->next;
	mw_proxy_hang_up(c);
	mw_proxy_unkeep(c);
	c->dialog.reconnect = false;
	c->dial_until_us = mw_proxy_now(c->proxy) + CONNECT_MS * INT64_C(1000);
	if (p->path) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		memcpy(un.sun_path, p->path, strlen(p->path)); /* length was checked */
		int r = try_address(c, (const struct sockaddr *)&un, sizeof un);
		if (r < 0)
			failed(c, "cannot connect", strerror(errno));
		else if (r == 0)
			up(c);
		else /* which a unix socket never says */
			failed(c, "cannot connect", strerror(EINPROGRESS));
	} else if (c->way->next_is) {
		c->addr = c->way->next_is;
		try_addresses(c, EADDRNOTAVAIL);
	} else {
		find(c);
	}
}
