/* conf_test.c - the configuration: grammar, values, defaults, the sample, reloading. */
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
	    {"brackets around an address",
	     "retain x { match = rcpt:<a@b>, sender:<c@d.org>; keep = 30d }\n",
	     "retain x {\n  match = rcpt:a@b sender:c@d.org\n  keep = 30d\n}\n"},
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
	assert_non_null(strstr(err.hint, "restart mailwald"));
	mw_conf_free(b);
	put("e", "segment_size = 8M\njournal_dir = /b\nlog_level = debug\n");
	assert_int_equal(mw_conf_load("e", &b, NULL, NULL), 0);
	assert_int_equal(mw_conf_reloadable(a, b, &err), MW_ECONF);
	assert_non_null(
	    strstr(err.msg, "journal_dir, segment_size cannot change while mailwald"));
	mw_conf_free(a);
	mw_conf_free(b);
}

static void
reload_refuses_what_libmilter_does_not_hear_of(void **state)
{
	struct mw_conf *a = NULL, *b = NULL;
	struct mw_err err = {0};

	(void)state;
	put("a", "milter_engine = libmilter\n");
	put("b", "milter_engine = libmilter\nmilter_idle_timeout = 5s\n");
	assert_int_equal(mw_conf_load("a", &a, NULL, NULL), 0);
	assert_int_equal(mw_conf_load("b", &b, NULL, NULL), 0);
	assert_int_equal(mw_conf_reloadable(a, b, &err), MW_ECONF);
	assert_non_null(strstr(err.msg, "milter_idle_timeout cannot change"));
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
	    cmocka_unit_test(types_arrive_in_the_struct),
	    cmocka_unit_test(defaults_are_what_the_table_says),
	    cmocka_unit_test(the_sample_is_the_file_in_the_source),
	    cmocka_unit_test(the_sample_uncommented_loads),
	    cmocka_unit_test(explain_knows_settings_and_near_misses),
	    cmocka_unit_test(reload_refuses_what_needs_a_restart),
	    cmocka_unit_test(reload_refuses_what_libmilter_does_not_hear_of),
	    cmocka_unit_test(notes_name_what_is_not_set),
	    cmocka_unit_test(a_secret_that_others_can_read_is_seen),
	    cmocka_unit_test(the_environment_names_the_file),
	    cmocka_unit_test(nearest_word),
	};

	return cmocka_run_group_tests(tests, in_directory, remove_directory);
}
