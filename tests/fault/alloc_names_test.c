/* Names are compared with memory at its end: what cannot be compared is an error, never
 * another's, nor somebody's own. */
#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/plan.h"
#include "replay/recover.h"
#include "replay/select.h"

#include "tests/support/alloc_fail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define LETTERS                                                                          \
	"b\xc3\xbc"                                                                      \
	"cher.example"
#define ALABEL "xn--bcher-kva.example"
#define JOERG  "j\xc3\xb6rg"

static char plus[] = "+", whole[] = "%u", sent[] = "Sent";
static struct mw_conf conf = {.mailbox_name = whole,
                              .recipient_delimiter = plus,
                              .sent_folder = sent};

struct ask {
	struct mw_query q;
	struct mw_mail mail;
	struct mw_arena *arena;
	const char *mailbox;
};

static int
by_match(const struct ask *a)
{
	static const uint8_t id[MW_ID_LEN];
	return mw_query_match(&a->q, &a->mail, id);
}

static int
by_user(const struct ask *a)
{
	return mw_query_is_user(&a->q, a->mail.rcpt[0].addr);
}

static int
by_login(const struct ask *a)
{
	return mw_query_is_login(&a->q, &a->mail);
}

static int
by_copy(const struct ask *a)
{
	return mw_recover_has_copy(&conf, &a->mail, a->mailbox, a->arena);
}

static int
by_plan(const struct ask *a)
{
	struct mw_copy *c;
	size_t n;
	mw_arena_reset(a->arena);
	int r = mw_copies(&conf, &a->mail, a->arena, &c, &n, NULL);
	return r < 0 ? r : mw_plan_named(&conf, &a->q, &c[0], a->arena);
}

/* The answer, or no memory: whichever allocations fail. */
static void
all_ways(int (*asks)(const struct ask *), const struct ask *a, int answer,
         const char *what)
{
	mw_arena_reset(a->arena);
	alloc_fail_at(0, 0);
	int r = asks(a);
	uint64_t all = atomic_load(&alloc_calls), hit = 0;
	(void)alloc_fail_off();
	if (r != answer)
		fail_msg("%s: %d", what, r);
	for (uint64_t n = 1; n <= all + 2; n++)
		for (uint64_t times = 1; times <= 1000; times += 999) {
			alloc_fail_at(n, times);
			r = asks(a);
			hit += alloc_fail_off() > 0;
			if (r != answer && r != MW_ENOMEM)
				fail_msg("%s: allocation %llu: %d", what,
				         (unsigned long long)n, r);
		}
	if (all && !hit)
		fail_msg("%s: nothing failed", what);
}

static void
comparisons(void **state)
{
	static const struct {
		const char *rcpt, *want;
		int answer;
	} cases[] = {
	    {JOERG "+x@" LETTERS, JOERG "@" ALABEL, 1},
	    {"JO\xcc\x88RG@" ALABEL, JOERG "@" LETTERS, 1},
	    {"\"k\\urt\"@" ALABEL, "kurt@" LETTERS, 1},
	    {"kurt@" ALABEL, JOERG "@" LETTERS, 0},
	    {"kurt@strasse.example",
	     "kurt@stra\xc3\x9f"
	     "e.example",
	     0},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_rcpt rcpt = {.addr = mw_strz(cases[i].rcpt),
		                       .flags = MW_RCPT_LOCAL};
		const char *want = cases[i].want, *at = mw_addr_domain(mw_strz(want)).p;
		struct ask x = {.arena = mw_arena_new(0),
		                .mailbox = want,
		                .mail = {.rcpt = &rcpt, .n_rcpt = 1}};
		mw_query_init(&x.q, a);
		mw_query_site(&x.q, &conf);
		x.q.user = &want;
		x.q.n_user = 1;
		all_ways(by_match, &x, cases[i].answer, want);
		all_ways(by_user, &x, cases[i].answer, want);
		all_ways(by_plan, &x, cases[i].answer, want);
		all_ways(by_copy, &x, cases[i].answer, want);
		x.q.n_user = 0;
		x.q.domain = &at;
		x.q.n_domain = 1;
		int of = mw_domain_eq(mw_strz(at), mw_addr_domain(rcpt.addr));
		all_ways(by_match, &x, of, at);
		all_ways(by_plan, &x, of, at);
		x.q.n_domain = 0;
		x.q.sender = &want;
		x.q.n_sender = 1;
		x.mail.sender = mw_str(rcpt.addr.p, rcpt.addr.n);
		all_ways(by_match, &x, mw_addr_eq(rcpt.addr, mw_strz(want)), want);
		x.q.n_sender = 0;
		x.q.n_user = 1;
		x.mail.auth_user = x.mail.sender;
		all_ways(by_login, &x, mw_addr_eq(rcpt.addr, mw_strz(want)), want);
		mw_arena_free(x.arena);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(comparisons)};
	return cmocka_run_group_tests_name("names without memory", tests, NULL, NULL);
}
