#include "replay/smtp.h"

#include "journal/base/util.h"
#include "journal/store/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	LINE_LIMIT = 4096,
	REPLY_LINES = 200,
	COMMAND_MS = 10 * 60 * 1000,
	SMTP_LAST = 16 * 1024 /* of a content, what is held back until before_end */
};

/* ---- replies ---- */

static void
note_capability(struct mw_smtp *c, struct mw_str word)
{
	static const struct {
		const char *name;
		unsigned cap;
	} map[] = {
	    {"8BITMIME", MW_SMTP_8BITMIME}, {"SMTPUTF8", MW_SMTP_SMTPUTF8},
	    {"CHUNKING", MW_SMTP_CHUNKING}, {"DSN", MW_SMTP_DSN},
	    {"SIZE", MW_SMTP_SIZE},         {MW_GUARD_ARG, MW_SMTP_GUARD},
	};
	char n[24];
	struct mw_str name, arg;
	if (!mw_str_cut(word, ' ', &name, &arg)) {
		name = word;
		arg = mw_str("", 0);
	}
	for (size_t i = 0; i < MW_COUNT(map); i++)
		if (mw_str_ieq(name, mw_strz(map[i].name)))
			c->caps |= map[i].cap;
	if (mw_str_ieq(name, MW_STR("SIZE")) && arg.n < sizeof n) {
		memcpy(n, arg.p, arg.n);
		n[arg.n] = '\0';
		c->limit = strtoull(n, NULL, 10);
	}
}

static bool
is_code(struct mw_str s)
{
	return s.n >= 3 && s.p[0] >= '2' && s.p[0] <= '5' && s.p[1] >= '0' &&
	       s.p[1] <= '9' && s.p[2] >= '0' && s.p[2] <= '9' &&
	       (s.n == 3 || s.p[3] == ' ' || s.p[3] == '-');
}

static int
reply(struct mw_smtp *c, bool hello, struct mw_err *err)
{
	struct mw_str line;
	mw_net_deadline(c->net, COMMAND_MS);
	for (int i = 0; i < REPLY_LINES; i++) {
		int r = mw_net_line(c->net, LINE_LIMIT, &line, err);
		if (r)
			return r;
		if (!is_code(line))
			break;
		c->code =
		    (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + line.p[2] - '0';
		size_t n = MW_MIN(line.n, sizeof c->text - 1);
		for (size_t k = 0; k < n; k++)
			c->text[k] = (unsigned char)line.p[k] < 32 ? '?' : line.p[k];
		c->text[n] = '\0';
		if (hello && i > 0 && line.n > 4)
			note_capability(c, mw_str_trim(mw_str(line.p + 4, line.n - 4)));
		if (line.n > 3 && line.p[3] == '-')
			continue;
		if (c->code == 421)
			return mw_fail(err, MW_EUNAVAIL, "%s says: %s",
			               mw_net_peer(c->net), c->text);
		return 0;
	}
	return mw_fail(err, MW_EPROTO, "%s does not speak %s", mw_net_peer(c->net),
	               c->lmtp ? "LMTP" : "SMTP");
}

/* Sends before, arg and after as one line. */
static int
command(struct mw_smtp *c, const char *before, struct mw_str arg, const char *after,
        struct mw_err *err)
{
	char buf[1400];
	int n = snprintf(buf, sizeof buf, "%s%.*s%s\r\n", before, (int)arg.n,
	                 arg.n ? arg.p : "", after);
	if (n < 0 || (size_t)n >= sizeof buf)
		return mw_fail(err, MW_ELIMIT, "address too long");
	int r = mw_net_send(c->net, buf, (size_t)n, err);
	return r ? r : reply(c, false, err);
}

/* ---- connection ---- */

static int
greet(struct mw_smtp *c, const struct mw_net_opts *o, struct mw_err *err)
{
	char host[256] = "localhost", buf[300];
	int r = o->kind == MW_NET_SMTP ? 0 : mw_net_greeted(c->net, o, COMMAND_MS, err);
	if (!r && o->kind != MW_NET_SMTP)
		r = reply(c, false, err);
	if (r)
		return r;
	if (o->kind != MW_NET_SMTP && c->code != 220)
		return mw_fail(err, MW_EUNAVAIL, "%s says: %s", mw_net_peer(c->net),
		               c->text);
	(void)gethostname(host, sizeof host - 1);
	int n = snprintf(buf, sizeof buf, "%s %s\r\n", c->lmtp ? "LHLO" : "EHLO", host);
	r = mw_net_send(c->net, buf, (size_t)n, err);
	if (!r)
		r = reply(c, true, err);
	if (!r && c->code != 250)
		r = mw_fail(err, MW_EPROTO, "%s is no %s server: %s", mw_net_peer(c->net),
		            c->lmtp ? "LMTP" : "ESMTP", c->text);
	return r;
}

int
mw_smtp_open(const struct mw_net_opts *o, bool lmtp, struct mw_smtp **ret,
             struct mw_err *err)
{
	struct mw_smtp *c = calloc(1, sizeof *c);
	if (!c)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	c->lmtp = lmtp;
	int r = mw_net_open(o, &c->net, err);
	if (!r)
		r = greet(c, o, err);
	if (r) {
		mw_net_close(c->net);
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void
mw_smtp_close(struct mw_smtp *c)
{
	struct mw_err ignored; /* a good-bye that does not get through changes nothing */
	if (!c)
		return;
	if (mw_net_send(c->net, "QUIT\r\n", 6, &ignored) == 0 &&
	    mw_net_flush(c->net, &ignored))
		c->code = 0;
	mw_net_close(c->net);
	free(c);
}

/* ---- a message ---- */

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

static bool
has_utf8(struct mw_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > 127)
			return true;
	return false;
}

const char *
mw_smtp_unfit(const struct mw_smtp *c, const struct mw_smtp_envelope *e)
{
	if (!clean_address(e->sender) || !clean_address(e->rcpt) || !e->rcpt.n)
		return "an address cannot be said in SMTP";
	if ((has_utf8(e->sender) || has_utf8(e->rcpt)) && !(c->caps & MW_SMTP_SMTPUTF8))
		return "an address needs SMTPUTF8, which the server does not offer";
	if (c->limit && e->size > c->limit)
		return "larger than the server takes";
	if (c->caps & MW_SMTP_CHUNKING && e->size > 0)
		return NULL;
	if (e->binary)
		return "it holds NUL, bare CR or LF, which is not safe to send to a "
		       "server "
		       "without CHUNKING";
	if (e->eight && !(c->caps & MW_SMTP_8BITMIME))
		return "it holds 8-bit bytes, and the server does not offer 8BITMIME";
	return NULL;
}

int
mw_smtp_envelope(struct mw_smtp *c, const struct mw_smtp_envelope *e, struct mw_err *err)
{
	char tail[300], more[160] = "", size[40] = "";
	bool utf8 = has_utf8(e->sender) || has_utf8(e->rcpt);
	bool dsn = c->caps & MW_SMTP_DSN;
	if (dsn)
		(void)snprintf(more, sizeof more, " RET=HDRS%s%.100s",
		               e->envid ? " ENVID=" : "", e->envid ? e->envid : "");
	else if ((c->caps & MW_SMTP_GUARD) && e->envid)
		(void)snprintf(more, sizeof more, " " MW_GUARD_ARG "=%.100s", e->envid);
	if (c->caps & MW_SMTP_SIZE)
		(void)snprintf(size, sizeof size, " SIZE=%llu",
		               (unsigned long long)e->size);
	(void)snprintf(tail, sizeof tail, ">%s%s%s%s",
	               c->caps & MW_SMTP_8BITMIME ? " BODY=8BITMIME" : "",
	               utf8 ? " SMTPUTF8" : "", size, more);
	int r = command(c, "MAIL FROM:<", e->sender, tail, err);
	if (!r && c->code == 250)
		r = command(c, "RCPT TO:<", e->rcpt, dsn ? "> NOTIFY=NEVER" : ">", err);
	if (r)
		return r;
	bool good = c->code == 250 || c->code == 251;
	if (good && (c->caps & MW_SMTP_CHUNKING) && e->size > 0)
		return 1;
	if (good)
		r = command(c, "DATA", mw_str("", 0), "", err);
	if (r || c->code == 354)
		return r ? r : 1;
	char text[sizeof c->text];
	int code = c->code;
	memcpy(text, c->text, sizeof text);
	r = command(c, "RSET", mw_str("", 0), "", err);
	c->code = code;
	memcpy(c->text, text, sizeof text);
	return r;
}

struct sender { /* dot-stuffing for DATA; for BDAT as it is, its last bytes held back */
	struct mw_smtp *c;
	struct mw_err *err;
	bool bdat, bol;
	uint64_t left;
	size_t n_last;
	char last[SMTP_LAST];
};

static int
stuff(struct sender *s, const char *q, size_t n)
{
	while (n) {
		if (s->bol && *q == '.') {
			int r = mw_net_send(s->c->net, ".", 1, s->err);
			if (r)
				return r;
		}
		const char *nl = memchr(q, '\n', n);
		size_t k = nl ? (size_t)(nl - q) + 1 : n;
		int r = mw_net_send(s->c->net, q, k, s->err);
		if (r)
			return r;
		s->bol = nl != NULL;
		q += k;
		n -= k;
	}
	return 0;
}

static int
to_wire(void *arg, const void *p, size_t n)
{
	struct sender *s = arg;
	if (n > s->left)
		return mw_fail(s->err, MW_EDAMAGED,
		               "content longer than its record says");
	if (!s->bdat) {
		s->left -= n;
		return stuff(s, p, n);
	}
	size_t now = s->left > SMTP_LAST ? (size_t)MW_MIN(n, s->left - SMTP_LAST) : 0;
	s->left -= n;
	memcpy(s->last + s->n_last, (const char *)p + now, n - now);
	s->n_last += n - now;
	return now ? mw_net_send(s->c->net, p, now, s->err) : 0;
}

int
mw_smtp_content(struct mw_smtp *c, const struct mw_smtp_content *m, struct mw_err *err)
{
	struct sender s = {.c = c, .err = err, .bol = true, .left = m->size};
	char head[64];
	int r = 0;
	s.bdat = (c->caps & MW_SMTP_CHUNKING) && m->size > 0;
	if (s.bdat) {
		int n = snprintf(head, sizeof head, "BDAT %llu LAST\r\n",
		                 (unsigned long long)m->size);
		r = mw_net_send(c->net, head, (size_t)n, err);
	}
	if (!r)
		r = m->give(m->arg, to_wire, &s, err);
	if (!r && s.left)
		r = mw_fail(err, MW_EDAMAGED, "content shorter than its record says");
	if (!r)
		r = m->before_end(m->arg, err);
	if (!r && s.bdat)
		r = mw_net_send(c->net, s.last, s.n_last, err);
	else if (!r)
		r = mw_net_send(c->net, s.bol ? ".\r\n" : "\r\n.\r\n", s.bol ? 3 : 5,
		                err);
	return r ? r : reply(c, false, err);
}
