/* conf_test.c - the configuration: values, grammar, and every diagnostic to the letter.
 */
#include "conf/conf.h"
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char dir[] = "/tmp/mw-conf-XXXXXX";

static void
put_bytes(const char *name, const char *text, size_t n)
{
	FILE *f = fopen(name, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void
put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

static int
in_directory(void **state)
{
	(void)state;
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int
remove_directory(void **state)
{
	char cmd[64];

	(void)state;
	if (chdir("/") < 0)
		return -1;
	(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd) == 0 ? 0 : -1;
}

/* Loads text as c.conf; the printed settings that differ, or NULL. */
static char *
load(const char *text, size_t n, struct mw_buf *report, struct mw_err *err, int *ret_r)
{
	struct mw_conf *c = NULL;
	MW_BUF_AUTO out = {0};

	put_bytes("c.conf", text, n);
	*ret_r = mw_conf_load("c.conf", &c, report, err);
	if (*ret_r < 0) {
		assert_null(c);
		return NULL;
	}
	mw_conf_print(c, true, &out);
	assert_string_equal(c->file, "c.conf");
	mw_conf_free(c);
	return strdup(mw_buf_cstr(&out));
}

/* Files that load: what `config show -n` says afterwards. */
static void
good_files_load(void **state)
{
	static const struct {
		const char *name, *text, *shown;
	} cases[] = {
	    {"empty", "", ""},
	    {"only comments", "# a\n   # b\n\n\t\n", ""},
	    {"default again", "log_level = info\n", ""},
	    {"no final newline", "log_level = debug", "log_level = debug\n"},
	    {"crlf", "log_level = debug\r\nmin_free = 1G\r\n",
	     "min_free = 1G\nlog_level = debug\n"},
	    {"byte order mark", "\xef\xbb\xbflog_level = debug\n", "log_level = debug\n"},
	    {"no blanks", "log_level=debug# part of nothing\n", NULL},
	    {"comment after value", "log_level = debug # why\n", "log_level = debug\n"},
	    {"hash in a word", "sent_folder = a#b\n", "sent_folder = \"a#b\"\n"},
	    {"hash in quotes", "sent_folder = \"a #b\"\n", "sent_folder = \"a #b\"\n"},
	    {"escapes", "sent_folder = \"a\\\"b\\\\c\"\n",
	     "sent_folder = \"a\\\"b\\\\c\"\n"},
	    {"blanks in a string", "sent_folder =   Sent Items  \n",
	     "sent_folder = Sent Items\n"},
	    {"empty string", "sent_folder =\n", "sent_folder = \"\"\n"},
	    {"empty string quoted", "sent_folder = \"\"\n", "sent_folder = \"\"\n"},
	    {"utf-8", "sent_folder = Gesendet ä\n", "sent_folder = Gesendet ä\n"},
	    {"braces and equals in a value", "sent_folder = a={b}\n",
	     "sent_folder = \"a={b}\"\n"},
	    {"duration as seconds", "segment_age = 90\n", "segment_age = 90s\n"},
	    {"duration summed", "segment_age = 1h 30min\n", "segment_age = 90min\n"},
	    {"duration in ms", "identities_timeout = 250ms\n",
	     "identities_timeout = 250ms\n"},
	    {"zero", "prune_floor = 0\nmin_free = 0\n",
	     "min_free = 0\nprune_floor = 0\n"},
	    {"sizes", "segment_size = 1536K\n", "segment_size = 1536K\n"},
	    {"size of bytes", "min_free = 1000000\n", "min_free = 1000000\n"},
	    {"size with fraction", "min_free = 1.5G\n", "min_free = 1536M\n"},
	    {"octal with zero", "milter_socket_mode = 0666\n",
	     "milter_socket_mode = 0666\n"},
	    {"octal without zero", "milter_socket_mode = 666\n",
	     "milter_socket_mode = 0666\n"},
	    {"list replaces default", "milter_listen = inet:127.0.0.1:8890\n",
	     "milter_listen = inet:127.0.0.1:8890\n"},
	    {"list adds up",
	     "milter_listen = unix:/a, local:/b\nmilter_listen = systemd\n",
	     "milter_listen = unix:/a local:/b systemd\n"},
	    {"list taken back",
	     "local_domains = a.org b.org\nlocal_domains =\n"
	     "local_domains = c.org\n",
	     "local_domains = c.org\n"},
	    {"list with quotes", "identities = \"virtual:/a b\" lmdb:/c\n",
	     "identities = \"virtual:/a b\" lmdb:/c\n"},
	    {"listen forms",
	     "milter_listen = inet:8890@127.0.0.1 inet6:8890@::1 inet6:[::1]:8890 "
	     "inet6:8890@[::1] inet:mail-1.example:1\n",
	     "milter_listen = inet:8890@127.0.0.1 inet6:8890@::1 inet6:[::1]:8890 "
	     "inet6:8890@[::1] inet:mail-1.example:1\n"},
	    {"identity forms",
	     "identities = socketmap:unix:/s:virtual socketmap:inet:[::1]:99:v "
	     "tcp:localhost:99\n",
	     "identities = socketmap:unix:/s:virtual socketmap:inet:[::1]:99:v "
	     "tcp:localhost:99\n"},
	    {"mailbox pattern", "mailbox_name = %d/%n%%\n", "mailbox_name = %d/%n%%\n"},
	    {"section", "retain hr {\n match = domain:a.org\n keep = 10y\n}\n",
	     "retain hr {\n  match = domain:a.org\n  keep = 87660h\n}\n"},
	    {"section on one line",
	     "retain x { match = rcpt:a@b, sender:c@d.org; keep = 30d; max_size = 1G }\n",
	     "retain x {\n  match = rcpt:a@b sender:c@d.org\n  keep = 30d\n"
	     "  max_size = 1G\n}\n"},
	    {"section on one line, as blanks part it",
	     "retain x { match = rcpt:a@b, sender:c@d.org  keep = 30d max_size=1G }\n",
	     "retain x {\n  match = rcpt:a@b sender:c@d.org\n  keep = 30d\n"
	     "  max_size = 1G\n}\n"},
	    {"section closed on the last setting", "retain x {\nkeep = 1d }\n",
	     "retain x {\n  keep = 1d\n}\n"},
	    {"two sections",
	     "retain x {keep=1d}\nretain \"y\" { keep = 2d }\nlog_level = debug\n",
	     "log_level = debug\nretain x {\n  keep = 1d\n}\n"
	     "retain y {\n  keep = 2d\n}\n"},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_BUF_AUTO report = {0};
		struct mw_err err = {0};
		int r;
		char *shown =
		    load(cases[i].text, strlen(cases[i].text), &report, &err, &r);

		if (!cases[i].shown) { /* no blank before '#': part of the word */
			assert_int_equal(r, MW_ECONF);
			continue;
		}
		if (r < 0)
			print_error("%s: %s\n%s", cases[i].name, err.msg,
			            mw_buf_cstr(&report));
		assert_int_equal(r, 0);
		assert_string_equal(mw_buf_cstr(&report), "");
		assert_string_equal(shown, cases[i].shown);

		/* What is shown loads again and shows the same. */
		char *again = load(shown, strlen(shown), &report, &err, &r);
		if (r < 0)
			print_error("%s: %s\n", cases[i].name, mw_buf_cstr(&report));
		assert_int_equal(r, 0);
		assert_string_equal(again, shown);
		free(again);
		free(shown);
	}
}

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

static void
types_arrive_in_the_struct(void **state)
{
	static const char text[] =
	    "on_failure = accept\nmilter_engine = libmilter\nsegment_size = 16M\n"
	    "segment_age = 10min\nmilter_socket_mode = 0600\non_failure_close = yes\n"
	    "local_domains = a.org b.org\njournal_dir = /srv/j\n"
	    "retain a { match = domain:x.org; keep = 2d; max_size = 3G }\n";
	struct mw_conf *c = NULL;

	(void)state;
	put("c.conf", text);
	assert_int_equal(mw_conf_load("c.conf", &c, NULL, NULL), 0);
	assert_int_equal(c->on_failure, MW_ON_FAILURE_ACCEPT);
	assert_int_equal(c->milter_engine, 1);
	assert_int_equal(c->segment_size, 16 << 20);
	assert_int_equal(c->segment_age, INT64_C(600000000));
	assert_int_equal(c->milter_socket_mode, 0600);
	assert_true(c->on_failure_close);
	assert_int_equal(c->local_domains.n, 2);
	assert_string_equal(c->local_domains.v[1], "b.org");
	assert_string_equal(c->journal_dir, "/srv/j");
	assert_int_equal(c->n_retain, 1);
	assert_int_equal(c->retain[0].keep_us, INT64_C(172800000000));
	assert_int_equal(c->retain[0].max_size, UINT64_C(3) << 30);
	assert_string_equal(c->retain[0].match.v[0], "domain:x.org");
	mw_conf_free(c);
	mw_conf_free(NULL);
}

static void
compare_one(void *arg, const char *name, const char *value, const char *def)
{
	unsigned *n = arg;

	if (strcmp(value, def) != 0)
		fail_msg("%s: '%s' is not its default '%s'", name, value, def);
	(*n)++;
}

static void
defaults_are_what_the_table_says(void **state)
{
	struct mw_conf *c = NULL;
	unsigned n = 0;
	MW_BUF_AUTO out = {0};

	(void)state;
	assert_int_equal(mw_conf_load(NULL, &c, NULL, NULL), 0);
	assert_null(c->file);
	mw_conf_each(c, compare_one, &n);
	assert_true(n > 20);
	mw_conf_print(c, true, &out);
	assert_string_equal(mw_buf_cstr(&out), "");
	mw_conf_print(c, false, &out);
	assert_non_null(strstr(mw_buf_cstr(&out), "segment_size = 64M\n"));
	mw_conf_free(c);
	/* The whole listing is a valid file that changes nothing. */
	put("c.conf", mw_buf_cstr(&out));
	assert_int_equal(mw_conf_load("c.conf", &c, NULL, NULL), 0);
	mw_buf_clear(&out);
	mw_conf_print(c, true, &out);
	assert_string_equal(mw_buf_cstr(&out), "");
	mw_conf_free(c);
}

static void
the_sample_is_the_file_in_the_source(void **state)
{
	MW_BUF_AUTO want = {0};
	static char have[65536];
	FILE *f = fopen(MW_SOURCE_DIR "/conf/mailwal.conf", "rb");
	size_t n;

	(void)state;
	assert_non_null(f);
	n = fread(have, 1, sizeof have - 1, f);
	fclose(f);
	have[n] = '\0';
	mw_conf_sample(&want);
	assert_string_equal(have, mw_buf_cstr(&want));
}

/* Every setting of the sample, uncommented, is valid and the default. */
static void
the_sample_uncommented_loads(void **state)
{
	MW_BUF_AUTO sample = {0};
	MW_BUF_AUTO text = {0};
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	char *shown, *save = NULL;
	int r;

	(void)state;
	mw_conf_sample(&sample);
	(void)mw_buf_cstr(&sample);
	for (char *line = strtok_r((char *)sample.p, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		if (line[0] == '#' && line[1] != ' ' && line[1] != '\0' &&
		    line[1] != '!' && strncmp(line, "#milter_listen =\n", 17) != 0) {
			mw_buf_puts(&text, line + 1);
			mw_buf_putc(&text, '\n');
		} else if (strncmp(line, "#  ", 3) == 0 && line[3] != '#') {
			mw_buf_puts(&text, line + 1);
			mw_buf_putc(&text, '\n');
		}
	shown = load((const char *)text.p, text.n, &report, &err, &r);
	if (r < 0)
		print_error("%s", mw_buf_cstr(&report));
	assert_int_equal(r, 0);
	assert_string_equal(shown, "capture default {\n  match = direction:in spam:yes\n"
	                           "  journal = no\n  on_failure = accept\n}\n"
	                           "retain default {\n  match = domain:example.org\n"
	                           "  keep = 180d\n  max_size = 500G\n}\n");
	free(shown);
}

static void
explain_knows_settings_and_near_misses(void **state)
{
	MW_BUF_AUTO out = {0};
	struct mw_err err = {0};

	(void)state;
	assert_int_equal(mw_conf_explain("segment_size", &out, &err), 0);
	assert_string_equal(mw_buf_cstr(&out),
	                    "segment_size = SIZE, from 1M to 4G\n"
	                    "    A segment is closed when it would grow beyond this.\n"
	                    "    Default: 64M\n"
	                    "    Takes effect: on restart\n"
	                    "    Since: mailwal 0.1\n");
	mw_buf_clear(&out);
	assert_int_equal(mw_conf_explain("on_failure", &out, &err), 0);
	assert_non_null(strstr(mw_buf_cstr(&out), "on_failure = tempfail or accept\n"));
	assert_non_null(strstr(mw_buf_cstr(&out), "Takes effect: on reload\n"));
	assert_int_equal(mw_conf_explain("retain", &out, &err), 0);
	assert_int_equal(mw_conf_explain("retain.keep", &out, &err), 0);
	assert_int_equal(mw_conf_explain("keep", &out, &err), 0);
	assert_int_equal(mw_conf_explain("segmentsize", &out, &err), MW_ENOTFOUND);
	assert_string_equal(err.msg, "there is no setting 'segmentsize'");
	assert_string_equal(err.hint, "did you mean 'segment_size'?");
	assert_int_equal(mw_conf_explain("xyzzy", &out, &err), MW_ENOTFOUND);
	assert_string_equal(err.hint, "");
}

static void
reload_refuses_what_needs_a_restart(void **state)
{
	struct mw_conf *a = NULL, *b = NULL;
	struct mw_err err = {0};

	(void)state;
	put("a", "journal_dir = /a\nretain x { keep = 1d }\n");
	put("b", "journal_dir = /a\nlog_level = debug\nlocal_domains = x.org\n");
	put("d", "journal_dir = /b\n");
	assert_int_equal(mw_conf_load("a", &a, NULL, NULL), 0);
	assert_int_equal(mw_conf_load("b", &b, NULL, NULL), 0);
	assert_int_equal(mw_conf_reloadable(a, b, &err), 0);
	mw_conf_free(b);
	assert_int_equal(mw_conf_load("d", &b, NULL, NULL), 0);
	assert_int_equal(mw_conf_reloadable(a, b, &err), MW_ECONF);
	assert_non_null(strstr(err.msg, "journal_dir cannot change while mailwald runs"));
	mw_conf_free(a);
	mw_conf_free(b);
}

static void
notes_name_what_is_not_set(void **state)
{
	struct mw_conf *c = NULL;
	MW_BUF_AUTO out = {0};

	(void)state;
	assert_int_equal(mw_conf_load(NULL, &c, NULL, NULL), 0);
	mw_conf_notes(c, &out);
	assert_non_null(strstr(mw_buf_cstr(&out), "note: local_domains is not set"));
	assert_non_null(strstr(mw_buf_cstr(&out), "note: recovery_key is not set"));
	mw_conf_free(c);
	put("c.conf", "local_domains = a.org\nrecovery_key = /k\n");
	assert_int_equal(mw_conf_load("c.conf", &c, NULL, NULL), 0);
	mw_buf_clear(&out);
	mw_conf_notes(c, &out);
	assert_string_equal(mw_buf_cstr(&out), "");
	mw_conf_free(c);
}

static void
a_secret_that_others_can_read_is_seen(void **state)
{
	(void)state;
	put("secret", "x");
	assert_int_equal(chmod("secret", 0600), 0);
	assert_false(mw_conf_secret_exposed("secret"));
	assert_int_equal(chmod("secret", 0640), 0);
	assert_true(mw_conf_secret_exposed("secret"));
	assert_int_equal(chmod("secret", 0604), 0);
	assert_true(mw_conf_secret_exposed("secret"));
	assert_false(mw_conf_secret_exposed("absent"));
}

static void
the_environment_names_the_file(void **state)
{
	(void)state;
	assert_int_equal(setenv("MAILWAL_CONFIG", "/x/y.conf", 1), 0);
	assert_string_equal(mw_conf_default_file(), "/x/y.conf");
	assert_int_equal(unsetenv("MAILWAL_CONFIG"), 0);
}

static void
nearest_word(void **state)
{
	static const char *const names[] = {"list", "show", "status", "replay",
	                                    "reindex"};
	static const struct {
		const char *word, *want;
	} cases[] = {
	    {"lsit", "list"},     {"sohw", "show"}, {"stats", "status"},
	    {"rplay", "replay"},  {"LIST", "list"}, {"re-index", "reindex"},
	    {"frobnicate", NULL}, {"", NULL},       {"x", NULL},
	};

	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		const char *got = mw_nearest(cases[i].word, names, MW_COUNT(names));
		if (cases[i].want)
			assert_string_equal(got ? got : "(none)", cases[i].want);
		else
			assert_null(got);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_files_load),
	    cmocka_unit_test(mistakes_are_told),
	    cmocka_unit_test(all_mistakes_at_once_in_order),
	    cmocka_unit_test(a_repeated_setting_is_a_warning_and_the_last_counts),
	    cmocka_unit_test(files_that_are_no_text_are_refused),
	    cmocka_unit_test(the_number_of_messages_is_limited),
	    cmocka_unit_test(the_file_itself_may_be_missing_or_closed),
	    cmocka_unit_test(includes_are_relative_sorted_and_bounded),
	    cmocka_unit_test(an_empty_list_of_listeners_is_an_error),
	    cmocka_unit_test(types_arrive_in_the_struct),
	    cmocka_unit_test(defaults_are_what_the_table_says),
	    cmocka_unit_test(the_sample_is_the_file_in_the_source),
	    cmocka_unit_test(the_sample_uncommented_loads),
	    cmocka_unit_test(explain_knows_settings_and_near_misses),
	    cmocka_unit_test(reload_refuses_what_needs_a_restart),
	    cmocka_unit_test(notes_name_what_is_not_set),
	    cmocka_unit_test(a_secret_that_others_can_read_is_seen),
	    cmocka_unit_test(the_environment_names_the_file),
	    cmocka_unit_test(nearest_word),
	};

	return cmocka_run_group_tests(tests, in_directory, remove_directory);
}
