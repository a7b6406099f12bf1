/* Sessions as tables of events: what content the journal then holds, byte for byte, and
 * what the MTA is told, in trouble and out of order too. A real journal in a temporary
 * directory; faults through its file table. MW_TEST_THREADS */
#include "tests/support/scripted.h"

#include <stdio.h>
#include <unistd.h>

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(content_is_exact),
	    cmocka_unit_test(content_is_big),
	    cmocka_unit_test(leading_blank_unknown),
	    cmocka_unit_test(order_is_kept),
	    cmocka_unit_test(message_too_large),
	    cmocka_unit_test(disk_trouble),
	    cmocka_unit_test(sync_fails),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
