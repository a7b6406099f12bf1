/* Dialogues of the proxy as scripts: what each side is told, and what the journal then
 * holds.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

static void
good_dialogues(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"one message: no dot before the record",
	     false,
	     1,
	     {ALL, "c:A: b||..x|", "N:A: b||..x|", "c:.|", "N:", "C:", "k:", "N:.|",
	      "C:", "n:250 2.0.0 Ok: queued as Q1|", "C:250 2.0.0 Ok: queued as Q1|",
	      "c:QUIT|", "N:QUIT|", "n:221 bye|", "C:221 bye|", "q:1", NULL}},
	    {"two messages, RSET between, replies of several lines",
	     false,
	     2,
	     {ALL,
	      "c:x|.|",
	      "k:",
	      "N:x|.|",
	      "n:250-one|250 two|",
	      "C:250-one|250 two|",
	      MAIL,
	      "c:RSET|",
	      "N:RSET|",
	      "n:250 Ok|",
	      "C:250 Ok|",
	      MAIL,
	      RCPT("e@f.test"),
	      DATA,
	      "c:.|",
	      "k:",
	      "N:.|",
	      "n:250 Ok|",
	      "C:250 Ok|",
	      "q:0",
	      NULL}},
	    {"pipelined",
	     false,
	     1,
	     {HELLO, "c:MAIL FROM:<a@b>|RCPT TO:<c@d>|RCPT TO:<e@f>|DATA|",
	      "N:MAIL FROM:<a@b>|", "n:250 1|", "N:RCPT TO:<c@d>|", "n:250 2|",
	      "N:RCPT TO:<e@f>|", "n:550 3|", "N:DATA|", "n:354 4|",
	      "C:250 1|250 2|550 3|354 4|", "c:x|.|QUIT|", "N:x|", "k:", "N:.|",
	      "n:250 5|", "C:250 5|", "N:QUIT|", NULL}},
	    {"refused at the end",
	     false,
	     1,
	     {ALL, "c:x|.|", "k:", "N:x|.|", "n:554 5.7.1 spam|", "C:554 5.7.1 spam|",
	      MAIL, "q:0", NULL}},
	    {"three recipients by LMTP, one fails",
	     true,
	     1,
	     {LHELLO, MAIL, RCPT("a@d"), RCPT("b@d"), RCPT("c@d"), DATA, "c:x|.|",
	      "k:", "N:x|.|", "n:250 1|", "C:250 1|", "n:452 4.2.2 full|",
	      "C:452 4.2.2 full|", "q:0", "n:250 3|", "C:250 3|", MAIL, NULL}},
	    {"half closed: answered all the same",
	     false,
	     1,
	     {ALL, "c:x|.|", "e:", "q:0", "k:", "N:x|.|", "n:250 Ok|", "C:250 Ok|", "q:1",
	      NULL}},
	    {"nobody's fault: HELO, NOOP, VRFY, HELP",
	     false,
	     0,
	     {"n:220 mx|", "c:helo x|", "N:helo x|", "n:250 mx|", "c:NOOP|", "N:NOOP|",
	      "n:250 Ok|", "c:VRFY a|", "N:VRFY a|", "n:252 maybe|",
	      "C:220 mx|250 mx|250 Ok|252 maybe|", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

static void
bad_clients(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"out of sequence",
	     false,
	     0,
	     {HELLO, "c:RCPT TO:<a@b>|DATA|MAIL|", "N:",
	      "C:503 5.5.1 MAIL first|503 5.5.1 MAIL first|501 5.5.4 Syntax: MAIL "
	      "FROM:<address>|",
	      MAIL, "c:MAIL FROM:<x@y>|", "C:503 5.5.1 A message is open already|",
	      "c:DATA|", "C:503 5.5.1 No valid recipients|", "N:", NULL}},
	    {"STARTTLS and AUTH are not here",
	     false,
	     0,
	     {HELLO, "c:STARTTLS|AUTH PLAIN x|", "N:",
	      "C:502 5.5.1 STARTTLS is not offered|538 5.7.11 AUTH needs an encrypted "
	      "connection|",
	      NULL}},
	    {"BDAT ends it: its bytes are no commands",
	     false,
	     1,
	     {ALL, "c:x|.|", "k:", "N:x|.|", "n:250 Ok|", "C:250 Ok|",
	      "c:BDAT 6 LAST|QUIT|", "C:421 5.5.1 BDAT is not offered here|", "N:", "q:1",
	      NULL}},
	    {"LHLO to SMTP",
	     false,
	     0,
	     {"n:220 mx|", "C:220 mx|", "c:LHLO x|",
	      "C:500 5.5.1 This is SMTP: say EHLO|", "N:", NULL}},
	    {"EHLO to LMTP",
	     true,
	     0,
	     {"n:220 mx|", "C:220 mx|", "c:EHLO x|",
	      "C:500 5.5.1 This is LMTP: say LHLO|", "N:", NULL}},
	    {"bare line ends in commands never go on",
	     false,
	     0,
	     {HELLO, "c:NOOP\nNOOP x\ry|", "N:",
	      "C:500 5.5.2 Lines end in CR LF|500 5.5.2 A command holds a bare CR or a "
	      "NUL|",
	      NULL}},
	    {"content before it is asked for",
	     false,
	     0,
	     {HELLO, MAIL, RCPT("c@d"), "c:DATA|x|.|",
	      "N:", "C:421 5.5.0 Wait for the reply to DATA|", "q:1", NULL}},
	    {"content that nobody asked for",
	     false,
	     0,
	     {HELLO, MAIL, RCPT("c@d"), "c:DATA|", "N:DATA|", "c:MAIL FROM:<e@f>|",
	      "n:554 no|", "C:554 no|421 5.5.0 Wait for the reply to DATA|", "q:1",
	      NULL}},
	    {"gone in the middle of the content",
	     false,
	     0,
	     {ALL, "c:x|.\r", "e:", "q:1", "N:", "C:", NULL}},
	    {"silent in the content",
	     false,
	     0,
	     {ALL, "c:x", "t:", "C:421 4.4.2 Timeout|", "q:1", "N:", NULL}},
	    {"smuggled",
	     false,
	     0,
	     {ALL, "c:x\n.\n", "N:", "c:MAIL FROM:<e@f>|RCPT TO:<g@h>|.|", "N:",
	      "C:554 5.6.0 Bare CR, LF or NUL around a lone dot: send CR LF|", "c:NOOP|",
	      "C:421 4.4.2 Connection to the next server lost, try again later|", "q:1",
	      NULL}},
	    {"more recipients than recipient_limit",
	     false,
	     0,
	     {HELLO, MAIL, RCPT("1@d"), RCPT("2@d"), RCPT("3@d"), RCPT("4@d"),
	      "c:RCPT TO:<5@d>|",
	      "N:", "C:452 4.5.3 Too many recipients for the mail journal|", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

static void
bad_servers(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"cannot be reached",
	     false,
	     0,
	     {"x:", "C:421 4.4.1 The next server cannot be reached, try again later|",
	      "q:1", NULL}},
	    {"does not want to", false, 0, {"n:554 no|", "C:554 no|", "q:1", NULL}},
	    {"says nothing",
	     false,
	     0,
	     {"t:", "C:421 4.4.1 The next server cannot be reached, try again later|",
	      "q:1", NULL}},
	    {"speaks no SMTP",
	     false,
	     0,
	     {"n:* OK IMAP|", "C:421 4.3.0 The next server is out of step|", "q:1",
	      NULL}},
	    {"codes change inside a reply",
	     false,
	     0,
	     {HELLO, MAIL, "c:NOOP|", "n:250-a|550 b|",
	      "N:", "C:421 4.3.0 The next server is out of step|", "q:1", NULL}},
	    {"speaks unasked",
	     false,
	     0,
	     {HELLO, "n:250 surprise|",
	      "C:421 4.4.2 Connection to the next server lost, try again later|", "q:1",
	      NULL}},
	    {"goes away when idle",
	     false,
	     0,
	     {HELLO, "n:421 4.3.2 bye|", "C:421 4.3.2 bye|", "q:1", NULL}},
	    {"says 250 to DATA",
	     false,
	     0,
	     {HELLO, MAIL, RCPT("c@d"), "c:DATA|", "n:250 Ok|",
	      "C:421 4.3.0 The next server is out of step|", "q:1", NULL}},
	    {"lost in the content: 451, nothing journaled",
	     false,
	     0,
	     {ALL, "c:x|", "x:", "q:0", "c:y|.|",
	      "C:451 4.4.2 Connection to the next server lost, try again later|",
	      "N:", "c:QUIT|", "C:221 2.0.0 Bye|", "q:1", NULL}},
	    {"has enough in the middle",
	     false,
	     0,
	     {ALL, "c:x|", "n:552 5.3.4 too big|", "C:", "c:y|.|", "C:552 5.3.4 too big|",
	      "N:", NULL}},
	    {"lost while the record is written",
	     false,
	     1,
	     {ALL, "c:x|.|", "x:", "C:", "k:",
	      "C:451 4.4.2 Connection to the next server lost, try again later|",
	      "N:", NULL}},
	    {"has enough while the record is written",
	     false,
	     1,
	     {ALL, "c:x|.|", "n:554 5.7.1 no|", "C:", "k:", "C:554 5.7.1 no|",
	      "N:", NULL}},
	    {"lost after the dot: the sender comes again",
	     false,
	     1,
	     {ALL, "c:x|.|", "k:", "N:x|.|", "x:",
	      "C:451 4.4.2 Connection to the next server lost after the end of the "
	      "message|",
	      "c:QUIT|", "C:221 2.0.0 Bye|", NULL}},
	    {"LMTP: lost between two replies",
	     true,
	     1,
	     {LHELLO, MAIL, RCPT("a@d"), RCPT("b@d"), DATA, "c:x|.|", "k:", "n:250 1|",
	      "x:",
	      "C:250 1|451 4.4.2 Connection to the next server lost after the end of the "
	      "message|",
	      NULL}},
	    {"LMTP: lost in the content, one 451 each",
	     true,
	     0,
	     {LHELLO, MAIL, RCPT("a@d"), RCPT("b@d"), DATA, "x:", "c:x|.|",
	      "C:451 4.4.2 Connection to the next server lost, try again later|451 4.4.2 "
	      "Connection to the next server lost, try again later|",
	      NULL}},
	    {"the daemon ends: idle, and after the dot",
	     false,
	     0,
	     {HELLO, "s:", "C:421 4.3.2 Shutting down, try again later|", "q:1", NULL}},
	    {"the daemon ends at the end of a message",
	     false,
	     1,
	     {ALL, "c:x|.|", "s:", "C:", "k:", "s:", "N:x|.|", "n:250 Ok|", "C:250 Ok|",
	      "s:", "C:421 4.3.2 Shutting down, try again later|", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

static void
what_is_recorded(void **state)
{
	(void)state;
	static const char *const steps[] = {
	    "n:220 mx|", "c:EHLO proxy.test|", "n:250-mx|250 XFORWARD NAME ADDR PORT|",
	    "c:XFORWARD NAME=cli+20ent.test ADDR=IPv6:2001:db8::1 PORT=25 "
	    "HELO=me.test IDENT=Q77|",
	    "n:250 Ok|", "c:MAIL FROM:<a@b.test> SIZE=9 SMTPUTF8|", "n:250 Ok|",
	    "c:RCPT TO:<c@d.test> NOTIFY=NEVER|", "n:250 Ok|", "c:RCPT TO:<no@d.test>|",
	    "n:550 no|", "c:DATA|", "n:354 go|", "c:A: b||..x\ry|.|", "k:", "n:250 Ok|",
	    /* the next message is nobody's from there */
	    NULL};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO content = {0};
	struct mw_mail m;
	play("record", false, true, steps);
	last_mail(a, &m, &content);
	str_is(mw_buf_str(&content), "A: b\r\n\r\n.x\ry\r\n");
	str_is(m.front, "smtp");
	str_is(m.queue_id, "Q77");
	str_is(m.client_name, "cli ent.test");
	str_is(m.client_addr, "2001:db8::1");
	assert_int_equal(m.client_port, 25);
	str_is(m.helo, "me.test");
	str_is(m.daemon, "inet:here");
	str_is(m.sender, "a@b.test");
	str_is(m.sender_args, "SIZE=9 SMTPUTF8");
	assert_int_equal(m.n_rcpt, 2);
	str_is(m.rcpt[0].addr, "c@d.test");
	str_is(m.rcpt[0].args, "NOTIFY=NEVER");
	assert_int_equal(m.rcpt[0].flags & MW_RCPT_REFUSED, 0);
	str_is(m.rcpt[1].addr, "no@d.test");
	assert_int_equal(m.rcpt[1].flags & MW_RCPT_REFUSED, MW_RCPT_REFUSED);
	assert_int_equal(m.flags, 0);

	static const char *const lmtp[] = {
	    LHELLO,
	    MAIL,
	    RCPT("c@d"),
	    DATA,
	    "c:Received: by mx (Postfix) with ESMTP id 4Xk2;|\tnow|A: b||x|.|",
	    "k:",
	    "n:250 Ok|",
	    NULL};
	play("record of LMTP", true, true, lmtp);
	mw_buf_clear(&content);
	last_mail(a, &m, &content);
	str_is(m.front, "lmtp");
	str_is(m.queue_id, "4Xk2");
	str_is(m.client_addr, "");
	assert_int_equal(m.flags, 0);

	static const char *const empty[] = {ALL, "c:.|", "k:", "n:250 Ok|", NULL};
	play("empty message", false, false, empty);
	mw_buf_clear(&content);
	last_mail(a, &m, &content);
	assert_int_equal(m.size, 0);
	str_is(m.client_addr, "192.0.2.1");
	assert_int_equal(m.client_port, 4711);
	str_is(m.helo, "me.test");
}

/* The outcomes of the journal's last OUTCOME record. */
static void
last_outcome(struct mw_arena *a, struct mw_outcome *ret)
{
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	MW_BUF_AUTO meta = {0};
	struct mw_record r, found = {0}, mail = {0};
	struct mw_outcomes all;
	struct mw_commit done;
	mw_outbox_flush(&outbox);
	/* what was submitted before this is on disk after it */
	assert_int_equal(mw_store_note(store, MW_TYPE_AUDIT, 1, "\xa0", 1, &done, NULL),
	                 0);
	assert_int_equal(mw_store_open(&o, &rd, NULL), 0);
	assert_int_equal(mw_cursor_new(rd, 1, &c, NULL), 0);
	while (mw_cursor_next(c, &r, NULL) > 0) {
		if (r.type == MW_TYPE_OUTCOME)
			found = r;
		if (r.type == MW_TYPE_MAIL)
			mail = r;
	}
	assert_int_equal(found.type, MW_TYPE_OUTCOME);
	assert_int_equal(mw_record_meta(rd, &found, &meta, NULL), 0);
	assert_int_equal(mw_outcomes_decode(meta.p, meta.n, a, &all, NULL), 0);
	assert_true(all.n >= 1);
	*ret = all.v[all.n - 1]; /* the latest of the second */
	assert_memory_equal(ret->id, mail.id, MW_ID_LEN);
	assert_int_equal(ret->seq, mail.seq);
}

static void
outcomes_are_recorded(void **state)
{
	(void)state;
	static const char *const lmtp[] = {LHELLO,
	                                   MAIL,
	                                   RCPT("a@d"),
	                                   RCPT("b@d"),
	                                   RCPT("c@d"),
	                                   DATA,
	                                   "c:x|.|",
	                                   "k:",
	                                   "n:250 2.0.0 Saved|",
	                                   "n:452 4.2.2 full|",
	                                   "n:550-5.1.1 no|550 such|",
	                                   NULL};
	static const char *const refused[] = {ALL, "c:x|.|", "k:", "n:554 5.7.1 no|",
	                                      NULL};
	/* The dot did not go out: it was never taken. */
	static const char *const early[] = {ALL, "c:x|.|", "n:554 5.7.1 no|", "k:", NULL};
	static const char *const gone[] = {LHELLO,   MAIL, RCPT("a@d"), RCPT("b@d"), DATA,
	                                   "c:x|.|", "x:", "k:",        NULL};
	static const char *const taken[] = {ALL, "c:x|.|",
	                                    "k:", "n:250 2.0.0 Ok: queued as Q9|", NULL};
	static const struct {
		const char *addr, *dsn, *text;
		enum mw_fact fact;
	} want[] = {
	    {"a@d", "2.0.0", "250 2.0.0 Saved", MW_FACT_DELIVERED},
	    {"b@d", "4.2.2", "452 4.2.2 full", MW_FACT_DEFERRED},
	    {"c@d", "5.1.1", "550-5.1.1 no\r\n550 such", MW_FACT_BOUNCED},
	};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_outcome o;
	play("outcome of LMTP", true, true, lmtp);
	last_outcome(a, &o);
	assert_int_equal(o.n_rcpt, 3);
	assert_int_equal(o.whole, 0);
	for (size_t i = 0; i < MW_COUNT(want); i++) {
		str_is(o.rcpt[i].addr, want[i].addr);
		str_is(o.rcpt[i].dsn, want[i].dsn);
		str_is(o.rcpt[i].text, want[i].text);
		str_is(o.rcpt[i].relay, "inet:there");
		assert_int_equal(o.rcpt[i].fact, want[i].fact);
	}
	play("refused", false, true, refused);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("refused while the record is written", false, true, early);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("lost while the record is written", true, true, gone);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("taken", false, true, taken);
	last_outcome(a, &o);
	assert_int_equal(o.whole, 0);
	assert_int_equal(o.n_rcpt, 1);
	assert_int_equal(o.rcpt[0].fact, MW_FACT_UNKNOWN);
	str_is(o.rcpt[0].text, "250 2.0.0 Ok: queued as Q9");
}

static void
strangers_forge_nothing(void **state)
{
	(void)state;
	static const char *const steps[] = {
	    "n:220 mx|",
	    "C:220 mx|",
	    "c:EHLO x|",
	    "N:EHLO x|",
	    "n:250-mx|250-XCLIENT NAME|250 XFORWARD NAME|",
	    "C:250 mx|",
	    "c:XFORWARD ADDR=127.0.0.1|XCLIENT ADDR=127.0.0.1|",
	    "N:",
	    "C:550 5.7.0 Not from this address|550 5.7.0 Not from this address|",
	    NULL};
	play("a stranger", false, false, steps);
}

static void
journal_trouble(void **state)
{
	(void)state;
	static const char *const refused[] = {
	    ALL,
	    "c:x|.|",
	    "k:",
	    "N:",
	    "C:451 4.3.0 Mail journal unavailable, try again later|",
	    "c:NOOP|",
	    "C:421 4.4.2 Connection to the next server lost, try again later|",
	    "q:1",
	    NULL};
	static const char *const passed[] = {ALL,  "c:x|.|",    "k:",        "N:x|.|",
	                                     "C:", "n:250 Ok|", "C:250 Ok|", NULL};
	static const char *const many[] = {LHELLO,
	                                   MAIL,
	                                   RCPT("a@d"),
	                                   RCPT("b@d"),
	                                   DATA,
	                                   "c:x|.|",
	                                   "k:",
	                                   "C:451 4.3.0 Mail journal unavailable, try "
	                                   "again later|451 4.3.0 Mail journal "
	                                   "unavailable, try again later|",
	                                   NULL};
	atomic_store(&fail_sync, 1);
	play("no sync", false, true, refused);
	atomic_store(&fail_sync, 0);
	for (int i = 0; i < 12000 && mw_store_ready(store) < 0; i++)
		(void)usleep(10000);
	atomic_store(&fail_sync, 1);
	play("no sync, LMTP", true, true, many);
	atomic_store(&fail_sync, 0);
	for (int i = 0; i < 12000 && mw_store_ready(store) < 0; i++)
		(void)usleep(10000);
	struct mw_conf *c = settings();
	c->on_failure = MW_ON_FAILURE_ACCEPT;
	assert_int_equal(mw_capture_reload(&cap, c, NULL), 0);
	uint64_t before = atomic_load(&cap.count.passed_unjournaled);
	atomic_store(&fail_sync, 1);
	play("no sync, accept", false, true, passed);
	atomic_store(&fail_sync, 0);
	assert_int_equal(atomic_load(&cap.count.passed_unjournaled), before + 1);
	assert_int_equal(mw_capture_reload(&cap, settings(), NULL), 0);
	for (int i = 0; i < 12000 && mw_store_ready(store) < 0; i++)
		(void)usleep(10000);
	/* before memory runs out a new message is told to come back */
	static const char *const much[] = {HELLO, "c:MAIL FROM:<a@b>|", "N:",
	                                   "C:451 4.3.0 Mail journal unavailable, try "
	                                   "again later|",
	                                   NULL};
	atomic_store(&cap.count.in_flight, UINT64_C(1) << 50);
	play("memory_limit", false, true, much);
	atomic_store(&cap.count.in_flight, 0);
}

static void
endless_lines(void **state)
{
	(void)state;
	struct talk t = {.w = MW_WAITER};
	struct mw_dialog_opts o = {.cap = &cap,
	                           .outbox = &outbox,
	                           .on = "here",
	                           .next = "there",
	                           .done = on_done,
	                           .arg = &t.w};
	static char big[100000];
	memset(big, 'x', sizeof big);
	assert_int_equal(mw_dialog_init(&t.d, &o, NULL), 0);
	mw_dialog_next(&t.d, "220 mx\r\n", 8);
	mw_dialog_client(&t.d, big, sizeof big);
	mw_dialog_client(&t.d, big, sizeof big);
	assert_true(mw_dialog_hungry(&t.d));
	mw_dialog_client(&t.d, "\r\nNOOP\r\n", 8);
	str_is(mw_buf_str(&t.d.to_client), "220 mx\r\n500 5.5.2 Line too long\r\n");
	str_is(mw_buf_str(&t.d.to_next), "NOOP\r\n");
	mw_dialog_next(&t.d, big, sizeof big); /* a reply without end */
	assert_true(t.d.close_client);
	mw_dialog_free(&t.d);
	/* commands that lead to nothing */
	assert_int_equal(mw_dialog_init(&t.d, &o, NULL), 0);
	mw_dialog_next(&t.d, "220 mx\r\n", 8);
	for (int i = 0; i < 200 && !t.d.close_client; i++)
		mw_dialog_client(&t.d, "FOO\r\n", 5);
	assert_true(t.d.close_client);
	mw_dialog_free(&t.d);
}

static void
tls_and_login(void **state)
{
	(void)state;
	static const struct {
		bool tls, next_local, trusted;
		enum mw_next_tls next_tls;
		struct script s;
	} cases[] = {
#define OFFERS "n:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|"
	    {true,
	     true,
	     false,
	     0,
	     {"STARTTLS, then AUTH with a first word",
	      false,
	      1,
	      {"n:220 mx|",
	       "C:220 mx|",
	       "c:EHLO a|",
	       "N:EHLO a|",
	       OFFERS,
	       "C:250-mx|250-PIPELINING|250 STARTTLS|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "C:538 5.7.11 AUTH needs an encrypted connection|",
	       "c:STARTTLS|",
	       "C:220 2.0.0 Ready to start TLS|",
	       "T:",
	       "c:STARTTLS|",
	       "C:502 5.5.1 STARTTLS is not offered|",
	       "c:EHLO b|",
	       "N:EHLO b|",
	       OFFERS,
	       "C:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "N:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "n:235 2.7.0 Ok|",
	       "C:235 2.7.0 Ok|",
	       MAIL,
	       RCPT("c@d.test"),
	       DATA,
	       "c:x|.|",
	       "k:",
	       "N:x|.|",
	       "n:250 Ok|",
	       "C:250 Ok|",
	       NULL}}},
	    {true,
	     true,
	     true,
	     0,
	     {"AUTH line by line, refused, cancelled, odd",
	      false,
	      0,
	      {"n:220 mx|",
	       "C:220 mx|",
	       "c:EHLO a|",
	       "N:EHLO a|",
	       OFFERS,
	       "C:250-mx|250-AUTH PLAIN LOGIN|250-PIPELINING|250 STARTTLS|",
	       "c:AUTH LOGIN|",
	       "N:AUTH LOGIN|",
	       "n:334 VXNlcm5hbWU6|",
	       "C:334 VXNlcm5hbWU6|",
	       "c:MAIL FROM:<x@y>|",
	       "N:MAIL FROM:<x@y>|",
	       "n:334 UGFzc3dvcmQ6|",
	       "C:334 UGFzc3dvcmQ6|",
	       "c:*|",
	       "N:*|",
	       "n:501 5.7.0 Cancelled|",
	       "C:501 5.7.0 Cancelled|",
	       "c:AUTH PLAIN|",
	       "N:AUTH PLAIN|",
	       "n:354 go|",
	       "C:421 4.3.0 The next server is out of "
	       "step|",
	       "q:1",
	       NULL}}},
	    {true,
	     true,
	     false,
	     0,
	     {"nothing may follow STARTTLS in clear",
	      false,
	      0,
	      {"n:220 mx|", "C:220 mx|", "c:STARTTLS|MAIL FROM:<x@y>|",
	       "C:421 5.5.0 Nothing may follow STARTTLS|", "N:", "q:1", NULL}}},
	    {true,
	     false,
	     false,
	     0,
	     {"no AUTH over a line in clear to the next server",
	      false,
	      0,
	      {"n:220 mx|", "C:220 mx|", "c:STARTTLS|", "C:220 2.0.0 Ready to start TLS|",
	       "T:", "c:EHLO a|", "N:EHLO a|", OFFERS, "C:250-mx|250 PIPELINING|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "C:538 5.7.11 AUTH needs an encrypted connection|", "N:", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"TLS to the next server where it can be had",
	      false,
	      0,
	      {"n:220-mx|220 hi|", "C:", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|",
	       "N:STARTTLS|", "n:220 go|", "C:", "U:", "C:220-mx|220 hi|", "c:EHLO a|",
	       "N:EHLO a|", OFFERS, "C:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|",
	       NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"and else without",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:502 what|", "C:220 mx|", "q:0", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_ENCRYPT,
	     {"not without",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 XSTARTTLS|",
	       "C:421 4.7.4 The next server cannot be reached safely, try again later|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_VERIFY,
	     {"STARTTLS refused",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:454 later|",
	       "C:421 4.7.4 The next server cannot be reached safely, try again later|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"the next server says more than its 220 in clear",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|250 forged|", "C:421 4.3.0 The next server is out of step|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"and be it no whole line",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|250 ", "C:421 4.3.0 The next server is out of step|", "q:1",
	       NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_ENCRYPT,
	     {"LMTP says LHLO",
	      true,
	      0,
	      {"n:220 mx|", "N:LHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|", "U:", "C:220 mx|", NULL}}},
#undef OFFERS
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		uint64_t before = mails();
		with.tls = cases[i].tls;
		with.next_local = cases[i].next_local;
		with.next_tls = cases[i].next_tls;
		play(cases[i].s.name, cases[i].s.lmtp, cases[i].trusted,
		     cases[i].s.steps);
		if (mails() - before != cases[i].s.journaled)
			fail_msg("%s: %u records", cases[i].s.name,
			         (unsigned)(mails() - before));
	}
	memset(&with, 0, sizeof with);
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO content = {0};
	struct mw_mail m;
	last_mail(a, &m, &content);
	str_is(m.auth_user, "anna");
	str_is(m.tls_version, "TLSv1.3");
	str_is(m.tls_cipher, "TLS_AES_256_GCM_SHA384");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_dialogues),
	    cmocka_unit_test(bad_clients),
	    cmocka_unit_test(bad_servers),
	    cmocka_unit_test(what_is_recorded),
	    cmocka_unit_test(outcomes_are_recorded),
	    cmocka_unit_test(strangers_forge_nothing),
	    cmocka_unit_test(journal_trouble),
	    cmocka_unit_test(endless_lines),
	    cmocka_unit_test(tls_and_login),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
