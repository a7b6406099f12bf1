/* Lines of mail servers' logs, as real ones wrote them, and as hostile senders would like
 * them to look. */
#include "journal/base/util.h"
#include "replay/mtalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define P "Nov 22 12:47:27 mx postfix/"
/* 2026-11-22 13:00:00 UTC */
#define NOW (INT64_C(1795352400) * 1000000)

struct want {
	const char *line;
	enum mw_mta_kind kind;
	enum mw_fact fact;
	const char *qid, *addr, *original, *other;
};

#define DELAY ", delay=0.09, delays=0.04/0.02/0/0.03"
static const struct want wants[] = {
    {P "smtpd[9623]: 4jXTPC4lnRz1cvng: client=unknown[127.0.0.1]", MW_MTA_CLIENT, 0,
     "4jXTPC4lnRz1cvng", "127.0.0.1", "", ""},
    {P "submission/smtpd[7]: 3B2A61C0DE: client=a.b[2001:db8::1], sasl_method=PLAIN, "
       "sasl_username=anna",
     MW_MTA_CLIENT, 0, "3B2A61C0DE", "2001:db8::1", "", ""},
    {P "cleanup[9627]: 4jXTPC4lnRz1cvng: message-id=<plain@t>", MW_MTA_MESSAGE_ID, 0,
     "4jXTPC4lnRz1cvng", "<plain@t>", "", ""},
    {P "qmgr[9622]: 4jXTPC4lnRz1cvng: from=<a@x.test>, size=284, nrcpt=3 (queue active)",
     MW_MTA_QUEUED, 0, "4jXTPC4lnRz1cvng", "a@x.test", "", ""},
    {P
     "qmgr[9622]: 4jXTPC56LXz1cvnj: from=<\"to=<x> status=sent (y)\"@x.test>, size=302, "
     "nrcpt=2 (queue active)",
     MW_MTA_QUEUED, 0, "4jXTPC56LXz1cvnj", "\"to=<x> status=sent (y)\"@x.test", "", ""},
    {P "qmgr[9622]: 4jXTPC4lnRz1cvng: removed", MW_MTA_REMOVED, 0, "4jXTPC4lnRz1cvng", "",
     "", ""},
    {P "qmgr[9622]: 4jXTPG6Y2Gz1cvrY: from=<bert@example.test>, status=expired, returned "
       "to sender",
     MW_MTA_EXPIRED, 0, "4jXTPG6Y2Gz1cvrY", "bert@example.test", "", ""},
    {P "lmtp[9628]: 4jXTPC4lnRz1cvng: to=<anna@example.test>, "
       "relay=mx.example.test[/tmp/mw.b/dovecot/lmtp]" DELAY
       ", dsn=2.0.0, status=sent (250 2.0.0 <anna@example.test> qAh1Kl/kAm Saved)",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "4jXTPC4lnRz1cvng", "anna@example.test", "", ""},
    {P
     "lmtp[9628]: 4jXTPC4lnRz1cvng: to=<bert@example.test>, orig_to=<info@example.test>, "
     "relay=mx.example.test[/tmp/l]" DELAY ", dsn=2.0.0, status=sent (250 2.0.0 Saved)",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "4jXTPC4lnRz1cvng", "bert@example.test",
     "info@example.test", ""},
    {P
     "smtp[9629]: 4jXTPC5Y8Gz1cvpH: to=<q@dead.test>, relay=none, delay=0.01, "
     "delays=0.01/0/0/0, dsn=4.4.1, status=deferred (connect to 127.0.0.1[127.0.0.1]:1: "
     "Connection refused)",
     MW_MTA_DELIVERY, MW_FACT_DEFERRED, "4jXTPC5Y8Gz1cvpH", "q@dead.test", "", ""},
    {P "smtp[9]: 4jXTPC5Y8Gz1cvpH: to=<q@r.test>, relay=mx.r.test[192.0.2.1]:25, "
       "conn_use=2" DELAY ", dsn=2.0.0, status=sent (250 2.0.0 Ok)",
     MW_MTA_DELIVERY, MW_FACT_SENT, "4jXTPC5Y8Gz1cvpH", "q@r.test", "", ""},
    {P
     "lmtp[9628]: 4jXTPC6177z1cvT1: to=<nosuch@example.test>, "
     "relay=mx.example.test[/tmp/l]" DELAY
     ", dsn=5.1.1, status=bounced (host mx.example.test[/tmp/l] said: 550 5.1.1 "
     "<nosuch@example.test> User doesn't exist: nosuch@example.test (in reply to RCPT TO "
     "command))",
     MW_MTA_DELIVERY, MW_FACT_BOUNCED, "4jXTPC6177z1cvT1", "nosuch@example.test", "", ""},
    {P "discard[10014]: 4jXTPW0Fclz1cvK4: to=<\"to=<x> status=sent (y)\"@x.test>, "
       "relay=none" DELAY ", dsn=2.0.0, status=sent (outside)",
     MW_MTA_DELIVERY, MW_FACT_DISCARDED, "4jXTPW0Fclz1cvK4",
     "\"to=<x> status=sent (y)\"@x.test", "", ""},
    {P "error[1]: 4jXTPW0Fclz1cvK4: to=<a@err.test>, relay=none" DELAY
       ", dsn=5.7.1, status=bounced (no way)",
     MW_MTA_DELIVERY, MW_FACT_BOUNCED, "4jXTPW0Fclz1cvK4", "a@err.test", "", ""},
    {P "local[1]: 0A1B2C3D4E: to=<root@h.test>, orig_to=<root>, relay=local" DELAY
       ", dsn=2.0.0, status=sent (delivered to mailbox)",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "0A1B2C3D4E", "root@h.test", "root", ""},
    /* Other programs go on with it: not its last hop. */
    {P "local[1]: 0A1B2C3D4E: to=<root@h.test>, relay=local" DELAY
       ", dsn=2.0.0, status=sent (forwarded as 1A1B2C3D4E)",
     MW_MTA_DELIVERY, MW_FACT_UNKNOWN, "0A1B2C3D4E", "root@h.test", "", "1A1B2C3D4E"},
    {P "smtp[1]: 0A1B2C3D4E: to=<a@h.test>, relay=127.0.0.1[127.0.0.1]:10024" DELAY
       ", dsn=2.0.0, status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 "
       "Ok: queued as 5F00DBEEF1)",
     MW_MTA_DELIVERY, MW_FACT_UNKNOWN, "0A1B2C3D4E", "a@h.test", "", "5F00DBEEF1"},
    {P "pipe[1]: 0A1B2C3D4E: to=<a@h.test>, relay=spamassassin" DELAY
       ", dsn=2.0.0, status=sent (delivered via spamassassin service)",
     MW_MTA_DELIVERY, MW_FACT_UNKNOWN, "0A1B2C3D4E", "a@h.test", "", ""},
    {P "smtp[1]: 0A1B2C3D4E: to=<a@h.test>, relay=h[192.0.2.1]:25" DELAY
       ", dsn=2.1.5, status=deliverable (250 2.1.5 Ok)",
     MW_MTA_PROBE, 0, "0A1B2C3D4E", "a@h.test", "", ""},
    {P "cleanup[9627]: 4jXTPC5d9hz1cvpQ: discard: header Subject: dropme from "
       "unknown[127.0.0.1]; from=<a@x.test> to=<anna@example.test> proto=ESMTP "
       "helo=<c>: dropped",
     MW_MTA_DISCARDED, 0, "4jXTPC5d9hz1cvpQ", "", "", ""},
    {P "cleanup[9627]: 4jXTPC5dl2z1cvpQ: hold: header Subject: holdme from "
       "unknown[127.0.0.1]; from=<a@x.test> to=<anna@example.test> proto=ESMTP "
       "helo=<c>: held",
     MW_MTA_HELD, 0, "4jXTPC5dl2z1cvpQ", "", "", ""},
    {P "cleanup[9627]: 4jXTPC5fgtz1cvT0: reject: header Subject: x from "
       "unknown[127.0.0.1]; from=<a@x.test>: 5.7.1 go away",
     MW_MTA_REFUSED, 0, "4jXTPC5fgtz1cvT0", "", "", ""},
    {P "cleanup[9627]: 4jXTPC5fgtz1cvT0: milter-reject: END-OF-MESSAGE from "
       "unknown[127.0.0.1]: 5.7.1 Command rejected; from=<a@x.test>",
     MW_MTA_REFUSED, 0, "4jXTPC5fgtz1cvT0", "", "", ""},
    {P "pickup[9621]: 4jXTPC5qQRz1cvpS: uid=0 from=<anna@example.test>", MW_MTA_PICKUP, 0,
     "4jXTPC5qQRz1cvpS", "anna@example.test", "", ""},
    {P "pickup[9621]: 4jXTPG6Y2Gz1cvrY: uid=104 from=<bert@example.test> "
       "orig_id=4jXTPC5Y8Gz1cvpH",
     MW_MTA_PICKUP, 0, "4jXTPG6Y2Gz1cvrY", "bert@example.test", "", "4jXTPC5Y8Gz1cvpH"},
    {P
     "pickup[9621]: warning: maildrop/4jY71F5YMxz1djcs: error writing 4jY71F5gc5z1djct: "
     "queue file write error",
     MW_MTA_REFUSED, 0, "4jY71F5gc5z1djct", "", "", ""},
    {P "pickup[9621]: warning: maildrop/4jY71F5YMxz1djcs: error writing a file", 0, 0, "",
     "", "", ""},
    {P "bounce[9640]: 4jXTPC6177z1cvT1: sender non-delivery notification: "
       "4jXTPC66Lrz1cvRb",
     MW_MTA_NOTICE, 0, "4jXTPC6177z1cvT1", "", "", "4jXTPC66Lrz1cvRb"},
    {P "postsuper[9]: 4jXTPC6177z1cvT1: placed on hold", MW_MTA_HELD, 0,
     "4jXTPC6177z1cvT1", "", "", ""},
    {P "postsuper[9]: 4jXTPC6177z1cvT1: released from hold", MW_MTA_RELEASED, 0,
     "4jXTPC6177z1cvT1", "", "", ""},
    {P
     "smtpd[9623]: NOQUEUE: discard: RCPT from unknown[127.0.0.1]: <disc@x.test>: Sender "
     "address triggers DISCARD action; from=<disc@x.test>",
     MW_MTA_CLIENT_DISCARD, 0, "", "", "", ""},
    {P
     "smtpd[9625]: warning: connect to Milter service unix:/tmp/m.sock: No such file or "
     "directory",
     MW_MTA_MILTER_DOWN, 0, "", "", "", ""},
    {P "smtpd[9625]: warning: milter unix:/tmp/m.sock: can't read SMFIC_BODYEOB reply "
       "packet "
       "header: Success",
     MW_MTA_MILTER_DOWN, 0, "", "", "", ""},
    {P "smtpd[9623]: connect from unknown[127.0.0.1]", MW_MTA_CONNECT, 0, "", "127.0.0.1",
     "", ""},
    {P "submission/smtpd[7]: disconnect from a.b[2001:db8::1] ehlo=1 commands=1",
     MW_MTA_DISCONNECT, 0, "", "2001:db8::1", "", ""},
    /* Of no interest. */
    {P "smtp[9623]: connect from unknown[127.0.0.1]", 0, 0, "", "", "", ""},
    {P "smtpd[9623]: lost connection after CONNECT from unknown[127.0.0.1]", 0, 0, "", "",
     "", ""},
    {P "smtpd[9623]: NOQUEUE: reject: RCPT from unknown[127.0.0.1]: 550 5.1.1 "
       "<nosuch@example.test>: Recipient address rejected: User unknown",
     0, 0, "", "", "", ""},
    {P "smtpd[9625]: 4jXTPC5VNLz1cvS3: reject: RCPT from unknown[127.0.0.1]: 550 5.7.1 "
       "<a b>, orig_to=<z@err.test>: Recipient address rejected; from=<b@e.test> "
       "to=<\"a b>, orig_to=<z\"@err.test>",
     0, 0, "4jXTPC5VNLz1cvS3", "", "", ""},
    {P "postsuper[9706]: Released from hold: 1 message", 0, 0, "", "", "", ""},
    {"Nov 22 12:47:27 mx sshd[1]: postfix/qmgr[9622]: 4jXTPC4lnRz1cvng: removed", 0, 0,
     "", "", "", ""},
    {"Nov 22 12:47:27 mx postfix/qmgr: 4jXTPC4lnRz1cvng: removed", 0, 0, "", "", "", ""},
    {"", 0, 0, "", "", "", ""},
    {"Nov", 0, 0, "", "", "", ""},
    /* Hostile. What a sender writes into an address is the address; what a server writes
     * into its answer is text; what could be either says nothing. */
    {P
     "smtp[9629]: 4jXTPC56LXz1cvnj: to=<\"a, status=sent (ok)\"@dead.test>, relay=none, "
     "delay=0.04, delays=0.03/0.01/0/0, dsn=4.4.1, status=deferred (refused)",
     MW_MTA_DELIVERY, MW_FACT_DEFERRED, "4jXTPC56LXz1cvnj",
     "\"a, status=sent (ok)\"@dead.test", "", ""},
    {P "smtp[1]: 4jXTPC56LXz1cvnj: to=<\"x\\\">, relay=none, delay=0, dsn=2.0.0, "
       "status=sent (ok)\"@d.test>, relay=none, delay=0.04, dsn=4.4.1, status=deferred "
       "(no)",
     MW_MTA_DELIVERY, MW_FACT_DEFERRED, "4jXTPC56LXz1cvnj",
     "\"x\\\">, relay=none, delay=0, dsn=2.0.0, status=sent (ok)\"@d.test", "", ""},
    {P
     "smtp[1]: 4jXTPC56LXz1cvnj: to=<x>, relay=none, delay=0, delays=0/0/0/0, dsn=2.0.0, "
     "status=sent (ok)@d.test>, relay=none, delay=0.04, delays=0/0/0/0, dsn=4.4.1, "
     "status=deferred (no)",
     0, 0, "4jXTPC56LXz1cvnj", "x", "", ""},
    {P "smtp[1]: 4jXTPC56LXz1cvnj: to=<a@d.test>, relay=d[192.0.2.1]:25" DELAY
       ", dsn=5.0.0, status=bounced (host d said: 550 to=<a@d.test>, status=sent (yes))",
     MW_MTA_DELIVERY, MW_FACT_BOUNCED, "4jXTPC56LXz1cvnj", "a@d.test", "", ""},
    {P
     "cleanup[1]: 4jXTPC56LXz1cvnj: message-id=<x> milter-reject: END-OF-MESSAGE from u",
     MW_MTA_MESSAGE_ID, 0, "4jXTPC56LXz1cvnj", "<x> milter-reject: END-OF-MESSAGE from u",
     "", ""},
    {P "cleanup[1]: 4jXTPC56LXz1cvnj: warning: header Subject: hold: header", 0, 0,
     "4jXTPC56LXz1cvnj", "", "", ""},
    /* Other stamps. */
    {"2026-11-22T12:47:27.123456+01:00 mx postfix/qmgr[9]: 4jXTPC4lnRz1cvng: removed",
     MW_MTA_REMOVED, 0, "4jXTPC4lnRz1cvng", "", "", ""},
    {"2026-11-22T12:47:27+0100 mx postfix/qmgr[9]: 4jXTPC4lnRz1cvng: removed",
     MW_MTA_REMOVED, 0, "4jXTPC4lnRz1cvng", "", "", ""},
    {"<22>1 2026-11-22T12:47:27.1Z mx postfix/qmgr 9 - - 4jXTPC4lnRz1cvng: removed",
     MW_MTA_REMOVED, 0, "4jXTPC4lnRz1cvng", "", "", ""},
    {"<22>Nov 22 12:47:27 mx postfix/qmgr[9]: ABCDEF0123: removed\r\n", MW_MTA_REMOVED, 0,
     "ABCDEF0123", "", "", ""},
    {"2026-13-22T12:47:27Z mx postfix/qmgr[9]: 4jXTPC4lnRz1cvng: removed", 0, 0, "", "",
     "", ""},
/* Sendmail 8.17 */
#define S "Nov 22 12:47:27 mx sm-mta[11]: 6AMCm01a005678: "
    {S "from=<a@x.test>, size=300, class=0, nrcpts=1, msgid=<m@x>, proto=ESMTP, "
       "daemon=MTA-v4, relay=c.test [192.0.2.7]",
     MW_MTA_QUEUED, 0, "6AMCm01a005678", "a@x.test", "", ""},
    {S "from=<a@x.test>, size=0, class=0, nrcpts=0, proto=ESMTP, daemon=MTA-v4, "
       "relay=c.test [192.0.2.7]",
     0, 0, "6AMCm01a005678", "", "", ""},
    {S "to=<bert@h.test>, delay=00:00:01, xdelay=00:00:00, mailer=local, pri=30300, "
       "dsn=2.0.0, stat=Sent",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "6AMCm01a005678", "bert@h.test", "", ""},
    {S "to=bert, ctladdr=root (0/0), delay=00:00:01, mailer=local, pri=1, dsn=2.0.0, "
       "stat=Sent",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "6AMCm01a005678", "bert", "", ""},
    {S "to=<q@r.test>, delay=00:00:01, xdelay=00:00:00, mailer=esmtp, pri=30300, "
       "relay=r.test. [192.0.2.1], dsn=2.0.0, stat=Sent (Ok)",
     MW_MTA_DELIVERY, MW_FACT_SENT, "6AMCm01a005678", "q@r.test", "", ""},
    {S
     "to=<q@r.test>, delay=00:00:01, mailer=esmtp, pri=30300, relay=r.test., dsn=4.0.0, "
     "stat=Deferred: Connection refused by r.test.",
     MW_MTA_DELIVERY, MW_FACT_DEFERRED, "6AMCm01a005678", "q@r.test", "", ""},
    {S "to=<nosuch@h.test>, delay=00:00:01, mailer=local, pri=1, dsn=5.1.1, stat=User "
       "unknown",
     MW_MTA_DELIVERY, MW_FACT_BOUNCED, "6AMCm01a005678", "nosuch@h.test", "", ""},
    {S "to=<a@h.test>,<b@h.test>, delay=00:00:01, mailer=local, dsn=2.0.0, stat=Sent",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "6AMCm01a005678", "a@h.test", "", ""},
    {S "to=<a@h.test>,<b@h.test, delay=00:00:01, mailer=local, dsn=2.0.0, stat=Sent", 0,
     0, "6AMCm01a005678", "a@h.test", "", ""},
    {S "to=<\"a\\\\\"n\"@h.test>,<a\\\\>b@h.test>, delay=00:00:01, mailer=local, "
       "dsn=2.0.0, stat=Sent",
     MW_MTA_DELIVERY, MW_FACT_DELIVERED, "6AMCm01a005678", "\"a\\\\\"n\"@h.test", "", ""},
    {S "from=<a\\\\\"b@x.test>, size=95, class=0, nrcpts=1, msgid=<n@x.test>, "
       "proto=ESMTP, daemon=MTA, relay=localhost [127.0.0.1]",
     MW_MTA_QUEUED, 0, "6AMCm01a005678", "a\\\\\"b@x.test", "", ""},
    {S "to=<a@h.test>, mailer=esmtp, dsn=5.0.0, stat=no, stat=Sent", 0, 0,
     "6AMCm01a005678", "", "", ""},
    {S "Milter: data, reject=550 5.7.1 Command rejected", MW_MTA_REFUSED, 0,
     "6AMCm01a005678", "", "", ""},
    {S "Milter: cmd=data, reject=451 4.3.2 Please try again later", MW_MTA_REFUSED, 0,
     "6AMCm01a005678", "", "", ""},
    {S "to=<a@h.test>, delay=00:00:00, pri=70014, stat=Headers too large (32768 max)",
     MW_MTA_REFUSED, 0, "6AMCm01a005678", "a@h.test", "", ""},
    {S "to=<a@h.test>, delay=00:00:00, mailer=local, pri=34237, stat=queued", 0, 0,
     "6AMCm01a005678", "", "", ""},
    {S "6AMCm01b005678: DSN: User unknown", MW_MTA_NOTICE, 0, "6AMCm01a005678", "", "",
     "6AMCm01b005678"},
    {"Nov 22 12:47:27 mx sm-mta[11]: 6AMCm01a005678: Milter (mailwal): error connecting "
     "to "
     "filter: Connection refused",
     MW_MTA_MILTER_DOWN, 0, "6AMCm01a005678", "", "", ""},
    {S "Milter (mailwal): local socket name /run/mw/milter.sock unsafe", 0, 0,
     "6AMCm01a005678", "", "", ""},
    {S "Milter (mailwal): to error state", MW_MTA_MILTER_DOWN, 0, "6AMCm01a005678", "",
     "", ""},
    {"Nov 22 12:47:27 mx sendmail[7]: 6AMCm01a000007: from=root, size=24, class=0, "
     "nrcpts=1, msgid=<m@x>, relay=root@localhost",
     MW_MTA_PICKUP, 0, "6AMCm01a000007", "root", "", ""},
    {"Nov 22 12:47:27 mx sendmail[7]: 6AMCm01a000007: from=<>, size=24, class=0, "
     "nrcpts=0, relay=root@localhost",
     0, 0, "6AMCm01a000007", "", "", ""},
    {"Nov 22 12:47:27 mx sendmail[7]: 6AMCm01a000007: to=<b@h.test>, ctladdr=<root@x> "
     "(0/0), delay=00:00:00, mailer=relay, pri=30000, relay=[127.0.0.1] [127.0.0.1], "
     "dsn=2.0.0, stat=Sent (6AMCm01a005678 Message accepted for delivery)",
     MW_MTA_DELIVERY, MW_FACT_UNKNOWN, "6AMCm01a000007", "b@h.test", "",
     "6AMCm01a005678"},
    /* another host's word for it says nothing of us */
    {S "to=<q@r.test>, delay=00:00:01, mailer=esmtp, pri=1, relay=r.test. [192.0.2.1], "
       "dsn=2.0.0, stat=Sent (6AMCm01a005679 Message accepted for delivery)",
     MW_MTA_DELIVERY, MW_FACT_SENT, "6AMCm01a005678", "q@r.test", "", ""},
};

static bool
is(struct mw_str s, const char *z)
{
	return mw_str_eq(s, mw_strz(z));
}

static void
lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(wants); i++) {
		const struct want *w = &wants[i];
		struct mw_mta_event e;
		bool some = mw_mtalog_line(mw_strz(w->line), NOW, &e);
		if (some != (w->kind != 0) || e.kind != w->kind)
			fail_msg("kind %d, not %d: %s", e.kind, w->kind, w->line);
		if (!some)
			continue;
		if (e.fact != w->fact)
			fail_msg("fact %d, not %d: %s", e.fact, w->fact, w->line);
		if (!is(e.queue_id, w->qid) || !is(e.addr, w->addr) ||
		    !is(e.original, w->original) || !is(e.other, w->other))
			fail_msg("'%.*s' '%.*s' '%.*s' '%.*s': %s", (int)e.queue_id.n,
			         e.queue_id.p, (int)e.addr.n, e.addr.p, (int)e.original.n,
			         e.original.p, (int)e.other.n, e.other.p, w->line);
		if (e.time_us <= 0)
			fail_msg("no time: %s", w->line);
	}
}

static void
all_fields(void **state)
{
	(void)state;
	struct mw_mta_event e;
	assert_true(mw_mtalog_line(MW_STR(P "smtp[77]: 4jXTPC5Y8Gz1cvpH: to=<q@r.test>, "
	                                    "relay=mx.r.test[192.0.2.1]:25, "
	                                    "conn_use=2" DELAY
	                                    ", dsn=2.0.0, status=sent (250 2.0.0 Ok)"),
	                           NOW, &e));
	assert_true(is(e.service, "smtp") && is(e.relay, "mx.r.test[192.0.2.1]:25"));
	assert_true(is(e.dsn, "2.0.0") && is(e.text, "250 2.0.0 Ok"));
	assert_int_equal(e.pid, 77);
	assert_true(e.coarse);
	assert_int_equal(e.time_us, INT64_C(1795351647) * 1000000);
}

/* What Sendmail 8.17 logs of what it was told. */
static void
escapes_of_sendmail(void **state)
{
	(void)state;
	static const char *const pairs[][2] = {
	    {"an\\\\na@h.test", "an\\na@h.test"},
	    {"\"a\\\\\"n\"@h.test", "\"a\\\"n\"@h.test"},
	    {"\"x\\\\\\\\\"@h.test", "\"x\\\\\"@h.test"},
	    {"\"a\\tb\"@h.test", "\"a\tb\"@h.test"},
	    {"m\\303\\274ll@h.test", "m\303\274ll@h.test"},
	    {"\\\\303\\\\n@h.test", "\\303\\n@h.test"},
	    {"a\\012b\\r\\n", "a\nb\r\n"},
	    /* it writes none of these: as they are */
	    {"a\\x\\30\\400\\", "a\\x\\30\\400\\"},
	    {"", ""},
	};
	for (size_t i = 0; i < MW_COUNT(pairs); i++) {
		char out[64];
		struct mw_str s = mw_mtalog_plain(mw_strz(pairs[i][0]), out);
		if (!is(s, pairs[i][1]))
			fail_msg("%s: %.*s", pairs[i][0], (int)s.n, s.p);
	}
}

static void
message_ids_of_sendmail(void **state)
{
	(void)state;
	static const struct {
		const char *msgid, *text, *kept;
	} t[] = {
	    {"<m@x>", ", bodytype=8BITMIME", "<m@x>"},
	    {"<m@x> (added by postmaster@y)", "", "<m@x>"},
	    {"<m@x> <n@x>", ", bodytype=8BITMIME", "<m@x>"},
	    {"17 of May", "", "17 of May"},
	    {"17, of May", ", bodytype=8BITMIME", "17, of May"},
	    {"x, relay=a, proto=b", "", "x, relay=a, proto=b"},
	    {"<not, closed", "", "<not, closed"},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		char line[512];
		struct mw_mta_event e;
		(void)snprintf(
		    line, sizeof line,
		    S "from=<a@x.test>, size=3, class=-60, nrcpts=1, msgid=%s%s, "
		      "proto=ESMTP, daemon=MTA-v4, relay=c.test [192.0.2.7]",
		    t[i].msgid, t[i].text);
		assert_true(mw_mtalog_line(mw_strz(line), NOW, &e));
		assert_int_equal(e.kind, MW_MTA_QUEUED);
		assert_true(is(e.text, t[i].kept));
		assert_true(is(e.relay, "c.test [192.0.2.7]"));
	}
}

static void
several_recipients(void **state)
{
	(void)state;
	struct mw_mta_event e;
	assert_true(mw_mtalog_line(
	    MW_STR(
	        S
	        "to=<a@h.test>,<\"b,>\"@h.test>,<c@h.test>, ctladdr=<x@y.test> (1/1), "
	        "delay=00:00:01, mailer=esmtp, relay=r.test., dsn=2.0.0, stat=Sent (Ok)"),
	    NOW, &e));
	assert_true(is(e.addr, "a@h.test") && is(e.relay, "r.test.") &&
	            is(e.dsn, "2.0.0"));
	assert_true(mw_mtalog_next(&e) && is(e.addr, "\"b,>\"@h.test"));
	assert_true(mw_mtalog_next(&e) && is(e.addr, "c@h.test"));
	assert_false(mw_mtalog_next(&e));
}

static void
stamps(void **state)
{
	(void)state;
	static const struct {
		const char *stamp;
		int64_t us;
	} t[] = {
	    {"Nov 22 12:47:27 h", INT64_C(1795351647000000)},
	    {"Nov 23 12:47:27 h", INT64_C(1795438047000000)}, /* a clock ahead */
	    {"Nov 24 13:47:27 h", INT64_C(1763992047000000)}, /* last year's */
	    {"Jan  1 00:00:00 h", INT64_C(1767225600000000)},
	    {"Dec 31 23:59:59 h", INT64_C(1767225599000000)},
	    {"Feb 29 00:00:00 h", INT64_C(1709164800000000)},        /* of 2024 */
	    {"Nov 22 12:47:27.000017 h", INT64_C(1795351647000017)}, /* journalctl's */
	    {"1795351647.123456 h", INT64_C(1795351647123456)},
	    {"2026-11-22T12:47:27.5Z h", INT64_C(1795351647500000)},
	    {"2026-11-22 12:47:27.000001 h", INT64_C(1795351647000001)},
	    {"2026-11-22T13:47:27+01:00 h", INT64_C(1795351647000000)},
	    {"2026-11-22T10:17:27-0230 h", INT64_C(1795351647000000)},
	    {"2024-02-29T00:00:00Z h", INT64_C(1709164800000000)},
	    {"Sun 2026-11-22 12:47:27 UTC h", INT64_C(1795351647000000)},
	    {"Sun 2026-11-22 12:47:27.123456 UTC h", INT64_C(1795351647123456)},
	};
	static const char *const bad[] = {
	    "Nov 32 12:47:27 h",
	    "Nov 22 24:47:27 h",
	    "Nox 22 12:47:27 h",
	    "Feb 30 00:00:00 h",
	    "2025-02-29T00:00:00Z h",
	    "2026-11-22T12:47 h",
	    "2026-11-22T12:47:27Zh",
	    "<22 Nov 22 12:47:27 h",
	    "Nov 22 12:47:27",
	    "Nov 22 12:47:27. h",
	    "1795351647 h",
	    "17953516.123456 h",
	    "99999999999.1 h",
	    "Sun 2026-11-22 12:47:27 CET h",
	    "Sun 2026-11-22 12:47:27 h",
	    "Sun 2026-11-22 12:47:27 UTC",
	    "Sun 2026-11-22 12:47:27.123456 UTC [s=dadaf2;i=20d]",
	    "Sun 2026-11-32 12:47:27 UTC h",
	    "Son 2026-11-22 12:47:27 UTC h"};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		struct mw_str rest;
		int64_t us = -1;
		bool coarse;
		assert_true(
		    mw_mtalog_time(mw_strz(t[i].stamp), NOW, &us, &coarse, &rest));
		if (us != t[i].us)
			fail_msg("%s: %lld", t[i].stamp, (long long)us);
		assert_true(is(rest, "h"));
	}
	for (size_t i = 0; i < MW_COUNT(bad); i++) {
		struct mw_str rest;
		int64_t us;
		bool coarse;
		if (mw_mtalog_time(mw_strz(bad[i]), NOW, &us, &coarse, &rest))
			fail_msg("%s", bad[i]);
	}
}

/* Summer time ended on 25 October 2026 at 03:00, which became 02:00 again. */
static void
summer_time(void **state)
{
	(void)state;
	static const struct {
		const char *stamp;
		int64_t s;
	} t[] = {
	    {"Oct 25 01:59:59 h", 1792886399},
	    {"Oct 25 02:00:00 h", 1792890000},
	    {"Oct 25 02:59:59 h", 1792893599},
	    {"Oct 25 03:00:00 h", 1792893600},
	    {"Sun 2026-10-25 02:00:00 CET h", 1792890000},
	    {"Sun 2026-10-25 02:59:59 CEST h", 1792889999},
	    {"Sun 2026-10-25 01:00:00 UTC h", 1792890000},
	    {"Jul  1 12:00:00 h", 1782900000},
	    {"Nov  1 12:00:00 h", 1793530800},
	};
	(void)setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		struct mw_str rest;
		int64_t us = -1;
		bool coarse;
		assert_true(
		    mw_mtalog_time(mw_strz(t[i].stamp), NOW, &us, &coarse, &rest));
		if (us != t[i].s * 1000000)
			fail_msg("%s: %lld", t[i].stamp, (long long)us);
	}
	(void)setenv("TZ", "UTC", 1);
	tzset();
}

/* What smtpd counted in a session, and at which command a milter broke off. */
static void
counts(void **state)
{
	(void)state;
	static const struct {
		const char *tail;
		uint32_t data_ok, data_all, bdat_ok, bdat_all;
		bool counted;
	} c[] = {
	    {" ehlo=1 mail=1 rcpt=1 data=0/1 commands=3/4", 0, 1, 0, 0, true},
	    {" ehlo=1 mail=2/3 rcpt=2 data=1/2 rset=1 commands=6/8", 1, 2, 0, 0, true},
	    {" data=3 bdat=7/9 quit=1 commands=11/13", 3, 3, 7, 9, true},
	    {" commands=0/0", 0, 0, 0, 0, true},
	    {"", 0, 0, 0, 0, false},
	    {" data=0/1", 0, 1, 0, 0, false},
	    {" data=0/1 comm", 0, 1, 0, 0, false},
	    {" data=/1 commands=1", 0, 0, 0, 0, false},
	    {" data=0/1 commands=1 data=4", 4, 4, 0, 0, false},
	};
	struct mw_mta_event e;
	for (size_t i = 0; i < MW_COUNT(c); i++) {
		char line[300];
		(void)snprintf(line, sizeof line,
		               P "smtpd[9623]: disconnect from u[192.0.2.1]%s",
		               c[i].tail);
		assert_true(mw_mtalog_line(mw_strz(line), NOW, &e));
		assert_int_equal(e.kind, MW_MTA_DISCONNECT);
		if (e.counted != c[i].counted || e.data.ok != c[i].data_ok ||
		    e.data.all != c[i].data_all || e.bdat.ok != c[i].bdat_ok ||
		    e.bdat.all != c[i].bdat_all)
			fail_msg("%s", line);
		assert_true(mw_str_eq(e.host, MW_STR("mx")));
		assert_int_equal(e.pid, 9623);
	}
	assert_true(mw_mtalog_line(
	    MW_STR(P "cleanup[9625]: warning: milter unix:/tmp/m.sock: can't read "
	             "SMFIC_BODYEOB reply packet header: Success"),
	    NOW, &e));
	assert_true(mw_str_eq(e.text, MW_STR("SMFIC_BODYEOB")));
	assert_true(mw_mtalog_line(
	    MW_STR(P
	           "cleanup[9625]: warning: connect to Milter service unix:/SMFIC_RCPT: "
	           "Connection refused"),
	    NOW, &e));
	assert_int_equal(e.text.n, 0);
}

int
main(void)
{
	(void)setenv("TZ", "UTC", 1);
	tzset();
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lines),
	    cmocka_unit_test(counts),
	    cmocka_unit_test(all_fields),
	    cmocka_unit_test(escapes_of_sendmail),
	    cmocka_unit_test(message_ids_of_sendmail),
	    cmocka_unit_test(several_recipients),
	    cmocka_unit_test(stamps),
	    cmocka_unit_test(summer_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
