/* talk.h - dialogues of the proxy as scripts, and the journal that they fill.
 *
 * For one file of a program, from one thread: setup and teardown are a group's;
 * run_scripts plays scripts and counts the records, last reads the newest back.
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

#include <cmocka.h>

static char dir[64];
static char *journal;
static struct mw_store *store;
static struct mw_capture cap;
static struct mw_fs fs;
static struct mw_outbox outbox;
static atomic_int fail_sync;

static inline int
fs_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	if (atomic_load(&fail_sync))
		return -EIO;
	return mw_fs_posix()->sync(mw_fs_posix(), fd);
}

static inline struct mw_conf *
settings(void)
{
	struct mw_conf *c = NULL;
	MW_BUF_AUTO report = {0};
	if (mw_conf_load(NULL, &c, &report, NULL) < 0)
		fail_msg("%s", mw_buf_cstr(&report));
	c->recipient_limit = 4;
	return c;
}

static inline int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	(void)snprintf(dir, sizeof dir, "/tmp/mw-proxy-XXXXXX");
	if (!mkdtemp(dir) || asprintf(&journal, "%s/j", dir) < 0)
		return -1;
	fs = *mw_fs_posix();
	fs.sync = fs_sync;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .segment_size = 8 << 20};
	int r = mw_store_create(journal, NULL, NULL, &err);
	if (r == 0)
		r = mw_store_open(&o, &store, &err);
	if (r == 0)
		r = mw_capture_init(&cap, store, settings(), &err);
	if (r < 0)
		(void)fprintf(stderr, "%s\n", err.msg);
	else
		mw_outbox_init(&outbox, store, cap.clock);
	return r;
}

static inline int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	mw_outbox_done(&outbox);
	mw_store_close(store);
	mw_capture_done(&cap);
	free(journal);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

/* ---- dialogues ---- */

struct talk {
	struct mw_dialog d;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static inline void
on_done(void *arg)
{
	struct talk *t = arg;
	pthread_mutex_lock(&t->lock);
	t->done = true;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static inline void
commit(struct talk *t)
{
	assert_int_equal(t->d.state, MW_DI_COMMIT);
	pthread_mutex_lock(&t->lock);
	while (!t->done)
		pthread_cond_wait(&t->cond, &t->lock);
	t->done = false;
	pthread_mutex_unlock(&t->lock);
	mw_dialog_committed(&t->d);
}

/* Steps, each "X:text":
 *   c: the client sends text      n: the next server sends text
 *   C: the client was told text   N: the next server was sent text
 *   k: the record's fate is known, text is not used
 *   e: the client's side ends     x: the next server is gone     t: the time is over
 *   s: the daemon ends            q: closed for the client (text "1") or not ("0")
 *   K: the connection may serve another ("1") or not ("0")
 *   R: a new one was asked for in place of a used one, and is made
 *   T: TLS is up with the client, which was to be begun; U: with the next server
 * A '|' stands for CR LF. */
static struct {
	bool tls, next_local, keep, used;
	enum mw_next_tls next_tls;
} with;

/* The connection of a client that has said "EHLO me". */
static inline void
next_used(struct mw_dialog *d, bool lmtp)
{
	struct mw_used u = {0};
	mw_buf_puts(&u.greeting, "220 mx\r\n");
	mw_buf_puts(&u.hello, lmtp ? "LHLO me" : "EHLO me");
	mw_buf_puts(&u.hello_reply, "250-mx\r\n250-XFORWARD NAME\r\n250 CHUNKING\r\n");
	mw_dialog_next_used(d, &u);
	mw_buf_free(&u.greeting);
	mw_buf_free(&u.hello);
	mw_buf_free(&u.hello_reply);
}

static inline void
play(const char *name, bool lmtp, bool trusted, const char *const *steps)
{
	struct talk t = {.lock = PTHREAD_MUTEX_INITIALIZER,
	                 .cond = PTHREAD_COND_INITIALIZER};
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
	                           .arg = &t};
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

static inline uint64_t
mails(void)
{
	struct mw_store_stats st;
	mw_store_stats(store, &st);
	return st.mails;
}

#define HELLO                                                                            \
	"n:220 mx ESMTP|", "C:220 mx ESMTP|", "c:EHLO me.test|", "N:EHLO me.test|",      \
	    "n:250-mx|250-PIPELINING|250 STARTTLS|", "C:250-mx|250 PIPELINING|"
#define LHELLO                                                                           \
	"n:220 mx LMTP|", "C:220 mx LMTP|", "c:LHLO me.test|", "N:LHLO me.test|",        \
	    "n:250 mx|", "C:250 mx|"
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

/* The last message of the journal, through a reader of its own. */
static inline void
last(struct mw_arena *a, struct mw_mail *mail, struct mw_buf *content)
{
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r, found = {0};
	assert_int_equal(mw_store_open(&o, &rd, NULL), 0);
	assert_int_equal(mw_cursor_new(rd, 1, &c, NULL), 0);
	while (mw_cursor_next(c, &r, NULL) > 0)
		if (r.type == MW_TYPE_MAIL)
			found = r;
	assert_int_equal(mw_record_mail(rd, &found, a, mail, NULL), 0);
	assert_int_equal(mw_record_content(rd, &found, mail, 1 << 20, content, NULL), 0);
}

static inline void
str_is(struct mw_str got, const char *want)
{
	if (!mw_str_eq(got, mw_strz(want)))
		fail_msg("\"%.*s\", not \"%s\"", (int)got.n, got.p, want);
}

#endif
