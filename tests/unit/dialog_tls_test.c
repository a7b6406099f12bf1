/* Dialogues of the proxy with STARTTLS on either side, and with AUTH.
 * MW_TEST_THREADS */
#include "tests/support/talk.h"

static void
tls_and_login(void **state)
{
	(void)state;
	static const struct {
		bool tls, next_local, trusted;
		enum mw_next_tls next_tls;
		struct script s;
	} cases[] = {
#define OFFERS "n:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|"
	    {true,
	     true,
	     false,
	     0,
	     {"STARTTLS, then AUTH with a first word",
	      false,
	      1,
	      {"n:220 mx|",
	       "C:220 mx|",
	       "c:EHLO a|",
	       "N:EHLO a|",
	       OFFERS,
	       "C:250-mx|250-PIPELINING|250 STARTTLS|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "C:538 5.7.11 AUTH needs an encrypted connection|",
	       "c:STARTTLS|",
	       "C:220 2.0.0 Ready to start TLS|",
	       "T:",
	       "c:STARTTLS|",
	       "C:502 5.5.1 STARTTLS is not offered|",
	       "c:EHLO b|",
	       "N:EHLO b|",
	       OFFERS,
	       "C:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "N:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "n:235 2.7.0 Ok|",
	       "C:235 2.7.0 Ok|",
	       MAIL,
	       RCPT("c@d.test"),
	       DATA,
	       "c:x|.|",
	       "k:",
	       "N:x|.|",
	       "n:250 Ok|",
	       "C:250 Ok|",
	       NULL}}},
	    {true,
	     true,
	     true,
	     0,
	     {"AUTH line by line, refused, cancelled, odd",
	      false,
	      0,
	      {"n:220 mx|",
	       "C:220 mx|",
	       "c:EHLO a|",
	       "N:EHLO a|",
	       OFFERS,
	       "C:250-mx|250-AUTH PLAIN LOGIN|250-PIPELINING|250 STARTTLS|",
	       "c:AUTH LOGIN|",
	       "N:AUTH LOGIN|",
	       "n:334 VXNlcm5hbWU6|",
	       "C:334 VXNlcm5hbWU6|",
	       "c:MAIL FROM:<x@y>|",
	       "N:MAIL FROM:<x@y>|",
	       "n:334 UGFzc3dvcmQ6|",
	       "C:334 UGFzc3dvcmQ6|",
	       "c:*|",
	       "N:*|",
	       "n:501 5.7.0 Cancelled|",
	       "C:501 5.7.0 Cancelled|",
	       "c:AUTH PLAIN|",
	       "N:AUTH PLAIN|",
	       "n:354 go|",
	       "C:421 4.3.0 The next server is out of "
	       "step|",
	       "q:1",
	       NULL}}},
	    {true,
	     true,
	     false,
	     0,
	     {"nothing may follow STARTTLS in clear",
	      false,
	      0,
	      {"n:220 mx|", "C:220 mx|", "c:STARTTLS|MAIL FROM:<x@y>|",
	       "C:421 5.5.0 Nothing may follow STARTTLS|", "N:", "q:1", NULL}}},
	    {true,
	     false,
	     false,
	     0,
	     {"no AUTH over a line in clear to the next server",
	      false,
	      0,
	      {"n:220 mx|", "C:220 mx|", "c:STARTTLS|", "C:220 2.0.0 Ready to start TLS|",
	       "T:", "c:EHLO a|", "N:EHLO a|", OFFERS, "C:250-mx|250 PIPELINING|",
	       "c:AUTH PLAIN AGFubmEAc2VjcmV0|",
	       "C:538 5.7.11 AUTH needs an encrypted connection|", "N:", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"TLS to the next server where it can be had",
	      false,
	      0,
	      {"n:220-mx|220 hi|", "C:", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|",
	       "N:STARTTLS|", "n:220 go|", "C:", "U:", "C:220-mx|220 hi|", "c:EHLO a|",
	       "N:EHLO a|", OFFERS, "C:250-mx|250-AUTH PLAIN LOGIN|250 PIPELINING|",
	       NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"and else without",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:502 what|", "C:220 mx|", "q:0", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_ENCRYPT,
	     {"not without",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 XSTARTTLS|",
	       "C:421 4.7.4 The next server cannot be reached safely, try again later|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_VERIFY,
	     {"STARTTLS refused",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:454 later|",
	       "C:421 4.7.4 The next server cannot be reached safely, try again later|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"the next server says more than its 220 in clear",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|250 forged|", "C:421 4.3.0 The next server is out of step|",
	       "q:1", NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_MAY,
	     {"and be it no whole line",
	      false,
	      0,
	      {"n:220 mx|", "N:EHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|250 ", "C:421 4.3.0 The next server is out of step|", "q:1",
	       NULL}}},
	    {false,
	     false,
	     true,
	     MW_NEXT_TLS_ENCRYPT,
	     {"LMTP says LHLO",
	      true,
	      0,
	      {"n:220 mx|", "N:LHLO HOST|", "n:250-mx|250 STARTTLS|", "N:STARTTLS|",
	       "n:220 go|", "U:", "C:220 mx|", NULL}}},
#undef OFFERS
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		uint64_t before = mails();
		with.tls = cases[i].tls;
		with.next_local = cases[i].next_local;
		with.next_tls = cases[i].next_tls;
		play(cases[i].s.name, cases[i].s.lmtp, cases[i].trusted,
		     cases[i].s.steps);
		if (mails() - before != cases[i].s.journaled)
			fail_msg("%s: %u records", cases[i].s.name,
			         (unsigned)(mails() - before));
	}
	memset(&with, 0, sizeof with);
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO content = {0};
	struct mw_mail m;
	last_mail(a, &m, &content);
	str_is(m.auth_user, "anna");
	str_is(m.tls_version, "TLSv1.3");
	str_is(m.tls_cipher, "TLS_AES_256_GCM_SHA384");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tls_and_login),
	};
	mw_log_open("test", false, (enum mw_level)0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
