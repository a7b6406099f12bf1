#include "milter/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "journal/base/log.h"
#include "journal/base/str.h"
#include "journal/base/util.h"

int
mw_place_parse(const char *spec, struct mw_place *ret, struct mw_err *err)
{
	memset(ret, 0, sizeof *ret);
	ret->family = AF_UNSPEC;
	if (strncmp(spec, "unix:", 5) == 0)
		ret->path = spec + 5;
	else if (strncmp(spec, "local:", 6) == 0)
		ret->path = spec + 6;
	else if (spec[0] == '/')
		ret->path = spec;
	if (ret->path) {
		if (ret->path[0] &&
		    strlen(ret->path) < sizeof(((struct sockaddr_un *)0)->sun_path))
			return 0;
		return mw_fail(
		    err, MW_ECONF,
		    "milter_listen: the socket path in \"%s\" is empty or too long",
		    spec);
	}
	const char *rest = NULL;
	if (strncmp(spec, "inet:", 5) == 0) {
		rest = spec + 5;
	} else if (strncmp(spec, "inet6:", 6) == 0) {
		rest = spec + 6;
		ret->family = AF_INET6;
	} else {
		(void)mw_fail(err, MW_ECONF, "milter_listen: cannot understand \"%s\"",
		              spec);
		return mw_err_hint(err, "use unix:PATH or inet:HOST:PORT");
	}
	struct mw_str s = mw_strz(rest), port = s, host = MW_STR("");
	const char *colon = strrchr(rest, ':');
	if (!mw_str_cut(s, '@', &port, &host) && colon) {
		host = mw_str(rest, (size_t)(colon - rest));
		port = mw_strz(colon + 1);
	}
	if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		host = mw_str(host.p + 1, host.n - 2);
	if (port.n == 0 || port.n >= sizeof ret->port || host.n >= sizeof ret->host) {
		(void)mw_fail(err, MW_ECONF, "milter_listen: no port in \"%s\"", spec);
		return mw_err_hint(err, "use inet:HOST:PORT");
	}
	memcpy(ret->port, port.p, port.n);
	if (host.n)
		memcpy(ret->host, host.p, host.n);
	return 0;
}

/* "systemd": only sockets that systemd passes. */
static bool
is_systemd(const char *spec)
{
	return strcmp(spec, "systemd") == 0;
}

int
mw_listen_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_place p;
	if (conf->milter_listen.n == 0 || conf->milter_listen.n > MW_LISTEN_MAX)
		return mw_fail(err, MW_ECONF, "milter_listen: 1 to %d places",
		               MW_LISTEN_MAX);
	for (size_t i = 0; i < conf->milter_listen.n; i++) {
		int r = is_systemd(conf->milter_listen.v[i])
		            ? 0
		            : mw_place_parse(conf->milter_listen.v[i], &p, err);
		if (r < 0)
			return r;
	}
	if (*conf->milter_socket_group && !getgrnam(conf->milter_socket_group))
		return mw_fail(err, MW_ECONF, "milter_socket_group: no group \"%s\"",
		               conf->milter_socket_group);
	return 0;
}

/* ---- sockets taken over from another mailwald ---- */

static struct mw_listeners inherited; /* by the only thread, at the start */
/* Of them: those that another mailwald had; 0: there is no way back. */
static size_t given;
static struct {
	bool wanted;
	bool changed; /* group and mode of its path were these: */
	gid_t group;
	mode_t mode;
} was[MW_LISTEN_MAX];

void
mw_listen_inherit_done(void)
{
	for (size_t i = 0; i < inherited.n; i++)
		mw_log(MW_LOG_WARN, NULL, "event=not_listening on=%s",
		       inherited.v[i].name);
	mw_listen_close(&inherited);
}

/* Takes number i out of the inherited ones. */
static void
take(size_t i, struct mw_listener *ret)
{
	*ret = inherited.v[i];
	inherited.v[i] = inherited.v[--inherited.n];
	given = 0;
}

/* What a place of the configuration means as an address; false: that cannot be told. */
static bool
resolve(const struct mw_place *p, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof *ret);
	if (p->path) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		memcpy(un.sun_path, p->path, strlen(p->path)); /* length: checked */
		memcpy(ret, &un, sizeof un);
		return true;
	}
	struct addrinfo hint = {.ai_family = p->family,
	                        .ai_socktype = SOCK_STREAM,
	                        .ai_flags = AI_PASSIVE},
	                *ai = NULL;
	if (getaddrinfo(p->host[0] ? p->host : "127.0.0.1", p->port, &hint, &ai) != 0)
		return false;
	memcpy(ret, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	return true;
}

/* Two spellings of a path are one socket; one that was removed is none. */
static bool
same_file(const char *a, const char *b)
{
	struct stat x, y;
	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

static bool
same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_UNIX)
		return same_file(((const struct sockaddr_un *)(const void *)a)->sun_path,
		                 ((const struct sockaddr_un *)(const void *)b)->sun_path);
	if (a->ss_family == AF_INET6) {
		const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
		return x->sin6_port == y->sin6_port &&
		       x->sin6_scope_id == y->sin6_scope_id &&
		       memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
	}
	const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
	return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
}

/* The inherited socket at this place, however either of them is written; inherited.n:
 * none. By name only where the place has no address of its own: port 0, or a host that
 * does not resolve. */
static size_t
find_place(const struct mw_place *p, const char *name)
{
	struct sockaddr_storage want;
	bool known = resolve(p, &want), any_port = !p->path && strcmp(p->port, "0") == 0;
	for (size_t i = 0; i < inherited.n; i++) {
		struct sockaddr_storage have = {0};
		socklen_t n = sizeof have;
		if (strncmp(inherited.v[i].name, "systemd:", 8) == 0)
			continue;
		bool same = known && !any_port
		                ? getsockname(inherited.v[i].fd, (struct sockaddr *)&have,
		                              &n) == 0 &&
		                      same_address(&have, &want)
		                : strcmp(inherited.v[i].name, name) == 0;
		if (same)
			return i;
	}
	return inherited.n;
}

/* The group that a socket made at path now begins with. */
static gid_t
own_group(const char *path)
{
	const char *end = strrchr(path, '/');
	char dir[sizeof((struct sockaddr_un *)0)->sun_path + 2];
	struct stat st;
	(void)snprintf(dir, sizeof dir, "%.*s.", end ? (int)(end + 1 - path) : 0, path);
	return stat(dir, &st) == 0 && st.st_mode & S_ISGID ? st.st_gid : getegid();
}

static int
set_group(const struct mw_conf *conf, const char *path, gid_t have, struct mw_err *err)
{
	const char *s = conf->milter_socket_group;
	const struct group *g = *s ? getgrnam(s) : NULL;
	if (*s && !g)
		return mw_fail(err, MW_ECONF, "milter_socket_group: no group \"%s\"", s);
	gid_t want = g ? g->gr_gid : own_group(path);
	if (want != have && chown(path, (uid_t)-1, want) < 0)
		return mw_fail_errno(err, "cannot give %s to group %s", path,
		                     *s ? s : "of its own");
	return 0;
}

static int
set_mode(const struct mw_conf *conf, const char *path, struct mw_err *err)
{
	if (chmod(path, (mode_t)conf->milter_socket_mode) < 0)
		return mw_fail_errno(err, "cannot set the mode of %s", path);
	return 0;
}

/* Does somebody have a socket there? 0: nobody; else what bind would say. A process that
 * was killed gives up its sockets one after the other, so that its journal may be free a
 * moment before. */
static int
in_use(const struct sockaddr_un *un, uid_t owner)
{
	const int tries = 50, every_us = 20000;
	/* Of another type than ours: so nobody has to serve a connection. */
	MW_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (int i = 0; fd >= 0 && i < tries; i++) {
		if (connect(fd, (const struct sockaddr *)un, sizeof *un) < 0 &&
		    errno != EPROTOTYPE) /* not to be told of another's: let it be */
			return errno == EACCES && owner != geteuid() ? EACCES : 0;
		(void)usleep((useconds_t)every_us);
	}
	return fd >= 0 ? EADDRINUSE : 0;
}

static int
listen_unix(const struct mw_conf *conf, const char *path, struct mw_listener *ret,
            struct mw_err *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;
	memcpy(un.sun_path, path, strlen(path)); /* mw_place_parse checked the length */
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return mw_fail(err, MW_ECONF,
			               "cannot listen on %s: it is there and no socket",
			               path);
		if ((errno = in_use(&un, st.st_uid)) != 0)
			return mw_fail_errno(err, "cannot listen on unix:%s", path);
		(void)unlink(path); /* bind tells if that did not work */
	}
	MW_AUTOCLOSE int fd =
	    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return mw_fail_errno(err, "cannot make a socket");
	/* Nobody gets in before group and mode are set: Linux gives the file the mode of
	 * the descriptor. The umask is every thread's. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&un, sizeof un) < 0)
		return mw_fail_errno(err, "cannot listen on unix:%s", path);
	int r = *conf->milter_socket_group ? set_group(conf, path, (gid_t)-1, err) : 0;
	if (r == 0)
		r = set_mode(conf, path, err);
	if (r < 0)
		return r;
	if (listen(fd, SOMAXCONN) < 0)
		return mw_fail_errno(err, "cannot listen on unix:%s", path);
	ret->unlink = strdup(path);
	mw_listen_mark(ret);
	(void)snprintf(ret->name, sizeof ret->name, "unix:%s", path);
	ret->fd = MW_TAKE_FD(fd);
	return 0;
}

static int
listen_inet(const struct mw_place *p, struct mw_listener *ret, struct mw_err *err)
{
	struct addrinfo hint = {.ai_family = p->family,
	                        .ai_socktype = SOCK_STREAM,
	                        .ai_flags = AI_PASSIVE},
	                *ai = NULL;
	/* Without a host: this machine only. A journal is nobody else's. */
	int g = getaddrinfo(p->host[0] ? p->host : "127.0.0.1", p->port, &hint, &ai);
	if (g != 0)
		return mw_fail(err, MW_ECONF, "milter_listen: %s:%s: %s", p->host,
		               p->port, gai_strerror(g));
	MW_AUTOCLOSE int fd =
	    socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, r = -1;
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
	    bind(fd, ai->ai_addr, ai->ai_addrlen) == 0)
		r = listen(fd, SOMAXCONN);
	int e = errno;
	freeaddrinfo(ai);
	errno = e;
	if (r < 0)
		return mw_fail_errno(err, "cannot listen on inet:%s:%s", p->host,
		                     p->port);
	ret->inet = true;
	(void)snprintf(ret->name, sizeof ret->name, "inet:%.80s:%.30s", p->host, p->port);
	ret->fd = MW_TAKE_FD(fd);
	return 0;
}

static int
from_systemd(struct mw_listeners *ret, int n, struct mw_err *err)
{
	if (n > MW_LISTEN_MAX)
		return mw_fail(err, MW_ECONF, "systemd passed more than %d sockets",
		               MW_LISTEN_MAX);
	for (int i = 0; i < n; i++) {
		struct mw_listener *l = &ret->v[ret->n++];
		*l = (struct mw_listener){.fd = SD_LISTEN_FDS_START + i};
		if (sd_is_socket(l->fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
			return mw_fail(err, MW_ECONF,
			               "systemd passed something that is no listening "
			               "stream socket");
		l->inet = sd_is_socket(l->fd, AF_UNIX, SOCK_STREAM, 1) <= 0;
		int fl = fcntl(l->fd, F_GETFL);
		if (fl < 0 || fcntl(l->fd, F_SETFL, fl | O_NONBLOCK) < 0)
			return mw_fail_errno(err, "cannot use a socket from systemd");
		(void)snprintf(l->name, sizeof l->name, "systemd:%d", i);
	}
	return 0;
}

/* Where it is among the inherited ones; inherited.n: it is not. */
static int
find_spec(const char *spec, struct mw_place *p, size_t *ret, struct mw_err *err)
{
	char name[sizeof((struct mw_listener *)0)->name];
	int r = mw_place_parse(spec, p, err);
	if (r < 0)
		return r;
	if (p->path)
		(void)snprintf(name, sizeof name, "unix:%s", p->path);
	else
		(void)snprintf(name, sizeof name, "inet:%.80s:%.30s", p->host, p->port);
	*ret = find_place(p, name);
	return 0;
}

int
mw_listen_at(const struct mw_conf *conf, const char *spec, struct mw_listener *ret,
             struct mw_err *err)
{
	struct mw_place p;
	size_t i;
	*ret = (struct mw_listener){.fd = -1};
	int r = find_spec(spec, &p, &i, err);
	if (r < 0)
		return r;
	if (i < inherited.n) {
		take(i, ret);
		return 0;
	}
	return p.path ? listen_unix(conf, p.path, ret, err) : listen_inet(&p, ret, err);
}

void
mw_listen_inherit_undo(void)
{
	for (size_t i = 0; i < given && i < inherited.n; i++) {
		struct mw_listener *l = &inherited.v[i];
		if (was[i].changed && chown(l->unlink, (uid_t)-1, was[i].group) == 0)
			(void)chmod(l->unlink, was[i].mode); /* as well as can be */
		mw_listen_leave(l);
	}
	mw_listen_close(&inherited);
}

/* Has it among the inherited ones: one for each time it is asked for. */
static int
have(const struct mw_conf *conf, const char *spec, struct mw_err *err)
{
	struct mw_listener l = {.fd = -1};
	struct mw_place p;
	size_t i;
	int r = find_spec(spec, &p, &i, err);
	if (r < 0)
		return r;
	if (i < inherited.n && !was[i].wanted) {
		was[i].wanted = true;
		return 0;
	}
	if (inherited.n == MW_LISTEN_MAX)
		return 0; /* too many to be made ahead */
	r = p.path ? listen_unix(conf, p.path, &l, err) : listen_inet(&p, &l, err);
	if (r < 0)
		return r;
	was[inherited.n].wanted = true;
	inherited.v[inherited.n++] = l;
	return 0;
}

/* Group and mode of a socket that is handed over as conf wants them. */
static int
fit(const struct mw_conf *conf, size_t i, struct mw_err *err)
{
	const char *path = inherited.v[i].unlink;
	struct stat st;
	if (!was[i].wanted || !path || stat(path, &st) < 0)
		return 0;
	was[i].changed = true;
	was[i].group = st.st_gid;
	was[i].mode = st.st_mode & 07777;
	int r = set_group(conf, path, st.st_gid, err);
	if (r == 0 && was[i].mode != (mode_t)conf->milter_socket_mode)
		r = set_mode(conf, path, err);
	return r;
}

static int
no_systemd(struct mw_err *err)
{
	(void)mw_fail(err, MW_ECONF, "systemd passed no listening socket");
	return mw_err_hint(err, "enable mailwald.socket, or set milter_listen");
}

static int
have_systemd(struct mw_err *err)
{
	for (size_t i = 0; i < given; i++)
		if (strncmp(inherited.v[i].name, "systemd:", 8) == 0)
			return 0;
	return no_systemd(err);
}

/* "smtp:LISTEN->NEXT" */
static int
have_way(const struct mw_conf *conf, const char *spec, struct mw_err *err)
{
	const char *arrow = strstr(spec, "->");
	if (!arrow || arrow - spec < 5)
		return 0; /* the proxy tells that */
	MW_AUTOFREE char *at = strndup(spec + 5, (size_t)(arrow - spec - 5));
	if (!at)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = have(conf, at, err);
	return r < 0 ? mw_err_prefix(err, "proxy_listen") : 0;
}

int
mw_listen_inherit(const struct mw_listeners *l, const struct mw_conf *conf,
                  struct mw_err *err)
{
	int r = 0;
	inherited = *l;
	given = l->n;
	memset(was, 0, sizeof was);
	bool passed = sd_listen_fds(0) > 0; /* then milter_listen is not asked */
	for (size_t i = 0; r == 0 && !passed && i < conf->milter_listen.n; i++)
		r = is_systemd(conf->milter_listen.v[i])
		        ? have_systemd(err)
		        : have(conf, conf->milter_listen.v[i], err);
	for (size_t i = 0; r == 0 && i < conf->proxy_listen.n; i++)
		r = have_way(conf, conf->proxy_listen.v[i], err);
	for (size_t i = 0; r == 0 && i < given; i++) /* last: nothing fails any more */
		r = fit(conf, i, err);
	if (r < 0)
		mw_listen_inherit_undo();
	return r;
}

/* Those that systemd had passed to the mailwald before. */
static bool
take_systemd(struct mw_listeners *ret)
{
	size_t before = ret->n;
	for (size_t i = inherited.n; i-- > 0 && ret->n < MW_LISTEN_MAX;)
		if (strncmp(inherited.v[i].name, "systemd:", 8) == 0)
			take(i, &ret->v[ret->n++]);
	return ret->n > before;
}

int
mw_listen_open(const struct mw_conf *conf, struct mw_listeners *ret, struct mw_err *err)
{
	memset(ret, 0, sizeof *ret);
	int n = sd_listen_fds(1), r = 0;
	if (n > 0)
		return from_systemd(ret, n, err);
	if ((r = mw_listen_check(conf, err)) < 0)
		return r;
	for (size_t i = 0; r == 0 && i < conf->milter_listen.n; i++) {
		struct mw_listener l;
		if (is_systemd(conf->milter_listen.v[i]) && take_systemd(ret))
			continue;
		if (is_systemd(conf->milter_listen.v[i])) {
			r = no_systemd(err);
			break;
		}
		r = mw_listen_at(conf, conf->milter_listen.v[i], &l, err);
		if (r == 0)
			ret->v[ret->n++] = l;
	}
	if (r < 0)
		mw_listen_close(ret);
	return r;
}

bool
mw_listen_survives(const struct mw_listeners *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].unlink || strncmp(l->v[i].name, "systemd:", 8) != 0)
			return false;
	return true;
}

void
mw_listen_leave(struct mw_listener *l)
{
	free(l->unlink);
	l->unlink = NULL;
}

void
mw_listen_mark(struct mw_listener *l)
{
	struct stat st;
	if (!l->unlink || lstat(l->unlink, &st) < 0)
		return;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
}

bool
mw_listen_lost(const struct mw_listener *l)
{
	struct stat st;
	return l->unlink && lstat(l->unlink, &st) == 0 &&
	       (st.st_dev != l->dev || st.st_ino != l->ino);
}

void
mw_listen_remove(struct mw_listener *l)
{
	if (l->unlink && !mw_listen_lost(l))
		(void)unlink(l->unlink); /* a stale one does no harm */
	mw_listen_leave(l);
}

void
mw_listen_close(struct mw_listeners *l)
{
	for (size_t i = 0; i < l->n; i++) {
		mw_listen_remove(&l->v[i]);
		if (l->v[i].fd >= 0)
			(void)close(l->v[i].fd);
	}
	l->n = 0;
}

/* How many descriptors there are, and how many of them are kept. */
static bool
limits(rlim_t *ret_all, rlim_t *ret_kept)
{
	const rlim_t keep = 64;
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return false;
	*ret_all = r.rlim_cur;
	*ret_kept = MW_MIN(r.rlim_cur / 4, keep);
	return true;
}

bool
mw_listen_crowded(int fd)
{
	rlim_t all, kept;
	if (!limits(&all, &kept))
		return false;
	/* A new descriptor has the lowest number that is free. */
	int lowest = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (lowest < 0)
		return errno == EMFILE;
	(void)close(lowest);
	return (rlim_t)lowest >= all - kept;
}

bool
mw_listen_too_far(int fd)
{
	rlim_t all, kept;
	return limits(&all, &kept) && (rlim_t)fd >= all - kept / 2;
}
