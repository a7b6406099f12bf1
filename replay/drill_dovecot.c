#include "replay/drill_scratch.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/fs.h"
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A Dovecot of our own: nothing of the system's configuration is read, it listens on one
 * loopback port, and everything it keeps lies in the scratch directory. Mailboxes are
 * found by the SHA-256 of their names, since these come from envelopes. */

enum {
	START_MS = 10000,
	STOP_MS = 10000,
	STEP_MS = 20,
	TRIES = 3,
	SOCKET_ROOM = 70 /* a unix socket below it has 107 characters */
};

static const char *
program(void)
{
	static const char *const places[] = {"/usr/sbin/dovecot",
	                                     "/usr/local/sbin/dovecot",
	                                     "/usr/libexec/dovecot/dovecot"};
	for (size_t i = 0; i < MW_COUNT(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

/* A port that nobody listens on now. Somebody may take it meanwhile: then Dovecot does
 * not start, and the next one is tried. */
static unsigned
free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
	                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	MW_AUTOCLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &n) < 0)
		return 0;
	return ntohs(a.sin_port);
}

static bool
answers(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
	                        .sin_port = htons((uint16_t)port),
	                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	MW_AUTOCLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
}

/* As root Dovecot has its own users; else all of it runs as this one. */
static void
put_users(struct mw_buf *b)
{
	const struct passwd *pw = geteuid() ? getpwuid(geteuid()) : NULL;
	const struct group *gr = geteuid() ? getgrgid(getegid()) : NULL;
	if (pw)
		mw_buf_printf(b, "default_internal_user = %s\ndefault_login_user = %s\n",
		              pw->pw_name, pw->pw_name);
	if (gr)
		mw_buf_printf(b, "default_internal_group = %s\n", gr->gr_name);
}

static void
put_conf(const struct mw_scratch *s, unsigned port, uid_t uid, gid_t gid,
         const char *password, struct mw_buf *b)
{
	mw_buf_printf(b,
	              "base_dir = %s/run\nstate_dir = %s/state\nlog_path = %s/log\n"
	              "instance_name = mailwal-drill\nprotocols = imap\n"
	              "listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\n"
	              "auth_mechanisms = plain\nauth_username_chars =\n"
	              "first_valid_uid = 1\nfirst_valid_gid = 1\n"
	              "mail_location = maildir:~/mail\nmail_max_userip_connections = 0\n"
	              "mail_privileged_group =\nmail_access_groups =\n",
	              s->dir, s->dir, s->dir);
	put_users(b);
	mw_buf_printf(b, "passdb {\n driver = static\n args = password=%s\n}\n",
	              password);
	mw_buf_printf(b,
	              "userdb {\n driver = static\n args = uid=%lu gid=%lu "
	              "home=%s/mail/%%{sha256:user}\n}\n",
	              (unsigned long)uid, (unsigned long)gid, s->dir);
	mw_buf_puts(b, "namespace inbox {\n inbox = yes\n separator = /\n"
	               " mailbox Sent {\n  auto = create\n  special_use = \\Sent\n }\n}\n"
	               "service anvil {\n chroot =\n}\nservice stats {\n chroot =\n}\n");
	mw_buf_printf(b,
	              "service imap-login {\n chroot =\n inet_listener imap {\n"
	              "  port = %u\n }\n inet_listener imaps {\n  port = 0\n }\n}\n",
	              port);
}

static int
write_secret(const char *dir, const char *name, const struct mw_buf *b,
             struct mw_err *err)
{
	int r = mw_fs_write_secret(mw_fs_posix(), dir, name, b->p, b->n);
	if (r == 0)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot write %s/%s", dir, name);
}

static int
make_dir(const struct mw_scratch *s, const char *name, mode_t mode, uid_t uid, gid_t gid,
         struct mw_err *err)
{
	char path[PATH_MAX + 16];
	(void)snprintf(path, sizeof path, "%s/%s", s->dir, name);
	if ((mkdir(path, mode) < 0 && errno != EEXIST) ||
	    (geteuid() == 0 && chown(path, uid, gid) < 0))
		return mw_fail_errno(err, "cannot make %s", path);
	return 0;
}

/* The last line of Dovecot's log, where there is one. */
static int
did_not_start(const struct mw_scratch *s, struct mw_err *err)
{
	char path[PATH_MAX + 8];
	MW_AUTOFREE void *text = NULL;
	size_t n = 0;
	(void)snprintf(path, sizeof path, "%s/log", s->dir);
	if (mw_fs_read_file(mw_fs_posix(), path, 1 << 20, &text, &n) < 0)
		n = 0;
	while (n && ((char *)text)[n - 1] == '\n')
		n--;
	size_t from = n;
	while (from && ((char *)text)[from - 1] != '\n')
		from--;
	return mw_fail(err, MW_EUNAVAIL, "the private Dovecot does not start%s%.*s",
	               n ? ": " : "", (int)MW_MIN(n - from, (size_t)300),
	               n ? (char *)text + from : "");
}

static pid_t
spawn(const char *path, const char *conf)
{
	pid_t parent = getpid(), pid = fork();
	if (pid != 0)
		return pid;
	/* Ends with us, whatever happens to us; Ctrl-C is not for it. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)setsid();
	if (getppid() != parent)
		_exit(1);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)execl(path, "dovecot", "-F", "-c", conf, (char *)NULL);
	_exit(127);
}

void
mw_scratch_stop(struct mw_scratch *s)
{
	if (s->dovecot <= 0)
		return;
	(void)kill(s->dovecot, SIGTERM);
	for (int ms = 0;; ms += STEP_MS) {
		pid_t r = waitpid(s->dovecot, NULL, WNOHANG);
		if (r == s->dovecot || (r < 0 && errno != EINTR))
			break;
		if (ms == STOP_MS)
			(void)kill(s->dovecot, SIGKILL);
		(void)poll(NULL, 0, STEP_MS);
	}
	s->dovecot = 0;
}

/* 1: it runs; 0: it ended, try another port; negative: no use. */
static int
start(struct mw_scratch *s, const char *path, const char *conf, unsigned port,
      struct mw_err *err)
{
	s->dovecot = spawn(path, conf);
	if (s->dovecot < 0) {
		s->dovecot = 0;
		return mw_fail_errno(err, "cannot start %s", path);
	}
	for (int ms = 0; ms < START_MS; ms += STEP_MS) {
		if (waitpid(s->dovecot, NULL, WNOHANG) == s->dovecot) {
			s->dovecot = 0;
			return 0;
		}
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (answers(port))
			return 1;
		(void)poll(NULL, 0, STEP_MS);
	}
	mw_scratch_stop(s);
	return did_not_start(s, err);
}

int
mw_scratch_dovecot(struct mw_scratch *s, uid_t uid, gid_t gid, struct mw_err *err)
{
	uint8_t dice[16];
	char password[2 * sizeof dice + 2], conf[PATH_MAX + 16];
	const char *path = program();
	int r = 0;
	if (!path) {
		(void)mw_fail(err, MW_EUNAVAIL, "no Dovecot is installed here");
		(void)mw_err_hint(err, "the default, --to scratch, needs none");
		return MW_EUNAVAIL;
	}
	if (strlen(s->dir) > SOCKET_ROOM || strpbrk(s->dir, " \t\n\"'#{}%"))
		return mw_fail(
		    err, MW_EUSAGE,
		    "the scratch directory %s has a name that is too long or too "
		    "odd for Dovecot; choose another one by --scratch",
		    s->dir);
	mw_random(dice, sizeof dice);
	mw_hex(password, dice, sizeof dice);
	/* Dovecot's own users walk through it; what is inside has modes of its own. */
	if (chmod(s->dir, 0711) < 0)
		return mw_fail_errno(err, "cannot open %s", s->dir);
	if ((r = make_dir(s, "run", 0755, 0, 0, err)) ||
	    (r = make_dir(s, "state", 0755, 0, 0, err)) ||
	    (r = make_dir(s, "mail", 0700, uid, gid, err)))
		return r;
	(void)snprintf(conf, sizeof conf, "%s/dovecot.conf", s->dir);
	(void)snprintf(s->password_file, sizeof s->password_file, "%s/password", s->dir);
	for (int i = 0; i < TRIES && r == 0; i++) {
		struct mw_buf text = {0}, secret = {0};
		unsigned port = free_port();
		put_conf(s, port, uid, gid, password, &text);
		mw_buf_puts(&secret, password);
		r = mw_buf_ok(&text) || mw_buf_ok(&secret)
		        ? mw_fail(err, MW_ENOMEM, "out of memory")
		        : write_secret(s->dir, "dovecot.conf", &text, err);
		if (r == 0)
			r = write_secret(s->dir, "password", &secret, err);
		mw_buf_wipe(&text);
		mw_buf_wipe(&secret);
		(void)snprintf(s->target, sizeof s->target, "imap://127.0.0.1:%u", port);
		r = r ? r : start(s, path, conf, port, err);
	}
	explicit_bzero(password, sizeof password);
	return r > 0 ? 0 : r ? r : did_not_start(s, err);
}
