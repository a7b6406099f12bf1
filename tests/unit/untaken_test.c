/* Messages whose senders were told to come again, by the log alone: when it says so, and
 * every reason why it does not. */
#include "journal/base/util.h"
#include "replay/untaken.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define NOW (INT64_C(1795352400) * 1000000) /* 2026-11-22 13:00:00 UTC */

/* Lines as Postfix 3.7 wrote them; "%" stands for what is in front. */
#define AT(s)        "Nov 22 12:00:" s " mx postfix/"
#define CONNECT(s)   AT(s) "smtpd[11]: connect from unknown[192.0.2.1]\n"
#define CLIENT(s, q) AT(s) "smtpd[11]: " q ": client=unknown[192.0.2.1]\n"
#define HEADER(s, q) AT(s) "cleanup[12]: " q ": message-id=<once@remote.test>\n"
#define BYE(s, n)                                                                        \
	AT(s) "smtpd[11]: disconnect from unknown[192.0.2.1] ehlo=1 mail=1 rcpt=1 " n "\n"
/* Another process, beside it. */
#define SESSION2(s, q)                                                                   \
	AT(s)                                                                            \
	"smtpd[21]: connect from unknown[192.0.2.1]\n" AT(                               \
	    s) "smtpd[21]: " q ": client=unknown[192.0.2.1]\n"
#define BYE2(s, n)                                                                       \
	AT(s) "smtpd[21]: disconnect from unknown[192.0.2.1] ehlo=1 mail=1 rcpt=1 " n "\n"
#define ACTIVE(s, q)                                                                     \
	AT(s) "qmgr[13]: " q ": from=<w@x.test>, size=320, nrcpt=1 (queue active)\n"
#define HEADER_ON(t, q)                                                                  \
	t " mx postfix/cleanup[12]: " q ": message-id=<once@remote.test>\n"
#define ACTIVE_ON(t, q)                                                                  \
	t " mx postfix/qmgr[13]: " q                                                     \
	  ": from=<w@x.test>, size=320, nrcpt=1 (queue active)\n"
#define FIRST  "4jY3xX0jDpz1h7FF"
#define SECOND "4jY3xX0jDpz1h7FG"
#define LATER  "4jY3yh1RGzz1h7G6"
#define KILLED                                                                           \
	AT("00")                                                                         \
	"master[9]: warning: process /usr/lib/postfix/sbin/cleanup pid 12 killed by "    \
	"signal 9\n"
/* Its sender comes with it once more. */
#define AGAIN(s, q) HEADER(s, q) ACTIVE(s, q)
#define OTHER(s, q) AT(s) "cleanup[12]: " q ": message-id=<other@remote.test>\n"
#define FAILED      CONNECT("00") CLIENT("00", FIRST) HEADER("00", FIRST) KILLED

struct want {
	const char *name, *log;
	const char *untaken; /* their queue IDs, each with a blank */
};

static const struct want wants[] = {
    {"cleanup was killed, the sender came again",
     FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("10", LATER), FIRST " "},
    {"nobody came since: the queue may still be read",
     FAILED BYE("00", "data=0/1 commands=3/4"), ""},
    {"within its second", FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("00", LATER),
     ""},
    {"later is late enough",
     FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("00", LATER) ACTIVE("01", SECOND),
     FIRST " "},
    {"others came, its sender did not",
     FAILED BYE("00", "data=0/1 commands=3/4") OTHER("10", LATER) ACTIVE("10", LATER),
     ""},
    {"he came, and was not heard to the end",
     FAILED BYE("00", "data=0/1 commands=3/4") HEADER("10", LATER) ACTIVE("20", SECOND),
     ""},
    {"he came much later",
     FAILED BYE("00", "data=0/1 commands=3/4") ACTIVE("10", SECOND)
         HEADER_ON("Nov 22 12:59:00", LATER) ACTIVE_ON("Nov 22 12:59:00", LATER),
     FIRST " "},
    {"no Message-ID to know it by",
     CONNECT("00") CLIENT("00", FIRST)
         AT("00") "cleanup[12]: " FIRST ": message-id=<>\n" BYE("00",
                                                                "data=0/1 commands=3/4")
             AT("10") "cleanup[12]: " LATER ": message-id=<>\n" ACTIVE("10", LATER),
     ""},
    {"he came in the same session",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND) ACTIVE("00", SECOND)
         BYE("00", "data=1/2 quit=1 commands=6/8") OTHER("10", LATER) ACTIVE("10", LATER),
     FIRST " "},
    {"the log lost its lines from the one session into the next of that process",
     FAILED AT("00") "cleanup[12]: " SECOND
                     ": milter-reject: END-OF-MESSAGE from u[192.0.2.1]: "
                     "5.7.1 no\n" BYE("00", "data=0/1 commands=3/4") OTHER("10", LATER)
                         ACTIVE("10", LATER),
     ""},
    {"one that was held and failed; of the other the line comes late",
     FAILED AT("00") "cleanup[12]: " FIRST
                     ": hold: header X: y from u[192.0.2.1]\n" CLIENT("00", SECOND)
                         OTHER("00", SECOND) BYE("00", "data=1/2 commands=6/8")
                             OTHER("10", LATER) ACTIVE("10", LATER),
     ""},
    {"he comes while the first session is open still",
     FAILED AGAIN("00", LATER) BYE("00", "data=0/1 commands=3/4") OTHER("10", SECOND)
         ACTIVE("10", SECOND),
     FIRST " "},
    {"he comes in another, and is queued behind the end of the first",
     FAILED SESSION2("00", LATER) HEADER("00", LATER) BYE("00", "data=0/1 commands=3/4")
         BYE2("00", "data=1 commands=4") ACTIVE("00", LATER) OTHER("10", SECOND)
             ACTIVE("10", SECOND),
     FIRST " "},
    {"he comes and ends in another before the first one ends",
     FAILED SESSION2("00", LATER) HEADER("00", LATER) ACTIVE("00", LATER)
         BYE2("00", "data=1 commands=4") BYE("09", "data=0/1 commands=3/4")
             OTHER("20", SECOND) ACTIVE("20", SECOND),
     FIRST " "},
    {"two attempts fail, both sessions are open when the third comes",
     FAILED SESSION2("01", SECOND) HEADER("01", SECOND) AGAIN("02", LATER)
         BYE("03", "data=0/1 commands=3/4") BYE2("03", "data=0/1 commands=3/4")
             OTHER("10", "4jY3yh1RGzz1h7G7") ACTIVE("10", "4jY3yh1RGzz1h7G7"),
     FIRST " " SECOND " "},
    {"another of his comes while it is open",
     FAILED OTHER("00", LATER) ACTIVE("00", LATER) BYE("00", "data=0/1 commands=3/4")
         ACTIVE("10", SECOND),
     ""},
    {"he comes while it is open, and is not heard to the end",
     FAILED HEADER("00", LATER) BYE("00", "data=0/1 commands=3/4") ACTIVE("10", SECOND),
     ""},
    {"he comes while it is open; the first is in the queue after all",
     FAILED AGAIN("00", LATER) ACTIVE("00", FIRST) BYE("00", "data=0/1 commands=3/4")
         OTHER("10", SECOND) ACTIVE("10", SECOND),
     ""},
    {"of two the first waits for the queue manager, the second's answer was lost",
     FAILED CLIENT("00", SECOND) OTHER("00", SECOND) ACTIVE("00", SECOND)
         BYE("00", "data=1/2 commands=6/8") HEADER("10", LATER) ACTIVE("10", LATER),
     ""},
    {"told once",
     FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("10", LATER) ACTIVE("11", LATER),
     FIRST " "},
    {"the answer was lost, the message not",
     FAILED BYE("00", "data=0/1 commands=3/4") ACTIVE("00", FIRST) AGAIN("10", LATER),
     ""},
    {"in the queue before the session ends",
     FAILED ACTIVE("00", FIRST) BYE("00", "data=0/1 commands=3/4") AGAIN("10", LATER),
     ""},
    {"smtpd counts it as accepted",
     FAILED BYE("00", "data=1 commands=4") AGAIN("10", LATER), ""},
    {"held by cleanup",
     FAILED AT("00") "cleanup[12]: " FIRST ": hold: header X: y from u[192.0.2.1]\n" BYE(
         "00", "data=0/1 commands=3/4") AGAIN("10", LATER),
     ""},
    {"a delivery is its proof",
     FAILED BYE("00", "data=0/1 commands=3/4")
         AT("01") "lmtp[14]: " FIRST
                  ": to=<a@x.test>, relay=l[/l], delay=1, delays=0/0/0/1, "
                  "dsn=2.0.0, status=sent (250 Saved)\n" AGAIN("10", LATER),
     ""},
    {"smtpd was killed too: no count", FAILED AGAIN("10", LATER), ""},
    {"its process went on to another client",
     FAILED CONNECT("01") BYE("01", "data=0/1 commands=3/4") AGAIN("10", LATER), ""},
    {"the log begins in the middle of it",
     CLIENT("00", FIRST) HEADER("00", FIRST) BYE("00", "data=0/1 commands=3/4")
         AGAIN("10", LATER),
     ""},
    {"an old Postfix counts nothing",
     FAILED AT("00") "smtpd[11]: disconnect from unknown[192.0.2.1]\n" AGAIN("10", LATER),
     ""},
    {"a line that was cut",
     FAILED AT("00") "smtpd[11]: disconnect from unknown[192.0.2.1] ehlo=1 data=0/1 "
                     "comm\n" AGAIN("10", LATER),
     ""},
    {"nothing was received",
     CONNECT("00") CLIENT("00", FIRST) BYE("00", "data=0/1 commands=3/4")
         AGAIN("10", LATER),
     ""},
    {"the second of two",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND) ACTIVE("00", FIRST)
         BYE("00", "data=1/2 commands=6/8") AGAIN("10", LATER),
     SECOND " "},
    {"the first's line comes behind the end",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND) BYE("00", "data=1/2 commands=6/8")
         ACTIVE("01", FIRST) AGAIN("10", LATER),
     SECOND " "},
    {"which of two it was is not known: a line is missing",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND) BYE("00", "data=1/2 commands=6/8")
         AGAIN("10", LATER),
     ""},
    {"one of them was never named",
     FAILED BYE("00", "data=1/2 commands=6/8") AGAIN("10", LATER), ""},
    {"fewer failed than are missing",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND) BYE("00", "data=0/1 commands=6/8")
         AGAIN("10", LATER),
     ""},
    {"what failed was refused by a filter",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND)
         AT("00") "cleanup[12]: " SECOND
                  ": milter-reject: END-OF-MESSAGE from u[192.0.2.1]: "
                  "5.7.1 no\n" BYE("00", "data=0/1 commands=6/8") AGAIN("10", LATER),
     ""},
    {"and by a filter beside",
     FAILED CLIENT("00", SECOND) HEADER("00", SECOND)
         AT("00") "cleanup[12]: " SECOND
                  ": milter-reject: END-OF-MESSAGE from u[192.0.2.1]: "
                  "5.7.1 no\n" BYE("00", "data=0/2 commands=6/8") AGAIN("10", LATER),
     FIRST " "},
    {"BDAT, one chunk", FAILED BYE("00", "bdat=0/1 commands=3/4") AGAIN("10", LATER),
     FIRST " "},
    {"BDAT, the last of three: or a fourth that was none of it",
     FAILED BYE("00", "bdat=2/3 commands=3/4") AGAIN("10", LATER), ""},
    {"BDAT and DATA",
     FAILED BYE("00", "data=0/1 bdat=0/1 commands=3/4") AGAIN("10", LATER), ""},
    {"another host's process of that number",
     FAILED "Nov 22 12:00:00 my postfix/smtpd[11]: disconnect from u[192.0.2.1] data=0/1 "
            "commands=3/4\n" AGAIN("10", LATER),
     ""},
    {"another host's queue",
     FAILED BYE("00",
                "data=0/1 commands=3/4") "Nov 22 12:00:30 my postfix/qmgr[13]: " LATER
                                         ": from=<w@x.test>, size=320, nrcpt=1 "
                                         "(queue active)\n",
     ""},
    {"a log that was read behind a younger one",
     ACTIVE("50", LATER) FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("10", LATER)
         ACTIVE("55", LATER),
     ""},
    {"a hostile name",
     FAILED AT("00") "smtpd[11]: warning: disconnect from unknown[192.0.2.1] "
                     "data=0/1 commands=1\n" AGAIN("10", LATER),
     ""},
};

static int
heard(void *arg, struct mw_str queue_id, struct mw_str again, int64_t begun_us,
      int64_t ended_us)
{
	char *got = arg;
	assert_true(again.n && !mw_str_eq(again, queue_id));
	assert_true(begun_us && begun_us <= ended_us);
	(void)snprintf(got + strlen(got), 200 - strlen(got), "%.*s ", (int)queue_id.n,
	               queue_id.p);
	return 1;
}

/* keep: after each line, what is open goes through its JSON. */
static void
feed(struct mw_untaken *u, const char *text, bool keep, char *got)
{
	struct mw_str rest = mw_strz(text), line;
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		struct mw_mta_event e;
		(void)mw_mtalog_line(line, NOW, &e);
		assert_int_equal(mw_untaken_event(u, &e, heard, got), 0);
		if (!keep)
			continue;
		json_t *state = mw_untaken_save(u);
		mw_untaken_done(u);
		assert_int_equal(mw_untaken_init(u), 0);
		assert_int_equal(mw_untaken_load(u, state), 0);
		json_decref(state);
	}
}

static void
each(bool keep)
{
	for (size_t i = 0; i < MW_COUNT(wants); i++) {
		struct mw_untaken u;
		char got[200] = "";
		assert_int_equal(mw_untaken_init(&u), 0);
		feed(&u, wants[i].log, keep, got);
		if (strcmp(got, wants[i].untaken) != 0)
			fail_msg("%s: \"%s\", not \"%s\"", wants[i].name, got,
			         wants[i].untaken);
		mw_untaken_done(&u);
	}
}

static void
what_the_log_says(void **state)
{
	(void)state;
	each(false);
}

static void
the_same_read_line_by_line(void **state)
{
	(void)state;
	each(true);
}

/* A session of its own process, and of one message, at 12:00:ss. */
static void
session(struct mw_untaken *u, int ss, int pid, const char *end, char *got)
{
	char line[400];
	(void)snprintf(line, sizeof line,
	               "Nov 22 12:00:%02d mx postfix/smtpd[%d]: connect from u[::1]\n",
	               ss, pid);
	feed(u, line, false, got);
	(void)snprintf(
	    line, sizeof line,
	    "Nov 22 12:00:%02d mx postfix/smtpd[%d]: 4jY%06dz1h: client=u[::1]\n", ss,
	    pid, pid);
	feed(u, line, false, got);
	(void)snprintf(
	    line, sizeof line,
	    "Nov 22 12:00:%02d mx postfix/cleanup[7]: 4jY%06dz1h: message-id=<x>\n", ss,
	    pid);
	feed(u, line, false, got);
	(void)snprintf(line, sizeof line, "Nov 22 12:00:%02d mx postfix/smtpd[%d]: %s\n",
	               ss, pid, end);
	feed(u, line, false, got);
}

/* Of 500 messages, of which the last came a second time. */
static void
long_session(struct mw_untaken *u, int pid, char *got)
{
	char line[400];
	(void)snprintf(line, sizeof line, AT("30") "smtpd[%d]: connect from u[::1]\n",
	               pid);
	feed(u, line, false, got);
	for (int i = 0; i < 500; i++) {
		(void)snprintf(line, sizeof line,
		               AT("30") "smtpd[%d]: 4jX%03d%03dz1h: client=u[::1]\n" AT(
		                   "30") "cleanup[7]: 4jX%03d%03dz1h: message-id=<%s>\n",
		               pid, pid, i, pid, i, i == 499 ? "other@remote.test" : "z");
		feed(u, line, false, got);
	}
	(void)snprintf(line, sizeof line,
	               AT("30") "smtpd[%d]: disconnect from u[::1] data=0/500 "
	                        "commands=1/501\n",
	               pid);
	feed(u, line, false, got);
}

/* Thousands of sessions at once, and a session without end: memory stays, and nothing is
 * told that is not so. */
static void
bounds(void **state)
{
	(void)state;
	struct mw_untaken u;
	char line[300], got[200] = "";
	assert_int_equal(mw_untaken_init(&u), 0);
	for (int i = 1; i <= 20000; i++)
		session(&u, 0, i, "", got);
	feed(&u, CONNECT("01"), false, got);
	for (int i = 0; i < 2000; i++) {
		(void)snprintf(line, sizeof line,
		               CLIENT("01", "4jZ%06dz1h7FF")
		                   HEADER("01", "4jZ%06dz1h7FF"),
		               i, i);
		feed(&u, line, false, got);
	}
	json_t *saved = mw_untaken_save(&u);
	char *text = json_dumps(saved, JSON_INDENT(1));
	assert_non_null(text);
	assert_true(strlen(text) < 500000);
	free(text);
	json_decref(saved);
	feed(&u, BYE("01", "data=0/2000 commands=1/2") AGAIN("10", LATER), false, got);
	assert_string_equal(got, "");
	for (int i = 1; i <= 1000; i++)
		session(&u, 20, i, "disconnect from u[::1] data=0/1 commands=1/2", got);
	assert_int_equal(u.n_ended, 200);
	/* Long ones: the newest wait, so that each line is held against few. */
	for (int i = 0; i < 20; i++)
		long_session(&u, i, got);
	assert_int_equal(u.n_ended, 4);
	feed(&u, OTHER("40", LATER) ACTIVE("40", LATER), false, got);
	assert_string_equal(got, "4jX016499z1h 4jX017499z1h 4jX018499z1h 4jX019499z1h ");
	mw_untaken_done(&u);
}

static void
damaged_state(void **state)
{
	(void)state;
	static const char *const texts[] = {
	    "{}", "[]", "{\"sessions\":3}", "{\"sessions\":[1,{},{\"process\":\"zz\"}]}",
	    "{\"newest\":[[],[1,2],3],\"sessions\":[{\"process\":\"b\",\"host\":7,"
	    "\"messages\":[[],[1],[\"\"],[\"Q\",\"x\",-1],["
	    "\"0123456789012345678901234567890123456789012345678901234567890\",1,1]],"
	    "\"ended_us\":5,\"counts\":[0,-1]}]}"};
	for (size_t i = 0; i < MW_COUNT(texts); i++) {
		struct mw_untaken u;
		char got[200] = "";
		json_t *o = json_loads(texts[i], 0, NULL);
		assert_non_null(o);
		assert_int_equal(mw_untaken_init(&u), 0);
		assert_int_equal(mw_untaken_load(&u, o), 0);
		feed(&u, FAILED BYE("00", "data=0/1 commands=3/4") AGAIN("10", LATER),
		     false, got);
		assert_string_equal(got, FIRST " ");
		json_decref(o);
		mw_untaken_done(&u);
	}
}

int
main(void)
{
	(void)setenv("TZ", "UTC", 1);
	tzset();
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_the_log_says),
	    cmocka_unit_test(the_same_read_line_by_line),
	    cmocka_unit_test(bounds),
	    cmocka_unit_test(damaged_state),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
