/* Connections to the next server that serve one client after the other: when one may be
 * given away, what the next client may say on it, and one that was closed meanwhile.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

#define GREET                                                                            \
	"n:220 mx|", "C:220 mx|", "c:EHLO me|", "N:EHLO me|", "n:250-mx|250 CHUNKING|",  \
	    "C:250-mx|250 CHUNKING|"
#define OK      "n:250 Ok|", "C:250 Ok|"
#define CONTENT DATA, "c:x|.|", "k:", "N:x|.|"
#define SENT    MAIL, RCPT("c@d"), CONTENT, OK
#define BYE     "c:QUIT|", "N:", "C:221 2.0.0 Bye|", "q:1", "K:1"
#define NO_BYE  "c:QUIT|", "N:QUIT|", "n:221 bye|", "C:221 bye|", "q:1", "K:0"
#define ANSWER  "C:250-mx|250-XFORWARD NAME|250 CHUNKING|"
#define LANSWER "C:250-mx|250-XFORWARD NAME|250-CHUNKING|250 XMAILWAL|"

static void
given_away(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"after a message", false, 1, {GREET, SENT, BYE, NULL}},
	    {"after two, and XFORWARD, RSET, NOOP before",
	     false,
	     2,
	     {GREET, SENT, "c:NOOP|", "N:NOOP|", OK, "c:RSET|", "N:RSET|", OK,
	      "c:XFORWARD NAME=x|", "N:XFORWARD NAME=x|", OK, SENT, BYE, NULL}},
	    {"after a message in chunks",
	     false,
	     1,
	     {GREET, MAIL, RCPT("c@d"), "c:BDAT 2|ab", "N:BDAT 2|ab", OK,
	      "c:BDAT 0 LAST|", "k:", "N:BDAT 0 LAST|", OK, BYE, NULL}},
	    {"the client goes without a word",
	     false,
	     1,
	     {GREET, SENT, "e:", "q:1", "K:1", "N:", NULL}},
	    {"not without a message", false, 0, {GREET, NO_BYE, NULL}},
	    {"not with something said since",
	     false,
	     1,
	     {GREET, SENT, "c:XFORWARD NAME=x|", "N:XFORWARD NAME=x|", OK, NO_BYE, NULL}},
	    {"not within a message",
	     false,
	     1,
	     {GREET, SENT, MAIL, "e:", "q:1", "K:0", NULL}},
	    {"not within a chunk",
	     false,
	     1,
	     {GREET, SENT, MAIL, RCPT("c@d"), "c:BDAT 9|x", "e:", "q:1", "K:0", NULL}},
	    {"not after a refusal",
	     false,
	     1,
	     {GREET, MAIL, "c:RCPT TO:<x@y>|", "N:RCPT TO:<x@y>|", "n:550 no|",
	      "C:550 no|", RCPT("c@d"), CONTENT, OK, NO_BYE, NULL}},
	    {"not after a refused message",
	     false,
	     1,
	     {GREET, MAIL, RCPT("c@d"), CONTENT, "n:554 no|", "C:554 no|", NO_BYE, NULL}},
	    {"not after XCLIENT",
	     false,
	     1,
	     {GREET, "c:XCLIENT NAME=x|", "N:XCLIENT NAME=x|", "n:220 mx|", "C:220 mx|",
	      SENT, NO_BYE, NULL}},
	    {"not after VRFY",
	     false,
	     1,
	     {GREET, "c:VRFY x|", "N:VRFY x|", "n:252 Ok|", "C:252 Ok|", SENT, NO_BYE,
	      NULL}},
	    {"not when it answers before it has got it all",
	     false,
	     1,
	     {GREET, MAIL, RCPT("c@d"), DATA, "c:x|.|", "k:", "n:250 Ok|", "C:250 Ok|",
	      "e:", "q:1", "K:0", NULL}},
	    {"not with a word too many from it",
	     false,
	     1,
	     {GREET, MAIL, RCPT("c@d"), DATA, "c:x|.|QUIT|", "k:", "N:x|.|",
	      "n:250 Ok|250 Ok|", "C:250 Ok|250 Ok|", "N:", "q:1", "K:0", NULL}},
	    {"not with half a word from it",
	     false,
	     1,
	     {GREET, SENT, "n:42", "e:", "q:1", "K:0", NULL}},
	    {"not with half a reply from it",
	     false,
	     1,
	     {GREET, SENT, "n:421-bye|", "e:", "q:1", "K:0", NULL}},
	    {"not when it has failed",
	     false,
	     1,
	     {GREET, MAIL, RCPT("c@d"), CONTENT, "x:",
	      "C:451 4.4.2 Connection to the next server lost after the end of the "
	      "message|",
	      "c:QUIT|", "C:221 2.0.0 Bye|", "q:1", "K:0", NULL}},
	    {"LMTP: not when one recipient failed",
	     true,
	     1,
	     {"n:220 mx|", "C:220 mx|", "c:LHLO me|", "N:LHLO me|", "n:250 mx|",
	      "C:250-mx|250 XMAILWAL|", MAIL, RCPT("a@d"), RCPT("b@d"), CONTENT, OK,
	      "n:452 4.2.2 full|", "C:452 4.2.2 full|", NO_BYE, NULL}},
	};
	with.keep = true;
	run_scripts(scripts, MW_COUNT(scripts));
	memset(&with, 0, sizeof with);
	static const struct script never[] = {
	    {"not where it is not wanted", false, 1, {GREET, SENT, NO_BYE, NULL}}};
	run_scripts(never, MW_COUNT(never));
}

static void
taken(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"the same EHLO is answered at once",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO me|", "N:", ANSWER, SENT, BYE, NULL}},
	    {"another EHLO is not",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO you|", "N:EHLO you|", "n:250 mx|", "C:250 mx|", SENT,
	      BYE, NULL}},
	    {"a second EHLO is not, and offers count",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "c:EHLO me|", "N:EHLO me|", "n:250 mx|",
	      "C:250 mx|", MAIL, RCPT("c@d"), "c:BDAT 1 LAST|",
	      "C:421 5.5.1 BDAT is not offered here|", "q:1", "K:0", NULL}},
	    {"chunks after an EHLO from memory",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, MAIL, RCPT("c@d"), "c:BDAT 1 LAST|x",
	      "k:", "N:BDAT 1 LAST|x", OK, BYE, NULL}},
	    {"nothing is said for another's EHLO",
	     false,
	     0,
	     {"C:220 mx|", "c:MAIL FROM:<a@b>|XFORWARD NAME=x|AUTH PLAIN x|", "N:",
	      "C:503 5.5.1 Say EHLO first|503 5.5.1 Say EHLO first|503 5.5.1 Say EHLO "
	      "first|",
	      "c:BDAT 6|QUIT|", "C:421 5.5.1 BDAT is not offered here|", "q:1", "K:0",
	      NULL}},
	    {"LMTP: the same",
	     true,
	     1,
	     {"C:220 mx|", "c:MAIL FROM:<a@b>|", "C:503 5.5.1 Say LHLO first|",
	      "c:LHLO me|", "N:", LANSWER, SENT, BYE, NULL}},
	    {"untouched: given away again",
	     false,
	     0,
	     {"C:220 mx|", "e:", "q:1", "K:1", NULL}},
	    {"greeted and left",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, BYE, NULL}},
	};
	with.keep = with.used = true;
	run_scripts(scripts, MW_COUNT(scripts));
	memset(&with, 0, sizeof with);
}

#define LOST "421 4.4.2 Connection to the next server lost, try again later|"

static void
gone_meanwhile(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"before anything was said",
	     false,
	     1,
	     {"C:220 mx|", "x:", "q:0", "R:", "c:EHLO me|", "n:220 mx|",
	      "C:", "N:EHLO me|", "n:250 mx|", "C:250 mx|", SENT, BYE, NULL}},
	    {"after an EHLO from memory",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "x:", "R:", "c:MAIL FROM:<a@b>|", "N:",
	      "n:220 mx|", "N:EHLO me|", "n:250-mx|250 CHUNKING|", "N:MAIL FROM:<a@b>|",
	      "n:250 Ok|", "C:250 Ok|", RCPT("c@d"), CONTENT, OK, BYE, NULL}},
	    {"at the first command",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "c:XFORWARD NAME=x|",
	      "N:XFORWARD NAME=x|", "x:", "R:", "n:220 mx|", "N:EHLO me|", "n:250 mx|",
	      "N:XFORWARD NAME=x|", OK, SENT, BYE, NULL}},
	    {"the new one offers no CHUNKING: no bytes of a chunk for it",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "x:", "R:", "n:220 mx|", "N:EHLO me|",
	      "n:250 mx|", MAIL, RCPT("c@d"), "c:BDAT 6|QUIT|",
	      "N:", "C:421 5.5.1 BDAT is not offered here|", "q:1", NULL}},
	    {"it says 421 to the first command",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO you|", "N:EHLO you|", "n:421 4.4.2 idle too long|",
	      "C:", "R:", "n:220 mx|", "N:EHLO you|", "n:250 mx|", "C:250 mx|", SENT, BYE,
	      NULL}},
	    {"and says 421 unasked",
	     false,
	     0,
	     {"C:220 mx|", "n:421 4.4.2 idle too long|", "C:", "R:", "n:220 mx|",
	      "c:EHLO me|", "N:EHLO me|", NULL}},
	    {"it says 421 and takes no more",
	     false,
	     1,
	     {"C:220 mx|", "c:EHLO you|", "n:421 4.4.2 idle too long|", "x:", "q:0",
	      "R:", "C:", "N:", "n:220 mx|", "N:EHLO you|", "n:250 mx|", "C:250 mx|",
	      SENT, BYE, NULL}},
	    {"the second is no better",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO you|", "N:EHLO you|", "x:", "R:", "x:",
	      "C:421 4.4.1 The next server cannot be reached, try again later|", "q:1",
	      NULL}},
	    {"the second does not want to",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO you|", "N:EHLO you|", "x:", "R:", "n:554 no|",
	      "C:" LOST, "q:1", NULL}},
	    {"the second does not know EHLO",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "x:", "R:", "n:220 mx|", "N:EHLO me|",
	      "n:502 what|", "C:" LOST, "q:1", NULL}},
	    {"later it is as with any other",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, MAIL, "x:", "C:" LOST, "q:1", NULL}},
	};
	with.keep = with.used = true;
	run_scripts(scripts, MW_COUNT(scripts));
	/* A secret is not remembered, and so not said again. */
	static const struct script auth[] = {
	    {"AUTH as the first command",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|", ANSWER, "c:AUTH PLAIN eA==|",
	      "N:AUTH PLAIN eA==|", "x:", "C:" LOST, "q:1", NULL}}};
	with.next_local = true;
	run_scripts(auth, MW_COUNT(auth));
	memset(&with, 0, sizeof with);
}

#define F       "XFORWARD NAME=x|"
#define F250    "C:250 2.0.0 Ok|"
#define FANSWER "C:250-mx|250-XFORWARD NAME|250-PIPELINING|250 CHUNKING|"
#define FIRST   "C:220 mx|", "c:EHLO me|", FANSWER
#define TOLD    FIRST, "c:" F, F250
#define ANEW    "R:", "N:", "n:220 mx|", "N:EHLO me|"
#define PIPES   "n:250-mx|250 PIPELINING|"
#define TAKEN   "N:" F "MAIL FROM:<a@b>|", "n:250 Ok|", "C:", OK, RCPT("c@d"), CONTENT, OK

/* XFORWARD that the next server has taken before on this connection. */
static void
forwarded(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"with what follows, each reply to whom it belongs",
	     false,
	     2,
	     {TOLD, "H:1", "c:MAIL FROM:<a@b>|", "H:0", TAKEN, "c:" F, F250, "c:" F, F250,
	      "c:MAIL FROM:<a@b>|", "N:" F F "MAIL FROM:<a@b>|", "n:250 1|250 2|250 3|",
	      "C:250 3|", RCPT("c@d"), CONTENT, OK, BYE, NULL}},
	    {"all from one packet",
	     false,
	     0,
	     {FIRST, "c:" F "MAIL FROM:<a@b>|RCPT TO:<c@d>|", "N:" F "MAIL FROM:<a@b>|",
	      F250, "n:250 1|250 2|", "C:250 2|", "N:RCPT TO:<c@d>|", NULL}},
	    {"RSET, and QUIT after it",
	     false,
	     0,
	     {TOLD, "c:RSET|", "N:" F "RSET|", "n:250 1|250 2|", "C:250 2|", "c:" F, F250,
	      "c:QUIT|", "N:" F "QUIT|", "n:250 1|221 bye|", "C:221 bye|", "q:1", "K:0",
	      NULL}},
	    {"the client goes", false, 0, {TOLD, "e:", "q:1", "K:0", NULL}},
	    {"it is refused this time",
	     false,
	     0,
	     {TOLD, "c:MAIL FROM:<a@b>|", "N:" F "MAIL FROM:<a@b>|", "n:501 no|250 Ok|",
	      "C:421 4.3.0 The next server refuses XFORWARD, try again later|", "q:1",
	      "K:0", NULL}},
	    {"not within a message",
	     false,
	     0,
	     {TOLD, "c:MAIL FROM:<a@b>|", "N:" F "MAIL FROM:<a@b>|", "n:250 1|250 2|",
	      "C:250 2|", "c:" F, "N:" F, "n:503 no|", "C:503 no|", NULL}},
	    {"not without end",
	     false,
	     0,
	     {FIRST, "c:" F F F F F F F F F, "N:" F F F F F F F F F,
	      F250 "250 2.0.0 Ok|250 2.0.0 Ok|250 2.0.0 Ok|250 2.0.0 Ok|"
	           "250 2.0.0 Ok|250 2.0.0 Ok|250 2.0.0 Ok|",
	      "n:250 1|250 2|250 3|250 4|250 5|250 6|250 7|250 8|250 9|", "C:250 9|",
	      NULL}},
	    {"a reply that nobody waits for is none to it",
	     false,
	     0,
	     {TOLD, "n:250 Ok|", "C:" LOST, "q:1", NULL}},
	    {"the connection is gone before it is said",
	     false,
	     1,
	     {TOLD, "x:", ANEW, PIPES, "H:1", "c:MAIL FROM:<a@b>|", TAKEN, BYE, NULL}},
	    {"… and when it is",
	     false,
	     1,
	     {TOLD, "c:MAIL FROM:<a@b>|", "x:", ANEW, PIPES, TAKEN, BYE, NULL}},
	    {"421 to it",
	     false,
	     1,
	     {TOLD, "c:MAIL FROM:<a@b>|", "n:421 4.4.2 idle too long|", ANEW, PIPES,
	      TAKEN, BYE, NULL}},
	    {"gone in the midst of the replies",
	     false,
	     0,
	     {TOLD, "c:MAIL FROM:<a@b>|", "n:250 1|", "x:", "C:" LOST, "q:1", NULL}},
	    {"the new one does not take commands together",
	     false,
	     0,
	     {TOLD, "x:", ANEW, "n:250 mx|", "C:" LOST, "q:1", NULL}},
	};
	with.keep = with.used = with.forwards = true;
	run_scripts(scripts, MW_COUNT(scripts));
	memset(&with, 0, sizeof with);
}

static void
tls_after_forward(void **state)
{
	(void)state;
	static const struct script scripts[] = {
	    {"what was said before TLS counts for nothing",
	     false,
	     0,
	     {"C:220 mx|", "c:EHLO me|",
	      "C:250-mx|250-XFORWARD NAME|250-PIPELINING|250-CHUNKING|250 STARTTLS|",
	      "c:" F, F250, "c:STARTTLS|", "C:220 2.0.0 Ready to start TLS|",
	      "T:", "c:EHLO me|", "N:" F "EHLO me|", NULL}},
	};
	with.keep = with.used = with.forwards = with.tls = true;
	run_scripts(scripts, MW_COUNT(scripts));
	memset(&with, 0, sizeof with);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(given_away),        cmocka_unit_test(taken),
	    cmocka_unit_test(gone_meanwhile),    cmocka_unit_test(forwarded),
	    cmocka_unit_test(tls_after_forward),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
