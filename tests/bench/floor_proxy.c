/* floor_proxy.c - the least that a process between two servers can cost: copies bytes.
 *
 *   floor_proxy PORT NEXT_PORT
 *
 * One thread and epoll. Each client's connection gets one of its own to
 * 127.0.0.1:NEXT_PORT; what comes from either side goes to the other one as it is,
 * nothing is looked at or kept.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ROOM = 64 * 1024
};

struct side {
	int fd;
	struct side *other; /* both are in one allocation: the first is its start */
	bool first, over;
};

static struct sockaddr_in
local(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
	                            .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
	                            .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static void
no_delay(int fd)
{
	int on = 1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Loopback takes what these dialogues have under way; what it does not take is waited
 * for. */
static bool
send_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		p += k;
		n -= (size_t)k;
	}
	return true;
}

static void
copy(struct side *s)
{
	static char buf[ROOM];
	ssize_t n = recv(s->fd, buf, sizeof buf, MSG_DONTWAIT);
	if (n > 0 && send_all(s->other->fd, buf, (size_t)n))
		return;
	s->over = true;
}

static void
take(int ep, int listener, const struct sockaddr_in *next)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct side *s = calloc(2, sizeof *s);
	if (fd < 0 || to < 0 || !s || connect(to, (const void *)next, sizeof *next) < 0) {
		perror("floor_proxy: connect");
		(void)close(fd);
		(void)close(to);
		free(s);
		return;
	}
	s[0] = (struct side){.fd = fd, .other = &s[1], .first = true};
	s[1] = (struct side){.fd = to, .other = &s[0]};
	for (int i = 0; i < 2; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &s[i]};
		no_delay(s[i].fd);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, s[i].fd, &ev) < 0)
			perror("floor_proxy: epoll");
	}
}

/* One side has ended: so does the other one. */
static void
end(struct side *s)
{
	(void)close(s->fd);
	(void)close(s->other->fd);
	free(s->first ? s : s->other);
}

int
main(int argc, char **argv)
{
	struct sched_param none = {0};
	int on = 1;
	if (argc != 3) {
		fprintf(stderr, "usage: floor_proxy PORT NEXT_PORT\n");
		return 64;
	}
	struct sockaddr_in here = local(argv[1]), next = local(argv[2]);
	(void)sched_setscheduler(0, SCHED_BATCH, &none); /* as mailwald does */
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN}, got[64];
	if (listener < 0 || ep < 0 ||
	    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(listener, (void *)&here, sizeof here) < 0 || listen(listener, 128) < 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0) {
		perror("floor_proxy");
		return 71;
	}
	for (;;) {
		int n = epoll_wait(ep, got, 64, -1);
		struct side *gone[64];
		int n_gone = 0;
		for (int i = 0; i < n; i++) {
			struct side *s = got[i].data.ptr;
			if (!s) {
				take(ep, listener, &next);
				continue;
			}
			if (s->over || s->other->over)
				continue;
			copy(s);
			if (s->over)
				gone[n_gone++] = s;
		}
		for (int i = 0; i < n_gone; i++)
			end(gone[i]);
	}
}
