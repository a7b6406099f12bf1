/* A client or a next server that runs ahead, sends in crumbs, does not read or does not
 * answer makes the proxy wait, not grow.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

enum {
	READ = 16 * 1024,           /* what one read of a socket takes at most */
	AHEAD = 64 * 1024 + READ,   /* of the client, not yet understood */
	BEHIND = 256 * 1024 + READ, /* for the next server, not yet taken */
	LONG_REPLY = 2000
};

/* What a session holds of either side. */
static size_t
held_by(const struct mw_dialog *d)
{
	const struct mw_buf *all[] = {&d->to_client, &d->to_next, &d->in,
	                              &d->reply_in,  &d->reply,   &d->line,
	                              &d->content,   &d->head,    &d->held};
	size_t n = 0;
	for (size_t i = 0; i < MW_COUNT(all); i++)
		n += all[i]->cap;
	return n;
}

struct pressed {
	struct talk t;
	size_t most;   /* held_by */
	bool reads;    /* the client */
	char *reply;   /* of the next server to each command; NULL: it does not answer */
	bool takes;    /* it reads at all */
	unsigned said; /* commands it had */
	unsigned told; /* replies the client had */
	char line[8];  /* the start of the command that comes */
	size_t n_line;
};

/* How many commands end in these bytes; BDAT ends with its one byte. */
static unsigned
commands_in(struct pressed *p, const struct mw_buf *b)
{
	unsigned n = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (p->n_line < sizeof p->line)
			p->line[p->n_line++] = (char)b->p[i];
		bool chunk = p->n_line == sizeof p->line &&
		             memcmp(p->line, "BDAT 1\r\n", sizeof p->line) == 0;
		if (chunk ? b->p[i] == 'x' : b->p[i] == '\n') {
			n++;
			p->n_line = 0;
		}
	}
	return n;
}

static unsigned
lines_of(const struct mw_buf *b)
{
	unsigned n = 0;
	for (size_t i = 0; i < b->n; i++)
		n += b->p[i] == '\n';
	return n;
}

/* What the sockets would do now. */
static void
pass_on(struct pressed *p)
{
	struct mw_dialog *d = &p->t.d;
	for (bool more = true; more;) {
		more = false;
		p->most = MW_MAX(p->most, held_by(d));
		if (p->takes && d->to_next.n) {
			unsigned n = commands_in(p, &d->to_next);
			mw_buf_clear(&d->to_next);
			p->said += n;
			for (; p->reply && n; n--, more = true)
				mw_dialog_next(d, p->reply, strlen(p->reply));
		}
		p->most = MW_MAX(p->most, held_by(d));
		if (p->reads && d->to_client.n) {
			p->told += lines_of(&d->to_client);
			mw_buf_clear(&d->to_client);
			mw_dialog_flushed(d);
			more = true;
		}
	}
}

/* A session at the point where RCPT is to come. */
static void
begin(struct pressed *p)
{
	static const char *const steps[] = {"n220 mx\r\n", "cEHLO me\r\n",
	                                    "n250-mx\r\n250 CHUNKING\r\n",
	                                    "cMAIL FROM:<a@b.test>\r\n", "n250 Ok\r\n"};
	struct mw_dialog_opts o = {.cap = &cap,
	                           .outbox = &outbox,
	                           .on = "inet:here",
	                           .next = "inet:there",
	                           .peer = MW_STR("192.0.2.1"),
	                           .done = on_done,
	                           .arg = &p->t.w};
	p->t.w = (struct waiter)MW_WAITER;
	assert_int_equal(mw_dialog_init(&p->t.d, &o, NULL), 0);
	for (size_t i = 0; i < MW_COUNT(steps); i++) {
		size_t n = strlen(steps[i]) - 1;
		if (steps[i][0] == 'c')
			mw_dialog_client(&p->t.d, steps[i] + 1, n);
		else
			mw_dialog_next(&p->t.d, steps[i] + 1, n);
	}
	assert_true(p->t.d.open);
	mw_buf_clear(&p->t.d.to_client);
	mw_buf_clear(&p->t.d.to_next);
	p->takes = true;
}

/* Sends as long as that is welcome, in reads of a socket; how much of it. */
static size_t
send_ahead(struct pressed *p, const char *text, size_t n)
{
	size_t at = 0;
	while (at < n && mw_dialog_hungry(&p->t.d) && !p->t.d.close_client) {
		size_t k = MW_MIN(n - at, (size_t)READ);
		mw_dialog_client(&p->t.d, text + at, k);
		at += k;
		pass_on(p);
	}
	return at;
}

static void
repeat(struct mw_buf *b, const char *text, unsigned times)
{
	while (times--)
		mw_buf_puts(b, text);
	assert_int_equal(mw_buf_ok(b), 0);
}

static void
crumbs_of_bdat(void **state)
{
	(void)state;
	enum {
		CHUNKS = 30000
	};
	char ok[] = "250 2.0.0 Ok\r\n";
	struct pressed p = {.reads = true, .reply = ok};
	MW_BUF_AUTO all = {0};
	uint64_t before = mails();
	begin(&p);
	repeat(&all, "RCPT TO:<c@d.test>\r\n", 1);
	repeat(&all, "BDAT 1\r\nx", CHUNKS);
	mw_buf_puts(&all, "BDAT 0 LAST\r\n");
	assert_int_equal(send_ahead(&p, (char *)all.p, all.n), all.n);
	assert_int_equal(p.t.d.state, MW_DI_COMMIT);
	commit(&p.t);
	pass_on(&p);
	assert_int_equal(p.told, CHUNKS + 2);
	print_message("%zu bytes at most\n", p.most);
	assert_true(p.most < 2 * AHEAD);
	assert_int_equal(mails() - before, 1);
	mw_dialog_free(&p.t.d);
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO content = {0};
	struct mw_mail m;
	last_mail(a, &m, &content);
	assert_int_equal(content.n, CHUNKS);
	for (size_t i = 0; i < content.n; i++)
		assert_int_equal(content.p[i], 'x');
}

/* Long replies to short commands, and nobody who reads them. */
static void
a_client_that_does_not_read(void **state)
{
	(void)state;
	static const char *const ahead[] = {"RCPT TO:<c@d.test>\r\n", "BDAT 1\r\nx",
	                                    "RSET\r\nMAIL FROM:<a@b.test>\r\n"};
	char reply[LONG_REPLY + 200];
	size_t n = 0;
	while (n < LONG_REPLY)
		n += (size_t)snprintf(reply + n, 120, "250-%090d\r\n", 0);
	(void)snprintf(reply + n, 120, "250 Ok\r\n");
	for (size_t i = 0; i < MW_COUNT(ahead); i++) {
		struct pressed p = {.reply = reply};
		MW_BUF_AUTO all = {0};
		begin(&p);
		cap.settings->conf->recipient_limit = 100000;
		if (i == 1)
			mw_dialog_client(&p.t.d, "RCPT TO:<c@d.test>\r\n", 20);
		pass_on(&p);
		repeat(&all, ahead[i], 20000);
		size_t sent = send_ahead(&p, (char *)all.p, all.n);
		print_message("%zu bytes at most, %u commands went on\n", p.most, p.said);
		assert_true(sent < all.n);
		assert_true(p.most < 6 * AHEAD);
		/* once it reads all goes on, from where it stood */
		p.reads = true;
		pass_on(&p);
		while (sent < all.n && !p.t.d.close_client) {
			size_t k = send_ahead(&p, (char *)all.p + sent, all.n - sent);
			assert_true(k > 0);
			sent += k;
		}
		if (i < 2) /* RSET again and again leads to no message */
			assert_int_equal(p.said, i == 0 ? 20000 : 20001);
		else
			assert_true(p.t.d.close_client);
		cap.settings->conf->recipient_limit = 4;
		mw_dialog_free(&p.t.d);
	}
}

/* It has said what it wanted and shut its side down: what waits is still done. */
static void
an_end_behind_unread_replies(void **state)
{
	(void)state;
	char reply[LONG_REPLY + 200];
	size_t n = 0;
	while (n < LONG_REPLY)
		n += (size_t)snprintf(reply + n, 120, "250-%090d\r\n", 0);
	(void)snprintf(reply + n, 120, "250 Ok\r\n");
	struct pressed p = {.reply = reply};
	MW_BUF_AUTO all = {0};
	begin(&p);
	cap.settings->conf->recipient_limit = 100000;
	repeat(&all, "RCPT TO:<c@d.test>\r\n", 700);
	size_t sent = send_ahead(&p, (char *)all.p, all.n);
	assert_int_equal(sent, all.n);
	mw_dialog_client_eof(&p.t.d);
	assert_false(p.t.d.close_client);
	assert_true(p.said < 700);
	p.reads = true;
	pass_on(&p);
	assert_int_equal(p.said, 700);
	assert_true(p.t.d.close_client);
	cap.settings->conf->recipient_limit = 4;
	mw_dialog_free(&p.t.d);
}

static void
a_next_server_that_does_not_answer(void **state)
{
	(void)state;
	struct pressed p = {.reads = true};
	MW_BUF_AUTO all = {0};
	begin(&p);
	repeat(&all, "RCPT TO:<c@d.test>\r\n", 20000);
	assert_true(send_ahead(&p, (char *)all.p, all.n) <= AHEAD);
	assert_int_equal(p.said, 1);
	assert_true(p.most < 3 * AHEAD);
	mw_dialog_free(&p.t.d);
}

static void
a_next_server_that_does_not_read(void **state)
{
	(void)state;
	for (unsigned bdat = 0; bdat < 2; bdat++) {
		char ok[] = "354 Ok\r\n", chunk[] = "BDAT 2000000000\r\n";
		struct pressed p = {.reads = true};
		MW_BUF_AUTO all = {0};
		begin(&p);
		mw_dialog_client(&p.t.d, "RCPT TO:<c@d.test>\r\n", 20);
		mw_dialog_next(&p.t.d, "250 Ok\r\n", 8);
		if (bdat) {
			mw_dialog_client(&p.t.d, chunk, sizeof chunk - 1);
		} else {
			mw_dialog_client(&p.t.d, "DATA\r\n", 6);
			mw_dialog_next(&p.t.d, ok, sizeof ok - 1);
		}
		p.takes = false;
		repeat(&all, "0123456789\r\n", 200000);
		assert_true(send_ahead(&p, (char *)all.p, all.n) <= BEHIND);
		print_message("%zu bytes at most\n", p.most);
		assert_true(p.most < 3 * BEHIND);
		assert_false(p.t.d.close_client);
		mw_dialog_free(&p.t.d);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(crumbs_of_bdat),
	    cmocka_unit_test(a_client_that_does_not_read),
	    cmocka_unit_test(an_end_behind_unread_replies),
	    cmocka_unit_test(a_next_server_that_does_not_answer),
	    cmocka_unit_test(a_next_server_that_does_not_read),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
