/* Every allocation fails once while mail passes through the proxy, by DATA and by BDAT:
 * nothing crashes or hangs, the client hears a temporary refusal or a closed connection,
 * what was answered with 250 is in the journal and at the next server as it was sent, and
 * nothing is at the next server that is not in the journal. And while the proxy starts.
 */
#include "tests/support/alloc_clients.h"

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proxy.h"
#include "tests/support/dice.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

enum {
	SMALL = 700,
	LARGE = 150000, /* spilled */
	CONNS = 8       /* of the next server at once */
};

static char here[80], there[80];
static struct mw_proxy *proxy;

/* ---- the mails, made beforehand: one without, one with a dot at a line's start ---- */

static char mail[MAILS][LARGE + 100];
static size_t size[MAILS];
static char stuffed[SMALL + 200]; /* the first one, as DATA wants it */

static void
make_mails(void)
{
	for (unsigned k = 0; k < MAILS; k++) {
		size_t want = k ? LARGE : SMALL, n = 0;
		uint64_t x = k + 9;
		n += (size_t)snprintf(mail[k], 100, "Subject: %u\r\n\r\n.dots\r\n", k);
		while (n < want) {
			for (int i = 0; i < 60; i++)
				mail[k][n++] = (char)('a' + dice_roll(&x, 26));
			memcpy(mail[k] + n, "\r\n", 2);
			n += 2;
		}
		size[k] = n;
	}
	char *dots = strstr(mail[0], "\n.") + 1;
	(void)snprintf(stuffed, sizeof stuffed, "%.*s.%.*s.\r\n", (int)(dots - mail[0]),
	               mail[0], (int)(mail[0] + size[0] - dots), dots);
}

/* ---- the next server; it must not allocate ---- */

struct conn {
	int fd;
	char in[LARGE + 4096]; /* not yet understood */
	size_t n;
	bool data;
	char got[LARGE + 4096]; /* content by BDAT */
	size_t n_got;
};

static struct conn conns[CONNS];
static int listener, stop_pipe[2];
static atomic_uint arrived[MAILS], strange;

static void
answer(struct conn *c, const char *line)
{
	(void)!send(c->fd, line, strlen(line), MSG_NOSIGNAL);
}

static void
whole_mail(const char *p, size_t n)
{
	for (unsigned k = 0; k < MAILS; k++)
		if (n == size[k] && memcmp(p, mail[k], n) == 0) {
			atomic_fetch_add(&arrived[k], 1);
			return;
		}
	atomic_fetch_add(&strange, 1);
}

/* One command, chunk or content of c->in; its length, or 0: more is to come. */
static size_t
understand(struct conn *c)
{
	char *lf = memchr(c->in, '\n', c->n);
	if (c->data) {
		size_t n = strlen(stuffed);
		if (c->n < n)
			return 0;
		if (memcmp(c->in, stuffed, n) == 0)
			atomic_fetch_add(&arrived[0], 1);
		else
			atomic_fetch_add(&strange, 1);
		c->data = false;
		answer(c, "250 2.0.0 Ok: queued as A1\r\n");
		return n;
	}
	if (!lf)
		return 0;
	size_t len = (size_t)(lf + 1 - c->in);
	if (memcmp(c->in, "BDAT ", 5) == 0) {
		size_t chunk = strtoul(c->in + 5, NULL, 10);
		if (c->n < len + chunk)
			return 0;
		memcpy(c->got + c->n_got, lf + 1, chunk);
		c->n_got += chunk;
		if (memmem(c->in, len, "LAST", 4)) {
			whole_mail(c->got, c->n_got);
			c->n_got = 0;
		}
		answer(c, "250 2.0.0 Ok: queued as B1\r\n");
		return len + chunk;
	}
	c->data = memcmp(c->in, "DATA", 4) == 0;
	if (memcmp(c->in, "RSET", 4) == 0 || memcmp(c->in, "MAIL", 4) == 0)
		c->n_got = 0;
	answer(c, c->data                         ? "354 go\r\n"
	          : memcmp(c->in, "EHLO", 4) == 0 ? "250-mx\r\n250 CHUNKING\r\n"
	          : memcmp(c->in, "QUIT", 4) == 0 ? "221 bye\r\n"
	                                          : "250 2.1.0 Ok\r\n");
	return len;
}

static void
serve(struct conn *c)
{
	ssize_t k = recv(c->fd, c->in + c->n, sizeof c->in - c->n, 0);
	if (k <= 0) {
		(void)close(c->fd);
		c->fd = -1;
		return;
	}
	c->n += (size_t)k;
	for (size_t used; c->n && (used = understand(c));) {
		c->n -= used;
		memmove(c->in, c->in + used, c->n);
	}
}

static void
welcome(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	for (size_t i = 0; fd >= 0 && i < CONNS; i++)
		if (conns[i].fd < 0) {
			conns[i].fd = fd;
			conns[i].n = conns[i].n_got = 0;
			conns[i].data = false;
			answer(&conns[i], "220 mx ESMTP\r\n");
			return;
		}
	(void)close(fd);
}

static void *
next_server(void *arg)
{
	(void)arg;
	for (;;) {
		struct pollfd p[CONNS + 2] = {{.fd = listener, .events = POLLIN},
		                              {.fd = stop_pipe[0], .events = POLLIN}};
		for (size_t i = 0; i < CONNS; i++)
			p[i + 2] = (struct pollfd){.fd = conns[i].fd, .events = POLLIN};
		if (poll(p, CONNS + 2, -1) < 0)
			continue;
		if (p[1].revents)
			return NULL;
		for (size_t i = 0; i < CONNS; i++)
			if (p[i + 2].revents)
				serve(&conns[i]);
		if (p[0].revents)
			welcome();
	}
}

/* ---- the client; it must not allocate ---- */

/* The code of the next whole reply, 0 when the connection is closed. */
static int
next_reply(int fd)
{
	static char buf[4096];
	size_t n = 0;
	for (;;) {
		ssize_t k = recv(fd, buf + n, 1, 0);
		require(k >= 0 || errno != EAGAIN, "no answer: it hangs");
		if (k <= 0)
			return 0;
		n += (size_t)k;
		require(n < sizeof buf, "a reply without end");
		if (buf[n - 1] != '\n')
			continue;
		if (n > 4 && buf[3] == ' ')
			return (int)strtol(buf, NULL, 10);
		n = 0; /* one of several lines */
	}
}

static bool
say(int fd, const char *p, size_t n)
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

/* A command and its reply. */
static int
ask(int fd, const char *line)
{
	return say(fd, line, strlen(line)) ? next_reply(fd) : 0;
}

static enum answer
judged(int code)
{
	require(code == 0 || code == 250 || code / 100 == 4, "answered with %d", code);
	return code == 250 ? TAKEN : code ? REFUSED : LOST;
}

static enum answer
one_mail(int fd, unsigned k)
{
	static const char *const envelope[] = {"MAIL FROM:<a@b.test>\r\n",
	                                       "RCPT TO:<c@d.test>\r\n",
	                                       "RCPT TO:<e@d.test>\r\n"};
	char line[60];
	int code = 250;
	for (size_t i = 0; i < MW_COUNT(envelope) && code == 250; i++)
		code = ask(fd, envelope[i]);
	if (code != 250)
		return judged(code);
	if (k == 0) {
		code = ask(fd, "DATA\r\n");
		if (code != 354)
			return judged(code);
		return judged(ask(fd, stuffed));
	}
	(void)snprintf(line, sizeof line, "BDAT %d\r\n", LARGE / 2);
	if (!say(fd, line, strlen(line)) || !say(fd, mail[k], LARGE / 2))
		return LOST;
	code = next_reply(fd);
	if (code != 250)
		return judged(code);
	(void)snprintf(line, sizeof line, "BDAT %zu LAST\r\n", size[k] - LARGE / 2);
	if (!say(fd, line, strlen(line)) ||
	    !say(fd, mail[k] + LARGE / 2, size[k] - LARGE / 2))
		return LOST;
	return judged(next_reply(fd));
}

static void
conversation(enum answer got[MAILS])
{
	int fd = dial(here);
	got[0] = got[1] = LOST;
	int code = next_reply(fd);
	require(code == 0 || code == 220 || code == 421, "greeted with %d", code);
	if (code == 220)
		code = ask(fd, "EHLO me.test\r\n");
	for (unsigned k = 0; code == 250 && k < MAILS; k++) {
		got[k] = one_mail(fd, k);
		if (got[k] == LOST || (got[k] == REFUSED && ask(fd, "RSET\r\n") != 250))
			break;
	}
	(void)say(fd, "QUIT\r\n", 6);
	while (next_reply(fd))
		;
	(void)close(fd);
}

/* ---- the journal ---- */

static void
check(uint64_t from, const enum answer got[MAILS])
{
	struct mw_store_opts o = {.dir = journal};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned seen[MAILS] = {0};
	int q;
	require(mw_store_open(&o, &rd, &err) == 0, "%s", err.msg);
	require(mw_cursor_new(rd, from, &c, &err) == 0, "%s", err.msg);
	while ((q = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO body = {0};
		struct mw_mail m;
		if (r.type != MW_TYPE_MAIL)
			continue;
		require(mw_record_mail(rd, &r, a, &m, &err) == 0 &&
		            mw_record_content(rd, &r, &m, 1 << 24, &body, &err) == 0,
		        "%s", err.msg);
		unsigned k = body.n == size[1];
		require(body.n == size[k] && !memcmp(body.p, mail[k], body.n),
		        "content that never came");
		require(m.n_rcpt == 2 && mw_str_eq(m.rcpt[1].addr, MW_STR("e@d.test")) &&
		            mw_str_eq(m.sender, MW_STR("a@b.test")) &&
		            mw_str_eq(m.helo, MW_STR("me.test")),
		        "the envelope of mail %u is not what came", k);
		seen[k]++;
	}
	require(q == 0, "%s", err.msg);
	require(atomic_load(&strange) == 0, "the next server has what was never sent");
	for (unsigned k = 0; k < MAILS; k++) {
		unsigned there_ = atomic_exchange(&arrived[k], 0);
		require(seen[k] <= 1, "mail %u is there twice", k);
		require(there_ <= seen[k], "mail %u went on without its record", k);
		require(got[k] != TAKEN || there_ == 1,
		        "mail %u was taken and is not there", k);
	}
}

/* ---- a start that fails ---- */

enum {
	WAITING = 3, /* clients that have connected before */
	AGAIN = 3    /* each one: threads may be faster or slower */
};

static atomic_bool slow_start;

/* In place of libc's: a thread that was started too early has the time to do harm. */
int
epoll_create1(int flags)
{
	if (atomic_load(&slow_start))
		(void)usleep(5000);
	return (int)syscall(SYS_epoll_create1, flags);
}

/* Where the proxy will listen, from another mailwald: clients are waiting there. */
static void
inherit(int clients[WAITING])
{
	struct mw_listeners l = {.n = 1};
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	memcpy(a.sun_path, here, strlen(here) + 1);
	(void)unlink(here);
	l.v[0].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(l.v[0].fd >= 0);
	assert_int_equal(bind(l.v[0].fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(l.v[0].fd, WAITING), 0);
	for (size_t i = 0; i < WAITING; i++)
		clients[i] = dial(here);
	struct mw_conf none = {0};
	struct mw_err err = {0};
	assert_int_equal(mw_listen_inherit(&l, &none, &err), 0);
}

/* Starts it with the n-th allocation failing; true: none did, and it runs. A start that
 * fails takes no client that it then leaves alone. */
static bool
start_at(uint64_t n, uint64_t *failed)
{
	int clients[WAITING];
	struct mw_err err = {0};
	at_call = n;
	inherit(clients);
	alloc_fail_at(n, 1);
	int r = mw_proxy_start(&cap, &proxy, &err);
	bool hit = alloc_fail_off() > 0;
	mw_listen_inherit_done();
	*failed += r < 0;
	for (size_t i = 0; i < WAITING; i++) {
		int code = next_reply(clients[i]);
		require(code == 0 || (r == 0 && (code == 220 || code / 100 == 4)),
		        "start %d: a client is told %d", r, code);
		require(code == 220 || hit, "a client is turned away with %d", code);
		(void)close(clients[i]);
	}
	at_call = 0;
	if (hit) {
		mw_proxy_stop(proxy, false);
		proxy = NULL;
	}
	return !hit;
}

static void
every_start(void **state)
{
	(void)state;
	uint64_t failed = 0, n = 1;
	mw_proxy_stop(proxy, false);
	proxy = NULL;
	atomic_store(&slow_start, true);
	for (unsigned again = 0; !start_at(n, &failed);)
		if (++again % AGAIN == 0)
			n++;
	print_message("%llu starts failed\n", (unsigned long long)failed);
	assert_true(failed > (uint64_t)(5 * AGAIN));
	(void)all_taken();
}

static pthread_t server;

static int
start_next(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	memcpy(a.sun_path, there, strlen(there) + 1);
	for (size_t i = 0; i < CONNS; i++)
		conns[i].fd = -1;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 ||
	               listen(listener, 20) < 0 || pipe2(stop_pipe, O_CLOEXEC) < 0 ||
	               pthread_create(&server, NULL, next_server, NULL) != 0
	           ? -1
	           : 0;
}

static int
setup(void **state)
{
	(void)state;
	struct mw_conf *c = NULL;
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(dir, sizeof dir, "%s/mw-alloc-proxy-XXXXXX", tmp);
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	(void)snprintf(here, sizeof here, "%s/here", dir);
	(void)snprintf(there, sizeof there, "%s/there", dir);
	mw_log_open("test", false, (enum mw_level)0); /* failures have much to say */
	make_mails();
	fs = *mw_fs_posix();
	fs.sync = no_sync;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .segment_size = 4 << 20,
	                          .spill_above = 65536};
	int r = start_next();
	if (r == 0)
		r = mw_store_create(journal, NULL, NULL, &err);
	if (r == 0)
		r = mw_store_open(&o, &store, &err);
	if (r == 0)
		r = mw_conf_load(NULL, &c, &report, &err);
	if (r == 0) {
		c->proxy_listen.v = calloc(1, sizeof *c->proxy_listen.v);
		c->proxy_listen.n = 1;
		if (!c->proxy_listen.v ||
		    asprintf(&c->proxy_listen.v[0], "smtp:unix:%s->unix:%s", here,
		             there) < 0)
			return -1;
		r = mw_capture_init(&cap, store, c, &err);
	}
	if (r == 0)
		r = mw_proxy_start(&cap, &proxy, &err);
	if (r < 0)
		print_error("%s\n", err.msg);
	return r;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	mw_proxy_stop(proxy, false);
	(void)!write(stop_pipe[1], "", 1);
	(void)pthread_join(server, NULL);
	mw_store_close(store);
	mw_capture_done(&cap);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

int
main(void)
{
	front.conversation = conversation;
	front.check = check;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_allocation),
	    cmocka_unit_test(every_start),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
