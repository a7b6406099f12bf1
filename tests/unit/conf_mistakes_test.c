/* conf_mistakes_test.c - what is wrong in a configuration file is told: what, where, and
 * what was meant; and what a file may not be or include. */
#include "conf/conf.h"
#include "conf/conf_int.h"
#include "journal/base/util.h"
#include "tests/support/conffile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* One mistake each: the message (after "c.conf:"), and the marker's line. */
static void
mistakes_are_told(void **state)
{
	static const struct {
		const char *text, *message, *marker;
	} cases[] = {
	    {"log_levl = info\n",
	     "1:1: error: unknown setting 'log_levl'; did you mean 'log_level'?",
	     "^~~~~~~~"},
	    {"journal-dir = /a\n",
	     "1:1: error: unknown setting 'journal-dir'; did you mean 'journal_dir'?",
	     "^~~~~~~~~~~"},
	    {"zzz = 1\n", "1:1: error: unknown setting 'zzz'", "^~~"},
	    {"keep = 1d\n", "1:1: error: 'keep' belongs into a section 'retain NAME { }'",
	     "^~~~"},
	    {"journal_dir\n", "1:1: error: '=' is missing after 'journal_dir'",
	     "^~~~~~~~~~~"},
	    {"hello world\n", "1:1: error: expected 'key = value'", "^~~~~~~~~~~"},
	    {"retain x\n", "1:1: error: a section begins 'retain NAME {' on one line",
	     "^~~~~~~~"},
	    {" = x\n", "1:2: error: the name of the setting is missing before '='", " ^"},
	    {"log_level =\n", "1:1: error: 'log_level' has no value; its default is info",
	     "^~~~~~~~~"},
	    {"log_level = chatty\n",
	     "1:13: error: log_level: expected error, warning, notice, info or debug, "
	     "got 'chatty'",
	     "            ^~~~~~"},
	    {"on_failure = tempfial\n",
	     "1:14: error: on_failure: expected tempfail or accept, got 'tempfial'; "
	     "did you mean 'tempfail'?",
	     "             ^~~~~~~~"},
	    {"on_failure_close = true\n",
	     "1:20: error: on_failure_close: expected yes or no, got 'true'",
	     "                   ^~~~"},
	    {"milter_threads = many\n",
	     "1:18: error: milter_threads: expected a whole number, got 'many'",
	     "                 ^~~~"},
	    {"milter_threads = -1\n",
	     "1:18: error: milter_threads: expected a whole number, got '-1'",
	     "                 ^~"},
	    {"milter_threads = 65\n",
	     "1:18: error: milter_threads: 65 is too large; the most is 64",
	     "                 ^~"},
	    {"recipient_limit = 99999999999999999999\n",
	     "1:19: error: recipient_limit: expected a whole number, got "
	     "'99999999999999999999'",
	     "                  ^~~~~~~~~~~~~~~~~~~~"},
	    {"milter_socket_mode = 0888\n",
	     "1:22: error: milter_socket_mode: expected an octal mode such as 0660, got "
	     "'0888'",
	     "                     ^~~~"},
	    {"milter_socket_mode = 01777\n",
	     "1:22: error: milter_socket_mode: 01777 is too large; the most is 0777",
	     "                     ^~~~~"},
	    {"segment_size = 10\n",
	     "1:16: error: segment_size: 10 is too small; the least is 1M",
	     "               ^~"},
	    {"segment_size = 5G # big\n",
	     "1:16: error: segment_size: 5G is too large; the most is 4G",
	     "               ^~"},
	    {"min_free = lots\n",
	     "1:12: error: min_free: expected a size such as 512K, 64M or 1G, got "
	     "'lots'",
	     "           ^~~~"},
	    {"segment_age = 90parsecs\n",
	     "1:15: error: segment_age: expected a duration such as 30d, 12h or 5min, "
	     "got '90parsecs'",
	     "              ^~~~~~~~~"},
	    {"journal_dir = var/x\n",
	     "1:15: error: journal_dir: expected an absolute path, one that begins with "
	     "/, got 'var/x'",
	     "              ^~~~~"},
	    {"sent_folder = \"Sent\n", "1:15: error: the quote is not closed",
	     "              ^~~~~"},
	    {"sent_folder = \"a\\nb\"\n",
	     "1:17: error: in quotes a backslash stands only before \" or \\; write "
	     "\\\\ for one",
	     "                ^~"},
	    {"sent_folder = \"a\" b\n",
	     "1:19: error: sent_folder: nothing may follow the closing quote",
	     "                  ^"},
	    {"local_domains = \"a.org\"b.org\n",
	     "1:24: error: local_domains: white space or a comma belongs between two "
	     "words",
	     "                       ^~~~~"},
	    {"local_domains = ö.org a@b\n",
	     "1:23: error: local_domains: expected a domain, got the address 'a@b'",
	     "                      ^~~"},
	    {"\tlocal_domains = $mydestination\n",
	     "1:18: error: local_domains: '$mydestination' is not a domain (Postfix's "
	     "$names are not known here)",
	     "\t                ^~~~~~~~~~~~~~"},
	    {"milter_listen = /run/x\n",
	     "1:17: error: milter_listen: '/run/x' needs a type; did you mean "
	     "'unix:/run/x'?",
	     "                ^~~~~~"},
	    {"milter_listen = unix:x\n",
	     "1:17: error: milter_listen: expected an absolute path, one that begins "
	     "with /, got 'x'",
	     "                ^~~~~~"},
	    {"milter_listen = inet:8890\n",
	     "1:17: error: milter_listen: expected HOST:PORT, got '8890'",
	     "                ^~~~~~~~~"},
	    {"milter_listen = inet:h:99999\n",
	     "1:17: error: milter_listen: expected a port from 1 to 65535, got '99999'",
	     "                ^~~~~~~~~~~~"},
	    {"milter_listen = inet:::1:25\n",
	     "1:17: error: milter_listen: write an IPv6 address in brackets, as in "
	     "[::1]",
	     "                ^~~~~~~~~~~"},
	    {"milter_listen = inet::25\n",
	     "1:17: error: milter_listen: the host is missing",
	     "                ^~~~~~~~"},
	    {"milter_listen = tcp:a:1\n",
	     "1:17: error: milter_listen: expected unix:PATH, inet:HOST:PORT or systemd, "
	     "got 'tcp:a:1'",
	     "                ^~~~~~~"},
	    {"proxy_listen = inet:h:1->inet:h:2\n",
	     "1:16: error: proxy_listen: expected smtp:LISTEN->NEXT or "
	     "lmtp:LISTEN->NEXT without blanks, as in "
	     "smtp:inet:127.0.0.1:10025->inet:127.0.0.1:10026, got 'inet:h:1->inet:h:2'",
	     "               ^~~~~~~~~~~~~~~~~~"},
	    {"proxy_listen = lmtp:unix:/a->unix:b\n",
	     "1:16: error: proxy_listen: expected an absolute path, one that begins "
	     "with /, got 'b'",
	     "               ^~~~~~~~~~~~~~~~~~~~"},
	    {"proxy_listen = smtp:unix:/a->unix:/a\n",
	     "1:16: error: proxy_listen: 'smtp:unix:/a->unix:/a' would lead to itself",
	     "               ^~~~~~~~~~~~~~~~~~~~~"},
	    {"identities = hash:/etc/aliases\n",
	     "1:14: error: identities: unknown type of table 'hash'; there are virtual, "
	     "lmdb, socketmap and tcp (see postmap(1) and 'postconf -m' for a way to "
	     "one of them)",
	     "             ^~~~~~~~~~~~~~~~~"},
	    {"identities = lmbd:/x\n",
	     "1:14: error: identities: unknown type of table 'lmbd'; did you mean "
	     "'lmdb'?",
	     "             ^~~~~~~"},
	    {"identities = /etc/postfix/virtual\n",
	     "1:14: error: identities: expected TYPE:TABLE with a type of virtual, "
	     "lmdb, socketmap or tcp, got '/etc/postfix/virtual'",
	     "             ^~~~~~~~~~~~~~~~~~~~"},
	    {"identities = socketmap:unix:/s\n",
	     "1:14: error: identities: expected socketmap:unix:PATH:NAME or "
	     "socketmap:inet:HOST:PORT:NAME, got 'socketmap:unix:/s'",
	     "             ^~~~~~~~~~~~~~~~~"},
	    {"mailbox_name = %x\n",
	     "1:16: error: mailbox_name: '%x' is not known; there are %u (whole "
	     "address), %n (local part), %d (domain) and %%",
	     "               ^~"},
	    {"mailbox_name = all\n",
	     "1:16: error: mailbox_name: 'all' would give every recipient the same "
	     "mailbox; use %u or %n",
	     "               ^~~"},
	    {"recipient_delimiter = a\n",
	     "1:23: error: recipient_delimiter: expected characters such as + or -, got "
	     "'a'",
	     "                      ^"},
	    {"}\n", "1:1: error: '}' closes no section", "^"},
	    {"{\n}\n", "1:1: error: '{' without a section: retain NAME {", "^"},
	    {"retian x {\n keep = 1d\n}\n",
	     "1:1: error: unknown section 'retian'; did you mean 'retain'?", "^~~~~~"},
	    {"offsite s3 {\n a = {\n foo {\n}\n}\n",
	     "1:1: error: unknown section 'offsite'", "^~~~~~~"},
	    {"retain {\nkeep = 1d\n}\n",
	     "1:1: error: section retain needs a name, one word: retain NAME {",
	     "^~~~~~"},
	    {"retain a b { keep = 1d }\n",
	     "1:1: error: section retain needs a name, one word: retain NAME {",
	     "^~~~~~~~~~"},
	    {"retain a { }\n", "1:1: error: section retain a needs 'keep' or 'max_size'",
	     "^~~~~~~~~~~~"},
	    {"retain a { keep = 1d\n",
	     "1:1: error: the section is not closed: '}' is missing",
	     "^~~~~~~~~~~~~~~~~~~~"},
	    {"retain a { keep = 1d } x = y\n", "1:24: error: nothing may follow '}'",
	     "                       ^~~~~"},
	    {"retain a { keep = 1d max_sise = 1G }\n",
	     "1:31: error: two settings on one line need a ';' between them",
	     "                              ^"},
	    {"retain a { keep = 1d }\nretain a { keep = 1d }\n",
	     "2:8: error: there is a section retain a already", "       ^"},
	    {"retain a {\nkeep = 1d\nlog_level = info\n}\n",
	     "3:1: error: 'log_level' does not belong into a section; is the '}' of the "
	     "one at line 1 missing?",
	     "^~~~~~~~~"},
	    {"retain a {\nkep = 1d\n}\n",
	     "2:1: error: unknown setting 'kep' in section retain; did you mean 'keep'?",
	     "^~~"},
	    {"retain a {\nkeep = 1d\nretain b {\nkeep = 1d\n}\n}\n",
	     "3:10: error: a section cannot stand in another; is the '}' of the one at "
	     "line 1 missing?",
	     "         ^"},
	    {"retain a {\nkeep = 1d\n!include x\n}\n",
	     "3:1: error: !include cannot stand in a section; is the '}' of the one at "
	     "line 1 missing?",
	     "^~~~~~~~"},
	    {"retain a {\nkeep = 1d\nmatch = direction:up\n}\n",
	     "3:9: error: match: expected in, out or internal, got 'up'",
	     "        ^~~~~~~~~~~~"},
	    {"!include\n", "1:1: error: !include needs the name of a file, or a pattern",
	     "^~~~~~~~"},
	    {"!includ x\n",
	     "1:1: error: unknown directive '!includ'; did you mean '!include'?",
	     "^~~~~~~"},
	    {"!include nothing\n",
	     "1:10: error: cannot read nothing: No such file or directory",
	     "         ^~~~~~~"},
	    {"!include /\n", "1:10: error: cannot read /: Is a directory", "         ^"},
	    {"!include c.conf\n", "1:10: error: c.conf includes itself",
	     "         ^~~~~~"},
	    {"log_level = in\x01"
	     "fo\n",
	     "1:15: error: the line holds a control character (0x01)", "              ^"},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_BUF_AUTO report = {0};
		struct mw_err err = {0};
		int r;

		assert_null(
		    load(cases[i].text, strlen(cases[i].text), &report, &err, &r));
		const char *text = mw_buf_cstr(&report);
		const char *nl = strchr(text, '\n'), *last;
		assert_int_equal(r, MW_ECONF);
		assert_int_equal(mw_err_exit(r), 78);
		assert_non_null(nl);
		assert_true(strncmp(text, "c.conf:", 7) == 0);
		char message[700];
		(void)snprintf(message, sizeof message, "%.*s", (int)(nl - text - 7),
		               text + 7);
		assert_string_equal(message, cases[i].message);
		last = strstr(nl, "\n      | ");
		assert_non_null(last);
		(void)snprintf(message, sizeof message, "%.*s",
		               (int)strcspn(last + 9, "\n"), last + 9);
		if (strcmp(message, cases[i].marker) != 0)
			print_error("%s", text);
		assert_string_equal(message, cases[i].marker);
		if (strcmp(err.msg, "c.conf: 1 error") != 0)
			print_error("%s", text);
		assert_string_equal(err.msg, "c.conf: 1 error");
	}
}

static void
all_mistakes_at_once_in_order(void **state)
{
	static const char text[] = "log_levl = info\n"
	                           "min_free = 1G\n"
	                           "\n"
	                           "min_free = lots # of it\n"
	                           "retain x {\n"
	                           "  kep = 1d\n";
	static const char want[] =
	    "c.conf:1:1: error: unknown setting 'log_levl'; did you mean "
	    "'log_level'?\n"
	    "    1 | log_levl = info\n"
	    "      | ^~~~~~~~\n"
	    "c.conf:4:1: warning: 'min_free' overrides the value from c.conf:2\n"
	    "    4 | min_free = lots # of it\n"
	    "      | ^~~~~~~~\n"
	    "c.conf:4:12: error: min_free: expected a size such as 512K, 64M or 1G, "
	    "got 'lots'\n"
	    "    4 | min_free = lots # of it\n"
	    "      |            ^~~~\n"
	    "c.conf:6:3: error: unknown setting 'kep' in section retain; did you mean "
	    "'keep'?\n"
	    "    6 |   kep = 1d\n"
	    "      |   ^~~\n"
	    "c.conf:5:1: error: the section is not closed: '}' is missing\n"
	    "    5 | retain x {\n"
	    "      | ^~~~~~~~~~\n";
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r;

	(void)state;
	assert_null(load(text, sizeof text - 1, &report, &err, &r));
	assert_string_equal(mw_buf_cstr(&report), want);
	assert_string_equal(err.msg, "c.conf: 4 errors, 1 warning");
}

static void
a_repeated_setting_is_a_warning_and_the_last_counts(void **state)
{
	static const char text[] = "log_level = debug\nlog_level = notice\n";
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r;
	char *shown;

	(void)state;
	shown = load(text, sizeof text - 1, &report, &err, &r);
	assert_int_equal(r, 0);
	assert_string_equal(shown, "log_level = notice\n");
	assert_string_equal(mw_buf_cstr(&report),
	                    "c.conf:2:1: warning: 'log_level' overrides the value from "
	                    "c.conf:1\n"
	                    "    2 | log_level = notice\n"
	                    "      | ^~~~~~~~~\n");
	free(shown);
}

static void
files_that_are_no_text_are_refused(void **state)
{
	static const char nul[] = "log_level = \0debug\nmin_free = x\n";
	static const char utf16[] = "\xff\xfel\0o\0g\0";
	static char lng[6000];
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r;

	(void)state;
	assert_null(load(nul, sizeof nul - 1, &report, &err, &r));
	assert_string_equal(err.msg, "c.conf: 2 errors");
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "c.conf:1:13: error: the line holds a NUL byte; is this a "
	                       "text file?\n    1 | log_level = ?debug\n"));
	mw_buf_clear(&report);
	assert_null(load(utf16, sizeof utf16 - 1, &report, &err, &r));
	assert_string_equal(err.msg, "c.conf is UTF-16; save it as UTF-8");
	assert_int_equal(r, MW_ECONF);

	memset(lng, 'a', sizeof lng);
	memcpy(lng, "local_domains = ", 16);
	mw_buf_clear(&report);
	assert_null(load(lng, sizeof lng, &report, &err, &r));
	assert_non_null(
	    strstr(mw_buf_cstr(&report),
	           "c.conf:1:4097: error: the line has more than 4096 bytes; a "
	           "list can be given in several lines\n"));
	assert_true(report.n < 600); /* the excerpt is cut */
}

static void
the_number_of_messages_is_limited(void **state)
{
	MW_BUF_AUTO text = {0};
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r;

	(void)state;
	for (int i = 0; i < 1000; i++)
		mw_buf_puts(&text, "nonsense\n");
	assert_null(load((const char *)text.p, text.n, &report, &err, &r));
	assert_string_equal(err.msg, "c.conf: 1000 errors");
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "c.conf: more than 50 errors; the rest is not shown\n"));
	assert_true(report.n < 8000);
}

static void
the_file_itself_may_be_missing_or_closed(void **state)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	struct mw_conf *c = NULL;

	(void)state;
	assert_int_equal(mw_conf_load("absent.conf", &c, &report, &err), MW_ENOTFOUND);
	assert_string_equal(err.msg,
	                    "cannot read absent.conf: No such file or directory");
	if (geteuid() != 0) {
		put("closed.conf", "");
		assert_int_equal(chmod("closed.conf", 0), 0);
		assert_int_equal(mw_conf_load("closed.conf", &c, &report, &err),
		                 MW_EPERM);
	}
	assert_int_equal(mw_conf_load(".", &c, &report, &err), MW_ECONF);
	assert_int_equal(report.n, 0);
}

static void
includes_are_relative_sorted_and_bounded(void **state)
{
	static const char top[] = "!include conf.d/*.conf\n!include none/*.conf\n"
	                          "!include \"conf.d/with space\"\nlog_level = notice\n";
	static const char deep[] = "!include d0\n";
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	char name[16], text[32];
	char *shown;
	int r;

	(void)state;
	assert_int_equal(mkdir("conf.d", 0755), 0);
	put("conf.d/20-b.conf", "local_domains = b.org\nmin_free = wrong\n");
	put("conf.d/10-a.conf", "local_domains = a.org\n!include more.inc\n");
	put("conf.d/more.inc", "local_domains = more.org\n");
	put("conf.d/with space", "sent_folder = S\n");
	assert_null(load(top, sizeof top - 1, &report, &err, &r));
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "conf.d/20-b.conf:2:12: error: min_free: expected"));
	mw_buf_clear(&report);
	put("conf.d/20-b.conf", "local_domains = b.org");
	shown = load(top, sizeof top - 1, &report, &err, &r);
	assert_int_equal(r, 0);
	assert_string_equal(shown, "local_domains = a.org more.org b.org\n"
	                           "sent_folder = S\nlog_level = notice\n");
	free(shown);
	/* A section does not reach over the end of a file. */
	put("conf.d/20-b.conf", "retain x {\nkeep = 1d\n");
	assert_null(load(top, sizeof top - 1, &report, &err, &r));
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "conf.d/20-b.conf:1:1: error: the section is not closed"));
	mw_buf_clear(&report);
	/* Loops and towers. */
	put("loop", "!include c.conf\n");
	assert_null(load("!include loop\n", 14, &report, &err, &r));
	assert_non_null(
	    strstr(mw_buf_cstr(&report), "loop:1:10: error: c.conf includes itself"));
	mw_buf_clear(&report);
	for (int i = 0; i < 20; i++) {
		(void)snprintf(name, sizeof name, "d%d", i);
		(void)snprintf(text, sizeof text, "!include d%d\n", i + 1);
		put(name, text);
	}
	assert_null(load(deep, sizeof deep - 1, &report, &err, &r));
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "d15:1:10: error: files are included more than 16 deep"));
	mw_buf_clear(&report);
	/* Many small files that include each other over and over. */
	put("w0", "!include w1\n!include w1\n!include w1\n!include w1\n");
	put("w1", "!include w2\n!include w2\n!include w2\n!include w2\n");
	put("w2", "!include w3\n!include w3\n!include w3\n!include w3\n");
	put("w3", "!include w4\n!include w4\n!include w4\n!include w4\n");
	put("w4", "# leaf\n");
	assert_null(load("!include w0\n", 12, &report, &err, &r));
	assert_non_null(
	    strstr(mw_buf_cstr(&report), "error: more than 256 files are included"));
}

static void
an_empty_list_of_listeners_is_an_error(void **state)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r;

	(void)state;
	assert_null(load("milter_listen =\n", 16, &report, &err, &r));
	assert_string_equal(
	    mw_buf_cstr(&report),
	    "c.conf: error: milter_listen (line 1) names no place to listen in\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(mistakes_are_told),
	    cmocka_unit_test(all_mistakes_at_once_in_order),
	    cmocka_unit_test(a_repeated_setting_is_a_warning_and_the_last_counts),
	    cmocka_unit_test(files_that_are_no_text_are_refused),
	    cmocka_unit_test(the_number_of_messages_is_limited),
	    cmocka_unit_test(the_file_itself_may_be_missing_or_closed),
	    cmocka_unit_test(includes_are_relative_sorted_and_bounded),
	    cmocka_unit_test(an_empty_list_of_listeners_is_an_error),
	};

	return cmocka_run_group_tests(tests, in_directory, remove_directory);
}
