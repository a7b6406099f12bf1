/* proxy_keep.c - connections to next servers that wait for another client.
 *
 * A session that ended right after a message that went well leaves its connection here;
 * the next client of the same way gets it, greeting and all. See mw_dialog_opts.keep. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "journal/base/util.h"
#include "milter/proxy_int.h"

enum {
	KEPT_MAX = 50,     /* that wait at a time */
	MESSAGES_MAX = 50, /* over one connection */
	AGE_S = 60,        /* of a connection */
};

static void
free_known(struct mw_kept *k)
{
	mw_buf_free(&k->known.greeting);
	mw_buf_free(&k->known.hello);
	mw_buf_free(&k->known.hello_reply);
	free(k);
}

static void
kept_free(struct mw_kept *k, bool polite)
{
	static const char quit[] = "QUIT\r\n";
	if (polite)
		(void)!send(k->fd, quit, sizeof quit - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(k->fd);
	free_known(k);
}

void
mw_proxy_park(struct mw_proxy_conn *c)
{
	struct mw_proxy *p = c->proxy;
	struct mw_dialog *d = &c->dialog;
	d->keep_next = false;
	if (c->next.fd < 0)
		return;
	struct mw_kept *k = c->kept ? c->kept : calloc(1, sizeof *k);
	if (!k)
		return;
	c->kept = NULL;
	int64_t now = mw_proxy_now(p);
	if (!k->born_us) {
		k->born_us = now;
		k->way = c->way;
	}
	(void)mw_proxy_watch(c->loop, &c->next, 0);
	k->fd = c->next.fd;
	k->local = d->o.next_local;
	c->next.fd = -1;
	c->next.events = 0;
	k->until_us = now + p->keep_us;
	k->messages += d->relayed;
	k->trusted = k->trusted || d->forwarded;
	struct mw_used had = k->known;
	k->known = d->kept;
	d->kept = had; /* freed with d */
	bool ok = mw_buf_ok(&k->known.greeting) == 0 && mw_buf_ok(&k->known.hello) == 0 &&
	          mw_buf_ok(&k->known.hello_reply) == 0 && k->messages < MESSAGES_MAX &&
	          now - k->born_us < AGE_S * INT64_C(1000000);
	pthread_mutex_lock(&p->lock);
	ok = ok && p->n_kept < KEPT_MAX && !atomic_load(&p->no_more);
	if (ok) {
		TAILQ_INSERT_HEAD(&p->kept, k, link);
		p->n_kept++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!ok)
		kept_free(k, true);
}

/* Nothing to read, and not ended: it waits for a command. */
static bool
alive(int fd)
{
	char c;
	return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool
mw_proxy_reuse(struct mw_proxy_conn *c, bool trusted)
{
	struct mw_proxy *p = c->proxy;
	for (;;) {
		struct mw_kept *k;
		pthread_mutex_lock(&p->lock);
		TAILQ_FOREACH(k, &p->kept, link)
		if (k->way == c->way && (trusted || !k->trusted))
			break;
		if (k) {
			TAILQ_REMOVE(&p->kept, k, link);
			p->n_kept--;
		}
		pthread_mutex_unlock(&p->lock);
		if (!k)
			return false;
		if (k->until_us > mw_proxy_now(p) && alive(k->fd)) {
			c->next.fd = k->fd;
			c->kept = k;
			return true;
		}
		kept_free(k, true);
	}
}

void
mw_proxy_unkeep(struct mw_proxy_conn *c)
{
	if (c->kept)
		free_known(c->kept);
	c->kept = NULL;
}

void
mw_proxy_expire(struct mw_proxy *p, bool all)
{
	struct mw_kept *k, *next;
	TAILQ_HEAD(, mw_kept) old = TAILQ_HEAD_INITIALIZER(old);
	int64_t now = mw_proxy_now(p);
	pthread_mutex_lock(&p->lock);
	for (k = TAILQ_FIRST(&p->kept); k; k = next) {
		next = TAILQ_NEXT(k, link);
		if (!all && k->until_us > now && alive(k->fd))
			continue;
		TAILQ_REMOVE(&p->kept, k, link);
		p->n_kept--;
		TAILQ_INSERT_TAIL(&old, k, link);
	}
	pthread_mutex_unlock(&p->lock);
	while ((k = TAILQ_FIRST(&old))) {
		TAILQ_REMOVE(&old, k, link);
		kept_free(k, true);
	}
}
