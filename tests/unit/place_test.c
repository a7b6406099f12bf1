/* Where a journal may lie: not on a network file system, and with a warning in memory. */
#include "journal/base/fs.h"
#include "journal/base/log.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int kind;
static char said[256];

static int
lies_on(const struct mw_fs *fs, const char *path, const char **ret_name)
{
	struct stat sb;
	(void)fs;
	if (stat(path, &sb) < 0)
		return -errno;
	*ret_name = kind == MW_FS_NETWORK ? "NFS" : "tmpfs";
	return kind;
}

static void
note(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	if (strstr(text, "filesystem="))
		(void)snprintf(said, sizeof said, "%s", text);
}

struct box {
	char dir[PATH_MAX], journal[PATH_MAX];
	struct mw_fs fs;
};

static int
setup(void **state)
{
	struct box *b = calloc(1, sizeof *b);
	assert_non_null(b);
	(void)snprintf(b->dir, sizeof b->dir, "%s/mw-place-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->journal, sizeof b->journal, "%.4000s/j", b->dir);
	b->fs = *mw_fs_posix();
	b->fs.lies_on = lies_on;
	kind = MW_FS_LOCAL;
	said[0] = 0;
	*state = b;
	return 0;
}

static int
teardown(void **state)
{
	struct box *b = *state;
	(void)shell("rm -rf '%s'", b->dir);
	free(b);
	return 0;
}

static int
open_as(struct box *b, enum mw_store_mode mode, struct mw_err *err)
{
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = mode,
	                          .fs = &b->fs,
	                          .note = note,
	                          .no_index = true};
	struct mw_store *st;
	int r = mw_store_open(&o, &st, err);
	if (r == 0)
		mw_store_close(st);
	return r;
}

static void
none_is_made_on_a_network_file_system(void **state)
{
	struct box *b = *state;
	struct mw_err err = {0};
	kind = MW_FS_NETWORK;
	assert_int_equal(mw_store_create(b->journal, &b->fs, NULL, &err), MW_ECONF);
	assert_non_null(strstr(err.msg, b->journal));
	assert_non_null(strstr(err.msg, "NFS"));
	assert_int_equal(access(b->journal, F_OK), -1); /* and nothing is left there */
}

static void
one_that_came_to_lie_there_is_read_and_not_written(void **state)
{
	struct box *b = *state;
	struct mw_err err = {0};
	assert_int_equal(mw_store_create(b->journal, &b->fs, NULL, &err), 0);
	assert_int_equal(open_as(b, MW_STORE_WRITE, &err), 0);
	assert_string_equal(said, "");
	kind = MW_FS_NETWORK;
	assert_int_equal(open_as(b, MW_STORE_WRITE, &err), MW_ECONF);
	assert_non_null(strstr(err.msg, "NFS"));
	err = (struct mw_err){0};
	assert_int_equal(open_as(b, MW_STORE_READ, &err), 0);
}

static void
one_in_memory_is_told(void **state)
{
	struct box *b = *state;
	struct mw_err err = {0};
	kind = MW_FS_MEMORY;
	assert_int_equal(mw_store_create(b->journal, &b->fs, NULL, &err), 0);
	assert_int_equal(open_as(b, MW_STORE_WRITE, &err), 0);
	assert_string_equal(said, "event=journal-in-memory filesystem=tmpfs");
}

static void
what_is_under_us_is_known(void **state)
{
	const char *name = NULL;
	const struct mw_fs *fs = mw_fs_posix();
	(void)state;
	assert_int_equal(fs->lies_on(fs, "/proc/self", &name), MW_FS_LOCAL);
	assert_int_equal(fs->lies_on(fs, "/nonexistent/x", &name), -ENOENT);
	if (access("/dev/shm", F_OK) == 0) {
		assert_int_equal(fs->lies_on(fs, "/dev/shm", &name), MW_FS_MEMORY);
		assert_string_equal(name, "tmpfs");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(none_is_made_on_a_network_file_system, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(
	        one_that_came_to_lie_there_is_read_and_not_written, setup, teardown),
	    cmocka_unit_test_setup_teardown(one_in_memory_is_told, setup, teardown),
	    cmocka_unit_test(what_is_under_us_is_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
