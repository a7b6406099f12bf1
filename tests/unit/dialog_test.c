/* Dialogues of the proxy as scripts: what each side is told, and how many records the
 * journal then has. MW_TEST_THREADS */
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

/* What a replay says to the proxy alone goes no further, however it is said. */
static void
the_guard_stays_here(void **state)
{
	(void)state;
#define SAID(c, n)                                                                       \
	"c:MAIL FROM:<>" c "|", "N:MAIL FROM:<>" n "|", "n:250 Ok|", "C:250 Ok|",        \
	    "c:RSET|", "N:RSET|", "n:250 Ok|", "C:250 Ok|"
	static const struct script scripts[] = {
	    {"LMTP without DSN",
	     true,
	     0,
	     {LHELLO, SAID(" XMAILWAL=mwr2.x SIZE=1", " SIZE=1"),
	      SAID(" SIZE=1 xmailwal=", " SIZE=1"),
	      SAID(" A=1  XMAILWAL=a  xMailWal=b B=2 XMAILWAL=c", " A=1 B=2"),
	      SAID(" XMAILWAL B=XMAILWAL=c", " XMAILWAL B=XMAILWAL=c"), NULL}},
	    {"LMTP with DSN: it is not offered, and taken out all the same",
	     true,
	     0,
	     {"n:220 mx|", "C:220 mx|", "c:LHLO me|", "N:LHLO me|", "n:250-mx|250 DSN|",
	      "C:250-mx|250 DSN|", SAID(" ENVID=x XMAILWAL=y", " ENVID=x"), NULL}},
	    {"SMTP", false, 0, {HELLO, SAID(" XMAILWAL=y", ""), NULL}},
	};
#undef SAID
	run_scripts(scripts, MW_COUNT(scripts));
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_dialogues),
	    cmocka_unit_test(bad_clients),
	    cmocka_unit_test(bad_servers),
	    cmocka_unit_test(strangers_forge_nothing),
	    cmocka_unit_test(the_guard_stays_here),
	    cmocka_unit_test(journal_trouble),
	    cmocka_unit_test(endless_lines),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
