/* mtalog_sendmail.c - what Sendmail says of a message. */
#include "replay/mtalog_int.h"

#include "journal/base/util.h"

/* How many bytes stand for the next one of s, which has some: Sendmail writes \ as \\,
 * what cannot be printed as \t, \n, \r or \ooo, and nothing else behind a \. */
static size_t
logged(struct mw_str s, char *ret)
{
	static const char from[] = "\\tnr", to[] = "\\\t\n\r";
	const char *at = s.p[0] == '\\' && s.n > 1 ? memchr(from, s.p[1], 4) : NULL;
	unsigned v = 0;
	if (at) {
		*ret = to[at - from];
		return 2;
	}
	size_t i = 1;
	while (i < 4 && i < s.n && s.p[i] >= '0' && s.p[i] <= '7')
		v = v * 8 + (unsigned)(s.p[i++] - '0');
	bool octal = s.p[0] == '\\' && i == 4 && v <= 255;
	*ret = octal ? (char)v : s.p[0];
	return octal ? 4 : 1;
}

struct mw_str
mw_mtalog_plain(struct mw_str s, char *out)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n;)
		i += logged(mw_str(s.p + i, s.n - i), &out[n++]);
	return mw_str(out, n);
}

/* mw_mtalog_angle of what is logged so; a backslash quotes outside quotes, too. */
static bool
angle(struct mw_str *s, struct mw_str *ret)
{
	bool quoted = false, plain = false;
	char c;
	if (!s->n || s->p[0] != '<')
		return false;
	for (size_t i = 1, n; i < s->n; i += n) {
		n = logged(mw_str(s->p + i, s->n - i), &c);
		if (plain) {
			plain = false;
		} else if (c == '\\') {
			plain = true;
		} else if (c == '"') {
			quoted = !quoted;
		} else if (c == '>' && !quoted) {
			*ret = mw_str(s->p + 1, i - 1);
			*s = mw_str(s->p + i + 1, s->n - i - 1);
			return true;
		}
	}
	return false;
}

/* The value of ", name=" behind the first field, up to the next ", " or the end. */
static bool
field(struct mw_str s, const char *name, struct mw_str *ret)
{
	struct mw_str before;
	if (!until(&s, name, &before))
		return false;
	if (!until(&s, ", ", ret))
		*ret = s;
	return true;
}

static bool
mailer_of_mailboxes(struct mw_str m)
{
	return mw_str_eq(m, MW_STR("local")) || mw_str_eq(m, MW_STR("lmtp")) ||
	       mw_str_eq(m, MW_STR("cyrusv2")) || mw_str_eq(m, MW_STR("dovecot"));
}

/* "ID Message accepted for delivery", said by the Sendmail of this host itself: what
 * sendmail(1) hands to the daemon. */
static struct mw_str
handed_to_daemon(const struct mw_mta_event *e)
{
	struct mw_str rest = e->text, id;
	if ((find(e->relay, "[127.") || find(e->relay, "[IPv6:::1]") ||
	     find(e->relay, "[IPv6:0:0:0:0:0:0:0:1]")) &&
	    eat(&rest, MW_STR("Sent (")) && mw_mtalog_queue_id(&rest, &id) &&
	    mw_str_starts(rest, MW_STR(" Message accepted for delivery)")))
		return id;
	return mw_str("", 0);
}

static void
sendmail_fact(struct mw_mta_event *e)
{
	char class = e->dsn.n ? e->dsn.p[0] : 0;
	e->other = handed_to_daemon(e);
	if (mw_str_starts(e->text, MW_STR("Sent")))
		e->fact = e->other.n || find(e->text, "queued as ") ? MW_FACT_UNKNOWN
		          : mailer_of_mailboxes(e->service)         ? MW_FACT_DELIVERED
		                                                    : MW_FACT_SENT;
	else if (mw_str_eq(e->service, MW_STR("discard")))
		e->fact = MW_FACT_DISCARDED;
	else if (mw_str_starts(e->text, MW_STR("Deferred")) || class == '4')
		e->fact = MW_FACT_DEFERRED;
	else if (class == '5')
		e->fact = MW_FACT_BOUNCED;
	else
		e->kind = MW_MTA_NOTHING; /* queued, forwarded, … */
}

/* "to=<a>,<b>, delay=…, mailer=…, relay=…, dsn=…, stat=TEXT"; "stat=" ends the line, and
 * its text is of the other side, so everything is looked for in front of the first. */
static void
sendmail_to(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str head, rest = s, more;
	if (!until(&rest, ", stat=", &head) || find(rest, ", stat="))
		return;
	e->text = rest;
	if (!eat(&head, MW_STR("to=")))
		return;
	if (head.n && head.p[0] == '<') {
		if (!angle(&head, &e->addr))
			return;
		struct mw_str rest_of = head, addr;
		while (mw_str_starts(rest_of, MW_STR(",<"))) {
			rest_of = mw_str(rest_of.p + 1, rest_of.n - 1);
			if (!angle(&rest_of, &addr))
				return;
		}
		e->more = mw_str(head.p, head.n - rest_of.n);
		head = rest_of;
	} else if (!until(&head, ", ", &e->addr) || find(e->addr, ",")) {
		return;
	}
	if (!field(head, "mailer=", &e->service) &&
	    !mw_str_starts(rest, MW_STR("Sent"))) {
		/* no delivery was tried: refused at its end, by Sendmail or a filter */
		e->kind = MW_MTA_REFUSED;
		return;
	}
	(void)!field(head, "relay=", &e->relay);
	if (field(head, "dsn=", &more))
		e->dsn = more;
	e->kind = MW_MTA_DELIVERY;
	sendmail_fact(e);
}

bool
mw_mtalog_next(struct mw_mta_event *e)
{
	return eat(&e->more, MW_STR(",")) && angle(&e->more, &e->addr);
}

enum {
	SENDMAIL_MSGID = 100 /* no more of a Message-ID is logged */
};

/* The bytes that a Message-ID has in the log where it is so long that it was cut, else 0.
 * It is cut before what cannot be printed is written as \\, \n or \012. */
static size_t
cut_msgid(struct mw_str s)
{
	size_t i = 0;
	if (!s.n || s.p[0] != '<')
		return 0;
	for (int n = 0; n < SENDMAIL_MSGID; n++) {
		size_t len = 1;
		if (i < s.n && s.p[i] == '>')
			return 0;
		if (i + 1 < s.n && s.p[i] == '\\')
			len = s.p[i + 1] >= '0' && s.p[i + 1] <= '7' ? 4 : 2;
		if (i + len > s.n)
			return 0;
		i += len;
	}
	return i;
}

/* The fields that end the line, behind a Message-ID that is no "<…>" alone: as
 * "<1@x> (added by postmaster@y)", or as "17 of May". */
static struct mw_str
last_fields(struct mw_str s)
{
	static const char *const names[] = {"relay=", "daemon=", "proto=", "bodytype="};
	size_t at = s.n;
	for (size_t k = 0; k < MW_COUNT(names) && (k == 0 || at < s.n); k++) {
		size_t i = at;
		while (i > 0 && !mw_str_starts(mw_str(s.p + i, at - i), MW_STR(", ")))
			i--;
		struct mw_str f = mw_str(s.p + i, at - i);
		if (eat(&f, MW_STR(", ")) && mw_str_starts(f, mw_strz(names[k])))
			at = i;
	}
	return mw_str(s.p + at, s.n - at);
}

/* "from=<a>, size=…, class=…, nrcpts=1, msgid=<…>, proto=…, daemon=…, relay=NAME [ADDR]":
 * only what came over a daemon's port has passed the milters; the rest is sendmail(1)'s.
 * Sender and Message-ID are of the client's choice and are read as a whole. */
static void
sendmail_from(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str n, junk;
	if (s.n && s.p[0] == '<' ? !angle(&s, &e->addr) : !until(&s, ", ", &e->addr))
		return;
	if (!field(s, "nrcpts=", &n) || mw_str_eq(n, MW_STR("0")))
		return;
	if (until(&s, ", msgid=", &junk)) {
		size_t cut = cut_msgid(s);
		struct mw_str rest = mw_str(s.p + cut, s.n - cut);
		bool id = cut || mw_mtalog_angle(&rest, &junk);
		struct mw_str tail =
		    id && mw_str_starts(rest, MW_STR(", ")) ? rest : last_fields(rest);
		e->text = mw_str(s.p, s.n - (id ? rest.n : tail.n));
		s = tail;
	}
	e->kind = find(s, ", daemon=") ? MW_MTA_QUEUED : MW_MTA_PICKUP;
	(void)!field(s, ", relay=", &e->relay);
}

/* "Milter (NAME): to error state" closes whatever else is said of it. */
static bool
milter_failed(struct mw_str s)
{
	return mw_str_starts(s, MW_STR("Milter (")) &&
	       (find(s, "): error") || find(s, "): to error state"));
}

void
mw_mtalog_sendmail(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str rest = s, other;
	e->sendmail = true;
	if (!mw_mtalog_queue_id(&rest, &e->queue_id) || !eat(&rest, MW_STR(": "))) {
		e->queue_id = mw_str("", 0);
		if (milter_failed(s))
			e->kind = MW_MTA_MILTER_DOWN;
		return;
	}
	if (mw_str_starts(rest, MW_STR("to="))) {
		sendmail_to(rest, e);
	} else if (eat(&rest, MW_STR("from="))) {
		sendmail_from(rest, e);
	} else if (eat(&rest, MW_STR("Milter: data, reject=")) ||
	           eat(&rest, MW_STR("Milter: cmd=data, reject="))) {
		e->kind = MW_MTA_REFUSED;
	} else if (eat(&rest, MW_STR("Milter: data, discard")) ||
	           eat(&rest, MW_STR("discarded"))) {
		e->kind = MW_MTA_DISCARDED;
	} else if (milter_failed(rest)) {
		e->kind = MW_MTA_MILTER_DOWN;
	} else if (mw_mtalog_queue_id(&rest, &other) &&
	           (eat(&rest, MW_STR(": DSN: ")) ||
	            eat(&rest, MW_STR(": sender notify: ")) ||
	            eat(&rest, MW_STR(": postmaster notify: ")) ||
	            eat(&rest, MW_STR(": return to sender: ")))) {
		e->other = other;
		e->kind = MW_MTA_NOTICE;
	}
}
