#include "milter/helper.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "milter/spf.h"

enum {
	ASKED_MAX = 20000, /* then a fresh process: its cache only grows */
	BACK_OFF_FIRST_US = 100 * 1000,
	BACK_OFF_MAX_US = 30 * 1000 * 1000,
	GRACE_US = 250 * 1000, /* the helper's own deadline comes first */
	NAME_KEPT = MW_SPF_NAME_MAX + 100
};

static int64_t
now_us(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c);
}

/* ---- set-up ---- */

/* Beside our own program, as in a build; else where it is installed. */
static int
find_program(char *out, size_t n, struct mw_err *err)
{
	char self[400];
	ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash = len > 0 ? memrchr(self, '/', (size_t)len) : NULL;
	if (slash) {
		(void)snprintf(out, n, "%.*s/mailwald-spf", (int)(slash - self), self);
		if (access(out, X_OK) == 0)
			return 0;
	}
	(void)snprintf(out, n, "%s/mailwald-spf", MW_LIBEXEC_DIR);
	if (access(out, X_OK) == 0)
		return 0;
	(void)mw_fail(err, MW_ECONF, "spf: there is no program %s", out);
	(void)mw_err_hint(err, "install it, or set spf = no");
	return MW_ECONF;
}

int
mw_helper_setup(const struct mw_conf *conf, struct mw_helper_setup *ret,
                struct mw_err *err)
{
	memset(ret, 0, sizeof *ret);
	ret->uid = (uid_t)-1;
	ret->gid = (gid_t)-1;
	ret->timeout_us = conf->spf_timeout;
	if ((size_t)snprintf(ret->host, sizeof ret->host, "%s", conf->spf_rec_domain) >=
	    sizeof ret->host)
		return mw_fail(err, MW_ECONF, "spf_rec_domain is too long");
	if (geteuid() == 0) {
		const struct passwd *pw = getpwnam(conf->spf_user);
		if (!pw || pw->pw_uid == 0)
			return mw_fail(err, MW_ECONF, "spf_user: no user \"%s\"%s",
			               conf->spf_user, pw ? " but root" : "");
		ret->uid = pw->pw_uid;
		ret->gid = pw->pw_gid;
	}
	return find_program(ret->path, sizeof ret->path, err);
}

void
mw_helper_init(struct mw_helper *h, const struct mw_helper_setup *s, int stop_fd)
{
	memset(h, 0, sizeof *h);
	h->setup = s;
	h->stop_fd = stop_fd;
	h->fd = -1;
}

/* ---- the process ---- */

void
mw_helper_end(struct mw_helper *h)
{
	if (h->fd >= 0)
		(void)close(h->fd);
	h->fd = -1;
	if (h->pid == 0)
		return;
	(void)kill(h->pid, SIGKILL); /* ours and not yet waited for */
	while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
		;
	h->pid = 0;
}

static void
died(struct mw_helper *h)
{
	mw_helper_end(h);
	h->deaths++;
	h->back_off_us =
	    h->back_off_us == 0
	        ? 1 /* the first is started again at once */
	        : MW_MIN(MW_MAX(h->back_off_us * 2, BACK_OFF_FIRST_US), BACK_OFF_MAX_US);
}

/* True: stopped meanwhile. */
static bool
wait_us(struct mw_helper *h, int64_t us)
{
	struct pollfd p = {.fd = h->stop_fd, .events = POLLIN};
	return poll(&p, 1, (int)(us / 1000)) > 0;
}

static int
spawn(struct mw_helper *h, int theirs)
{
	const struct mw_helper_setup *s = h->setup;
	char name[] = "mailwald-spf", uid[24], gid[24], parent[24];
	char host[sizeof s->host + 8];
	(void)snprintf(uid, sizeof uid, "--uid=%u", (unsigned)s->uid);
	(void)snprintf(gid, sizeof gid, "--gid=%u", (unsigned)s->gid);
	(void)snprintf(parent, sizeof parent, "--parent=%ld", (long)getpid());
	(void)snprintf(host, sizeof host, "--host=%s", s->host);
	char *argv[] = {name, parent, host, uid, gid, NULL};
	if (s->uid == (uid_t)-1)
		argv[3] = NULL;
	char path[] = "PATH=/usr/bin:/bin", res[] = "RES_OPTIONS=timeout:3 attempts:2";
	char *env[] = {path, res, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	int r = posix_spawn_file_actions_init(&files);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&files, theirs, MW_SPF_FD);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(&files, MW_SPF_FD + 1);
	if (r == 0)
		r = posix_spawnattr_init(&attr);
	if (r == 0) {
		(void)posix_spawnattr_setsigmask(&attr, &none);
		(void)posix_spawnattr_setsigdefault(&attr, &all);
		(void)posix_spawnattr_setpgroup(&attr, 0);
		(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
		                                          POSIX_SPAWN_SETSIGDEF |
		                                          POSIX_SPAWN_SETPGROUP);
		r = posix_spawn(&h->pid, s->path, &files, &attr, argv, env);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&files);
	if (r != 0)
		h->pid = 0;
	return r;
}

static int
start(struct mw_helper *h, struct mw_err *err)
{
	int pair[2];
	if (h->back_off_us && wait_us(h, h->back_off_us))
		return mw_fail(err, MW_ECANCEL, "stopped");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		died(h);
		return mw_fail_errno(err, "cannot make a socket pair");
	}
	int r = spawn(h, pair[1]);
	(void)close(pair[1]);
	h->fd = pair[0];
	h->asked = 0;
	if (r != 0) {
		died(h);
		errno = r;
		return mw_fail_errno(err, "cannot start %s", h->setup->path);
	}
	return 0;
}

/* ---- question and answer ---- */

/* A field ends with NUL: a value that has one, or runs on, is one the helper refuses. */
static void
put_field(struct mw_buf *b, struct mw_str s)
{
	size_t n = MW_MIN(s.n, (size_t)NAME_KEPT);
	for (size_t i = 0; i < n; i++)
		mw_buf_putc(b, s.p[i] ? s.p[i] : '\1');
	mw_buf_putc(b, '\0');
}

static bool
fields(struct mw_helper *h, size_t n, struct mw_str say[MW_SPF_SAY_N])
{
	size_t at = 0;
	for (int i = 0; i < MW_SPF_SAY_N; i++) {
		const char *p = h->packet + at;
		const char *end = at < n ? memchr(p, 0, n - at) : NULL;
		if (!end)
			return false;
		say[i] = mw_str(p, (size_t)(end - p));
		at += say[i].n + 1;
	}
	return at == n;
}

/* What comes from the helper is as little to be trusted as what it reads. */
static int
understand(struct mw_helper *h, size_t n, struct mw_spf *io, struct mw_err *err)
{
	struct mw_str say[MW_SPF_SAY_N];
	enum mw_spf_result result;
	if (!fields(h, n, say) || !mw_spf_result_parse(say[MW_SPF_SAY_RESULT], &result))
		return mw_fail(err, MW_EPROTO, "the SPF helper answered nonsense");
	io->result = result;
	io->code = (uint32_t)strtoul(say[MW_SPF_SAY_CODE].p, NULL, 10);
	io->record = say[MW_SPF_SAY_RECORD];
	io->explanation = say[MW_SPF_SAY_EXPLANATION];
	io->reason = say[MW_SPF_SAY_REASON];
	io->library = say[MW_SPF_SAY_LIBRARY];
	return 0;
}

static int
exchange(struct mw_helper *h, struct mw_spf *io, struct mw_err *err)
{
	MW_BUF_AUTO ask = {0};
	const int64_t until = now_us() + h->setup->timeout_us;
	mw_buf_printf(&ask, "%lld",
	              (long long)MW_MAX((h->setup->timeout_us - GRACE_US) / 1000, 1));
	mw_buf_putc(&ask, '\0');
	put_field(&ask, io->ip);
	put_field(&ask, io->helo);
	put_field(&ask, io->from);
	if (mw_buf_ok(&ask) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (send(h->fd, ask.p, ask.n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)ask.n)
		return mw_fail(err, MW_EUNAVAIL, "the SPF helper died");
	for (;;) {
		struct pollfd p[2] = {{.fd = h->fd, .events = POLLIN},
		                      {.fd = h->stop_fd, .events = POLLIN}};
		int64_t left = until - now_us();
		int r = left > 0 ? poll(p, 2, (int)MW_MIN(left / 1000 + 1, INT_MAX)) : 0;
		if (r < 0 && errno == EINTR)
			continue;
		if (p[1].revents)
			return mw_fail(err, MW_ECANCEL, "stopped");
		if (r <= 0)
			return mw_fail(err, MW_ETIMEOUT, "not within spf_timeout");
		ssize_t n = recv(h->fd, h->packet, sizeof h->packet, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return mw_fail(err, MW_EUNAVAIL, "the SPF helper died");
		return understand(h, (size_t)n, io, err);
	}
}

int
mw_helper_ask(struct mw_helper *h, struct mw_spf *io, struct mw_err *err)
{
	struct mw_err mine = {0};
	if (h->asked >= ASKED_MAX)
		mw_helper_end(h);
	int r = h->pid ? 0 : start(h, &mine);
	if (r == 0) {
		h->asked++;
		r = exchange(h, io, &mine);
		if (r < 0 && r != MW_ECANCEL)
			died(h);
		else if (r == 0)
			h->back_off_us = 0;
	}
	if (r < 0) {
		(void)snprintf(h->packet, sizeof h->packet, "%s", mine.msg);
		io->result = MW_SPF_TEMPERROR;
		io->code = 0;
		io->record = io->explanation = io->library = MW_STR("");
		io->reason = mw_strz(h->packet);
		if (err)
			*err = mine;
	}
	return r;
}
