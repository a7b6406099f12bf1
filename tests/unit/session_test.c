/* Sessions as tables of events: what the journal then holds, byte for byte, and what the
 * MTA is told. A real journal in a temporary directory; faults through its file table.
 * MW_TEST_THREADS */
#include "milter/session.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "journal/base/util.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static void
use(struct mw_conf *c)
{
	struct mw_err err = {0};
	if (mw_capture_reload(&cap, c, &err) < 0)
		fail_msg("%s", err.msg);
}

static struct mw_conf *
with_domain(const char *name)
{
	struct mw_conf *c = taking_settings();
	c->local_domains.v = calloc(2, sizeof(char *)); /* freed with the settings */
	c->local_domains.v[0] = strdup(name);
	c->local_domains.n = 1;
	return c;
}

static int
setup(void **state)
{
	(void)state;
	return taking_dir() < 0 ? -1 : taking_open(taking_settings());
}

static int
teardown(void **state)
{
	(void)state;
	struct mw_store_stats stats;
	mw_store_stats(store, &stats);
	assert_int_equal(stats.coming, 0); /* each that began was counted out */
	return taking_end();
}

/* ---- a session from a script ---- */

static void
mail(struct mw_session *s, const char *from)
{
	struct mw_str v[] = {mw_strz(from)};
	struct mw_answer a;
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_false(a.refuse);
}

static void
macro(struct mw_session *s, char stage, const char *name, const char *value)
{
	mw_session_macro(s, stage, mw_strz(name), mw_strz(value));
}

/* ---- content ---- */

static void
content_is_exact(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		/* events, each "C…": L name NUL… as 'L' "name:value", N, B text */
		const char *events[8];
		const char *want;
		size_t want_n; /* 0: strlen */
	} cases[] = {
	    {"plain", {"LSubject: x", "N", "Bhi\r\n"}, "Subject: x\r\n\r\nhi\r\n", 0},
	    {"no leading blank", {"LSubject:x", "N", "B"}, "Subject:x\r\n\r\n", 0},
	    {"many and a tab", {"LA:   x", "LB:\tx", "N"}, "A:   x\r\nB:\tx\r\n\r\n", 0},
	    {"trailing blanks", {"LA: x \t", "N"}, "A: x \t\r\n\r\n", 0},
	    {"empty value", {"LA:", "LB: ", "N"}, "A:\r\nB: \r\n\r\n", 0},
	    {"folded with LF", {"LA: x\n\ty\n z", "N"}, "A: x\r\n\ty\r\n z\r\n\r\n", 0},
	    {"folded with CRLF", {"LA: x\r\n y", "N"}, "A: x\r\n y\r\n\r\n", 0},
	    {"mixed folds", {"LA: x\r\n y\n z", "N"}, "A: x\r\n y\r\n z\r\n\r\n", 0},
	    {"lone CR", {"LA: x\ry", "N"}, "A: x\ry\r\n\r\n", 0},
	    {"LF first and last", {"LA:\n x\n", "N"}, "A:\r\n x\r\n\r\n\r\n", 0},
	    {"two LF", {"LA: x\n\ny", "N"}, "A: x\r\n\r\ny\r\n\r\n", 0},
	    {"no headers", {"N", "Bx"}, "\r\nx", 0},
	    {"empty message", {"N"}, "\r\n", 0},
	    {"no end of headers told", {"LA: x", "By"}, "A: x\r\n\r\ny", 0},
	    {"nothing told at all", {NULL}, "\r\n", 0},
	    {"chunks cut in CRLF",
	     {"LA: x", "N", "Bone\r", "B\ntwo\r\n", "B\r", "B\n"},
	     "A: x\r\n\r\none\r\ntwo\r\n\r\n",
	     0},
	    {"body LF stays", {"N", "Ba\nb\n"}, "\r\na\nb\n", 0},
	    {"8-bit", {"LA: \xff\x80", "N", "B\xfe"}, "A: \xff\x80\r\n\r\n\xfe", 0},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_session *s = mw_session_new(&cap);
		mail(s, "<a@b.test>");
		rcpt(s, "<c@d.test>");
		uint64_t body = 0;
		for (size_t k = 0; k < 8 && cases[i].events[k]; k++) {
			struct mw_str e = mw_strz(cases[i].events[k] + 1), name, value;
			switch (cases[i].events[k][0]) {
			case 'L':
				assert_true(mw_str_cut(e, ':', &name, &value));
				assert_int_equal(mw_session_header(s, name, value), 0);
				break;
			case 'N':
				assert_int_equal(mw_session_eoh(s), 0);
				break;
			default:
				assert_int_equal(mw_session_body(s, e.p, e.n), 0);
				body += e.n;
			}
		}
		assert_string_equal(eom(s), "250");
		mw_session_free(s);
		struct got g;
		last(&g);
		if (!mw_str_eq(mw_buf_str(&g.content), mw_strz(cases[i].want)))
			fail_msg("%s: \"%s\"", cases[i].name, mw_buf_cstr(&g.content));
		assert_int_equal(g.mail.size, strlen(cases[i].want));
		assert_int_equal(!!(g.mail.flags & MW_MAIL_NO_BODY), body == 0);
		got_free(&g);
	}
}

static void
content_is_big(void **state)
{
	(void)state;
	enum {
		CHUNK = 65535,
		CHUNKS = 64,
		HEADERS = 3000
	};
	struct mw_session *s = mw_session_new(&cap);
	MW_BUF_AUTO want = {0};
	static char chunk[CHUNK];
	mail(s, "<a@b.test>");
	rcpt(s, "<c@d.test>");
	for (int i = 0; i < HEADERS; i++) {
		char name[32];
		(void)snprintf(name, sizeof name, "X-%d", i);
		assert_int_equal(mw_session_header(s, mw_strz(name), MW_STR(" v")), 0);
		mw_buf_printf(&want, "%s: v\r\n", name);
	}
	memset(chunk, 'h', 60000);
	assert_int_equal(mw_session_header(s, MW_STR("Long"), mw_str(chunk, 60000)), 0);
	mw_buf_puts(&want, "Long:");
	mw_buf_put(&want, chunk, 60000);
	mw_buf_puts(&want, "\r\n\r\n");
	assert_int_equal(mw_session_eoh(s), 0);
	for (int i = 0; i < CHUNKS; i++) {
		mw_random(chunk, sizeof chunk);
		mw_buf_put(&want, chunk, sizeof chunk);
		assert_int_equal(mw_session_body(s, chunk, sizeof chunk), 0);
	}
	assert_string_equal(eom(s), "250");
	mw_session_free(s);
	struct got g;
	last(&g);
	assert_true(mw_str_eq(mw_buf_str(&g.content), mw_buf_str(&want)));
	got_free(&g);
}

static void
leading_blank_unknown(void **state)
{
	(void)state;
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	struct mw_answer a;
	mw_session_exact(s, false);
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_true(a.refuse); /* by default no inexact record is made */
	struct mw_conf *c = taking_settings();
	c->on_failure = MW_ON_FAILURE_ACCEPT;
	use(c);
	mail(s, "<a@b.test>");
	rcpt(s, "<c@d.test>");
	assert_int_equal(mw_session_header(s, MW_STR("A"), MW_STR("x")), 0);
	assert_int_equal(mw_session_header(s, MW_STR("B"), MW_STR("\tx")), 0);
	assert_int_equal(mw_session_header(s, MW_STR("C"), MW_STR("")), 0);
	assert_string_equal(eom(s), "250");
	mw_session_free(s);
	use(taking_settings());
	struct got g;
	last(&g);
	assert_true(g.mail.flags & MW_MAIL_INEXACT);
	str_is(mw_buf_str(&g.content), "A: x\r\nB:\tx\r\nC:\r\n\r\n");
	got_free(&g);
}

/* ---- envelope and facts ---- */

static void
all_facts(void **state)
{
	(void)state;
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str from[] = {MW_STR("<J\xc3\xb6rg@B.test>"), MW_STR("SIZE=10"),
	                        MW_STR("BODY=8BITMIME"), MW_STR("SMTPUTF8")};
	struct mw_str to[] = {MW_STR("<\"a b\"@D.test>"), MW_STR("NOTIFY=NEVER"),
	                      MW_STR("ORCPT=rfc822;x@d.test")};
	struct mw_answer a;
	mw_session_macros(s, 'C');
	macro(s, 'C', "j", "mx.test");
	macro(s, 'C', "{daemon_name}", "smtpd");
	macro(s, 'C', "v", "Postfix 3.7.11");
	mw_session_connect(s, MW_STR("client.test"), '6', 4711,
	                   MW_STR("IPv6:2001:db8::1"));
	mw_session_helo(s, MW_STR("first"));
	mw_session_macros(s, 'H');
	macro(s, 'H', "{tls_version}", "TLSv1.3");
	macro(s, 'H', "{cipher}", "TLS_AES_256_GCM_SHA384");
	mw_session_helo(s, MW_STR("helo.test"));
	mw_session_macros(s, 'M');
	macro(s, 'M', "auth_type", "PLAIN");
	macro(s, 'M', "{auth_authen}", "joerg");
	macro(s, 'M', "{auth_author}", "other@b.test");
	assert_int_equal(mw_session_mail(s, from, 4, true, &a), 0);
	mw_session_macros(s, 'R');
	macro(s, 'R', "{rcpt_mailer}", "local");
	assert_int_equal(mw_session_rcpt(s, to, 3, false, &a), 0);
	macro(s, 'R', "{rcpt_mailer}", "error");
	rcpt(s, "<refused@d.test>");
	rcpt(s, "bare@d.test"); /* no macros this time: not refused */
	macro(s, 'R', "i", "4Xk2Qh1BzZ");
	assert_int_equal(mw_session_data(s), 0);
	macro(s, 'E', "i", "4Xk2Qh1BzZ9");
	assert_string_equal(eom(s), "250");
	struct got g;
	last(&g);
	const struct mw_mail *m = &g.mail;
	str_is(m->queue_id, "4Xk2Qh1BzZ9");
	str_is(m->client_addr, "2001:db8::1");
	str_is(m->client_name, "client.test");
	assert_int_equal(m->client_port, 4711);
	str_is(m->helo, "helo.test");
	str_is(m->tls_version, "TLSv1.3");
	str_is(m->tls_cipher, "TLS_AES_256_GCM_SHA384");
	str_is(m->auth_type, "PLAIN");
	str_is(m->auth_user, "joerg");
	str_is(m->auth_sender, "other@b.test");
	str_is(m->daemon, "smtpd");
	str_is(m->mta, "Postfix 3.7.11");
	str_is(m->hostname, "mx.test");
	str_is(m->front, "milter");
	str_is(m->sender, "J\xc3\xb6rg@B.test");
	str_is(m->sender_args, "SIZE=10 BODY=8BITMIME SMTPUTF8");
	assert_int_equal(m->n_rcpt, 3);
	str_is(m->rcpt[0].addr, "\"a b\"@D.test");
	str_is(m->rcpt[0].args, "NOTIFY=NEVER ORCPT=rfc822;x@d.test");
	str_is(m->rcpt[0].mailer, "local");
	assert_int_equal(m->rcpt[0].flags, MW_RCPT_LOCAL);
	assert_int_equal(m->rcpt[1].flags, MW_RCPT_LOCAL | MW_RCPT_REFUSED);
	str_is(m->rcpt[2].addr, "bare@d.test");
	assert_int_equal(m->rcpt[2].flags, MW_RCPT_LOCAL);
	assert_false(m->flags & MW_MAIL_NON_SMTP);
	got_free(&g);
	/* The next message of the connection: its facts stay, the message's do not. */
	mw_session_macros(s, 'M');
	mail(s, "<>");
	rcpt(s, "<c@d.test>");
	assert_string_equal(eom(s), "250");
	mw_session_free(s);
	last(&g);
	str_is(g.mail.queue_id, "");
	str_is(g.mail.sender, "");
	str_is(g.mail.auth_user, "");
	str_is(g.mail.tls_version, "TLSv1.3");
	str_is(g.mail.hostname, "mx.test");
	got_free(&g);
}

static void
directions(void **state)
{
	(void)state;
	static const struct {
		const char *name, *local, *client, *auth, *from, *to[2], *mailer;
		enum mw_direction want;
		uint32_t flags[2];
	} cases[] = {
	    {"from outside",
	     "d.test",
	     "1.2.3.4",
	     "",
	     "x@y.test",
	     {"a@D.test"},
	     "",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"forged sender",
	     "d.test",
	     "1.2.3.4",
	     "",
	     "a@d.test",
	     {"b@d.test"},
	     "",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"login, outside",
	     "d.test",
	     "1.2.3.4",
	     "ann",
	     "a@d.test",
	     {"x@y.test"},
	     "smtp",
	     MW_DIR_OUT,
	     {0}},
	    {"login, both",
	     "d.test",
	     "1.2.3.4",
	     "ann",
	     "a@d.test",
	     {"b@d.test", "x@y.test"},
	     "",
	     MW_DIR_OUT,
	     {MW_RCPT_LOCAL, 0}},
	    {"login, inside",
	     "d.test",
	     "1.2.3.4",
	     "ann",
	     "a@d.test",
	     {"b@d.test"},
	     "",
	     MW_DIR_INTERNAL,
	     {MW_RCPT_LOCAL}},
	    {"sendmail command",
	     "d.test",
	     "127.0.0.1",
	     "",
	     "a@d.test",
	     {"x@y.test"},
	     "",
	     MW_DIR_OUT,
	     {0}},
	    {"bounce",
	     "d.test",
	     "127.0.0.1",
	     "",
	     "",
	     {"a@d.test"},
	     "",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"content filter",
	     "d.test",
	     "::1",
	     "",
	     "x@y.test",
	     {"a@d.test"},
	     "",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"no domain",
	     "d.test",
	     "1.2.3.4",
	     "",
	     "x@y.test",
	     {"root"},
	     "",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"unset, outside",
	     NULL,
	     "1.2.3.4",
	     "",
	     "x@y.test",
	     {"a@d.test"},
	     "smtp",
	     MW_DIR_IN,
	     {MW_RCPT_LOCAL}},
	    {"unset, login, smtp",
	     NULL,
	     "1.2.3.4",
	     "ann",
	     "a@d.test",
	     {"x@y.test"},
	     "smtp",
	     MW_DIR_OUT,
	     {0}},
	    {"unset, login, lmtp",
	     NULL,
	     "1.2.3.4",
	     "ann",
	     "a@d.test",
	     {"x@y.test"},
	     "lmtp",
	     MW_DIR_INTERNAL,
	     {MW_RCPT_LOCAL}},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		use(cases[i].local ? with_domain(cases[i].local) : taking_settings());
		struct mw_session *s = mw_session_new(&cap);
		mw_session_connect(s, MW_STR("c"), '4', 0, mw_strz(cases[i].client));
		macro(s, 'M', "{auth_authen}", cases[i].auth);
		mail(s, cases[i].from);
		for (int k = 0; k < 2 && cases[i].to[k]; k++) {
			macro(s, 'R', "{rcpt_mailer}", cases[i].mailer);
			rcpt(s, cases[i].to[k]);
		}
		assert_string_equal(eom(s), "250");
		mw_session_free(s);
		struct got g;
		last(&g);
		if (g.mail.direction != cases[i].want)
			fail_msg("%s: %s", cases[i].name,
			         mw_direction_name(g.mail.direction));
		for (size_t k = 0; k < g.mail.n_rcpt; k++)
			if (g.mail.rcpt[k].flags != cases[i].flags[k])
				fail_msg("%s: flags %u", cases[i].name,
				         g.mail.rcpt[k].flags);
		got_free(&g);
	}
	use(taking_settings());
}

static void
many_recipients(void **state)
{
	(void)state;
	enum {
		N = 10000
	};
	struct mw_session *s = mw_session_new(&cap);
	mail(s, "<a@b.test>");
	for (int i = 0; i < N; i++) {
		char to[64];
		(void)snprintf(to, sizeof to, "<user-%d@d.test>", i);
		rcpt(s, to);
	}
	assert_string_equal(eom(s), "250");
	struct got g;
	last(&g);
	assert_int_equal(g.mail.n_rcpt, N);
	str_is(g.mail.rcpt[N - 1].addr, "user-9999@d.test");
	got_free(&g);
	struct mw_conf *c = taking_settings();
	c->recipient_limit = 3;
	use(c);
	for (int told = 0; told < 2; told++) {
		struct mw_answer a;
		struct mw_str v[] = {MW_STR("<x@d.test>")};
		mail(s, "<a@b.test>");
		for (int i = 0; i < 4; i++)
			assert_int_equal(mw_session_rcpt(s, v, 1, told, &a), 0);
		assert_int_equal(a.refuse, told);
		/* told at once: the rest goes on; else the message is refused whole */
		assert_string_equal(eom(s), told ? "250" : "452");
	}
	mw_session_free(s);
	use(taking_settings());
}

/* ---- order, aborts, failures ---- */

static void
order_is_kept(void **state)
{
	(void)state;
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	struct mw_answer a;
	struct got before, after;
	last(&before);
	assert_int_equal(mw_session_rcpt(s, v, 1, false, &a), MW_EPROTO);
	assert_int_equal(mw_session_data(s), MW_EPROTO);
	assert_int_equal(mw_session_header(s, v[0], v[0]), MW_EPROTO);
	assert_int_equal(mw_session_eoh(s), MW_EPROTO);
	assert_int_equal(mw_session_body(s, "x", 1), MW_EPROTO);
	assert_int_equal(mw_session_eom(s, on_done, NULL, &a), MW_EPROTO);
	mw_session_abort(s); /* harmless, twice */
	mw_session_abort(s);
	mw_session_unknown(s, MW_STR("XYZZY"));
	mail(s, "<a@b.test>");
	assert_int_equal(mw_session_rcpt(s, NULL, 0, false, &a), MW_EPROTO);
	assert_int_equal(mw_session_eoh(s), 0);
	assert_int_equal(mw_session_eoh(s), MW_EPROTO);
	assert_int_equal(mw_session_header(s, v[0], v[0]), MW_EPROTO);
	assert_int_equal(mw_session_rcpt(s, v, 1, false, &a), MW_EPROTO);
	mw_session_abort(s);
	uint64_t aborted = atomic_load(&cap.count.aborted);
	mail(s, "<a@b.test>");
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	mail(s, "<second@b.test>"); /* without an abort in between */
	assert_int_equal(atomic_load(&cap.count.aborted), aborted + 1);
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	mw_session_free(s); /* dropped in the middle */
	assert_int_equal(atomic_load(&cap.count.aborted), aborted + 2);
	last(&after);
	assert_int_equal(before.n, after.n);
	got_free(&before);
	got_free(&after);
}

static void
message_too_large(void **state)
{
	(void)state;
	struct mw_conf *c = taking_settings();
	c->message_limit = 100;
	use(c);
	struct mw_session *s = mw_session_new(&cap);
	static const char x[99];
	mail(s, "<a@b.test>");
	assert_int_equal(mw_session_body(s, x, 98), 0); /* and the empty line */
	assert_string_equal(eom(s), "250");
	mail(s, "<a@b.test>");
	assert_int_equal(mw_session_body(s, x, 99), 0);
	assert_int_equal(mw_session_body(s, x, 99), 0);
	assert_string_equal(eom(s), "552");
	mw_session_free(s);
	use(taking_settings());
}

static void
disk_trouble(void **state)
{
	(void)state;
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	struct mw_answer a;
	struct mw_session *s = mw_session_new(&cap);
	/* a full disk refuses at MAIL … */
	atomic_store(&free_mib, 1);
	for (int i = 0; i < 1200 && mw_store_ready(store) == 0; i++)
		(void)usleep(100 * 1000); /* the store looks now and then */
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_true(a.refuse);
	assert_string_equal(a.code, "451");
	assert_string_equal(a.xcode, "4.3.0");
	/* … at the end where MAIL has no reply … */
	assert_int_equal(mw_session_mail(s, v, 1, false, &a), 0);
	assert_false(a.refuse);
	rcpt(s, "<c@d.test>");
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	assert_string_equal(eom(s), "451");
	/* … with 421 where that was chosen … */
	struct mw_conf *c = taking_settings();
	c->on_failure_close = true;
	use(c);
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_string_equal(a.code, "421");
	/* … or lets it pass, counted. */
	c = taking_settings();
	c->on_failure = MW_ON_FAILURE_ACCEPT;
	use(c);
	uint64_t passed = atomic_load(&cap.count.passed_unjournaled);
	mail(s, "<a@b.test>");
	rcpt(s, "<c@d.test>");
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	assert_string_equal(eom(s), "250");
	assert_int_equal(atomic_load(&cap.count.passed_unjournaled), passed + 1);
	use(taking_settings());
	atomic_store(&free_mib, 1 << 20);
	for (int i = 0; i < 1200 && mw_store_ready(store) != 0; i++)
		(void)usleep(100 * 1000);
	mail(s, "<a@b.test>");
	rcpt(s, "<c@d.test>");
	assert_string_equal(eom(s), "250");
	mw_session_free(s);
}

static void
sync_fails(void **state)
{
	(void)state;
	struct mw_session *s = mw_session_new(&cap);
	uint64_t refused = atomic_load(&cap.count.tempfailed);
	mail(s, "<lost@b.test>");
	rcpt(s, "<c@d.test>");
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	atomic_store(&fail_sync, 1);
	assert_string_equal(eom(s), "451");
	assert_int_equal(atomic_load(&cap.count.tempfailed), refused + 1);
	atomic_store(&fail_sync, 0);
	for (int i = 0; i < 1200 && mw_store_ready(store) != 0; i++)
		(void)usleep(100 * 1000);
	mail(s, "<kept@b.test>"); /* a new segment: all is well again */
	rcpt(s, "<c@d.test>");
	assert_int_equal(mw_session_body(s, "x", 1), 0);
	assert_string_equal(eom(s), "250");
	mw_session_free(s);
	struct got g;
	last(&g);
	str_is(g.mail.sender, "kept@b.test");
	got_free(&g);
}

/* Alias tables, one of them on a server: its recipients are expanded later. */
static void
aliases(void **state)
{
	(void)state;
	char *path;
	assert_true(asprintf(&path, "%s/aliases", dir) > 0);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs("info@d.test ann@d.test, bob@far.test\n", f);
	(void)fclose(f);
	for (int dead = 0; dead < 2; dead++) {
		struct mw_conf *c = with_domain("d.test");
		char spec[200];
		(void)snprintf(spec, sizeof spec, "virtual:%s", path);
		c->identities.v = calloc(3, sizeof(char *)); /* freed with the settings */
		c->identities.v[c->identities.n++] = strdup(spec);
		if (dead)
			c->identities.v[c->identities.n++] = strdup("tcp:127.0.0.1:1");
		use(c);
		struct mw_session *s = mw_session_new(&cap);
		mail(s, "<a@b.test>");
		rcpt(s, "<info@d.test>");
		rcpt(s, "<zoe@d.test>");
		assert_string_equal(eom(s), "250");
		mw_session_free(s);
		struct got g;
		last(&g);
		/* a table on a network is not asked before the answer */
		assert_int_equal(g.mail.flags & MW_MAIL_TABLES_FAILED, 0);
		assert_int_equal(g.mail.rcpt[1].flags,
		                 MW_RCPT_LOCAL | (dead ? MW_RCPT_UNDECIDED | MW_RCPT_LATER
		                                       : MW_RCPT_EXPANDED));
		if (!dead) {
			assert_int_equal(g.mail.rcpt[0].n_mailbox, 2);
			str_is(g.mail.rcpt[0].mailbox[0], "ann@d.test");
			str_is(g.mail.rcpt[0].mailbox[1], "bob@far.test");
			str_is(g.mail.rcpt[1].mailbox[0], "zoe@d.test");
		}
		got_free(&g);
	}
	use(taking_settings());
	(void)unlink(path);
	free(path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(content_is_exact),
	    cmocka_unit_test(content_is_big),
	    cmocka_unit_test(leading_blank_unknown),
	    cmocka_unit_test(all_facts),
	    cmocka_unit_test(directions),
	    cmocka_unit_test(many_recipients),
	    cmocka_unit_test(order_is_kept),
	    cmocka_unit_test(message_too_large),
	    cmocka_unit_test(aliases),
	    cmocka_unit_test(disk_trouble),
	    cmocka_unit_test(sync_fails),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
