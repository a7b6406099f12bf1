/* drill_cli.h - a journal of half an hour, and the program run on it: what the tests of
 * the drill share. One journal at a time, below a directory that setup makes and teardown
 * removes. Functions that a test does not use cost nothing.
 */
#ifndef MW_TESTS_DRILL_CLI_H
#define MW_TESTS_DRILL_CLI_H

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "replay/drill_report.h"
#include "tests/support/shell.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef MW_BINARY_DIR /* given by the build */
#define MW_BINARY_DIR "."
#endif

#pragma GCC diagnostic ignored "-Wunused-function"

enum {
	MAILS = 24
};

static char root[256], journal[300], conf_file[300], out[1 << 20];
static struct mw_conf *conf;

/* ---- a journal ---- */

static void
put(struct mw_store *st, int i, const char *rcpt, const char *auth, int64_t when)
{
	MW_BUF_AUTO text = {0};
	char qid[16];
	struct mw_rcpt r = {.addr = mw_strz(rcpt), .flags = MW_RCPT_LOCAL};
	(void)snprintf(qid, sizeof qid, "4Xdrill%02dq", i);
	struct mw_mail m = {.time_us = when,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("bob@example.org"),
	                    .auth_user = mw_strz(auth),
	                    .front = MW_STR("milter"),
	                    .direction = MW_DIR_INTERNAL,
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	/* Two in three have a Message-ID; every fourth is one again that its user has. */
	int k = i % 4 == 3 ? i - 3 : i;
	mw_buf_printf(&text, "Subject: number %d\r\n", k);
	if (k % 3)
		mw_buf_printf(&text, "Message-ID: <%d@far.test>\r\n", k);
	mw_buf_printf(&text, "\r\n");
	for (int j = 0; j < 20 * k; j++)
		mw_buf_printf(&text, "%d %d\r\n", j * 7919, k);
	(void)journaled(st, &m, text.p, text.n, NULL);
}

static void
add_mails(int from, int n, const uint8_t *recovery)
{
	static const char *const users[] = {"alice@example.org", "bob@example.org",
	                                    "carol@example.org"};
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .recovery = recovery,
	                          .n_recovery = recovery ? 1 : 0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	int64_t start = mw_clock_system()->now_us(mw_clock_system()) - 3600 * 1000000LL;
	for (int i = from; i < from + n; i++)
		put(st, i, users[i % 3], i % 4 ? "" : "bob@example.org",
		    start + i * 60000000LL);
	mw_store_close(st);
}

static void
fresh(const uint8_t *recovery)
{
	struct mw_err err = {0};
	char cmd[700];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	add_mails(0, MAILS, recovery);
}

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int
run(const char *fmt, ...)
{
	char args[1024];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof args, fmt, ap);
	va_end(ap);
	return shell_out(
	    out, sizeof out,
	    "TZ=UTC TMPDIR='%s' '%s/replay/mailwal' -c '%s' %s </dev/null 2>&1", root,
	    MW_BINARY_DIR, conf_file, args);
}

static void
want(int status, const char *args, const char *text)
{
	int got = run("%s", args);
	if (got != status || !strstr(out, text))
		fail_msg("mailwal %s: exit %d, not %d, or no '%s':\n%s", args, got,
		         status, text, out);
}

static struct mw_store *
reader(void)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	return st;
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	(void)snprintf(root, sizeof root, "%s/mw-drill-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/j", root);
	(void)snprintf(conf_file, sizeof conf_file, "%s/conf", root);
	FILE *f = fopen(conf_file, "w");
	assert_non_null(f);
	fprintf(f, "journal_dir = %s\nlocal_domains = example.org\n", journal);
	assert_int_equal(fclose(f), 0);
	return mw_conf_load(conf_file, &conf, &report, &err);
}

static int
teardown(void **state)
{
	char cmd[600];
	(void)state;
	mw_conf_free(conf);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

static void
newest_note(char path[600])
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_STORE_AUTO *st = reader();
	const char **v = NULL;
	size_t n = 0;
	struct mw_err err = {0};
	assert_int_equal(mw_drill_names(st, a, &v, &n, &err), 0);
	assert_true(n > 0);
	(void)snprintf(path, 600, "%s/drills/%s.note", journal, v[n - 1]);
}

#endif
