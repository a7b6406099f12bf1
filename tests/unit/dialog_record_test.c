/* Dialogues of the proxy, and what the journal holds of them: envelope, facts, content,
 * and what became of each recipient.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

static void
what_is_recorded(void **state)
{
	(void)state;
	static const char *const steps[] = {
	    "n:220 mx|", "c:EHLO proxy.test|", "n:250-mx|250 XFORWARD NAME ADDR PORT|",
	    "c:XFORWARD NAME=cli+20ent.test ADDR=IPv6:2001:db8::1 PORT=25 "
	    "HELO=me.test IDENT=Q77|",
	    "n:250 Ok|", "c:MAIL FROM:<a@b.test> SIZE=9 SMTPUTF8|", "n:250 Ok|",
	    "c:RCPT TO:<c@d.test> NOTIFY=NEVER|", "n:250 Ok|", "c:RCPT TO:<no@d.test>|",
	    "n:550 no|", "c:DATA|", "n:354 go|", "c:A: b||..x\ry|.|", "k:", "n:250 Ok|",
	    /* the next message is nobody's from there */
	    NULL};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO content = {0};
	struct mw_mail m;
	play("record", false, true, steps);
	last_mail(a, &m, &content);
	str_is(mw_buf_str(&content), "A: b\r\n\r\n.x\ry\r\n");
	str_is(m.front, "smtp");
	str_is(m.queue_id, "Q77");
	str_is(m.client_name, "cli ent.test");
	str_is(m.client_addr, "2001:db8::1");
	assert_int_equal(m.client_port, 25);
	str_is(m.helo, "me.test");
	str_is(m.daemon, "inet:here");
	str_is(m.sender, "a@b.test");
	str_is(m.sender_args, "SIZE=9 SMTPUTF8");
	assert_int_equal(m.n_rcpt, 2);
	str_is(m.rcpt[0].addr, "c@d.test");
	str_is(m.rcpt[0].args, "NOTIFY=NEVER");
	assert_int_equal(m.rcpt[0].flags & MW_RCPT_REFUSED, 0);
	str_is(m.rcpt[1].addr, "no@d.test");
	assert_int_equal(m.rcpt[1].flags & MW_RCPT_REFUSED, MW_RCPT_REFUSED);
	assert_int_equal(m.flags, 0);

	static const char *const lmtp[] = {
	    LHELLO,
	    MAIL,
	    RCPT("c@d"),
	    DATA,
	    "c:Received: by mx (Postfix) with ESMTP id 4Xk2;|\tnow|A: b||x|.|",
	    "k:",
	    "n:250 Ok|",
	    NULL};
	play("record of LMTP", true, true, lmtp);
	mw_buf_clear(&content);
	last_mail(a, &m, &content);
	str_is(m.front, "lmtp");
	str_is(m.queue_id, "4Xk2");
	str_is(m.client_addr, "");
	assert_int_equal(m.flags, 0);

	static const char *const empty[] = {ALL, "c:.|", "k:", "n:250 Ok|", NULL};
	play("empty message", false, false, empty);
	mw_buf_clear(&content);
	last_mail(a, &m, &content);
	assert_int_equal(m.size, 0);
	str_is(m.client_addr, "192.0.2.1");
	assert_int_equal(m.client_port, 4711);
	str_is(m.helo, "me.test");
}

/* The outcomes of the journal's last OUTCOME record. */
static void
last_outcome(struct mw_arena *a, struct mw_outcome *ret)
{
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	MW_BUF_AUTO meta = {0};
	struct mw_record r, found = {0}, mail = {0};
	struct mw_outcomes all;
	struct mw_commit done;
	mw_outbox_flush(&outbox);
	/* what was submitted before this is on disk after it */
	assert_int_equal(mw_store_note(store, MW_TYPE_AUDIT, 1, "\xa0", 1, &done, NULL),
	                 0);
	assert_int_equal(mw_store_open(&o, &rd, NULL), 0);
	assert_int_equal(mw_cursor_new(rd, 1, &c, NULL), 0);
	while (mw_cursor_next(c, &r, NULL) > 0) {
		if (r.type == MW_TYPE_OUTCOME)
			found = r;
		if (r.type == MW_TYPE_MAIL)
			mail = r;
	}
	assert_int_equal(found.type, MW_TYPE_OUTCOME);
	assert_int_equal(mw_record_meta(rd, &found, &meta, NULL), 0);
	assert_int_equal(mw_outcomes_decode(meta.p, meta.n, a, &all, NULL), 0);
	assert_true(all.n >= 1);
	*ret = all.v[all.n - 1]; /* the latest of the second */
	assert_memory_equal(ret->id, mail.id, MW_ID_LEN);
	assert_int_equal(ret->seq, mail.seq);
}

static void
outcomes_are_recorded(void **state)
{
	(void)state;
	static const char *const lmtp[] = {LHELLO,
	                                   MAIL,
	                                   RCPT("a@d"),
	                                   RCPT("b@d"),
	                                   RCPT("c@d"),
	                                   DATA,
	                                   "c:x|.|",
	                                   "k:",
	                                   "n:250 2.0.0 Saved|",
	                                   "n:452 4.2.2 full|",
	                                   "n:550-5.1.1 no|550 such|",
	                                   NULL};
	static const char *const refused[] = {ALL, "c:x|.|", "k:", "n:554 5.7.1 no|",
	                                      NULL};
	/* The dot did not go out: it was never taken. */
	static const char *const early[] = {ALL, "c:x|.|", "n:554 5.7.1 no|", "k:", NULL};
	static const char *const gone[] = {LHELLO,   MAIL, RCPT("a@d"), RCPT("b@d"), DATA,
	                                   "c:x|.|", "x:", "k:",        NULL};
	static const char *const taken[] = {ALL, "c:x|.|",
	                                    "k:", "n:250 2.0.0 Ok: queued as Q9|", NULL};
	static const struct {
		const char *addr, *dsn, *text;
		enum mw_fact fact;
	} want[] = {
	    {"a@d", "2.0.0", "250 2.0.0 Saved", MW_FACT_DELIVERED},
	    {"b@d", "4.2.2", "452 4.2.2 full", MW_FACT_DEFERRED},
	    {"c@d", "5.1.1", "550-5.1.1 no\r\n550 such", MW_FACT_BOUNCED},
	};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_outcome o;
	play("outcome of LMTP", true, true, lmtp);
	last_outcome(a, &o);
	assert_int_equal(o.n_rcpt, 3);
	assert_int_equal(o.whole, 0);
	for (size_t i = 0; i < MW_COUNT(want); i++) {
		str_is(o.rcpt[i].addr, want[i].addr);
		str_is(o.rcpt[i].dsn, want[i].dsn);
		str_is(o.rcpt[i].text, want[i].text);
		str_is(o.rcpt[i].relay, "inet:there");
		assert_int_equal(o.rcpt[i].fact, want[i].fact);
	}
	play("refused", false, true, refused);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("refused while the record is written", false, true, early);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("lost while the record is written", true, true, gone);
	last_outcome(a, &o);
	assert_int_equal(o.whole, MW_FACT_REFUSED);
	play("taken", false, true, taken);
	last_outcome(a, &o);
	assert_int_equal(o.whole, 0);
	assert_int_equal(o.n_rcpt, 1);
	assert_int_equal(o.rcpt[0].fact, MW_FACT_UNKNOWN);
	str_is(o.rcpt[0].text, "250 2.0.0 Ok: queued as Q9");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_recorded),
	    cmocka_unit_test(outcomes_are_recorded),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
