/* mkdirs_test.c - workers that make mailboxes beside each other: a directory above them
 * is seen by the others only once it has its mode (and, for root, its owner), which they
 * take over. MW_TEST_THREADS */
#include "replay/target_files.h"

#include "journal/base/util.h"
#include "tests/support/shell.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	THREADS = 8,
	ROUNDS = 200
};

static char root[64];

struct worker {
	pthread_t thread;
	pthread_barrier_t *begin;
	int round, n, code;
};

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/mw-mkdirs-XXXXXX");
	return mkdtemp(root) && chmod(root, 0750) == 0 ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

static void
path_of(char *buf, size_t size, const struct worker *w)
{
	(void)snprintf(buf, size, "%s/d%d/box%d", root, w->round, w->n);
}

static void *
work(void *arg)
{
	struct worker *w = arg;
	char path[128];
	struct mw_err err = {0};
	path_of(path, sizeof path, w);
	(void)pthread_barrier_wait(w->begin);
	w->code = mw_files_mkdirs(path, &err);
	return NULL;
}

static void
mode_comes_from_above(void **state)
{
	pthread_barrier_t begin;
	struct worker w[THREADS];
	(void)state;
	assert_int_equal(pthread_barrier_init(&begin, NULL, THREADS), 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < THREADS; i++) {
			w[i] = (struct worker){.begin = &begin, .round = round, .n = i};
			assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]),
			                 0);
		}
		for (int i = 0; i < THREADS; i++) {
			char path[128];
			struct stat st;
			assert_int_equal(pthread_join(w[i].thread, NULL), 0);
			assert_int_equal(w[i].code, 0);
			path_of(path, sizeof path, &w[i]);
			assert_int_equal(stat(path, &st), 0);
			assert_int_equal(st.st_mode & 07777, 0750);
		}
	}
	(void)pthread_barrier_destroy(&begin);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(mode_comes_from_above, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
