/* Listening sockets: their mode from the first moment on, and which of those handed over
 * is the one that a place of the configuration means. MW_TEST_THREADS */
#include "milter/listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "journal/base/util.h"

#include <cmocka.h>

enum {
	BINDS = 400
};

static char dir[64];

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-listen-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	char cmd[128];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

static struct mw_conf
settings(const char *group)
{
	return (struct mw_conf){.milter_socket_group = (char *)(uintptr_t)group,
	                        .milter_socket_mode = 0660};
}

static void
listen_at(const char *spec, struct mw_listener *l)
{
	struct mw_conf c = settings("");
	struct mw_err err = {0};
	if (mw_listen_at(&c, spec, l, &err) < 0)
		fail_msg("%s: %s", spec, err.msg);
}

static void
end(struct mw_listener *l)
{
	struct mw_listeners all = {.v = {*l}, .n = 1};
	mw_listen_close(&all);
}

/* ---- mode ---- */

static atomic_bool stop;
static atomic_int wrong;

static void *
make_files(void *arg)
{
	char path[128];
	(void)arg;
	(void)snprintf(path, sizeof path, "%s/file", dir);
	while (!atomic_load(&stop)) {
		struct stat st;
		int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
		if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & 07777) != 0666)
			atomic_fetch_add(&wrong, 1);
		(void)close(fd);
		(void)unlink(path);
	}
	return NULL;
}

/* The files that other threads make have their mode while sockets are bound. */
static void
the_umask_is_left_alone(void **state)
{
	(void)state;
	pthread_t t;
	char spec[128];
	mode_t old = umask(0);
	(void)snprintf(spec, sizeof spec, "unix:%s/sock", dir);
	assert_int_equal(pthread_create(&t, NULL, make_files, NULL), 0);
	for (int i = 0; i < BINDS; i++) {
		struct mw_listener l;
		struct stat st;
		listen_at(spec, &l);
		assert_int_equal(stat(spec + 5, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0660);
		end(&l);
	}
	atomic_store(&stop, true);
	(void)pthread_join(t, NULL);
	(void)umask(old);
	assert_int_equal(atomic_load(&wrong), 0);
}

/* Where group or mode cannot be set nobody else gets in, whatever the umask. */
static void
closed_until_it_is_ready(void **state)
{
	(void)state;
	char spec[128];
	struct mw_conf c = settings("mw-no-such-group");
	struct mw_listener l;
	struct mw_err err = {0};
	struct stat st;
	mode_t old = umask(0);
	(void)snprintf(spec, sizeof spec, "unix:%s/closed", dir);
	assert_true(mw_listen_at(&c, spec, &l, &err) < 0);
	(void)umask(old);
	assert_int_equal(stat(spec + 5, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

/* ---- handed over ---- */

static void
inherit(const struct mw_listener *l)
{
	struct mw_listeners all = {.v = {*l}, .n = 1};
	struct mw_conf c = settings("");
	struct mw_err err = {0};
	assert_int_equal(mw_listen_inherit(&all, &c, &err), 0);
}

static int
port_of(int fd)
{
	struct sockaddr_in in;
	socklen_t n = sizeof in;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	return ntohs(in.sin_port);
}

static void
an_address_is_one_however_written(void **state)
{
	(void)state;
	/* before and behind the port */
	static const char *const ways[][2] = {
	    {"inet:127.0.0.1:", ""}, {"inet:", "@127.0.0.1"}, {"inet:[127.0.0.1]:", ""},
	    {"inet:127.1:", ""},     {"inet:", ""},
	};
	struct mw_listener l, again;
	listen_at("inet:127.0.0.1:0", &l);
	int fd = l.fd, port = port_of(fd);
	for (size_t i = 0; i < MW_COUNT(ways); i++) {
		char spec[64];
		(void)snprintf(spec, sizeof spec, "%s%d%s", ways[i][0], port, ways[i][1]);
		inherit(&l);
		listen_at(spec, &again);
		if (again.fd != fd)
			fail_msg("%s is not the socket that was handed over", spec);
		mw_listen_inherit_done();
	}
	/* The same text, and another address: port 0 is by name, any other is not. */
	(void)snprintf(l.name, sizeof l.name, "inet:127.0.0.2:%d", port);
	inherit(&l);
	listen_at(l.name, &again);
	assert_int_not_equal(again.fd, fd);
	(void)close(again.fd);
	mw_listen_inherit_done(); /* closes fd */
}

static void
a_path_is_one_however_written(void **state)
{
	(void)state;
	char spec[128], other[160];
	struct mw_listener l, again;
	(void)snprintf(spec, sizeof spec, "unix:%s/one", dir);
	(void)snprintf(other, sizeof other, "local:%s/../%s//one", dir, dir + 5);
	listen_at(spec, &l);
	int fd = l.fd;
	inherit(&l);
	listen_at(other, &again);
	assert_int_equal(again.fd, fd);
	mw_listen_inherit_done();
	/* Nobody can reach a socket whose file is gone: there it is made anew. */
	assert_int_equal(unlink(spec + 5), 0);
	inherit(&l);
	listen_at(spec, &again);
	assert_int_not_equal(again.fd, fd);
	assert_int_equal(access(spec + 5, F_OK), 0);
	end(&again);
	mw_listen_inherit_done();
}

/* The group of the socket at spec after a take-over with this setting. */
static gid_t
group_after(const char *spec, const char *group)
{
	struct mw_listener l, again;
	struct mw_conf c = settings(group);
	struct mw_err err = {0};
	struct stat st;
	char *place = (char *)(uintptr_t)spec;
	c.milter_listen.v = &place;
	c.milter_listen.n = 1;
	listen_at(spec, &l);
	/* as an older setting left it */
	assert_int_equal(chown(spec + 5, (uid_t)-1, 12345), 0);
	struct mw_listeners all = {.v = {l}, .n = 1};
	assert_int_equal(mw_listen_inherit(&all, &c, &err), 0);
	listen_at(spec, &again);
	mw_listen_inherit_done();
	assert_int_equal(stat(spec + 5, &st), 0);
	end(&again);
	return st.st_gid;
}

/* A socket that was handed over ends in the group in which one made now would begin. */
static void
no_group_is_our_own(void **state)
{
	(void)state;
	char spec[128], sub[96];
	struct mw_listener l;
	struct stat st;
	if (geteuid() != 0)
		skip(); /* to no group can it be given, then */
	(void)snprintf(spec, sizeof spec, "unix:%s/group", dir);
	assert_int_equal(group_after(spec, ""), getegid());
	assert_int_equal(group_after(spec, "root"), 0);
	/* "g+s": what is made there is its group's */
	(void)snprintf(sub, sizeof sub, "%s/sub", dir);
	(void)snprintf(spec, sizeof spec, "unix:%s/group", sub);
	assert_int_equal(mkdir(sub, 0750), 0);
	assert_int_equal(chown(sub, (uid_t)-1, 54321), 0);
	assert_int_equal(chmod(sub, 02750), 0);
	listen_at(spec, &l);
	assert_int_equal(stat(spec + 5, &st), 0);
	assert_int_equal(st.st_gid, 54321); /* made anew */
	end(&l);
	assert_int_equal(group_after(spec, ""), 54321);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_umask_is_left_alone),
	    cmocka_unit_test(closed_until_it_is_ready),
	    cmocka_unit_test(an_address_is_one_however_written),
	    cmocka_unit_test(a_path_is_one_however_written),
	    cmocka_unit_test(no_group_is_our_own),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
