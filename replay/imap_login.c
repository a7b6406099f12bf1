#include "replay/imap_login.h"

#include "journal/codec/sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	GREETING_MAX = 64 * 1024,
	LOGIN_MS = 20000
};

/* Whatever is not plainly a greeting that offers it is left to libcurl, and its words. */
static bool
offers_plain(struct mw_str line)
{
	struct mw_imap_status st;
	bool plain = false, initial = false, disabled = false;
	if (!mw_str_starts(line, MW_STR("* ")) ||
	    !mw_imap_parse_status(mw_str(line.p + 2, line.n - 2), &st) ||
	    !mw_str_ieq(st.word, MW_STR("OK")) ||
	    !mw_str_ieq(st.code, MW_STR("CAPABILITY")))
		return false;
	struct mw_str word, rest = st.args;
	while (rest.n) {
		if (!mw_str_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest = mw_str("", 0);
		}
		plain = plain || mw_str_ieq(word, MW_STR("AUTH=PLAIN"));
		initial = initial || mw_str_ieq(word, MW_STR("SASL-IR"));
		disabled = disabled || mw_str_ieq(word, MW_STR("LOGINDISABLED"));
	}
	return plain && initial && !disabled;
}

static void
wipe(void *p, size_t n)
{
	if (p)
		explicit_bzero(p, n);
	free(p);
}

static int
send_plain(struct mw_imap *c, const struct mw_net_opts *o, struct mw_err *err)
{
	const char *part[] = {o->authzid ? o->authzid : "", o->login, o->password};
	size_t n = 0, raw_n = 3, line_n = 64;
	for (size_t i = 0; i < 3; i++)
		raw_n += strlen(part[i]);
	line_n += (raw_n + 2) / 3 * 4;
	char *raw = malloc(raw_n), *line = malloc(line_n);
	int r = raw && line ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < 3 && !r; i++) {
		size_t k = strlen(part[i]) + 1;
		memcpy(raw + n, part[i], k);
		n += k;
	}
	if (!r) {
		int at = snprintf(line, line_n, "m%u AUTHENTICATE PLAIN ", c->sent + 1);
		mw_base64((const uint8_t *)raw, n - 1, line + at);
		memcpy(line + strlen(line), "\r\n", 3);
		c->sent++;
		r = mw_net_send_secret(c->net, line, strlen(line), err);
	}
	wipe(raw, raw_n);
	wipe(line, line_n);
	return r;
}

static int
authenticate(struct mw_imap *c, const struct mw_net_opts *o, struct mw_err *err)
{
	char said[sizeof c->last.code + sizeof c->last.text + 16];
	int r = send_plain(c, o, err);
	c->limit_ms = o->connect_ms ? o->connect_ms : LOGIN_MS;
	if (!r)
		r = mw_imap_wait(c, NULL, NULL, err);
	c->limit_ms = 0;
	if (r != MW_EREFUSED)
		return r;
	const char *lb = c->last.code[0] ? "[" : "", *rb = c->last.code[0] ? "] " : "";
	(void)snprintf(said, sizeof said, "NO %s%s%s%s", lb, c->last.code, rb,
	               c->last.text);
	return mw_net_refused(c->net, o, said, err);
}

int
mw_imap_log_in(struct mw_imap *c, const struct mw_net_opts *o, struct mw_err *err)
{
	struct mw_net_opts to = *o;
	struct mw_str line;
	if (!mw_net_is_private(o))
		return 1;
	to.kind = o->kind == MW_NET_IMAPS ? MW_NET_TLS : MW_NET_TCP;
	to.login = to.password = to.authzid = NULL;
	int r = mw_net_open(&to, &c->net, err);
	if (r)
		return r;
	r = mw_net_greeted(c->net, o, o->connect_ms ? o->connect_ms : LOGIN_MS, err);
	if (!r)
		r = mw_net_line(c->net, GREETING_MAX, &line, err);
	if (!r && offers_plain(line))
		return authenticate(c, o, err);
	mw_net_close(c->net);
	c->net = NULL;
	return r && r != MW_EUNAVAIL ? r : 1; /* what it says before it closes, too */
}
