#include "replay/target.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One transaction per copy: its answer after the final dot is the copy's own. What LMTP
 * cannot do (date, Sent, reading back) is told by mw_target_new. */

enum {
	LINE_LIMIT = 4096,
	REPLY_LINES = 200,
	COMMAND_MS = 10 * 60 * 1000
};

struct lmtp {
	struct mw_net *net;
	bool eightbit, smtputf8;
	char text[400]; /* of the last reply */
};

static int
reply(struct lmtp *l, int *ret_code, struct mw_err *err)
{
	struct mw_str line;
	mw_net_deadline(l->net, COMMAND_MS);
	for (int i = 0; i < REPLY_LINES; i++) {
		int r = mw_net_line(l->net, LINE_LIMIT, &line, err);
		if (r)
			return r;
		if (line.n < 3 || line.p[0] < '2' || line.p[0] > '5' || line.p[1] < '0' ||
		    line.p[1] > '9' || line.p[2] < '0' || line.p[2] > '9')
			break;
		int code =
		    (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + line.p[2] - '0';
		size_t n = MW_MIN(line.n, sizeof l->text - 1);
		for (size_t k = 0; k < n; k++)
			l->text[k] = (unsigned char)line.p[k] < 32 ? '?' : line.p[k];
		l->text[n] = '\0';
		struct mw_str word =
		    line.n > 4 ? mw_str(line.p + 4, line.n - 4) : mw_str("", 0);
		if (mw_str_ieq(word, MW_STR("8BITMIME")))
			l->eightbit = true;
		else if (mw_str_ieq(word, MW_STR("SMTPUTF8")))
			l->smtputf8 = true;
		if (line.n == 3 || line.p[3] == ' ') {
			*ret_code = code;
			return 0;
		}
		if (line.p[3] != '-')
			break;
	}
	return mw_fail(err, MW_EPROTO, "%s does not speak LMTP", mw_net_peer(l->net));
}

/* Sends before, arg and after as one line. */
static int
command(struct lmtp *l, int *ret_code, struct mw_err *err, const char *before,
        const char *arg, const char *after)
{
	char buf[1200];
	int n = snprintf(buf, sizeof buf, "%s%s%s\r\n", before, arg, after);
	if (n < 0 || (size_t)n >= sizeof buf)
		return mw_fail(err, MW_ELIMIT, "address too long");
	int r = mw_net_send(l->net, buf, (size_t)n, err);
	return r ? r : reply(l, ret_code, err);
}

static int
connect_to(struct mw_target *t, struct lmtp *l, struct mw_err *err)
{
	char host[256] = "localhost";
	int code;
	struct mw_net_opts o = {
	    .kind = t->url.unix_socket ? MW_NET_UNIX : MW_NET_TCP,
	    .host = t->url.host,
	    .port = t->url.port,
	    .stopped = t->o.stopped,
	};
	int r = mw_net_open(&o, &l->net, err);
	if (!r)
		r = reply(l, &code, err);
	if (!r && code != 220)
		r = mw_fail(err, MW_EUNAVAIL, "%s says: %s", mw_net_peer(l->net),
		            l->text);
	if (r)
		return r;
	(void)gethostname(host, sizeof host - 1);
	r = command(l, &code, err, "LHLO ", host, "");
	if (!r && code != 250)
		r = mw_fail(err, MW_EPROTO, "%s is no LMTP server: %s",
		            mw_net_peer(l->net), l->text);
	return r;
}

static void
lmtp_drop(struct mw_target *t)
{
	struct lmtp *l = t->own;
	t->own = NULL;
	if (!l)
		return;
	mw_net_close(l->net);
	free(l);
}

static int
lmtp_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
          struct mw_err *err)
{
	(void)mailbox;
	(void)box;
	if (dry || t->own)
		return 0; /* one connection for all mailboxes */
	struct lmtp *l = calloc(1, sizeof *l);
	if (!l)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	t->own = l;
	int r = connect_to(t, l, err);
	if (r)
		lmtp_drop(t);
	return r;
}

/* An address that can stand between angle brackets on a command line. */
static bool
clean_address(struct mw_str s)
{
	if (s.n > 1000)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= 32 || s.p[i] == 127 || s.p[i] == '<' ||
		    s.p[i] == '>')
			return false;
	return true;
}

struct stuff { /* dot-stuffing; bare LF and CR pass as they are */
	struct mw_net *net;
	struct mw_err *err;
	bool bol;
	char last;
};

static int
stuff(void *arg, const void *p, size_t n)
{
	struct stuff *s = arg;
	const char *q = p;
	while (n) {
		if (s->bol && *q == '.') {
			int r = mw_net_send(s->net, ".", 1, s->err);
			if (r)
				return r;
		}
		const char *nl = memchr(q, '\n', n);
		size_t k = nl ? (size_t)(nl - q) + 1 : n;
		int r = mw_net_send(s->net, q, k, s->err);
		if (r)
			return r;
		s->bol = nl != NULL;
		s->last = q[k - 1];
		q += k;
		n -= k;
	}
	return 0;
}

static int
say_no(struct lmtp *l, const struct mw_put *p, const struct mw_put_io *io,
       struct mw_err *err)
{
	char why[sizeof l->text + 16];
	int code;
	(void)snprintf(why, sizeof why, "server said: %s", l->text);
	int r = io->done(io->arg, p, MW_EREFUSED, why, NULL);
	return r ? r : command(l, &code, err, "RSET", "", "");
}

/* 1: the message was announced and the server waits for it. */
static int
envelope(struct lmtp *l, const char *rcpt, const struct mw_put *p,
         const struct mw_put_io *io, struct mw_err *err)
{
	const struct mw_mail *m;
	char from[1024];
	int code, r = io->envelope(io->arg, p, &m, err);
	if (r)
		return r;
	if (!clean_address(m->sender) || !clean_address(mw_strz(rcpt))) {
		r = io->done(io->arg, p, MW_EREFUSED, "an address cannot be said in LMTP",
		             NULL);
		return r;
	}
	(void)snprintf(from, sizeof from, "%.*s", (int)m->sender.n,
	               m->sender.n ? m->sender.p : "");
	r = command(l, &code, err, "MAIL FROM:<", from,
	            l->eightbit ? "> BODY=8BITMIME" : ">");
	if (!r && code == 250)
		r = command(l, &code, err, "RCPT TO:<", rcpt, ">");
	if (!r && (code == 250 || code == 251))
		r = command(l, &code, err, "DATA", "", "");
	if (r)
		return r;
	return code == 354 ? 1 : say_no(l, p, io, err);
}

static int
put_one(struct mw_target *t, struct lmtp *l, const char *box, const struct mw_put *p,
        const struct mw_put_io *io, struct mw_err *err)
{
	int code, r = envelope(l, box, p, io, err);
	(void)t;
	if (r <= 0)
		return r;
	struct stuff s = {l->net, err, true, '\n'};
	r = io->content(io->arg, p, stuff, &s, err);
	if (!r)
		r = mw_net_send(l->net, "\r\n", s.last == '\n' ? 0 : 2, err);
	/* Before the final dot nothing is delivered; after it anything may be. */
	if (!r)
		r = io->intent(io->arg, &p, 1, err);
	if (!r)
		r = mw_net_send(l->net, ".\r\n", 3, err);
	if (!r)
		r = reply(l, &code, err);
	if (r)
		return r;
	if (code >= 200 && code < 300)
		return io->done(io->arg, p, 0, NULL, NULL);
	char why[sizeof l->text + 16];
	(void)snprintf(why, sizeof why, "server said: %s", l->text);
	return io->done(io->arg, p, MW_EREFUSED, why, NULL);
}

static int
lmtp_put(struct mw_target *t, const struct mw_put *v, size_t n,
         const struct mw_put_io *io, struct mw_err *err)
{
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		if (t->o.stopped && t->o.stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		r = put_one(t, t->own, io->box, &v[i], io, err);
	}
	if (r)
		lmtp_drop(t);
	return r;
}

static int
lmtp_close(struct mw_target *t, struct mw_err *err)
{
	(void)t;
	(void)err;
	return 0;
}

const struct mw_target_ops mw_target_lmtp = {
    .scheme = "lmtp",
    .readable = false,
    .has_sent = true, /* so that Sent copies are told apart, and passed over */
    .open = lmtp_open,
    .put = lmtp_put,
    .close = lmtp_close,
    .free = lmtp_drop,
};
