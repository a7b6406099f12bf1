#include "milter/publish.h"

#include "journal/base/buf.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/verify/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum {
	WORDS = 32,
	COMMAND_S = 30, /* time for the command */
	LAST_S = 3,     /* … for the last one, when the daemon stops */
	STOP_S = 5,     /* a file system that hangs is not waited for longer */
	STEP_MS = 20
};

struct mw_publish {
	struct mw_store *store;
	char *journal;    /* its directory */
	char *dir, *name; /* of the file; NULL: none */
	char *words;      /* of the command, cut in place; NULL: none */
	char *argv[WORDS + 1];
	int64_t interval_us;
	pthread_t thread;
	pthread_mutex_t mu; /* guards stop, left */
	pthread_cond_t cv;
	bool stop, left; /* left: nobody waits any more, the store may be gone */
};

static void
publish_free(struct mw_publish *p)
{
	free(p->journal);
	free(p->dir);
	free(p->name);
	free(p->words);
	(void)pthread_mutex_destroy(&p->mu);
	(void)pthread_cond_destroy(&p->cv);
	free(p);
}

static void
failed(const struct mw_err *err)
{
	mw_log(MW_LOG_WARN, NULL, "event=checkpoint_failed error=%s reason=\"%s\"",
	       mw_err_name(err->code), err->msg);
}

/* ---- the command ---- */

/* In a process group of its own, so that what it starts ends with it. */
static int
spawn(const struct mw_publish *p, int in, pid_t *ret, struct mw_err *err)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawn_file_actions_init(&fa) != 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for a command");
	if (posix_spawnattr_init(&at) != 0) {
		(void)posix_spawn_file_actions_destroy(&fa);
		return mw_fail(err, MW_ENOMEM, "out of memory for a command");
	}
	int e = posix_spawn_file_actions_adddup2(&fa, in, 0);
	for (int fd = 1; e == 0 && fd <= 2; fd++)
		e = posix_spawn_file_actions_addopen(&fa, fd, "/dev/null", O_WRONLY, 0);
	if (e == 0)
		e = posix_spawnattr_setsigmask(&at, &none);
	if (e == 0)
		e = posix_spawnattr_setsigdefault(&at, &all);
	if (e == 0)
		e = posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK |
		                                      POSIX_SPAWN_SETSIGDEF |
		                                      POSIX_SPAWN_SETPGROUP);
	if (e == 0)
		e = posix_spawnp(ret, p->argv[0], &fa, &at, p->argv, environ);
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)posix_spawnattr_destroy(&at);
	errno = e;
	return e ? mw_fail_errno(err, "cannot run %s", p->argv[0]) : 0;
}

static bool
stopping(struct mw_publish *p)
{
	(void)pthread_mutex_lock(&p->mu);
	bool stop = p->stop;
	(void)pthread_mutex_unlock(&p->mu);
	return stop;
}

/* Waits for it until its time is over: the last one's is short, so that no end of the
 * daemon waits for what began before. */
static int
reap(struct mw_publish *p, pid_t pid, int seconds, struct mw_err *err)
{
	const struct timespec step = {0, STEP_MS * 1000000L};
	int status = 0;
	for (int i = 0; i < seconds * 1000 / STEP_MS; i++) {
		if (seconds > LAST_S && stopping(p))
			break;
		pid_t k = waitpid(pid, &status, WNOHANG);
		if (k == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			return 0;
		if (k == pid)
			return mw_fail(err, MW_EREFUSED, "%s ended with %s %d",
			               p->argv[0],
			               WIFEXITED(status) ? "status" : "signal",
			               WIFEXITED(status) ? WEXITSTATUS(status)
			                                 : WTERMSIG(status));
		(void)nanosleep(&step, NULL);
	}
	(void)kill(-pid, SIGKILL);
	(void)waitpid(pid, &status, 0);
	return mw_fail(err, MW_ETIMEOUT, "%s was killed: it took too long", p->argv[0]);
}

static int
run_command(struct mw_publish *p, struct mw_str note, int seconds, struct mw_err *err)
{
	int fd[2];
	pid_t pid = 0;
	if (pipe2(fd, O_CLOEXEC) < 0)
		return mw_fail_errno(err, "cannot make a pipe");
	int r = spawn(p, fd[0], &pid, err);
	(void)close(fd[0]);
	/* A note fits into any pipe; a command that does not read it is its own affair.
	 */
	if (r == 0)
		(void)!write(fd[1], note.p, note.n);
	(void)close(fd[1]);
	return r == 0 ? reap(p, pid, seconds, err) : r;
}

/* ---- the thread ---- */

/* The note of what is durable now: 1, 0 there is none to give, or negative. */
static int
make(struct mw_publish *p, struct mw_record *r, struct mw_buf *note, struct mw_err *err)
{
	int e = 0;
	(void)pthread_mutex_lock(&p->mu);
	r->seq = p->left ? 0 : mw_store_head(p->store, r->chain);
	if (r->seq) /* 0: nothing was ever written */
		e = mw_checkpoint_make(p->store, r,
		                       mw_clock_system()->now_us(mw_clock_system()), note,
		                       err);
	(void)pthread_mutex_unlock(&p->mu);
	return e < 0 ? e : r->seq != 0;
}

/* For 'mailwal status'. */
static void
keep_note(struct mw_publish *p, uint64_t seq, bool file, bool command)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_published note = {.seq = seq, .time_us = clock->now_us(clock)};
	struct mw_err err = {0};
	if (p->name && file)
		(void)snprintf(note.file, sizeof note.file, "%s%s%s", p->dir,
		               p->dir[1] ? "/" : "", p->name);
	if (p->words && command) /* its arguments are nobody's business */
		(void)snprintf(note.command, sizeof note.command, "%s", p->argv[0]);
	if (mw_published_write(p->journal, &note, &err) < 0)
		failed(&err);
}

static void
publish(struct mw_publish *p, int seconds)
{
	MW_BUF_AUTO note = {0};
	struct mw_err err = {0};
	struct mw_record r = {.seq = 0};
	int e = make(p, &r, &note, &err);
	if (e < 0)
		failed(&err);
	if (e <= 0)
		return;
	int file = 0, command = 0;
	if (p->name) {
		file = mw_fs_write_file(mw_fs_posix(), p->dir, p->name, note.p, note.n);
		if (file < 0) {
			errno = -file;
			(void)mw_fail_errno(&err, "cannot write %s/%s", p->dir, p->name);
			failed(&err);
		}
	}
	if (p->words) {
		mw_err_clear(&err);
		command = run_command(p, mw_buf_str(&note), seconds, &err);
		if (command < 0)
			failed(&err);
	}
	if ((p->name && file == 0) || (p->words && command == 0))
		keep_note(p, r.seq, file == 0, command == 0);
	if (file == 0 && command == 0)
		mw_log(MW_LOG_DEBUG, NULL, "event=checkpoint seq=%llu",
		       (unsigned long long)r.seq);
}

/* Until the next one is due: true, or false to stop. */
static bool
rest(struct mw_publish *p)
{
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += (time_t)(p->interval_us / 1000000);
	(void)pthread_mutex_lock(&p->mu);
	while (!p->stop && pthread_cond_timedwait(&p->cv, &p->mu, &ts) == 0)
		;
	bool go_on = !p->stop;
	(void)pthread_mutex_unlock(&p->mu);
	return go_on;
}

static void *
publisher(void *arg)
{
	struct mw_publish *p = arg;
	do
		publish(p, COMMAND_S);
	while (rest(p));
	publish(p, LAST_S);
	return NULL;
}

/* ---- life ---- */

static int
cut_words(struct mw_publish *p, const char *command, struct mw_err *err)
{
	char *save = NULL;
	size_t n = 0;
	p->words = strdup(command);
	if (!p->words)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (char *w = strtok_r(p->words, " \t", &save); w;
	     w = strtok_r(NULL, " \t", &save)) {
		if (n == WORDS)
			return mw_fail(err, MW_ECONF,
			               "checkpoint_command has more than %d words",
			               WORDS);
		p->argv[n++] = w;
	}
	if (n == 0)
		return mw_fail(err, MW_ECONF, "checkpoint_command is empty");
	return 0;
}

static int
cut_path(struct mw_publish *p, const char *path, struct mw_err *err)
{
	const char *slash = strrchr(path, '/');
	if (path[0] != '/' || slash[1] == '\0')
		return mw_fail(err, MW_ECONF, "checkpoint_file = %s is no whole path",
		               path);
	p->dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	p->name = strdup(slash + 1);
	return p->dir && p->name ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

static int
cut(struct mw_publish *p, const struct mw_conf *conf, struct mw_err *err)
{
	const char *file = conf->checkpoint_file, *command = conf->checkpoint_command;
	int r = file[0] ? cut_path(p, file, err) : 0;
	return r == 0 && command[0] ? cut_words(p, command, err) : r;
}

int
mw_publish_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_publish p = {.dir = NULL};
	int r = cut(&p, conf, err);
	free(p.dir);
	free(p.name);
	free(p.words);
	return r;
}

int
mw_publish_start(struct mw_store *store, const struct mw_conf *conf,
                 struct mw_publish **ret, struct mw_err *err)
{
	pthread_condattr_t at;
	*ret = NULL;
	if (!conf->checkpoint_file[0] && !conf->checkpoint_command[0])
		return 0;
	struct mw_publish *p = calloc(1, sizeof *p);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	(void)pthread_condattr_init(&at);
	(void)pthread_condattr_setclock(&at, CLOCK_MONOTONIC);
	(void)pthread_mutex_init(&p->mu, NULL);
	(void)pthread_cond_init(&p->cv, &at);
	(void)pthread_condattr_destroy(&at);
	p->store = store;
	p->interval_us = conf->checkpoint_interval;
	p->journal = strdup(mw_store_dir(store));
	int r = p->journal ? cut(p, conf, err) : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0 && pthread_create(&p->thread, NULL, publisher, p) != 0)
		r = mw_fail(err, MW_ENOMEM, "cannot start a thread");
	if (r < 0) {
		publish_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void
mw_publish_stop(struct mw_publish *p)
{
	struct timespec ts;
	if (!p)
		return;
	(void)pthread_mutex_lock(&p->mu);
	p->stop = true;
	(void)pthread_cond_signal(&p->cv);
	(void)pthread_mutex_unlock(&p->mu);
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += STOP_S;
	if (pthread_timedjoin_np(p->thread, NULL, &ts) == 0) {
		publish_free(p);
		return;
	}
	/* It hangs in a file system. The process ends without it. (mu is never held over
	 * what may hang.) */
	(void)pthread_mutex_lock(&p->mu);
	p->left = true;
	(void)pthread_mutex_unlock(&p->mu);
	mw_log(
	    MW_LOG_WARN, NULL,
	    "event=checkpoint_failed error=timeout reason=\"the last one is not done\"");
}
