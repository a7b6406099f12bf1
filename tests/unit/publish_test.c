/* Checkpoints that the daemon publishes: to a file and a command, also while nothing
 * comes in; a command that hangs or fails holds nothing up. */
#include "milter/publish.h"

#include "journal/base/util.h"
#include "journal/verify/checkpoint.h"
#include "journal/verify/verify.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], dir[128], file[128], script[128], got[128];
static char none[] = "", relative[] = "relative", missing[] = "/nonexistent/program";
static struct mw_store *st;

static void
append(void)
{
	static const char text[] = "Subject: x\r\n\r\n";
	struct mw_mail m = {.time_us = 1000};
	(void)journaled(st, &m, text, sizeof text - 1, NULL);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-publish-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	(void)snprintf(file, sizeof file, "%s/checkpoint", root);
	(void)snprintf(script, sizeof script, "%s/script", root);
	(void)snprintf(got, sizeof got, "%s/got", root);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_WRITE, .no_index = true};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[100];
	mw_store_close(st);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

/* The checkpoint in a file; false: there is none yet. */
static bool
load(const char *path, struct mw_checkpoint *ret)
{
	void *p = NULL;
	size_t n;
	struct mw_err err = {0};
	if (mw_fs_read_file(mw_fs_posix(), path, 65536, &p, &n) < 0)
		return false;
	int r = mw_checkpoint_parse(mw_str(p, n), mw_store_sign_public(st), ret, &err);
	free(p);
	return r == 0;
}

/* Waits until the checkpoint in path is newer than since_us. */
static struct mw_checkpoint
await(const char *path, int64_t since_us)
{
	struct mw_checkpoint c;
	for (int i = 0; i < 12000; i++) {
		if (load(path, &c) && c.time_us > since_us)
			return c;
		(void)usleep(10000);
	}
	fail_msg("no new checkpoint in %s", path);
	return c;
}

static struct mw_publish *
start(char *to_file, char *command, int64_t interval_us)
{
	struct mw_conf conf = {.checkpoint_file = to_file,
	                       .checkpoint_command = command,
	                       .checkpoint_interval = interval_us};
	struct mw_publish *p = NULL;
	struct mw_err err = {0};
	if (mw_publish_start(st, &conf, &p, &err) < 0)
		fail_msg("%s", err.msg);
	return p;
}

static void
write_script(const char *text)
{
	FILE *f = fopen(script, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\n%s\n", text);
	fclose(f);
	assert_int_equal(chmod(script, 0755), 0);
}

static void
to_a_file(void **state)
{
	(void)state;
	struct mw_publish *p = start(file, none, 1000000);
	struct mw_checkpoint c;
	(void)usleep(100000);
	assert_false(load(file, &c)); /* nothing was ever written */
	append();
	append();
	c = await(file, 0);
	while (c.seq < 2)
		c = await(file, c.time_us);
	assert_int_equal(c.seq, 2);
	/* Nothing comes in, and it says so. */
	struct mw_checkpoint later = await(file, c.time_us);
	assert_int_equal(later.seq, 2);
	assert_memory_equal(later.chain, c.chain, 32);
	append();
	mw_publish_stop(p); /* the last one */
	assert_true(load(file, &c));
	assert_int_equal(c.seq, 3);
	struct mw_store_opts o = {.dir = dir};
	struct mw_store *rd = NULL;
	struct mw_err err = {0};
	struct mw_published noted; /* for whoever asks */
	assert_int_equal(mw_published_read(dir, &noted, &err), 0);
	assert_int_equal(noted.seq, 3);
	assert_true(noted.time_us >= c.time_us);
	assert_string_equal(noted.file, file);
	assert_string_equal(noted.command, "");
	struct mw_verify_opts vo = {.sample = 100, .checkpoint = &c, .n_checkpoint = 1};
	struct mw_verify_result res;
	assert_int_equal(mw_store_open(&o, &rd, &err), 0);
	assert_int_equal(mw_verify_run(rd, &vo, &res, &err), 0);
	assert_int_equal(res.anchored_seq, 3);
	mw_store_close(rd);
}

static void
to_a_command(void **state)
{
	(void)state;
	char command[300], text[300];
	(void)snprintf(text, sizeof text,
	               "test \"$1\" = 'a' && cat >'%s.tmp' && "
	               "mv '%s.tmp' '%s'",
	               got, got, got);
	write_script(text);
	(void)snprintf(command, sizeof command, "%s  a\t$HOME;", script);
	append();
	struct mw_publish *p = start(none, command, 3600 * INT64_C(1000000));
	assert_int_equal(await(got, 0).seq, 1);
	append();
	mw_publish_stop(p);
	struct mw_checkpoint c;
	assert_true(load(got, &c));
	assert_int_equal(c.seq, 2);
}

/* Neither mail nor the end of the daemon waits for it. */
static void
command_that_hangs(void **state)
{
	(void)state;
	char pid[128], text[300];
	const struct mw_clock *clock = mw_clock_system();
	(void)snprintf(pid, sizeof pid, "%s/pid", root);
	(void)snprintf(text, sizeof text, "echo $$ >'%s'; sleep 100", pid);
	write_script(text);
	append();
	struct mw_publish *p = start(none, script, 3600 * INT64_C(1000000));
	for (int i = 0; i < 12000 && access(pid, F_OK) != 0; i++)
		(void)usleep(10000);
	append();
	int64_t before = clock->mono_us(clock);
	mw_publish_stop(p);
	assert_true(clock->mono_us(clock) - before < INT64_C(60) * 1000000);
}

static void
command_that_fails(void **state)
{
	(void)state;
	append();
	struct mw_publish *p = start(file, missing, 1000000);
	struct mw_checkpoint c = await(file, 0); /* the file is written all the same */
	(void)await(file, c.time_us);
	mw_publish_stop(p);
	struct mw_conf bad = {.checkpoint_file = relative,
	                      .checkpoint_command = none,
	                      .checkpoint_interval = 1000000};
	struct mw_err err = {0};
	assert_int_equal(mw_publish_check(&bad, &err), MW_ECONF);
	assert_int_equal(mw_publish_start(st, &bad, &p, &err), MW_ECONF);
	bad.checkpoint_file = none;
	assert_int_equal(mw_publish_start(st, &bad, &p, &err), 0);
	assert_null(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	    T(to_a_file),
	    T(to_a_command),
	    T(command_that_hangs),
	    T(command_that_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
