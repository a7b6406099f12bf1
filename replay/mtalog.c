#include "replay/mtalog.h"

#include "journal/base/util.h"

#include <string.h>

/* ---- small readers: each takes its piece off the front of *s ---- */

static bool
eat(struct mw_str *s, struct mw_str word)
{
	if (!mw_str_starts(*s, word))
		return false;
	*s = mw_str(s->p + word.n, s->n - word.n);
	return true;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_alnum(char c)
{
	return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Characters up to (not with) `stop`, of the kind given; false if none. */
static bool
word(struct mw_str *s, bool (*kind)(char c), struct mw_str *ret)
{
	size_t n = 0;
	while (n < s->n && kind(s->p[n]))
		n++;
	*ret = mw_str(s->p, n);
	*s = mw_str(s->p + n, s->n - n);
	return n > 0;
}

static const char *
find(struct mw_str s, const char *what)
{
	return s.n ? memmem(s.p, s.n, what, strlen(what)) : NULL;
}

/* Up to the first `stop`, which is taken too. */
static bool
until(struct mw_str *s, const char *stop, struct mw_str *ret)
{
	const char *p = find(*s, stop);
	if (!p)
		return false;
	*ret = mw_str(s->p, (size_t)(p - s->p));
	size_t used = ret->n + strlen(stop);
	*s = mw_str(s->p + used, s->n - used);
	return true;
}

/* "<address>": a quoted local part may hold anything, so quotes are read as such. */
static bool
angle(struct mw_str *s, struct mw_str *ret)
{
	bool quoted = false;
	if (!s->n || s->p[0] != '<')
		return false;
	for (size_t i = 1; i < s->n; i++) {
		char c = s->p[i];
		if (quoted && c == '\\') {
			i++;
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

/* Long and short ones of Postfix, those of Sendmail; "NOQUEUE" is none. */
static bool
queue_id(struct mw_str *s, struct mw_str *ret)
{
	struct mw_str rest = *s, id;
	if (!word(&rest, is_alnum, &id) || id.n < 5 || id.n > 40 ||
	    mw_str_eq(id, MW_STR("NOQUEUE")) || mw_str_eq(id, MW_STR("warning")) ||
	    mw_str_eq(id, MW_STR("fatal")) || mw_str_eq(id, MW_STR("panic")) ||
	    mw_str_eq(id, MW_STR("error")))
		return false;
	bool digit = false;
	for (size_t i = 0; i < id.n; i++)
		digit = digit || is_digit(id.p[i]);
	if (!digit && id.n < 9) /* "connect", "timeout": words, not IDs */
		return false;
	*ret = id;
	*s = rest;
	return true;
}

/* "queued as ID" or "forwarded as ID" at the very end of the server's text. */
static struct mw_str
goes_on_as(struct mw_str text)
{
	static const char *const words[] = {"queued as ", "forwarded as "};
	for (size_t i = 0; i < MW_COUNT(words); i++) {
		struct mw_str t = text, before, id, last = {0};
		while (until(&t, words[i], &before))
			last = t;
		if (last.n && queue_id(&last, &id) &&
		    (!last.n || last.p[0] == ')' || last.p[0] == ' ' || last.p[0] == ';'))
			return id;
	}
	return mw_str("", 0);
}

/* ---- Postfix ---- */

static bool
is_service(struct mw_str s, const char *const *names)
{
	for (; *names; names++)
		if (mw_str_eq(s, mw_strz(*names)))
			return true;
	return false;
}

static const char *const deliver_names[] = {"smtp",    "lmtp",  "local",
                                            "virtual", "pipe",  "discard",
                                            "error",   "retry", NULL};
static const char *const postfix_names[] = {"smtpd",   "cleanup", "qmgr",    "nqmgr",
                                            "oqmgr",   "pickup",  "bounce",  "smtp",
                                            "lmtp",    "local",   "virtual", "pipe",
                                            "discard", "error",   "retry",   "postsuper",
                                            "qmqpd",   "trace",   "defer",   NULL};

/* Was that its last hop? Only then does "sent" mean that it is in the mailbox. */
static enum mw_fact
sent_fact(struct mw_str service, struct mw_str text)
{
	if (mw_str_eq(service, MW_STR("discard")))
		return MW_FACT_DISCARDED;
	if (find(text, "queued as ") || find(text, "forwarded as ") ||
	    find(text, "delivered to command") || find(text, "delivered via") ||
	    mw_str_eq(service, MW_STR("pipe")))
		return MW_FACT_UNKNOWN;
	if (mw_str_eq(service, MW_STR("lmtp")) || mw_str_eq(service, MW_STR("local")) ||
	    mw_str_eq(service, MW_STR("virtual")))
		return MW_FACT_DELIVERED;
	return MW_FACT_SENT;
}

static bool
in_numbers(char c)
{
	return is_digit(c) || c == '.' || c == '/';
}

static bool
in_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
starts_later(struct mw_str s)
{
	return find(s, ">, relay=") || find(s, ">, orig_to=<");
}

/* "to=<A>, [orig_to=<B>, ]relay=R, [conn_use=N, ]delay=D, delays=…, dsn=…, status=W (T)"
 */
static void
delivery(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str junk, status;
	if (!eat(&s, MW_STR("to=")) || !angle(&s, &e->addr))
		return;
	if (eat(&s, MW_STR(", orig_to=")) && !angle(&s, &e->original))
		return;
	if (!eat(&s, MW_STR(", relay=")) || !until(&s, ", ", &e->relay))
		return;
	if (eat(&s, MW_STR("conn_use=")) && !until(&s, ", ", &junk))
		return;
	if (!eat(&s, MW_STR("delay=")) || !word(&s, in_numbers, &junk) ||
	    !eat(&s, MW_STR(", ")))
		return;
	if (eat(&s, MW_STR("delays=")) &&
	    (!word(&s, in_numbers, &junk) || !eat(&s, MW_STR(", "))))
		return;
	if (eat(&s, MW_STR("dsn=")) &&
	    (!word(&s, in_numbers, &e->dsn) || !eat(&s, MW_STR(", "))))
		return;
	if (!eat(&s, MW_STR("status=")) || !word(&s, in_lower, &status) ||
	    !eat(&s, MW_STR(" (")) || !s.n || s.p[s.n - 1] != ')')
		return;
	/* Where addresses are logged without their quotes, one could have ended early. */
	if (starts_later(s))
		return;
	e->text = mw_str(s.p, s.n - 1);
	e->other = goes_on_as(e->text);
	e->kind = MW_MTA_DELIVERY;
	if (mw_str_eq(status, MW_STR("sent")))
		e->fact = sent_fact(e->service, e->text);
	else if (mw_str_eq(status, MW_STR("deferred")) ||
	         mw_str_eq(status, MW_STR("SOFTBOUNCE")))
		e->fact = MW_FACT_DEFERRED;
	else if (mw_str_eq(status, MW_STR("bounced")))
		e->fact = MW_FACT_BOUNCED;
	else if (mw_str_eq(status, MW_STR("expired")))
		e->fact = MW_FACT_EXPIRED;
	else
		e->kind = MW_MTA_PROBE; /* deliverable, undeliverable */
}

static void
from_cleanup(struct mw_str s, struct mw_mta_event *e)
{
	if (eat(&s, MW_STR("message-id=")) || eat(&s, MW_STR("resent-message-id="))) {
		e->kind = MW_MTA_MESSAGE_ID;
		e->addr = s;
	} else if (eat(&s, MW_STR("milter-reject: END-OF-MESSAGE ")) ||
	           eat(&s, MW_STR("reject: "))) {
		e->kind = MW_MTA_REFUSED;
	} else if (eat(&s, MW_STR("milter-discard: ")) || eat(&s, MW_STR("discard: "))) {
		e->kind = MW_MTA_DISCARDED;
	} else if (eat(&s, MW_STR("milter-hold: ")) || eat(&s, MW_STR("hold: "))) {
		e->kind = MW_MTA_HELD;
	}
}

static void
from_qmgr(struct mw_str s, struct mw_mta_event *e)
{
	if (mw_str_eq(s, MW_STR("removed"))) {
		e->kind = MW_MTA_REMOVED;
		return;
	}
	if (!eat(&s, MW_STR("from=")) || !angle(&s, &e->addr))
		return;
	if (mw_str_starts(s, MW_STR(", size=")) && find(s, "(queue active)"))
		e->kind = MW_MTA_QUEUED;
	else if (mw_str_starts(s, MW_STR(", status=expired")) ||
	         mw_str_starts(s, MW_STR(", status=force-expired")))
		e->kind = MW_MTA_EXPIRED;
}

/* "client=name[addr][:port][, …]": the name is of DNS, the address of the kernel. */
static void
from_smtpd(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str name;
	if (eat(&s, MW_STR("client=")) && until(&s, "[", &name) &&
	    until(&s, "]", &e->addr))
		e->kind = MW_MTA_CLIENT;
}

static void
from_pickup(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str uid;
	if (!eat(&s, MW_STR("uid=")) || !word(&s, is_digit, &uid) ||
	    !eat(&s, MW_STR(" from=")) || !angle(&s, &e->addr))
		return;
	e->kind = MW_MTA_PICKUP;
	if (eat(&s, MW_STR(" orig_id=")))
		(void)!queue_id(&s, &e->other);
}

static void
from_bounce(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str what;
	if (until(&s, " notification: ", &what) && queue_id(&s, &e->other) && !s.n)
		e->kind = MW_MTA_NOTICE;
}

static void
from_postsuper(struct mw_str s, struct mw_mta_event *e)
{
	if (mw_str_eq(s, MW_STR("placed on hold")))
		e->kind = MW_MTA_HELD;
	else if (mw_str_eq(s, MW_STR("released from hold")))
		e->kind = MW_MTA_RELEASED;
	else if (mw_str_eq(s, MW_STR("removed")))
		e->kind = MW_MTA_REMOVED;
}

static void
without_id(struct mw_str s, struct mw_mta_event *e)
{
	if (mw_str_starts(s, MW_STR("NOQUEUE: discard: ")) &&
	    mw_str_eq(e->service, MW_STR("smtpd")))
		e->kind = MW_MTA_CLIENT_DISCARD;
	else if (mw_str_starts(s, MW_STR("warning: connect to Milter service ")) ||
	         (mw_str_starts(s, MW_STR("warning: milter ")) &&
	          (find(s, "can't ") || find(s, "unreasonable") ||
	           find(s, "unexpected"))))
		e->kind = MW_MTA_MILTER_DOWN;
}

static void
postfix(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str rest = s;
	if (!queue_id(&rest, &e->queue_id) || !eat(&rest, MW_STR(": "))) {
		e->queue_id = mw_str("", 0);
		without_id(s, e);
		return;
	}
	if (is_service(e->service, deliver_names))
		delivery(rest, e);
	else if (mw_str_eq(e->service, MW_STR("cleanup")))
		from_cleanup(rest, e);
	else if (mw_str_eq(e->service, MW_STR("smtpd")) ||
	         mw_str_eq(e->service, MW_STR("qmqpd")))
		from_smtpd(rest, e);
	else if (mw_str_eq(e->service, MW_STR("pickup")))
		from_pickup(rest, e);
	else if (mw_str_eq(e->service, MW_STR("postsuper")))
		from_postsuper(rest, e);
	else if (mw_str_eq(e->service, MW_STR("qmgr")) ||
	         mw_str_eq(e->service, MW_STR("nqmgr")) ||
	         mw_str_eq(e->service, MW_STR("oqmgr")))
		from_qmgr(rest, e);
	else
		from_bounce(rest, e);
}

/* ---- Sendmail ---- */

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
	    eat(&rest, MW_STR("Sent (")) && queue_id(&rest, &id) &&
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
		bool id = cut || angle(&rest, &junk);
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

static void
sendmail(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str rest = s, other;
	e->sendmail = true;
	if (!queue_id(&rest, &e->queue_id) || !eat(&rest, MW_STR(": "))) {
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
	} else if (queue_id(&rest, &other) &&
	           (eat(&rest, MW_STR(": DSN: ")) ||
	            eat(&rest, MW_STR(": sender notify: ")) ||
	            eat(&rest, MW_STR(": postmaster notify: ")) ||
	            eat(&rest, MW_STR(": return to sender: ")))) {
		e->other = other;
		e->kind = MW_MTA_NOTICE;
	}
}

/* ---- any line ---- */

static uint32_t
number(struct mw_str s)
{
	uint32_t v = 0;
	for (size_t i = 0; i < s.n && is_digit(s.p[i]) && v < 400000000; i++)
		v = v * 10 + (uint32_t)(s.p[i] - '0');
	return v;
}

/* "tag[pid]: " or, as RFC 5424 has it, "tag pid msgid structured-data ". */
static bool
tag(struct mw_str *s, struct mw_str *ret_tag, uint32_t *ret_pid)
{
	struct mw_str t, pid, junk, rest = *s;
	size_t n = 0;
	while (n < s->n && s->p[n] != '[' && s->p[n] != ':' && s->p[n] != ' ')
		n++;
	t = mw_str(s->p, n);
	rest = mw_str(s->p + n, s->n - n);
	if (eat(&rest, MW_STR("["))) {
		if (!until(&rest, "]", &pid) || !eat(&rest, MW_STR(": ")))
			return false;
	} else if (eat(&rest, MW_STR(" "))) {
		if (!until(&rest, " ", &pid) || !until(&rest, " ", &junk) ||
		    !(eat(&rest, MW_STR("- ")) ||
		      (rest.n && rest.p[0] == '[' && until(&rest, "] ", &junk))))
			return false;
	} else {
		return false;
	}
	*ret_tag = t;
	*ret_pid = number(pid);
	*s = rest;
	return true;
}

bool
mw_mtalog_line(struct mw_str line, int64_t ref_us, struct mw_mta_event *ret)
{
	struct mw_str s, host, t;
	memset(ret, 0, sizeof *ret);
	while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
		line.n--;
	if (!mw_mtalog_time(line, ref_us, &ret->time_us, &ret->coarse, &s)) {
		ret->time_us = 0;
		return false;
	}
	if (!until(&s, " ", &host) || !tag(&s, &t, &ret->pid))
		return false;
	size_t slash = t.n;
	while (slash && t.p[slash - 1] != '/')
		slash--;
	ret->service = mw_str(t.p + slash, t.n - slash);
	if (slash && is_service(ret->service, postfix_names))
		postfix(s, ret);
	else if (!slash &&
	         (mw_str_eq(t, MW_STR("sm-mta")) || mw_str_eq(t, MW_STR("sendmail"))))
		sendmail(s, ret);
	return ret->kind != MW_MTA_NOTHING;
}
