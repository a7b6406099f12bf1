#include "replay/sink.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	LINE_LIMIT = 4096,
	TOKENS = 256 /* canaries remembered, the oldest forgotten */
};

#define CANARY "mailwal-canary-"

enum phase {
	COMMANDS,
	DATA,
	CHUNK
};

struct client {
	int fd;
	enum phase phase;
	uint64_t chunk;    /* bytes of BDAT still to come */
	bool last, canary; /* its last chunk; the message is a canary */
	char in[LINE_LIMIT];
	size_t n;
};

struct mw_sink {
	int fd, wake[2];
	pthread_t thread;
	pthread_mutex_t mu; /* guards count, token, n_token */
	pthread_cond_t came;
	uint64_t count;
	char token[TOKENS][40];
	size_t n_token;
	char where[80];
	struct client *client[MW_SINK_CLIENTS];
	size_t n_client;
};

static void
say(struct client *c, const char *text)
{
	size_t n = strlen(text);
	/* Answers are short and clients wait for them: a full buffer is a broken one. */
	if (c->fd >= 0 &&
	    send(c->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n) {
		(void)close(c->fd);
		c->fd = -1;
	}
}

static void
taken(struct mw_sink *s, struct client *c)
{
	if (!c->canary) {
		(void)pthread_mutex_lock(&s->mu);
		s->count++;
		(void)pthread_mutex_unlock(&s->mu);
	}
	c->canary = false;
	c->phase = COMMANDS;
	say(c, "250 2.0.0 swallowed\r\n");
}

static void
recipient(struct mw_sink *s, struct client *c, const char *line)
{
	const char *at = strstr(line, CANARY);
	if (!at)
		return;
	at += sizeof CANARY - 1;
	size_t n = strcspn(at, "@> ");
	c->canary = true;
	(void)pthread_mutex_lock(&s->mu);
	char *slot = s->token[s->n_token++ % TOKENS];
	(void)snprintf(slot, sizeof s->token[0], "%.*s", (int)MW_MIN(n, 39), at);
	(void)pthread_cond_broadcast(&s->came);
	(void)pthread_mutex_unlock(&s->mu);
}

static bool
is(const char *line, const char *verb)
{
	return strncasecmp(line, verb, strlen(verb)) == 0;
}

static void
command(struct mw_sink *s, struct client *c, char *line)
{
	if (is(line, "EHLO") || is(line, "LHLO")) {
		say(c, "250-mailwal swallows everything\r\n250-PIPELINING\r\n"
		       "250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 CHUNKING\r\n");
	} else if (is(line, "DATA")) {
		c->phase = DATA;
		say(c, "354 go on\r\n");
	} else if (is(line, "BDAT")) {
		char *end;
		c->chunk = strtoull(line + 4, &end, 10);
		c->last = strcasestr(end, "LAST") != NULL;
		c->phase = CHUNK;
	} else if (is(line, "QUIT")) {
		say(c, "221 2.0.0 bye\r\n");
		if (c->fd >= 0)
			(void)close(c->fd);
		c->fd = -1;
	} else {
		if (is(line, "RCPT"))
			recipient(s, c, line);
		if (is(line, "MAIL") || is(line, "RSET"))
			c->canary = false;
		say(c, "250 2.0.0 ok\r\n");
	}
}

/* Works off what has come; what is left is an unfinished line. */
static void
digest(struct mw_sink *s, struct client *c)
{
	size_t at = 0;
	while (c->fd >= 0) {
		if (c->phase == CHUNK) {
			size_t k = (size_t)MW_MIN(c->chunk, (uint64_t)(c->n - at));
			at += k;
			c->chunk -= k;
			if (c->chunk)
				break;
			if (c->last) {
				taken(s, c);
			} else {
				c->phase = COMMANDS;
				say(c, "250 2.0.0 ok\r\n");
			}
			continue;
		}
		char *nl = memchr(c->in + at, '\n', c->n - at);
		if (!nl)
			break;
		size_t len = (size_t)(nl - c->in) - at;
		if (len && c->in[at + len - 1] == '\r')
			len--;
		c->in[at + len] = '\0';
		if (c->phase == COMMANDS)
			command(s, c, c->in + at);
		else if (len == 1 && c->in[at] == '.')
			taken(s, c);
		at = (size_t)(nl - c->in) + 1;
	}
	memmove(c->in, c->in + at, c->n - at);
	c->n -= at;
	if (c->n == sizeof c->in && c->phase == DATA) {
		c->n = 1; /* a long line of a content: one byte stands for it */
		c->in[0] = 'x';
	} else if (c->n == sizeof c->in && c->fd >= 0) {
		(void)close(c->fd);
		c->fd = -1;
	}
}

static void
hear(struct mw_sink *s, struct client *c)
{
	ssize_t k = recv(c->fd, c->in + c->n, sizeof c->in - c->n, MSG_DONTWAIT);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k <= 0) {
		(void)close(c->fd);
		c->fd = -1;
		return;
	}
	c->n += (size_t)k;
	digest(s, c);
}

static void
welcome(struct mw_sink *s)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	struct client *c = fd >= 0 ? calloc(1, sizeof *c) : NULL;
	if (!c) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	c->fd = fd;
	s->client[s->n_client++] = c;
	say(c, "220 mailwal\r\n");
}

static void *
serve(void *arg)
{
	struct mw_sink *s = arg;
	for (;;) {
		struct pollfd p[MW_SINK_CLIENTS + 2];
		bool room = s->n_client < MW_SINK_CLIENTS;
		p[0] = (struct pollfd){.fd = s->wake[0], .events = POLLIN};
		p[1] = (struct pollfd){.fd = room ? s->fd : -1, .events = POLLIN};
		for (size_t i = 0; i < s->n_client; i++)
			p[i + 2] =
			    (struct pollfd){.fd = s->client[i]->fd, .events = POLLIN};
		if (poll(p, s->n_client + 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[0].revents)
			return NULL;
		size_t n = s->n_client, k = 0;
		for (size_t i = 0; i < n; i++)
			if (p[i + 2].revents)
				hear(s, s->client[i]);
		for (size_t i = 0; i < n; i++) {
			if (s->client[i]->fd >= 0)
				s->client[k++] = s->client[i];
			else
				free(s->client[i]);
		}
		s->n_client = k;
		if (p[1].revents)
			welcome(s);
	}
}

/* "127.0.0.1:PORT" or "[::1]:PORT" */
static int
address(const char *where, struct sockaddr_storage *a, socklen_t *len)
{
	struct sockaddr_in *four = (struct sockaddr_in *)a;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)a;
	const char *colon = strrchr(where, ':');
	char *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	memset(a, 0, sizeof *a);
	if (!colon || *end || port < 1 || port > 65535)
		return MW_EUSAGE;
	if (strncmp(where, "127.0.0.1:", 10) == 0) {
		four->sin_family = AF_INET;
		four->sin_port = htons((uint16_t)port);
		four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof *four;
		return 0;
	}
	if (strncmp(where, "[::1]:", 6) != 0)
		return MW_EUSAGE;
	six->sin6_family = AF_INET6;
	six->sin6_port = htons((uint16_t)port);
	six->sin6_addr = in6addr_loopback;
	*len = sizeof *six;
	return 0;
}

static void
sink_free(struct mw_sink *s)
{
	for (size_t i = 0; i < s->n_client; i++) {
		(void)close(s->client[i]->fd);
		free(s->client[i]);
	}
	const int fds[] = {s->fd, s->wake[0], s->wake[1]};
	for (size_t i = 0; i < MW_COUNT(fds); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
	(void)pthread_mutex_destroy(&s->mu);
	(void)pthread_cond_destroy(&s->came);
	free(s);
}

int
mw_sink_start(const char *where, struct mw_sink **ret, struct mw_err *err)
{
	struct sockaddr_storage a;
	socklen_t len = 0;
	int one = 1;
	if (address(where, &a, &len)) {
		mw_fail(err, MW_EUSAGE, "\"%.100s\" is no place for the sink", where);
		return mw_err_hint(err, "127.0.0.1:PORT or [::1]:PORT");
	}
	struct mw_sink *s = calloc(1, sizeof *s);
	if (!s)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	(void)snprintf(s->where, sizeof s->where, "%s", where);
	(void)pthread_mutex_init(&s->mu, NULL);
	(void)pthread_cond_init(&s->came, NULL);
	s->wake[0] = s->wake[1] = -1;
	s->fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd >= 0)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (s->fd < 0 || pipe2(s->wake, O_CLOEXEC) < 0 ||
	    bind(s->fd, (struct sockaddr *)&a, len) < 0 || listen(s->fd, 64) < 0 ||
	    (errno = pthread_create(&s->thread, NULL, serve, s)) != 0) {
		mw_fail(err, MW_EUNAVAIL, "cannot listen on %s: %s", where,
		        strerror(errno));
		sink_free(s);
		return mw_err_hint(err, "it is where the quiet instance sends what Sieve "
		                        "scripts would send out; --sink names another");
	}
	*ret = s;
	return 0;
}

void
mw_sink_stop(struct mw_sink *s)
{
	if (!s)
		return;
	while (write(s->wake[1], "", 1) < 0 && errno == EINTR)
		;
	(void)pthread_join(s->thread, NULL);
	sink_free(s);
}

const char *
mw_sink_where(const struct mw_sink *s)
{
	return s->where;
}

uint64_t
mw_sink_count(struct mw_sink *s)
{
	(void)pthread_mutex_lock(&s->mu);
	uint64_t n = s->count;
	(void)pthread_mutex_unlock(&s->mu);
	return n;
}

static bool
known(const struct mw_sink *s, const char *token)
{
	for (size_t i = 0; i < MW_MIN(s->n_token, (size_t)TOKENS); i++)
		if (strcmp(s->token[i], token) == 0)
			return true;
	return false;
}

bool
mw_sink_saw(struct mw_sink *s, const char *token, int ms)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	(void)pthread_mutex_lock(&s->mu);
	bool seen = known(s, token);
	while (!seen && pthread_cond_timedwait(&s->came, &s->mu, &until) == 0)
		seen = known(s, token);
	(void)pthread_mutex_unlock(&s->mu);
	return seen;
}
