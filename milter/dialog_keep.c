/* dialog_keep.c - connections to the next server that serve one client after the other.
 *
 * Such a connection is given away only in a state that says nothing of its client: right
 * after a message that went well, when nothing was refused. The next client has to say
 * EHLO first. Where the server has closed it meanwhile, that is not the client's trouble:
 * as long as nothing was answered, a new connection takes its place. */
#include "milter/dialog.h"

#include "journal/base/log.h"

enum {
	AHEAD_MAX = 8 /* commands: Postfix says what it knows in one or two */
};

static void
copy(struct mw_buf *to, const struct mw_buf *from)
{
	mw_buf_clear(to);
	mw_buf_putstr(to, mw_buf_str(from));
}

void
mw_dialog_next_used(struct mw_dialog *d, const struct mw_used *u)
{
	d->used = d->after_message = true;
	copy(&d->kept.greeting, &u->greeting);
	copy(&d->kept.hello, &u->hello);
	copy(&d->kept.hello_reply, &u->hello_reply);
	d->kept.forwards = u->forwards;
	copy(&d->to_client, &u->greeting);
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

bool
mw_dialog_keep_hello(struct mw_dialog *d, struct mw_str line, enum mw_verb verb)
{
	if (!d->used || d->hello || d->heard || d->ahead_due || d->kept.hello.n == 0 ||
	    verb != (d->o.lmtp ? MW_VERB_LHLO : MW_VERB_EHLO) ||
	    !mw_str_eq(line, mw_buf_str(&d->kept.hello)))
		return false;
	copy(&d->line, &d->kept.hello);
	copy(&d->reply, &d->kept.hello_reply);
	d->verb = verb;
	d->reply_code = 250;
	d->state = MW_DI_REPLY;
	mw_dialog_reply(d);
	mw_buf_clear(&d->reply);
	return true;
}

/* The next server would be woken for it alone, to say 250. It has said so before, on this
 * connection, to a client of the same trust; where it does not this time, that client is
 * sent away before anything of its message is there. */
bool
mw_dialog_keep_forward(struct mw_dialog *d, struct mw_str line)
{
	if (!d->kept.forwards || d->o.plain || d->odd || d->open ||
	    d->ahead_due >= AHEAD_MAX || d->kept.hello.n == 0 ||
	    !mw_smtp_offers(mw_buf_str(&d->kept.hello_reply), MW_STR("PIPELINING")))
		return false;
	mw_dialog_keep_said(d, MW_VERB_XFORWARD);
	mw_buf_putstr(&d->ahead, line);
	mw_buf_put(&d->ahead, "\r\n", 2);
	mw_buf_putstr(&d->to_next, line);
	mw_buf_put(&d->to_next, "\r\n", 2);
	d->ahead_due++;
	mw_dialog_xforward(d, line);
	mw_dialog_answered(d, "250 2.0.0 Ok");
	return true;
}

void
mw_dialog_keep_forwarded(struct mw_dialog *d)
{
	d->kept.forwards = d->reply_code < 300;
	if (--d->ahead_due == 0)
		mw_buf_clear(&d->ahead);
	if (d->kept.forwards)
		return;
	d->unforwarded = true;
	mw_log(MW_LOG_WARN, NULL,
	       "event=nexthop_failed on=%s nexthop=%s reason=\"it refuses XFORWARD: %u\"",
	       d->o.on, d->o.next, d->reply_code);
	mw_dialog_bye(d, "421 4.3.0 The next server refuses XFORWARD, try again later");
}

void
mw_dialog_keep_note_hello(struct mw_dialog *d)
{
	mw_buf_clear(&d->kept.hello);
	if (!d->o.keep || d->verb == MW_VERB_HELO)
		return;
	copy(&d->kept.hello, &d->line);
	copy(&d->kept.hello_reply, &d->reply);
}

void
mw_dialog_keep_said(struct mw_dialog *d, enum mw_verb verb)
{
	d->after_message = false;
	switch (verb) {
	case MW_VERB_HELO:
	case MW_VERB_EHLO:
	case MW_VERB_LHLO:
	case MW_VERB_MAIL:
	case MW_VERB_RCPT:
	case MW_VERB_DATA:
	case MW_VERB_BDAT:
	case MW_VERB_RSET:
	case MW_VERB_NOOP:
		break;
	case MW_VERB_XFORWARD:
		d->forwarded = true;
		break;
	default:
		d->odd = true;
	}
}

void
mw_dialog_keep_heard(struct mw_dialog *d)
{
	if (d->state != MW_DI_GREETING)
		d->heard = true;
	if (d->reply_code >= 400)
		d->odd = true;
}

bool
mw_dialog_keep_end(struct mw_dialog *d)
{
	if (!d->o.keep || d->odd || !d->after_message || d->close_next)
		return false;
	/* It said 250 before it had all of the message, or says more than it was asked:
	 * what the next client says would be taken for something else. */
	if (d->to_next.n || d->reply_lines || d->reply_in.n > d->reply_at)
		return false;
	d->keep_next = true;
	return true;
}

bool
mw_dialog_keep_again(struct mw_dialog *d)
{
	if (!d->used || d->heard || d->reconnect ||
	    (d->state != MW_DI_COMMAND && d->state != MW_DI_REPLY))
		return false;
	bool asked = d->state == MW_DI_REPLY;
	if (asked && d->verb == MW_VERB_AUTH) /* which is not remembered */
		return false;
	d->used = d->after_message = d->kept.forwards = false;
	d->reconnect = true;
	mw_buf_clear(&d->to_next);
	mw_buf_clear(&d->reply_in);
	mw_buf_clear(&d->reply);
	d->reply_lines = 0;
	if (!asked)
		mw_buf_clear(&d->line);
	d->again = 1;
	mw_dialog_wait(d, MW_DI_GREETING, 1);
	return true;
}

static void
send_line(struct mw_dialog *d, const struct mw_buf *line)
{
	mw_buf_putstr(&d->to_next, mw_buf_str(line));
	mw_buf_put(&d->to_next, "\r\n", 2);
}

void
mw_dialog_keep_greeted(struct mw_dialog *d)
{
	bool hello = d->again == 1 && d->hello; /* which this connection has not heard */
	if (d->reply_code != (d->again == 1 ? 220 : 250)) {
		mw_dialog_bye(d, mw_dialog_lost);
		return;
	}
	if (d->again == 2 && !mw_smtp_offers(mw_buf_str(&d->reply), MW_STR("CHUNKING")))
		d->chunking = false; /* whatever the one before offered */
	if (!hello && d->ahead.n) {  /* said to one who is gone; nothing was answered */
		if (!mw_smtp_offers(mw_buf_str(&d->reply), MW_STR("PIPELINING"))) {
			mw_dialog_bye(d, mw_dialog_lost);
			return;
		}
		mw_buf_putstr(&d->to_next, mw_buf_str(&d->ahead));
	}
	d->again = hello ? 2 : 0;
	if (hello) {
		send_line(d, &d->kept.hello);
		mw_dialog_wait(d, MW_DI_GREETING, 1);
	} else if (d->line.n) {
		send_line(d, &d->line);
		mw_dialog_wait(d, MW_DI_REPLY, 1);
	} else {
		mw_dialog_wait(d, MW_DI_COMMAND, 1);
	}
}
