/* netmap.c - alias tables on a socket: Postfix socketmap_table(5) and tcp_table(5). One
 * connection per message and table; every wait ends at the message's deadline. */
#include "milter/identity_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "milter/host_addr.h"

enum {
	REPLY_LIMIT = 1 << 20,
	SPEC_MAX = 512,
	HURRY_MS = 100 /* how often a wait looks whether it is to end */
};

struct netmap {
	char *spec;                /* for messages */
	char *name;                /* socketmap's map name; NULL: tcp_table */
	struct sockaddr_un un;     /* its socket, or */
	struct mw_host_addr *host; /* where it is in a network; else NULL */
};

static int
failed(const struct netmap *t, const char *what, struct mw_err *err)
{
	return mw_fail(err, MW_EUNAVAIL, "alias table %s: %s", t->spec, what);
}

/* Waits for the socket; 0, MW_ETIMEOUT or MW_EUNAVAIL. */
static int
wait_for(const struct netmap *t, const struct mw_use *u, short events, struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	for (;;) {
		int64_t left = u->deadline_mono_us - c->mono_us(c);
		if (left <= 0 || (u->hurry && atomic_load(u->hurry)))
			return mw_fail(err, MW_ETIMEOUT, "alias table %s: timed out",
			               t->spec);
		struct pollfd p = {.fd = u->fd, .events = events};
		int r = poll(&p, 1, (int)MW_MIN(left / 1000 + 1, HURRY_MS));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return failed(t, strerror(errno), err);
	}
}

static int
dial_to(const struct netmap *t, struct mw_use *u, const struct sockaddr *addr,
        socklen_t len, struct mw_err *err)
{
	u->fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (u->fd < 0)
		return failed(t, strerror(errno), err);
	if (connect(u->fd, addr, len) < 0) {
		if (errno != EINPROGRESS)
			return failed(t, strerror(errno), err);
		int r = wait_for(t, u, POLLOUT, err), e = 0;
		socklen_t n = sizeof e;
		if (r < 0)
			return r;
		if (getsockopt(u->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 || e)
			return failed(t, strerror(e ? e : errno), err);
	}
	return 0;
}

static int
dial(const struct netmap *t, struct mw_use *u, struct mw_err *err)
{
	struct sockaddr_storage addr;
	socklen_t len;
	if (!t->host)
		return dial_to(t, u, (const struct sockaddr *)&t->un, sizeof t->un, err);
	int r = mw_host_addr_get(t->host, u->deadline_mono_us, u->hurry, &addr, &len);
	if (r == MW_ETIMEOUT)
		return mw_fail(err, r,
		               "alias table %s: the look-up of its host timed out",
		               t->spec);
	if (r < 0)
		return failed(t, "its host name does not resolve", err);
	r = dial_to(t, u, (const struct sockaddr *)&addr, len, err);
	if (r < 0)
		mw_host_addr_failed(t->host);
	return r;
}

static int
send_all(const struct netmap *t, struct mw_use *u, struct mw_str s, struct mw_err *err)
{
	while (s.n) {
		ssize_t k = send(u->fd, s.p, s.n, MSG_NOSIGNAL);
		if (k >= 0) {
			s = mw_str(s.p + k, s.n - (size_t)k);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return failed(t, strerror(errno), err);
		int r = wait_for(t, u, POLLOUT, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* 1: *ret is the text of a whole netstring or line in b; 0: more is needed. */
static int
whole_reply(const struct netmap *t, const struct mw_buf *b, struct mw_str *ret,
            struct mw_err *err)
{
	struct mw_str s = mw_buf_str(b), head, rest;
	if (!t->name) {
		if (!mw_str_cut(s, '\n', ret, &rest))
			return 0;
		*ret = mw_str_trim(*ret);
		return 1;
	}
	if (!mw_str_cut(s, ':', &head, &rest))
		return s.n > 9 ? failed(t, "the answer is no netstring", err) : 0;
	size_t n = 0;
	for (size_t i = 0; i < head.n; i++) {
		if (head.p[i] < '0' || head.p[i] > '9' || i > 8)
			return failed(t, "the answer is no netstring", err);
		n = n * 10 + (size_t)(head.p[i] - '0');
	}
	if (head.n == 0 || n > REPLY_LIMIT)
		return failed(t, "the answer is no netstring", err);
	if (rest.n < n + 1)
		return 0;
	if (rest.p[n] != ',')
		return failed(t, "the answer is no netstring", err);
	*ret = mw_str(rest.p, n);
	return 1;
}

static int
receive(const struct netmap *t, struct mw_use *u, struct mw_buf *b, struct mw_str *ret,
        struct mw_err *err)
{
	char chunk[4096];
	for (;;) {
		int r = whole_reply(t, b, ret, err);
		if (r != 0)
			return r;
		if (b->n > REPLY_LIMIT)
			return failed(t, "the answer is too long", err);
		ssize_t k = recv(u->fd, chunk, sizeof chunk, 0);
		if (k > 0) {
			mw_buf_put(b, chunk, (size_t)k);
			if (mw_buf_ok(b) < 0)
				return mw_fail(err, MW_ENOMEM, "out of memory");
		} else if (k == 0) {
			return failed(t, "the connection was closed", err);
		} else if (errno == EAGAIN) {
			r = wait_for(t, u, POLLIN, err);
			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return failed(t, strerror(errno), err);
		}
	}
}

static void
put_decoded(struct mw_buf *out, struct mw_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c;
		if (s.p[i] == '%' && i + 2 < s.n && mw_unhex(&c, s.p + i + 1, 1)) {
			mw_buf_putc(out, (char)c);
			i += 2;
		} else {
			mw_buf_putc(out, s.p[i]);
		}
	}
}

static void
put_request(const struct netmap *t, struct mw_str key, struct mw_buf *out)
{
	if (t->name) {
		mw_buf_printf(out, "%zu:%s ", strlen(t->name) + 1 + key.n, t->name);
		mw_buf_putstr(out, key);
		mw_buf_putc(out, ',');
		return;
	}
	mw_buf_puts(out, "get ");
	for (size_t i = 0; i < key.n; i++) {
		unsigned char c = (unsigned char)key.p[i];
		if (c == '%' || c <= ' ' || c >= 0x7f)
			mw_buf_printf(out, "%%%02x", c);
		else
			mw_buf_putc(out, (char)c);
	}
	mw_buf_putc(out, '\n');
}

static int
understand(const struct netmap *t, struct mw_str reply, struct mw_buf *out,
           struct mw_err *err)
{
	struct mw_str word = reply, rest = MW_STR("");
	(void)mw_str_cut(reply, ' ', &word, &rest); /* one word only: no rest */
	if (t->name) {
		if (mw_str_eq(word, MW_STR("NOTFOUND")))
			return 0;
		if (!mw_str_eq(word, MW_STR("OK")))
			return failed(t, "the server reports a failure", err);
		mw_buf_putstr(out, rest);
	} else {
		if (mw_str_eq(word, MW_STR("500")))
			return 0;
		if (!mw_str_eq(word, MW_STR("200")))
			return failed(t, "the server reports a failure", err);
		put_decoded(out, rest);
	}
	if (mw_buf_ok(out) < 0)
		return mw_fail(err, MW_ELIMIT, "an alias result is too long");
	return mw_str_trim(mw_buf_str(out)).n ? 1 : 0;
}

static int
netmap_lookup(void *table, struct mw_use *u, struct mw_str key, struct mw_buf *out,
              struct mw_err *err)
{
	const struct netmap *t = table;
	MW_BUF_AUTO b = {.max = 4 * REPLY_LIMIT};
	struct mw_str reply = MW_STR("");
	int r = u->fd < 0 ? dial(t, u, err) : 0;
	if (r < 0)
		return r;
	put_request(t, key, &b);
	if (mw_buf_ok(&b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = send_all(t, u, mw_buf_str(&b), err);
	mw_buf_clear(&b);
	if (r >= 0)
		r = receive(t, u, &b, &reply, err);
	return r < 0 ? r : understand(t, reply, out, err);
}

static int
netmap_begin(void *table, struct mw_use *u, struct mw_err *err)
{
	(void)table;
	(void)err;
	u->fd = -1; /* connected at the first look-up */
	return 0;
}

static void
netmap_end(void *table, struct mw_use *u)
{
	(void)table;
	if (u->fd >= 0)
		(void)close(u->fd);
}

static void
netmap_close(void *table)
{
	struct netmap *t = table;
	mw_host_addr_free(t->host);
	free(t->spec);
	free(t->name);
	free(t);
}

/* "HOST:PORT", HOST may stand in brackets. Capture does not depend on the DNS, nor does
 * the start. */
static int
set_inet(struct netmap *t, char *where, struct mw_err *err)
{
	char *colon = strrchr(where, ':');
	if (!colon || colon == where || !colon[1])
		return mw_fail(err, MW_ECONF, "identities: \"%s\" lacks HOST:PORT",
		               t->spec);
	*colon = 0;
	char *host = where;
	if (host[0] == '[' && colon[-1] == ']') {
		colon[-1] = 0;
		host++;
	}
	t->host = mw_host_addr_new(host, colon + 1);
	return t->host ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

static int
set_unix(struct netmap *t, const char *path, struct mw_err *err)
{
	if (!*path || strlen(path) >= sizeof t->un.sun_path)
		return mw_fail(err, MW_ECONF, "identities: \"%s\": bad socket path",
		               t->spec);
	t->un.sun_family = AF_UNIX;
	memcpy(t->un.sun_path, path, strlen(path) + 1);
	return 0;
}

/* where: what stands behind the kind, of which set_it may write its own copy. */
static int
netmap_open(const char *kind, const char *where,
            int (*set_it)(struct netmap *, char *, struct mw_err *), void **ret,
            struct mw_err *err)
{
	char own[SPEC_MAX];
	struct netmap *t = calloc(1, sizeof *t);
	int r;
	if (!t || asprintf(&t->spec, "%s:%s", kind, where) < 0) {
		free(t);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	if (strlen(where) >= sizeof own) {
		r = mw_fail(err, MW_ECONF, "identities: a table's place is too long");
	} else {
		memcpy(own, where, strlen(where) + 1);
		r = set_it(t, own, err);
	}
	if (r < 0)
		netmap_close(t);
	else
		*ret = t;
	return r;
}

static int
tcp_open(const char *where, void **ret, struct mw_err *err)
{
	return netmap_open("tcp", where, set_inet, ret, err);
}

static int
set_socketmap(struct netmap *t, char *place, struct mw_err *err)
{
	char *name = strrchr(place, ':');
	if (!name || !name[1])
		return mw_fail(err, MW_ECONF, "identities: \"%s\" lacks its map name",
		               t->spec);
	*name++ = '\0';
	if (!(t->name = strdup(name)))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (strncmp(place, "unix:", 5) == 0)
		return set_unix(t, place + 5, err);
	if (strncmp(place, "inet:", 5) == 0)
		return set_inet(t, place + 5, err);
	return mw_fail(err, MW_ECONF,
	               "identities: \"%s\" is neither unix: nor inet:", t->spec);
}

static int
socketmap_open(const char *where, void **ret, struct mw_err *err)
{
	return netmap_open("socketmap", where, set_socketmap, ret, err);
}

const struct mw_table_kind mw_table_socketmap = {
    .network = true,
    .open = socketmap_open,
    .close = netmap_close,
    .begin = netmap_begin,
    .end = netmap_end,
    .lookup = netmap_lookup,
};

const struct mw_table_kind mw_table_tcp = {
    .network = true,
    .open = tcp_open,
    .close = netmap_close,
    .begin = netmap_begin,
    .end = netmap_end,
    .lookup = netmap_lookup,
};
