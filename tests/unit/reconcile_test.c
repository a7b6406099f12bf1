/* reconcile_test.c - which copies are there already: tables of copies and stored
 * messages, and the profiles that the later rules compare. */
#include "replay/reconcile.h"
#include "tests/support/dice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define T    INT64_C(1795342272000000)
#define S(n) (T + (n)*INT64_C(1000000))

static struct mw_profile *
profile(const char *text)
{
	struct mw_profiler *f = mw_profiler_new();
	assert_non_null(f);
	(void)mw_profiler_put(f, text, strlen(text));
	struct mw_profile *p = mw_profiler_take(f);
	mw_profiler_free(f);
	assert_non_null(p);
	return p;
}

static uint64_t
id(const char *z)
{
	return *z ? mw_msgid_hash(mw_strz(z)) : 0;
}

struct copy {
	const char *msgid, *queue, *content;
	int64_t at;
	bool sent, unwanted;
};

struct stored {
	const char *msgid, *queue, *content;
	int64_t at, received;
	bool sent;
};

struct scene {
	const char *name;
	struct copy c[5];
	struct stored s[5];
	const char *expect; /* per copy: q f d s o (own sent) - (missing) ? (ambiguous) */
};

#define M1 "Message-ID: <1@x>\r\nSubject: a\r\n\r\nbody one\r\n"
#define M1_STORED                                                                        \
	"Return-Path: <s@x>\nReceived: by y id Q; now\nX-Spam: no\n"                     \
	"Message-ID: <1@x>\nSubject: a\n\nbody one\n"
#define M1_JUDGED                                                                        \
	"Authentication-Results: mx; spf=pass\r\nARC-Seal: i=1; a\r\nX-TUID: q7\r\n" M1
#define M1_REJUDGED                                                                      \
	"Authentication-Results: mx; spf=fail\n dkim=none\nMessage-ID: <1@x>\n"          \
	"ARC-Seal: i=2; b\nSubject: a\nStatus: RO\n\nbody one\n"
#define M1_OTHER   "Message-ID: <1@x>\r\nSubject: a\r\n\r\nbody two\r\n"
#define M1_TAGGED  "Message-ID: <1@x>\r\nSubject: [SPAM] a\r\n\r\nbody one\r\n"
#define M0         "Subject: none\r\n\r\nno id\r\n"
#define M0_STORED  "X-Added: 1\nSubject: none\n\nno id\n"
#define OWN        "Message-ID: <1@x>\r\nDKIM-Signature: z\r\nFrom: me\r\n\r\nmine\r\n"
#define OWN_STORED "Message-ID: <1@x>\r\nBcc: secret\r\nFrom: me\r\n\r\nmine\r\n"

static const struct scene scenes[] = {
    {"an empty box lacks it", {{"<1@x>", "Q", M1, S(0), 0, 0}}, {{0}}, "-"},
    {"the queue ID decides, whatever the content",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "Q", M1_TAGGED, S(5), S(1), 0}},
     "q"},
    {"a queue ID comes round again years later",
     {{"", "Q", M0, S(0), 0, 0}},
     {{"", "Q", M1, S(5), S(-9000000), 0}},
     "-"},
    {"the same queue ID with another Message-ID is another message",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<2@x>", "Q", M1_OTHER, S(5), S(1), 0}},
     "-"},
    {"what a replay put back is known by Message-ID, size and second",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "", M1, S(0), 0, 0}},
     "f"},
    {"equal bytes with another date are equal bytes",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "", M1, S(60), 0, 0}},
     "d"},
    {"added fields and LF line ends do not hide it",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "", M1_STORED, S(60), 0, 0}},
     "s"},
    {"what was judged anew, or synchronised by a client, is the same message",
     {{"<1@x>", "Q", M1_JUDGED, S(0), 0, 0}},
     {{"<1@x>", "", M1_REJUDGED, S(60), 0, 0}},
     "d"},
    {"and so it is with fields added and one of those changed",
     {{"<1@x>", "Q", M1_JUDGED, S(0), 0, 0}},
     {{"<1@x>", "", "X-Spam: no\n" M1_REJUDGED, S(60), 0, 0}},
     "s"},
    {"same Message-ID, other content: put back, and said to be ambiguous",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "", M1_OTHER, S(60), 0, 0}},
     "?"},
    {"a changed subject is contradictory too",
     {{"<1@x>", "Q", M1, S(0), 0, 0}},
     {{"<1@x>", "", M1_TAGGED, S(60), 0, 0}},
     "?"},
    {"two with one Message-ID each find their own",
     {{"<1@x>", "A", M1, S(0), 0, 0}, {"<1@x>", "B", M1_OTHER, S(0), 0, 0}},
     {{"<1@x>", "", M1_OTHER, S(0), 0, 0}},
     "-d"},
    {"an exact copy that came twice is there twice",
     {{"<1@x>", "A", M1, S(0), 0, 0}, {"<1@x>", "B", M1, S(9), 0, 0}},
     {{"<1@x>", "A", M1_STORED, S(1), S(1), 0}},
     "q-"},
    {"an old copy claims its message before a new one",
     {{"<1@x>", "A", M1, S(0), 0, 1}, {"<1@x>", "B", M1, S(9), 0, 0}},
     {{"<1@x>", "", M1_STORED, S(100), 0, 0}},
     "s-"},
    {"the copy put back is the one of its own second, though an older is equal",
     {{"<1@x>", "A", M1, S(0), 0, 1}, {"<1@x>", "B", M1, S(9), 0, 0}},
     {{"<1@x>", "", M1, S(9), 0, 0}},
     "-f"},
    {"no Message-ID: known by its bytes",
     {{"", "A", M0, S(0), 0, 0}},
     {{"", "", M0, S(0), 0, 0}},
     "d"},
    {"no Message-ID, fields added: known by body and subset",
     {{"", "A", M0, S(0), 0, 0}},
     {{"", "", M0_STORED, S(7), 0, 0}},
     "s"},
    {"no Message-ID, one added by the store",
     {{"", "A", M0, S(0), 0, 0}},
     {{"<new@store>", "", "Message-ID: <new@store>\n" M0_STORED, S(7), 0, 0}},
     "s"},
    {"three without Message-ID, two there",
     {{"", "A", M0, S(0), 0, 0}, {"", "B", M0, S(1), 0, 0}, {"", "C", M0, S(2), 0, 0}},
     {{"", "", M0, S(2), 0, 0}, {"", "", M0, S(0), 0, 0}},
     "d-d"},
    {"one's own Sent copy, with Bcc and without signature",
     {{"<1@x>", "A", OWN, S(0), 1, 0}},
     {{"<1@x>", "", OWN_STORED, S(0), 0, 1}},
     "o"},
    {"a Sent copy does not stand in for the INBOX copy",
     {{"<1@x>", "A", M1, S(0), 0, 0}, {"<1@x>", "A", M1, S(0), 1, 0}},
     {{"<1@x>", "", M1, S(0), 0, 1}},
     "-f"},
    {"mail to oneself: both there",
     {{"<1@x>", "A", M1, S(0), 0, 0}, {"<1@x>", "A", M1, S(0), 1, 0}},
     {{"<1@x>", "", M1, S(0), 0, 0}, {"<1@x>", "", M1, S(0), 0, 1}},
     "ff"},
    {"a Sent copy may lie in another folder",
     {{"<1@x>", "A", M1, S(0), 1, 0}},
     {{"<1@x>", "", M1, S(50), 0, 0}},
     "d"},
    {"a queue ID never makes a Sent copy present: the list's copy bears it too",
     {{"<1@x>", "A", M1, S(0), 1, 0}},
     {{"<1@x>", "A", M1_TAGGED, S(1), S(1), 0}},
     "?"},
    {"what a user copied is claimed once",
     {{"<1@x>", "A", M1, S(0), 0, 0}},
     {{"<1@x>", "A", M1_STORED, S(1), S(1), 0}, {"<1@x>", "A", M1_STORED, S(1), S(1), 0}},
     "q"},
};

static void
play(const struct scene *sc)
{
	struct mw_rc_copy c[5] = {0};
	struct mw_rc_stored s[5] = {0};
	struct mw_profile *p[5] = {0};
	size_t n = 0, m = 0;
	for (; n < 5 && sc->c[n].content; n++) {
		p[n] = profile(sc->c[n].content);
		c[n] = (struct mw_rc_copy){.msgid = id(sc->c[n].msgid),
		                           .queue = id(sc->c[n].queue),
		                           .time_us = sc->c[n].at,
		                           .size = strlen(sc->c[n].content),
		                           .digest = p[n]->digest,
		                           .sent = sc->c[n].sent,
		                           .wanted = !sc->c[n].unwanted};
	}
	for (; m < 5 && sc->s[m].content; m++)
		s[m] = (struct mw_rc_stored){.key = m,
		                             .msgid = id(sc->s[m].msgid),
		                             .queue = id(sc->s[m].queue),
		                             .size = strlen(sc->s[m].content),
		                             .date_us = sc->s[m].at,
		                             .received_us = sc->s[m].received,
		                             .sent_folder = sc->s[m].sent};
	assert_true(mw_reconcile_fast(c, n, s, m) >= 0);
	for (size_t i = 0; i < m; i++)
		if (s[i].need)
			s[i].profile = profile(sc->s[i].content);
	assert_true(mw_reconcile_digest(c, n, s, m) >= 0);
	for (size_t i = 0; i < n; i++)
		if (c[i].need)
			c[i].profile = p[i];
	assert_int_equal(mw_reconcile_body(c, n, s, m), 0);
	char got[6] = "";
	for (size_t i = 0; i < n; i++)
		got[i] = c[i].how == MW_RC_MISSING ? (c[i].ambiguous ? '?' : '-')
		                                   : "-qfdso"[c[i].how];
	if (strcmp(got, sc->expect) != 0)
		fail_msg("%s: wanted %s, got %s", sc->name, sc->expect, got);
	for (size_t i = 0; i < 5; i++) {
		free(p[i]);
		free(s[i].profile);
	}
}

static void
each_scene_ends_as_expected(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
		play(&scenes[i]);
}

/* A large box of equal messages must not cost the square of their number. */
static void
many_equal_messages_are_paired_one_to_one(void **state)
{
	(void)state;
	enum {
		N = 20000
	};
	struct mw_rc_copy *c = calloc(N, sizeof *c);
	struct mw_rc_stored *s = calloc(N, sizeof *s);
	struct mw_profile *p = profile(M0);
	for (size_t i = 0; i < N; i++) {
		c[i] = (struct mw_rc_copy){.time_us = S((int64_t)i),
		                           .size = 10,
		                           .digest = p->digest,
		                           .wanted = true};
		s[i] = (struct mw_rc_stored){.key = i,
		                             .size = 10,
		                             .date_us = S(900000),
		                             .received_us = INT64_MIN};
	}
	assert_int_equal(mw_reconcile_fast(c, N, s, N - 1), N - 1);
	for (size_t i = 0; i < N - 1; i++)
		s[i].profile = p;
	assert_int_equal(mw_reconcile_digest(c, N, s, N - 1), 0);
	size_t missing = 0;
	for (size_t i = 0; i < N; i++)
		missing += c[i].how == MW_RC_MISSING;
	assert_int_equal(missing, 1);
	free(c);
	free(s);
	free(p);
}

static void
a_profile_forgets_what_stores_change(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		bool body, ab; /* equal bodies; a's fields in b's */
	} t[] = {
	    {M1, M1_STORED, true, true},
	    {M1_STORED, M1, true, false}, /* one-sided */
	    {M1, M1_OTHER, false, true},
	    {M1, M1_TAGGED, true, false},
	    {"A: 1\r\nA: 1\r\n\r\nx", "A: 1\r\n\r\nx\n\n", true, false},
	    {"A: \xe4\r\n\r\nx", "A: X\n\nx", true, true},
	    {"From s Thu Nov 19 10:00:00 2026\nA: 1\n\nx\n", "A: 1\r\n\r\nx\r\n", true,
	     true},
	    {"A: 1\r\n b\r\n\r\nx", "A: 1\n b\n\nx", true, true},
	    {"\r\nonly body", "\nonly body\n", true, true},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct mw_profile *a = profile(t[i].a), *b = profile(t[i].b);
		assert_int_equal(memcmp(a->body, b->body, sizeof a->body) == 0,
		                 t[i].body);
		if (mw_profile_subset(a, b) != t[i].ab)
			fail_msg("subset %zu", i);
		free(a);
		free(b);
	}
}

static void
a_profile_does_not_depend_on_how_bytes_are_cut(void **state)
{
	(void)state;
	struct mw_profile *whole = profile(M1_STORED);
	struct mw_profiler *f = mw_profiler_new();
	for (const char *z = M1_STORED; *z; z++)
		(void)mw_profiler_put(f, z, 1);
	struct mw_profile *cut = mw_profiler_take(f);
	assert_memory_equal(whole->digest, cut->digest, 32);
	assert_memory_equal(whole->body, cut->body, 16);
	assert_int_equal(whole->n_field, cut->n_field);
	mw_profiler_free(f);
	free(cut);
	free(whole);
}

static bool
known_q(void *arg, uint64_t q)
{
	return q == mw_hash64(mw_strz(arg));
}

struct two {
	struct mw_hop v[2];
	size_t n;
};

static void
on_hop(void *arg, struct mw_hop hop)
{
	struct two *two = arg;
	assert_true(two->n < 2);
	two->v[two->n++] = hop;
}

static void
the_topmost_known_queue_id_is_taken(void **state)
{
	(void)state;
	static const char header[] =
	    "Received: from a by b with LMTP id xyz\n\tfor <c@d>; Sun, 22 Nov 2026 "
	    "10:11:13 +0000\n"
	    "Received: from a (b [1.2.3.4])\n\tby mx (Postfix) with ESMTPS id "
	    "4Xk2Qh1BzZ\n"
	    "\tfor <c@d>; Sun, 22 Nov 2026 10:11:12 +0000 (UTC)\n"
	    "Message-Id:\n <1@x>\n\n";
	struct mw_facts f;
	char want[] = "4Xk2Qh1BzZ", other[] = "nope";
	mw_header_facts(mw_strz(header), known_q, want, &f);
	assert_int_equal(f.queue, mw_hash64(mw_strz(want)));
	assert_int_equal(f.received_us, T);
	assert_int_equal(f.msgid, id("<1@x>"));
	mw_header_facts(mw_strz(header), known_q, other, &f);
	assert_int_equal(f.queue, 0);
	struct two two = {.n = 0};
	assert_int_equal(mw_header_hops(mw_strz(header), on_hop, &two), id("<1@x>"));
	assert_int_equal(two.n, 2);
	assert_int_equal(two.v[0].queue, mw_hash64(MW_STR("xyz")));
	assert_int_equal(two.v[0].us, S(1));
	assert_int_equal(two.v[1].queue, mw_hash64(mw_strz(want)));
	assert_int_equal(two.v[1].us, T);
}

/* ---- without Received fields ---- */

static uint64_t rnd = 7;

static unsigned
any(unsigned n)
{
	return dice_roll(&rnd, n);
}

enum {
	MOST = 6
};

struct world {
	struct mw_rc_copy c[MOST];
	struct mw_rc_stored s[MOST];
	size_t n, m;
};

/* Few Message-IDs, sizes, seconds and queue IDs, so that they meet: some missing, some
 * repeated, list copies, forged Received fields, and what a store has made larger. */
static void
make_world(struct world *w, unsigned queues)
{
	static const uint8_t digest[32];
	memset(w, 0, sizeof *w);
	w->n = 1 + any(MOST);
	w->m = any(MOST + 1);
	for (size_t i = 0; i < w->n; i++)
		w->c[i] = (struct mw_rc_copy){.msgid = any(5),
		                              .queue = any(queues),
		                              .time_us = S(any(2)),
		                              .size = 100 + any(2),
		                              .digest = digest,
		                              .sent = !any(4),
		                              .wanted = any(4) > 0};
	for (size_t j = 0; j < w->m; j++) {
		const struct mw_rc_copy *c = &w->c[any((unsigned)w->n)];
		bool of_it = any(8) > 0;
		w->s[j] = (struct mw_rc_stored){
		    .key = j,
		    .msgid = of_it ? c->msgid : any(5),
		    .queue = any(3) ? (of_it ? c->queue : any(queues)) : 0,
		    .size = of_it ? c->size + (any(5) ? 0 : 40) : 100 + any(2),
		    .date_us = any(20) ? (of_it ? c->time_us : S(any(2))) : INT64_MIN,
		    .received_us = any(10) ? S(any(2)) : INT64_MIN,
		    .sent_folder = of_it ? c->sent : !any(4)};
		if (!w->s[j].queue)
			w->s[j].received_us = INT64_MIN;
	}
}

static bool
all_there(const struct world *w)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->c[i].wanted && w->c[i].how == MW_RC_MISSING)
			return false;
	return true;
}

static void
what_is_there_without_received_fields_is_there_with_them(void **state)
{
	(void)state;
	size_t said = 0, full = 0, plain = 0;
	for (size_t k = 0; k < 300000; k++) {
		struct world with, without;
		unsigned queues = 1 + any(3); /* 1: imported mail, none has one */
		make_world(&with, queues);
		without = with;
		for (size_t j = 0; j < without.m; j++) {
			without.s[j].queue = 0;
			without.s[j].received_us = INT64_MIN;
		}
		int brief =
		    mw_reconcile_brief(without.c, without.n, without.s, without.m);
		assert_true(mw_reconcile_fast(with.c, with.n, with.s, with.m) >= 0);
		bool there = all_there(&with);
		if (brief && !there)
			fail_msg("world %zu: said to be there, and is not", k);
		if (queues == 1 && there != (brief == 1))
			fail_msg("world %zu: nothing has a queue ID, and it matters", k);
		said += brief == 1;
		full += there;
		plain += queues == 1 && there;
	}
	assert_true(said > plain && plain > 1000 && full > said);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_scene_ends_as_expected),
	    cmocka_unit_test(many_equal_messages_are_paired_one_to_one),
	    cmocka_unit_test(a_profile_forgets_what_stores_change),
	    cmocka_unit_test(a_profile_does_not_depend_on_how_bytes_are_cut),
	    cmocka_unit_test(the_topmost_known_queue_id_is_taken),
	    cmocka_unit_test(what_is_there_without_received_fields_is_there_with_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
