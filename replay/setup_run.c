/* setup_run.c - running postconf(1), postfix(1), make(1): no shell, a deadline, its words
 * kept. */
#include "replay/setup.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum {
	DEADLINE_S = 30,
	MOST_OUTPUT = 4 << 20
};

/* Reads until the end of the pipe or the deadline. */
static bool
drain(int fd, struct mw_buf *out)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t end = clock->mono_us(clock) + DEADLINE_S * INT64_C(1000000);
	for (;;) {
		char piece[4096];
		int64_t left_ms = (end - clock->mono_us(clock)) / 1000;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
			return false;
		ssize_t n = read(fd, piece, sizeof piece);
		if (n == 0)
			return true;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return true;
		if (n > 0 && out->n < MOST_OUTPUT)
			mw_buf_put(out, piece, (size_t)n);
	}
}

static int
start(char *const argv[], pid_t *ret_pid, int *ret_fd)
{
	int fd[2];
	posix_spawn_file_actions_t fa;
	if (pipe2(fd, O_CLOEXEC) < 0)
		return errno;
	int e = posix_spawn_file_actions_init(&fa);
	if (e == 0) {
		e = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
		e = e ? e : posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
		e = e ? e : posix_spawn_file_actions_adddup2(&fa, fd[1], 2);
		e = e ? e : posix_spawnp(ret_pid, argv[0], &fa, NULL, argv, environ);
		(void)posix_spawn_file_actions_destroy(&fa);
	}
	(void)close(fd[1]);
	if (e)
		(void)close(fd[0]);
	else
		*ret_fd = fd[0];
	return e;
}

int
mw_setup_run(char *const argv[], struct mw_buf *out, struct mw_err *err)
{
	pid_t pid;
	MW_AUTOCLOSE int fd = -1;
	int status = 0, e = start(argv, &pid, &fd);
	if (e) {
		(void)mw_fail(err, MW_EUNAVAIL, "cannot run %s: %s", argv[0],
		              strerror(e));
		return e == ENOENT ? mw_err_hint(err,
		                                 "is that installed here, and %s in "
		                                 "PATH?",
		                                 argv[0])
		                   : MW_EUNAVAIL;
	}
	bool ended = drain(fd, out);
	if (!ended)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!ended)
		return mw_fail(err, MW_EUNAVAIL, "%s did not end within %d s", argv[0],
		               DEADLINE_S);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		struct mw_str said = mw_str_trim(mw_buf_str(out));
		return mw_fail(err, MW_EUNAVAIL, "%s failed: %.*s", argv[0],
		               (int)MW_MIN(said.n, (size_t)400), said.n ? said.p : "");
	}
	return 0;
}

/* ---- where systemd listens for us ---- */

/* "/run/a.sock (Stream)" or "127.0.0.1:11332 (Stream)" as milter_listen would say it, or
 * NULL. */
static char *
listen_place(struct mw_str shown)
{
	struct mw_str word, rest, host, port;
	char *place = NULL;
	if (!mw_str_cut(mw_str_trim(shown), ' ', &word, &rest) || word.n == 0 ||
	    !mw_str_starts(rest, MW_STR("(Stream)")))
		return NULL;
	int n = -1;
	if (word.p[0] == '/')
		n = asprintf(&place, "unix:%.*s", (int)word.n, word.p);
	else if (mw_str_cut(word, ':', &host, &port) && word.p[0] != '[')
		n = asprintf(&place, "inet:%.*s", (int)word.n, word.p);
	return n < 0 ? NULL : place;
}

int
mw_setup_places(struct mw_conf *conf, struct mw_err *err)
{
	char systemctl[] = "systemctl", show[] = "show", one[] = "--property=Listen",
	     value[] = "--value", unit[] = "mailwald.socket";
	char *argv[] = {systemctl, show, one, value, unit, NULL};
	for (size_t i = 0; i < conf->milter_listen.n; i++) {
		MW_BUF_AUTO out = {0};
		struct mw_err none = {0};
		if (strcmp(conf->milter_listen.v[i], "systemd") != 0)
			continue;
		bool said = mw_setup_run(argv, &out, &none) == 0;
		char *place = said ? listen_place(mw_buf_str(&out)) : NULL;
		if (!place)
			place = strdup("unix:/var/spool/postfix/mailwal/milter.sock");
		if (!place)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		free(conf->milter_listen.v[i]);
		conf->milter_listen.v[i] = place;
	}
	return 0;
}
