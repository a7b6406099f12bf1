/* retain_cli.h - a journal of fifty days, and the program run on it: what the tests of
 * prune, hold and erase share. One journal at a time, below a directory that setup makes
 * and teardown removes. Functions that a test does not use cost nothing.
 */
#ifndef MW_TESTS_RETAIN_CLI_H
#define MW_TESTS_RETAIN_CLI_H

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

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

#define DAY (INT64_C(86400) * 1000000)

static char root[256], journal[300], conf[300];
static int64_t now_us;

/* ---- a journal of many days ---- */

struct fake {
	struct mw_clock clock;
	int64_t now;
};

static int64_t
fake_now(const struct mw_clock *c)
{
	return ((const struct fake *)c->ctx)->now;
}

static int64_t
fake_mono(const struct mw_clock *c)
{
	(void)c;
	return mw_clock_system()->mono_us(mw_clock_system());
}

static struct mw_store *
writer(struct fake *f, const uint8_t *recovery)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	f->clock = (struct mw_clock){fake_now, fake_mono, f};
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .clock = &f->clock,
	                          .delimiter = "+",
	                          .recovery = recovery,
	                          .n_recovery = recovery ? 1 : 0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("open: %s", err.msg);
	return st;
}

struct mail {
	const char *qid, *sender, *rcpt[3], *auth;
	enum mw_direction dir;
};

static void
put(struct mw_store *st, const struct mail *x, int64_t when)
{
	MW_BUF_AUTO text = {0};
	struct mw_rcpt r[3];
	struct mw_mail m = {.time_us = when,
	                    .queue_id = mw_strz(x->qid),
	                    .sender = mw_strz(x->sender),
	                    .auth_user = mw_strz(x->auth ? x->auth : ""),
	                    .front = MW_STR("milter"),
	                    .direction = x->dir,
	                    .rcpt = r};
	memset(r, 0, sizeof r);
	for (size_t i = 0; i < 3 && x->rcpt[i]; i++) {
		r[i].addr = mw_strz(x->rcpt[i]);
		r[i].flags = strcasestr(x->rcpt[i], "@example.org") ? MW_RCPT_LOCAL : 0;
		m.n_rcpt++;
	}
	mw_buf_printf(&text, "Subject: secret %s\r\nMessage-ID: <%s@far.test>\r\n\r\n",
	              x->qid, x->qid);
	for (unsigned i = 0; i < 200; i++)
		mw_buf_printf(&text, "%u %s\r\n", i * 7919U, x->qid);
	(void)journaled(st, &m, text.p, text.n, NULL);
}

/* 50 days of mail, each day a segment: to alice, to hr, to both, and one of nobody's. */
static void
make(const uint8_t *recovery)
{
	static const struct mail kinds[] = {
	    {"A", "bob@far.test", {"alice@example.org"}, NULL, MW_DIR_IN},
	    {"H", "bob@far.test", {"hr@example.org"}, NULL, MW_DIR_IN},
	    {"B",
	     "bob@far.test",
	     {"Alice+x@Example.org", "hr@example.org"},
	     NULL,
	     MW_DIR_IN},
	    {"O", "alice@example.org", {"bob@far.test"}, "alice@example.org", MW_DIR_OUT},
	};
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	char cmd[600];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	f.now = now_us - 50 * DAY;
	struct mw_store *st = writer(&f, recovery);
	for (int d = 50; d > 0; d--) {
		char qid[16];
		f.now = now_us - d * DAY;
		for (size_t k = 0; k < MW_COUNT(kinds); k++) {
			struct mail m = kinds[k];
			(void)snprintf(qid, sizeof qid, "4X%s%02dq", kinds[k].qid, d);
			m.qid = qid;
			put(st, &m, f.now + DAY / 24 + (int64_t)k * 1000000);
		}
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
}

static void
write_conf(const char *text)
{
	FILE *f = fopen(conf, "w");
	assert_non_null(f);
	fprintf(f, "journal_dir = %s\nlocal_domains = example.org\n%s", journal, text);
	assert_int_equal(fclose(f), 0);
}

/* ---- the program ---- */

static char out[1 << 20];

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int
run(const char *fmt, ...)
{
	char args[1024];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof args, fmt, ap);
	va_end(ap);
	return shell_out(out, sizeof out,
	                 "TZ=UTC '%s/replay/mailwal' -c '%s' %s </dev/null 2>&1",
	                 MW_BINARY_DIR, conf, args);
}

static void
want(int status, const char *args)
{
	int got = run("%s", args);
	if (got != status)
		fail_msg("mailwal %s: exit %d, not %d:\n%s", args, got, status, out);
}

static unsigned
lines(const char *args)
{
	unsigned n = 0;
	want(0, args);
	for (const char *p = out; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static uint64_t
used(void)
{
	char n[32];
	assert_int_equal(shell_out(n, sizeof n, "cat '%s'/segments/*.seg | wc -c",
	                           journal),
	                 0);
	return strtoull(n, NULL, 10);
}

/* Files: the open one is filled with zeros ahead. */
static unsigned
segments(void)
{
	char n[32];
	assert_int_equal(shell_out(n, sizeof n, "ls '%s'/segments/*.seg | wc -l",
	                           journal),
	                 0);
	return (unsigned)strtoul(n, NULL, 10);
}

static bool
says(const char *text)
{
	return strstr(out, text) != NULL;
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%s/mw-retain-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/j", root);
	(void)snprintf(conf, sizeof conf, "%s/conf", root);
	now_us = mw_clock_system()->now_us(mw_clock_system());
	return 0;
}

static int
teardown(void **state)
{
	char cmd[600];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

#endif
