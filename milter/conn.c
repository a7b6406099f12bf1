#include "milter/engine_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "journal/base/log.h"
#include "journal/base/util.h"

enum {
	READS_PER_TURN = 8
}; /* then the others get their turn */

#define SECOND INT64_C(1000000)
static const int64_t progress_us = MW_PROGRESS_S * SECOND;

static void
on_done(void *arg)
{
	struct conn *c = arg;
	struct loop *l = c->loop;
	pthread_mutex_lock(&l->lock);
	bool first = !l->done;
	c->next_done = l->done;
	l->done = c;
	/* Under the lock: once it is released the loop may be gone. */
	uint64_t one = 1;
	if (first)
		(void)!write(l->wake, &one, sizeof one); /* full only if already awake */
	pthread_mutex_unlock(&l->lock);
}

/* Taken off the list of what is watched first: a program that is just being started has
 * a copy of the descriptor, and as long as it has, closing ours would not end the events.
 */
static void
conn_close(struct conn *c)
{
	if (c->fd < 0)
		return;
	if (c->watched)
		(void)epoll_ctl(c->loop->ep, EPOLL_CTL_DEL, c->fd, NULL);
	(void)close(c->fd);
	c->fd = -1;
}

void
mw_conn_free(struct conn *c)
{
	struct loop *l = c->loop;
	if (c->again)
		TAILQ_REMOVE(&l->again, c, turn);
	TAILQ_REMOVE(&l->conns, c, idle);
	l->n_conns--;
	conn_close(c);
	mw_proto_done(&c->proto);
	atomic_fetch_sub(&l->engine->open, 1);
	free(c);
}

/* The peer is gone. A message at its end keeps the connection until the store answered.
 */
static void
conn_drop(struct conn *c)
{
	if (!c->proto.pending) {
		mw_conn_free(c);
		return;
	}
	conn_close(c);
}

static void
conn_active(struct conn *c, int64_t now)
{
	c->active_us = now;
	TAILQ_REMOVE(&c->loop->conns, c, idle);
	TAILQ_INSERT_TAIL(&c->loop->conns, c, idle);
}

static void
conn_again(struct conn *c)
{
	if (!c->again)
		TAILQ_INSERT_TAIL(&c->loop->again, c, turn);
	c->again = true;
}

/* EPOLLOUT is asked for only while something is stuck: a unix socket tells it after each
 * read of the peer, which would be one useless wake-up per reply. */
static int
watch(struct conn *c)
{
	/* Edge-triggered: while a message waits for the store nothing is read, and no
	 * event can spin. */
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
	ev.data.ptr = c;
	if (c->stuck)
		ev.events |= EPOLLOUT;
	int op = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	c->watched = true;
	return epoll_ctl(c->loop->ep, op, c->fd, &ev);
}

static void
want_writable(struct conn *c, bool want)
{
	c->stuck = want;
	/* fails for a bad descriptor or without memory; the idle time-out then ends it */
	(void)!watch(c);
}

/* Sends what is due. False: the connection was dropped. */
bool
mw_conn_flush(struct conn *c)
{
	struct mw_buf *out = &c->proto.out;
	while (c->sent < out->n && c->writable) {
		ssize_t k = send(c->fd, out->p + c->sent, out->n - c->sent, MSG_NOSIGNAL);
		if (k >= 0) {
			c->sent += (size_t)k;
		} else if (errno == EAGAIN) {
			c->writable = false;
			if (!c->stuck)
				want_writable(c, true);
		} else if (errno != EINTR) {
			conn_drop(c);
			return false;
		}
	}
	if (c->sent < out->n)
		return true;
	if (c->stuck)
		want_writable(c, false);
	mw_buf_clear(out);
	c->sent = 0;
	if (c->finish && !c->proto.pending) {
		mw_conn_free(c);
		return false;
	}
	return true;
}

/* After input or an answer: closing, waiting, sending. False: dropped. */
static bool
conn_after(struct conn *c, int r, const struct mw_err *err)
{
	struct loop *l = c->loop;
	if (r < 0) {
		mw_log(MW_LOG_WARN, NULL, "event=protocol_error error=%s reason=\"%s\"",
		       mw_err_name(err->code), err->msg);
		c->finish = true;
	}
	if (c->proto.closing)
		c->finish = true;
	else if (l->stop_at_us && !l->engine->drain)
		c->finish = c->finish || !(c->proto.session &&
		                           mw_session_in_content(c->proto.session));
	if (c->proto.pending) {
		c->look_at_us = mw_loop_now(l) + SECOND;
		c->progress_at_us = mw_loop_now(l) + progress_us;
		TAILQ_INSERT_TAIL(&l->waiting, c, wait);
	}
	return mw_conn_flush(c);
}

static ssize_t
conn_recv(struct conn *c)
{
	ssize_t k;
	do {
		k = recv(c->fd, c->loop->scratch, MW_LOOP_SCRATCH, 0);
	} while (k < 0 && errno == EINTR);
	if (k > 0 && c->inet) {
		/* The MTA's Nagle waits for our ACK when it gets no reply: 40 ms per
		 * message. The kernel forgets this option, so it is set after each
		 * read. */
		int on = 1;
		(void)setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
	}
	return k;
}

/* Reads and handles what there is, in turns. False: dropped. */
static bool
read_turn(struct conn *c)
{
	int64_t now = mw_loop_now(c->loop);
	for (int i = 0; c->readable && !c->proto.pending && !c->finish; i++) {
		if (i == READS_PER_TURN || c->proto.out.n > MW_LOOP_SCRATCH) {
			/* a peer that reads no replies is not read either */
			if (c->proto.out.n <= MW_LOOP_SCRATCH || c->writable)
				conn_again(c);
			return true;
		}
		struct mw_err err = {0};
		ssize_t k = conn_recv(c);
		if (k < 0 && errno == EAGAIN) {
			c->readable = false;
			return true;
		}
		if (k <= 0) {
			if (!c->proto.session)
				mw_log(MW_LOG_DEBUG, NULL, "event=probe");
			conn_drop(c);
			return false;
		}
		conn_active(c, now);
		/* a short read has emptied the socket; what comes later is a new event */
		if (k < MW_LOOP_SCRATCH && !c->ending)
			c->readable = false;
		int r = mw_proto_input(&c->proto, c->loop->scratch, (size_t)k, &err);
		if (!conn_after(c, r, &err))
			return false;
	}
	return true;
}

void
mw_conn_run(struct conn *c)
{
	/* A new one is read before it is watched: what its MTA wrote at once makes no
	 * event then. */
	if (read_turn(c) && !c->watched && c->fd >= 0 && watch(c) < 0)
		conn_drop(c);
}

/* The store answered. */
void
mw_conn_answer(struct conn *c)
{
	struct mw_err err = {0};
	TAILQ_REMOVE(&c->loop->waiting, c, wait);
	if (c->fd < 0) {
		mw_log(MW_LOG_NOTICE, NULL, "event=reply_lost");
		c->proto.in.n = 0; /* nothing more of it counts */
	}
	int r = mw_proto_resume(&c->proto, &err);
	if (c->fd < 0) {
		mw_conn_free(c);
		return;
	}
	conn_active(c, mw_loop_now(c->loop));
	if (conn_after(c, r, &err))
		mw_conn_run(c);
}

bool
mw_conn_new(struct loop *l, int fd, bool inet)
{
	struct conn *c = calloc(1, sizeof *c);
	if (!c)
		return false;
	int on = 1;
	c->loop = l;
	c->fd = fd;
	c->inet = inet;
	c->writable = true;
	if (inet) { /* best effort: without these it is slower, not wrong */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	}
	mw_proto_init(&c->proto, l->engine->cap, on_done, c);
	c->readable = true; /* perhaps; see mw_conn_run */
	c->active_us = mw_loop_now(l);
	TAILQ_INSERT_TAIL(&l->conns, c, idle);
	l->n_conns++;
	atomic_fetch_add(&l->engine->open, 1);
	conn_again(c);
	return true;
}
