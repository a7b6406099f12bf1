#include "replay/net.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	OUT_MAX = 64 * 1024,
	IN_CHUNK = 64 * 1024,
	STOP_GRACE_MS = 3000, /* a stopped run waits this long for a consistent point */
	HUSH_MS = 5000,       /* without a first word, until it is told */
	SLICE_MS = 200
};

struct mw_net {
	CURL *h;
	curl_socket_t fd;
	struct mw_buf in; /* received; consumed up to in_at */
	size_t in_at;
	struct mw_buf out;
	int idle_ms;
	int64_t deadline_us; /* monotonic; 0: none */
	bool (*stopped)(void);
	bool eof;
	bool tcp;
	bool heard;                   /* libcurl passed a line of the server on */
	const struct mw_net_opts *of; /* while it is opened */
	char peer[300];
	char said[300]; /* the server's last refusal during the login */
	char curlerr[CURL_ERROR_SIZE];
};

static int64_t
mono(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c);
}

/* libcurl hands every line of the server over as a "header": the only way to the words
 * with which a login was refused. */
static size_t
on_line(char *p, size_t size, size_t count, void *arg)
{
	struct mw_net *n = arg;
	n->heard = true;
	struct mw_str s = mw_str_trim(mw_str(p, size * count)), tag, rest;
	if (mw_str_cut(s, ' ', &tag, &rest) && (mw_str_istarts(rest, MW_STR("NO ")) ||
	                                        mw_str_istarts(rest, MW_STR("BAD ")) ||
	                                        mw_str_istarts(rest, MW_STR("BYE ")))) {
		size_t k = MW_MIN(rest.n, sizeof n->said - 1);
		for (size_t i = 0; i < k; i++)
			n->said[i] = (unsigned char)rest.p[i] < 32 ? '?' : rest.p[i];
		n->said[k] = '\0';
	}
	return size * count;
}

static size_t
on_data(char *p, size_t size, size_t count, void *arg)
{
	(void)p;
	(void)arg;
	return size * count;
}

static bool
is_loopback(const char *host)
{
	return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
	       strcmp(host, "::1") == 0 || strcmp(host, "[::1]") == 0;
}

static int
login_refused(const struct mw_net *n, const struct mw_net_opts *o, const char *why,
              struct mw_err *err)
{
	const char *who = o->authzid ? o->authzid : o->login;
	if (strstr(n->said, "[UNAVAILABLE]") || strstr(n->said, "[INUSE]"))
		return mw_fail(err, MW_EUNAVAIL, "%s cannot log in %s now: %s", n->peer,
		               who, n->said);
	bool acts = o->authzid && o->login && strcmp(o->login, o->authzid) != 0;
	/* RFC 5530: who logs in is right, so that it says nothing of other users. */
	bool unknown = strstr(n->said, "[AUTHORIZATIONFAILED]") != NULL;
	mw_fail(err, unknown ? MW_ENOUSER : MW_EAUTH,
	        "%s refused the login of %s%s%s: %s", n->peer, acts ? o->login : who,
	        acts ? " for " : "", acts ? who : "", n->said[0] ? n->said : why);
	return unknown
	           ? mw_err_hint(err, "the master's password is right, but the user is "
	                              "not known, or the master may not act for him; "
	                              "with PAM behind Dovecot see the note in 'mailwal "
	                              "setup dovecot'")
	           : MW_EAUTH;
}

int
mw_net_refused(struct mw_net *n, const struct mw_net_opts *o, const char *said,
               struct mw_err *err)
{
	(void)snprintf(n->said, sizeof n->said, "%s", said);
	return login_refused(n, o, said, err);
}

bool
mw_net_is_private(const struct mw_net_opts *o)
{
	return !o->insecure &&
	       (o->kind == MW_NET_IMAPS ||
	        (o->kind == MW_NET_IMAP && is_loopback(o->host) && !o->ca_file));
}

/* What may be wrong with a port that takes connections and does not speak first. */
static const char *const hush_hint[] = {
    [MW_NET_IMAP] = "imaps:// if TLS begins at once on that port",
    [MW_NET_IMAPS] = "is it an IMAP server, and is it well?",
    [MW_NET_SMTP] = "smtp: is not for a port where TLS begins at once (465)",
    [MW_NET_TCP] = "is it a port of LMTP, without TLS from the start?",
    [MW_NET_UNIX] = "is it an LMTP server, and is it well?",
    [MW_NET_TLS] = "is it an IMAP server, and is it well?",
};

static int
fail_hush(const struct mw_net_opts *o, struct mw_err *err)
{
	return mw_err_hint(err, "it took the connection and said nothing: %s",
	                   hush_hint[o->kind]);
}

static void
tell_hush(const struct mw_net *n, const struct mw_net_opts *o)
{
	static atomic_flag told = ATOMIC_FLAG_INIT; /* there are many mailboxes */
	char text[500];
	if (!o->note || atomic_flag_test_and_set(&told))
		return;
	(void)snprintf(text, sizeof text,
	               "%s takes connections and says nothing; still waiting (%s)",
	               n->peer, hush_hint[o->kind]);
	o->note(o->note_arg, text);
}

/* Did libcurl reach a server that has not said a word since? For how long, else 0. */
static int64_t
hush_us(const struct mw_net *n)
{
	curl_off_t reached = 0, now = 0;
	if (n->heard ||
	    curl_easy_getinfo(n->h, CURLINFO_CONNECT_TIME_T, &reached) != CURLE_OK ||
	    curl_easy_getinfo(n->h, CURLINFO_TOTAL_TIME_T, &now) != CURLE_OK || !reached)
		return 0;
	return now - reached;
}

static int
map_curl(struct mw_net *n, const struct mw_net_opts *o, CURLcode rc, struct mw_err *err)
{
	const char *why = n->curlerr[0] ? n->curlerr : curl_easy_strerror(rc);
	long os = 0;
	switch (rc) {
	case CURLE_LOGIN_DENIED:
	case CURLE_AUTH_ERROR:
		return login_refused(n, o, why, err);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		mw_fail(err, MW_EUNAVAIL, "cannot trust the certificate of %s: %s",
		        n->peer, why);
		return mw_err_hint(err,
		                   "--tls-ca FILE names the authority that signed it; "
		                   "--insecure skips the check");
	case CURLE_USE_SSL_FAILED:
		mw_fail(err, MW_EUNAVAIL, "%s offers no TLS", n->peer);
		return mw_err_hint(err,
		                   "imaps:// if it listens there; --insecure sends the "
		                   "password in plain text");
	case CURLE_SSL_CONNECT_ERROR:
		mw_fail(err, MW_EUNAVAIL, "no TLS with %s: %s", n->peer, why);
		return o->kind == MW_NET_SMTP
		           ? MW_EUNAVAIL
		           : mw_err_hint(err, "imaps:// is TLS from the start; imap:// "
		                              "where that port begins without");
	case CURLE_OPERATION_TIMEDOUT:
		mw_fail(err, MW_ETIMEOUT, "cannot reach %s: %s", n->peer, why);
		return hush_us(n) ? fail_hush(o, err) : MW_ETIMEOUT;
	case CURLE_ABORTED_BY_CALLBACK:
		return mw_fail(err, MW_ECANCEL, "interrupted");
	case CURLE_OUT_OF_MEMORY:
		return mw_fail(err, MW_ENOMEM, "out of memory");
	default:
		if (o->kind == MW_NET_UNIX && /* libcurl speaks of a port there */
		    curl_easy_getinfo(n->h, CURLINFO_OS_ERRNO, &os) == CURLE_OK && os)
			why = strerror((int)os);
		return mw_fail(err, MW_EUNAVAIL, "cannot reach %s: %s", n->peer,
		               n->said[0] ? n->said : why);
	}
}

static int
on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct mw_net *n = arg;
	(void)a, (void)b, (void)c, (void)d;
	if (n->of && hush_us(n) > HUSH_MS * INT64_C(1000))
		tell_hush(n, n->of);
	return n->stopped && n->stopped();
}

static void
set_tls(struct mw_net *n, const struct mw_net_opts *o)
{
	curl_easy_setopt(n->h, CURLOPT_SSL_VERIFYPEER, o->insecure ? 0L : 1L);
	curl_easy_setopt(n->h, CURLOPT_SSL_VERIFYHOST, o->insecure ? 0L : 2L);
	curl_easy_setopt(n->h, CURLOPT_SSL_ENABLE_ALPN, 0L);
	if (o->ca_file)
		curl_easy_setopt(n->h, CURLOPT_CAINFO, o->ca_file);
}

static void
set_login(struct mw_net *n, const struct mw_net_opts *o)
{
	long ssl = CURLUSESSL_ALL;
	if (o->insecure)
		ssl = CURLUSESSL_TRY;
	else if (is_loopback(o->host) && !o->ca_file)
		ssl = CURLUSESSL_NONE; /* what never leaves the host needs no TLS */
	curl_easy_setopt(n->h, CURLOPT_USE_SSL, ssl);
	if (!o->login)
		return;
	curl_easy_setopt(n->h, CURLOPT_USERNAME, o->login);
	curl_easy_setopt(n->h, CURLOPT_PASSWORD, o->password);
	curl_easy_setopt(n->h, CURLOPT_SASL_IR, 1L);
	if (o->authzid) {
		curl_easy_setopt(n->h, CURLOPT_SASL_AUTHZID, o->authzid);
		curl_easy_setopt(n->h, CURLOPT_LOGIN_OPTIONS, "AUTH=PLAIN");
	}
}

static int
set_options(struct mw_net *n, const struct mw_net_opts *o, struct mw_err *err)
{
	char url[400];
	const char *scheme = o->kind == MW_NET_IMAP    ? "imap"
	                     : o->kind == MW_NET_IMAPS ? "imaps"
	                     : o->kind == MW_NET_SMTP  ? "smtp"
	                     : o->kind == MW_NET_TLS   ? "https"
	                                               : "http";
	bool six = o->kind != MW_NET_UNIX && strchr(o->host, ':') && o->host[0] != '[';
	if (o->kind == MW_NET_UNIX)
		(void)snprintf(url, sizeof url, "http://localhost");
	else if (snprintf(url, sizeof url, six ? "%s://[%s]:%u" : "%s://%s:%u", scheme,
	                  o->host, o->port) >= (int)sizeof url)
		return mw_fail(err, MW_EUSAGE, "host name too long");
	if (o->kind == MW_NET_UNIX)
		curl_easy_setopt(n->h, CURLOPT_UNIX_SOCKET_PATH, o->host);
	curl_easy_setopt(n->h, CURLOPT_URL, url);
	curl_easy_setopt(n->h, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(n->h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(n->h, CURLOPT_PROXY, "");
	curl_easy_setopt(n->h, CURLOPT_ERRORBUFFER, n->curlerr);
	curl_easy_setopt(n->h, CURLOPT_HEADERFUNCTION, on_line);
	curl_easy_setopt(n->h, CURLOPT_HEADERDATA, n);
	curl_easy_setopt(n->h, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(n->h, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(n->h, CURLOPT_XFERINFODATA, n);
	curl_easy_setopt(n->h, CURLOPT_NOPROGRESS, 0L);
	long ms = o->connect_ms ? o->connect_ms : 20000;
	curl_easy_setopt(n->h, CURLOPT_CONNECTTIMEOUT_MS, ms);
	curl_easy_setopt(n->h, CURLOPT_TIMEOUT_MS, ms);
	if (o->kind <= MW_NET_SMTP || o->kind == MW_NET_TLS)
		set_tls(n, o);
	if (o->kind <= MW_NET_SMTP)
		set_login(n, o);
	return 0;
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static bool curl_ok;

static void
start_curl(void)
{
	curl_ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

int
mw_net_open(const struct mw_net_opts *o, struct mw_net **ret, struct mw_err *err)
{
	(void)pthread_once(&curl_once, start_curl);
	if (!curl_ok)
		return mw_fail(err, MW_ENOMEM, "cannot start libcurl");
	struct mw_net *n = calloc(1, sizeof *n);
	if (!n || !(n->h = curl_easy_init())) {
		free(n);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	bool v6 = strchr(o->host, ':') && o->host[0] != '[';
	n->idle_ms = o->idle_ms ? o->idle_ms : 120000;
	n->stopped = o->stopped;
	if (o->kind == MW_NET_UNIX)
		(void)snprintf(n->peer, sizeof n->peer, "%s", o->host);
	else
		(void)snprintf(n->peer, sizeof n->peer, v6 ? "[%s]:%u" : "%s:%u", o->host,
		               o->port);
	int r = set_options(n, o, err);
	if (!r) {
		n->of = o;
		CURLcode rc = curl_easy_perform(n->h);
		n->of = NULL;
		if (rc)
			r = map_curl(n, o, rc, err);
		else if (curl_easy_getinfo(n->h, CURLINFO_ACTIVESOCKET, &n->fd))
			r = mw_fail(err, MW_EUNAVAIL, "cannot reach %s", n->peer);
	}
	if (r) {
		mw_net_close(n);
		return r;
	}
	int one = 1; /* no 40 ms between a small command and its answer */
	n->tcp = o->kind != MW_NET_UNIX;
	if (n->tcp)
		(void)setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	*ret = n;
	return 0;
}

void
mw_net_cut_at_end(struct mw_net *n, bool yes)
{
	const struct linger l = {.l_onoff = yes, .l_linger = 0};
	if (n->tcp)
		(void)setsockopt(n->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

void
mw_net_close(struct mw_net *n)
{
	if (!n)
		return;
	curl_easy_cleanup(n->h);
	mw_buf_free(&n->in);
	mw_buf_free(&n->out);
	free(n);
}

const char *
mw_net_peer(const struct mw_net *n)
{
	return n->peer;
}

void
mw_net_deadline(struct mw_net *n, int64_t ms)
{
	n->deadline_us = mono() + ms * 1000;
}

/* What came is acknowledged now. A server that leaves Nagle's algorithm on (Cyrus) holds
 * its next small answer back until then, which the kernel would put off for 40 ms. The
 * option lasts until the next answer only. */
static void
acknowledge(const struct mw_net *n)
{
	int one = 1;
	if (n->tcp)
		(void)setsockopt(n->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
}

/* Waits for events; > 0: the socket is ready for one of them. */
static int
wait_for(struct mw_net *n, short events, struct mw_err *err)
{
	int64_t start = mono(), stop_at = 0;
	if (events & POLLIN)
		acknowledge(n);
	for (;;) {
		struct pollfd p = {.fd = n->fd, .events = events};
		int r = poll(&p, 1, SLICE_MS);
		if (r > 0)
			return p.revents;
		if (r < 0 && errno != EINTR)
			return mw_fail_errno(err, "cannot wait for %s", n->peer);
		int64_t now = mono();
		if (now - start > (int64_t)n->idle_ms * 1000 ||
		    (n->deadline_us && now > n->deadline_us))
			return mw_fail(err, MW_ETIMEOUT, "%s does not answer", n->peer);
		if (n->stopped && n->stopped()) {
			if (!stop_at)
				stop_at = now;
			if (now - stop_at > STOP_GRACE_MS * 1000LL)
				return mw_fail(err, MW_ECANCEL, "interrupted");
		}
	}
}

static int
lost(struct mw_net *n, struct mw_err *err)
{
	return mw_fail(err, MW_EUNAVAIL, "%s closed the connection", n->peer);
}

/* One receive without waiting: 1 got bytes, 0 none now, negative when closed. */
static int
receive(struct mw_net *n, struct mw_err *err)
{
	if (n->eof)
		return lost(n, err);
	if (n->in_at) {
		mw_buf_drop(&n->in, n->in_at);
		n->in_at = 0;
	}
	if (mw_buf_reserve(&n->in, IN_CHUNK))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	size_t got = 0;
	CURLcode rc = curl_easy_recv(n->h, n->in.p + n->in.n, IN_CHUNK, &got);
	if (rc == CURLE_AGAIN)
		return 0;
	if (rc || !got) {
		n->eof = true;
		return lost(n, err);
	}
	n->in.n += got;
	return 1;
}

static int
fill(struct mw_net *n, struct mw_err *err)
{
	int r = mw_net_flush(n, err);
	while (!r) {
		r = receive(n, err);
		if (r)
			return r < 0 ? r : 0;
		r = wait_for(n, POLLIN, err);
		if (r > 0)
			r = n->deadline_us && mono() > n->deadline_us
			        ? mw_fail(err, MW_ETIMEOUT, "%s is too slow", n->peer)
			        : 0;
	}
	return r;
}

int
mw_net_greeted(struct mw_net *n, const struct mw_net_opts *o, int64_t ms,
               struct mw_err *err)
{
	bool long_enough = ms > HUSH_MS;
	mw_net_deadline(n, long_enough ? HUSH_MS : ms);
	int r = fill(n, err);
	if (r == MW_ETIMEOUT && long_enough) {
		tell_hush(n, o);
		mw_net_deadline(n, ms - HUSH_MS);
		r = fill(n, err);
	} else if (r == 0) {
		mw_net_deadline(n, ms);
	}
	return r == MW_ETIMEOUT ? fail_hush(o, err) : r;
}

/* Sends all of it. While the peer does not take bytes, what it says is read, up to a
 * bound: a peer that only talks runs into the time limit. */
static int
push(struct mw_net *n, const char *p, size_t len, struct mw_err *err)
{
	while (len) {
		size_t sent = 0;
		CURLcode rc = curl_easy_send(n->h, p, len, &sent);
		if (rc && rc != CURLE_AGAIN)
			return lost(n, err);
		p += sent;
		len -= sent;
		if (rc != CURLE_AGAIN)
			continue;
		bool room = n->in.n - n->in_at < 16 * IN_CHUNK;
		int r = wait_for(n, room && !n->eof ? POLLOUT | POLLIN : POLLOUT, err);
		if (r < 0)
			return r;
		if ((r & POLLIN) && room && !n->eof) {
			struct mw_err ignored;
			(void)receive(n,
			              &ignored); /* what was said before the end counts */
		} else if (r & (POLLERR | POLLNVAL)) {
			return lost(n, err);
		}
	}
	return 0;
}

bool
mw_net_ready(const struct mw_net *n)
{
	struct pollfd p = {.fd = n->fd, .events = POLLOUT};
	return poll(&p, 1, 0) != 0;
}

bool
mw_net_heard(const struct mw_net *n)
{
	struct pollfd p = {.fd = n->fd, .events = POLLIN};
	return n->in.n > n->in_at || poll(&p, 1, 0) > 0;
}

int
mw_net_flush(struct mw_net *n, struct mw_err *err)
{
	if (!n->out.n)
		return 0;
	int r = push(n, (const char *)n->out.p, n->out.n, err);
	mw_buf_clear(&n->out);
	return r;
}

int
mw_net_send_secret(struct mw_net *n, const void *p, size_t len, struct mw_err *err)
{
	int r = mw_net_flush(n, err);
	return r ? r : push(n, p, len, err);
}

int
mw_net_send(struct mw_net *n, const void *p, size_t len, struct mw_err *err)
{
	bool large = len > OUT_MAX / 2; /* goes out as it is, behind what waits */
	if (large || n->out.n + len > OUT_MAX) {
		int r = mw_net_flush(n, err);
		if (r)
			return r;
	}
	if (large)
		return push(n, p, len, err);
	mw_buf_put(&n->out, p, len);
	if (mw_buf_ok(&n->out))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return 0;
}

int
mw_net_line(struct mw_net *n, size_t max, struct mw_str *ret, struct mw_err *err)
{
	size_t seen = 0;
	for (;;) {
		const char *base = (const char *)n->in.p + n->in_at;
		size_t have = n->in.n - n->in_at;
		const char *nl =
		    have > seen ? memchr(base + seen, '\n', have - seen) : NULL;
		if (nl) {
			size_t len = (size_t)(nl - base);
			if (len > max)
				break;
			n->in_at += len + 1;
			if (len && base[len - 1] == '\r')
				len--;
			*ret = mw_str(base, len);
			return 0;
		}
		seen = have;
		if (have > max)
			break;
		int r = fill(n, err);
		if (r)
			return r;
	}
	return mw_fail(err, MW_ELIMIT, "%s sends a line of more than %zu bytes", n->peer,
	               max);
}

int
mw_net_read(struct mw_net *n, uint64_t len, int (*sink)(void *, const void *, size_t),
            void *arg, struct mw_err *err)
{
	int kept = 0;
	while (len) {
		size_t have = n->in.n - n->in_at;
		if (!have) {
			int r = fill(n, err);
			if (r)
				return r;
			continue;
		}
		size_t k = have < len ? have : (size_t)len;
		if (sink && !kept)
			kept = sink(arg, n->in.p + n->in_at, k);
		n->in_at += k;
		len -= k;
	}
	return kept;
}
