/* Every way past the journal that a log shows, named by its cause. */
#include "journal/base/util.h"
#include "replay/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define NOW     (INT64_C(1795352400) * 1000000)

#define LONG_33 "012345678901234567890123456789abc"
#define LONG_99 LONG_33 LONG_33 LONG_33

static const char log_text[] =
    /* journaled, then through a content filter: the re-entry has no milters */
    "Nov 22 12:00:00 mx postfix/smtpd[1]: 4jXTPC00001z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:00:00 mx postfix/cleanup[2]: 4jXTPC00001z1aaa: message-id=<one@t>\n"
    "Nov 22 12:00:00 mx postfix/qmgr[3]: 4jXTPC00001z1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    "Nov 22 12:00:01 mx postfix/smtpd[4]: 4jXTPC00002z1aaa: client=localhost[127.0.0.1]\n"
    "Nov 22 12:00:01 mx postfix/cleanup[2]: 4jXTPC00002z1aaa: message-id=<one@t>\n"
    "Nov 22 12:00:01 mx postfix/qmgr[3]: 4jXTPC00002z1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    "Nov 22 12:00:01 mx postfix/smtp[5]: 4jXTPC00001z1aaa: to=<b@h.test>, "
    "relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent "
    "(250 2.0.0 Ok: queued as 4jXTPC00002z1aaa)\n"
    /* a re-entry that nobody knows */
    "Nov 22 12:00:02 mx postfix/smtpd[4]: 4jXTPC00003z1aaa: client=localhost[127.0.0.1]\n"
    "Nov 22 12:00:02 mx postfix/cleanup[2]: 4jXTPC00003z1aaa: message-id=<three@t>\n"
    "Nov 22 12:00:02 mx postfix/qmgr[3]: 4jXTPC00003z1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    /* sendmail(1) */
    "Nov 22 12:00:03 mx postfix/pickup[6]: 4jXTPC00004z1aaa: uid=0 from=<root@h.test>\n"
    "Nov 22 12:00:03 mx postfix/cleanup[2]: 4jXTPC00004z1aaa: message-id=<four@t>\n"
    "Nov 22 12:00:03 mx postfix/qmgr[3]: 4jXTPC00004z1aaa: from=<root@h.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    /* its bounce, and a notice to the postmaster */
    "Nov 22 12:00:04 mx postfix/cleanup[2]: 4jXTPC00005z1aaa: message-id=<five@t>\n"
    "Nov 22 12:00:04 mx postfix/qmgr[3]: 4jXTPC00005z1aaa: from=<>, size=1, nrcpt=1 "
    "(queue active)\n"
    "Nov 22 12:00:04 mx postfix/bounce[7]: 4jXTPC00004z1aaa: sender non-delivery "
    "notification: 4jXTPC00005z1aaa\n"
    "Nov 22 12:00:04 mx postfix/cleanup[2]: 4jXTPC00006z1aaa: message-id=<six@t>\n"
    "Nov 22 12:00:04 mx postfix/qmgr[3]: 4jXTPC00006z1aaa: from=<double-bounce@h.test>, "
    "size=1, nrcpt=1 (queue active)\n"
    /* DISCARD: by a header check, and by an access table */
    "Nov 22 12:00:05 mx postfix/smtpd[1]: 4jXTPC00007z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:00:05 mx postfix/cleanup[2]: 4jXTPC00007z1aaa: discard: header Subject: x "
    "from a[192.0.2.1]; from=<a@x.test>\n"
    "Nov 22 12:00:05 mx postfix/smtpd[8]: NOQUEUE: discard: RCPT from a[192.0.2.1]: "
    "<d@x.test>: Sender address triggers DISCARD action\n"
    "Nov 22 12:00:05 mx postfix/smtpd[8]: 4jXTPC00008z1aaa: client=a[192.0.2.1]\n"
    /* past the milter of a service; and a quarter of an hour later, with it down */
    "Nov 22 12:00:06 mx postfix/smtpd[9]: 4jXTPC00009z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:00:06 mx postfix/cleanup[2]: 4jXTPC00009z1aaa: message-id=<nine@t>\n"
    "Nov 22 12:00:06 mx postfix/qmgr[3]: 4jXTPC00009z1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    "Nov 22 12:15:00 mx postfix/smtpd[9]: warning: connect to Milter service unix:/m: "
    "Connection refused\n"
    "Nov 22 12:15:01 mx postfix/smtpd[9]: 4jXTPC0000Az1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:15:01 mx postfix/cleanup[2]: 4jXTPC0000Az1aaa: message-id=<ten@t>\n"
    "Nov 22 12:15:01 mx postfix/qmgr[3]: 4jXTPC0000Az1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    /* held by a quarantining milter before us */
    "Nov 22 12:30:01 mx postfix/smtpd[9]: 4jXTPC0000Bz1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:30:01 mx postfix/cleanup[2]: 4jXTPC0000Bz1aaa: message-id=<eleven@t>\n"
    "Nov 22 12:30:01 mx postfix/cleanup[2]: 4jXTPC0000Bz1aaa: milter-hold: "
    "END-OF-MESSAGE from a[192.0.2.1]: milter triggers HOLD action; from=<a@x.test>\n"
    /* requeued, not captured a second time */
    "Nov 22 12:31:00 mx postfix/pickup[6]: 4jXTPC0000Cz1aaa: uid=104 from=<a@x.test> "
    "orig_id=4jXTPC00001z1aaa\n"
    "Nov 22 12:31:00 mx postfix/cleanup[2]: 4jXTPC0000Cz1aaa: message-id=<one@t>\n"
    "Nov 22 12:31:00 mx postfix/qmgr[3]: 4jXTPC0000Cz1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    /* not accepted: refused at its end, refused at RCPT, a probe */
    "Nov 22 12:32:00 mx postfix/smtpd[9]: 4jXTPC0000Dz1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:32:00 mx postfix/cleanup[2]: 4jXTPC0000Dz1aaa: message-id=<refused@t>\n"
    "Nov 22 12:32:00 mx postfix/cleanup[2]: 4jXTPC0000Dz1aaa: milter-reject: "
    "END-OF-MESSAGE from a[192.0.2.1]: 5.7.1 no; from=<a@x.test>\n"
    "Nov 22 12:32:01 mx postfix/smtpd[9]: 4jXTPC0000Ez1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:32:02 mx postfix/cleanup[2]: 4jXTPC0000Fz1aaa: message-id=<probe@t>\n"
    "Nov 22 12:32:02 mx postfix/qmgr[3]: 4jXTPC0000Fz1aaa: from=<double-bounce@h.test>, "
    "size=1, nrcpt=1 (queue active)\n"
    "Nov 22 12:32:02 mx postfix/smtp[5]: 4jXTPC0000Fz1aaa: to=<b@h.test>, "
    "relay=h[192.0.2.2]:25, delay=1, delays=0/0/0/1, dsn=2.1.5, status=deliverable (250 "
    "Ok)\n"
    /* a later try of what an older log accepted */
    "Nov 22 12:33:00 mx postfix/qmgr[3]: 4jXTPC0000Gz1aaa: from=<a@x.test>, size=1, "
    "nrcpt=1 (queue active)\n"
    /* Sendmail */
    "Nov 22 12:34:00 mx sm-mta[11]: 6AMCm01a005678: from=<a@x.test>, size=300, class=0, "
    "nrcpts=1, msgid=<m@x>, proto=ESMTP, daemon=MTA-v4, relay=c.test [192.0.2.7]\n"
    /* by submit.cf to the daemon: one message, and journaled there */
    "Nov 22 12:35:00 mx sendmail[12]: 6AMCm01a000001: from=root, size=24, class=0, "
    "nrcpts=1, msgid=<s@x>, relay=root@localhost\n"
    "Nov 22 12:35:00 mx sm-mta[13]: 6AMCm01a000002: from=<root@x>, size=24, class=0, "
    "nrcpts=1, msgid=<s@x>, proto=ESMTP, daemon=MTA-v4, relay=localhost [127.0.0.1]\n"
    "Nov 22 12:35:00 mx sendmail[12]: 6AMCm01a000001: to=<b@h.test>, delay=00:00:00, "
    "mailer=relay, pri=30000, relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, stat=Sent "
    "(6AMCm01a000002 Message accepted for delivery)\n"
    /* by itself, past the daemon; and one that waits */
    "Nov 22 12:36:00 mx sendmail[14]: 6AMCm01a000003: from=root, size=24, class=0, "
    "nrcpts=1, msgid=<t@x>, relay=root@localhost\n"
    "Nov 22 12:36:00 mx sendmail[14]: 6AMCm01a000003: to=bert, delay=00:00:00, "
    "mailer=local, pri=30000, dsn=2.0.0, stat=Sent\n"
    "Nov 22 12:36:00 mx sendmail[15]: 6AMCm01a000004: from=root, size=24, class=0, "
    "nrcpts=1, msgid=<u@x>, relay=root@localhost\n"
    /* a content filter hands back what was journaled; and what was not */
    "Nov 22 12:37:00 mx sm-mta[16]: 6AMCm01a000005: from=<root@x>, size=24, class=0, "
    "nrcpts=1, msgid=<s@x>, proto=ESMTP, daemon=back, relay=localhost [127.0.0.1]\n"
    "Nov 22 12:37:00 mx sm-mta[16]: 6AMCm01a000006: from=<root@x>, size=24, class=0, "
    "nrcpts=1, msgid=<v@x>, proto=ESMTP, daemon=back, relay=localhost [127.0.0.1]\n"
    /* while the milter is away, from a client that would rather not be seen */
    "Nov 22 12:50:00 mx sm-mta[17]: 6AMCm01a000007: Milter (mailwal): to error state\n"
    "Nov 22 12:50:00 mx sm-mta[17]: 6AMCm01a000007: from=<\"x, nrcpts=0, \"@x>, size=24, "
    "class=0, nrcpts=1, msgid=<w, nrcpts=0, x@x>, proto=ESMTP, daemon=MTA, relay=c.test "
    "[IPv6:2001:db8:0:0:0:0:0:7]\n"
    /* given up half way; refused at DATA; refused at its end */
    "Nov 22 12:51:00 mx sm-mta[18]: 6AMCm01a000008: from=<a@x>, size=16, class=0, "
    "nrcpts=1, proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:51:00 mx sm-mta[18]: 6AMCm01a000009: Milter: cmd=data, reject=451 4.3.2 "
    "Please try again later\n"
    "Nov 22 12:51:00 mx sm-mta[18]: 6AMCm01a000009: from=<a@x>, size=0, class=0, "
    "nrcpts=1, proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:51:00 mx sm-mta[18]: 6AMCm01a00000A: from=<a@x>, size=16, class=0, "
    "nrcpts=1, msgid=<r@x>, proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:51:00 mx sm-mta[18]: 6AMCm01a00000A: to=<b@h.test>, delay=00:00:00, "
    "pri=70014, stat=Headers too large (32768 max)\n"
    /* a site that adds no Message-ID: the delivery tells */
    "Nov 22 12:52:00 mx sm-mta[19]: 6AMCm01a00000B: from=<a@x>, size=16, class=0, "
    "nrcpts=1, proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:52:00 mx sm-mta[20]: 6AMCm01a00000B: to=<b@h.test>, delay=00:00:00, "
    "mailer=esmtp, pri=1, relay=h.test., dsn=4.0.0, stat=Deferred: not now\n"
    /* a Message-ID is cut after 100 bytes; one that only looks so is as it came */
    "Nov 22 12:53:00 mx sm-mta[21]: 6AMCm01a00000C: from=<a@x>, size=16, class=0, "
    "nrcpts=1, msgid=<" LONG_99 ", proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:53:00 mx sm-mta[21]: 6AMCm01a00000D: from=<a@x>, size=16, class=0, "
    "nrcpts=1, msgid=<short, proto=ESMTP, daemon=MTA, relay=c.test [192.0.2.7]\n"
    "Nov 22 12:54:00 mx sm-mta[22]: 6AMCm01a00000E: from=<a@x>, size=16, class=0, "
    "nrcpts=1, msgid=<\\\\\\n\\012" LONG_33 LONG_33
    "012345678901234567890123456789, proto=ESMTP, daemon=MTA, relay=c.test "
    "[192.0.2.7]\n";

static void
feed(struct mw_audit *a, const char *text)
{
	struct mw_str rest = mw_strz(text), line;
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		struct mw_mta_event e;
		(void)mw_mtalog_line(line, NOW, &e);
		assert_int_equal(mw_audit_event(a, &e), 0);
	}
}

static struct mw_audit_row *
row_of(struct mw_audit *a, const char *qid)
{
	for (size_t i = a->n; i-- > 0;)
		if (mw_str_eq(a->v[i].queue_id, mw_strz(qid)))
			return &a->v[i];
	return NULL;
}

static void
causes(void **state)
{
	(void)state;
	static const struct {
		char digit;
		enum mw_audit_cause cause;
	} want[] = {
	    {'1', MW_AUDIT_FINE},       {'2', MW_AUDIT_REENTRY},
	    {'3', MW_AUDIT_NO_MILTERS}, {'4', MW_AUDIT_PICKUP},
	    {'5', MW_AUDIT_NOTICE},     {'6', MW_AUDIT_NOTICE},
	    {'7', MW_AUDIT_DISCARDED},  {'8', MW_AUDIT_DISCARDED},
	    {'9', MW_AUDIT_OTHER},      {'A', MW_AUDIT_DOWN},
	    {'B', MW_AUDIT_OTHER},      {'C', MW_AUDIT_REENTRY},
	    {'D', MW_AUDIT_FINE},       {'E', MW_AUDIT_FINE},
	    {'F', MW_AUDIT_FINE},       {'G', MW_AUDIT_FINE},
	};
	static const enum mw_audit_cause sendmail[] = {
	    MW_AUDIT_FINE,    MW_AUDIT_FINE,       MW_AUDIT_PICKUP, MW_AUDIT_FINE,
	    MW_AUDIT_REENTRY, MW_AUDIT_NO_MILTERS, MW_AUDIT_DOWN,   MW_AUDIT_FINE,
	    MW_AUDIT_FINE,    MW_AUDIT_FINE,       MW_AUDIT_OTHER,  MW_AUDIT_OTHER,
	    MW_AUDIT_OTHER,   MW_AUDIT_OTHER};
	struct mw_audit a;
	struct mw_err err;
	assert_int_equal(mw_audit_init(&a, &err), 0);
	feed(&a, log_text);
	row_of(&a, "4jXTPC00001z1aaa")->journaled = true;
	row_of(&a, "6AMCm01a000002")->journaled = true;
	assert_int_equal(mw_audit_judge(&a, 0), 0);
	for (size_t i = 0; i < MW_COUNT(sendmail); i++) {
		char qid[] = "6AMCm01a00000?";
		qid[13] = "123456789ABCDE"[i];
		const struct mw_audit_row *r = row_of(&a, qid);
		if (!r || r->cause != sendmail[i])
			fail_msg("%s: %s, not %s", qid,
			         r ? mw_audit_name(r->cause) : "no row",
			         mw_audit_name(sendmail[i]));
	}
	for (size_t i = 0; i < MW_COUNT(want); i++) {
		char qid[] = "4jXTPC0000?z1aaa";
		qid[10] = want[i].digit;
		const struct mw_audit_row *r = row_of(&a, qid);
		if (!r || r->cause != want[i].cause)
			fail_msg("%s: %s, not %s", qid,
			         r ? mw_audit_name(r->cause) : "no row",
			         mw_audit_name(want[i].cause));
		assert_int_equal(mw_audit_hole(r->cause),
		                 want[i].cause >= MW_AUDIT_NOTICE);
		assert_non_null(mw_audit_text(r->cause));
	}
	assert_int_equal(row_of(&a, "6AMCm01a005678")->cause, MW_AUDIT_OTHER);
	mw_audit_done(&a);
}

/* Of two sessions side by side the one whose milter is away; of two messages the one that
 * cleanup had when it broke off; what cleanup itself wants milters for; and where it is
 * not known whose it is, whoever was there. */
static const char down_text[] =
    "Nov 22 12:00:00 mx postfix/smtpd[31]: connect from a[192.0.2.1]\n"
    "Nov 22 12:00:00 mx postfix/smtpd[32]: connect from a[192.0.2.1]\n"
    "Nov 22 12:00:00 mx postfix/smtpd[31]: warning: connect to Milter service unix:/m: "
    "Connection refused\n"
    "Nov 22 12:00:01 mx postfix/smtpd[31]: 4jXTPC00001z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:00:01 mx postfix/smtpd[32]: 4jXTPC00002z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:00:01 mx postfix/cleanup[41]: 4jXTPC00001z1aaa: message-id=<1@t>\n"
    "Nov 22 12:00:01 mx postfix/cleanup[42]: 4jXTPC00002z1aaa: message-id=<2@t>\n"
    /* the same session, half an hour later; another of that process */
    "Nov 22 12:30:01 mx postfix/smtpd[31]: 4jXTPC00003z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:30:01 mx postfix/cleanup[41]: 4jXTPC00003z1aaa: message-id=<3@t>\n"
    "Nov 22 12:30:02 mx postfix/smtpd[31]: disconnect from a[192.0.2.1]\n"
    "Nov 22 12:30:03 mx postfix/smtpd[31]: connect from a[192.0.2.1]\n"
    "Nov 22 12:30:03 mx postfix/smtpd[31]: 4jXTPC00004z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:30:03 mx postfix/cleanup[41]: 4jXTPC00004z1aaa: message-id=<4@t>\n"
    /* it breaks off in the midst of a session, and at the end of a message */
    "Nov 22 12:31:00 mx postfix/smtpd[32]: 4jXTPC00005z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:31:00 mx postfix/smtpd[32]: warning: milter unix:/m: can't read "
    "SMFIC_RCPT "
    "reply packet header: Success\n"
    "Nov 22 12:31:00 mx postfix/cleanup[42]: 4jXTPC00005z1aaa: message-id=<5@t>\n"
    "Nov 22 12:32:00 mx postfix/smtpd[31]: 4jXTPC00006z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:32:00 mx postfix/cleanup[43]: 4jXTPC00006z1aaa: message-id=<6@t>\n"
    "Nov 22 12:32:00 mx postfix/cleanup[43]: warning: milter unix:/m: can't read "
    "SMFIC_BODYEOB reply packet header: Success\n"
    "Nov 22 12:32:01 mx postfix/smtpd[31]: 4jXTPC00007z1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:32:01 mx postfix/cleanup[43]: 4jXTPC00007z1aaa: message-id=<7@t>\n"
    /* another host's processes have the same numbers */
    "Nov 22 12:33:00 my postfix/cleanup[43]: warning: milter unix:/m: can't read "
    "SMFIC_MAIL reply packet header: Success\n"
    /* sendmail(1): the milter is looked for before the message is named */
    "Nov 22 12:33:00 mx postfix/pickup[6]: 4jXTPC00008z1aaa: uid=0 from=<root@h.test>\n"
    "Nov 22 12:33:00 mx postfix/cleanup[43]: warning: connect to Milter service unix:/m: "
    "Connection refused\n"
    "Nov 22 12:33:00 mx postfix/cleanup[43]: 4jXTPC00008z1aaa: message-id=<8@t>\n"
    "Nov 22 12:33:01 mx postfix/pickup[6]: 4jXTPC00009z1aaa: uid=0 from=<root@h.test>\n"
    "Nov 22 12:33:01 mx postfix/cleanup[43]: 4jXTPC00009z1aaa: message-id=<9@t>\n"
    /* nobody saw how that session began: all that came near it */
    "Nov 22 12:50:00 mx postfix/smtpd[33]: warning: connect to Milter service unix:/m: "
    "Connection refused\n"
    "Nov 22 12:50:01 mx postfix/smtpd[31]: 4jXTPC0000Az1aaa: client=a[192.0.2.1]\n"
    "Nov 22 12:50:01 mx postfix/cleanup[43]: 4jXTPC0000Az1aaa: message-id=<A@t>\n";

static void
whose_milter_was_away(void **state)
{
	(void)state;
	static const char digits[] = "123456789A";
	static const enum mw_audit_cause want[] = {MW_AUDIT_DOWN,   MW_AUDIT_OTHER,
	                                           MW_AUDIT_DOWN,   MW_AUDIT_OTHER,
	                                           MW_AUDIT_DOWN,   MW_AUDIT_DOWN,
	                                           MW_AUDIT_OTHER,  MW_AUDIT_DOWN,
	                                           MW_AUDIT_PICKUP, MW_AUDIT_DOWN};
	struct mw_audit a;
	struct mw_err err;
	assert_int_equal(mw_audit_init(&a, &err), 0);
	feed(&a, down_text);
	for (size_t i = 0; i < MW_COUNT(want); i++) {
		char line[200];
		(void)snprintf(line, sizeof line,
		               "Nov 22 12:50:02 mx postfix/qmgr[3]: 4jXTPC0000%cz1aaa: "
		               "from=<a@x.test>, size=1, nrcpt=1 (queue active)\n",
		               digits[i]);
		if (i + 1 < MW_COUNT(want)) /* the others were accepted in their time */
			(void)memcpy(line + 7, i < 2 ? "12:00:01" : "12:33:01", 8);
		feed(&a, line);
	}
	assert_int_equal(mw_audit_judge(&a, 0), 0);
	for (size_t i = 0; i < MW_COUNT(want); i++) {
		char qid[] = "4jXTPC0000?z1aaa";
		qid[10] = digits[i];
		const struct mw_audit_row *r = row_of(&a, qid);
		if (!r || r->cause != want[i])
			fail_msg("%s: %s, not %s", qid,
			         r ? mw_audit_name(r->cause) : "no row",
			         mw_audit_name(want[i]));
	}
	mw_audit_done(&a);
}

static void
before_the_journal(void **state)
{
	(void)state;
	struct mw_audit a;
	struct mw_err err;
	assert_int_equal(mw_audit_init(&a, &err), 0);
	feed(&a, log_text);
	assert_int_equal(mw_audit_judge(&a, NOW), 0);
	for (size_t i = 0; i < a.n; i++)
		assert_false(mw_audit_hole(a.v[i].cause));
	mw_audit_done(&a);
}

/* A stamp of whole seconds may be of the very second in which the journal began. */
static void
the_second_of_its_beginning(void **state)
{
	(void)state;
	struct mw_audit a;
	struct mw_err err;
	assert_int_equal(mw_audit_init(&a, &err), 0);
	feed(&a, log_text);
	int64_t at = row_of(&a, "4jXTPC00009z1aaa")->accepted_us;
	assert_int_equal(mw_audit_judge(&a, at + 900000), 0);
	assert_int_equal(row_of(&a, "4jXTPC00009z1aaa")->cause, MW_AUDIT_OTHER);
	assert_int_equal(mw_audit_judge(&a, at + 1000000), 0);
	assert_int_equal(row_of(&a, "4jXTPC00009z1aaa")->cause, MW_AUDIT_BEFORE);
	mw_audit_done(&a);
}

static void
short_ids_come_again(void **state)
{
	(void)state;
	struct mw_audit a;
	struct mw_err err;
	char line[200];
	assert_int_equal(mw_audit_init(&a, &err), 0);
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 4; k++) {
			static const char *const what[] = {
			    "smtpd[1]: 0A1B2C3D4E: client=a[192.0.2.1]",
			    "cleanup[1]: 0A1B2C3D4E: message-id=<x>",
			    "qmgr[1]: 0A1B2C3D4E: from=<a@b>, size=1, nrcpt=1 (queue "
			    "active)",
			    "qmgr[1]: 0A1B2C3D4E: removed"};
			(void)snprintf(line, sizeof line,
			               "Nov 22 1%d:00:00 mx postfix/%s\n", i, what[k]);
			feed(&a, line);
		}
	}
	assert_int_equal(a.n, 2);
	a.v[0].journaled = true;
	assert_int_equal(mw_audit_judge(&a, 0), 0);
	assert_false(mw_audit_hole(a.v[0].cause));
	assert_true(mw_audit_hole(a.v[1].cause));
	mw_audit_done(&a);
}

static void
many(void **state)
{
	(void)state;
	struct mw_audit a;
	struct mw_err err;
	char line[200];
	assert_int_equal(mw_audit_init(&a, &err), 0);
	for (int i = 0; i < 5000; i++) {
		(void)snprintf(line, sizeof line,
		               "Nov 22 12:00:00 mx postfix/smtpd[1]: 4jXT%05dz1aa: "
		               "client=a[192.0.2.1]\n",
		               i);
		feed(&a, line);
	}
	assert_int_equal(a.n, 5000);
	assert_non_null(row_of(&a, "4jXT04999z1aa"));
	mw_audit_done(&a);
}

int
main(void)
{
	(void)setenv("TZ", "UTC", 1);
	tzset();
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(causes),
	    cmocka_unit_test(whose_milter_was_away),
	    cmocka_unit_test(before_the_journal),
	    cmocka_unit_test(the_second_of_its_beginning),
	    cmocka_unit_test(short_ids_come_again),
	    cmocka_unit_test(many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
