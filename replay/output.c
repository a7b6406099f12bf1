#include "replay/output.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/str.h"
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

enum {
	WORDS_MAX = 4096, /* of its standard error */
	TICK_MS = 200
};

struct child {
	pid_t pid;
	struct pollfd fd[2]; /* its output, its words of error; closed: -1 */
	struct mw_buf said;
	int silent_ms; /* that it may be */
	const atomic_bool *stop;
};

static int
start(struct child *c, char *const argv[])
{
	int out[2], bad[2];
	posix_spawn_file_actions_t fa;
	if (pipe2(out, O_CLOEXEC) < 0)
		return errno;
	if (pipe2(bad, O_CLOEXEC) < 0) {
		int e = errno;
		(void)close(out[0]);
		(void)close(out[1]);
		return e;
	}
	int e = posix_spawn_file_actions_init(&fa);
	if (!e) {
		e = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
		e = e ? e : posix_spawn_file_actions_adddup2(&fa, out[1], 1);
		e = e ? e : posix_spawn_file_actions_adddup2(&fa, bad[1], 2);
		e = e ? e : posix_spawnp(&c->pid, argv[0], &fa, NULL, argv, environ);
		(void)posix_spawn_file_actions_destroy(&fa);
	}
	(void)close(out[1]);
	(void)close(bad[1]);
	c->fd[0] = (struct pollfd){.fd = out[0], .events = POLLIN};
	c->fd[1] = (struct pollfd){.fd = bad[0], .events = POLLIN};
	return e;
}

static void
shut(struct pollfd *f)
{
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = -1;
}

/* One piece of one of the two. */
static int
take(struct child *c, int i,
     int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err), void *arg,
     struct mw_err *err)
{
	char piece[65536];
	ssize_t n = read(c->fd[i].fd, piece, sizeof piece);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		shut(&c->fd[i]);
	else if (i == 0)
		return cb(arg, piece, (size_t)n, err);
	else if (c->said.n < WORDS_MAX)
		mw_buf_put(&c->said, piece, MW_MIN((size_t)n, (size_t)WORDS_MAX));
	return 0;
}

static int
drain(struct child *c, const char *name,
      int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err), void *arg,
      struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t now = clock->mono_us(clock), heard = now;
	int64_t end = now + MW_OUTPUT_S * INT64_C(1000000);
	int r = 0;
	while (!r && (c->fd[0].fd >= 0 || c->fd[1].fd >= 0)) {
		if (mw_cli_stopped() || (c->stop && atomic_load(c->stop)))
			return mw_fail(err, MW_ECANCEL, "interrupted");
		now = clock->mono_us(clock);
		if (now >= end)
			return mw_fail(err, MW_ETIMEOUT, "%s did not end within %d s",
			               name, MW_OUTPUT_S);
		if (now - heard >= c->silent_ms * INT64_C(1000))
			return mw_fail(err, MW_ETIMEOUT, "%s hangs: not a word in %d s",
			               name, (c->silent_ms + 999) / 1000);
		if (poll(c->fd, 2, TICK_MS) <= 0)
			continue;
		heard = clock->mono_us(clock);
		for (int i = 0; i < 2 && !r; i++)
			if (c->fd[i].fd >= 0 && c->fd[i].revents)
				r = take(c, i, cb, arg, err);
	}
	return r;
}

/* The first line of what it said of its failure. */
static struct mw_str
first_words(struct child *c)
{
	struct mw_str all = mw_str_trim(mw_buf_str(&c->said)), line, rest;
	if (!mw_str_cut(all, '\n', &line, &rest))
		line = all;
	line.n = MW_MIN(line.n, (size_t)300);
	return line;
}

int
mw_output_of(char *const argv[], int silent_ms, const atomic_bool *stop,
             int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err), void *arg,
             struct mw_err *err)
{
	struct child c = {.fd = {{.fd = -1}, {.fd = -1}},
	                  .silent_ms = silent_ms,
	                  .stop = stop};
	int status = 0, e = start(&c, argv);
	int r = e ? mw_fail(err, MW_EUNAVAIL, "cannot run %s: %s", argv[0], strerror(e))
	          : drain(&c, argv[0], cb, arg, err);
	shut(&c.fd[0]);
	shut(&c.fd[1]);
	if (!e) {
		if (r)
			(void)kill(c.pid, SIGKILL);
		while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	if (!r && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
		struct mw_str w = first_words(&c);
		r = mw_fail(err, MW_EUNAVAIL, "%s failed%s%.*s", argv[0], w.n ? ": " : "",
		            (int)w.n, w.n ? w.p : "");
	}
	mw_buf_free(&c.said);
	return r;
}
