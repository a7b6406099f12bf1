/* Whose mbox is it? What root finds in a directory of somebody else: links, lock files,
 * an mbox that is still to be made; and the lock of a dead run, of which two may take
 * hold. */
#include "journal/base/util.h"
#include "replay/target.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OTHER 65534 /* nobody */

static char dir[64], box[80], lock[90];

static const char text[] = "From x Thu Nov 19 10:00:00 2026\nSubject: kept\n\nkept\n\n";

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-mbox-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(box, sizeof box, "%s/box", dir);
	(void)snprintf(lock, sizeof lock, "%s/box.lock", dir);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

static void
write_file(const char *path, const char *what)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(what, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* No process has this number: beyond the kernel's largest. */
static void
dead_lock(unsigned size)
{
	char host[100] = "", line[200];
	(void)gethostname(host, sizeof host - 1);
	(void)snprintf(line, sizeof line, "mailwal 4194999 %s %u\n", host, size);
	write_file(lock, line);
}

static bool
at_once(void)
{
	return true; /* a lock that is there is not waited for */
}

/* Opens the mbox to write, and closes it; the code of that. */
static int
try(void)
{
	char to[90];
	struct mw_err err = {0};
	struct mw_target *t = NULL;
	const struct mw_target_opts o = {.create = true, .stopped = at_once};
	(void)snprintf(to, sizeof to, "mbox:%s", box);
	assert_int_equal(mw_target_new(to, &o, &t, &err), 0);
	int r = mw_target_open(t, "anna", box, false, &err);
	if (r == 0)
		assert_int_equal(mw_target_close(t, &err), 0);
	mw_target_free(t);
	return r;
}

static off_t
size_of(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void
need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static void
a_link_of_another(void **state)
{
	(void)state;
	char own[80];
	(void)snprintf(own, sizeof own, "%s/precious", dir);
	write_file(own, text);
	assert_int_equal(symlink(own, box), 0);
	assert_int_equal(try(), 0); /* ours */
	need_root();
	assert_int_equal(lchown(box, OTHER, OTHER), 0);
	assert_int_equal(try(), MW_EPERM);
	assert_int_equal(access(lock, F_OK), -1);
	dead_lock(0);
	assert_int_equal(lchown(lock, OTHER, OTHER), 0);
	assert_int_not_equal(try(), 0);
	assert_int_equal(size_of(own), sizeof text - 1);
}

static void
a_lock_of_another(void **state)
{
	(void)state;
	need_root();
	write_file(box, text);
	dead_lock(0);
	assert_int_equal(chown(lock, OTHER, OTHER), 0);
	assert_int_equal(try(), MW_ECANCEL);
	assert_int_equal(size_of(box), sizeof text - 1);
	assert_int_equal(chown(box, OTHER, OTHER), 0); /* he could do it himself */
	assert_int_equal(try(), 0);
	assert_int_equal(size_of(box), 0);
	assert_int_equal(access(lock, F_OK), -1);
}

/* Another run has just found the same lock dead, and cuts the mbox now. */
static void
a_lock_that_is_being_broken(void **state)
{
	(void)state;
	write_file(box, text);
	dead_lock(10);
	int fd = open(lock, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(try(), MW_ECANCEL);
	assert_int_equal(size_of(box), sizeof text - 1);
	(void)close(fd);
	assert_int_equal(try(), 0);
	assert_int_equal(size_of(box), 10);
}

static void
a_new_one_for_another(void **state)
{
	(void)state;
	need_root();
	struct stat st;
	assert_int_equal(chown(dir, OTHER, OTHER), 0);
	assert_int_equal(try(), 0);
	assert_int_equal(stat(box, &st), 0);
	assert_int_equal(st.st_uid, OTHER);
	assert_int_equal(st.st_mode & 0777, 0600);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_link_of_another, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_lock_of_another, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_lock_that_is_being_broken, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_new_one_for_another, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
