/* mdir_list_test.c - a Maildir folder is listed whole, each message once, also while
 * another process renames what lies there.
 * MW_TEST_THREADS */
#include "replay/mdir_list.h"

#include "journal/base/util.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MESSAGES = 3000,
	LISTINGS = 60,
	RENAMES = 100 /* from one listing to the next */
};

static char root[64];
static int folder;

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/mw-mdir-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	folder = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return folder < 0 || mkdirat(folder, "new", 0700) || mkdirat(folder, "cur", 0700)
	           ? -1
	           : 0;
}

static int
teardown(void **state)
{
	(void)state;
	(void)close(folder);
	shell("rm -rf '%s'", root);
	return 0;
}

static void
lay(const char *name)
{
	int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
}

static void
lists(const char *const *want, size_t n)
{
	struct mw_mdir_list l;
	struct mw_err err = {0};
	char got[64];
	assert_int_equal(mw_mdir_list(folder, &l, &err), 0);
	for (size_t i = 0; i < MW_MIN(n, l.n); i++) {
		(void)snprintf(got, sizeof got, "%s/%s", l.v[i].in_new ? "new" : "cur",
		               l.v[i].name);
		assert_string_equal(got, want[i]);
	}
	assert_int_equal(l.n, n);
	mw_mdir_list_free(&l);
}

static void
what_lies_there(void **state)
{
	(void)state;
	lists(NULL, 0);
	lay("new/2");
	lay("new/.hidden");
	lay("new/1");
	lay("cur/1"); /* another message, though the name is the same */
	lay("cur/3:2,S");
	assert_int_equal(linkat(folder, "cur/3:2,S", folder, "cur/4:2,S", 0), 0);
	lists((const char *[]){"new/1", "new/2", "cur/1", "cur/3:2,S", "cur/4:2,S"}, 5);
	shell("rm -rf '%s/new' '%s/cur'", root, root);
	lists(NULL, 0);
	lay("cur");
	struct mw_mdir_list l;
	struct mw_err err = {0};
	assert_true(mw_mdir_list(folder, &l, &err) < 0);
	assert_non_null(strstr(err.msg, "cannot look into cur"));
	mw_mdir_list_free(&l);
	assert_int_equal(unlinkat(folder, "cur", 0), 0);
	assert_int_equal(mkdirat(folder, "cur", 0700), 0);
	lay("new");
	lay("cur/1"); /* can be read all the same */
	assert_true(mw_mdir_list(folder, &l, &err) < 0);
	assert_non_null(strstr(err.msg, "cannot look into new"));
	assert_int_equal(l.n, 1);
	mw_mdir_list_free(&l);
	shell("rm -rf '%s/new' '%s/cur'", root, root);
	assert_int_equal(mkdirat(folder, "new", 0700), 0);
	assert_int_equal(mkdirat(folder, "cur", 0700), 0);
}

static atomic_bool enough;
static atomic_ulong renames;

/* As rsync does: a file of the same name takes its place. */
static void *
rewriter(void *arg)
{
	(void)arg;
	while (!atomic_load(&enough)) {
		lay("tmp");
		assert_int_equal(renameat(folder, "tmp", folder, "cur/1:2,S"), 0);
		atomic_fetch_add(&renames, 1);
	}
	return NULL;
}

static void
while_it_is_rewritten(void **state)
{
	(void)state;
	pthread_t th;
	lay("cur/1:2,S");
	atomic_store(&enough, false);
	assert_int_equal(pthread_create(&th, NULL, rewriter, NULL), 0);
	for (int k = 0; k < LISTINGS; k++) {
		struct mw_mdir_list l;
		struct mw_err err = {0};
		for (unsigned long n = atomic_load(&renames); atomic_load(&renames) == n;)
			(void)sched_yield();
		assert_int_equal(mw_mdir_list(folder, &l, &err), 0);
		assert_int_equal(l.n, 1);
		mw_mdir_list_free(&l);
	}
	atomic_store(&enough, true);
	assert_int_equal(pthread_join(th, NULL), 0);
	assert_int_equal(unlinkat(folder, "cur/1:2,S", 0), 0);
}

/* Names are long, so that a directory is read in many pieces. */
static void
name_of(int i, unsigned state, char out[256])
{
	static const char *const flags[] = {"", ":2,S", ":2,FS"};
	(void)snprintf(out, 256, "%s/%d.%0200d%s", state % 3 ? "cur" : "new", i, i,
	               flags[state % 3]);
}

/* Seen, flagged, unflagged: on and on. */
static void *
reader(void *arg)
{
	(void)arg;
	for (unsigned round = 0; !atomic_load(&enough); round++)
		for (int i = 0; i < MESSAGES && !atomic_load(&enough); i++) {
			char from[256], to[256];
			name_of(i, round, from);
			name_of(i, round + 1, to);
			assert_int_equal(renameat(folder, from, folder, to), 0);
			atomic_fetch_add(&renames, 1);
		}
	return NULL;
}

static void
while_it_is_read(void **state)
{
	(void)state;
	pthread_t th;
	static unsigned char seen[MESSAGES];
	for (int i = 0; i < MESSAGES; i++) {
		char name[256];
		name_of(i, 0, name);
		lay(name);
	}
	atomic_store(&enough, false);
	assert_int_equal(pthread_create(&th, NULL, reader, NULL), 0);
	for (int k = 0; k < LISTINGS; k++) {
		struct mw_mdir_list l;
		struct mw_err err = {0};
		for (unsigned long n = atomic_load(&renames);
		     atomic_load(&renames) < n + RENAMES;)
			(void)sched_yield();
		assert_int_equal(mw_mdir_list(folder, &l, &err), 0);
		memset(seen, 0, sizeof seen);
		for (size_t i = 0; i < l.n; i++) {
			long m = strtol(l.v[i].name, NULL, 10);
			assert_in_range(m, 0, MESSAGES - 1);
			if (seen[m]++)
				fail_msg("message %ld has come twice", m);
		}
		if (l.n != MESSAGES)
			fail_msg("listing %d: %zu of %d", k, l.n, MESSAGES);
		mw_mdir_list_free(&l);
	}
	atomic_store(&enough, true);
	assert_int_equal(pthread_join(th, NULL), 0);
}

/* Opened, and it is the one that was listed: its inode says so. */
static int
opens(const struct mw_mdir_entry *e, struct mw_mdir_now *now)
{
	struct stat st;
	int fd = mw_mdir_open(folder, e->in_new, e->name, now);
	if (fd < 0)
		return -errno;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_ino, e->ino);
	(void)close(fd);
	return 0;
}

static void
what_was_renamed_is_opened(void **state)
{
	(void)state;
	shell("rm -rf '%s/new' '%s/cur'; mkdir '%s/new' '%s/cur'", root, root, root,
	      root);
	for (int i = 0; i < 300; i++) {
		char name[40];
		(void)snprintf(name, sizeof name, "new/%d.x", i);
		lay(name);
	}
	struct mw_mdir_list l;
	struct mw_mdir_now now = {.listed = false};
	struct mw_err err = {0};
	assert_int_equal(mw_mdir_list(folder, &l, &err), 0);
	assert_int_equal(l.n, 300);
	assert_int_equal(opens(&l.v[0], &now), 0);
	assert_false(now.listed); /* not needed yet */
	shell("cd '%s/new' && for i in *; do mv \"$i\" ../cur/\"$i\":2,S; done", root);
	for (size_t i = 0; i < 150; i++)
		assert_int_equal(opens(&l.v[i], &now), 0);
	assert_true(now.listed);
	shell("cd '%s/cur' && for i in *; do mv \"$i\" \"${i%%S}\"RS; done", root);
	for (size_t i = 100; i < 300; i++)
		assert_int_equal(opens(&l.v[i], &now), 0);
	shell("rm '%s'/cur/1*", root);
	for (size_t i = 0; i < 300; i++)
		assert_int_equal(opens(&l.v[i], &now),
		                 l.v[i].name[0] == '1' ? -ENOENT : 0);
	mw_mdir_list_free(&l);
	mw_mdir_list_free(&now.l);
	shell("rm '%s'/cur/*", root);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_lies_there),
	    cmocka_unit_test(what_was_renamed_is_opened),
	    cmocka_unit_test(while_it_is_rewritten),
	    cmocka_unit_test(while_it_is_read),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
