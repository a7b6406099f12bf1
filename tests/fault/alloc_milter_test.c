/* Every allocation fails once while mail comes in through the socket of the native engine
 * with SPF, and of libmilter: nothing crashes or hangs, the MTA hears a temporary refusal
 * or a closed connection, what was answered with CONTINUE is in the journal with all that
 * the MTA told, and each of these has its SPF verdict or is counted as without.
 */
#include "tests/support/alloc_clients.h"

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/engine.h"
#include "milter/identity.h"
#include "milter/mfi.h"
#include "milter/verdict.h"
#include "tests/support/dice.h"

#include <sys/wait.h>

static char sock_path[80];
static struct mw_listeners listeners;
static bool libmilter;             /* as front end */
static struct mw_verdict *verdict; /* behind the native one */
static uint64_t asked;             /* questions for it */

/* ---- what the MTA says, made beforehand ---- */

static struct mw_buf said[MAILS]; /* from MAIL to the end of the message */
static struct mw_buf hello;       /* negotiation, connection, HELO */
static struct mw_buf content[MAILS], facts[MAILS], bare[MAILS];

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
	SAY(&hello, 'H', "[192.0.2.7]\0"); /* SPF needs no DNS to say none */
}

static void
make_mail(unsigned k)
{
	struct mw_buf *b = &said[k];
	char head[1200], text[1000];
	int n = snprintf(text, sizeof text, "Mi%cQ%u%c", 0, k, 0);
	if (k) /* with a login it is nothing for SPF */
		n += snprintf(text + n, sizeof text - (size_t)n,
		              "{auth_type}%cPLAIN%c{auth_authen}%cu%u%c", 0, 0, 0, k, 0);
	packet(b, 'D', text, (size_t)n);
	n = snprintf(text, sizeof text, "<>%cSIZE=%u%c", 0, 100 + k, 0);
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
	for (unsigned i = 0; i < (k ? 6 : 1); i++) { /* the second one is spilled */
		MW_BUF_AUTO part = {0};
		dice_noise(&part, 60000, k * 100 + i + 3);
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

static enum answer
one_mail(int fd, unsigned k)
{
	if (!send_all(fd, &said[k]))
		return LOST;
	char c = mail_reply ? next_reply(fd) : 'c';
	if (c == 'c')
		c = next_reply(fd); /* to the end of the message */
	else if (c == 'y' || c == 't')
		return LOST; /* the rest is out of sequence then: as Postfix, give up */
	require(c != '?', "no answer: it hangs");
	if (c == 0)
		return LOST;
	if (c == 'y')
		require(reply[5] == '4', "refused for good: %.60s", (char *)reply + 5);
	else
		require(c == 'c' || c == 't', "reply %02x", (unsigned)c);
	asked += c == 'c' && k == 0;
	return c == 'c' ? TAKEN : REFUSED;
}

static void
conversation(enum answer got[MAILS])
{
	int fd = dial(sock_path);
	for (unsigned k = 0; k < MAILS; k++)
		got[k] = LOST;
	char c = send_all(fd, &hello) ? next_reply(fd) : 0;
	require(c == 'O' || c == 0 || (libmilter && c == 't'), "negotiation: %02x",
	        (unsigned)c);
	if (c == 't') /* the MTA does as its default_action says */
		c = 0;
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

/* Less what macros tell, too: see LIMITS in milter/mfi.h. */
static void
bare_facts_of(struct mw_mail m, struct mw_buf *out)
{
	const struct mw_str none = MW_STR("");
	m.queue_id = m.hostname = m.mta = m.daemon = none;
	m.tls_version = m.tls_cipher = m.auth_type = m.auth_user = none;
	m.direction = MW_DIR_IN;
	for (size_t i = 0; i < m.n_rcpt; i++) { /* LOCAL is told by the direction */
		m.rcpt[i].mailer = none;
		m.rcpt[i].flags &= ~(uint32_t)MW_RCPT_LOCAL;
	}
	facts_of(m, out);
}

static bool
same(const struct mw_buf *a, const struct mw_buf *b)
{
	return a->n == b->n && !memcmp(a->p, b->p, a->n);
}

static void
check(uint64_t from, const enum answer got[MAILS])
{
	static bool learned; /* from the first ones, in which nothing fails */
	bool learn = !learned;
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
		unsigned k = same(&body, &content[1]);
		require(same(&body, &content[k]), "content that never came");
		require(!seen[k], "mail %u is there twice", k);
		seen[k] = true;
		facts_of(m, learn ? &facts[k] : &what);
		bool whole = learn || same(&what, &facts[k]);
		mw_buf_clear(&what);
		bare_facts_of(m, learn ? &bare[k] : &what);
		require(whole || (libmilter && same(&what, &bare[k])),
		        "the envelope of mail %u is not what came", k);
	}
	learned = true;
	require(q == 0, "%s", err.msg);
	for (unsigned k = 0; k < MAILS; k++)
		require(got[k] != TAKEN || seen[k], "mail %u was taken and is not there",
		        k);
}

static void
every_mail_has_its_verdict(void **state)
{
	(void)state;
	struct mw_verdict_stats s;
	for (int i = 0; i < 12000; i++) {
		mw_verdict_stats(verdict, &s);
		if (s.queued == 0)
			break;
		(void)usleep(10000);
	}
	print_message("%llu verdicts, %llu dropped, %llu helpers died\n",
	              (unsigned long long)s.checked, (unsigned long long)s.dropped,
	              (unsigned long long)s.deaths);
	assert_int_equal(s.queued, 0);
	assert_int_equal(s.checked + s.dropped, asked);
	assert_true(s.checked > asked / 2);
}

/* The daemon finds the helper beside itself, so here it is beside this program. */
static int
start_spf(struct mw_conf *c, struct mw_err *err)
{
	free(c->spf_user);
	c->spf_user = strdup("nobody");
	c->local_domains.v = calloc(1, sizeof *c->local_domains.v);
	c->local_domains.v[0] = strdup("alloc.test");
	c->local_domains.n = 1;
	c->spf = true;
	c->spf_timeout = 2000000;
	if (symlink(MW_BINARY_DIR "/milter/mailwald-spf",
	            MW_BINARY_DIR "/tests/mailwald-spf") < 0 &&
	    errno != EEXIST)
		return mw_fail_errno(err, "cannot link the helper");
	int r = mw_verdict_start(store, c, &verdict, err);
	atomic_store(&cap.verdict, verdict);
	return r;
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
	if (r == 0 && !libmilter)
		r = start_spf(c, &err);
	if (r == 0)
		r = mw_listen_open(c, &listeners, &err);
	if (r == 0)
		r = libmilter ? mw_mfi_start(&cap, &listeners, &err)
		              : mw_engine_start(&cap, &listeners, &engine, &err);
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
	if (libmilter)
		mw_mfi_stop();
	else
		mw_engine_stop(engine, false);
	mw_verdict_stop(atomic_exchange(&cap.verdict, NULL));
	mw_listen_close(&listeners);
	mw_store_close(store);
	mw_capture_done(&cap);
	mw_buf_free(&hello);
	for (unsigned k = 0; k < MAILS; k++) {
		mw_buf_free(&said[k]);
		mw_buf_free(&content[k]);
		mw_buf_free(&facts[k]);
		mw_buf_free(&bare[k]);
	}
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

static int
run_native(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_allocation),
	    cmocka_unit_test(every_mail_has_its_verdict),
	};
	return cmocka_run_group_tests_name("native", tests, setup, teardown);
}

static int
run_libmilter(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_allocation),
	};
	libmilter = true;
	return cmocka_run_group_tests_name("libmilter", tests, setup, teardown);
}

int
main(void)
{
	front.conversation = conversation;
	front.check = check;
	int status = 0;
	pid_t pid = fork(); /* libmilter's threads never end */
	if (pid == 0)
		return run_native();
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		return 1;
	return run_libmilter();
}
