#include "milter/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "journal/base/str.h"
#include "journal/base/util.h"
#include "journal/store/control.h"

enum {
	ANSWER_MS = 10000,
	GIVE_MS = 5000, /* the control thread waits: who asks for the status has 8 s */
	TEXT_MAX = 8192
};

static const char taken[] = "take\n"; /* the asker's second word */

union rights {
	struct cmsghdr align;
	char room[CMSG_SPACE(MW_LISTEN_MAX * sizeof(int))];
};

/* A line of the other side, without blanks at its ends; false: none came in time, or it
 * has gone. */
static bool
hear(int fd, int ms, char *buf, size_t size, struct mw_str *ret)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t k = poll(&p, 1, ms) > 0 ? recv(fd, buf, size, 0) : 0;
	*ret = mw_str_trim(mw_str(buf, (size_t)MW_MAX(k, 0)));
	return k > 0;
}

int
mw_handover_give(int fd, const struct mw_listener *v, size_t n, struct mw_err *err)
{
	union rights ctl = {0};
	int fds[MW_LISTEN_MAX];
	MW_BUF_AUTO text = {0};
	size_t k = 0;
	mw_buf_puts(&text, "ok");
	for (size_t i = 0; i < n && i < MW_LISTEN_MAX; i++) {
		if (mw_listen_lost(&v[i])) /* its place is another's */
			continue;
		mw_buf_printf(&text, " %s", v[i].name);
		fds[k++] = v[i].fd;
	}
	n = k;
	if (n == 0)
		return mw_fail(err, MW_ELIMIT, "no listening socket can be handed over");
	mw_buf_putc(&text, '\n');
	if (mw_buf_ok(&text) < 0 || text.n > TEXT_MAX)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	struct iovec iov = {text.p, text.n};
	struct msghdr m = {.msg_iov = &iov,
	                   .msg_iovlen = 1,
	                   .msg_control = ctl.room,
	                   .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	if (sendmsg(fd, &m, MSG_NOSIGNAL) != (ssize_t)text.n)
		return mw_fail_errno(err, "cannot hand the sockets over");
	return 0;
}

int
mw_handover_taken(int fd, struct mw_err *err)
{
	char word[sizeof taken], more;
	struct mw_str said;
	/* It may have come long ago, if this process was stopped, from one that did not
	 * wait for the answer. */
	if (!hear(fd, GIVE_MS, word, sizeof word, &said) ||
	    !mw_str_eq(said, MW_STR("take")) ||
	    recv(fd, &more, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		return mw_fail(err, MW_EUNAVAIL, "who asked for the sockets is gone");
	return 0;
}

/* ---- the new one ---- */

static void
close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

/* "NAME NAME …" to the descriptors, in order. */
static int
name_them(struct mw_str names, const int *fds, size_t n, struct mw_listeners *ret,
          struct mw_err *err)
{
	memset(ret, 0, sizeof *ret);
	while (names.n && ret->n < n) {
		struct mw_str one = names, rest = MW_STR("");
		(void)mw_str_cut(names, ' ', &one,
		                 &rest); /* the last has none behind it */
		names = rest;
		struct mw_listener *l = &ret->v[ret->n];
		l->fd = fds[ret->n++];
		(void)snprintf(l->name, sizeof l->name, "%.*s", (int)one.n, one.p);
		struct sockaddr_storage sa = {0};
		socklen_t len = sizeof sa;
		int on = 0;
		socklen_t on_len = sizeof on;
		if (getsockname(l->fd, (struct sockaddr *)&sa, &len) < 0 ||
		    getsockopt(l->fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &on_len) < 0 || !on)
			return mw_fail(
			    err, MW_EPROTO,
			    "what mailwald handed over is no listening socket");
		l->inet = sa.ss_family != AF_UNIX;
		if (strncmp(l->name, "unix:", 5) == 0)
			l->unlink = strdup(l->name + 5); /* NULL: it stays behind */
		mw_listen_mark(l);
	}
	if (names.n || ret->n != n)
		return mw_fail(err, MW_EPROTO, "mailwald's answer cannot be understood");
	return 0;
}

static int
receive(int fd, struct mw_listeners *ret, struct mw_err *err)
{
	char text[TEXT_MAX + 1];
	union rights ctl = {0};
	int fds[MW_LISTEN_MAX];
	size_t n = 0;
	struct iovec iov = {text, TEXT_MAX};
	struct msghdr m = {.msg_iov = &iov,
	                   .msg_iovlen = 1,
	                   .msg_control = ctl.room,
	                   .msg_controllen = sizeof ctl.room};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (poll(&p, 1, ANSWER_MS) <= 0)
		return mw_fail(err, MW_EUNAVAIL, "the running mailwald does not answer");
	ssize_t k = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	if (k < 0)
		return mw_fail_errno(err, "cannot hear the running mailwald");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		}
	if (k == 0)
		return mw_fail(err, MW_EUNAVAIL, "the running mailwald ends");
	struct mw_str s = mw_str_trim(mw_str(text, (size_t)k));
	if (n == 0 || m.msg_flags & MSG_CTRUNC || !mw_str_starts(s, MW_STR("ok "))) {
		close_all(fds, n);
		(void)mw_fail(err, MW_EPROTO, "the running mailwald says: %.*s",
		              (int)MW_MIN(s.n, (size_t)200), s.p);
		return mw_err_hint(err,
		                   "one that cannot hand over is to be stopped first");
	}
	int r = name_them(mw_str(s.p + 3, s.n - 3), fds, n, ret, err);
	if (r < 0) {
		close_all(fds, n);
		for (size_t i = 0; i < ret->n; i++)
			free(ret->v[i].unlink);
		ret->n = 0;
	}
	return r;
}

/* From here on it ends, unless it says no, or has said so already: it does not wait for
 * long. It may be gone before it says anything. */
static int
take(int fd, struct mw_err *err)
{
	char text[TEXT_MAX];
	struct mw_str said;
	(void)!send(fd, taken, sizeof taken - 1, MSG_NOSIGNAL);
	if (hear(fd, ANSWER_MS, text, sizeof text, &said) &&
	    mw_str_starts(said, MW_STR("error")))
		return mw_fail(err, MW_EUNAVAIL, "the running mailwald says: %.*s",
		               (int)MW_MIN(said.n, (size_t)200), said.p);
	return 0;
}

/* What root made in another's journal, the next mailwald of that user could not open. */
static int
check_user(int fd, struct mw_err *err)
{
	struct ucred peer;
	socklen_t n = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ||
	    peer.uid == geteuid())
		return 0;
	(void)mw_fail(err, MW_EPERM,
	              "the running mailwald is user %u's, and this one user %u's",
	              (unsigned)peer.uid, (unsigned)geteuid());
	return mw_err_hint(
	    err,
	    "start the new one as that user: setpriv --reuid=%u --regid=%u "
	    "--init-groups mailwald -u",
	    (unsigned)peer.uid, (unsigned)peer.gid);
}

int
mw_handover_ask(const struct mw_conf *conf, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = -1;
	struct mw_listeners l;
	int r = mw_control_ask(conf->journal_dir, MW_HANDOVER_REQUEST, &fd, err);
	if (r == 0)
		r = check_user(fd, err);
	if (r == 0)
		r = receive(fd, &l, err);
	if (r == 0)
		r = mw_listen_inherit(&l, conf, err);
	if (r < 0)
		return r;
	r = take(fd, err);
	if (r < 0)
		mw_listen_inherit_undo();
	return r;
}
