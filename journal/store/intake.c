/* The journal's side of an import: frames in, records, answers out. */
#include "journal/store/intake.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct slot {
	struct mw_entry *e; /* NULL: refused before it was an entry of the store's */
	struct mw_commit c;
	bool done;
	char why[200];
};

struct serve {
	struct mw_store *st;
	int fd;
	const struct mw_intake_opts *o;
	struct mw_intake_done *ret;
	struct slot slot[MW_INTAKE_AHEAD];
	size_t head, n; /* a ring */
	struct mw_entry *cur;
	uint64_t cur_bytes;
	struct mw_err cur_err; /* why the message being sent cannot be taken */
	uint8_t *piece;
	pthread_mutex_t mu; /* guards done and c of the slots */
	pthread_cond_t cv;
};

struct landing { /* what a commit's answer needs */
	struct serve *s;
	struct slot *slot;
};

/* 1 read, 0 end or a broken line. */
static int
read_all(int fd, void *p, size_t n)
{
	uint8_t *q = p;
	while (n) {
		struct pollfd pf = {fd, POLLIN, 0};
		int k = poll(&pf, 1, MW_INTAKE_IDLE_S * 1000);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return 0;
		ssize_t got = recv(fd, q, n, 0);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return 0;
		q += got;
		n -= (size_t)got;
	}
	return 1;
}

static bool
send_text(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k < 0 && (errno == EINTR || errno == EAGAIN)) {
			struct pollfd pf = {fd, POLLOUT, 0};
			if (poll(&pf, 1, MW_INTAKE_IDLE_S * 1000) == 0)
				return false;
			continue;
		}
		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

/* In the committer's thread. */
static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct landing *l = arg;
	struct serve *s = l->s;
	(void)pthread_mutex_lock(&s->mu);
	l->slot->c = *c;
	l->slot->done = true;
	(void)pthread_cond_signal(&s->cv);
	(void)pthread_mutex_unlock(&s->mu);
}

/* Answers the oldest message if its fate is known, or once it is. False: the line is
 * broken, or (wait false) there is nothing to say yet. */
static bool
answer_one(struct serve *s, bool wait)
{
	char line[300];
	struct slot *x = &s->slot[s->head];
	if (!s->n)
		return false;
	(void)pthread_mutex_lock(&s->mu);
	while (wait && !x->done)
		(void)pthread_cond_wait(&s->cv, &s->mu);
	bool done = x->done;
	(void)pthread_mutex_unlock(&s->mu);
	if (!done)
		return false;
	mw_entry_free(x->e);
	x->e = NULL;
	s->head = (s->head + 1) % MW_INTAKE_AHEAD;
	s->n--;
	if (x->c.code == 0)
		s->ret->taken++;
	else
		s->ret->refused++;
	int n =
	    x->c.code == 0
	        ? snprintf(line, sizeof line, "ok %llu\n", (unsigned long long)x->c.seq)
	        : snprintf(line, sizeof line, "error %s %s\n", mw_err_name(x->c.code),
	                   x->why[0] ? x->why : mw_err_text(x->c.code));
	return send_text(s->fd, line, (size_t)n);
}

/* Takes no more messages than that many are unanswered. False: broken line. */
static bool
drain(struct serve *s, size_t left)
{
	while (s->n > left)
		if (!answer_one(s, true))
			return false;
	while (answer_one(s, false))
		;
	return true;
}

static void
forget(struct serve *s)
{
	mw_entry_free(s->cur);
	s->cur = NULL;
	s->cur_bytes = 0;
	mw_err_clear(&s->cur_err);
}

static void
take_body(struct serve *s, size_t n)
{
	struct mw_err *err = &s->cur_err;
	if (err->code)
		return;
	s->cur_bytes += n;
	int r = 0;
	if (s->o->max_content && s->cur_bytes > s->o->max_content)
		r = mw_fail(err, MW_ELIMIT, "larger than message_limit (%llu bytes)",
		            (unsigned long long)s->o->max_content);
	if (r == 0 && !s->cur)
		r = mw_entry_new(s->st, MW_TYPE_MAIL, &s->cur, err);
	if (r == 0)
		r = mw_entry_body(s->cur, s->piece, n, err);
	if (r < 0 && !err->code)
		err->code = r;
}

void
mw_entry_imported(struct mw_entry *e)
{
	mw_assert(e->type == MW_TYPE_MAIL && !e->finished);
	e->imported = true;
}

/* The record out of the client's metadata and what we have seen of the content. */
static int
finish(struct serve *s, size_t n, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(8U << 20);
	struct mw_mail m;
	if (s->cur_err.code) {
		*err = s->cur_err;
		return err->code;
	}
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory for a record");
	int r = s->cur ? 0 : mw_entry_new(s->st, MW_TYPE_MAIL, &s->cur, err);
	if (r == 0)
		r = mw_mail_decode(s->piece, n, a, &m, err);
	if (r < 0)
		return r;
	m.front = MW_STR("import");
	m.flags = 0;
	if (m.time_us > s->o->now_us)
		m.time_us = s->o->now_us;
	mw_entry_imported(s->cur);
	r = mw_entry_describe(s->cur, &m, err);
	if (r == 0)
		r = mw_store_ready(s->st);
	if (r == 0)
		r = mw_entry_finish_mail(s->cur, &m, err);
	if (r < 0 && !err->code)
		(void)mw_fail(err, r, "%s", mw_err_text(r));
	return r;
}

static void
take_meta(struct serve *s, struct landing *landing, size_t n)
{
	size_t at = (s->head + s->n) % MW_INTAKE_AHEAD;
	struct slot *x = &s->slot[at];
	struct mw_err err = {0};
	*x = (struct slot){0};
	s->n++;
	int r = finish(s, n, &err);
	if (r < 0) {
		x->c.code = r;
		(void)snprintf(x->why, sizeof x->why, "%.150s", err.msg);
		for (char *p = x->why; *p; p++)
			if ((unsigned char)*p < ' ')
				*p = ' ';
		x->done = true;
		forget(s);
		return;
	}
	x->e = MW_TAKE(s->cur);
	s->cur_bytes = 0;
	landing[at] = (struct landing){s, x};
	mw_store_submit(s->st, x->e, on_commit, &landing[at]);
}

/* One frame: 1 go on, 0 the end. */
static int
frame(struct serve *s, struct landing *landing)
{
	uint8_t head[5];
	struct pollfd pf = {s->fd, POLLIN, 0};
	/* While the client is silent it may be waiting for us. */
	if (s->n && poll(&pf, 1, 0) == 0 && !drain(s, 0))
		return 0;
	if (!read_all(s->fd, head, sizeof head))
		return 0;
	size_t n = mw_get32(head + 1);
	size_t most = head[0] == 'B'   ? MW_INTAKE_PIECE
	              : head[0] == 'M' ? MW_INTAKE_META
	                               : 0;
	if (n > most || !read_all(s->fd, s->piece, n))
		return 0;
	switch (head[0]) {
	case 'B':
		take_body(s, n);
		return 1;
	case 'M':
		if (!drain(s, MW_INTAKE_AHEAD - 1))
			return 0;
		take_meta(s, landing, n);
		return 1;
	case 'X':
		forget(s);
		return 1;
	default:
		return 0;
	}
}

void
mw_intake_serve(struct mw_store *st, int fd, const struct mw_intake_opts *o,
                struct mw_intake_done *ret)
{
	*ret = (struct mw_intake_done){0};
	struct serve *s = calloc(1, sizeof *s);
	struct landing *landing = calloc(MW_INTAKE_AHEAD, sizeof *landing);
	uint8_t *piece = malloc(MW_INTAKE_META);
	if (!s || !landing || !piece) {
		free(s);
		free(landing);
		free(piece);
		return;
	}
	*s = (struct serve){.st = st, .fd = fd, .o = o, .ret = ret, .piece = piece};
	(void)pthread_mutex_init(&s->mu, NULL);
	(void)pthread_cond_init(&s->cv, NULL);
	while (frame(s, landing) == 1)
		;
	/* Whole messages stay, and their entries until the committer has done with them;
	 * the answers are for whoever still listens. */
	while (s->n)
		(void)answer_one(s, true);
	forget(s);
	(void)pthread_cond_destroy(&s->cv);
	(void)pthread_mutex_destroy(&s->mu);
	free(piece);
	free(landing);
	free(s);
}
