/* dialog_next.c - what the next server says: replies put together, and their effects. */
#include <stdio.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/dialog.h"

enum {
	REPLY_MAX = 64 * 1024
};

static void
attributes(struct mw_str line, struct mw_facts *f)
{
	struct mw_str rest, name, value;
	char port[8];
	(void)mw_smtp_verb(line, &rest);
	while (mw_smtp_attribute(&rest, &name, &value)) {
		if (mw_str_ieq(name, MW_STR("NAME")))
			mw_smtp_xtext(value, f->name, sizeof f->name);
		else if (mw_str_ieq(name, MW_STR("ADDR")))
			mw_smtp_xtext(value, f->addr, sizeof f->addr);
		else if (mw_str_ieq(name, MW_STR("HELO")))
			mw_smtp_xtext(value, f->helo, sizeof f->helo);
		else if (mw_str_ieq(name, MW_STR("IDENT")))
			mw_smtp_xtext(value, f->ident, sizeof f->ident);
		else if (mw_str_ieq(name, MW_STR("LOGIN")))
			mw_smtp_xtext(value, f->login, sizeof f->login);
		if (!mw_str_ieq(name, MW_STR("PORT")))
			continue;
		mw_smtp_xtext(value, port, sizeof port);
		unsigned long n = strtoul(port, NULL, 10);
		f->port = n < 65536 ? (unsigned)n : 0;
	}
}

void
mw_dialog_xforward(struct mw_dialog *d, struct mw_str line)
{
	attributes(line, &d->now);
}

static void
reply_rcpt(struct mw_dialog *d, bool good)
{
	struct mw_str v[MW_SMTP_ARGS], rest;
	struct mw_answer a;
	(void)mw_smtp_verb(mw_buf_str(&d->line), &rest);
	size_t argc = mw_smtp_path(rest, MW_STR("TO:"), v);
	if (!good)
		mw_session_macro(d->session, 'R', MW_STR("rcpt_mailer"), MW_STR("error"));
	/* cannot be out of sequence; what does not fit is told at the end */
	(void)!mw_session_rcpt(d->session, v, argc, false, &a);
	if (good)
		mw_dialog_add_rcpt(d, v[0]);
}

static void
reply_hello(struct mw_dialog *d)
{
	struct mw_str rest;
	(void)mw_smtp_verb(mw_buf_str(&d->line), &rest);
	d->hello = true;
	mw_dialog_keep_note_hello(d);
	d->chunking = d->verb != MW_VERB_HELO &&
	              mw_smtp_offers(mw_buf_str(&d->reply), MW_STR("CHUNKING"));
	(void)snprintf(d->base.helo, sizeof d->base.helo, "%.*s", (int)rest.n, rest.p);
	mw_dialog_message_over(d);
}

/* The effect of a command that the next server took (or not). */
static void
reply_effect(struct mw_dialog *d, bool good)
{
	switch (d->verb) {
	case MW_VERB_MAIL:
		d->open = good;
		if (!good)
			mw_session_abort(d->session);
		break;
	case MW_VERB_RCPT:
		reply_rcpt(d, good);
		break;
	case MW_VERB_BDAT:
		if (!good)
			mw_dialog_chunk_refused(d);
		break;
	case MW_VERB_RSET:
		if (good)
			mw_dialog_message_over(d);
		break;
	case MW_VERB_HELO:
	case MW_VERB_EHLO:
	case MW_VERB_LHLO:
		if (good)
			reply_hello(d);
		break;
	case MW_VERB_XFORWARD:
		if (good)
			mw_dialog_xforward(d, mw_buf_str(&d->line));
		d->kept.forwards = good;
		break;
	case MW_VERB_XCLIENT:
		if (good) {
			attributes(mw_buf_str(&d->line), &d->base);
			d->chunking = false; /* until EHLO is said again */
			mw_dialog_message_over(d);
		}
		break;
	default:
		break;
	}
}

static void
out_of_step(struct mw_dialog *d)
{
	mw_log(MW_LOG_WARN, NULL,
	       "event=nexthop_failed on=%s nexthop=%s reason=\"reply out of step\"",
	       d->o.on, d->o.next);
	if (d->state == MW_DI_FINAL)
		mw_dialog_final_lost(d);
	else if (d->state == MW_DI_CONTENT)
		mw_dialog_data_drop(d, "451 4.3.0 The next server is out of step");
	else if (d->state == MW_DI_COMMIT)
		mw_dialog_drop_next(d);
	else
		mw_dialog_bye(d, "421 4.3.0 The next server is out of step");
}

static void
relay(struct mw_dialog *d)
{
	struct mw_offer o = {.trusted = d->o.trusted,
	                     .starttls = d->o.tls && !d->tls_up,
	                     .auth = mw_dialog_private(d),
	                     .guard = d->o.lmtp,
	                     .limit = d->limit};
	bool hello = d->verb == MW_VERB_EHLO || d->verb == MW_VERB_LHLO;
	if (hello && d->state == MW_DI_REPLY && d->reply_code < 300)
		mw_smtp_offer(mw_buf_str(&d->reply), &o, &d->to_client);
	else
		mw_buf_putstr(&d->to_client, mw_buf_str(&d->reply));
}

void
mw_dialog_reply(struct mw_dialog *d)
{
	unsigned code = d->reply_code;
	bool good = code < 300, data = d->verb == MW_VERB_DATA;
	if (d->verb == MW_VERB_AUTH && (code == 334 || code / 100 != 3)) {
		relay(d);
		if (code == 421)
			mw_dialog_bye(d, NULL);
		else
			mw_dialog_auth_reply(d);
		return;
	}
	if (code / 100 == 3 ? !data || code != 354 : data && good) {
		out_of_step(d);
		return;
	}
	reply_effect(d, good);
	relay(d);
	if (code == 421 || d->verb == MW_VERB_QUIT) {
		mw_dialog_bye(d, NULL);
	} else if (code == 354) {
		mw_dialog_data_begin(d);
	} else {
		mw_dialog_wait(d, MW_DI_COMMAND, 1);
		if (data && d->in_at < d->in.n) /* content that nobody asked for */
			mw_dialog_bye(d, "421 5.5.0 Wait for the reply to DATA");
	}
}

/* Before the dot: the next server will not take the message. */
static void
reply_early(struct mw_dialog *d)
{
	char line[sizeof d->verdict];
	if (d->reply_code < 400) {
		out_of_step(d);
		return;
	}
	/* the last line, as much of it as fits */
	(void)snprintf(line, sizeof line, "%u %s", d->reply_code, mw_buf_cstr(&d->line));
	if (d->state == MW_DI_CONTENT) {
		mw_dialog_data_drop(d, line);
		return;
	}
	memcpy(d->verdict, line, sizeof line);
	mw_dialog_drop_next(d);
}

static void
reply_done(struct mw_dialog *d)
{
	if (d->reply_code == 421 && mw_dialog_keep_again(d))
		return;
	mw_dialog_keep_heard(d);
	if (d->ahead_due && d->state == MW_DI_REPLY) {
		mw_dialog_keep_forwarded(d);
		return;
	}
	switch (d->state) {
	case MW_DI_GREETING:
		mw_dialog_greeted(d);
		break;
	case MW_DI_REPLY:
		mw_dialog_reply(d);
		break;
	case MW_DI_FINAL:
		mw_dialog_final_reply(d);
		break;
	case MW_DI_CONTENT: /* it will not take the message: no use in the rest */
	case MW_DI_COMMIT:
		reply_early(d);
		break;
	case MW_DI_COMMAND:
		if (d->reply_code == 421)
			relay(d);
		mw_dialog_bye(d, d->reply_code == 421 ? NULL : mw_dialog_lost);
		break;
	default:
		out_of_step(d);
	}
}

/* One line of a reply, without its end. False: the next server cannot be followed. */
static bool
reply_line(struct mw_dialog *d, struct mw_str line)
{
	bool last = false;
	unsigned code = mw_smtp_reply(line, &last);
	if (code == 0 || (d->reply_lines && code != d->reply_code) ||
	    ++d->reply_lines > MW_SMTP_LINES || d->reply.n + line.n > REPLY_MAX)
		return false;
	d->reply_code = code;
	mw_buf_putstr(&d->reply, line);
	mw_buf_put(&d->reply, "\r\n", 2);
	if (!last)
		return true;
	if (mw_buf_ok(&d->reply) < 0)
		return false;
	if (d->state == MW_DI_CONTENT || d->state == MW_DI_COMMIT) {
		mw_buf_clear(&d->line);
		if (line.n > 4)
			mw_buf_put(&d->line, line.p + 4, line.n - 4);
	}
	reply_done(d);
	mw_buf_clear(&d->reply);
	d->reply_lines = 0;
	return true;
}

void
mw_dialog_next(struct mw_dialog *d, const void *p, size_t n)
{
	mw_buf_put(&d->reply_in, p, n);
	size_t at = 0;
	while (!d->close_next && d->state != MW_DI_CLOSED && at < d->reply_in.n) {
		char *q = (char *)d->reply_in.p + at;
		const char *lf = memchr(q, '\n', d->reply_in.n - at);
		size_t len = lf ? (size_t)(lf - q) : d->reply_in.n - at;
		if (!lf && len < MW_SMTP_LINE && !d->start_next_tls)
			break;
		at += len + 1;
		if (d->start_next_tls) { /* said in clear after its 220 */
			out_of_step(d);
			break;
		}
		bool crlf = len && q[len - 1] == '\r';
		if (!lf || len >= MW_SMTP_LINE || !reply_line(d, mw_str(q, len - crlf))) {
			out_of_step(d);
			break;
		}
		d->reply_at = at;
		mw_dialog_run(d);
	}
	mw_buf_drop(&d->reply_in, MW_MIN(at, d->reply_in.n));
	d->reply_at = 0;
	if (mw_buf_ok(&d->reply_in) < 0 && d->state != MW_DI_CLOSED)
		mw_dialog_next_down(d, "out of memory");
}
