#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	CONNECT_MS = 30000,
	LINGER_MS = 500,
	READ_SIZE = 32 * 1024,
	WIRE_MAX = 256 * 1024, /* encrypted, not yet taken by the peer */
};

static int64_t
now_us(const struct mw_proxy_conn *c)
{
	return c->proxy->cap->clock->mono_us(c->proxy->cap->clock);
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* ---- to the next server ---- */

/* Waits for a connect() that is under way. */
static int
connected(struct mw_proxy_conn *c, int fd, int64_t until_us)
{
	int e = 0;
	socklen_t n = sizeof e;
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = POLLOUT},
		                      {.fd = c->wake, .events = POLLIN}};
		int64_t left = (until_us - now_us(c)) / 1000;
		int r = poll(p, 2, (int)MW_MAX(left, 0));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		errno = r == 0 ? ETIMEDOUT : ECANCELED;
		if (r == 0 || p[1].revents)
			return -1;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
			return -1;
		errno = e;
		return e ? -1 : 0;
	}
}

static int
try_address(struct mw_proxy_conn *c, const struct sockaddr *sa, socklen_t n,
            int64_t until_us)
{
	MW_AUTOCLOSE int fd =
	    socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;
	if (fd < 0)
		return -1;
	if (connect(fd, sa, n) < 0) {
		/* EAGAIN: a unix socket with a full queue, which cannot be waited for */
		if (errno != EINPROGRESS || connected(c, fd, until_us) < 0)
			return -1;
	}
	if (sa->sa_family != AF_UNIX) /* else answers wait for acknowledgements */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return MW_TAKE_FD(fd);
}

/* The next server's descriptor, or -1 with the reason. */
static int
connect_next(struct mw_proxy_conn *c, char *why, size_t n)
{
	const struct mw_place *p = &c->way->next;
	int64_t until = now_us(c) + CONNECT_MS * INT64_C(1000);
	int fd = -1;
	if (p->path) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		memcpy(un.sun_path, p->path, strlen(p->path)); /* length was checked */
		fd = try_address(c, (const struct sockaddr *)&un, sizeof un, until);
		if (fd < 0)
			(void)snprintf(why, n, "cannot connect: %s", strerror(errno));
		return fd;
	}
	struct addrinfo hint = {.ai_family = p->family, .ai_socktype = SOCK_STREAM},
	                *list = NULL;
	int g = getaddrinfo(p->host, p->port, &hint, &list);
	if (g != 0) {
		(void)snprintf(why, n, "cannot resolve: %s", gai_strerror(g));
		return -1;
	}
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = try_address(c, a->ai_addr, a->ai_addrlen, until);
	if (fd < 0)
		(void)snprintf(why, n, "cannot connect: %s", strerror(errno));
	freeaddrinfo(list);
	return fd;
}

/* Fills o->peer from the address, text in buf. */
static void
who(int fd, struct mw_dialog_opts *o, char buf[64])
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
	if (fd >= 0)
		who(fd, &o, buf);
	return o.trusted;
}

/* Asked of each connection: a name may have addresses here and elsewhere. */
static void
note_place(struct mw_proxy_conn *c)
{
	c->dialog.o.next_local = c->way->next.path || is_local(c->next);
}

static void
connect_or_tell(struct mw_proxy_conn *c)
{
	char why[160];
	close_fd(&c->next);
	mw_proxy_unkeep(c);
	c->dialog.reconnect = false;
	c->next = connect_next(c, why, sizeof why);
	note_place(c);
	if (c->next < 0)
		mw_dialog_next_down(&c->dialog, why);
}

/* ---- both ways ---- */

/* Sends what can be sent now. False: that side takes no more. */
static bool
flush(int fd, struct mw_buf *b)
{
	size_t at = 0;
	bool ok = true;
	while (fd >= 0 && at < b->n) {
		ssize_t n = send(fd, b->p + at, b->n - at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			ok = errno == EAGAIN;
			break;
		}
		at += (size_t)n;
	}
	mw_buf_drop(b, at);
	return ok;
}

/* >0: bytes; 0: the other side has ended; -1: nothing now. */
static ssize_t
take(int fd, char *buf)
{
	ssize_t n = recv(fd, buf, READ_SIZE, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -1;
	return MW_MAX(n, 0);
}

/* The same through TLS, where there is some. */
static bool
flush_side(int fd, struct mw_tls *t, struct mw_buf *plain, struct mw_buf *wire)
{
	struct mw_err ignored; /* what went wrong is told when it is read */
	if (!t)
		return flush(fd, plain);
	bool ok = wire->n > WIRE_MAX || mw_tls_output(t, plain, wire, &ignored) == 0;
	return flush(fd, wire) && ok;
}

/* Is anything still to be sent to the client? What it is told during a handshake cannot
 * be, until that is done. */
static bool
owed(const struct mw_proxy_conn *c)
{
	bool can = !c->tls || mw_tls_up(c->tls);
	return (can && c->dialog.to_client.n) || c->wire.n;
}

/* Are more bytes of the client welcome? */
static bool
hungry(const struct mw_proxy_conn *c)
{
	bool between = c->dialog.start_tls && !c->tls; /* the 220 is not out yet */
	return mw_dialog_hungry(&c->dialog) && !between && c->wire.n < WIRE_MAX;
}

/* Begins TLS on the sides where that was agreed on, when all is out that went before. */
static void
start_tls(struct mw_proxy_conn *c)
{
	struct mw_dialog *d = &c->dialog;
	struct mw_err ignored; /* told when the peer's answer is read */
	if (d->start_tls && !c->tls && d->to_client.n == 0) {
		c->tls = mw_proxy_tls(c->proxy);
		if (!c->tls) {
			close_fd(&c->client);
			mw_dialog_client_eof(d);
		}
	}
	if (d->start_next_tls && !c->next_tls && d->to_next.n == 0) {
		c->next_tls = mw_tls_new(c->proxy->next_ctx, c->way->next.host);
		if (!c->next_tls ||
		    mw_tls_input(c->next_tls, "", 0, &c->plain, &ignored) < 0 ||
		    !flush_side(c->next, c->next_tls, &d->to_next, &c->next_wire))
			mw_dialog_next_down(d, "cannot start TLS");
	}
}

static void
from_client(struct mw_proxy_conn *c, const char *p, size_t n)
{
	struct mw_dialog *d = &c->dialog;
	struct mw_err err = {0};
	if (!c->tls) {
		mw_dialog_client(d, p, n);
		return;
	}
	mw_buf_clear(&c->plain);
	int r = mw_tls_input(c->tls, p, n, &c->plain, &err);
	if (d->start_tls && mw_tls_up(c->tls))
		mw_dialog_tls_up(d, mw_tls_version(c->tls), mw_tls_cipher(c->tls),
		                 mw_tls_bits(c->tls));
	if (c->plain.n)
		mw_dialog_client(d, c->plain.p, c->plain.n);
	if (c->plain.n)
		explicit_bzero(c->plain.p, c->plain.n); /* it may have held a password */
	if (r < 0)
		mw_log(MW_LOG_NOTICE, NULL, "event=tls_failed on=%s reason=\"%s\"",
		       d->o.on, err.msg);
	if (r)
		mw_dialog_client_eof(d);
}

static void
from_next(struct mw_proxy_conn *c, const char *p, size_t n)
{
	struct mw_dialog *d = &c->dialog;
	struct mw_err err = {0};
	if (!c->next_tls) {
		mw_dialog_next(d, p, n);
		return;
	}
	mw_buf_clear(&c->plain);
	int r = mw_tls_input(c->next_tls, p, n, &c->plain, &err);
	if (d->start_next_tls && mw_tls_up(c->next_tls))
		mw_dialog_next_tls_up(d);
	if (c->plain.n)
		mw_dialog_next(d, c->plain.p, c->plain.n);
	if (r)
		mw_dialog_next_down(d, r < 0 ? err.msg : "it closed the connection");
}

static void
flush_both(struct mw_proxy_conn *c)
{
	struct mw_dialog *d = &c->dialog;
	/* Before the client hears the answer to QUIT: the next one may come at once. */
	if (d->keep_next)
		mw_proxy_park(c);
	/* A client that does not read may still be owed a delivery: go on without it. */
	start_tls(c);
	if (!flush_side(c->client, c->tls, &d->to_client, &c->wire)) {
		close_fd(&c->client);
		mw_dialog_client_eof(d);
	}
	if (c->client < 0) {
		mw_buf_clear(&d->to_client);
		mw_buf_clear(&c->wire);
	}
	mw_dialog_flushed(d);
	if (!d->close_next && c->next >= 0 &&
	    !flush_side(c->next, c->next_tls, &d->to_next, &c->next_wire)) {
		/* It may have said why before it closed. */
		char buf[READ_SIZE];
		ssize_t n = take(c->next, buf);
		if (n > 0)
			from_next(c, buf, (size_t)n);
		mw_dialog_next_down(d, "it takes no more data");
	}
	if (d->close_next) {
		close_fd(&c->next);
		mw_buf_clear(&d->to_next);
		mw_buf_clear(&c->next_wire);
	}
	start_tls(c); /* the answer to STARTTLS may be out by now */
}

static void
handle(struct mw_proxy_conn *c, const struct pollfd p[3])
{
	struct mw_dialog *d = &c->dialog;
	char buf[READ_SIZE];
	uint64_t woken = 0;
	if (p[2].revents && read(c->wake, &woken, sizeof woken) == sizeof woken &&
	    woken >= MW_PROXY_WAKE_COMMITTED)
		mw_dialog_committed(d);
	if (p[1].revents && c->next >= 0 && !d->close_next) {
		ssize_t n = take(c->next, buf);
		if (n > 0)
			from_next(c, buf, (size_t)n);
		if (n == 0)
			mw_dialog_next_down(d, "it closed the connection");
	}
	if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && hungry(c)) {
		ssize_t n = take(c->client, buf);
		if (n > 0)
			from_client(c, buf, (size_t)n);
		if (n == 0)
			mw_dialog_client_eof(d);
	}
}

/* One turn of the loop; false: the connection has come to its end. */
static bool
turn(struct mw_proxy_conn *c)
{
	struct mw_dialog *d = &c->dialog;
	int stop = atomic_load(&c->proxy->stop);
	if (stop)
		mw_dialog_stop(d);
	flush_both(c);
	if (d->reconnect) {
		connect_or_tell(c);
		flush_both(c);
	}
	if (d->state != MW_DI_COMMIT && (stop > 1 || (d->close_client && !owed(c))))
		return false;
	struct pollfd p[3] = {{.fd = -1}, {.fd = -1}, {.fd = c->wake, .events = POLLIN}};
	p[0].events = (short)((hungry(c) ? POLLIN : 0) | (owed(c) ? POLLOUT : 0));
	/* Without an event to wait for, a hang-up would be told again and again. */
	if (p[0].events)
		p[0].fd = c->client;
	p[1].events = (short)(POLLIN | (d->to_next.n || c->next_wire.n ? POLLOUT : 0));
	p[1].fd = c->next;
	int ms = -1;
	if (d->deadline_us) {
		int64_t left = (d->deadline_us - now_us(c)) / 1000 + 1;
		ms = (int)MW_MIN(MW_MAX(left, 0), 3600000);
	}
	int r = poll(p, 3, ms);
	if (r > 0) {
		handle(c, p);
	} else if (d->deadline_us && now_us(c) >= d->deadline_us) {
		bool last = d->state == MW_DI_CLOSED; /* it never took its last words */
		mw_dialog_timeout(d);
		return !last;
	}
	return true;
}

/* Closing with unread bytes would take the last reply away from the client. */
static void
linger(struct mw_proxy_conn *c)
{
	char buf[READ_SIZE];
	int64_t until = now_us(c) + LINGER_MS * INT64_C(1000);
	if (c->client < 0 || shutdown(c->client, SHUT_WR) < 0)
		return;
	while (!atomic_load(&c->proxy->stop)) {
		struct pollfd p = {.fd = c->client, .events = POLLIN};
		int64_t left = (until - now_us(c)) / 1000;
		if (left <= 0 || poll(&p, 1, (int)left) <= 0 || take(c->client, buf) == 0)
			break;
	}
}

static void
on_done(void *arg)
{
	struct mw_proxy_conn *c = arg;
	uint64_t v = MW_PROXY_WAKE_COMMITTED;
	/* The last use of c here: the reader may free it at once. Cannot be full. */
	(void)!write(c->wake, &v, sizeof v);
}

void
mw_proxy_serve(struct mw_proxy_conn *c)
{
	char peer[64];
	struct mw_dialog_opts o = {.cap = c->proxy->cap,
	                           .outbox = &c->proxy->outbox,
	                           .lmtp = c->way->lmtp,
	                           .on = c->way->listener.name,
	                           .next = c->way->next_spec,
	                           .done = on_done,
	                           .arg = c};
	struct mw_err err = {0};
	o.tls = c->proxy->cert_file != NULL;
	o.next_tls = c->way->next.path ? MW_NEXT_TLS_NONE : c->proxy->next_tls;
	o.keep = c->proxy->keep_us > 0 && o.next_tls == MW_NEXT_TLS_NONE;
	who(c->client, &o, peer);
	if (mw_dialog_init(&c->dialog, &o, &err) < 0) {
		mw_log(MW_LOG_ERR, NULL, "event=session_failed on=%s error=%s", o.on,
		       mw_err_name(err.code));
		close_fd(&c->client);
		return;
	}
	if (o.keep && mw_proxy_reuse(c, o.trusted)) {
		note_place(c);
		mw_dialog_next_used(&c->dialog, &c->kept->known);
	} else {
		connect_or_tell(c);
	}
	while (turn(c))
		;
	close_fd(&c->next);
	mw_proxy_unkeep(c);
	if (!c->dialog.quit)
		linger(c);
	close_fd(&c->client);
	mw_dialog_free(&c->dialog);
	mw_tls_free(c->tls);
	mw_tls_free(c->next_tls);
	mw_buf_free(&c->wire);
	mw_buf_free(&c->next_wire);
	mw_buf_free(&c->plain);
}
