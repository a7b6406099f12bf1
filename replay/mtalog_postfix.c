/* mtalog_postfix.c - what Postfix says of a message. */
#include "replay/mtalog_int.h"

#include "journal/base/util.h"

/* "queued as ID" or "forwarded as ID" at the very end of the server's text. */
static struct mw_str
goes_on_as(struct mw_str text)
{
	static const char *const words[] = {"queued as ", "forwarded as "};
	for (size_t i = 0; i < MW_COUNT(words); i++) {
		struct mw_str t = text, before, id, last = {0};
		while (until(&t, words[i], &before))
			last = t;
		if (last.n && mw_mtalog_queue_id(&last, &id) &&
		    (!last.n || last.p[0] == ')' || last.p[0] == ' ' || last.p[0] == ';'))
			return id;
	}
	return mw_str("", 0);
}

static const char *const deliver_names[] = {"smtp",    "lmtp",  "local",
                                            "virtual", "pipe",  "discard",
                                            "error",   "retry", NULL};

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
	if (!eat(&s, MW_STR("to=")) || !mw_mtalog_angle(&s, &e->addr))
		return;
	if (eat(&s, MW_STR(", orig_to=")) && !mw_mtalog_angle(&s, &e->original))
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
	if (!eat(&s, MW_STR("from=")) || !mw_mtalog_angle(&s, &e->addr))
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
	    !eat(&s, MW_STR(" from=")) || !mw_mtalog_angle(&s, &e->addr))
		return;
	e->kind = MW_MTA_PICKUP;
	if (eat(&s, MW_STR(" orig_id=")))
		(void)!mw_mtalog_queue_id(&s, &e->other);
}

static void
from_bounce(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str what;
	if (until(&s, " notification: ", &what) && mw_mtalog_queue_id(&s, &e->other) &&
	    !s.n)
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

/* The command at which a milter broke off: "… can't read SMFIC_RCPT reply packet …" */
static struct mw_str
at_command(struct mw_str s)
{
	struct mw_str before, name;
	if (!until(&s, "SMFIC_", &before) || !word(&s, in_lower, &name))
		return mw_str("", 0);
	return mw_str(name.p - strlen("SMFIC_"), name.n + strlen("SMFIC_"));
}

static uint32_t
count(struct mw_str digits)
{
	uint32_t v = 0;
	for (size_t i = 0; i < digits.n && v < 100000000; i++)
		v = v * 10 + (uint32_t)(digits.p[i] - '0');
	return v;
}

/* " ehlo=1 mail=2/3 data=1/2 commands=6/8": of the second number, where there is one, as
 * many succeeded as the first one says. */
static void
counters(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str name, n, all;
	while (eat(&s, MW_STR(" "))) {
		if (!word(&s, in_lower, &name) || !eat(&s, MW_STR("=")) ||
		    !word(&s, is_digit, &n))
			return;
		all = n;
		if (eat(&s, MW_STR("/")) && !word(&s, is_digit, &all))
			return;
		e->quit = e->quit || mw_str_eq(name, MW_STR("quit"));
		if (mw_str_eq(name, MW_STR("data"))) {
			e->data.ok = count(n);
			e->data.all = count(all);
		} else if (mw_str_eq(name, MW_STR("bdat"))) {
			e->bdat.ok = count(n);
			e->bdat.all = count(all);
		}
		e->counted = mw_str_eq(name, MW_STR("commands")) && !s.n;
	}
}

/* The client's name is of DNS, and holds no bracket. */
static void
session_line(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str name;
	bool begins = eat(&s, MW_STR("connect from "));
	if ((!begins && !eat(&s, MW_STR("disconnect from "))) || !until(&s, "[", &name) ||
	    !until(&s, "]", &e->addr))
		return;
	e->kind = begins ? MW_MTA_CONNECT : MW_MTA_DISCONNECT;
	if (!begins)
		counters(s, e);
}

/* "warning: maildrop/NAME: error writing ID: …": it stays there, and pickup comes again
 * with a new ID. */
static bool
not_queued(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str name, id;
	if (!eat(&s, MW_STR("warning: maildrop/")) || !word(&s, is_alnum, &name) ||
	    !eat(&s, MW_STR(": error writing ")) || !mw_mtalog_queue_id(&s, &id) ||
	    !mw_str_starts(s, MW_STR(": ")))
		return false;
	e->kind = MW_MTA_REFUSED;
	e->queue_id = id;
	return true;
}

static void
without_id(struct mw_str s, struct mw_mta_event *e)
{
	if (mw_str_eq(e->service, MW_STR("pickup")) && not_queued(s, e))
		return;
	bool smtpd = mw_str_eq(e->service, MW_STR("smtpd"));
	if (mw_str_starts(s, MW_STR("NOQUEUE: discard: ")) && smtpd) {
		e->kind = MW_MTA_CLIENT_DISCARD;
	} else if (mw_str_starts(s, MW_STR("warning: connect to Milter service "))) {
		e->kind = MW_MTA_MILTER_DOWN;
	} else if (mw_str_starts(s, MW_STR("warning: milter ")) &&
	           (find(s, "can't ") || find(s, "unreasonable") ||
	            find(s, "unexpected"))) {
		e->kind = MW_MTA_MILTER_DOWN;
		e->text = at_command(s);
	} else if (smtpd) {
		session_line(s, e);
	}
}

void
mw_mtalog_postfix(struct mw_str s, struct mw_mta_event *e)
{
	struct mw_str rest = s;
	if (!mw_mtalog_queue_id(&rest, &e->queue_id) || !eat(&rest, MW_STR(": "))) {
		e->queue_id = mw_str("", 0);
		without_id(s, e);
		return;
	}
	if (mw_mtalog_is_one(e->service, deliver_names))
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
