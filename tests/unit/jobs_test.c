/* A replay into many mailboxes at a time: every copy once, whatever the number of
 * threads, and a second run finds all of it. MW_TEST_THREADS */
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	BOXES = 24,
	EACH = 12
};

static char root[64], journal[100];

static void
append(struct mw_store *st, unsigned box, unsigned k)
{
	char queue[32], text[200], addr[2][40];
	struct mw_rcpt rcpt[2] = {{.addr = {0}}};
	(void)snprintf(queue, sizeof queue, "4X%uq%u", box, k);
	(void)snprintf(text, sizeof text,
	               "Received: by mx.test id %s; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
	               "Message-ID: <%u.%u@far.test>\r\n\r\nTo %u, number %u.\r\n",
	               queue, box, k, box, k);
	(void)snprintf(addr[0], sizeof addr[0], "u%u@example.org", box);
	(void)snprintf(addr[1], sizeof addr[1], "u%u@example.org", (box + 1) % BOXES);
	for (int i = 0; i < 2; i++) {
		rcpt[i].addr = mw_strz(addr[i]);
		rcpt[i].flags = MW_RCPT_LOCAL;
	}
	struct mw_mail m = {.time_us = INT64_C(1795342440000000) + (int64_t)k * 1000000,
	                    .queue_id = mw_strz(queue),
	                    .sender = MW_STR("bob@far.test"),
	                    .direction = MW_DIR_IN,
	                    .rcpt = rcpt,
	                    .n_rcpt = 2};
	(void)journaled(st, &m, text, strlen(text), NULL);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	(void)snprintf(root, sizeof root, "/tmp/mw-jobs-test-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/journal", root);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_WRITE};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned i = 0; i < BOXES; i++)
		for (unsigned k = 0; k < EACH; k++)
			append(st, i, k);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char command[128];
	(void)snprintf(command, sizeof command, "rm -rf '%s'", root);
	return system(command);
}

static int
replay(unsigned jobs, const char *box, const char *summary)
{
	char command[1200];
	(void)
	    snprintf(command, sizeof command,
	             "MAILWAL_CONFIG=/dev/null '%s/replay/mailwal' -j '%s' --json replay "
	             "--all --create --jobs %u --to 'maildir:%s/%s/%%n' >'%s/out' && "
	             "grep -q '%s' '%s/out'",
	             MW_BINARY_DIR, journal, jobs, root, box, root, summary, root);
	int status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static unsigned
messages(const char *box, unsigned user)
{
	char path[200];
	unsigned n = 0;
	for (int i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof path, "%s/%s/u%u/%s", root, box, user,
		               i ? "cur" : "new");
		DIR *d = opendir(path);
		assert_non_null(d);
		for (struct dirent *e; (e = readdir(d)) != NULL;)
			n += e->d_name[0] != '.';
		(void)closedir(d);
	}
	return n;
}

static void
with_jobs(unsigned jobs, const char *box)
{
	char all[40], none[80];
	(void)snprintf(all, sizeof all, "\"restored\":%d,", 2 * BOXES * EACH);
	(void)snprintf(none, sizeof none, "\"already_there\":%d,\"restored\":0,",
	               2 * BOXES * EACH);
	assert_int_equal(replay(jobs, box, all), 0);
	for (unsigned i = 0; i < BOXES; i++)
		assert_int_equal(messages(box, i), 2 * EACH);
	assert_int_equal(replay(jobs, box, none), 0);
}

static void
one_at_a_time(void **state)
{
	(void)state;
	with_jobs(1, "one");
}

static void
eight_at_a_time(void **state)
{
	(void)state;
	with_jobs(8, "eight");
}

static void
more_than_there_are(void **state)
{
	(void)state;
	with_jobs(64, "many");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_at_a_time),
	    cmocka_unit_test(eight_at_a_time),
	    cmocka_unit_test(more_than_there_are),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
