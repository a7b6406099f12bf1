/* Every allocation fails once while mail comes in through the native engine's socket:
 * nothing crashes or hangs, the MTA hears a temporary refusal or a closed connection, and
 * what was answered with CONTINUE is in the journal with all that the MTA told.
 *
 * MW_FAULT_ROUNDS=all fails each one; else a slice (MW_SEED moves it). */
#include "tests/support/alloc_fail.h"

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/engine.h"
#include "milter/identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

enum {
	MAILS = 2, /* in one connection */
	SLICE = 150
};

static char dir[64], journal[80], sock_path[80];
static struct mw_store *store;
static struct mw_capture cap;
static struct mw_fs fs;
static struct mw_listeners listeners;

static int
no_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	return 0;
}

/* ---- what the MTA says, made beforehand ---- */

static struct mw_buf said[MAILS]; /* from MAIL to the end of the message */
static struct mw_buf hello;       /* negotiation, connection, HELO */
static struct mw_buf content[MAILS], facts[MAILS];

static void
packet(struct mw_buf *b, char cmd, const void *data, size_t n)
{
	uint8_t len[4] = {0, (uint8_t)((n + 1) >> 16), (uint8_t)((n + 1) >> 8),
	                  (uint8_t)(n + 1)};
	mw_buf_put(b, len, 4);
	mw_buf_putc(b, cmd);
	mw_buf_put(b, data, n);
}

#define SAY(b, cmd, text) packet(b, cmd, text, sizeof(text) - 1)

static void
make_hello(void)
{
	/* version 6, every step that can go without a reply but MAIL, leading blanks */
	static const uint8_t neg[12] = {0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xbf, 0xff};
	packet(&hello, 'O', neg, sizeof neg);
	SAY(&hello, 'D', "Cj\0mx.alloc.test\0{daemon_name}\0mx\0v\0Postfix 3\0");
	SAY(&hello, 'C',
	    "client.alloc.test\0004\x04\xd2"
	    "192.0.2.7\0");
	SAY(&hello, 'D', "H{tls_version}\0TLSv1.3\0{cipher}\0TLS_X\0");
	SAY(&hello, 'H', "helo.alloc.test\0");
}

static void
make_mail(unsigned k)
{
	struct mw_buf *b = &said[k];
	char head[1200], text[1000];
	int n = snprintf(text, sizeof text,
	                 "Mi%cQ%u%c{auth_type}%cPLAIN%c{auth_authen}%cu%u%c", 0, k, 0, 0,
	                 0, 0, k, 0);
	packet(b, 'D', text, (size_t)n);
	n = snprintf(text, sizeof text, "<from%u@alloc.test>%cSIZE=%u%c", k, 0, 100 + k,
	             0);
	packet(b, 'M', text, (size_t)n);
	for (unsigned i = 0; i < 12; i++) {
		n = snprintf(text, sizeof text, "R{rcpt_mailer}%csmtp%c", 0, 0);
		packet(b, 'D', text, (size_t)n);
		n = snprintf(text, sizeof text, "<r%u+%0*u@alloc.test>%cNOTIFY=NEVER%c",
		             i, i % 3 ? 3 : 150, k, 0, 0);
		packet(b, 'R', text, (size_t)n);
	}
	SAY(b, 'D', "T");
	SAY(b, 'T', "");
	int m = snprintf(text, sizeof text, " <%0*u@alloc.test>", k ? 600 : 10, k);
	n = snprintf(head, sizeof head, "Message-ID%c%s%c", 0, text, 0);
	packet(b, 'L', head, (size_t)n);
	mw_buf_printf(&content[k], "Message-ID:%.*s\r\n", m, text);
	SAY(b, 'L', "Subject\0 alloc\n\tfolded\0");
	mw_buf_puts(&content[k], "Subject: alloc\r\n\tfolded\r\n\r\n");
	SAY(b, 'N', "");
	uint64_t x = k + 3;
	for (unsigned i = 0; i < (k ? 6 : 1); i++) { /* the second one is spilled */
		MW_BUF_AUTO part = {0};
		for (unsigned c = 0; c < 60000; c++) {
			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			mw_buf_putc(&part, (char)(x >> 40));
		}
		packet(b, 'B', part.p, part.n);
		mw_buf_put(&content[k], part.p, part.n);
	}
	SAY(b, 'D', "E");
	SAY(b, 'E', "");
}

/* ---- the MTA; it must not allocate ---- */

static uint8_t reply[4096];
static bool mail_reply; /* MAIL gets one, as negotiated */

/* The next reply's command, 0 when the connection is closed. */
static char
next_reply(int fd)
{
	size_t have = 0, want = 4;
	while (have < want) {
		ssize_t k = recv(fd, reply + have, want - have, 0);
		if (k < 0)
			return errno == EAGAIN ? '?' : 0; /* '?': it hangs */
		if (k == 0)
			return 0;
		have += (size_t)k;
		if (have == 4 && want == 4) {
			want = 4 + ((size_t)reply[2] << 8 | reply[3]);
			if (reply[0] || reply[1] || want > sizeof reply || want < 5)
				return '!';
		}
	}
	return (char)reply[4];
}

static bool
send_all(int fd, const struct mw_buf *b)
{
	for (size_t at = 0; at < b->n;) {
		ssize_t k = send(fd, b->p + at, b->n - at, MSG_NOSIGNAL);
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return true;
}

enum answer {
	LOST,
	REFUSED,
	TAKEN
};

static uint64_t at_call;

#define require(x, ...)                                                                  \
	do {                                                                             \
		if (!(x)) {                                                              \
			print_error("allocation %llu: ", (unsigned long long)at_call);   \
			fail_msg(__VA_ARGS__);                                           \
		}                                                                        \
	} while (0)

static enum answer
one_mail(int fd, unsigned k)
{
	if (!send_all(fd, &said[k]))
		return LOST;
	char c = mail_reply ? next_reply(fd) : 'c';
	if (c == 'c')
		c = next_reply(fd); /* to the end of the message */
	else if (c == 'y')
		return LOST; /* the rest is out of sequence then: as Postfix, give up */
	require(c != '?', "no answer: it hangs");
	if (c == 0)
		return LOST;
	if (c == 'y')
		require(reply[5] == '4', "refused for good: %.60s", (char *)reply + 5);
	else
		require(c == 'c', "reply %02x", (unsigned)c);
	return c == 'y' ? REFUSED : TAKEN;
}

static int
dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 20};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	memcpy(a.sun_path, sock_path, strlen(sock_path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
	return fd;
}

static void
conversation(enum answer got[MAILS])
{
	int fd = dial();
	for (unsigned k = 0; k < MAILS; k++)
		got[k] = LOST;
	char c = send_all(fd, &hello) ? next_reply(fd) : 0;
	require(c == 'O' || c == 0, "negotiation: %02x", (unsigned)c);
	mail_reply = !(reply[15] & 0x40); /* SMFIP_NR_MAIL */
	for (unsigned k = 0; c && k < MAILS; k++) {
		got[k] = one_mail(fd, k);
		if (got[k] == LOST)
			break;
	}
	(void)close(fd);
}

/* ---- the journal ---- */

/* What was captured, less what differs from run to run. */
static void
facts_of(struct mw_mail m, struct mw_buf *out)
{
	m.time_us = 0;
	assert_int_equal(mw_mail_encode(&m, out), 0);
}

/* Reads what came since sequence number `from` and holds it against the answers. */
static void
check(uint64_t from, const enum answer got[MAILS], bool learn)
{
	struct mw_store_opts o = {.dir = journal};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	bool seen[MAILS] = {false};
	int q;
	require(mw_store_open(&o, &rd, &err) == 0, "%s", err.msg);
	require(mw_cursor_new(rd, from, &c, &err) == 0, "%s", err.msg);
	while ((q = mw_cursor_next(c, &r, &err)) == 1) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO body = {0};
		MW_BUF_AUTO what = {0};
		struct mw_mail m;
		if (r.type != MW_TYPE_MAIL)
			continue;
		require(mw_record_mail(rd, &r, a, &m, &err) == 0 &&
		            mw_record_content(rd, &r, &m, 1 << 24, &body, &err) == 0,
		        "%s", err.msg);
		unsigned k = m.queue_id.n == 2 ? (unsigned)(m.queue_id.p[1] - '0') : 9;
		require(k < MAILS && !seen[k], "a record of an unknown mail");
		seen[k] = true;
		facts_of(m, learn ? &facts[k] : &what);
		require(body.n == content[k].n && !memcmp(body.p, content[k].p, body.n),
		        "the content of mail %u is not what came", k);
		if (learn)
			continue;
		require(what.n == facts[k].n && !memcmp(what.p, facts[k].p, what.n),
		        "the envelope of mail %u is not what came", k);
	}
	require(q == 0, "%s", err.msg);
	for (unsigned k = 0; k < MAILS; k++)
		require(got[k] != TAKEN || seen[k], "mail %u was taken and is not there",
		        k);
}

static uint64_t
next_seq(void)
{
	struct mw_store_stats s;
	mw_store_stats(store, &s);
	return s.next_seq;
}

static void
every_allocation(void **state)
{
	(void)state;
	const char *z = getenv("MW_FAULT_ROUNDS"), *seed = getenv("MW_SEED");
	enum answer got[MAILS];
	uint64_t from = next_seq();
	for (unsigned warm = 0; warm < 2; warm++) { /* caches of libraries are filled */
		from = next_seq();
		alloc_fail_at(0, 0);
		conversation(got);
		(void)alloc_fail_off();
	}
	uint64_t calls = atomic_load(&alloc_calls), count[3] = {0};
	for (unsigned k = 0; k < MAILS; k++)
		assert_int_equal(got[k], TAKEN);
	check(from, got, true);
	uint64_t step = z && strcmp(z, "all") == 0 ? 1 : calls / SLICE + 1;
	uint64_t n = 1 + (seed ? strtoull(seed, NULL, 10) % step : 0), hit = 0;
	for (; n <= calls + step; n += step) {
		at_call = n;
		from = next_seq();
		alloc_fail_at(n, hit % 5 == 4 ? 20 : 1);
		conversation(got);
		hit += alloc_fail_off() > 0;
		check(from, got, false);
		for (unsigned k = 0; k < MAILS; k++)
			count[got[k]]++;
	}
	at_call = 0;
	from = next_seq();
	conversation(got);
	for (unsigned k = 0; k < MAILS; k++)
		assert_int_equal(got[k], TAKEN);
	check(from, got, false);
	print_message(
	    "%llu allocations, %llu made to fail; of the mails %llu taken, %llu "
	    "refused, %llu cut off\n",
	    (unsigned long long)calls, (unsigned long long)hit,
	    (unsigned long long)count[TAKEN], (unsigned long long)count[REFUSED],
	    (unsigned long long)count[LOST]);
	assert_true(hit > 20 && count[REFUSED] + count[LOST] > 10);
}

static struct mw_engine *engine;

static int
setup(void **state)
{
	(void)state;
	struct mw_conf *c = NULL;
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(dir, sizeof dir, "%s/mw-alloc-milter-XXXXXX", tmp);
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	(void)snprintf(sock_path, sizeof sock_path, "%s/sock", dir);
	mw_log_open("test", false, (enum mw_level)0); /* failures have much to say */
	fs = *mw_fs_posix();
	fs.sync = no_sync;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .segment_size = 4 << 20,
	                          .spill_above = 65536};
	int r = mw_store_create(journal, NULL, NULL, &err);
	if (r == 0)
		r = mw_store_open(&o, &store, &err);
	if (r == 0)
		r = mw_conf_load(NULL, &c, &report, &err);
	if (r == 0) {
		free(c->milter_listen.v[0]);
		if (asprintf(&c->milter_listen.v[0], "unix:%s", sock_path) < 0)
			return -1;
		c->milter_threads = 1;
		r = mw_capture_init(&cap, store, c, &err);
	}
	if (r == 0)
		r = mw_listen_open(c, &listeners, &err);
	if (r == 0)
		r = mw_engine_start(&cap, &listeners, &engine, &err);
	if (r < 0)
		print_error("%s\n", err.msg);
	make_hello();
	for (unsigned k = 0; k < MAILS; k++)
		make_mail(k);
	return r;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	mw_engine_stop(engine, false);
	mw_listen_close(&listeners);
	mw_store_close(store);
	mw_capture_done(&cap);
	mw_buf_free(&hello);
	for (unsigned k = 0; k < MAILS; k++) {
		mw_buf_free(&said[k]);
		mw_buf_free(&content[k]);
		mw_buf_free(&facts[k]);
	}
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_allocation),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
