/* talk.h - dialogues of the proxy as scripts, and the journal that they fill.
 *
 * For one file of a program, from one thread: setup and teardown are a group's;
 * run_scripts plays scripts and counts the records.
 */
#ifndef MW_TEST_TALK_H
#define MW_TEST_TALK_H

#include "milter/dialog.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static struct mw_outbox outbox;

static inline struct mw_conf *
settings(void)
{
	struct mw_conf *c = taking_settings();
	c->recipient_limit = 4;
	return c;
}

static inline int
setup(void **state)
{
	(void)state;
	int r = taking_dir();
	if (r == 0)
		r = taking_open(settings());
	if (r == 0)
		mw_outbox_init(&outbox, store, cap.clock);
	return r;
}

static inline int
teardown(void **state)
{
	(void)state;
	mw_outbox_done(&outbox);
	return taking_end();
}

/* ---- dialogues ---- */

struct talk {
	struct mw_dialog d;
	struct waiter w;
};

static inline void
commit(struct talk *t)
{
	assert_int_equal(t->d.state, MW_DI_COMMIT);
	wait_done(&t->w);
	mw_dialog_committed(&t->d);
}

/* Steps, each "X:text":
 *   c: the client sends text      n: the next server sends text
 *   C: the client was told text   N: the next server was sent text
 *   k: the record's fate is known, text is not used
 *   e: the client's side ends     x: the next server is gone     t: the time is over
 *   s: the daemon ends            q: closed for the client (text "1") or not ("0")
 *   K: the connection may serve another ("1") or not ("0")
 *   H: what is to go to the next server waits for more ("1") or not ("0")
 *   R: a new one was asked for in place of a used one, and is made
 *   T: TLS is up with the client, which was to be begun; U: with the next server
 * A '|' stands for CR LF. */
static struct {
	bool tls, next_local, keep, used, forwards;
	enum mw_next_tls next_tls;
} with;

/* The connection of a client that has said "EHLO me". */
static inline void
next_used(struct mw_dialog *d, bool lmtp)
{
	struct mw_used u = {0};
	mw_buf_puts(&u.greeting, "220 mx\r\n");
	mw_buf_puts(&u.hello, lmtp ? "LHLO me" : "EHLO me");
	mw_buf_puts(&u.hello_reply, "250-mx\r\n250-XFORWARD NAME\r\n");
	if (with.forwards)
		mw_buf_puts(&u.hello_reply, "250-PIPELINING\r\n");
	mw_buf_puts(&u.hello_reply, "250 CHUNKING\r\n");
	u.forwards = with.forwards;
	mw_dialog_next_used(d, &u);
	mw_buf_free(&u.greeting);
	mw_buf_free(&u.hello);
	mw_buf_free(&u.hello_reply);
}

static inline void
play(const char *name, bool lmtp, bool trusted, const char *const *steps)
{
	struct talk t = {.w = MW_WAITER};
	struct mw_dialog_opts o = {.cap = &cap,
	                           .outbox = &outbox,
	                           .tls = with.tls,
	                           .next_tls = with.next_tls,
	                           .next_local = with.next_local,
	                           .keep = with.keep,
	                           .lmtp = lmtp,
	                           .trusted = trusted,
	                           .on = "inet:here",
	                           .next = "inet:there",
	                           .peer = MW_STR("192.0.2.1"),
	                           .peer_port = 4711,
	                           .done = on_done,
	                           .arg = &t.w};
	assert_int_equal(mw_dialog_init(&t.d, &o, NULL), 0);
	if (with.used)
		next_used(&t.d, lmtp);
	for (size_t i = 0; steps[i]; i++) {
		MW_BUF_AUTO text = {0};
		for (const char *p = steps[i] + 2; *p; p++) {
			if (*p == '|')
				mw_buf_puts(&text, "\r\n");
			else if (strncmp(p, "HOST", 4) == 0) { /* this one's name */
				char host[256] = "localhost";
				(void)gethostname(host, sizeof host - 1);
				mw_buf_puts(&text, host);
				p += 3;
			} else
				mw_buf_putc(&text, *p);
		}
		struct mw_buf *out = steps[i][0] == 'C' ? &t.d.to_client : &t.d.to_next;
		switch (steps[i][0]) {
		case 'c':
			mw_dialog_client(&t.d, text.p, text.n);
			break;
		case 'n':
			mw_dialog_next(&t.d, text.p, text.n);
			break;
		case 'C':
		case 'N':
			if (!mw_str_eq(mw_buf_str(out), mw_buf_str(&text)))
				fail_msg("%s, step %zu \"%s\": \"%.*s\"", name, i,
				         steps[i], (int)out->n, (const char *)out->p);
			mw_buf_clear(out);
			break;
		case 'k':
			commit(&t);
			break;
		case 'e':
			mw_dialog_client_eof(&t.d);
			break;
		case 'x':
			mw_dialog_next_down(&t.d, "gone");
			break;
		case 't':
			mw_dialog_timeout(&t.d);
			break;
		case 'K':
			if (t.d.keep_next != (steps[i][2] == '1'))
				fail_msg("%s, step %zu: keep_next is %d", name, i,
				         t.d.keep_next);
			break;
		case 'H':
			if (mw_dialog_holds(&t.d) != (steps[i][2] == '1'))
				fail_msg("%s, step %zu: holds or not", name, i);
			break;
		case 'R':
			assert_true(t.d.reconnect);
			t.d.reconnect = false;
			break;
		case 'T':
			assert_true(t.d.start_tls);
			mw_dialog_tls_up(&t.d, "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256);
			break;
		case 'U':
			assert_true(t.d.start_next_tls);
			mw_dialog_next_tls_up(&t.d);
			break;
		case 's':
			mw_dialog_stop(&t.d);
			break;
		default:
			if (t.d.close_client != (steps[i][2] == '1'))
				fail_msg("%s, step %zu: close_client is %d", name, i,
				         t.d.close_client);
		}
	}
	if (t.d.state == MW_DI_COMMIT)
		commit(&t);
	mw_dialog_free(&t.d);
}

#define HELLO                                                                            \
	"n:220 mx ESMTP|", "C:220 mx ESMTP|", "c:EHLO me.test|", "N:EHLO me.test|",      \
	    "n:250-mx|250-PIPELINING|250 STARTTLS|", "C:250-mx|250 PIPELINING|"
#define LHELLO                                                                           \
	"n:220 mx LMTP|", "C:220 mx LMTP|", "c:LHLO me.test|", "N:LHLO me.test|",        \
	    "n:250 mx|", "C:250-mx|250 XMAILWAL|"
#define MAIL                                                                             \
	"c:MAIL FROM:<a@b.test> SIZE=9|", "N:MAIL FROM:<a@b.test> SIZE=9|",              \
	    "n:250 2.1.0 Ok|", "C:250 2.1.0 Ok|"
#define RCPT(x)                                                                          \
	"c:RCPT TO:<" x ">|", "N:RCPT TO:<" x ">|", "n:250 2.1.5 Ok|", "C:250 2.1.5 Ok|"
#define DATA "c:DATA|", "N:DATA|", "n:354 go|", "C:354 go|"
#define ALL  HELLO, MAIL, RCPT("c@d.test"), DATA

struct script {
	const char *name;
	bool lmtp;
	unsigned journaled;
	const char *steps[60];
};

static inline void
run_scripts(const struct script *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t before = mails();
		play(v[i].name, v[i].lmtp, true, v[i].steps);
		if (mails() - before != v[i].journaled)
			fail_msg("%s: %d journaled", v[i].name, (int)(mails() - before));
		assert_int_equal(atomic_load(&cap.count.open_sessions), 0);
		assert_int_equal(atomic_load(&cap.count.at_eom), 0);
	}
}

#endif
