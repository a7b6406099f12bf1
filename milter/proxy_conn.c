#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	LINGER_MS = 500,
	PLAIN_S = 7200, /* until a message comes again whose XFORWARD was refused */
	WIRE_MAX = 256 * 1024, /* encrypted, not yet taken by the peer */
	/* not yet taken by the client: the replies to 100,000 recipients are less */
	OWED_MAX = 16 * 1024 * 1024,
};

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
	ssize_t n = recv(fd, buf, MW_PROXY_READ, 0);
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
 * be, until that is done; and nothing can once it is closed, whatever the dialog says. */
static bool
owed(const struct mw_proxy_conn *c)
{
	bool can = !c->tls || mw_tls_up(c->tls);
	return c->client.fd >= 0 && ((can && c->dialog.to_client.n) || c->wire.n);
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
			mw_proxy_close(c->loop, &c->client);
			mw_dialog_client_eof(d);
		}
	}
	if (d->start_next_tls && !c->next_tls && d->to_next.n == 0) {
		c->next_tls = mw_tls_new(c->proxy->next_ctx, c->way->next.host);
		if (!c->next_tls ||
		    mw_tls_input(c->next_tls, "", 0, &c->plain, &ignored) < 0 ||
		    !flush_side(c->next.fd, c->next_tls, &d->to_next, &c->next_wire))
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
	if (d->unforwarded)
		atomic_store(&c->proxy->plain_us,
		             mw_proxy_now(c->proxy) + PLAIN_S * INT64_C(1000000));
	d->unforwarded = false;
	/* A client that does not read may still be owed a delivery: go on without it. */
	start_tls(c);
	if (!flush_side(c->client.fd, c->tls, &d->to_client, &c->wire) ||
	    d->to_client.n > OWED_MAX) {
		mw_proxy_close(c->loop, &c->client);
		mw_dialog_client_eof(d);
	}
	if (c->client.fd < 0) {
		mw_buf_clear(&d->to_client);
		mw_buf_clear(&c->wire);
	}
	mw_dialog_flushed(d);
	if (!d->close_next && c->next.fd >= 0 && !c->dialing && !mw_dialog_holds(d) &&
	    !flush_side(c->next.fd, c->next_tls, &d->to_next, &c->next_wire)) {
		/* It may have said why before it closed. */
		ssize_t n = take(c->next.fd, c->loop->scratch);
		if (n > 0)
			from_next(c, c->loop->scratch, (size_t)n);
		mw_dialog_next_down(d, "it takes no more data");
	}
	if (d->close_next) {
		mw_proxy_hang_up(c);
		mw_buf_clear(&d->to_next);
		mw_buf_clear(&c->next_wire);
	}
	start_tls(c); /* the answer to STARTTLS may be out by now */
}

/* Nothing is owed to anybody any more. Closing with unread bytes would take the last
 * reply away from the client, so its end is awaited a little. */
static void
finish(struct mw_proxy_conn *c)
{
	mw_proxy_hang_up(c);
	mw_proxy_unkeep(c);
	c->linger_us = mw_proxy_now(c->proxy) + LINGER_MS * INT64_C(1000);
	c->lingering = !c->dialog.quit && c->client.fd >= 0 &&
	               !atomic_load(&c->proxy->stop) &&
	               shutdown(c->client.fd, SHUT_WR) == 0 &&
	               mw_proxy_watch(c->loop, &c->client, EPOLLIN);
	if (!c->lingering)
		mw_proxy_over(c);
}

static int64_t
due(const struct mw_proxy_conn *c)
{
	int64_t at = c->dialog.deadline_us ? c->dialog.deadline_us : INT64_MAX;
	if (c->over)
		return INT64_MAX;
	if (c->lingering)
		return c->linger_us;
	return c->dialing ? MW_MIN(at, c->dial_until_us) : at;
}

/* What is to be waited for. False: that cannot be done. */
static bool
watch_both(struct mw_proxy_conn *c)
{
	const struct mw_dialog *d = &c->dialog;
	uint32_t client = (hungry(c) ? EPOLLIN : 0) | (owed(c) ? EPOLLOUT : 0);
	bool more = !mw_dialog_holds(d) && (d->to_next.n || c->next_wire.n);
	uint32_t next = EPOLLIN | (more ? EPOLLOUT : 0);
	/* Without an event to wait for, a hang-up would be told again and again. */
	return mw_proxy_watch(c->loop, &c->client, client) &&
	       mw_proxy_watch(c->loop, &c->next, c->dialing ? EPOLLOUT : next);
}

static void
unwatchable(struct mw_proxy_conn *c)
{
	struct mw_dialog *d = &c->dialog;
	mw_log(MW_LOG_ERR, NULL, "event=session_failed on=%s error=%s", d->o.on,
	       mw_err_name(MW_ENOMEM));
	mw_proxy_close(c->loop, &c->client);
	mw_proxy_close(c->loop, &c->next);
	mw_dialog_client_eof(d);
	mw_dialog_next_down(d, "no memory to wait for it");
	if (d->state != MW_DI_COMMIT) /* which comes by itself */
		finish(c);
}

void
mw_proxy_conn_turn(struct mw_proxy_conn *c)
{
	struct mw_dialog *d = &c->dialog;
	int stop = atomic_load(&c->proxy->stop);
	if (c->over)
		return;
	if (c->lingering) {
		if (stop)
			mw_proxy_over(c);
		return;
	}
	if (stop)
		mw_dialog_stop(d);
	flush_both(c);
	if (d->reconnect) {
		mw_proxy_dial(c);
		flush_both(c);
	}
	if (d->state != MW_DI_COMMIT && (stop > 1 || (d->close_client && !owed(c))))
		finish(c);
	else if (!watch_both(c))
		unwatchable(c);
	c->loop->look_at_us = MW_MIN(c->loop->look_at_us, due(c));
}

static void
client_ready(struct mw_proxy_conn *c, uint32_t events)
{
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || (!c->lingering && !hungry(c)))
		return;
	ssize_t n = take(c->client.fd, c->loop->scratch);
	if (c->lingering) {
		if (n == 0)
			mw_proxy_over(c);
		return;
	}
	if (n > 0)
		from_client(c, c->loop->scratch, (size_t)n);
	if (n == 0)
		mw_dialog_client_eof(&c->dialog);
}

static void
next_ready(struct mw_proxy_conn *c, uint32_t events)
{
	if (c->dialing) {
		mw_proxy_dialed(c);
		return;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || c->dialog.close_next)
		return;
	ssize_t n = take(c->next.fd, c->loop->scratch);
	if (n > 0)
		from_next(c, c->loop->scratch, (size_t)n);
	if (n == 0)
		mw_dialog_next_down(&c->dialog, "it closed the connection");
}

void
mw_proxy_conn_ready(struct mw_proxy_conn *c, struct mw_watch *w, uint32_t events)
{
	if (c->over || w->fd < 0) /* since this event came about */
		return;
	if (w == &c->client)
		client_ready(c, events);
	else
		next_ready(c, events);
	mw_proxy_conn_turn(c);
}

void
mw_proxy_conn_committed(struct mw_proxy_conn *c)
{
	mw_dialog_committed(&c->dialog);
	mw_proxy_conn_turn(c);
}

int64_t
mw_proxy_conn_look(struct mw_proxy_conn *c, int64_t now)
{
	struct mw_dialog *d = &c->dialog;
	if (now < due(c))
		return due(c);
	if (c->lingering) {
		mw_proxy_over(c);
	} else if (c->dialing && now >= c->dial_until_us) {
		mw_proxy_dial_late(c);
		mw_proxy_conn_turn(c);
	} else if (d->state == MW_DI_CLOSED) { /* it never took its last words */
		finish(c);
	} else {
		mw_dialog_timeout(d);
		mw_proxy_conn_turn(c);
	}
	return due(c);
}

static void
on_done(void *arg)
{
	struct mw_proxy_conn *c = arg;
	struct mw_proxy_loop *l = c->loop;
	uint64_t one = 1;
	pthread_mutex_lock(&l->lock);
	bool first = !l->done;
	c->next_done = l->done;
	l->done = c;
	/* Under the lock: once it is released the loop may be gone. */
	if (first)
		(void)!write(l->wake.fd, &one, sizeof one); /* full only if awake */
	pthread_mutex_unlock(&l->lock);
}

struct mw_proxy_conn *
mw_proxy_conn_new(struct mw_proxy_loop *l, const struct mw_way *w, int fd)
{
	struct mw_proxy *p = l->proxy;
	struct mw_proxy_conn *c = calloc(1, sizeof *c);
	struct mw_err err = {0};
	int on = 1;
	if (!c)
		return NULL;
	struct mw_dialog_opts o = {.cap = p->cap,
	                           .outbox = &p->outbox,
	                           .lmtp = w->lmtp,
	                           .on = w->listener.name,
	                           .next = w->next_spec,
	                           .tls = p->cert_file != NULL,
	                           .done = on_done,
	                           .arg = c};
	o.next_tls = w->next.path ? MW_NEXT_TLS_NONE : p->next_tls;
	o.keep = p->keep_us > 0 && o.next_tls == MW_NEXT_TLS_NONE;
	mw_proxy_who(fd, &o, c->peer);
	if (mw_dialog_init(&c->dialog, &o, &err) < 0) {
		mw_log(MW_LOG_ERR, NULL, "event=session_failed on=%s error=%s", o.on,
		       mw_err_name(err.code));
		free(c);
		return NULL;
	}
	if (w->listener.inet)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->proxy = p;
	c->loop = l;
	c->way = w;
	c->client = (struct mw_watch){MW_WATCH_CLIENT, fd, 0, c};
	c->next = (struct mw_watch){MW_WATCH_NEXT, -1, 0, c};
	pthread_mutex_lock(&p->lock);
	atomic_fetch_add(&p->n_conns, 1);
	pthread_mutex_unlock(&p->lock);
	atomic_fetch_add(&l->n_conns, 1);
	return c;
}

void
mw_proxy_conn_begin(struct mw_proxy_conn *c)
{
	const struct mw_dialog_opts *o = &c->dialog.o;
	TAILQ_INSERT_TAIL(&c->loop->conns, c, link);
	c->dialog.o.plain = mw_proxy_now(c->proxy) < atomic_load(&c->proxy->plain_us);
	if (o->keep && mw_proxy_reuse(c, o->trusted)) {
		c->dialog.o.next_local = c->kept->local;
		mw_dialog_next_used(&c->dialog, &c->kept->known);
	} else {
		mw_proxy_dial(c);
	}
	mw_proxy_conn_turn(c);
}

void
mw_proxy_conn_free(struct mw_proxy_conn *c)
{
	mw_dialog_free(&c->dialog);
	mw_tls_free(c->tls);
	mw_tls_free(c->next_tls);
	mw_buf_free(&c->wire);
	mw_buf_free(&c->next_wire);
	mw_buf_free(&c->plain);
	free(c);
}
