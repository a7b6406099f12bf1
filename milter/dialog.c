#include "milter/dialog.h"

#include <stdio.h>
#include <string.h>

#include "journal/base/log.h"
#include "journal/base/util.h"

enum {
	IN_MAX = 64 * 1024,    /* read ahead from the client */
	OUT_MAX = 256 * 1024,  /* not yet taken by the next server */
	HOLD_MAX = 64 * 1024,  /* of that, what may wait for more */
	JUNK_MAX = 100,        /* commands that lead to no message */
	CONNECT_US = 30000000, /* for the connection to the next server */
};

const char mw_dialog_lost[] =
    "421 4.4.2 Connection to the next server lost, try again later";

static int64_t
now_us(const struct mw_dialog *d)
{
	return d->o.cap->clock->mono_us(d->o.cap->clock);
}

static void
take_settings(struct mw_dialog *d)
{
	struct mw_settings *s = mw_capture_settings(d->o.cap);
	d->timeout_us = s->conf->proxy_timeout;
	d->pass = s->conf->proxy_bare_newline == 1;
	d->limit = s->conf->message_limit;
	mw_settings_unref(s);
}

int
mw_dialog_init(struct mw_dialog *d, const struct mw_dialog_opts *o, struct mw_err *err)
{
	memset(d, 0, sizeof *d);
	d->o = *o;
	d->session = mw_session_new(o->cap);
	if (!d->session)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	mw_session_front(d->session, o->lmtp ? "lmtp" : "smtp");
	mw_session_macro(d->session, 'C', MW_STR("daemon_name"), mw_strz(o->on));
	/* Behind LMTP the peer is the MTA, which is nobody's client. */
	if (!o->lmtp) {
		(void)snprintf(d->base.addr, sizeof d->base.addr, "%.*s", (int)o->peer.n,
		               o->peer.n ? o->peer.p : "");
		d->base.port = o->peer_port;
	}
	d->now = d->base;
	take_settings(d);
	mw_dialog_wait(d, MW_DI_GREETING, 1);
	d->deadline_us = MW_MIN(d->deadline_us, now_us(d) + CONNECT_US);
	return 0;
}

void
mw_dialog_free(struct mw_dialog *d)
{
	mw_assert(d->state != MW_DI_COMMIT);
	mw_session_free(d->session);
	mw_arena_free(d->arena);
	struct mw_buf *all[] = {&d->to_client,  &d->to_next,
	                        &d->in,         &d->reply_in,
	                        &d->reply,      &d->line,
	                        &d->content,    &d->head,
	                        &d->greeting,   &d->held,
	                        &d->ahead,      &d->kept.greeting,
	                        &d->kept.hello, &d->kept.hello_reply};
	for (size_t i = 0; i < MW_COUNT(all); i++)
		mw_buf_free(all[i]);
	memset(d, 0, sizeof *d);
}

void
mw_dialog_wait(struct mw_dialog *d, enum mw_dialog_state state, int times)
{
	d->state = state;
	d->deadline_us = times ? now_us(d) + times * d->timeout_us : 0;
}

void
mw_dialog_say(struct mw_dialog *d, const char *line)
{
	mw_buf_puts(&d->to_client, line);
	mw_buf_put(&d->to_client, "\r\n", 2);
}

/* Whatever the next server has of a message, it never sees its end. */
void
mw_dialog_drop_next(struct mw_dialog *d)
{
	d->close_next = true;
	mw_buf_clear(&d->to_next);
}

/* The last words to the client; NULL: none. */
void
mw_dialog_bye(struct mw_dialog *d, const char *line)
{
	mw_assert(d->state != MW_DI_COMMIT);
	if (line)
		mw_dialog_say(d, line);
	mw_session_abort(d->session);
	mw_dialog_drop_next(d);
	d->close_client = true;
	mw_dialog_wait(d, MW_DI_CLOSED, 1);
}

/* After a message or RSET: what XFORWARD told is forgotten. */
void
mw_dialog_message_over(struct mw_dialog *d)
{
	mw_session_abort(d->session);
	d->open = d->dropped = d->has_id = false;
	d->accepted = d->due = d->failed = 0;
	d->queue_id[0] = d->queued_as[0] = 0;
	mw_arena_free(d->arena);
	d->arena = NULL;
	d->rcpt = NULL;
	d->rcpt_cap = 0;
	memset(&d->outcome, 0, sizeof d->outcome);
	d->now = d->base;
	memset(&d->chunk, 0, sizeof d->chunk);
	mw_buf_clear(&d->held);
	mw_buf_clear(&d->content);
	mw_buf_free(&d->head);
	memset(&d->head, 0, sizeof d->head);
}

/* In COMMIT the record is awaited, and then the dot will go out. */
bool
mw_dialog_holds(const struct mw_dialog *d)
{
	return d->to_next.n <= HOLD_MAX &&
	       (d->state == MW_DI_COMMIT || (d->state == MW_DI_COMMAND && d->ahead_due));
}

bool
mw_dialog_hungry(const struct mw_dialog *d)
{
	return !d->eof && d->state != MW_DI_CLOSED && d->in.n - d->in_at < IN_MAX &&
	       d->to_next.n < OUT_MAX && d->to_client.n < IN_MAX;
}

/* ---- commands ---- */

void
mw_dialog_forward(struct mw_dialog *d, struct mw_str line, enum mw_verb verb)
{
	mw_dialog_keep_said(d, verb);
	mw_buf_putstr(&d->to_next, line);
	mw_buf_put(&d->to_next, "\r\n", 2);
	mw_buf_clear(&d->line);
	if (verb != MW_VERB_AUTH) /* which holds a secret */
		mw_buf_putstr(&d->line, line);
	d->verb = verb;
	mw_dialog_wait(d, MW_DI_REPLY, 1);
}

void
mw_dialog_answered(struct mw_dialog *d, const char *line)
{
	mw_dialog_say(d, line);
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

void
mw_dialog_junk(struct mw_dialog *d, const char *line)
{
	if (++d->junk > JUNK_MAX)
		mw_dialog_bye(d, "421 4.7.0 Too many commands without a message");
	else
		mw_dialog_answered(d, line);
}

/* The journal's own no. */
static void
refused(struct mw_dialog *d, const struct mw_answer *a)
{
	char line[160];
	(void)snprintf(line, sizeof line, "%s %s %s", a->code, a->xcode, a->text);
	if (strcmp(a->code, "421") == 0)
		mw_dialog_bye(d, line);
	else
		mw_dialog_answered(d, line);
}

static void
tell_client_facts(struct mw_dialog *d)
{
	const struct mw_facts *f = &d->now;
	mw_session_connect(d->session, mw_strz(f->name), *f->addr ? '4' : 'U', f->port,
	                   mw_strz(f->addr));
	mw_session_helo(d->session, mw_strz(f->helo));
	mw_session_macros(d->session, 'H');
	mw_session_macro(d->session, 'H', MW_STR("tls_version"), mw_strz(d->tls_version));
	mw_session_macro(d->session, 'H', MW_STR("cipher"), mw_strz(d->tls_cipher));
	mw_session_macro(d->session, 'H', MW_STR("cipher_bits"), mw_strz(d->tls_bits));
	mw_session_macros(d->session, 'M');
	mw_session_macro(d->session, 'M', MW_STR("auth_authen"), mw_strz(f->login));
}

/* The line without what is meant for us alone; the arguments are parts of it. */
static void
without_guard(struct mw_str line, const struct mw_str *v, size_t argc, struct mw_buf *out)
{
	const char *from = line.p;
	for (size_t i = 1; i < argc; i++) {
		const char *end = v[i].p;
		if (!mw_str_istarts(v[i], MW_STR(MW_GUARD_ARG "=")))
			continue;
		while (end > from && end[-1] == ' ')
			end--;
		mw_buf_put(out, from, (size_t)(end - from));
		from = v[i].p + v[i].n;
	}
	mw_buf_put(out, from, (size_t)(line.p + line.n - from));
}

static void
command_mail(struct mw_dialog *d, struct mw_str line, struct mw_str rest)
{
	MW_BUF_AUTO plain = {0};
	struct mw_str v[MW_SMTP_ARGS];
	size_t argc = mw_smtp_path(rest, MW_STR("FROM:"), v);
	struct mw_answer a;
	if (d->open) {
		mw_dialog_junk(d, "503 5.5.1 A message is open already");
		return;
	}
	if (argc == 0) {
		mw_dialog_junk(d, "501 5.5.4 Syntax: MAIL FROM:<address>");
		return;
	}
	for (size_t i = 1; i < argc; i++)
		if (mw_str_ieq(v[i], MW_STR("BODY=BINARYMIME"))) {
			/* the journal would keep it; no mail store takes it back */
			mw_dialog_junk(d, "555 5.5.4 BINARYMIME is not offered");
			return;
		}
	without_guard(line, v, argc, &plain);
	if (mw_buf_ok(&plain) < 0) {
		mw_dialog_bye(d, "421 4.3.0 Out of memory");
		return;
	}
	take_settings(d);
	tell_client_facts(d);
	if (mw_session_mail(d->session, v, argc, true, &a) < 0)
		mw_dialog_bye(d, "421 4.3.0 Internal error");
	else if (a.refuse)
		refused(d, &a);
	else
		mw_dialog_forward(d, mw_buf_str(&plain), MW_VERB_MAIL);
}

static void
command_rcpt(struct mw_dialog *d, struct mw_str line, struct mw_str rest)
{
	struct mw_str v[MW_SMTP_ARGS];
	struct mw_answer a;
	if (!d->open) {
		mw_dialog_junk(d, "503 5.5.1 MAIL first");
	} else if (d->chunk.begun) {
		mw_dialog_junk(d, "503 5.5.1 RCPT after BDAT");
	} else if (mw_smtp_path(rest, MW_STR("TO:"), v) == 0) {
		mw_dialog_junk(d, "501 5.5.4 Syntax: RCPT TO:<address>");
	} else if (mw_session_full(d->session)) {
		mw_policy_too_many(&a);
		refused(d, &a);
	} else {
		mw_dialog_forward(d, line, MW_VERB_RCPT);
	}
}

static void
command_data(struct mw_dialog *d, struct mw_str line, struct mw_str rest)
{
	if (!d->open)
		mw_dialog_junk(d, "503 5.5.1 MAIL first");
	else if (d->accepted == 0)
		mw_dialog_junk(d, "503 5.5.1 No valid recipients");
	else if (d->chunk.begun)
		mw_dialog_junk(d, "503 5.5.1 DATA after BDAT");
	else if (rest.n)
		mw_dialog_junk(d, "501 5.5.4 DATA takes no arguments");
	else if (d->in_at < d->in.n) /* what follows might be read as commands */
		mw_dialog_bye(d, "421 5.5.0 Wait for the reply to DATA");
	else
		mw_dialog_forward(d, line, MW_VERB_DATA);
}

/* What may be said on a connection on which another client has said its EHLO. */
static bool
before_hello(enum mw_verb verb)
{
	/* BDAT: not offered yet, so its bytes are not taken for commands */
	return verb == MW_VERB_BDAT || verb == MW_VERB_HELO || verb == MW_VERB_EHLO ||
	       verb == MW_VERB_LHLO || verb == MW_VERB_QUIT || verb == MW_VERB_STARTTLS ||
	       verb == MW_VERB_NOOP || verb == MW_VERB_RSET;
}

static void
command(struct mw_dialog *d, struct mw_str line)
{
	struct mw_str rest;
	enum mw_verb verb = mw_smtp_verb(line, &rest);
	if (memchr(line.p, '\r', line.n) || memchr(line.p, 0, line.n)) {
		mw_dialog_junk(d, "500 5.5.2 A command holds a bare CR or a NUL");
		return;
	}
	if (d->authing) {
		mw_dialog_auth_line(d, line);
		return;
	}
	if (d->close_next) { /* after a message that the next server did not see whole */
		mw_dialog_bye(d, verb == MW_VERB_QUIT ? "221 2.0.0 Bye" : mw_dialog_lost);
		return;
	}
	if (d->used && !d->hello && !before_hello(verb)) {
		mw_dialog_junk(d, d->o.lmtp ? "503 5.5.1 Say LHLO first"
		                            : "503 5.5.1 Say EHLO first");
		return;
	}
	if (mw_dialog_keep_hello(d, line, verb))
		return;
	switch (verb) {
	case MW_VERB_MAIL:
		command_mail(d, line, rest);
		return;
	case MW_VERB_RCPT:
		command_rcpt(d, line, rest);
		return;
	case MW_VERB_DATA:
		command_data(d, line, rest);
		return;
	case MW_VERB_STARTTLS:
		mw_dialog_starttls(d, rest);
		return;
	case MW_VERB_AUTH:
		mw_dialog_auth(d, line, rest);
		return;
	case MW_VERB_BDAT:
		mw_dialog_bdat(d, rest);
		return;
	case MW_VERB_XFORWARD:
	case MW_VERB_XCLIENT:
		if (!d->o.trusted) {
			mw_dialog_junk(d, "550 5.7.0 Not from this address");
			return;
		}
		if (verb == MW_VERB_XFORWARD && mw_dialog_keep_forward(d, line))
			return;
		break;
	case MW_VERB_OTHER:
		mw_dialog_junk(d, "502 5.5.1 Command not known here");
		return;
	case MW_VERB_QUIT:
		d->quit = d->in_at == d->in.n;
		if (mw_dialog_keep_end(d))
			mw_dialog_bye(d, "221 2.0.0 Bye");
		else
			mw_dialog_forward(d, line, verb);
		return;
	default:
		if ((verb == MW_VERB_LHLO && !d->o.lmtp) ||
		    ((verb == MW_VERB_HELO || verb == MW_VERB_EHLO) && d->o.lmtp)) {
			mw_dialog_junk(d, d->o.lmtp ? "500 5.5.1 This is LMTP: say LHLO"
			                            : "500 5.5.1 This is SMTP: say EHLO");
			return;
		}
		if (++d->junk > JUNK_MAX) {
			mw_dialog_junk(d, "");
			return;
		}
	}
	mw_dialog_forward(d, line, verb);
}

/* One command line of d->in, if there is a whole one. */
static bool
next_command(struct mw_dialog *d)
{
	size_t n = d->in.n - d->in_at;
	if (n == 0)
		return false;
	char *p = (char *)d->in.p + d->in_at;
	const char *lf = memchr(p, '\n', n);
	if (!lf && n < MW_SMTP_LINE)
		return false;
	if (!lf) {
		d->skip_line = true;
		d->in_at = d->in.n;
		return false;
	}
	size_t len = (size_t)(lf - p);
	d->in_at += len + 1;
	if (d->skip_line || len + 1 > MW_SMTP_LINE) {
		d->skip_line = false;
		mw_dialog_junk(d, "500 5.5.2 Line too long");
	} else if (len == 0 || p[len - 1] != '\r') {
		mw_dialog_junk(d, "500 5.5.2 Lines end in CR LF");
	} else {
		command(d, mw_str(p, len - 1));
		if (d->verb == MW_VERB_AUTH)
			explicit_bzero(p, len);
	}
	return true;
}

/* Something that was to be said or remembered is not. */
static bool
out_of_memory(const struct mw_dialog *d)
{
	const struct mw_buf *all[] = {&d->in,   &d->to_next,  &d->to_client,
	                              &d->line, &d->greeting, &d->ahead};
	for (size_t i = 0; i < MW_COUNT(all); i++)
		if (mw_buf_ok(all[i]) < 0)
			return true;
	return false;
}

/* It has commands answered and does not read the replies: no more of them until then. */
static bool
waits_for_client(const struct mw_dialog *d)
{
	return d->state == MW_DI_COMMAND && d->to_client.n >= IN_MAX &&
	       !d->to_client.failed;
}

void
mw_dialog_flushed(struct mw_dialog *d)
{
	if (d->state == MW_DI_COMMAND && (d->in_at < d->in.n || d->eof))
		mw_dialog_run(d); /* it may have waited for that */
}

void
mw_dialog_run(struct mw_dialog *d)
{
	for (;;) {
		bool more = false;
		if (d->state == MW_DI_COMMAND && !d->start_tls && !waits_for_client(d))
			more = next_command(d);
		else if (d->state == MW_DI_CONTENT && d->chunk.in)
			more = mw_dialog_chunk_run(d);
		else if (d->state == MW_DI_CONTENT)
			more = mw_dialog_data_run(d);
		if (!more)
			break;
	}
	if (d->in_at == d->in.n && mw_buf_ok(&d->in) == 0) { /* else bytes are missing */
		mw_buf_clear(&d->in);
		d->in_at = 0;
	}
	if (d->eof && !waits_for_client(d) &&
	    (d->state == MW_DI_COMMAND || d->state == MW_DI_CONTENT)) {
		if (d->state == MW_DI_COMMAND)
			(void)mw_dialog_keep_end(d);
		mw_dialog_bye(d, NULL);
	}
	if (d->state != MW_DI_CLOSED && d->state != MW_DI_COMMIT && out_of_memory(d)) {
		mw_log(MW_LOG_ERR, NULL, "event=session_failed on=%s error=%s", d->o.on,
		       mw_err_name(MW_ENOMEM));
		mw_dialog_bye(d, NULL);
	}
}

void
mw_dialog_client(struct mw_dialog *d, const void *p, size_t n)
{
	if (d->state == MW_DI_CLOSED)
		return;
	mw_buf_drop(&d->in, d->in_at);
	d->in_at = 0;
	mw_buf_put(&d->in, p, n);
	mw_dialog_run(d);
}

void
mw_dialog_client_eof(struct mw_dialog *d)
{
	d->eof = true;
	mw_dialog_run(d);
}

/* ---- what goes wrong ---- */

void
mw_dialog_next_down(struct mw_dialog *d, const char *why)
{
	/* reconnect: that it is gone was known, and is nobody's trouble */
	if (d->close_next || d->state == MW_DI_CLOSED || d->reconnect ||
	    mw_dialog_keep_again(d))
		return;
	mw_log(MW_LOG_WARN, NULL, "event=nexthop_failed on=%s nexthop=%s reason=\"%s\"",
	       d->o.on, d->o.next, why);
	switch (d->state) {
	case MW_DI_GREETING:
		mw_dialog_bye(d, "421 4.4.1 The next server cannot be reached, try again "
		                 "later");
		break;
	case MW_DI_CONTENT:
		mw_dialog_data_drop(d, "451 4.4.2 Connection to the next server "
		                       "lost, try again later");
		break;
	case MW_DI_COMMIT: /* told when the record's fate is known */
		mw_dialog_drop_next(d);
		break;
	case MW_DI_FINAL:
		mw_dialog_final_lost(d);
		break;
	default:
		mw_dialog_bye(d, mw_dialog_lost);
	}
	mw_dialog_run(d);
}

void
mw_dialog_timeout(struct mw_dialog *d)
{
	switch (d->state) {
	case MW_DI_COMMIT:
		mw_dialog_commit_timeout(d);
		break;
	case MW_DI_GREETING:
	case MW_DI_REPLY:
	case MW_DI_FINAL:
		mw_dialog_next_down(d, "no answer in time");
		break;
	case MW_DI_COMMAND:
	case MW_DI_CONTENT:
		mw_log(MW_LOG_NOTICE, NULL, "event=client_timeout on=%s", d->o.on);
		mw_dialog_bye(d, "421 4.4.2 Timeout");
		break;
	default:
		d->close_client = true;
		mw_buf_clear(&d->to_client);
		d->deadline_us = 0;
	}
}

void
mw_dialog_stop(struct mw_dialog *d)
{
	if (d->state < MW_DI_COMMIT)
		mw_dialog_bye(d, "421 4.3.2 Shutting down, try again later");
}
