#include "replay/logsrc.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- other programs ---- */

/* in: its standard input, or -1. */
static int
spawn(struct mw_logsrc *l, const char *const argv[], int in, struct mw_err *err)
{
	int pipes[2];
	posix_spawn_file_actions_t fa;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return mw_fail_errno(err, "cannot make a pipe");
	(void)posix_spawn_file_actions_init(&fa);
	if (in < 0)
		(void)posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	else
		(void)posix_spawn_file_actions_adddup2(&fa, in, 0);
	(void)posix_spawn_file_actions_adddup2(&fa, pipes[1], 1);
	/* The declaration takes away const, the call does not write. */
	union {
		const char *const *in;
		char *const *out;
	} args = {argv};
	int e = posix_spawnp(&l->pid, argv[0], &fa, NULL, args.out, environ);
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)close(pipes[1]);
	if (e) {
		(void)close(pipes[0]);
		l->pid = 0;
		errno = e;
		return mw_fail_errno(err, "cannot start %s", argv[0]);
	}
	l->fd = pipes[0];
	l->stream = true;
	return 0;
}

/* By its first bytes; by its name where these are damaged. */
static const char *
unpacker(const char *path, int fd)
{
	static const struct {
		const char *suffix, *program;
		struct mw_str magic;
	} by[] = {{".gz", "gzip", {"\x1f\x8b", 2}},
	          {".xz", "xz", {"\xfd\x37zXZ\0", 6}},
	          {".zst", "zstd", {"\x28\xb5\x2f\xfd", 4}},
	          {".bz2", "bzip2", {"BZh", 3}}};
	char head[6];
	ssize_t got = pread(fd, head, sizeof head, 0);
	size_t n = strlen(path);
	for (size_t i = 0; i < MW_COUNT(by); i++)
		if (got > 0 && mw_str_starts(mw_str(head, (size_t)got), by[i].magic))
			return by[i].program;
	for (size_t i = 0; i < MW_COUNT(by); i++) {
		size_t k = strlen(by[i].suffix);
		if (n > k && strcmp(path + n - k, by[i].suffix) == 0)
			return by[i].program;
	}
	return NULL;
}

/* "_MACHINE_ID=" of this host; false if it has none. */
static bool
this_machine(char *ret, size_t cap)
{
	char id[33];
	MW_AUTOCLOSE int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, id, sizeof id) < 32)
		return false;
	id[32] = '\0';
	if (strspn(id, "0123456789abcdef") != 32)
		return false;
	(void)snprintf(ret, cap, "_MACHINE_ID=%s", id);
	return true;
}

/* To follow, journalctl would show no more than what it finds under the boot ID of
 * /proc/sys: without the end of the boot before, and nothing where a sandbox or container
 * hides that file. -m turns this off, and asks for all hosts' journals here: then only
 * this host's are wanted. */
static int
open_journald(struct mw_logsrc *l, const struct mw_logsrc_state *s, bool follow,
              struct mw_err *err)
{
	char since[48] = "--since=@0", machine[64];
	bool one = follow && this_machine(machine, sizeof machine);
	const char *argv[] = {"journalctl",
	                      "-q",
	                      "--no-pager",
	                      "-o",
	                      "short-iso-precise",
	                      since,
	                      "SYSLOG_FACILITY=2",
	                      follow ? "-f" : NULL,
	                      follow ? "-nall" : NULL,
	                      follow ? "-m" : NULL,
	                      one ? machine : NULL,
	                      NULL};
	l->journald = true;
	for (size_t i = 0; s && i < s->n; i++)
		if (strcmp(s->v[i].path, "journald") == 0)
			l->time_us = s->v[i].time_us;
	if (l->time_us > 0)
		(void)snprintf(since, sizeof since, "--since=@%lld",
		               (long long)(l->time_us / 1000000));
	return spawn(l, argv, -1, err);
}

/* ---- reading ---- */

static void
consumed(struct mw_logsrc *l, const char *p, size_t n)
{
	size_t k = MW_MIN(n, MW_LOGSRC_HEAD - l->head_n);
	if (l->offset < MW_LOGSRC_HEAD && l->head_n == l->offset) {
		memcpy(l->head + l->head_n, p, k);
		l->head_n += k;
	}
	l->offset += n;
	if (n >= MW_LOGSRC_TAIL) {
		memcpy(l->tail, p + n - MW_LOGSRC_TAIL, MW_LOGSRC_TAIL);
		l->tail_n = MW_LOGSRC_TAIL;
		return;
	}
	size_t keep = MW_MIN(l->tail_n, MW_LOGSRC_TAIL - n);
	memmove(l->tail, l->tail + l->tail_n - keep, keep);
	memcpy(l->tail + keep, p, n);
	l->tail_n = keep + n;
}

/* More bytes into l->in: 1 some, 0 none now, negative. */
static int
fill(struct mw_logsrc *l, int wait_ms, struct mw_err *err)
{
	struct pollfd pf = {l->fd, POLLIN, 0};
	if (l->ended)
		return 0;
	if (l->at) {
		mw_buf_drop(&l->in, l->at);
		l->at = 0;
	}
	if (l->stream && wait_ms >= 0 && poll(&pf, 1, wait_ms) <= 0)
		return 0;
	if (mw_buf_reserve(&l->in, MW_LOGSRC_LINE))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	ssize_t n = read(l->fd, l->in.p + l->in.n, MW_LOGSRC_LINE);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n < 0)
		return mw_fail_errno(err, "cannot read %s", l->path);
	if (n == 0 && l->stream)
		l->ended = true;
	l->in.n += (size_t)n;
	return n > 0;
}

static int
next_line(struct mw_logsrc *l, struct mw_str *ret, int wait_ms, struct mw_err *err)
{
	for (;;) {
		char *p = l->in.p ? (char *)l->in.p + l->at : NULL;
		size_t n = l->in.n - l->at;
		char *end = n ? memchr(p, '\n', n) : NULL;
		bool last = !end && l->ended && n;
		if (end || last || n >= MW_LOGSRC_LINE) {
			size_t len = end ? (size_t)(end - p) : n;
			bool rest = l->cut; /* of a line whose beginning was given */
			l->cut = !end && !last;
			consumed(l, p, end ? len + 1 : len);
			l->at += end ? len + 1 : len;
			if (rest) {
				mw_logform_rest(&l->form, len);
				continue;
			}
			*ret = mw_str(p, MW_MIN(len, (size_t)MW_LOGSRC_LINE));
			l->over = len - ret->n;
			return 1;
		}
		int r = fill(l, wait_ms, err);
		if (r < 0 || (r == 0 && !(l->ended && l->in.n > l->at)))
			return r;
	}
}

int
mw_logsrc_line(struct mw_logsrc *l, struct mw_str *ret, int wait_ms, struct mw_err *err)
{
	for (;;) {
		struct mw_str raw;
		int r = next_line(l, &raw, wait_ms, err);
		if (r <= 0)
			return r;
		r = mw_logform_take(&l->form, raw, ret);
		if (l->over)
			mw_logform_rest(&l->form, l->over);
		/* To go on in the midst of an entry would be to go without its half. */
		l->passes = l->passes || l->form.entry;
		if (r < 0)
			return mw_fail(err, r, "out of memory");
		if (r > 0) {
			l->lines++;
			return 1;
		}
	}
}

int
mw_logsrc_check(const struct mw_logsrc *l, struct mw_err *err)
{
	if (!l->whole || !l->lines || l->stamped)
		return 0;
	(void)mw_fail(err, MW_EFORMAT, "%s: none of its %llu lines can be read", l->path,
	              (unsigned long long)l->lines);
	(void)mw_err_hint(err, "%s", mw_logform_hint(mw_str(l->head, l->head_n)));
	return MW_EFORMAT;
}

/* ---- state ---- */

static uint64_t
tail_hash(const struct mw_logsrc *l)
{
	return mw_hash64(mw_str(l->tail, l->tail_n));
}

/* Is this the log that the position is of, and is what was read of it unchanged? */
static bool
resume_file(struct mw_logsrc *l, const struct mw_logsrc_pos *p)
{
	char head[MW_LOGSRC_HEAD], tail[MW_LOGSRC_TAIL];
	size_t k = MW_MIN(p->offset, (uint64_t)MW_LOGSRC_TAIL);
	if (!p->offset || p->head_n > sizeof head ||
	    pread(l->fd, head, p->head_n, 0) != (ssize_t)p->head_n ||
	    mw_hash64(mw_str(head, p->head_n)) != p->head ||
	    pread(l->fd, tail, k, (off_t)(p->offset - k)) != (ssize_t)k ||
	    mw_hash64(mw_str(tail, k)) != p->tail ||
	    lseek(l->fd, (off_t)p->offset, SEEK_SET) < 0)
		return false;
	l->offset = p->offset;
	l->head_n = p->head_n;
	memcpy(l->head, head, p->head_n);
	l->tail_n = k;
	memcpy(l->tail, tail, k);
	return true;
}

/* The same for what can only be read forward: true if it is past the position now. */
static bool
resume_stream(struct mw_logsrc *l, const struct mw_logsrc_pos *p)
{
	while (l->offset < p->offset) {
		size_t n = MW_MIN(l->in.n - l->at, (size_t)(p->offset - l->offset));
		if (n) {
			consumed(l, (char *)l->in.p + l->at, n);
			l->at += n;
		} else if (fill(l, -1, NULL) < 0 || (l->ended && l->in.n == l->at)) {
			return false;
		}
		if (l->head_n >= p->head_n &&
		    mw_hash64(mw_str(l->head, p->head_n)) != p->head)
			return false;
	}
	return tail_hash(l) == p->tail;
}

static int
unpack(struct mw_logsrc *l, int fd, struct mw_err *err)
{
	const char *argv[] = {l->program, "-dc", NULL};
	if (lseek(fd, 0, SEEK_SET) < 0)
		return mw_fail_errno(err, "cannot read %s", l->path);
	return spawn(l, argv, fd, err);
}

static int
open_packed(struct mw_logsrc *l, int fd, const struct mw_logsrc_state *s,
            struct mw_err *err)
{
	for (size_t i = 0; s && i < s->n; i++) {
		/* Which of them it is shows only when it is unpacked; mostly none. */
		int r = unpack(l, fd, err);
		if (r < 0)
			return r;
		if (resume_stream(l, &s->v[i])) {
			l->whole = false;
			return 0;
		}
		(void)mw_logsrc_close(l, NULL);
		l->offset = l->head_n = l->tail_n = l->at = 0;
		l->ended = false;
	}
	return unpack(l, fd, err);
}

static int
open_stdin(struct mw_logsrc *l, struct mw_err *err)
{
	struct stat sb;
	MW_AUTOCLOSE int fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return mw_fail_errno(err, "cannot read standard input");
	l->stream = l->passes = true;
	if (fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) && lseek(fd, 0, SEEK_CUR) == 0)
		l->program = unpacker(l->path, fd);
	if (l->program)
		return unpack(l, fd, err);
	l->fd = MW_TAKE_FD(fd);
	return 0;
}

static int
cannot_open(const char *path, struct mw_err *err)
{
	int r = mw_fail_errno(err, "cannot open %s", path);
	if (r == MW_EPERM)
		(void)mw_err_hint(err,
		                  "run it as a user that may read the log: of group adm, "
		                  "say, or systemd-journal");
	return r;
}

static int
not_a_file(const char *path, bool dir, struct mw_err *err)
{
	(void)mw_fail(err, MW_EUSAGE, "%s is no file", path);
	if (dir)
		(void)mw_err_hint(err, "name the logs in it, older ones first");
	return MW_EUSAGE;
}

int
mw_logsrc_open(struct mw_logsrc *l, const char *path, const struct mw_logsrc_state *s,
               bool follow, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	struct stat sb;
	*l = (struct mw_logsrc){.path = path, .fd = -1, .whole = true};
	l->ref_us = clock->now_us(clock);
	if (strcmp(path, "journald") == 0)
		return open_journald(l, s, follow, err);
	if (strcmp(path, "-") == 0)
		return open_stdin(l, err);
	/* A pipe with a name is waited for until somebody writes to it, as by cat(1). */
	bool pipe = stat(path, &sb) == 0 && S_ISFIFO(sb.st_mode);
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | (pipe ? 0 : O_NONBLOCK));
	if (fd < 0 || fstat(fd, &sb) < 0)
		return cannot_open(path, err);
	if (S_ISFIFO(sb.st_mode) || S_ISCHR(sb.st_mode)) { /* <(zcat …), /dev/stdin */
		l->fd = MW_TAKE_FD(fd);
		l->stream = l->passes = true;
		return 0;
	}
	if (!S_ISREG(sb.st_mode))
		return not_a_file(path, S_ISDIR(sb.st_mode), err);
	l->inode = sb.st_ino;
	l->ref_us = MW_MIN(l->ref_us, (int64_t)sb.st_mtim.tv_sec * 1000000 + 1000000);
	l->program = unpacker(path, fd);
	if (l->program)
		return open_packed(l, fd, s, err);
	l->fd = MW_TAKE_FD(fd);
	for (size_t i = 0; s && i < s->n; i++)
		if (resume_file(l, &s->v[i])) {
			l->whole = false;
			break;
		}
	return 0;
}

int
mw_logsrc_rotated(const struct mw_logsrc *l)
{
	struct stat sb;
	if (l->stream || stat(l->path, &sb) < 0)
		return 0; /* between the two renames */
	return sb.st_ino != l->inode ||
	       (uint64_t)sb.st_size < l->offset + (l->in.n - l->at);
}

static int
damaged(const struct mw_logsrc *l, struct mw_err *err)
{
	(void)mw_fail(err, MW_EIO, "%s: %s cannot unpack it to its end", l->path,
	              l->program);
	(void)mw_err_hint(err,
	                  "it is damaged or cut short; to read what is left of it: "
	                  "'%s -dc' into a pipe, and '-' for the log's name",
	                  l->program);
	return MW_EIO;
}

int
mw_logsrc_close(struct mw_logsrc *l, struct mw_err *err)
{
	int status = 0, r = 0;
	bool early = !l->ended;
	if (l->fd >= 0)
		(void)close(l->fd);
	l->fd = -1;
	if (l->pid > 0) {
		if (early)
			(void)kill(l->pid, SIGTERM);
		while (waitpid(l->pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!early && status && l->program)
			r = damaged(l, err);
		else if (!early && status)
			r = mw_fail(err, MW_EIO, "%s: the program that reads it failed",
			            l->path);
	}
	l->pid = 0;
	mw_buf_free(&l->in);
	mw_logform_done(&l->form);
	return r;
}
