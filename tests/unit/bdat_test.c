/* BDAT through the proxy (RFC 3030): chunks go on as they come, what completes the last
 * one waits for the record, and no byte of one is ever a command.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

#define CHUNKS                                                                           \
	"n:220 mx|", "C:220 mx|", "c:EHLO me|", "N:EHLO me|",                            \
	    "n:250-mx|250-BINARYMIME|250 CHUNKING|", "C:250-mx|250 CHUNKING|"
#define LCHUNKS                                                                          \
	"n:220 mx|", "C:220 mx|", "c:LHLO me|", "N:LHLO me|", "n:250-mx|250 CHUNKING|",  \
	    "C:250-mx|250-CHUNKING|250 XMAILWAL|"
#define BEGUN CHUNKS, MAIL, RCPT("c@d")
#define OK    "n:250 Ok|", "C:250 Ok|"
#define FIRST "c:BDAT 2|ab", "N:BDAT 2|ab", OK

static void
good_chunks(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"one chunk: its last byte waits for the record",
	     false,
	     1,
	     {BEGUN, "c:BDAT 5 LAST|ab", "N:BDAT 5 LAST|ab", "c:cde", "N:cd",
	      "C:", "k:", "N:e", "C:", OK, "c:QUIT|", "N:QUIT|", NULL}},
	    {"three chunks, the last one empty: its command waits",
	     false,
	     1,
	     {BEGUN, FIRST, "c:bdat 5|.||", "N:BDAT 5|.||", "n:250-3|250 more|",
	      "C:250-3|250 more|", "c:BDAT 0 LAST|", "N:", "k:", "N:BDAT 0 LAST|", OK,
	      NULL}},
	    {"however it is written, the next server reads what is counted here",
	     false,
	     1,
	     {BEGUN, "c:bDaT\t  0000000000000000000000002 |ab", "N:BDAT 2|ab", OK,
	      "c:BDAT  \t01   last|c", "N:BDAT 1 LAST|", "k:", "N:c", OK, NULL}},
	    {"pipelined",
	     false,
	     1,
	     {BEGUN, "c:BDAT 2|abBDAT 1|cBDAT 3 LAST|defQUIT|", "N:BDAT 2|ab",
	      "C:", "n:250 1|", "N:BDAT 1|c", "n:250 2|", "N:BDAT 3 LAST|de",
	      "C:250 1|250 2|", "k:", "N:f", "n:250 3|", "C:250 3|", "N:QUIT|", NULL}},
	    {"empty last chunk",
	     false,
	     1,
	     {BEGUN, FIRST, "c:BDAT 0 LAST|", "N:", "C:", "k:", "N:BDAT 0 LAST|", OK,
	      NULL}},
	    {"empty chunks, one byte",
	     false,
	     1,
	     {BEGUN, "c:BDAT 0|", "N:BDAT 0|", OK, "c:BDAT 1 LAST|", "N:BDAT 1 LAST|",
	      "c:x", "N:", "k:", "N:x", OK, NULL}},
	    {"the message without a byte",
	     false,
	     1,
	     {BEGUN, "c:BDAT 0 LAST|", "N:", "k:", "N:BDAT 0 LAST|", OK, NULL}},
	    {"RSET in the middle, then DATA, then BDAT",
	     false,
	     2,
	     {BEGUN,       FIRST,
	      "c:NOOP|",   "N:NOOP|",
	      OK,          "c:RSET|",
	      "N:RSET|",   OK,
	      MAIL,        RCPT("e@f"),
	      DATA,        "c:x|.|",
	      "k:",        "N:x|.|",
	      OK,          MAIL,
	      RCPT("e@f"), "c:BDAT 3 LAST|.|",
	      "k:",        "N:BDAT 3 LAST|.|",
	      OK,          NULL}},
	    {"LMTP: one reply for a chunk, one a recipient for the last",
	     true,
	     1,
	     {LCHUNKS, MAIL, RCPT("a@d"), RCPT("b@d"), FIRST, "c:BDAT 1 LAST|c",
	      "k:", "N:BDAT 1 LAST|c", "n:250 1|", "C:250 1|", "q:0", "n:452 2|",
	      "C:452 2|", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

static void
bad_chunks(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"not offered",
	     false,
	     0,
	     {HELLO, MAIL, RCPT("c@d"), "c:BDAT 6 LAST|QUIT|",
	      "C:421 5.5.1 BDAT is not offered here|", "N:", "q:1", NULL}},
	    {"not after HELO",
	     false,
	     0,
	     {CHUNKS, "c:HELO me|", "N:HELO me|", OK, MAIL, RCPT("c@d"),
	      "c:BDAT 6 LAST|QUIT|", "C:421 5.5.1 BDAT is not offered here|", "N:", "q:1",
	      NULL}},
#define WRONG(x)                                                                         \
	{                                                                                \
		x, false, 0,                                                             \
		{                                                                        \
			BEGUN, "c:BDAT" x "|QUIT|",                                      \
			    "N:", "C:501 5.5.4 Syntax: BDAT size [LAST]; closing|",      \
			    "q:1", NULL                                                  \
		}                                                                        \
	}
	    WRONG(""),
	    WRONG(" LAST"),
	    WRONG(" -1"),
	    WRONG(" +1"),
	    WRONG(" 1LAST"),
	    WRONG(" 1\tLAST"),
	    WRONG(" 0x10"),
	    WRONG(" 5 LASTS"),
	    WRONG(" 5 LAST LAST"),
	    WRONG(" 9223372036854775808"),
	    WRONG(" 18446744073709551617 LAST"),
#undef WRONG
#define LARGE(x)                                                                         \
	{                                                                                \
		x, false, 0,                                                             \
		{                                                                        \
			BEGUN, "c:BDAT" x "|abcdeNOOP|",                                 \
			    "N:", "C:552 5.3.4 Chunk too large; closing|", "q:1", NULL   \
		}                                                                        \
	}
	    LARGE(" 2147483648"),
	    LARGE(" 4294967301"),
	    LARGE(" 4294967301 LAST"),
	    LARGE(" 9223372036854775807"),
#undef LARGE
	    {"without MAIL: its bytes are no commands",
	     false,
	     0,
	     {CHUNKS, "c:BDAT 8|QUIT||BDAT 8 LAST|QUIT||NOOP|",
	      "C:503 5.5.1 MAIL first|503 5.5.1 MAIL first|", "N:NOOP|", "q:0", NULL}},
	    {"without RCPT, and after a refused one",
	     false,
	     0,
	     {CHUNKS, MAIL, "c:BDAT 3 LAST|a|", "C:503 5.5.1 No valid recipients|",
	      "c:RCPT TO:<x@y>|", "N:RCPT TO:<x@y>|", "n:550 no|", "C:550 no|",
	      "c:BDAT 0 LAST|", "C:503 5.5.1 No valid recipients|", "N:", NULL}},
	    {"LMTP without recipients: one reply",
	     true,
	     0,
	     {LCHUNKS, MAIL, "c:BDAT 3 LAST|a|", "C:503 5.5.1 No valid recipients|",
	      "N:", NULL}},
	    {"MAIL, RCPT, DATA after a chunk",
	     false,
	     0,
	     {BEGUN, FIRST, "c:MAIL FROM:<x@y>|RCPT TO:<e@f>|DATA|",
	      "C:503 5.5.1 A message is open already|503 5.5.1 RCPT after BDAT|503 5.5.1 "
	      "DATA after BDAT|",
	      "N:", NULL}},
	    {"BINARYMIME is not offered",
	     false,
	     0,
	     {CHUNKS, "c:MAIL FROM:<a@b> BODY=binarymime|",
	      "C:555 5.5.4 BINARYMIME is not offered|", "N:", NULL}},
	    {"gone within a chunk, and between two",
	     false,
	     0,
	     {BEGUN, "c:BDAT 5 LAST|abcd", "N:BDAT 5 LAST|abcd", "e:", "q:1",
	      "N:", "C:", NULL}},
	    {"gone between two chunks",
	     false,
	     0,
	     {BEGUN, FIRST, "e:", "q:1", "N:", "C:", NULL}},
	    {"silent within a chunk",
	     false,
	     0,
	     {BEGUN, "c:BDAT 5 LAST|abcd", "t:", "C:421 4.4.2 Timeout|", "q:1",
	      "N:", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

#define RSET_FIRST "503 5.5.1 A chunk was refused: RSET first|"
#define GONE       "451 4.4.2 Connection to the next server lost, try again later|"
#define LOST       "421 4.4.2 Connection to the next server lost, try again later|"

static void
servers(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"refuses a chunk: the others are read, none goes on, until RSET",
	     false,
	     1,
	     {BEGUN, "c:BDAT 2|abBDAT 3|cdeBDAT 8 LAST|QUIT||RSET|", "N:BDAT 2|ab",
	      "n:452 4.2.2 full|", "C:452 4.2.2 full|" RSET_FIRST RSET_FIRST, "N:RSET|",
	      OK, MAIL, RCPT("e@f"), "c:BDAT 1 LAST|x", "k:", "N:BDAT 1 LAST|x", OK,
	      NULL}},
	    {"LMTP: refuses a chunk, the last has a reply for each recipient",
	     true,
	     0,
	     {LCHUNKS, MAIL, RCPT("a@d"), RCPT("b@d"), "c:BDAT 1|aBDAT 1 LAST|b",
	      "N:BDAT 1|a", "n:552 5.3.4 big|", "C:552 5.3.4 big|" RSET_FIRST RSET_FIRST,
	      "N:", NULL}},
	    {"refuses in the middle of a chunk",
	     false,
	     0,
	     {BEGUN, "c:BDAT 5|ab", "N:BDAT 5|ab", "n:552 5.3.4 big|",
	      "C:", "c:cdeBDAT 1 LAST|x", "C:552 5.3.4 big|" LOST, "N:", "q:1", NULL}},
	    {"lost in the middle of the last chunk",
	     false,
	     0,
	     {BEGUN, "c:BDAT 5 LAST|ab", "x:", "q:0", "c:cde", "C:" GONE, "c:QUIT|",
	      "C:221 2.0.0 Bye|", "q:1", NULL}},
	    {"LMTP: lost in the first chunk: one reply",
	     true,
	     0,
	     {LCHUNKS, MAIL, RCPT("a@d"), RCPT("b@d"), "c:BDAT 5|ab", "x:", "c:cde",
	      "C:" GONE, NULL}},
	    {"LMTP: lost in the last chunk: two",
	     true,
	     0,
	     {LCHUNKS, MAIL, RCPT("a@d"), RCPT("b@d"), "c:BDAT 5 LAST|ab", "x:", "c:cde",
	      "C:" GONE GONE, NULL}},
	    {"lost while bytes are read that nobody wants",
	     true,
	     0,
	     {LCHUNKS, MAIL, "c:BDAT 5 LAST|ab", "x:", "c:cde", "C:" GONE, NULL}},
	    {"lost before the reply to a chunk",
	     false,
	     0,
	     {BEGUN, "c:BDAT 2|ab", "x:", "C:" LOST, "q:1", NULL}},
	    {"lost while the record is written",
	     false,
	     1,
	     {BEGUN, "c:BDAT 2 LAST|ab", "x:", "C:", "k:", "C:" GONE, "N:", NULL}},
	    {"lost after the last byte: the sender comes again",
	     false,
	     1,
	     {BEGUN, "c:BDAT 2 LAST|ab", "k:", "N:BDAT 2 LAST|ab", "x:",
	      "C:451 4.4.2 Connection to the next server lost after the end of the "
	      "message|",
	      NULL}},
	    {"answers a chunk before it has it",
	     false,
	     0,
	     {BEGUN, "c:BDAT 5|ab", "n:250 Ok|", "c:cde",
	      "C:451 4.3.0 The next server is out of step|", NULL}},
	    {"asks for more in an odd way",
	     false,
	     0,
	     {BEGUN, "c:BDAT 2|ab", "n:354 go|",
	      "C:421 4.3.0 The next server is out of step|", "q:1", NULL}},
	    {"refuses the message",
	     false,
	     1,
	     {BEGUN, "c:BDAT 2 LAST|ab", "k:", "N:BDAT 2 LAST|ab", "n:554 5.7.1 spam|",
	      "C:554 5.7.1 spam|", MAIL, NULL}},
	    {"the daemon ends within a chunk",
	     false,
	     0,
	     {BEGUN, "c:BDAT 2 LAST|a",
	      "s:", "C:421 4.3.2 Shutting down, try again later|", "N:", "q:1", NULL}},
	};
	run_scripts(scripts, MW_COUNT(scripts));
}

static void
never_the_last_byte_without_a_record(void **state)
{
	(void)state;
	static const char *const last[] = {
	    LCHUNKS,
	    MAIL,
	    RCPT("a@d"),
	    RCPT("b@d"),
	    "c:BDAT 2 LAST|ab",
	    "N:BDAT 2 LAST|a",
	    "k:",
	    "N:",
	    "C:451 4.3.0 Mail journal unavailable, try again later|451 4.3.0 Mail "
	    "journal unavailable, try again later|",
	    "c:NOOP|",
	    "C:" LOST,
	    NULL};
	static const char *const empty[] = {
	    BEGUN, FIRST, "c:BDAT 0 LAST|",
	    "k:",  "N:",  "C:451 4.3.0 Mail journal unavailable, try again later|",
	    NULL};
	for (int i = 0; i < 2; i++) {
		atomic_store(&fail_sync, 1);
		play("no sync", i == 0, true, i ? empty : last);
		atomic_store(&fail_sync, 0);
		for (int k = 0; k < 12000 && mw_store_ready(store) < 0; k++)
			(void)usleep(10000);
	}
}

/* What other servers take for an end of data is content here, dots and all. */
static void
records_are_exact(void **state)
{
	(void)state;
	static const char *const ends[] = {
	    "\n.\n",
	    "\n.\r",
	    "\r.\n",
	    "\r.\r",
	    "\n.\r\n",
	    "\r.\r\n",
	    "\r\n.\n",
	    "\r\n.\r",
	    "\r\n.\r\n",
	    "\r\n.\r\r\n",
	    "\r\r\n.\r\r\n",
	    "\r\n..\r\n",
	    ".",
	    "\r\n.\r\nMAIL FROM:<evil@x>\r\n",
	};
	for (size_t i = 0; i < MW_COUNT(ends); i++) {
		char chunk[200], told[200], want[200], x[100];
		(void)snprintf(x, sizeof x, "A: b\r\n\r\nx%s", ends[i]);
		(void)snprintf(chunk, sizeof chunk, "c:BDAT %zu|%sBDAT 5 LAST|end|",
		               strlen(x), x);
		(void)snprintf(told, sizeof told, "N:BDAT %zu|%s", strlen(x), x);
		(void)snprintf(want, sizeof want, "%send\r\n", x);
		const char *steps[] = {BEGUN,
		                       chunk,
		                       told,
		                       "n:250 1|",
		                       "C:250 1|",
		                       "k:",
		                       "N:BDAT 5 LAST|end|",
		                       OK,
		                       NULL};
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO content = {0};
		struct mw_mail m;
		play(ends[i], false, true, steps);
		last_mail(a, &m, &content);
		str_is(mw_buf_str(&content), want);
	}
}

static void
endless_chunks(void **state)
{
	(void)state;
	struct talk t = {.w = MW_WAITER};
	struct mw_dialog_opts o = {.cap = &cap,
	                           .outbox = &outbox,
	                           .on = "here",
	                           .next = "there",
	                           .done = on_done,
	                           .arg = &t.w};
	static const char *const said[][2] = {{"EHLO me\r\n",
	                                       "250-mx\r\n250 CHUNKING\r\n"},
	                                      {"MAIL FROM:<a@b>\r\n", "250 Ok\r\n"},
	                                      {"RCPT TO:<a@b>\r\n", "250 Ok\r\n"}};
	assert_int_equal(mw_dialog_init(&t.d, &o, NULL), 0);
	mw_dialog_next(&t.d, "220 mx\r\n", 8);
	for (size_t i = 0; i < MW_COUNT(said); i++) {
		mw_dialog_client(&t.d, said[i][0], strlen(said[i][0]));
		mw_dialog_next(&t.d, said[i][1], strlen(said[i][1]));
	}
	/* a chunk larger than any disk: nothing is kept in memory of it */
	static char big[100000];
	memset(big, 'x', sizeof big);
	mw_dialog_client(&t.d, "BDAT 2147483647\r\n", 17);
	for (int i = 0; i < 100; i++) {
		mw_dialog_client(&t.d, big, sizeof big);
		assert_int_equal(t.d.in.n, 0);
		mw_buf_clear(&t.d.to_next);
	}
	mw_dialog_client_eof(&t.d);
	assert_true(t.d.close_client);
	mw_dialog_free(&t.d);
	/* and chunks of nothing come to an end */
	assert_int_equal(mw_dialog_init(&t.d, &o, NULL), 0);
	mw_dialog_next(&t.d, "220 mx\r\n", 8);
	for (size_t i = 0; i < MW_COUNT(said); i++) {
		mw_dialog_client(&t.d, said[i][0], strlen(said[i][0]));
		mw_dialog_next(&t.d, said[i][1], strlen(said[i][1]));
	}
	for (int i = 0; i < 200 && !t.d.close_client; i++) {
		mw_dialog_client(&t.d, "BDAT 0\r\n", 8);
		mw_dialog_next(&t.d, "250 Ok\r\n", 8);
	}
	assert_true(t.d.close_client);
	mw_dialog_free(&t.d);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_chunks),
	    cmocka_unit_test(bad_chunks),
	    cmocka_unit_test(servers),
	    cmocka_unit_test(never_the_last_byte_without_a_record),
	    cmocka_unit_test(records_are_exact),
	    cmocka_unit_test(endless_chunks),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
