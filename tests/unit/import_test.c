/* What an import reads out of files: From_ lines, line ends, folder names. */
#include "replay/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
from_lines(void **state)
{
	static const struct {
		const char *line, *sender;
		int64_t s;
		bool zone;
	} good[] = {
	    {"From a@b.test Tue Mar  5 12:00:07 2019\n", "a@b.test", 1551787207, false},
	    {"From a@b.test Tue Mar 5 12:00 2019\r\n", "a@b.test", 1551787200, false},
	    {"From a b Tue Mar  5 13:00:00 2019 +0100\n", "a b", 1551787200, true},
	    {"From a@b.test Tue Mar  5 12:00:00 GMT 2019", "a@b.test", 1551787200, true},
	    {"From a@b.test Tue Mar  5 12:00:00 CET 2019", "a@b.test", 1551787200, false},
	    {"From MAILER-DAEMON Tue Mar  5 12:00:00 2019\n", "", 1551787200, false},
	    {"From Tue Mar  5 12:00:00 2019\n", "", 1551787200, false},
	    /* time 0, where it was west of Greenwich */
	    {"From a@b.test Wed Dec 31 19:00:00 1969\n", "a@b.test", -18000, false},
	};
	static const char *const bad[] = {
	    "From here to there\n",
	    "From a@b.test\n",
	    "from a@b.test Tue Mar  5 12:00:00 2019\n",
	    "From a@b.test Tue Mar 35 12:00:00 2019\n",
	    "From a@b.test Tue Mar  5 25:00:00 2019\n",
	    "From a@b.test Tue Mar  5 12:00:00 19\n",
	    "From ",
	    "",
	};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct mw_from f;
		assert_int_equal(mw_from_line(mw_strz(good[i].line), &f), 1);
		assert_true(mw_str_eq(f.sender, mw_strz(good[i].sender)));
		assert_int_equal(f.us / 1000000, good[i].s);
		assert_int_equal(f.zone, good[i].zone);
		assert_false(f.own);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct mw_from f;
		assert_int_equal(mw_from_line(mw_strz(bad[i]), &f), 0);
	}
}

static int
to_buf(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return 0;
}

/* Cut at every place, the result is the same. */
static void
line_ends(void **state)
{
	static const char *const pairs[][2] = {
	    {"a\nb\n\nc", "a\r\nb\r\n\r\nc"},
	    {"a\r\nb\nc\r\n", "a\r\nb\nc\r\n"},
	    {"a\nb\r\nc\r\rd\n", "a\r\nb\r\nc\r\rd\r\n"},
	    {"\nbody\n", "\r\nbody\r\n"},
	    {"\r\nbody\n", "\r\nbody\n"},
	    {"no end", "no end"},
	    {"cr\r", "cr\r"},
	    {"", ""},
	};
	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		struct mw_str in = mw_strz(pairs[i][0]);
		for (size_t cut = 0; cut <= in.n; cut++) {
			MW_BUF_AUTO out = {0};
			struct mw_import_sink sink = {.body = to_buf, .arg = &out};
			struct mw_crlf c = {.sink = &sink};
			assert_int_equal(mw_crlf_put(&c, in.p, cut), 0);
			assert_int_equal(mw_crlf_put(&c, in.p + cut, in.n - cut), 0);
			assert_true(mw_str_eq(mw_buf_str(&out), mw_strz(pairs[i][1])));
		}
	}
}

static void
folders(void **state)
{
	struct mw_conf *conf = NULL;
	struct mw_err err;
	MW_BUF_AUTO report = {0};
	(void)state;
	assert_int_equal(mw_conf_load(NULL, &conf, &report, &err), 0);
	assert_int_equal(mw_import_folder(conf, MW_STR("Sent"), '/'), MW_IMPORT_SENT);
	assert_int_equal(mw_import_folder(conf, MW_STR("INBOX.Sent Items"), '.'),
	                 MW_IMPORT_SENT);
	assert_int_equal(mw_import_folder(conf, MW_STR("TRASH"), '/'), MW_IMPORT_LEAVE);
	assert_int_equal(mw_import_folder(conf, MW_STR("INBOX/Junk"), '/'),
	                 MW_IMPORT_LEAVE);
	assert_int_equal(mw_import_folder(conf, MW_STR("Junk/2019"), '/'),
	                 MW_IMPORT_INBOX);
	assert_int_equal(mw_import_folder(conf, MW_STR("INBOX"), '/'), MW_IMPORT_INBOX);
	mw_conf_free(conf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(from_lines),
	    cmocka_unit_test(line_ends),
	    cmocka_unit_test(folders),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
