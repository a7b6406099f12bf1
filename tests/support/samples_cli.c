#include "tests/support/samples_cli.h"

#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BODY(lit) (lit), sizeof(lit) - 1

const struct sample samples[N] = {
    {"4XplainAA",
     "bob@far.test",
     {"alice@example.org"},
     "",
     MW_DIR_IN,
     BODY("Received: by mx.example.org id 4XplainAA; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
          "From: Bob <bob@far.test>\r\nSubject: Hello there\r\n"
          "Message-ID: <one@far.test>\r\n\r\nHi.\r\n")},
    {"4XhostilB",
     "bob@far.test",
     {"alice+tag@example.org"},
     "",
     MW_DIR_IN,
     BODY("Subject: \x1b[31mred\x07 \xff\xfe \xc2\x9b"
          "31m =?utf-8?q?=1b[0m=00?=\r\n"
          "Message-ID: <two@far.test>\r\n\r\n\x1b]0;title\x07 \0nul \xff\r\n")},
    {"4XencodeC",
     "Alice@Example.org",
     {"carol@far.test", "!refused@far.test", "dave@far.test"},
     "alice",
     MW_DIR_OUT,
     BODY("subject: =?UTF-8?B?UsOpc3Vtw6k=?= of 2026\r\n"
          "Message-Id: no-angles@here\r\n\r\nbody\r\n.\r\n")},
    {"4XbounceD",
     "",
     {"alice@example.org", "erin@example.org"},
     "",
     MW_DIR_IN,
     BODY("Subject: Undelivered\r\n\r\n")},
    {"4XnothinE", "x@y.test", {"erin@example.org"}, "", MW_DIR_IN, BODY("")},
};

char samples_dir[256], samples_journal[300], samples_empty[300];
uint8_t samples_id[N][MW_ID_LEN];

/* ---- running the program ---- */

static void
slurp(int fd, struct mw_buf *b)
{
	uint8_t piece[8192];
	ssize_t n;
	while ((n = read(fd, piece, sizeof piece)) > 0)
		mw_buf_put(b, piece, (size_t)n);
	(void)close(fd);
}

/* Output goes to unlinked files, so that nothing can block. */
void
run_to(struct ran *r, const char *stdout_path, const char *const *args)
{
	char program[512], out[300], err[300];
	char *argv[40];
	size_t n = 0;
	pid_t pid;
	int status;
	posix_spawn_file_actions_t fa;
	(void)snprintf(program, sizeof program, "%s/replay/mailwal", MW_BINARY_DIR);
	(void)snprintf(out, sizeof out, "%s/out", samples_dir);
	(void)snprintf(err, sizeof err, "%s/err", samples_dir);
	argv[n++] = program;
	for (; *args; args++)
		argv[n++] = strdup(*args);
	argv[n] = NULL;
	*r = (struct ran){0};
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, stdout_path ? stdout_path : out,
	                                 O_WRONLY | (stdout_path ? 0 : O_CREAT | O_TRUNC),
	                                 0600);
	posix_spawn_file_actions_addopen(&fa, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(posix_spawn(&pid, program, &fa, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&fa);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	r->status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
	slurp(open(out, O_RDONLY), &r->out);
	slurp(open(err, O_RDONLY), &r->err);
	for (size_t i = 1; i < n; i++)
		free(argv[i]);
}

void
ran_done(struct ran *r)
{
	mw_buf_free(&r->out);
	mw_buf_free(&r->err);
}

bool
ran_holds(const struct mw_buf *b, const char *text)
{
	return b->n && memmem(b->p, b->n, text, strlen(text));
}

size_t
ran_lines(const struct mw_buf *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->n; i++)
		n += b->p[i] == '\n';
	return n;
}

void
ran_expect(int status, const char *text, const char *const *args)
{
	struct ran r;
	run_to(&r, NULL, args);
	if (r.status != status ||
	    (text && !ran_holds(&r.err, text) && !ran_holds(&r.out, text)))
		fail_msg(
		    "%s %s …: status %d, expected %d and \"%s\"; got \"%s\" and \"%s\"",
		    args[0], args[1] ? args[1] : "", r.status, status, text ? text : "",
		    mw_buf_cstr(&r.out), mw_buf_cstr(&r.err));
	ran_done(&r);
}

/* ---- the journal ---- */

static void
append(struct mw_store *st, const struct sample *s, size_t at)
{
	struct mw_rcpt rcpt[4] = {0};
	struct mw_mail m = {.time_us = INT64_C(1795342440000000) + (int64_t)at * 1000000,
	                    .queue_id = mw_strz(s->queue_id),
	                    .sender = mw_strz(s->sender),
	                    .auth_user = mw_strz(s->auth),
	                    .client_addr = MW_STR("192.0.2.7"),
	                    .direction = s->direction,
	                    .rcpt = rcpt};
	for (; m.n_rcpt < 4 && s->rcpt[m.n_rcpt]; m.n_rcpt++) {
		const char *a = s->rcpt[m.n_rcpt];
		rcpt[m.n_rcpt].flags = *a == '!'                   ? MW_RCPT_REFUSED
		                       : strstr(a, "@example.org") ? MW_RCPT_LOCAL
		                                                   : 0;
		rcpt[m.n_rcpt].addr = mw_strz(a + (*a == '!'));
	}
	(void)journaled(st, &m, s->content, s->n, samples_id[at]);
}

int
samples_setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	char program[512];
	(void)snprintf(program, sizeof program, "%s/replay/mailwal", MW_BINARY_DIR);
	if (access(program, X_OK) < 0)
		exit(77); /* built without the program */
	(void)snprintf(samples_dir, sizeof samples_dir, "/tmp/mw-cli-test-XXXXXX");
	assert_non_null(mkdtemp(samples_dir));
	(void)snprintf(samples_journal, sizeof samples_journal, "%s/journal",
	               samples_dir);
	(void)snprintf(samples_empty, sizeof samples_empty, "%s/other", samples_dir);
	assert_int_equal(setenv("MAILWAL_CONFIG", "/dev/null", 1), 0);
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	EXPECT(0, "Next:", "init", samples_journal);
	EXPECT(0, NULL, "-q", "init", samples_empty);
	MW_STORE_AUTO *st = NULL;
	struct mw_store_opts o = {.dir = samples_journal, .mode = MW_STORE_WRITE};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (size_t i = 0; i < N; i++)
		append(st, &samples[i], i);
	return 0;
}

int
samples_teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", samples_dir);
	return 0;
}
