#include "replay/target.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/store/trail.h"
#include "replay/smtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* LMTP and SMTP: one transaction per copy, to its final recipient, so that the server's
 * answer is the copy's own. What the two cannot do (date, Sent, reading back) is told by
 * mw_target_new.
 *
 * The sender is the null sender: it stops vacation replies and bounces at once. Where the
 * server offers DSN it is told NOTIFY=NEVER, and by ENVID that mailwal puts this back, so
 * that a mailwald in front of that server does not journal it again; where the server is
 * a proxy of mailwald without DSN, by an argument of its own; and for one that may stand
 * behind an SMTP server, the daemon is told what will come (store/trail.h). */

struct facts { /* of a content, found in a first pass over it */
	struct mw_guard_body body;
	struct mw_trail trail;
	bool eight, binary;
	char last;
};

static int
look(void *arg, const void *p, size_t n)
{
	struct facts *f = arg;
	const unsigned char *s = p;
	mw_guard_body_put(&f->body, p, n);
	mw_trail_put(&f->trail, p, n);
	for (size_t i = 0; i < n; i++) {
		f->binary = f->binary || (s[i] == '\n') != (f->last == '\r');
		f->binary = f->binary || !s[i];
		f->eight = f->eight || s[i] > 127;
		f->last = (char)s[i];
	}
	return 0;
}

static int
find_facts(const struct mw_put *p, const struct mw_put_io *io, struct facts *f,
           uint8_t sum[MW_SHA256_LEN], struct mw_err *err)
{
	if (mw_guard_body_init(&f->body))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	mw_trail_init(&f->trail);
	int r = io->content(io->arg, p, look, f, err);
	mw_trail_end(&f->trail);
	f->binary = f->binary || f->last == '\r';
	mw_guard_body_done(&f->body, sum);
	return r;
}

static void
relay_drop(struct mw_target *t)
{
	mw_smtp_close(t->own);
	t->own = NULL;
}

static int
relay_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
           struct mw_err *err)
{
	bool lmtp = t->ops == &mw_target_lmtp;
	struct mw_smtp *c = NULL;
	(void)mailbox;
	(void)box;
	if (dry || t->own)
		return 0; /* one connection for all mailboxes */
	struct mw_net_opts o = {
	    .kind = !lmtp                ? MW_NET_SMTP
	            : t->url.unix_socket ? MW_NET_UNIX
	                                 : MW_NET_TCP,
	    .host = t->url.host,
	    .port = t->url.port,
	    .login = lmtp ? NULL : t->o.auth_user,
	    .password = t->password,
	    .ca_file = t->o.tls_ca,
	    .insecure = t->o.insecure,
	    .stopped = t->o.stopped,
	    .note = t->o.note,
	    .note_arg = t->o.note_arg,
	};
	int r = mw_smtp_open(&o, lmtp, &c, err);
	t->own = c;
	return r;
}

static int
say_no(const struct mw_smtp *c, const struct mw_put *p, const struct mw_put_io *io)
{
	char why[sizeof c->text + 16];
	(void)snprintf(why, sizeof why, "server said: %s", c->text);
	return io->done(io->arg, p, MW_EREFUSED, why, NULL);
}

struct giving {
	const struct mw_put *p;
	const struct mw_put_io *io;
};

static int
give(void *arg, int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	const struct giving *g = arg;
	return g->io->content(g->io->arg, g->p, sink, sarg, err);
}

static int
before_end(void *arg, struct mw_err *err)
{
	const struct giving *g = arg;
	return g->io->intent(g->io->arg, &g->p, 1, err);
}

/* Sender and recipient of a copy, into the arrays: the journal's own do not last. */
static int
addresses(struct mw_target *t, const struct mw_put *p, const struct mw_put_io *io,
          struct mw_smtp_envelope *e, char room[2][1100], struct mw_err *err)
{
	struct mw_str rcpt = mw_strz(io->box);
	const struct mw_mail *m;
	int r = io->envelope(io->arg, p, &m, err);
	if (r)
		return r;
	struct mw_str sender = t->o.keep_sender ? m->sender : mw_str("", 0);
	size_t n = MW_MIN(sender.n, sizeof room[0]);
	memcpy(room[0], n ? sender.p : "", n);
	e->sender = mw_str(room[0], n);
	if (t->ops == &mw_target_smtp)
		r = io->address(io->arg, p, &rcpt, err);
	if (r)
		return r;
	n = MW_MIN(rcpt.n, sizeof room[1]);
	memcpy(room[1], rcpt.p, n);
	e->rcpt = mw_str(room[1], n);
	return 0;
}

static int
put_one(struct mw_target *t, const struct mw_put *p, const struct mw_put_io *io,
        struct mw_err *err)
{
	struct mw_smtp *c = t->own;
	struct facts f = {0};
	struct mw_smtp_envelope e = {.size = p->size};
	char room[2][1100], token[MW_GUARD_TOKEN] = "";
	uint8_t sum[MW_SHA256_LEN];
	int r = addresses(t, p, io, &e, room, err);
	if (!r)
		r = find_facts(p, io, &f, sum, err);
	if (!r && (c->caps & (MW_SMTP_DSN | MW_SMTP_GUARD)))
		r = io->token(io->arg, p, e.rcpt, sum, token, err);
	if (r)
		return r;
	e.envid = token[0] ? token : NULL;
	e.eight = f.eight;
	e.binary = f.binary;
	const char *why = mw_smtp_unfit(c, &e);
	if (why)
		return io->done(io->arg, p, MW_EREFUSED, why, NULL);
	r = mw_smtp_envelope(c, &e, err);
	if (r <= 0)
		return r < 0 ? r : say_no(c, p, io);
	r = t->ops == &mw_target_smtp && io->tell
	        ? io->tell(io->arg, p, e.sender, e.rcpt, &f.trail, err)
	        : 0;
	if (r)
		return r;
	struct giving g = {p, io};
	const struct mw_smtp_content m = {p->size, give, before_end, &g};
	r = mw_smtp_content(c, &m, err);
	if (r)
		return r;
	return c->code >= 200 && c->code < 300 ? io->done(io->arg, p, 0, NULL, NULL)
	                                       : say_no(c, p, io);
}

static int
relay_put(struct mw_target *t, const struct mw_put *v, size_t n,
          const struct mw_put_io *io, struct mw_err *err)
{
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		if (t->o.stopped && t->o.stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		r = put_one(t, &v[i], io, err);
	}
	if (r)
		relay_drop(t);
	return r;
}

static int
relay_close(struct mw_target *t, struct mw_err *err)
{
	(void)t;
	(void)err;
	return 0;
}

const struct mw_target_ops mw_target_lmtp = {
    .scheme = "lmtp",
    .readable = false,
    .has_sent = true, /* so that Sent copies are told apart, and passed over */
    .open = relay_open,
    .put = relay_put,
    .close = relay_close,
    .free = relay_drop,
};

const struct mw_target_ops mw_target_smtp = {
    .scheme = "smtp",
    .readable = false,
    .has_sent = true,
    .open = relay_open,
    .put = relay_put,
    .close = relay_close,
    .free = relay_drop,
};
