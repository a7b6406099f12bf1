/* floor_milter.c - the least that a milter can cost: what no program that sees whole
 * messages over the milter protocol comes below.
 *
 *   floor_milter unix:PATH
 *
 * One thread and epoll. Asks for all events and for no reply but at the end of message,
 * takes the packets apart as far as their lengths, keeps nothing, says yes at the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	ROOM = 128 * 1024,    /* a packet has at most 64 KiB */
	NO_REPLIES = 0x1ff880 /* SMFIP_NR_*, but for the end; SMFIP_HDR_LEADSPC */
};

struct conn {
	int fd;
	size_t n;
	char in[ROOM];
};

static void
say(int fd, const void *p, size_t n)
{
	if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
		perror("floor_milter: send");
}

/* Answers what is whole in c->in. */
static void
packets(struct conn *c)
{
	static const uint32_t options[3] = {6, 0, NO_REPLIES};
	size_t at = 0;
	while (c->n - at >= 5) {
		uint32_t len, be;
		memcpy(&len, c->in + at, 4);
		len = ntohl(len);
		if (c->n - at < 4 + (size_t)len)
			break;
		if (c->in[at + 4] == 'O') {
			char out[17] = {0, 0, 0, 13, 'O'};
			for (int i = 0; i < 3; i++) {
				be = htonl(options[i]);
				memcpy(out + 5 + 4 * i, &be, 4);
			}
			say(c->fd, out, sizeof out);
		} else if (c->in[at + 4] == 'E') {
			say(c->fd, "\0\0\0\1c", 5);
		}
		at += 4 + (size_t)len;
	}
	memmove(c->in, c->in + at, c->n - at);
	c->n -= at;
}

static void
serve(struct conn *c)
{
	ssize_t k = recv(c->fd, c->in + c->n, sizeof c->in - c->n, MSG_DONTWAIT);
	if (k > 0) {
		c->n += (size_t)k;
		packets(c);
	} else if (k == 0) {
		(void)close(c->fd);
		free(c);
	}
}

static void
take(int ep, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct conn *c = fd < 0 ? NULL : malloc(sizeof *c);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
	if (!c)
		return;
	c->fd = fd;
	c->n = 0;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
		perror("floor_milter: epoll");
}

int
main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct sched_param none = {0};
	if (argc != 2 || strncmp(argv[1], "unix:", 5) != 0) {
		fprintf(stderr, "usage: floor_milter unix:PATH\n");
		return 64;
	}
	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[1] + 5);
	(void)sched_setscheduler(0, SCHED_BATCH, &none); /* as mailwald does */
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN}, got[64];
	if (listener < 0 || ep < 0 || bind(listener, (void *)&a, sizeof a) < 0 ||
	    listen(listener, 128) < 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) < 0) {
		perror("floor_milter");
		return 71;
	}
	for (;;) {
		int n = epoll_wait(ep, got, 64, -1);
		for (int i = 0; i < n; i++) {
			if (got[i].data.ptr)
				serve(got[i].data.ptr);
			else
				take(ep, listener);
		}
	}
}
