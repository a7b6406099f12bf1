/* Sessions: what the journal then holds of envelope and connection: facts, directions,
 * recipients, and what alias tables make of them. A real journal in a temporary
 * directory. MW_TEST_THREADS */
#include "tests/support/scripted.h"

#include <stdio.h>
#include <unistd.h>

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
	    cmocka_unit_test(all_facts),
	    cmocka_unit_test(directions),
	    cmocka_unit_test(many_recipients),
	    cmocka_unit_test(aliases),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
