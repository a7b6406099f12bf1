/* ledger_test.c - the ledger remembers, excludes a second run, and survives a torn end.
 */
#include "replay/ledger.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static const struct mw_put_place place = {"IN BOX", 1, 2, 0};
static const uint8_t one[MW_ID_LEN] = {1}, two[MW_ID_LEN] = {2}, three[MW_ID_LEN] = {3};

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-ledger-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

static struct mw_ledger *
open_it(const char *target, bool load)
{
	struct mw_ledger *l = NULL;
	struct mw_err err = {0};
	if (mw_ledger_open(dir, target, load, &l, &err))
		fail_msg("%s", err.msg);
	return l;
}

/* The log file of the only ledger in dir. */
static void
log_path(char *out, size_t n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			(void)snprintf(out, n, "%s/%s/log", dir, e->d_name);
	(void)closedir(d);
}

static void
what_was_written_is_read_again(void **state)
{
	(void)state;
	struct mw_err err;
	struct mw_ledger *l = open_it("imap://x", true);
	char id[40];
	(void)snprintf(id, sizeof id, "%s", mw_ledger_id(l));
	assert_int_equal(mw_ledger_intent(l, one, "a b%\xc3\xa9", false, &err), 0);
	assert_int_equal(mw_ledger_done(l, one, "a b%\xc3\xa9", false, &place, &err), 0);
	assert_int_equal(mw_ledger_intent(l, two, "", true, &err), 0);
	assert_int_equal(mw_ledger_intent(l, three, "c", false, &err), 0);
	assert_int_equal(mw_ledger_refused(l, three, "c", false, &err), 0);
	assert_int_equal(mw_ledger_sync(l, &err), 0);
	mw_ledger_close(l);
	l = open_it("imap://x", true);
	assert_string_equal(mw_ledger_id(l), id);
	assert_int_equal(mw_ledger_get(l, one, "a b%\xc3\xa9", false), MW_LEDGER_DONE);
	assert_int_equal(mw_ledger_get(l, one, "a b%\xc3\xa9", true), MW_LEDGER_NONE);
	assert_int_equal(mw_ledger_get(l, two, "", true), MW_LEDGER_DOUBTFUL);
	assert_int_equal(mw_ledger_get(l, three, "c", false), MW_LEDGER_NONE);
	mw_ledger_close(l);
	l = open_it("imap://x", false); /* --fresh */
	assert_int_equal(mw_ledger_get(l, one, "a b%\xc3\xa9", false), MW_LEDGER_NONE);
	mw_ledger_close(l);
	l = open_it("imap://y", true); /* another target, another ledger */
	assert_int_equal(mw_ledger_get(l, two, "", true), MW_LEDGER_NONE);
	assert_string_not_equal(mw_ledger_id(l), id);
	mw_ledger_close(l);
}

/* What cannot be asked has one ledger under all its names, and a lock. */
static void
one_ledger_a_server(void **state)
{
	(void)state;
	static const struct {
		const char *first, *then;
		bool same;
	} names[] = {
	    {"lmtp:127.0.0.1:2424", "lmtp:localhost:2424", true},
	    {"smtp:localhost:2525", "SMTP://127.0.0.1:2525", true},
	    {"lmtp:[::1]:2424", "lmtp:[0:0:0:0:0:0:0:1]:2424", true},
	    {"lmtp:nobody.invalid:24", "LMTP:NOBODY.invalid:24", true},
	    {"lmtp:unix:/proc/self/fd", "lmtp:unix:/proc/./self/fd", true},
	    {"lmtp:127.0.0.1:2424", "smtp:127.0.0.1:2424", false},
	    {"lmtp:127.0.0.1:2424", "lmtp:localhost:2425", false},
	    {"lmtp:127.0.0.1:2424", "lmtp:127.0.0.2:2424", false},
	    {"lmtp:nobody.invalid:24", "lmtp:else.invalid:24", false},
	    {"lmtp:unix:/tmp/no-such-a", "lmtp:unix:/tmp/no-such-b", false},
	    {"imap://localhost", "imap://127.0.0.1", false},
	};
	struct mw_err err;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(mkdir(dir, 0700), 0);
		struct mw_ledger *l = open_it(names[i].first, true), *second = NULL;
		assert_null(mw_ledger_other(l));
		assert_int_equal(mw_ledger_done(l, one, "a", false, NULL, &err), 0);
		assert_int_equal(mw_ledger_open(dir, names[i].then, true, &second, &err),
		                 names[i].same ? MW_ELOCKED : 0);
		mw_ledger_close(second);
		mw_ledger_close(l);
		l = open_it(names[i].then, true);
		if ((mw_ledger_get(l, one, "a", false) == MW_LEDGER_DONE) !=
		    names[i].same)
			fail_msg("%s, %s", names[i].first, names[i].then);
		if (names[i].same)
			assert_string_equal(mw_ledger_other(l), names[i].first);
		mw_ledger_close(l);
	}
}

static void
a_second_run_is_refused_at_once(void **state)
{
	(void)state;
	struct mw_ledger *l = open_it("imap://x", true), *second = NULL;
	struct mw_err err = {0};
	char pid[32];
	assert_int_equal(mw_ledger_open(dir, "imap://x", true, &second, &err),
	                 MW_ELOCKED);
	(void)snprintf(pid, sizeof pid, "pid %d", (int)getpid());
	assert_non_null(strstr(err.msg, pid));
	assert_int_equal(mw_err_exit(err.code), 75);
	mw_ledger_close(l);
	assert_int_equal(mw_ledger_open(dir, "imap://x", true, &second, &err), 0);
	mw_ledger_close(second);
}

/* A process that it had just made has its files until it becomes another program. */
static void
what_a_killed_run_leaves_is_waited_for(void **state)
{
	(void)state;
	struct mw_ledger *l;
	int status;
	pid_t run = fork();
	assert_int_not_equal(run, -1);
	if (run == 0) {
		struct mw_err ignored;
		int r = mw_ledger_open(dir, "imap://x", true, &l, &ignored);
		if (fork() == 0)
			(void)poll(NULL, 0, 300);
		_exit(r != 0);
	}
	assert_int_equal(waitpid(run, &status, 0), run);
	assert_int_equal(status, 0);
	l = open_it("imap://x", true);
	mw_ledger_close(l);
}

static void
any_torn_end_costs_at_most_its_last_line(void **state)
{
	(void)state;
	struct mw_err err;
	char path[300];
	struct mw_ledger *l = open_it("t", true);
	assert_int_equal(mw_ledger_done(l, one, "a", false, NULL, &err), 0);
	assert_int_equal(mw_ledger_sync(l, &err), 0);
	struct stat st;
	log_path(path, sizeof path);
	assert_int_equal(stat(path, &st), 0);
	off_t first = st.st_size;
	assert_int_equal(mw_ledger_done(l, two, "a", false, NULL, &err), 0);
	mw_ledger_close(l);
	assert_int_equal(stat(path, &st), 0);
	for (off_t cut = st.st_size - 1; cut >= first; cut--) {
		assert_int_equal(truncate(path, cut), 0);
		l = open_it("t", true);
		assert_int_equal(mw_ledger_get(l, one, "a", false), MW_LEDGER_DONE);
		/* Only the newline missing: the line is not trusted either. */
		assert_int_equal(mw_ledger_get(l, two, "a", false), MW_LEDGER_NONE);
		mw_ledger_close(l);
		assert_int_equal(truncate(path, cut), 0);
	}
	l = open_it("t", true); /* what is appended after a torn end is whole */
	assert_int_equal(mw_ledger_done(l, three, "a", false, NULL, &err), 0);
	mw_ledger_close(l);
	l = open_it("t", true);
	assert_int_equal(mw_ledger_get(l, three, "a", false), MW_LEDGER_DONE);
	mw_ledger_close(l);
}

static void
a_flipped_byte_is_not_believed(void **state)
{
	(void)state;
	struct mw_err err;
	char path[300];
	struct mw_ledger *l = open_it("t", true);
	assert_int_equal(mw_ledger_done(l, one, "a", false, &place, &err), 0);
	mw_ledger_close(l);
	log_path(path, sizeof path);
	int fd = open(path, O_RDWR);
	char c;
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t i = 0; i < st.st_size; i++) {
		assert_int_equal(pread(fd, &c, 1, i), 1);
		char bad = (char)(c ^ 0x11);
		assert_int_equal(pwrite(fd, &bad, 1, i), 1);
		l = open_it("t", true);
		assert_int_equal(mw_ledger_get(l, one, "a", false), MW_LEDGER_NONE);
		mw_ledger_close(l);
		assert_int_equal(pwrite(fd, &c, 1, i), 1);
	}
	(void)close(fd);
}

static void
many_entries_are_kept_apart(void **state)
{
	(void)state;
	struct mw_err err;
	struct mw_ledger *l = open_it("t", true);
	for (uint32_t i = 0; i < 5000; i++) {
		uint8_t id[MW_ID_LEN] = {0};
		memcpy(id, &i, sizeof i);
		if (i % 2)
			assert_int_equal(mw_ledger_intent(l, id, "box", false, &err), 0);
		else
			assert_int_equal(mw_ledger_done(l, id, "box", false, &place,
			                                &err),
			                 0);
	}
	mw_ledger_close(l);
	l = open_it("t", true);
	for (uint32_t i = 0; i < 5000; i++) {
		uint8_t id[MW_ID_LEN] = {0};
		memcpy(id, &i, sizeof i);
		assert_int_equal(mw_ledger_get(l, id, "box", false),
		                 i % 2 ? MW_LEDGER_DOUBTFUL : MW_LEDGER_DONE);
	}
	mw_ledger_close(l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_was_written_is_read_again, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(what_a_killed_run_leaves_is_waited_for, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(a_second_run_is_refused_at_once, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(one_ledger_a_server, setup, teardown),
	    cmocka_unit_test_setup_teardown(any_torn_end_costs_at_most_its_last_line,
	                                    setup, teardown),
	    cmocka_unit_test_setup_teardown(a_flipped_byte_is_not_believed, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(many_entries_are_kept_apart, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
