/* Entries of systemd's journal as journalctl 252 writes them for programs, and what is
 * made of them. */
#include "journal/base/util.h"
#include "replay/logform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD                                                                             \
	"__CURSOR=s=dadaf2159865491cb2425d6c9d6ae110;i=20d;b=0c7f;m=6f5ca3183;t=660f86;" \
	"x=d5fd\n__REALTIME_TIMESTAMP=1795469980155162\n"                                \
	"__MONOTONIC_TIMESTAMP=29893472643\n_HOSTNAME=vm\nPRIORITY=6\n"
#define TAIL "_PID=77\n_SOURCE_REALTIME_TIMESTAMP=1795469980154934\n\n"
#define TAG  "SYSLOG_IDENTIFIER=postfix/lmtp\nSYSLOG_PID=78\n"
#define LINE "1795469980.154934 vm postfix/lmtp[77]: "

struct want {
	const char *text;
	size_t n;
	const char *lines; /* each with its end */
};

#define WANT(text, lines)                                                                \
	{                                                                                \
		text, sizeof(text) - 1, lines                                            \
	}

static const struct want wants[] = {
    WANT(
        "Nov 22 12:00:00 mx postfix/smtpd[1]: connect from u[192.0.2.1]\n\n{\nMESSAGE\n",
        "Nov 22 12:00:00 mx postfix/smtpd[1]: connect from u[192.0.2.1]\n\n{\nMESSAGE\n"),
    /* export */
    WANT(HEAD TAG "MESSAGE=4jY3xX0jDpz1h7FF: to=<a@b>, x=y\n" TAIL,
         LINE "4jY3xX0jDpz1h7FF: to=<a@b>, x=y\n"),
    WANT(HEAD TAG "MESSAGE\n\x0c\0\0\0\0\0\0\0one\ntwo\nfour\n" TAIL,
         LINE "one two four\n"),
    /* a length that is a line end itself, text that ends with one, or is none */
    WANT(HEAD TAG "MESSAGE\n\x0a\0\0\0\0\0\0\0"
                  "012345678\n\n" TAIL,
         LINE "012345678 \n"),
    WANT(HEAD "X_ODD\n\x0a\x0a\0\0\0\0\0\0" TAG, ""),
    WANT(HEAD TAG "MESSAGE\n\0\0\0\0\0\0\0\0\n" TAIL, LINE "\n"),
    WANT(HEAD TAG "MESSAGE\n\x01\0\0\0\0\0\0\0\n\n" TAIL, LINE " \n"),
    /* what looks like a field, or another entry's end, within one */
    WANT(HEAD TAG "MESSAGE\n\x0c\0\0\0\0\0\0\0a\n\n_PID=99\nb\n" TAIL,
         LINE "a  _PID=99 b\n"),
    WANT(HEAD TAG "MESSAGE\n\x18\0\0\0\0\0\0\0a\n__CURSOR=x\nMESSAGE=b\n\n\n" TAIL,
         LINE "a __CURSOR=x MESSAGE=b  \n"),
    /* a field of the sender's, a second one, a length that leads astray */
    WANT(HEAD "HOSTNAME=evil\n" TAG "SYSLOG_IDENTIFIER=other\nMESSAGE=m\n" TAIL,
         LINE "m\n"),
    WANT(HEAD TAG "MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff"
                  "lost\n\n" HEAD TAG "MESSAGE=found\n" TAIL,
         LINE "found\n"),
    WANT(HEAD "SYSLOG_IDENTIFIER=a b[1]: c\nMESSAGE=m\n" TAIL, "\n"),
    WANT(HEAD "_COMM=master\nMESSAGE=m\n\n", "1795469980.155162 vm master: m\n"),
    WANT("__CURSOR=x\n__REALTIME_TIMESTAMP=12\n_HOSTNAME=h\n" TAG "MESSAGE=m\n\n", "\n"),
    /* journalctl's own */
    WANT("-- No entries --\n-- Boot 4711 --\n", ""),
    /* JSON */
    WANT("{\"_PID\":\"77\",\"SYSLOG_IDENTIFIER\":\"postfix/lmtp\",\"_HOSTNAME\":\"vm\","
         "\"SYSLOG_PID\":\"78\",\"__REALTIME_TIMESTAMP\":\"1795469980155162\","
         "\"_SOURCE_REALTIME_TIMESTAMP\":\"1795469980154934\",\"MESSAGE\":"
         "\"to=<\\\"a b\\\"@c>\\nx\"}\n",
         LINE "to=<\"a b\"@c> x\n"),
    WANT("\x1e{\"SYSLOG_IDENTIFIER\":\"postfix/lmtp\",\"_HOSTNAME\":\"vm\","
         "\"SYSLOG_PID\":\"77\",\"__REALTIME_TIMESTAMP\":\"1795469980154934\","
         "\"MESSAGE\":[116,111,255]}\n"
         "data: {\"SYSLOG_IDENTIFIER\":\"postfix/lmtp\",\"_HOSTNAME\":\"vm\","
         "\"SYSLOG_PID\":\"77\",\"__REALTIME_TIMESTAMP\":\"1795469980154934\","
         "\"MESSAGE\":null}\n\n",
         LINE "to\xff\n" LINE "\n\n"),
    WANT("{\"SYSLOG_IDENTIFIER\":[\"a\",\"b\"],\"_HOSTNAME\":\"vm\",\"MESSAGE\":\"m\","
         "\"__REALTIME_TIMESTAMP\":\"1795469980154934\"}\n{\"time\":\"x\"}\n{not so\n",
         "\n\n{not so\n"),
};

static void
each(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(wants); i++) {
		struct mw_logform f = {.entry = false};
		struct mw_str rest = {wants[i].text, wants[i].n}, line, got;
		MW_BUF_AUTO all = {0};
		while (rest.n && mw_str_cut(rest, '\n', &line, &rest)) {
			int r = mw_logform_take(&f, line, &got);
			assert_in_range(r, 0, 1);
			if (r == 0)
				continue;
			mw_buf_putstr(&all, got);
			mw_buf_putc(&all, '\n');
		}
		mw_logform_done(&f);
		if (!mw_str_eq(mw_buf_str(&all), mw_strz(wants[i].lines)))
			fail_msg("%zu: \"%s\", not \"%s\"", i, mw_buf_cstr(&all),
			         wants[i].lines);
	}
}

static void
hints(void **state)
{
	(void)state;
	assert_non_null(strstr(mw_logform_hint(MW_STR("\x1f\x8b\x08")), "gzip"));
	assert_non_null(strstr(mw_logform_hint(MW_STR("{\n\t\"_PID\"")), "json-pretty"));
	assert_non_null(strstr(mw_logform_hint(MW_STR("LPKSHHRH\0")), "journald"));
	assert_non_null(strstr(mw_logform_hint(MW_STR("")), "short-full"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each),
	    cmocka_unit_test(hints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
