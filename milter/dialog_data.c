/* dialog_data.c - the content of a message, its record, and the replies to its end. */
#include <stdio.h>

#include "journal/base/log.h"
#include "journal/base/path.h"
#include "journal/base/util.h"
#include "milter/dialog.h"

enum {
	HEAD_MAX = 8 * 1024, /* of the content, kept to find the queue ID */
	DATA_TIMES = 12,     /* times proxy_timeout for all content of a message */
	FINAL_TIMES = 2,     /* times proxy_timeout for each reply to its end */
};

static const char unsure[] = "451 4.4.2 Connection to the next server lost after the end "
                             "of the message";

static int64_t
now_us(const struct mw_dialog *d)
{
	return d->o.cap->clock->mono_us(d->o.cap->clock);
}

size_t
mw_dialog_replies(const struct mw_dialog *d)
{
	bool more = d->chunk.begun && !d->chunk.last;
	return d->o.lmtp && !more && d->accepted ? d->accepted : 1;
}

void
mw_dialog_data_begin(struct mw_dialog *d)
{
	d->dot = (struct mw_dot){.pass = d->pass};
	mw_buf_clear(&d->held);
	if (d->verb == MW_VERB_DATA)
		mw_buf_puts(&d->held, ".\r\n");
	d->junk = 0;
	d->dropped = false;
	d->began_us = now_us(d);
	mw_dialog_wait(d, MW_DI_CONTENT, 1);
	if (mw_buf_ok(&d->held) < 0 || mw_session_content(d->session, NULL, 0) < 0)
		mw_dialog_data_drop(d, "451 4.3.0 Internal error");
}

void
mw_dialog_data_drop(struct mw_dialog *d, const char *line)
{
	(void)snprintf(d->verdict, sizeof d->verdict, "%s", line);
	d->dropped = true;
	d->dot.pass = true;
	mw_session_abort(d->session);
	mw_dialog_drop_next(d);
}

/* The answer to an end of message that does not go on to the next server. */
static void
answer_all(struct mw_dialog *d, const char *line)
{
	for (size_t i = 0; i < mw_dialog_replies(d); i++)
		mw_dialog_say(d, line);
	bool close = strncmp(line, "421", 3) == 0;
	mw_dialog_message_over(d);
	if (close)
		mw_dialog_bye(d, NULL);
	else
		mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

/* Nobody waits for it. */
static void
write_outcome(struct mw_dialog *d)
{
	if (!d->has_id || (d->outcome.n_rcpt == 0 && !d->outcome.whole))
		return;
	d->outcome.queue_id = mw_strz(d->queue_id);
	mw_outbox_add(d->o.outbox, &d->outcome);
}

/* The sender was told no: it never took place. */
static void
note_refused(struct mw_dialog *d)
{
	d->outcome.whole = MW_FACT_REFUSED;
	d->outcome.whole_us = d->o.cap->clock->now_us(d->o.cap->clock);
}

/* The record's fate is known: on with the dot, or not. */
static void
settled(struct mw_dialog *d, const struct mw_answer *a)
{
	char line[200];
	if (a->refuse) {
		mw_dialog_drop_next(d);
		(void)snprintf(line, sizeof line, "%s %s %s", a->code, a->xcode, a->text);
		answer_all(d, line);
	} else if (d->close_next) {
		note_refused(d);
		write_outcome(d);
		answer_all(d, d->verdict[0]
		                  ? d->verdict
		                  : "451 4.4.2 Connection to the next server lost, try "
		                    "again later");
	} else {
		mw_buf_putstr(&d->to_next, mw_buf_str(&d->held));
		d->due = mw_dialog_replies(d);
		mw_dialog_wait(d, MW_DI_FINAL, FINAL_TIMES);
	}
}

static void
find_queue_id(struct mw_dialog *d)
{
	struct mw_str id = mw_strz(d->now.ident);
	/* Only behind LMTP the topmost trace field is surely our own MTA's. */
	if (id.n == 0 && d->o.lmtp && d->o.trusted)
		id = mw_smtp_received_id(mw_buf_str(&d->head));
	if (id.n == 0 || id.n >= sizeof d->queue_id)
		return;
	for (size_t i = 0; i < id.n; i++)
		if (id.p[i] <= ' ' || id.p[i] == 0x7f)
			return;
	memcpy(d->queue_id, id.p, id.n);
	d->queue_id[id.n] = 0;
	mw_session_macro(d->session, 'E', MW_STR("i"), id);
}

/* When to look whether the disk has taken too long. */
static void
ask_again(struct mw_dialog *d)
{
	d->deadline_us = now_us(d) + INT64_C(1000000);
}

void
mw_dialog_commit_timeout(struct mw_dialog *d)
{
	if (mw_session_overdue(d->session))
		mw_dialog_committed(d);
	else
		ask_again(d);
}

void
mw_dialog_data_end(struct mw_dialog *d)
{
	struct mw_answer a;
	if (d->dropped) {
		answer_all(d, d->verdict);
		return;
	}
	find_queue_id(d);
	d->verdict[0] = 0;
	mw_dialog_wait(d, MW_DI_COMMIT, 0);
	ask_again(d);
	int r = mw_session_eom(d->session, d->o.done, d->o.arg, &a);
	if (r > 0)
		return;
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
	if (r < 0)
		mw_dialog_bye(d, "421 4.3.0 Internal error");
	else
		settled(d, &a);
}

void
mw_dialog_committed(struct mw_dialog *d)
{
	struct mw_answer a;
	mw_assert(d->state == MW_DI_COMMIT);
	d->has_id = mw_session_record(d->session, d->outcome.id, &d->outcome.seq);
	mw_session_finish(d->session, &a);
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
	settled(d, &a);
	mw_dialog_client(d, NULL, 0); /* what has come meanwhile */
}

static void
smuggled(struct mw_dialog *d)
{
	mw_log(
	    MW_LOG_WARN, NULL,
	    "event=refused stage=data reply=554 on=%s reason=\"bare CR, LF or NUL around "
	    "a lone dot\"",
	    d->o.on);
	mw_dialog_data_drop(d,
	                    "554 5.6.0 Bare CR, LF or NUL around a lone dot: send CR LF");
}

bool
mw_dialog_data_late(const struct mw_dialog *d)
{
	return now_us(d) - d->began_us >= DATA_TIMES * d->timeout_us;
}

void
mw_dialog_data_going(struct mw_dialog *d)
{
	if (!mw_dialog_data_late(d))
		mw_dialog_wait(d, MW_DI_CONTENT, 1);
}

void
mw_dialog_content(struct mw_dialog *d, const void *p, size_t n)
{
	size_t head = d->head.n < HEAD_MAX ? HEAD_MAX - d->head.n : 0;
	if (d->o.lmtp)
		mw_buf_put(&d->head, p, MW_MIN(head, n));
	if (mw_buf_ok(&d->content) < 0 || mw_session_content(d->session, p, n) < 0)
		mw_dialog_data_drop(d, "451 4.3.0 Out of memory");
}

bool
mw_dialog_data_run(struct mw_dialog *d)
{
	size_t n = d->in.n - d->in_at, used = 0;
	if (n == 0)
		return false;
	size_t before = d->to_next.n;
	enum mw_dot_found found = mw_dot_scan(&d->dot, (char *)d->in.p + d->in_at, n,
	                                      &used, &d->to_next, &d->content);
	d->in_at += used;
	if (!d->dropped)
		mw_dialog_content(d, d->content.p, d->content.n);
	else
		d->to_next.n = before;
	mw_buf_clear(&d->content);
	mw_dialog_data_going(d);
	if (found == MW_DOT_SMUGGLED)
		smuggled(d);
	else if (found == MW_DOT_END)
		mw_dialog_data_end(d);
	return d->in_at < d->in.n;
}

/* ---- replies to the end of the message, and the record of them ---- */

void
mw_dialog_add_rcpt(struct mw_dialog *d, struct mw_str path)
{
	if (!d->arena)
		d->arena = mw_arena_new(0);
	struct mw_str *v = NULL, addr = MW_STR("");
	if (d->arena && d->rcpt_cap != SIZE_MAX) {
		v = mw_arena_grow(d->arena, d->rcpt, &d->rcpt_cap, d->accepted + 1,
		                  sizeof *v);
		addr = mw_path_addr(path, d->arena);
		addr = addr.p ? mw_arena_str(d->arena, addr) : addr;
	}
	if (v && addr.p) {
		d->rcpt = v;
		v[d->accepted] = addr;
	} else {
		d->rcpt_cap = SIZE_MAX; /* then there will be no outcome */
	}
	d->accepted++;
}

/* The fact about one recipient, from the reply that is in d->reply. */
static void
note_fact(struct mw_dialog *d, size_t i)
{
	struct mw_outcome *o = &d->outcome;
	if (!o->rcpt && d->arena && d->rcpt_cap != SIZE_MAX)
		o->rcpt = mw_arena_alloc(d->arena, d->accepted * sizeof *o->rcpt);
	if (!o->rcpt)
		return;
	struct mw_str text = mw_str_trim(mw_buf_str(&d->reply)), dsn = MW_STR("");
	unsigned class = d->reply_code / 100;
	struct mw_outcome_rcpt *r = &o->rcpt[i];
	text.n = MW_MIN(text.n, (size_t)MW_OUTCOME_TEXT_MAX);
	if (text.n > 6 && text.p[5] == '.' && text.p[4] >= '2' && text.p[4] <= '5') {
		dsn = mw_str(text.p + 4, text.n - 4);
		for (size_t k = 0; k < dsn.n; k++)
			if (dsn.p[k] != '.' && (dsn.p[k] < '0' || dsn.p[k] > '9'))
				dsn.n = k;
	}
	r->addr = d->rcpt[i];
	/* A server that relays on has not said what becomes of it in the end. */
	r->fact = !d->o.lmtp   ? MW_FACT_UNKNOWN
	          : class == 2 ? MW_FACT_DELIVERED
	          : class == 4 ? MW_FACT_DEFERRED
	                       : MW_FACT_BOUNCED;
	r->time_us = d->o.cap->clock->now_us(d->o.cap->clock);
	r->dsn = mw_arena_str(d->arena, dsn);
	r->relay = mw_strz(d->o.next);
	r->text = mw_arena_str(d->arena, text);
	o->n_rcpt = i + 1;
}

static void
message_sent(struct mw_dialog *d, unsigned code)
{
	char id[MW_ID_TEXT + 1] = "none";
	if (d->has_id)
		mw_id_text(id, d->outcome.id);
	mw_log(d->failed ? MW_LOG_NOTICE : MW_LOG_INFO,
	       d->queue_id[0] ? d->queue_id : NULL,
	       "event=relayed id=%s on=%s nexthop=%s nrcpt=%zu failed=%zu reply=%u "
	       "queued_as=%s",
	       id, d->o.on, d->o.next, d->accepted, d->failed, code, d->queued_as);
	write_outcome(d);
	if (d->failed == 0)
		mw_session_delivered(d->session);
	d->after_message = d->failed == 0;
	d->relayed++;
	mw_dialog_message_over(d);
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

/* The ID in "250 2.0.0 Ok: queued as ID", for the log. */
static void
note_queue_id(struct mw_dialog *d)
{
	static const char words[] = "queued as ";
	const char *text = mw_buf_cstr(&d->reply), *at = strstr(text, words);
	size_t n = 0;
	if (!at)
		return;
	at += sizeof words - 1;
	while ((at[n] >= '0' && at[n] <= '9') || (at[n] >= 'A' && at[n] <= 'Z') ||
	       (at[n] >= 'a' && at[n] <= 'z'))
		n++;
	(void)snprintf(d->queued_as, sizeof d->queued_as, "%.*s",
	               (int)MW_MIN(n, sizeof d->queued_as - 1), at);
}

void
mw_dialog_final_reply(struct mw_dialog *d)
{
	if (d->reply_code / 100 == 3) {
		mw_dialog_final_lost(d);
		return;
	}
	mw_buf_putstr(&d->to_client, mw_buf_str(&d->reply));
	if (d->reply_code < 300)
		note_queue_id(d);
	else
		d->failed += d->o.lmtp ? 1 : d->accepted;
	if (d->o.lmtp) {
		note_fact(d, d->accepted - d->due);
	} else if (d->reply_code < 300) {
		for (size_t i = 0; i < d->accepted; i++)
			note_fact(d, i);
	} else {
		note_refused(d);
	}
	if (--d->due == 0)
		message_sent(d, d->reply_code);
	else /* each recipient's delivery may take its time */
		mw_dialog_wait(d, MW_DI_FINAL, FINAL_TIMES);
}

void
mw_dialog_final_lost(struct mw_dialog *d)
{
	d->failed += d->o.lmtp ? d->due : d->accepted;
	for (; d->due; d->due--)
		mw_dialog_say(d, unsure);
	mw_dialog_drop_next(d);
	message_sent(d, 451);
}
